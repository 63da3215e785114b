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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

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
    microseconds,
    sorted_columns,
    to_labels,
)
from assets.attribution.fold import CARRIED, CTX, NEVER, NONE, fold, key_order, no_sessions
from assets.attribution.rules import Rules
from assets.attribution.tables import (
    CLICK_SESSIONS,
    FLAGS,
    IMPRESSION_SESSIONS,
    LABELED_HOURS,
    LATE_EVENTS,
    ORPHAN_ACTIONS,
)
from assets.events.contract import EVENT_SCHEMA, EVENTS, TIME
from assets.lake import Lake, Table, Window, Write

if TYPE_CHECKING:
    from assets.events.mapping import Mapping

__all__ = ["LabelError", "Labels", "label", "label_files", "label_window"]

SLICE_ROWS = 2_000_000  # events in memory at once, as far as whole hours allow
COMMIT_ROWS = 4_000_000  # labels gathered before they are committed
TOP_REASONS = 20
ONE_HOUR = dt.timedelta(hours=1)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def label(events: pa.Table, rules: Rules) -> Labels:
    """Label a bounded log: every session closed.

    events: EVENT_SCHEMA in any order, one row an event_id (intake drops the repeats). Raises LabelError where a
    required column holds a null or an action is unknown.
    """
    window_us = microseconds(rules.window)
    columns, frame = sorted_columns(events)
    folded = fold(columns, no_sessions(), no_sessions(), window_us, NEVER)
    return to_labels(folded, columns, from_frame(frame), window_us)


# --- log files -------------------------------------------------------------------------------------------------------


