"""Take in what the shop has sent: change files to `order_changes`, `orders` and `order_attributions`, exactly once.

Here: what a batch reads, which hours it makes anew, and the one commit in which it becomes visible. Not here: the forms of
changes (changes.py), which change wins (current.py), clicks (clicks.py), who is credited (credit.py).

Every line is accounted for: lines = told (with changes) + pairs (of the catalogue) + skipped (that say nothing of the shop's table) +
quarantined, where a file that cannot be read is one line; the changes of the lines told = changes (new) + repeats (there before).
order_batches says so of each batch, order_sources of each file.

A batch is a pure function of the files and of the lake at one moment; its commit bears the batch's number, so of two that
took the same files the second is a repeat and begins again. A crash leaves files that nobody names, or a commit that
the next writer finishes. Files are known by content: the same content under another name is no new file.

What changes a row of order_attributions: its order; a click that came late, or went when an hour of `events` was replaced; a new
pair in the catalogue; the rules. A batch finds the hours that these touch, by the version of planting_actions that the last
one looked into, and makes just these anew.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError

from assets.events.contract import TIME
from assets.lake import Lake, LakeError, Moment, Table, Window, Write, windows
from assets.orders import clicks, credit, files
from assets.orders.changes import Broken, Change, Reader, note_product
from assets.orders.current import Row, apply, hour_of, time_of
from assets.orders.rules import OrderRules
from assets.orders.tables import (
    NOTE_PRODUCTS,
    ORDER_ATTRIBUTIONS,
    ORDER_BATCHES,
    ORDER_CHANGES,
    ORDER_QUARANTINE,
    ORDER_SOURCES,
    ORDERS,
    PLANTING_ACTIONS,
    SHOP_COLUMNS,
    TABLES,
)

APP = "orders"  # the name in the commit log
BATCH_BYTES = 32 * 2**20  # of files a batch; a greater file is a batch of its own
PART_BYTES = 64 * 2**20  # of lines a batch, unpacked; what a file holds beyond that is left to the next
BATCH_LINES = 100_000  # as Python's objects a change takes some kB
BATCH_FILES = 10_000
CATALOGUE = "note_products"  # files whose names begin so: which note plants which product
WHOLE_FILE = 0  # row number of a quarantined file; lines count from 1
ONE_HOUR = dt.timedelta(hours=1)
SEEN_IN_DELTA = {"long": pa.int64(), "double": pa.float64(), "boolean": pa.bool_(), "string": pa.string(), "timestamp": TIME}


class OrderError(Exception):
    """Orders cannot be taken; the message says what to do."""


def take(
    lake: Lake,
    folder: Path,
    rules: OrderRules,
    *,
    say: Callable[[str], None] = lambda text: None,
    probe: Callable[[str], None] = lambda point: None,
    batch_bytes: int | None = None,
    part_bytes: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, int]:
    """Take all that waits in the folder, and credit anew what late clicks or other rules have changed.

    probe: called with the name of each point of a batch (tests kill the process there). batch_bytes: of files a batch at
    most; part_bytes: of their lines, unpacked; a file with more is taken in parts. stopped: asked often, between batches and while
    files are read; once it says so, take returns, and what it had not committed is as if it had not begun.
    Returns counts: batches, and COUNTS, see the table order_batches: files, changes, repeats, quarantined, orders (rows changed), hours
    (made anew), lines, told, pairs, skipped, rescued.
    Raises OrderError where the lake has no commit log.
    """
    if lake.log is None:
        raise OrderError(f"orders need a lake on a local disk, whose tables change at one moment, not {lake.root}")
    for table in TABLES:
        lake.create(table)
    lake.recover()
    _grow(lake)
    clicks.gather(lake)
    probe("gathered")
    totals: Counter[str] = Counter(dict.fromkeys(("batches", *COUNTS), 0))
    limits = _Limits(batch_bytes or BATCH_BYTES, part_bytes or PART_BYTES)
    with _Intake(Path(folder), limits, stopped) as intake:
        while not stopped():
            try:
                batch = _prepare(lake.pinned(), intake, rules, files_only=totals["batches"] > 0)
            except files.Stopped:
                break
            if batch is None:
                break
            probe("read")
            if _commit(lake, batch, probe) is None:
                continue  # somebody else took these files meanwhile
            intake.pass_over(batch.names)
            totals.update(batch.counts, batches=1)
            say(f"orders, batch {batch.number}: " + ", ".join(f"{value:,} {name}" for name, value in batch.counts.items()))
    return dict(totals)


COUNTS = ("files", "changes", "repeats", "quarantined", "orders", "hours", "lines", "told", "pairs", "skipped", "rescued")


def _grow(lake: Lake) -> None:
    """Give tables of an older lake the columns that were declared since."""
    for table in (ORDER_CHANGES, ORDERS, ORDER_SOURCES, ORDER_BATCHES):
        there = {item.name for item in lake.open(table.name).schema().fields}
        if missing := [item for item in table.schema if item.name not in there]:
            lake.add_columns(table.name, missing, by=APP)


# --- a batch ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Batch:
    number: int
    columns: list[pa.Field]  # that `orders` gains
    writes: list[Write]
    hours: list[dt.datetime]
    counts: dict[str, int]
    names: list[str]  # of the files that are taken to their end


def _prepare(now: Lake, intake: _Intake, rules: OrderRules, files_only: bool) -> _Batch | None:
    """The next batch by the lake's moment, nothing of it written; None where there is nothing to do."""
    last, actions = _last(now), now.version(PLANTING_ACTIONS.name)
    taken_at = dt.datetime.now(dt.UTC)
    table = orders_table(now)
    reader = Reader(rules.table, rules.time_zone, {f.name: f.type for f in table.schema if f.name not in ORDERS.schema.names})
    given = intake.read(now, reader, taken_at)
    looked = last is not None and (last["actions_version"], last["rules"]) == (actions, rules.fingerprint)
    if not given.sources and (files_only or last is None or looked):
        return None
    fresh = _unseen(now, given.changes)
    wider = _wider(table, reader)
    rows, hours, after = _orders(now, wider, [change for *_, change in fresh])
    planted, new_pairs = _planted(now, given.planted)
    credits, hours_credited = _credits(now, rules, last, actions, after, hours, planted, new_pairs)
    counts = {
        "files": sum(row["next_byte"] is None for row in given.sources), "changes": len(fresh),
        "repeats": len(given.changes) - len(fresh), "quarantined": len(given.quarantine), "orders": rows,
        "hours": len(hours_credited), **{name: given.counts[name] for name in ("lines", "told", "pairs", "skipped", "rescued")},
    }  # fmt: skip
    number = now.moment.apps.get(APP, -1) + 1
    book = {
        "hour": hour_of(taken_at), "batch": number, "taken_at": taken_at, "actions_version": actions,
        "rules": rules.fingerprint,
    }  # fmt: skip
    writes = [
        Write(ORDER_CHANGES, _change_rows(fresh)),
        Write(ORDER_QUARANTINE, pa.Table.from_pylist(given.quarantine, ORDER_QUARANTINE.schema)),
        Write(ORDER_SOURCES, pa.Table.from_pylist(given.sources, ORDER_SOURCES.schema)),
        Write(NOTE_PRODUCTS, pa.Table.from_pylist(new_pairs, NOTE_PRODUCTS.schema)),
        Write(wider, after, windows(hours)),
        Write(ORDER_ATTRIBUTIONS, credits, windows(hours_credited)),
        Write(ORDER_BATCHES, pa.Table.from_pylist([{**book, **counts}], ORDER_BATCHES.schema)),
    ]
    gained = [item for item in wider.schema if item.name not in table.schema.names]
    names = [row["name"] for row in given.sources if row["next_byte"] is None]
    return _Batch(number, gained, writes, hours_credited, counts, names)


