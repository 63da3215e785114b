"""plan, apply and undo on real Delta tables: exact at any edge, late events, other rules, refusals; with the reference."""

import datetime as dt
import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.attribution import label as labeling
from assets.attribution import live
from assets.attribution.accounting import CONTRADICTIONS, account
from assets.attribution.label import LabelError, label_window
from assets.attribution.provenance import made_by
from assets.attribution.rules import Rules
from assets.backfill import store
from assets.backfill.plan import differences, plan
from assets.backfill.store import BackfillError
from assets.backfill.swap import apply, undo
from assets.lake import Lake, Window
from assets.tidy import tidy
from tests.integration.test_label_live import cut, shaken
from tests.integration.test_label_window import hour
from tests.unit import reference
from tests.unit.labeling import T0, canonical, rows
from tests.unit.reference import MINUTE, Plain
from tests.unit.test_fold_rules import of
from tests.unit.test_label import big_log

pytestmark = pytest.mark.slow

LABELS = ("impression_sessions", "click_sessions", "orphan_actions")
HOURS = 6


def live_lake(folder, seed=3, count=1800, minutes=60 * HOURS + 30, shake=9, rules=None, keys=30):
    """A lake that the live labeler wrote, with late events."""
    lake, landing = Lake(str(folder / "lake")), folder / "landing"
    events = shaken(big_log(seed, count=count, keys=keys, minutes=minutes), seed, shake)
    cut(landing, events, 300)
    live.run(lake, landing, rules or Rules(), 0, threading.Event(), once=True, say=str, batch_bytes=1)
    return lake, events


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return live_lake(tmp_path_factory.mktemp("live"))


def copy_of(written, folder):
    import shutil

    lake, events = written
    shutil.copytree(lake.root, folder / "lake")
    return Lake(str(folder / "lake")), events


def state(lake, window=None):
    found = {name: rows(lake.read(name, window)) for name in (*LABELS, "late_events")}
    return found | {"short": rows(lake.read("short_clicks", window)) if lake.exists("short_clicks") else []}


def whole(lake, events, rules=None):
    """What the labels must be: a whole recompute of all events but those that are late still."""
    late = set(lake.read("late_events")["event_id"].to_pylist())
    return reference.label([one for one in events if one["event_id"] not in late], rules or 20 * MINUTE)


def closed(rows_of, upto):
    """Rows of hours that the live labeler has closed."""
    return [one for one in rows_of if one.get("session_start", one.get("event_time")) < T0 + upto * 60 * MINUTE]


def assert_whole(lake, events, rules=None, upto=HOURS):
    for name, want in zip(LABELS, whole(lake, events, rules), strict=True):
        assert closed(rows(lake.read(name)), upto) == closed(canonical(want), upto), name


def changed(found):
    return sum(sum(kinds.values()) for kinds in found["rows"].values())


def test_late_events_of_the_range_are_used_wherever_their_session_began(written, tmp_path):
    lake, events = copy_of(written, tmp_path)
    late = lake.read("late_events")["event_time"].to_pylist()
    inside = sum(hour(2) <= one < hour(4) for one in late)
    found = plan(lake, Window(hour(2), hour(4)), Rules())
    assert found["late_used"] == inside > 20 and changed(found) > 0
    assert found["edge_before"] > 0 and found["edge_after"] > 0  # sessions over both edges
    before = state(lake)
    assert rows(lake.read("late_events")) == before["late_events"]  # a plan changes nothing
    done = apply(lake, found["plan"])
    assert done["status"] == "applied" and done["hours"]
    left = lake.read("late_events")["event_time"].to_pylist()
    assert len(left) == len(late) - inside and not any(hour(2) <= one < hour(4) for one in left)
    assert_whole(lake, events)
    counts = account(lake, Window(hour(0), hour(HOURS)), Rules())
    assert not any(counts[name] for name in CONTRADICTIONS), counts
    undo(lake, found["plan"])
    assert state(lake) == before


def test_the_whole_range_uses_all_late_events(written, tmp_path):
    lake, events = copy_of(written, tmp_path)
    apply(lake, plan(lake, Window(hour(0), hour(HOURS - 1)), Rules())["plan"])
    assert_whole(lake, events)
    again = plan(lake, Window(hour(0), hour(HOURS - 1)), Rules())
    assert changed(again) == 0 and again["late_used"] == 0


