"""Take in what the shop has sent: change files to `order_changes`, `orders` and `order_attributions`, exactly once.

Here: what a batch reads, which hours it makes anew, and the one commit in which it becomes visible. Not here: the forms of
changes (changes.py), which change wins (current.py), clicks (clicks.py), who is credited (credit.py).

A batch is a pure function of the files and of the lake at one moment; its commit bears the batch's number, so of two that
took the same files the second is a repeat and begins again. A crash leaves files that nobody names, or a commit that
the next writer finishes. Files are known by content: the same content under another name is no new file.

What changes a row of order_attributions: its order; a click that came late, or went when an hour of `events` was replaced; a new
pair in the catalogue; the rules. A batch finds the hours that these touch, by the version of planting_actions that the last
one looked into, and makes just these anew.
"""

from __future__ import annotations

import datetime as dt
import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from deltalake.exceptions import DeltaError

from assets.events.contract import TIME
from assets.lake import Lake, LakeError, Moment, Table, Window, Write, windows
from assets.orders import clicks, credit
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
SUFFIXES = (".jsonl", ".ndjson", ".json")
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
) -> dict[str, int]:
    """Take all that waits in the folder, and credit anew what late clicks or other rules have changed.

    probe: called with the name of each point of a batch (tests kill the process there). batch_bytes: of files a batch at
    most. Returns counts: batches, files, changes, repeats, quarantined, orders (rows changed), hours (made anew).
    Raises OrderError where the lake has no commit log.
    """
    if lake.log is None:
        raise OrderError(f"orders need a lake on a local disk, whose tables change at one moment, not {lake.root}")
    for table in TABLES:
        lake.create(table)
    lake.recover()
    clicks.gather(lake)
    probe("gathered")
    totals: Counter[str] = Counter(dict.fromkeys(("batches", *_COUNTS), 0))
    while True:
        batch = _prepare(lake.pinned(), Path(folder), rules, batch_bytes or BATCH_BYTES, files_only=totals["batches"] > 0)
        if batch is None:
            return dict(totals)
        probe("read")
        if _commit(lake, batch, probe) is None:
            continue  # somebody else took these files meanwhile
        totals.update(batch.counts, batches=1)
        say(f"orders, batch {batch.number}: " + ", ".join(f"{value:,} {name}" for name, value in batch.counts.items()))


_COUNTS = ("files", "changes", "repeats", "quarantined", "orders", "hours")


# --- a batch ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    path: Path
    name: str
    bytes: int
    modified_ns: int
    source: str
    again: bool  # this content was taken before


@dataclass
class _Given:
    """What files hold. changes: with the source and line of each, in order of arrival; rows of the other tables."""

    changes: list[tuple[str, int, Change]] = field(default_factory=list)
    planted: list[dict] = field(default_factory=list)
    quarantine: list[dict] = field(default_factory=list)
    lines: Counter = field(default_factory=Counter)


@dataclass(frozen=True)
class _Batch:
    number: int
    columns: list[pa.Field]  # that `orders` gains
    writes: list[Write]
    hours: list[dt.datetime]
    counts: dict[str, int]


def _prepare(now: Lake, folder: Path, rules: OrderRules, batch_bytes: int, files_only: bool) -> _Batch | None:
    """The next batch by the lake's moment, nothing of it written; None where there is nothing to do."""
    files = _waiting(now, folder, batch_bytes)
    last, actions = _last(now), now.version(PLANTING_ACTIONS.name)
    if not files and (files_only or last is None or (last["actions_version"], last["rules"]) == (actions, rules.fingerprint)):
        return None
    taken_at = dt.datetime.now(dt.UTC)
    table = orders_table(now)
    reader = Reader(rules.table, rules.time_zone, {f.name: f.type for f in table.schema if f.name not in ORDERS.schema.names})
    given = _read(files, reader, taken_at)
    fresh = _unseen(now, given.changes)
    wider = _wider(table, reader)
    rows, hours, after = _orders(now, wider, [change for *_, change in fresh])
    planted, new_pairs = _planted(now, given.planted)
    credits, hours_credited = _credits(now, rules, last, actions, after, hours, planted, new_pairs)
    counts = {
        "files": len(files), "changes": len(fresh), "repeats": len(given.changes) - len(fresh),
        "quarantined": len(given.quarantine), "orders": rows, "hours": len(hours_credited),
    }  # fmt: skip
    number = now.moment.apps.get(APP, -1) + 1
    book = {
        "hour": hour_of(taken_at), "batch": number, "taken_at": taken_at, "actions_version": actions,
        "rules": rules.fingerprint,
    }  # fmt: skip
    writes = [
        Write(ORDER_CHANGES, _change_rows(fresh)),
        Write(ORDER_QUARANTINE, pa.Table.from_pylist(given.quarantine, ORDER_QUARANTINE.schema)),
        Write(ORDER_SOURCES, _source_rows(files, given.lines, taken_at)),
        Write(NOTE_PRODUCTS, pa.Table.from_pylist(new_pairs, NOTE_PRODUCTS.schema)),
        Write(wider, after, windows(hours)),
        Write(ORDER_ATTRIBUTIONS, credits, windows(hours_credited)),
        Write(ORDER_BATCHES, pa.Table.from_pylist([{**book, **counts}], ORDER_BATCHES.schema)),
    ]
    gained = [item for item in wider.schema if item.name not in table.schema.names]
    return _Batch(number, gained, writes, hours_credited, counts)


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


