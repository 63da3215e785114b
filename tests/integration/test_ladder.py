"""The ladder end to end on a small world: every rung, rows of the report, no outcome read, a planted leak refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ranking_world import draw, plant, window

from assets.lake import Lake, Table
from assets.ranking import features, registry, samples
from assets.ranking.config import HEADS, TABLES, RankerConfig, RankerError, load
from assets.ranking.ladder import baselines, climb, read

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HOURS = 6
RANKER = {"tables": {**{name: 211 for name in TABLES}, "user_id": 1999, "note_id": 2003}, "batch": 256}


def fill(lake, rows, truth=None, **columns):
    """Samples of the test world with the note's clicks, and further columns as given."""
    if truth is not None:
        plant(lake, rows, HOURS, truth=truth)
    table, chance = draw(rows, HOURS)
    clicks = np.nan_to_num(table["note_ctr"].to_numpy() * table["note_impressions"].to_numpy())
    for name, values in {"note_clicks": clicks.round().astype(np.int64), **columns}.items():
        table = table.append_column(name, pa.array(values))
    Lake(lake.root + "-wide").replace_window(Table("training_samples", table.schema, "test samples"), table, window(HOURS))
    return Lake(lake.root + "-wide")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    return fill(Lake(str(folder / "lake")), 20_000, folder / "truth"), folder / "truth"


@pytest.fixture(scope="module")
def climbed(planted):
    lake, truth = planted
    said = []
    options = climb.Options(seeds=(1, 2), cap=9_000, rounds=50, ranker=RANKER)
    return climb.climb("generated", lake, window(HOURS), truth, options, said.append), said


def test_a_row_for_each_model_and_head(climbed, planted):
    rows, said = climbed
    assert [(r["model"], r["head"]) for r in rows] == [(m, h) for m in climb.MODELS for h in HEADS]
    assert all(r["data"] == "generated" and r["samples"] > 0 for r in rows)
    seeds = {r["model"]: (r["seeds"], r["interval"]) for r in rows}
    assert seeds["popularity"] == seeds["logistic_regression"] == (1, "users")
    assert {seeds[m] for m in climb.MODELS if m not in ("popularity", "logistic_regression")} == {(2, "seeds")}
    used = {r["model"]: r["train_samples"] for r in rows}
    assert used["lightgbm"] <= 9_000 < 15_000 < used["shared_bottom"]
    assert any("lightgbm, seed 2: like" in line for line in said) and any("16,0" in line or "15,9" in line for line in said)
    # Trials of the ladder are no versions of the lake.
    assert registry.versions(planted[0]) == []


def test_every_rung_stays_below_the_truth_and_most_climb(climbed):
    rows = {(r["model"], r["head"]): r for r in climbed[0]}
    for (model, head), row in rows.items():
        assert row["auc"] < row["truth_auc"] + 0.02 and row["gauc"] < row["truth_gauc"] + 0.04, (model, head)
        assert row["share_known"] == pytest.approx((row["auc"] - 0.5) / (row["truth_auc"] - 0.5))
        assert row["users_low"] <= row["users_high"] and row["log_loss"] > row["truth_log_loss"] - 0.01
    click = {model: rows[model, "click"]["auc"] for model in climb.MODELS}
    # Taste (user x topic) decides most here: who reads ids beats who reads the note's counters alone.
    assert 0.55 < click["popularity"] < click["logistic_regression"] and click["popularity"] < click["shared_bottom"]
    assert rows["popularity", "like"]["auc"] == 0.5  # this world counts no likes of notes


def test_rows_are_the_metrics_of_the_versions_evaluation(planted):
    """The same samples and definitions as a version's own metrics.json."""
    from assets.ranking.train import train

    lake, truth = planted
    options = climb.Options(models=("shared_bottom",), seeds=(5,), rounds=20, ranker=RANKER)
    rows = climb.climb("generated", lake, window(HOURS), truth, options, lambda _: None)
    twin = Lake(lake.root + "-twin")
    Path(twin.root).mkdir()
    Path(twin.path("training_samples")).symlink_to(lake.path("training_samples"))
    metrics = train(twin, truth, window(HOURS), load("shared_bottom", **RANKER, seed=5))
    for row in rows:
        own = metrics["heads"][row["head"]]
        for name in ("samples", "positives", "truth_auc", "auc", "gauc", "log_loss", "calibration"):
            assert row[name] == pytest.approx(own[name], rel=1e-6), (row["head"], name)


@pytest.mark.parametrize("model", climb.MODELS)
def test_no_rung_reads_what_happens_after_the_display(planted, model):
    """Reading time, labels and mask of the held-out samples turned around, or taken away: the same scores."""
    lake, _ = planted
    config = RankerConfig(**RANKER)
    where = samples.split(lake, window(HOURS), config)
    schema, _ = samples.fit_schema(where, config)
    train = read.training_rows(where, schema, 4_000)
    if model in baselines.RUNGS:
        predict = baselines.fit_heads(baselines.RUNGS[model], train, schema, 1, lambda _: None)

        def score(rows):
            return predict(read.part_of(rows, schema, labelled=False))
    else:
        score = climb.fit_ranker(where, load(model, **RANKER), lambda _: None)
    every = lake.open("training_samples").to_pyarrow_dataset().schema.names
    rows = pa.concat_tables(samples.held_out(where, every, 500)).combine_chunks()
    turned = rows
    for name in features.TARGETS:
        values = rows[name].to_numpy()
        turned = turned.set_column(rows.schema.get_field_index(name), name, pa.array(values.max() - values))
    assert not turned.equals(rows)
    assert np.array_equal(score(rows), score(turned))
    assert np.array_equal(score(rows), score(rows.drop_columns(list(features.TARGETS))))


@pytest.mark.parametrize("name", ["note_play_time_ms", "note_hint"])
def test_play_time_among_the_features_stops_the_ladder(tmp_path, name):
    """Named as what it is, and under a name that says nothing."""
    table, _ = draw(4_000, HOURS)
    seconds = np.random.default_rng(1).uniform(0, 10, 4_000) + 10 * table["label_long_view"].to_numpy()
    lake = fill(Lake(str(tmp_path / "lake")), 4_000, **{name: seconds})
    options = climb.Options(models=("popularity",), ranker=RANKER)
    with pytest.raises(RankerError, match=name):
        climb.climb("own", lake, window(HOURS), None, options, lambda _: None)


def test_a_model_that_is_not_there_is_a_clear_error(tmp_path):
    command = [sys.executable, "-m", "benchmarks.ladder", "--models", "popularity,xgboost", "--report", str(tmp_path / "x.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "no model xgboost" in done.stderr and not (tmp_path / "x.json").exists()
