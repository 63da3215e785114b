"""The fold with state carried between calls: where the stream is cut, and in which order it comes, changes no row."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.attribution.convert import CONTEXT_NAMES, from_frame, in_order, to_columns, to_labels
from assets.attribution.fold import COUNTS, NEVER, NONE, Columns, fold, fold_order, no_sessions, warm_up
from tests.unit import reference
from tests.unit.labeling import T0, canonical, event, logs, rows, table
from tests.unit.reference import MINUTE

W, DELAY = 20 * MINUTE, 2 * MINUTE


def in_batches(events, cuts, delay, end=None):
    """Fold events (in arrival order) cut at `cuts`; rows of every call together, as reference.stream gives them."""
    whole = table(events)
    frame = pl.from_arrow(whole.select(["event_id", *CONTEXT_NAMES]))
    all_columns = to_columns(whole, 0)
    names = Columns.__dataclass_fields__
    pending, impressions, clicks = Columns.empty(), no_sessions(), no_sessions()
    found = ([], [], [])
    greatest = watermark = NONE
    for start, stop in zip([0, *cuts], [*cuts, len(events)], strict=True):
        on_time = []
        for i in range(start, stop):
            time = int(all_columns.time[i])
            if greatest == NONE or time >= greatest - delay:
                on_time.append(i)
            greatest = max(greatest, time)
        watermark = greatest - delay if greatest != NONE else NONE
        if end is not None and stop == len(events):
            watermark = end
        batch = all_columns.take(np.array(on_time, np.int64))
        both = Columns(*(np.concatenate([getattr(pending, n), getattr(batch, n)]) for n in names))
        columns = in_order(both, lambda places, both=both: frame["event_id"].gather(both.ctx[places]).to_list())
        folded = fold(columns, impressions, clicks, W, watermark)
        labels = to_labels(folded, columns, from_frame(frame), W)
        for rows_of, name in zip(found, ("impression_sessions", "click_sessions", "orphan_actions"), strict=True):
            rows_of.extend(rows(getattr(labels, name)))
        pending, impressions, clicks = columns.take(folded.pending), folded.open_impressions, folded.open_clicks
        assert sum(folded.counts.values()) == columns.time.size, "every event is counted once"
    return [canonical(rows_of) for rows_of in found]


@st.composite
def streams(draw):
    """A log, its order of arrival (off by up to 6 minutes) and where it is cut into batches."""
    events = draw(logs(max_events=50))
    late = [draw(st.integers(0, 12)) * MINUTE / 2 for _ in events]
    order = sorted(range(len(events)), key=lambda i: (events[i]["event_time"] + late[i], i))
    cuts = sorted(draw(st.lists(st.integers(0, len(events)), max_size=8)))
    return [events[i] for i in order], cuts


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(streams())
def test_any_cut_of_any_stream_is_the_reference(stream):
    events, cuts = stream
    expected = reference.stream(events, W, DELAY)
    assert in_batches(events, cuts, DELAY) == [canonical(group) for group in expected[:3]]


@settings(max_examples=40, deadline=None)
@given(streams())
def test_within_the_delay_the_order_of_arrival_changes_no_row(stream):
    events, cuts = stream
    assert in_batches(events, cuts, 6 * MINUTE, end=NEVER) == [canonical(group) for group in reference.label(events, W)]


def columns_of(events):
    whole = to_columns(table(events), 0)
    return in_order(whole, lambda places: [events[whole.ctx[i]]["event_id"] for i in places])


def test_an_event_at_the_watermark_waits_and_a_session_that_ends_there_closes():
    events = [event("a", 0, "impression"), event("b", 20, "impression")]
    columns = columns_of(events)
    at_end = int(columns.time[1])
    folded = fold(columns, no_sessions(), no_sessions(), W, at_end)
    assert (folded.impressions.shape[1], folded.pending.tolist()) == (1, [1])
    before = fold(columns, no_sessions(), no_sessions(), W, at_end - 1)
    assert (before.impressions.shape[1], before.open_impressions.shape[1]) == (0, 1)


def test_a_carried_session_takes_part_and_is_not_emitted_again():
    first = fold(columns_of([event("a", 0, "impression")]), no_sessions(), no_sessions(), W, T0 + MINUTE)
    carried = first.open_impressions.copy()
    carried[4] = 1
    folded = fold(columns_of([event("b", 5, "click"), event("c", 6, "impression")]), carried, no_sessions(), W, NEVER)
    assert folded.impressions.shape[1] == 0 and folded.counts["carried"] == 1
    assert folded.clicks[8, 0] == carried[2, 0] and folded.clicks[3, 0] == carried[3, 0]


def test_every_event_has_its_owner():
    made = [("a", 0, "impression"), ("b", 1, "click"), ("c", 2, "like"), ("d", 50, "hide")]
    columns = columns_of([event(*one) for one in made])
    folded = fold(columns, no_sessions(), no_sessions(), W, NEVER)
    assert folded.owners.tolist() == [columns.time[0], columns.time[1], columns.time[1], NONE]
    assert folded.counts == dict(zip(COUNTS, (1, 1, 1, 0, 1, 0, 0), strict=True))


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="positive"):
        fold(Columns.empty(), no_sessions(), no_sessions(), 0, NEVER)


def test_equal_events_follow_the_order_of_their_ids_as_strings():
    one = np.ones(4, np.int64)
    ids = np.array(["b", "é", "a10", "a9"])
    order = fold_order(one, one, one, np.zeros(4, np.int8), lambda places: ids[places].tolist())
    assert ids[order].tolist() == sorted(ids.tolist())


@pytest.mark.slow
def test_the_compiled_fold_is_taken_from_the_cache():
    """In a new process, after set-up has called warm_up(), nothing is compiled."""
    warm_up()
    code = (
        "from assets.attribution import fold; fold.warm_up(); s = fold._fold.stats; "
        "print(sum(s.cache_hits.values()), sum(s.cache_misses.values()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]
