"""The live labeler: micro-batches from a landing folder into the lake, exactly once.

Here: what a batch does, in which order, and how a restart goes on. Not here: the rules (fold.py), the open sessions
(resident.py, on a cluster cluster.py), the files that survive a crash (state.py), reading of logs (arrivals.py), who is
told of a batch (assets/followers.py).

Batch K
  1. plan K: which files. Written first, so that a repeat of the batch reads the same.
  2. read, drop repeats, set late events aside, fold: a pure function of plan K and the state after K - 1.
  3. segment K: the accepted events, from which the state can be built again; progress K: watermark and figures.
  4. data files of every table, which nobody sees yet.
  5. one commit of the lake: all tables, and with them the number K, become visible at one moment (lake.commit).
A crash before 5 repeats K from its plan; a crash in 5 is finished by whoever writes next; a crash after it begins K + 1.

Lateness is judged in order of arrival (ingest_time, then file and row) against the watermark that the events before
have set, not against that of the batch: where a batch is cut cannot change a row. An event moves the watermark to
min(event_time, ingest_time, landing time) less the delay, at most: the landing time of a batch is that of its plan, so
a repeat of the batch judges alike.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from assets.attribution import clocks, memory, repeats, resident
from assets.attribution.arrivals import Input, LandedFiles, Stopped, landing_files, read_landing
from assets.attribution.convert import CONTEXT_NAMES, HOUR_US, hour_by_hour, in_order, microseconds, to_columns, to_labels
from assets.attribution.fold import CTX, NONE, Columns
from assets.attribution.provenance import booked, register
from assets.attribution.repeats import Repeats
from assets.attribution.resident import Resident
from assets.attribution.rules import Rules
from assets.attribution.state import APP, ROW_BITS, LiveError, Plan, Progress, Reset, Rest, Snapshot, Store
from assets.attribution.tables import (
    CLICK_SESSIONS,
    IMPRESSION_SESSIONS,
    LABELED_HOURS,
    LATE_EVENTS,
    ORPHAN_ACTIONS,
)
from assets.events import landing
from assets.events.contract import EVENTS, ID_KEYS, MAX_CLOCK_AHEAD, QUARANTINE, RAW_EVENTS, SOURCES, TIME
from assets.events.intake import create_sources
from assets.events.landing import UNFINISHED_TIMES
from assets.events.sources import SourceError, shown
from assets.lake import EPOCH, Lake, Moment, Table, Write

if TYPE_CHECKING:
    from assets.attribution.cluster import ClusterSessions

__all__ = ["Input", "LiveError", "read_landing", "run", "status", "stop_on_signals"]

BATCH_BYTES = 64 * 2**20  # of landing files a batch; a greater file begins one of its own
BATCH_FILES = 2_000  # of a batch: many small files would be one batch of minutes
ROWS_OF_MEMORY = 16  # a batch's rows take at most such a part of the memory: they lie there up to nine times, as bytes, typed and as Parquet
LEAST_ROWS = 2**20  # bytes of rows that a batch may always hold
UNPACKED = 4  # bytes of rows a batch holds at most, for each byte of landing files: the rest of a file is for the next
LOOKS = 500  # files already taken that are looked at before a batch: whether they have changed
LOOK_S = 0.1  # between two looks at a file that may still grow
SNAPSHOT_BATCHES = 20  # a restart folds at most so many batches again
IDLE_STEP = dt.timedelta(minutes=1)  # between two batches by which the watermark follows the clock
WRITERS = 2  # threads that write data files; numpy, Arrow and the fold leave the interpreter meanwhile
ONE_HOUR = dt.timedelta(hours=1)
_BEFORE_ALL = -(2**62)  # earlier than any event, and far from overflow
ON_TIME, LATE, REPEAT = 0, 1, 2  # kinds of rows of a segment; a repeat keeps its place, so that places are arrivals
_STRINGS = ["event_id", *CONTEXT_NAMES]
_COLUMNS = tuple(Columns.__dataclass_fields__)
TABLES = (
    RAW_EVENTS, SOURCES, ID_KEYS, QUARANTINE, EVENTS, IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS, LATE_EVENTS,
    LABELED_HOURS,
)  # fmt: skip

Read = Callable[[Lake, Path, Plan], Input]
OnCommit = Callable[[Moment, dict], None]


def run(
    lake: Lake,
    landing_folder: Path,
    rules: Rules,
    interval_s: float,
    stop: threading.Event,
    on_commit: OnCommit | None = None,
    *,
    once: bool = False,
    take_over: bool = False,
    sessions: Resident | ClusterSessions | None = None,
    say: Callable[[str], None] = print,
    read: Read | None = None,
    probe: Callable[[str], None] = lambda point: None,
    snapshot_batches: int | None = None,
    batch_bytes: int | None = None,
    memory_bytes: int | None = None,
    now: Callable[[], dt.datetime] = clocks.utc_now,
    reset_watermark: bool = False,
    settle_s: float = 0.0,
) -> None:
    """Label what lands until `stop` is set; the batch in hand is finished.

    interval_s: least time between the starts of two batches, unless more than a batch is waiting. on_commit: called
    with the moment of a batch and its figures, after the commit, and perhaps not at all where the process is killed: who
    may miss none follows the commit log (followers.py). once: return when nothing is waiting. take_over: of a labeler that
    hangs; it can no longer commit. sessions: where the open sessions are kept, empty; None for this process. probe: called
    with the name of each point of a batch (tests kill the process there). snapshot_batches: batches between two snapshots.
    batch_bytes: of landing files a batch at most. memory_bytes: that this process may take: large tables of
    state lie in files, whose pages the system can take back, and where a batch took more the next are smaller (Linux).
    now: the machine's clock. reset_watermark: set one back that a wrong clock has moved ahead of it, see clocks.py.
    settle_s: seconds for which a file must not have been written to before it is taken, see landing.is_settled; `once` waits for it.

    Raises LiveError where another live labeler holds the lake, or its state does not fit the tables or the rules.
    """
    if rules.valid_click_dwell:
        raise LiveError(
            f"the rules {rules.version!r} ask for dwell in a click (sessions.valid_click_dwell), which is known only when the "
            "click's window has closed: too late for the display's row. Let the live labeler run by rules without it, and "
            "recompute closed hours by these with `glasshouse backfill plan --rules`"
        )
    store = Store(lake, memory_bytes)
    with store.owned(take_over) as epoch, ThreadPoolExecutor(WRITERS) as writers:
        labeler = _Live(
            lake, Path(landing_folder), rules, store, epoch, writers, sessions or Resident(store.maps, rules),
            read or partial(read_landing, stopped=stop.is_set, patience_s=UNFINISHED_TIMES * settle_s, landed=LandedFiles()), probe, say, now,
        )
        labeler.settle_s = settle_s
        labeler.snapshot_batches = snapshot_batches or SNAPSHOT_BATCHES
        labeler.batch_bytes = labeler.most_bytes = batch_bytes or BATCH_BYTES
        labeler.start()
        for warning in labeler.warnings(reset_watermark):
            say(warning)
        while not stop.is_set():
            begun = time.monotonic()
            stats = labeler.step()
            if stats:
                say(line(stats))
                if on_commit:
                    on_commit(labeler.moment, stats)
            elif once and not labeler.growing:
                break
            if not labeler.behind:
                # What will soon have settled need not wait for the interval too, if nothing was done.
                soon = labeler.growing and (once or stats is None)
                wait = max(LOOK_S, min(interval_s, settle_s)) if soon else interval_s
                stop.wait(max(0.0, wait - (time.monotonic() - begun)))
        labeler.finish()


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set: the batch in hand is finished, then `run` returns. Main thread only."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def status(lake: Lake, landing_folder: Path | None = None) -> dict | None:
    """The last committed batch, or None: what `line` shows and more, see _Live._stats.

    lag_s: wall clock less the greatest time that moved the watermark, now. warnings: what is wrong with clocks, see
    clocks.warnings. waiting_files and waiting_bytes: what lies in the landing folder and is not labeled yet, changed files too
    (where the folder is given).
    """
    store = Store(lake)
    last = store.last()
    if not last:
        return None
    found = last[0]
    if moved := found.get("moved") or found["greatest"]:
        found["lag_s"] = (clocks.utc_now() - dt.datetime.fromisoformat(moved)).total_seconds()
    if (reset := store.reset(found["batch"])) is not None:
        found |= {"watermark": _text(reset.watermark), "landed_at": reset.landed_at}
    found["warnings"] = clocks.warnings(found)
    if landing_folder is not None:
        done = _consumed(store)
        told = {name: landing.told_of(Path(landing_folder, name)) for name in landing_files(landing_folder)}
        waiting = [name for name, one in told.items() if name not in done or _has_changed(done[name], one)]
        found["waiting_files"], found["waiting_bytes"] = len(waiting), sum(told[name].st_size for name in waiting if told[name])
    return found


def _has_changed(stamp: landing.Stamp | None, told: os.stat_result | None) -> bool:
    """Whether a file is no longer what it was when it was taken, as far as that is known."""
    return stamp is not None and told is not None and not stamp.fits(told)


def line(stats: dict) -> str:
    """A batch in one line."""
    rows, seconds = stats["rows"], stats["seconds"]
    peak, limit = stats["peak_bytes"] or 0, stats["memory_limit"]
    over = f"; took {peak / 2**20:,.0f} MB, more than the {limit / 2**20:,.0f} allowed" if limit and peak > limit else ""
    wrong = f", {stats['wrong_clocks']} of them of wrong clocks" if stats["wrong_clocks"] else ""
    return (
        f"batch {stats['batch']}: {rows['events']:,} events ({stats['events_per_s']:,.0f}/s, "
        f"{stats['repeats']} repeats, {rows['late_events']} late, {rows['quarantine']} quarantined{wrong}), "
        f"{rows['impression_sessions']:,} + {rows['click_sessions']:,} sessions closed, "
        f"{stats['open_impressions'] + stats['open_clicks']:,} open, watermark {stats['watermark']}, "
        f"{seconds['total']:.2f} s{over}{_files_told(stats)}"
    )


def _files_told(stats: dict) -> str:
    """What is to be said about files: those that were not read, and those that changed after they were taken."""
    told = ""
    if twice := stats.get("repeated_keys"):
        told += f"; {twice:,} rows hold a key twice, of which the last value counts"
    for what, came in (("appended", "were appended to after they were taken: their new rows are in this batch"),
                       ("replaced", "were written anew after they were taken: all their rows are in this batch")):  # fmt: skip
        if names := stats.get(f"{what}_files"):
            told += f"; {len(names)} files {came}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
    if unreadable := stats.get("unreadable_files"):
        told += f"; {unreadable} files cannot be read and are in quarantine"
    if gone := stats.get("gone_files"):
        told += f"; {len(gone)} files are gone and were left out: {', '.join(gone[:5])}{', ...' if len(gone) > 5 else ''}"
    return told


def _size(path: Path) -> int:
    """Bytes of a landing file; none where it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _consumed(store: Store) -> dict[str, landing.Stamp | None]:
    """Landing files of every committed batch and what they were like, as far back as the newest snapshot knows."""
    last = store.committed()
    progress = store.progress(last)
    done = dict(store.snapshot(progress.snapshot).consumed) if progress.snapshot >= 0 else {}
    for batch in range(progress.snapshot + 1, last + 1):
        done.update(store.finished(batch))
    return done


