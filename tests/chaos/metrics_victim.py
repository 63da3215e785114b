"""What loads ClickHouse, as a process that can be made to die: `python -m tests.chaos.metrics_victim LAKE URL POINT TIMES SEED`.

Here: it follows the live batches and, now and then, loads some hours anew, until nothing is left to follow.
"""

import os
import random
import signal
import sys

from assets.followers import Follower
from assets.lake import Lake, Window
from assets.metrics import loader
from assets.metrics.client import connect


def main(root: str, url: str, point: str, times: str, seed: str) -> None:
    """Die of SIGKILL when `point` is passed for the `times`-th time."""
    lake, dice, left = Lake(root), random.Random(int(seed)), int(times)

    def probe(at: str) -> None:
        nonlocal left
        left -= at == point
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    client = connect(url, wait_s=20)
    loader.load_missing(lake, client)

    def take(lake, moment):
        loader.append_moment(lake, client, moment, probe)
        if dice.random() < 0.3:
            hours = lake.hours("events")
            start = dice.randrange(len(hours))
            hour = hours[start]
            loader.load_window(lake, client, Window(hour, hour + 3 * loader.ONE_HOUR), probe=probe)

    follower = Follower(lake, "clickhouse", take, by="live")
    while follower.step():
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
