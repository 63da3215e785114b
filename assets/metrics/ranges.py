"""What a query about a range of time is handed beside it: which of its hours are whole, and which dimensions are left out.

Here: parameters of the views in sql/clickhouse/tables/18_feed_totals.sql, worked out once in Python. Not here: the range that a viewer chose
(dashboards/data.py), SQL. ClickHouse would work them out as well, anew in every condition that names them, and compares a DateTime with a
DateTime64 without its index: a question of a week took twice as long (docs/metrics.md).
"""

from __future__ import annotations

import datetime as dt
import math
import zoneinfo
from collections.abc import Mapping, Sequence
from typing import Any

from assets.events.contract import EARLIEST, LATEST

MINUTE, QUARTER, HOUR = 60, 900, 3600
HALF_HOURS_OF_SUMMER = ("Australia/Lord_Howe",)  # the one zone whose summer is half an hour ahead
MONTH = dt.timedelta(days=30)
# ClickHouse's DateTime ends in 2106 and begins in 1970: a time beyond wraps around, and a range that is wider than all data would hold none of
# it. No event lies outside of the contract's years, so a bound outside of them is moved to just beyond them.
FIRST, LAST = EARLIEST - MONTH, LATEST + MONTH


def bound(given: Mapping[str, Any]) -> dict[str, Any]:
    """A query's parameters as ClickHouse takes them, and what is worked out of them: see `parameters`."""
    given = {name: within(value) if isinstance(value, dt.datetime) else value for name, value in given.items()}
    # Times as text with microseconds: the client's own binding of a datetime drops them.
    texts = {name: _text(value, ".%f") if isinstance(value, dt.datetime) else value for name, value in given.items()}
    return {**texts, **parameters(given)}


def within(time: dt.datetime, first: dt.datetime = FIRST, last: dt.datetime = LAST) -> dt.datetime:
    """The time, or the nearest of [first, last] to it: years 1 and 9999 are bounds that people write."""
    return min(max(time, first), last)


def parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs to a query's parameters `given` (start, end, zone, step, channels, devices, bands; each may be missing), as ClickHouse reads it.

    minutes_start, minutes_end: the half-open range in whole minutes, that holds [start, end). hours_start, hours_end: the whole hours in it;
    both are minutes_end where there are none. zone_hours_*: the same, none where the hours of `zone` (IANA) are not hours UTC.
    step_grain, zone_grain: the greatest grain (900 or 3600 s) that steps of `step` seconds, hours of `zone`, are made of; *_grain_start,
    *_grain_end: what of the range is made of it. left_out: dimensions without a filter, 4 the channel, 2 the device, 1 the band, added up.
    """
    found = {"left_out": left_out(given.get("channels", ()), given.get("devices", ()), given.get("bands", ()))}
    if "end" not in given:
        return found
    end = _ceil(within(given["end"]), MINUTE)
    found["minutes_end"] = _text(end)
    if "start" not in given:
        return found
    start = _floor(within(given["start"]), MINUTE)
    found["minutes_start"] = _text(start)
    grains = {"step_grain": _grain(given.get("step", HOUR)), "zone_grain": _grain(of_hours(given.get("zone", "UTC"), start, end))}
    parts = {"hours": HOUR, "zone_hours": HOUR if grains["zone_grain"] == HOUR else 0, **grains}
    for name, grain in parts.items():
        first, last = _inside(start, end, grain)
        found |= {f"{name}_start": _text(first), f"{name}_end": _text(last)}
    return {**found, **{name: grain or HOUR for name, grain in grains.items()}}


def _grain(step: int) -> int:
    """The greatest grain of which `step` seconds are made; 0 for none."""
    return next((grain for grain in (HOUR, QUARTER) if step % grain == 0), 0)


def _inside(start: dt.datetime, end: dt.datetime, grain: int) -> tuple[dt.datetime, dt.datetime]:
    """What of [start, end) is made of whole grains, as [first, last); nothing is [end, end)."""
    first, last = (_ceil(start, grain), _floor(end, grain)) if grain else (end, end)
    return (first, last) if first < last else (end, end)


def left_out(channels: Sequence[str], devices: Sequence[str], bands: Sequence[str]) -> int:
    """As user_totals.rolled tells it (sql/clickhouse/tables/16_totals.sql)."""
    return 4 * (not channels) + 2 * (not devices) + (not bands)


def of_hours(zone: str, start: dt.datetime, end: dt.datetime) -> int:
    """Seconds of which hours of the zone and hours UTC are both made, all through [start, end). Raises zoneinfo.ZoneInfoNotFoundError."""
    if zone in HALF_HOURS_OF_SUMMER:
        return HOUR // 2
    # Not its ends alone: Pyongyang was half an hour behind Seoul from 2015 to 2018.
    times = [start, *(start + MONTH * n for n in range(1, math.ceil((end - start) / MONTH))), end]
    there = zoneinfo.ZoneInfo(zone)
    shifts = {time.astimezone(there).utcoffset() or dt.timedelta(0) for time in times}
    return math.gcd(HOUR, *(int(shift.total_seconds()) for shift in shifts))


def _floor(time: dt.datetime, step: int) -> dt.datetime:
    return time - (time - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) % dt.timedelta(seconds=step)


def _ceil(time: dt.datetime, step: int) -> dt.datetime:
    floor = _floor(time, step)
    return floor if floor == time else floor + dt.timedelta(seconds=step)


def _text(time: dt.datetime, fraction: str = "") -> str:
    return time.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S" + fraction)
