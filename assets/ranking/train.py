"""A training run from samples to a published version: split, fit, train in one or more processes, evaluate, publish.

Here: the order of these steps. Not here: the steps (samples.py, features.py, worker.py, evaluate.py, registry.py).
Loaded by Dagster, so torch is imported inside functions.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from assets.attribution.rules import Rules
from assets.lake import Lake, Window
from assets.ranking import evaluate, features, registry, samples
from assets.ranking.config import RankerConfig

Progress = Callable[[dict], None]


def train(
    lake: Lake,
    truth_folder: Path | str | None,
    window: Window,
    config: RankerConfig | None = None,
    progress: Progress | None = None,
    rules: Rules | None = None,
) -> dict:
    """Train on `training_samples` of the window and publish a version; returns its metrics.

    progress: called every two seconds or so with a dict: phase ("prepare", "train", "evaluate"); in "train" also step,
    steps, samples, loss (mean since the last call, nats a display over all heads), samples_per_s, elapsed_s.
    rules: the labeler's, written down with the version.

    Metrics: `heads` (by head: samples, positives, auc, truth_auc, log_loss, truth_log_loss, calibration; None where not
    defined, as for a head without positives), truth_coverage (share of held-out samples whose truth is known),
    train_samples, holdout_samples, cutoff, samples_per_s (training loop only), seconds, loss_curve, version, table,
    table_version, processes, epochs, batch, steps, backend, device, sharding.

    Raises RankerError where the samples are missing, empty, incomplete or cannot be split.
    """
    config = config or RankerConfig()
    tell = progress or (lambda _: None)
    started = time.perf_counter()
    registry.folder(lake)  # an unusable root fails now, not after training
    where = samples.split(lake, window, config)
    tell({"phase": "prepare", "train_samples": where.train_rows, "holdout_samples": where.holdout_rows})
    schema, rates = samples.fit_schema(where, config)
    metrics: dict = {}

    def write(out: Path) -> None:
        registry.write_json(out / "features.json", schema.as_dict())
        registry.write_json(out / "config.json", _provenance(where, config, rules))
        outcome = _fit(where, schema, config, rates, out, tell)
        tell({"phase": "evaluate"})
        found = _evaluate(registry.read(out, ""), where, config, truth_folder)
        rows = where.train_rows * config.epochs
        metrics.update(
            found, **outcome, table=samples.TABLE, table_version=where.version, cutoff=where.cutoff.isoformat(),
            window=[window.start.isoformat(), window.end.isoformat()], train_samples=where.train_rows,
            holdout_samples=where.holdout_rows, processes=config.processes, epochs=config.epochs,
            samples_per_s=rows / outcome["train_seconds"], seconds=time.perf_counter() - started,
        )  # fmt: skip
        registry.write_json(out / "metrics.json", metrics)

    version = registry.publish(lake, write)
    return {"version": version, **metrics}


def _provenance(where: samples.Split, config: RankerConfig, rules: Rules | None) -> dict:
    return {
        "ranker": config.as_dict(),
        "table": samples.TABLE,
        "table_version": where.version,
        "window": [where.window.start.isoformat(), where.window.end.isoformat()],
        "cutoff": where.cutoff.isoformat(),
        "rules": None if rules is None else {"fingerprint": rules.fingerprint, "version": rules.version, "text": rules.to_toml()},
        "code_version": registry.code_version(),
    }


def _fit(
    where: samples.Split, schema: features.FeatureSchema, config: RankerConfig, rates: tuple[float, ...], out: Path,
    tell: Progress,
) -> dict:  # fmt: skip
    """Run the worker here, or in spawned processes; returns what the last report says."""
    from assets.ranking import worker

    worker.device_of(config, config.processes - 1)  # too few GPUs: say so before anything is spawned
    last: dict = {}

    def hear(report: dict) -> None:
        if report["phase"] == "trained":
            last.update(report)
        else:
            tell(report)

    with tempfile.TemporaryDirectory(prefix="glasshouse-ranker-") as folder:
        job = worker.Job(where, schema, config, rates, str(Path(folder) / "rendezvous"), str(out))
        if config.processes == 1:
            worker.run(0, job, hear)
        else:
            _spawn(job, hear)
    worker.merge(out, schema, config)
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
    """Metrics on the held-out samples, by the model as it was saved."""
    keep = list(evaluate.KEY)
    columns = list(dict.fromkeys([*ranker.schema.columns, features.MASK, *features.LABELS, *keep]))
    parts: tuple[list, list, list, list] = ([], [], [], [])
    for rows in samples.held_out(where, columns, config.eval_rows):
        batch = features.encode(rows, ranker.schema)
        for part, value in zip(parts, (ranker.score_encoded(batch), batch.labels, batch.weights, rows.select(keep))):
            part.append(value)
    scores, labels, weights = (np.concatenate(part) for part in parts[:3])
    truth = None
    if truth_folder is not None:
        truth = evaluate.read_truth(Path(truth_folder), pa.concat_tables(parts[3]), where.window, where.cutoff)
    coverage = None if truth is None else float(np.isfinite(truth[:, 0]).mean())
    heads = evaluate.by_head(scores, labels, weights, truth)
    return {"heads": heads, "truth_coverage": coverage, "evaluated_samples": len(scores)}

