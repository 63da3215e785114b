"""A line of a change stream to changes of orders: Debezium's envelope, Canal's flat messages, changes of the schema.

Here: the forms, the types of columns, and the reason why a line cannot be taken. Not here: which change wins (current.py),
files and tables (take.py). docs/orders.md lists the forms.

A line is taken whole or not at all.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import math
import re
import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
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
MAX_DEPTH = 128  # of JSON: what is deeper ends parsers here and in who reads the tables
MAX_COLUMNS = 500  # that `orders` has or gains; every one is in every file of it for ever
MAX_NAME = 128  # characters of a column's name
MAX_STATEMENT = 64 * 2**10  # characters of DDL that are parsed: sqlglot takes 10 µs each
MESSAGE_ROWS = 2**20  # so many rows a message of Canal, at most: its number and the row's make one
MAX_FILE_NAME = 255  # characters of a log file's name
OLDEST, NEWEST = 1000, 9999  # years of a time in a column that Glasshouse does not need
# Without these an order is none, or its revenue is wrong; what does not fit any other column lies in `rescued`.
NEEDED = ("order_id", "created_at", "status", "amount_cents", "refunded_cents")
UNFORESEEN = "line: not understood"  # how the reason begins where nobody thought of what the line holds


class Broken(Exception):
    """A line that cannot be taken; the message is the reason that goes to quarantine: `what: what is wrong`."""


@dataclass(frozen=True)
class Change:
    """One change. time in µs; values: typed, by column of `orders`, None for a delete; after: the row as received.

    place: where the change is in its database's log, as a text that sorts as the log does; empty where the stream names none.
    left_out: columns whose value the database did not send, since it did not change (PostgreSQL's TOAST).
    """

    op: str
    order_id: str | None
    time: int
    position: int
    item: int
    place: str
    values: dict[str, Any] | None
    after: str | None
    left_out: tuple[str, ...] = ()


class Reader:
    """Reads the lines of a stream. kinds: the type of each column, the declared ones and those seen or announced so far.

    table, zone: as in OrderRules.
    """

    def __init__(self, table: str, zone: str, kinds: dict[str, pa.DataType] | None = None) -> None:
        self.table, self.zone = table, zoneinfo.ZoneInfo(zone)
        self.kinds = {name: kind for name, (kind, _) in SHOP_COLUMNS.items()} | (kinds or {})
        self._batch: tuple[int | None, int] = (None, 0)

    def line(self, body: bytes) -> list[Change]:
        """The changes of a line, which may be any bytes: none for a tombstone or another table's schema. Raises Broken, nothing else.

        A line that is refused leaves no column behind.
        """
        kinds = self.kinds
        try:
            return self._line(_parsed(body))
        except Broken:
            self.kinds = kinds
            raise
        except Exception as error:  # a fault of ours must cost a line, not the shop's whole stream
            self.kinds = kinds
            raise Broken(f"{UNFORESEEN} ({type(error).__name__})") from error

    def _line(self, record: Any) -> list[Change]:
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

    def _debezium(self, record: dict, schema: object) -> Change:
        op, source = record["op"], _object(record.get("source"), "source")
        if op not in (INSERT, SNAPSHOT, UPDATE, DELETE):
            raise Broken(f"op: {_shown(op)} is not one of c, r, u, d")
        self._check_table(source.get("table"))
        place = (_debezium_time(record, source), *_debezium_position(source), _debezium_place(source))
        row = record.get("before" if op == DELETE else "after")
        if not isinstance(row, dict):
            raise Broken(f"{'before' if op == DELETE else 'after'}: missing or not an object, op is {op}")
        return self._change(op, row, place, *_schema_of_fields(schema))

    def _debezium_schema(self, record: dict) -> list[Change]:
        source, ddl = _object(record.get("source"), "source"), _first(record.get("ddl"), "")
        if not isinstance(ddl, str):
            raise Broken("ddl: not a text")
        changes = _objects(record.get("tableChanges"), "tableChanges")
        ours = [one for one in changes if str(one.get("id", "")).replace('"', "").split(".")[-1] == self.table]
        touched, columns = bool(ours), {}
        for table in ours:
            for column in _objects(_object(table.get("table"), "table").get("columns"), "columns"):
                if not isinstance(column.get("name"), str):
                    raise Broken("columns: one without a name")
                columns[column["name"]] = sql_kind(column.get("typeName"))
        if not changes:
            touched, columns = added_columns(ddl, self.table)
        if not touched:
            return []
        place = (_debezium_time(record, source), *_debezium_position(source), _debezium_place(source))
        return [self._announced(columns, place, ddl or json.dumps(changes))]

    # --- Canal -------------------------------------------------------------------------------------------------------

    def _canal(self, record: dict) -> list[Change]:
        kind = record["type"].upper() if isinstance(record["type"], str) else record["type"]
        time = _microseconds(_first(record.get("es"), record.get("ts")), 1000, "es")
        position = _whole(_first(record.get("id"), 0), "id")
        if kind in CANAL_DDL or record.get("isDdl") and kind not in ("TRUNCATE", "ERASE"):
            text = _first(record.get("sql"), "")
            if not isinstance(text, str):
                raise Broken("sql: not a text")
            touched, columns = added_columns(text, self.table)
            return [self._announced(columns, (time, position, 0, canal_place(position)), text)] if touched else []
        if not isinstance(kind, str) or kind not in CANAL_ROWS:
            raise Broken(f"type: {_shown(kind)} is not one of {', '.join((*CANAL_ROWS, *CANAL_DDL))}")
        self._check_table(record.get("table"))
        rows, old = record.get("data"), _first(record.get("old"), [])
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise Broken("data: not a list of rows")
        if not isinstance(old, list) or not all(isinstance(row, dict | None) for row in old):
            raise Broken("old: not a list of rows")
        kinds = {name: sql_kind(text) for name, text in _object(record.get("mysqlType"), "mysqlType").items()}
        found, first = [], self._message(position) * MESSAGE_ROWS
        for item, row in enumerate(rows):
            before, place = old[item] if item < len(old) and old[item] else {}, (time, position, first + item, canal_place(position))
            if kind == "UPDATE" and before.get("order_id") not in (None, row.get("order_id")):  # another key: another row
                found.append(self._change(DELETE, before, place, kinds, {}))
            found.append(self._change(CANAL_ROWS[kind], row, place, kinds, {}))
        return found

    def _message(self, batch: int) -> int:
        """The message's number within its batch, as they come: the messages of a batch bear one id."""
        before, number = self._batch
        self._batch = (batch, number + 1 if before == batch else 0)
        return self._batch[1]

    # --- both --------------------------------------------------------------------------------------------------------

    def _check_table(self, table: object) -> None:
        if table != self.table:
            raise Broken(f"table: {_shown(table)} is not {self.table!r}")

    def _announced(self, columns: dict[str, pa.DataType], place: tuple[int, int, int, str], text: str) -> Change:
        for original, kind in columns.items():
            if (name := column_name(original)) not in self.kinds and self._has_room(name):
                self.kinds = self.kinds | {name: kind}
        return Change(SCHEMA, None, *place, None, text)

    def _has_room(self, name: str) -> bool:
        """Whether `orders` can gain a column of this name: Delta knows none without one, or that differ in case alone."""
        if not 1 <= len(name) <= MAX_NAME or len(self.kinds) >= MAX_COLUMNS:
            return False
        return name.isascii() or name.upper().casefold() not in {one.upper().casefold() for one in self.kinds}

    def _change(self, op: str, row: dict, place, kinds: dict[str, pa.DataType], units: dict[str, int]) -> Change:
        names, doubled = _by_column(row)
        if "order_id" not in names:
            raise Broken("order_id: missing")
        order_id = _order_id(row[names["order_id"]])
        if op == DELETE:
            return Change(op, order_id, *place, None, None)
        values, kinds_now, left_out = {}, self.kinds, []
        rescued = {original: row[original] for original in doubled}
        for name, original in names.items():
            value = row[original]
            if _is_left_out(value) and name not in NEEDED:
                left_out.append(name)
                continue
            kind = kinds_now.get(name) or kinds.get(original) or _kind_of(value)
            if kind is None:  # null, and nobody has said what else it might be
                continue
            if name not in kinds_now:
                if not self._has_room(name):
                    rescued[original] = value
                    continue
                self.kinds = self.kinds | {name: kind}
            try:
                values[name] = self._value(name, value, kind, units.get(original))
            except Broken:
                if name in NEEDED:
                    raise
                values[name], rescued[original] = None, value
        values |= {"order_id": order_id, "rescued": _json(rescued) if rescued else None}
        _check_needed(values)
        return Change(op, order_id, *place, values, _json(row), tuple(left_out))

    def _value(self, name: str, value: Any, kind: pa.DataType, unit: int | None) -> Any:
        if value is None:
            return None
        if kind == TIME:
            return self._time(name, value, unit)
        return _CASTS[kind](value, name)

    def _time(self, name: str, value: Any, unit: int | None) -> dt.datetime | None:
        if isinstance(value, str) and not re.fullmatch(r"-?\d+", value):
            if value.startswith("0000-00-00"):  # MySQL's word for none
                return None
            try:
                time = dt.datetime.fromisoformat(value)
                time = (time.replace(tzinfo=self.zone) if time.tzinfo is None else time).astimezone(dt.UTC)
            except (ValueError, OverflowError):
                raise Broken(f"{name}: not a time") from None
        else:
            time = _from_epoch(_in_microseconds(_whole(value, name), unit, name), name)
        if not (EARLIEST <= time < LATEST if name in SHOP_COLUMNS else OLDEST <= time.year <= NEWEST):
            raise Broken(_OUTSIDE.format(name))
        return time


LEFT_OUT = "__debezium_unavailable_value"
_LEFT_OUT = (LEFT_OUT, base64.b64encode(LEFT_OUT.encode()).decode(), [LEFT_OUT], {LEFT_OUT: LEFT_OUT})


def _is_left_out(value: Any) -> bool:
    """Whether Debezium's placeholder stands for a text, bytes, an array or a map that the database did not send."""
    return isinstance(value, (str, list, dict)) and value in _LEFT_OUT


def _check_needed(values: dict[str, Any]) -> None:
    """Fill in what may be left out, and refuse the row that is no order. values: of a row, typed."""
    for name in SHOP_COLUMNS:
        values.setdefault(name, None)
    values["refunded_cents"] = values["refunded_cents"] or 0
    for name in NEEDED:
        if values[name] is None:
            raise Broken(f"{name}: missing")
    for name in ("amount_cents", "refunded_cents"):
        if values[name] < 0:
            raise Broken(f"{name}: below 0")


_OUTSIDE = f"{{}}: outside of {EARLIEST.year} to {LATEST.year}"


# --- JSON of anybody --------------------------------------------------------------------------------------------------


def _parsed(body: bytes) -> Any:
    """A line as Python's objects, which any table and any parser can hold. Raises Broken."""
    try:
        record = _DECODER.decode(body.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError:
        raise Broken("line: not UTF-8") from None
    except (ValueError, RecursionError):
        raise Broken("line: not JSON") from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deeper(record, MAX_DEPTH):
        raise Broken(f"line: nested more than {MAX_DEPTH} deep")
    if _HALF.search(body):
        try:
            _json(record).encode()
        except UnicodeEncodeError:
            raise Broken("line: half of a character (one surrogate without its other), which no text can hold") from None
    return record


def _finite(text: str) -> float | str:
    """1e400 is valid JSON, and no number of 64 bits."""
    return value if math.isfinite(value := float(text)) else text


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=str)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def _is_deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        within = (one for holder in layer for one in (holder.values() if isinstance(holder, dict) else holder))
        layer = [one for one in within if isinstance(one, (dict, list))]
        if not layer:
            return False
    return True


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _shown(value: Any) -> str:
    """A value as a reason shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _first(value: Any, other: Any) -> Any:
    return other if value is None else value


def _object(value: Any, name: str) -> dict:
    """A part that is an object where it is there at all."""
    if value is None:
        return {}
    return value if isinstance(value, dict) else _refuse(name, "an object")


def _objects(value: Any, name: str) -> list[dict]:
    if value is None:
        return []
    return value if isinstance(value, list) and all(isinstance(one, dict) for one in value) else _refuse(name, "a list of objects")


def column_name(name: str) -> str:
    """A column of the shop as `orders` spells it: Delta takes neither blanks nor two names that differ in case alone."""
    return _known_name(name) if len(name) <= MAX_NAME else name


@lru_cache(8192)
def _known_name(name: str) -> str:
    plain = re.sub(r"\W", "_", name.lower())
    return f"shop_{plain}" if plain in OURS else plain


def _by_column(row: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """(column of `orders` -> the row's own name of it, names whose column another one has).

    Of two with one column the one that is spelled so has it, else the first.
    """
    found: dict[str, str] = {}
    doubled = []
    for original in row:
        name = column_name(original)
        other = found.get(name)
        if other is None or name == original:
            found[name] = original
        if other is not None:
            doubled.append(other if name == original else original)
    return found, doubled


# --- places in the stream ---------------------------------------------------------------------------------------------


def _debezium_time(record: dict, source: dict) -> int:
    """When the database made the change, µs: by the source, else by the connector. 0 is no time: snapshots have it."""
    for place in (source, record):
        for name, unit in (("ts_us", 1), ("ts_ms", 1000), ("ts_ns", -1000)):
            if place.get(name) not in (None, 0):
                return _microseconds(place[name], unit, f"source.{name}" if place is source else name)
    raise Broken("source.ts_ms: missing")


def _microseconds(value: Any, unit: int, name: str) -> int:
    if value is None:
        raise Broken(f"{name}: missing")
    time = _in_microseconds(_whole(value, name), unit, name)
    if not EARLIEST <= _from_epoch(time, name) < LATEST:
        raise Broken(_OUTSIDE.format(name))
    return time


# Since 1970, of the years in which orders are: no number means two times. As in `units`.
_UNITS_TOLD_APART = ((1, 1), (1000, 1000), (-1000, 1 / 1000))


def _in_microseconds(value: int, unit: int | None, name: str) -> int:
    """An integer time in µs. unit: of it, in µs (below 0: so many to a µs); None where nobody has said: by its size."""
    if unit is not None:
        return value * unit if unit > 0 else value // -unit
    for unit, factor in _UNITS_TOLD_APART:
        if _FIRST <= value * factor < _LAST:
            return value * unit if unit > 0 else value // -unit
    raise Broken(f"{_OUTSIDE.format(name)}, in µs, ms or ns")


_FIRST, _LAST = ((time - EPOCH) // dt.timedelta(microseconds=1) for time in (EARLIEST, LATEST))


def _from_epoch(microseconds: int, name: str) -> dt.datetime:
    try:
        return EPOCH + dt.timedelta(microseconds=microseconds)
    except OverflowError:
        raise Broken(_OUTSIDE.format(name)) from None


def _debezium_position(source: dict) -> tuple[int, int]:
    """(position, item): MySQL's binlog file, offset and row; PostgreSQL's lsn; Oracle's scn; (0, 0) for others."""
    if source.get("pos") is not None:
        position = _file_number(source.get("file")) * 2**40 + _whole(source["pos"], "source.pos")
        return _whole(position, "source.pos"), _whole(_first(source.get("row"), 0), "source.row")
    for name in ("lsn", "scn"):
        if source.get(name) is not None:
            return _whole(source[name], f"source.{name}"), 0
    return 0, 0


def _debezium_place(source: dict) -> str:
    """MySQL: file, offset, row. SQL Server: commit, change, serial number. Oracle: commit, SCN, record, SSN. PostgreSQL: LSN.

    A row of a snapshot has the position as of which it was read: of its state, not of its reading.
    """
    if source.get("commit_lsn") is not None or source.get("change_lsn") is not None:
        commit, change = (_lsn(source.get(name), f"source.{name}") for name in ("commit_lsn", "change_lsn"))
        return sortable(commit or change, change, _whole(_first(source.get("event_serial_no"), 0), "source.event_serial_no"))
    if source.get("scn") is not None and source.get("pos") is None and source.get("lsn") is None:
        scn = _whole(source["scn"], "source.scn")
        commit = source.get("commit_scn")
        # Its transaction's: one that was open when a snapshot was read comes after it, though its changes have lesser SCNs.
        commit = scn if commit is None else _whole(commit, "source.commit_scn")
        return sortable(commit, scn, _record(source.get("rs_id")), _whole(_first(source.get("ssn"), 0), "source.ssn"))
    position, item = _debezium_position(source)
    return sortable(position, item) if position or item else ""


def _lsn(value: object, name: str) -> int:
    """SQL Server's log sequence number, three hexadecimal numbers of 32, 32 and 16 bits, as one."""
    parts = value.split(":") if isinstance(value, str) else None
    if value is None or value in ("", "NULL"):
        return 0
    if parts is None or len(parts) != 3 or not all(re.fullmatch(r"[0-9a-fA-F]{1,8}", part) for part in parts):
        raise Broken(f"{name}: not three hexadecimal numbers")
    first, second, third = (int(part, 16) for part in parts)
    return (first << 64) | (second << 32) | third


def _record(value: object) -> int:
    """Oracle's address of a redo record, hexadecimal numbers with points between, as one; 0 for any other."""
    digits = value.strip().lower().removeprefix("0x").replace(".", "") if isinstance(value, str) and len(value) < 40 else ""
    return int(digits, 16) if re.fullmatch(r"[0-9a-f]{1,24}", digits) else 0


def canal_place(batch: int) -> str:
    """Of a change in Canal's form: the batch. Within it the order is that of arrival."""
    return CANAL + sortable(batch)


CANAL = "canal "


def sortable(*numbers: int) -> str:
    """Numbers of 0 to 2^96 as one text that sorts as they do; one below 0 counts as 0."""
    return ".".join(f"{max(0, number):024x}" for number in numbers)


def _file_number(name: object) -> int:
    if name is None:
        return 0
    if not isinstance(name, str) or len(name) > MAX_FILE_NAME:
        raise Broken("source.file: not the name of a file")
    number = re.search(r"\d{1,18}$", name)
    return int(number[0]) if number else 0


# --- types ------------------------------------------------------------------------------------------------------------


def sql_kind(text: object) -> pa.DataType:
    """The type of a column by the database's own name of it; what is neither number, truth nor time is a text."""
    name = text.upper().strip() if isinstance(text, str) else ""
    if name.startswith(("BOOL", "BIT(1)", "TINYINT(1)")):
        return pa.bool_()
    if re.match(r"(UNSIGNED )?(BIG|SMALL|MEDIUM|TINY)?(INT|SERIAL)(EGER|\d|\b)", name):
        return pa.int64()
    if name.startswith(("FLOAT", "DOUBLE", "REAL")):
        return pa.float64()
    return TIME if name.startswith(("TIMESTAMP", "DATETIME")) else pa.string()


def _schema_of_fields(schema: object) -> tuple[dict[str, pa.DataType], dict[str, int]]:
    """Types, and the unit of integer times in µs (below 0: so many to a µs), by a Kafka Connect schema."""
    kinds, units = {}, {}
    for part in _objects(_object(schema, "schema").get("fields"), "schema.fields"):
        if part.get("field") not in ("before", "after"):
            continue
        for field in _objects(part.get("fields"), "schema.fields"):
            name, meaning = field.get("field"), str(field.get("name") or "")
            if not isinstance(name, str):
                raise Broken("schema.fields: one without a name")
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
    """Whether a statement is about the table, and the columns that it declares: none for what cannot be parsed."""
    import sqlglot
    from sqlglot import exp

    def columns() -> tuple[bool, dict[str, pa.DataType]] | None:
        statement = sqlglot.parse_one(ddl, read="mysql")
        named = statement.find(exp.Table)
        if named is None:
            return None
        if named.name != table or not isinstance(statement, (exp.Alter, exp.Create)):
            return named.name == table, {}
        found = [column for column in statement.find_all(exp.ColumnDef) if column.args.get("kind")]
        return True, {column.name: sql_kind(column.args["kind"].sql(dialect="mysql")) for column in found}

    log = logging.getLogger("sqlglot")
    level = log.level
    log.setLevel(logging.ERROR)  # else it prints every statement that it does not know, which is a stranger's text
    try:
        known = columns() if len(ddl) <= MAX_STATEMENT else None
    except Exception:  # its own errors, RecursionError, and whatever a parser of all dialects does on what is none
        known = None
    finally:
        log.setLevel(level)
    # A statement that sqlglot does not know: it announces nothing, but is kept if it speaks of the table.
    return known or (bool(re.search(rf"\b{re.escape(table)}\b", ddl)), {})


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
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    return number if math.isfinite(number) else _refuse(name, "a number")


def _truth(value: Any, name: str) -> bool:
    found = {True: True, False: False, "1": True, "0": False, "true": True, "false": False}
    return found[value] if isinstance(value, (bool, int, str)) and value in found else _refuse(name, "true or false")


def _text(value: Any, name: str) -> str:
    if name == "status" and isinstance(value, (dict, list)):
        _refuse(name, "a text")
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


@dataclass(frozen=True)
class Claim:
    """What a line that was refused says of an order, as far as it can be read: cents and time (µs) are None where they cannot."""

    order_id: str | None
    status: str | None
    cents: int | None
    time: int | None


def claims(body: bytes, table: str) -> list[Claim]:
    """Of every row of the shop's table in a line of any bytes; none for deletes, and where no row is to be found."""
    try:
        record = _parsed(body)
    except Broken:
        return []
    record = record["payload"] if isinstance(record, dict) and "payload" in record else record
    if not isinstance(record, dict):
        return []
    source = record.get("source") if isinstance(record.get("source"), dict) else {}
    named = source.get("table", record.get("table"))
    rows = [record.get("after")] if "op" in record else record.get("data") if record.get("type") in ("INSERT", "UPDATE") else []
    if named not in (None, table) or not isinstance(rows, list):
        return []
    time = _read(lambda: _debezium_time(record, source) if "op" in record else _microseconds(record.get("es"), 1000, "es"))
    return [_claim(row, time) for row in rows if isinstance(row, dict)]


def _claim(row: dict[str, Any], time: int | None) -> Claim:
    names, _ = _by_column(row)
    order_id, status, cents = (row.get(names.get(name, name)) for name in ("order_id", "status", "amount_cents"))
    cents = _read(lambda: _whole(cents, "amount_cents"))
    return Claim(
        _read(lambda: _order_id(order_id)), status if isinstance(status, str) else None, cents if cents is not None and cents >= 0 else None, time
    )


def _read(what: Callable[[], Any]) -> Any:
    try:
        return what()
    except Broken:
        return None


def note_product(body: bytes) -> Iterator[tuple[int, int]]:
    """(note_id, product_id) of a line of the catalogue. Raises Broken."""
    record = _parsed(body)
    if not isinstance(record, dict):
        raise Broken("line: not a JSON object")
    for name in ("note_id", "product_id"):
        if record.get(name) is None:
            raise Broken(f"{name}: missing")
    yield _whole(record["note_id"], "note_id"), _whole(record["product_id"], "product_id")
