"""A line of a change stream to changes of orders: Debezium's envelope, Canal's flat messages, changes of the schema.

Here: the forms, the types of columns, and the reason why a line cannot be taken. Not here: which change wins (current.py),
files and tables (take.py). docs/orders.md lists the forms.

A line is taken whole or not at all.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from assets.events.contract import EARLIEST, LATEST, MAX_ID_LENGTH, TIME
from assets.lake import EPOCH
from assets.orders.tables import ORDERS, SHOP_COLUMNS

INSERT, SNAPSHOT, UPDATE, DELETE, SCHEMA = "c", "r", "u", "d", "s"
CANAL_ROWS = {"INSERT": INSERT, "UPDATE": UPDATE, "DELETE": DELETE}
CANAL_DDL = ("CREATE", "ALTER", "RENAME", "CINDEX", "DINDEX")
INT64 = range(-(2**63), 2**63)
# The shop's own column of such a name is kept as shop_NAME.
OURS = frozenset(ORDERS.schema.names) - set(SHOP_COLUMNS)


class Broken(Exception):
    """A line that cannot be taken; the message is the reason that goes to quarantine: `what: what is wrong`."""


@dataclass(frozen=True)
class Change:
    """One change. time in µs; values: typed, by column of `orders`, None for a delete; after: the row as received."""

    op: str
    order_id: str | None
    time: int
    position: int
    item: int
    values: dict[str, Any] | None
    after: str | None


class Reader:
    """Reads the lines of a stream. kinds: the type of each column, the declared ones and those seen or announced so far.

    table, zone: as in OrderRules.
    """

    def __init__(self, table: str, zone: str, kinds: dict[str, pa.DataType] | None = None) -> None:
        self.table, self.zone = table, zoneinfo.ZoneInfo(zone)
        self.kinds = {name: kind for name, (kind, _) in SHOP_COLUMNS.items()} | (kinds or {})

    def line(self, body: bytes) -> list[Change]:
        """The changes of a line: none for a tombstone or another table's schema. Raises Broken."""
        record = _parsed(body)
        schema = None
        if isinstance(record, dict) and "payload" in record:
            schema, record = record.get("schema"), record["payload"]
        if record is None:  # a tombstone: Kafka's word for a key that may be compacted away
            return []
        if not isinstance(record, dict):
            raise Broken("line: not a JSON object")
        if "ddl" in record or "tableChanges" in record:
            return self._debezium_schema(record)
        if "op" in record:
            return [self._debezium(record, schema)]
        if "type" in record:
            return self._canal(record)
        raise Broken("line: neither Debezium's form (op) nor Canal's (type)")

    # --- Debezium ----------------------------------------------------------------------------------------------------

    def _debezium(self, record: dict, schema: dict | None) -> Change:
        op, source = record["op"], record.get("source") or {}
        if op not in (INSERT, SNAPSHOT, UPDATE, DELETE):
            raise Broken(f"op: {op!r} is not one of c, r, u, d")
        self._check_table(source.get("table"))
        place = (_debezium_time(record, source), *_debezium_position(source))
        row = record.get("before" if op == DELETE else "after")
        if not isinstance(row, dict):
            raise Broken(f"{'before' if op == DELETE else 'after'}: missing or not an object, op is {op}")
        return self._change(op, row, place, *_schema_of_fields(schema))

    def _debezium_schema(self, record: dict) -> list[Change]:
        source = record.get("source") or {}
        ours: dict[str, pa.DataType] = {}
        touched = False
        for table in record.get("tableChanges") or []:
            if str(table.get("id", "")).replace('"', "").split(".")[-1] != self.table:
                continue
            touched = True
            for column in (table.get("table") or {}).get("columns") or []:
                ours[column["name"]] = sql_kind(str(column.get("typeName", "")))
        if not record.get("tableChanges"):
            touched, ours = added_columns(record.get("ddl") or "", self.table)
        if not touched:
            return []
        place = (_debezium_time(record, source), *_debezium_position(source))
        text = record.get("ddl") or json.dumps(record["tableChanges"])
        return [self._announced(ours, place, text)]

    # --- Canal -------------------------------------------------------------------------------------------------------

    def _canal(self, record: dict) -> list[Change]:
        kind = str(record["type"]).upper()
        time = _microseconds(record.get("es") or record.get("ts"), 1000, "es")
        position = _whole(record.get("id") or 0, "id")
        if kind in CANAL_DDL or record.get("isDdl") and kind not in ("TRUNCATE", "ERASE"):
            text = record.get("sql") or ""
            touched, columns = added_columns(text, self.table)
            return [self._announced(columns, (time, position, 0), text)] if touched else []
        if kind not in CANAL_ROWS:
            raise Broken(f"type: {kind!r} is not one of {', '.join((*CANAL_ROWS, *CANAL_DDL))}")
        self._check_table(record.get("table"))
        rows, old = record.get("data"), record.get("old") or []
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise Broken("data: not a list of rows")
        kinds = {name: sql_kind(text) for name, text in (record.get("mysqlType") or {}).items()}
        found = []
        for item, row in enumerate(rows):
            before = old[item] if item < len(old) and isinstance(old[item], dict) else {}
            if kind == "UPDATE" and before.get("order_id") not in (None, row.get("order_id")):  # another key: another row
                found.append(self._change(DELETE, before, (time, position, item), kinds, {}))
            found.append(self._change(CANAL_ROWS[kind], row, (time, position, item), kinds, {}))
        return found

    # --- both --------------------------------------------------------------------------------------------------------

    def _check_table(self, table: object) -> None:
        if table != self.table:
            raise Broken(f"table: {table!r} is not {self.table!r}")

    def _announced(self, columns: dict[str, pa.DataType], place: tuple[int, int, int], text: str) -> Change:
        for name, kind in columns.items():
            self.kinds.setdefault(column_name(name), kind)
        return Change(SCHEMA, None, *place, None, text)

    def _change(self, op: str, row: dict, place, kinds: dict[str, pa.DataType], units: dict[str, int]) -> Change:
        names = {column_name(name): name for name in row}
        if "order_id" not in names:
            raise Broken("order_id: missing")
        order_id = _order_id(row[names["order_id"]])
        if op == DELETE:
            return Change(op, order_id, *place, None, None)
        values, seen = {}, {}
        for name, original in names.items():
            kind = self.kinds.get(name) or kinds.get(original) or _kind_of(row[original])
            if kind is not None:  # null, and nobody has said what else it might be
                values[name] = self._value(name, row[original], kind, units.get(original, 1))
                seen[name] = kind
        values["order_id"] = order_id
        for name, (_, required) in SHOP_COLUMNS.items():
            if values.setdefault(name) is None and required:
                raise Broken(f"{name}: missing")
        values["refunded_cents"] = values["refunded_cents"] or 0
        for name in ("amount_cents", "refunded_cents"):
            if values[name] < 0:
                raise Broken(f"{name}: below 0")
        self.kinds = seen | self.kinds
        after = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return Change(op, order_id, *place, values, after)

    def _value(self, name: str, value: Any, kind: pa.DataType, unit: int) -> Any:
        if value is None:
            return None
        if kind == TIME:
            return self._time(name, value, unit)
        return _CASTS[kind](value, name)

    def _time(self, name: str, value: Any, unit: int) -> dt.datetime:
        if isinstance(value, str) and not re.fullmatch(r"-?\d+", value):
            try:
                time = dt.datetime.fromisoformat(value)
            except ValueError:
                raise Broken(f"{name}: not a time") from None
            time = time.replace(tzinfo=self.zone) if time.tzinfo is None else time
        else:
            whole = _whole(value, name)
            time = _from_epoch(whole * unit if unit > 0 else whole // -unit, name)
        if not EARLIEST <= time < LATEST:
            raise Broken(_OUTSIDE.format(name))
        return time.astimezone(dt.UTC)


_OUTSIDE = f"{{}}: outside of {EARLIEST.year} to {LATEST.year} (integers count microseconds)"


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except UnicodeDecodeError:
        raise Broken("line: not UTF-8") from None
    except (ValueError, RecursionError):
        raise Broken("line: not JSON") from None


def column_name(name: str) -> str:
    """A column of the shop as `orders` spells it: Delta takes neither blanks nor two names that differ in case alone."""
    plain = re.sub(r"\W", "_", name.lower())
    return f"shop_{plain}" if plain in OURS else plain


# --- places in the stream ---------------------------------------------------------------------------------------------


def _debezium_time(record: dict, source: dict) -> int:
    """When the database made the change, µs: by the source, else by the connector."""
    for place in (source, record):
        for name, unit in (("ts_us", 1), ("ts_ms", 1000), ("ts_ns", -1000)):
            if place.get(name) is not None:
                return _microseconds(place[name], unit, f"source.{name}" if place is source else name)
    raise Broken("source.ts_ms: missing")


def _microseconds(value: Any, unit: int, name: str) -> int:
    if value is None:
        raise Broken(f"{name}: missing")
    whole = _whole(value, name)
    time = whole * unit if unit > 0 else whole // -unit
    if not EARLIEST <= _from_epoch(time, name) < LATEST:
        raise Broken(f"{name}: outside of {EARLIEST.year} to {LATEST.year}")
    return time


def _from_epoch(microseconds: int, name: str) -> dt.datetime:
    try:
        return EPOCH + dt.timedelta(microseconds=microseconds)
    except OverflowError:
        raise Broken(_OUTSIDE.format(name)) from None


def _debezium_position(source: dict) -> tuple[int, int]:
    """(position, item): MySQL's binlog file, offset and row; PostgreSQL's lsn; Oracle's scn; (0, 0) for others."""
    if source.get("pos") is not None:
        number = re.search(r"(\d+)$", str(source.get("file") or ""))
        position = (int(number[1]) if number else 0) * 2**40 + _whole(source["pos"], "source.pos")
        return _whole(position, "source.pos"), _whole(source.get("row") or 0, "source.row")
    for name in ("lsn", "scn"):
        if source.get(name) is not None:
            return _whole(source[name], f"source.{name}"), 0
    return 0, 0


# --- types ------------------------------------------------------------------------------------------------------------


def sql_kind(text: str) -> pa.DataType:
    """The type of a column by the database's own name of it; what is neither number, truth nor time is a text."""
    name = text.upper().strip()
    if name.startswith(("BOOL", "BIT(1)", "TINYINT(1)")):
        return pa.bool_()
    if re.match(r"(UNSIGNED )?(BIG|SMALL|MEDIUM|TINY)?(INT|SERIAL)(EGER|\d|\b)", name):
        return pa.int64()
    if name.startswith(("FLOAT", "DOUBLE", "REAL")):
        return pa.float64()
    return TIME if name.startswith(("TIMESTAMP", "DATETIME")) else pa.string()


def _schema_of_fields(schema: dict | None) -> tuple[dict[str, pa.DataType], dict[str, int]]:
    """Types, and the unit of integer times in µs (below 0: so many to a µs), by a Kafka Connect schema."""
    kinds, units = {}, {}
    for part in (schema or {}).get("fields") or []:
        if part.get("field") not in ("before", "after"):
            continue
        for field in part.get("fields") or []:
            name, meaning = field["field"], str(field.get("name") or "")
            if meaning.endswith(("Timestamp", "ZonedTimestamp")):
                kinds[name] = TIME
                units[name] = 1 if "Micro" in meaning else -1000 if "Nano" in meaning else 1000
            else:
                kinds[name] = _CONNECT.get(str(field.get("type")), pa.string())
    return kinds, units


_CONNECT = {
    **dict.fromkeys(("int8", "int16", "int32", "int64"), pa.int64()),
    **dict.fromkeys(("float", "float32", "double", "float64"), pa.float64()),
    "boolean": pa.bool_(),
}


def _kind_of(value: Any) -> pa.DataType | None:
    if value is None:
        return None
    return {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}.get(type(value), pa.string())


def added_columns(ddl: str, table: str) -> tuple[bool, dict[str, pa.DataType]]:
    """Whether a statement is about the table, and the columns that it declares. None for what cannot be parsed."""
    import sqlglot
    from sqlglot import exp

    try:
        statement = sqlglot.parse_one(ddl, read="mysql")
    except sqlglot.ParseError:
        statement = exp.Command()
    named = statement.find(exp.Table)
    if named is None:  # a statement that sqlglot does not know: it announces nothing, but is kept if it speaks of the table
        return bool(re.search(rf"\b{re.escape(table)}\b", ddl)), {}
    if named.name != table or not isinstance(statement, (exp.Alter, exp.Create)):
        return named.name == table, {}
    columns = [column for column in statement.find_all(exp.ColumnDef) if column.args.get("kind")]
    return True, {column.name: sql_kind(column.args["kind"].sql(dialect="mysql")) for column in columns}


# --- values -----------------------------------------------------------------------------------------------------------


def _whole(value: Any, name: str) -> int:
    """Canal writes every value as a text; JavaScript writes greater integers so."""
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,19}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in INT64:
        raise Broken(f"{name}: not an integer of 64 bits")
    return value


