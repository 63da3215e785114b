"""Always fresh: each stretch of closed samples trains the last version on, once, and the result is a version.

Here: which stretch is next, what a version knows of the stretches behind it, progressive validation, the loop. Not here: a
training (train.py), which version serves (registry.py), labels.

A version says in its config.json how far its training has come (`fresh.until`; of a version trained as a whole: its cutoff, so that
what it held out is trained next). Weights, maps and that moment appear in one rename: killed anywhere, a stretch is trained into
a line of versions once. A stretch is validated first: the version before predicts it, then it is trained on.

What is closed: an hour of `training_samples` that was written once its labels could not change any more (2 W + delay after its
end), and of which the labeler says so too (`labeled_hours`). Who writes samples of an hour before its end says up to when they
are closed, as `closed_until` in the note of the same commit.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa

from assets.attribution.rules import Rules
from assets.lake import EPOCH, TIME, Lake, Window
from assets.ranking import checkpoint, evaluate, features, registry, samples, train
from assets.ranking.config import DWELL, RankerConfig, RankerError

FOLDER = ".fresh"  # beside the versions: the lock, and the training in hand
VALIDATED = "validated.npz"  # of a version: what was predicted of the newest samples before they were trained on
VALIDATED_ROWS = 50_000
NOTE = "closed_until"
HOUR = dt.timedelta(hours=1)
ABANDONED_S = 3600  # a version that has been in writing for so long is of a killed process

Tell = Callable[[dict], None]


@dataclass(frozen=True)
class FreshConfig:
    """longest: of a stretch; one never crosses an hour. batch: samples a step. lr_dense: of Adam; None: a tenth of what the version
    trained as a whole began with. keep: versions of this loop that are kept; one that was ever promoted stays. threads:
    of torch, 0 for what the version was trained with.
    """

    longest: dt.timedelta = HOUR
    batch: int = 256
    lr_dense: float | None = None
    keep: int = 20
    threads: int = 0

    def __post_init__(self) -> None:
        if not dt.timedelta(minutes=1) <= self.longest <= HOUR:
            raise RankerError("fresh training: a stretch lasts from a minute to an hour")
        if self.batch < 1 or self.keep < 2:
            raise RankerError("fresh training: batch is at least 1, keep at least 2")


def once(lake: Lake, config: FreshConfig | None = None, rules: Rules | None = None, tell: Tell | None = None) -> list[dict]:
    """Train on every stretch that is closed and that the version to go on from has not seen; a version each. Returns their metrics.

    tell: called with what `train` reports, and with {"phase": "published", ...} after each version. Raises RankerError without
    a version to begin with, and where another process is at it.
    """
    config, rules, tell = config or FreshConfig(), rules or Rules(), tell or (lambda _: None)
    place = registry.folder(lake) / FOLDER
    found = []
    with checkpoint.held(place):
        _sweep(registry.folder(lake))
        while (following := next_stretch(lake, config, rules)) is not None:
            metrics = _train_on(lake, *following, place / "run", config, rules, tell)
            found.append(metrics)
            tell({"phase": "published", "version": metrics["version"], **metrics["fresh"]})
            _forget(lake, config.keep)
    return found


def follow(
    lake: Lake, every_s: float, stop: Event, config: FreshConfig | None = None, rules: Rules | None = None, tell: Tell | None = None,
) -> int:  # fmt: skip
    """`once` every `every_s` seconds until stopped; returns how many versions were published."""
    published = 0
    while True:
        began = time.monotonic()
        published += len(once(lake, config, rules, tell))
        if stop.wait(max(0.0, every_s - (time.monotonic() - began))):
            return published


# --- which samples are next -------------------------------------------------------------------------------------------


def head(lake: Lake) -> str | None:
    """The version to go on from: the newest of the line that began with the newest version trained as a whole.

    Not simply the newest: what was in training while that one appeared still belongs to the line before.
    """
    line = None
    for version in reversed(registry.versions(lake)):
        said = _said_of(lake, version).get("fresh")
        if said is None:
            return line.get(version, version) if line else version
        line = line or {}
        line.setdefault(said["base"], version)
    return None


def next_stretch(lake: Lake, config: FreshConfig, rules: Rules) -> tuple[str, samples.Split] | None:
    """The version to go on from, and the oldest closed samples that it has not seen, cut at the hour and at `longest`; None
    without any. Raises RankerError without a version."""
    version = head(lake)
    if version is None:
        raise RankerError("there is no version of the ranker to go on from; materialize the asset `ranker` first")
    lake = lake.pinned()
    if not lake.exists(samples.TABLE):
        return None
    start = seen_until(lake, version)
    end = closed_until(lake, start, rules)
    table_version = lake.version(samples.TABLE)
    while start < end:
        hour = start.replace(minute=0, second=0, microsecond=0)
        upto = min(start + config.longest, hour + HOUR, end)
        where = samples.between(lake, start, upto, table_version)
        if where.train_rows:
            return version, where
        start = upto
    return None


def seen_until(lake: Lake, version: str) -> dt.datetime:
    """Samples that began before this have trained the version."""
    said = _said_of(lake, version)
    return dt.datetime.fromisoformat(said["fresh"]["until"] if said.get("fresh") else said["cutoff"])


def _said_of(lake: Lake, version: str) -> dict:
    return json.loads((registry.folder(lake) / version / "config.json").read_text())


def closed_until(lake: Lake, after: dt.datetime, rules: Rules) -> dt.datetime:
    """All samples in [after, this) that there will be are there, with labels that stay. `after` where none is."""
    if (said := _said(lake)) is not None:
        return max(after, said)
    settled = after
    written, labeled = _written(lake, samples.TABLE), _labeled(lake)
    for hour in sorted(hour for hour in written if hour + HOUR > after):
        late = rules.window * 2 + rules.delay
        if written[hour] < hour + HOUR + late or (labeled is not None and hour not in labeled):
            break
        settled = max(settled, hour + HOUR)
    return settled


def _written(lake: Lake, name: str) -> dict[dt.datetime, dt.datetime]:
    """Hour -> when its newest file was written."""
    found: dict[dt.datetime, dt.datetime] = {}
    actions = pa.table(lake.open(name).get_add_actions(flatten=True))
    hours = actions.column("partition.hour").cast(TIME).cast(pa.int64()).to_pylist()
    times = actions.column("modification_time").cast(pa.timestamp("ms")).cast(pa.int64()).to_pylist()
    for hour, moment in zip(hours, times, strict=True):
        hour, moment = EPOCH + dt.timedelta(microseconds=hour), EPOCH + dt.timedelta(milliseconds=moment)
        found[hour] = max(moment, found.get(hour, moment))
    return found


def _labeled(lake: Lake) -> set[dt.datetime] | None:
    """The hours that the labeler has closed; None for samples whose labels were not made here."""
    return set(lake.hours("labeled_hours")) if lake.exists("labeled_hours") else None


def _said(lake: Lake) -> dt.datetime | None:
    """What the commit that wrote the table's present version said of it."""
    if lake.log is None or not (numbers := lake.log.numbers()):
        return None
    version = lake.version(samples.TABLE)
    place = bisect_left(numbers, version, key=lambda number: lake.log.moment(number).tables.get(samples.TABLE, -1))
    if place == len(numbers) or (moment := lake.log.moment(numbers[place])).tables.get(samples.TABLE) != version:
        return None
    return dt.datetime.fromisoformat(moment.note[NOTE]) if NOTE in moment.note else None


