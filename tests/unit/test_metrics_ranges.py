"""Which hours of a range are whole, and what a query is told of them."""

import datetime as dt

import pytest

from assets.metrics import ranges


def at(text):
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def of(start, end, **more):
    found = ranges.parameters({"start": at(f"2026-01-05T{start}"), "end": at(f"2026-01-05T{end}"), **more})
    return {name: value[11:16] if isinstance(value, str) else value for name, value in found.items()}


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [
        ("01:00", "04:00", ("01:00", "04:00")),
        ("01:10", "04:20", ("02:00", "04:00")),
        ("01:10", "03:00", ("02:00", "03:00")),
        ("01:10", "01:20", ("01:20", "01:20")),
        ("01:50", "02:10", ("02:10", "02:10")),
        ("01:00", "01:00", ("01:00", "01:00")),
    ],
)
def test_whole_hours_of_a_range(start, end, hours):
    found = of(start, end)
    assert (found["hours_start"], found["hours_end"]) == hours
    assert (found["minutes_start"], found["minutes_end"]) == (start, end)


@pytest.mark.parametrize(("name", "grain"), [("hours", 60), ("step_grain", 15)])
def test_every_minute_is_in_just_one_part(name, grain):
    base = at("2026-01-05T00:00")
    for first in range(0, 130, 7):
        for last in range(first, 260, 11):
            bounds = {"start": base + dt.timedelta(minutes=first), "end": base + dt.timedelta(minutes=last), "step": 900}
            found = ranges.parameters(bounds)
            names = ("minutes_start", "minutes_end", f"{name}_start", f"{name}_end")
            start, end, middle, rest = ((at(found[one]) - base) // dt.timedelta(minutes=1) for one in names)
            assert [*range(start, middle), *range(middle, rest), *range(rest, end)] == list(range(first, last))
            assert (rest - middle) % grain == 0 and (middle == end or middle % grain == 0)


def test_seconds_widen_to_minutes():
    found = of("01:00:30", "03:00:00.5")
    assert (found["minutes_start"], found["minutes_end"], found["hours_start"]) == ("01:00", "03:01", "01:00")


@pytest.mark.parametrize(("step", "grain", "start"), [(60, 3600, "04:00"), (900, 900, "01:15"), (1800, 900, "01:15"), (7200, 3600, "02:00")])
def test_the_grain_of_a_step(step, grain, start):
    found = of("01:10", "04:00", step=step)
    assert (found["step_grain"], found["step_grain_start"]) == (grain, start)


@pytest.mark.parametrize(
    ("zone", "grain", "hours"),
    [("UTC", 3600, "02:00"), ("Asia/Shanghai", 3600, "02:00"), ("Asia/Kolkata", 900, "04:00"), ("Asia/Kathmandu", 900, "04:00"),
     ("Australia/Lord_Howe", 900, "04:00")],
)  # fmt: skip
def test_the_grain_of_a_zone(zone, grain, hours):
    found = of("01:10", "04:00", zone=zone)
    assert (found["zone_grain"], found["zone_hours_start"], found["hours_start"]) == (grain, hours, "02:00")
    assert found["zone_grain_start"] == ("02:00" if grain == 3600 else "01:15")


def test_a_zone_that_was_half_an_hour_off_between_the_ends_has_no_whole_hours():
    asked = {"start": at("2014-01-01T00:00"), "end": at("2019-01-01T00:00")}
    assert ranges.parameters({**asked, "zone": "Asia/Pyongyang"})["zone_grain_start"] == "2014-01-01 00:00:00"
    assert [ranges.of_hours(zone, *asked.values()) for zone in ("Asia/Pyongyang", "America/Caracas", "Asia/Seoul")] == [1800, 1800, 3600]


def test_bounds_beyond_what_clickhouse_counts_are_those_of_the_contract():
    for start, end in ((dt.datetime.min, dt.datetime.max), (dt.datetime(1969, 1, 1), dt.datetime(2106, 2, 7, 7))):
        found = ranges.bound({"start": start.replace(tzinfo=dt.UTC), "end": end.replace(tzinfo=dt.UTC), "zone": "Europe/Berlin", "step": 60})
        assert found["start"] == "1999-12-02 00:00:00.000000" and found["hours_end"] == found["minutes_end"] == "2100-01-31 00:00:00"


def test_what_is_left_out():
    assert of("01:00", "02:00")["left_out"] == 7
    assert of("01:00", "02:00", channels=["a"], bands=["0"])["left_out"] == 2
    assert ranges.parameters({}) == {"left_out": 7}
    assert ranges.parameters({"end": at("2026-01-05T01:00:01")}) == {"left_out": 7, "minutes_end": "2026-01-05 01:01:00"}


def test_times_are_bound_with_their_microseconds():
    found = ranges.bound({"start": at("2026-01-05T01:00:00.000007"), "end": at("2026-01-05T02:00"), "step": 60})
    assert found["start"] == "2026-01-05 01:00:00.000007" and found["step"] == 60 and found["minutes_end"] == "2026-01-05 02:00:00"
