"""Wrong clocks: fast and slow phones, missing times, a machine whose own clock is set, lakes that a wrong clock has poisoned; and
the stray hours that they make."""

import datetime as dt
import json
import random
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pytest

from assets import hours
from assets import lake as lake_module
from assets.attribution import live, strays
from assets.attribution.clocks import LandingClock, warnings
from assets.attribution.label import LabelError, label_files, label_window
from assets.attribution.live import run, status
from assets.attribution.rules import Rules
from assets.attribution.state import Store
from assets.backfill.plan import plan
from assets.backfill.store import BackfillError
from assets.events import contract, intake
from assets.hours import MOST_PARTITIONS, STRAY_AFTER, STRAY_EVENTS
from assets.lake import Lake, Window
from tests.integration.test_label_live import OUT, check, cut, drop
from tests.unit import reference
from tests.unit.labeling import T0, canonical, event, moment, rows, same, table
from tests.unit.reference import MINUTE
from tests.unit.test_label import big_log

RULES = Rules()
SECOND = 1_000_000
HOUR = dt.timedelta(hours=1)
NOW = moment(T0 + 60 * MINUTE)
Y2099 = (dt.datetime(2099, 1, 1, tzinfo=dt.UTC) - moment(0)) // dt.timedelta(microseconds=1)
PAST_LANDING = "more than 5 minutes past its landing (wrong clock)"


class Wall:
    """A machine's clock that a test sets."""

    def __init__(self, at=NOW):
        self.at = at

    def __call__(self):
        return self.at


def go(lake, landing, now=None, **how):
    said = []
    clock = {} if now is None else {"now": now}
    run(lake, landing, RULES, 0, threading.Event(), once=True, say=said.append, **clock, **how)
    return said


def reasons(lake):
    return sorted(lake.read("quarantine")["reason"].to_pylist())


def watermark(lake):
    return dt.datetime.fromisoformat(status(lake)["watermark"])


@pytest.fixture
def landing(tmp_path):
    return tmp_path / "landing"


@pytest.fixture
def one_file_a_batch(monkeypatch):
    monkeypatch.setattr(live, "BATCH_BYTES", 1)


# --- phones whose clocks are wrong -----------------------------------------------------------------------------------


def minutes_of(skew_s, minutes=10):
    """300 displays a minute, and one event a minute of a phone that is so far ahead of the platform."""
    events = []
    for minute in range(minutes):
        at = T0 + minute * MINUTE
        for n in range(300):
            seen = at + n * 200_000
            events.append(event(f"{minute}-{n}", 0, "impression", user=n, note=minute, event_time=seen, ingest_time=seen + SECOND))
        seen = at + 30 * SECOND
        events.append(event(f"fast{minute}", 0, "impression", user=999, note=minute, event_time=seen + skew_s * SECOND, ingest_time=seen))
    return events


@pytest.mark.slow
@pytest.mark.parametrize("skew_s", [0, 290, 300])
def test_a_clock_ahead_within_what_is_allowed_makes_nobody_late(lake, landing, skew_s):
    events = minutes_of(skew_s)
    cut(landing, events, 301)
    go(lake, landing)
    assert len(events) == 3010 and lake.read("events").num_rows == 3010
    assert lake.read("late_events").num_rows == 0
    assert watermark(lake) <= moment(T0 + 10 * MINUTE)


