"""The ranker for real: TorchRec on gloo, one process and two, against a truth that is known."""

import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ranking_world import plant, window

from assets.lake import Lake
from assets.ranking import registry
from assets.ranking.config import HEADS, TABLES, RankerConfig, RankerError
from assets.ranking.train import train

pytestmark = pytest.mark.slow

HOURS = 6
# Odd sizes: tables need not divide by the number of processes.
SMALL = {**{name: 211 for name in TABLES}, "user_id": 1999, "note_id": 2003, "user_topic": 8191}
CONFIG = {"tables": SMALL, "hidden": (64, 32), "batch": 256, "epochs": 3, "lr_embedding": 0.1}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A lake with 60,000 samples, of which none is hidden by its reader, and the folder of the truth."""
    folder = tmp_path_factory.mktemp("ranker")
    lake = Lake(str(folder / "lake"))
    plant(lake, 60_000, HOURS, truth=folder / "truth", without=("hide",))
    return lake, folder / "truth"


@pytest.fixture(scope="module")
def trained(planted):
    lake, truth = planted
    reports = []
    return train(lake, truth, window(HOURS), RankerConfig(**CONFIG), progress=reports.append), reports


def test_auc_comes_near_the_truth(trained):
    metrics, _ = trained
    for head in ("click", "like", "share", "long_view"):
        found = metrics["heads"][head]
        assert 0.6 < found["truth_auc"] - 0.04 < found["auc"] < found["truth_auc"] + 0.01, (head, found)
        assert 0.85 < found["calibration"] < 1.15 and found["log_loss"] > found["truth_log_loss"] - 0.01
    assert metrics["truth_coverage"] == 1 and abs(metrics["holdout_samples"] - 12_000) < 500
    assert metrics["heads"]["like"]["samples"] == metrics["heads"]["click"]["positives"]


def test_a_head_without_positives_is_reported_as_none(trained):
    found = trained[0]["heads"]["hide"]
    assert found["positives"] == 0 and found["auc"] is found["truth_auc"] is found["calibration"] is None


def test_progress_and_loss_curve(trained):
    metrics, reports = trained
    steps = [r for r in reports if r["phase"] == "train"]
    assert [r["phase"] for r in reports if r["phase"] != "train"] == ["prepare", "evaluate"]
    assert steps[-1]["step"] == steps[-1]["steps"] == metrics["steps"] and steps[-1]["samples_per_s"] > 0
    assert metrics["loss_curve"][-1]["loss"] == steps[-1]["loss"]


def test_a_reloaded_version_gives_the_same_scores(planted, trained):
    lake, _ = planted
    metrics, _ = trained
    ranker, again = registry.load(lake, metrics["version"]), registry.load(lake, metrics["version"])
    cutoff = pa.scalar(metrics["cutoff"]).cast(pa.timestamp("us", "UTC"))
    held = lake.read("training_samples").filter(pc.field("session_start") >= cutoff)
    scores = ranker.score(held)
    assert scores.equals(again.score(held)) and scores.column_names == [f"p_{head}" for head in HEADS]
    p_click = scores["p_click"].to_numpy()
    loss = -np.log(np.where(held["label_click"].to_numpy() == 1, p_click, 1 - p_click)).mean()
    assert loss == pytest.approx(metrics["heads"]["click"]["log_loss"], abs=1e-5)
    # Labels are not needed, and a row's score does not depend on its neighbours.
    bare = held.select(ranker.schema.columns)
    assert np.allclose(ranker.score(bare.slice(100, 7))["p_like"], scores["p_like"].slice(100, 7), atol=1e-6)
    assert ranker.score(bare.slice(0, 0)).num_rows == 0
    # Users, notes and topics that training never saw, or that are not known, have a score too.
    new = bare.slice(0, 2).set_column(0, "user_id", pa.array([-(2**63), None], pa.int64()))
    assert all(0 < p < 1 for name in scores.column_names for p in ranker.score(new)[name].to_pylist())
    with pytest.raises(RankerError, match="position"):
        ranker.score(bare.drop_columns(["position"]))


def test_a_version_says_where_it_comes_from(planted, trained):
    lake, _ = planted
    config = registry.load(lake).config
    assert config["table"] == "training_samples" and config["table_version"] == lake.version("training_samples")
    assert config["ranker"]["tables"] == SMALL and "code_version" in config and config["rules"] is None


def test_two_processes_with_row_wise_tables(planted):
    """Same data, same quality; the tables of odd size are split over both processes and come back whole."""
    lake, truth = planted
    sharding = {"user_id": "row_wise", "user_topic": "row_wise", "note_id": "table_wise"}
    config = RankerConfig(**{**CONFIG, "batch": 128}, processes=2, sharding=sharding)
    reports = []
    metrics = train(lake, truth, window(HOURS), config, progress=reports.append)
    assert {name: metrics["sharding"][name] for name in sharding} == sharding
    assert metrics["backend"] == "gloo" or metrics["device"] == "cuda"
    assert [r for r in reports if r["phase"] == "train"][-1]["samples"] == metrics["train_samples"] * config.epochs
    for head in ("click", "long_view"):
        found = metrics["heads"][head]
        assert found["truth_auc"] - 0.05 < found["auc"] < found["truth_auc"] + 0.01, (head, found)
    weights = registry.load(lake, metrics["version"]).model.state_dict()
    moved = weights["embeddings.embedding_bags.user_id.weight"].abs().sum(dim=1) > config.init * config.dim
    assert moved[:999].any() and moved[1000:].any()  # rows of both shards were trained


def test_tiny_log_without_truth_trains_twice_in_one_process(tmp_path):
    """Few rows, no positives of most heads, called from a thread as Dagster does, with one group after the other."""
    lake = Lake(str(tmp_path))
    plant(lake, 300, 2, without=HEADS[1:])
    found = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(train(lake, None, window(2), RankerConfig(**CONFIG))))
        thread.start()
        thread.join()
    assert len(found) == 2 and registry.versions(lake) == [m["version"] for m in found]
    assert found[0]["truth_coverage"] is None and found[0]["heads"]["like"]["auc"] is None
    assert found[0]["heads"] == found[1]["heads"]  # same seed, same data, same result


def test_an_error_in_training_leaves_no_version_and_the_next_run_works(planted, tmp_path):
    lake = Lake(str(tmp_path))
    plant(lake, 300, 2)

    def stop(report):
        if report["phase"] == "train":
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        train(lake, None, window(2), RankerConfig(**CONFIG), progress=stop)
    assert registry.versions(lake) == []
    train(lake, None, window(2), RankerConfig(**CONFIG))
    assert len(registry.versions(lake)) == 1


def _train_forever(root):
    train(Lake(root), None, window(HOURS), RankerConfig(**{**CONFIG, "epochs": 10_000}))


def test_a_killed_training_leaves_no_version(planted, tmp_path):
    lake = Lake(str(tmp_path))
    plant(lake, 2000, HOURS)
    process = multiprocessing.get_context("spawn").Process(target=_train_forever, args=(lake.root,))
    process.start()
    deadline = time.monotonic() + 120
    while not list(registry.folder(lake).glob(".writing-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert list(registry.folder(lake).iterdir()) and registry.versions(lake) == []


def test_an_empty_window_is_a_clear_error(lake):
    with pytest.raises(RankerError, match="materialize"):
        train(lake, None, window(2), RankerConfig())
