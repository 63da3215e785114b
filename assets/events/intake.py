"""Intake: logs to events. `read_log` for the command line and micro-batches, `land` and `accept` for the lake.

Here: rows to events by the contract, what is a repeat, what goes to quarantine, and which hour a raw row belongs to.
Not here: how files are read (sources.py), what another log's columns mean (mapping.py), what an event is (contract.py).

Hour of a raw row: that of the event time it claims; where that cannot be read, or is more than MAX_CLOCK_AHEAD ahead of
its ingest_time, that of its ingest_time; where that cannot be read either, that of its neighbours in the file (the row
before, else the one after), else that of its landing. In the live line a time more than MAX_CLOCK_AHEAD past the landing
counts as one that cannot be read. So neither a wrong clock nor garbage opens a partition.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from polars.exceptions import PanicException

from assets.events import contract, landing, sources
from assets.events.context import typed
from assets.events.contract import EVENT_SCHEMA, EVENTS, ID_KEYS, QUARANTINE, RAW_EVENTS, SOURCES
from assets.events.sources import CONTEXT, TOO_LONG, Block, Layout, SourceError, shown
from assets.events.values import UTC_US, as_int, as_text, as_time
from assets.lake import Lake, Moved, Window, Write

if TYPE_CHECKING:
    from assets.events.mapping import Mapping

NATIVE_COLUMNS = tuple(field.name for field in contract.EVENT_FIELDS if field.name != "context")
WHOLE_FILE = 0  # the row number of a quarantined file; lines count from 1
COMMIT_ROWS = 1_000_000
COMMIT_BYTES = 256 * 2**20
ACCEPT_TRIES = 5  # of hours that somebody else writes to meanwhile
ONE_HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Intake:
    """What a log held. rows = events + quarantined rows + repeats, where a row is one event (a log of our own form).

    events: EVENT_SCHEMA, one row an event_id (the first to arrive), by arrival. quarantine: source (file name),
    row (line of the file, from 1), body (the bytes), reason. id_keys: kind, key, original. repeats: events dropped.
    repeated_keys: rows of JSON that hold a key twice.
    """

    events: pa.Table
    quarantine: pa.Table
    rows: int
    repeats: int
    id_keys: pa.Table
    repeated_keys: int = 0


@dataclass(frozen=True)
class Landed:
    """hours: all that now have raw rows or events which they had not; files_seen: skipped, landed before.

    unreadable: files that could not be read, a row of quarantine each (where `land` goes on after them). appended: of the new
    files those that begin with one that landed before: only the rows after it did now. growing: files that were written to
    while they were read, or are packed and not whole yet: they are for the next time. repeated_keys: rows that hold a key twice.
    """

    hours: list[dt.datetime]
    rows: int
    files_new: int
    files_seen: int
    unreadable: int = 0
    appended: int = 0
    growing: int = 0
    repeated_keys: int = 0


@dataclass(frozen=True)
class Rows:
    """A block after the contract. events: contract.EVENT_FIELDS, with `number` of the raw row, and perhaps contract.TYPED_FIELDS.
    reason, clock: one row a raw row."""

    events: pl.DataFrame
    reason: pl.Series
    clock: pl.DataFrame
    id_keys: pl.DataFrame


Odd = dict[str, pl.Series]  # see sources.Block


class Native:
    """The form of our own logs: the contract's columns by their names."""

    wanted = NATIVE_COLUMNS
    text = None

    def layout(self, path: Path) -> Layout:
        return sources.layout_of(path)

    def check_columns(self, path: Path, names: list[str] | None) -> None:
        required = [f.name for f in contract.EVENT_FIELDS if f.metadata[b"required"] == b"yes"]
        if names is not None and (missing := [name for name in required if name not in names]):
            raise SourceError(
                f"{shown(path)} has no column {', '.join(missing)}; if it is a log of another form, write a mapping for it "
                "(docs/bring_your_own_log.md)"
            )

    def convert(
        self, columns: pl.DataFrame, odd: Odd
    ) -> tuple[pl.DataFrame, pl.Series, pl.DataFrame, pl.DataFrame | None]:
        """To (typed events with `index` of their row, reason a row, clock a row, id keys)."""
        typed, reasons = {}, []
        for name in NATIVE_COLUMNS:
            read = _READERS[EVENT_SCHEMA.field(name).type]
            typed[name], wrong = read(columns[name], name, odd=odd.get(name))
            reasons.append(wrong.rename(name))
        reason = pl.DataFrame(reasons).select(pl.coalesce(pl.all()))[NATIVE_COLUMNS[0]]
        clock = pl.DataFrame({name: typed[name] for name in ("event_time", "ingest_time")})
        typed["context"] = columns[CONTEXT]
        events = pl.DataFrame(typed).with_columns(pl.coalesce("ingest_time", "event_time").alias("ingest_time"))
        return events.with_row_index("index"), reason, clock, None


