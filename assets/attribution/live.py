"""The live labeler: micro-batches from a landing folder into the lake, exactly once.

Here: what a batch does, in which order, and how a restart goes on. Not here: the rules (fold.py), the files that
survive a crash (state.py), reading of logs (assets/events).

Batch K
  1. plan K: which files. Written first, so that a repeat of the batch reads the same.
  2. read, drop repeats, set late events aside, fold with state K-1: a pure function of plan and state.
  3. segment K and state K, each beside and then renamed.
  4. every table, append-once as ("live", K): what a crash had already written is recognised.
  5. on_batch(batch_id, ...), for ClickHouse and Dagster; it may be called again with the same batch_id after a crash.
  6. commit marker K.
A crash before 6 repeats K from its plan; a crash after 6 begins K+1.

Lateness is judged in order of arrival (ingest_time, then file and row) against the watermark that the events before
have set, not against that of the batch: where a batch is cut cannot change a row.
"""

from __future__ import annotations

import datetime as dt
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from assets.attribution.convert import CONTEXT_NAMES, HOUR_US, in_order, microseconds, to_columns, to_labels
from assets.attribution.fold import NONE, Columns, Folded, fold, warm_up
from assets.attribution.rules import Rules
from assets.attribution.state import ROW_BITS, LiveError, Plan, State, Store
from assets.attribution.tables import (
    CLICK_SESSIONS,
    IMPRESSION_SESSIONS,
    LABELED_HOURS,
    LATE_EVENTS,
    ORPHAN_ACTIONS,
)
from assets.events.contract import EVENTS, ID_KEYS, QUARANTINE, RAW_EVENTS, SOURCES, TIME
from assets.lake import Lake, Table, Window

__all__ = ["Input", "LiveError", "read_landing", "run", "status", "stop_on_signals"]

APP = "live"
BATCH_BYTES = 32 * 2**20  # of landing files a batch; a greater file is a batch of its own
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
ONE_HOUR = dt.timedelta(hours=1)
_BEFORE_ALL = -(2**62)  # earlier than any event, and far from overflow
_SEGMENT = ["event_id", *CONTEXT_NAMES]
_TABLES = (
    RAW_EVENTS, SOURCES, ID_KEYS, QUARANTINE, EVENTS, IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS, LATE_EVENTS,
    LABELED_HOURS,
)  # fmt: skip


@dataclass(frozen=True)
class Input:
    """What a batch's files hold, in order of arrival.

    events: EVENT_SCHEMA, the first of each event_id in the batch. rows: rows read. repeats: dropped in the batch.
    raw, sources, quarantine, id_keys: rows of those tables.
    """

    events: pa.Table
    quarantine: pa.Table
    raw: pa.Table
    sources: pa.Table
    id_keys: pa.Table
    rows: int
    repeats: int


Read = Callable[[Lake, Path, Plan], Input]
OnBatch = Callable[[str, dict[str, pa.Table], dict], None]


def run(
    lake: Lake,
    landing_folder: Path,
    rules: Rules,
    interval_s: float,
    stop: threading.Event,
    on_batch: OnBatch | None = None,
    *,
    once: bool = False,
    say: Callable[[str], None] = print,
    read: Read | None = None,
    probe: Callable[[str], None] = lambda point: None,
) -> None:
    """Label what lands until `stop` is set; the batch in hand is finished.

    interval_s: least time between the starts of two batches, unless more than a batch is waiting. on_batch: called with
    (batch_id, table name -> rows of this batch, stats) before the batch is committed: if it raises, `run` does, and the
    next start repeats the batch under the same batch_id. once: return when nothing is waiting. probe: called with the
    name of each point of a batch (tests kill the process there).

    Raises LiveError where another live labeler holds the lake, or its state does not fit the tables or the rules.
    """
    store = Store(lake)
    with store.locked():
        stream = store.prepare()
        labeler = _Live(lake, Path(landing_folder), rules, store, stream, on_batch, read or read_landing, probe)
        labeler.start()
        while not stop.is_set():
            begun = time.monotonic()
            stats = labeler.step()
            if stats:
                say(line(stats))
            elif once:
                return
            if not labeler.behind:
                stop.wait(max(0.0, interval_s - (time.monotonic() - begun)))


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set: the batch in hand is finished, then `run` returns. Main thread only."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def status(lake: Lake) -> dict | None:
    """The last committed batch, or None: batch, batch_id, watermark and greatest (RFC 3339 or None), lag_s (wall clock
    less the greatest event_time, now), events_per_s, open_impressions, open_clicks, pending, seconds by stage, rows by
    table."""
    commit = Store(lake).last_commit()
    if commit and commit["greatest"]:
        commit["lag_s"] = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(commit["greatest"])).total_seconds()
    return commit