def _waiting(now: Lake, folder: Path, batch_bytes: int) -> list[_File]:
    """Files that are new by name, size and time, a batch of them in order of their names."""
    if not folder.is_dir():
        return []
    known = now.read(ORDER_SOURCES.name, columns=["source", "name", "bytes", "modified_ns"])
    seen = set(zip(*(known[name].to_pylist() for name in ("name", "bytes", "modified_ns")), strict=True))
    sources = set(known["source"].to_pylist())
    found, size = [], 0
    for path in sorted(path for path in folder.rglob("*") if _is_changes(path)):
        stat, name = path.stat(), str(path.relative_to(folder))
        if (name, stat.st_size, stat.st_mtime_ns) in seen:
            continue
        size += stat.st_size
        if found and size > batch_bytes:
            break
        source = xxhash.xxh3_64(path.read_bytes()).hexdigest()
        found.append(_File(path, name, stat.st_size, stat.st_mtime_ns, source, source in sources))
        sources.add(source)
    return found


def _is_changes(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.name.removesuffix(".gz").endswith(SUFFIXES)


def _read(files: Sequence[_File], reader: Reader, taken_at: dt.datetime) -> _Given:
    given = _Given()

    def refuse(file: _File, row: int, body: bytes, reason: str) -> None:
        broken = {"hour": hour_of(taken_at), "source": file.source, "row": row, "body": body, "reason": reason}
        given.quarantine.append(broken)

    for file in files:
        if file.again:
            continue
        try:
            data = file.path.read_bytes()
            data = gzip.decompress(data) if file.name.endswith(".gz") else data
        except (EOFError, OSError, zlib.error) as error:
            refuse(file, WHOLE_FILE, b"", f"file: cannot be read ({error}); land it again, mended, under another name")
            continue
        for row, body in enumerate(data.split(b"\n"), 1):
            if not body.strip():
                continue
            given.lines[file.source] += 1
            try:
                if Path(file.name).name.startswith(CATALOGUE):
                    pairs = note_product(body)
                    given.planted += [{"note_id": n, "product_id": p, "source": file.source} for n, p in pairs]
                else:
                    given.changes += [(file.source, row, change) for change in reader.line(body)]
            except Broken as error:
                refuse(file, row, body, str(error))
    return given


def _source_rows(files: Sequence[_File], lines: Counter, taken_at: dt.datetime) -> pa.Table:
    rows = [
        {"source": file.source, "name": file.name, "bytes": file.bytes, "modified_ns": file.modified_ns,
         "rows": 0 if file.again else lines[file.source], "landed_at": taken_at}
        for file in files
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, ORDER_SOURCES.schema)


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
    columns = ["order_id", "change_time", "change_position", "change_item", "change_op", "after"]
    held = _read_hours(now, ORDER_CHANGES, hours).select(columns)
    seen = set(zip(*(column.to_pylist() for column in held.columns), strict=True)) if held.num_rows else set()
    fresh = []
    for one in changes:
        if (identity := _identity(one[-1])) not in seen:
            seen.add(identity)
            fresh.append(one)
    return fresh


def _change_rows(changes: Sequence[tuple[str, int, Change]]) -> pa.Table:
    rows = [
        {"hour": hour_of(time_of(c.time)), "source": source, "row": row, "order_id": c.order_id,
         "change_time": time_of(c.time), "change_position": c.position, "change_item": c.item, "change_op": c.op,
         "after": c.after}
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
    values = {name: None for name in table.schema.names if name not in ORDERS.schema.names or name in SHOP_COLUMNS}
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
