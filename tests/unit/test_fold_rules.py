"""The rules that are not the default: effective stay, clicks with dwell, horizon, labels of several actions; by worked
cases, and on any log against the plain reference."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.attribution.fold import NEVER, Columns, Limits, fold, no_sessions
from assets.attribution.label import label
from assets.attribution.resident import Resident
from assets.attribution.rules import LABELS, UNDOABLE, Rules
from tests.unit import reference
from tests.unit.labeling import T0, canonical, event, logs, rows, same, table
from tests.unit.reference import MINUTE, Plain
from tests.unit.test_fold import columns_of

S = 1 / 60  # a second, in minutes


def span(us):
    return dt.timedelta(microseconds=us)


def of(plain, **more):
    """The plain rules as the labeler's."""
    return Rules(
        window=span(plain.window), horizon=span(plain.horizon), valid_click_dwell=dt.timedelta(milliseconds=plain.short),
        **{f"{name}_stay": span(plain.stay[name]) for name in UNDOABLE}, labels=tuple(tuple(plain.labels[x]) for x in LABELS),
        **more,
    )  # fmt: skip


def liked(events, seconds):
    labels = label(table(events), Rules(like_stay=dt.timedelta(seconds=seconds)))
    same(labels, reference.label(events, Plain(stay={"like": int(seconds * 1e6)})))
    return rows(labels.click_sessions)[0]["like"]


OPENED = [event("a", 0, "impression"), event("b", 1, "click")]


def at(*did):
    return [*OPENED, *(event(f"e{i}", 2 + second * S, action) for i, (second, action) in enumerate(did))]


@pytest.mark.parametrize(
    "did, counts",
    [
        ([(0, "like")], True),
        ([(0, "like"), (4.999, "unlike")], False),
        ([(0, "like"), (5, "unlike")], True),  # it stood for 5 s: half-open, as everywhere
        ([(0, "like"), (0, "unlike")], False),
        ([(0, "like"), (9, "unlike"), (10, "like"), (11, "unlike")], True),  # what stood once counts
        ([(0, "like"), (3, "like"), (6, "unlike")], True),  # a second like does not begin anew
        ([(0, "like"), (3, "unlike"), (4, "like"), (8, "unlike")], False),  # two stretches are not added
        ([(0, "unlike"), (1, "like")], True),
        ([(1199 - 60, "like"), (1201 - 60, "unlike")], True),  # the window closed at 1140: the undoing is outside
    ],
)
def test_a_like_counts_when_it_stayed(did, counts):
    assert liked(at(*did), 5) is counts


def test_a_like_in_the_display_is_not_undone_after_the_click():
    events = [event("a", 0, "impression"), event("l", 1, "like"), event("b", 1.01, "click"), event("u", 1.02, "unlike")]
    labels = label(table(events), Rules(like_stay=dt.timedelta(seconds=5)))
    assert rows(labels.impression_sessions)[0]["like"] and not rows(labels.click_sessions)[0]["like"]


THREE_SECONDS = Rules(valid_click_dwell=dt.timedelta(seconds=3))


def test_a_click_with_too_little_dwell_is_no_click():
    events = [
        event("a", 0, "impression"), event("b", 1, "click"), event("l", 2, "like"), event("v", 3, "view_end", dwell=2999),
        event("s", 20.5, "share"), event("c", 20.9, "click"),
    ]  # fmt: skip
    labels = label(table(events), THREE_SECONDS)
    (display,) = rows(labels.impression_sessions)
    assert (display["clicked"], display["first_click_time"], display["like"], display["dwell_ms"]) == (False, None, True, 2999)
    assert labels.click_sessions.num_rows == 0
    # The display has ended by then and the click window is none: both are orphans, as is the click in it.
    assert [row["event_id"] for row in rows(labels.orphan_actions)] == ["s", "c"]
    (short,) = rows(labels.short_clicks)
    assert (short["session_start"], short["clicks"], short["dwell_ms"]) == (T0 + MINUTE, 2, 2999)
    enough = [one | {"dwell_ms": 3000} if one["event_id"] == "v" else one for one in events]
    labels = label(table(enough), THREE_SECONDS)
    assert rows(labels.impression_sessions)[0]["clicked"] and labels.short_clicks.num_rows == 0