def _commit(lake: Lake, batch: _Batch, probe: Callable[[str], None]) -> Moment | None:
    if batch.columns:
        lake.add_columns(ORDERS.name, batch.columns, by=APP)
        probe("columns")
    steps = [lake.stage(write) for write in batch.writes]
    probe("staged")
    needed = (ORDER_ATTRIBUTIONS.name, ORDER_BATCHES.name)  # two at least: a commit of one table keeps its number elsewhere
    steps = [step for step in steps if step["adds"] or step["window"] or step["table"] in needed]
    hours = {ORDER_ATTRIBUTIONS.name: [hour.isoformat() for hour in batch.hours]}
    note = {"batch": batch.number, "batch_id": f"{APP}-{batch.number:09d}", "hours": hours, "counts": batch.counts}
    return lake.commit(steps, by=APP, app=(APP, batch.number), note=note, probe=probe)


def _last(now: Lake) -> dict | None:
    """The book's newest entry."""
    hours = now.hours(ORDER_BATCHES.name)
    if not hours:
        return None
    rows = now.read(ORDER_BATCHES.name, Window(hours[-1], hours[-1] + ONE_HOUR)).to_pylist()
    newest = max(rows, key=lambda row: row["batch"])
    if newest["batch"] == now.moment.apps.get(APP):
        return newest
    # A clock that was set back: the newest batch lies in an earlier hour.
    return max(now.read(ORDER_BATCHES.name).to_pylist(), key=lambda row: row["batch"])


