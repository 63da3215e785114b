"""Evaluation and the registry, without torch: what cannot be computed is None, a half version is none."""

import datetime as dt

import numpy as np
import pytest
from ranking_world import draw, window

from assets.lake import Lake
from assets.ranking import config, evaluate, registry
from assets.ranking.config import HEADS, RankerConfig, RankerError


def test_metrics_of_a_worked_case():
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    assert evaluate.auc(scores, labels) == pytest.approx(0.75)
    assert evaluate.calibration(scores, labels) == pytest.approx(1.65 / 2)
    expected = -(np.log(0.9) + np.log(0.6) + np.log(0.35) + np.log(0.8)) / 4
    assert evaluate.log_loss(scores, labels) == pytest.approx(expected)


def test_without_positives_or_samples_there_is_no_auc():
    labels, weights = np.zeros((5, 9)), np.ones((5, 9))
    weights[:, 1:] = 0
    found = evaluate.by_head(np.full((5, 9), 0.3), labels, weights, None)
    assert found["click"]["auc"] is None and found["click"]["samples"] == 5 and found["click"]["calibration"] is None
    assert found["like"] == {"samples": 0, "positives": 0, "auc": None, "gauc": None, "auc_display": None, "truth_auc": None,
                             "log_loss": None, "truth_log_loss": None, "calibration": None, "ece": None}  # fmt: skip


def test_auc_within_users_weighs_by_displays_and_leaves_out_users_of_one_label():
    users = np.array([1, 1, 1, 1, 2, 2, 3, 3])
    scores = np.array([0.9, 0.1, 0.5, 0.5, 0.2, 0.8, 0.1, 0.9])
    labels = np.array([1, 0, 1, 0, 1, 0, 1, 1])
    # user 1: of four pairs three right and one tied: 0.875, four displays; user 2: 0, two displays; user 3 has no 0
    assert evaluate.gauc(scores, labels, users) == pytest.approx((0.875 * 4 + 0 * 2) / 6)
    assert evaluate.gauc(scores, np.ones(8), users) is None and evaluate.gauc(scores[:0], labels[:0], users[:0]) is None
    rng = np.random.default_rng(3)
    users, scores, labels = rng.integers(0, 20, 900), rng.integers(0, 9, 900) / 9, rng.integers(0, 2, 900)
    each = [(evaluate.auc(scores[users == u], labels[users == u]), (users == u).sum()) for u in range(20)]
    assert evaluate.gauc(scores, labels, users) == pytest.approx(np.average([a for a, _ in each], weights=[n for _, n in each]))


def test_calibration_error_by_bins():
    scores = np.r_[np.full(50, 0.2), np.full(50, 0.6)]
    labels = np.r_[np.ones(15), np.zeros(35), np.ones(20), np.zeros(30)]
    assert evaluate.ece(scores, labels, bins=2) == pytest.approx((abs(0.2 - 0.3) + abs(0.6 - 0.4)) / 2)
    assert evaluate.ece(scores[:0], labels[:0]) is None


def test_reading_time_in_seconds_and_by_rank():
    found = evaluate.dwell(np.array([1.0, 2, 3, 9]), np.array([2.0, 4, 8, 0]), np.array([True, True, True, False]))
    assert found == {"samples": 3, "mae_s": pytest.approx(8 / 3), "rmse_s": pytest.approx((30 / 3) ** 0.5), "spearman": pytest.approx(1)}
    assert evaluate.dwell(np.ones(2), np.ones(2), np.zeros(2, bool))["mae_s"] is None
    assert evaluate.dwell(np.ones(2), np.array([1.0, 2]), np.ones(2, bool))["spearman"] is None


def test_behaviours_over_all_displays_leave_out_clicks_of_another_display():
    scores, labels, weights = np.full((6, 9), 0.5), np.zeros((6, 9)), np.ones((6, 9))
    labels[:3, 0], labels[0, 1] = 1, 1
    weights[:, 1:] = 0
    weights[:2, 1:] = 1  # row 2 was clicked, but its click session belongs to another display
    scores[:, 0] = [0.9, 0.8, 1.0, 0.1, 0.1, 0.1]
    found = evaluate.by_head(scores, labels, weights, None)["like"]
    assert found["samples"] == 2 and found["auc"] == 0.5 and found["auc_display"] == 1.0