@pytest.mark.slow
@pytest.mark.parametrize("claims", [
    {"event_time": Y2099, "ingest_time": None}, {"event_time": Y2099, "ingest_time": Y2099},
    {"event_time": T0, "ingest_time": Y2099}, {"event_time": Y2099, "ingest_time": T0},
    {"event_time": T0 + 66 * MINUTE, "ingest_time": None},
])  # fmt: skip
def test_an_event_of_the_future_is_refused_and_the_watermark_stays(lake, landing, one_file_a_batch, claims):
    drop(landing, "0", [event("a", 0, "impression")])
    drop(landing, "1", [event("wrong", 0, "impression", note=2, **claims)])
    drop(landing, "2", [event("b", 1, "click"), event("c", 30, "impression", note=3)])
    said = go(lake, landing, Wall())
    (reason,) = reasons(lake)
    assert "wrong clock" in reason and (claims["ingest_time"] == T0 or reason.endswith(PAST_LANDING))
    assert watermark(lake) == moment(T0 + 28 * MINUTE)
    assert lake.read("late_events").num_rows == 0 and lake.read("click_sessions").num_rows == 1
    assert "1 of them of wrong clocks" in said[1] and "wrong clocks" not in said[2]
    assert b"wrong" in lake.read("quarantine")["body"][0].as_py()
    hour = lake.read("quarantine")["hour"][0].as_py()
    assert hour in (moment(T0), NOW), "a wrong clock opens no hour of its own"


@pytest.mark.slow
def test_times_beyond_any_calendar_are_refused_by_row(lake, landing):
    wild = [{"event_time": 2**63 - 1}, {"event_time": -(2**63)}, {"ingest_time": 2**62}, {"event_time": 2**62, "ingest_time": None}]
    drop(landing, "0", [event("a", 0, "impression"), *(event(f"w{n}", 0, "click", **one) for n, one in enumerate(wild))])
    go(lake, landing)
    assert lake.read("events")["event_id"].to_pylist() == ["a"] and len(reasons(lake)) == 4
    assert all("outside of 2000 to 2100" in reason for reason in reasons(lake))


@pytest.mark.slow
def test_just_within_five_minutes_of_the_landing_is_taken(lake, landing):
    at = T0 + 65 * MINUTE  # 5 minutes past NOW, on the microsecond
    drop(landing, "0", [event("a", 0, "impression", event_time=at, ingest_time=at), event("b", 0, "impression", note=2, event_time=at + 1, ingest_time=at)])
    go(lake, landing, Wall())
    assert lake.read("events")["event_id"].to_pylist() == ["a"] and len(reasons(lake)) == 1
    assert watermark(lake) == NOW - RULES.delay


@pytest.mark.slow
def test_clocks_behind_are_late_or_refused_and_move_nothing(lake, landing, one_file_a_batch):
    drop(landing, "0", [event("now", 50, "impression")])
    year = 365 * 24 * 60
    old = [event("years", -16 * year, "impression", note=2, ingest_time=T0 + 51 * MINUTE),
           event("ingest_old", 51, "impression", note=3, ingest_time=T0 - year * MINUTE),
           event("both_old", -year, "impression", note=4)]  # fmt: skip
    zero = event("zero", 0, "impression", note=5, event_time=1, ingest_time=1)
    drop(landing, "1", [*old, zero])
    go(lake, landing, Wall())
    assert reasons(lake) == ["event_time: more than 5 minutes ahead of ingest_time (wrong clock)",
                             "event_time: outside of 2000 to 2100 (integers count microseconds)"]  # fmt: skip
    assert sorted(lake.read("late_events")["event_id"].to_pylist()) == ["both_old", "years"]
    assert watermark(lake) == moment(T0 + 48 * MINUTE)


@pytest.mark.slow
def test_an_hour_that_comes_twice_when_summer_ends_is_two_hours(lake, landing):
    """RFC 3339 texts of a phone in Berlin, 25 October 2026, 02:30 twice."""
    landing.mkdir()
    texts = ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:00:00+01:00"]
    lines = [json.dumps({"event_id": text, "user_id": 1, "note_id": n, "action": "impression", "event_time": text}) for n, text in enumerate(texts)]
    (landing / "a.jsonl").write_text("\n".join(lines))
    go(lake, landing, Wall(dt.datetime(2026, 10, 25, 3, tzinfo=dt.UTC)))
    assert lake.hours("events") == [dt.datetime(2026, 10, 25, hour, tzinfo=dt.UTC) for hour in (0, 1, 2)]
    assert not reasons(lake) and lake.read("late_events").num_rows == 0


