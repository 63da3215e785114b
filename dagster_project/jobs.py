"""Jobs: which assets run together, and the whole line launched from Python.

Here: selections and runs. Not here: when they run (schedules.py, sensors.py).
"""

from collections.abc import Sequence

import dagster as dg

from assets.lake import Window
from dagster_project.line_assets import COPIED, COPIED_ORDERS, COPIED_SPAM, LABELS, clickhouse_key
from dagster_project.order_assets import KEYS as ORDER_KEYS
from dagster_project.partitions import range_tags
from dagster_project.ranker_assets import RANKER, SERVING

LINE, LAND, AFTER_LABELS, TRAIN, TIDY = "line", "land_logs", "after_labels", "train_ranker", "tidy_lake"
FRESH = "fresh_ranker"
ORDERS = "new_orders"
CHECK, RECOMPUTED = "check_labels", "same_as_recomputed"
CHECK_ENGINES, SAME_ON_SPARK = "check_engines", "same_on_spark"
TO_LABELS = ("raw_events", "events", "quarantine", *(table.name for table in LABELS))


def jobs(sql_names: Sequence[str], on_both: Sequence[str]) -> dict[str, object]:
    """By name. line: everything but notebooks. after_labels: SQL jobs and ClickHouse's copies. on_both: SQL jobs of both engines."""
    sql = dg.AssetSelection.assets(*sql_names)
    copies = dg.AssetSelection.assets(*(clickhouse_key(name) for name in (*COPIED, COPIED_SPAM)))
    ranker = dg.AssetSelection.assets(RANKER, SERVING)
    orders = dg.AssetSelection.assets(*ORDER_KEYS, clickhouse_key(COPIED_ORDERS))
    selections = {
        LINE: (
            dg.AssetSelection.assets(*TO_LABELS) | sql | copies | ranker | orders,
            "From landed logs and the shop's changes to labels, samples, the ranker, orders and ClickHouse.",
        ),
        ORDERS: (orders, "Take in the shop's new changes; credit anew what late clicks have changed."),
        LAND: (dg.AssetSelection.assets("raw_events"), "Take in the files of the landing folder."),
        AFTER_LABELS: (sql | copies, "What follows from the labels of an hour: SQL jobs and ClickHouse's copies."),
        TRAIN: (ranker, "Train the ranker on all samples of the lake; it serves if it is good enough."),
    }
    twice = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("impression_sessions"), RECOMPUTED), *_on_both(on_both))
    return {
        # The line labels each hour once, and runs each job on one engine; whether a second time gives the same is asked once a day.
        name: dg.define_asset_job(name, selection=selection - twice, description=text)
        for name, (selection, text) in selections.items()
    }


def check_job() -> object:
    """The daily look at labels of closed hours: they are what their events say, late ones apart."""
    key = dg.AssetCheckKey(dg.AssetKey("impression_sessions"), RECOMPUTED)
    return dg.define_asset_job(
        CHECK, selection=dg.AssetSelection.checks(key),
        description="Label closed hours once more beside the tables and compare: differences are late events, or it fails.",
    )  # fmt: skip


def _on_both(sql_names: Sequence[str]) -> list[dg.AssetCheckKey]:
    return [dg.AssetCheckKey(dg.AssetKey(name), SAME_ON_SPARK) for name in sql_names]


def engines_job(on_both: Sequence[str]) -> object:
    """The daily look at the engines: each job's newest hour on both."""
    return dg.define_asset_job(
        CHECK_ENGINES, selection=dg.AssetSelection.checks(*_on_both(on_both)),
        description="Ask Spark for the newest hour of each SQL job once more and compare with the embedded engine.",
    )  # fmt: skip


def tidy_job() -> dg.JobDefinition:
    """Housekeeping of the lake; safe while the live labeler and readers are at work."""

    @dg.op(required_resource_keys={"settings"}, description="Compact small files, delete what no reader can need.")
    def tidy(context) -> None:
        from assets.tidy import tidy as tidy_up

        settings = context.resources.settings
        found = tidy_up(settings.lake, settings.keep, say=context.log.info)
        totals = {
            name: sum(one.get(name, 0) for one in found.values())
            for name in ("files_before", "files_after", "hours_compacted", "files_deleted", "skipped")
        }
        context.add_output_metadata({**totals, "moments_forgotten": found["moments"]["forgotten"]})

    @dg.job(name=TIDY, description="Small files into few; files and moments older than GLASSHOUSE_KEEP_DAYS deleted.")
    def tidy_lake():
        tidy()

    return tidy_lake


def fresh_job() -> dg.JobDefinition:
    """The newest version trained on by each stretch of closed samples that it has not seen; a version each."""

    @dg.op(required_resource_keys={"settings"}, description="Validate on each new stretch of closed samples, then train on it.")
    def fresh(context) -> None:
        from assets.ranking.fresh import once

        settings = context.resources.settings
        for metrics in once(settings.lake, rules=settings.rules):
            heads = {f"auc_{head}": one["auc"] for head, one in metrics["heads"].items() if one["auc"] is not None}
            said = {name: metrics["fresh"][name] for name in ("parent", "from", "until", "rows")}
            context.log_event(dg.AssetMaterialization("ranker", metadata={"version": metrics["version"], **said, **heads}))

    @dg.job(name=FRESH, description="Goes on with the newest version of the ranker by the samples that have closed since.")
    def fresh_ranker():
        fresh()

    return fresh_ranker


def run_line(
    instance: dg.DagsterInstance,
    window: Window,
    selection: Sequence[str] | None = None,
    settings=None,
    run_config: dict | None = None,
    raise_on_error: bool = False,
    **overrides: object,
) -> dg.ExecuteInProcessResult:
    """Run the job `line` for all hours of the window as one run, in this process; the instance keeps its events.

    selection: asset names ("events", "clickhouse/events") instead of all. settings: default from the environment.
    Partitions begin at the window's start if the lake holds nothing earlier.
    """
    from dagster_project import settings as environment
    from dagster_project.build import build_defs
    from dagster_project.partitions import first_hour

    settings = settings or environment.load()
    defs = build_defs(settings, first=min(first_hour(settings), window.start), **overrides)
    keys = [dg.AssetKey.from_user_string(name) for name in selection] if selection else None
    return defs.resolve_job_def(LINE).execute_in_process(
        instance=instance, tags=range_tags(window), asset_selection=keys, run_config=run_config,
        raise_on_error=raise_on_error,
    )  # fmt: skip
