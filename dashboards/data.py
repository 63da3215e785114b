"""What the pages read: one read-only client, queries loaded from sql/clickhouse/queries/, and the state in the address.

Here: connection, query by name, range and filter. Not here: SQL, looks (design.py), the pages (views/).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import streamlit as st

from assets.metrics.client import ClickHouseDown, connect
from dagster_project import settings

QUERIES = Path(__file__).resolve().parents[1] / "sql" / "clickhouse" / "queries"
FRESH_S = 30  # an answer about the past is good for this long; live parts ask again
TIMEOUT_S = 30

RANGES = {
    "1h": ("1 hour", dt.timedelta(hours=1)),
    "6h": ("6 hours", dt.timedelta(hours=6)),
    "24h": ("24 hours", dt.timedelta(hours=24)),
    "7d": ("7 days", dt.timedelta(days=7)),
    "all": ("All", None),
    "own": ("From – to", None),
}
DEFAULT_RANGE = "24h"
STEPS_S = (10, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 86400)


class NoTables(Exception):
    """ClickHouse answers and has no tables or no events yet."""


@dataclass(frozen=True)
class Span:
    """First and newest event time, and the end of the last busy minute (stragglers of a log come after it). UTC."""

    first: dt.datetime
    newest: dt.datetime
    busy_until: dt.datetime


@dataclass(frozen=True)
class Choice:
    """A half-open range of event time and the channels chosen (none: all)."""

    start: dt.datetime
    end: dt.datetime
    channels: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """Seconds of a chart's time step: at most 200 of them."""
        length = (self.end - self.start).total_seconds()
        return next((step for step in STEPS_S if length / step <= 200), STEPS_S[-1])

    @property
    def before(self) -> Choice:
        """The range of the same length before this one."""
        return Choice(self.start - (self.end - self.start), self.start, self.channels)

    def parameters(self, **more) -> dict:
        return {"start": self.start, "end": self.end, "channels": list(self.channels), **more}


@st.cache_resource(show_spinner=False)
def _settings() -> settings.Settings:
    return settings.load()


def long_view_ms() -> int:
    return int(_settings().rules.long_view.total_seconds() * 1000)


@st.cache_resource(show_spinner=False)
def _client(url: str):
    client = connect(url, read_only=True)
    client.set_client_setting("max_execution_time", str(TIMEOUT_S))
    return client


@cache
def sql(name: str) -> str:
    """The text of a query file. FileNotFoundError names one that is not there."""
    return (QUERIES / f"{name}.sql").read_text()


def _bound(value):
    # As text with microseconds: the client's own binding of a datetime drops them.
    return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, dt.datetime) else value


def fresh(name: str, **parameters) -> pd.DataFrame:
    """Run a query file with bound parameters, now. Raises ClickHouseDown or NoTables; times come back as UTC."""
    from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

    url = _settings().clickhouse
    try:
        rows = _client(url).query(sql(name), parameters={key: _bound(value) for key, value in parameters.items()})
    except OperationalError as error:
        _client.clear()
        connect(url)  # says what to start, where nothing answers
        raise ClickHouseDown("ClickHouse answered once and then not; try again in a moment") from error
    except DatabaseError as error:
        if error.code == 60:  # UNKNOWN_TABLE
            raise NoTables(str(error)) from error
        raise
    columns = dict(zip(rows.column_names, rows.result_columns, strict=True)) if rows.result_columns else {}
    frame = pd.DataFrame(columns, columns=list(rows.column_names))
    for column, kind in zip(rows.column_names, rows.column_types, strict=True):
        if kind.name.startswith(("DateTime", "Nullable(DateTime")):
            frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame


@st.cache_data(ttl=FRESH_S, max_entries=200, show_spinner=False)
def query(name: str, **parameters) -> pd.DataFrame:
    """As `fresh`, remembered for FRESH_S seconds."""
    return fresh(name, **parameters)


def span() -> Span:
    """What time the data covers. Raises NoTables where there are no events."""
    row = fresh("data_span").iloc[0]
    if pd.isna(row["newest"]):
        raise NoTables("no events")
    return Span(*(row[name].to_pydatetime() for name in ("first", "newest", "busy_until")))


Bounds = tuple[dt.datetime, dt.datetime]


def range_of(key: str, span: Span, own: Bounds | None = None) -> Bounds:
    """The half-open range of a choice: relative ones end with the data's traffic, not with the wall clock."""
    if key == "own" and own:
        return own
    if (length := RANGES[key][1]) is not None:
        return span.busy_until - length, span.busy_until
    newest = span.newest.replace(second=0, microsecond=0)
    return span.first.replace(second=0, microsecond=0), newest + dt.timedelta(minutes=1)
