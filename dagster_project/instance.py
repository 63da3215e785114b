"""Dagster's own storage: where it lies and how it is configured.

Here: DAGSTER_HOME below the home folder, with its dagster.yaml. Not here: jobs, assets.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from assets.commits import write_durably
from dagster_project.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

# One run at a time: two runs would start two Spark sessions on two cores, and could replace the same window.
DAGSTER_YAML = """\
nux:
  enabled: false
telemetry:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 1
run_monitoring:
  enabled: true
# One run over hundreds of partitions writes thousands of asset events; Dagster's own class commits each of them twice.
event_log_storage:
  module: dagster_project.event_log
  class: BatchedSqliteEventLog
  config:
    base_dir: {events}
"""


MADE = "storage_made"  # stands in the home once its databases do


def prepare(settings: Settings) -> str:
    """Make the Dagster home: a dagster.yaml unless there is one, and its databases; returns its path.

    Dagster makes its SQLite files on first use, and its processes trip over each other there: with `make up` on a new home
    five would begin at once, some fail, and a database stamped by two ("more than one head present") can never be opened
    again (dagster-io/dagster#27390). Hence one makes them while the others wait.
    """
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "storage.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        config, made = home / "dagster.yaml", home / MADE
        if not config.exists():
            write_durably(config, DAGSTER_YAML.format(events=_quoted(home / EVENTS)).encode())
        _stay_home(config)
        if not made.exists():
            _make_storage(home)
            made.touch()
    return str(home)


EVENTS = Path("history", "runs")  # below the Dagster home
_BASE_DIR = re.compile(r"(?m)^(\s+class:\s*BatchedSqliteEventLog\s*\n\s+config:\s*\n\s+base_dir:\s*)(\S.*)$")


def _stay_home(config: Path) -> None:
    """A home that was copied or moved still names the folder that it was made in: it keeps its log in its own.

    One that a user has put elsewhere, outside any Dagster home, stays there.
    """
    import yaml

    text, events = config.read_text(), config.parent / EVENTS
    found = _BASE_DIR.search(text)
    named = yaml.safe_load(found[2]) if found else None
    if not isinstance(named, str) or Path(named) == events or Path(named).parts[-3:] != events.parts[-3:]:
        return
    write_durably(config, (text[: found.start(2)] + _quoted(events) + text[found.end(2) :]).encode())
    print(f"{config}: the home was copied or moved; its event log is {events} from now on, no longer {named}", flush=True)


def _quoted(path: Path) -> str:
    """A path as YAML, which knows no pairs of surrogates as JSON writes them."""
    return json.dumps(str(path), ensure_ascii=False)


def run_database(settings: Settings) -> Path | None:
    """The SQLite file of runs and daemons' heartbeats; None where a dagster.yaml of the user's own names another storage."""
    import yaml

    found = yaml.safe_load((settings.dagster_home / "dagster.yaml").read_text()) or {}
    return None if {"storage", "run_storage"} & set(found) else settings.dagster_home / "history" / "runs.db"


def _make_storage(home: Path) -> None:
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(home)):
        pass


def open_instance(settings: Settings) -> DagsterInstance:
    """The instance that the UI shows too; runs that the command line starts are kept there."""
    from dagster import DagsterInstance

    os.environ["DAGSTER_HOME"] = prepare(settings)  # Dagster's own setting, read by the processes it starts
    return DagsterInstance.get()
