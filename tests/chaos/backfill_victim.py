"""A backfill as a process that can be made to die: `python -m tests.chaos.backfill_victim LAKE URL VERB ARGUMENT POINT TIMES`.

VERB plan with ARGUMENT "FROM TO", apply or undo with ARGUMENT a plan's id. Prints the plan's id at its end.
"""

import datetime as dt
import os
import signal
import sys

from assets.attribution.rules import Rules
from assets.backfill.plan import plan
from assets.backfill.swap import apply, undo
from assets.lake import Lake, Window
from assets.metrics.client import connect

RULES = Rules(like_stay=dt.timedelta(minutes=4), valid_click_dwell=dt.timedelta(milliseconds=300), version="chaos")


def main(root: str, url: str, verb: str, argument: str, point: str, times: str) -> None:
    """Die of SIGKILL when `point` is passed for the `times`-th time."""
    left = int(times)

    def probe(at: str) -> None:
        nonlocal left
        left -= at == point
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    lake = Lake(root)
    if verb == "plan":
        found = plan(lake, Window(*(dt.datetime.fromisoformat(one) for one in argument.split())), RULES, probe=probe)
    else:
        found = {"apply": apply, "undo": undo}[verb](lake, argument, connect(url, wait_s=20), probe=probe)
    print(found["plan"])


if __name__ == "__main__":
    main(*sys.argv[1:])
