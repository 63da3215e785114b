"""`glasshouse ranker train`: a version from a range of hours, a killed run gone on with, words where it cannot be."""

import pytest
from ranking_world import plant
from typer.testing import CliRunner

from assets.lake import Lake
from assets.ranking import registry, train
from assets.ranking.config import cores

pytestmark = pytest.mark.slow


@pytest.fixture
def lake(tmp_path, monkeypatch):
    lake = Lake(str(tmp_path / "lake"))
    monkeypatch.setenv("GLASSHOUSE_LAKE", lake.root)
    monkeypatch.setenv("GLASSHOUSE_HOME", str(tmp_path))
    return lake


def glasshouse(*words):
    from dagster_project.cli import app

    return CliRunner().invoke(app, ["ranker", "train", *words])


def test_a_version_of_some_hours_and_one_gone_on_with(lake):
    plant(lake, 1200, 3)
    done = glasshouse("--from", "2026-01-05T00:00", "--to", "2026-01-05T02:00")
    (version,) = registry.versions(lake)
    assert done.exit_code == 0 and f"Version {version}" in done.output and "--resume" in done.output, done.output
    found = registry.load(lake, version).config
    assert found["window"][1].startswith("2026-01-05T02:00") and found["ranker"]["network"] == "shared_bottom"
    assert found["ranker"]["processes"] == min(2, cores())  # nobody said: both cores

    def stop(report):
        if report["phase"] == "train":
            raise RuntimeError("planted")

    from assets.ranking.config import load
    from ranking_world import window

    with pytest.raises(RuntimeError, match="planted"):
        train.train(lake, None, window(2), load("wide_deep", min_steps=1), progress=stop, run_id="r1")
    assert "leave out --model" in glasshouse("--resume", "r1", "--model", "ple").output
    assert "no unfinished run r2; there are: r1" in str(glasshouse("--resume", "r2").exception)
    again = glasshouse("--resume", "r1")
    assert again.exit_code == 0 and train.unfinished(lake) == [], again.output
    assert registry.load(lake, registry.latest(lake)).config["ranker"]["network"] == "wide_deep"


def test_without_samples_it_says_what_to_materialize(lake):
    assert "materialize" in str(glasshouse().exception)
