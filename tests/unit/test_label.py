"""label() against the written rules, the worked cases, and the plain reference."""

import datetime as dt
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.attribution import fold
from assets.attribution.label import LabelError, label
from assets.attribution.rules import Rules
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS, ORPHAN_ACTIONS
from tests.unit.labeling import T0, event, expected, logs, rows, same, table
from tests.unit.reference import MINUTE

RULES = Rules()


def at(minute):
    return T0 + minute * MINUTE


def test_the_worked_case():
    events = [
        event("a", 0, "impression"), event("b", 15, "impression"), event("c", 19, "click"),
        event("d", 25, "impression"), event("e", 30, "like"), event("f", 38, "view_end", dwell=5000),
        event("g", 41, "like"), event("h", 46, "hide"),
    ]  # fmt: skip
    labels = label(table(events), RULES)
    first, second = rows(labels.impression_sessions)
    (click,) = rows(labels.click_sessions)
    (orphan,) = rows(labels.orphan_actions)
    assert (first["session_start"], first["session_end"], first["impressions"]) == (at(0), at(20), 2)
    assert (first["clicked"], first["first_click_time"], first["like"], first["dwell_ms"]) == (True, at(19), False, 0)
    assert (click["session_start"], click["session_end"], click["clicks"]) == (at(19), at(39), 1)
    assert (click["attributed"], click["impression_session_start"]) == (True, at(0))
    assert (click["like"], click["dwell_ms"], click["request_id"]) == (True, 5000, "r-a")
    assert (second["session_start"], second["impressions"], second["clicked"]) == (at(25), 1, False)
    assert (second["like"], second["first_click_time"]) == (True, None)
    assert (orphan["event_id"], orphan["action"]) == ("h", "hide")
    same(labels, expected(events))


def test_the_case_of_the_talk():
    events = [event(f"i{n}", n / 10, "impression", note=n) for n in (1, 2, 3, 4)]
    events += [event("c2", 1, "click", note=2), event("c4", 2, "click", note=4)]
    events += [event("l2", 1.2, "like", note=2), event("v2", 1.4, "view_end", note=2, dwell=20_000)]
    labels = label(table(events), RULES)
    clicked = {r["note_id"]: r["clicked"] for r in rows(labels.impression_sessions)}
    assert clicked == {1: False, 2: True, 3: False, 4: True}
    after = {r["note_id"]: (r["like"], r["dwell_ms"]) for r in rows(labels.click_sessions)}
    assert after == {2: (True, 20_000), 4: (False, 0)}
    assert labels.orphan_actions.num_rows == 0


def test_an_event_exactly_at_the_end_is_outside():
    one_less = event("b", 20, "impression", event_time=at(20) - 1)
    inside = label(table([event("a", 0, "impression"), one_less]), RULES)
    assert [r["impressions"] for r in rows(inside.impression_sessions)] == [2]
    both = label(table([event("a", 0, "impression"), event("b", 20, "impression")]), RULES)
    assert [r["impressions"] for r in rows(both.impression_sessions)] == [1, 1]
    late_like = label(table([event("a", 0, "click"), event("b", 20, "like")]), RULES)
    assert late_like.orphan_actions.num_rows == 1


def test_later_events_never_extend_a_window():
    events = [event("a", 0, "impression"), event("b", 19, "impression"), event("c", 21, "click")]
    (click,) = rows(label(table(events), RULES).click_sessions)
    assert not click["attributed"] and click["impression_session_start"] is None and click["request_id"] == "r-c"


@pytest.mark.parametrize("flag, undo", [("like", "unlike"), ("fav", "unfav"), ("follow", "unfollow")])
def test_a_flag_is_its_state_at_the_close(flag, undo):
    start = [event("a", 0, "click")]
    for actions, state in (([flag, undo], False), ([flag, undo, flag], True), ([undo], False), ([flag, flag], True)):
        events = start + [event(f"x{i}", i + 1, action) for i, action in enumerate(actions)]
        (click,) = rows(label(table(events), RULES).click_sessions)
        assert click[flag] is state


