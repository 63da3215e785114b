"""Evaluation and the registry, without torch: what cannot be computed is None, a half version is none."""

import datetime as dt

import numpy as np
import pytest
from ranking_world import draw, window

from assets.lake import Lake
from assets.ranking import evaluate, registry
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
    assert found["like"] == {"samples": 0, "positives": 0, "auc": None, "truth_auc": None, "log_loss": None,
                             "truth_log_loss": None, "calibration": None}  # fmt: skip


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


def test_configuration_survives_json():
    import json

    config = RankerConfig(hidden=(32, 16), sharding={"user_id": "row_wise"})
    assert RankerConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    with pytest.raises(RankerError, match="colour"):
        RankerConfig.from_dict({"colour": 1})
