"""Who planted an order, and what it brought: the rows of `order_attributions` from orders, clicks and rules.

Here: the last click within the window, and the cents. Not here: where the clicks
are (clicks.py), which hours are made anew and when (take.py).

An order is credited to the last click, of its user, on a note that plants its product, in [placed_at - window, placed_at).
Of two clicks at one moment the greater event_id is the last.
"""

from __future__ import annotations

import datetime as dt

import polars as pl
import pyarrow as pa

from assets.lake import Lake
from assets.orders.changes import DELETE
from assets.orders.rules import OrderRules
from assets.orders.tables import NOTE_PRODUCTS, ORDER_ATTRIBUTIONS


def credited(orders: pl.DataFrame, clicks: pl.DataFrame, planted: pl.DataFrame, rules: OrderRules) -> pa.Table:
    """Rows of order_attributions: one for each order that is not deleted.

    orders: rows of `orders`. clicks: rows of planting_actions that the rules name, all of the windows before the orders.
    planted: note_id, product_id.
    """
    standing = orders.filter(pl.col("change_op") != DELETE)
    last = (
        reached(standing, clicks, planted, rules)
        .sort("event_time", "event_id")
        .group_by("order_id").last()
        .select("order_id", "note_id", "author_id", "channel", click_time="event_time")
    )  # fmt: skip
    rows = standing.join(last, on="order_id", how="left").with_columns(placed_at="created_at", **cents(rules))
    rows = rows.with_columns(pl.col("user_id", "product_id").fill_null(0))  # ClickHouse's table holds no null there
    rows = rows.with_columns(
        net_cents=pl.col("gross_cents") - pl.col("refunded_cents"), rules=pl.lit(rules.fingerprint)
    ).sort("placed_at", "order_id")
    schema = ORDER_ATTRIBUTIONS.schema
    return rows.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)


def reached(orders: pl.DataFrame, clicks: pl.DataFrame, planted: pl.DataFrame, rules: OrderRules) -> pl.DataFrame:
    """Every click that may have led to an order, with that order's order_id and hour."""
    asked = orders.select("order_id", "hour", "user_id", "product_id", "created_at")
    wanted = clicks.join(planted.select("note_id", "product_id").unique(), on="note_id")
    pairs = asked.join(wanted, on=["user_id", "product_id"])
    before = pl.col("created_at") - pl.col("event_time")
    return pairs.filter((before > dt.timedelta(0)) & (before <= rules.window))


def cents(rules: OrderRules) -> dict[str, pl.Expr]:
    """gross_cents and refunded_cents of rows of `orders`."""
    counts = pl.col("status").is_in(rules.statuses)
    full = pl.col("status").is_in(rules.full_statuses) if rules.full_statuses else pl.lit(False)
    partly = pl.col("refunded_cents").fill_null(0) if rules.partial else pl.lit(0, pl.Int64)
    given_back = pl.when(full).then(pl.col("amount_cents")).otherwise(partly)
    nothing = pl.lit(0, pl.Int64)
    return {
        "gross_cents": pl.when(counts).then(pl.col("amount_cents")).otherwise(nothing),
        "refunded_cents": pl.when(counts).then(given_back).otherwise(nothing),
    }


def read_planted(lake: Lake) -> pl.DataFrame:
    return pl.from_arrow(lake.read(NOTE_PRODUCTS.name, columns=["note_id", "product_id"]))
