"""The ranker for real: TorchRec on gloo, one process and two, against a truth that is known."""

import multiprocessing
import os
import shutil
import signal
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ranking_world import plant, window

from assets.lake import Lake
from assets.ranking import checkpoint, features, registry
from assets.ranking.config import HEADS, NETWORKS, TABLES, RankerConfig, RankerError
from assets.ranking.train import resume, train, unfinished

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
    assert 0.55 < metrics["heads"]["click"]["gauc"] < 1 and metrics["heads"]["click"]["ece"] < 0.05
    assert metrics["heads"]["like"]["auc_display"] > 0.6
    # Reading time is exp(1 + 0.7 taste) seconds with some noise: a model that knew nothing would rank at 0.
    assert metrics["dwell"]["spearman"] > 0.5 and 0 < metrics["dwell"]["mae_s"] < metrics["dwell"]["rmse_s"]


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
    from assets.ranking.model import predict

    lake, _ = planted
    metrics, _ = trained
    ranker, again = registry.load(lake, metrics["version"]), registry.load(lake, metrics["version"])
    cutoff = pa.scalar(metrics["cutoff"]).cast(pa.timestamp("us", "UTC"))
    held = lake.read("training_samples").filter(pc.field("session_start") >= cutoff)
    scores = ranker.score(held)
    assert scores.equals(again.score(held)) and scores.column_names == [*(f"p_{head}" for head in HEADS), "dwell_s"]
    # The metrics are of the display as it was, its position included; a score is as if in the first slot.
    batch = features.encode(held, ranker.schema)
    p_click = predict(ranker.model, batch)[:, 0]
    first = held.set_column(held.schema.get_field_index("position"), "position", pa.array(np.zeros(len(held), np.int32)))
    assert np.allclose(predict(ranker.model, features.encode(first, ranker.schema))[:, 0], scores["p_click"], atol=1e-6)
    late = held["position"].to_numpy() > 5
    assert scores["p_click"].to_numpy()[late].mean() > p_click[late].mean() * 1.05
    loss = -np.log(np.where(held["label_click"].to_numpy() == 1, p_click, 1 - p_click)).mean()
    assert loss == pytest.approx(metrics["heads"]["click"]["log_loss"], abs=1e-5)
    # Labels are not needed, and a row's score does not depend on its neighbours.
    bare = held.select(ranker.schema.columns)
    assert np.allclose(ranker.score(bare.slice(100, 7))["p_like"], scores["p_like"].slice(100, 7), atol=1e-6)
    assert ranker.score(bare.slice(0, 0)).num_rows == 0
    # Users, notes and topics that training never saw, or that are not known, have a score too.
    new = bare.slice(0, 2).set_column(0, "user_id", pa.array([-(2**63), None], pa.int64()))
    assert all(0 < p < 1 for name in scores.column_names[:9] for p in ranker.score(new)[name].to_pylist())
    with pytest.raises(RankerError, match="position"):
        ranker.score(bare.drop_columns(["position"]))


def test_a_version_of_older_code_is_read_and_one_that_does_not_fit_says_so(planted, trained, tmp_path):
    """Before tables lay in one module, those that lists share had one of their own."""
    import torch

    lake, _ = planted
    version = trained[0]["version"]
    older = Lake(str(tmp_path))
    folder = registry.folder(older) / version
    shutil.copytree(registry.folder(lake) / version, folder)
    (folder / registry.SUMS).unlink()  # older code kept no checksums
    ranker = registry.load(lake, version)
    shared = set(ranker.schema.list_columns.values())

    def name_then(name):
        module, _, rest = name.partition(".embeddings.")
        table = rest.removesuffix(".weight")
        return name if module != "embeddings" else f"list_embeddings.embeddings.{rest}" if table in shared else f"embeddings.embedding_bags.{rest}"

    weights, state = (torch.load(folder / file, weights_only=True) for file in ("weights.pt", "optimizer.pt"))
    then = {name_then(name): value for name, value in weights.items()}
    assert {name.partition(".")[0] for name in then if "embed" in name} == {"embeddings", "list_embeddings"}
    torch.save(then, folder / "weights.pt")
    torch.save({**state, "rows": {name_then(name): value for name, value in state["rows"].items()}}, folder / "optimizer.pt")
    found = registry.load(older, version)
    for name, value in ranker.model.state_dict().items():
        assert value.equal(found.model.state_dict()[name]), name
    now = checkpoint.read_version(folder / "optimizer.pt")
    assert now["rows"].keys() == state["rows"].keys() and now.keys() == state.keys()
    torch.save({f"{name}.other": value for name, value in weights.items()}, folder / "weights.pt")
    with pytest.raises(RankerError, match="do not fit.*train the ranker anew"):
        registry.load(older, version)


