"""What the pages read: one read-only client with limits, queries from sql/clickhouse/queries/, and the choice of a viewer.

Here: connection, query by name, range and filter, the code that stands for a user. Not here: SQL, looks (design.py), the
frame around a page (frame.py), the pages (views/).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
import zoneinfo
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd
import streamlit as st

from assets import hours
from assets.durable import alone, write_durably
from assets.events.contract import EARLIEST, LATEST
from assets.metrics import ranges
from assets.metrics.inline import inlined
from assets.metrics.client import ClickHouseDown, connect
from dagster_project import settings

QUERIES = Path(__file__).resolve().parents[1] / "sql" / "clickhouse" / "queries"
FRESH_S = 30  # an answer about the past is good for this long; live parts ask again when newer events are there
STRAY = {"stray_after_s": int(hours.STRAY_AFTER.total_seconds()), "stray_events": hours.STRAY_EVENTS}
SPAN_S = 2  # so long all viewers share one look at how far the data goes
KNOWN_ANSWERS = 300  # kept for when ClickHouse is away
# A page asks for what people can look at. What needs more than this is refused by ClickHouse, in words on the page.
LIMITS = {
    "max_execution_time": "30",  # seconds
    "max_result_rows": "100000",
    "max_memory_usage": str(4 * 2**30),  # bytes a query
    "max_rows_to_read": "2000000000",
}
TOO_MUCH = (158, 159, 241, 307, 396)  # ClickHouse's codes for: a limit on rows, time, memory or bytes was reached

RANGES = {
    "1h": ("1 h", dt.timedelta(hours=1)),
    "6h": ("6 h", dt.timedelta(hours=6)),
    "24h": ("24 h", dt.timedelta(hours=24)),
    "7d": ("7 days", dt.timedelta(days=7)),
    "all": ("All", None),
    "own": ("From – to", None),
}
DEFAULT_RANGE = "24h"
ALL_TIME = (dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(second=0, microsecond=0, tzinfo=dt.UTC))
YEARS = f"{EARLIEST.year} to {LATEST.year - 1}"  # which an event may have
DAY_S = 86400
STEPS_S = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, DAY_S, 7 * DAY_S, 28 * DAY_S, 364 * DAY_S)
COMPARE = {"none": "nothing", "before": "the range before", "week": "a week before"}
DEFAULT_COMPARE = "before"
WEEK = dt.timedelta(days=7)
BANDS = ("0", "1-2", "3-5", "6-9", "10+", "none")  # of positions in the feed; as the queries spell them
WITHOUT_SPAM = "_without_spam"  # ending of a query that asks rows in place of aggregates, which know no accounts
USER_CODE = re.compile(r"[0-9a-f]{12}")


class NoTables(Exception):
    """ClickHouse answers and has no tables or no events yet."""


class TooMuch(Exception):
    """A question reached one of LIMITS; the message is ClickHouse's own."""


Bounds = tuple[dt.datetime, dt.datetime]


@dataclass(frozen=True)
class Span:
    """First and newest event time, and the end of the last busy minute (stragglers of a log come after it). UTC."""

    first: dt.datetime
    newest: dt.datetime
    busy_until: dt.datetime


@dataclass(frozen=True)
class Choice:
    """What a viewer chose: a half-open range of event time and filters (empty: all).

    zone: IANA name in which times are shown. compare: a key of COMPARE. live: the range ends where the data ends, so it
    moves. seen: the newest event when the range was taken; an answer is remembered until newer events are there. held: first
    and newest of all events, None where that is not known.
    """

    start: dt.datetime
    end: dt.datetime
    channels: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    zone: str = "UTC"
    compare: str = "none"
    without_spam: bool = False
    live: bool = False
    seen: dt.datetime | None = None
    held: Bounds | None = None

    @property
    def step(self) -> int:
        """Seconds of a time step in charts of events: at most 200 of them where events are, a thousand from days on."""
        start, end = self.filled
        return _step(end - start)

    @property
    def filled(self) -> Bounds:
        """What of the range lies between the first and the newest event; the range where none of it does, or they are not known."""
        first, newest = self.held or (self.start, self.end)
        start, end = max(self.start, first), min(self.end, newest)
        return (start, end) if start < end else (self.start, self.end)

    @property
    def whole_step(self) -> int:
        """The same over the whole range, for what may lie where no events are: orders, refused rows."""
        return _step(self.end - self.start)

    @property
    def shift(self) -> dt.timedelta:
        """How far back the range lies that this one is compared with; zero for none."""
        return {"before": self.end - self.start, "week": WEEK}.get(self.compare, dt.timedelta(0))

    @property
    def other(self) -> Choice | None:
        """The range to compare with, the same filters; None where nothing is compared."""
        if not self.shift:
            return None
        return replace(self, start=self.start - self.shift, end=self.end - self.shift, compare="none")

    def parameters(self, **more) -> dict:
        """Every parameter that a query may name; those that it does not name are ignored."""
        return {
            "start": self.start, "end": self.end, "channels": list(self.channels), "devices": list(self.devices),
            "bands": list(self.bands), "zone": self.zone, "without_spam": int(self.without_spam), **more,
        }  # fmt: skip


