"""The process that outlives `up` by seconds: it waits until `up` is gone, however it went, and ends what that has left.

    python -m dagster_project.keeper RUN FOLDER < PIPE

`up` alone holds the other end of the pipe: SIGKILL closes it like any end. FOLDER is where the services met; it is removed.
In a session of its own and deaf to the signals that end `up`, so that who kills `up`'s group does not kill it too.
Here: only that; it loads nothing that could fail. Not here: how processes are found and ended (processes.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys

from dagster_project.processes import CLICKHOUSE, marked, sweep

GRACE_SECONDS = 3.0  # the services are crash-safe: a killed `up` is to leave nothing, soon


def main(run: str, folder: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    while os.read(sys.stdin.fileno(), 1):
        pass
    last = f"{run}/{CLICKHOUSE}"
    clickhouse = {process.pid for process in marked(last)}
    sweep(lambda: [process for process in marked(run) if process.pid not in clickhouse], GRACE_SECONDS)
    sweep(lambda: marked(run), GRACE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