def test_a_version_says_where_it_comes_from(planted, trained):
    lake, _ = planted
    config = registry.load(lake).config
    assert config["table"] == "training_samples" and config["table_version"] == lake.version("training_samples")
    assert config["ranker"]["tables"] == SMALL and "code_version" in config and config["rules"] is None


def test_two_processes_with_tables_cut_in_every_way(planted):
    """Same data, same quality; the tables of odd size are split over both processes and come back whole."""
    lake, truth = planted
    sharding = {"user_id": "row_wise", "user_topic": "column_wise", "note_id": "column_wise", "author_id": "table_wise"}
    config = RankerConfig(**{**CONFIG, "batch": 128, "epochs": 1}, processes=2, sharding=sharding)
    reports = []
    metrics = train(lake, truth, window(HOURS), config, progress=reports.append)
    assert {name: metrics["sharding"][name] for name in sharding} == sharding
    assert metrics["backend"] == "gloo" or metrics["device"] == "cuda"
    assert [r for r in reports if r["phase"] == "train"][-1]["samples"] == metrics["train_samples"] * config.epochs
    for head in ("click", "long_view"):
        found = metrics["heads"][head]
        assert found["truth_auc"] - 0.07 < found["auc"] < found["truth_auc"] + 0.01, (head, found)
    weights = registry.load(lake, metrics["version"]).model.state_dict()
    moved = weights["embeddings.embeddings.user_id.weight"].abs().sum(dim=1) > config.init * config.dim
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


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_learns(planted, network):
    lake, truth = planted
    changes = {"sequences": ()} if network == "wide_deep" else {"space": "entire"} if network == "mmoe" else {}
    found = train(lake, truth, window(HOURS), RankerConfig(**{**CONFIG, "epochs": 2, "network": network, **changes}))
    for head in ("click", "long_view"):
        assert found["heads"][head]["auc"] > found["heads"][head]["truth_auc"] - 0.06, (head, found["heads"][head])
    assert found["heads"]["like"]["auc_display"] > 0.65 and 0.8 < found["heads"]["click"]["calibration"] < 1.2


KILLED = {**CONFIG, "epochs": 2, "batch": 128, "min_steps": 1, "checkpoint_steps": 20, "checkpoint_s": 0, "threads": 1}


def _train(root, config, run_id):
    train(Lake(root), None, window(2), RankerConfig(**config), run_id=run_id)


def _kill_after(root, config, run_id, step):
    """Train in a process of its own and kill it, with all that it started, once checkpoint `step` or a later one stands."""
    process = multiprocessing.get_context("spawn").Process(target=_train, args=(root, config, run_id))
    process.start()
    folder = registry.folder(Lake(root)) / f".training-{run_id}"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.is_alive():
        if any(int(p.name.removeprefix("step-")) >= step for p in folder.glob("step-*")):
            break
        time.sleep(0.01)
    assert process.is_alive(), "ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.parametrize(("processes", "collisions"), [(1, "hash"), (2, "managed")])
def test_killed_and_resumed_ends_as_if_never_killed(tmp_path, processes, collisions):
    """The same weights to the last bit, and so the same metrics; killed twice, in the first epoch and in the second.

    With maps the tables are too small for their ids, so that rows change owners all the time (but for authors: of those each
    is displayed so often that the first ones stay).
    """
    lake = Lake(str(tmp_path))
    plant(lake, 16_000, 2)
    sharding = {"user_id": "row_wise", "user_topic": "column_wise", "note_id": "row_wise", "topic": "table_wise"}
    config = {**KILLED, "processes": processes, "sharding": sharding if processes > 1 else {}}
    if collisions == "managed":
        tight = {**SMALL, "user_id": 101, "note_id": 61, "author_id": 21, "user_topic": 301}
        config |= {"collisions": collisions, "tables": tight, "shuffle_rows": 2048}
    whole = train(lake, None, window(2), RankerConfig(**config))
    for step in (20, whole["steps"] // 2 + 20):
        _kill_after(lake.root, config, "r1", step)
    assert unfinished(lake) == ["r1"] and registry.versions(lake) == [whole["version"]]
    resumed = train(lake, None, window(2), RankerConfig(**config), run_id="r1")
    assert resumed["resumed_at"] > whole["steps"] // 2 and unfinished(lake) == []
    assert (resumed["heads"], resumed["dwell"]) == (whole["heads"], whole["dwell"])
    if collisions == "managed":
        assert resumed["ids"] == whole["ids"] and all(whole["ids"][name]["evicted"] for name in ("user_id", "note_id", "user_topic"))
        maps = [np.load(registry.folder(lake) / found["version"] / "ids.npz") for found in (whole, resumed)]
        assert all(np.array_equal(maps[0][name], maps[1][name]) for name in maps[0].files)
    for name in ("weights.pt", "optimizer.pt"):
        one, other = (_tensors(registry.folder(lake) / found["version"] / name) for found in (whole, resumed))
        assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one), name


