"""All rungs on one split: fit, score the held-out samples, measure; a row a head.

Here: the order of these steps, which rungs there are, what a row holds. Not here: fitting (baselines.py, the ranker),
printing (benchmarks/ladder). Torch is loaded by the ranker's rungs only.
"""

from __future__ import annotations

import datetime as dt
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from assets.hours import of
from assets.lake import Lake, Window
from assets.ranking import evaluate, features, samples
from assets.ranking.config import HEADS, RankerConfig, RankerError, load
from assets.ranking.ladder import baselines, guard, measures, read

# Configurations of the ranker (assets/ranking/models/), from the oldest idea to the newest.
RANKERS = ("wide_deep", "shared_bottom", "mmoe", "ple")
MODELS = (*baselines.RUNGS, *RANKERS)

Say = Callable[[str], None]
Score = Callable[[pa.Table], np.ndarray]  # rows of training_samples to float [n, heads]


@dataclass(frozen=True)
class Options:
    """models: names of MODELS. seeds: of the rungs that a seed changes; the others run once. cap: training samples that a
    baseline holds in memory (the ranker streams all of them). rounds: draws of users for an interval. ranker: changes to
    the ranker's configuration."""

    models: tuple[str, ...] = MODELS
    seeds: tuple[int, ...] = (1, 2, 3)
    cap: int = 1_000_000
    rounds: int = 200
    ranker: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.models) - set(MODELS)):
            raise RankerError(f"no model {', '.join(unknown)}; there are {', '.join(MODELS)}")
        if not self.models or not self.seeds or self.cap < 1 or self.rounds < 1:
            raise RankerError("the ladder needs a model, a seed, and a cap and rounds of at least 1")


@dataclass(frozen=True)
class HeldOut:
    """n held-out samples without their features: labels, weights and truth [n, heads] (truth None, or NaN where unknown),
    users [n]."""

    labels: np.ndarray
    weights: np.ndarray
    truth: np.ndarray | None
    users: np.ndarray


def climb(data: str, lake: Lake, window: Window, truth: Path | None, options: Options, say: Say) -> list[dict]:
    """Rows of the table: data, model, head, samples, positives, seeds, auc, auc_low, auc_high, interval, users_low,
    users_high, gauc, truth_auc, truth_gauc, share_known, log_loss, truth_log_loss, calibration, train_samples, fit_s.

    auc, gauc, log_loss and calibration are means over the seeds. auc_low and auc_high are a 95 % interval: over the seeds
    by Student's t where the rung has several ("seeds"), else over the held-out users by bootstrap ("users"). users_low and
    users_high are the latter for every rung, of its first seed. What is not defined is None. fit_s: seconds of one fit.

    Raises RankerError for data that cannot be split, and for a feature that tells what happens after the display.
    """
    config = RankerConfig(**options.ranker)
    where = samples.split(lake, window, config)
    schema, _ = samples.fit_schema(where, config)
    guard.check_names(schema.columns)
    schema = replace(schema, sequences=())  # lists of ids are for the ranker, which fits its own schema
    train = read.training_rows(where, schema, options.cap)
    guard.check_values(train, schema)
    say(f"{data}: {where.train_rows:,} training samples, {where.holdout_rows:,} held out, from {where.cutoff:%Y-%m-%d %H:%M} UTC")
    held = held_out(where, schema, truth, config.eval_rows)
    rows: list[dict] = []
    for model in options.models:
        seeds = options.seeds if model in RANKERS or baselines.RUNGS[model].seeded else options.seeds[:1]
        runs, seconds = [], []
        for seed in seeds:
            started = time.perf_counter()
            score = _fit(model, seed, where, schema, train, options, lambda what: say(f"{data}: {model}, seed {seed}: {what}"))
            seconds.append(time.perf_counter() - started)
            runs.append(_scores(score, where, config.eval_rows))
        used = where.train_rows if model in RANKERS else len(train)
        made = _rows(runs, held, options.rounds)
        rows += [{"data": data, "model": model, **row, "train_samples": used, "fit_s": min(seconds)} for row in made]
        click = made[0]["auc"]
        say(f"{data}: {model}: AUC of click {'not defined' if click is None else format(click, '.4f')} ({sum(seconds):.0f} s)")
    return rows


def held_out(where: samples.Split, schema: features.FeatureSchema, truth: Path | None, limit: int) -> HeldOut:
    """What the held-out samples are measured against. truth: the folder of the generator's files, or None."""
    labels, weights, keys = [], [], []
    columns = list(dict.fromkeys([*schema.columns, *features.TARGETS, *evaluate.KEY]))
    for rows in samples.held_out(where, columns, limit):
        batch = features.encode(rows, schema)
        labels.append(batch.labels[:, : len(HEADS)])
        weights.append(batch.weights[:, : len(HEADS)])
        keys.append(rows.select(list(evaluate.KEY)))
    keys = pa.concat_tables(keys)
    known = None if truth is None else evaluate.read_truth(truth, keys, where.window, where.cutoff)
    users = keys["user_id"].cast(pa.int64()).to_numpy()
    return HeldOut(np.concatenate(labels), np.concatenate(weights), known, users)


