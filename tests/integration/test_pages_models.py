"""The page Models on a lake with versions: which serves and why, the gate's verdicts, the history; its words against the files."""

import json

import pytest

from assets.lake import Lake
from assets.metrics import endpoint
from assets.ranking import registry
from tests import pages
from tests.integration.test_pages_boards import table, words
from tests.pages import VIEWS

pytestmark = pytest.mark.slow

HEADS = {"click": 0.71, "hide": 0.62}


def version(lake, shift):
    """A version's files, figures made up, weights none: the page never loads them."""

    def write(folder):
        (folder / "weights.pt").write_text("")
        (folder / "features.json").write_text("{}")
        config = {"table": "training_samples", "table_version": 3, "window": ["2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00+00:00"],
                  "cutoff": "2026-03-01T20:00:00+00:00", "code_version": "abc"}  # fmt: skip
        heads = {name: {"samples": 900, "positives": 90, "auc": auc + shift, "truth_auc": None, "log_loss": 0.3, "calibration": 1.0}
                 for name, auc in HEADS.items()}  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "metrics.json").write_text(json.dumps({"heads": heads, "evaluated_samples": 900}))

    return registry.publish(lake, write)


def verdict(lake, name, passed, compared_with):
    row = {"head": "click", "positives": 90, "auc": 0.7, "auc_serving": 0.71, "auc_error": 0.001, "log_loss": 0.3, "log_loss_serving": 0.3,
           "calibration": 1.0, "calibration_serving": 1.0, "judged": True, "verdict": "good" if passed else "AUC 0.6 too low"}  # fmt: skip
    found = {"passed": passed, "reasons": [] if passed else ["click: AUC 0.6 too low"], "heads": [row], "samples": 12345, "notes": [],
             "compared_with": compared_with, "held_out": ["2026-03-01T20:00:00+00:00", "2026-03-02T00:00:00+00:00"]}  # fmt: skip
    registry.record_check(lake, name, found, by="ann")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    lake = Lake(str(home / "lake"))
    names = [version(lake, shift) for shift in (0.0, 0.01, -0.1)]
    with endpoint.started(home / "clickhouse") as url:
        yield home, lake, names, url


@pytest.fixture
def page(monkeypatch, made):
    home, _, _, url = made

    def run(**query):
        monkeypatch.setenv("GLASSHOUSE_HOME", str(home))
        monkeypatch.setenv("CLICKHOUSE_URL", url)
        return pages.run(VIEWS / "models.py", query)

    return run


def test_without_a_version_that_serves_the_page_says_how_one_comes_to_serve(page, made):
    app = page()
    assert "No version serves yet" in words(app) and "This version was not checked" in words(app)
    assert list(table(app, "version", "gate")["gate"]) == ["not checked"] * 3


def test_which_version_serves_and_why(page, made):
    _, lake, (first, second, third), _ = made
    registry.promote(lake, first, why="the first", by="ann")
    verdict(lake, second, True, first)
    registry.promote(lake, second, why="better", by="Dagster run 1234", instead_of=first)
    verdict(lake, third, False, second)
    app = page()
    assert app.selectbox[-1].value == second or second in [box.value for box in app.selectbox]
    assert f"**{second}** serves since" in words(app) and "Dagster run 1234: better" in words(app)
    rows = table(app, "what", "why")
    assert list(rows["what"]) == ["refused by the gate", "promote", "passed the gate", "promote"]
    assert rows["why"][0] == "click: AUC 0.6 too low"
    listed = table(app, "version", "gate").set_index("version")
    assert listed.loc[second, "serves"] and listed["serves"].sum() == 1
    assert listed.loc[third, "gate"] == "refused by the gate" and listed.loc[first, "gate"] == "not checked"
    assert "passed, beside" in words(app) and "12,345 samples" in words(app)


def test_the_verdict_of_the_version_that_is_looked_at(page, made):
    _, lake, (first, second, third), _ = made
    app = page(version=third)
    assert "refused for 1 reasons" in words(app)
    assert table(app, "head", "auc_serving")["verdict"][0] == "AUC 0.6 too low"
    registry.rollback(lake, why="complaints", by="bob")
    app = page()
    assert f"**{first}** serves since" in words(app) and "rollback by bob: complaints" in words(app)
