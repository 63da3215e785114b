"""Kills while ClickHouse is being loaded: `python -m tests.chaos.metrics [--kills N]`, `make chaos-metrics`.

Here: the loader killed at each point of a batch and of a window's load, ClickHouse itself killed while it inserts, each
time started again, until everything is in; then every table and every aggregate is compared with Delta. A reader counts all the
time: what was visible once never goes. Not here: the live labeler's own chaos (live.py).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from assets.attribution import live
from assets.attribution.rules import Rules
from assets.followers import read_cursor
from assets.lake import Lake, Window
from assets.metrics import access, endpoint, loader
from assets.metrics.client import connect
from assets.metrics.schema import TABLES
from assets.metrics.verify import verify_window
from tests.chaos import command
from tests.integration.test_label_live import cut, shaken
from tests.unit.test_label import big_log

ROOT = Path(__file__).resolve().parents[2]
POINTS = (
    "appended events", "appended impression_sessions", "appended click_sessions", "appended orphan_actions",
    "appended late_events", "noted", "copied events", "copied impression_sessions", "copied quarantine", "checked", "shown",
)  # fmt: skip
BATCH_EVENTS, MOMENTS_A_KILL = 60, 4


@dataclass
class Report:
    """differences: rows and aggregates of hours that are not Delta's, at the end. backwards: times that a reader found fewer
    events than before, though nothing was ever taken away."""

    kills: int = 0
    differences: int = 0
    reads: int = 0
    backwards: int = 0
    moments: int = 0
    by_point: dict[str, int] = field(default_factory=Counter)
    seconds: float = 0.0


def run(folder: Path, kills: int, seed: int = 1, say=print) -> Report:
    """Kill so many times while a lake's live batches go into ClickHouse, then compare."""
    began, report, dice = time.monotonic(), Report(), random.Random(seed)
    lake = _lake(folder, MOMENTS_A_KILL * (kills + 4), seed)
    server = Server(folder / "clickhouse")
    try:
        with _Reader(server.url) as reader:
            for number in range(kills):
                _kill_once(lake, server, report, dice, POINTS[number // 2 % len(POINTS)] if number % 2 else None)
                if say and (number + 1) % 10 == 0:
                    say(f"{number + 1} kills, moment {_cursor(lake)}, {reader.reads} reads")
            _finish(lake, server, dice)
        report.reads, report.backwards = reader.reads, reader.backwards
        client = connect(server.url, wait_s=20)
        hours = sorted({hour for table in TABLES if lake.exists(table.name) for hour in lake.hours(table.name)})
        found = verify_window(lake, client, Window(hours[0], hours[-1] + loader.ONE_HOUR))
        for one in found[:5]:
            print(one, file=sys.stderr)
        report.differences = len(found)
    finally:
        server.kill()
    report.moments = len(lake.log.numbers())
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _lake(folder: Path, batches: int, seed: int) -> Lake:
    """A lake of so many live batches, with late events and repeats, all committed."""
    lake, landing = Lake(str(folder / "lake")), folder / "landing"
    events = shaken(big_log(seed, count=BATCH_EVENTS * batches, keys=200, minutes=12 * batches), seed, 6)
    cut(landing, events, BATCH_EVENTS)
    live.run(lake, landing, Rules(), 0, threading.Event(), once=True, say=lambda line: None, batch_bytes=1)
    return lake


class Server:
    """ClickHouse's endpoint as a process that dies and comes back on its folder and port."""

    def __init__(self, folder: Path):
        self.folder, self.port, self.process = folder, 0, None
        self.start()

    @property
    def url(self) -> str:
        return access.signed(f"http://127.0.0.1:{self.port}", self.folder)

    def start(self) -> None:
        command = [sys.executable, "-m", "assets.metrics.endpoint", "--path", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        said = self.process.stdout.readline().strip()
        if not said:
            raise RuntimeError(f"ClickHouse does not start again on {self.folder}")
        self.port = int(said.rsplit(":", 1)[1])
        endpoint.wait_until_ready(self.url, self.process)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class _Reader:
    """Counts the visible events over and over: what was there once stays there."""

    def __init__(self, url: str):
        self.url, self.reads, self.backwards = url, 0, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        client, most = None, 0
        while not self._done.wait(0.05):
            try:
                client = client or connect(self.url)
                count = client.query("SELECT count() FROM events").result_rows[0][0]
            except Exception:  # killed, starting, or without tables yet
                client = None
                continue
            self.reads += 1
            self.backwards += count < most
            most = max(most, count)


def _kill_once(lake: Lake, server: Server, report: Report, dice: random.Random, point: str | None) -> None:
    """Let the loader die at a point; without one let ClickHouse, or the loader, die after a random while."""
    process = _loader(lake, server, dice, point or "none")
    try:
        process.wait(60 if point else 1.0 + 1.5 * dice.random())
    except subprocess.TimeoutExpired:
        point = None
    if point is None and process.poll() is None:
        if dice.random() < 0.5:
            point = "ClickHouse, at random"
            server.kill()
            process.wait(60)  # it must end by itself: nothing answers
            server.start()
        else:
            point = "at random"
            process.kill()
    said = process.communicate(timeout=60)[1]
    if process.returncode == 0:
        raise RuntimeError("the loader had nothing left to do; raise MOMENTS_A_KILL")
    if point and not point.startswith("ClickHouse") and process.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the loader ended by itself with status {process.returncode}: {said[-2000:]}")
    report.kills += 1
    report.by_point[point or "at random"] += 1


def _loader(lake: Lake, server: Server, dice: random.Random, point: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.chaos.metrics_victim", str(lake.root), server.url, point,
               str(dice.randint(1, 2)), str(dice.randrange(10**6))]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def _finish(lake: Lake, server: Server, dice: random.Random) -> None:
    process = _loader(lake, server, dice, "none")
    said = process.communicate(timeout=900)[1]
    if process.returncode:
        raise RuntimeError(f"the loader does not come to its end: {said[-2000:]}")


def _cursor(lake: Lake) -> int:
    return read_cursor(lake.log.root / "followers" / "clickhouse.json")


def main() -> int:
    return command.main(__doc__, "Chaos on the way into ClickHouse", "chaos_metrics.json", run, ("differences", "backwards"))


if __name__ == "__main__":
    sys.exit(main())
