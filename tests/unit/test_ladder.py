"""The ladder's measures and baselines, against numbers worked out by hand or by scikit-learn; the guard on names and values."""

import numpy as np
import pyarrow as pa
import pytest
from ranking_world import draw

from assets.ranking import features
from assets.ranking.config import HEADS, TABLES, RankerConfig, RankerError
from assets.ranking.evaluate import auc
from assets.ranking.ladder import baselines, climb, guard, measures, read

SMALL = RankerConfig(tables={**{name: 211 for name in TABLES}, "user_id": 1999, "note_id": 2003})


def world(rows=4_000, **columns):
    """Samples of the test world, some columns replaced or added; (table, schema, Part)."""
    table, _ = draw(rows, 4)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        column = pa.array(values)
        table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    schema = features.fit(table, SMALL)
    return table, schema, read.part_of(table, schema)


# --- measures ---------------------------------------------------------------------------------------------------------


def test_weighted_auc_is_scikit_learns():
    from sklearn.metrics import roc_auc_score  # not above: a second and a half, in every process that looks for tests

    rng = np.random.default_rng(4)
    scores, labels, weight = np.sort(rng.integers(0, 40, 500)), rng.integers(0, 2, 500), rng.integers(0, 4, 500)
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    found = measures._weighted_auc(weight * labels, weight * (1 - labels), starts)
    assert found == pytest.approx(roc_auc_score(labels, scores, sample_weight=weight))


def test_interval_over_users_covers_the_auc_and_counts_users_not_samples():
    """Each user's samples a hundred times over: no more is known, so the interval stays as wide."""
    rng = np.random.default_rng(5)
    users, labels = np.arange(400), rng.integers(0, 2, 400)
    scores = labels + rng.normal(0, 1.5, 400)
    low, high = measures.over_users(scores, labels, users, 400)
    assert low < auc(scores, labels) < high and 0.05 < high - low < 0.2
    many = measures.over_users(np.repeat(scores, 100), np.repeat(labels, 100), np.repeat(users, 100), 400)
    assert many == pytest.approx((low, high), abs=1e-9)
    assert measures.over_users(scores, np.ones(400), users, 10) is None


def test_interval_over_seeds_is_students():
    # Mean 0.7, standard error 0.01 / sqrt(3), t(0.975, 2 degrees) = 4.30265.
    assert measures.over_seeds([0.69, 0.70, 0.71]) == pytest.approx((0.7 - 0.0248414, 0.7 + 0.0248414), abs=1e-6)
    assert measures.over_seeds([0.7]) is None


def test_share_of_what_can_be_known():
    assert measures.share_known(0.7, 0.9) == pytest.approx(0.5)
    assert measures.share_known(None, 0.9) is measures.share_known(0.7, None) is measures.share_known(0.7, 0.5) is None


# --- baselines --------------------------------------------------------------------------------------------------------


def test_popularity_by_hand():
    """Four notes; the mean rate is 3 of 8; 20 displays of prior, none of it for the note without a profile."""
    shown, clicks = [80.0, 80.0, 5.0, None], [40, 10, 5, None]
    columns = {"note_impressions": shown * 2, "note_clicks": clicks * 2, "label_click": [1, 0, 1, 0, 1, 0, 0, 0]}
    _, schema, part = world(8, **columns)
    predict = baselines.fit_popularity(part, schema, "click", 1)
    rate = 3 / 8
    expected = [(40 + 20 * rate) / 100, (10 + 20 * rate) / 100, (5 + 20 * rate) / 25, rate]
    scores = predict(part)
    assert scores == pytest.approx(expected * 2)
    # Scores .475, .175, .5, .375: of 3 x 5 pairs, by hand: the clicks (.475, .5, .475) beat .175 .375 .175 .375 each and
    # lose to .5, or tie with it: 12 wins and one tie.
    assert auc(scores, np.array(columns["label_click"])) == pytest.approx((12 + 0.5) / 15)


def test_popularity_without_the_notes_counters_is_the_mean():
    _, schema, part = world()
    bare = read.Part(part.encoded, {})
    assert np.ptp(baselines.fit_popularity(bare, schema, "click", 1)(bare)) == 0


@pytest.mark.parametrize("name", ["logistic_regression", "lightgbm", "gbdt_lr"])
def test_a_rung_learns_what_it_can_see(name):
    """A click decided by the note's own rate and by the channel, nothing else."""
    rng = np.random.default_rng(6)
    rows = 6_000
    rate, search = rng.random(rows), rng.integers(0, 2, rows)
    chance = 1 / (1 + np.exp(-4 * (rate - 0.5) - 2 * (search - 0.5)))
    label = (rng.random(rows) < chance).astype(np.int32)
    table, schema, part = world(rows, note_ctr=rate, channel=np.array(["homefeed", "search"])[search], label_click=label)
    rung = baselines.RUNGS[name]
    predict = rung.fit(read.Part(part.encoded.rows(slice(0, 5_000)), {}), schema, "click", 1)
    newest = read.Part(part.encoded.rows(slice(5_000, None)), {})
    scores = predict(newest)
    assert scores.shape == (1_000,) and (scores > 0).all() and (scores < 1).all()
    assert auc(scores, label[5_000:]) > auc(chance[5_000:], label[5_000:]) - 0.04
    assert abs(scores.mean() / label[5_000:].mean() - 1) < 0.1


def test_a_head_without_positives_gets_its_rate():
    _, schema, part = world(label_hide=np.zeros(4_000, np.int32))
    said = []
    predict = baselines.fit_heads(baselines.RUNGS["lightgbm"], part, schema, 1, said.append)
    assert said == list(HEADS)
    scores = predict(part)
    assert scores.shape == (4_000, len(HEADS)) and not scores[:, HEADS.index("hide")].any()


def test_one_column_for_each_id_and_each_number():
    found = baselines._columns(np.array([[1, 0], [2, 3]]), [3, 4], np.array([[0.5], [-1.0]], np.float32)).toarray()
    assert found.tolist() == [[0, 1, 0, 1, 0, 0, 0, 0.5], [0, 0, 1, 0, 0, 0, 1, -1.0]]


# --- the guard --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dwell_ms", "note_dwell", "note_play_time_ms", "user_watch_s", "note_comment_stay_time", "label_like", "engaged"])
def test_a_column_of_the_outcome_is_refused_by_its_name(name):
    with pytest.raises(RankerError, match=name):
        guard.check_names(["user_id", "note_ctr", name])


def test_what_is_known_beforehand_passes():
    guard.check_names(["user_id", "position", "user_dwell_ms", "note_dwell_ms", "note_displays", "user_long_views", "author_id"])


def test_an_input_that_gives_the_label_away_is_refused_by_its_values():
    """Play time under an innocent name: it alone tells long views from others."""
    rng = np.random.default_rng(7)
    table, _ = draw(4_000, 4)
    long_view = table["label_long_view"].to_numpy()
    seconds = np.where(long_view, rng.uniform(10, 60, 4_000), rng.uniform(0, 10, 4_000))
    _, schema, part = world(4_000, note_hint=seconds)
    with pytest.raises(RankerError, match="note_hint alone .* for long_view"):
        guard.check_values(part, schema)
    _, schema, part = world(4_000, note_hint=rng.permutation(seconds))
    guard.check_values(part, schema)


def test_unknown_models_are_named():
    with pytest.raises(RankerError, match="no model xgboost; there are popularity"):
        climb.Options(models=("popularity", "xgboost"))
