"""Serving for real: a line of events, profiles and samples by the SQL jobs, a version trained on them, and scores that are
those of training's own path on the same rows."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from assets.attribution.label import label
from assets.attribution.rules import Rules
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS
from assets.engines.choice import on_spark
from assets.events.context import retyped
from assets.events.contract import EVENTS
from assets.lake import Lake
from assets.notebook.promote import LINE_TABLES
from assets.ranking import features, registry, serving
from assets.ranking.config import OUTPUTS, TABLES, RankerConfig, RankerError
from assets.ranking.serving import NOTE, REQUEST, FeatureStore, Ranker
from assets.ranking.train import train
from assets.samples.sql_job import load_jobs, run_job
from tests.notebook_lake import START, WINDOW, events

pytestmark = pytest.mark.slow

HOUR = dt.timedelta(hours=1)
LAST = START + HOUR  # the busy hour with an hour before it
NOW = LAST + dt.timedelta(minutes=30)
SMALL = {**{name: 211 for name in TABLES}, "user_id": 1999, "note_id": 2003, "user_topic": 8191}
CONFIG = RankerConfig(tables=SMALL, hidden=(32, 16), batch=256, min_steps=1)
CONTEXT = {"channel": "search", "device": "ios", "time": NOW}


def with_notes_of_their_own(rows):
    """The same events, a note's author and topic in their context; every tenth note without a topic."""
    contexts = [
        json.dumps({"device": json.loads(context)["device"], "author_id": note % 37, **({"topic": f"t{note % 6}"} if note % 10 else {})})
        if context else None
        for context, note in zip(rows["context"].to_pylist(), rows["note_id"].to_pylist(), strict=True)
    ]  # fmt: skip
    return retyped(rows.set_column(rows.schema.get_field_index("context"), "context", pa.array(contexts, pa.string())))


def inputs_of(name, jobs):
    """The job and the jobs it reads from, in an order in which each follows its inputs."""
    wanted, found = {name}, []
    for job in reversed(jobs):
        if job.name in wanted:
            wanted |= set(job.inputs)
            found.append(job)
    return found[::-1]


@pytest.fixture(scope="module")
def lake(tmp_path_factory, spark):
    made = Lake(str(tmp_path_factory.mktemp("serving") / "lake"))
    accepted = with_notes_of_their_own(events(readers=250))
    labels = label(accepted, Rules())
    hour = pc.floor_temporal(accepted["event_time"], unit="hour")
    made.replace_window(EVENTS, accepted.append_column("hour", hour), WINDOW)
    made.replace_window(IMPRESSION_SESSIONS, labels.impression_sessions, WINDOW)
    made.replace_window(CLICK_SESSIONS, labels.click_sessions, WINDOW)
    for job in inputs_of("training_samples", load_jobs(serving.JOBS, LINE_TABLES)):
        run_job(job, made, on_spark(spark), WINDOW, Rules())
    version = train(made, None, WINDOW, CONFIG)["version"]
    registry.promote(made, version, why="test")
    return made


@pytest.fixture(scope="module")
def ranker(lake):
    return Ranker.load(lake, now=NOW)


@pytest.fixture(scope="module")
def last_hour(lake):
    """The samples of the hour in which the requests come, on the one context of CONTEXT, those of a user together."""
    rows = lake.read("training_samples").filter((pc.field("hour") == pa.scalar(LAST)) & (pc.field("channel") == "search"))
    return rows.sort_by("user_id")


def requests(rows):
    """By (user, position): samples that one request could have asked for."""
    pairs = sorted({(row["user_id"], row["position"]) for row in rows.select(["user_id", "position"]).to_pylist()})
    for user, position in pairs[:150]:
        yield user, position, rows.filter((pc.field("user_id") == user) & (pc.field("position") == position))