def test_ties_follow_the_order_of_the_actions_and_then_the_id():
    events = [event("z", 0, "like"), event("y", 0, "click"), event("x", 0, "impression"), event("w", 0, "impression")]
    labels = label(table(events), RULES)
    (impression,), (click,) = rows(labels.impression_sessions), rows(labels.click_sessions)
    assert impression["request_id"] == "r-w" and impression["impressions"] == 2
    assert click["attributed"] and click["like"] and click["request_id"] == "r-w"
    (click,) = rows(label(table([event("e9", 0, "click"), event("e10", 0, "click")]), RULES).click_sessions)
    assert click["request_id"] == "r-e10"


def test_dwell_adds_up_beyond_32_bits():
    events = [event("a", 0, "click")] + [event(f"v{i}", 1, "view_end", dwell=2**31 - 1) for i in range(3)]
    assert rows(label(table(events), RULES).click_sessions)[0]["dwell_ms"] == 3 * (2**31 - 1)


def test_another_window():
    events = [event("a", 0, "impression"), event("b", 3, "click"), event("c", 6, "like")]
    labels = label(table(events), Rules(window=dt.timedelta(minutes=3)))
    same(labels, expected(events, 3 * MINUTE))
    assert labels.orphan_actions.num_rows == 1


def test_no_events_give_empty_tables_of_the_right_schema():
    labels = label(table([]), RULES)
    assert labels.impression_sessions.schema.names == IMPRESSION_SESSIONS.schema.names
    assert labels.click_sessions.schema == CLICK_SESSIONS.schema
    assert labels.orphan_actions.schema == ORPHAN_ACTIONS.schema
    assert labels.impression_sessions.num_rows == 0


def test_bad_events_are_refused_with_what_to_do():
    with pytest.raises(LabelError, match="intake"):
        label(table([event(None, 0, "click")]), RULES)
    with pytest.raises(LabelError, match="none of impression, click"):
        label(table([event("a", 0, "clack")]), RULES)


def test_the_keys_may_be_any_int64():
    low, high = -(2**63), 2**63 - 1
    keys = [("impression", low, high), ("click", low, high), ("like", 0, 0)]
    keys += [("impression", high, low), ("click", high, low)]
    events = [event(f"e{i}", i, action, user=user, note=note) for i, (action, user, note) in enumerate(keys)]
    same(label(table(events), RULES), expected(events))


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_any_log_in_any_order_is_labeled_as_the_reference_does(events, shuffle):
    shuffled = list(events)
    shuffle.shuffle(shuffled)
    labels = label(table(shuffled), RULES)
    same(labels, expected(events))
    owned = sum(labels.counts[name] for name in ("impressions", "clicks", "click_session_actions",
                                                 "impression_session_actions", "orphans"))  # fmt: skip
    assert owned == len(events), "every event is in exactly one session or an orphan"


def big_log(seed, count=20_000, keys=300, minutes=600):
    dice = random.Random(seed)
    actions = ["impression"] * 6 + ["click"] * 4
    actions += ["view_end", "like", "unlike", "fav", "share", "hide", "follow", "unfollow"]
    made = []
    for i in range(count):
        action = dice.choice(actions)
        dwell = dice.choice([None, 5, 700]) if action == "view_end" else None
        minute = dice.randrange(minutes * 4) / 4
        made.append(event(f"e{i}", minute, action, user=dice.randrange(keys), note=dice.randrange(3), dwell=dwell))
    return made


def test_a_bigger_log_is_labeled_as_the_reference_does():
    events = big_log(1)
    same(label(table(events), RULES), expected(events))


def test_a_log_in_many_chunks_is_labeled_like_one_in_one():
    events = big_log(2, 500)
    whole = table(events)
    chunked = pa.concat_tables([whole.slice(i, 37) for i in range(0, 500, 37)])
    assert label(chunked, RULES).impression_sessions.equals(label(whole, RULES).impression_sessions)


@pytest.mark.parametrize("spread", [10, 2**20, 2**62])
def test_the_order_is_that_of_lexsort_for_few_and_for_many_bits(spread):
    dice = np.random.default_rng(3)
    columns = [dice.integers(-spread, spread, 5000) for _ in range(3)]
    columns[0] = columns[0][dice.integers(0, 50, 5000)]
    assert (fold.key_order(columns) == np.lexsort(columns[::-1])).all()


def test_the_order_of_nothing_and_of_one_row():
    assert fold.key_order([np.empty(0, np.int64)] * 3).size == 0
    assert fold.key_order([np.array([5])] * 3).tolist() == [0]
