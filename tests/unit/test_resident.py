"""Sessions kept in a hash table, against the sorted merge: the same rows, whatever is cut where and however it grows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.attribution import resident
from assets.attribution.fold import NEVER, Columns, fold, fold_order, no_sessions
from assets.attribution.resident import Resident, sorted_sessions
from tests.unit.reference import MINUTE

W = 20 * MINUTE


@pytest.fixture(scope="module", autouse=True)
def compiled():
    resident.warm_up()


def columns(rows):
    """Rows of (user, note, minute, action) as sorted columns; ctx is the row."""
    user, note, minute, action = (np.array(values, np.int64) for values in zip(*rows, strict=True)) if rows else [np.empty(0, np.int64)] * 4
    time = minute * MINUTE // 2
    order = fold_order(user, note, time, action, lambda places: [f"{place:06d}" for place in places])
    dwell = (np.arange(len(rows)) % 7).astype(np.int32)
    return Columns(user[order], note[order], time[order], action[order].astype(np.int8), dwell[order], order)


def by_key(sessions):
    return sessions[:, np.lexsort(sessions[:3])]


def both_ways(batches, table=None):
    """Fold batches of (columns, watermark) by merge and in the table; all closed sessions must be the same."""
    table, imps, clks = table or Resident(), no_sessions(), no_sessions()
    for events, watermark in batches:
        merged, kept = fold(events, imps, clks, W, watermark), table.fold(events, W, watermark)
        imps, clks = merged.open_impressions, merged.open_clicks
        assert np.array_equal(by_key(merged.impressions), by_key(kept.impressions))
        assert np.array_equal(by_key(merged.clicks), by_key(kept.clicks))
        assert np.array_equal(merged.orphans, kept.orphans) and np.array_equal(merged.owners, kept.owners)
        assert merged.counts == kept.counts
        held = table.export()
        assert np.array_equal(sorted_sessions(held[0]), imps) and np.array_equal(sorted_sessions(held[1]), clks)
        assert table.sizes == (imps.shape[1], clks.shape[1])
    return table


@st.composite
def streams(draw):
    rows = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(-1, 2), st.integers(0, 300), st.integers(0, 12)), max_size=120))
    cuts = sorted({*draw(st.lists(st.integers(1, 300), max_size=6)), 300})
    batches, start = [], 0
    for cut in cuts:
        part = [row for row in rows if start <= row[2] < cut]
        batches.append((columns(part), cut * MINUTE // 2))
        start = cut
    return batches


@given(streams())
@settings(max_examples=150, deadline=None)
def test_any_cut_gives_what_the_merge_gives(batches):
    both_ways(batches)


def test_it_grows_shrinks_and_takes_up_freed_places():
    dice = np.random.default_rng(1)
    batches = []
    for number in range(60):
        count = 3000 if number % 20 < 10 else 30
        rows = np.stack([dice.integers(0, 2**62, count), dice.integers(-(2**62), 2**62, count),
                         dice.integers(2 * number, 2 * number + 2, count), dice.integers(0, 13, count)], axis=1)  # fmt: skip
        batches.append((columns([tuple(row) for row in rows.tolist()]), (number + 1) * MINUTE))
    table = both_ways(batches)
    closed = table.fold(Columns.empty(), W, NEVER)
    assert table.sizes == (0, 0) and closed.impressions.shape[1] > 0
    assert not table.impressions.index.any(), "an erased entry leaves no trace"


def test_sessions_taken_over_go_on_and_carried_ones_are_not_emitted():
    first = fold(columns([(1, 1, 0, 0), (2, 1, 4, 0), (3, 1, 6, 1)]), no_sessions(), no_sessions(), W, 5 * MINUTE)
    first.open_impressions[4, 0] = 1  # carried: its row is in the lake already
    table = Resident()
    table.load(first.open_impressions, first.open_clicks)
    found = table.fold(columns([(2, 1, 12, 1), (1, 1, 14, 1)]), W, 60 * MINUTE)
    assert found.impressions[0].tolist() == [2] and found.impressions[8].tolist() == [6 * MINUTE]
    assert sorted(found.clicks[0].tolist()) == [1, 2, 3]