def test_a_click_after_the_horizon_is_of_no_display():
    rules = Rules(horizon=dt.timedelta(minutes=5))
    labels = label(table([event("a", 0, "impression"), event("b", 5, "click"), event("l", 6, "like")]), rules)
    (click,) = rows(labels.click_sessions)
    assert (click["attributed"], click["request_id"], click["like"]) == (False, "r-b", True)
    assert not rows(labels.impression_sessions)[0]["clicked"]
    labels = label(table([event("a", 0, "impression"), event("b", 4.99, "click")]), rules)
    assert rows(labels.click_sessions)[0]["attributed"]


def test_a_label_of_several_actions():
    rules = Rules(labels=(("like", "fav"), *Rules().labels[1:]))
    events = at((0, "like"), (1, "fav"), (2, "unlike"))
    (click,) = rows(label(table(events), rules).click_sessions)
    assert click["like"] and click["fav"]  # the fav still stands
    (click,) = rows(label(table([*events, event("z", 3, "unfav")]), rules).click_sessions)
    assert not click["like"] and not click["fav"]


@st.composite
def rule_sets(draw):
    window = draw(st.sampled_from([5, 20, 90])) * MINUTE
    return Plain(
        window, horizon=draw(st.sampled_from([None, MINUTE, window // 2])), short=draw(st.sampled_from([0, 1, 3000, 2**31])),
        stay={name: draw(st.sampled_from([0, 1, MINUTE // 2, MINUTE, 7 * MINUTE])) for name in UNDOABLE},
        labels={"like": draw(st.sampled_from([["like"], ["like", "share"], ["fav"]]))},
    )  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(logs(), rule_sets())
def test_any_log_by_any_rules_is_the_reference(events, plain):
    short = []
    expected = reference.label(events, plain, short)
    labels = label(table(events), of(plain))
    same(labels, expected)
    assert rows(labels.short_clicks) == canonical(short)


@settings(max_examples=100, deadline=None)
@given(logs(), rule_sets(), st.lists(st.integers(0, 100), max_size=5))
def test_any_cut_by_any_rules_gives_the_same_sessions(events, plain, cuts):
    """Slices of a window of history: events beyond the watermark are seen, and given again with the next slice."""
    columns, limits = columns_of(events), Limits.of(of(plain))
    whole = fold(columns, no_sessions(), no_sessions(), limits, NEVER)
    found = {"impressions": [], "clicks": [], "short": []}
    imps, clks, start = no_sessions(), no_sessions(), T0
    for end in [*(T0 + minute * MINUTE for minute in sorted(set(cuts))), NEVER]:
        here = columns.take(((columns.time >= start) & (columns.time - plain.window < end)).nonzero()[0])
        folded = fold(here, imps, clks, limits, end)
        for name, groups in found.items():
            groups += list(map(tuple, getattr(folded, name).T.tolist()))
        imps, clks, start = folded.open_impressions, folded.open_clicks, end
    for name, groups in found.items():
        assert sorted(groups) == sorted(map(tuple, getattr(whole, name).T.tolist()))


@settings(max_examples=60, deadline=None)
@given(logs(), rule_sets(), st.integers(0, 100))
def test_the_hash_table_follows_the_same_rules(events, plain, cut):
    plain.short = 0
    columns, rules = columns_of(events), of(plain)
    whole = fold(columns, no_sessions(), no_sessions(), rules, NEVER)
    sessions, found = Resident(rules=rules), ([], [])
    for begin, end in ((T0, T0 + cut * MINUTE), (T0 + cut * MINUTE, T0 + 10_000 * MINUTE)):
        here = columns.take(((columns.time >= begin) & (columns.time < end)).nonzero()[0])
        folded = sessions.fold(here, rules, end)
        found[0].extend(map(tuple, folded.impressions.T.tolist()))
        found[1].extend(map(tuple, folded.clicks.T.tolist()))
        sessions.load(*sessions.export())
    assert sorted(found[0]) == sorted(map(tuple, whole.impressions[:].T.tolist()))
    assert sorted(found[1]) == sorted(map(tuple, whole.clicks[:].T.tolist()))


def test_the_hash_table_refuses_what_it_cannot_know():
    with pytest.raises(ValueError, match="cannot be folded"):
        Resident().fold(Columns.empty(), Rules(valid_click_dwell=dt.timedelta(seconds=3)), T0)
