"""Labeling of what is bounded: a table of events, log files, a window of the lake's history.

Here: which events a result needs so that its edges are exact, and where the result is written.
Not here: the rules (fold.py), rows (convert.py), micro-batches (live.py), reading of foreign logs (assets/events).
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.attribution import state as live_state
from assets.attribution.convert import (
    CONTEXT_NAMES,
    LabelError,
    Labels,
    from_frame,
    hour_by_hour,
    microseconds,
    sorted_columns,
    sorted_frame,
    to_labels,
)
from assets.attribution.fold import CARRIED, CTX, NEVER, NONE, SHORT, Columns, Limits, fold, key_order, no_sessions
from assets.attribution.provenance import booked, register
from assets.attribution.rules import Rules
from assets.attribution.tables import (
    CLICK_SESSIONS,
    FLAGS,
    IMPRESSION_SESSIONS,
    LABELED_HOURS,
    LATE_EVENTS,
    ORPHAN_ACTIONS,
    SHORT_CLICKS,
)
from assets.events.context import typed
from assets.events.contract import EARLIEST, EVENT_SCHEMA, EVENTS, LATEST, TIME, TYPED_NAMES
from assets.hours import near, split
from assets.lake import Lake, Moved, Table, Window, Write

if TYPE_CHECKING:
    from assets.events.mapping import Mapping

__all__ = ["LabelError", "Labels", "label", "label_files", "label_window"]

SLICE_ROWS = 2_000_000  # events in memory at once, about
COMMIT_ROWS = 4_000_000  # labels staged before they are committed
SETTLE_TRIES = 5  # of a commit beside which late events arrive
WRITERS = 2
HALVED_ROWS = 50_000  # of one table; fewer are written by one thread
READ = [name for name in EVENT_SCHEMA.names if name != "ingest_time"]
UNTYPED = [name for name in READ if name not in TYPED_NAMES]
STRINGS = ["event_id", *CONTEXT_NAMES]
TOP_REASONS = 20
OUTPUTS = ("impression_sessions", "click_sessions", "orphan_actions", "quarantine", "id_keys")  # files of label_files
ONE_HOUR = dt.timedelta(hours=1)
MS = dt.timedelta(milliseconds=1)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def label(events: pa.Table, rules: Rules) -> Labels:
    """Label a bounded log: every session closed.

    events: EVENT_SCHEMA in any order, one row an event_id (intake drops the repeats). Raises LabelError where a
    required column holds a null or an action is unknown.
    """
    columns, frame = sorted_columns(events)
    folded = fold(columns, no_sessions(), no_sessions(), rules, NEVER)
    return to_labels(folded, columns, from_frame(frame), rules)


# --- log files -------------------------------------------------------------------------------------------------------


def label_files(paths: Sequence[Path], out: Path, mapping: Mapping | None, rules: Rules) -> dict:
    """Label log files into Parquet files under `out`: the core of `glasshouse label`.

    Writes impression_sessions, click_sessions, orphan_actions and quarantine (and id_keys where ids were strings), each
    beside first and then renamed, so that a file of that name is always whole; other files in `out` are left alone.
    Returns what the summary table shows: counts, quarantine by reason, flags, ctr (clicked / impression sessions, null
    without any), seconds by stage. Raises LabelError where `out` is not a folder, or a log is one of the files to be written.
    """
    from assets.events.intake import read_log

    out = Path(out)
    if out.exists() and not out.is_dir():
        raise LabelError(f"{out} is a file; give a folder, the labels are several files")
    for path in paths:
        if Path(path).stem in OUTPUTS and Path(path).resolve() == (out / f"{Path(path).stem}.parquet").resolve():
            raise LabelError(f"{path} would be overwritten by the labels; give another folder than the log's")
    clock = [time.perf_counter()]
    intake = read_log([Path(path) for path in paths], mapping)
    clock.append(time.perf_counter())
    labels = label(intake.events, rules)
    clock.append(time.perf_counter())
    written = (labels.impression_sessions, labels.click_sessions, labels.orphan_actions, intake.quarantine, intake.id_keys)
    tables = dict(zip(OUTPUTS, written, strict=True))
    if not intake.id_keys.num_rows:
        del tables["id_keys"]
    out.mkdir(parents=True, exist_ok=True)
    files = {name: str(_write_parquet(out / f"{name}.parquet", table)) for name, table in tables.items()}
    clock.append(time.perf_counter())
    read_s, label_s, write_s = np.diff(clock).tolist()
    return {
        **_summary(intake, labels),
        "seconds": {"read": read_s, "label": label_s, "write": write_s, "total": clock[-1] - clock[0]},
        "files": files,
    }


def _write_parquet(path: Path, table: pa.Table) -> Path:
    beside = path.with_suffix(".parquet.part")
    pq.write_table(table, beside, compression="zstd")
    os.replace(beside, path)
    return path


def _summary(intake, labels: Labels) -> dict:
    sessions, clicks = labels.impression_sessions, labels.click_sessions
    reasons = Counter(intake.quarantine["reason"].to_pylist()).most_common()
    top = dict(reasons[:TOP_REASONS])
    if rest := sum(count for _, count in reasons[TOP_REASONS:]):
        top[f"{len(reasons) - TOP_REASONS} other reasons"] = rest
    clicked = _count(sessions["clicked"])
    return {
        "rows": intake.rows,
        "events": intake.events.num_rows,
        "repeats": intake.repeats,
        "repeated_keys": intake.repeated_keys,
        "quarantined": intake.quarantine.num_rows,
        "quarantine": top,
        "impressions": labels.counts["impressions"],
        "impression_sessions": sessions.num_rows,
        "clicked": clicked,
        "ctr": clicked / sessions.num_rows if sessions.num_rows else None,
        "clicks": labels.counts["clicks"],
        "click_sessions": clicks.num_rows,
        "attributed": _count(clicks["attributed"]),
        "flags": {flag: _count(clicks[flag]) for flag in FLAGS},
        "flags_without_click": {flag: _count(sessions[flag]) for flag in FLAGS},
        "orphan_actions": labels.orphan_actions.num_rows,
        "stray_hours": _stray(intake.events["event_time"]),
    }


def _stray(times: pa.ChunkedArray) -> dict[str, int]:
    """Hours that lie far from the others and hold little, see assets/hours.py -> events."""
    hours = pl.from_arrow(times.cast(pa.int64())) // (ONE_HOUR // dt.timedelta(microseconds=1))
    counts = dict(hours.value_counts(name="events").iter_rows())
    found = split({EPOCH + ONE_HOUR * hour: count for hour, count in counts.items()})
    return {hour.isoformat(): count for hour, count in sorted(found.stray.items())}


def _count(column: pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0


# --- a window of the lake's history ----------------------------------------------------------------------------------


def label_window(
    lake: Lake, window: Window, rules: Rules, progress: Callable[..., None] | None = None
) -> dict[str, int]:
    """Label, in the lake, the sessions that start in the window and the orphans in it; replaces those hours.

    The edges are exact. Sessions that began before window.start and are open there are carried in: from their rows
    where the hours before are labeled, else by folding from the last hour that is (or that a gap in the events makes
    independent). Their rows are not rewritten. Events up to window.end + W complete the sessions that start inside.

    late_events that are now in a session or an orphan are removed; one stays that belongs to a session which started
    before the window, until that hour is recomputed.

    In slices of about SLICE_ROWS events with open sessions carried between them; hundreds of small hours are one commit, of all
    tables at one moment. A crash leaves whole commits, and a rerun finishes. progress: called with hours_done= and hours_total=.

    Returns counts: hours, events (in the window), impression_sessions, click_sessions, orphan_actions, late_used,
    late_kept, carried (sessions carried in), hours_before (read further back for want of labels), edge_changed
    (sessions that reach over window.end and are not those that the hours after it were labeled with: label those too).
    Raises LabelError where the live labeler still owes rows of the window, or the window reaches into years that no event
    bears; LakeError where there is no `events`.
    """
    refuse_other_years(window)
    lake.recover()
    refuse_what_is_live(lake, window, rules)
    run = WindowRun(lake, window, rules, version=lake.version(EVENTS.name))
    run.go(progress or (lambda **_: None))
    return run.counts


def refuse_other_years(window: Window) -> None:
    """Raises LabelError where the window reaches more than a year beyond those that an event may bear: each hour of it costs, and
    in the years 1 and 9999 there is no hour before or after."""
    if window.start.year < EARLIEST.year - 1 or window.end.year > LATEST.year:
        raise LabelError(
            f"[{window.start.isoformat()}, {window.end.isoformat()}) reaches beyond the years that events bear, {EARLIEST.year} to "
            f"{LATEST.year - 1}; take a range within them"
        )


def refuse_what_is_live(lake: Lake, window: Window, rules: Rules) -> None:
    """Raises LabelError where the live labeler has not closed every session that the window's rows need."""
    owed = live_state.held(lake)
    if owed is None:
        return
    first, last = (EPOCH + dt.timedelta(microseconds=value) for value in owed)
    if first < window.end + reach(rules) - rules.window and last >= window.start - rules.window:
        raise LabelError(
            f"the live labeler still has sessions or events open from {first.isoformat()} to {last.isoformat()}, which "
            f"meets [{window.start.isoformat()}, {window.end.isoformat()}); label a window that ends before, or later"
        )


