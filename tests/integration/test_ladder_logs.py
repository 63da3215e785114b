"""The ladder's logs through the whole line, Spark's part included: its own traffic, and days of the KuaiRand subset."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from assets.ranking.config import HEADS
from assets.ranking.ladder import climb
from benchmarks.ladder import data

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("spark")]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def first_days(kuairand, tmp_path):
    """Two days of the subset: each hour of a log costs time in the jobs, however little happened in it."""
    rows = pl.read_csv(kuairand, separator="\t", infer_schema=False)
    since = rows["time_ms"].cast(pl.Int64)
    path = tmp_path / "days.tsv.gz"
    with gzip.open(path, "wb") as file:
        rows.filter(since < since.min() + 2 * 86_400_000).write_csv(file, separator="\t")
    return path


def test_kuairand_from_the_file_to_samples(first_days, tmp_path):
    """Its own play time makes long view; no truth; the log is made once."""
    said = []
    log = data.kuairand(tmp_path, first_days, said.append)
    options = climb.Options(models=("popularity", "lightgbm"), seeds=(1,), rounds=20)
    rows = climb.climb(log.name, log.lake, log.window, log.truth, options, said.append)
    found = {(r["model"], r["head"]): r for r in rows}
    assert found["lightgbm", "long_view"]["auc"] < 0.9  # with play time among the features it would be 1
    assert found["lightgbm", "click"]["auc"] > 0.6 and found["lightgbm", "click"]["truth_auc"] is None
    assert found["lightgbm", "fav"]["auc"] is None  # KuaiRand's subset has no favourites
    again = []
    assert data.kuairand(tmp_path, first_days, again.append).window == log.window and again == []


def test_traffic_is_made_once_and_the_command_writes_the_report(tmp_path):
    said = []
    log = data.generated(tmp_path, 3, 0.2, data.SEED, said.append)
    assert len(log.window.hours) == 3 and "generating 25,000 events" in said[0]
    command = [sys.executable, "-m", "benchmarks.ladder", "--data", "generated", "--hours", "3", "--scale", "0.2", "--seeds", "1",
               "--models", "popularity,lightgbm", "--folder", str(tmp_path), "--report", str(tmp_path / "ladder.json")]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "ladder.json").read_text())["rows"]
    wanted = {"data", "model", "head", "auc", "auc_low", "auc_high", "truth_auc", "log_loss", "calibration"}
    assert len(rows) == 2 * len(HEADS) and all(wanted <= set(row) for row in rows)
    click = next(row for row in rows if (row["model"], row["head"]) == ("popularity", "click"))
    assert 0.5 < click["auc"] < click["truth_auc"] < 0.9
    assert "popularity" in done.stdout and "the truth" in done.stdout
    assert not list(tmp_path.glob("*.part"))
