"""Do the totals agree: `order_attributions` against `orders`, per hour and overall, and what was refused; a summary of both.

Here: counting and comparing, from the tables alone. Not here: how they were made (take.py, credit.py); the money rules
are written once more below, in SQL, so that a mistake there does not agree with itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from assets.lake import Lake
from assets.orders.changes import Claim, claims
from assets.orders.rules import OrderRules
from assets.orders.tables import ORDER_ATTRIBUTIONS, ORDER_BATCHES, ORDER_CHANGES, ORDER_QUARANTINE, ORDERS

CENTS = ("gross_cents", "refunded_cents", "net_cents")
TOTALS = ("orders", *CENTS)


def reconcile(lake: Lake, rules: OrderRules) -> dict[str, object]:
    """Compare both tables as of one moment.

    Returns balanced (all agree, and no revenue was refused), agree (all agree), orders and attributions (TOTALS overall), hours,
    wrong_hours (ISO, those that differ), repeated (rows of an order_id beyond its first), wrong_rules (rows made by other rules),
    refused (changes with revenue that lie in order_quarantine and that no later change of their order made good),
    refused_cents (the sum of their amounts), refused_unread (those of them whose amount cannot be read).
    """
    now = lake.pinned()
    expected = _by_hour(_expected(_read(now, ORDERS.name, _NEEDED), rules))
    rows = _read(now, ORDER_ATTRIBUTIONS.name, ["hour", "order_id", *CENTS, "rules"])
    found = _by_hour(rows)
    both = expected.join(found, on="hour", how="full", suffix="_found", coalesce=True)
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_found")) for name in TOTALS)
    wrong = both.filter(differs)["hour"].sort()
    repeated, other_rules = len(rows) - rows["order_id"].n_unique(), int((rows["rules"] != rules.fingerprint).sum())
    agree = not len(wrong) and not repeated and not other_rules
    refused = _refused(now, rules)
    return {
        "balanced": agree and not refused["refused"],
        "agree": agree,
        "orders": _overall(expected),
        "attributions": _overall(found),
        "hours": len(both),
        "wrong_hours": [hour.isoformat() for hour in wrong],
        "repeated": repeated,
        "wrong_rules": other_rules,
        **refused,
    }


_NEEDED = ["hour", "order_id", "status", "amount_cents", "refunded_cents", "change_op"]


def _expected(orders: pl.DataFrame, rules: OrderRules) -> pl.DataFrame:
    """The money of every order that stands, by the rules, in SQL."""
    money = f"""
        SELECT hour,
               CASE WHEN status IN ({_listed(rules.statuses)}) THEN amount_cents ELSE 0 END AS gross_cents,
               CASE WHEN status NOT IN ({_listed(rules.statuses)}) THEN 0
                    WHEN status IN ({_listed(rules.full_statuses)}) THEN amount_cents
                    ELSE {"COALESCE(refunded_cents, 0)" if rules.partial else "0"} END AS refunded_cents
        FROM orders WHERE change_op <> 'd'"""
    counted = pl.SQLContext(orders=orders).execute(money, eager=True)
    return counted.with_columns(net_cents=pl.col("gross_cents") - pl.col("refunded_cents"))


def _listed(statuses: tuple[str, ...]) -> str:
    return ", ".join("'" + status.replace("'", "''") + "'" for status in statuses) or "''"


def _by_hour(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by("hour").agg(pl.len().cast(pl.Int64).alias("orders"), *(pl.col(name).sum() for name in CENTS))


def _overall(hours: pl.DataFrame) -> dict[str, int]:
    return {name: int(hours[name].sum()) for name in TOTALS}


def _refused(now: Lake, rules: OrderRules) -> dict[str, int]:
    """The revenue in order_quarantine. A claim is settled by a row of its order that is not older."""
    found: dict[object, Claim] = {}  # the newest of each order; those without a key one by one
    for batch in now.dataset(ORDER_QUARANTINE.name).to_batches(columns=["body"]):
        for body in batch.column("body").to_pylist():
            if b"order_id" in body.lower():
                for one in claims(body, rules.table):
                    key = one.order_id or one
                    if key not in found or (found[key].time or 0) <= (one.time or 0):
                        found[key] = one
    if not found:
        return {"refused": 0, "refused_cents": 0, "refused_unread": 0}
    held = _read(now, ORDERS.name, ["order_id", "change_time"]).filter(pl.col("order_id").is_in([one.order_id for one in found.values()]))
    known = dict(held.with_columns(pl.col("change_time").dt.epoch("us")).iter_rows())
    revenue = (one for one in found.values() if one.status is None or one.status in rules.statuses)
    left = [one for one in revenue if one.order_id not in known or one.time is not None and known[one.order_id] < one.time]
    cents = [one.cents for one in left]
    return {"refused": len(left), "refused_cents": sum(one or 0 for one in cents), "refused_unread": cents.count(None)}


def _read(lake: Lake, name: str, columns: list[str]) -> pl.DataFrame:
    return pl.from_arrow(lake.read(name, columns=columns))


def summary(lake: Lake) -> Mapping[str, object]:
    """orders, deleted, changes, quarantined; CENTS; of the orders and of net_cents the share that is attributed to a note
    (None where there is nothing to share); taken_at of the newest batch, None before the first."""
    from assets.counts import total

    now = lake.pinned()
    rows = _read(now, ORDER_ATTRIBUTIONS.name, ["note_id", *CENTS])
    led = rows.filter(pl.col("note_id").is_not_null())
    net = int(rows["net_cents"].sum())
    return {
        "orders": len(rows),
        "deleted": total(now, ORDERS.name) - len(rows),
        "changes": total(now, ORDER_CHANGES.name),
        "quarantined": total(now, ORDER_QUARANTINE.name),
        **{name: int(rows[name].sum()) for name in CENTS},
        "attributed_orders": len(led) / len(rows) if len(rows) else None,
        "attributed_net": int(led["net_cents"].sum()) / net if net else None,
        "taken_at": _read(now, ORDER_BATCHES.name, ["taken_at"])["taken_at"].max(),
    }