def _scores(score: Score, where: samples.Split, limit: int) -> np.ndarray:
    columns = where.lake.dataset(samples.TABLE, where.version).schema.names
    wanted = [name for name in columns if name not in features.TARGETS]  # no rung is even handed what comes after the display
    return np.concatenate([score(rows) for rows in samples.held_out(where, wanted, limit)])


def _fit(
    model: str, seed: int, where: samples.Split, schema: features.FeatureSchema, train: read.Part, options: Options, tell: Say
) -> Score:  # fmt: skip
    if model in RANKERS:
        return fit_ranker(where, load(model, **{**options.ranker, "seed": seed}), tell)
    predict = baselines.fit_heads(baselines.RUNGS[model], train, schema, seed, tell)
    return lambda rows: predict(read.part_of(rows, schema, labelled=False))


def fit_ranker(where: samples.Split, config: RankerConfig, tell: Say) -> Score:
    """Train a version of the ranker on the split's samples, apart from the versions of the lake."""
    from assets.ranking import registry
    from assets.ranking.model import predict
    from assets.ranking.train import train

    with tempfile.TemporaryDirectory(prefix="glasshouse-ladder-") as folder:
        lake = Lake(folder)
        # The very table, under a root of its own: a ladder must not put its trials before the lake's own versions.
        Path(lake.path(samples.TABLE)).symlink_to(Path(where.lake.path(samples.TABLE)).resolve())
        if lake.version(samples.TABLE) != where.version:
            raise RankerError(f"`{samples.TABLE}` has been written to meanwhile; run the ladder again")
        told = _Sparse(tell)
        version = train(lake, None, where.window, config, progress=told)["version"]
        ranker = registry.load(lake, version)
    # With the position, which serving leaves out: the other rungs and the truth have it too.
    return lambda rows: predict(ranker.model, features.encode(rows, ranker.schema, labelled=False))[:, : len(HEADS)]


class _Sparse:
    """Passes on a report of the ranker's training now and then."""

    def __init__(self, tell: Say, every_s: float = 10.0) -> None:
        self.tell, self.every_s, self.told = tell, every_s, float("-inf")

    def __call__(self, report: dict) -> None:
        if report["phase"] == "train" and time.monotonic() - self.told > self.every_s:
            self.told = time.monotonic()
            self.tell(f"step {report['step']:,} of {report['steps']:,}, {report['samples_per_s']:,.0f} samples/s")


def _rows(runs: list[np.ndarray], held: HeldOut, rounds: int) -> Iterable[dict]:
    """A row a head, from the scores of each seed."""
    found = [evaluate.by_head(scores, held.labels, held.weights, held.truth, held.users) for scores in runs]
    return [_row(i, head, [run[head] for run in found], runs, held, rounds) for i, head in enumerate(HEADS)]


def _row(i: int, head: str, found: list[dict], runs: list[np.ndarray], held: HeldOut, rounds: int) -> dict:
    first = found[0]
    rows, known = _measured(i, held)
    labels, users = held.labels[rows, i], held.users[rows]
    values = [run["auc"] for run in found]
    over_seeds = None if None in values else measures.over_seeds(values)
    over_users = measures.over_users(runs[0][rows, i], labels, users, rounds)
    low, high = over_seeds or over_users or (None, None)
    auc = _mean(values)
    return {
        "head": head, "samples": first["samples"], "positives": first["positives"], "seeds": len(runs), "auc": auc,
        "auc_low": low, "auc_high": high, "interval": "seeds" if over_seeds else "users" if over_users else None,
        "users_low": (over_users or (None,))[0], "users_high": (over_users or (None,))[-1],
        "gauc": _mean([run["gauc"] for run in found]),
        "truth_auc": first["truth_auc"],
        "truth_gauc": evaluate.gauc(held.truth[rows, i], labels, users) if known else None,
        "share_known": measures.share_known(auc, first["truth_auc"]),
        "log_loss": _mean([run["log_loss"] for run in found]), "truth_log_loss": first["truth_log_loss"],
        "calibration": _mean([run["calibration"] for run in found]),
    }  # fmt: skip


def _measured(i: int, held: HeldOut) -> tuple[np.ndarray, bool]:
    """The rows over which evaluate.by_head takes a head: those with a known truth, where there are any."""
    mask = held.weights[:, i] > 0
    known = np.zeros_like(mask) if held.truth is None else np.isfinite(held.truth[:, i]) & mask
    return (known, True) if known.any() else (mask, False)


def _mean(values: list[float | None]) -> float | None:
    return None if not values or None in values else float(np.mean(values))


def span_of(lake: Lake) -> Window:
    """All hours of training_samples, strays apart. Raises RankerError where there are none."""
    found = of(lake, samples.TABLE).span
    if found is None:
        raise RankerError(f"the lake at {lake.root} holds no `{samples.TABLE}`; run `make demo`, or leave --home away")
    return found
