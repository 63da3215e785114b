"""Hostile lines for the orders line: valid messages of Debezium and Canal, mutated.

Here: the messages to begin with, and what may happen to them. Not here: what must come of it (test_orders_poison.py).

A mutation keeps most of a message and breaks one to three places of it, so that it gets past the first checks.
"""

import copy
import json
import random
from collections.abc import Iterator

from tests.orders import added_column, canal, debezium, row, us

FIELDS = [
    {"field": "order_id", "type": "string"}, {"field": "amount_cents", "type": "int64"},
    {"field": "created_at", "type": "int64", "name": "io.debezium.time.MicroTimestamp"},
]  # fmt: skip
ENVELOPE = {"type": "struct", "fields": [{"field": "before", "fields": FIELDS}, {"field": "after", "fields": FIELDS}]}
POSTGRES = {"connector": "postgresql", "table": "orders", "ts_ms": us(5) // 1000, "lsn": 24023128, "txId": 5}
ORACLE = {"connector": "oracle", "table": "orders", "ts_ms": us(5) // 1000, "scn": "9876543", "ssn": 2, "rs_id": "0x1"}
SQLSERVER = {
    "connector": "sqlserver", "table": "orders", "ts_ms": us(5) // 1000, "commit_lsn": "00000027:00000ac0:0002",
    "change_lsn": "00000027:00000ac0:0001", "event_serial_no": 1,
}  # fmt: skip
TYPES = {"order_id": "varchar(20)", "amount_cents": "bigint", "points": "int", "gift": "tinyint(1)", "sent": "datetime"}


def valid() -> list[dict]:
    """A message of each form."""
    extra = {"points": 5, "gift": True, "rate": 0.5, "sent": "2026-01-05T08:00:00Z", "note": None}
    plain = debezium("u", row("a", **extra), 6, pos=4)
    found = [
        plain, debezium("c", row("b", 3), 3, pos=1), debezium("r", row("c"), 1, pos=1), debezium("d", row("a"), 9, pos=7),
        {"schema": ENVELOPE, "payload": plain}, {"schema": None, "payload": plain},
        *(plain | {"source": source} for source in (POSTGRES, ORACLE, SQLSERVER)),
        added_column(2, ("points", "INT"), ("gift", "TINYINT(1)"), ("sent", "DATETIME(3)")),
        {"schema": None, "payload": added_column(3, ("rate", "DOUBLE"))},
        {"source": {"table": "orders", "ts_ms": us(3) // 1000}, "ddl": "ALTER TABLE orders ADD COLUMN points INT, ADD gift BOOL"},
        canal("INSERT", [row("d"), row("e", 2)], 3, number=7, mysqlType=TYPES, ts=us(3) // 1000),
        canal("UPDATE", [row("d", status="shipped")], 4, number=8, mysqlType=TYPES, old=[{"status": "paid"}]),
        canal("UPDATE", [row("f")], 5, number=9, old=[{"order_id": "e"}]),
        canal("DELETE", [row("f")], 6, number=10),
        canal("ALTER", [], 6, number=11, isDdl=True, sql="ALTER TABLE `shop`.`orders` ADD COLUMN points BIGINT NULL DEFAULT 5"),
    ]  # fmt: skip
    return copy.deepcopy(found)


HALF = ("\ud83d", "nice \ude00", "\udcff")  # no text of Unicode: UTF-8 has no bytes for them
TEXTS = (
    "", " ", "\0", "x" * 300, "a.b", "a b", "A,;{}()=\t\n", "order_id", "ORDER_ID", "Amount_Cents", "hour", "change_op", "é", "ſtatus", "İ",
    "select", "1", "-1", "1e5", "0x10", "NaN", "true", "２０２６", "2026-01-05T08:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
    "9999-12-31 23:59:59", "0001-01-01 00:00:00", "0000-00-00 00:00:00", "2026-01-05", "24:00", "mysql", "c", "u", "d", "r", "t", "m", "INSERT",
    "truncate", "😀", "99999999999999999999", "9" * 4000,
)  # fmt: skip
STATEMENTS = (
    "ALTER TABLE orders ADD COLUMN folder varchar(40) COMMENT 'like C:\\'", "ALTER TABLE orders FROB ((", "ALTER TABLE orders ADD COLUMN",
    "ALTER TABLE orders ADD COLUMN x INT DEFAULT " + "(" * 400, "CREATE TABLE orders (" + "CASE WHEN " * 300, "ALTER TABLE orders ADD COLUMN `` INT",
    "ALTER TABLE orders ADD COLUMN `a.b` INT, ADD COLUMN `a b` TEXT, ADD COLUMN `A_B` DATETIME", "`", "'", '"', "/*", "x'zz' orders", "$$orders",
    "DROP TABLE orders", "ALTER TABLE orders ADD COLUMN x " + "ARRAY<" * 500, "CREATE TABLE orders AS SELECT 1", "orders", "{{ orders }}",
    "ALTER TABLE orders ADD (x INT, y GEOMETRY, z)", "ALTER TABLE orders ADD x INT; DROP TABLE orders", "RENAME TABLE orders TO orders2",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400, 0.0, -0.0, 1.5, 1e18, 1e300, float("nan"), float("inf"),
    float("-inf"), 1767600000, 1767600000000, 1767600000000000, 1767600000000000000,
)  # fmt: skip


def deep(levels: int, of: str = "list") -> object:
    value: object = 1
    for _ in range(levels):
        value = [value] if of == "list" else {"a": value}
    return value


def odd(dice: random.Random) -> object:
    """A value of any type."""
    kind = dice.randrange(14)
    if kind < 4:
        return dice.choice(TEXTS)
    if kind < 7:
        return dice.choice(NUMBERS)
    if kind == 7:
        return dice.choice(HALF)
    if kind == 8:
        return dice.choice(STATEMENTS)
    if kind == 9:
        return deep(dice.choice((1, 5, 90, 300)), dice.choice(("list", "object")))
    return copy.deepcopy(dice.choice((None, True, False, [], {}, [None], [[]], [{}], [1, "a"], {"a": 1}, {"": None}, {"fields": 5}, {"columns": 3})))


def _places(value: object, found: list) -> list:
    """Every (container, key) of a message."""
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    else:
        return found
    for key in keys:
        found.append((value, key))
        _places(value[key], found)
    return found


def mutated(dice: random.Random, message: dict) -> object:
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        holder, key = dice.choice(_places(message, []) or [({}, None)])
        what = dice.randrange(12)
        if key is None or what == 11:
            return odd(dice) if dice.random() < 0.3 else [message]
        if what < 7:
            holder[key] = odd(dice)
        elif what == 7:
            holder.pop(key)
        elif isinstance(holder, dict) and what == 8:
            holder[dice.choice((*TEXTS, *HALF))] = holder.pop(key)
        elif isinstance(holder, dict) and what == 9:
            holder[dice.choice((*TEXTS, *HALF))] = odd(dice)
        else:
            holder[key] = [holder[key]] if dice.random() < 0.5 else {"a": holder[key]}
    return message


def hostile(seed: int, count: int) -> Iterator[bytes]:
    """Lines, most of them broken in one to three places; of some, bytes are broken as well."""
    dice = random.Random(seed)
    messages = [json.dumps(message) for message in valid()]
    for _ in range(count):
        line = json.dumps(mutated(dice, json.loads(dice.choice(messages))), ensure_ascii=True).encode()
        if dice.random() < 0.1:
            at = dice.randrange(len(line) + 1)
            line = line[:at] + dice.choice((b"", b"\xff", b"\xed\xa0\xbd", b"\0", b'"', b"{", b"\\ud800", b",", b"\\")) + line[at + dice.randrange(3) :]
        yield line.replace(b"\n", b" ").replace(b"\r", b" ")
