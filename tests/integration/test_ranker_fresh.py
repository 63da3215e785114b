"""Training that goes on with each stretch of closed samples: once each, validated first, whatever kills it."""

import datetime as dt
import json
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ranking_world import SAMPLES, START, draw, window

from assets.attribution.rules import Rules
from assets.lake import Lake, Write
from assets.ranking import evaluate, features, fresh, registry, samples
from assets.ranking.config import HEADS, TABLES, RankerConfig, RankerError
from assets.ranking.fresh import FreshConfig
from assets.ranking.train import train

pytestmark = pytest.mark.slow

HOURS = 4
SMALL = {**{name: 211 for name in TABLES}, "user_id": 101, "note_id": 83}
CONFIG = {
    "tables": SMALL, "hidden": (32, 16), "batch": 256, "min_steps": 50, "threads": 1, "holdout": 0, "checkpoint_s": 0,
    "collisions": "managed", "admit_after": 1,
}  # fmt: skip
FRESH = FreshConfig(longest=dt.timedelta(minutes=30), threads=1)


def at(hours: float) -> dt.datetime:
    return START + dt.timedelta(hours=hours)


@pytest.fixture(scope="module")
def world():
    return draw(24_000, HOURS)[0]


@pytest.fixture
def begun(tmp_path, world):
    """A lake with a version trained on the first two hours."""
    lake = Lake(str(tmp_path))
    write(lake, world, at(2))
    return lake, train(lake, None, window(2), RankerConfig(**CONFIG))["version"]


def write(lake, world, until):
    """The samples that began before `until`, closed up to there."""
    end = until.replace(minute=0) if until.minute == 0 else until.replace(minute=0) + dt.timedelta(hours=1)
    rows = world.filter(pc.field("session_start") < pa.scalar(until))
    over = window(int((end - START) / dt.timedelta(hours=1)))
    lake.commit([lake.stage(Write(SAMPLES, rows, over))], by="test", note={fresh.NOTE: until.isoformat()})


def line(lake):
    """What the versions say of themselves, oldest first."""
    found = [json.loads((registry.folder(lake) / v / "config.json").read_text()) for v in registry.versions(lake)]
    return [said["fresh"] for said in found if said.get("fresh")]


def test_each_stretch_makes_a_version_and_is_trained_once(begun, world):
    lake, base = begun
    assert fresh.once(lake, FRESH) == []
    write(lake, world, at(2.75))
    first = fresh.once(lake, FRESH)
    assert [(f["fresh"]["from"], f["fresh"]["until"]) for f in first] == [
        (at(2).isoformat(), at(2.5).isoformat()), (at(2.5).isoformat(), at(2.75).isoformat()),
    ]  # fmt: skip
    assert fresh.once(lake, FRESH) == []
    write(lake, world, at(4))
    fresh.once(lake, FRESH)
    told = line(lake)
    assert [f["until"] for f in told] == [at(x).isoformat() for x in (2.5, 2.75, 3, 3.5, 4)]
    assert [f["parent"] for f in told] == [base, *registry.versions(lake)[1:-1]] and {f["base"] for f in told} == {base}
    assert told[-1]["trained"] == [[at(2).isoformat(), at(4).isoformat()]] and told[-1]["stretches"] == 5
    times = world["session_start"]
    assert sum(f["rows"] for f in told) == pc.sum(pc.greater_equal(times, pa.scalar(at(2)))).as_py()
    # Adam counts its steps through the line.
    assert adam_steps(lake, registry.latest(lake)) > adam_steps(lake, base)
    ranker = registry.load(lake)
    assert ranker.schema.ids.of["user_id"].clock == world.num_rows and ranker.score(world.slice(0, 5)).num_rows == 5


def adam_steps(lake, version):
    import torch

    return torch.load(registry.folder(lake) / version / "optimizer.pt", weights_only=True)["adam"]["state"][0]["step"].item()


def test_a_stretch_is_predicted_by_the_version_that_has_not_seen_it(begun, world):
    """The metrics are those of the parent's own scores; with all labels turned round it predicts the same."""
    from assets.ranking.model import predict

    lake, base = begun
    parent = registry.load(lake, base)
    write(lake, world, at(2.5))
    (metrics,) = fresh.once(lake, FRESH)
    inside = world.filter((pc.field("session_start") >= pa.scalar(at(2))) & (pc.field("session_start") < pa.scalar(at(2.5))))
    batch = features.encode(inside, parent.schema)
    expected = predict(parent.model, batch)
    assert metrics["heads"]["click"]["auc"] == pytest.approx(evaluate.auc(expected[:, 0], batch.labels[:, 0]), abs=1e-9)
    assert metrics["heads"]["click"]["samples"] == inside.num_rows and metrics["validation"] == "progressive"
    turned = world
    for head in HEADS:
        i = turned.schema.get_field_index(f"label_{head}")
        turned = turned.set_column(i, SAMPLES.schema.field(f"label_{head}"), pc.subtract(pa.scalar(1, pa.int32()), turned[f"label_{head}"]))
    write(lake, turned, at(2.5))
    where = samples.between(lake, at(2), at(2.5), lake.version("training_samples"))
    again = fresh._validated(parent, where)
    assert np.array_equal(again["scores"], np.load(registry.folder(lake) / metrics["version"] / fresh.VALIDATED)["scores"])
    assert np.array_equal(again["labels"][:, 0], 1 - batch.labels[:, 0])