def _tensors(path):
    import torch

    def walk(value, name):
        if isinstance(value, dict):
            for key, part in value.items():
                yield from walk(part, f"{name}/{key}")
        elif isinstance(value, torch.Tensor):
            yield name, value

    return dict(walk(torch.load(path, weights_only=True), ""))


def test_a_run_gone_on_with_must_be_told_the_same(tmp_path):
    lake = Lake(str(tmp_path))
    plant(lake, 3000, 2)

    def stop(report):
        if report["phase"] == "train":
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError):
        train(lake, None, window(2), RankerConfig(**CONFIG), progress=stop, run_id="r2")
    with pytest.raises(RankerError, match="begun otherwise .seed: 7 then, 8 now"):
        train(lake, None, window(2), RankerConfig(**CONFIG, seed=8), run_id="r2")
    # More hours have come since: the run goes on with those that it began with.
    plant(lake, 4000, 3)
    with pytest.raises(RankerError, match="no unfinished run r9; there are: r2"):
        resume(lake, None, "r9")
    metrics = resume(lake, None, "r2")
    assert metrics["epochs"] == CONFIG["epochs"] and registry.load(lake).config["ranker"]["tables"] == SMALL
    assert metrics["train_samples"] + metrics["holdout_samples"] == 3000 and metrics["resumed_at"] is None
    with pytest.raises(RankerError, match="name"):
        train(lake, None, window(2), RankerConfig(**CONFIG), run_id="../r")


def test_killed_after_its_version_was_published_a_run_publishes_no_second_one(tmp_path, monkeypatch):
    import shutil

    lake = Lake(str(tmp_path))
    plant(lake, 300, 2)
    remove = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, **how: remove(path, **how) if how else None)  # as if killed there
        first = train(lake, None, window(2), RankerConfig(**CONFIG), run_id="r4")
    assert unfinished(lake) == ["r4"]
    again = train(lake, None, window(2), RankerConfig(**CONFIG), run_id="r4")
    assert again["version"] == first["version"] and unfinished(lake) == [] and len(registry.versions(lake)) == 1


def test_a_run_that_is_under_way_cannot_be_joined(tmp_path):
    lake = Lake(str(tmp_path))
    plant(lake, 300, 2)

    def again(report):
        if report["phase"] == "prepare":
            with pytest.raises(RankerError, match="another process trains"):
                train(lake, None, window(2), RankerConfig(**CONFIG), run_id="r3")

    train(lake, None, window(2), RankerConfig(**CONFIG), progress=again, run_id="r3")


def test_going_on_from_a_version(planted, trained, tmp_path):
    """Weights, row states and Adam's state come along: one epoch more starts where the version's training ended."""
    lake, truth = planted
    version = trained[0]["version"]
    before = registry.load(lake, version)
    config = RankerConfig(**{**CONFIG, "epochs": 1, "lr_dense": 1e-9, "lr_embedding": 1e-9})
    same = train(lake, truth, window(HOURS), config, start_from=version)
    found = registry.load(lake, same["version"])
    for name, value in before.model.state_dict().items():
        assert np.allclose(value, found.model.state_dict()[name], atol=1e-5), name
    assert found.schema == before.schema and found.config["start_from"] == version
    states = [_tensors(registry.folder(lake) / v / "optimizer.pt") for v in (version, same["version"])]
    grown = [float((states[1][key] - states[0][key]).min()) for key in states[0] if key.startswith("/rows")]
    assert min(grown) >= 0 and any((states[1][key] > states[0][key]).any() for key in states[0] if key.startswith("/rows"))
    steps = [state["/adam/state/0/step"].item() for state in states]
    assert steps[1] == steps[0] + same["steps"]
    more = train(lake, None, window(HOURS), RankerConfig(**{**CONFIG, "holdout": 0, "epochs": 1}), start_from=version)
    assert more["heads"] == {} and more["holdout_samples"] == 0 and more["train_samples"] == 60_000
    with pytest.raises(RankerError, match="dim differ"):
        train(lake, None, window(HOURS), RankerConfig(**{**CONFIG, "dim": 8}), start_from=version)
    with pytest.raises(RankerError, match="there are"):
        train(lake, None, window(HOURS), start_from="20200101")


def test_an_empty_window_is_a_clear_error(lake):
    with pytest.raises(RankerError, match="materialize"):
        train(lake, None, window(2), RankerConfig())