_READERS = {pa.string(): as_text, pa.int64(): as_int, pa.int32(): as_int, contract.TIME: as_time}
_NO_KEYS = pl.DataFrame(schema={"kind": pl.String, "key": pl.Int64, "original": pl.String})


# --- a log as a whole -------------------------------------------------------------------------------------------------


def read_log(paths: Iterable[Path | str], mapping: Mapping | None = None) -> Intake:
    """Read whole files, in the order given, into events; nothing is written. The live labeler reads its batches so too.

    mapping: for logs of another form; None for our own. Raises SourceError for a file that cannot be read and
    MappingError for a mapping that does not fit it; a broken row goes to `quarantine` instead.
    """
    form = mapping or Native()
    events, quarantine, keys, rows, repeated_keys = [], [], [_NO_KEYS], 0, 0
    for path in map(Path, paths):
        for block, parsed in parse_file(path, form):
            rows += len(block)
            repeated_keys += block.repeated_keys
            events.append(parsed.events)
            keys.append(parsed.id_keys)
            if (broken := parsed.reason.is_not_null()).any():
                quarantine.append(_quarantine(shown(path.name), block, parsed.reason, broken))
    schema = pa.schema([f for f in QUARANTINE.schema if f.name != "hour"])
    everything = joined(events)
    first = everything.unique("event_id", keep="first", maintain_order=True)
    id_keys = pl.concat(keys).unique(maintain_order=True)
    check_collisions(id_keys)
    return Intake(
        events=events_table(first, EVENT_SCHEMA),
        quarantine=to_arrow(pl.concat(quarantine), schema) if quarantine else schema.empty_table(),
        rows=rows,
        repeats=len(everything) - len(first),
        id_keys=to_arrow(id_keys, ID_KEYS.schema),
        repeated_keys=repeated_keys,
    )


def check_collisions(id_keys: pl.DataFrame) -> None:
    """Raises SourceError where two ids of one kind have one key: their events could not be told apart."""
    twice = id_keys.filter(id_keys.select(pl.struct("kind", "key").is_duplicated())["kind"])
    if len(twice):
        kind, key = twice["kind"][0], twice["key"][0]
        ids = twice.filter((pl.col("kind") == kind) & (pl.col("key") == key))["original"].to_list()
        raise SourceError(
            f"two {kind} ids have the same 64-bit key {key}: {ids}; rename one of them in the log"
        )


def parse_file(
    path: Path, form: Mapping | Native, after: int = 0, landed_at: dt.datetime | None = None
) -> Iterator[tuple[Block, Rows]]:
    """A file block by block: as read, and after the contract. What read_log, land and the live labeler share.

    after: the line (or row) up to which it is passed over. landed_at: by which the live labeler judges clocks; None for a
    bounded log.

    Raises SourceError where the file cannot be read, whatever the reason: what a file holds must not stop a process.
    """
    try:
        layout = form.layout(path)
        form.check_columns(path, sources.names_of(path, layout))
        for block in sources.read_blocks(path, layout, form.wanted, after):
            if block.cut:
                yield block, _cut_rows(block)
            else:
                parsed = _to_events(block.columns, block.wrong, block.odd, block.number, form, landed_at)
                yield block, parsed if block.typed is None or not isinstance(form, Native) else _with_typed(parsed, block)
    except SourceError:
        raise
    except (Exception, PanicException) as error:  # polars' panics are no Exception
        raise SourceError(f"{shown(path)} cannot be read ({type(error).__name__}: {error})") from error


def _with_typed(rows: Rows, block: Block) -> Rows:
    """The events with the typed columns of their context, which are those of their row: of a log of our own form."""
    typed = block.typed
    if len(rows.events) < len(block):
        typed = typed.filter(rows.reason.is_null())
    return replace(rows, events=rows.events.hstack(typed))


def _cut_rows(block: Block) -> Rows:
    """The contract of rows of which only the beginning is there: refused."""
    clock = pl.DataFrame({name: pl.Series([None], dtype=UTC_US).new_from_index(0, len(block)) for name in ("event_time", "ingest_time")})
    return Rows(no_events(), block.wrong, clock, _NO_KEYS)


