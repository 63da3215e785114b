"""The labeler's rules as data, with the defaults of docs/attribution.md.

Here: the numbers that decide a label. Not here: how they are applied (fold.py) or where they are set (settings.py).
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

_UNITS = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> dt.timedelta:
    """`20m`, `90s`, `1h`, `500ms` as a timedelta. Raises ValueError for anything else, and for zero."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text.strip())
    if not match or float(match[1]) == 0:
        raise ValueError(f"not a duration: {text!r}; write a positive number with ms, s, m or h, like 20m")
    return dt.timedelta(seconds=float(match[1]) * _UNITS[match[2]])


@dataclass(frozen=True)
class Rules:
    """window: length W of a session. delay: how far the watermark lies behind the greatest event_time.

    long_view: dwell from which a view counts as long.
    """

    window: dt.timedelta = dt.timedelta(minutes=20)
    delay: dt.timedelta = dt.timedelta(minutes=2)
    long_view: dt.timedelta = dt.timedelta(seconds=10)
