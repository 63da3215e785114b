"""A training run from samples to a published version: split, fit, train in one or more processes, evaluate, publish.

Here: the order of these steps, and going on with a run that was killed or with a version that there is. Not here: the steps
(samples.py, features.py, worker.py, checkpoint.py, evaluate.py, registry.py). Loaded by Dagster, so torch is imported inside
functions.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from assets.attribution.rules import Rules
from assets.lake import Lake, Window
from assets.ranking import checkpoint, evaluate, features, registry, samples
from assets.ranking.config import DWELL, OUTPUTS, RankerConfig, RankerError, cores

Progress = Callable[[dict], None]

# What a version's weights fit: a training that goes on from it has the same.
SHAPE = ("tables", "dim", "network", "hidden", "experts", "own_experts", "tower", "sequences", "collisions")
RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


def train(
    lake: Lake,
    truth_folder: Path | str | None,
    window: Window,
    config: RankerConfig | None = None,
    progress: Progress | None = None,
    rules: Rules | None = None,
    run_id: str | None = None,
    start_from: str | None = None,
) -> dict:
    """Train on `training_samples` of the window and publish a version; returns its metrics.

    progress: called every two seconds or so with a dict: phase ("prepare", "train", "evaluate"); in "prepare" also run;
    in "train" also step, steps, samples, loss (mean since the last call, a display over all outputs), samples_per_s,
    elapsed_s.
    rules: the labeler's, written down with the version.
    run_id: names the run; where a run of this name was killed or failed, it is gone on with from its last checkpoint, on the
    window and the table version that it began with, and, without a `config`, as it was configured. Without a name a run has
    a new one (unfinished() lists those that were killed) and cannot go on after an error.
    start_from: a version to go on from: its weights, its optimizer state, its feature transforms, and, without a
    `config`, its configuration.

    Metrics: `heads` (by head: samples, positives, auc, gauc, auc_display, truth_auc, log_loss, truth_log_loss, calibration,
    ece; None where not defined, as for a head without positives), `dwell` (samples, mae_s, rmse_s, spearman),
    truth_coverage (share of held-out samples whose truth is known), train_samples, holdout_samples, cutoff, samples_per_s
    (training loop only), seconds, loss_curve, version, table, table_version, window, processes, epochs, batch, steps,
    backend, device, sharding, resumed_at (the step; None), start_from.

    Raises RankerError where the samples are missing, empty, incomplete or cannot be split, where a run is gone on with
    under another configuration, and where `config` does not fit the version of start_from.
    """
    tell = progress or (lambda _: None)
    started = time.perf_counter()
    root = registry.folder(lake)  # an unusable root fails now, not after training
    checkpoint.sweep(root)
    folder = root / f".training-{_name(run_id)}"
    if config is None and (job := checkpoint.read_job(folder)) is not None:
        config, start_from = RankerConfig.from_dict(job["ranker"]), start_from or job["start_from"]
    start = None if start_from is None else _start(root, lake, start_from, config)
    config = _placed(config or (start.config if start else RankerConfig()))
    try:
        with checkpoint.held(folder):
            if (done := _published(lake, folder, run_id)) is not None:
                return done
            job = _begin(lake, window, config, folder, start)
            where = job.where
            tell({"phase": "prepare", "train_samples": where.train_rows, "holdout_samples": where.holdout_rows,
                  "run": folder.name.removeprefix(".training-")})  # fmt: skip
            found = _trained(job, truth_folder, rules, tell, started)
            shutil.rmtree(folder)
            return found
    except Exception:
        if run_id is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def go_on(
    where: samples.Split, version: str, config: RankerConfig, folder: Path, validated: dict, said: dict, rules: Rules | None,
    tell: Progress, started: float, beside: Callable[[Path], None] = lambda out: None,
) -> dict:  # fmt: skip
    """Train a version on by all samples of `where` and publish the result; returns its metrics as `train` does.

    folder: an empty one to train in. validated: the metrics, which the caller has; nothing is held out. said: more for config.json.
    beside: writes further files into the version.
    """
    start = _start(registry.folder(where.lake), where.lake, version, config)
    job = _Job(where, start.schema, config, (0.0,) * len(OUTPUTS), folder, start)
    return _trained(job, None, rules, tell, started, validated, said, beside)


def resume(
    lake: Lake, truth_folder: Path | str | None, run_id: str, progress: Progress | None = None, rules: Rules | None = None
) -> dict:
    """Go on with a run that was killed or failed, as it was begun; otherwise as `train`.

    Raises RankerError for a name that no unfinished run has, naming those there are.
    """
    job = checkpoint.read_job(registry.folder(lake) / f".training-{_name(run_id)}")
    if job is None:
        raise RankerError(f"no unfinished run {run_id}; there are: {', '.join(unfinished(lake)) or 'none'}")
    return train(lake, truth_folder, _window(job), progress=progress, rules=rules, run_id=run_id)


def unfinished(lake: Lake) -> list[str]:
    """Names of runs that have read their samples' split and have not ended: killed, or under way."""
    return sorted(path.parent.name.removeprefix(".training-") for path in registry.folder(lake).glob(f".training-*/{checkpoint.JOB}"))


