"""Words and numbers of the pages, and the choice of a range."""

import datetime as dt

import pandas as pd
import pytest

from dashboards import data, design

NOW = dt.datetime(2026, 3, 2, 12, 3, 9, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (float("nan"), "–"), (0, "0"), (12345.4, "12,345"), (1_234_567, "1.23M"), (2.5e9, "2.50B")],
)
def test_numbers(value, words):
    assert design.number(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.5, "0.5 s"), (4, "4 s"), (119, "119 s"), (600, "10 min"), (7200, "2 h"), (86400 * 251, "251 d")],
)
def test_seconds(value, words):
    assert design.seconds(value) == words


def test_freshness_in_words():
    assert design.freshness(NOW - dt.timedelta(seconds=4), NOW) == "data until 12:03:05 UTC, 4 s ago"
    assert design.freshness(NOW + dt.timedelta(seconds=4), NOW).endswith("0 s ago")
    assert design.freshness(NOW - dt.timedelta(days=3), NOW) == "data until 2026-02-27 12:03:09 UTC, 3 d ago"


def test_a_range_ends_with_the_traffic_and_all_holds_every_event():
    until = NOW.replace(second=0) - dt.timedelta(hours=1)  # an hour of stragglers follows
    span = data.Span(NOW - dt.timedelta(days=2), NOW, until)
    start, end = data.range_of("6h", span)
    assert (start, end) == (until - dt.timedelta(hours=6), until)
    start, end = data.range_of("all", span)
    assert start <= span.first and span.newest < end


@pytest.mark.parametrize(("hours", "step"), [(1, 60), (24, 900), (24 * 15, 3 * 3600), (24 * 400, 86400)])
def test_a_chart_has_at_most_200_steps_unless_days(hours, step):
    assert data.Choice(NOW - dt.timedelta(hours=hours), NOW).step == step


def test_bars_stand_in_the_order_of_their_values_though_a_range_lacks_some():
    now, before = (pd.DataFrame({"hour_of_day": hours, "ctr": 0.1}) for hours in ([0, 9, 12], [0, 7, 9]))
    drawn = design.bars(now, "hour_of_day", "ctr", "CTR", other=before).to_dict()
    assert "sort" not in drawn["encoding"]["x"], "null would keep the rows' order, and put 7 last"
    drawn = design.bars(now, "hour_of_day", "ctr", "CTR", sort=[12, 0, 9]).to_dict()
    assert drawn["encoding"]["x"]["sort"] == [12, 0, 9]
