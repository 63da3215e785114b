"""What readers did that may have planted an order: a narrow copy of `events`, so that a batch need not read all of these.

Here: keeping `planting_actions` up with `events`, and reading it. Not here: who is credited (credit.py).

The version of `events` up to which it has come is the transaction id of its own commits. Files of `events` that are new since are
appended; an hour of which a file is gone (recomputed, or compacted) is replaced. A batch reads an hour at a time.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from typing import TYPE_CHECKING
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake.exceptions import DeltaError

from assets import upgrade
from assets.events.contract import EVENTS, TIME
from assets.lake import Lake, LakeError, Step, Write
from assets.orders.rules import PLANTING, OrderRules
from assets.orders.tables import PLANTING_ACTIONS

if TYPE_CHECKING:
    from deltalake import DeltaTable

APP = "planting_actions"
ONE_HOUR = dt.timedelta(hours=1)
UTC_US = pl.Datetime("us", "UTC")
READ = ["user_id", "note_id", "action", "event_time", "event_id", "channel", "author_id"]


def gather(lake: Lake) -> None:
    """Bring planting_actions up to `events` as it is now; nothing where it is there already."""
    now = lake.pinned()
    if not now.exists(EVENTS.name):
        return
    version, seen = now.version(EVENTS.name), now.appended(PLANTING_ACTIONS.name, APP)
    if seen is not None and seen >= version:
        return
    added, gone = _changes(now, seen)
    replaced = [[hour.isoformat(), (hour + ONE_HOUR).isoformat()] for hour in sorted(gone)]
    old = {f"{now.path(EVENTS.name)}/{unquote(path)}" for path in upgrade.old_files(now, EVENTS.name)}
    step: Step = {"table": PLANTING_ACTIONS.name, "window": replaced, "adds": []}
    for hour, paths in sorted(added.items()):
        step["adds"] += lake.stage(Write(PLANTING_ACTIONS, _rows(paths, hour, old)))["adds"]
    lake.commit([step], by=APP, app=(APP, version), of_table=True)


def _changes(now: Lake, seen: int | None) -> tuple[dict[dt.datetime, list[str]], set[dt.datetime]]:
    """(files of `events` to read, by hour; hours of planting_actions that they replace)."""
    present = files_of(now.open(EVENTS.name))
    try:
        before = files_of(now.open(EVENTS.name, seen)) if seen is not None else {}
        gone = {before[path] for path in before.keys() - present.keys()}
    except (LakeError, DeltaError):  # that version was tidied away: everything anew
        before, gone = {}, set(now.hours(PLANTING_ACTIONS.name))
    added: dict[dt.datetime, list[str]] = defaultdict(list)
    for path, hour in present.items():
        if hour in gone or path not in before:
            added[hour].append(f"{now.path(EVENTS.name)}/{unquote(path)}")
    for paths in added.values():
        now.check_files(EVENTS.name, paths)
    return added, gone


def _rows(paths: list[str], hour: dt.datetime, old: set[str]) -> pa.Table:
    """The rows of files of one hour. old: files of an older Glasshouse, which have the author in the context alone."""
    tables = [_planting([path for path in paths if path not in old], READ)]
    if any(path in old for path in paths):
        rows = _planting([path for path in paths if path in old], [*READ[:-1], "context"])
        tables.append(EVENTS.completed(rows).select(READ))
    frame = pl.concat(pl.from_arrow(table) for table in tables).with_columns(hour=pl.lit(hour).cast(UTC_US))
    schema = PLANTING_ACTIONS.schema
    return frame.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)


def _planting(paths: list[str], names: list[str]) -> pa.Table:
    schema = pa.schema([EVENTS.schema.field(name) for name in names])
    if not paths:
        return schema.empty_table()
    data = ds.dataset(sorted(paths), schema=schema, format="parquet")
    return data.to_table(columns=names, filter=pc.field("action").isin(pa.array(PLANTING)))


def files_of(table: DeltaTable) -> dict[str, dt.datetime]:
    """Data files of a version of a table that is partitioned by hour: path in the log -> hour."""
    actions = pa.table(table.get_add_actions(flatten=True))
    if not actions.num_rows:
        return {}
    hours = pl.from_arrow(actions.column("partition.hour")).cast(UTC_US).to_list()
    return dict(zip(actions.column("path").to_pylist(), hours, strict=True))


def before_orders(lake: Lake, orders: pl.DataFrame, planted: pl.DataFrame, rules: OrderRules) -> pl.DataFrame:
    """What these orders' users did, with notes that plant anything they ordered, in the windows before them."""
    placed = orders["created_at"].drop_nulls()
    if not len(placed) or not len(planted):
        return _chosen(PLANTING_ACTIONS.empty(), rules)
    notes = planted.filter(pl.col("product_id").is_in(orders["product_id"].implode()))["note_id"].unique()
    first = (placed.min() - rules.window).replace(minute=0, second=0, microsecond=0)
    inside = (
        (pc.field("hour") >= pa.scalar(first, TIME))
        & (pc.field("hour") <= pa.scalar(placed.max(), TIME))
        & pc.field("user_id").isin(orders["user_id"].drop_nulls().unique().to_arrow())
        & pc.field("note_id").isin(notes.to_arrow())
    )
    return _chosen(lake.dataset(PLANTING_ACTIONS.name).to_table(filter=inside), rules)


def since(lake: Lake, version: int, rules: OrderRules) -> tuple[pl.DataFrame, set[dt.datetime]]:
    """(what was added to planting_actions since that version, the hours of which something went).

    Raises LakeError or DeltaError where that version is gone.
    """
    before, present = files_of(lake.open(PLANTING_ACTIONS.name, version)), files_of(lake.open(PLANTING_ACTIONS.name))
    paths = [f"{lake.path(PLANTING_ACTIONS.name)}/{unquote(path)}" for path in present.keys() - before.keys()]
    lake.check_files(PLANTING_ACTIONS.name, paths)
    gone = {before[path] for path in before.keys() - present.keys()}
    schema = pa.schema([item for item in PLANTING_ACTIONS.schema if item.name != "hour"])
    added = ds.dataset(paths, schema=schema, format="parquet").to_table() if paths else schema.empty_table()
    return _chosen(added, rules), gone


def _chosen(table: pa.Table, rules: OrderRules) -> pl.DataFrame:
    chosen = table.filter(pc.is_in(table["action"], value_set=pa.array(rules.actions)))
    return pl.from_arrow(chosen).with_columns(pl.col("event_time").cast(UTC_US))
