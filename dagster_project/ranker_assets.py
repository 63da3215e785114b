"""The ranker's assets: a version trained, the check that it is good enough, and which version serves.

Here: wiring, and what a run shows of them. Not here: training, the gate, the registry (assets/ranking/).

ranker -> good_enough_to_promote (blocks) -> serving_ranker: a version that is worse than the one that serves, or
miscalibrated, stays a version and never serves. `glasshouse ranker` does the same by hand.
"""

import base64
import io

import dagster as dg

from assets.lake import Window
from assets.ranking.config import DEFAULT_MODEL
from dagster_project.line_assets import SINGLE_RUN
from dagster_project.partitions import HOUR
from dagster_project.reports import progress
from dagster_project.settings import Settings

GOOD_ENOUGH = "good_enough_to_promote"
RANKER, SERVING = "ranker", "serving_ranker"
FIGURES = ("loss", "samples_per_s")  # of the training's progress, plotted by Dagster while it runs
POINTS = 100  # of such a plot, a training
SHOWN = 10  # entries of the history in metadata


class RankerOptions(dg.Config):
    """What a run may change of the ranker; empty for the settings' values.

    model: a configuration of assets/ranking/models/, by name. resume: a run's name, to go on with one that was killed; a
    retry goes on by itself. start_from: a version to go on from.
    """

    model: str = DEFAULT_MODEL
    resume: str | None = None
    start_from: str | None = None
    epochs: int | None = None
    batch: int | None = None
    min_steps: int | None = None
    lr_dense: float | None = None
    lr_embedding: float | None = None
    seed: int | None = None


def ranker_assets() -> list[dg.AssetsDefinition]:
    return [_ranker(), _serving()]


def _ranker():
    @dg.asset(
        name=RANKER,
        deps=[dg.AssetDep("training_samples", partition_mapping=dg.AllPartitionMapping())],
        group_name="ranking",
        kinds={"torch", "python"},
        backfill_policy=SINGLE_RUN,
        description="A TorchRec model of nine behaviours and reading time, trained on all samples the lake holds; one version a run.",
    )
    def ranker(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], config: RankerOptions):
        from assets.hours import of
        from assets.ranking.config import load
        from assets.ranking.train import train

        lake = settings.lake
        hours = of(lake, "training_samples").regular
        if not hours:
            raise dg.Failure("`training_samples` is empty: materialize it, and what is upstream, for some hours first")
        named = {"model", "resume", "start_from"}
        chosen = {name: value for name, value in config.model_dump(exclude=named).items() if value is not None}
        defaults = {"processes": settings.ranker_processes, "epochs": settings.ranker_epochs}
        truth = settings.truth if settings.truth.is_dir() else None
        metrics = train(
            lake, truth, Window(hours[0], hours[-1] + HOUR), load(config.model, **{**defaults, **chosen}),
            progress=_curve(context), rules=settings.rules, start_from=config.start_from,
            run_id=config.resume or context.run.root_run_id or context.run_id,
        )  # fmt: skip
        return dg.MaterializeResult(metadata=_trained(metrics))

    return ranker


def _curve(context):
    """A callback for training: each report a line of the run's log, and up to POINTS of them observations of the asset.

    Dagster plots the numbers of observations over time: the loss curve of a training that still runs.
    """
    tell, shown = progress(context), 0.0

    def hear(report: dict) -> None:
        nonlocal shown
        tell(report)
        if report.get("phase") != "train":
            return
        done = report["step"] / report["steps"]
        if done - shown >= 1 / POINTS or done == 1:
            shown = done
            figures = {name: float(report[name]) for name in FIGURES if name in report}
            context.log_event(dg.AssetObservation(RANKER, metadata={"step": report["step"], **figures}))

    return hear


def _trained(metrics: dict) -> dict[str, object]:
    plain = {name: value for name, value in metrics.items() if isinstance(value, str | int | float)}
    heads = metrics.get("heads") or {}
    auc = {f"auc_{head}": found["auc"] for head, found in heads.items() if found.get("auc") is not None}
    names = ("positives", "auc", "truth_auc", "log_loss", "calibration")
    rows = [(head, *(found.get(name) for name in names)) for head, found in heads.items()]
    table = sheet(("head", "positives", "AUC", "AUC of the truth", "log loss", "calibration"), rows)
    shown: dict[str, object] = {**plain, **auc, "heads": table}
    if curve := metrics.get("loss_curve"):
        shown["loss curve"] = dg.MetadataValue.md(f"![loss](data:image/png;base64,{base64.b64encode(_picture(curve)).decode()})")
    return shown