def test_an_hour_that_live_has_still_open_is_not_changed_under_it(written, tmp_path):
    lake, _ = copy_of(written, tmp_path)
    with pytest.raises(LabelError, match="not closed yet; take an earlier end, or wait"):
        plan(lake, Window(hour(0), hour(HOURS)), Rules())


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(start=st.integers(0, HOURS - 1), length=st.integers(1, HOURS), slice_rows=st.sampled_from([60, 500, 10**6]))
def test_same_rules_and_no_late_events_change_nothing_at_any_edge(on_time, start, length, slice_rows):
    lake, _ = on_time
    rows_at_once, labeling.SLICE_ROWS = labeling.SLICE_ROWS, slice_rows
    try:
        found = differences(lake, Window(hour(start), hour(min(HOURS, start + length))), Rules())
    finally:
        labeling.SLICE_ROWS = rows_at_once
    assert not any(found.values()), found


@pytest.fixture(scope="module")
def on_time(tmp_path_factory):
    return live_lake(tmp_path_factory.mktemp("on_time"), shake=1, keys=15, count=5000)


def test_while_live_runs_nothing_differs(tmp_path):
    lake, landing = Lake(str(tmp_path / "lake")), tmp_path / "landing"
    events = shaken(big_log(5, count=3000, keys=30, minutes=60 * 12), 5, 1)
    cut(landing, events[:1500], 100)
    stop = threading.Event()
    live.run(lake, landing, Rules(), 0, threading.Event(), once=True, say=str, batch_bytes=1)
    thread = threading.Thread(target=live.run, args=(lake, landing, Rules(), 0.01, stop), kwargs={"say": str, "batch_bytes": 1})
    thread.start()
    try:
        for number in range(5):
            cut(tmp_path / f"x{number}", events[1500 + 300 * number : 1800 + 300 * number], 100)
            for path in sorted((tmp_path / f"x{number}").iterdir()):
                path.rename(landing / f"x{number}-{path.name}")
            found = differences(lake, Window(hour(number % 4), hour(4)), Rules())
            assert not any(found.values()), found
    finally:
        stop.set()
        thread.join()


PLAIN = Plain(short=3000, stay={"like": MINUTE, "fav": 5 * MINUTE}, horizon=6 * MINUTE, labels={"share": ["share", "hide"]})


def by_hour_of_start(events, start, end, plain):
    """The reference by two rules: a session follows those of the hour in which it starts."""
    return reference.label_by(events, lambda time: plain if T0 + start * 60 * MINUTE <= time < T0 + end * 60 * MINUTE else Plain())


@pytest.mark.parametrize("plain", [Plain(stay={"like": MINUTE}), Plain(short=3000), PLAIN])
def test_other_rules_change_the_range_and_what_stands_on_it(on_time, tmp_path, plain):
    lake, events = copy_of(on_time, tmp_path)
    before = state(lake)
    found = plan(lake, Window(hour(2), hour(4)), of(plain, version="mine"))
    assert changed(found) > 5
    apply(lake, found["plan"])
    for name, want in zip(LABELS, by_hour_of_start(events, 2, 4, plain), strict=True):
        assert closed(rows(lake.read(name)), HOURS) == closed(canonical(want), HOURS), name
    assert made_by(lake, hour(3))["versions"] == ["mine"] and made_by(lake, hour(1))["versions"] == ["default"]
    again = plan(lake, Window(hour(2), hour(4)), of(plain))
    assert changed(again) == 0
    undo(lake, found["plan"])
    assert state(lake) == before and made_by(lake, hour(3))["versions"] == ["default"]


