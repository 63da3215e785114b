"""The value of a display: weights from a file, each head's share; and how a request's arrays are put together; without torch."""

import datetime as dt
import re

import numpy as np
import pytest

from assets.ranking.serving import JOBS, LOOKBACK, SHIPPED, Key, Part, load_weights, parse_weights, shares
from assets.rules_file import RulesError
from assets.samples.sql_job import read_head


def test_a_worked_case():
    """p(click) 0.2, p(like | click) 0.5, 30 seconds of reading given a click, p(hide | click) 0.1."""
    scores = np.array([[0.2, 0.5, 30.0, 0.1]], np.float32)
    found = shares(scores, ("click", "like", "dwell", "hide"), {"click": 1, "like": 4, "dwell": 0.1, "hide": -10, "share": 99})
    assert np.allclose(found, [[0.2, 0.2 * 0.5 * 4, 0.2 * 30 * 0.1, -0.2 * 0.1 * 10]])
    assert found.sum() == pytest.approx(0.2 + 0.4 + 0.6 - 0.2)


def test_the_shipped_file_weighs_every_head_and_wrong_ones_are_named():
    text = SHIPPED.read_text()
    assert set(load_weights()) >= {"click", "hide", "dwell"} and load_weights()["hide"] < 0
    for old, new, words in (
        ("like = 3.0", 'like = "much"', r"mine.toml:\d+: weights.like = 'much' is not a number"),
        ("like = 3.0\n", "", "weights.like is missing"),
        ("like = 3.0", "liek = 3.0", r"unknown key weights.liek; allowed: click, like"),
        ("like = 3.0", "like = inf", "is not a number"),
    ):
        assert old in text
        with pytest.raises(RulesError, match=words):
            parse_weights(text.replace(old, new), "mine.toml")


def test_a_flag_of_two_tables_says_known_where_one_of_them_knows():
    """Column 2 is "no profile", decided by a table of users and by one of notes; columns 0 and 1 are one table's each."""
    of_user = Part(Key(("user_id",), np.array([], np.uint64), {}), {0: (np.array([0, 2]), np.array([[5.0, 1.0], [6.0, 0.0]]))})
    of_notes = Part(Key(("note_id",), np.array([], np.uint64), {}), {0: (np.array([1, 2]), np.array([[7.0, 0.0], [8.0, 1.0]]))})
    for user, want in ((0, [[5, 7, 0], [5, 8, 1], [5, 0, 1]]), (1, [[6, 7, 0], [6, 8, 0], [6, 0, 0]])):
        for order in ((of_user, of_notes), (of_notes, of_user)):
            arrays = [np.array([[0.0, 0.0, 1.0]] * 3)]
            for part in order:
                at, known = (np.array([user]), np.array([True])) if part is of_user else (np.array([0, 1, 0]), np.array([True, True, False]))
                part.put(arrays, at, known, {(0, 2)})
            assert np.array_equal(arrays[0], want)


def test_serving_looks_back_as_far_as_training_samples_does():
    text = (JOBS / "training_samples.sql").read_text()
    hours = {int(found) for found in re.findall(r"l\.hour - interval (\d+) hours", text)}
    assert hours == {LOOKBACK // dt.timedelta(hours=1)} and read_head(JOBS / "training_samples.sql", text).lookback == LOOKBACK