# --- one stretch ------------------------------------------------------------------------------------------------------


def _train_on(
    lake: Lake, version: str, where: samples.Split, folder: Path, config: FreshConfig, rules: Rules, tell: Tell
) -> dict:
    started = time.perf_counter()
    before = registry.read(registry.folder(lake) / version, version)
    validated = _validated(before, where)
    settings = _settings(before.config, where, config)
    said = before.config.get("fresh") or {"base": version, "trained": [], "stretches": 0}
    span = [where.since.isoformat(), where.cutoff.isoformat()]
    fresh = {
        "base": said["base"], "parent": version, "from": span[0], "until": span[1], "rows": where.train_rows,
        "stretches": said["stretches"] + 1, "trained": _joined(said["trained"], span),
    }  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kept = _kept_rows(registry.folder(lake) / version, validated)
    found = {**_metrics(kept), "stretch": _short(_metrics(validated)), "fresh": fresh}
    metrics = train.go_on(
        where, version, settings, folder, found, {"fresh": fresh}, rules, tell, started, beside=lambda out: _keep(out, kept),
    )  # fmt: skip
    shutil.rmtree(folder)
    return metrics


def _settings(said: dict, where: samples.Split, config: FreshConfig) -> RankerConfig:
    """The version's configuration, for going on: all rows train, once, at a rate that stays. The seed is the stretch's: the same
    stretch, after a kill, gives the same version."""
    base = RankerConfig.from_dict(said["ranker"])
    lr_dense = config.lr_dense or (base.lr_dense if said.get("fresh") else base.lr_dense / 10)
    return replace(
        base, holdout=0.0, epochs=1, lr_dense=lr_dense, lr_final=1.0, batch=config.batch, min_steps=1, processes=1,
        checkpoint_s=0.0, checkpoint_steps=0, threads=config.threads or base.threads,
        seed=int(where.since.timestamp()) % 2**31,
    )  # fmt: skip