def reach(rules: Rules) -> dt.timedelta:
    """How long after a window's end events still change its rows: W, twice where a click needs dwell to be one."""
    return rules.window * (2 if rules.valid_click_dwell else 1)


def _us(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def hours_up(span: dt.timedelta) -> int:
    """Whole hours that cover the span."""
    return -(-span // ONE_HOUR)


def floor_hour(moment: dt.datetime) -> dt.datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


@dataclass
class WindowRun:
    """One call of label_window, or a part of a backfill's plan: what it reads, carries and has not committed yet.

    version: of `events`. target: the lake that gets the rows; None for the one that is read. labels: what answers
    read(name, window, columns) and exists(name) for the tables of labels; None for the lake. late: the late events
    that are used, by their event time, all others being left out; None for all, as label_window says. settles: whether
    late_events that are used leave their table. after: the rules of the hours after the window, None for the same: a session
    follows those of the hour in which it starts. probe: called with the name of each point passed (tests kill the process
    there). seen: called with a table's name and the rows of it that are written, from the writers' threads.
    """

    lake: Lake
    window: Window
    rules: Rules
    version: int
    target: Lake | None = None
    labels: Any = None
    late: Window | None = None
    settles: bool = True
    after: Rules | None = None
    by: str = "window"
    probe: Callable[[str], None] = lambda point: None
    seen: Callable[[str, pa.Table], None] | None = None
    counts: dict[str, int] = field(default_factory=Counter)
    late_used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.target, self.labels = self.target or self.lake, self.labels or self.lake
        self.window_us = microseconds(self.rules.window)
        self.limits = Limits.of(self.rules).then(self.after or self.rules, _us(self.window.end))
        self.ahead = max(reach(one) for one in (self.rules, self.after or self.rules))
        self.margin = ONE_HOUR * hours_up(self.rules.window)
        self.committed_to = self.window.start
        # Late events that this run can put into a session: in the window, or after it in a session that began in it.
        self.late_window = self.late or self.window.widened(after=self.margin)
        self.tables = [IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS]
        if self.rules.valid_click_dwell or self.labels.exists(SHORT_CLICKS.name):
            self.tables.append(SHORT_CLICKS)
        self.staged: dict[str, list[dict]] = {table.name: [] for table in self.tables}
        adds = pa.table(self.lake.open(EVENTS.name, self.version).get_add_actions(flatten=True))
        self.files, self.events_by_hour = _files(self.lake, adds), _rows_by_hour(adds)

    def go(self, progress: Callable[..., None]) -> None:
        register(self.target, self.rules)
        for table in (*self.tables, LATE_EVENTS, LABELED_HOURS):
            self.lake.create(table)
            self.target.create(table)
        rows = self.events_by_hour
        labeled = _labeled_hours(self.labels, self.window_us)
        first = self._first_hour(rows, labeled)
        self.held = [*rows, *labeled]
        before = self.crossing() if self.window.end in labeled else None
        late = self.labels.read(LATE_EVENTS.name, self.late_window)
        late_ids = pl.from_arrow(late["event_id"])
        open_impressions, open_clicks, strings = self._carried_in(first)
        self.counts.update(
            hours=len(self.window.hours), events=sum(rows.get(hour, 0) for hour in self.window.hours),
            carried=open_impressions.shape[1] + open_clicks.shape[1],
            hours_before=(self.window.start - first) // ONE_HOUR,
        )  # fmt: skip
        last = self.window.end + ONE_HOUR * hours_up(self.ahead)
        total = (last - first) // ONE_HOUR
        slices = _slices(rows, first, last)
        with ThreadPoolExecutor(WRITERS) as writer, ThreadPoolExecutor(1) as reader:
            writing: list[Future] = []
            ahead = reader.submit(self._events, *slices[0])
            for (start, end), following in zip_longest(slices, slices[1:]):
                columns, frame = ahead.result()
                ahead = following and reader.submit(self._events, *following)  # beside the fold of this one
                # What a slice no longer needs goes at once: open sessions alone are a third of an hour's events.
                columns.ctx[:] += strings.height
                frame = pl.concat([strings.select(STRINGS), frame], rechunk=True)
                del strings
                watermark = NEVER if end == last else _us(end)
                folded = fold(columns, open_impressions, open_clicks, self.limits, watermark)
                del open_impressions, open_clicks
                labels = to_labels(hour_by_hour(folded), columns, from_frame(frame), self.rules)
                self._note_late(late_ids, columns, folded, frame)
                open_impressions, open_clicks, strings = _renumbered(folded, frame)
                del columns, folded, frame
                self._written(writing)
                writing = self._stage(labels, writer)  # beside the next slice's reading
                del labels
                if sum(add["rows"] for adds in self.staged.values() for add in adds) >= COMMIT_ROWS:
                    self._written(writing)
                    self._commit(min(self.window.end, floor_hour(end - self.rules.window)))
                progress(hours_done=(end - first) // ONE_HOUR, hours_total=total)
            self._written(writing)
        self._commit(self.window.end)
        if before is not None:
            after = self.crossing(self.target)
            for one, other in ((before, after), (after, before)):
                self.counts["edge_changed"] += one.join(other, on=one.columns, how="anti", nulls_equal=True).height

    def _first_hour(self, rows: dict[dt.datetime, int], labeled: set[dt.datetime]) -> dt.datetime:
        """The latest hour at whose start every open session is known: from labels, or because nothing happened."""
        first = self.window.start
        while True:
            near = [first - ONE_HOUR * i for i in range(1, hours_up(self.rules.window) + 1)]
            unknown = [hour for hour in near if hour in rows and hour not in labeled]
            if not unknown:
                return first
            first = min(unknown)

    def _carried_in(self, first: dt.datetime) -> tuple[np.ndarray, np.ndarray, pl.DataFrame]:
        """Sessions open at `first` as the fold's state, and the frame of their strings."""
        impressions = self._reaching(self.labels, IMPRESSION_SESSIONS, first)
        clicks = [self._reaching(self.labels, CLICK_SESSIONS, first)]
        if SHORT_CLICKS in self.tables:
            clicks.append(self._reaching(self.labels, SHORT_CLICKS, first))
        short = np.repeat([0, SHORT], [clicks[0].num_rows, sum(rows.num_rows for rows in clicks[1:])])
        both = pa.concat_tables(clicks)
        states = (
            _carried(impressions, 0, IMPRESSION_SESSIONS.name, np.zeros(impressions.num_rows, np.int64)),
            _carried(both, impressions.num_rows, CLICK_SESSIONS.name, short),
        )
        frames = [pl.from_arrow(rows.select(CONTEXT_NAMES)) for rows in (impressions, both)]
        strings = pl.concat(frames).with_columns(pl.lit(None, pl.String).alias("event_id"))
        return *states, strings

    def _events(self, start: dt.datetime, end: dt.datetime) -> tuple[Columns, pl.DataFrame]:
        """The slice's events for the fold, and the frame of their strings."""
        edge = end + self.rules.window if self.limits.short is not None else end  # a click is judged when it comes
        edge = min(edge, self.window.end + self.ahead)
        if edge <= start:
            events = pl.from_arrow(EVENT_SCHEMA.empty_table())
        else:
            hours = Window(floor_hour(start), floor_hour(edge - dt.timedelta(microseconds=1)) + ONE_HOUR)
            events = self._on_time(self._between(start, edge, hours), hours)
        return sorted_frame(events), events.select(STRINGS)

    def _between(self, start: dt.datetime, end: dt.datetime, hours: Window) -> pl.DataFrame:
        """Events with start <= event_time < end, columns READ. hours: which hold them."""
        if self.lake.log is None:  # not a local folder
            inside = (pc.field("hour") >= pa.scalar(hours.start, TIME)) & (pc.field("hour") < pa.scalar(hours.end, TIME))
            inside &= (pc.field("event_time") >= pa.scalar(start, TIME)) & (pc.field("event_time") < pa.scalar(end, TIME))
            events = self.lake.dataset(EVENTS.name, self.version)
            return _typed(pl.from_arrow(events.to_table(columns=UNTYPED, filter=inside)))
        # polars decodes texts into what the fold's rows are gathered from, in half of the time that Arrow and a conversion take.
        near = [file for file in self.files if hours.start <= file.hour < hours.end and file.first < end and file.last >= start]
        inside = (pl.col("event_time") >= start) & (pl.col("event_time") < end)
        self.lake.check_files(EVENTS.name, [file.path for file in near])

        def read(files: list[_File], columns: list[str]) -> pl.DataFrame:
            whole, cut = [], []
            for file in files:
                (whole if start <= file.first and file.last < end else cut).append(file.path)
            parts = [_scanned(whole), _scanned(cut).filter(inside)]
            return pl.concat([part.select(columns) for part in parts]).collect()

        found = read([file for file in near if file.typed], READ)
        older = [file for file in near if not file.typed]
        return pl.concat([found, _typed(read(older, UNTYPED))]) if older else found

    def _on_time(self, events: pl.DataFrame, hours: Window) -> pl.DataFrame:
        """Without the late events that this run leaves out."""
        if self.late is None:
            return events
        late = self.labels.read(LATE_EVENTS.name, hours, ["event_id", "event_time"])
        time = late["event_time"]
        start, end = pa.scalar(self.late.start, TIME), pa.scalar(self.late.end, TIME)
        out = late.filter(pc.or_(pc.less(time, start), pc.greater_equal(time, end)))
        if not out.num_rows:
            return events
        return events.filter(~pl.col("event_id").is_in(pl.from_arrow(out["event_id"]).implode()))

    def _stage(self, labels: Labels, writer: ThreadPoolExecutor) -> list[Future]:
        """Write the window's rows as data files that nobody sees yet."""
        inside = [_inside(table, self.window) for table in _tables(labels)[: len(self.tables)]]
        pairs = list(zip(self.tables, inside, strict=True))
        if self.seen is not None:
            told = [writer.submit(self.seen, table.name, rows) for table, rows in pairs]
        else:
            told = []
        return [writer.submit(self.target.stage, Write(table, part)) for table, rows in pairs for part in _halves(rows)] + told

    def _written(self, writing: list[Future]) -> None:
        for done in writing:
            step = done.result()
            if step is not None:  # of `seen` there is none
                self.staged[step["table"]] += step["adds"]
        writing.clear()

    def _note_late(self, late_ids: pl.Series, columns, folded, frame: pl.DataFrame) -> None:
        """Remember which late events are now in a row of this window."""
        if late_ids.is_empty():
            return
        rows = np.flatnonzero(frame["event_id"].is_in(late_ids.implode()).to_numpy())
        places = np.flatnonzero(np.isin(columns.ctx, rows))
        owner = np.where(folded.owners[places] == NONE, columns.time[places], folded.owners[places])
        used = places
        if self.late is None:
            used = places[(owner >= _us(self.window.start)) & (owner < _us(self.window.end))]
        self.late_used.update(frame["event_id"].gather(columns.ctx[used]).to_list())

    def _commit(self, end: dt.datetime) -> None:
        """Replace [committed_to, end) by what has been staged for it, in all tables at one moment."""
        if end <= self.committed_to:
            return
        part = Window(self.committed_to, end)
        # Of a range over years, not each hour of the empty time between.
        book = booked(near(part, self.held), self.window_us, self.version, self.by, self.rules.fingerprint)
        steps = [self.target.stage(Write(LABELED_HOURS, book, part))]
        for name, adds in self.staged.items():
            now = [add for add in adds if _hour_of(add) < end]
            self.staged[name] = [add for add in adds if _hour_of(add) >= end]
            steps.append({"table": name, "window": [[part.start.isoformat(), part.end.isoformat()]], "adds": now})
            self.counts[name] += sum(add["rows"] for add in now)
        if end == self.window.end and self.settles:
            self._commit_settled(steps)
        else:
            self.probe("staged")
            self._commit_steps(steps)
        self.committed_to = end
        self.counts["commits"] += 1

    def _commit_settled(self, steps: list[dict]) -> None:
        """Commit, and let the late events that were used leave their table; those that arrive meanwhile stay in it."""
        self.probe("staged")
        if self.target is not self.lake:  # a plan's own: nobody else writes there
            self._commit_steps([*steps, *self._settled(self.labels)])
            return
        for _ in range(SETTLE_TRIES):
            then = self.lake.pinned()
            try:
                self.target.commit_unmoved(
                    [*steps, *self._settled(then)], then, {LATE_EVENTS.name: self.late_window}, by="label_window", probe=self.probe
                )
                return
            except Moved:
                continue
        raise LabelError(
            f"late events kept arriving for [{self.late_window.start.isoformat()}, {self.late_window.end.isoformat()}) while its "
            "window was labeled; label it later"
        )

    def _commit_steps(self, steps: list[dict]) -> None:
        self.target.commit(steps, by="label_window", probe=self.probe)

    def _settled(self, late_in: Any) -> list[dict]:
        """What `late_events` is to hold without those that were used, staged; nothing where none was."""
        names = [name for name in LATE_EVENTS.schema.names if name not in TYPED_NAMES]
        late = LATE_EVENTS.completed(late_in.read(LATE_EVENTS.name, self.late_window, names))
        kept = late.filter(pc.invert(pc.is_in(late["event_id"], pa.array(sorted(self.late_used), pa.string()))))
        self.counts["late_used"] = late.num_rows - kept.num_rows
        self.counts["late_kept"] = _inside(kept, self.window).num_rows
        return [self.target.stage(Write(LATE_EVENTS, kept, self.late_window))] if kept.num_rows < late.num_rows else []

    def crossing(self, labels: Any = None) -> pl.DataFrame:
        """Sessions that start before window.end and reach over it: what the next hour's labels stand on."""
        labels = labels or self.labels
        return pl.concat(
            [pl.from_arrow(self._reaching(labels, table, self.window.end)).with_columns(pl.lit(table.name).alias("table"))
             for table in self.tables if table is not ORPHAN_ACTIONS]
        )  # fmt: skip

    def _reaching(self, labels: Any, table: Table, moment: dt.datetime) -> pa.Table:
        """The table's sessions that start before `moment` (a full hour) and end after it."""
        names = ["user_id", "note_id", "session_start", "session_end", *(name for name in CONTEXT_NAMES if name not in TYPED_NAMES)]
        there = [name for name in names if name in table.schema.names]
        rows = labels.read(table.name, Window(moment - self.margin, moment), there)
        length = pc.subtract(_int(rows["session_end"]), _int(rows["session_start"]))
        rows = rows.filter(pc.and_(
            pc.greater(rows["session_end"], pa.scalar(moment, TIME)), pc.equal(length, self.window_us)
        ))  # fmt: skip
        for name in names[len(there) :]:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, IMPRESSION_SESSIONS.schema.field(name).type))
        return IMPRESSION_SESSIONS.completed(rows)


def _tables(labels: Labels) -> tuple[pa.Table, ...]:
    return labels.impression_sessions, labels.click_sessions, labels.orphan_actions, labels.short_clicks


def _hour_of(add: dict) -> dt.datetime:
    return dt.datetime.fromisoformat(add["hour"]).replace(tzinfo=dt.UTC)


def _inside(table: pa.Table, window: Window) -> pa.Table:
    hour = table["hour"]
    start, end = pa.scalar(window.start, TIME), pa.scalar(window.end, TIME)
    bounds = pc.min_max(hour)
    if table.num_rows and bounds["min"].as_py() >= window.start and bounds["max"].as_py() < window.end:
        return table  # nearly always: a filter copies all texts
    return table.filter(pc.and_(pc.greater_equal(hour, start), pc.less(hour, end)))


def _halves(rows: pa.Table) -> list[pa.Table]:
    """The rows, which ascend by hour, in two parts between two hours, so that both writers have some; a few rows as they are."""
    if rows.num_rows < HALVED_ROWS:
        return [rows]
    hours = rows["hour"].cast(pa.int64()).to_numpy()
    middle = np.searchsorted(hours, hours[len(hours) // 2])
    return [rows.slice(0, middle), rows.slice(middle)] if middle and (hours[1:] >= hours[:-1]).all() else [rows]


def _int(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return times.cast(pa.int64())


def _rows_by_hour(adds: pa.Table) -> dict[dt.datetime, int]:
    """Events an hour, from the table's log alone. adds: Delta's add actions, flattened."""
    rows: Counter = Counter()
    for hour, count in zip(adds["partition.hour"].to_pylist(), adds["num_records"].to_pylist(), strict=True):
        rows[hour.astimezone(dt.UTC)] += count
    return {hour: count for hour, count in rows.items() if count}


@dataclass(frozen=True)
class _File:
    """A data file of events: where it is, its hour, first and last event_time. typed: it has the columns of TYPED_FIELDS."""

    path: str
    hour: dt.datetime
    first: dt.datetime
    last: dt.datetime
    typed: bool


def _files(lake: Lake, adds: pa.Table) -> list[_File]:
    files = []
    for row in adds.to_pylist():
        hour = row["partition.hour"].astimezone(dt.UTC)
        # Without bounds in the log a file is read and filtered; Spark writes them in whole milliseconds, cut off.
        first, last = row.get("min.event_time") or hour - ONE_HOUR, row.get("max.event_time") or hour + 2 * ONE_HOUR
        path = str(Path(lake.path(EVENTS.name), unquote(row["path"])))
        has_typed = row.get(f"null_count.{TYPED_NAMES[0]}") is not None
        files.append(_File(path, hour, first.astimezone(dt.UTC) - MS, last.astimezone(dt.UTC) + MS, has_typed))
    return files


def _typed(events: pl.DataFrame) -> pl.DataFrame:
    """Events of an older Glasshouse, columns UNTYPED, with all of READ."""
    return events.hstack(typed(events["context"])).select(READ)


def _scanned(paths: list[str]) -> pl.LazyFrame:
    empty = pl.from_arrow(EVENT_SCHEMA.empty_table().select(READ))
    if not paths:
        return empty.lazy()
    return pl.scan_parquet(
        paths, glob=False, hive_partitioning=False, schema=empty.schema, missing_columns="insert", extra_columns="ignore"
    )


def _labeled_hours(labels: Any, window_us: int) -> set[dt.datetime]:
    """Hours whose sessions are all there, labeled with this length of a session."""
    book = labels.read(LABELED_HOURS.name, columns=["hour", "window_us"])
    book = book.filter(pc.equal(book["window_us"], window_us))
    return {hour.astimezone(dt.UTC) for hour in book["hour"].to_pylist()}


def _carried(rows: pa.Table, first_ctx: int, name: str, short: np.ndarray) -> np.ndarray:
    """Rows of the lake as sessions that take part and are not emitted again. Raises LabelError where two overlap.

    short: int64[n], SHORT for the click sessions that are no clicks, else 0.
    """
    user, note, start = (np.asarray(_int(rows[n]).combine_chunks()) for n in ("user_id", "note_id", "session_start"))
    order = key_order([user, note])
    state = np.zeros((no_sessions().shape[0], user.size), np.int64)
    state[0], state[1], state[2] = user[order], note[order], start[order]
    state[CTX], state[CARRIED], state[8] = order + first_ctx, 1 + short[order], NONE
    if ((state[0, 1:] == state[0, :-1]) & (state[1, 1:] == state[1, :-1])).any():
        raise LabelError(f"`{name}` holds sessions of one key that overlap; label from a day before this window again")
    return state


def _slices(
    rows: dict[dt.datetime, int], first: dt.datetime, last: dt.datetime
) -> list[tuple[dt.datetime, dt.datetime]]:
    """[first, last) cut so that a slice holds about SLICE_ROWS events: at full hours, and within a larger hour."""
    slices, start, size = [], first, 0
    hour = first
    while hour < last:
        count = rows.get(hour, 0)
        if size and size + count > SLICE_ROWS:
            slices.append((start, hour))
            start, size = hour, 0
        size += count
        pieces = -(-size // SLICE_ROWS)
        if pieces > 1:
            cuts = [hour + ONE_HOUR * n / pieces for n in range(pieces)]
            slices += list(zip(cuts, cuts[1:], strict=False))
            start, size = cuts[-1], count // pieces
        hour += ONE_HOUR
    return [*slices, (start, last)]


def _renumbered(folded, frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, pl.DataFrame]:
    """The open sessions and only their strings, so that a slice's frame can go."""
    both = np.concatenate([folded.open_impressions[CTX], folded.open_clicks[CTX]])
    rows, number = np.unique(both, return_inverse=True)
    impressions, clicks = folded.open_impressions, folded.open_clicks
    impressions[CTX], clicks[CTX] = number[: impressions.shape[1]], number[impressions.shape[1] :]
    return impressions, clicks, frame[rows]