def label_files(paths: Sequence[Path], out: Path, mapping: Mapping | None, rules: Rules) -> dict:
    """Label log files into Parquet files under `out`: the core of `glasshouse label`.

    Writes impression_sessions, click_sessions, orphan_actions and quarantine (and id_keys where ids were strings), each
    beside first and then renamed, so that a file of that name is always whole; other files in `out` are left alone.
    Returns what the summary table shows: counts, quarantine by reason, flags, ctr (clicked / impression sessions, null
    without any), seconds by stage. Raises LabelError where `out` is not a folder.
    """
    from assets.events.intake import read_log

    out = Path(out)
    if out.exists() and not out.is_dir():
        raise LabelError(f"{out} is a file; give a folder, the labels are several files")
    clock = [time.perf_counter()]
    intake = read_log([Path(path) for path in paths], mapping)
    clock.append(time.perf_counter())
    labels = label(intake.events, rules)
    clock.append(time.perf_counter())
    tables = {
        "impression_sessions": labels.impression_sessions,
        "click_sessions": labels.click_sessions,
        "orphan_actions": labels.orphan_actions,
        "quarantine": intake.quarantine,
    }
    if intake.id_keys.num_rows:
        tables["id_keys"] = intake.id_keys
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
    }


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

    In slices of whole hours with open sessions carried between them; hundreds of small hours are one commit, of all
    tables at one moment. A crash leaves whole commits, and a rerun finishes. progress: called with hours_done= and hours_total=.

    Returns counts: hours, events (in the window), impression_sessions, click_sessions, orphan_actions, late_used,
    late_kept, carried (sessions carried in), hours_before (read further back for want of labels), edge_changed
    (sessions that reach over window.end and are not those that the hours after it were labeled with: label those too).
    Raises LabelError where the live labeler still owes rows of the window, LakeError where there is no `events`.
    """
    lake.recover()
    _refuse_what_is_live(lake, window, rules)
    run = _WindowRun(lake, window, rules, version=lake.version(EVENTS.name))
    for table in (IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS, LATE_EVENTS, LABELED_HOURS):
        lake.create(table)
    run.go(progress or (lambda **_: None))
    return run.counts


def _refuse_what_is_live(lake: Lake, window: Window, rules: Rules) -> None:
    owed = live_state.held(lake)
    if owed is None:
        return
    first, last = (EPOCH + dt.timedelta(microseconds=value) for value in owed)
    if first < window.end and last >= window.start - rules.window:
        raise LabelError(
            f"the live labeler still has sessions or events open from {first.isoformat()} to {last.isoformat()}, which "
            f"meets [{window.start.isoformat()}, {window.end.isoformat()}); label a window that ends before, or later"
        )


def _us(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def _hours_up(span: dt.timedelta) -> int:
    return -(-span // ONE_HOUR)


@dataclass
class _WindowRun:
    """One call of label_window: what it reads, carries and has not committed yet."""

    lake: Lake
    window: Window
    rules: Rules
    version: int
    counts: dict[str, int] = field(default_factory=Counter)
    done: list[Labels] = field(default_factory=list)
    late_used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.window_us = microseconds(self.rules.window)
        self.margin = ONE_HOUR * _hours_up(self.rules.window)
        self.committed_to = self.window.start
        # Late events that this run can put into a session: in the window, or after it in a session that began in it.
        self.late_window = self.window.widened(after=self.margin)

    def go(self, progress: Callable[..., None]) -> None:
        rows = _rows_by_hour(self.lake, self.version)
        labeled = _labeled_hours(self.lake, self.window_us)
        first = self._first_hour(rows, labeled)
        before = self._crossing() if self.window.end in labeled else None
        late = self.lake.read(LATE_EVENTS.name, self.late_window)
        late_ids = pl.from_arrow(late["event_id"])
        open_impressions, open_clicks, strings = self._carried_in(first)
        self.counts.update(
            hours=len(self.window.hours), events=sum(rows.get(hour, 0) for hour in self.window.hours),
            carried=open_impressions.shape[1] + open_clicks.shape[1],
            hours_before=(self.window.start - first) // ONE_HOUR,
        )  # fmt: skip
        last = self.window.end + self.margin
        total = (last - first) // ONE_HOUR
        for part in _slices(rows, first, last):
            columns, frame = self._events(part, strings)
            watermark = NEVER if part.end == last else _us(part.end)
            folded = fold(columns, open_impressions, open_clicks, self.window_us, watermark)
            self._keep(to_labels(folded, columns, from_frame(frame), self.window_us))
            self._note_late(late_ids, columns, folded, frame)
            open_impressions, open_clicks, strings = _renumbered(folded, frame)
            if sum(_size(labels) for labels in self.done) >= COMMIT_ROWS:
                self._commit(part.end - self.margin, late)
            progress(hours_done=(part.end - first) // ONE_HOUR, hours_total=total)
        self._commit(self.window.end, late)
        if before is not None:
            after = self._crossing()
            for one, other in ((before, after), (after, before)):
                self.counts["edge_changed"] += one.join(other, on=one.columns, how="anti", nulls_equal=True).height

    def _first_hour(self, rows: dict[dt.datetime, int], labeled: set[dt.datetime]) -> dt.datetime:
        """The latest hour at whose start every open session is known: from labels, or because nothing happened."""
        first = self.window.start
        while True:
            near = [first - ONE_HOUR * i for i in range(1, _hours_up(self.rules.window) + 1)]
            unknown = [hour for hour in near if hour in rows and hour not in labeled]
            if not unknown:
                return first
            first = min(unknown)

    def _carried_in(self, first: dt.datetime) -> tuple[np.ndarray, np.ndarray, pl.DataFrame]:
        """Sessions open at `first` as the fold's state, and the frame of their strings."""
        states, frames, size = [], [], 0
        for table in (IMPRESSION_SESSIONS, CLICK_SESSIONS):
            rows = self._reaching(table, first)
            states.append(_carried(rows, size, table.name))
            frames.append(pl.from_arrow(rows.select(CONTEXT_NAMES)))
            size += rows.num_rows
        strings = pl.concat(frames).with_columns(pl.lit(None, pl.String).alias("event_id"))
        return *states, strings

    def _events(self, part: Window, strings: pl.DataFrame):
        """The slice's events for the fold; its frame begins with the strings of the open sessions."""
        events = self.lake.read(EVENTS.name, part, EVENT_SCHEMA.names, self.version)
        if part.end > self.window.end:
            edge = pa.scalar(self.window.end + self.rules.window, TIME)
            events = events.filter(pc.less(events["event_time"], edge))
        columns, frame = sorted_columns(events, first_ctx=strings.height)
        names = ["event_id", *CONTEXT_NAMES]
        return columns, pl.concat([strings.select(names), frame.select(names)], rechunk=True)

    def _keep(self, labels: Labels) -> None:
        self.done.append(Labels(*(_inside(table, self.window) for table in _tables(labels))))

    def _note_late(self, late_ids: pl.Series, columns, folded, frame: pl.DataFrame) -> None:
        """Remember which late events are now in a row of this window."""
        if late_ids.is_empty():
            return
        rows = np.flatnonzero(frame["event_id"].is_in(late_ids.implode()).to_numpy())
        places = np.flatnonzero(np.isin(columns.ctx, rows))
        owner = np.where(folded.owners[places] == NONE, columns.time[places], folded.owners[places])
        used = places[(owner >= _us(self.window.start)) & (owner < _us(self.window.end))]
        self.late_used.update(frame["event_id"].gather(columns.ctx[used]).to_list())

    def _commit(self, end: dt.datetime, late: pa.Table) -> None:
        """Replace [committed_to, end) by what has been gathered for it, in all tables at one moment.

        late: late_events; with the last commit those leave it that are in a session or an orphan now.
        """
        end = min(end, self.window.end)
        if end <= self.committed_to:
            return
        part = Window(self.committed_to, end)
        tables = [pa.concat_tables(tables) for tables in zip(*map(_tables, self.done), strict=True)]
        if not tables:
            tables = [table.empty() for table in (IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS)]
        writes = [Write(LABELED_HOURS, _book(part, self.window_us, self.version), part)]
        for table, data in zip((IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS), tables, strict=True):
            writes.append(Write(table, _inside(data, part), part))
            self.counts[table.name] += writes[-1].data.num_rows
        if end == self.window.end:
            writes += self._settled_late(late)
        self.lake.replace_windows(writes, by="label_window")
        left = Window(end, self.window.end) if end < self.window.end else None
        self.done = [Labels(*(_inside(data, left) for data in tables))] if left else []
        self.committed_to = end
        self.counts["commits"] += 1

    def _settled_late(self, late: pa.Table) -> list[Write]:
        kept = late.filter(pc.invert(pc.is_in(late["event_id"], pa.array(sorted(self.late_used), pa.string()))))
        self.counts["late_used"] = late.num_rows - kept.num_rows
        self.counts["late_kept"] = _inside(kept, self.window).num_rows
        return [Write(LATE_EVENTS, kept, self.late_window)] if kept.num_rows < late.num_rows else []

    def _crossing(self) -> pl.DataFrame:
        """Sessions in the lake that start before window.end and reach over it: what the next hour's labels stand on."""
        return pl.concat(
            [pl.from_arrow(self._reaching(table, self.window.end)).with_columns(pl.lit(table.name).alias("table"))
             for table in (IMPRESSION_SESSIONS, CLICK_SESSIONS)]
        )  # fmt: skip

    def _reaching(self, table: Table, moment: dt.datetime) -> pa.Table:
        """The table's sessions that start before `moment` (a full hour) and end after it."""
        names = ["user_id", "note_id", "session_start", "session_end", *CONTEXT_NAMES]
        rows = self.lake.read(table.name, Window(moment - self.margin, moment), names)
        length = pc.subtract(_int(rows["session_end"]), _int(rows["session_start"]))
        return rows.filter(pc.and_(
            pc.greater(rows["session_end"], pa.scalar(moment, TIME)), pc.equal(length, self.window_us)
        ))  # fmt: skip