def _to_events(
    columns: pl.DataFrame, wrong: pl.Series, odd: Odd, number: pl.Series, form, landed_at: dt.datetime | pl.Series | None = None
) -> Rows:
    """Convert, check, and drop the events of every row of which one is broken: a row is taken whole or not at all.

    landed_at: as for contract.violations, but one a raw row.
    """
    events, reason, clock, keys = form.convert(columns, odd)
    reason = _first(wrong, reason)
    landed_at = landed_at.gather(events["index"]) if isinstance(landed_at, pl.Series) else landed_at
    violation = contract.violations(events, landed_at)
    if violation.is_not_null().any():
        found = events.select("index", why=violation).filter(pl.col("why").is_not_null())
        found = found.unique("index", keep="first", maintain_order=True)
        by_rule = pl.Series([None], dtype=pl.String).new_from_index(0, len(number))
        reason = _first(reason, by_rule.scatter(found["index"], found["why"]))
    if reason.is_not_null().any():
        events = events.filter(reason.is_null().gather(events["index"]))
    events = events.with_columns(number=number.gather(events["index"]))
    events = events.select("number", *(pl.col(f.name).cast(_POLARS[f.type]) for f in contract.EVENT_FIELDS))
    return Rows(events, reason, clock, _NO_KEYS if keys is None else keys)


_POLARS = {pa.string(): pl.String, pa.int64(): pl.Int64, pa.int32(): pl.Int32, contract.TIME: UTC_US}


def _first(left: pl.Series, right: pl.Series) -> pl.Series:
    if left.null_count() == len(left):
        return right
    return pl.DataFrame({"left": left, "right": right}).select(pl.coalesce("left", "right"))["left"]


def _quarantine(source: str, block: Block, reason: pl.Series, broken: pl.Series) -> pl.DataFrame:
    return pl.DataFrame(
        {"row": block.number.filter(broken), "body": block.body(broken), "reason": reason.filter(broken)}
    ).select(pl.lit(source).alias("source"), "row", "body", "reason")


def no_events() -> pl.DataFrame:
    """No rows, in the columns of Rows.events."""
    return pl.DataFrame(schema={"number": pl.Int64, **{f.name: _POLARS[f.type] for f in contract.EVENT_FIELDS}})


def joined(events: list[pl.DataFrame]) -> pl.DataFrame:
    """Events of several blocks, as Rows has them."""
    if len({frame.width for frame in events}) > 1:
        events = [_typed_too(frame) for frame in events]
    return pl.concat(events) if events else no_events()