# --- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Limits:
    batch_bytes: int
    part_bytes: int


@dataclass
class _Given:
    """What files hold. changes: with the source and line of each, in order of arrival; rows of the other tables."""

    changes: list[tuple[str, int, Change]] = field(default_factory=list)
    planted: list[dict] = field(default_factory=list)
    quarantine: list[dict] = field(default_factory=list)
    sources: list[dict] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)

    def add(self, other: _Given) -> None:
        for name in ("changes", "planted", "quarantine", "sources"):
            getattr(self, name).extend(getattr(other, name))
        self.counts.update(other.counts)


@dataclass
class _Known:
    """What order_sources knows: files by name, size and time; contents; where the next part of a content begins."""

    files: set[tuple[str, int, int]]
    contents: set[str]
    parts: dict[str, tuple[int, int]]


class _Intake:
    """The folder, batch after batch of one take; it goes on within a great file where the last batch has left it."""

    def __init__(self, folder: Path, limits: _Limits, stopped: Callable[[], bool]) -> None:
        self._folder, self._limits, self._stopped = folder, limits, stopped
        # Names that this take has no more to do with: gone, written to just now, or taken: a file that grows all the time would keep it for ever.
        self._passed: set[str] = set()
        self._open: tuple[files.Source, Iterator[files.Line], tuple[int, int]] | None = None  # a great file, and where it stands

    def __enter__(self) -> _Intake:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def pass_over(self, names: Iterable[str]) -> None:
        self._passed.update(names)

    def _close(self) -> None:
        if self._open:
            self._open[0].close()
        self._open = None

    def read(self, now: Lake, reader: Reader, taken_at: dt.datetime) -> _Given:
        """The next batch: waiting files in order of their names, up to the limits; empty where none waits."""
        known, given, size = _known_files(now), _Given(), 0
        for number, entry in enumerate(self._waiting(known)):
            size += max(0, entry.bytes)
            if given.sources and (size > self._limits.batch_bytes or number >= BATCH_FILES or self._is_full(given)):
                break
            kinds = reader.kinds
            try:
                given.add(self._file(entry, known, reader, taken_at, given))
            except files.Moved:
                self._close()
                reader.kinds = kinds
                self._passed.add(entry.name)
        return given

    def _waiting(self, known: _Known) -> Iterator[files.Entry]:
        for entry in files.listed(self._folder):
            if (entry.name, entry.bytes, entry.modified_ns) not in known.files and entry.name not in self._passed:
                yield entry

    def _file(self, entry: files.Entry, known: _Known, reader: Reader, taken_at: dt.datetime, before: _Given) -> _Given:
        """What a file, or the next part of it, holds. Raises files.Moved where there is nothing to tell of it."""
        try:
            if entry.trouble:
                raise entry.trouble
            return self._lines(entry, known, reader, taken_at, before)
        except OSError as error:
            self._close()
            entry = files.troubled(entry, error)
            if (entry.name, entry.bytes, entry.modified_ns) in known.files:
                raise files.Moved(entry.name) from None  # told before; it is tried again each time, since rights may change
            why = f"file: cannot be read ({error.strerror or error}); mend it, it is tried again each time, and told once"
            return _refused(entry, files.told_apart(entry), why, taken_at)

    def _lines(self, entry: files.Entry, known: _Known, reader: Reader, taken_at: dt.datetime, before: _Given) -> _Given:
        source, lines = self._resumed(entry, known) or self._opened(entry, known)
        booked, is_catalogue = _booked(entry, source.fingerprint, taken_at), _is_catalogue(entry)
        given = _Given(sources=[booked])
        if source.fingerprint in known.contents:
            self._close()
            return given
        most_bytes = self._limits.part_bytes - before.counts["bytes"]
        most_lines = BATCH_LINES - before.counts["lines"]
        try:
            for line in lines:
                _take_line(line, booked, is_catalogue, reader, given)
                if given.counts["bytes"] >= most_bytes or booked["rows"] >= most_lines:
                    self._open = source, lines, (line.row + 1, line.after)
                    booked |= {"bytes": None, "next_row": line.row + 1, "next_byte": line.after}
                    return given
        except files.Unreadable as error:
            given = _refused(entry, source.fingerprint, str(error), taken_at)
        self._close()
        known.contents.add(source.fingerprint)
        return given

    def _is_full(self, given: _Given) -> bool:
        return given.counts["bytes"] >= self._limits.part_bytes or given.counts["lines"] >= BATCH_LINES

    def _resumed(self, entry: files.Entry, known: _Known) -> tuple[files.Source, Iterator[files.Line]] | None:
        """The file that the last batch has left open, if it is this one and that batch was committed."""
        if self._open is None or self._open[0].entry != entry:
            return None
        source, lines, place = self._open
        return (source, lines) if known.parts.get(source.fingerprint) == place else None

    def _opened(self, entry: files.Entry, known: _Known) -> tuple[files.Source, Iterator[files.Line]]:
        """The file, and its lines from where order_sources has left it."""
        self._close()
        source = files.Source(entry, self._stopped)
        lines = source.lines(*known.parts.get(source.fingerprint, (1, 0)))
        self._open = source, lines, (0, 0)
        return source, lines


