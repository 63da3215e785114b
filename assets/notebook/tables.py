"""A lake as a notebook sees it: any table at any version as a data frame, without a JVM.

Here: reading, for people. Not here: the verbs that jobs use (assets/lake.py), SQL (sql.py).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from assets.hours import of
from assets.lake import Lake, LakeError, Window, utc_text

# What a version may be given as: its number, or a moment (the version that was current then).
Version = int | str | dt.datetime | None


def parse_time(text: str | dt.datetime) -> dt.datetime:
    """An RFC 3339 string (or a time) as UTC. Raises ValueError without a zone: a guess would move the window."""
    time = text if isinstance(text, dt.datetime) else dt.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"a time needs a zone, like 2026-01-31T05:00:00Z: {text!r}")
    try:
        return time.astimezone(dt.UTC)
    except OverflowError:  # by its zone
        raise ValueError(f"a time before the year 1 or after the year 9999: {text!r}") from None


def bounds(
    start: str | None, end: str | None, newest: dt.datetime | None = None, hours: int = 24
) -> tuple[str, str]:
    """A window as two RFC 3339 strings; what is None counts `hours` back from the end of the hour `newest`.

    Raises ValueError where that is no window of whole hours.
    """
    last = parse_time(end) if end else newest + dt.timedelta(hours=1)
    try:
        window = Window(parse_time(start) if start else last - dt.timedelta(hours=hours), last)
    except OverflowError:
        raise ValueError(f"there are no {hours} hours before {last.isoformat()}") from None
    return utc_text(window.start), utc_text(window.end)


@dataclass(frozen=True)
class Tables:
    """The lake's tables as polars data frames (`.to_arrow()` and `.to_pandas()` lead on)."""

    lake: Lake

    def table(
        self,
        name: str,
        version: Version = None,
        window: tuple[str | dt.datetime, str | dt.datetime] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """A table in memory.

        version: number, or a moment (RFC 3339 string or datetime): the version that was current then; default newest.
        window: (start, end), half-open, whole hours, as RFC 3339 strings or datetimes.
        Raises LakeError for a table or a version that is not there, ValueError for a window that is none.
        """
        hours = Window(*map(parse_time, window)) if window else None
        return pl.from_arrow(self.lake.read(name, hours, columns, self._open(name, version).version()))

    def scan(self, name: str, version: Version = None) -> pl.LazyFrame:
        """A table as a lazy frame, for what does not fit in memory; filters on `hour` skip files."""
        return pl.scan_delta(self._open(name, version))

    def history(self, name: str) -> pl.DataFrame:
        """The versions of a table, newest first: version, time (UTC), operation, rows_written (null where unknown)."""
        schema = {
            "version": pl.Int64, "time": pl.Datetime("us", "UTC"), "operation": pl.String, "rows_written": pl.Int64,
            "writer": pl.String,
        }  # fmt: skip
        return pl.DataFrame([_commit(entry) for entry in self.lake.open(name).history()], schema=schema, orient="row")

    def tables(self) -> pl.DataFrame:
        """The lake's tables: name, newest version, rows, first and last hour, description.

        Raises LakeError for a lake that is not a local folder: object stores do not list cheaply.
        """
        root = Path(self.lake.root)
        if not root.is_dir():
            raise LakeError(f"cannot list the lake at {root}: it is not there, or no local folder")
        names = sorted(path.parent.name for path in root.glob("*/_delta_log"))
        return pl.DataFrame([self._summary(name) for name in names])

    def window(self, name: str, start: str | None = None, end: str | None = None, hours: int = 24) -> tuple[str, str]:
        """The window as given, or, where a bound is None, the newest `hours` of a table; as RFC 3339 strings."""
        if start and end:
            return bounds(start, end)
        held = of(self.lake, name).regular
        if not held:
            raise LakeError(f"`{name}` is empty; give window_start and window_end, or materialize the asset `{name}`")
        return bounds(start, end, held[-1], hours)

    def _open(self, name: str, version: Version) -> DeltaTable:
        if isinstance(version, int):
            newest = self.lake.version(name)
            if not 0 <= version <= newest:
                raise LakeError(f"`{name}` has the versions 0 to {newest}, not {version}; see history({name!r})")
            return self.lake.open(name, version)
        table = self.lake.open(name)
        if version is not None:
            table.load_as_version(parse_time(version))
        return table

    def _summary(self, name: str) -> dict:
        table = self.lake.open(name)
        partitioned = "hour" in table.metadata().partition_columns
        hours = self.lake.hours(name) if partitioned else []
        return {
            "name": name,
            "version": table.version(),
            "rows": table.count(),
            "first_hour": hours[0] if hours else None,
            "last_hour": hours[-1] if hours else None,
            "description": table.metadata().description,
        }


def _commit(entry: dict) -> tuple:
    metrics = entry.get("operationMetrics") or {}
    # We, delta-rs and Spark name it differently.
    rows = entry.get("rows", metrics.get("num_added_rows", metrics.get("numOutputRows")))
    time = dt.datetime.fromtimestamp(entry["timestamp"] / 1000, dt.UTC)
    return entry["version"], time, entry["operation"], None if rows is None else int(rows), entry.get("engineInfo")
