"""Which clocks the live labeler believes: its own, by which a batch has landed, and what to do about a watermark gone wrong.

Here: the time of landing, what is said where clocks disagree, a watermark set back by hand. Not here: which events are
late (live.py), which are quarantined for a wrong clock (assets/events/contract.py).

A landing time never goes back, for the order of landing is the order of arrival. Where the machine's clock is set back, the
labeler's goes on from where it was, as fast as time passes: events that are honest are not taken for ones of wrong clocks.
A clock that is set forward is believed: it may have been behind before. What then lies ahead of the machine's clock is told.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow.compute as pc

from assets.attribution.fold import NONE
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS
from assets.events.contract import MAX_CLOCK_AHEAD
from assets.events.intake import after
from assets.lake import EPOCH, Lake, Window

ONE_HOUR = dt.timedelta(hours=1)
WRONG_CLOCK = "(wrong clock)"  # how the reasons of such rows of quarantine end


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class LandingClock:
    """Tells when a batch lands. now: the machine's clock. last: when the last batch landed, None before the first."""

    def __init__(self, now: Callable[[], dt.datetime], last: dt.datetime | None = None) -> None:
        self.now, self.last = now, last
        self._passed = time.monotonic()

    def read(self) -> dt.datetime:
        """The time of a landing that happens now."""
        elapsed = dt.timedelta(seconds=time.monotonic() - self._passed)
        return after(self.last + elapsed if self.last else None, self.now())

    def landed(self, at: dt.datetime) -> None:
        """A batch has landed at this time, which was read just now or is written in its plan."""
        self.last, self._passed = at, time.monotonic()


def warnings(stats: Mapping[str, Any], now: dt.datetime | None = None) -> list[str]:
    """What is wrong with the clocks that a batch was made by, a sentence each; nothing where all is well.

    stats: a batch's figures, see live.status. now: default the machine's clock.
    """
    now, said = now or utc_now(), []
    watermark, landed_at = (stats.get(name) and dt.datetime.fromisoformat(stats[name]) for name in ("watermark", "landed_at"))
    if watermark and watermark > now + MAX_CLOCK_AHEAD:
        said.append(
            f"the watermark stands at {watermark.isoformat()}, {_span(watermark - now)} ahead of this machine's clock "
            f"({now:%Y-%m-%d %H:%M} UTC): every event before it is late. If the machine's clock is behind, set it right; else a wrong "
            "clock in a log has moved the watermark (before Glasshouse held clocks against the landing time): stop the labeler, "
            "run `glasshouse live --reset-watermark`, then recompute the hours since (docs/live.md, Clocks)"
        )
    elif landed_at and landed_at > now + MAX_CLOCK_AHEAD:
        said.append(
            f"the last batch landed at {landed_at.isoformat()}, {_span(landed_at - now)} ahead of this machine's clock, which was "
            "set back since or is wrong now; the labeler goes on from there. If the clock is right now, wrong clocks in "
            "logs are not noticed until it has caught up: stop the labeler and run `glasshouse live --reset-watermark`"
        )
    if stats.get("wrong_clocks", 0) * 2 > stats.get("read", 0):
        said.append(
            f"{stats['wrong_clocks']:,} of {stats['read']:,} rows of the last batch came from clocks ahead of this machine's and were "
            "quarantined: is it this machine's clock that is behind? Then set it right and land these files once more, "
            "compressed with gzip (the same bytes are taken once)"
        )
    return said


def _span(span: dt.timedelta) -> str:
    hours = span / ONE_HOUR
    return f"{hours / 24:,.0f} days" if hours >= 48 else f"{hours:.1f} hours" if hours >= 2 else f"{hours * 60:.0f} minutes"


def newest_end(lake: Lake, window_us: int, until: dt.datetime) -> int:
    """The greatest session_end (µs) of the sessions in the lake that start by `until`; NONE without any.

    Nothing that is emitted from it on can be there already.
    """
    found = NONE
    for table in (IMPRESSION_SESSIONS, CLICK_SESSIONS):
        hours = [hour for hour in lake.hours(table.name) if hour <= until]
        if hours:
            starts = lake.read(table.name, Window(hours[-1], hours[-1] + ONE_HOUR), ["session_start"])["session_start"]
            starts = starts.filter(pc.less_equal(starts, until)) if len(starts) else starts
            if len(starts):
                greatest = pc.max(starts).as_py()
                found = max(found, (greatest - EPOCH) // dt.timedelta(microseconds=1) + window_us)
    return found
