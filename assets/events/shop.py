"""The generated shop: which note plants which product, and the change stream of the shop's table `orders`.

Here: orders as a shop knows them (who, what product, how much; never which note), as MySQL changes in Debezium's form.
Not here: what readers see and click (generator.py), how the stream is read (assets/orders/).

Everything is drawn from streams of its own: what the feed shows is the same with a shop and without.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

SECOND = 1_000_000  # all times here are integer microseconds
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

PLANTING = 0.6  # share of the notes that plant a product
NOTES_A_PRODUCT = 4  # about so many notes plant the same one
BUYS = 0.04  # share of the clicks on such a note that lead to an order
LATER = 0.25  # of these, placed hours after the click: other notes may be clicked in between
UNLED = 0.12  # orders that no click led to, as a share of the others
CANCELLED, DELETED = 0.15, 0.30  # of the orders; of the cancelled ones
REFUNDED, PARTLY = 0.10, 0.05  # of the shipped ones: all of it, a part of it
COUPON = 0.30  # of the orders placed once the table has the column
COLUMN_AFTER = 90 * MINUTE  # the stream's begin to the moment at which the table gains coupon_cents

COLUMNS = (
    ("order_id", "VARCHAR"), ("user_id", "BIGINT"), ("product_id", "BIGINT"), ("amount_cents", "BIGINT"),
    ("refunded_cents", "BIGINT"), ("status", "VARCHAR"), ("created_at", "BIGINT"), ("updated_at", "BIGINT"),
)  # fmt: skip
ADDED = ("coupon_cents", "BIGINT")


class Shop:
    """Products of the notes, and orders from clicks. column_from: when the table gains a column, in µs."""

    def __init__(self, seed: int, note_id: np.ndarray, user_id: np.ndarray, column_from: int) -> None:
        rng = np.random.default_rng([seed, 0, 5])
        self.seed, self.note_id, self.user_id, self.column_from = seed, note_id, user_id, column_from
        products = max(5, int(len(note_id) * PLANTING / NOTES_A_PRODUCT))
        product = 7_000_000 + rng.integers(0, products, len(note_id))
        self.product_id = np.where(rng.random(len(note_id)) < PLANTING, product, 0)  # 0: the note plants nothing
        self.announced, self.written = False, 0

    def note_products(self) -> bytes:
        """The file of the shop's catalogue: note_id and product_id of every note that plants one, a line each."""
        planted = np.flatnonzero(self.product_id)
        rows = zip(self.note_id[planted].tolist(), self.product_id[planted].tolist(), strict=True)
        return "".join(_line({"note_id": note, "product_id": product}) for note, product in rows).encode()

    def orders(self, shown: dict[str, np.ndarray], clicked: np.ndarray, begin: int, prefix: str) -> list[dict]:
        """Changes after a slot's clicks. shown: displays (user, note, time); clicked: which of them; begin: the slot's."""
        rng = np.random.default_rng([self.seed, begin, 4])
        product = self.product_id[shown["note"][clicked]]
        led = np.flatnonzero((product > 0) & (rng.random(len(clicked)) < BUYS))
        placed = [
            (int(shown["user"][clicked[at]]), int(product[at]), int(shown["time"][clicked[at]]) + _wait(rng)) for at in led
        ]
        sold = self.product_id[self.product_id > 0]
        for _ in range(rng.binomial(len(led), UNLED)):
            user = int(rng.integers(len(self.user_id)))
            placed.append((user, int(rng.choice(sold)), begin + int(rng.integers(MINUTE, HOUR))))
        changes = []
        for number, (user, product_id, when) in enumerate(placed):
            row = {
                "order_id": f"o{prefix}{number}", "user_id": int(self.user_id[user]), "product_id": product_id,
                "amount_cents": int(rng.lognormal(8, 0.7)) + 100, "refunded_cents": 0, "status": "placed",
                "created_at": when, "updated_at": when,
            }  # fmt: skip
            coupon = int(rng.integers(1, 6)) * 100 if rng.random() < COUPON else None
            row[ADDED[0]] = coupon if when >= self.column_from else None
            changes += _life(rng, row, when)
        return changes

    def lines(self, changes: Iterable[dict]) -> tuple[str, int]:
        """The next stretch of the stream as JSON lines, and how many: changes in order of time, as the table was then."""
        parts = []
        for change in sorted(changes, key=lambda change: (change["ts_us"], change["op"])):
            if change["ts_us"] >= self.column_from and not self.announced:
                self.announced = True
                parts.append(_line(self._added_column(self.column_from or change["ts_us"])))
            rows = {name: self._as_of(change["ts_us"], change[name]) for name in ("before", "after")}
            parts.append(_line({**change, **rows, "source": self._source(change["ts_us"])}))
        return "".join(parts), len(parts)

    def _as_of(self, when: int, row: dict | None) -> dict | None:
        if row is None or when >= self.column_from:
            return row
        return {name: value for name, value in row.items() if name != ADDED[0]}

    def _source(self, when: int) -> dict:
        self.written += 1
        return {
            "connector": "mysql", "name": "shop", "ts_ms": when // 1000, "ts_us": when, "db": "shop", "table": "orders",
            "file": "binlog.000001", "pos": self.written, "row": 0,
        }  # fmt: skip

    def _added_column(self, when: int) -> dict:
        columns = [
            {"name": name, "typeName": kind, "position": place, "optional": name != "order_id"}
            for place, (name, kind) in enumerate([*COLUMNS, ADDED], 1)
        ]
        table = {"primaryKeyColumnNames": ["order_id"], "columns": columns}
        return {
            "source": self._source(when), "ts_us": when, "databaseName": "shop",
            "ddl": f"ALTER TABLE orders ADD COLUMN {ADDED[0]} {ADDED[1]}",
            "tableChanges": [{"type": "ALTER", "id": '"shop"."orders"', "table": table}],
        }  # fmt: skip


def _wait(rng: np.random.Generator) -> int:
    """From a click to its order: minutes, now and then hours."""
    if rng.random() < LATER:
        return HOUR // 2 + int(rng.exponential(8 * HOUR))
    return int(rng.integers(MINUTE, 15 * MINUTE))


def _life(rng: np.random.Generator, row: dict, when: int) -> list[dict]:
    """Placed, then paid and shipped (some refunded later, in part or whole), or cancelled (some deleted)."""
    changes = [_change("c", None, row, when)]

    def update(wait: int, **values) -> None:
        nonlocal row, when
        when += wait
        before, row = row, row | values | {"updated_at": when}
        changes.append(_change("u", before, row, when))

    if rng.random() < CANCELLED:
        update(int(rng.integers(MINUTE, 10 * MINUTE)), status="cancelled")
        if rng.random() < DELETED:
            changes.append(_change("d", row, None, when + MINUTE))
        return changes
    for status in ("paid", "shipped"):
        update(int(rng.integers(MINUTE, 10 * MINUTE)), status=status)
    fate, wait = rng.random(), 10 * MINUTE + int(rng.exponential(6 * HOUR))
    if fate < REFUNDED:
        update(wait, status="refunded", refunded_cents=row["amount_cents"])
    elif fate < REFUNDED + PARTLY:
        update(wait, refunded_cents=int(row["amount_cents"] * rng.uniform(0.1, 0.9)))
    return changes


def _change(op: str, before: dict | None, after: dict | None, when: int) -> dict:
    return {"op": op, "before": before, "after": after, "source": None, "ts_us": when}


def _line(record: dict) -> str:
    return json.dumps(record, separators=(",", ":")) + "\n"