def _placed(config: RankerConfig) -> RankerConfig:
    """The number of processes settled: written down as a number, for a run is gone on with by as many as began it."""
    if config.processes:
        return config
    import torch

    gpus = 0 if config.device == "cpu" else torch.cuda.device_count()
    return replace(config, processes=gpus or min(2, cores()))


@dataclass(frozen=True)
class _Start:
    version: str
    folder: Path
    schema: features.FeatureSchema
    config: RankerConfig


@dataclass(frozen=True)
class _Job:
    where: samples.Split
    schema: features.FeatureSchema
    config: RankerConfig
    means: tuple[float, ...]
    folder: Path
    start: _Start | None


def _published(lake: Lake, folder: Path, run_id: str | None) -> dict | None:
    """The metrics of the version that a run of this name published before it was killed at the very end; else None."""
    if run_id is None or all(path.name == "lock" for path in folder.iterdir()):
        return None
    for version in reversed(registry.versions(lake)):
        said = json.loads((registry.folder(lake) / version / "config.json").read_text())
        if said.get("run") == run_id:
            shutil.rmtree(folder)
            return {"version": version, **registry.read_metrics(lake, version)}
    return None


def _name(run_id: str | None) -> str:
    name = uuid.uuid4().hex[:12] if run_id is None else run_id
    if not RUN_ID.fullmatch(name):
        raise RankerError(f"a run's name is letters, digits, - and _, 80 at most, not {name!r}")
    return name


def _start(root: Path, lake: Lake, version: str, config: RankerConfig | None) -> _Start:
    registry.read_metrics(lake, version)  # raises for a version that is not there, naming those that are
    folder = root / version
    said = json.loads((folder / "config.json").read_text())
    schema = features.FeatureSchema.from_dict(json.loads((folder / "features.json").read_text()))
    of_version = RankerConfig.from_dict(said["ranker"])
    if config is not None:
        if wrong := [name for name in SHAPE if getattr(config, name) != getattr(of_version, name)]:
            raise RankerError(f"the weights of {version} do not fit: {', '.join(wrong)} differ; train without start_from")
    return _Start(version, folder, schema, of_version)


def _begin(lake: Lake, window: Window, config: RankerConfig, folder: Path, start: _Start | None) -> _Job:
    """The job as the folder has it, where it was begun before; else a new one, written down."""
    told = {"ranker": config.as_dict(), "start_from": start and start.version}
    if (begun := checkpoint.begun(folder, told)) is not None:
        where = samples.split(lake, _window(begun), config, begun["table_version"])
        schema = features.FeatureSchema.from_dict(begun["features"])
        return _Job(where, schema, config, tuple(begun["means"]), folder, start)
    where = samples.split(lake, window, config)
    schema, means = samples.fit_schema(where, config)
    if start is not None:
        schema = start.schema
    checkpoint.write_down(
        folder, {**told, "window": [window.start.isoformat(), window.end.isoformat()], "table_version": where.version,
                 "features": schema.as_dict(), "means": list(means)},
    )  # fmt: skip
    return _Job(where, schema, config, means, folder, start)


def _window(job: dict) -> Window:
    return Window(*(dt.datetime.fromisoformat(bound) for bound in job["window"]))


