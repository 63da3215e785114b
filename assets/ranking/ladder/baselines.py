"""The rungs before the ranker: popularity, logistic regression, boosted trees, trees feeding a logistic regression.

Here: how each is fitted on a Part and what it then says of another. Not here: reading samples, metrics, the ranker.
scikit-learn and LightGBM do the fitting; both are imported where they are used.

Every rung fits a head on the samples that its mask lets in, so it predicts what the ranker predicts: p(click | display),
p(behaviour | click). A head without both labels in training gets its rate.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from assets.ranking.config import HEADS
from assets.ranking.features import FeatureSchema
from assets.ranking.ladder.read import COUNTERS, Part

if TYPE_CHECKING:
    from lightgbm import Booster, Dataset
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

Predict = Callable[[Part], np.ndarray]  # float64 [n], a probability each
Fit = Callable[[Part, FeatureSchema, str, int], Predict]  # training samples, schema, head, seed

# Displays (for click) or clicks (for what follows one) at the head's mean rate, with which a note begins.
PRIOR = {"note_impressions": 20, "note_clicks": 10}

# Ids with few values: trees split on them. user, note, author and user x topic have too many for trees, and come to them
# through their counters.
CATEGORIES = ("channel", "device", "topic")
NUMBERS = ("position", "hour_of_day")
TREES = {
    "objective": "binary", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 100, "feature_fraction": 0.8,
    "bagging_fraction": 0.8, "bagging_freq": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1,
}  # fmt: skip
ROUNDS = 400
PATIENCE = 30  # rounds without a better log loss on the newest tenth of the training samples
FEW_ROUNDS = 50  # where that tenth has too few positives to tell
THREADED_ROWS = 50_000
LEAF_TREES = 100  # of GBDT+LR; He et al. found little beyond the first few hundred
# Inverse strength of L2, chosen by log loss on the newest tenth of the training samples.
STRENGTHS = (0.001, 0.01, 0.1)


@dataclass(frozen=True)
class Rung:
    """seeded: whether a seed changes anything, so that more than one run says something."""

    fit: Fit
    seeded: bool


def fit_heads(rung: Rung, train: Part, schema: FeatureSchema, seed: int, tell: Callable[[str], None]) -> Callable[[Part], np.ndarray]:
    """Fit all heads; returns what gives float64 [n, heads] of a Part. tell(head) is called before each head."""
    fitted: list[Predict] = []
    for i, head in enumerate(HEADS):
        tell(head)
        label = train.encoded.labels[train.encoded.weights[:, i] > 0, i]
        if head not in COUNTERS or len(label) == 0 or label.min() == label.max():
            fitted.append(_constant(float(label.mean()) if len(label) else 0.0))
        else:
            fitted.append(rung.fit(train, schema, head, seed))
    return lambda part: np.stack([predict(part) for predict in fitted], axis=1)


def _constant(rate: float) -> Predict:
    return lambda part: np.full(len(part), rate)


def _of_head(train: Part, head: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows that the head's mask lets in, in time order, and their labels."""
    i = HEADS.index(head)
    rows = np.flatnonzero(train.encoded.weights[:, i] > 0)
    return rows, train.encoded.labels[rows, i]


def _newest_tenth(label: np.ndarray) -> int | None:
    """From where on rows choose rather than fit; None where one of the parts lacks ten of either label."""
    cut = len(label) - len(label) // 10
    counts = [label[:cut].sum(), (1 - label[:cut]).sum(), label[cut:].sum(), (1 - label[cut:]).sum()]
    return cut if min(counts) >= 10 else None


# --- popularity -----------------------------------------------------------------------------------------------------------


def fit_popularity(train: Part, schema: FeatureSchema, head: str, seed: int) -> Predict:
    """The note's rate in the week before the display's hour, smoothed towards the mean rate of training.

    rate = (count + prior * mean) / (out of + prior). A note without a profile has the mean.
    """
    rate = float(_of_head(train, head)[1].mean())
    count, out_of = COUNTERS[head]
    prior = PRIOR[out_of]

    def predict(part: Part) -> np.ndarray:
        if count not in part.counters or out_of not in part.counters:
            return np.full(len(part), rate)
        found = (part.counters[count] + prior * rate) / (part.counters[out_of] + prior)
        return np.clip(np.where(np.isfinite(found), found, rate), 0, 1)  # a click may count more than one like

    return predict


# --- logistic regression --------------------------------------------------------------------------------------------------


def fit_logistic(train: Part, schema: FeatureSchema, head: str, seed: int) -> Predict:
    """L2 logistic regression over every id as one column (the crosses too) and the dense inputs."""
    rows, label = _of_head(train, head)
    model = _regression(_sparse(train, schema, rows), label)
    return lambda part: model(_sparse(part, schema, slice(None)))


def _sparse(part: Part, schema: FeatureSchema, rows: np.ndarray | slice) -> csr_matrix:
    return _columns(part.encoded.ids[rows], list(schema.tables.values()), part.encoded.dense[rows])


def _columns(ids: np.ndarray, sizes: list[int], dense: np.ndarray) -> csr_matrix:
    """float32 [n, sum of sizes + dense]: a one in each id's column, then the dense inputs."""
    from scipy.sparse import csr_matrix

    n, features = ids.shape
    first = np.cumsum([0, *sizes])
    places = np.empty((n, features + dense.shape[1]), np.int32)
    places[:, :features] = ids + first[:-1]
    places[:, features:] = first[-1] + np.arange(dense.shape[1])
    values = np.ones(places.shape, np.float32)
    values[:, features:] = dense
    begins = np.arange(n + 1, dtype=np.int32) * places.shape[1]
    return csr_matrix((values.ravel(), places.ravel(), begins), shape=(n, first[-1] + dense.shape[1]))


