"""The gate as a pure function of scores and labels, and its file of limits."""

import numpy as np
import pytest

from assets.ranking.promotion import SHIPPED, Limits, judge, load_limits, parse_limits
from assets.rules_file import RulesError

LIMITS = Limits(worse_auc=0.005, worse_log_loss=0.01, low=0.8, high=1.25, least_auc=0.5, positives=100, noise=3.0, samples=10**6)
ROWS = 40_000


def world(seed=0, rows=ROWS):
    """Probabilities that are right, and labels drawn from them; one head."""
    rng = np.random.default_rng(seed)
    chance = 1 / (1 + np.exp(-(rng.normal(size=(rows, 1)) - 2)))
    return chance, (rng.random((rows, 1)) < chance).astype(np.float32)


def blurred(chance, seed=1):
    """The same knowledge with noise: calibrated on the whole, and worse at ranking."""
    rng = np.random.default_rng(seed)
    logit = np.log(chance / (1 - chance)) + 0.8 * rng.normal(size=chance.shape)
    spread = 1 / (1 + np.exp(-logit))
    return spread * chance.mean() / spread.mean()


def verdict(labels, new, serving, limits=LIMITS, weights=None, heads=("click",)):
    return judge(labels, np.ones_like(labels) if weights is None else weights, new, serving, limits, heads)


def test_as_good_as_the_serving_version_passes():
    chance, labels = world()
    (row,), against = verdict(labels, chance, chance.copy())
    assert against == [] and row["verdict"] == "good" and row["judged"]
    assert row["auc"] == row["auc_serving"] and row["auc_error"] == 0 and 0.9 < row["calibration"] < 1.1


def test_worse_at_ranking_is_refused_and_named_with_the_limit():
    chance, labels = world()
    (row,), against = verdict(labels, blurred(chance), chance)
    assert any(line.startswith("click: AUC") and "limit 0.005" in line for line in against)
    assert any("log loss" in line for line in against) and row["auc"] < row["auc_serving"] - 0.005


def test_better_is_never_refused_for_the_serving_versions_faults():
    chance, labels = world()
    assert verdict(labels, chance, blurred(chance))[1] == []
    assert verdict(labels, chance, chance * 2)[1] == []


def test_miscalibrated_is_refused_with_and_without_a_version_to_compare_with():
    chance, labels = world()
    for serving in (None, chance, chance * 1.5):
        against = verdict(labels, chance * 1.5, serving)[1]
        assert any("calibration 1.5" in line and "0.8 to 1.25" in line for line in against)


def test_no_better_than_a_coin_is_not_refused_but_worse_is():
    chance, labels = world()
    same = np.full_like(chance, labels.mean())
    assert verdict(labels, same, None)[1] == []
    reversed_order = (1 - chance) * labels.mean() / (1 - chance).mean()
    assert any("is below 0.5" in line for line in verdict(labels, reversed_order, None)[1])


def test_a_difference_within_the_noise_counts_for_nothing():
    chance, labels = world(rows=2_000)  # about 300 positives: the AUC's difference is as uncertain as it is large
    slightly = blurred(chance, 5) * 0.05 + chance * 0.95
    close = LIMITS.__class__(**{**LIMITS.__dict__, "worse_auc": 0.0, "worse_log_loss": 0.0})
    (row,), against = verdict(labels, slightly, chance, close)
    assert row["auc"] != row["auc_serving"] and abs(row["auc"] - row["auc_serving"]) < 3 * row["auc_error"] and against == []


def test_a_rare_head_is_shown_and_not_judged_and_none_judged_is_a_reason():
    chance, labels = world()
    few = np.zeros_like(labels)
    few[:50] = 1
    both = np.hstack([labels, few])
    rows, against = judge(both, np.ones_like(both), np.hstack([chance, 1 - few]), None, LIMITS, ("click", "hide"))
    assert against == [] and rows[1]["verdict"] == "too few to judge" and rows[1]["auc"] == 0.0
    assert "nothing to judge by" in verdict(few, few, None)[1][-1]


def test_a_head_is_judged_on_its_own_rows_only():
    chance, labels = world()
    weights = (np.arange(ROWS) % 2 == 0).astype(np.float32)[:, None]
    wrong_elsewhere = np.where(weights > 0, chance, 1 - chance)
    (row,), against = verdict(labels, wrong_elsewhere, chance, weights=weights)
    assert against == [] and row["samples"] == ROWS // 2 and row["positives"] == labels[::2].sum()


def test_a_head_that_is_no_probability_is_judged_by_its_squared_error():
    rng = np.random.default_rng(3)
    known = rng.gamma(2, 1, size=(ROWS, 1))
    labels = known + rng.normal(scale=0.3, size=known.shape)
    (row,), against = verdict(labels, known, known + rng.normal(scale=0.2, size=known.shape))
    assert against == [] and row["auc"] is None and row["log_loss"] == pytest.approx(0.09, rel=0.05)
    assert any("log loss" in line for line in verdict(labels, known * 1.1, known)[1])
    assert any("calibration" in line for line in verdict(labels, known * 1.5, known)[1])


def test_the_error_of_the_difference_is_delongs():
    """Against the spread over many draws of the same two models."""
    found = []
    for seed in range(60):
        chance, labels = world(seed, 3_000)
        (row,), _ = verdict(labels, blurred(chance, seed + 100), chance)
        found.append((row["auc_serving"] - row["auc"], row["auc_error"]))
    differences, errors = np.array(found).T
    assert errors.mean() == pytest.approx(differences.std(), rel=0.25)


def test_predictions_that_are_no_numbers_are_refused():
    chance, labels = world(rows=5_000)
    broken = chance.copy()
    broken[0] = np.nan
    assert any("no numbers" in line for line in verdict(labels, broken, chance)[1])


def test_the_shipped_limits_are_read_and_wrong_ones_named():
    text = SHIPPED.read_text()
    assert load_limits().noise == 3.0
    for old, new, words in (
        ("low = 0.8", "low = 1.8", r"mine.toml:\d+: calibration.low = 1.8 is not"),
        ("noise = 3.0", "nois = 3.0", r"mine.toml:\d+: unknown key judged.nois"),
        ("positives = 100", "positives = 0", "positives = 0 is not a whole number of 1 or more"),
        ("low = 0.8", "low = 1.0", "below 1"),
    ):
        assert old in text
        with pytest.raises(RulesError, match=words):
            parse_limits(text.replace(old, new), "mine.toml")