def _is_catalogue(entry: files.Entry) -> bool:
    return entry.name.rsplit("/", 1)[-1].lower().startswith(CATALOGUE)


def _booked(entry: files.Entry, source: str, taken_at: dt.datetime) -> dict:
    """A row of order_sources, without lines so far."""
    return {
        "source": source, "name": entry.name, "bytes": entry.bytes, "modified_ns": entry.modified_ns, "rows": 0,
        "landed_at": taken_at, "skipped": 0, "refused": 0, "next_byte": None, "next_row": None,
    }  # fmt: skip


def _refused(entry: files.Entry, source: str, reason: str, taken_at: dt.datetime) -> _Given:
    """A file of which nothing is taken: one row of quarantine."""
    booked = _booked(entry, source, taken_at) | {"rows": 1, "refused": 1}
    broken = {"hour": hour_of(taken_at), "source": source, "row": WHOLE_FILE, "body": b"", "reason": reason}
    return _Given(quarantine=[broken], sources=[booked], counts=Counter(lines=1))


def _take_line(line: files.Line, booked: dict, is_catalogue: bool, reader: Reader, given: _Given) -> None:
    """Add what a line holds, and count it: in its file's row of order_sources, and in the batch."""
    given.counts["bytes"] += len(line.body) + 1
    if not line.body.strip():
        return
    booked["rows"] += 1
    given.counts["lines"] += 1
    try:
        if line.digest:
            raise Broken(f"line: longer than {files.LINE_BYTES:,} bytes")
        if is_catalogue:
            given.planted += [{"note_id": n, "product_id": p, "source": booked["source"]} for n, p in note_product(line.body)]
            given.counts["pairs"] += 1
            return
        changes = reader.line(line.body)
    except Broken as error:
        kept, more = line.kept
        booked["refused"] += 1
        broken = {"hour": hour_of(booked["landed_at"]), "source": booked["source"], "row": line.row, "body": kept}
        given.quarantine.append({**broken, "reason": f"{error}{more}"})
        return
    given.changes += [(booked["source"], line.row, change) for change in changes]
    given.counts["told" if changes else "skipped"] += 1
    booked["skipped"] += not changes
    given.counts["rescued"] += sum(bool(change.values and change.values["rescued"]) for change in changes)


def _known_files(now: Lake) -> _Known:
    names = ["source", "name", "bytes", "modified_ns", "next_byte", "next_row"]
    table = now.read(ORDER_SOURCES.name, columns=names)
    source, name, size, modified, next_byte, next_row = (table[one].to_pylist() for one in names)
    contents = {one for one, place in zip(source, next_byte, strict=True) if place is None}
    parts: dict[str, tuple[int, int]] = {}
    for one, row, place in zip(source, next_row, next_byte, strict=True):
        if place is not None and one not in contents:
            parts[one] = max(parts.get(one, (0, 0)), (row, place))
    return _Known(set(zip(name, size, modified, strict=True)), contents, parts)