def _trained(
    job: _Job, truth_folder: Path | str | None, rules: Rules | None, tell: Progress, started: float,
    validated: dict | None = None, said: dict | None = None, beside: Callable[[Path], None] = lambda out: None,
) -> dict:  # fmt: skip
    from assets.ranking import worker

    outcome = _fit(job, tell)
    where, config, metrics = job.where, job.config, {}

    def write(out: Path) -> None:
        registry.write_json(out / "features.json", job.schema.as_dict())
        registry.write_json(out / "config.json", {**_provenance(job, rules), **(said or {})})
        worker.merge(job.folder / "done", out, job.schema, config)
        beside(out)
        tell({"phase": "evaluate"})
        found = validated or _evaluate(registry.read(out, ""), where, config, truth_folder)
        rows = where.train_rows * config.epochs
        metrics.update(
            found, **outcome, table=samples.TABLE, table_version=where.version, cutoff=where.cutoff.isoformat(),
            window=[where.window.start.isoformat(), where.window.end.isoformat()], train_samples=where.train_rows,
            holdout_samples=where.holdout_rows, processes=config.processes, epochs=config.epochs,
            samples_per_s=rows / max(outcome["train_seconds"], 1e-9), seconds=time.perf_counter() - started,
            start_from=job.start and job.start.version, network=config.network,
        )  # fmt: skip
        registry.write_json(out / "metrics.json", metrics)

    version = registry.publish(job.where.lake, write)
    return {"version": version, **metrics}


def _provenance(job: _Job, rules: Rules | None) -> dict:
    where = job.where
    return {
        "ranker": job.config.as_dict(),
        "table": samples.TABLE,
        "table_version": where.version,
        "window": [where.window.start.isoformat(), where.window.end.isoformat()],
        "cutoff": where.cutoff.isoformat(),
        "start_from": job.start and job.start.version,
        "run": job.folder.name.removeprefix(".training-"),
        "rules": None if rules is None else {"fingerprint": rules.fingerprint, "version": rules.version, "text": rules.to_toml()},
        "code_version": registry.code_version(),
    }


def _fit(job: _Job, tell: Progress) -> dict:
    """Run the worker here, or in spawned processes; returns what the last report says."""
    from assets.ranking import worker

    config = job.config
    worker.device_of(config, config.processes - 1)  # too few GPUs: say so before anything is spawned
    last: dict = {}

    def hear(report: dict) -> None:
        if report["phase"] == "trained":
            last.update(report)
        else:
            tell(report)

    shutil.rmtree(job.folder / "done", ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="glasshouse-ranker-") as folder:
        told = worker.Job(
            job.where, job.schema, config, job.means, str(Path(folder) / "rendezvous"), str(job.folder),
            start=job.start and str(job.start.folder),
        )  # fmt: skip
        if config.processes == 1:
            worker.run(0, told, hear)
        else:
            _spawn(replace(told, parent=os.getpid()), hear)
    last.pop("phase")
    return last


def _spawn(job, hear: Progress) -> None:
    import torch.multiprocessing as mp

    from assets.ranking import worker

    # A forked child of a process that holds a JVM or torch's threads may hang: spawn.
    reports = mp.get_context("spawn").SimpleQueue()
    running = mp.spawn(worker.spawned, args=(job, reports), nprocs=job.config.processes, join=False)
    try:
        while not running.join(timeout=0.5):  # raises when a process failed, after it has ended the others
            _drain(reports, hear)
        _drain(reports, hear)
    finally:
        for process in running.processes:
            if process.is_alive():
                process.terminate()


def _drain(reports, hear: Progress) -> None:
    while not reports.empty():
        hear(reports.get())


def _evaluate(
    ranker: registry.Ranker, where: samples.Split, config: RankerConfig, truth_folder: Path | str | None
) -> dict:
    """Metrics on the held-out samples, by the model as it was saved, position included."""
    from assets.ranking.model import predict

    keep = list(evaluate.KEY)
    if not where.holdout_rows:
        return {"heads": {}, DWELL: None, "truth_coverage": None, "evaluated_samples": 0}
    columns = list(dict.fromkeys([*ranker.schema.columns, *features.TARGETS, *keep]))
    parts: tuple[list, list, list, list] = ([], [], [], [])
    for rows in samples.held_out(where, columns, config.eval_rows):
        batch = features.encode(rows, ranker.schema)
        scores = predict(ranker.model, batch)
        for part, value in zip(parts, (scores, batch.labels, batch.weights, rows.select(keep))):
            part.append(value)
    scores, labels, weights = (np.concatenate(part) for part in parts[:3])
    keys = pa.concat_tables(parts[3])
    truth = None
    if truth_folder is not None:
        truth = evaluate.read_truth(Path(truth_folder), keys, where.window, where.cutoff)
    coverage = None if truth is None else float(np.isfinite(truth[:, 0]).mean())
    users = keys["user_id"].fill_null(0).to_numpy()
    heads = evaluate.by_head(scores, labels, weights, truth, users)
    dwell = evaluate.dwell(scores[:, -1], np.expm1(labels[:, -1]), weights[:, -1] > 0)
    return {"heads": heads, DWELL: dwell, "truth_coverage": coverage, "evaluated_samples": len(scores)}

