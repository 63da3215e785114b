"""Do the totals agree: `order_attributions` against `orders`, per hour and overall, and a summary of both.

Here: counting and comparing, from the tables alone. Not here: how they were made (take.py, credit.py); the money rules
are written once more below, row by row, so that a mistake there does not agree with itself.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping

from assets.lake import Lake
from assets.orders.rules import OrderRules
from assets.orders.tables import ORDER_ATTRIBUTIONS, ORDER_BATCHES, ORDER_CHANGES, ORDER_QUARANTINE, ORDERS

TOTALS = ("orders", "gross_cents", "refunded_cents", "net_cents")

Totals = dict[str, int]


def reconcile(lake: Lake, rules: OrderRules) -> dict[str, object]:
    """Compare both tables as of one moment.

    Returns balanced (all agree), orders and attributions (Totals overall), hours, wrong_hours (ISO, those that differ),
    repeated (rows of an order_id beyond its first), wrong_rules (rows made by other rules).
    """
    now = lake.pinned()
    expected = _by_hour(_expected(row, rules) for row in _rows(now, ORDERS.name, _NEEDED) if row["change_op"] != "d")
    rows = _rows(now, ORDER_ATTRIBUTIONS.name, ["hour", "order_id", "gross_cents", "refunded_cents", "net_cents", "rules"])
    found = _by_hour(rows)
    wrong = sorted(hour for hour in expected.keys() | found.keys() if expected.get(hour) != found.get(hour))
    repeated = len(rows) - len({row["order_id"] for row in rows})
    other_rules = sum(row["rules"] != rules.fingerprint for row in rows)
    return {
        "balanced": not wrong and not repeated and not other_rules,
        "orders": _sum(expected),
        "attributions": _sum(found),
        "hours": len(expected.keys() | found.keys()),
        "wrong_hours": [hour.isoformat() for hour in wrong],
        "repeated": repeated,
        "wrong_rules": other_rules,
    }


_NEEDED = ["hour", "order_id", "status", "amount_cents", "refunded_cents", "change_op"]


def _expected(row: Mapping, rules: OrderRules) -> dict:
    gross = refunded = 0
    if row["status"] in rules.statuses:
        gross = row["amount_cents"]
        if row["status"] in rules.full_statuses:
            refunded = gross
        elif rules.partial:
            refunded = row["refunded_cents"] or 0
    return {"hour": row["hour"], "gross_cents": gross, "refunded_cents": refunded, "net_cents": gross - refunded}


def _by_hour(rows) -> dict[dt.datetime, Totals]:
    found: dict[dt.datetime, Totals] = defaultdict(lambda: dict.fromkeys(TOTALS, 0))
    for row in rows:
        totals = found[row["hour"]]
        totals["orders"] += 1
        for name in TOTALS[1:]:
            totals[name] += row[name]
    return dict(found)


def _sum(hours: Mapping[dt.datetime, Totals]) -> Totals:
    return {name: sum(totals[name] for totals in hours.values()) for name in TOTALS}


def _rows(lake: Lake, name: str, columns: list[str]) -> list[dict]:
    return lake.read(name, columns=columns).to_pylist() if lake.exists(name) else []


def summary(lake: Lake) -> dict[str, int | float | None]:
    """orders, deleted, changes, quarantined, gross_cents, refunded_cents, net_cents; of the orders and of net_cents the
    share that is attributed to a note (None where there is nothing to share); taken_at of the newest batch, None before it."""
    now = lake.pinned()
    rows = _rows(now, ORDER_ATTRIBUTIONS.name, ["note_id", "gross_cents", "refunded_cents", "net_cents"])
    total = {name: sum(row[name] for row in rows) for name in TOTALS[1:]}
    led = [row for row in rows if row["note_id"] is not None]
    return {
        "orders": len(rows),
        "deleted": sum(row["change_op"] == "d" for row in _rows(now, ORDERS.name, ["change_op"])),
        "changes": len(_rows(now, ORDER_CHANGES.name, ["row"])),
        "quarantined": len(_rows(now, ORDER_QUARANTINE.name, ["row"])),
        **total,
        "attributed_orders": len(led) / len(rows) if rows else None,
        "attributed_net": sum(row["net_cents"] for row in led) / total["net_cents"] if total["net_cents"] else None,
        "taken_at": max((row["taken_at"] for row in _rows(now, ORDER_BATCHES.name, ["taken_at"])), default=None),
    }
