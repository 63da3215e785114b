"""Kills of plan, apply and undo: `python -m tests.chaos.backfill [--kills N]`, `make chaos-backfill`.

Here: each of the three killed with SIGKILL at each of its points and at random, run again until it comes to its end, over and
over; a reader looks all the time at Delta and at ClickHouse: each look must find the old rows of all hours or the new ones.
At the end both stores are compared row by row, and Delta with what it was. Not here: assertions (test_backfill.py).
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

import polars as pl

from assets.attribution import live
from assets.attribution.rules import Rules
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS, LATE_EVENTS, ORPHAN_ACTIONS
from assets.backfill import store
from assets.lake import Lake, Window
from assets.metrics import loader, loads
from assets.metrics.client import connect
from assets.metrics.verify import verify_window
from tests.chaos import command
from tests.chaos.metrics import Server
from tests.integration.test_label_live import cut, shaken
from tests.unit.labeling import T0, moment
from tests.unit.reference import MINUTE
from tests.unit.test_label import big_log

ROOT = Path(__file__).resolve().parents[2]
LABELS = (IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS, LATE_EVENTS)
_COMMIT = ("intent", "impression_sessions", "click_sessions", "orphan_actions", "labeled_hours", "published")
_SWAP = ("journaled", "linked", *_COMMIT, "late_events", "short_clicks", "committed", "loaded")
_LOAD = ("copied events", "copied click_sessions", "copied quarantine", "checked", "shown")
POINTS = {"plan": ("begun", "staged", *_COMMIT, "computed", "reported"), "apply": (*_SWAP, *_LOAD), "undo": _SWAP}
RANGE = Window(moment(T0 + 120 * MINUTE), moment(T0 + 240 * MINUTE))


@dataclass
class Report:
    """half_states: looks that found neither the old nor the new rows, in one store. mismatches: rows of hours in which
    ClickHouse is not Delta at the end, and tables of Delta that are not what they were."""

    kills: int = 0
    half_states: int = 0
    mismatches: int = 0
    reads_delta: int = 0
    reads_clickhouse: int = 0
    states_seen: int = 0
    reruns: int = 0
    by_point: dict[str, int] = field(default_factory=Counter)
    seconds: float = 0.0


def run(folder: Path, kills: int, seed: int = 1, say=print) -> Report:
    """Kill so many times in turn plan, apply and undo; each is then run to its end."""
    began, report, dice = time.monotonic(), Report(), random.Random(seed)
    lake = _lake(folder, seed)
    server = Server(folder / "clickhouse")
    try:
        client = connect(server.url, wait_s=20)
        loader.load_missing(lake, client)
        old, cycle = Look(lake, client), _cycle(lake, server)
        plan = cycle("plan")
        cycle("apply", plan)
        new = Look(lake, client)
        cycle("undo", plan)
        if old.delta == new.delta or Look(lake, client).delta != old.delta:
            raise RuntimeError("the backfill changes nothing, or undo is no undo: there is nothing to look for")
        store.discard(lake, plan)
        with Reader(lake, server.url, old, new) as reader:
            for number in range(kills):
                verb = ("plan", "apply", "undo")[number % 3]
                points = POINTS[verb]
                point = points[number // 3 % len(points)] if dice.random() < 0.75 else None
                _kill(cycle, report, dice, verb, plan, point)
                plan = cycle(verb, plan)
                report.reruns += 1
                if verb == "undo":
                    store.discard(lake, plan)
                if say and (number + 1) % 10 == 0:
                    say(f"{number + 1} kills, {reader.delta} + {reader.clickhouse} looks, {reader.half} half-states")
            if kills % 3 == 2:
                cycle("undo", plan)
        report.half_states, report.reads_delta, report.reads_clickhouse = reader.half, reader.delta, reader.clickhouse
        report.states_seen = len(reader.seen)
        hours = lake.hours("events")
        found = verify_window(lake, client, Window(hours[0], hours[-1] + loader.ONE_HOUR))
        for one in found[:5]:
            print(one, file=sys.stderr)
        report.mismatches = len(found) + (Look(lake, client).delta != old.delta)
    finally:
        server.kill()
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _lake(folder: Path, seed: int) -> Lake:
    lake, landing = Lake(str(folder / "lake")), folder / "landing"
    cut(landing, shaken(big_log(seed, count=6000, keys=20, minutes=400), seed, 9), 1000)
    live.run(lake, landing, Rules(), 0, threading.Event(), once=True, say=lambda line: None, batch_bytes=1)
    return lake


def _cycle(lake: Lake, server: Server):
    """Run a verb, to its end or until it dies at a point; returns the plan's id, or the process that died."""

    def go(verb: str, plan: str = "", point: str = "none", times: int = 1, wait_s: float | None = None):
        argument = f"{RANGE.start.isoformat()} {RANGE.end.isoformat()}" if verb == "plan" else plan
        command = [sys.executable, "-m", "tests.chaos.backfill_victim", str(lake.root), server.url, verb, argument, point, str(times)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip
        if wait_s is not None:
            try:
                process.wait(wait_s)
            except subprocess.TimeoutExpired:
                process.kill()
        said, errors = process.communicate(timeout=120)
        if process.returncode not in (0, -signal.SIGKILL) or (point == "none" and wait_s is None and process.returncode):
            raise RuntimeError(f"{verb} ended with status {process.returncode}: {errors[-2000:]}")
        return process.returncode if point != "none" or wait_s is not None else said.strip()

    return go


def _kill(cycle, report: Report, dice: random.Random, verb: str, plan: str, point: str | None) -> None:
    """Let a verb die; one that came to its end before the point counts as no kill."""
    if point:
        died = cycle(verb, plan, point, times=1) == -signal.SIGKILL
    else:
        died = cycle(verb, plan, wait_s=1.5 + 2 * dice.random()) == -signal.SIGKILL
    report.kills += died
    report.by_point[f"{verb}: {point or 'at random'}" + ("" if died else " (not met)")] += 1


class Look:
    """The rows of the hours as they are seen in each store: a checksum a table."""

    def __init__(self, lake: Lake, client):
        self.window = RANGE.widened(before=loader.ONE_HOUR, after=2 * loader.ONE_HOUR)
        self.delta = delta_sums(lake, self.window)
        self.clickhouse = {table.name: clickhouse_sum(client, table, self.window) for table in LABELS}
        self.aggregates = aggregate_sums(client, self.window)


def delta_sums(lake: Lake, window: Window) -> tuple:
    now, sums = lake.pinned(), []
    for table in LABELS:
        frame = pl.from_arrow(now.read(table.name, window))
        sums.append((frame.height, int((frame.hash_rows(seed=3) // 2**20).sum())))
    return tuple(sums)


def clickhouse_sum(client, table, window: Window) -> tuple:
    inside = "hour >= {start:DateTime('UTC')} AND hour < {end:DateTime('UTC')}"
    sql = f"SELECT count(), sum(cityHash64({', '.join(table.schema.names)})) FROM {table.name} WHERE {inside}"
    # A null column would make the whole hash null.
    sql = sql.replace("cityHash64(", "cityHash64(tuple(").replace(")) FROM", "))) FROM")
    return tuple(client.query(sql, parameters={"start": window.start, "end": window.end}).result_rows[0])


def aggregate_sums(client, window: Window) -> tuple:
    inside = "hour >= {start:DateTime('UTC')} AND hour < {end:DateTime('UTC')}"
    asked = {"displays_by_minute": "sum(displays), sum(clicks)", "clicks_by_minute": "sum(clicks), sum(likes)"}
    values = {"start": window.start, "end": window.end}
    return tuple(tuple(client.query(f"SELECT {what} FROM {name} WHERE {inside}", parameters=values).result_rows[0])
                 for name, what in asked.items())  # fmt: skip


class Reader:
    """Looks all the time: at Delta in one pinned moment, at each table of ClickHouse, and at all where no load came between."""

    def __init__(self, lake: Lake, url: str, old: Look, new: Look):
        self.lake, self.url, self.old, self.new = lake, url, old, new
        self.delta = self.clickhouse = self.half = 0
        self.seen: set = set()
        self._done = threading.Event()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._delta, self._clickhouse)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _delta(self) -> None:
        while not self._done.wait(0.1):
            found = delta_sums(self.lake, self.old.window)
            self.delta += 1
            self.half += found not in (self.old.delta, self.new.delta)
            self.seen.add(found)

    def _clickhouse(self) -> None:
        client = connect(self.url)
        while not self._done.wait(0.1):
            before = loads.visible(client)
            found = {table.name: clickhouse_sum(client, table, self.old.window) for table in LABELS}
            sums = aggregate_sums(client, self.old.window)
            still = loads.visible(client) == before
            self.clickhouse += 1
            each = all(value in (self.old.clickhouse[name], self.new.clickhouse[name]) for name, value in found.items())
            whole = (found, sums) in ((self.old.clickhouse, self.old.aggregates), (self.new.clickhouse, self.new.aggregates))
            self.half += not each or (still and not whole)


def main() -> int:
    return command.main(__doc__, "Chaos on backfills", "chaos_backfill.json", run, ("half_states", "mismatches"))


if __name__ == "__main__":
    sys.exit(main())