def skewed(seed, count=900):
    """A log in which every tenth phone is ahead of or behind the platform, within what is allowed, and some times are missing."""
    dice = random.Random(seed)
    events = sorted(big_log(seed, count=count, keys=30, minutes=120), key=lambda one: one["event_time"] + dice.random() * 3 * MINUTE)
    received = 0
    for one in events:
        received = max(received + 1, one["event_time"])
        kind = dice.random()
        one["ingest_time"] = received - int(dice.random() * 5 * MINUTE) if kind < 0.1 else received
        if kind > 0.95:
            one["ingest_time"] = one["event_time"] - 4 * MINUTE
    return events


@pytest.mark.slow
@pytest.mark.parametrize("size", [70, 450])
def test_the_labeler_is_the_reference_also_where_landing_holds_the_watermark(lake, landing, size):
    """Batches that land while phones are ahead of the landing too: min of all three times moves the watermark."""
    wall, events = Wall(), skewed(3)
    for start in range(0, len(events), size):
        part = events[start : start + size]
        wall.at = moment(max(one["ingest_time"] for one in part) - 2 * MINUTE)
        # In order of arrival as the labeler takes it, which the reference is given.
        part.sort(key=lambda one: one["ingest_time"])
        drop(landing, f"{start:06d}", part)
        go(lake, landing, wall)
        landed = dt.datetime.fromisoformat(Store(lake).plan(Store(lake).committed()).planned_at)
        for one in part:
            one["landed_at"] = (landed - moment(0)) // dt.timedelta(microseconds=1)
        events[start : start + size] = part
    taken = [one for one in events if not reference.wrong_clock(one)]
    assert {one["event_id"] for one in events} - {one["event_id"] for one in taken} == {
        json.loads(body)["event_id"] for body in lake.read("quarantine")["body"].to_pylist()
    }  # fmt: skip
    impressions, clicks, orphans, late = reference.stream(events)
    same([lake.read(name) for name in OUT], (impressions, clicks, orphans))
    assert late and {one["event_id"] for one in late} == set(lake.read("late_events")["event_id"].to_pylist())


# --- the machine's own clock -----------------------------------------------------------------------------------------


def test_the_landing_time_never_goes_back():
    wall = Wall()
    clock = LandingClock(wall)
    assert clock.read() == NOW
    clock.landed(NOW)
    wall.at = NOW - 10 * HOUR
    assert NOW < clock.read() < NOW + HOUR
    wall.at = NOW + 10 * HOUR
    assert clock.read() == NOW + 10 * HOUR


@pytest.mark.slow
def test_a_clock_set_back_between_batches_refuses_no_honest_event(lake, landing, one_file_a_batch):
    wall = Wall()
    drop(landing, "0", [event("a", 59, "impression")])
    go(lake, landing, wall)
    wall.at = NOW - 24 * HOUR
    drop(landing, "1", [event("b", 61, "click")])
    said = go(lake, landing, wall)
    assert "ahead of this machine's clock" in said[0]
    wall.at = NOW + dt.timedelta(minutes=3)
    drop(landing, "2", [event("c", 63, "like")])
    go(lake, landing, wall)
    assert not reasons(lake) and lake.read("late_events").num_rows == 0
    assert watermark(lake) == NOW + dt.timedelta(minutes=1)
    landed = lake.read("sources").sort_by("name")["landed_at"].to_pylist()
    assert landed == sorted(set(landed)), "the order of landing is the order of arrival"


@pytest.mark.slow
def test_a_clock_set_forward_and_right_again_moves_no_watermark(lake, landing, one_file_a_batch):
    wall = Wall(NOW + 10000 * HOUR)
    drop(landing, "0", [event("a", 59, "impression")])
    go(lake, landing, wall)
    wall.at = NOW
    drop(landing, "1", [event("b", 60, "impression", note=2)])
    said = go(lake, landing, wall)
    assert "--reset-watermark" in said[0] and watermark(lake) == NOW - RULES.delay
    assert "the landing time was set back" in go(lake, landing, wall, reset_watermark=True)[0]
    wall.at = NOW + dt.timedelta(minutes=2)
    drop(landing, "2", [event("wrong", 2000, "impression", note=3), event("c", 61, "click")])
    go(lake, landing, wall)
    assert len(reasons(lake)) == 1 and watermark(lake) == NOW - dt.timedelta(minutes=1)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["planned", "segment", "intent", "published"])
