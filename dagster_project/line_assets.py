"""The Python assets of the line: raw_events, events, labels, and ClickHouse's copies.

Here: which function fills which table, from what. Not here: the functions (assets/), SQL jobs (sql_jobs.py), the ranker
(ranker_assets.py), checks.
Every asset handles all partitions of its run as one window. Heavy modules are imported where they are used.
"""

import dagster as dg

from assets.attribution import tables as labels
from assets.events import contract
from assets.hours import stretches
from assets.metrics import schema
from dagster_project.partitions import hour_of, key_of, stray_metadata, window_of, without_partition
from dagster_project.reports import progress, report, table_metadata
from dagster_project.settings import Settings

SINGLE_RUN = dg.BackfillPolicy.single_run()
LABELS = (labels.IMPRESSION_SESSIONS, labels.CLICK_SESSIONS, labels.ORPHAN_ACTIONS, labels.LATE_EVENTS)
TABLES = (contract.RAW_EVENTS, contract.EVENTS, contract.QUARANTINE, contract.SOURCES, contract.ID_KEYS, *LABELS)
COUNTED = "raw_is_events_quarantine_and_repeats"


def line_assets(partitions: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The assets of the line over these partitions, in the order of the data."""
    return [
        _raw_events(partitions), _events(partitions), _labels(partitions), _clickhouse(partitions),
        _clickhouse_spam(partitions), _clickhouse_orders(),
    ]  # fmt: skip


def _spec(table, deps, group, kinds) -> dg.AssetSpec:
    return dg.AssetSpec(
        table.name,
        deps=deps,
        description=table.description,
        metadata=table_metadata(table),
        group_name=group,
        kinds=kinds,
    )


def _raw_events(partitions):
    @dg.multi_asset(
        name="land",
        specs=[_spec(contract.RAW_EVENTS, [], "events", {"delta", "python"})],
        partitions_def=partitions,
        backfill_policy=SINGLE_RUN,
    )
    def land(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.attribution import state
        from assets.events import intake, landing, sources

        window = window_of(context)
        totals = dict.fromkeys(
            ("files_new", "files_seen", "rows_landed", "files_unreadable", "files_appended", "files_growing", "rows_with_repeated_keys"), 0
        )
        settle_s = settings.settle.total_seconds()
        elsewhere = set()
        with state.idle(settings.lake) as idle:
            if not idle:
                context.log.info(f"a live labeler is at work: what lies in {settings.landing} is its to take, nothing was landed")
            else:
                landing.wait(settings.landing, settle_s)
            for batch in landing.batches(settings.landing, settle_s) if idle else []:
                try:
                    mapping = batch.mapping
                except sources.SourceError as error:  # they wait until it is mended
                    context.log.error(f"{len(batch.paths)} logs are not landed: {error}")
                    continue
                landed = intake.land(
                    settings.lake, batch.paths, mapping, keep_going=True, patience_s=landing.UNFINISHED_TIMES * settle_s
                )
                totals["files_new"] += landed.files_new
                totals["files_unreadable"] += landed.unreadable
                totals["files_seen"] += landed.files_seen
                totals["rows_landed"] += landed.rows
                totals["files_appended"] += landed.appended
                totals["files_growing"] += landed.growing
                totals["rows_with_repeated_keys"] += landed.repeated_keys
                elsewhere |= {hour for hour in landed.hours if not window.start <= hour < window.end}
        settings.lake.create(contract.RAW_EVENTS)
        # A file lands whole: Dagster is told of the hours that it touches beyond this run's partitions.
        first = hour_of(partitions.get_first_partition_key())
        beside = without_partition(settings.lake, first)
        for hour in sorted(hour for hour in elsewhere if hour >= first and hour not in beside):
            context.log_event(dg.AssetMaterialization(contract.RAW_EVENTS.name, partition=key_of(hour)))
        yield report(context, settings.lake, contract.RAW_EVENTS.name, window, {**totals, **stray_metadata(settings.lake)})

    return land


def _events(partitions):
    @dg.multi_asset(
        name="accept",
        specs=[
            _spec(table, [contract.RAW_EVENTS.name], "events", {"delta", "python"})
            for table in (contract.EVENTS, contract.QUARANTINE)
        ],
        check_specs=[
            dg.AssetCheckSpec(
                COUNTED, asset=contract.EVENTS.name, blocking=True,
                description="Every raw row is an event, is quarantined, or repeats an event_id.",
            )
        ],
        partitions_def=partitions,
        backfill_policy=SINGLE_RUN,
    )  # fmt: skip
    def accept(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.attribution import strays
        from assets.attribution.accounting import account_raw
        from assets.events import intake

        window, lake = window_of(context), settings.lake
        accepted = intake.accept(lake, window, settings.rules)
        strays.accept(lake, without_partition(lake, hour_of(partitions.get_first_partition_key())), accepted)
        more = stray_metadata(lake)
        for name in ("events", "quarantine"):
            yield report(context, lake, name, window, more)
        found = account_raw(lake, accepted.parts, accepted.counts["repeats"])
        yield dg.AssetCheckResult(asset_key="events", check_name=COUNTED, passed=found["balanced"], metadata=found)

    return accept


def _labels(partitions):
    @dg.multi_asset(
        name="label",
        specs=[_spec(table, [contract.EVENTS.name], "attribution", {"delta", "python"}) for table in LABELS],
        partitions_def=partitions,
        backfill_policy=SINGLE_RUN,
    )
    def label(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.attribution import strays
        from assets.attribution.label import label_window

        window, lake = window_of(context), settings.lake
        counts = label_window(lake, window, settings.rules, progress=progress(context))
        context.log.info(f"labelled: {counts}")
        beside = without_partition(lake, hour_of(partitions.get_first_partition_key()))
        if done := strays.label(lake, beside, settings.rules, say=context.log.info):
            context.log.info(f"labelled beside the partitions: stray hours {', '.join(map(key_of, done))}")
        more = stray_metadata(lake)
        for table in LABELS:
            yield report(context, lake, table.name, window, more)

    return label


# The lake's tables that ClickHouse holds as well.
COPIED = tuple(table.name for table in schema.PARTS[schema.FEED])
COPIED_SPAM, COPIED_ORDERS = (schema.PARTS[part][0].name for part in (schema.SPAM, schema.ORDERS))


def clickhouse_key(table: str) -> dg.AssetKey:
    return dg.AssetKey(["clickhouse", table])


def _clickhouse(partitions):
    @dg.multi_asset(
        name="load_clickhouse",
        specs=[
            _copy_spec(name) for name in COPIED
        ],
        partitions_def=partitions,
        backfill_policy=SINGLE_RUN,
    )  # fmt: skip
    def load_clickhouse(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        clickhouse: dg.ResourceParam[object],
    ):
        from assets.metrics import loader

        client = clickhouse.client()
        counts = loader.load_window(settings.lake, client, window_of(context), progress=progress(context))
        beside = without_partition(settings.lake, hour_of(partitions.get_first_partition_key()))
        loader.load_hours(settings.lake, client, beside, reason="stray")
        schema.retain(client, *settings.clickhouse_days)
        for name in COPIED:
            yield dg.MaterializeResult(asset_key=clickhouse_key(name), metadata={"rows_of_run": counts.get(name, 0)})

    return load_clickhouse


def _copy_spec(name: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        clickhouse_key(name), deps=[name], group_name="metrics", kinds={"clickhouse"},
        description=f"ClickHouse's copy of `{name}`; what a run loads is shown at one moment.",
    )  # fmt: skip


def _clickhouse_spam(partitions):
    @dg.multi_asset(
        name="load_spam", specs=[_copy_spec(COPIED_SPAM)], partitions_def=partitions, backfill_policy=SINGLE_RUN
    )
    def load_spam(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        clickhouse: dg.ResourceParam[object],
    ):
        from assets.metrics import loader

        counts = loader.load_window(settings.lake, clickhouse.client(), window_of(context), part=schema.SPAM)
        yield dg.MaterializeResult(asset_key=clickhouse_key(COPIED_SPAM), metadata={"rows_of_run": counts[COPIED_SPAM]})

    return load_spam


def _clickhouse_orders():
    @dg.multi_asset(name="load_orders", specs=[_copy_spec(COPIED_ORDERS)], backfill_policy=SINGLE_RUN)
    def load_orders(settings: dg.ResourceParam[Settings], clickhouse: dg.ResourceParam[object]):
        from assets.metrics import loader

        lake, rows = settings.lake, 0
        for window in stretches(lake.hours(COPIED_ORDERS) if lake.exists(COPIED_ORDERS) else ()):
            rows += loader.load_window(lake, clickhouse.client(), window, part=schema.ORDERS)[COPIED_ORDERS]
        yield dg.MaterializeResult(asset_key=clickhouse_key(COPIED_ORDERS), metadata={"rows_of_run": rows})

    return load_orders
