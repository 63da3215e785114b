"""How well the spam rules find the abusers that the traffic generator planted: precision and recall.

Here: flagged accounts against the generator's truth. Not here: the rules (sql/lake/spam_accounts.sql), who is planted and
what they do (events/abusers.py). The truth is read for this alone: no rule, label or model sees it.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from assets.lake import Lake, Window

TABLE = "spam_accounts"
LOOKED_BACK = dt.timedelta(hours=23)  # a row of an hour is about that hour and these before it


@dataclass(frozen=True)
class Found:
    """Flagged accounts against planted ones, over a window.

    flagged: accounts with a row in any hour of the window. abusers: planted ones with an event in what its hours look
    back on. right: both. by_kind: kind -> (abusers, flagged). by_lookalike: the same of honest accounts that look alike.
    by_rule: rule -> (accounts it fired for, of these abusers).
    """

    flagged: int
    abusers: int
    right: int
    by_kind: dict[str, tuple[int, int]]
    by_lookalike: dict[str, tuple[int, int]]
    by_rule: dict[str, tuple[int, int]]

    @property
    def precision(self) -> float | None:
        """Of the flagged, the share of abusers; None where nobody is flagged."""
        return self.right / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """Of the abusers, the share flagged; None where there are none."""
        return self.right / self.abusers if self.abusers else None


def measure(lake: Lake, window: Window, truth_folder: Path) -> Found | None:
    """Compare the window's flagged accounts with the truth; None where there is none (a log of one's own).

    Raises LakeError where `spam_accounts` has not been materialized.
    """
    abusers, alike = (_chosen(Path(truth_folder) / f"{name}.parquet") for name in ("abusers", "lookalikes"))
    if abusers is None:
        return None
    lake = lake.pinned()
    rows = pl.from_arrow(lake.read(TABLE, window, ["user_id", "reasons"]))
    reasons: dict[int, set[str]] = {}
    for user, text in rows.unique().iter_rows():
        reasons.setdefault(user, set()).update(text.split(","))
    here = _with_events(lake, window.widened(before=LOOKED_BACK), [*abusers, *(alike or {})])
    abusers = {user: kind for user, kind in abusers.items() if user in here}
    alike = {user: kind for user, kind in (alike or {}).items() if user in here}
    fired = Counter(rule for rules in reasons.values() for rule in rules)
    rightly = Counter(rule for user, rules in reasons.items() if user in abusers for rule in rules)
    return Found(
        flagged=len(reasons),
        abusers=len(abusers),
        right=len(abusers.keys() & reasons.keys()),
        by_kind=_by_kind(abusers, reasons.keys()),
        by_lookalike=_by_kind(alike, reasons.keys()),
        by_rule={rule: (fired[rule], rightly[rule]) for rule in sorted(fired)},
    )


def _chosen(path: Path) -> dict[int, str] | None:
    return dict(pl.read_parquet(path).select("user_id", "kind").iter_rows()) if path.exists() else None


def _with_events(lake: Lake, window: Window, users: list[int]) -> set[int]:
    bounds = [pa.scalar(bound, pa.timestamp("us", "UTC")) for bound in (window.start, window.end)]
    inside = (pc.field("hour") >= bounds[0]) & (pc.field("hour") < bounds[1]) & pc.field("user_id").isin(users)
    data = lake.dataset("events").to_table(columns=["user_id"], filter=inside)
    return set(data["user_id"].unique().to_pylist())


def _by_kind(chosen: dict[int, str], flagged: Iterable[int]) -> dict[str, tuple[int, int]]:
    all_, found = Counter(chosen.values()), Counter(kind for user, kind in chosen.items() if user in flagged)
    return {kind: (all_[kind], found[kind]) for kind in sorted(all_)}