def events_table(events: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    """Accepted events with what is made of their context, in this schema. Last of all: landing needs none of it, and what is sorted and
    filtered before has fewer columns."""
    return to_arrow(_typed_too(events), schema)


def _typed_too(events: pl.DataFrame) -> pl.DataFrame:
    return events if contract.TYPED_NAMES[0] in events.columns else events.hstack(typed(events["context"]))


def to_arrow(frame: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    """Polars to Arrow in exactly this schema (polars hands out large strings and its own metadata)."""
    return frame.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)


# --- landing ----------------------------------------------------------------------------------------------------------


def land(
    lake: Lake, paths: Iterable[Path | str], mapping: Mapping | None = None, keep_going: bool = False, patience_s: float = 0.0
) -> Landed:
    """Copy the rows of files into `raw_events`, each file once: what was landed before (same content) is skipped.

    Of a file that begins with one of its name that landed before, the rows after it land: it was appended to. A file that is
    written to while it is read is left for the next time, a packed one that is cut too until its last change lies patience_s back.

    After it the file may go: raw_events holds every row's bytes, and `sources` how to read them. Each file lands whole or not
    at all; a run that was cut off is completed by the next one. Order of arrival is the order of `paths`. Raises as read_log
    does, files before the one that fails being landed; with keep_going that one becomes a row of quarantine, once.
    """
    form = mapping or Native()
    for table in (RAW_EVENTS, ID_KEYS, QUARANTINE):
        lake.create(table)
    create_sources(lake)
    sources_now = lake.read(SOURCES.name)
    known = set(sources_now.column("source").to_pylist())
    book = Landings(sources_now)
    last = max(filter(None, sources_now.column("landed_at").to_pylist()), default=None)
    keys = _KeyBook(lake)
    hours: set[dt.datetime] = set()
    rows = new = seen = unreadable = appended = growing = repeated_keys = 0
    for path in map(Path, paths):
        try:
            told = landing.told_of(path)
            source = fingerprint(path, form)
            if source in known:
                seen += 1
                continue
            line = book.line(path, form)
            if line is None or part_of(source, line) in known:
                seen += 1
                continue
            source = part_of(source, line)
            last = after(last, dt.datetime.now(dt.UTC))
            record = _land_file(lake, path, source, form, keys, hours, last, line, told)
        except Growing:
            growing += 1
            continue
        except SourceError as error:
            if is_unfinished(error, told, patience_s):
                growing += 1
                continue
            if not keep_going:
                raise
            unreadable += 1
            _refuse_file(lake, path, form, error)
            continue
        known.add(source)
        book.add(record)
        rows += record["rows"]
        repeated_keys += record["repeated_keys"]
        appended += line > 0
        new += 1
    return Landed(sorted(hours), rows, new, seen, unreadable, appended, growing, repeated_keys)


class Growing(Exception):
    """A file that was written to while it was read: nothing of it is kept."""


def is_unfinished(error: Exception, told: os.stat_result | None, patience_s: float) -> bool:
    """Whether a file that cannot be read may still be being written: it is packed, its end is not there, and it is young."""
    return isinstance(error, sources.CutError) and told is not None and not landing.is_settled(told, patience_s)


def part_of(source: str, line: int) -> str:
    """The `source` of the rows of a file after a line; of all its rows where that is 0."""
    return xxhash.xxh3_64_hexdigest(f"{source}:{line}") if line else source


class Landings:
    """What has landed, by which a file that was appended to is known: it begins with all the bytes of one of its name."""

    def __init__(self, table: pa.Table) -> None:
        """table: `sources`, of an older Glasshouse too, which did not say where a file goes on."""
        self.by_name: dict[str, list[dict]] = {}
        if {"after", "last"} <= set(table.schema.names):
            for record in table.select(["source", "name", "bytes", "after", "last"]).to_pylist():
                self.add(record)

    def add(self, record: dict) -> None:
        if record["last"] is not None:
            self.by_name.setdefault(record["name"], []).append(record)

    def line(self, path: Path, form: Mapping | Native) -> int | None:
        """The line up to which the file's rows have landed, 0 where none has; None where it is what landed already.

        Raises SourceError where it cannot be read.
        """
        there = self.by_name.get(shown(path.name), ())
        if not there or (told := landing.told_of(path)) is None:
            return 0
        sizes = sorted({record["bytes"] for record in there if record["bytes"] <= told.st_size})
        prints = dict(zip(sizes, fingerprints(path, form, sizes), strict=True))
        landed = [record for record in there if part_of(prints.get(record["bytes"], ""), record["after"] or 0) == record["source"]]
        if any(record["bytes"] == told.st_size for record in landed):
            return None
        return max((record["last"] for record in landed), default=0)


def _refuse_file(lake: Lake, path: Path, form, error: SourceError) -> None:
    row = unreadable_file(path, form, dt.datetime.now(dt.UTC), error)
    lake.append_once(QUARANTINE, to_arrow(row, QUARANTINE.schema), f"refuse:{row['source'][0]}", 0)


def unreadable_file(path: Path, form, landed_at: dt.datetime, error: Exception) -> pl.DataFrame:
    """The row of quarantine that stands for a file: row 0, its first bytes, and why it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(sources.HEAD_BYTES)
        source = fingerprint(path, form)
    except (OSError, SourceError):  # not even its bytes: its name stands for it
        head, source = b"", xxhash.xxh3_64_hexdigest(b"\0unreadable\0" + os.fsencode(path))
    row = {
        "hour": [landed_at.replace(minute=0, second=0, microsecond=0)], "source": [source], "row": [WHOLE_FILE],
        "body": [head], "reason": [f"file: {shown(path.name)} cannot be read: {error}"],
    }  # fmt: skip
    return pl.DataFrame(row, schema=_no_quarantine().schema).select(QUARANTINE.schema.names)


class Tail:
    """Of a file's rows after a line: where the file goes on should it be appended to, and how many hold a key twice."""

    def __init__(self, after: int) -> None:
        self.after = self.last = after
        self.repeated_keys = 0

    def add(self, block: Block, csv: bool) -> None:
        """What may not have been whole is read again then: a row without a line end, broken ones of CSV (a quote may close later)."""
        self.repeated_keys += block.repeated_keys
        if not len(block):
            return
        whole = int(block.number[-1])
        if csv and block.wrong[-1] is not None:
            good = block.wrong.is_null().arg_true()
            if not len(good):
                return
            whole = int(block.number[int(good[-1])])
        self.last = whole - 1 if block.unended and whole == block.number[-1] else whole


def record_of(path: Path, form, source: str, rows: int, landed_at: dt.datetime, tail: Tail, live: bool = False) -> dict:
    """A file's line in `sources`. live: by the live labeler."""
    layout = form.layout(path)
    return {
        "source": source, "name": shown(path.name), "format": layout.format, "header": sources.header_of(path, layout),
        "mapping": form.text, "rows": rows, "bytes": path.stat().st_size, "landed_at": landed_at,
        "live": live, "after": tail.after or None, "last": tail.last if layout.format != "parquet" else None,
        "repeated_keys": tail.repeated_keys,
    }  # fmt: skip


def repeated_keys(lake: Lake) -> int:
    """Rows of all files landed so far that hold a key twice."""
    if not lake.exists(SOURCES.name):
        return 0
    found = lake.read(SOURCES.name)
    return (pc.sum(found["repeated_keys"]).as_py() or 0) if "repeated_keys" in found.schema.names else 0


_LATER_COLUMNS = ("live", "after", "last", "repeated_keys")


def create_sources(lake: Lake) -> None:
    """Create `sources`; one of an older Glasshouse gains the columns that it lacks."""
    lake.create(SOURCES)
    if lake.log is not None:
        lake.add_columns(SOURCES.name, [SOURCES.schema.field(name) for name in _LATER_COLUMNS], by="sources")


def after(last: dt.datetime | None, now: dt.datetime) -> dt.datetime:
    """The landing time of what is taken in now: later than the last one, also where the machine's clock was set back.

    The order of landing is the order of arrival, when rows are read again too.
    """
    return now if last is None else max(now, last + dt.timedelta(microseconds=1))


def _land_file(
    lake: Lake, path: Path, source: str, form, keys: _KeyBook, hours: set[dt.datetime], landed_at: dt.datetime, line: int,
    told: os.stat_result | None,
) -> dict:  # fmt: skip
    """Land the rows after `line`; the file's line in `sources`. Raises Growing where it is no longer what was `told` of it."""
    put = _putter(lake, source)
    rows = size = 0
    tail, csv = Tail(line), form.layout(path).format == "csv"
    held: list[pl.DataFrame] = []
    seen: set[dt.datetime] = set()
    for block, parsed in parse_file(path, form, after=line):
        tail.add(block, csv)
        raw_hour = raw_hours(parsed.clock, landed_at)
        raw = pl.DataFrame({"hour": raw_hour, "row": block.number, "body": block.body(None)})
        raw = raw.with_columns(source=pl.lit(source))
        seen.update(raw_hour.unique().to_list())
        rows += len(block)
        if block.cut:
            put.refused(to_arrow(raw.with_columns(reason=parsed.reason), QUARANTINE.schema))
            continue
        held.append(raw)
        seen.update(parsed.events["event_time"].dt.truncate("1h").unique().to_list())
        keys.add(parsed.id_keys, f"land:{source}:{rows - len(block)}")
        size += raw["body"].bin.size().sum()
        if sum(map(len, held)) >= COMMIT_ROWS or size >= COMMIT_BYTES:
            put.rows(to_arrow(pl.concat(held), RAW_EVENTS.schema))
            held, size = [], 0
    if held:
        put.rows(to_arrow(pl.concat(held), RAW_EVENTS.schema))
    try:
        record = record_of(path, form, source, rows, landed_at, tail)
        # Only what is not yet seen can be taken back; on a lake that lands in pieces the next time finds the file changed.
        if isinstance(put, _Whole) and told is not None and not landing.Stamp.of(told).fits(path.stat()):
            raise Growing
    except OSError as error:
        raise SourceError(f"{shown(path)} is gone while it was read ({error}); land it again") from error
    put.record(pa.Table.from_pylist([record], SOURCES.schema))
    hours |= seen
    return record


def _putter(lake: Lake, source: str) -> _Whole | _InPieces:
    # A file of which an older Glasshouse was cut off is finished as it was begun.
    begun = lake.log is None or lake.appended(RAW_EVENTS.name, f"land:{source}") is not None
    return _InPieces(lake, f"land:{source}") if begun else _Whole(lake, f"land:{source}")


class _Whole:
    """A file's rows and its line in `sources`, in one commit: nobody sees a part of a file."""

    def __init__(self, lake: Lake, app: str) -> None:
        self.lake, self.app = lake, app
        self.steps = [lake.stage(Write(table, table.empty())) for table in (RAW_EVENTS, QUARANTINE)]

    def rows(self, rows: pa.Table) -> None:
        self.steps[0]["adds"] += self.lake.stage(Write(RAW_EVENTS, rows))["adds"]

    def refused(self, rows: pa.Table) -> None:
        self.steps[1]["adds"] += self.lake.stage(Write(QUARANTINE, rows))["adds"]

    def record(self, record: pa.Table) -> None:
        steps = [step for step in self.steps if step["adds"]]
        self.lake.commit([*steps, self.lake.stage(Write(SOURCES, record))], by=self.app)


class _InPieces:
    """The same on a lake without commits of several tables: the line in `sources` last, a cut-off file goes on."""

    def __init__(self, lake: Lake, app: str) -> None:
        self.lake, self.app, self.version, self.cut = lake, app, 0, 0

    def rows(self, rows: pa.Table) -> None:
        self.lake.append_once(RAW_EVENTS, rows, self.app, self.version)
        self.version += 1

    def refused(self, rows: pa.Table) -> None:
        self.lake.append_once(QUARANTINE, rows, self.app, self.cut)
        self.cut += 1

    def record(self, record: pa.Table) -> None:
        self.lake.append_once(SOURCES, record, self.app, 0)


def fingerprint(path: Path, form: Mapping | Native) -> str:
    """The file's `source`: a hash of its content and of how it is read, 16 hex digits."""
    return fingerprints(path, form, [None])[0]


def fingerprints(path: Path, form: Mapping | Native, sizes: list[int | None]) -> list[str]:
    """What the `source` of the file's first bytes would be, so many of them, ascending (None, the last: all); of a shorter file of
    what there is. Raises SourceError where it cannot be read."""
    # How a file is read is told by its suffix and its mapping: the same bytes read otherwise are another source.
    how = f"\0{form.layout(path)}\0{form.text or ''}".encode()
    digest, done, found = xxhash.xxh3_64(), 0, []
    try:
        with path.open("rb") as file:
            for size in sizes:
                while piece := file.read(2**22 if size is None else min(2**22, size - done)):
                    digest.update(piece)
                    done += len(piece)
                upto = digest.copy()
                upto.update(how)
                found.append(upto.hexdigest())
    except OSError as error:
        raise SourceError(f"{shown(path)} cannot be read: {error}") from error
    return found


def raw_hours(clock: pl.DataFrame, landed_at: dt.datetime, live: bool = False) -> pl.Series:
    """The hour of each raw row, see the module's docstring. live: whether by the rules of the live line."""
    latest = landed_at + contract.MAX_CLOCK_AHEAD if live else None
    event, ingest = (_in_range(name, latest) for name in ("event_time", "ingest_time"))
    ahead = (event - ingest > contract.MAX_CLOCK_AHEAD).fill_null(False)
    claimed = pl.when(~ahead).then(event)
    arrived = pl.coalesce(ingest, claimed)
    beside = pl.coalesce(arrived.forward_fill(), arrived.backward_fill())
    hour = pl.coalesce(claimed, ingest, beside, pl.lit(landed_at).cast(UTC_US)).dt.truncate("1h")
    return clock.select(hour=hour)["hour"]


def _in_range(name: str, latest: dt.datetime | None) -> pl.Expr:
    column = pl.col(name)
    inside = (column >= contract.EARLIEST) & (column < contract.LATEST)
    return pl.when(inside if latest is None else inside & (column <= latest)).then(column)


class _KeyBook:
    """The table id_keys while landing: adds what is new, refuses collisions. Read only once there are keys to add."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.known: pl.DataFrame | None = None

    def add(self, keys: pl.DataFrame, app: str) -> None:
        if not len(keys):
            return
        if self.known is None:
            self.known = pl.from_arrow(self.lake.read(ID_KEYS.name)).select(_NO_KEYS.columns)
        new = keys.unique(maintain_order=True).join(self.known, on=_NO_KEYS.columns, how="anti")
        if len(new):
            together = pl.concat([self.known, new])
            check_collisions(together)  # before they are known: a file that is refused must not spoil the next
            self.known = together
            self.lake.append_once(ID_KEYS, to_arrow(new, ID_KEYS.schema), app, 0)


# --- acceptance -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accepted:
    """counts: raw rows, events, quarantine, repeats (for logs of our own form raw is the sum of the others).

    parts: the windows that were replaced, one after the other, and the lake's moment that shows each; None without moments.
    """

    counts: dict[str, int]
    parts: list[tuple[Window, int | None]]

    def add(self, window: Window, moment: int | None, counts: dict[str, int]) -> None:
        self.parts.append((window, moment))
        for name, count in counts.items():
            self.counts[name] += count


def accept(lake: Lake, window: Window, rules: object = None, progress=None) -> Accepted:
    """Make `events` and `quarantine` of the window anew from `raw_events`.

    Of the rows with one event_id within an hour and its two neighbours, the first to arrive is the event. Works through
    the hours in pieces; both tables of a piece are replaced at one moment, by what `raw_events` holds at that moment: what a live
    labeler writes meanwhile is read again, none of it is lost. `rules` is not needed by the contract.

    Raises SourceError where the window is written to all the time.
    """
    lake.recover()
    found = Accepted({"raw": 0, "events": 0, "quarantine": 0, "repeats": 0}, [])
    for _ in range(ACCEPT_TRIES):
        done = found.parts[-1][0].end if found.parts else window.start
        try:
            _accept(lake, Window(done, window.end), found, progress)
            return found
        except Moved:
            continue
    raise SourceError(
        f"`raw_events` was written to {ACCEPT_TRIES} times while the hours from {done:%Y-%m-%d %H:%M} UTC were accepted; accept "
        "hours that the live labeler has done with, or stop it first"
    )


def _accept(lake: Lake, window: Window, found: Accepted, progress) -> None:
    then = lake.pinned()
    readers = _Readers(then)
    pool, broken, raw = _no_arrivals(), _no_quarantine(), pl.Series([], dtype=UTC_US)
    done = window.start
    # Events of an hour come from raw rows of that hour or the one before (mappings spread a row over minutes), and
    # their repeats from the hours beside.
    for piece in _pieces(then, window.widened(2 * ONE_HOUR, ONE_HOUR)):
        for mine, more in zip((pool, broken, raw), readers.read(piece), strict=True):
            mine.extend(more)
        ready = min(piece.end - ONE_HOUR, window.end)
        if ready <= done:
            continue
        part = Window(done, ready)
        good = _first_arrivals(pool)
        arrived, kept, wrong = (_inside(frame, part) for frame in (pool, good, broken))
        wrong = pl.concat([wrong, refused_for_good(then, part)])
        moment = _replace(lake, then, part, kept, wrong)
        counts = {"events": len(kept), "quarantine": len(wrong), "repeats": len(arrived) - len(kept)}
        found.add(part, moment, {**counts, "raw": len(raw.filter(raw.is_between(done, ready, closed="left")))})
        pool, broken = pool.filter(pl.col("hour") >= ready - ONE_HOUR), broken.filter(pl.col("hour") >= ready)
        raw = raw.filter(raw >= ready)
        done = ready
        if progress:
            progress(done)


def _inside(frame: pl.DataFrame, window: Window) -> pl.DataFrame:
    return frame.filter(pl.col("hour").is_between(window.start, window.end, closed="left"))


def _replace(lake: Lake, then: Lake, part: Window, events: pl.DataFrame, quarantine: pl.DataFrame) -> int | None:
    """Replace both tables' rows of the part; the moment that shows them. Raises Moved where it is not as it was `then`."""
    writes = [
        Write(EVENTS, events_table(events, EVENTS.schema), part), Write(QUARANTINE, to_arrow(quarantine, QUARANTINE.schema), part)
    ]  # fmt: skip
    if lake.log is None:
        for write in writes:
            lake.replace_window(write.table, write.data, part)
        return None
    # A row that arrives later never takes the place of one that is there: the hours after the part may be written to.
    looked = {RAW_EVENTS.name: part.widened(before=ONE_HOUR), QUARANTINE.name: part}
    return lake.commit_unmoved([lake.stage(write) for write in writes], then, looked, by="accept").number


def refused_for_good(lake: Lake, window: Window) -> pl.DataFrame:
    """Rows of quarantine that stand for a whole file or for a row too long to be kept: no raw row can make them anew."""
    if not lake.exists(QUARANTINE.name):
        return _no_quarantine()
    rows = pl.from_arrow(lake.read(QUARANTINE.name, window)).with_columns(pl.col("hour").cast(UTC_US))
    cut = (pl.col("row") == WHOLE_FILE) | pl.col("reason").str.starts_with(TOO_LONG)
    return rows.filter(cut).select(_no_quarantine().columns)


def _pieces(lake: Lake, window: Window) -> Iterator[Window]:
    """The window in stretches of whole hours with about COMMIT_ROWS raw rows each."""
    actions = pa.table(lake.open(RAW_EVENTS.name).get_add_actions(flatten=True))
    sizes: dict[dt.datetime, int] = {}
    for hour, rows in zip(actions["partition.hour"].to_pylist(), actions["num_records"].to_pylist(), strict=True):
        sizes[hour.astimezone(dt.UTC)] = sizes.get(hour.astimezone(dt.UTC), 0) + (rows or 0)
    start, rows = window.start, 0
    for hour in window.hours:
        rows += sizes.get(hour, 0)
        if rows >= COMMIT_ROWS:
            yield Window(start, hour + ONE_HOUR)
            start, rows = hour + ONE_HOUR, 0
    if start < window.end:
        yield Window(start, window.end)


def _no_arrivals() -> pl.DataFrame:
    events = no_events().drop("number")
    return pl.DataFrame(schema={"hour": UTC_US, "arrival": pl.Int64, "number": pl.Int64, **events.schema})


class _Readers:
    """Raw rows back into events: each source is read as it was landed."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        table = pl.from_arrow(lake.read(SOURCES.name)).sort("landed_at", "name")
        live = pl.col("live") if "live" in table.columns else pl.lit(None, pl.Boolean)  # a table of an older Glasshouse
        # By which the live line judged the clocks of its rows.
        judged = pl.when(live).then("landed_at").alias("judged_at")
        self.sources = table.with_row_index("arrival").with_columns(pl.col("arrival").cast(pl.Int64), judged)

    def read(self, window: Window) -> tuple[pl.DataFrame, pl.DataFrame, pl.Series]:
        """(events with their arrival, quarantine, hours of the raw rows) of a window of raw rows."""
        raw = pl.from_arrow(self.lake.read(RAW_EVENTS.name, window)).with_columns(pl.col("hour").cast(UTC_US))
        forms = self.sources.select("source", "arrival", "format", "header", "mapping", "name", "judged_at")
        raw = raw.join(forms, on="source", how="left").sort("arrival", "row")
        if (half := raw.filter(pl.col("arrival").is_null())["source"].unique()).len():
            raise SourceError(
                f"`raw_events` holds rows of {half.len()} files that have not landed whole ({half[0]}, ...); land them again: "
                "materialize `raw_events`"
            )
        events, quarantine = [_no_arrivals()], [_no_quarantine()]
        # Files of one form are parsed together: many small ones would cost their overhead each.
        for (kind, header, text, suffix), rows in _by_form(raw):
            form, layout = _form(kind, text, suffix)
            columns, wrong, odd = sources.parse_bodies(rows["body"], layout, header, form.wanted)
            index = pl.Series(range(len(rows)), dtype=pl.Int64)
            parsed = _to_events(columns, wrong, odd, index, form, rows["judged_at"])
            place = parsed.events["number"]
            events.append(
                parsed.events.with_columns(
                    pl.col("event_time").dt.truncate("1h").alias("hour"), arrival=rows["arrival"].gather(place),
                    number=rows["row"].gather(place),
                ).select(_no_arrivals().columns)
            )  # fmt: skip
            broken = parsed.reason.is_not_null()
            quarantine.append(
                rows.filter(broken).with_columns(reason=parsed.reason.filter(broken)).select(_no_quarantine().columns)
            )
        return pl.concat(events), pl.concat(quarantine), raw["hour"]


def _by_form(raw: pl.DataFrame) -> Iterator[tuple[tuple, pl.DataFrame]]:
    suffix = pl.col("name").str.to_lowercase().str.strip_suffix(".gz").str.extract(r"(\.[a-z]+)$")
    yield from raw.with_columns(suffix=suffix).group_by("format", "header", "mapping", "suffix", maintain_order=True)


def _form(kind: str, text: str | None, suffix: str) -> tuple:
    form = Native()
    if text is not None:
        from assets.events.mapping import parse_mapping

        form = parse_mapping(text, "the mapping kept in `sources`")
    layout = form.layout(Path(f"log{suffix}"))
    return form, layout


def _no_quarantine() -> pl.DataFrame:
    return pl.DataFrame(
        schema={"hour": UTC_US, "source": pl.String, "row": pl.Int64, "body": pl.Binary, "reason": pl.String}
    )


def _first_arrivals(pool: pl.DataFrame) -> pl.DataFrame:
    """Drop each row whose event_id arrived before, in its hour or in one beside it."""
    pool = pool.sort("arrival", "number", maintain_order=True)
    twice = pool["event_id"].is_duplicated()
    if not twice.any():
        return pool
    groups = pool.with_row_index("at").filter(twice).select("at", "event_id", "hour")
    one_hour = groups.select(pl.col("hour").n_unique().over("event_id") == 1)["hour"]
    drop = groups.filter(one_hour & ~groups.select(pl.col("event_id").is_first_distinct())["event_id"])["at"].to_list()
    for _, group in groups.filter(~one_hour).group_by("event_id", maintain_order=True):
        hours = group["hour"].to_list()
        for place, (at, hour) in enumerate(zip(group["at"].to_list(), hours, strict=True)):
            if any(abs(hour - earlier) <= ONE_HOUR for earlier in hours[:place]):
                drop.append(at)
    keep = pl.repeat(True, len(pool), dtype=pl.Boolean, eager=True).scatter(sorted(drop), False)
    return pool.filter(keep)