def _regression(inputs: csr_matrix, label: np.ndarray) -> Callable[[csr_matrix], np.ndarray]:
    """Fit with the strength that does best on the newest tenth; the smallest where that cannot tell."""
    seen = np.flatnonzero(np.bincount(inputs.indices, minlength=inputs.shape[1]))  # the others would keep a weight of 0
    inputs = inputs[:, seen]
    cut = _newest_tenth(label)
    best = STRENGTHS[0]
    if cut is not None:
        best = min(STRENGTHS, key=lambda c: _loss(_solve(inputs[:cut], label[:cut], c), inputs[cut:], label[cut:]))
    model = _solve(inputs, label, best)
    return lambda other: model.predict_proba(other[:, seen])[:, 1]


def _solve(inputs: csr_matrix, label: np.ndarray, strength: float) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    # Newton-CG: of scikit-learn's solvers the fastest here by far, its memory a few vectors of the columns' length.
    return LogisticRegression(C=strength, solver="newton-cg", max_iter=30, tol=1e-3).fit(inputs, label)


def _loss(model: LogisticRegression, inputs: csr_matrix, label: np.ndarray) -> float:
    from assets.ranking.evaluate import log_loss

    return log_loss(model.predict_proba(inputs)[:, 1], label)


# --- boosted trees --------------------------------------------------------------------------------------------------------


def fit_trees(train: Part, schema: FeatureSchema, head: str, seed: int) -> Predict:
    """LightGBM over counters, rates, position, hour, channel, device and topic."""
    rows, label = _of_head(train, head)
    categories = _category_values(train, schema)
    booster = _boost(_table(train, schema, categories, rows), label, seed, ROUNDS)
    return lambda part: booster.predict(_table(part, schema, categories, slice(None)), num_threads=_threads(len(part)))


def _category_values(train: Part, schema: FeatureSchema) -> list[np.ndarray]:
    """The values of each of CATEGORIES in training: trees want them numbered one after the other."""
    return [np.unique(train.encoded.ids[:, list(schema.tables).index(name)]) for name in CATEGORIES]


def _table(part: Part, schema: FeatureSchema, categories: list[np.ndarray], rows: np.ndarray | slice) -> np.ndarray:
    """float32 [n, ...]: the numbers of CATEGORIES (NaN: not in training), NUMBERS, then the dense inputs as the ranker has
    them (trees do not mind the scale)."""
    ids = part.encoded.ids[rows]
    columns = []
    for name, values in zip(CATEGORIES, categories):
        found = ids[:, list(schema.tables).index(name)]
        place = np.minimum(np.searchsorted(values, found), len(values) - 1)
        columns.append(np.where(values[place] == found, place, np.nan))
    columns += [ids[:, list(schema.tables).index(name)] for name in NUMBERS]
    return np.hstack([np.stack(columns, axis=1).astype(np.float32), part.encoded.dense[rows]])


def _boost(table: np.ndarray, label: np.ndarray, seed: int, rounds: int) -> Booster:
    import lightgbm

    settings = {**TREES, "seed": seed, "num_threads": _threads(len(table))}
    places = list(range(len(CATEGORIES)))

    def data(part: slice, like: Dataset | None = None) -> Dataset:
        return lightgbm.Dataset(table[part], label[part], categorical_feature=places, reference=like, params=settings)

    cut = _newest_tenth(label)
    if cut is None:
        return lightgbm.train(settings, data(slice(None)), min(rounds, FEW_ROUNDS))
    fitted = data(slice(0, cut))
    newest = data(slice(cut, None), fitted)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    return lightgbm.train(settings, fitted, rounds, valid_sets=[newest], callbacks=[stop])


def _threads(rows: int) -> int:
    """All cores, but one for few rows: threads of OpenMP that wait for each other cost more than they bring."""
    return len(os.sched_getaffinity(0)) if rows > THREADED_ROWS else 1


# --- trees feeding a logistic regression ----------------------------------------------------------------------------------


def fit_trees_logistic(train: Part, schema: FeatureSchema, head: str, seed: int) -> Predict:
    """GBDT+LR (He et al. 2014): the leaf a sample falls into is an id, one a tree; a logistic regression reads these.

    Trees are grown on the older half of the samples, the regression is fitted on the newer half: on the trees' own samples
    it would trust their leaves too much.
    """
    rows, label = _of_head(train, head)
    half = len(rows) // 2
    if min(label[:half].sum(), (1 - label[:half]).sum(), label[half:].sum(), (1 - label[half:]).sum()) == 0:
        return _constant(float(label.mean()))
    categories = _category_values(train, schema)
    booster = _boost(_table(train, schema, categories, rows[:half]), label[:half], seed, LEAF_TREES)

    def leaves(part: Part, rows: np.ndarray | slice) -> csr_matrix:
        table = _table(part, schema, categories, rows)
        leaf = booster.predict(table, pred_leaf=True, num_threads=_threads(len(table))).astype(np.int64).reshape(len(table), -1)
        return _columns(leaf, [TREES["num_leaves"]] * leaf.shape[1], np.empty((len(leaf), 0), np.float32))

    model = _regression(leaves(train, rows[half:]), label[half:])
    return lambda part: model(leaves(part, slice(None)))


RUNGS = {
    "popularity": Rung(fit_popularity, seeded=False),
    "logistic_regression": Rung(fit_logistic, seeded=False),
    "lightgbm": Rung(fit_trees, seeded=True),
    "gbdt_lr": Rung(fit_trees_logistic, seeded=True),
}