def test_training_on_helps_on_what_comes_next(begun, world):
    lake, base = begun
    before = registry.load(lake, base)
    write(lake, world, at(3.5))
    fresh.once(lake, FRESH)
    after = registry.load(lake)
    held = world.filter(pc.field("session_start") >= pa.scalar(at(3.5)))
    aucs = [evaluate.auc(r.score(held)["p_click"].to_numpy(), held["label_click"].to_numpy()) for r in (before, after)]
    assert aucs[1] > aucs[0]


def _follow(root):
    fresh.once(Lake(root), FRESH)


def test_killed_anywhere_nothing_is_lost_or_trained_twice(begun, world, tmp_path_factory):
    """Killed with SIGKILL at four moments; in the end the weights are those of a loop that nobody killed."""
    import shutil

    import torch

    lake, _ = begun
    twin = Lake(str(tmp_path_factory.mktemp("twin") / "lake"))
    shutil.copytree(lake.root, twin.root)
    for one in (lake, twin):
        write(one, world, at(4))
    fresh.once(twin, FRESH)
    context = multiprocessing.get_context("spawn")
    for kill in ("run", "rank", "writing", "version"):
        process = context.Process(target=_follow, args=(lake.root,))
        had = len(registry.versions(lake))
        process.start()
        wait_for(lambda: not process.is_alive() or reached(lake, kill, had))
        assert process.is_alive(), "ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    fresh.once(lake, FRESH)
    mine, other = line(lake), line(twin)
    for one, two in zip(mine, other, strict=True):
        assert (one["from"], one["until"], one["rows"], one["trained"]) == (two["from"], two["until"], two["rows"], two["trained"])
    found = [torch.load(registry.folder(x) / registry.latest(x) / "weights.pt", weights_only=True) for x in (lake, twin)]
    assert all(found[0][name].equal(found[1][name]) for name in found[0])


def reached(lake, point, had):
    root = registry.folder(lake)
    if point == "run":
        return (root / fresh.FOLDER / "run").exists()
    if point == "rank":
        return any((root / fresh.FOLDER / "run").glob("done/rank-0.pt"))
    if point == "writing":
        return any(root.glob(".writing-*/config.json"))
    return len(registry.versions(lake)) > had


def wait_for(what, seconds=200):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not what():
        time.sleep(0.002)


def test_only_closed_hours_count(begun, world):
    """An hour written before its labels had settled is not trained on; written later, it is, if the labeler has closed it."""
    lake, _ = begun
    lake.replace_window(SAMPLES, world, window(HOURS))  # long after: no note, no labeler
    assert fresh.closed_until(lake, at(2), Rules()) == at(4)
    slow = Rules(window=dt.timedelta(days=365 * 40))
    assert fresh.closed_until(lake, at(2), slow) == at(2)
    from assets.attribution.tables import LABELED_HOURS

    lake.create(LABELED_HOURS)
    row = {name: None for name in LABELED_HOURS.schema.names} | {"hour": at(2)}
    lake.replace_window(LABELED_HOURS, pa.Table.from_pylist([row], LABELED_HOURS.schema), window(3))
    assert fresh.closed_until(lake, at(2), Rules()) == at(3)


def test_old_versions_of_the_loop_go_but_promoted_ones_stay(begun, world):
    lake, base = begun
    write(lake, world, at(3))
    config = FreshConfig(longest=dt.timedelta(minutes=15), keep=2, threads=1)
    first = fresh.once(lake, FreshConfig(longest=dt.timedelta(minutes=60), keep=2, threads=1))[0]["version"]
    place = registry.folder(lake) / ".serving"
    place.mkdir()
    (place / "00000001.json").write_text(json.dumps({"action": "promote", "version": first, "before": None}))
    write(lake, world, at(4))
    last = [m["version"] for m in fresh.once(lake, config)]
    assert registry.versions(lake) == [base, first, *last[-2:]]


def test_the_loop_stops_and_is_alone(begun, world):
    lake, _ = begun
    write(lake, world, at(2.5))
    stop, found = threading.Event(), []

    def tell(report):
        if report["phase"] == "published":
            with pytest.raises(RankerError, match="another process"):
                fresh.once(lake, FRESH)
            stop.set()

    found.append(fresh.follow(lake, 0.1, stop, FRESH, tell=tell))
    assert found == [1]


def test_without_a_version_it_says_what_to_do(tmp_path):
    with pytest.raises(RankerError, match="materialize"):
        fresh.once(Lake(str(tmp_path)))
    with pytest.raises(RankerError, match="longest|stretch"):
        FreshConfig(longest=dt.timedelta(hours=2))
