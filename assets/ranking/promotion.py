"""The gate of the ranker: is a version good enough to serve?

Here: the limits (promotion.toml), both versions scored on the same held-out samples, the verdict as a pure function of
scores and labels. Not here: which version serves and its history (registry.py), training. torch is loaded by `check` only.

Both versions are scored anew, on samples that neither was trained on: metrics that two trainings stored are of different
windows and say nothing about which is better. A difference counts where it is beyond the limit and beyond the noise: the
standard error of the AUCs' difference is DeLong's (1988) for two models on one sample, rows taken as independent.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assets.lake import Lake, LakeError
from assets.ranking import evaluate, features, registry
from assets.ranking.config import HEADS, OUTPUTS, RankerError
from assets.rules_file import RulesError, Schema, at, read

SHIPPED = Path(__file__).with_name("promotion.toml")
READ_ROWS = 65_536


@dataclass(frozen=True)
class Limits:
    """worse_auc: absolute. worse_log_loss: a share. low, high: calibration. least_auc: of any version.

    positives: a head with fewer is not judged. noise: standard errors. samples: evaluated at most.
    """

    worse_auc: float
    worse_log_loss: float
    low: float
    high: float
    least_auc: float
    positives: int
    noise: float
    samples: int


@dataclass(frozen=True)
class Verdict:
    """passed, and the reasons where not. heads: a row each (see `judge`). compared_with: None where no version serves.

    held_out: [from, to) of the samples looked at, RFC 3339. notes: what a reader of the verdict should know.
    """

    version: str
    compared_with: str | None
    passed: bool
    reasons: list[str]
    heads: list[dict]
    samples: int
    held_out: list[str]
    table_version: int
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict:
        return asdict(self)


# --- the limits -------------------------------------------------------------------------------------------------------


def load_limits(path: Path | str = SHIPPED) -> Limits:
    """Read a file of limits. Raises RulesError, naming file and line, for one that is wrong, FileNotFoundError for none."""
    return parse_limits(Path(path).read_text(), str(path))


def parse_limits(text: str, name: str) -> Limits:
    found = read(text, name, _SCHEMA)
    limits = Limits(
        worse_auc=found["worse"]["auc"], worse_log_loss=found["worse"]["log_loss"], low=found["calibration"]["low"],
        high=found["calibration"]["high"], least_auc=found["least"]["auc"], **found["judged"],
    )  # fmt: skip
    if not limits.low < 1 < limits.high:
        raise RulesError(f"{at(name, text, 'calibration', 'low')}: calibration.low lies below 1 and calibration.high above: 1 is right")
    return limits


def _number(low: float, high: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(value)
        return float(value)

    return parse


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(value)
    return value


_SHARE = (_number(0, 1), "a number from 0 to 1")
_SCHEMA: Schema = {
    "worse": {"auc": _SHARE, "log_loss": _SHARE},
    "calibration": {"low": _SHARE, "high": (_number(1, 1000), "a number of 1 or more")},
    "least": {"auc": _SHARE},
    "judged": {
        "positives": (_count, "a whole number of 1 or more"), "noise": (_number(0, 100), "a number from 0 to 100"),
        "samples": (_count, "a whole number of 1 or more"),
    },
}  # fmt: skip


# --- the verdict ------------------------------------------------------------------------------------------------------


def judge(
    labels: np.ndarray, weights: np.ndarray, new: np.ndarray, serving: np.ndarray | None, limits: Limits,
    heads: Sequence[str] = OUTPUTS,
) -> tuple[list[dict], list[str]]:  # fmt: skip
    """Compare two versions on the same samples. All arrays [n, heads]; a head's rows are those of weight > 0.

    A head whose labels are 0 and 1 is a probability; of another one (dwell) the squared error stands for the log loss, and it
    has no AUC. Returns a row a head (head, samples, positives, auc, auc_serving, auc_error: standard error of the
    difference, log_loss, log_loss_serving, calibration, calibration_serving, judged, verdict) and the reasons against, none
    where all is well. No head judged is a reason too.
    """
    rows, against = [], []
    for i, head in enumerate(heads):
        inside = weights[:, i] > 0
        row = measured(labels[inside, i], new[inside, i], None if serving is None else serving[inside, i])
        wrong = _wrong(row, limits) if row["positives"] >= limits.positives else []
        said = "; ".join(wrong) or ("good" if row["positives"] >= limits.positives else "too few to judge")
        shown = {name: value for name, value in row.items() if not name.startswith("_")}
        rows.append({"head": head, **shown, "judged": row["positives"] >= limits.positives, "verdict": said})
        against += [f"{head}: {one}" for one in wrong]
    if not any(row["judged"] for row in rows):
        against.append(f"no head has {limits.positives} positives among the held-out samples: there is nothing to judge by")
    return rows, against


def measured(labels: np.ndarray, new: np.ndarray, serving: np.ndarray | None) -> dict:
    """Figures of one head on the rows given, all arrays [n]; what begins with _ is for the limits only."""
    labels, new = labels.astype(np.float64), new.astype(np.float64)
    binary = bool(np.isin(labels, (0, 1)).all())
    positive = labels > 0
    row = {"samples": len(labels), "positives": int(positive.sum()), "auc": None, "auc_serving": None, "auc_error": None}
    row |= {"log_loss": None, "log_loss_serving": None, "calibration": None, "calibration_serving": None}
    row |= {"_auc_alone_error": None, "_loss_error": None, "_bias_error": None}
    if not len(labels):
        return row
    loss = _losses(labels, new, binary)
    row |= {"log_loss": float(loss.mean()), "calibration": evaluate.calibration(new, labels)}
    row["_bias_error"] = _error(new - labels) / max(float(labels.mean()), evaluate.EPSILON)
    two_kinds = binary and 0 < row["positives"] < len(labels)
    if two_kinds:
        placed = _placements(new, positive)
        row |= {"auc": float(placed[0].mean()), "_auc_alone_error": _auc_error(*placed)}
    if serving is not None:
        serving = serving.astype(np.float64)
        other = _losses(labels, serving, binary)
        row |= {"log_loss_serving": float(other.mean()), "calibration_serving": evaluate.calibration(serving, labels)}
        row["_loss_error"] = _error(loss - other)
        if two_kinds:
            theirs = _placements(serving, positive)
            row |= {"auc_serving": float(theirs[0].mean())}
            row["auc_error"] = _auc_error(*(mine - other for mine, other in zip(placed, theirs)))
    return row


def _wrong(row: dict, limits: Limits) -> list[str]:
    found = []
    if row["auc"] is not None and limits.least_auc - row["auc"] > limits.noise * row["_auc_alone_error"]:
        found.append(f"AUC {row['auc']:.3f} is below {limits.least_auc:g}")
    if row["auc_serving"] is not None:
        lower = row["auc_serving"] - row["auc"]
        if lower > limits.worse_auc and lower > limits.noise * row["auc_error"]:
            found.append(f"AUC {row['auc']:.4f}, {lower:.4f} below the serving version's (limit {limits.worse_auc:g})")
    if row["log_loss_serving"] is not None:
        higher = row["log_loss"] - row["log_loss_serving"]
        share = higher / max(row["log_loss_serving"], evaluate.EPSILON)
        if share > limits.worse_log_loss and higher > limits.noise * row["_loss_error"]:
            found.append(f"log loss {row['log_loss']:.4f}, {share:.1%} above the serving version's (limit {limits.worse_log_loss:.1%})")
    ratio = row["calibration"]
    outside = ratio is not None and not limits.low <= ratio <= limits.high
    if outside and abs(ratio - 1) > limits.noise * row["_bias_error"]:
        found.append(f"calibration {ratio:.2f} lies outside of {limits.low:g} to {limits.high:g}")
    if row["log_loss"] is not None and not np.isfinite(row["log_loss"]):
        found.append("predictions that are no numbers")
    return found


def _losses(labels: np.ndarray, scores: np.ndarray, binary: bool) -> np.ndarray:
    if not binary:
        return (scores - labels) ** 2
    inside = np.clip(scores, evaluate.EPSILON, 1 - evaluate.EPSILON)
    return -np.where(labels > 0, np.log(inside), np.log1p(-inside))


def _placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each positive the share of negatives below it, for each negative the share of positives above it; ties half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    above, below = scores[positive], scores[~positive]
    of_positives = (ranks[positive] - rankdata(above)) / len(below)
    of_negatives = 1 - (ranks[~positive] - rankdata(below)) / len(above)
    return of_positives, of_negatives


def _auc_error(of_positives: np.ndarray, of_negatives: np.ndarray) -> float:
    return float(np.hypot(_error(of_positives), _error(of_negatives)))


def _error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values.std() / np.sqrt(len(values)))


# --- the versions -----------------------------------------------------------------------------------------------------


def check(
    lake: Lake, version: str | None = None, limits: Limits | None = None, *, by: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Verdict:  # fmt: skip
    """Compare a version (the newest by default) with the one that serves, and write the verdict into the history.

    Raises RankerError where there is no such version, or no held-out samples are left to compare on.
    """
    verdict = compare(lake, version, registry.serving(lake), limits, say=say)
    found = verdict.as_dict()
    found.pop("version")
    registry.record_check(lake, verdict.version, found, by=by)
    return verdict


def compare(
    lake: Lake, version: str | None = None, other: str | None = None, limits: Limits | None = None, *,
    say: Callable[[str], None] = lambda _: None,
) -> Verdict:  # fmt: skip
    """The verdict on a version beside another one (None: alone); nothing is written. Raises RankerError as `check` does."""
    limits, started = limits or load_limits(), time.perf_counter()
    lake = lake.pinned()
    new = registry.load(lake, version)
    against, notes = _opponent(lake, other if other != new.version else None)
    rankers = [new] if against is None else [new, against]
    held = held_out(lake, [ranker.config for ranker in rankers])
    say(f"scoring {', '.join(ranker.version for ranker in rankers)} on the samples of {held.start} to {held.end}")
    labels, weights, scores, _ = scored(lake, held, rankers, limits.samples)
    rows, reasons = judge(labels, weights, scores[0], scores[1] if against else None, limits)
    return Verdict(
        version=new.version, compared_with=against.version if against else None, passed=not reasons, reasons=reasons,
        heads=rows, samples=len(labels), held_out=[held.start.isoformat(), held.end.isoformat()],
        table_version=held.version, seconds=time.perf_counter() - started, notes=notes,
    )  # fmt: skip


def promote_checked(lake: Lake, version: str | None = None, *, by: str | None = None) -> dict:
    """Let a version serve that has passed the gate against the one that serves now; the entry of the history.

    One that serves already stays: its own entry is returned. Raises RankerError where it was not checked, did not pass, was
    compared with another version, or was rolled back by somebody.
    """
    version = registry.exact(lake, version)
    serves = registry.serving(lake)
    if version == serves:
        return next(one for one in reversed(registry.history(lake)) if one["action"] in registry.MOVES)
    found = registry.last_check(lake, version)
    if found is None:
        raise RankerError(f"the version {version} was not checked; run the check good_enough_to_promote, or `glasshouse ranker promote`")
    if not found["passed"]:
        raise RankerError(f"the version {version} is not good enough to serve: {'; '.join(found['reasons'])}")
    if found["before"] != serves:
        raise RankerError(f"{version} was compared with {found['before'] or 'none'}, and {serves} serves by now; run the check again")
    if version in registry.rolled_back(lake):
        raise RankerError(f"{version} was rolled back; `glasshouse ranker promote {version} --why ...` if it shall serve again")
    beside = f"no worse than {serves}" if found["compared_with"] else "no version served"
    why = f"passed the gate on {found['samples']:,} samples: {beside}"
    return registry.promote(lake, version, why=why, by=by, instead_of=serves)


def _opponent(lake: Lake, name: str | None) -> tuple[registry.Ranker | None, list[str]]:
    """The version to compare with. One that this code cannot read cannot serve either: it is no hurdle, and that is said."""
    if name is None:
        return None, ["no other version serves: judged by its calibration and least AUC alone"]
    try:
        return registry.load(lake, name), []
    except (RankerError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        words = " ".join(str(error).split())[:300]
        return None, [f"the serving version {name} cannot be read by this code ({words}): judged alone"]


@dataclass(frozen=True)
class HeldOut:
    """Samples that no version in question was trained on: session_start in [start, end) of one version of a table."""

    table: str
    version: int
    start: dt.datetime
    end: dt.datetime

    def batches(self, lake: Lake, columns: Sequence[str]):
        """The rows in time order. A version of the table that was tidied away gives way to the newest."""
        version = self.version
        try:
            data = lake.dataset(self.table, version)
        except (LakeError, OSError, ValueError):
            data = lake.dataset(self.table)
        if missing := [name for name in columns if name not in data.schema.names]:
            raise RankerError(f"`{self.table}` version {version} lacks {', '.join(missing)}, which a version to compare reads")
        start, end = (pa.scalar(bound, pa.timestamp("us", "UTC")) for bound in (self.start, self.end))
        hour = pa.scalar(self.start.replace(minute=0, second=0, microsecond=0), pa.timestamp("us", "UTC"))
        # The bound on `hour` lets whole files be skipped.
        inside = (pc.field("hour") >= hour) & (pc.field("hour") < end) & (pc.field("session_start") >= start)
        yield from data.to_batches(columns=list(columns), filter=inside, batch_size=READ_ROWS)


def held_out(lake: Lake, configs: Sequence[dict]) -> HeldOut:
    """What the version of the newest window held out, less what another one was trained on (its cutoff is later)."""
    newest = max(configs, key=lambda one: (one["window"][1], one["cutoff"]))
    cutoff = max(dt.datetime.fromisoformat(one["cutoff"]) for one in configs)
    end = dt.datetime.fromisoformat(newest["window"][1])
    if cutoff >= end:
        raise RankerError(f"no samples are held out from {cutoff.isoformat()} on: train a version on a window that ends later")
    return HeldOut(newest["table"], newest["table_version"], cutoff, end)


def scored(
    lake: Lake, held: HeldOut, rankers: Sequence[registry.Ranker], limit: int, keep: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], pa.Table]:
    """Labels, weights and each version's scores, [n, heads], and the columns to keep; every k-th row where there are more than
    `limit`. Raises RankerError where there are no rows."""
    from assets.ranking.model import predict

    rows = sum(batch.num_rows for batch in held.batches(lake, ["session_start"]))
    if not rows:
        raise RankerError(f"`{held.table}` has no samples from {held.start.isoformat()} on: materialize it, or train anew")
    every, seen = -(-rows // limit), 0
    parts: list[list[np.ndarray]] = [[] for _ in range(2 + len(rankers))]
    kept: list[pa.Table] = []
    needed = [name for ranker in rankers for name in ranker.schema.columns]
    for batch in held.batches(lake, list(dict.fromkeys([*needed, *features.TARGETS, *keep]))):
        wanted = np.arange(-seen % every, batch.num_rows, every)
        seen += batch.num_rows
        table = pa.Table.from_batches([batch]).take(pa.array(wanted))
        encoded = [features.encode(table, rankers[0].schema)]
        for ranker in rankers[1:]:
            encoded.append(encoded[0] if ranker.schema == rankers[0].schema else features.encode(table, ranker.schema))
        # With the position: labels are of displays in their slots, and calibration is about those.
        predicted = (_comparable(predict(ranker.model, one)) for ranker, one in zip(rankers, encoded))
        values = [encoded[0].labels, encoded[0].weights, *predicted]
        for part, value in zip(parts, values, strict=True):
            part.append(value)
        kept.append(table.select(list(keep)))
    labels, weights, *scores = (np.concatenate(part) for part in parts)
    return labels, weights, scores, pa.concat_tables(kept)


def _comparable(scores: np.ndarray) -> np.ndarray:
    """Predictions on the scale of the labels: behind the probabilities comes the reading time, whose label is log1p(seconds)."""
    scores[:, len(HEADS) :] = np.log1p(scores[:, len(HEADS) :])
    return scores