def test_the_report_says_what_changes(on_time, tmp_path):
    lake, _ = copy_of(on_time, tmp_path)
    found = plan(lake, Window(hour(2), hour(4)), of(Plain(stay={"like": MINUTE}), version="likes stay"))
    likes = found["totals"]["like"]
    clicks = [one for one in rows(lake.read("click_sessions", Window(hour(2), hour(4))))]
    assert likes["before"] == sum(one["like"] for one in clicks) and likes["after"] != likes["before"]
    assert found["totals"]["clicks"] == {"before": len(clicks), "after": len(clicks)}
    assert found["rates"]["like"]["before"] == pytest.approx(likes["before"] / len(clicks))
    assert found["rules"]["was"][0]["changes"] == {"like_stay": ("0s", "1m")}
    assert sum(one.get("like", {"after": 0})["after"] for one in found["by_hour"]) == likes["after"]
    assert sum(one.get("like", {"after": 0})["after"] for one in found["by_channel"]) == likes["after"]
    example = found["examples"]["changed"][0]
    assert "like" in example["changed"] and {"like", "unlike"} <= {one["action"] for one in example["events"]}
    assert len(found["examples"]["changed"]) == min(10, changed(found)) and not found["examples"]["added"]
    assert found["users"]["by_day"] and found["cost"]["rows"] > 0 and found["apply_cost"]["files"] > 0
    assert store.Folder(lake, found["plan"]).read("report")["totals"] == found["totals"]


def test_an_hour_compared_in_pieces_gives_the_same_report(written, tmp_path, monkeypatch):
    from assets.backfill import report

    lake, _ = copy_of(written, tmp_path)
    one = plan(lake, Window(hour(2), hour(4)), Rules())
    monkeypatch.setattr(report, "PAIR_ROWS", 20)
    other = plan(lake, Window(hour(2), hour(4)), Rules())
    same = ("rows", "totals", "rates", "by_hour", "by_channel", "edge_before", "edge_after")
    assert [one[name] for name in same] == [other[name] for name in same]


def test_a_plan_whose_inputs_moved_is_refused(written, tmp_path):
    lake, _ = copy_of(written, tmp_path)
    found = plan(lake, Window(hour(2), hour(4)), Rules())
    other = plan(lake, Window(hour(3), hour(5)), Rules())
    apply(lake, other["plan"])
    with pytest.raises(BackfillError, match="has moved since plan .* plan the range again"):
        apply(lake, found["plan"])
    undo(lake, other["plan"])
    assert apply(lake, found["plan"])["status"] == "applied"  # the same rows are there again
    with pytest.raises(BackfillError, match="nothing to undo"):
        undo(lake, other["plan"])
    label_window(lake, Window(hour(2), hour(4)), Rules(like_stay=dt.timedelta(seconds=30)))
    with pytest.raises(BackfillError, match="was changed since plan .* was applied"):
        undo(lake, found["plan"])


def test_compaction_and_vacuum_harm_no_plan(written, tmp_path):
    lake, events = copy_of(written, tmp_path)
    before = state(lake)
    found = plan(lake, Window(hour(2), hour(4)), Rules())
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    tidy(lake, keep=dt.timedelta(days=1), open_hours=0, now=later)
    apply(lake, found["plan"])
    assert_whole(lake, events)
    tidy(lake, keep=dt.timedelta(hours=0), open_hours=0, now=later, keep_plans=dt.timedelta(days=1))
    undo(lake, found["plan"])
    assert state(lake) == before
    tidy(lake, keep=dt.timedelta(hours=0), open_hours=0, now=later + dt.timedelta(hours=1))
    assert store.ids(lake) == []


def test_overlapping_work_is_refused(on_time, tmp_path):
    lake, _ = copy_of(on_time, tmp_path)
    with store.claim(lake, Window(hour(1), hour(3)), "a plan"):
        with pytest.raises(BackfillError, match="works on .* wait for its end, or take hours beside it"):
            plan(lake, Window(hour(2), hour(4)), Rules())
        plan(lake, Window(hour(3), hour(4)), Rules())
    plan(lake, Window(hour(2), hour(4)), Rules())


def test_the_live_frontier_is_refused(on_time, tmp_path):
    lake, _ = copy_of(on_time, tmp_path)
    with pytest.raises(LabelError, match="live labeler still has"):
        plan(lake, Window(hour(5), hour(7)), Rules())


