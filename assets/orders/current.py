"""Which change of an order counts: the current state of the shop's table from its changes, in any order of arrival.

Here: the order of changes, and the rows of `orders`. Not here: reading lines (changes.py), writing tables (take.py).

The later place in the database's log wins (Change.place): what the log says last is so, whatever the clocks say, and a row of a
snapshot has the place of its state. Where one of two has no place, the database's time decides. At one place and time an update
is after the insert, a delete last; of two that are alike in all that, the later to arrive.

Canal's place is its batch. The messages of a batch come in their order, so there the later to arrive is the later one; and the
numbers begin anew when Canal's server does: of two changes whose times are further apart than RESTART, time decides.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from typing import Any

from assets.lake import EPOCH
from assets.orders.changes import CANAL, DELETE, INSERT, SCHEMA, SNAPSHOT, UPDATE, Change, column_name, sortable

RANK = {SNAPSHOT: 0, INSERT: 1, UPDATE: 2, DELETE: 3}
RESTART = 10 * 60 * 1_000_000  # µs
MICROSECOND = dt.timedelta(microseconds=1)

Row = dict[str, Any]  # a row of `orders`, by column


def apply(changes: Iterable[Change], known: Mapping[str, Row]) -> dict[str, Row]:
    """The rows that the changes make other than they are known, by order_id. changes: in order of arrival."""
    found: dict[str, Row] = {}
    for change in changes:
        if change.op == SCHEMA:
            continue
        row = found.get(change.order_id) or known.get(change.order_id)
        if row is None or not _is_before(change, row):
            found[change.order_id] = _with_known(_row(change), change, row)
        elif row.get("left_out") and change.values:
            found[change.order_id] = _filled(row, change)
    return {order_id: row for order_id, row in found.items() if row != known.get(order_id)}


def _with_known(row: Row, change: Change, before: Row | None) -> Row:
    """A change leaves a column out that did not change: the value known so far stays, with the place that it is of."""
    if not change.left_out:
        return row
    standing = before if before and before["change_op"] != DELETE else {}
    held, place = _left_out(standing), _key(place_of(standing), standing["change_time"]) if standing else ""
    for name in change.left_out:
        row = _with_value(row, name, standing.get(name), standing.get("rescued"))
    return {**row, "left_out": json.dumps({name: held.get(name, place) for name in change.left_out}, sort_keys=True)}


def _filled(row: Row, change: Change) -> Row:
    """The row with what an older change, which came later, says of the columns that the newest one left out."""
    held, place = _left_out(row), _key(change.place, time_of(change.time))
    for name in held.keys() - set(change.left_out):
        if held[name] < place and name in change.values:
            row, held = _with_value(row, name, change.values[name], change.values["rescued"]), {**held, name: place}
    return {**row, "left_out": json.dumps(held, sort_keys=True)}


def _with_value(row: Row, name: str, value: Any, rescued: str | None) -> Row:
    """The row with another's value of a column, which may lie among what that one rescued."""
    both = {key: one for key, one in json.loads(row["rescued"] or "{}").items() if column_name(key) != name}
    both |= {key: one for key, one in json.loads(rescued or "{}").items() if column_name(key) == name}
    shown = {name: value} if name in row or value is not None else {}
    return {**row, **shown, "rescued": json.dumps(both, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if both else None}


def _left_out(row: Row) -> dict[str, str]:
    return json.loads(row.get("left_out") or "{}")


def _key(place: str, time: dt.datetime) -> str:
    return place or sortable((time - EPOCH) // MICROSECOND)


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
        "change_position": change.position, "change_item": change.item, "change_op": change.op, "change_place": change.place,
        "left_out": None,
    }  # fmt: skip


def _is_before(change: Change, row: Row) -> bool:
    """Whether the change is older than what the row holds."""
    time, place = (row["change_time"] - EPOCH) // MICROSECOND, place_of(row)
    if not place or not change.place or place.startswith(CANAL) != change.place.startswith(CANAL):
        return (change.time, change.position, change.item, RANK[change.op]) < (
            time, row["change_position"], row["change_item"], RANK[row["change_op"]],
        )  # fmt: skip
    if place.startswith(CANAL):
        return change.time < time if abs(change.time - time) > RESTART else change.place < place
    return (change.place, change.time, RANK[change.op]) < (place, time, RANK[row["change_op"]])


def place_of(row: Row) -> str:
    """The place of a row of `orders` or `order_changes`, of one that was written before there were places too."""
    if row.get("change_place") is not None:
        return row["change_place"]
    return sortable(row["change_position"], row["change_item"]) if row["change_position"] or row["change_item"] else ""
