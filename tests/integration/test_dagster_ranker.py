"""In Dagster: a version is trained, checked and serves; one trained by a broken configuration does not. And by hand, from the
command line. On a small world whose truth is known."""

import json

import dagster as dg
import numpy as np
import polars as pl
import pytest
from ranking_world import draw, plant, window
from typer.testing import CliRunner

from assets.lake import Window
from assets.notebook import files
from assets.ranking import promotion, registry
from assets.ranking.compare import compare
from assets.ranking.config import HEADS, RankerError
from dagster_project import demo
from dagster_project.build import build_defs
from dagster_project.cli import app
from dagster_project.jobs import TRAIN
from dagster_project.partitions import HOUR
from dagster_project.settings import load
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

HOURS = 6
GOOD = {"batch": 256, "min_steps": 1, "epochs": 2}
# It hardly learns: what it says of a display is the mean of all.
BROKEN = {**GOOD, "lr_dense": 1e-9, "lr_embedding": 1e-9}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Settings of a home with 40,000 samples and their truth, and a Dagster instance."""
    home = tmp_path_factory.mktemp("home")
    settings = load({"GLASSHOUSE_HOME": str(home), "GLASSHOUSE_RANKER_PROCESSES": "1"})
    plant(settings.lake, 40_000, HOURS, truth=settings.truth)
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield settings, instance


def run(world, options=None, selection=None):
    settings, instance = world
    job = build_defs(settings, first=window(1).start).resolve_job_def(TRAIN)
    config = {"ops": {"ranker": {"config": options}}} if options else {}
    keys = [dg.AssetKey(name) for name in selection] if selection else None
    return job.execute_in_process(instance=instance, run_config=config, asset_selection=keys, raise_on_error=False)


@pytest.fixture(scope="module")
def first(world):
    return run(world, GOOD)


@pytest.fixture(scope="module")
def refused(world, first):
    return run(world, BROKEN)


def checked(result):
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "good_enough_to_promote"]
    return found


def made(result):
    return {event.materialization.asset_key.to_user_string(): event.materialization.metadata for event in result.get_asset_materialization_events()}


def test_the_first_version_is_checked_and_serves(world, first):
    settings, _ = world
    assert first.success and checked(first).passed
    (version,) = registry.versions(settings.lake)
    assert registry.serving(settings.lake) == version
    assert [entry["action"] for entry in registry.history(settings.lake)] == ["checked", "promote"]
    assert registry.history(settings.lake)[1]["by"] == f"Dagster run {first.run_id[:8]}"
    shown = checked(first).metadata
    assert shown["compared_with"].value == "no other version" and "| click |" in shown["heads"].value
    assert made(first)["serving_ranker"]["version"].value == version


def test_a_training_shows_its_curve_while_it_runs_and_after(world, first):
    seen = [event.event_specific_data.asset_observation for event in first.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    steps = [one.metadata["step"].value for one in seen]
    assert seen and steps == sorted(steps) and all(one.metadata["loss"].value > 0 for one in seen)
    metadata = made(first)["ranker"]
    assert metadata["loss curve"].value.startswith("![loss](data:image/png;base64,iVBOR")
    assert metadata["auc_click"].value > 0.65 and "| like |" in metadata["heads"].value


def test_a_version_by_a_broken_configuration_is_refused_and_the_old_one_serves_on(world, first, refused):
    settings, _ = world
    first_version, broken = registry.versions(settings.lake)[:2]
    assert not refused.success and not checked(refused).passed
    assert registry.serving(settings.lake) == first_version
    assert set(made(refused)) == {"ranker"}
    shown = checked(refused).metadata
    assert shown["version"].value == broken and shown["compared_with"].value == first_version
    assert "click: AUC" in shown["reasons"].value and "log loss" in shown["reasons"].value
    assert checked(refused).description.split("; and ")[0] in shown["reasons"].value
    assert demo._only_not_good_enough(refused) and not demo._only_not_good_enough(first)
    entry = registry.last_check(settings.lake, broken)
    assert not entry["passed"] and entry["heads"][0]["auc"] < entry["heads"][0]["auc_serving"] - 0.05


def test_a_refused_version_cannot_serve_by_materializing_what_follows(world, refused):
    settings, _ = world
    before = registry.serving(settings.lake)
    again = run(world, selection=["serving_ranker"])
    assert not again.success and made(again) == {}
    failure = next(event.event_specific_data for event in again.all_events if event.is_step_failure)
    assert "not good enough to serve: click: AUC" in failure.error.message
    assert registry.serving(settings.lake) == before


def test_both_are_judged_on_the_held_out_samples_of_the_newer(world, refused):
    """The verdict's figures of the serving version are those that training measured, since both held out the same."""
    settings, _ = world
    lake = settings.lake
    first_version, broken = registry.versions(lake)[:2]
    verdict = promotion.compare(lake, broken, first_version)
    config, metrics = registry.read_config(lake, broken), registry.read_metrics(lake, first_version)
    assert verdict.held_out[0] == config["cutoff"] and verdict.samples == metrics["holdout_samples"]
    for head, known in metrics["heads"].items():
        (row,) = [row for row in verdict.heads if row["head"] == head]
        assert row["auc_serving"] == pytest.approx(known["auc"], abs=1e-6) and row["positives"] == known["positives"]
        assert row["log_loss_serving"] == pytest.approx(known["log_loss"], abs=1e-5)
    # Few rows: every k-th, both versions on the same ones.
    few = promotion.compare(lake, broken, first_version, promotion.Limits(0, 0, 0.8, 1.25, 0.5, 100, 3.0, 1000))
    assert 900 < few.samples <= 1000


