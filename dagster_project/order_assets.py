"""The assets of the shop's orders: change files in, `orders` and who planted them out.

Here: which function fills which table, and what Dagster is told of it. Not here: the functions (assets/orders/), the check
(checks.py). One function without partitions: a batch finds the hours that it touches, and makes these anew.
"""

import dagster as dg

from assets.orders import tables
from dagster_project.line_assets import SINGLE_RUN
from dagster_project.reports import table_metadata
from dagster_project.settings import Settings

GROUP = "orders"
UPSTREAM = {
    tables.ORDERS.name: [tables.ORDER_CHANGES.name],
    tables.ORDER_ATTRIBUTIONS.name: [tables.ORDERS.name, tables.NOTE_PRODUCTS.name, tables.PLANTING_ACTIONS.name],
}
SHOWN = (
    tables.ORDER_CHANGES, tables.ORDERS, tables.NOTE_PRODUCTS, tables.ORDER_QUARANTINE, tables.PLANTING_ACTIONS,
    tables.ORDER_ATTRIBUTIONS,
)  # fmt: skip
KEYS = tuple(table.name for table in SHOWN)


def order_assets() -> list[dg.AssetsDefinition]:
    @dg.multi_asset(name="take_orders", specs=[_spec(table) for table in SHOWN], backfill_policy=SINGLE_RUN)
    def take_orders(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.counts import total
        from assets.orders import rules, take

        lake = settings.lake
        counts = take.take(lake, settings.orders, rules.load_rules(settings.order_rules), say=context.log.info)
        now = lake.pinned()
        for table in SHOWN:
            metadata = {"dagster/row_count": total(now, table.name), "delta_version": now.version(table.name), **counts}
            yield dg.MaterializeResult(asset_key=table.name, metadata=metadata)

    return [take_orders]


def _spec(table) -> dg.AssetSpec:
    # Within one function an upstream of ours is named as well, so that the graph shows what is made of what.
    deps = [dg.AssetDep(name) for name in UPSTREAM.get(table.name, [])]
    if table is tables.PLANTING_ACTIONS:
        deps.append(dg.AssetDep("events", partition_mapping=dg.AllPartitionMapping()))
    return dg.AssetSpec(
        table.name, deps=deps, description=table.description, metadata=table_metadata(table), group_name=GROUP,
        kinds={"delta", "python"},
    )  # fmt: skip