def test_both_aucs_are_of_the_same_samples():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 9)) < 0.5).astype(np.float32)
    truth = np.clip(labels * 0.4 + rng.random((200, 9)) * 0.6, 0.01, 0.99)
    truth[:100] = np.nan
    found = evaluate.by_head(truth.copy(), labels, np.ones((200, 9)), truth)
    assert found["click"]["samples"] == 100 and found["click"]["auc"] == found["click"]["truth_auc"] > 0.5


def test_truth_is_found_by_request_position_user_and_note(tmp_path):
    from ranking_world import plant

    samples = plant(Lake(str(tmp_path / "lake")), 300, 2, truth=tmp_path / "truth")
    _, chance = draw(300, 2)
    late = samples.slice(200)
    found = evaluate.read_truth(tmp_path / "truth", late, window(2), late["session_start"][0].as_py())
    assert np.allclose(found[:, 0], chance["click"][200:]) and np.allclose(found[:, 8], chance["long_view"][200:])
    other = late.set_column(late.schema.get_field_index("note_id"), "note_id", [np.zeros(100, np.int64)])
    assert np.isnan(evaluate.read_truth(tmp_path / "truth", other, window(2), late["session_start"][0].as_py())).all()
    assert evaluate.read_truth(tmp_path / "lake" / "none", late, window(2), dt.datetime.now(dt.UTC)) is None


def fill(folder):
    for name in registry.FILES:
        (folder / name).write_text("{}")


def test_a_version_appears_whole_or_not_at_all(lake):
    def killed(folder):
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.publish(lake, killed)
    with pytest.raises(RankerError, match="metrics.json"):
        registry.publish(lake, lambda folder: (folder / "weights.pt").write_text(""))
    # Killed outright: the hidden folder stays, and is no version.
    (registry.folder(lake) / ".writing-x").mkdir(parents=True)
    assert registry.versions(lake) == [] and registry.latest(lake) is None
    first, second = registry.publish(lake, fill), registry.publish(lake, fill)
    assert registry.versions(lake) == [first, second] and registry.latest(lake) == second
    assert registry.read_metrics(lake) == {}


def test_an_unknown_version_names_those_that_exist(lake):
    with pytest.raises(RankerError, match="none yet; materialize"):
        registry.read_metrics(lake)
    version = registry.publish(lake, fill)
    with pytest.raises(RankerError, match=version):
        registry.read_metrics(lake, "20200101")


def test_object_storage_is_refused_before_training():
    with pytest.raises(RankerError, match="s3://bucket"):
        registry.folder(Lake("s3://bucket/lake"))


@pytest.mark.parametrize("name", config.models())
def test_every_named_configuration_loads(name):
    assert config.load(name).network == name and config.load(name, seed=3).seed == 3


def test_a_configuration_file_says_what_is_wrong_with_it_and_where(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("# mine\ndim = 8\n\n[tables]\nuser_id = 99\n")
    found = config.load(path)
    assert found.dim == 8 and found.tables["user_id"] == 99 and found.tables["topic"] == config.TABLES["topic"]
    for line, said in {"colour = 1": "unknown key", 'dim = "x"': "dim = 'x' is not int", "dim = 6": "multiple of 4",
                       "tables = 5": "tables = 5 is not dict", 'network = "tree"': "shared_bottom", "[": "not TOML"}.items():  # fmt: skip
        path.write_text(f"# mine\n{line}\n")
        with pytest.raises(RankerError, match=rf"mine.toml{'' if line == '[' else ':2: '}.*{said}"):
            config.load(path)
    with pytest.raises(RankerError, match="no ranker model tree; there are mmoe, ple"):
        config.load("tree")


def test_configuration_survives_json():
    import json

    made = RankerConfig(hidden=(32, 16), sharding={"user_id": "row_wise"})
    assert RankerConfig.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    with pytest.raises(RankerError, match="colour"):
        RankerConfig.from_dict({"colour": 1})