def test_a_batch_that_is_repeated_has_landed_when_it_was_planned(lake, landing, one_file_a_batch, point):
    wall, events = Wall(moment(T0 + 20 * MINUTE)), skewed(5, count=200)
    cut(landing, events, 100)

    def die(at):
        if at == point:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(lake, landing, wall, probe=die)
    wall.at = moment(T0 + 1000 * MINUTE)
    go(lake, landing, wall)
    landed = {one["name"]: one["landed_at"] for one in lake.read("sources").to_pylist()}
    assert landed["00000000.jsonl.gz"] == moment(T0 + 20 * MINUTE) and landed["00000100.jsonl.gz"] > moment(T0 + 990 * MINUTE)
    straight, other = Lake(str(lake.root) + "2"), landing.parent / "other"
    for number, at in ((0, T0 + 20 * MINUTE), (1, T0 + 1000 * MINUTE)):
        drop(other, f"{number * 100:08d}", events[number * 100 : number * 100 + 100])
        go(straight, other, Wall(moment(at)))
    assert reasons(lake) == reasons(straight) and reasons(lake)
    assert [rows(lake.read(name)) for name in (*OUT, "late_events")] == [rows(straight.read(name)) for name in (*OUT, "late_events")]
    assert watermark(lake) == watermark(straight)


@pytest.mark.slow
def test_hours_read_again_are_judged_by_the_same_landing(lake, landing, one_file_a_batch):
    events = [*minutes_of(290, minutes=3), event("future", 70, "impression", note=7)]
    cut(landing, events, 302)
    go(lake, landing, Wall())
    before = {name: lake.read(name).sort_by([(column, "ascending") for column in ("hour", key)]) for name, key in (("events", "event_id"), ("quarantine", "row"))}
    window = Window(moment(T0), moment(T0) + 3 * HOUR)
    counts = intake.accept(lake, window).counts
    assert counts["events"] == 903 and counts["quarantine"] == 1
    for name, key in (("events", "event_id"), ("quarantine", "row")):
        assert lake.read(name).sort_by([(column, "ascending") for column in ("hour", key)]).equals(before[name])


@pytest.mark.slow
def test_a_log_as_a_whole_may_be_of_any_time(tmp_path, lake):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"event_id": "a", "user_id": 1, "note_id": 1, "action": "impression", "event_time": Y2099}) + "\n")
    found = label_files([path], tmp_path / "out", None, RULES)
    assert found["impression_sessions"] == 1 and found["stray_hours"] == {}
    intake.land(lake, [path])
    assert intake.accept(lake, Window(moment(Y2099), moment(Y2099) + HOUR)).counts["events"] == 1


def test_sources_of_an_older_glasshouse_gain_the_column(tmp_path, lake):
    old = pa.schema([column for column in contract.SOURCES.schema if column.name != "live"])
    lake.create(replace(contract.SOURCES, schema=old))
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"event_id": "a", "user_id": 1, "note_id": 1, "action": "click", "event_time": T0}) + "\n")
    intake.land(lake, [path])
    assert lake.read("sources")["live"].to_pylist() == [False]
    assert intake.accept(lake, Window(moment(T0), moment(T0) + HOUR)).counts["events"] == 1