def test_the_store_encodes_what_the_table_holds(ranker, last_hour):
    """No skew: every array of a request is the one that training makes of the hour's samples."""
    seen = with_profile = 0
    for user, position, rows in requests(last_hour):
        request = dict(zip(REQUEST, ("search", "ios", position, NOW.hour), strict=True))
        found, known = ranker.store.encode(user, pa.table({"note_id": rows["note_id"]}), request)
        for array, want in zip(found, features.encode(rows, ranker.model.schema, labelled=False), strict=True):
            assert array.dtype == want.dtype and np.array_equal(array, want)
        seen += rows.num_rows
        with_profile += int(known["user_profiles"].all())
    assert seen >= 150 and 10 < with_profile < 140  # with and without what an earlier hour knew


def test_scores_are_those_of_trainings_own_forward(lake, ranker, last_hour):
    own = registry.load(lake, "serving")
    for user, _, rows in list(requests(last_hour))[:20]:
        scores = ranker.score(user, rows["note_id"].to_pylist(), CONTEXT)
        want = own.score(rows)
        assert scores.p.shape == (rows.num_rows, len(OUTPUTS))
        for i, name in enumerate(want.column_names):
            assert np.allclose(scores.p[:, i], want[name], rtol=1e-4, atol=1e-6) and name in scores.table().column_names


def test_the_slot_in_which_a_note_was_shown_is_left_out(lake, last_hour):
    """The model has a bias of positions; serving and its own path without it give the same, with it another."""
    from assets.ranking.model import predict

    own, rows = registry.load(lake, "serving"), last_hour.slice(0, 40)
    encoded = features.encode(rows, own.schema, labelled=False)
    without, biased = predict(own.model, encoded, bias=False), predict(own.model, encoded)
    first = np.array(rows["position"].to_pylist()) == 0
    assert np.allclose(without[first], biased[first], rtol=1e-5) and not np.allclose(without[~first], biased[~first], rtol=1e-5)


def test_the_value_is_the_sum_of_its_shares_by_the_weights(lake, ranker, last_hour):
    notes = last_hour["note_id"].to_pylist()[:40]
    scores = ranker.score(last_hour["user_id"][0].as_py(), notes, CONTEXT)
    click, like = (ranker.heads.index(head) for head in ("click", "like"))
    weights = serving.load_weights()
    assert np.allclose(scores.shares[:, click], scores.p[:, click] * weights["click"])
    assert np.allclose(scores.shares[:, like], scores.p[:, click].astype(float) * scores.p[:, like] * weights["like"])
    assert np.allclose(scores.value, scores.shares.sum(axis=1))
    assert (np.diff(scores.value[scores.order]) <= 0).all()
    table = scores.table()
    assert table["note_id"].to_pylist() == notes and {"value", "p_click", "share_hide", "known_note"} <= set(table.column_names)
    clicks_only = Ranker.load(lake, now=NOW, weights={head: float(head == "click") for head in ranker.heads})
    assert np.allclose(clicks_only.score(last_hour["user_id"][0].as_py(), notes, CONTEXT).value, scores.p[:, click])
    with pytest.raises(RankerError, match="say nothing of like"):
        Ranker.load(lake, now=NOW, weights={"click": 1.0})


def test_a_user_and_a_note_that_nobody_knows_are_scored_as_training_saw_such(lake, ranker, last_hour):
    row = last_hour.slice(0, 1)
    user, note = -(2**63), 2**63 - 1
    scores = ranker.score(user, [note, row["note_id"][0].as_py()], CONTEXT)
    assert not scores.known_user and scores.known_notes.tolist()[0] is False
    columns = {name: pa.nulls(1, row.schema.field(name).type) for name in ranker.model.schema.columns}
    columns |= {"user_id": pa.array([user]), "note_id": pa.array([note]), "channel": pa.array(["search"]), "device": pa.array(["ios"]),
                "position": pa.array([0], pa.int32()), "hour_of_day": pa.array([NOW.hour], pa.int32())}  # fmt: skip
    want = ranker.model.score_encoded(features.encode(pa.table(columns), ranker.model.schema, labelled=False))
    assert np.allclose(scores.p[0], want[0], atol=1e-6)
    assert np.isfinite(ranker.score(None, [note], {}).value).all()  # nobody is logged in, nothing is known
    assert ranker.score(user, [], CONTEXT).value.shape == (0,)


