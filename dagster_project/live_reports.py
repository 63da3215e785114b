"""What Dagster is told of the live labeler's batches, so that its plots are the live plots.

Here: a materialization of every table that a batch wrote, with the batch's figures as metadata, and one of each partition
whose hour the batch closed; the same of a batch of orders, with the check of its totals. Not here: following the commits
(assets/followers.py), the batches (assets/attribution, assets/orders).

Dagster keeps these events in its own store, not in the lake: a batch that is reported again after a crash shows twice there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.commits import Moment
from assets.lake import Lake
from dagster_project.partitions import key_of
from dagster_project.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

    from assets.orders.rules import OrderRules

BOOK = "labeled_hours"  # the labeler's own; not an asset
UNSEEN = (BOOK, "sources", "id_keys")
STAGES = ("read", "dedupe", "fold", "state", "write", "commit")


class Reporter:
    """A follower's handler: reports a moment of the live labeler to the Dagster instance of a home."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._instance: dg.DagsterInstance | None = None

    def __call__(self, lake: Lake, moment: Moment) -> None:
        import dagster as dg

        from assets import hours
        from assets.attribution.state import APP, Store
        from assets.attribution.tables import LABELED_HOURS
        from dagster_project import instance

        if APP not in moment.apps:  # a first batch without rows, written by code that did not count it
            return
        if self._instance is None:
            self._instance = instance.open_instance(self.settings)
        stats = Store(lake).progress(moment.apps[APP]).stats
        shown = figures(stats)
        for name, files in moment.added.items():
            if name in UNSEEN or not files:
                continue
            metadata = {"rows": stats["rows"][name], "delta_version": moment.tables[name], **shown}
            self._instance.report_runless_asset_event(
                dg.AssetMaterialization(name, metadata=metadata, tags={"glasshouse/batch": str(stats["batch"])})
            )
        closed = sorted(lake.added(moment, LABELED_HOURS)["hour"].to_pylist())
        stray = hours.of(lake).stray if closed else {}  # they have no partition
        for hour in (hour for hour in closed if hour not in stray):
            for name in moment.tables.keys() & stats["rows"].keys() - set(UNSEEN):
                self._instance.report_runless_asset_event(
                    dg.AssetMaterialization(name, partition=key_of(hour), metadata={"closed_by_batch": stats["batch"]})
                )


class OrdersReporter:
    """A follower's handler: reports a moment of assets/orders/take.py, and whether the totals agree."""

    def __init__(self, settings: Settings, rules: OrderRules):
        self.settings, self.rules = settings, rules
        self._instance: dg.DagsterInstance | None = None

    def __call__(self, lake: Lake, moment: Moment) -> None:
        import dagster as dg

        from assets.orders.reconcile import reconcile
        from dagster_project import instance
        from dagster_project.checks import ORDERS_RECONCILE, reconciled, severity
        from dagster_project.order_assets import KEYS

        if "batch" not in moment.note:  # a table was made, or gained a column
            return
        if self._instance is None:
            self._instance = instance.open_instance(self.settings)
        metadata = {"batch": moment.note["batch"], **moment.note["counts"]}
        for name in KEYS:
            if moment.added.get(name):
                version = {"delta_version": moment.tables[name]}
                self._instance.report_runless_asset_event(dg.AssetMaterialization(name, metadata={**metadata, **version}))
        if lake.log.newest().apps.get(moment.by) != moment.note["batch"]:
            return  # a newer batch is there, its totals are what counts
        found = reconcile(lake, self.rules)
        self._instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                dg.AssetKey("order_attributions"), ORDERS_RECONCILE, found["balanced"],
                {name: _shown(value) for name, value in reconciled(found).items()}, severity=severity(found),
            )
        )  # fmt: skip


def _shown(value: object) -> dg.MetadataValue:
    import dagster as dg

    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    return dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.json(value)


def figures(stats: dict) -> dict[str, float | int | str]:
    """A batch's figures as flat numbers, which Dagster plots; the watermark as text."""
    seconds = stats["seconds"]
    return {
        "batch": stats["batch"],
        "watermark": stats["watermark"] or "none yet",
        "lag_s": float(stats["lag_s"] or 0),
        "events_per_s": float(stats["events_per_s"]),
        "open_sessions": stats["open_impressions"] + stats["open_clicks"],
        "pending_events": stats["pending"],
        "repeats": stats["repeats"],
        "late": stats["rows"]["late_events"],
        "quarantined": stats["rows"]["quarantine"],
        "wrong_clocks": stats.get("wrong_clocks", 0),
        "rows_with_repeated_keys": stats.get("repeated_keys", 0),
        "files_appended": len(stats.get("appended_files", ())),
        "files_replaced": len(stats.get("replaced_files", ())),
        "state_mb": stats["state_bytes"] / 2**20,
        "peak_mb": (stats["peak_bytes"] or 0) / 2**20,
        "batch_s": float(seconds["total"]),
        **{f"{stage}_s": float(seconds[stage]) for stage in STAGES if stage in seconds},
    }
