"""label_window on real Delta tables: whole range, hour by hour, a middle window again, late events, missing labels."""

import datetime as dt
import os

import pyarrow as pa
import pytest

from assets.attribution import label as labeling
from assets.attribution.accounting import CONTRADICTIONS, account
from assets.attribution.label import LabelError, label, label_window
from assets.attribution.provenance import made_by
from assets.attribution.rules import Rules
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS, LATE_EVENTS, ORPHAN_ACTIONS
from assets.events.contract import EVENTS
from assets.lake import Lake, LakeError, Window, Write
from tests.unit import reference
from tests.unit.labeling import T0, canonical, event, expected, moment, rows, same, table
from tests.unit.reference import MINUTE, Plain
from tests.unit.test_fold_rules import of
from tests.unit.test_label import big_log

pytestmark = pytest.mark.slow

RULES = Rules()
OUT = (IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS)


def hour(n):
    return moment(T0) + dt.timedelta(hours=n)


def with_hour(events, schema=EVENTS):
    data = table(events)
    starts = [t.replace(minute=0, second=0, microsecond=0) for t in data["event_time"].to_pylist()]
    return data.append_column("hour", pa.array(starts, pa.timestamp("us", "UTC"))).select(schema.schema.names)


def put(lake, events, version=1):
    lake.append_once(EVENTS, with_hour(events), "test", version)


def labels_of(lake):
    return [lake.read(t.name) for t in OUT]


def in_pieces(lake, start, end, step=1):
    for n in range(start, end, step):
        label_window(lake, Window(hour(n), hour(min(n + step, end))), RULES)


LOG = big_log(5, count=1500, keys=40, minutes=300)


def test_a_range_in_one_go_is_the_reference(lake):
    put(lake, LOG)
    seen = []
    counts = label_window(lake, Window(hour(0), hour(6)), RULES, lambda **said: seen.append(tuple(said.values())))
    same(labels_of(lake), expected(LOG))
    assert counts["events"] == 1500 and counts["hours"] == 6 and seen[-1] == (7, 7)
    assert counts["impression_sessions"] == lake.read("impression_sessions").num_rows
    assert set(lake.hours("labeled_hours")) == {hour(n) for n in range(6)}


def test_a_lake_by_a_relative_path(lake, monkeypatch, tmp_path):
    put(lake, LOG)
    monkeypatch.chdir(tmp_path)
    label_window(Lake(os.path.relpath(lake.root)), Window(hour(0), hour(6)), RULES)
    same(labels_of(lake), expected(LOG))


@pytest.mark.parametrize("step", [1, 4])
def test_pieces_in_order_are_the_reference(lake, step):
    put(lake, LOG)
    in_pieces(lake, 0, 6, step)
    same(labels_of(lake), expected(LOG))


def test_any_middle_window_again_changes_nothing(lake):
    put(lake, LOG)
    label_window(lake, Window(hour(0), hour(6)), RULES)
    for start, end in ((4, 5), (1, 4), (0, 1), (5, 6)):
        counts = label_window(lake, Window(hour(start), hour(end)), RULES)
        assert counts["edge_changed"] == 0 and counts["hours_before"] == 0
    same(labels_of(lake), expected(LOG))


def test_small_slices_and_commits_change_nothing(lake, monkeypatch):
    monkeypatch.setattr(labeling, "SLICE_ROWS", 300)
    monkeypatch.setattr(labeling, "COMMIT_ROWS", 200)
    put(lake, LOG)
    counts = label_window(lake, Window(hour(0), hour(6)), RULES)
    assert counts["commits"] >= 2
    same(labels_of(lake), expected(LOG))


def test_a_window_longer_than_an_hour(lake):
    rules = Rules(window=dt.timedelta(minutes=150))
    put(lake, LOG)
    for n in range(6):
        label_window(lake, Window(hour(n), hour(n + 1)), rules)
    same(labels_of(lake), expected(LOG, 150 * MINUTE))


