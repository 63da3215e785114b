"""The live labeler on real files and Delta tables, against the reference; restarts, repeats, late events, refusals."""

import datetime as dt
import gzip
import json
import random
import threading

import pytest

from assets.attribution import live
from assets.attribution.label import LabelError, label_window
from assets.attribution.live import LiveError, run, status
from assets.attribution.provenance import made_by
from assets.attribution.rules import Rules
from assets.attribution.state import Store, idle
from assets.events import intake
from assets.events.sources import SourceError
from assets.lake import Lake, Window
from tests.unit import reference
from tests.unit.labeling import T0, canonical, event, expected, moment, rows, same
from tests.unit.reference import MINUTE
from tests.unit.test_fold_rules import of
from tests.unit.test_label import big_log

pytestmark = pytest.mark.slow

RULES = Rules()
HOUR = 60 * MINUTE
OUT = ("impression_sessions", "click_sessions", "orphan_actions")


def arriving(events):
    """Give events their arrival: ingest_time in the order given, never before event_time - 5 minutes."""
    greatest = 0
    for place, one in enumerate(events):
        greatest = max(greatest, one["event_time"])
        one["ingest_time"] = greatest + place
    return events


def shaken(events, seed, minutes):
    """Events in an order of arrival that is off by up to so many minutes."""
    dice = random.Random(seed)
    return arriving(sorted(events, key=lambda e: e["event_time"] + dice.random() * minutes * MINUTE))