def line(stats: dict) -> str:
    """A batch in one line."""
    rows, seconds = stats["rows"], stats["seconds"]
    return (
        f"batch {stats['batch']}: {rows['events']:,} events ({stats['events_per_s']:,.0f}/s, "
        f"{stats['repeats']} repeats, {rows['late_events']} late, {rows['quarantine']} quarantined), "
        f"{rows['impression_sessions']:,} + {rows['click_sessions']:,} sessions closed, "
        f"{stats['open_impressions'] + stats['open_clicks']:,} open, watermark {stats['watermark']}, "
        f"{seconds['total']:.2f} s"
    )


# --- a batch ---------------------------------------------------------------------------------------------------------


class _Live:
    """The labeler between two batches: state K and the segments that it points into."""

    def __init__(self, lake, landing, rules, store, stream, on_batch, read, probe):
        self.lake, self.landing, self.rules, self.store, self.stream = lake, landing, rules, store, stream
        self.on_batch, self.read, self.probe = on_batch, read, probe
        self.window_us, self.delay_us = microseconds(rules.window), microseconds(rules.delay)
        self.behind = False

    def start(self) -> None:
        """Take up the last committed state, or begin."""
        for table in _TABLES:
            self.lake.create(table)
        commit = self.store.last_commit()
        if commit:
            self.state = self.store.state(commit["batch"])
            if self.state.window_us != self.window_us:
                raise LiveError(
                    f"the open sessions were begun with a window of {self.state.window_us / 6e7:g} minutes, not "
                    f"{self.window_us / 6e7:g}; set the window back, or start on another lake"
                )
        else:
            if self.lake.appended(EVENTS.name, APP) is not None and not self.store.plan(0):
                raise LiveError(
                    f"`events` holds live batches, but their state {self.store.root} is gone; restore it from a copy, "
                    "or start on another lake"
                )
            hours = self.lake.hours(EVENTS.name) if not self.store.plan(0) else []
            first = self.store.plan(0)
            known_to = first.versions.get("known_to", NONE) if first else _us(hours[-1] + ONE_HOUR) if hours else NONE
            self.state = State(memory_from=known_to, window_us=self.window_us)
        self.segments = {batch: self.store.segment(batch) for batch in self.state.segments}
        self.ids = {batch: pl.from_arrow(table["event_id"]) for batch, table in self.segments.items()}
        warm_up()

    def step(self) -> dict | None:
        """Do the next batch; None where nothing is waiting."""
        clock = _Clock()
        plan = self.store.plan(self.state.batch + 1) or self._plan()
        if plan is None:
            self.behind = False
            return None
        self.probe("planned")
        given = self.read(self.lake, self.landing, plan)
        clock.lap("read")
        fresh = self._without_known(given.events, plan)
        clock.lap("repeats")
        labels, late, state, segment, closed_hours = self._fold(fresh, plan)
        clock.lap("fold")
        tables = self._tables(given, fresh, late, labels, closed_hours)
        self.store.write_segment(plan.batch, segment)
        self.probe("segment")
        self.store.write_state(state)
        self.probe("state")
        clock.lap("state")
        for table in _TABLES:
            if tables[table.name].num_rows:
                self.lake.append_once(table, tables[table.name], APP, plan.batch)
                self.probe(table.name)
        clock.lap("tables")
        stats = self._stats(plan, given, fresh, tables, labels, state, clock)
        if self.on_batch:
            self.on_batch(stats["batch_id"], tables, stats)
            self.probe("on_batch")
            clock.lap("on_batch")
        self.store.write_commit(plan.batch, stats)
        self.probe("committed")
        self.state = state
        self.ids[plan.batch] = pl.from_arrow(segment["event_id"])
        self.segments = {batch: self.segments[batch] for batch in state.segments}
        self.ids = {batch: self.ids[batch] for batch in state.segments}
        self.store.forget(state)
        return stats

    def _plan(self) -> Plan | None:
        waiting = [path for path in landing_files(self.landing) if path not in self.state.consumed]
        taken, size = [], 0
        for name in waiting:
            size += (self.landing / name).stat().st_size
            if taken and size > BATCH_BYTES:
                break
            taken.append(name)
        self.behind = len(taken) < len(waiting)
        if not taken:
            return None
        versions = {table.name: self.lake.version(table.name) for table in (EVENTS, SOURCES, ID_KEYS)}
        versions["known_to"] = self.state.memory_from
        plan = Plan(self.state.batch + 1, tuple(taken), dt.datetime.now(dt.UTC).isoformat(), versions)
        self.store.write_plan(plan)
        return plan

    def _without_known(self, events: pa.Table, plan: Plan) -> pa.Table:
        """Drop repeats of events of earlier batches: those remembered, and in `events` those too old for that."""
        ids = pl.from_arrow(events["event_id"])
        known = pl.Series([False]).new_from_index(0, len(ids)) if len(ids) else pl.Series([], dtype=pl.Boolean)
        for seen in self.ids.values():
            known |= ids.is_in(seen.filter(seen.is_in(ids.implode())).implode())
        moment = events["event_time"].cast(pa.int64()).to_numpy()
        old = moment < self.state.memory_from
        if old.any():
            hours = np.unique(moment[old] // HOUR_US)
            hours = np.unique(np.concatenate([hours - 1, hours, hours + 1]))
            seen = self._ids_of_hours(hours, plan.versions[EVENTS.name])
            known |= pl.Series(old) & ids.is_in(seen.filter(seen.is_in(ids.implode())).implode())
        return events.filter((~known).to_arrow())

    def _ids_of_hours(self, hours: np.ndarray, version: int) -> pl.Series:
        """event_id of the hours (since the epoch) in `events`, read in runs of hours."""
        found = [pl.Series([], dtype=pl.String)]
        for group in np.split(hours, np.flatnonzero(np.diff(hours) > 1) + 1):
            span = Window(EPOCH + ONE_HOUR * int(group[0]), EPOCH + ONE_HOUR * (int(group[-1]) + 1))
            found.append(pl.from_arrow(self.lake.read(EVENTS.name, span, ["event_id"], version)["event_id"]))
        return pl.concat(found)

    def _fold(self, events: pa.Table, plan: Plan):
        """Set late events aside, fold the others: (Labels, late events, new state, segment, complete hours)."""
        old = self.state
        moment = events["event_time"].cast(pa.int64()).to_numpy()
        is_late, greatest = _late(moment, events["ingest_time"].cast(pa.int64()).to_numpy(), old, self.delay_us)
        watermark = max(old.watermark, greatest - self.delay_us) if greatest != NONE else NONE
        on_time, late = events.filter(pa.array(~is_late)), events.filter(pa.array(is_late))
        # Late events are in the segment for their ids alone.
        segment = pa.concat_tables([on_time, late]).select(_SEGMENT).combine_chunks()
        self.segments[plan.batch] = segment
        new = to_columns(on_time, plan.batch << ROW_BITS)
        both = Columns(*(np.concatenate([getattr(old.pending, name), getattr(new, name)]) for name in _COLUMNS))
        columns = in_order(both, lambda rows: self._strings(both.ctx[rows], ["event_id"])["event_id"].to_pylist())
        folded = fold(columns, old.open_impressions, old.open_clicks, self.window_us, watermark)
        labels = to_labels(folded, columns, self._strings, self.window_us)
        hours = old.open_hours | _hours(new.time)
        still_open = frozenset(hour for hour in hours if hour + HOUR_US + self.window_us > watermark)
        state = replace(self._next(plan, folded, columns, moment, watermark), greatest=greatest, open_hours=still_open)
        return labels, late, state, segment, hours - still_open

    def _next(self, plan: Plan, folded: Folded, columns: Columns, moment: np.ndarray, watermark: int) -> State:
        old = self.state
        segments = {**old.segments, plan.batch: int(moment.max()) if moment.size else NONE}
        # An open display lives for W; a click session that bears its context for another W.
        gone = {batch: last for batch, last in segments.items() if last + 2 * self.window_us <= watermark}
        there = set(landing_files(self.landing))
        return State(
            batch=plan.batch,
            watermark=watermark,
            memory_from=max([old.memory_from, *(last + 1 for last in gone.values() if last != NONE)]),
            window_us=self.window_us,
            open_impressions=folded.open_impressions,
            open_clicks=folded.open_clicks,
            pending=columns.take(folded.pending),
            segments={batch: last for batch, last in segments.items() if batch not in gone},
            consumed=(old.consumed & there) | set(plan.files),
        )

    def _strings(self, ctx: np.ndarray, names: list[str]) -> pa.Table:
        """Rows of strings by `ctx`, from the segments that it points into."""
        batches, rows = ctx >> ROW_BITS, ctx & ((1 << ROW_BITS) - 1)
        order = np.argsort(batches, kind="stable")
        parts = [self._empty_strings(names)]
        for group in np.split(order, np.flatnonzero(np.diff(batches[order])) + 1):
            if group.size:
                parts.append(self.segments[int(batches[group[0]])].select(names).take(pa.array(rows[group])))
        back = np.empty(ctx.size, np.int64)
        back[order] = np.arange(ctx.size)
        return pa.concat_tables(parts).combine_chunks().take(pa.array(back))

    @staticmethod
    def _empty_strings(names: list[str]) -> pa.Table:
        return pa.schema([EVENTS.schema.field(name) for name in names]).empty_table()

    def _tables(self, given: Input, fresh: pa.Table, late: pa.Table, labels, closed_hours) -> dict[str, pa.Table]:
        """The rows of this batch by table, each in its table's schema."""
        book = [{"hour": EPOCH + dt.timedelta(microseconds=hour), "window_us": self.window_us, "events_version": None,
                 "labeled_by": APP} for hour in sorted(closed_hours)]  # fmt: skip
        return {
            RAW_EVENTS.name: given.raw,
            SOURCES.name: given.sources,
            ID_KEYS.name: given.id_keys,
            QUARANTINE.name: given.quarantine,
            EVENTS.name: _with_hour(fresh, EVENTS),
            IMPRESSION_SESSIONS.name: labels.impression_sessions,
            CLICK_SESSIONS.name: labels.click_sessions,
            ORPHAN_ACTIONS.name: labels.orphan_actions,
            LATE_EVENTS.name: _with_hour(late, LATE_EVENTS),
            LABELED_HOURS.name: pa.Table.from_pylist(book, LABELED_HOURS.schema),
        }

    def _stats(self, plan: Plan, given: Input, fresh: pa.Table, tables, labels, state: State, clock) -> dict:
        clock.lap("stats")
        return {
            "batch": plan.batch,
            "batch_id": f"{self.stream}-{plan.batch:09d}",
            "at": dt.datetime.now(dt.UTC).isoformat(),
            "files": len(plan.files),
            "read": given.rows,
            "repeats": given.repeats + given.events.num_rows - fresh.num_rows,
            "rows": {name: table.num_rows for name, table in tables.items()},
            "counts": labels.counts,
            "watermark": _text(state.watermark),
            "greatest": _text(state.greatest),
            "held": state.held,
            "open_impressions": state.open_impressions.shape[1],
            "open_clicks": state.open_clicks.shape[1],
            "pending": state.pending.time.size,
            "events_per_s": given.rows / max(clock.total, 1e-9),
            "seconds": clock.laps,
        }


_COLUMNS = tuple(Columns.__dataclass_fields__)


class _Clock:
    """Seconds by stage; `laps` also holds their total."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self._begun = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = round(now - self._last, 4)
        self.laps["total"] = round(now - self._begun, 4)
        self._last = now

    @property
    def total(self) -> float:
        return self.laps["total"]


def _late(moment: np.ndarray, ingest: np.ndarray, state: State, delay_us: int) -> tuple[np.ndarray, int]:
    """Which events were older than the watermark when they arrived, and the greatest event_time so far."""
    order = np.argsort(ingest, kind="stable")
    start = max(state.greatest, _BEFORE_ALL)
    greatest = np.maximum.accumulate(np.concatenate([[start], moment[order]]))
    watermark = np.maximum(greatest[:-1] - delay_us, max(state.watermark, _BEFORE_ALL))
    late = np.empty(moment.size, bool)
    late[order] = moment[order] < watermark
    return late, int(greatest[-1]) if greatest[-1] != _BEFORE_ALL else NONE


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


# --- the landing folder ----------------------------------------------------------------------------------------------


def landing_files(folder: Path) -> list[str]:
    """Logs under the landing folder in order of arrival: by name, then by subfolder."""
    from assets.events import landing

    found = [path.relative_to(folder) for batch in landing.batches(Path(folder)) for path in batch.paths]
    return [str(path) for path in sorted(found, key=lambda path: (path.name, str(path)))]


def read_landing(lake: Lake, folder: Path, plan: Plan) -> Input:
    """Read the plan's files: a folder's own mapping.toml says how, else they are native events.

    A file whose content was landed before (`sources` at the plan's version) is not read again: its raw rows are in the
    lake, and the asset that landed them makes events of them.
    """
    from assets.events import intake, landing, sources

    landed_at = dt.datetime.fromisoformat(plan.planned_at)
    known = set(lake.read(SOURCES.name, columns=["source"], version=plan.versions[SOURCES.name])["source"].to_pylist())
    raws, events, quarantine, keys, records, rows = [], [], [], [], [], 0
    forms: dict[Path, object] = {}
    for path in (folder / name for name in plan.files):
        if path.parent not in forms:
            forms[path.parent] = _form(path.parent / landing.MAPPING)
        form = forms[path.parent]
        source, file_rows = intake.fingerprint(path, form), 0
        if source in known:
            continue
        known.add(source)
        for block, parsed in intake.parse_file(path, form):
            hour = intake.raw_hours(parsed.clock, landed_at)
            raw = pl.DataFrame({"hour": hour, "row": block.number, "body": block.body(None)})
            raw = raw.with_columns(source=pl.lit(source), reason=parsed.reason)
            raws.append(raw.select(RAW_EVENTS.schema.names))
            quarantine.append(raw.filter(parsed.reason.is_not_null()).select(QUARANTINE.schema.names))
            events.append(parsed.events)
            keys.append(parsed.id_keys)
            file_rows += len(block)
        rows += file_rows
        layout = form.layout(path)
        records.append({
            "source": source, "name": path.name, "format": layout.format, "header": sources.header_of(path, layout),
            "mapping": form.text, "rows": file_rows, "bytes": path.stat().st_size, "landed_at": landed_at,
        })  # fmt: skip
    everything = pl.concat(events) if events else intake.no_events()
    first = everything.unique("event_id", keep="first", maintain_order=True)
    return Input(
        events=intake.to_arrow(first, pa.schema([f for f in EVENTS.schema if f.name != "hour"])),
        quarantine=_frame_table(quarantine, QUARANTINE),
        raw=_frame_table(raws, RAW_EVENTS),
        sources=pa.Table.from_pylist(records, SOURCES.schema),
        id_keys=_new_keys(lake, keys, plan),
        rows=rows,
        repeats=len(everything) - len(first),
    )


def _form(mapping_file: Path):
    from assets.events import intake

    if not mapping_file.exists():
        return intake.Native()
    from assets.events.mapping import load_mapping

    return load_mapping(mapping_file)


def _frame_table(frames: Sequence[pl.DataFrame], table: Table) -> pa.Table:
    if not frames:
        return table.empty()
    return pl.concat(frames).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(table.schema)


def _new_keys(lake: Lake, keys: Sequence[pl.DataFrame], plan: Plan) -> pa.Table:
    """Keys of string ids that `id_keys` does not hold yet. Raises SourceError where two ids have one key."""
    from assets.events.intake import check_collisions

    frames = [frame for frame in keys if len(frame)]
    if not frames:
        return ID_KEYS.empty()
    known = pl.from_arrow(lake.read(ID_KEYS.name, version=plan.versions[ID_KEYS.name]))
    new = pl.concat(frames).unique(maintain_order=True).join(known, on=["kind", "key", "original"], how="anti")
    check_collisions(pl.concat([known.select(new.columns), new]))
    return _frame_table([new.select(ID_KEYS.schema.names)], ID_KEYS)
