"""Between Arrow and the fold: events as sorted columns, closed sessions as the rows of tables.py.

Here: conversions that label.py and live.py share. Not here: the rules (fold.py), reading and writing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from assets.attribution.fold import CTX, NONE, Columns, Folded, fold_order
from assets.attribution.rules import Rules
from assets.attribution.tables import (
    CLICK_SESSIONS,
    CONTEXT,
    FLAGS,
    IMPRESSION_SESSIONS,
    ORPHAN_ACTIONS,
    SHORT_CLICKS,
)
from assets.events.contract import ACTIONS, TIME
from assets.lake import Table

HOUR_US = 3_600_000_000
CONTEXT_NAMES = [column.name for column in CONTEXT]
Strings = Callable[[np.ndarray, list[str]], pa.Table]
_CODES = pl.Enum(ACTIONS)
_NEEDED = ("event_id", "user_id", "note_id", "action", "event_time")


class LabelError(Exception):
    """Labels that would not be right; the message says what to do next."""


@dataclass(frozen=True)
class Labels:
    """Closed sessions and orphans, in the schemas of tables.py; counts says what became of the events.

    short_clicks: empty unless the rules ask for dwell in a click.
    """

    impression_sessions: pa.Table
    click_sessions: pa.Table
    orphan_actions: pa.Table
    counts: dict[str, int] = field(default_factory=dict)
    short_clicks: pa.Table = field(default_factory=SHORT_CLICKS.empty)


def microseconds(span: dt.timedelta) -> int:
    return span // dt.timedelta(microseconds=1)


def sorted_columns(events: pa.Table, first_ctx: int = 0) -> tuple[Columns, pl.DataFrame]:
    """Events as the fold's columns, in its order, and the frame of strings that `ctx` numbers, from first_ctx."""
    columns = to_columns(events, first_ctx)
    frame = pl.from_arrow(events.select(["event_id", *CONTEXT_NAMES]))
    ids = frame["event_id"]
    return in_order(columns, lambda rows: ids.gather(rows).to_list()), frame


def sorted_frame(events: pl.DataFrame, first_ctx: int = 0) -> Columns:
    """Events as the fold's columns, in its order; `ctx` numbers their rows from first_ctx."""
    columns = to_columns(events.select(*_NEEDED, "dwell_ms").to_arrow(compat_level=pl.CompatLevel.newest()), first_ctx)
    return in_order(columns, lambda rows: events["event_id"].gather(rows).to_list())


def in_order(columns: Columns, event_ids: Callable[[np.ndarray], list[str]]) -> Columns:
    """The columns in the fold's order. event_ids: answers the ids of rows (places in `columns`) that tie."""
    return columns.take(fold_order(columns.user, columns.note, columns.time, columns.action, event_ids))


def to_columns(events: pa.Table, first_ctx: int) -> Columns:
    """Events of EVENT_SCHEMA in the order given; `ctx` counts from first_ctx. Raises LabelError as label() does."""
    for name in _NEEDED:
        if events[name].null_count:
            raise LabelError(
                f"events: `{name}` is null in {events[name].null_count} rows; intake quarantines such rows, "
                "so read logs with assets.events.intake"
            )
    try:
        action = pl.from_arrow(events["action"]).cast(_CODES).to_physical().to_numpy().astype(np.int8)
    except pl.exceptions.InvalidOperationError as error:
        raise LabelError(f"events: an action is none of {', '.join(ACTIONS)}: {error}") from error
    return Columns(
        user=_int64(events["user_id"]),
        note=_int64(events["note_id"]),
        time=_int64(events["event_time"].cast(TIME).cast(pa.int64())),
        action=action,
        dwell=np.asarray(pc.fill_null(events["dwell_ms"], 0).combine_chunks(), np.int32),
        ctx=np.arange(first_ctx, first_ctx + events.num_rows, dtype=np.int64),
    )


def _int64(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.combine_chunks(), np.int64)


def from_frame(frame: pl.DataFrame) -> Strings:
    """The strings of events that lie in one frame, `ctx` being the row."""
    return lambda ctx, names: frame.select(names)[ctx].to_arrow()


def to_labels(folded: Folded, columns: Columns, strings: Strings, rules: Rules | int) -> Labels:
    """What the fold emitted as tables. strings: answers int64 `ctx` and column names with those rows.

    rules: a bare number is the window (µs) of rules that are otherwise the default.
    """
    window_us, masks = (rules, _ONE_EACH) if isinstance(rules, int) else (microseconds(rules.window), label_masks(rules))
    orphans = columns.take(folded.orphans)
    return Labels(
        impression_table(folded.impressions, strings(folded.impressions[CTX], CONTEXT_NAMES), window_us, masks),
        click_table(folded.clicks, strings(folded.clicks[CTX], CONTEXT_NAMES), window_us, masks),
        orphan_table(orphans, strings(orphans.ctx, ["event_id"])["event_id"]),
        folded.counts,
        short_table(folded.short, window_us),
    )