def test_what_a_new_note_is_can_be_told(ranker, last_hour):
    user, note = last_hour["user_id"][0].as_py(), 10**12
    bare = ranker.score(user, [note], CONTEXT).p
    told = ranker.score(user, pa.table({"note_id": [note], "author_id": [5], "topic": ["t3"]}), CONTEXT).p
    assert not np.allclose(bare, told)
    known = last_hour["note_id"].to_pylist()[:5]
    same = last_hour.slice(0, 5)
    as_stored = pa.table({name: same[name] for name in ("note_id", *NOTE)})
    assert np.array_equal(ranker.score(user, as_stored, CONTEXT).p, ranker.score(user, known, CONTEXT).p)


def test_the_hour_decides_what_is_known_and_refresh_brings_the_newest(lake, ranker, last_hour):
    early = Ranker.load(lake, now=START + dt.timedelta(minutes=5))
    user, notes = last_hour["user_id"][0].as_py(), last_hour["note_id"].to_pylist()[:5]
    assert not early.score(user, notes, CONTEXT).known_notes.any()  # of the first hour nothing was known before it
    later = early.refresh(NOW)
    assert np.array_equal(later.score(user, notes, CONTEXT).p, ranker.score(user, notes, CONTEXT).p)
    assert later.version == ranker.version and later.store.versions["user_profiles"] == lake.version("user_profiles")
    old = FeatureStore.load(lake, ranker.model.schema, NOW + dt.timedelta(days=8))
    assert not any(len(part.key.hashes) for part in old.parts.values())  # a week old: forgotten


def test_scores_on_the_command_line(lake, monkeypatch, tmp_path):
    """On a lake of January: every profile is older than a week by now, and that is said."""
    from typer.testing import CliRunner

    from dagster_project.cli import app

    monkeypatch.setenv("GLASSHOUSE_LAKE", lake.root)
    monkeypatch.setenv("GLASSHOUSE_HOME", str(tmp_path))
    found = CliRunner().invoke(app, ["ranker", "score", "5", "6", "--user", "1", "--channel", "search"])
    assert found.exit_code == 0, found.output
    assert f"By {registry.serving(lake)}; the user has no profile" in found.output and found.output.count("no profile") == 3
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in found.output.splitlines() if line.startswith("│")]
    value = {note: float(found) for note, found, _ in rows if note}
    assert set(value) == {"5 (no profile)", "6 (no profile)"} and list(value.values()) == sorted(value.values(), reverse=True)
    assert rows[0][2].startswith(("click ", "dwell ", "long_view ")) and all(f"{head} " in found.output for head in serving.load_weights())


def test_what_cannot_be_scored_is_said(lake, ranker, tmp_path):
    for context, words in (({"colour": 1}, "colour; known are channel"), ({"time": dt.datetime(2026, 1, 5)}, "with a zone"),
                           ({"channel": 5}, "context cannot be read"), ({"position": 0}, "position; known are")):  # fmt: skip
        with pytest.raises(RankerError, match=words):
            ranker.score(1, [2], context)
    with pytest.raises(RankerError, match="whole numbers"):
        ranker.score(1, ["two"], CONTEXT)
    with pytest.raises(RankerError, match="note_id, author_id and topic"):
        ranker.score(1, pa.table({"id": [1]}), CONTEXT)
    with pytest.raises(RankerError, match="ranker versions|none yet"):
        Ranker.load(Lake(str(tmp_path)), None)
    with pytest.raises(RankerError, match="user_mood, which sql/lake/training_samples.sql does not make"):
        serving.sources(["user_mood"])
    with pytest.raises(RankerError, match="label_click cannot be served"):
        serving.sources(["label_click"])
