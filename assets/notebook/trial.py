"""Rules tried on some hours, for people: what would change, as data frames, with nothing kept and nothing applied.

Here: a plan's report as frames. Not here: the plan itself (assets/backfill/), rules (assets/attribution/rules.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from assets.attribution.rules import Rules
from assets.lake import Lake, Window

SIDES = ("before", "after")


@dataclass(frozen=True)
class Trial:
    """What the rules would change. report: as assets.backfill.report.make describes it."""

    report: dict[str, Any]

    def rows(self) -> pl.DataFrame:
        """table, added, removed, changed."""
        return pl.DataFrame([{"table": name, **kinds} for name, kinds in self.report["rows"].items()])

    def rates(self) -> pl.DataFrame:
        """rate, before, after, change (relative; null where there was none before)."""
        found = pl.DataFrame([{"rate": name, **one} for name, one in self.report["rates"].items()],
                             schema={"rate": pl.String, "before": pl.Float64, "after": pl.Float64})  # fmt: skip
        return found.with_columns(pl.when(pl.col("before") > 0).then(pl.col("after") / pl.col("before") - 1).alias("change"))

    def figures(self) -> pl.DataFrame:
        """figure, before, after."""
        return pl.DataFrame([{"figure": name, **one} for name, one in self.report["totals"].items()])

    def by(self, head: str, figure: str) -> pl.DataFrame:
        """head (`hour` or `channel`), before, after of a figure; 0 where it has none."""
        rows = [{head: one[head], **one.get(figure, dict.fromkeys(SIDES, 0))} for one in self.report[f"by_{head}"]]
        found = pl.DataFrame(rows, schema={head: pl.String, **dict.fromkeys(SIDES, pl.Int64)})
        return found.with_columns(pl.col("hour").str.to_datetime(time_zone="UTC")) if head == "hour" else found

    def examples(self, kind: str) -> pl.DataFrame:
        """Up to ten rows that are `added`, `removed` or `changed`: table, note_id, start, change, events."""
        shape = dict.fromkeys(("table", "start", "change", "events"), pl.String) | {"note_id": pl.Int64}
        return pl.DataFrame([_example(one) for one in self.report["examples"][kind]], schema=shape)


def _example(one: dict[str, Any]) -> dict[str, Any]:
    row = one["row"]
    change = ", ".join(f"{name} {old} → {new}" for name, (old, new) in one["changed"].items())
    events = ", ".join(f"{event['action']} {event['event_time'][11:19]}" for event in one["events"])
    start = str(row.get("session_start") or row["event_time"])[:19]
    return {"table": one["table"], "note_id": row["note_id"], "start": start, "change": change, "events": events}


def try_rules(lake: Lake, window: Window, rules: Rules, progress: Callable[..., None] = lambda **_: None) -> Trial:
    """Label the window by these rules beside the tables, compare, and forget the rows.

    Raises what assets.backfill.plan.plan raises: LabelError where the live labeler has not closed the hours, BackfillError
    where other work meets them.
    """
    from assets.backfill import store
    from assets.backfill.plan import plan

    found = plan(lake, window, rules, progress=progress)
    store.discard(lake, found["plan"])
    return Trial(found)