def drop(folder, name, events):
    """A landing file of native events; context keys as columns of their own, as devices send them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for one in events:
        row = {key: value for key, value in one.items() if key != "context" and value is not None}
        lines.append(json.dumps({**row, **json.loads(one["context"])}, separators=(",", ":")))
    with gzip.open(folder / f".{name}.part", "wt") as file:
        file.write("\n".join(lines) + "\n")
    (folder / f".{name}.part").rename(folder / f"{name}.jsonl.gz")


def cut(folder, events, size):
    for i in range(0, len(events), size):
        drop(folder, f"{i:08d}", events[i : i + size])


def go(lake, landing, **how):
    run(lake, landing, RULES, 0, threading.Event(), once=True, say=lambda line: None, **how)


def check(lake, events):
    impressions, clicks, orphans, late = reference.stream(events)
    same([lake.read(name) for name in OUT], (impressions, clicks, orphans))
    want = canonical({k: v for k, v in e.items()} for e in late)
    assert rows(lake.read("late_events")) == want
    ids = lake.read("events")["event_id"].to_pylist()
    assert sorted(ids) == sorted({e["event_id"] for e in events})


@pytest.fixture
def landing(tmp_path):
    return tmp_path / "landing"


@pytest.fixture
def one_file_a_batch(monkeypatch):
    monkeypatch.setattr(live, "BATCH_BYTES", 1)


LOG = big_log(7, count=1500, keys=30, minutes=150)


def test_batches_give_the_reference(lake, landing, one_file_a_batch):
    events = shaken(LOG, 1, 1)
    cut(landing, events, 250)
    go(lake, landing)
    assert lake.read("late_events").num_rows == 0
    check(lake, events)
    assert status(lake)["batch"] == 5


@pytest.mark.parametrize("size", [170, 1500])
def test_where_batches_are_cut_changes_nothing_even_for_late_events(lake, landing, one_file_a_batch, size):
    events = shaken(LOG, 2, 9)
    cut(landing, events, size)
    go(lake, landing)
    assert lake.read("late_events").num_rows > 20
    check(lake, events)


def test_repeats_near_far_and_late_are_dropped(lake, landing, one_file_a_batch):
    events = shaken(LOG, 3, 4)
    twice = list(events)
    dice = random.Random(4)
    for one in dice.sample(events, 60):
        twice.insert(dice.randrange(len(twice)), dict(one))
    late = reference.stream(twice)[3]
    twice += [dict(e) for e in [*late[:3], *events[:5]]]
    for place, one in enumerate(twice):
        one["ingest_time"] = T0 + 200 * MINUTE + place
    cut(landing, twice, 300)
    go(lake, landing)
    check(lake, twice)


def test_a_restart_between_batches_changes_nothing(lake, landing, one_file_a_batch):
    events = shaken(LOG, 5, 5)
    for i in range(0, len(events), 400):
        drop(landing, f"{i:08d}", events[i : i + 400])
        go(lake, landing)
    check(lake, events)


POINTS = [
    "planned", "segment", "staged", "progress", "intent", "raw_events", "events", "impression_sessions", "published",
    "snapshot",
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_any_point_is_repeated_exactly(lake, landing, one_file_a_batch, point):
    events = shaken(LOG[:600], 6, 6)
    cut(landing, events, 200)
    seen = []

    class Crash(Exception):
        pass

    def probe(at):
        if at == point:
            seen.append(at)
            if len(seen) == 2:
                raise Crash

    with pytest.raises(Crash):
        go(lake, landing, probe=probe, snapshot_batches=1)
    go(lake, landing, snapshot_batches=1)
    check(lake, events)
    assert lake.read("raw_events").num_rows == 600 and lake.read("sources").num_rows == 3
    assert status(lake)["batch"] == 2


def test_live_rows_then_a_recompute_with_the_late_ones(lake, landing, one_file_a_batch):
    events = shaken(LOG, 8, 8)
    end = [event("end", 290, "hide", user=999)]
    cut(landing, events + arriving(end), 500)
    go(lake, landing)
    assert lake.read("late_events").num_rows > 0
    label_window(lake, Window(moment(T0), moment(T0) + dt.timedelta(hours=3)), RULES)
    full = expected(events)
    same([lake.read(name) for name in OUT], full)
    assert lake.read("late_events").num_rows == 0


def test_a_window_that_is_still_open_live_is_refused(lake, landing):
    drop(landing, "a", arriving([event("a", 50, "impression"), event("b", 62, "impression")]))
    go(lake, landing)
    with pytest.raises(LabelError, match="still has sessions or events open"):
        label_window(lake, Window(moment(T0), moment(T0) + dt.timedelta(hours=1)), RULES)


def test_a_wrong_clock_is_quarantined_and_does_not_move_the_watermark(lake, landing):
    drop(landing, "a", [event("a", 0, "impression"), event("b", 600, "impression", ingest_time=T0 + MINUTE)])
    go(lake, landing)
    assert status(lake)["greatest"] == moment(T0).isoformat()
    (reason,) = lake.read("quarantine")["reason"].to_pylist()
    assert "wrong clock" in reason


def test_an_empty_or_broken_file_is_a_batch_too(lake, landing):
    drop(landing, "a", [event("a", 0, "impression")])
    (landing / "b.jsonl").write_text("not json\n")
    (landing / "c.jsonl").write_text("")
    go(lake, landing)
    assert lake.read("quarantine")["body"].to_pylist() == [b"not json"]
    assert lake.read("events").num_rows == 1


def test_events_that_a_log_brought_before_are_not_taken_again(lake, landing):
    from tests.integration.test_label_window import put

    known = [event("a", 0, "impression"), event("b", 3, "click")]
    put(lake, known)
    drop(landing, "a", arriving([*known, event("c", 4, "impression", note=2)]))
    go(lake, landing)
    assert sorted(lake.read("events")["event_id"].to_pylist()) == ["a", "b", "c"]


def test_a_second_live_labeler_is_refused(lake, landing):
    store = Store(lake)
    with store.owned(), pytest.raises(LiveError, match="another live labeler"):
        go(lake, landing)


def test_it_waits_for_files_to_have_landed_and_nobody_lands_beside_it(lake, landing):
    events = shaken(LOG[:100], 5, 1)
    cut(landing, events, 100)
    with idle(lake) as free:
        assert free
        beside = threading.Thread(target=go, args=(lake, landing))
        beside.start()
        beside.join(1)
        assert beside.is_alive() and not lake.exists("events")
        with idle(lake) as second:
            assert not second
    beside.join(600)  # the first start compiles the fold
    check(lake, events)
    with Store(lake).owned(), idle(lake) as free:
        assert not free


def test_hours_accepted_again_and_again_beside_it_lose_nothing(lake, landing, one_file_a_batch):
    """Recomputing `events` replaces hours to which batches append late events all the time."""
    events = shaken(LOG, 8, 9)
    cut(landing, events, 50)
    times = [one["event_time"] for one in events]
    window = Window(moment(min(times) // HOUR * HOUR), moment((max(times) // HOUR + 1) * HOUR))
    beside = threading.Thread(target=go, args=(lake, landing))
    beside.start()
    accepted = refused = 0
    while beside.is_alive():
        try:
            if lake.exists("raw_events") and lake.exists("sources"):
                intake.accept(Lake(lake.root), window)
                accepted += 1
        except SourceError as error:
            assert "was written to" in str(error)
            refused += 1
    assert accepted + refused
    intake.accept(lake, window)
    check(lake, events)
    assert lake.read("raw_events").num_rows == len(events)


def test_a_labeler_that_was_taken_over_can_no_longer_commit(lake, landing, one_file_a_batch):
    """The first one hangs before its commit; a second takes the lake over, does that batch and more; the first wakes up."""
    events = shaken(LOG[:600], 6, 6)
    cut(landing, events, 200)

    def probe(at):
        if at == "progress" and not done:
            done.append(at)
            go(lake, landing, take_over=True)

    done = []
    with pytest.raises(LiveError, match="has taken .* over .* nothing of its batch in hand was committed"):
        go(lake, landing, probe=probe)
    check(lake, events)
    assert lake.read("raw_events").num_rows == 600


def test_lost_state_is_refused_not_begun_anew(lake, landing, tmp_path):
    drop(landing, "a", [event("a", 0, "impression")])
    go(lake, landing)
    Store(lake).root.rename(tmp_path / "away")
    with pytest.raises(LiveError, match="_live.batches.* is gone"):
        go(lake, landing)


def test_another_window_length_is_refused(lake, landing):
    drop(landing, "a", [event("a", 0, "impression")])
    go(lake, landing)
    with pytest.raises(LiveError, match="window of 20 minutes, not 5"):
        run(lake, landing, Rules(window=dt.timedelta(minutes=5)), 0, threading.Event(), once=True)


def test_it_stops_after_the_batch_in_hand(lake, landing, one_file_a_batch):
    cut(landing, arriving([event(f"e{i}", i, "impression") for i in range(6)]), 2)
    stop = threading.Event()
    run(lake, landing, RULES, 0, stop, on_commit=lambda *_: stop.set(), say=lambda line: None)
    assert status(lake)["batch"] == 0 and status(lake)["rows"]["events"] == 2


def test_old_segments_and_states_are_deleted(lake, landing, one_file_a_batch):
    cut(landing, arriving([event(f"e{i}", i * 10, "impression") for i in range(12)]), 1)
    go(lake, landing, snapshot_batches=2)
    store = Store(lake)
    assert len(store.snapshots(99)) in (2, 3)  # the last one may be younger than the last clearing
    assert len(store._numbers("segments", ".arrow")) <= 8
    check(lake, arriving([event(f"e{i}", i * 10, "impression") for i in range(12)]))


def test_a_late_event_older_than_the_memory_survives_a_crash_after_events(lake, landing, one_file_a_batch):
    """The repeat of the batch finds the event in `events`, put there by its first try, and must not take it for known."""
    events = [event("a", 0, "impression"), event("b", 100, "impression"), event("c", 200, "impression")]
    late = [event("x", 5, "like"), dict(events[0])]
    drop(landing, "1", arriving(events[:2]))
    drop(landing, "2", events[2:])
    drop(landing, "3", [{**one, "ingest_time": T0 + 300 * MINUTE} for one in late])

    def probe(at):
        seen.append(at)
        if seen.count("events") == 3:
            raise InterruptedError

    seen = []
    with pytest.raises(InterruptedError):
        go(lake, landing, probe=probe)
    assert lake.read("late_events").num_rows == 0 and lake.read("events").num_rows == 3, "readers see batch 2 or nothing of it"
    assert lake.open("events", lake.version("events") + 1).count() == 4, "though its events are in the table already"
    go(lake, landing)
    assert lake.read("late_events")["event_id"].to_pylist() == ["x"]
    assert sorted(lake.read("events")["event_id"].to_pylist()) == ["a", "b", "c", "x"]


def test_a_batch_that_took_too_much_memory_is_followed_by_smaller_ones(lake, landing):
    """With more or less room the same rows; with too little one file a batch in place of all."""
    events = shaken(big_log(11, 600), 5, 1)
    cut(landing, events, 60)
    sizes = [path.stat().st_size for path in landing.iterdir()]
    said = []
    run(
        lake, landing, RULES, 0, threading.Event(), once=True, say=said.append, batch_bytes=sum(sizes) // 2, memory_bytes=1
    )
    check(lake, events)
    last = Store(lake).last()[0]
    assert last["batch"] > 2, "more batches than the two that there would have been"
    assert last["memory_limit"] == 1 and last["peak_bytes"] > 1 and "more than the 0 allowed" in said[0]


def by(lake, landing, rules):
    run(lake, landing, rules, 0, threading.Event(), once=True, say=lambda line: None)


def test_an_effective_stay_is_followed_across_batches_and_restarts(lake, landing, one_file_a_batch):
    plain = reference.Plain(stay={"like": MINUTE, "fav": 5 * MINUTE}, horizon=10 * MINUTE, labels={"share": ["share", "fav"]})
    rules = of(plain)
    for number in range(0, 1500, 300):
        drop(landing, f"{number:08d}", shaken(LOG, 2, 9)[number : number + 300])
        by(lake, landing, rules)
    impressions, clicks, orphans, _ = reference.stream(shaken(LOG, 2, 9), plain)
    same([lake.read(name) for name in OUT], (impressions, clicks, orphans))
    assert clicks != reference.stream(shaken(LOG, 2, 9))[1]
    assert made_by(lake, moment(T0))["rules"] == [rules.fingerprint]
    assert made_by(lake, moment(T0))["texts"] == [rules.to_toml()] and len(made_by(lake, moment(T0))["code"]) == 12


def test_other_rules_after_a_restart_are_booked(lake, landing, one_file_a_batch):
    events = shaken(LOG, 1, 1)
    drop(landing, "0", events[:700])
    go(lake, landing)
    drop(landing, "1", events[700:])
    stay = Rules(like_stay=dt.timedelta(seconds=5))
    by(lake, landing, stay)
    booked = [made_by(lake, moment(T0) + dt.timedelta(hours=n))["rules"] for n in range(2)]
    assert [RULES.fingerprint, stay.fingerprint] in booked


def test_rules_that_need_a_closed_window_are_refused(lake, landing):
    with pytest.raises(LiveError, match="valid_click_dwell"):
        by(lake, landing, Rules(valid_click_dwell=dt.timedelta(seconds=3)))
