"""`make bench-gpu` without a GPU: every part runs small on the CPU, says so, and leaves its report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.slow


def bench(*options: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # a dry run where there is a GPU, too
    return subprocess.run([sys.executable, "-m", "benchmarks.gpu", *options], cwd=ROOT, env=env, capture_output=True, text=True, timeout=1000)


def test_dry_run(tmp_path):
    report = tmp_path / "reports" / "gpu.json"
    done = bench("--report", str(report), "--limit", "900")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no GPU: dry run on the CPU" in done.stdout
    found = json.loads(report.read_text())
    assert found["gpu"] is None and found["size"] == "dry"
    assert not [name for name, part in found.items() if isinstance(part, dict) and "failed" in part]
    kinds = {(one["tables"], one["ids"]) for one in found["lookups"]["cpu"]}
    assert kinds == {(tables, ids) for tables in ("FBGEMM", "nn.EmbeddingBag") for ids in ("power-law", "uniform")}
    for one in found["lookups"]["cpu"]:
        assert one["lookups"] >= one["distinct_rows"] > 0 and one["both_s"] > 0 and one["forward_s"] > 0
    assert set(found["criteo"]["speed"]) == {"TorchRec, CPU", "plain nn.EmbeddingBag, CPU"}
    assert all(one["samples_per_s"] > 0 for one in found["criteo"]["speed"].values())
    assert 0.5 < found["criteo-auc"]["runs"]["cpu"]["auc"] < found["criteo-auc"]["best_auc"]
    assert {"cpu", "cpu, another seed"} == set(found["feed-auc"]["runs"])
    assert all(rate > 0 for rate in found["feed"]["speed"].values())


def test_part_that_fails_is_named_and_the_others_run(tmp_path):
    report = tmp_path / "gpu.json"
    done = bench("--report", str(report), "--lake", str(tmp_path / "none"), "--parts", "card", "feed")
    assert done.returncode == 1
    found = json.loads(report.read_text())
    assert "failed" not in found["card"] and "none" in found["feed"]["failed"]


def test_a_folder_without_wheels_is_an_error(tmp_path):
    done = bench("--wheels", str(tmp_path), "--report", str(tmp_path / "gpu.json"))
    assert done.returncode == 1 and "no wheels in" in done.stderr
