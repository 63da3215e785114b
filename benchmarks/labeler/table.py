"""A row a design, the table on the terminal and build/reports/labeler.json. Not here: how a row comes about."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

YARDSTICK = "flink_rocksdb"


@dataclass(frozen=True)
class Row:
    """What a design did. events: those it handled. peak_gib: of its whole process tree.

    exact: every row equals the truth's (compare.py); None where that was not looked at. note: for the reader of the
    table; details: further measurements of that design, in the report only.
    """

    design: str
    events: int
    events_per_s: float
    batch_p50_s: float | None
    batch_p95_s: float | None
    peak_gib: float
    exact: bool | None
    note: str = ""
    details: dict = field(default_factory=dict)


def show(rows: list[Row]) -> None:
    """Print the table, with each design's events a second over those of flink_rocksdb in the same run."""
    yardstick = next((row.events_per_s for row in rows if row.design == YARDSTICK), None)
    table = Table()
    for name in ("design", "events", "events/s", "× Flink", "batch p50 s", "p95 s", "peak GiB", "exact", "note"):
        table.add_column(name, justify="left" if name in ("design", "note") else "right")
    for row in rows:
        ratio = f"{row.events_per_s / yardstick:.2f}" if yardstick else "–"
        table.add_row(
            row.design, f"{row.events:,}", f"{row.events_per_s:,.0f}", ratio,
            _seconds(row.batch_p50_s), _seconds(row.batch_p95_s), f"{row.peak_gib:.1f}",
            {True: "yes", False: "no", None: "–"}[row.exact], row.note,
        )  # fmt: skip
    Console(width=None if Console().is_terminal else 160).print(table)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def write(rows: list[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    beside.rename(path)