def _picture(curve: list[dict]) -> bytes:
    """The loss over samples as PNG; a faint point a report, their moving mean as a line."""
    import numpy as np
    from matplotlib.figure import Figure

    samples, loss = (np.array([point[name] for point in curve], float) for name in ("samples", "loss"))
    width = max(1, len(loss) // 20)
    mean = np.convolve(np.pad(loss, (width // 2, width - 1 - width // 2), mode="edge"), np.ones(width) / width, "valid")
    figure = Figure(figsize=(8, 3), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.plot(samples / 1000, loss, ".", color="#B8C0C8", markersize=4)
    axes.plot(samples / 1000, mean, color="#1F9E89", linewidth=2)
    axes.set(xlabel="thousand samples", ylabel="loss, nats a display", title="Training loss")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def good_enough():
    """The check that blocks `serving_ranker`."""

    @dg.asset_check(
        asset=RANKER, name=GOOD_ENOUGH, blocking=True,
        description="The newest version is no worse than the one that serves, on samples neither was trained on, and is calibrated.",
    )  # fmt: skip
    def good_enough_to_promote(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.ranking import promotion

        limits = promotion.load_limits(settings.ranker_limits)
        verdict = promotion.check(settings.lake, limits=limits, by=_run(context), say=context.log.info)
        found = verdict.as_dict()
        return dg.AssetCheckResult(passed=verdict.passed, metadata=compared(found), description=_in_short(found))

    return good_enough_to_promote


def _in_short(found: dict) -> str:
    """A verdict in a line, for the check's history."""
    if found["reasons"]:
        more = len(found["reasons"]) - 1
        return found["reasons"][0] + (f"; and {more} more" if more else "")
    return f"no worse than {found['compared_with']}" if found["compared_with"] else "calibrated; there is nothing to compare with"


def compared(found: dict) -> dict[str, object]:
    """A verdict as metadata; its table has a row a head."""
    columns = ("head", "positives", "AUC", "serving", "± error", "log loss", "serving", "calibration", "serving", "verdict")
    names = ("head", "positives", "auc", "auc_serving", "auc_error", "log_loss", "log_loss_serving", "calibration",
             "calibration_serving", "verdict")  # fmt: skip
    reasons = [*(f"- {one}" for one in found["reasons"]), *(f"- _{one}_" for one in found["notes"])]
    return {
        "version": found["version"],
        "compared_with": found["compared_with"] or "no other version",
        "reasons": dg.MetadataValue.md("\n".join(reasons) or "none against"),
        "heads": sheet(columns, [tuple(row[name] for name in names) for row in found["heads"]]),
        "samples": found["samples"],
        "held_out": " to ".join(found["held_out"]),
        "seconds": found["seconds"],
    }


def _serving():
    @dg.asset(
        name=SERVING,
        deps=[RANKER],
        group_name="ranking",
        kinds={"python"},
        backfill_policy=SINGLE_RUN,
        description="Which version of the ranker serves: the newest, where it has passed the check. `glasshouse ranker rollback` takes it back.",
    )
    def serving_ranker(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]):
        from assets.ranking import promotion, registry
        from assets.ranking.config import RankerError

        try:
            entry = promotion.promote_checked(settings.lake, by=_run(context))
        except RankerError as error:
            raise dg.Failure(str(error)) from error
        moves = [one for one in registry.history(settings.lake) if one["action"] in registry.MOVES]
        rows = [(one["at"][:19], one["action"], one["version"], one["before"], one["by"], one["why"]) for one in reversed(moves[-SHOWN:])]
        return dg.MaterializeResult(
            metadata={
                "version": entry["version"], "before": entry["before"] or "none", "why": entry["why"], "entry": entry["number"],
                "history": sheet(("at", "action", "version", "before", "by", "why"), rows),
            }
        )  # fmt: skip

    return serving_ranker


def _run(context) -> str:
    return f"Dagster run {context.run.run_id[:8]}"


def sheet(columns: tuple[str, ...], rows: list[tuple]) -> dg.MetadataValue:
    """A table in Markdown; a dash for None."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return dg.MetadataValue.md("\n".join([*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)]))


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
