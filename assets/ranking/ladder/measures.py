"""How sure is an AUC: over users (bootstrap), over seeds (Student's t); and which share of what can be known it is.

Here: numbers from scores and labels. Not here: metrics of one version (assets/ranking/evaluate.py).
"""

from __future__ import annotations

import numpy as np

LEVEL = 0.95


def over_users(
    scores: np.ndarray, labels: np.ndarray, users: np.ndarray, rounds: int, seed: int = 0
) -> tuple[float, float] | None:
    """95 % interval of the AUC, from `rounds` draws of as many users, with replacement: a user's samples go together.

    None where the AUC is not defined, or is not in a draw.
    """
    if len(labels) == 0 or labels.min() == labels.max():
        return None
    names, user = np.unique(users, return_inverse=True)
    order = np.argsort(scores, kind="stable")
    ranked, positive, user = scores[order], labels[order] > 0, user[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # equal scores are one step of the curve
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rounds):
        weight = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[user]
        found.append(_weighted_auc(np.where(positive, weight, 0), np.where(positive, 0, weight), starts))
    if not np.isfinite(found).all():
        return None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _weighted_auc(hits: np.ndarray, misses: np.ndarray, starts: np.ndarray) -> float:
    """AUC of rows sorted by score, their weights parted by label; starts: where each new score begins."""
    hits, misses = np.add.reduceat(hits, starts), np.add.reduceat(misses, starts)
    total = float(hits.sum()) * float(misses.sum())
    below = np.cumsum(misses) - misses
    return float((hits * (below + misses / 2)).sum() / total) if total else float("nan")


def over_seeds(values: list[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of a few runs that differ in their seed, by Student's t; None for fewer than two."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    mean, error = np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))
    reach = t.ppf((1 + LEVEL) / 2, len(values) - 1) * error
    return float(mean - reach), float(mean + reach)


def share_known(auc: float | None, truth: float | None) -> float | None:
    """Of what can be known, how much the model knows: 0 is chance, 1 is the truth. None where either is not known."""
    if auc is None or truth is None or truth <= 0.5:
        return None
    return (auc - 0.5) / (truth - 0.5)
