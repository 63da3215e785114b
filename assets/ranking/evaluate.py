"""How good is a version: AUC, AUC per user, log loss and calibration by head, beside the same of the known truth.

Here: numbers from predictions. Not here: the model, or how the truth came about (events/generator.py).
The truth is read for evaluation alone, after training: no feature is made from it.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from assets.lake import Window
from assets.ranking.config import HEADS

KEY = ("request_id", "position", "user_id", "note_id")
TRUTH = tuple(f"p_{head}" for head in HEADS)
EPSILON = 1e-7
BINS = 20  # of equally many samples, for the calibration error


def auc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Area under the ROC curve; None where all labels are equal (it is not defined there)."""
    from sklearn.metrics import roc_auc_score

    if len(labels) == 0 or labels.min() == labels.max():
        return None
    return float(roc_auc_score(labels, scores))


def log_loss(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean negative log likelihood in nats; None without samples."""
    if len(labels) == 0:
        return None
    inside = np.clip(scores.astype(np.float64), EPSILON, 1 - EPSILON)
    return float(-np.where(labels > 0, np.log(inside), np.log1p(-inside)).mean())


def calibration(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean predicted over mean observed, 1 is right; None without positives."""
    return float(scores.mean(dtype=np.float64) / labels.mean(dtype=np.float64)) if labels.any() else None


def ece(scores: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float | None:
    """Expected calibration error: |mean predicted - mean observed| of each bin of equally many samples in the order of the
    scores, averaged by samples; None without samples.
    """
    if len(labels) == 0:
        return None
    order = np.argsort(scores, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    gaps = [abs(scores[p].mean(dtype=np.float64) - labels[p].mean(dtype=np.float64)) * len(p) for p in parts]
    return float(sum(gaps) / len(order))


def gauc(scores: np.ndarray, labels: np.ndarray, users: np.ndarray) -> float | None:
    """AUC within each user, averaged by the user's displays, over users with both labels; None without such a user."""
    if len(labels) == 0:
        return None
    frame = pl.DataFrame({"user": users, "score": scores, "label": labels > 0})
    found = (
        frame.with_columns(rank=pl.col("score").rank("average").over("user"))
        .group_by("user", maintain_order=True)  # the same sum, bit for bit, each time
        .agg(n=pl.len(), positives=pl.col("label").sum(), ranks=pl.col("rank").filter(pl.col("label")).sum())
        .with_columns(pl.col("n", "positives").cast(pl.Float64))
        .filter((pl.col("positives") > 0) & (pl.col("positives") < pl.col("n")))
    )
    if found.is_empty():
        return None
    n, positives, ranks = (found[name].to_numpy() for name in ("n", "positives", "ranks"))
    each = (ranks - positives * (positives + 1) / 2) / (positives * (n - positives))
    return float(np.average(each, weights=n))


def dwell(predicted: np.ndarray, observed: np.ndarray, mask: np.ndarray) -> dict:
    """Reading time over the rows of the mask, all in seconds: samples, mae_s, rmse_s, spearman (rank correlation).

    None where not defined: without samples, or where all values are equal.
    """
    predicted, observed = predicted[mask].astype(np.float64), observed[mask].astype(np.float64)
    if not len(observed):
        return {"samples": 0, "mae_s": None, "rmse_s": None, "spearman": None}
    ranks = pl.DataFrame({"p": predicted, "o": observed}).select(pl.all().rank("average"))
    flat = min(ranks["p"].n_unique(), ranks["o"].n_unique()) < 2
    return {
        "samples": len(observed),
        "mae_s": float(np.abs(predicted - observed).mean()),
        "rmse_s": float(np.sqrt(((predicted - observed) ** 2).mean())),
        "spearman": None if flat else float(np.corrcoef(ranks["p"], ranks["o"])[0, 1]),
    }


def by_head(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, truth: np.ndarray | None, users: np.ndarray | None = None
) -> dict[str, dict]:
    """Metrics of each head over the rows that its mask lets in; scores, labels, weights: [n, heads or more], the first
    columns being HEADS. users: [n], whose display it is; without them `gauc` is None.

    truth: the true probabilities, NaN where unknown. Where any are known, every metric of the head is taken over those
    rows only, so that `auc` and `truth_auc` are of the same samples. What cannot be computed is None. auc_display is the AUC
    of p(click) p(behaviour | click) over all displays; for click it is `auc`.
    """
    found = {}
    for i, head in enumerate(HEADS):
        known = None if truth is None else truth[:, i]
        found[head] = _one(scores[:, i], labels[:, i], weights[:, i] > 0, known, users)
        displays = weights[:, 0] > 0
        if i and found[head]["positives"]:
            # A clicked display without a click session of its own says nothing of behaviours.
            displays = displays & ((labels[:, 0] == 0) | (weights[:, i] > 0))
            if known is not None and np.isfinite(known).any():
                displays = displays & np.isfinite(known)
            product, both = scores[displays, 0] * scores[displays, i], labels[displays, i] * labels[displays, 0]
            found[head]["auc_display"] = auc(product, both)
        elif not i:
            found[head]["auc_display"] = found[head]["auc"]
    return found


def _one(
    scores: np.ndarray, labels: np.ndarray, mask: np.ndarray, truth: np.ndarray | None, users: np.ndarray | None
) -> dict:
    known = np.zeros_like(mask) if truth is None else np.isfinite(truth) & mask
    rows = known if known.any() else mask
    scores, labels = scores[rows], labels[rows]
    found = {
        "samples": int(rows.sum()), "positives": int(labels.sum()), "auc": auc(scores, labels),
        "gauc": None if users is None else gauc(scores, labels, users[rows]), "auc_display": None, "truth_auc": None,
        "log_loss": log_loss(scores, labels), "truth_log_loss": None, "calibration": calibration(scores, labels),
        "ece": ece(scores, labels),
    }  # fmt: skip
    if known.any():
        found["truth_auc"] = auc(truth[rows], labels)
        found["truth_log_loss"] = log_loss(truth[rows], labels)
    return found


def read_truth(folder: Path, keys: pa.Table, window: Window, cutoff: dt.datetime) -> np.ndarray | None:
    """True probabilities of the samples, float64 [n, heads], NaN where the generator's files know nothing.

    A session carries the context of its first display, so a sample is found by request, position, user and note.
    Returns None where the folder holds no truth (a log of one's own).
    """
    paths = sorted(Path(folder).glob("**/truth*.parquet"))
    if not paths:
        return None
    slack = dt.timedelta(hours=1)  # a phone's clock may be off by what the contract allows
    kinds = {"request_id": pl.String, "position": pl.Int64, "user_id": pl.Int64, "note_id": pl.Int64}
    typed = [pl.col(name).cast(kind) for name, kind in kinds.items()]
    wanted = pl.from_arrow(keys.select(list(KEY))).lazy().with_columns(typed).with_row_index("row").drop_nulls()
    time = pl.col("event_time").dt.replace_time_zone(None)  # both sides naive UTC
    after, before = (bound.astimezone(dt.UTC).replace(tzinfo=None) for bound in (cutoff - slack, window.end + slack))
    truth = pl.scan_parquet(paths).filter((time >= after) & (time < before)).with_columns(typed)
    joined = truth.select([*KEY, *TRUTH]).join(wanted, on=list(KEY), how="inner").unique("row")
    joined = joined.collect(engine="streaming")
    found = np.full((keys.num_rows, len(HEADS)), np.nan)
    found[joined["row"].to_numpy()] = joined.select(TRUTH).to_numpy()
    return found
