"""Model versions in the lake: written whole or not at all, found, loaded, scored.

Here: the folder `<lake root>/_models/ranker/<version>/` with weights.pt, config.json (configuration, table and version
read, window, rules, code version), features.json (the feature schema) and metrics.json. Not here: training (train.py).

A version is written under a name that begins with a dot and renamed at the end: a killed training leaves no version.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from assets.lake import Lake
from assets.ranking import features
from assets.ranking.config import DWELL, HEADS, OUTPUTS, RankerConfig, RankerError

FILES = ("weights.pt", "config.json", "features.json", "metrics.json")
SCORE_ROWS = 16_384


def folder(lake: Lake) -> Path:
    """Where the versions lie. Raises RankerError for a lake on object storage, where a folder cannot be renamed."""
    if "://" in str(lake.root):
        raise RankerError(f"model versions need a lake in a folder, not {lake.root}; train with a local lake root")
    return Path(lake.root) / "_models" / "ranker"


def versions(lake: Lake) -> list[str]:
    """Complete versions, oldest first (a name begins with its time)."""
    if not folder(lake).is_dir():
        return []
    return sorted(p.name for p in folder(lake).iterdir() if p.is_dir() and not p.name.startswith("."))


def latest(lake: Lake) -> str | None:
    """The newest version's name, or None."""
    return next(reversed(versions(lake)), None)


def publish(lake: Lake, write: Callable[[Path], None]) -> str:
    """Let `write` fill a hidden folder, then make it a version under its final name; returns the name.

    Raises RankerError where a file of FILES is missing afterwards. A failure leaves no version behind.
    """
    root = folder(lake)
    name = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%f")
    hidden = root / f".writing-{name}"
    hidden.mkdir(parents=True)
    try:
        write(hidden)
        if missing := [file for file in FILES if not (hidden / file).exists()]:
            raise RankerError(f"the version {name} lacks {', '.join(missing)}")
        hidden.rename(root / name)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return name


def write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2, default=str) + "\n")


def code_version() -> str | None:
    """The commit of this code, with "+changes" where files differ from it; None where there is no git."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@dataclass
class Ranker:
    """A model version in memory, on one CPU process. config and metrics: what its files say."""

    version: str
    schema: features.FeatureSchema
    config: dict
    metrics: dict
    model: object

    def score(self, samples: pa.Table) -> pa.Table:
        """Probabilities of the nine heads: p_click given the display, the others given a click; and dwell_s, the reading time
        in seconds given a click. float32, rows as in. As if each note were shown in the first slot: position is left out.

        samples: the columns of `schema.columns`, as in `training_samples`; labels are not read.
        Raises RankerError where a column is missing.
        """
        parts = [self.score_encoded(features.encode(samples.slice(start, SCORE_ROWS), self.schema, labelled=False))
                 for start in range(0, samples.num_rows, SCORE_ROWS)]  # fmt: skip
        scores = np.concatenate(parts) if parts else np.empty((0, len(OUTPUTS)), np.float32)
        names = [*(f"p_{head}" for head in HEADS), f"{DWELL}_s"]
        return pa.table({name: scores[:, i] for i, name in enumerate(names)})

    def score_encoded(self, batch: features.Encoded) -> np.ndarray:
        """The same for arrays: float32 [n, outputs], the last the seconds read; position is left out."""
        from assets.ranking.model import predict

        return predict(self.model, batch, bias=False)


def load(lake: Lake, version: str | None = None) -> Ranker:
    """A version, the newest by default. Raises RankerError where there is none, naming those that exist."""
    path = _existing(lake, version)
    return read(path, path.name)


def _existing(lake: Lake, version: str | None) -> Path:
    found = versions(lake)
    name = version or latest(lake)
    if name not in found:
        have = ", ".join(found) if found else "none yet; materialize the asset `ranker`"
        raise RankerError(f"the lake at {lake.root} has no ranker version {version or 'at all'}; there are: {have}")
    return folder(lake) / name


def read(path: Path, name: str) -> Ranker:
    """The version in a folder, its metrics empty while it is being written."""
    import torch

    from assets.ranking.model import RankerModel

    config = json.loads((path / "config.json").read_text())
    schema = features.FeatureSchema.from_dict(json.loads((path / "features.json").read_text()))
    metrics = json.loads((path / "metrics.json").read_text()) if (path / "metrics.json").exists() else {}
    model = RankerModel(schema, RankerConfig.from_dict(config["ranker"]), torch.device("cpu"))
    model.load_state_dict(torch.load(path / "weights.pt", weights_only=True))
    return Ranker(name, schema, config, metrics, model.eval())


def read_metrics(lake: Lake, version: str | None = None) -> dict:
    """The metrics of a version, the newest by default, without loading torch. RankerError where there is none."""
    return json.loads((_existing(lake, version) / "metrics.json").read_text())