def _real(value: Any, name: str) -> float:
    try:
        return float(value) if not isinstance(value, bool) else _refuse(name, "a number")
    except (TypeError, ValueError, OverflowError):
        return _refuse(name, "a number")


def _truth(value: Any, name: str) -> bool:
    found = {True: True, False: False, "1": True, "0": False, "true": True, "false": False}
    return found[value] if isinstance(value, (bool, int, str)) and value in found else _refuse(name, "true or false")


def _text(value: Any, name: str) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _refuse(name: str, what: str) -> Any:
    raise Broken(f"{name}: not {what}")


def _order_id(value: Any) -> str:
    if value is None:
        raise Broken("order_id: missing")
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_ID_LENGTH:
        raise Broken(f"order_id: not 1 to {MAX_ID_LENGTH} characters")
    return text


_CASTS: dict[pa.DataType, Callable[[Any, str], Any]] = {
    pa.int64(): _whole, pa.float64(): _real, pa.bool_(): _truth, pa.string(): _text,
}  # fmt: skip


def note_product(body: bytes) -> Iterator[tuple[int, int]]:
    """(note_id, product_id) of a line of the catalogue. Raises Broken."""
    record = _parsed(body)
    if not isinstance(record, dict):
        raise Broken("line: not a JSON object")
    for name in ("note_id", "product_id"):
        if record.get(name) is None:
            raise Broken(f"{name}: missing")
    yield _whole(record["note_id"], "note_id"), _whole(record["product_id"], "product_id")
