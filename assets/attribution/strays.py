"""Stray hours (assets/hours.py) accepted and labeled beside the partitions of a run: they have none of their own.

Here: which of them are due, and that they are done once. Not here: how hours are accepted (assets/events/intake.py) and
labeled (label.py), which hours are stray.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable

from assets.attribution.label import LabelError, label_window
from assets.attribution.rules import Rules
from assets.attribution.tables import LABELED_HOURS
from assets.counts import written
from assets.events import intake
from assets.events.contract import EVENTS, QUARANTINE, RAW_EVENTS
from assets.lake import EPOCH, Lake, windows


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
    """Hours of which a table of `made_of` was written after the tables of `made`."""
    wanted, lake = set(hours), lake.pinned()
    if not wanted:
        return []
    sources, results = (written(lake, names, wanted) for names in (made_of, made))
    return sorted(hour for hour, at in sources.items() if at > results.get(hour, EPOCH))