def _validated(ranker: registry.Ranker, where: samples.Split) -> dict[str, np.ndarray]:
    """Scores of the stretch by the version that has not seen it, beside its labels: scores, labels, weights, users, in time order."""
    from assets.ranking.model import predict

    columns = list(dict.fromkeys([*ranker.schema.columns, *features.TARGETS, "user_id"]))
    parts: list[tuple] = []
    for rows in samples.tables(where, columns):
        # Labels are encoded apart: what is predicted from holds none.
        inputs = features.encode(rows, ranker.schema, labelled=False)
        scores = predict(ranker.model, inputs)
        batch = features.encode(rows, ranker.schema)
        parts.append((scores, batch.labels, batch.weights, rows["user_id"].fill_null(0).to_numpy()))
    return dict(zip(("scores", "labels", "weights", "users"), map(np.concatenate, zip(*parts)), strict=True))


def _kept_rows(parent: Path, new: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The newest VALIDATED_ROWS validated samples of the line: a stretch of a minute alone says little."""
    if not (parent / VALIDATED).exists():
        return {name: value[-VALIDATED_ROWS:] for name, value in new.items()}
    with np.load(parent / VALIDATED) as old:
        return {name: np.concatenate([old[name], value])[-VALIDATED_ROWS:] for name, value in new.items()}


def _keep(out: Path, rows: dict[str, np.ndarray]) -> None:
    np.savez(out / VALIDATED, **rows)


def _metrics(of: dict[str, np.ndarray]) -> dict:
    scores, labels, weights = of["scores"], of["labels"], of["weights"]
    heads = evaluate.by_head(scores, labels, weights, None, of["users"])
    dwell = evaluate.dwell(scores[:, -1], np.expm1(labels[:, -1]), weights[:, -1] > 0)
    return {"heads": heads, DWELL: dwell, "truth_coverage": None, "evaluated_samples": len(scores), "validation": "progressive"}


def _short(metrics: dict) -> dict:
    names = ("samples", "positives", "auc", "log_loss", "calibration")
    return {head: {name: found[name] for name in names} for head, found in metrics["heads"].items()}


def _joined(spans: list[list[str]], span: list[str]) -> list[list[str]]:
    """Spans with one more, neighbours in one."""
    if spans and spans[-1][1] == span[0]:
        return [*spans[:-1], [spans[-1][0], span[1]]]
    return [*spans, span]


# --- tidying ----------------------------------------------------------------------------------------------------------


def _sweep(root: Path) -> None:
    """Remove versions whose writer was killed in the middle."""
    for path in root.glob(".writing-*"):
        if time.time() - path.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)


def _forget(lake: Lake, keep: int) -> None:
    """Remove the oldest versions of this loop but for `keep`; never one that was promoted, nor one trained as a whole."""
    root = registry.folder(lake)
    named = set(_promoted(root))
    ours = [v for v in registry.versions(lake) if _said_of(lake, v).get("fresh")]
    for version in ours[:-keep]:
        if version not in named:
            hidden = root / f".gone-{version}"  # a reader finds a version whole or not at all
            (root / version).rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)


def _promoted(root: Path) -> Iterator[str]:
    """Versions that the history of what served names."""
    for path in (root / ".serving").glob("[0-9]*.json"):
        entry = json.loads(path.read_text())
        yield from (entry[name] for name in ("version", "before") if entry.get(name))