def test_a_killed_plan_is_gone_on_with(on_time, tmp_path, monkeypatch):
    lake, _ = copy_of(on_time, tmp_path)
    monkeypatch.setattr(labeling, "SLICE_ROWS", 100)
    monkeypatch.setattr(labeling, "COMMIT_ROWS", 50)
    seen = []

    def dies(at):
        seen.append(at)
        if seen.count("published") == 3:
            raise KeyboardInterrupt

    rules = Rules(like_stay=dt.timedelta(minutes=1))
    with pytest.raises(KeyboardInterrupt):
        plan(lake, Window(hour(1), hour(5)), rules, probe=dies)
    (left,) = store.ids(lake)
    stages = []
    found = plan(lake, Window(hour(1), hour(5)), rules, progress=lambda **said: stages.append(said))
    assert found["plan"] == left and stages[0]["hours_total"] < 5
    monkeypatch.undo()
    assert found["rows"] == plan(lake, Window(hour(1), hour(5)), rules)["rows"]


@pytest.mark.parametrize("what", ["apply", "undo"])
def test_a_crash_at_any_point_is_finished_by_a_rerun(written, tmp_path, what):
    lake, _ = copy_of(written, tmp_path)
    old = state(lake)
    found = plan(lake, Window(hour(2), hour(4)), Rules())
    verb = {"apply": apply, "undo": undo}[what]
    apply(lake, found["plan"])
    new = state(lake)
    undo(lake, found["plan"])
    points = []
    if what == "undo":
        apply(lake, found["plan"])
    verb(lake, found["plan"], probe=points.append)
    assert {"journaled", "linked", "intent", "click_sessions", "published", "committed"} <= set(points)
    back = {"apply": undo, "undo": apply}[what]
    for point in dict.fromkeys(points):
        back(lake, found["plan"])

        def dies(at, point=point):
            if at == point:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            verb(lake, found["plan"], probe=dies)
        seen = state(lake.pinned())
        assert seen in (old, new), point
        assert verb(lake, found["plan"])["moment"] is not None
        assert state(lake) == (new if what == "apply" else old), point


def test_dice_of_ranges_applied_one_after_the_other(written, tmp_path):
    lake, events = copy_of(written, tmp_path)
    dice, done = random.Random(4), []
    old = state(lake)
    for _ in range(4):
        start = dice.randrange(HOURS - 1)
        found = plan(lake, Window(hour(start), hour(start + 1)), Rules())
        apply(lake, found["plan"])
        assert_whole(lake, events)
        done.append(found["plan"])
    for one in reversed(done):
        undo(lake, one)
    assert state(lake) == old


def test_the_command_line(on_time, tmp_path):
    import os
    import subprocess
    import sys
    from pathlib import Path

    lake, _ = copy_of(on_time, tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(Rules(like_stay=dt.timedelta(minutes=2), version="likes stay 2 m").to_toml())
    root = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ, "GLASSHOUSE_HOME": str(tmp_path), "GLASSHOUSE_CLICKHOUSE_PORT": "1", "PYTHONPATH": str(root)
    }  # fmt: skip

    def glasshouse(*words):
        command = [sys.executable, "-c", "from dagster_project.cli import main; main()", "backfill", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
        return done.returncode, done.stdout + done.stderr

    before = state(lake)
    code, said = glasshouse("plan", "--from", "2026-01-01T02:00", "--to", "2026-01-01T04:00", "--rules", str(path))
    (plan_id,) = store.ids(lake)
    assert code == 0 and "likes stay 2 m" in said and "like_stay 0s → 2m" in said and f"backfill apply {plan_id}" in said, said
    code, said = glasshouse("apply", plan_id)
    assert code == 0 and "applied" in said and "does not answer; start it" in said, said
    assert state(lake) != before
    code, said = glasshouse("list")
    assert code == 0 and plan_id in said and "applied" in said, said
    code, said = glasshouse("undo", plan_id)
    assert code == 0 and state(lake) == before, said
    code, said = glasshouse("show", "nothing")
    assert code == 1 and "no plan nothing in" in said and f"plans: {plan_id}" in said, said
    code, said = glasshouse("plan", "--from", "2026-01-01T02:30", "--to", "2026-01-01T04:00")
    assert code != 0 and "2026-01-31T05:00" in said, said
