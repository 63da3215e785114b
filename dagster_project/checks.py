"""Asset checks: what must hold before anything downstream runs.

Here: which check guards which asset. Not here: what is counted and compared (assets/attribution/accounting.py,
assets/backfill/verify.py, assets/ranking/promotion.py, assets/samples/audit.py, assets/metrics/, assets/orders/reconcile.py, assets/spam.py).
A check looks at all partitions of its run. Blocking: assets downstream, in the same run, do not start after a failure.
All are, but for the one that measures rules which may be wrong about an account, and those that ask Spark what the embedded engine answered.
"""

from collections.abc import Sequence

import dagster as dg

from assets.hours import stretches
from assets.lake import Window
from assets.metrics import schema
from assets.samples.sql_job import SqlJob
from dagster_project.jobs import RECOMPUTED, SAME_ON_SPARK
from dagster_project.line_assets import COPIED_ORDERS, COPIED_SPAM, clickhouse_key
from dagster_project.partitions import HOUR, key_of, window_of
from dagster_project.ranker_assets import good_enough
from dagster_project.reports import progress
from dagster_project.settings import Settings

ENOUGH = 0.8  # precision and recall of the spam rules


def checks(jobs: Sequence[SqlJob]) -> list[dg.AssetChecksDefinition]:
    """All checks. A SQL job's grain is checked by what its head says."""
    found = [_unique_events(), _accounted_for(), _same_as_recomputed(), _orders_reconcile(), good_enough()]
    found += [_grain(job) for job in jobs]
    found += [_same_on_spark(job) for job in jobs if job.head.engine is None]
    if "training_samples" in {job.name for job in jobs}:
        found += [_one_row_a_display(), _no_leak()]
    if "spam_accounts" in {job.name for job in jobs}:
        found += [_spam_precision_recall(), _equals_delta(COPIED_SPAM, schema.SPAM)]
    found += [_equals_delta("events", schema.FEED), _equals_delta(COPIED_ORDERS, schema.ORDERS)]
    return found


