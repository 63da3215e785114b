"""Dagster's code server for `up`: before it starts, the runs that went with the one before are told of.

    python -m dagster_project.code_server SOCKET ARGUMENT... of `dagster code-server start`

A run's process is a child of the code server, and the supervisor ends what a process had started. Dagster itself does not look for
the processes of runs that its own launcher started: such a run would count as running for ever, and as only one may run at a time,
no other would begin. Here: only that. Not here: what runs do.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path

from dagster_project.instance import open_instance, run_database
from dagster_project.settings import Settings, load

GOING = ("STARTING", "STARTED", "CANCELING")


def end_orphans(settings: Settings, socket: str) -> list[str]:
    """Report as failed the runs that a code server at a socket of this name had started; returns their ids."""
    database = run_database(settings)
    if database is not None and not _any_going(database):  # nearly always; Dagster takes seconds to load
        return []
    import json

    from dagster import DagsterRunStatus, RunsFilter
    from dagster._core.storage.tags import GRPC_INFO_TAG

    ended = []
    with open_instance(settings) as instance:
        for run in instance.get_runs(RunsFilter(statuses=[DagsterRunStatus[name] for name in GOING])):
            where = json.loads(run.tags.get(GRPC_INFO_TAG) or "{}").get("socket") or ""
            if Path(where).name == Path(socket).name:  # not one of `dagster dev`, or of this project's own command line
                instance.report_run_failed(run, "Its process ended together with the code server that had started it; launch the run again.")
                ended.append(run.run_id)
    return ended


def _any_going(database: Path) -> bool:
    marks = ", ".join("?" * len(GOING))
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as found:
        return found.execute(f"SELECT 1 FROM runs WHERE status IN ({marks}) LIMIT 1", GOING).fetchone() is not None
    return True


def main(socket: str, *arguments: str) -> None:
    for run_id in end_orphans(load(), socket):
        print(f"run {run_id} had lost its process and counts as failed now; launch it again", flush=True)
    dagster = str(Path(sys.executable).parent / "dagster")
    os.execv(dagster, [dagster, "code-server", "start", "-s", socket, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
