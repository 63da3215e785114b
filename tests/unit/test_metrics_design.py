"""Words and numbers of the pages, and the choice of a range."""

import datetime as dt

import pandas as pd
import pytest

from dashboards import data, design, frame

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


@pytest.mark.parametrize("name", ["toString", "__proto__", "constructor", "hasOwnProperty"])
def test_a_name_that_a_browsers_objects_have_is_drawn_as_another_that_looks_the_same(name):
    rows = pd.DataFrame({"channel": [name, "home"], "ctr": 0.1, "before": 1, "after": 2})
    for drawn in (design.bars(rows, "channel", "ctr", "CTR", sort=[name, "home"], other=rows), design.ranked(rows, "channel", "ctr", "CTR"),
                  design.sides(rows, "channel", ("before", "after"), "rows", {"before": "red", "after": "blue"})):  # fmt: skip
        text = drawn.to_json(ensure_ascii=False)
        assert f'"{name}"' not in text and f'"{design.JOINER}{name}"' in text
    assert list(rows["channel"]) == [name, "home"], "what is downloaded stays"


def test_when_clocks_are_set_back():
    start, end = (dt.datetime(2026, 10, day, 12, tzinfo=dt.UTC) for day in (24, 26))
    assert design.set_back(start, end, "Europe/Berlin") == dt.datetime(2026, 10, 25, 3)
    assert design.set_back(start, end, "America/New_York") is None and design.set_back(start, end, "UTC") is None
    assert design.set_back(dt.datetime(2026, 4, 4, 6, 10, tzinfo=dt.UTC), end, "Australia/Lord_Howe") == dt.datetime(2026, 4, 5, 2)


def at(*hours, unit="s"):
    times = pd.to_datetime([f"2026-03-28T{hour:02}:00" for hour in hours], utc=True)
    return times.as_unit(unit).tz_convert("Europe/Berlin")


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_a_step_of_which_nothing_is_known_is_a_gap_and_one_without_counts_is_zero(unit):
    rows = pd.DataFrame({"time": at(20, 21, 23, unit=unit), "displays": [5, 6, 7], "ctr": [0.1, 0.2, 0.3]})
    every = frame.every_step(rows, 3600, ("displays",))
    assert list(every["time"]) == list(at(20, 21, 22, 23))
    assert every["displays"].tolist() == [5, 6, 0, 7] and every["ctr"].isna().tolist() == [False, False, True, False]
    kinds = pd.DataFrame({"time": at(20, 23, 23, unit=unit), "kind": ["a", "a", "b"], "rows": [1, 2, 3]})
    every = frame.every_step(kinds, 3600, ("rows",), "kind")
    assert len(every) == 8 and every["rows"].sum() == 6 and not every["rows"].isna().any()
    assert frame.every_step(kinds.head(0), 3600, ("rows",), "kind").empty and frame.every_step(None, 60) is None


def test_steps_go_on_through_the_hour_that_a_clock_skips():
    rows = pd.DataFrame({"time": at(22).append(at(22) + pd.Timedelta(hours=5)), "n": [1, 1]})
    assert frame.every_step(rows, 3600, ("n",))["n"].tolist() == [1, 0, 0, 0, 0, 1]


def test_a_value_between_two_gaps_is_drawn_as_a_point():
    rows = pd.DataFrame({"time": at(18, 19, 20, 21, 22, 23), "ctr": [0.1, 0.2, None, 0.3, None, 0.4]})
    drawn = design.time_line(rows, "ctr", "CTR")
    assert [layer["mark"]["type"] for layer in drawn.to_dict()["layer"]] == ["point", "line"]
    assert drawn.layer[0].data["ctr"].tolist() == [0.3, 0.4]
    assert "layer" not in design.time_line(rows.head(2), "ctr", "CTR").to_dict()


NAMES = ["constructor", "a.b[0],'c'\"", "__proto__"]
TIMES = pd.date_range(NOW, periods=3, freq="h")


def texts(value):
    """Every text of a chart's spec and data."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in texts(part)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("kind", ["object", "string", "category"])
@pytest.mark.parametrize("draw", [
    lambda rows: design.bars(rows, "name", "n", "rows", sort=NAMES, other=rows),
    lambda rows: design.sides(rows, "name", ("n", "m"), "rows", {"n": design.GREEN, "m": design.GREY}),
    lambda rows: design.points(rows, "name", {"n": "rows"}, "rows", NAMES, 1.0),
    lambda rows: design.ranked(rows, "name", "n", "rows"),
    lambda rows: design.time_kinds(rows, "name", "n", "rows"),
    lambda rows: design.time_actions(rows.rename(columns={"name": "action", "n": "per_minute"})),
], ids=["bars", "sides", "points", "ranked", "time_kinds", "time_actions"])  # fmt: skip
def test_names_of_data_are_drawable_in_every_chart(draw, kind):
    rows = pd.DataFrame({"name": pd.Series(NAMES, dtype=kind), "n": [1, 2, 3], "m": [3, 2, 1], "time": TIMES})
    found = texts(draw(rows).to_dict())
    assert not design.INHERITED & set(found) and {design.drawable(name) for name in NAMES} <= set(found)
