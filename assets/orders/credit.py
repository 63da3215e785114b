"""Who planted an order, and what it brought: the rows of `order_attributions` from orders, clicks and rules.

Here: the last click within the window, and the cents. Not here: which hours are made anew and when (take.py).

An order is credited to the last click, of its user, on a note that plants its product, in [placed_at - window, placed_at).
Of two clicks at one moment the greater event_id is the last.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from assets.events.contract import EVENTS
from assets.lake import Lake
from assets.orders.changes import DELETE
from assets.orders.rules import OrderRules
from assets.orders.tables import NOTE_PRODUCTS, ORDER_ATTRIBUTIONS

if TYPE_CHECKING:
    from deltalake import DeltaTable

UTC_US = pl.Datetime("us", "UTC")
CLICK = ["user_id", "note_id", "event_time", "event_id", "channel", "context"]


def credited(orders: pl.DataFrame, clicks: pl.DataFrame, planted: pl.DataFrame, rules: OrderRules) -> pa.Table:
    """Rows of order_attributions: one for each order that is not deleted.

    orders: rows of `orders`. clicks: columns CLICK of the actions that the rules name, all of the window before the
    orders. planted: note_id, product_id.
    """
    standing = orders.filter(pl.col("change_op") != DELETE)
    last = (
        reached(standing, clicks, planted, rules)
        .sort("event_time", "event_id")
        .group_by("order_id").last()
        .select(
            "order_id", "note_id", "channel", click_time="event_time",
            author_id=pl.col("context").str.json_path_match("$.author_id").cast(pl.Int64, strict=False),
        )
    )  # fmt: skip
    rows = standing.join(last, on="order_id", how="left").with_columns(placed_at="created_at", **cents(rules))
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


# --- clicks from the lake ---------------------------------------------------------------------------------------------


def clicks_before(lake: Lake, orders: pl.DataFrame, planted: pl.DataFrame, rules: OrderRules) -> pl.DataFrame:
    """The clicks of these orders' users, on notes that plant anything they ordered, in the windows before them."""
    placed = orders["created_at"].drop_nulls()
    if not lake.exists(EVENTS.name) or not len(placed) or not len(planted):
        return no_clicks()
    notes = planted.filter(pl.col("product_id").is_in(orders["product_id"].implode()))["note_id"].unique()
    first = (placed.min() - rules.window).replace(minute=0, second=0, microsecond=0)
    inside = (
        (pc.field("hour") >= pa.scalar(first, EVENTS.schema.field("hour").type))
        & (pc.field("hour") <= pa.scalar(placed.max(), EVENTS.schema.field("hour").type))
        & pc.field("user_id").isin(orders["user_id"].drop_nulls().unique().to_arrow())
        & pc.field("note_id").isin(notes.to_arrow())
    )
    return _clicks(lake.dataset(EVENTS.name).to_table(columns=[*CLICK, "action"], filter=inside), rules)


def clicks_in(paths: Iterable[str], rules: OrderRules) -> pl.DataFrame:
    """The clicks of some data files of `events`."""
    paths = list(paths)
    if not paths:
        return no_clicks()
    data = ds.dataset(paths, schema=pa.schema([EVENTS.schema.field(name) for name in (*CLICK, "action")]), format="parquet")
    return _clicks(data.to_table(columns=[*CLICK, "action"]), rules)


def read_planted(lake: Lake) -> pl.DataFrame:
    return pl.from_arrow(lake.read(NOTE_PRODUCTS.name, columns=["note_id", "product_id"]))


def files_of(table: DeltaTable) -> dict[str, dt.datetime]:
    """Data files of a version of a table that is partitioned by hour: path in the log -> hour."""
    actions = pa.table(table.get_add_actions(flatten=True))
    if not actions.num_rows:
        return {}
    hours = pl.from_arrow(actions.column("partition.hour")).cast(UTC_US).to_list()
    return dict(zip(actions.column("path").to_pylist(), hours, strict=True))


def no_clicks() -> pl.DataFrame:
    return _frame(pa.schema([EVENTS.schema.field(name) for name in CLICK]).empty_table())


def _clicks(table: pa.Table, rules: OrderRules) -> pl.DataFrame:
    chosen = table.filter(pc.is_in(table["action"], value_set=pa.array(rules.actions)))
    return _frame(chosen.select(CLICK))


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.from_arrow(table).with_columns(pl.col("event_time").cast(UTC_US))