@pytest.mark.slow
def test_the_watermark_follows_the_clock_only_where_rules_say_so_and_nothing_arrives(lake, landing):
    wall, rules = Wall(), Rules(idle_after=dt.timedelta(minutes=10))

    def look(by):
        run(lake, landing, by, 0, threading.Event(), once=True, say=str, now=wall)
        return watermark(lake)

    drop(landing, "0", [event("a", 59, "impression")])
    assert look(rules) == moment(T0 + 57 * MINUTE)
    wall.at = NOW + dt.timedelta(minutes=9)
    assert look(rules) == moment(T0 + 57 * MINUTE)
    wall.at = NOW + dt.timedelta(minutes=10)
    assert look(RULES) == moment(T0 + 57 * MINUTE)
    assert look(rules) == wall.at - rules.delay
    wall.at += dt.timedelta(minutes=20)
    look(rules)
    assert lake.read("impression_sessions").num_rows == 1 and Store(lake).committed() == 2
    drop(landing, "1", [event("b", 60, "click"), event("c", 89, "impression", note=2)])
    look(rules)
    assert lake.read("late_events")["event_id"].to_pylist() == ["b"]
    wall.at += 2 * HOUR
    look(rules)
    batches = Store(lake).committed()
    wall.at += 2 * HOUR
    look(rules)
    assert Store(lake).committed() == batches, "with every hour closed there is nothing to follow the clock for"


@pytest.mark.slow
def test_a_machine_that_is_behind_is_told_and_the_rows_can_land_again(lake, landing):
    import gzip

    wall, events = Wall(NOW - 10 * HOUR), [event(f"e{n}", n, "impression", note=n) for n in range(5)]
    drop(landing, "0", events)
    go(lake, landing, wall)
    assert lake.read("events").num_rows == 0 and len(reasons(lake)) == 5
    assert any("5 of 5 rows" in sentence and "gzip" in sentence for sentence in status(lake)["warnings"])
    plain = gzip.decompress((landing / "0.jsonl.gz").read_bytes())
    (landing / "again.jsonl").write_bytes(plain)
    wall.at = NOW
    go(lake, landing, wall)
    assert lake.read("events").num_rows == 5 and status(lake)["warnings"] == []


# --- a lake whose watermark was moved before there was this rule -------------------------------------------------------


def poison(lake, landing):
    """What an older Glasshouse left of one event of 2099: the watermark there, in files that tell nothing of landing."""
    drop(landing, "1", [event("future", 0, "impression", note=9, event_time=Y2099, ingest_time=Y2099)])
    go(lake, landing, Wall(moment(Y2099)))
    store = Store(lake)
    paths = [store.root / folder / f"{store.committed():012d}.json" for folder in ("batches", "plans")]
    batch, planned = (json.loads(path.read_text()) for path in paths)
    del batch["moved"]
    for name in ("moved", "landed_at", "wrong_clocks"):
        del batch["stats"][name]
    planned["planned_at"] = NOW.isoformat()
    for path, body in zip(paths, (batch, planned), strict=True):
        del body["sum"]  # older files have no checksum
        path.write_text(json.dumps(body))


@pytest.mark.slow
def test_a_poisoned_lake_opens_says_so_and_can_be_healed(lake, landing, one_file_a_batch):
    wall = Wall()
    drop(landing, "0", [event("a", 30, "impression"), event("old", 52, "impression", note=2)])
    go(lake, landing, wall)
    poison(lake, landing)
    drop(landing, "2", [event("lost", 59, "impression", note=3)])
    said = go(lake, landing, wall)
    assert "2098-12-31" in said[0] and "--reset-watermark" in said[0] and "1 late" in said[1]
    assert any("2098" in sentence for sentence in status(lake)["warnings"])

    def die(at):
        if at == "planned":
            raise KeyboardInterrupt

    drop(landing, "3", [event("b", 72, "impression", note=4), event("c", 73, "click", note=4), event("d", 94, "impression", note=5)])
    wall.at = NOW + dt.timedelta(minutes=30)
    with pytest.raises(KeyboardInterrupt):  # what was set back outlives a crash before the next batch
        go(lake, landing, wall, reset_watermark=True, probe=die)
    assert not status(lake)["warnings"] or "2098" not in status(lake)["warnings"][0]
    said = go(lake, landing, wall)
    assert "0 late" in said[0] and watermark(lake) == moment(T0 + 88 * MINUTE)
    drop(landing, "4", [event("e", 120, "impression", note=6)])
    wall.at = NOW + HOUR
    go(lake, landing, wall)
    (click,) = rows(lake.read("click_sessions"))
    assert click["attributed"] and click["session_start"] == T0 + 73 * MINUTE
    assert {1, 2, 4, 5} == {one["note_id"] for one in rows(lake.read("impression_sessions"))}
    starts = [(one["note_id"], one["session_start"]) for one in rows(lake.read("impression_sessions"))]
    assert len(starts) == len(set(starts)), "nothing is emitted twice"
    label_window(lake, Window(moment(T0), moment(T0) + HOUR), RULES)
    assert lake.read("late_events").num_rows == 0


