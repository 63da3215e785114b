"""Which hours hold events, and which of them are strays of wrong clocks: a phone that lives in 2000 must not make 26 years of hours.

Here: the rule, and what follows from it for whoever goes through hours. Not here: partitions (dagster_project/partitions.py),
the labels of these hours: they are labeled like all others.

The rule. Hours that hold events are taken in order; neighbours that are at most STRAY_AFTER apart (start to start) belong
to one stretch. A stretch that holds fewer than STRAY_EVENTS events in all is stray, and so is each of its hours; but for the
stretch with the most events (of several, the last), which never is: a lake that holds little is no stray of its own. So a
single hour is stray if it is more than STRAY_AFTER away from the next that holds events and has fewer than STRAY_EVENTS.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from assets import counts
from assets.lake import Lake, Window

STRAY_AFTER = dt.timedelta(days=30)
STRAY_EVENTS = 100
# Hourly partitions that Dagster is given at most, 5.7 years: the list of 50,000 keys takes it 0.8 s, wherever it is needed.
MOST_PARTITIONS = 50_000
ONE_HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Hours:
    """regular: hours that hold events and are no strays, ascending. stray: hour -> events."""

    regular: list[dt.datetime] = field(default_factory=list)
    stray: dict[dt.datetime, int] = field(default_factory=dict)

    @property
    def all(self) -> list[dt.datetime]:
        return sorted([*self.regular, *self.stray])

    @property
    def span(self) -> Window | None:
        """From the first to the last regular hour; None without any."""
        return Window(self.regular[0], self.regular[-1] + ONE_HOUR) if self.regular else None


def split(events: Mapping[dt.datetime, int]) -> Hours:
    """By the rule above. events: hour -> how many it holds; hours without any do not count."""
    held = {hour: count for hour, count in events.items() if count}
    groups = _groups(held)
    if not groups:
        return Hours()
    sizes = [sum(held[hour] for hour in group) for group in groups]
    main = max(range(len(groups)), key=lambda place: (sizes[place], place))
    stray = [place != main and size < STRAY_EVENTS for place, size in enumerate(sizes)]
    return Hours(
        [hour for group, alone in zip(groups, stray, strict=True) if not alone for hour in group],
        {hour: held[hour] for group, alone in zip(groups, stray, strict=True) if alone for hour in group},
    )


def of(lake: Lake, *names: str) -> Hours:
    """The hours of a lake. names: the tables whose rows count, default what has landed and what never did: raw_events, events.

    Read from Delta's log. A table that is not there holds nothing.
    """
    found: dict[dt.datetime, int] = {}
    for name in names or ("raw_events", "events"):
        for hour, rows in (counts.by_hour(lake, name) if lake.exists(name) else {}).items():
            found[hour] = max(rows, found.get(hour, 0))
    return split(found)


def stretches(hours: Iterable[dt.datetime]) -> list[Window]:
    """Windows that cover the hours, each from one hour to another with no gap longer than STRAY_AFTER between."""
    return [Window(group[0], group[-1] + ONE_HOUR) for group in _groups(hours)]


def near(window: Window, hours: Iterable[dt.datetime]) -> list[dt.datetime]:
    """The hours of the window that are at most STRAY_AFTER away from one of `hours`, ascending."""
    parts = [part.widened(STRAY_AFTER, STRAY_AFTER) for part in stretches(hours)]
    return [hour for hour in window.hours if any(part.start <= hour < part.end for part in parts)]


def newest(hours: Hours, latest: dt.datetime) -> tuple[list[dt.datetime], list[dt.datetime]]:
    """(regular hours up to `latest` for which there is room among MOST_PARTITIONS, counted back from it; those before)."""
    there = [hour for hour in hours.regular if hour <= latest]
    first = latest - MOST_PARTITIONS * ONE_HOUR
    return [hour for hour in there if hour > first], [hour for hour in there if hour <= first]


def warnings(hours: Hours, latest: dt.datetime) -> list[str]:
    """What to tell of hours that have no partition of their own, a sentence each. latest: the running hour."""
    said = []
    if hours.stray:
        said.append(
            f"stray hours: {len(hours.stray)}, with {sum(hours.stray.values())} events, more than {STRAY_AFTER.days} days from the "
            f"others: {listed(hours.stray)}; they are labeled, and no partitions are made for the time between"
        )
    if beyond := newest(hours, latest)[1]:
        said.append(
            f"{len(beyond)} hours with events, from {beyond[0]:%Y-%m-%d %H:%M} to {beyond[-1]:%Y-%m-%d %H:%M} UTC, lie more than "
            f"{MOST_PARTITIONS:,} hours back and have no partitions: set GLASSHOUSE_FIRST_HOUR={beyond[0]:%Y-%m-%dT%H:%M} to have "
            "them (Dagster is slow with so many), or keep them in a home of their own"
        )
    if ahead := [hour for hour in hours.regular if hour > latest]:
        said.append(
            f"{len(ahead)} hours with events lie in the future, up to {ahead[-1]:%Y-%m-%d %H:%M} UTC: a log of wrong clocks has landed, or "
            "this machine's clock is behind; they get their partitions when their time has come"
        )
    return said


def listed(stray: Mapping[dt.datetime, int], most: int = 10) -> str:
    """Hours and their events in words, the first few."""
    words = [f"{hour:%Y-%m-%d %H:%M} ({count})" for hour, count in sorted(stray.items())[:most]]
    return ", ".join([*words, *([f"{len(stray) - most} more"] if len(stray) > most else [])])


def _groups(hours: Iterable[dt.datetime]) -> list[list[dt.datetime]]:
    groups: list[list[dt.datetime]] = []
    for hour in sorted(hours):
        if groups and hour - groups[-1][-1] <= STRAY_AFTER:
            groups[-1].append(hour)
        else:
            groups.append([hour])
    return groups