def hour_by_hour(folded: Folded) -> Folded:
    """The same, the closed sessions by the hour of their start and then as they were: what is gathered in this order is cut into the
    hours' files without being copied again."""
    return replace(folded, impressions=_by_hour(folded.impressions), clicks=_by_hour(folded.clicks))


def _by_hour(sessions: np.ndarray) -> np.ndarray:
    hours = sessions[2] // HOUR_US
    if (hours[1:] >= hours[:-1]).all():
        return sessions
    hours -= hours.min()
    few = hours.astype(np.int16) if hours.max() < 2**15 else hours  # of 16 bits numpy sorts by radix, six times as fast
    return sessions[:, np.argsort(few, kind="stable")]


def label_masks(rules: Rules) -> tuple[int, ...]:
    """Per label: the bits of the actions that make it."""
    return tuple(sum(1 << FLAGS.index(action) for action in actions) for actions in rules.labels)


_ONE_EACH = label_masks(Rules())


def _times(values: np.ndarray) -> pa.Array:
    return pa.array(values).view(TIME)


def _times_or_null(values: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(
        TIME, values.size, [_bitmap(values != NONE), pa.py_buffer(np.ascontiguousarray(values))]
    )


def _bitmap(valid: np.ndarray) -> pa.Buffer | None:
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _bits(values: np.ndarray) -> pa.Array:
    packed = pa.py_buffer(np.packbits(values, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), values.size, [None, packed])


def _hour_of(moment: np.ndarray) -> np.ndarray:
    return moment - moment % HOUR_US


def _session_columns(sessions: np.ndarray, context: pa.Table, window_us: int, masks: tuple[int, ...]) -> dict:
    start = sessions[2]
    return {
        "hour": _times(_hour_of(start)),
        "user_id": pa.array(sessions[0]),
        "note_id": pa.array(sessions[1]),
        "session_start": _times(start),
        "session_end": _times(start + window_us),
        "dwell_ms": pa.array(sessions[5]),
        **{flag: _bits(sessions[6] & mask != 0) for flag, mask in zip(FLAGS, masks, strict=True)},
        **{name: context[name] for name in CONTEXT_NAMES},
    }


def _conform(table: Table, columns: dict[str, pa.Array]) -> pa.Table:
    return pa.table([columns[name] for name in table.schema.names], table.schema.names).cast(table.schema)


def impression_table(
    sessions: np.ndarray, context: pa.Table, window_us: int, masks: tuple[int, ...] = _ONE_EACH
) -> pa.Table:
    """int64[9, m] of fold.IMPRESSION_COLUMNS and the m rows of context as rows of impression_sessions."""
    columns = _session_columns(sessions, context, window_us, masks)
    columns["impressions"] = pa.array(sessions[7].astype(np.int32))
    columns["clicked"] = _bits(sessions[8] != NONE)
    columns["first_click_time"] = _times_or_null(sessions[8])
    return _conform(IMPRESSION_SESSIONS, columns)


def click_table(
    sessions: np.ndarray, context: pa.Table, window_us: int, masks: tuple[int, ...] = _ONE_EACH
) -> pa.Table:
    """int64[9, m] of fold.CLICK_COLUMNS and the m rows of context as rows of click_sessions."""
    columns = _session_columns(sessions, context, window_us, masks)
    columns["clicks"] = pa.array(sessions[7].astype(np.int32))
    columns["attributed"] = _bits(sessions[8] != NONE)
    columns["impression_session_start"] = _times_or_null(sessions[8])
    return _conform(CLICK_SESSIONS, columns)


def short_table(sessions: np.ndarray, window_us: int) -> pa.Table:
    """int64[9, m] of fold.CLICK_COLUMNS as rows of short_clicks."""
    if not sessions.shape[1]:
        return SHORT_CLICKS.empty()
    columns = {
        "hour": _times(_hour_of(sessions[2])),
        "user_id": pa.array(sessions[0]),
        "note_id": pa.array(sessions[1]),
        "session_start": _times(sessions[2]),
        "session_end": _times(sessions[2] + window_us),
        "clicks": pa.array(sessions[7].astype(np.int32)),
        "dwell_ms": pa.array(sessions[5]),
    }
    return _conform(SHORT_CLICKS, columns)


def orphan_table(orphans: Columns, event_ids: pa.Array) -> pa.Table:
    """The events that belong to no session as rows of orphan_actions."""
    columns = {
        "hour": _times(_hour_of(orphans.time)),
        "event_id": event_ids,
        "user_id": pa.array(orphans.user),
        "note_id": pa.array(orphans.note),
        "action": pa.array(np.array(ACTIONS, dtype=object)[orphans.action], pa.string()),
        "event_time": _times(orphans.time),
    }
    return _conform(ORPHAN_ACTIONS, columns)
