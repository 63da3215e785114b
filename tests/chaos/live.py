"""Chaos on the live labeler: killed again and again, at named points and at random, with a reader that never stops looking.

Here: the faults, the reader, the comparison with the reference of the rules; `make chaos` prints the table and writes
build/reports/chaos.json. Not here: assertions (test_live.py runs a short form of this).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import itertools
import json
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

from assets.attribution.rules import Rules
from assets.attribution.state import APP, LiveError, Store
from assets.lake import Lake, Window
from tests.chaos import command
from tests.integration.test_label_live import cut, shaken
from tests.unit import reference
from tests.unit.labeling import HOUR, T0, canonical, event, moment, rows
from tests.unit.test_label import big_log

# In the order in which a batch passes them; a table stands for "its Delta commit is done". (quarantine: no row is broken.)
POINTS = (
    "planned", "segment", "staged", "progress", "intent", "raw_events", "sources", "events",
    "impression_sessions", "click_sessions", "orphan_actions", "late_events", "labeled_hours", "published", "snapshot",
)  # fmt: skip
OUT = ("impression_sessions", "click_sessions", "orphan_actions", "late_events")
ROOT = Path(__file__).resolve().parents[2]
BATCH_EVENTS, BATCHES_A_KILL = 40, 6
MORE_BATCHES = 20  # labeled after the last kill, to see that it goes on


@dataclass
class Report:
    """lost, doubled: rows of all tables against the reference. half_states: moments at which the reader saw tables that do
    not belong together. faults: what else was done to the labeler -> what came of it."""

    kills: int = 0
    restarts: int = 0
    lost: int = 0
    doubled: int = 0
    reads: int = 0
    half_states: int = 0
    batches: int = 0
    by_point: dict[str, int] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


# --- the labeler in a process of its own -----------------------------------------------------------------------------


def labeler(lake: Lake, landing: Path, point="none", times=1, once=True, limit=0) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.chaos.victim", str(lake.root), str(landing), point, str(times),
               "once" if once else "follow", str(limit)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def ended(process: subprocess.Popen, timeout_s: float = 300) -> int:
    """Wait for the end of a labeler; its status. What it said last is shown where nobody asked for that end."""
    _, said = process.communicate(timeout=timeout_s)
    if process.returncode not in (0, -signal.SIGKILL):
        process.said = said
    return process.returncode


def finish(lake: Lake, landing: Path) -> None:
    """Label all that is waiting. Raises RuntimeError where the labeler fails."""
    process = labeler(lake, landing)
    if ended(process):
        raise RuntimeError(f"the labeler does not start again: {process.said[-2000:]}")


# --- the reader that never stops ---------------------------------------------------------------------------------------


class Reader:
    """Pins a moment, counts every table at it, and holds the counts against the figures of the batches up to it."""

    def __init__(self, lake: Lake):
        self.lake, self.store = lake, Store(lake)
        self.reads = self.half_states = 0
        self._totals: dict[int, Counter] = {-1: Counter()}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.02):
            self.look()

    def look(self) -> None:
        now = self.lake.pinned()
        if now.moment is None or APP not in now.moment.apps:
            return
        wanted = self._total(now.moment.apps[APP])
        found = {name: now.open(name).count() for name in wanted if name in now.moment.tables}
        self.reads += 1
        self.half_states += any(count != wanted[name] for name, count in found.items())

    def _total(self, batch: int) -> Counter:
        if batch not in self._totals:
            self._totals[batch] = self._total(batch - 1) + Counter(self.store.progress(batch).stats["rows"])
        return self._totals[batch]


# --- the suite ---------------------------------------------------------------------------------------------------------


def run(folder: Path, kills: int, seed: int = 1, say=print, random_every: int = 2) -> Report:
    """Kill the labeler so many times while it works through a log, then compare its tables with the reference.

    Each `random_every`-th time at a random moment, the other times at the points in turn.
    """
    began, report, dice = time.monotonic(), Report(), random.Random(seed)
    lake, landing = Lake(str(folder / "lake")), folder / "landing"
    batches = BATCHES_A_KILL * (kills + 20)  # enough that work is waiting at the last kill too
    events = shaken(big_log(seed, count=BATCH_EVENTS * batches, keys=150, minutes=20 * batches), seed, 6)
    for _ in range(len(events) // 50):  # repeats, soon or long after; one that came first would move the watermark
        first = dice.randrange(len(events))
        events.insert(first + dice.choice((1, 10, 100, 1000)), dict(events[first]))
    for place, one in enumerate(events):
        one["ingest_time"] = max(one["event_time"], events[place - 1]["ingest_time"] if place else 0) + 1
    cut(landing, events, BATCH_EVENTS)
    points = itertools.cycle(POINTS)
    with Reader(lake) as reader:
        for number in range(kills):
            if Store(lake).committed() > batches:
                raise RuntimeError(f"the log came to its end after {number} kills; raise BATCHES_A_KILL")
            _kill_once(lake, landing, report, dice, None if number % random_every == 0 else next(points))
            if say and (number + 1) % 20 == 0:
                say(f"{number + 1} kills, batch {Store(lake).committed()}, {reader.reads} reads")
        events = _end_here(lake, landing, events)
        finish(lake, landing)
        report.restarts += 1
    _compare(lake, events, report)
    report.reads, report.half_states = reader.reads, reader.half_states
    report.batches = Store(lake).committed() + 1
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _end_here(lake: Lake, landing: Path, events: list[dict]) -> list[dict]:
    """Let the log end soon after what is labeled; the rest was only there so that no kill finds the labeler idle."""
    files = sorted(landing.glob("*.jsonl.gz"))
    kept = Store(lake).committed() + 1 + MORE_BATCHES
    for path in files[kept:]:
        path.unlink()
    return events[: kept * BATCH_EVENTS]


def _kill_once(lake, landing, report: Report, dice: random.Random, point: str | None) -> None:
    """Start the labeler and let it die: at a point, or after a random while."""
    begun = len(Store(lake).epochs())
    process = labeler(lake, landing, point or "none", times=dice.randint(1, 2), once=False)
    try:
        if point is None:  # some time after it has begun to work
            while len(Store(lake).epochs()) == begun and process.poll() is None:
                time.sleep(0.01)
        process.wait(60 if point else 0.2 + dice.random())
    except subprocess.TimeoutExpired:
        process.kill()
        point = None
    if ended(process) != -signal.SIGKILL:
        raise RuntimeError(f"the labeler ended by itself with status {process.returncode}: {process.said[-2000:]}")
    report.kills += 1
    report.restarts += 1
    report.by_point[point or "random"] += 1


def _compare(lake: Lake, events: list[dict], report: Report) -> None:
    """Rows of every table against the plain reference: missing ones are lost, surplus ones doubled."""
    impressions, clicks, orphans, late = reference.stream(events)
    wanted = {"impression_sessions": impressions, "click_sessions": clicks, "orphan_actions": orphans, "late_events": late}
    for name in OUT:
        have, want = Counter(map(str, rows(lake.read(name)))), Counter(map(str, canonical(wanted[name])))
        report.lost += sum((want - have).values())
        report.doubled += sum((have - want).values())
    for name, ids in (("events", {one["event_id"] for one in events}), ("raw_events", None)):
        have = lake.read(name)
        surplus = have.num_rows - (len(ids) if ids else len(events))
        report.lost, report.doubled = report.lost + max(0, -surplus), report.doubled + max(0, surplus)
        if ids:
            report.lost += len(ids - set(have["event_id"].to_pylist()))


# --- other faults --------------------------------------------------------------------------------------------------------


def _fresh(folder: Path, seed: int, count=800):
    events = shaken(big_log(seed, count=count, keys=40, minutes=200), seed, 6)
    cut(folder / "landing", events, 50)
    return Lake(str(folder / "lake")), folder / "landing", events


def _verdict(lake: Lake, events: list[dict], done: str, happened: bool) -> str:
    """What to say of a fault; `happened`: whether it was really met, without which exact rows prove nothing."""
    report = Report()
    _compare(lake, events, report)
    exact = not report.lost and not report.doubled
    if not happened:
        return f"{done}; the fault did NOT happen"
    return f"{done}; rows exact" if exact else f"{done}; {report.lost} LOST, {report.doubled} DOUBLED"


def full_disk(folder: Path, seed: int) -> str:
    """The disk is full while segments, snapshots and data files are written."""
    lake, landing, events = _fresh(folder, seed)
    failed = 0
    for limit in (600, 3_000, 6_000, 12_000, 20_000):
        failed += ended(labeler(lake, landing, limit=limit)) == 1
    finish(lake, landing)
    return _verdict(lake, events, f"stopped with an error {failed} times, went on when there was room", failed > 0)


def truncated_state(folder: Path, seed: int) -> str:
    """The newest snapshot is cut off in the middle: the one before it and the segments since do."""
    lake, landing, events = _fresh(folder, seed)
    ended(labeler(lake, landing, "published", times=13))
    store = Store(lake)
    newest = store.root / "snapshots" / f"{store.snapshots(10**9)[0]:012d}" / "open_impressions.arrow"
    with newest.open("r+b") as file:
        file.truncate(newest.stat().st_size // 2)
    unreadable = False
    try:
        store.snapshot(store.snapshots(10**9)[0])
    except LiveError:
        unreadable = len(store.snapshots(10**9)) > 1
    finish(lake, landing)
    return _verdict(lake, events, "restarted from the snapshot before", unreadable)


def corrupt_input(folder: Path, seed: int) -> str:
    """A landed gzip file ends in the middle, another is no gzip at all."""
    lake, landing, events = _fresh(folder, seed)
    whole = gzip.compress(json.dumps(event("x", 1, "impression")).encode() * 1000)
    (landing / "00000120a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (landing / "00000130a.jsonl.gz").write_bytes(b"not a gzip file")
    finish(lake, landing)
    reasons = lake.read("quarantine")["reason"].to_pylist()
    files = sum("cannot be read" in reason for reason in reasons)
    return _verdict(lake, events, f"{files} files in quarantine with their reason, the others labeled", files == 2)


def commit_conflict(folder: Path, seed: int) -> str:
    """Somebody compacts every table all the time while batches are committed and a window is replaced."""
    from assets.attribution.label import label_window
    from assets.tidy import tidy

    lake, landing, events = _fresh(folder, seed)
    done, tidied = threading.Event(), []

    def compact():
        while not done.is_set():
            with contextlib.suppress(Exception):
                tidied.append(tidy(lake, keep=dt.timedelta(days=1), open_hours=0))

    thread = threading.Thread(target=compact, daemon=True)
    thread.start()
    window = Window(moment(T0), moment(T0) + dt.timedelta(hours=1))
    try:
        finish(lake, landing)
        for _ in range(5):
            label_window(lake, window, Rules())
    finally:
        done.set()
        thread.join()
    hours = sum(one.get("hours_compacted", 0) for found in tidied for one in found.values())
    fresh = {str(row) for row in canonical(reference.label(events)[0]) if row["session_start"] < HOUR + T0}
    have = [str(row) for row in rows(lake.read("impression_sessions", window))]
    ids = lake.read("events")["event_id"].to_pylist()
    exact = sorted(have) == sorted(fresh) and sorted(ids) == sorted({one["event_id"] for one in events})
    return f"{hours} hours compacted meanwhile; rows {'exact' if exact and hours else 'NOT exact'}"


def two_labelers(folder: Path, seed: int) -> str:
    """A second labeler on the lake is refused; one that took over fences the first."""
    from assets.attribution import live

    lake, landing, events = _fresh(folder, seed, count=200)
    with Store(lake).owned():
        second = labeler(lake, landing)
        refused, fenced = ended(second) == 1 and "another live labeler" in second.said, False

    def probe(at):
        if at == "progress" and not took:
            took.append(at)
            live.run(lake, landing, Rules(), 0, threading.Event(), once=True, take_over=True, say=str, batch_bytes=1)

    took = []
    try:
        live.run(lake, landing, Rules(), 0, threading.Event(), once=True, say=str, batch_bytes=1, probe=probe)
    except LiveError as error:
        fenced = "taken" in str(error)
    return _verdict(lake, events, f"second refused: {refused}; stale one fenced: {fenced}", refused and fenced)


FAULTS = {
    "full disk": full_disk,
    "truncated snapshot": truncated_state,
    "corrupt input": corrupt_input,
    "commit conflict": commit_conflict,
    "two labelers": two_labelers,
}


def main() -> int:
    def whole(folder: Path, kills: int, seed: int) -> Report:
        report = run(folder, kills, seed)
        for name, fault in FAULTS.items():
            report.faults[name] = fault(folder / name.replace(" ", "_"), seed)
            print(f"{name}: {report.faults[name]}", flush=True)
        return report

    return command.main(__doc__, "Chaos on the live labeler", "chaos.json", whole, ("lost", "doubled", "half_states"), kills=200)


if __name__ == "__main__":
    sys.exit(main())