@pytest.mark.slow
def test_nothing_is_set_back_without_need(lake, landing):
    drop(landing, "0", [event("a", 30, "impression")])
    go(lake, landing, Wall())
    before = watermark(lake)
    assert "nothing was set back" in go(lake, landing, Wall(), reset_watermark=True)[0]
    assert watermark(lake) == before


def test_warnings_are_for_what_lies_ahead():
    fine = {"watermark": (NOW + 5 * dt.timedelta(minutes=1)).isoformat(), "landed_at": None}
    assert warnings(fine, NOW) == [] and warnings({"watermark": None}, NOW) == []
    assert "2 days" in warnings({"watermark": (NOW + 48 * HOUR).isoformat()}, NOW)[0]
    assert "set back since" in warnings({"watermark": None, "landed_at": (NOW + HOUR).isoformat()}, NOW)[0]


# --- stray hours -----------------------------------------------------------------------------------------------------

START = moment(T0)
DAY = dt.timedelta(days=1)


@pytest.mark.parametrize(("away", "events", "stray"), [
    (STRAY_AFTER, 1, False), (STRAY_AFTER + HOUR, 1, True), (STRAY_AFTER - HOUR, 1, False),
    (STRAY_AFTER + HOUR, STRAY_EVENTS - 1, True), (STRAY_AFTER + HOUR, STRAY_EVENTS, False), (9999 * DAY, 1, True),
])  # fmt: skip
@pytest.mark.parametrize("direction", [-1, 1])
def test_which_hour_is_stray(away, events, stray, direction):
    found = hours.split({START: 500, START + direction * away: events})
    assert (START + direction * away in found.stray) is stray and START in found.regular


def test_strays_beside_each_other_are_judged_together():
    y2000 = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    phone = {y2000 + n * HOUR: 1 for n in range(5)}
    assert hours.split({START: 500, **phone}).stray == phone
    assert not hours.split({START: 500, **dict.fromkeys(phone, 20)}).stray
    several = {y2000: 1, y2000 + 400 * DAY: 99, y2000 + 800 * DAY: 3, START + 90 * DAY: 5}
    found = hours.split({START: 500, START + 29 * DAY: 1, **several})
    assert found.stray == several and found.regular == [START, START + 29 * DAY]


def test_a_lake_of_little_is_no_stray_and_an_empty_one_has_no_hours():
    assert hours.split({}) == hours.Hours() and hours.split({START: 0}).all == []
    assert hours.split({START: 3}).regular == [START]
    assert hours.split({START: 3, START + 60 * DAY: 2}).stray == {START + 60 * DAY: 2}
    assert hours.split({START: 3, START + 60 * DAY: 3}).regular == [START + 60 * DAY]  # of equals the last


def test_hours_too_far_back_or_ahead_get_no_partitions_and_are_named():
    old = START - (MOST_PARTITIONS + 5) * HOUR
    found = hours.split({old: 100_000, START - 10 * HOUR: 500, START + 100 * DAY: 500})
    assert not found.stray
    assert hours.newest(found, START) == ([START - 10 * HOUR], [old])
    said = hours.warnings(found, START)
    assert len(said) == 2 and f"GLASSHOUSE_FIRST_HOUR={old:%Y-%m-%dT%H:%M}" in said[0] and "future" in said[1]
    assert hours.newest(hours.split({START - (MOST_PARTITIONS - 1) * HOUR: 500}), START)[1] == []


def test_the_command_line_labels_and_lists_strays(tmp_path):
    y2000 = one_of_2000(tmp_path)
    found = label_files(sorted(tmp_path.glob("*.gz")), tmp_path / "out", None, RULES)
    assert found["impression_sessions"] == 121 and found["stray_hours"] == {y2000.isoformat(): 2}