# --- changes and orders -----------------------------------------------------------------------------------------------


def orders_table(lake: Lake) -> Table:
    """`orders` with the columns that it has gained so far."""
    gained = [
        pa.field(item.name, SEEN_IN_DELTA[item.type.type])
        for item in lake.open(ORDERS.name).schema().fields if item.name not in ORDERS.schema.names
    ]  # fmt: skip
    return replace(ORDERS, schema=pa.schema([*ORDERS.schema, *gained]))


def _wider(table: Table, reader: Reader) -> Table:
    new = [pa.field(name, kind) for name, kind in reader.kinds.items() if name not in (*table.schema.names, *SHOP_COLUMNS)]
    return replace(table, schema=pa.schema([*table.schema, *new]))


def _identity(change: Change) -> tuple:
    return change.order_id, time_of(change.time), change.position, change.item, change.op, change.after


def _unseen(now: Lake, changes: Sequence[tuple[str, int, Change]]) -> list[tuple[str, int, Change]]:
    """The changes that the log does not have yet, each once."""
    hours = {hour_of(time_of(change.time)) for *_, change in changes}
    columns = ["order_id", "change_time", "change_position", "change_item", "change_op", "after", "change_place"]
    held = _read_hours(now, ORDER_CHANGES, hours).select(columns)
    seen = set(zip(*(column.to_pylist() for column in held.columns), strict=True)) if held.num_rows else set()
    fresh = []
    for one in changes:
        change, identity = one[-1], _identity(one[-1])
        # Of a row that was written before there were places, the place is null.
        if (*identity, change.place) not in seen and (*identity, None) not in seen:
            seen.add((*identity, change.place))
            fresh.append(one)
    return fresh


def _change_rows(changes: Sequence[tuple[str, int, Change]]) -> pa.Table:
    rows = [
        {"hour": hour_of(time_of(c.time)), "source": source, "row": row, "order_id": c.order_id,
         "change_time": time_of(c.time), "change_position": c.position, "change_item": c.item, "change_op": c.op,
         "after": c.after, "change_place": c.place}
        for source, row, c in changes
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, ORDER_CHANGES.schema)


def _orders(now: Lake, table: Table, changes: Sequence[Change]) -> tuple[int, set[dt.datetime], pa.Table]:
    """(orders changed, the hours to replace, what they hold afterwards)."""
    before = _known(now, table, {change.order_id for change in changes if change.order_id})
    rows = apply([_complete(change, table) for change in changes], before)
    hours = {row["hour"] for row in rows.values()} | {before[key]["hour"] for key in rows if key in before}
    held = _read_hours(now, table, hours)
    kept = held.filter(pc.invert(pc.is_in(held["order_id"], value_set=pa.array(list(rows), pa.string()))))
    return len(rows), hours, pa.concat_tables([kept, pa.Table.from_pylist(list(rows.values()), table.schema)])


def _known(now: Lake, table: Table, order_ids: set[str]) -> dict[str, Row]:
    """The rows of these orders, which may lie in any hour."""
    if not order_ids:
        return {}
    wanted = pa.array(sorted(order_ids), pa.string())
    places = now.read(ORDERS.name, columns=["hour", "order_id"])
    places = places.filter(pc.is_in(places["order_id"], value_set=wanted))
    rows = _read_hours(now, table, set(places["hour"].to_pylist()))
    return {row["order_id"]: row for row in rows.filter(pc.is_in(rows["order_id"], value_set=wanted)).to_pylist()}


def _complete(change: Change, table: Table) -> Change:
    """The change with every column of the table: a row of before a column was added has none in it."""
    ours = set(ORDERS.schema.names) - {*SHOP_COLUMNS, "rescued"}
    values = {name: None for name in table.schema.names if name not in ours}
    return replace(change, values={**values, **(change.values or {})})


# --- credits ----------------------------------------------------------------------------------------------------------


