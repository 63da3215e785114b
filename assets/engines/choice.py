"""Which engine answers a SQL job: the embedded one for what fits one machine, Spark above that and on a cluster.

Here: the decision and its reason. Not here: the engines themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from assets.engines.embedded import EmbeddedSettings, named_like_a_partition
from assets.lake import Lake, Window

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

AUTO, EMBEDDED, SPARK = "auto", "duckdb", "spark"
NAMES = (AUTO, EMBEDDED, SPARK)
MOST_ROWS, MOST_BYTES = 500_000_000, 50 * 10**9


@dataclass(frozen=True)
class Choice:
    """name: EMBEDDED or SPARK. rows, bytes: what the inputs hold in the hours that are read, by Delta's statistics."""

    name: str
    why: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class Engines:
    """What there is to choose from. wanted: of NAMES. spark: makes the session, called only if it is needed. local: Spark runs on this
    machine. most_rows, most_bytes: of a window's input, for which AUTO takes the embedded engine."""

    spark: Callable[[], SparkSession]
    wanted: str = AUTO
    local: bool = True
    most_rows: int = MOST_ROWS
    most_bytes: int = MOST_BYTES
    embedded: EmbeddedSettings = field(default_factory=EmbeddedSettings)

    def chosen(self, lake: Lake, inputs: Sequence[str], reads: Window | None, only: str | None = None) -> Choice:
        """The engine for a query. inputs: tables. reads: its hours, None for all. only: the one engine that understands it."""
        rows, size = map(sum, zip(*(_held(lake, name, reads) for name in inputs), strict=True)) if inputs else (0, 0)
        name, why = self._chosen(lake, rows, size, only)
        return Choice(name, why, rows, size)

    def _chosen(self, lake: Lake, rows: int, size: int, only: str | None) -> tuple[str, str]:
        if only is not None:
            return only, f"its head says `engine: {only}`"
        if self.wanted != AUTO:
            return self.wanted, f"GLASSHOUSE_SQL_ENGINE={self.wanted}"
        if lake.log is None:
            return SPARK, "the lake is no local folder"
        if folder := named_like_a_partition(lake):
            return SPARK, f"a folder above the lake is named {folder}, which the embedded engine takes for a partition"
        if not self.local:
            return SPARK, "Spark runs on a cluster (GLASSHOUSE_SPARK_MASTER)"
        held = f"{rows:,} rows in {size / 1e6:,.0f} MB to read"
        if rows > self.most_rows or size > self.most_bytes:
            return SPARK, f"{held}, more than {self.most_rows:,} rows or {self.most_bytes / 1e6:,.0f} MB"
        return EMBEDDED, f"{held}, at most {self.most_rows:,} rows and {self.most_bytes / 1e6:,.0f} MB"


def on_spark(spark: SparkSession) -> Engines:
    """Spark for every job, by a session that is there."""
    return Engines(spark=lambda: spark, wanted=SPARK)


def embedded_only(settings: EmbeddedSettings | None = None) -> Engines:
    """The embedded engine for every job that does not ask for Spark."""

    def no_spark() -> SparkSession:
        raise RuntimeError("Spark is not to be started here")

    return Engines(spark=no_spark, wanted=EMBEDDED, embedded=settings or EmbeddedSettings())


def _held(lake: Lake, name: str, reads: Window | None) -> tuple[int, int]:
    """(rows, bytes) of a table in some hours, of a table without hours in all."""
    if lake.log is None:
        return 0, 0
    files = lake.files(name, reads)
    if not files.num_rows:
        return 0, 0
    return pc.sum(files["num_records"]).as_py() or 0, pc.sum(files["size_bytes"]).as_py() or 0
