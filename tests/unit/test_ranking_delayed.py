"""The corrections of early negatives, by hand."""

import numpy as np
import pytest

from assets.ranking.delayed import calibrated, fake_negative_weights


def test_weights_by_hand():
    found = fake_negative_weights(np.array([1, 0, 1, 0, 0]), np.array([0.2, 0.2, 0.5, 0.5, 0.0]))
    assert found.tolist() == pytest.approx([1.2, 0.8 * 1.2, 1.5, 0.5 * 1.5, 1.0])


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_the_weighted_stream_has_its_minimum_at_the_truth(p):
    """1 negative and p positives, weighted at the truth: the gradient of the log loss by f is 0 at f = p."""
    positive, negative = fake_negative_weights(np.array([1, 0]), np.array([p, p], np.float64))
    assert p * positive / p - negative / (1 - p) == pytest.approx(0, abs=1e-6)
    # Unweighted it is at p / (1 + p), from which calibration leads back.
    b = p / (1 + p)
    assert p / b - 1 / (1 - b) == pytest.approx(0, abs=1e-9) and calibrated(np.array([b]))[0] == pytest.approx(p)


def test_a_calibrated_probability_is_one():
    assert calibrated(np.array([0.0, 0.5, 0.7, 1.0])).tolist() == [0, 1, 1, 1]