def _planted(now: Lake, rows: Sequence[dict]) -> tuple[pl.DataFrame, list[dict]]:
    """The catalogue with the new pairs, and these."""
    held = credit.read_planted(now)
    seen, new = set(held.iter_rows()), []
    for row in rows:
        if (pair := (row["note_id"], row["product_id"])) not in seen:
            seen.add(pair)
            new.append(row)
    return pl.concat([held, pl.DataFrame(new, schema_overrides=held.schema).select(held.columns)]) if new else held, new


def _credits(now, rules, last, actions, after: pa.Table, changed: set, planted, new_pairs) -> tuple[pa.Table, list]:
    """(rows of order_attributions, the hours that they replace)."""
    if last is not None and last["rules"] != rules.fingerprint:
        hours = set(now.hours(ORDERS.name))
    else:
        hours = _hours_by_product(now, new_pairs) | _hours_by_clicks(now, last, actions, planted, rules)
    hours |= changed
    wanted = [item.name for item in ORDERS.schema]
    elsewhere = _read_hours(now, ORDERS, hours - changed).select(wanted)
    orders = _utc(pl.from_arrow(pa.concat_tables([after.select(wanted).cast(ORDERS.schema), elsewhere])))
    found = clicks.before_orders(now, orders, planted, rules)
    return credit.credited(orders, found, planted, rules), sorted(hours)


def _hours_by_product(now: Lake, new_pairs: Sequence[dict]) -> set[dt.datetime]:
    if not new_pairs:
        return set()
    products = pa.array(sorted({row["product_id"] for row in new_pairs}), pa.int64())
    return set(_matching(now, ORDERS, pc.field("product_id").isin(products))["hour"].to_pylist())


def _hours_by_clicks(now: Lake, last: dict | None, actions: int, planted, rules: OrderRules) -> set[dt.datetime]:
    """Hours with orders that clicks may have reached, or whose clicks may be gone, since the last batch."""
    if last is None or actions == last["actions_version"]:
        return set()
    try:
        added, gone = clicks.since(now, last["actions_version"], rules)
    except (LakeError, DeltaError):  # that version was tidied away
        return set(now.hours(ORDERS.name))
    return _hours_of_gone(now, gone) | _hours_reached(now, added, planted, rules)


def _hours_of_gone(now: Lake, gone: set[dt.datetime]) -> set[dt.datetime]:
    """Hours of the orders that are credited to a click in hours of `events` of which a file is gone."""
    if not gone:
        return set()
    inside = (pc.field("click_time") >= _scalar(min(gone))) & (pc.field("click_time") < _scalar(max(gone) + ONE_HOUR))
    found = now.dataset(ORDER_ATTRIBUTIONS.name).to_table(columns=["hour", "click_time"], filter=inside).to_pylist()
    return {row["hour"] for row in found if hour_of(row["click_time"]) in gone}


def _hours_reached(now: Lake, added: pl.DataFrame, planted: pl.DataFrame, rules: OrderRules) -> set[dt.datetime]:
    if not len(added):
        return set()
    first, final = added["event_time"].min(), added["event_time"].max() + rules.window
    inside = (pc.field("hour") >= _scalar(hour_of(first))) & (pc.field("hour") <= _scalar(final))
    inside &= pc.field("user_id").isin(added["user_id"].unique().to_arrow())
    orders = _utc(pl.from_arrow(_matching(now, ORDERS, inside)))
    return set(credit.reached(orders, added, planted, rules)["hour"].to_list())


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_hours(now: Lake, table: Table, hours: Iterable[dt.datetime]) -> pa.Table:
    hours = sorted(hours)
    return _matching(now, table, pc.field("hour").isin(pa.array(hours, TIME))) if hours else table.empty()


def _matching(now: Lake, table: Table, condition: pc.Expression) -> pa.Table:
    """Rows of a table in its declared columns; those that it has not gained yet are null."""
    data = now.dataset(table.name)
    there = [name for name in table.schema.names if name in data.schema.names]
    found = data.to_table(columns=there, filter=condition)
    for item in table.schema:
        if item.name not in there:
            found = found.append_column(item, pa.nulls(found.num_rows, item.type))
    return found.select(table.schema.names).cast(table.schema)


def _scalar(time: dt.datetime) -> pa.Scalar:
    return pa.scalar(time, TIME)


def _utc(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col(pl.Datetime).cast(clicks.UTC_US))
