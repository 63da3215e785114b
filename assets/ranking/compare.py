"""Two versions of the ranker side by side: by head, by segment, and how predictions meet what happened.

Here: frames for people (the notebook compare_versions). Not here: the gate (promotion.py), whose samples and figures these are.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from assets.lake import Lake, Window
from assets.ranking import promotion, registry
from assets.ranking.config import OUTPUTS, RankerError

BANDS = ((0, "0"), (2, "1-2"), (5, "3-5"), (9, "6-9"))  # last position of a band, and its name
BEYOND, UNKNOWN = "10+", "none"
COLUMNS = ("channel", "position", "user_impressions", "hour_of_day")
SEGMENTS = ("channel", "position", "users", "hour")
FIGURES = {
    "samples": pl.Int64, "positives": pl.Int64, "auc_first": pl.Float64, "auc_second": pl.Float64, "difference": pl.Float64,
    "error": pl.Float64, "log_loss_first": pl.Float64, "log_loss_second": pl.Float64, "calibration_first": pl.Float64,
    "calibration_second": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Samples that neither version was trained on, scored by both. first, second: names of the versions.

    held_out: [from, to). labels, weights, scores: [n, heads] (of the reading time: log1p of seconds). segments: a row a
    sample, a column of SEGMENTS each.
    """

    first: str
    second: str
    held_out: tuple[dt.datetime, dt.datetime]
    heads: tuple[str, ...]
    labels: np.ndarray
    weights: np.ndarray
    scores: tuple[np.ndarray, np.ndarray]
    segments: pl.DataFrame

    def by_head(self) -> pl.DataFrame:
        """head and FIGURES; difference: AUC of the second less that of the first, error: its standard error."""
        rows = [{"head": head, **self._figures(i, np.ones(len(self.labels), bool))} for i, head in enumerate(self.heads)]
        return pl.DataFrame(rows, schema={"head": pl.String, **FIGURES})

    def by(self, segment: str, head: str) -> pl.DataFrame:
        """segment and FIGURES of one head, by channel, position (bands), users (with and without a profile) or hour (UTC)."""
        i, values = self._head(head), self._segment(segment)
        order = values.unique().sort(nulls_last=True).to_list()
        if segment == "position":
            names = [*(name for _, name in BANDS), BEYOND, UNKNOWN]
            order = sorted(order, key=names.index)
        rows = [{segment: one, **self._figures(i, (values == one).to_numpy())} for one in order]
        return pl.DataFrame(rows, schema={segment: values.dtype, **FIGURES})

    def calibration(self, head: str, bins: int = 10) -> pl.DataFrame:
        """version, predicted, observed, samples: means within bins of equally many samples, by each version's predictions."""
        i = self._head(head)
        inside = self.weights[:, i] > 0
        found = []
        for version, scores in zip((self.first, self.second), self.scores):
            order = np.argsort(scores[inside, i], kind="stable")
            predicted, happened = scores[inside, i][order], self.labels[inside, i][order]
            for part in np.array_split(np.arange(len(order)), bins):
                if len(part):
                    found.append((version, float(predicted[part].mean()), float(happened[part].mean()), len(part)))
        kinds = {"version": pl.String, "predicted": pl.Float64, "observed": pl.Float64, "samples": pl.Int64}
        return pl.DataFrame(found, schema=kinds, orient="row")

    def _figures(self, head: int, rows: np.ndarray) -> dict:
        rows = rows & (self.weights[:, head] > 0)
        # `measured` sets a new version beside the serving one: here the second beside the first.
        found = promotion.measured(self.labels[rows, head], self.scores[1][rows, head], self.scores[0][rows, head])
        both = found["auc"] is not None and found["auc_serving"] is not None
        return {
            "samples": found["samples"], "positives": found["positives"],
            "auc_first": found["auc_serving"], "auc_second": found["auc"],
            "difference": found["auc"] - found["auc_serving"] if both else None, "error": found["auc_error"],
            "log_loss_first": found["log_loss_serving"], "log_loss_second": found["log_loss"],
            "calibration_first": found["calibration_serving"], "calibration_second": found["calibration"],
        }  # fmt: skip

    def _head(self, head: str) -> int:
        if head not in self.heads:
            raise RankerError(f"no head is called {head}; there are {', '.join(self.heads)}")
        return self.heads.index(head)

    def _segment(self, segment: str) -> pl.Series:
        if segment not in SEGMENTS:
            raise RankerError(f"no segment is called {segment}; there are {', '.join(SEGMENTS)}")
        return self.segments[segment]


def compare(
    lake: Lake, first: str = registry.SERVING, second: str | None = None, window: Window | None = None, limit: int = 200_000
) -> Comparison | None:
    """Score the samples that neither version was trained on; second: the newest by default.

    window: of these samples those of some hours only; None comes back where it holds none. Raises RankerError for a version
    that is not there, and where nothing is held out.
    """
    lake = lake.pinned()
    rankers = [registry.load(lake, name) for name in (first, second)]
    held = promotion.held_out(lake, [ranker.config for ranker in rankers])
    if window is not None:
        held = replace(held, start=max(held.start, window.start), end=min(held.end, window.end))
        if held.start >= held.end:
            return None
    labels, weights, scores, kept = promotion.scored(lake, held, rankers, limit, COLUMNS)
    return Comparison(
        rankers[0].version, rankers[1].version, (held.start, held.end), OUTPUTS, labels, weights,
        (scores[0], scores[1]), _segments(pl.from_arrow(kept)),
    )  # fmt: skip


def _segments(rows: pl.DataFrame) -> pl.DataFrame:
    band = pl.when(pl.col("position").is_null()).then(pl.lit(UNKNOWN))
    for last, name in BANDS:
        band = band.when(pl.col("position") <= last).then(pl.lit(name))
    users = pl.when(pl.col("user_impressions").is_null()).then(pl.lit("new, no profile")).otherwise(pl.lit("with a profile"))
    return rows.select(
        channel=pl.col("channel").fill_null(UNKNOWN), position=band.otherwise(pl.lit(BEYOND)), users=users, hour=pl.col("hour_of_day"),
    )  # fmt: skip
