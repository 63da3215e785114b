"""Times as RFC 3339: the compiled writer beside polars, over all years, units and fractions."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.events import rfc3339

DAYS = st.integers(rfc3339.FIRST_SECOND // 86_400, rfc3339.END_SECOND // 86_400 - 1)
SECONDS = st.integers(0, 86_399)
FRACTIONS = st.sampled_from([0, 1, 1000, 10**6, 120 * 10**6, 999_999_999, 999_999_000]) | st.integers(0, 10**9 - 1)


@pytest.mark.parametrize("zoned", [True, False])
@pytest.mark.parametrize("unit", ["us", "ms"])
@settings(max_examples=100, deadline=None)
@given(times=st.lists(st.none() | st.tuples(DAYS, SECONDS, FRACTIONS), max_size=50))
def test_the_texts_are_those_of_polars(unit, zoned, times):
    per_second = rfc3339.PER_SECOND[unit]
    ticks = [time and (time[0] * 86_400 + time[1]) * per_second + time[2] * per_second // 10**9 for time in times]
    form = "%Y-%m-%dT%H:%M:%S%.f" + ("Z" if zoned else "")
    expected = pl.Series(ticks, dtype=pl.Int64).cast(pl.Datetime(unit)).dt.strftime(form).to_list()
    valid = np.array([tick is not None for tick in ticks], bool)
    given_ticks = np.array([tick or 0 for tick in ticks], np.int64)
    assert rfc3339.inside(given_ticks, unit).all()
    assert rfc3339.texts(given_ticks, unit, zoned, valid).to_pylist() == expected


def test_units_beyond_microseconds_and_the_edges_of_the_years():
    every = np.ones(3, bool)
    assert rfc3339.texts(np.array([0, -1, 1_700_000_000_120_000_300]), "ns", True, every).to_pylist() == [
        "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999999Z", "2023-11-14T22:13:20.120000300Z",
    ]  # fmt: skip
    edges = np.array([rfc3339.FIRST_SECOND, rfc3339.END_SECOND - 1, 951_782_400])
    assert rfc3339.texts(edges, "s", False, every).to_pylist() == ["0001-01-01T00:00:00", "9999-12-31T23:59:59", "2000-02-29T00:00:00"]
    outside = np.array([rfc3339.FIRST_SECOND - 1, rfc3339.END_SECOND, -(2**63), 2**63 - 1])
    assert not rfc3339.inside(outside, "s").any()
    assert rfc3339.texts(np.empty(0, np.int64), "us", True, np.empty(0, bool)).to_pylist() == []