def _step(length: dt.timedelta) -> int:
    seconds = length.total_seconds()
    return next((step for step in STEPS_S if seconds / step <= (200 if step < DAY_S else 1000)), STEPS_S[-1])


# --- settings --------------------------------------------------------------------------------------------------------


@st.cache_resource(show_spinner=False)
def _settings() -> settings.Settings:
    return settings.load()


def lake():
    return _settings().lake


def home() -> Path:
    return _settings().home


def landing() -> Path:
    return _settings().landing


def long_view_ms() -> int:
    return int(_settings().rules.long_view.total_seconds() * 1000)


def window_s() -> float:
    return _settings().rules.window.total_seconds()


def late_after() -> dt.timedelta:
    """From this age on the newest event is no longer fresh: five batches, half a minute at least."""
    return max(5 * _settings().live_interval, dt.timedelta(seconds=30))


def show_user_ids() -> bool:
    return _settings().show_user_ids


def user_parameters() -> dict:
    """What a query that names users needs: the key of the codes, and whether the ids themselves may leave ClickHouse."""
    return {"user_key": _user_key(_settings().user_key, str(home())), "show_ids": int(show_user_ids())}


@cache
def _user_key(given: str, folder: str) -> str:
    """The setting, else a key drawn once and kept in the home: links to a user stay good, and no one can guess ids.

    Raises SettingsError for a key that could be guessed, or that cannot be kept.
    """
    if given:
        return given
    path = Path(folder, "user_key")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path.parent):  # two that drew a key at once would show a user by two codes
            found = _kept(path)
            if not found:  # none yet, or nothing in it, as a full disk left it: no link was ever made with that
                write_durably(path, secrets.token_hex(16).encode(), mode=0o600)
                found = _kept(path)
    except (OSError, UnicodeDecodeError) as error:
        raise settings.SettingsError(f"the key of users' codes cannot be kept in {path}: {error}") from error
    if len(found) < settings.KEY_LENGTH:
        raise settings.SettingsError(
            f"the key in {path} has {len(found)} characters and could be guessed; remove the file, and a new one is drawn "
            "(links to users made before will find nobody)"
        )
    return found