def _unique_events():
    @dg.asset_check(asset="events", blocking=True, description="event_id is unique in the window.")
    def event_id_is_unique(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.attribution.accounting import repeated_ids

        repeats = repeated_ids(settings.lake, window_of(context))
        return dg.AssetCheckResult(passed=repeats == 0, metadata={"repeats": repeats})

    return event_id_is_unique


def _accounted_for():
    @dg.asset_check(
        asset="impression_sessions",
        additional_deps=["events", "click_sessions", "orphan_actions", "late_events"],
        blocking=True,
        description="Every accepted event is in exactly one of: a session, orphan_actions, late_events.",
    )
    def accounted_for(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.attribution.accounting import CONTRADICTIONS, account

        counts = account(settings.lake, window_of(context), settings.rules)
        return dg.AssetCheckResult(passed=not any(counts[name] for name in CONTRADICTIONS), metadata=counts)

    return accounted_for


def _same_as_recomputed():
    """Of each closed hour, by the schedule `daily_label_check`; the job `line` leaves it out, since it labels once more."""

    @dg.asset_check(
        asset="impression_sessions",
        name=RECOMPUTED,
        additional_deps=["events", "click_sessions", "orphan_actions", "late_events"],
        blocking=True,
        description="Closed hours labeled once more, by their own rules, without the events that came late: not a row differs.",
    )
    def same_as_recomputed(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.backfill import verify

        found = verify.same_as_recomputed(settings.lake, window_of(context), progress(context))
        shown = {name: found[name] for name in ("hours", "open_hours", "late_events", "differences")}
        codes = {"made_by_code": ", ".join(found["codes"]), "code_now": found["code"]}
        wrong = _counts({hour: (rows, "") for hour, rows in list(found["wrong_hours"].items())[:24]}, "hour | rows that differ | ")
        return dg.AssetCheckResult(passed=not found["differences"], metadata={**shown, **codes, "wrong_hours": wrong})

    return same_as_recomputed


def _grain(job: SqlJob):
    @dg.asset_check(
        asset=job.name,
        name="grain_is_unique",
        blocking=True,
        description=f"One row for each {', '.join(job.head.grain)}.",
    )
    def grain_is_unique(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.samples.audit import repeated_grain

        repeats = repeated_grain(settings.lake, job.name, job.head.grain, window_of(context))
        return dg.AssetCheckResult(passed=repeats == 0, metadata={"repeats": repeats})

    return grain_is_unique


def _same_on_spark(job: SqlJob):
    @dg.asset_check(
        asset=job.name,
        name=SAME_ON_SPARK,
        description="Spark gives the same rows for the newest hour of the table as the embedded engine, over the same inputs.",
    )
    def same_on_spark(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.samples.sql_job import compared

        if settings.lake.log is None:
            return dg.AssetCheckResult(passed=True, metadata={"rows": 0, "hour": "none: the embedded engine does not read this lake"})
        hours = settings.lake.hours(job.name) if settings.lake.exists(job.name) else []
        if not hours:
            return dg.AssetCheckResult(passed=True, metadata={"rows": 0, "hour": "none: the table holds no rows yet"})
        window = Window(hours[-1], hours[-1] + HOUR)
        found = compared(job, settings.lake, settings.engines, window, settings.rules)
        shown = {
            "hour": key_of(hours[-1]), "rows": found.rows, "rows_of_the_embedded_engine_only": found.embedded_only,
            "rows_of_spark_only": found.spark_only, "columns_of_other_types": ", ".join(found.columns_differ) or "none",
            "embedded_s": round(found.embedded_s, 3), "spark_s": round(found.spark_s, 3),
        }  # fmt: skip
        return dg.AssetCheckResult(passed=found.same, metadata=shown)

    return same_on_spark


def _one_row_a_display():
    @dg.asset_check(
        asset="training_samples",
        additional_deps=["impression_sessions"],
        blocking=True,
        description="The samples are the displays: as many rows in each hour.",
    )
    def one_row_a_display(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.counts import rows_by_hour

        window = window_of(context)
        samples, displays = (
            rows_by_hour(settings.lake, name, window) for name in ("training_samples", "impression_sessions")
        )
        wrong = [hour.isoformat() for hour in window.hours if samples[hour] != displays[hour]]
        counts = {"samples": sum(samples.values()), "displays": sum(displays.values()), "wrong_hours": wrong[:5]}
        return dg.AssetCheckResult(passed=not wrong, metadata=counts)

    return one_row_a_display


def _no_leak():
    @dg.asset_check(
        asset="training_samples",
        additional_deps=["events"],
        blocking=True,
        description="Features of a sample of rows equal those computed anew from what was known before the hour.",
    )
    def no_leak(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.samples.audit import audit

        found = audit(settings.lake, window_of(context), settings.rules)
        metadata = {"rows_audited": found.rows, "wrong": len(found.wrong), "examples": found.wrong[:5]}
        return dg.AssetCheckResult(passed=not found.wrong, metadata=metadata)

    return no_leak


def _spam_precision_recall():
    @dg.asset_check(
        asset="spam_accounts",
        additional_deps=["events"],
        blocking=False,
        description=f"Of the planted abusers, at least {ENOUGH:.0%} are flagged, and of the flagged as many are abusers.",
    )
    def spam_precision_recall(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets import spam

        found = spam.measure(settings.lake, window_of(context), settings.truth)
        if found is None:
            note = "no truth about abusers here (a log of one's own): nothing to compare with"
            return dg.AssetCheckResult(passed=True, severity=dg.AssetCheckSeverity.WARN, metadata={"note": note})
        measured = {"precision": found.precision, "recall": found.recall}
        return dg.AssetCheckResult(
            passed=all(value is None or value >= ENOUGH for value in measured.values()),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                **{name: value for name, value in measured.items() if value is not None},
                "flagged": found.flagged, "abusers": found.abusers, "right": found.right,
                "by_kind": _counts(found.by_kind | found.by_lookalike, "kind | accounts | flagged"),
                "by_rule": _counts(found.by_rule, "rule | accounts | of these abusers"),
            },
        )  # fmt: skip

    return spam_precision_recall


def _counts(found: dict[str, tuple[int, int]], head: str) -> dg.MetadataValue:
    lines = [f"| {head} |", "|---|---|---|", *(f"| {name} | {a} | {b} |" for name, (a, b) in found.items())]
    return dg.MetadataValue.md("\n".join(lines))


def _equals_delta(name: str, part: str):
    """Of a part of ClickHouse's tables; orders are compared whole, the others in the run's window."""

    @dg.asset_check(
        asset=clickhouse_key(name),
        blocking=True,
        description="ClickHouse holds what the lake holds: every row of every table, and every aggregate, per hour.",
    )
    def equals_delta(
        context: dg.AssetCheckExecutionContext,
        settings: dg.ResourceParam[Settings],
        clickhouse: dg.ResourceParam[object],
    ):
        from assets.metrics.verify import verify_window

        lake, found = settings.lake, []
        whole = part == schema.ORDERS
        days = min(filter(None, settings.clickhouse_days), default=None)
        for window in stretches(lake.hours(name) if lake.exists(name) else ()) if whole else [window_of(context)]:
            found += verify_window(lake, clickhouse.client(), window, part, days)
        shown = {"differences": len(found), "examples": [str(one) for one in found[:10]]}
        return dg.AssetCheckResult(passed=not found, metadata=shown)

    return equals_delta


ORDERS_RECONCILE = "orders_reconcile"


def _orders_reconcile():
    @dg.asset_check(
        asset="order_attributions",
        name=ORDERS_RECONCILE,
        additional_deps=["orders"],
        blocking=True,
        description="Orders, gross, refunds and net of order_attributions are those of orders, per hour and overall; no revenue was refused.",
    )
    def orders_reconcile(settings: dg.ResourceParam[Settings]):
        from assets.orders import reconcile, rules

        found = reconcile.reconcile(settings.lake, rules.load_rules(settings.order_rules))
        return dg.AssetCheckResult(passed=found["balanced"], severity=severity(found), metadata=reconciled(found))

    return orders_reconcile


def severity(found: dict) -> dg.AssetCheckSeverity:
    """What was refused is told, and stops nothing: one bad line must not keep all other orders from ClickHouse."""
    return dg.AssetCheckSeverity.WARN if found["agree"] else dg.AssetCheckSeverity.ERROR


def reconciled(found: dict) -> dict[str, object]:
    """What assets.orders.reconcile found, as a check's metadata: ten of the wrong hours."""
    return {**found, "wrong_hours": found["wrong_hours"][:10], "hours_wrong": len(found["wrong_hours"])}
