"""The value of a display: weights from a file, each head's share; without torch."""

import numpy as np
import pytest

from assets.ranking.serving import SHIPPED, load_weights, parse_weights, shares
from assets.rules_file import RulesError


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
