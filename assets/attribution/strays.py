"""Stray hours (assets/hours.py) accepted and labeled beside the partitions of a run: they have none of their own.

Here: which of them are due, and that they are done once. Not here: how hours are accepted (assets/events/intake.py) and
labeled (label.py), which hours are stray.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections.abc import Callable, Iterable

from assets.attribution.label import LabelError, label_window
from assets.attribution.rules import Rules
from assets.attribution.tables import LABELED_HOURS
from assets.counts import paths, written
from assets.events import intake
from assets.events.contract import EVENTS, QUARANTINE, RAW_EVENTS
from assets.lake import EPOCH, Lake, LakeError, windows

Paths = set[tuple[str, str]]  # table and path of data files


def accept(lake: Lake, hours: Iterable[dt.datetime], found: intake.Accepted) -> None:
    """Accept those of the hours that hold raw rows which were not; adds what was done to `found`."""
    for window in windows(_due(lake, hours, [RAW_EVENTS.name], [EVENTS.name, QUARANTINE.name])):
        one = intake.accept(lake, window)
        found.parts.extend(one.parts)
        for name, count in one.counts.items():
            found.counts[name] += count


def label(lake: Lake, hours: Iterable[dt.datetime], rules: Rules, say: Callable[[str], None] = print) -> list[dt.datetime]:
    """Label those of the hours that hold events which were not, or have changed since; returns them.

    Hours of which the live labeler still owes rows are left to it, and it is said.
    """
    done = []
    for window in windows(_due(lake, hours, [EVENTS.name], [LABELED_HOURS.name])):
        try:
            label_window(lake, window, rules)
        except LabelError as error:
            say(f"stray hours left for later: {error}")
            continue
        done += window.hours
    return done


def _due(lake: Lake, hours: Iterable[dt.datetime], made_of: list[str], made: list[str]) -> list[dt.datetime]:
    """Hours of which the tables of `made_of` have other files than when those of `made` were written last.

    By the commit log, not by times: a clock that was set back writes rows that seem older than what was made before them. A moment
    that is no longer kept says nothing, so its hours are due. Only a lake without a commit log is asked for the times of its files.
    """
    wanted, lake = set(hours), lake.pinned()
    if not wanted:
        return []
    if lake.moment is None:
        sources, results = (written(lake, names, wanted) for names in (made_of, made))
        return sorted(hour for hour, at in sources.items() if at > results.get(hour, EPOCH))
    sources, results = (paths(lake, names, wanted) for names in (made_of, made))
    moments = _Moments(lake, made_of, made, wanted)
    return sorted(hour for hour, held in sources.items() if moments.sources(hour, results.get(hour)) != held)


class _Moments:
    """Which files the hours had at the moments before. made_of, made: tables."""

    def __init__(self, lake: Lake, made_of: list[str], made: list[str], hours: set[dt.datetime]):
        self.lake, self.made_of, self.made, self.hours = lake, tuple(made_of), tuple(made), hours
        self.numbers = [number for number in lake.log.numbers() if number <= lake.moment.number]
        self.seen: dict[tuple[int, tuple[str, ...]], dict[dt.datetime, Paths]] = {}

    def sources(self, hour: dt.datetime, results: Paths | None) -> Paths | None:
        """The hour's files of `made_of` at the moment that wrote the last of its results; None where that is not known."""
        if not results:
            return None
        try:
            # A file that is there now has been there since the moment that added it.
            place = bisect_left(self.numbers, True, key=lambda number: results <= self._at(number, self.made).get(hour, set()))
            if 0 < place < len(self.numbers):  # what the first one kept holds may be older
                return self._at(self.numbers[place], self.made_of).get(hour)
        except LakeError:  # tidied away meanwhile
            pass
        return None

    def _at(self, number: int, names: tuple[str, ...]) -> dict[dt.datetime, Paths]:
        if (number, names) not in self.seen:
            self.seen[number, names] = paths(self.lake.pinned(number), names, self.hours)
        return self.seen[number, names]