# --- a batch ---------------------------------------------------------------------------------------------------------


class _Live:
    """The labeler between two batches: progress K, the open sessions, and the segments whose strings they need."""

    def __init__(self, lake, landing, rules, store, epoch, writers, sessions, read, probe, say, now):
        self.lake, self.landing, self.rules, self.store, self.epoch = lake, landing, rules, store, epoch
        self.writers, self.read, self.probe, self.say = writers, read, probe, say
        self.clock = clocks.LandingClock(now)
        self.unusable: dict[Path, str] = {}  # folders whose mapping cannot be used, and why
        self.window_us, self.delay_us = microseconds(rules.window), microseconds(rules.delay)
        self.behind = False
        self.moment: Moment | None = None
        self.sessions, self.pending, self.seen = sessions, Columns.empty(), Repeats()
        self.segments: dict[int, pa.Table] = {}
        self.consumed: dict[str, landing.Stamp | None] = {}
        self.changed: set[str] = set()  # of those consumed: what they were is not what they are
        self.looked = 0  # how many of them were looked at, so that each has its turn
        self.settle_s, self.growing = 0.0, False
        self.unfinished: dict[str, landing.Stamp] = {}  # packed files that are not whole yet
        self.snapshot, self.saving = -1, None  # batch of the newest snapshot on disk; the one being written
        self.segment_bytes: dict[int, int] = {}

    # --- start and stop ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Build the state after the last committed batch; refuse what would not be right."""
        self.stream = self.store.prepare()
        for table in TABLES:
            self.lake.create(table)
        self.lake.recover()
        now = self.lake.pinned()
        for table in TABLES:  # a log that is not what was committed is found now, not when a repeat is looked for
            now.open(table.name)
        create_sources(self.lake)
        register(self.lake, self.rules)
        resident.warm_up()
        repeats.warm_up()
        last = self.store.committed()
        if last < 0:
            self.progress = self._before_the_first()
            return
        self.progress = self.store.progress(last)
        if self.progress.window_us != self.window_us:
            raise LiveError(
                f"the open sessions were begun with a window of {self.progress.window_us / 6e7:g} minutes, not "
                f"{self.window_us / 6e7:g}; set the window back, or start on another lake"
            )
        self.progress = self._by_new_rules(self.progress)
        self._restore()
        self.clock.landed(dt.datetime.fromisoformat(self.store.known_plan(last).planned_at))
        if (reset := self.store.reset(last)) is not None:
            self._set_back(reset)

    def warnings(self, reset: bool) -> list[str]:
        """What is wrong with clocks at the start. reset: set back what lies ahead of the machine's clock, and say so."""
        if self.progress.batch < 0:
            return []
        now = self.clock.now()
        landed_at = self.clock.last
        stats = {"watermark": _text(self.progress.watermark), "landed_at": landed_at.isoformat()}
        found = clocks.warnings(stats, now)
        if not reset:
            return found
        if not found:
            return ["neither the watermark nor the landing time lies ahead of this machine's clock: nothing was set back"]
        before = watermark = self.progress.watermark
        if watermark > _us(now + MAX_CLOCK_AHEAD):
            end = clocks.newest_end(self.lake, self.window_us, now + MAX_CLOCK_AHEAD)
            watermark = min(watermark, end if end != NONE else _us(now) - self.delay_us)
        done = Reset(self.progress.batch, watermark, min(landed_at, now).isoformat())
        self.store.write_reset(done)
        self._set_back(done)
        if watermark == before:
            return [f"the landing time was set back from {landed_at.isoformat()} to {done.landed_at}"]
        return [f"the watermark was set from {_text(before)} to {_text(watermark)}; recompute the hours since (docs/live.md, Clocks)"]

    def _set_back(self, reset: Reset) -> None:
        """Go on from another watermark. The open sessions are those after the batch, whichever it was made by."""
        self.clock.landed(dt.datetime.fromisoformat(reset.landed_at))
        # Segments that are gone hold no honest event beyond it; the repeats of others are not honest either.
        memory_from = min(self.progress.memory_from, _us(self.clock.last + MAX_CLOCK_AHEAD) + 1)
        moved = reset.watermark + self.delay_us
        self.progress = replace(self.progress, watermark=reset.watermark, moved=moved, memory_from=memory_from)

    def _by_new_rules(self, progress: Progress) -> Progress:
        """Other rules than before: the hours that are open were, and will be, labeled by both, and their book says so."""
        if progress.rules in (None, self.rules.fingerprint):
            return replace(progress, rules=self.rules.fingerprint)
        mixed = {hour: [*progress.mixed.get(hour, []), progress.rules] for hour in progress.open_hours}
        return replace(progress, rules=self.rules.fingerprint, mixed=mixed)

    def _before_the_first(self) -> Progress:
        if self.store.root.joinpath("batches").is_dir() and self.lake.appended(EVENTS.name, APP) is not None:
            raise LiveError(
                f"`events` holds live batches, but the commit log of {self.lake.root} does not know them; restore "
                f"{self.lake.log.root} and {self.store.root} from a copy, or start on another lake"
            )
        first = self.store.plan(0)
        # What lies past the landing time is refused, its repeats too.
        latest = self.clock.read() + MAX_CLOCK_AHEAD
        hours = [hour for hour in self.lake.hours(EVENTS.name) if hour <= latest] if first is None else []
        known_to = first.versions["known_to"] if first else _us(hours[-1] + ONE_HOUR) if hours else NONE
        return Progress(memory_from=known_to, window_us=self.window_us, rules=self.rules.fingerprint)

    def _restore(self) -> None:
        """The open sessions after the last batch: the newest snapshot that is whole, and the segments since."""
        last, self.snapshot = self.progress.batch, -1
        for batch in self.store.snapshots(upto=self.progress.snapshot):
            try:
                found = self.store.snapshot(batch)
            except LiveError as error:  # damaged: the one before it will do, its segments are kept
                self.store.tell(f"{error}: not needed, the state is rebuilt from the snapshot before it, or from the first batch")
                continue
            self.snapshot, self.pending, self.consumed = batch, found.pending, dict(found.consumed)
            self.sessions.load(found.open_impressions, found.open_clicks)
            break
        if self.snapshot < 0 and not self.store.whole_history(last):
            raise LiveError(
                f"no snapshot in {self.store.root / 'snapshots'} can be read, and the segments do not reach back to the "
                f"first batch; restore {self.store.root} from a copy, or start on another lake and land the logs again"
            )
        needed = sorted({*self.progress.segments, *range(self.snapshot + 1, last + 1)})
        self.segments = {batch: self.store.segment(batch) for batch in needed}
        for batch in needed:
            self.segment_bytes[batch] = self.segments[batch].nbytes
            if batch > self.snapshot:
                step = self.store.progress(batch)
                self._advance(self._on_time(batch), step.watermark)
                self.consumed.update(self.store.finished(batch))
        for batch in needed:
            greatest = self.progress.segments.get(batch, (NONE, NONE))[1]
            if greatest != NONE and greatest >= self.progress.watermark:
                self._remember(batch, self.segments[batch])
        self.segments = {batch: self.segments[batch] for batch in self.progress.segments}

    def _on_time(self, batch: int) -> Columns:
        """The events of a segment that were not late, as columns."""
        table = self.segments[batch]
        rows = np.flatnonzero(table["kind"].to_numpy() == ON_TIME)
        parts = [table[name].to_numpy()[rows] for name in _COLUMNS[:-1]]
        return Columns(*parts, (np.int64(batch) << ROW_BITS) | rows)

    def _remember(self, batch: int, table: pa.Table) -> None:
        ids, times = pl.from_arrow(table["event_id"]), table["time"].to_numpy()
        self.seen.find(ids, times, (np.int64(batch) << ROW_BITS) | np.arange(len(ids)), self._ids)

    def finish(self) -> None:
        """Let a snapshot that is being written come to its end."""
        if self.saving:
            self.saving[1].result()

    # --- one batch ---------------------------------------------------------------------------------------------------

    def step(self) -> dict | None:
        """Do the next batch; None where nothing is waiting."""
        self._snapshot_done()
        clock = _Clock()
        plan = self.store.plan(self.progress.batch + 1) or self._plan()
        if plan is None:
            self.behind = False
            return None
        landed_at = dt.datetime.fromisoformat(plan.planned_at)
        self.clock.landed(landed_at)
        self.probe("planned")
        try:
            given = self.read(self.lake, self.landing, plan)
        except Stopped:
            return None
        clock.lap("read")
        early = self._stage({RAW_EVENTS: given.raw, SOURCES: given.sources, ID_KEYS: given.id_keys,
                             QUARANTINE: given.quarantine})  # fmt: skip
        again, counted = self._repeats(given.events, plan)
        fresh = given.events.filter(pa.array(~again)) if again.any() else given.events
        clock.lap("dedupe")
        moment = fresh["event_time"].cast(pa.int64()).to_numpy()
        ingest = fresh["ingest_time"].cast(pa.int64()).to_numpy()
        late, moved = _late(moment, ingest, _us(landed_at), self.progress, self.delay_us)
        segment = self._segment(plan.batch, given.events, again, late)
        written = self.writers.submit(self.store.write_segment, plan.batch, segment)
        accepted = EVENTS.empty() if given.stored else _with_hour(fresh, EVENTS)
        delayed = _with_hour(fresh.filter(pa.array(late)), LATE_EVENTS)
        steps = early + self._stage({EVENTS: accepted, LATE_EVENTS: delayed})
        if not plan.files:  # nothing has arrived: time alone moves it
            moved = max(moved, _us(landed_at))
        watermark = max(self.progress.watermark, moved - self.delay_us) if moved != NONE else self.progress.watermark
        folded, columns = self._advance(self._on_time(plan.batch), watermark)
        labels = to_labels(hour_by_hour(folded), columns, self._strings, self.rules)
        hours = self.progress.open_hours | _hours(moment[~late])
        still_open = frozenset(hour for hour in hours if hour + HOUR_US + self.window_us > watermark)
        clock.lap("fold")
        steps += self._stage({
            IMPRESSION_SESSIONS: labels.impression_sessions, CLICK_SESSIONS: labels.click_sessions,
            ORPHAN_ACTIONS: labels.orphan_actions, LABELED_HOURS: self._book(hours - still_open),
        })  # fmt: skip
        self.segment_bytes[plan.batch] = written.result()
        self.probe("segment")
        clock.lap("state")
        steps = [step.result() for step in steps]
        self.probe("staged")
        clock.lap("write")
        progress = self._next(plan, given, moment, watermark, moved, still_open)
        rows = {step["table"]: sum(add["rows"] for add in step["adds"]) for step in steps}
        stats = self._stats(progress, plan, given, rows, counted, labels.counts, clock)
        self.store.write_progress(replace(progress, stats=stats))
        self.probe("progress")
        self.moment = self.lake.commit(
            [step for step in steps if step["adds"] or step["table"] == EVENTS.name], by=APP, app=(APP, plan.batch),
            note={"batch_id": stats["batch_id"]}, fence=lambda: self.store.fence(self.epoch),
            probe=self.probe,
        )  # fmt: skip
        if self.moment is None:
            raise LiveError(f"batch {plan.batch} is committed already, by another labeler; this one stops")
        clock.lap("commit")
        stats["seconds"], stats["events_per_s"] = clock.laps, given.rows / max(clock.total, 1e-9)
        stats["peak_bytes"] = clock.peak
        # Once more, with the commit's own time: for the status command, so it may be lost.
        self.writers.submit(self.store.write_progress, replace(progress, stats=stats))
        self.behind = self.behind or bool(set(given.left) - {*given.growing, *given.unfinished})
        self._committed(plan, progress, given)
        self._within_memory(plan, given.raw.nbytes, clock.peak)
        return stats

    def _plan(self) -> Plan | None:
        there = landing_files(self.landing)
        self._look(there)
        waiting = [path for path in there if path not in self.consumed or path in self.changed]
        rests = self.progress.rests
        begun = [name for name in waiting if name in rests]  # what is begun is finished first, one file after the other
        waiting = [*begun, *(name for name in waiting if name not in rests)] if begun else waiting
        waiting = self._readable(waiting)
        most, limit = UNPACKED * self.batch_bytes, self.store.maps.limit
        taken, size = [], 0
        self.growing = self.behind = False
        for name in waiting:
            if taken and name in rests:
                self.behind = True
                continue
            told = landing.told_of(self.landing / name)
            if told is not None and self._may_grow(name, told):
                self.growing = True
                continue
            size += told.st_size if told else 0
            if taken and (size > self.batch_bytes or len(taken) == BATCH_FILES):
                self.behind = True
                break
            taken.append(name)
        if not taken and not self._idle():
            return None
        now = self.lake.pinned()
        versions = {table.name: now.version(table.name) for table in (EVENTS, SOURCES, ID_KEYS)}
        versions["known_to"] = self.progress.memory_from
        return self.store.write_plan(Plan(
            self.progress.batch + 1, tuple(taken), self.clock.read().isoformat(), versions,
            most=most if limit is None else min(most, max(LEAST_ROWS, limit // ROWS_OF_MEMORY)), rest=rests.get(taken[0]) if taken else None,
            again=tuple(name for name in taken if name in self.changed),
        ))  # fmt: skip

    def _look(self, there: list[str]) -> None:
        """Which files have changed since they were taken; of many some at a time, so that a look costs no more."""
        done = [name for name in there if name in self.consumed]
        if len(done) > LOOKS:
            first = self.looked % len(done)
            done = [*done[first : first + LOOKS], *done[: max(0, first + LOOKS - len(done))]]
        self.looked += LOOKS
        root = os.fspath(self.landing)
        for name in done:
            told, stamp = landing.told_of(f"{root}/{name}"), self.consumed[name]
            if told is None:
                continue
            if stamp is None:  # taken by an older Glasshouse: held against what it is now
                self.consumed[name] = landing.Stamp.of(told)
            elif not stamp.fits(told):
                self.changed.add(name)

    def _may_grow(self, name: str, told: os.stat_result) -> bool:
        """Whether a file may still be being written."""
        if not landing.is_settled(told, self.settle_s):
            return True
        stamp = self.unfinished.get(name)
        if stamp is None:
            return False
        return stamp.fits(told) and not landing.is_settled(told, UNFINISHED_TIMES * self.settle_s)

    def _readable(self, waiting: list[str]) -> list[str]:
        """Without the logs of folders whose mapping cannot be used: they wait until it is mended, and that is said."""
        problems: dict[Path, str] = {}
        seen: set[Path] = set()
        for name in waiting:
            folder = (self.landing / name).parent
            if folder not in seen:
                seen.add(folder)
                try:
                    landing.form_of(folder)
                except SourceError as error:
                    problems[folder] = str(error)
        for folder, problem in problems.items():
            if self.unusable.get(folder) != problem:
                self.say(f"logs in {shown(folder)} wait until their mapping is mended: {problem}")
        self.unusable = problems
        return [name for name in waiting if (self.landing / name).parent not in problems] if problems else waiting

    def _idle(self) -> bool:
        """Whether it is time for a batch without files, by which the watermark follows the clock (rules.idle_after)."""
        if self.rules.idle_after is None or not self.progress.open_hours:
            return False
        last = self.store.known_plan(self.progress.batch)
        patience = self.rules.idle_after if last.files else min(self.rules.idle_after, IDLE_STEP)
        return self.clock.read() - self.clock.last >= patience

    def _stage(self, tables: dict[Table, pa.Table]) -> list[Future]:
        """Write the data files beside; the fold goes on meanwhile."""
        return [self.writers.submit(self.lake.stage, Write(table, rows)) for table, rows in tables.items()]

    # --- repeats -----------------------------------------------------------------------------------------------------

    def _repeats(self, events: pa.Table, plan: Plan) -> tuple[np.ndarray, dict[str, int]]:
        """Mark (bool[n]) the rows whose event_id was there before, and count them by where the event was found.

        memory: at or above the watermark, or in this batch. segment: older, in an event of the last two windows. events:
        older still, in the table `events` at the event_time that the repeat bears too.
        """
        self._events = events
        ids = pl.from_arrow(events["event_id"])
        moment = events["event_time"].cast(pa.int64()).to_numpy()
        places = (np.int64(plan.batch) << ROW_BITS) | np.arange(len(ids))
        again = self.seen.find(ids, moment, places, self._ids)
        counted = {"memory": int(again.sum()), "segment": 0, "events": 0}
        # What `events` held before the first batch may lie above the watermark too.
        older = np.flatnonzero(~again & (moment < max(self.progress.watermark, self.progress.memory_from)))
        if older.size:
            found = self._in_segments(ids, moment, older)
            counted["segment"] = int(found.sum())
            again[older[found]] = True
            older = older[~found & (moment[older] < self.progress.memory_from)]
            if older.size:
                found = self._in_events(ids, moment, older, plan.versions[EVENTS.name])
                counted["events"] = int(found.sum())
                again[older[found]] = True
        return again, counted

    def _in_segments(self, ids: pl.Series, moment: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Which rows repeat an event of a segment: the same event_time, then the same id."""
        found, times = np.zeros(rows.size, bool), moment[rows]
        for batch, (least, greatest) in self.progress.segments.items():
            inside = (times >= least) & (times <= greatest) & ~found
            if inside.any():
                table = self.segments[batch]
                same = np.flatnonzero(np.isin(table["time"].to_numpy(), times[inside]))
                known = table["event_id"].take(pa.array(same))
                mine = ids.gather(rows[inside]).to_arrow().cast(pa.string())
                found[inside] = pc.is_in(mine, value_set=known.combine_chunks()).to_numpy(zero_copy_only=False)
        return found

    def _in_events(self, ids: pl.Series, moment: np.ndarray, rows: np.ndarray, version: int) -> np.ndarray:
        """Which rows repeat an event that the segments no longer hold; files of other moments are not read."""
        times = moment[rows]
        data = self.lake.dataset(EVENTS.name, version)
        within = pc.field("event_time").isin(pa.array(np.unique(times)).view(TIME))
        hours = pa.array(np.unique(times // HOUR_US * HOUR_US)).view(TIME)
        inside = pc.field("hour").isin(hours) & within
        known = data.to_table(columns=["event_id"], filter=inside)["event_id"].combine_chunks()
        return pc.is_in(ids.gather(rows).to_arrow().cast(pa.string()), value_set=known).to_numpy(zero_copy_only=False)

    def _ids(self, places: np.ndarray) -> list[str | None]:
        """event_id of places: rows of segments, or of the batch in hand; None where the segment is gone."""
        batches, rows = places >> ROW_BITS, places & ((1 << ROW_BITS) - 1)
        ids = np.full(places.size, None, object)
        for batch in np.unique(batches).tolist():
            here = batches == batch
            if batch > self.progress.batch:
                ids[here] = self._events["event_id"].take(pa.array(rows[here])).to_pylist()
            elif batch in self.segments:
                ids[here] = self.segments[batch]["event_id"].take(pa.array(rows[here])).to_pylist()
        return ids.tolist()

    # --- the fold ----------------------------------------------------------------------------------------------------

    def _segment(self, batch: int, events: pa.Table, again: np.ndarray, late: np.ndarray) -> pa.Table:
        """Every event of the batch as it arrived. late: of those that are no repeats."""
        kind = np.where(again, np.int8(REPEAT), np.int8(ON_TIME))
        kind[np.flatnonzero(~again)[late]] = LATE
        numbers = to_columns(events, 0)
        columns = [pa.array(getattr(numbers, name)) for name in _COLUMNS[:-1]]
        columns += [pa.array(kind), *(events[name].combine_chunks() for name in _STRINGS)]
        segment = pa.table(columns, [*_COLUMNS[:-1], "kind", *_STRINGS])
        self.segments[batch] = segment
        return segment

    def _advance(self, new: Columns, watermark: int):
        """Fold what the watermark has passed; the rest stays pending. Returns (folded, its columns)."""
        parts = [(part, part.time < watermark) for part in (self.pending, new)]
        due = _joined([part.take(np.flatnonzero(ready)) for part, ready in parts])
        self.pending = _joined([part.take(np.flatnonzero(~ready)) for part, ready in parts])
        columns = in_order(due, lambda rows: self._strings(due.ctx[rows], ["event_id"])["event_id"].to_pylist())
        folded = self.sessions.fold(columns, self.rules, watermark)
        # In the order of their strings, so that these are gathered segment by segment and need no second gathering.
        closed = {name: _by_string(getattr(folded, name)) for name in ("impressions", "clicks")}
        return replace(folded, **closed), columns

    def _strings(self, ctx: np.ndarray, names: list[str]) -> pa.Table:
        """Rows of strings by `ctx`, from the segments that it points into."""
        batches, rows = ctx >> ROW_BITS, ctx & ((1 << ROW_BITS) - 1)
        ascending = (batches[1:] >= batches[:-1]).all()
        order = np.arange(ctx.size) if ascending else np.argsort(batches, kind="stable")
        parts = [_NO_STRINGS.select(names)]
        for group in np.split(order, np.flatnonzero(np.diff(batches[order])) + 1):
            if group.size:
                parts.append(self.segments[int(batches[group[0]])].select(names).take(pa.array(rows[group])))
        found = pa.concat_tables(parts).combine_chunks()
        if ascending:
            return found
        back = np.empty(ctx.size, np.int64)
        back[order] = np.arange(ctx.size)
        return found.take(pa.array(back))

    def _book(self, hours: frozenset[int]) -> pa.Table:
        def rules(hour: dt.datetime) -> str:
            return ",".join(dict.fromkeys([*self.progress.mixed.get(_us(hour), []), self.rules.fingerprint]))

        starts = [EPOCH + dt.timedelta(microseconds=hour) for hour in sorted(hours)]
        return booked(starts, self.window_us, None, APP, rules)

    # --- after the fold ----------------------------------------------------------------------------------------------

    def _next(self, plan: Plan, given: Input, moment: np.ndarray, watermark: int, moved: int, open_hours: frozenset[int]) -> Progress:
        old = self.progress
        span = (int(moment.min()), int(moment.max())) if moment.size else (NONE, NONE)
        segments = {**old.segments, plan.batch: span}
        # An open display lives for W; a click session that bears its context for another W.
        gone = [one for one in segments.values() if one[1] + 2 * self.window_us <= watermark]
        return Progress(
            batch=plan.batch, watermark=watermark, greatest=max(old.greatest, span[1]), moved=moved, window_us=self.window_us,
            snapshot=self.snapshot,
            memory_from=max([old.memory_from, *(last + 1 for _, last in gone if last != NONE)]),
            segments={batch: one for batch, one in segments.items() if one not in gone}, open_hours=open_hours,
            rules=old.rules, mixed={hour: names for hour, names in old.mixed.items() if hour in open_hours},
            left=(*given.gone, *given.left), rests=_rests(old, plan, given), stamps=given.stamps,
        )  # fmt: skip

    def _stats(self, progress: Progress, plan: Plan, given: Input, rows, counted, counts, clock) -> dict:
        """Figures of a batch. rows: by table. repeats_found: by where. lag_s: what moved the watermark behind the wall clock at
        the commit. wrong_clocks: rows of quarantine. seconds: by stage. peak_bytes: the most memory at the end of a
        stage, mapped files apart."""
        clock.lap("stats")
        now = dt.datetime.now(dt.UTC)
        open_impressions, open_clicks = self.sessions.sizes
        waiting = open_impressions + open_clicks + self.pending.time.size
        return {
            "batch": progress.batch,
            "batch_id": f"{self.stream}-{progress.batch:09d}",
            "at": now.isoformat(),
            "read": given.rows,
            "unreadable_files": given.unreadable,
            "gone_files": [shown(name) for name in given.gone],
            "appended_files": [shown(name) for name in given.appended],
            "replaced_files": [shown(name) for name in given.replaced],
            "repeated_keys": given.repeated_keys,
            "repeats": sum(counted.values()),
            "repeats_found": counted,
            "rows": {table.name: rows.get(table.name, 0) for table in TABLES},
            "counts": counts,
            "watermark": _text(progress.watermark),
            "greatest": _text(progress.greatest),
            "moved": _text(progress.moved),
            "landed_at": plan.planned_at,
            "wrong_clocks": pc.sum(pc.ends_with(given.quarantine["reason"], clocks.WRONG_CLOCK)).as_py() or 0,
            "lag_s": (now - EPOCH).total_seconds() - progress.moved / 1e6 if progress.moved != NONE else None,
            "held": [progress.watermark - self.window_us, progress.greatest] if waiting else None,
            "open_impressions": open_impressions,
            "open_clicks": open_clicks,
            "pending": self.pending.time.size,
            "state_bytes": self.sessions.bytes + self.seen.bytes,
            "disk_bytes": sum(self.segment_bytes.values()),
            "peak_bytes": clock.peak,
            "memory_limit": self.store.maps.limit,
            "behind": self.behind or given.rest is not None,
            "events_per_s": given.rows / max(clock.total, 1e-9),
            "seconds": clock.laps,
        }

    def _committed(self, plan: Plan, progress: Progress, given: Input) -> None:
        self.progress = progress
        done = progress.finished(plan.files)
        self.consumed.update(done)
        self.changed -= done.keys()
        now = {name: landing.told_of(self.landing / name) for name in given.unfinished}
        self.unfinished = {name: stamp for name, stamp in self.unfinished.items() if name not in done}
        self.unfinished |= {name: landing.Stamp.of(told) for name, told in now.items() if told}
        self.seen.forget(progress.watermark)
        kept = progress.segments.keys()
        # From here on the file's pages in place of those that the batch was made in: the system can take them back.
        self.segments[plan.batch] = self.store.segment(plan.batch, check=False)
        self.segments = {batch: table for batch, table in self.segments.items() if batch in kept}
        if self.saving is None and progress.batch - self.snapshot >= self.snapshot_batches:
            self._begin_snapshot(progress.batch)
        self.store.forget(progress)
        self.segment_bytes = {batch: size for batch, size in self.segment_bytes.items() if batch in kept}

    def _within_memory(self, plan: Plan, row_bytes: int, peak: int | None) -> None:
        """Smaller batches where this one took more memory than allowed, greater ones again where there is room. row_bytes: it read."""
        limit = self.store.maps.limit
        if limit is None or peak is None:
            return
        if peak > limit:
            # Of a file of some kB that holds GB the rows count: by its own size the next batches would be a row each.
            taken = max(sum(_size(self.landing / name) for name in plan.files), row_bytes // UNPACKED)
            self.batch_bytes = max(1, min(self.batch_bytes, taken) // 2)
            pa.default_memory_pool().release_unused()
        elif peak < limit // 2:
            self.batch_bytes = min(self.most_bytes, 2 * self.batch_bytes)

    def _begin_snapshot(self, batch: int) -> None:
        there = set(landing_files(self.landing))
        self.consumed = {name: stamp for name, stamp in self.consumed.items() if name in there}
        self.changed &= there
        found = Snapshot(*self.sessions.export(), self.pending, dict(self.consumed))
        self.probe("snapshot")
        self.saving = (batch, self.writers.submit(self.store.write_snapshot, batch, found))

    def _snapshot_done(self) -> None:
        """A snapshot that is whole on disk counts from the next batch on."""
        if self.saving and self.saving[1].done():
            batch, written = self.saving
            self.saving = None
            written.result()  # raises what the writing raised: a full disk, say
            self.snapshot = batch


_NO_STRINGS = pa.schema([EVENTS.schema.field(name) for name in _STRINGS]).remove_metadata().empty_table()


class _Clock:
    """Seconds by stage; `laps` also holds their total. peak: most memory at the end of a stage, None where not told."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self.peak: int | None = None
        self._begun = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = round(now - self._last, 4)
        self.laps["total"] = round(now - self._begun, 4)
        held = memory.anonymous_bytes()
        self.peak = held and max(held, self.peak or 0)
        self._last = now

    @property
    def total(self) -> float:
        return self.laps["total"]


def _late(
    moment: np.ndarray, ingest: np.ndarray, landed: int, progress: Progress, delay_us: int
) -> tuple[np.ndarray, int]:
    """Which events were older than the watermark when they arrived, and what has moved it: the greatest
    min(event_time, ingest_time, landing time) so far, NONE before the first event. µs, int64[n] in order of files and rows."""
    order = np.arange(ingest.size) if (ingest[1:] >= ingest[:-1]).all() else np.argsort(ingest, kind="stable")
    start = max(progress.moved, _BEFORE_ALL)
    moved = np.minimum(np.minimum(moment, ingest), landed)[order]
    greatest = np.maximum.accumulate(np.concatenate([[start], moved]))
    watermark = np.maximum(greatest[:-1] - delay_us, max(progress.watermark, _BEFORE_ALL))
    late = np.empty(moment.size, bool)
    late[order] = moment[order] < watermark
    return late, int(greatest[-1]) if greatest[-1] != _BEFORE_ALL else NONE


def _rests(old: Progress, plan: Plan, given: Input) -> dict[str, Rest]:
    """Files of which a part is taken: a file stays among them until its end is."""
    rests = dict(old.rests)
    if plan.rest and plan.rest.file not in (*given.gone, *given.left):
        del rests[plan.rest.file]
    return rests | ({given.rest.file: given.rest} if given.rest else {})


def _by_string(sessions: np.ndarray) -> np.ndarray:
    return sessions[:, np.argsort(sessions[CTX], kind="stable")]


def _joined(parts: list[Columns]) -> Columns:
    return Columns(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))


def _hours(moment: np.ndarray) -> set[int]:
    return set(np.unique(moment - moment % HOUR_US).tolist())


def _with_hour(events: pa.Table, table: Table) -> pa.Table:
    moment = events["event_time"].cast(pa.int64()).to_numpy()
    hour = pa.array(moment - moment % HOUR_US).view(TIME)
    return events.append_column("hour", hour).select(table.schema.names).cast(table.schema)


def _us(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def _text(moment: int) -> str | None:
    return None if moment == NONE else (EPOCH + dt.timedelta(microseconds=moment)).isoformat()
