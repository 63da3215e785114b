"""The live labeler as a process that can be made to die: `python -m tests.chaos.victim LAKE LANDING POINT TIMES ONCE LIMIT`.

Here: nothing but the start, so that it imports no more than the labeler does.
"""

import os
import resource
import signal
import sys
from pathlib import Path

from assets.attribution import live
from assets.attribution.rules import Rules
from assets.lake import Lake

SNAPSHOT_BATCHES = 4


def main(root: str, landing: str, point: str, times: str, once: str, limit: str) -> None:
    """Label; die of SIGKILL when `point` is passed for the `times`-th time. limit: bytes a file may have, 0 for any."""
    if int(limit):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails with EFBIG, as one on a full disk fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    left = int(times)

    def probe(at: str) -> None:
        nonlocal left
        left -= at == point
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    live.run(
        Lake(root), Path(landing), Rules(), 0.02, live.stop_on_signals(), once=once == "once", probe=probe,
        snapshot_batches=SNAPSHOT_BATCHES, batch_bytes=1,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