def one_of_2000(folder, count=120):
    y2000 = T0 - 26 * 365 * 24 * 60 * MINUTE
    stray = event("stray", 0, "impression", user=9, event_time=y2000, ingest_time=y2000)
    liked = event("liked", 0, "like", user=9, event_time=y2000 + MINUTE, ingest_time=y2000 + MINUTE)
    drop(folder, "0", [event(f"e{n}", n, "impression", note=n) for n in range(count)])
    drop(folder, "1", [stray, liked])
    return moment(y2000).replace(minute=0, second=0, microsecond=0)


@pytest.mark.slow
def test_one_event_of_2000_makes_no_partitions(tmp_path):
    import dagster as dg

    from dagster_project import partitions, settings
    from dagster_project.jobs import run_line

    home = replace(settings.load({"GLASSHOUSE_HOME": str(tmp_path)}), first_hour=None)
    y2000 = one_of_2000(home.landing)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        done = run_line(instance, Window(START, START + 3 * HOUR), TO_LABELS, home, quiet, raise_on_error=True)
    lake = home.lake
    assert partitions.first_hour(home) == START
    assert hours.of(lake).stray == {y2000: 2} and partitions.without_partition(lake, START) == {y2000: 2}
    (session,) = lake.read("impression_sessions", Window(y2000, y2000 + HOUR)).to_pylist()
    assert session["like"] and session["user_id"] == 9
    assert lake.read("impression_sessions").num_rows == 121
    metadata = [event.step_materialization_data.materialization.metadata for event in done.get_asset_materialization_events()]
    assert any(one["stray_hours"].value == 1 and f"{y2000:%Y-%m-%d}" in one["stray"].value for one in metadata if "stray" in one)
    assert strays.label(lake, [y2000], RULES) == [], "once"
    assert len(partitions.hourly(partitions.first_hour(home)).get_partition_keys(current_time=START + 5 * HOUR)) == 6


TO_LABELS = ("raw_events", "events", "quarantine", "impression_sessions", "click_sessions", "orphan_actions", "late_events")


@pytest.mark.slow
def test_a_late_stray_of_the_live_line_is_labeled_beside_the_partitions(lake, landing, one_file_a_batch):
    y2000 = one_of_2000(landing)
    go(lake, landing)
    assert lake.read("late_events").num_rows == 2
    assert strays.label(lake, hours.of(lake).stray, RULES) == [y2000]
    assert lake.read("late_events").num_rows == 0
    assert lake.read("impression_sessions", Window(y2000, y2000 + HOUR)).num_rows == 1


@pytest.mark.slow
def test_a_stray_hour_written_after_the_clock_was_set_back_is_done_again(lake, landing, monkeypatch):
    y2000, real = moment(T0 - 26 * 365 * 24 * 60 * MINUTE), time.time
    window = Window(y2000, y2000 + HOUR)
    for minute, back_s in ((0, 0), (1, 3600), (2, 7200)):
        monkeypatch.setattr(lake_module, "time", SimpleNamespace(time=lambda back_s=back_s: real() - back_s))
        at = T0 - 26 * 365 * 24 * 60 * MINUTE + minute * MINUTE
        row = event(f"e{minute}", 0, "impression", note=minute, event_time=at, ingest_time=at)
        drop(landing, str(minute), [row])
        intake.land(lake, [landing / f"{minute}.jsonl.gz"])
        found = intake.Accepted({"raw": 0, "events": 0, "quarantine": 0, "repeats": 0}, [])
        for times in (1, 1):
            strays.accept(lake, [y2000], found)
            assert len(found.parts) == times and lake.read("events", window).num_rows == minute + 1
        assert [strays.label(lake, [y2000], RULES) for _ in range(2)] == [[y2000], []], "once"
        assert lake.read("impression_sessions", window).num_rows == minute + 1