def test_hours_that_were_never_labeled_are_read_further_back(lake):
    put(lake, LOG)
    counts = label_window(lake, Window(hour(3), hour(4)), RULES)
    assert counts["hours_before"] == 3
    inside = [[r for r in group if T0 + 180 * MINUTE <= r.get("session_start", r.get("event_time")) < T0 + 240 * MINUTE]
              for group in expected(LOG)]  # fmt: skip
    same(labels_of(lake), inside)


def test_an_hour_without_events_ends_the_reading_back(lake):
    put(lake, [event("a", 30, "impression"), event("b", 125, "impression"), event("c", 185, "click")])
    assert label_window(lake, Window(hour(3), hour(4)), RULES)["hours_before"] == 1


def test_labels_of_another_session_length_are_no_anchor(lake):
    put(lake, LOG)
    label_window(lake, Window(hour(0), hour(6)), Rules(window=dt.timedelta(minutes=50)))
    for n in range(6):
        label_window(lake, Window(hour(n), hour(n + 1)), RULES)
    same(labels_of(lake), expected(LOG))


def test_a_click_in_the_window_of_a_display_before_it(lake):
    events = [event("a", 50, "impression"), event("b", 65, "click"), event("c", 75, "like")]
    events.append(event("d", 81, "impression"))
    put(lake, events)
    in_pieces(lake, 0, 2)
    same(labels_of(lake), expected(events))
    (click,) = rows(lake.read("click_sessions"))
    assert click["attributed"] and click["request_id"] == "r-a"
    label_window(lake, Window(hour(1), hour(2)), RULES)
    same(labels_of(lake), expected(events))


def test_late_events_are_used_and_removed(lake):
    on_time = [event("a", 10, "impression"), event("b", 70, "impression"), event("c", 130, "impression")]
    put(lake, on_time)
    label_window(lake, Window(hour(0), hour(3)), RULES)
    late = [event("x", 71, "click"), event("y", 72, "like"), event("z", 131, "like")]
    put(lake, late, 2)
    lake.append_once(LATE_EVENTS, with_hour(late), "test", 1)
    counts = label_window(lake, Window(hour(1), hour(2)), RULES)
    assert (counts["late_used"], counts["late_kept"]) == (2, 0)
    assert [r["event_id"] for r in rows(lake.read("late_events"))] == ["z"]
    label_window(lake, Window(hour(2), hour(3)), RULES)
    same(labels_of(lake), expected(on_time + late))
    assert lake.read("late_events").num_rows == 0


def late_beside(lake, monkeypatch, times):
    """Late events arrive, as a live labeler brings them, between the reading of `late_events` and the commit."""
    settled, left = labeling.WindowRun._settled, iter(range(times))

    def meanwhile(self, late_in):
        if (n := next(left, None)) is not None:
            came = with_hour([event(f"new{n}", 73 + n, "click")])
            lake.replace_windows([Write(EVENTS, came), Write(LATE_EVENTS, came)], by="live")
        return settled(self, late_in)

    monkeypatch.setattr(labeling.WindowRun, "_settled", meanwhile)


def test_late_events_that_arrive_while_a_window_is_labeled_stay(lake, monkeypatch):
    on_time, late = [event("a", 70, "impression"), event("b", 130, "impression")], [event("x", 71, "click")]
    put(lake, on_time)
    label_window(lake, Window(hour(0), hour(3)), RULES)
    put(lake, late, 2)
    lake.append_once(LATE_EVENTS, with_hour(late), "test", 1)
    with monkeypatch.context() as patch:
        late_beside(lake, patch, 2)
        counts = label_window(lake, Window(hour(1), hour(2)), RULES)
    assert (counts["late_used"], counts["late_kept"]) == (1, 2)
    assert [row["event_id"] for row in rows(lake.read("late_events"))] == ["new0", "new1"]
    same(labels_of(lake), expected(on_time + late))
    with monkeypatch.context() as patch:
        late_beside(lake, patch, 99)
        with pytest.raises(LabelError, match="late events kept arriving.*label it later"):
            label_window(lake, Window(hour(1), hour(2)), RULES)
    assert label_window(lake, Window(hour(1), hour(2)), RULES)["late_used"] >= 2
    assert lake.read("late_events").num_rows == 0