def _kept(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip("\0 \t\r\n")
    except FileNotFoundError:
        return ""


def shown_user(user_id: int) -> str:
    """A user of the lake as the pages show one: the code that user_of.sql makes, or the id where a setting allows it."""
    if show_user_ids():
        return str(user_id)
    key = _user_key(_settings().user_key, str(home()))
    return hashlib.sha256(f"{key}:{user_id}".encode()).hexdigest()[:12]


def zones() -> list[str]:
    """The IANA zones to choose from, UTC first."""
    return ["UTC", *sorted(name for name in _known_zones() if "/" in name and not name.startswith("Etc/"))]


@cache
def _known_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - {"Factory", "localtime"}  # these two are no zone: none was set, and this machine's own


def is_zone(name: str) -> bool:
    return name in _known_zones()


def zone_of(text: str) -> str | None:
    """The zone that a text names, in whatever case it is written; None for none."""
    return text if is_zone(text) else _zones_by_small_letters().get(text.strip().lower())


@cache
def _zones_by_small_letters() -> dict[str, str]:
    return {name.lower(): name for name in _known_zones()}


def has(part: str) -> bool:
    """Whether anything of a part (feed, orders, spam) was ever loaded into ClickHouse."""
    return part in set(query("parts")["part"])


def can_leave_out_spam(name: str) -> bool:
    """Whether a query can leave out flagged accounts; those of one note or user, and of refused rows, never do."""
    return (QUERIES / f"{name}{WITHOUT_SPAM}.sql").exists()


# --- asking ----------------------------------------------------------------------------------------------------------


@st.cache_resource(show_spinner=False)
def _client(url: str):
    client = connect(url, read_only=True, folder=_settings().embedded_folder)
    for name, value in LIMITS.items():
        found = client.server_settings.get(name)
        # A read-only user of a server may not change settings: there its own profile sets the limits (docs/boards.md).
        if found is None or not int(found.readonly):
            client.set_client_setting(name, value)
    return client


@st.cache_resource(show_spinner=False)
def _known() -> dict:
    """The last answers, for when ClickHouse does not give any."""
    return {}


@cache
def sql(name: str) -> str:
    """The text of a query file, its views of a range written out. FileNotFoundError names one that is not there."""
    return inlined((QUERIES / f"{name}.sql").read_text())


def fresh(name: str, **parameters) -> pd.DataFrame:
    """Run a query file with bound parameters, now. Raises ClickHouseDown, NoTables or TooMuch; times come back as UTC."""
    from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

    url = _settings().pages_clickhouse
    try:
        rows = _client(url).query(sql(name), parameters=ranges.bound(parameters))
    except OperationalError as error:
        _client.clear()
        connect(url)  # says what to start, where nothing answers
        raise ClickHouseDown("ClickHouse answered once and then not; try again in a moment") from error
    except DatabaseError as error:
        if error.code == 516:  # the password is of no user there: another home's endpoint has taken the port
            _client.clear()
            connect(url, read_only=True, folder=_settings().embedded_folder)
        if error.code == 60:  # UNKNOWN_TABLE
            raise NoTables(str(error)) from error
        if error.code in TOO_MUCH:
            raise TooMuch(str(error)) from error
        raise
    columns = dict(zip(rows.column_names, rows.result_columns, strict=True)) if rows.result_columns else {}
    frame = pd.DataFrame(columns, columns=list(rows.column_names))
    for column, kind in zip(rows.column_names, rows.column_types, strict=True):
        if kind.name.startswith(("DateTime", "Nullable(DateTime")):
            frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame


@st.cache_data(ttl=FRESH_S, max_entries=400, show_spinner=False)
def _remembered(name: str, seen: dt.datetime | None, parameters: dict) -> pd.DataFrame:
    return fresh(name, **parameters)


def query(name: str, seen: dt.datetime | None = None, **parameters) -> pd.DataFrame:
    """As `fresh`, shared by all viewers for FRESH_S seconds, or until there is something newer than `seen`.

    While ClickHouse is away: the last answer to this question, where there was one.
    """
    key, known = repr((name, parameters)), _known()
    try:
        frame = _remembered(name, seen, parameters)
    except ClickHouseDown:
        if key not in known:
            raise
        return known[key].copy()
    known.pop(key, None)
    known[key] = frame.copy()  # the caller may write into what it got
    while len(known) > KNOWN_ANSWERS:
        known.pop(next(iter(known)), None)
    return frame


def ask(name: str, choice: Choice, **more) -> pd.DataFrame:
    """A query about a choice, its times in the choice's zone; the one without flagged accounts where that is chosen."""
    if choice.without_spam and can_leave_out_spam(name):
        name += WITHOUT_SPAM
    return in_zone(query(name, choice.seen, **choice.parameters(**more)), choice.zone)


def in_zone(frame: pd.DataFrame, zone: str) -> pd.DataFrame:
    """The same moments, told in another zone."""
    for column in frame.select_dtypes("datetimetz").columns:
        frame[column] = frame[column].dt.tz_convert(zoneinfo.ZoneInfo(zone))  # by its name pandas takes pytz's, which ends in 2037
    return frame


def forget() -> None:
    """Ask everything again."""
    _remembered.clear()
    span.clear()


# --- ranges ----------------------------------------------------------------------------------------------------------


def held(seen: dt.datetime | None) -> Bounds | None:
    """First and newest event time with stray hours, which `span` leaves out; None where there are no events."""
    row = query("events_held", seen).iloc[0]
    return None if pd.isna(row["earliest"]) else (row["earliest"].to_pydatetime(), row["latest"].to_pydatetime())


def in_years(time: dt.datetime) -> dt.datetime:
    """The time, or the nearest that an event may have: who writes 1900 or 9999 means all there is."""
    return ranges.within(time, EARLIEST, LATEST)


@st.cache_data(ttl=SPAN_S, show_spinner=False)
def span() -> Span:
    """What time the data covers, stray hours apart. Raises NoTables where there are no events."""
    row = fresh("data_span", **STRAY).iloc[0]
    if pd.isna(row["newest"]):
        raise NoTables("no events")
    return Span(*(row[name].to_pydatetime() for name in ("first", "newest", "busy_until")))


def known_span() -> tuple[Span, ClickHouseDown | None]:
    """The span, or the last known one and why there is no newer. Raises as `span` where none is known."""
    known = _known()
    try:
        known["span"] = span()
    except ClickHouseDown as error:
        if "span" not in known:
            raise
        return known["span"], error
    return known["span"], None


def range_of(key: str, span: Span, own: Bounds | None = None) -> Bounds:
    """The half-open range of a choice: relative ones end with the data's traffic, not with the wall clock."""
    if key == "own" and own:
        return own
    if (length := RANGES[key][1]) is not None:
        return span.busy_until - length, span.busy_until
    newest = span.newest.replace(second=0, microsecond=0)
    return span.first.replace(second=0, microsecond=0), newest + dt.timedelta(minutes=1)


def ended(choice: Choice, span: Span) -> Choice:
    """The choice, its range cut where the events end: nobody was active in the day before the year 2100. Not where strays come later."""
    end = range_of("all", span)[1]
    cut = choice.start < end < choice.end and not (choice.held and choice.held[1] >= end)
    return replace(choice, end=end) if cut else choice
