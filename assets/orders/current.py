"""Which change of an order counts: the current state of the shop's table from its changes, in any order of arrival.

Here: the order of changes, and the rows of `orders`. Not here: reading lines (changes.py), writing tables (take.py).

The greatest (change_time, change_position, change_item, op) wins: time is the database's own; of one time the later place
in its log; of one place an update after the insert, a delete last. Of two that are alike in all that, the later to arrive.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from assets.lake import EPOCH
from assets.orders.changes import DELETE, INSERT, SCHEMA, SNAPSHOT, UPDATE, Change

RANK = {SNAPSHOT: 0, INSERT: 0, UPDATE: 1, DELETE: 2}
MICROSECOND = dt.timedelta(microseconds=1)

Row = dict[str, Any]  # a row of `orders`, by column


def apply(changes: Iterable[Change], known: Mapping[str, Row]) -> dict[str, Row]:
    """The rows that the changes make other than they are known, by order_id. changes: in order of arrival."""
    found: dict[str, Row] = {}
    for change in changes:
        if change.op == SCHEMA:
            continue
        row = found.get(change.order_id) or known.get(change.order_id)
        if row is None or _place(row) <= (change.time, change.position, change.item, RANK[change.op]):
            found[change.order_id] = _row(change)
    return {order_id: row for order_id, row in found.items() if row != known.get(order_id)}


def hour_of(time: dt.datetime) -> dt.datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def time_of(microseconds: int) -> dt.datetime:
    return EPOCH + dt.timedelta(microseconds=microseconds)


def _row(change: Change) -> Row:
    """A deleted order keeps no values: what a delete says of them differs from database to database."""
    values = change.values or {}
    time = time_of(change.time)
    return {
        **values, "order_id": change.order_id, "hour": hour_of(values.get("created_at") or time), "change_time": time,
        "change_position": change.position, "change_item": change.item, "change_op": change.op,
    }  # fmt: skip


def _place(row: Row) -> tuple[int, int, int, int]:
    microseconds = (row["change_time"] - EPOCH) // MICROSECOND
    return microseconds, row["change_position"], row["change_item"], RANK[row["change_op"]]
