"""Backfills of labels in the Dagster UI: one asset whose run plans, applies or undoes the hours that are selected.

Here: run config, which plan is meant, what Dagster is told. Not here: plan, apply and undo (assets/backfill/), the tables
of a report (backfill_reports.py).

An asset and not a job: a backfill of an asset makes one run of a range, one of a job a run an hour.
"""

import contextlib
import datetime as dt
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from assets.lake import Lake, Window
from dagster_project.backfill_reports import done_metadata, launch, plan_metadata
from dagster_project.line_assets import COPIED, LABELS, SINGLE_RUN, clickhouse_key
from dagster_project.partitions import hour_of, key_of, window_of
from dagster_project.reports import progress
from dagster_project.settings import Settings

NAME = "label_backfill"
DATA_VERSION = "dagster/data_version"  # of which Dagster sees that what is downstream was made of other rows


class Mode(Enum):
    plan = "plan"
    apply = "apply"
    undo = "undo"


class BackfillOptions(dg.Config):
    """What a run does with the selected hours."""

    mode: Mode = Field(
        Mode.plan, description="plan: compute beside the tables and report. apply: swap a plan's rows in. undo: the rows of before."
    )
    rules: str = Field("", description="plan: a rules file (TOML); empty for those in force.")
    plan: str = Field("", description="apply, undo: the plan's name; empty for the newest one of exactly these hours.")


def backfill_asset(partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        name=NAME,
        deps=["events", *(table.name for table in LABELS)],
        partitions_def=partitions,
        backfill_policy=SINGLE_RUN,
        group_name="attribution",
        kinds={"delta", "clickhouse", "python"},
        description="Label hours anew beside the tables and look at what would change (mode plan), swap that in everywhere "
        "(apply), take it back (undo). Select hours, set the mode in the run's config; the report is in the metadata.",
    )  # fmt: skip
    def label_backfill(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        clickhouse: dg.ResourceParam[object],
        config: BackfillOptions,
    ) -> dg.MaterializeResult:
        window = window_of(context)
        with _refusals():
            if config.mode is Mode.plan:
                return dg.MaterializeResult(metadata=_plan(context, settings, window, config))
            return dg.MaterializeResult(metadata=_swap(context, settings, clickhouse, window, config, partitions))

    return label_backfill


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What a person can act on fails the run with these words, and no stack trace."""
    from assets.attribution.label import LabelError
    from assets.attribution.rules import RulesError
    from assets.backfill.store import BackfillError
    from assets.lake import LakeError
    from assets.metrics.client import ClickHouseDown

    try:
        yield
    except (BackfillError, LabelError, LakeError, RulesError, ClickHouseDown, FileNotFoundError) as error:
        raise dg.Failure(str(error), metadata={"refused": str(error)}, allow_retries=False) from error


def _plan(context, settings: Settings, window: Window, config: BackfillOptions) -> dict[str, Any]:
    from assets.attribution.rules import load_rules
    from assets.backfill.plan import plan

    if config.plan:
        raise dg.Failure(f"mode plan makes a plan; it takes none (plan: {config.plan}). Set mode to apply or undo, or leave plan empty")
    rules = load_rules(Path(config.rules)) if config.rules else settings.rules
    found = plan(settings.lake, window, rules, progress=progress(context))
    context.log.info(f"plan {found['plan']}: run this asset again on the same partitions with mode: apply to swap it in")
    return plan_metadata(found)


def _swap(context, settings, clickhouse, window, config, partitions) -> dict[str, Any]:
    from assets.backfill import store
    from assets.backfill.swap import apply, undo

    lake, undoing = settings.lake, config.mode is Mode.undo
    plan_id = config.plan or newest_of(lake, window, undoing)
    planned = store.window_of(store.Folder(lake, plan_id).read("plan"))
    if planned != window:
        raise store.BackfillError(
            f"plan {plan_id} is of {_words(planned)}, and the run of {_words(window)}; select exactly the plan's partitions"
        )
    # Asked for first: where ClickHouse is away, nothing has changed yet.
    done = (undo if undoing else apply)(lake, plan_id, clickhouse.client(), progress=progress(context))
    _tell(context, lake, done, hour_of(partitions.get_first_partition_key()))
    context.log.info(f"plan {plan_id} is {done['status']}. {launch(done)}")
    return {**done_metadata(done), **plan_metadata({**store.shown(lake, plan_id), "status": done["status"]})}


def newest_of(lake: Lake, window: Window, undoing: bool) -> str:
    """The newest plan of exactly this range that can be applied (or undone, or whose apply or undo was cut short).

    Raises BackfillError where there is none.
    """
    from assets.backfill import store

    wanted = (store.APPLIED, store.UNDOING, store.APPLYING) if undoing else (store.PLANNED, store.APPLYING, store.UNDONE)
    found = [one for one in store.listed(lake) if one["window"] == store.texts(window)]
    fitting = [one["plan"] for one in found if one["status"] in wanted]
    if not fitting:
        have = ", ".join(f"{one['plan']} ({one['status']})" for one in found) or "none"
        what = "undone: nothing of it is applied" if undoing else "applied; launch these partitions with mode: plan first"
        raise store.BackfillError(f"no plan of {_words(window)} can be {what} (plans of these hours: {have})")
    return fitting[-1]


def _words(window: Window) -> str:
    return f"[{window.start:%Y-%m-%d %H:%M}, {window.end:%Y-%m-%d %H:%M}) UTC"


def _tell(context, lake: Lake, done: dict[str, Any], first: dt.datetime) -> None:
    """Tell Dagster of the hours' new rows, so that what was made of the old ones shows as stale, and say it there too."""
    version = {DATA_VERSION: f"{done['plan']} {done['status']}"}
    metadata = {"backfill": done["plan"], "status": done["status"], "moment": done["moment"]}
    hours = [hour for hour in map(dt.datetime.fromisoformat, done["hours"]) if hour >= first]
    keys = [dg.AssetKey(table.name) for table in LABELS if lake.exists(table.name)]
    for key in [*keys, *(clickhouse_key(name) for name in COPIED if done["clickhouse"])]:
        for hour in hours:
            context.log_event(dg.AssetMaterialization(key, partition=key_of(hour), metadata=metadata, tags=version))
    why = f"plan {done['plan']} is {done['status']}: these rows were computed from other labels; materialize this partition"
    for name, stale in done["stale"].items():
        for hour in map(dt.datetime.fromisoformat, stale):
            context.log_event(dg.AssetObservation(name, partition=key_of(hour), metadata={**metadata, "stale": why}))
    if done["models"]:
        why = f"trained on rows that are gone: {', '.join(done['models'])}; train the ranker anew after training_samples"
        context.log_event(dg.AssetObservation("ranker", metadata={**metadata, "stale": why}))
