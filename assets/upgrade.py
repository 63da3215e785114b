"""What tables of an older Glasshouse lack: columns that came later, made of what their rows hold.

Here: which data files lack them, and hours written anew with them. Not here: what stands in the columns (a table's own
`completed`, assets/events/context.py), an empty column for an old table (lake.create).

A file that has the columns says in Delta's log how many nulls they hold; one of an older Glasshouse says nothing. So it is
known without a read which hours are old, and no row needs a mark. Hours are written anew when they are first needed
(SQL jobs, ClickHouse), the others by the housekeeping (tidy.py), before it compacts them. No row changes otherwise.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from assets.lake import EPOCH, TIME, Lake, LakeError, Moved, Table, Window, Write, windows

TRIES = 20  # of hours that somebody else writes to meanwhile
ROWS = 1_000_000  # of Delta in memory at a time; an hour is never split


@cache
def tables() -> dict[str, Table]:
    """Tables with columns that are made of others, by name."""
    from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS, LATE_EVENTS
    from assets.events.contract import EVENTS

    return {table.name: table for table in (EVENTS, IMPRESSION_SESSIONS, CLICK_SESSIONS, LATE_EVENTS)}


@cache
def made_columns(table: Table) -> tuple[str, ...]:
    """The columns of a table that are made of its others."""
    from assets.events.contract import TYPED_NAMES

    return tuple(name for name in TYPED_NAMES if name in table.schema.names)


def complete(lake: Lake, names: Iterable[str], window: Window | None = None) -> int:
    """Give the rows of a window (None: all) of these tables the columns that an older Glasshouse did not write.

    Tables that have none such are passed over. Returns the hours that were written anew; one moment each few hours.
    Raises LakeError where hours are written to all the time.
    """
    done = 0
    for name in names:
        table = tables().get(name)
        if table is None or not lake.exists(name):
            continue
        lake.create(table)  # an old one gains the empty columns
        rows = _old_hours(lake, table, window)
        for part in _parts(rows):
            _rewrite(lake, table, part)
            done += len(part.hours)
    return done


def old_files(lake: Lake, name: str) -> set[str]:
    """Data files of a table that lack its made columns, by their paths in Delta's log."""
    files = lake.files(name)
    return set(files["path"].filter(_is_old(files, tables()[name])).to_pylist())


def _is_old(files: pa.Table, table: Table) -> pa.ChunkedArray | pa.Array:
    told = f"null_count.{made_columns(table)[0]}"
    return pc.is_null(files[told]) if told in files.column_names else pa.array([True] * files.num_rows, pa.bool_())


def _old_hours(lake: Lake, table: Table, window: Window | None) -> dict[dt.datetime, int]:
    """Rows by hour, of the hours with a file that lacks the columns."""
    files = lake.files(table.name, window)
    if not files.num_rows:
        return {}
    hours = files["partition.hour"].cast(TIME).cast(pa.int64())
    lacking = set(hours.filter(_is_old(files, table)).to_pylist())
    rows: dict[dt.datetime, int] = {}
    for hour, count in zip(hours.to_pylist(), files["num_records"].to_pylist(), strict=True):
        if hour in lacking:
            moment = EPOCH + dt.timedelta(microseconds=hour)
            rows[moment] = rows.get(moment, 0) + (count or 0)
    return rows


def _parts(rows: dict[dt.datetime, int]) -> Iterator[Window]:
    """Neighbouring hours, as many as hold about ROWS rows."""
    for run in windows(rows):
        held: list[dt.datetime] = []
        for hour in run.hours:
            if held and sum(rows[one] for one in held) + rows[hour] > ROWS:
                yield Window(held[0], hour)
                held = []
            held.append(hour)
        yield Window(held[0], run.end)


def _rewrite(lake: Lake, table: Table, part: Window) -> None:
    given = [name for name in table.schema.names if name not in made_columns(table)]
    for _ in range(TRIES):
        then = lake.pinned()
        data = table.completed(then.read(table.name, part, given))
        if lake.log is None:
            lake.replace_window(table, data, part)
            return
        try:
            lake.commit_unmoved([lake.stage(Write(table, data, part))], then, {table.name: part}, by="upgrade")
            return
        except Moved:
            continue
    raise LakeError(
        f"`{table.name}` from {part.start:%Y-%m-%d %H:%M} UTC was written to {TRIES} times while its older rows were given the columns "
        f"{', '.join(made_columns(table))}; try again when the live labeler has done with these hours"
    )