def test_a_late_event_of_a_session_before_the_window_stays_until_that_hour_is_recomputed(lake):
    on_time = [event("a", 55, "impression"), event("b", 100, "impression")]
    put(lake, on_time)
    label_window(lake, Window(hour(0), hour(2)), RULES)
    put(lake, [event("x", 61, "like")], 2)
    lake.append_once(LATE_EVENTS, with_hour([event("x", 61, "like")]), "test", 1)
    counts = label_window(lake, Window(hour(1), hour(2)), RULES)
    assert (counts["late_used"], counts["late_kept"]) == (0, 1)
    assert label_window(lake, Window(hour(0), hour(1)), RULES)["late_used"] == 1
    assert lake.read("late_events").num_rows == 0
    same(labels_of(lake), expected([*on_time, event("x", 61, "like")]))


def test_a_late_display_that_changes_what_comes_after_is_reported(lake):
    on_time = [event("a", 50, "impression"), event("b", 61, "impression")]
    put(lake, on_time)
    label_window(lake, Window(hour(0), hour(2)), RULES)
    late = [event("x", 45, "impression")]
    put(lake, late, 2)
    lake.append_once(LATE_EVENTS, with_hour(late), "test", 1)
    assert label_window(lake, Window(hour(0), hour(1)), RULES)["edge_changed"] == 2  # one gone, one new
    assert label_window(lake, Window(hour(1), hour(2)), RULES)["edge_changed"] == 0
    same(labels_of(lake), expected(on_time + late))


def test_a_crash_between_commits_is_mended_by_a_rerun(lake, monkeypatch):
    put(lake, LOG)
    apply = type(lake)._apply
    calls = []

    def failing(self, step, intent):
        calls.append(step["table"])
        if len(calls) == 2:
            raise RuntimeError("power cut")
        return apply(self, step, intent)

    monkeypatch.setattr(type(lake), "_apply", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        label_window(lake, Window(hour(0), hour(3)), RULES)
    monkeypatch.undo()
    assert lake.hours("labeled_hours") == []  # nothing is seen of a commit that has not come to its end
    # The next writer finishes it before it looks at anything.
    assert label_window(lake, Window(hour(3), hour(6)), RULES)["hours_before"] == 0
    assert label_window(lake, Window(hour(0), hour(3)), RULES)["edge_changed"] == 0
    same(labels_of(lake), expected(LOG))


def test_overlapping_rows_in_the_lake_are_named(lake):
    put(lake, [event("a", 55, "impression"), event("b", 61, "click")])
    label_window(lake, Window(hour(0), hour(2)), RULES)
    other = label(table([event("q", 50, "impression")]), RULES).impression_sessions
    lake.append_once(IMPRESSION_SESSIONS, other, "t", 1)
    with pytest.raises(LabelError, match="overlap"):
        label_window(lake, Window(hour(1), hour(2)), RULES)


def test_without_events_the_error_says_what_to_do(lake):
    with pytest.raises(LakeError, match="materialize the asset `events`"):
        label_window(lake, Window(hour(0), hour(1)), RULES)


def test_a_window_without_events_is_labeled_too(lake):
    put(lake, [event("a", 0, "impression")])
    assert label_window(lake, Window(hour(5), hour(6)), RULES)["impression_sessions"] == 0
    assert lake.hours("labeled_hours") == [hour(5)]


def test_other_rules_in_pieces_and_small_slices_are_the_reference(lake, monkeypatch):
    plain = Plain(short=3000, stay={"like": MINUTE}, horizon=5 * MINUTE)
    big = [one | {"dwell_ms": 2000} if one["action"] == "view_end" else one for one in LOG]
    monkeypatch.setattr(labeling, "SLICE_ROWS", 100)  # an hour in several slices
    put(lake, big)
    for start, end in ((0, 2), (2, 3), (3, 6)):
        label_window(lake, Window(hour(start), hour(end)), of(plain))
    short = []
    same(labels_of(lake), reference.label(big, plain, short))
    assert rows(lake.read("short_clicks")) == canonical(short) and short
    found = account(lake, Window(hour(0), hour(6)), of(plain))
    assert not any(found[name] for name in CONTRADICTIONS), found
    assert made_by(lake, hour(1))["rules"] == [of(plain).fingerprint]