def test_a_version_that_this_code_cannot_read_is_no_hurdle_and_that_is_said(world, first, tmp_path):
    import shutil

    from assets.lake import Lake

    settings, _ = world
    shutil.copytree(settings.lake.root, tmp_path / "lake")
    lake = Lake(str(tmp_path / "lake"))
    version = registry.versions(lake)[0]
    old = registry.folder(lake) / "20200101T000000000000"
    shutil.copytree(registry.folder(lake) / version, old)
    (old / registry.SUMS).unlink()  # older code kept no checksums
    config = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({**config, "ranker": {**config["ranker"], "colour": 1}}))
    verdict = promotion.compare(lake, version, old.name)
    assert verdict.passed and verdict.compared_with is None and "colour" in verdict.notes[0]
    with pytest.raises(RankerError, match="colour"):
        registry.load(lake, old.name)


def test_by_hand_from_the_command_line(world, refused, monkeypatch):
    settings, _ = world
    lake = settings.lake
    monkeypatch.setenv("GLASSHOUSE_HOME", str(settings.home))
    good, broken = registry.versions(lake)[:2]

    def glasshouse(*words):
        return CliRunner().invoke(app, ["ranker", *words])

    listed = glasshouse("versions").output
    assert [line.split("│")[2].strip() for line in listed.splitlines() if "│ 20" in line] == ["serves", ""]
    shown = glasshouse("show").output
    assert good in shown and "training_samples" in shown and "refused by the gate" in shown
    no = glasshouse("promote", broken)
    assert no.exit_code == 1 and "not good enough:\n  click: AUC" in no.output and registry.serving(lake) == good
    assert glasshouse("promote", broken, "--anyway").exit_code == 2  # without a reason
    yes = glasshouse("promote", broken, "--anyway", "--why", "to see it fail")
    assert yes.exit_code == 0 and registry.serving(lake) == broken, yes.output
    assert glasshouse("rollback", "--why", "seen").exit_code == 0 and registry.serving(lake) == good
    entry = registry.history(lake)[-1]
    assert (entry["action"], entry["before"], entry["why"]) == ("rollback", broken, "seen")


def test_the_notebook_compares_two_versions(world, refused, tmp_path, monkeypatch):
    """Its numbers against the gate's, its segments against the samples; on hours that were trained on it says so."""
    settings, _ = world
    lake = settings.lake
    good, broken = registry.versions(lake)[:2]
    environment = {"GLASSHOUSE_HOME": str(settings.home), "PYTHONPATH": str(ROOT)}
    given = {"first": good, "second": broken, "head": "like"}
    said = files.run(ROOT / "notebooks" / "compare_versions.ipynb", tmp_path / "out.ipynb", given, environment)
    gate = promotion.compare(lake, broken, good)
    (like,) = [row for row in gate.heads if row["head"] == "like"]
    assert said["samples"] == gate.samples and said["positives"] == like["positives"]
    assert said["auc_first"] == pytest.approx(like["auc_serving"]) and said["auc_second"] == pytest.approx(like["auc"])
    assert said["difference"] == pytest.approx(like["auc"] - like["auc_serving"]) and said["error"] == pytest.approx(like["auc_error"])
    pictures = [o for cell in json.loads((tmp_path / "out.ipynb").read_text())["cells"] for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 3
    trained_on = {**given, "window_start": "2026-01-05T01:00:00Z", "window_end": "2026-01-05T02:00:00Z"}
    assert files.run(ROOT / "notebooks" / "compare_versions.ipynb", tmp_path / "none.ipynb", trained_on, environment) == {"samples": 0}


def test_segments_are_those_of_the_samples(world, refused):
    settings, _ = world
    lake = settings.lake
    good, broken = registry.versions(lake)[:2]
    found = compare(lake, good, broken, Window(window(HOURS).end - 1 * HOUR, window(HOURS).end))
    rows = pl.from_arrow(lake.read("training_samples")).filter(pl.col("hour") == window(HOURS).end - HOUR)
    for segment, column, values in (
        ("channel", pl.col("channel"), {"homefeed", "search"}),
        ("users", pl.when(pl.col("user_impressions").is_null()).then(pl.lit("new, no profile")).otherwise(pl.lit("with a profile")), None),
        ("hour", pl.col("hour_of_day"), {5}),
    ):
        want = dict(rows.group_by(column.alias("key")).len().iter_rows())
        got = dict(found.by(segment, "click").select(segment, "samples").iter_rows())
        assert got == want and (values is None or set(got) == values)
    bands = found.by("position", "click")
    assert bands["position"].to_list() == ["0", "1-2", "3-5", "6-9"]
    assert bands["samples"][1] == rows.filter(pl.col("position").is_in([1, 2])).height
    of_good = found.by("users", "click").with_columns(better=pl.col("auc_first") > pl.col("auc_second"))
    assert of_good["better"].all()
    bins = found.calibration("click", 5)
    assert bins["samples"].sum() == 2 * rows.height
    of_first = bins.filter(pl.col("version") == good)
    assert of_first["predicted"].is_sorted() and of_first["observed"][-1] > of_first["observed"][0]
    for call in (lambda: found.by("mood", "click"), lambda: found.by("hour", "smile"), lambda: found.calibration("smile")):
        with pytest.raises(RankerError, match="is called"):
            call()


def test_the_truth_of_this_world_would_pass():
    """The gate on perfect knowledge: nothing against it."""
    samples, chance = draw(40_000, HOURS)
    chance = {head: chance[head] for head in HEADS}
    labels = np.column_stack([samples[f"label_{head}"].to_numpy() for head in HEADS]).astype(np.float32)
    weights = np.ones_like(labels)
    weights[:, 1:] = samples["engaged"].to_numpy()[:, None]
    truth = np.column_stack(list(chance.values()))
    assert promotion.judge(labels, weights, truth, None, promotion.load_limits(), list(chance))[1] == []