def test_a_stray_hour_whose_moments_are_tidied_away_is_done_again_once(lake):
    at = T0 - 26 * 365 * 24 * 60 * MINUTE
    hour = moment(at)
    rows_of = pa.Table.from_pylist([{"hour": hour, **row} for row in table([event("e", 0, "impression", event_time=at)]).to_pylist()])
    lake.replace_window(contract.EVENTS, contract.EVENTS.completed(rows_of), Window(hour, hour + HOUR))
    assert strays.label(lake, [hour], RULES) == [hour] and strays.label(lake, [hour], RULES) == []
    lake.log.forget(dt.datetime.now(dt.UTC) + HOUR)
    assert strays.label(lake, [hour], RULES) == [hour] and strays.label(lake, [hour], RULES) == []


@pytest.mark.slow
def test_ranges_over_empty_years_are_labeled_by_the_hours_that_hold_something(lake, landing):
    y2000 = one_of_2000(landing)
    go(lake, landing)
    window = Window(y2000 - 24 * HOUR, START + HOUR)
    with pytest.raises(BackfillError, match=f"--from {y2000:%Y-%m-%dT%H:%M} --to"):
        plan(lake, window, RULES)
    assert plan(lake, Window(y2000, y2000 + HOUR), RULES)["late_used"] in (0, 2)
    label_window(lake, window, RULES)
    booked = lake.hours("labeled_hours")
    assert y2000 in booked and START in booked and len(booked) < 3 * 24 * 31


@pytest.mark.slow
def test_ranges_over_all_time_are_answered_in_words(lake, landing):
    y2000 = one_of_2000(landing)
    go(lake, landing)
    first, last = dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, 23, tzinfo=dt.UTC)
    stretch = f"--from {y2000:%Y-%m-%dT%H:%M} --to"
    for start, end in ((first, last), (dt.datetime(1900, 1, 1, tzinfo=dt.UTC), last), (first, START + HOUR)):
        with pytest.raises(BackfillError, match=stretch):
            plan(lake, Window(start, end), RULES)
        with pytest.raises(LabelError, match="2000 to 2099"):
            label_window(lake, Window(start, end), RULES)
    for window in (Window(first, first + HOUR), Window(last - HOUR, last)):
        with pytest.raises(LabelError, match="2000 to 2099"):
            plan(lake, window, RULES)
        assert lake.read("events", window).num_rows == 0 and window.widened(HOUR, HOUR).hours
    assert lake.read("events", Window(first, last)).num_rows == lake.read("events").num_rows


def test_a_range_of_a_command_ends_with_the_years_of_events():
    from typer import BadParameter

    from dagster_project import cli

    found = cli._range("0001-01-01T00:00", "9999-12-31T23:00")
    assert (found.start.year, found.end.year) == (2000, 2100)
    for start, end in (("9999-12-31T22:00", "9999-12-31T23:00"), ("0001-01-01T00:00", "1999-12-31T23:00")):
        with pytest.raises(BadParameter, match="2000 to 2099"):
            cli._range(start, end)
    for text in ("9999-12-31T23:00-01:00", "0001-01-01T00:00+14:00"):
        with pytest.raises(BadParameter, match="not a full hour"):
            cli._range(text, "2026-01-01T00:00")


@pytest.mark.slow
def test_the_boards_span_is_not_bent_by_a_stray(tmp_path, lake, landing):
    from assets.metrics import endpoint, loader
    from assets.metrics.client import connect
    from dashboards import data

    y2000 = one_of_2000(landing)
    go(lake, landing)
    with endpoint.started(tmp_path / "clickhouse") as url:
        client = connect(url)
        loader.load_missing(lake, client)
        query = (data.QUERIES / "data_span.sql").read_text()
        first, newest, busy = client.query(query, parameters=data.STRAY).first_row
        held = client.query("SELECT count() FROM events WHERE hour < '2001-01-01 00:00:00'").first_row
    assert (first.replace(tzinfo=dt.UTC), newest.replace(tzinfo=dt.UTC)) == (START, START + dt.timedelta(minutes=119))
    assert busy is not None and held == (2,) and y2000 in lake.hours("events")
