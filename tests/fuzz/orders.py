"""Messages of a shop's change stream: Debezium (four databases) and Canal, valid, and with something done to them.

Here: one line. Not here: files (files.py), which changes count (assets/orders).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz import odd
from tests.fuzz.rows import Row

T0 = 1_767_600_000_000_000  # µs
DIALECTS = ("mysql", "postgresql", "sqlserver", "oracle")
DDL = (
    "ALTER TABLE orders ADD COLUMN folder varchar(40) COMMENT 'like C:\\\\'", "ALTER TABLE orders ADD COLUMN c'", "ALTER TABLE orders ADD COLUMN `c",
    'ALTER TABLE orders ADD COLUMN "c', "ALTER TABLE orders /* open", "CREATE TABLE orders (", "ALTER TABLE orders ADD COLUMN x int(11) DEFAULT '\\", "", ";", ";;",
    "DROP TABLE orders", "RENAME TABLE orders TO o2", "ALTER TABLE `shop`.`orders` MODIFY points varchar(20)", "CREATE INDEX i ON orders (x)", "orders", "\x00orders",
    "ALTER TABLE orders ADD COLUMN (a int, b text)", "ALTER TABLE orders ADD COLUMN order_id text", "ALTER TABLE orders ADD COLUMN hour int", "ALTER TABLE orders " * 300,
    "CREATE TABLE orders (" + "(" * 2_000 + ")" * 2_000, "SELECT " + "(" * 500, "ALTER TABLE orders ADD COLUMN x enum('a','b\\'')", "ALTER TABLE orders ADD COLUMN 漢字 int",
    "ALTER TABLE orders ADD COLUMN x geometry", "ALTER TABLE orders ADD COLUMN x decimal(99,99)", "-- orders", "{{ orders }}", "ALTER TABLE orders ADD x int; DROP TABLE y",
    "CREATE TABLE orders AS SELECT * FROM t", "CREATE TRIGGER t BEFORE INSERT ON orders FOR EACH ROW BEGIN SET @a=1; END", "ALTER TABLE orders ADD COLUMN x int AFTER",
    "\ud83d ALTER TABLE orders", "ALTER TABLE orders ADD COLUMN `" + "x" * 5_000 + "` int", "ALTER TABLE orders PARTITION BY RANGE (x) (PARTITION p VALUES LESS THAN MAXVALUE)",
)  # fmt: skip
TYPES = ("INT", "BIGINT UNSIGNED", "TINYINT(1)", "DATETIME", "TIMESTAMP(6)", "VARCHAR(20)", "DECIMAL(10,2)", "JSON", "", "bit(1)", "GEOMETRY", "boolean", "float", "漢字")
EXTRA = ("coupon_cents", "Points", "kind", "shipped_at", "a b", "hour", "change_op", "漢字", "", "a.b", "x" * 300, "ORDER_ID", "order id", "\ud83d", "a\nb", "shop_hour", "Kind")
PLACES = ("source", "before", "after", "op", "ts_ms", "ts_us", "data", "old", "type", "table", "es", "id", "isDdl", "sql", "mysqlType", "database")
COLUMNS = ("order_id", "user_id", "product_id", "amount_cents", "refunded_cents", "status", "created_at", "updated_at")

Message = dict[str, Any]


class Raw(str):
    """JSON text that stands in a message as it is."""


def _order(rng: Random, number: int) -> dict:
    placed = T0 + number % 7_200 * 1_000_000
    return {
        "order_id": str(number), "user_id": rng.randrange(50), "product_id": rng.randrange(90), "amount_cents": rng.randrange(10_000), "refunded_cents": 0,
        "status": rng.choice(("paid", "created", "refunded", "cancelled")), "created_at": placed, "updated_at": placed,
    }  # fmt: skip


def _source(rng: Random, dialect: str, number: int, time: int) -> dict:
    found = {"connector": dialect, "db": "shop", "table": "orders", "ts_ms": time // 1000, "version": "2.7", "name": "shop", "snapshot": "false"}
    found |= {
        "mysql": {"file": "b.000002", "pos": number, "row": 0, "gtid": None, "ts_us": time},
        "postgresql": {"lsn": number, "txId": number, "xmin": None, "schema": "public", "sequence": f'["{number}","{number}"]'},
        "sqlserver": {"change_lsn": f"00000027:00000758:{number % 9999:04d}", "commit_lsn": "00000027:00000758:0005", "event_serial_no": 1, "schema": "dbo"},
        "oracle": {"scn": str(number), "commit_scn": str(number + 1), "rs_id": "0x1", "ssn": 0, "txId": "0a"},
    }[dialect]
    return found


def _debezium(rng: Random, dialect: str, number: int) -> Message:
    order, time = _order(rng, number), T0 + number % 7_200 * 1_000_000
    op = rng.choice("ccrud")
    return {"op": op, "before": order if op in "d" else None, "after": None if op == "d" else order, "source": _source(rng, dialect, number, time), "ts_ms": time // 1000}


def _debezium_schema(rng: Random, dialect: str, number: int) -> Message:
    time = T0 + number % 7_200 * 1_000_000
    columns = [{"name": rng.choice(EXTRA[:4]), "typeName": rng.choice(TYPES)} for _ in range(rng.randrange(3))]
    changes = [{"type": "ALTER", "id": '"shop"."orders"', "table": {"columns": columns}}]
    return {"source": _source(rng, dialect, number, time), "ts_ms": time // 1000, "databaseName": "shop", "ddl": rng.choice(DDL),
            "tableChanges": rng.choice((changes, changes, [], None))}  # fmt: skip


def _canal(rng: Random, number: int) -> Message:
    time = T0 // 1000 + number % 7_200 * 1_000
    kind = rng.choice(("INSERT", "UPDATE", "DELETE"))
    rows = [{name: str(value) for name, value in _order(rng, number * 5 + at).items()} for at in range(rng.choice((1, 1, 1, 3)))]
    types = {"order_id": "bigint(20)", "user_id": "bigint", "status": "varchar(20)", "created_at": "bigint"}
    return {"data": rows, "database": "shop", "es": time, "ts": time + 10, "id": number, "isDdl": False, "mysqlType": types, "sqlType": {}, "sql": "",
            "old": [{"status": "x"}] if kind == "UPDATE" else None, "pkNames": ["order_id"], "table": "orders", "type": kind}  # fmt: skip


def _canal_schema(rng: Random, number: int) -> Message:
    time = T0 // 1000 + number % 7_200 * 1_000
    return {"data": None, "database": "shop", "es": time, "ts": time, "id": number, "isDdl": True, "mysqlType": None, "old": None, "sql": rng.choice(DDL),
            "table": "orders", "type": rng.choice(("ALTER", "CREATE", "RENAME", "CINDEX", "ERASE", "QUERY", "alter"))}  # fmt: skip


def line(rng: Random, form: str, dialect: str, number: int, kind: str | None) -> Row:
    """A message as a line; form: debezium or canal; kind: one of KINDS, None for a valid change of a row."""
    if kind == "schema":
        message = _debezium_schema(rng, dialect, number) if form == "debezium" else _canal_schema(rng, number)
        if rng.random() < 0.3:
            message = _other(rng, message)
        return Row(_dumped(message), True)
    message = _debezium(rng, dialect, number) if form == "debezium" else _canal(rng, number)
    if kind is None:
        if form == "debezium" and rng.random() < 0.2:
            message = {"schema": None, "payload": message}
        return Row(_dumped(message), False)
    made = KINDS[kind](rng, message)
    return Row(made if isinstance(made, bytes) else _dumped(made), True)


def _dumped(value: Any) -> bytes:
    return _text(value).encode("utf-8", "surrogatepass")


def _text(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_text(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return json.dumps(value)


def _any(rng: Random) -> Raw:
    return Raw(odd.json_value(rng))


def _rows_of(message: Message) -> list[dict]:
    rows = [message.get("before"), message.get("after"), *(message.get("data") or [])]
    return [row for row in rows if isinstance(row, dict)]


def _changed(rng: Random, message: Message, value: Any, names: tuple[str, ...] = COLUMNS) -> Message:
    """One column of one row set to this value."""
    rng.choice(_rows_of(message))[rng.choice(names)] = value
    return message


def _other(rng: Random, message: Message) -> Message:
    """A part of the envelope replaced."""
    there = [name for name in PLACES if name in message] + (["tableChanges", "ddl"] if "tableChanges" in message else [])
    value = rng.choice((_any(rng), "text", 1, [], {}, None, [1], ["x"], {"a": 1}, [[]], [{}], [None], True, 1.5, 10**30))
    return message | {rng.choice(there or ["op"]): value}


def _inside(rng: Random, message: Message) -> Message:
    """Something within the source, the types, the old values or the tables replaced."""
    for name in rng.sample(("source", "mysqlType", "old"), 3):
        inner = message.get(name)
        if isinstance(inner, dict) and inner:
            return message | {name: inner | {rng.choice(list(inner)): rng.choice((_any(rng), None, "x", {}, [], 2**63, -1, 0, "0", 1.5))}}
        if isinstance(inner, list):
            return message | {name: rng.choice(([None], [1], ["x"], [[]], [{"order_id": None}], [{"order_id": []}], [{"order_id": "9", "user_id": {}}], {"a": 1}, "x", 5))}
    return _other(rng, message)


def _schema_of_connect(rng: Random, message: Message) -> Message:
    fields = [{"field": name, "type": rng.choice(("int64", "string", "x", None, 5)), "name": rng.choice((None, "io.debezium.time.MicroTimestamp", "x", 5, []))} for name in COLUMNS]
    schema = rng.choice((
        {"fields": [{"field": "after", "fields": fields}]}, {"fields": [{"field": "after", "fields": [{}]}]}, {"fields": [None]}, {"fields": "x"}, {"fields": 5}, "x", [], 5,
        {"fields": [{"field": "after", "fields": "x"}]}, {"fields": [{"field": "after", "fields": [{"field": []}]}]}, {"fields": [{"field": []}]}, {"fields": {"a": 1}},
        {"fields": [{"field": "after", "fields": [None]}]}, {"fields": [{"field": "after", "fields": [{"field": "order_id", "type": {}}]}]},
    ))  # fmt: skip
    return {"schema": schema, "payload": rng.choice((message, message, message, [], "x", 5, None))}


def _deep(rng: Random, message: Message) -> Message:
    return _changed(rng, message, Raw(odd.deep(rng)), (*COLUMNS, "extra")) if rng.random() < 0.6 else message | {rng.choice(PLACES): Raw(odd.deep(rng))}


def _bytes(change: Callable[[Random, bytes], bytes]) -> Callable[[Random, Message], bytes]:
    return lambda rng, message: change(rng, _dumped(message))


def _cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _put(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((*odd.BAD_UTF8, *odd.CONTROLS)) + data[at:]


def _flip(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    made = bytes([data[at] ^ (1 << rng.randrange(8))])
    return data[:at] + (made if made not in b"\r\n" else b"?") + data[at + 1 :]


NOT_MESSAGES = (
    b"", b" ", b"null", b"[]", b"1", b'"x"', b"{}", b"{", b"NaN", b'{"payload":null}', b'{"payload":{}}', b'{"payload":[]}', b'{"op":null}', b'{"op":[]}', b'{"op":{}}', b'{"type":null}',
    b'{"type":[]}', b'{"type":"INSERT"}', b'{"op":"c"}', b'{"op":"c","source":"x"}', b'{"op":"c","source":[]}', b'{"op":"c","source":5}', b'{"ddl":null}', b'{"ddl":5}', b'{"ddl":[]}',
    b'{"ddl":"x","source":"x"}', b'{"tableChanges":[1]}', b'{"tableChanges":{"a":1}}', b'{"tableChanges":"x"}', b'{"tableChanges":[{"id":"orders","table":"x"}]}', b'{"tableChanges":5}',
    b'{"tableChanges":[{"id":"orders","table":{"columns":[1]}}]}', b'{"tableChanges":[{"id":"orders","table":{"columns":[{}]}}]}', b'{"tableChanges":[{"id":"orders","table":{"columns":"x"}}]}',
    b'{"tableChanges":[{"id":"orders","table":{"columns":[{"name":5}]}}]}', b'{"tableChanges":[{"id":"orders","table":{"columns":[{"name":[]}]}}]}', b'{"op":"m"}', b'{"op":"t","source":{"table":"orders"}}',
    b'{"note_id":1,"product_id":2}', b'{"note_id":"1","product_id":"x"}', b'{"note_id":[],"product_id":2}', b'{"note_id":1e400,"product_id":NaN}', b'{"note_id":1.5,"product_id":2}',
)  # fmt: skip
KINDS: dict[str, Callable[[Random, Message], Message | bytes]] = {
    "column": lambda rng, message: _changed(rng, message, _any(rng)),
    "column_type": lambda rng, message: _changed(rng, message, rng.choice((None, "", "x", 1.5, True, [], {}, -1, 10**30, [None], {"a": 1}))),
    "integer": lambda rng, message: _changed(rng, message, rng.choice((*odd.INTEGERS, *map(str, odd.INTEGERS)))),
    "number": lambda rng, message: _changed(rng, message, Raw(rng.choice(odd.NUMBERS)), (*COLUMNS, "extra")),
    "extra": lambda rng, message: _changed(rng, message, rng.choice((_any(rng), 1, "1", "x", 1.5, True, None, [], {}, "2024-01-01")), EXTRA),
    "time": lambda rng, message: _changed(rng, message, rng.choice((odd.time_text(rng), rng.choice(odd.TIME_INTEGERS))), ("created_at", "updated_at", "shipped_at")),
    "surrogate": lambda rng, message: _changed(rng, message, Raw('"' + rng.choice(odd.SURROGATES) + '"'), (*COLUMNS, "extra")),
    "surrogate_outside": lambda rng, message: message | {rng.choice(PLACES): Raw('"' + rng.choice(odd.SURROGATES) + '"')},
    "escape": lambda rng, message: _changed(rng, message, Raw('"' + rng.choice(odd.ESCAPES) + '"'), (*COLUMNS, "extra")),
    "text": lambda rng, message: _changed(rng, message, odd.text(rng), (*COLUMNS, "extra")),
    "envelope": _other,
    "inside": _inside,
    "missing": lambda rng, message: {name: value for name, value in message.items() if rng.random() < 0.8},
    "connect": _schema_of_connect,
    "deep": _deep,
    "long": lambda rng, message: _changed(rng, message, rng.choice(("x", "漢", "9")) * rng.choice((200, 201, 5_000, 70_000, odd.MANY)), (*COLUMNS, "extra")),
    "huge": lambda rng, message: _changed(rng, message, "x" * rng.choice((500_000, 500_000, 3_000_000, 9_000_000)), ("status", "extra")),
    "schema": lambda rng, message: message,  # made in `line`
    "not_message": lambda rng, message: rng.choice(NOT_MESSAGES),
    "cut": _bytes(_cut),
    "bytes": _bytes(_put),
    "flip": _bytes(_flip),
    "repeat": lambda rng, message: json.dumps({"op": "c", "after": {name: 1 for name in COLUMNS} | {"order_id": "same", "created_at": T0}, "source": {"table": "orders", "ts_us": T0}}).encode(),
}  # fmt: skip