def _tables(labels: Labels) -> tuple[pa.Table, pa.Table, pa.Table]:
    return labels.impression_sessions, labels.click_sessions, labels.orphan_actions


def _size(labels: Labels) -> int:
    return sum(table.num_rows for table in _tables(labels))


def _inside(table: pa.Table, window: Window) -> pa.Table:
    hour = table["hour"]
    start, end = pa.scalar(window.start, TIME), pa.scalar(window.end, TIME)
    return table.filter(pc.and_(pc.greater_equal(hour, start), pc.less(hour, end)))


def _int(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return times.cast(pa.int64())


def _rows_by_hour(lake: Lake, version: int) -> dict[dt.datetime, int]:
    """Events an hour, from the table's log alone."""
    found = pa.table(lake.open(EVENTS.name, version).get_add_actions(flatten=True))
    rows: Counter = Counter()
    for hour, count in zip(found["partition.hour"].to_pylist(), found["num_records"].to_pylist(), strict=True):
        rows[hour.astimezone(dt.UTC)] += count
    return {hour: count for hour, count in rows.items() if count}


def _labeled_hours(lake: Lake, window_us: int) -> set[dt.datetime]:
    """Hours whose sessions are all in the lake, labeled with this length of a session."""
    book = lake.read(LABELED_HOURS.name, columns=["hour", "window_us"])
    book = book.filter(pc.equal(book["window_us"], window_us))
    return {hour.astimezone(dt.UTC) for hour in book["hour"].to_pylist()}


def _book(window: Window, window_us: int, version: int) -> pa.Table:
    rows = [
        {"hour": hour, "window_us": window_us, "events_version": version, "labeled_by": "window"}
        for hour in window.hours
    ]
    return pa.Table.from_pylist(rows, LABELED_HOURS.schema)


def _carried(rows: pa.Table, first_ctx: int, name: str) -> np.ndarray:
    """Rows of the lake as sessions that take part and are not emitted again. Raises LabelError where two overlap."""
    user, note, start = (np.asarray(_int(rows[n]).combine_chunks()) for n in ("user_id", "note_id", "session_start"))
    order = key_order([user, note])
    state = np.zeros((no_sessions().shape[0], user.size), np.int64)
    state[0], state[1], state[2] = user[order], note[order], start[order]
    state[CTX], state[CARRIED], state[8] = order + first_ctx, 1, NONE
    if ((state[0, 1:] == state[0, :-1]) & (state[1, 1:] == state[1, :-1])).any():
        raise LabelError(f"`{name}` holds sessions of one key that overlap; label from a day before this window again")
    return state


def _slices(rows: dict[dt.datetime, int], first: dt.datetime, last: dt.datetime) -> list[Window]:
    """[first, last) cut at full hours so that a slice holds about SLICE_ROWS events, and at least an hour."""
    slices, start, size = [], first, 0
    hour = first
    while hour < last:
        if size and size + rows.get(hour, 0) > SLICE_ROWS:
            slices.append(Window(start, hour))
            start, size = hour, 0
        size += rows.get(hour, 0)
        hour += ONE_HOUR
    return [*slices, Window(start, last)]


def _renumbered(folded, frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, pl.DataFrame]:
    """The open sessions and only their strings, so that a slice's frame can go."""
    both = np.concatenate([folded.open_impressions[CTX], folded.open_clicks[CTX]])
    rows, number = np.unique(both, return_inverse=True)
    impressions, clicks = folded.open_impressions, folded.open_clicks
    impressions[CTX], clicks[CTX] = number[: impressions.shape[1]], number[impressions.shape[1] :]
    return impressions, clicks, frame[rows]
