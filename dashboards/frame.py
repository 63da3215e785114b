"""What every page has around it: range, zone, filters and comparison (kept in the address), freshness, refresh, plain words.

Here: the frame. Not here: connection and queries (data.py), looks (design.py), what a page shows (views/).

A page's panels are one fragment. Where the range ends with the data it runs itself again every LIVE_S seconds; answers are
remembered until newer events are there, so a refresh without news costs one small query for all viewers. What is
drawn stays in its place until the new drawing is there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import threading
import zoneinfo
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from urllib.parse import urlencode

import altair as alt
import pandas as pd
import streamlit as st

from assets.events.contract import EARLIEST, LATEST
from assets.metrics.client import ClickHouseDown, masked
from dagster_project.settings import SettingsError
from dashboards import data, design

LIVE_S = 5
MOST_STEPS = 10_000  # of a chart: a year of hours
FILTERS = ("channel", "device", "position")  # those that a page may take; the names in the address
STATE = ("range", "from", "to", "zone", "compare", "spam", *FILTERS)
TIME_COLUMN = "YYYY-MM-DD HH:mm:ss"
NAMING = ("at", "batch", "moment", "position", "row", "table_version")  # columns of whole numbers that count nothing

_ALTAIR = threading.Lock()

Body = Callable[[data.Choice, data.Span], None]


def page(title: str, intro: str, body: Body, filters: tuple[str, ...] = FILTERS, compares: bool = True) -> None:
    """Draw a page: its head, the choice, the body; or say in words why there is nothing to see.

    filters: which of FILTERS the body's queries know. compares: whether the body shows the range compared with.
    """
    st.title(title, anchor=False)
    with worded():
        span, _ = data.known_span()
        head = st.container()
        st.caption(intro)
        choice = choose(span, filters, compares)
        with head:
            _freshness(choice.zone)
        draw = st.fragment(_panels, run_every=LIVE_S) if choice.live else _panels
        draw(choice, body)


def plain_page(title: str, intro: str, body: Callable[[str], None], every_s: int | None = None) -> None:
    """A page about the line itself, which has no range and must work while ClickHouse does not. body(zone)."""
    st.title(title, anchor=False)
    with worded():
        head = st.container()
        st.caption(intro)
        notes: list[str] = []
        with st.container(horizontal=True, vertical_alignment="bottom"):
            zone = _zone(notes)
        for note in notes:
            st.caption(note)
        with head:
            _freshness(zone)

        def draw() -> None:
            with worded():
                body(zone)

        (st.fragment(draw, run_every=every_s) if every_s else draw)()


def _panels(choice: data.Choice, body: Body) -> None:
    with worded():
        span, _ = data.known_span()
        choice = _moved(choice, span)
        st.caption(_told(choice, span))
        body(_comparable(choice, span), span)


def _moved(choice: data.Choice, span: data.Span) -> data.Choice:
    """The same choice now: a range that ends with the data has moved with it."""
    if not choice.live:
        return replace(choice, seen=span.newest)
    start, end = data.range_of(_remembered("range", data.DEFAULT_RANGE), span)
    return replace(choice, start=start, end=end, seen=span.newest)


def _comparable(choice: data.Choice, span: data.Span) -> data.Choice:
    # A range that the data does not fill would make every change look like growth.
    other = choice.other
    return choice if other and other.start >= span.first - dt.timedelta(minutes=1) else replace(choice, compare="none")


def _told(choice: data.Choice, span: data.Span) -> str:
    words = [design.span_words(choice.start, choice.end, choice.zone)]
    chosen = [", ".join(map(_quoted, values)) for values in (choice.channels, choice.devices) if values]
    words += chosen + ([f"positions {', '.join(map(design.plain, choice.bands))}"] if choice.bands else [])
    if choice.other and _comparable(choice, span).other:
        words.append(f"compared with {data.COMPARE[choice.compare]}")
    elif choice.other:
        words.append(f"nothing to compare with: the data begins at {_local(span.first, choice.zone):%Y-%m-%d %H:%M}")
    if choice.step <= 3600 and (back := design.set_back(*choice.filled, choice.zone)):
        words.append(f"clocks are set back at {back:%Y-%m-%d %H:%M}: charts draw the hour that comes twice in one place")
    return " · ".join(words)


def _quoted(name: str) -> str:
    return f"“{design.plain(name)}”" if "," in name or not name.strip() else design.plain(name)


def _local(time: dt.datetime, zone: str) -> dt.datetime:
    return time.astimezone(zoneinfo.ZoneInfo(zone))


# --- words for what is broken or empty --------------------------------------------------------------------------------


@contextlib.contextmanager
def worded() -> Iterator[None]:
    """Say in plain words what a person can do, in place of a traceback."""
    from clickhouse_connect.driver.exceptions import DatabaseError

    try:
        yield
    except ClickHouseDown as error:
        st.warning(
            f"ClickHouse does not answer, so there is nothing to show. {said(error)}. "
            "This page asks again by itself.",
            icon=":material/cloud_off:",
        )  # fmt: skip
        _again()
        _ask_again()
    except data.NoTables:
        st.info(
            "ClickHouse holds no events yet. `make demo` runs the whole line on generated traffic (or on a log of your "
            "own), `make up` starts live traffic; this page fills as they go.",
            icon=":material/eco:",
        )
        _again()
    except data.TooMuch as error:
        st.warning("That is more than a page may ask of ClickHouse. Choose a shorter range or fewer things at once.", icon=":material/hourglass_disabled:")
        st.caption(said(error))
    except SettingsError as error:
        st.error(f"A setting cannot be used: {said(error)}.", icon=":material/settings:")
    except DatabaseError as error:
        st.error("ClickHouse refused a question of this page. Its words are below.", icon=":material/error:")
        st.code(masked(str(error))[:2000], language=None, wrap_lines=True)
        _again()


def said(error: Exception) -> str:
    """An error's words for a page: as text, without passwords."""
    words = masked(str(error))
    return design.plain(f"{words[:1].upper()}{words[1:]}", 400)


def _again() -> None:
    if st.button("Try again", icon=":material/refresh:", key="again"):
        data.forget()
        st.rerun()


@st.fragment(run_every=LIVE_S)
def _ask_again() -> None:
    """Draws nothing; runs the page again as soon as ClickHouse answers."""
    with contextlib.suppress(Exception):
        data.fresh("data_span", **data.STRAY)
        data.forget()
        st.rerun()


@st.fragment(run_every=LIVE_S)
def _freshness(zone: str) -> None:
    now = dt.datetime.now(dt.UTC)
    try:
        span, down = data.known_span()
    except (ClickHouseDown, data.NoTables):
        st.markdown(":orange-badge[:material/cloud_off: ClickHouse holds nothing that can be read now]")
        return
    words, more = design.freshness(span.newest, now, zone), ""
    if down:
        words, more = f":orange-badge[:material/cloud_off: {words}]", "ClickHouse does not answer; these are the last known numbers."
    elif now - span.newest > data.late_after():
        words, more = f":orange-badge[:material/hourglass_empty: {words}]", "Nothing newer has arrived since."
    else:
        words = f":green-badge[:material/schedule: {words}]"
    # Two elements: a badge is one line, and a phone would cut a longer one.
    st.markdown(words, help=design.meaning("freshness"))
    if more:
        st.caption(f":orange[{more}]")


# --- the choice ------------------------------------------------------------------------------------------------------


def choose(span: data.Span, filters: tuple[str, ...] = FILTERS, compares: bool = True) -> data.Choice:
    """Range, zone, filters, from the address or the visitor; what is chosen goes back into the address."""
    notes: list[str] = []  # what of the address cannot be had; under the row of inputs, which it would break
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = _remembered("range", data.DEFAULT_RANGE)
        key = st.segmented_control(
            "Range", list(data.RANGES), format_func=lambda name: data.RANGES[name][0],
            default=key if key in data.RANGES else data.DEFAULT_RANGE, key="range_control",
            help="Up to where the data's traffic ends, not to the clock on the wall.",
        ) or data.DEFAULT_RANGE  # fmt: skip
        zone = _zone(notes)
        own = _own_range(span, zone, notes) if key == "own" else None
        start, end = data.range_of(key, span, own)
        compare = _one_of("compare", "Compare with", data.COMPARE, data.DEFAULT_COMPARE) if compares else "none"
        chosen = _filters(filters, start, end)
    for note in notes:
        st.caption(note)
    _remember("range", key)
    return data.Choice(
        start, end, zone=zone, compare=compare, live=own is None, seen=span.newest, held=data.held(span.newest) if own else None,
        channels=chosen.get("channel", ()), devices=chosen.get("device", ()), bands=chosen.get("position", ()),
        without_spam=_without_spam(),
    )  # fmt: skip


def _zone(notes: list[str]) -> str:
    zones = data.zones()
    asked = _remembered("zone", "UTC")
    chosen = data.zone_of(asked)
    if not chosen:
        notes.append(f"No time zone is called {design.plain(asked)}; times are UTC.")
        chosen = "UTC"
    here = st.context.timezone
    first = [zone for zone in dict.fromkeys(["UTC", here, chosen]) if zone and data.is_zone(zone)]
    options = [*first, *(zone for zone in zones if zone not in first)]
    zone = st.selectbox("Times in", options, index=options.index(chosen), key="zone_control", width=190)
    _remember("zone", "" if zone == "UTC" else zone)
    return zone


def _one_of(name: str, label: str, options: dict[str, str], default: str) -> str:
    chosen = _remembered(name, default)
    names = list(options)
    index = names.index(chosen if chosen in options else default)
    chosen = st.selectbox(label, names, index=index, format_func=options.get, key=f"{name}_control", width=170)
    _remember(name, chosen)
    return chosen


def _own_range(span: data.Span, zone: str, notes: list[str]) -> tuple[dt.datetime, dt.datetime]:
    default = data.range_of(data.DEFAULT_RANGE, span)
    texts = [_remembered(name, "") for name in ("from", "to")]
    asked = [_parsed(text, time) for text, time in zip(texts, default, strict=True)]
    notes += [f"{design.plain(text)} is no time; one is written like 2026-01-31T05:00, in UTC." for text in texts if text and not _parsed(text, None)]
    before = [data.in_years(time) for time in asked]
    # The address holds UTC, the inputs the zone's clock; another zone makes other inputs.
    if before != asked:
        notes.append(f"Events lie in the years {data.YEARS}: the range goes no further.")
    first, last = (_clock(time, zone) for time in (EARLIEST, LATEST))
    start, end = (
        st.datetime_input(f"{label} ({zone})", _clock(time, zone), first, last, key=f"{name}_input_{zone}")
        for label, name, time in (("From", "from", before[0]), ("To", "to", before[1]))
    )
    if start and end:
        start = _moment(start, before[0], zone)
        end = _moment(end, before[1], zone, after=start)
    if not start or not end or start >= end:
        st.warning(" ".join(["A range ends after it starts.", *notes]), icon=":material/schedule:")
        st.stop()
    _remember("from", start.replace(tzinfo=None).isoformat(timespec="minutes"))
    _remember("to", end.replace(tzinfo=None).isoformat(timespec="minutes"))
    return start, end


def _clock(time: dt.datetime, zone: str) -> dt.datetime:
    return _local(time, zone).replace(tzinfo=None, fold=0)


def _moment(clock: dt.datetime, before: dt.datetime, zone: str, after: dt.datetime | None = None) -> dt.datetime:
    """What the zone's clock means, UTC. Where it is set back a time comes twice: it is `before` where the clock was left as it
    was, else the first, or the second where only that is after `after`."""
    if clock == _clock(before, zone):
        return before
    twice = [clock.replace(tzinfo=zoneinfo.ZoneInfo(zone), fold=fold).astimezone(dt.UTC) for fold in (0, 1)]
    return twice[1] if after and twice[0] <= after else twice[0]


def _parsed(text: str, default: dt.datetime | None) -> dt.datetime | None:
    """A time of the address, UTC, whole minutes; the first or last there is for one that UTC has not."""
    text = re.sub(r"(?<=:\d\d) (?=\d\d:\d\d$)", "+", text)  # a plus that was not written as %2B arrives as a blank
    try:
        time = dt.datetime.fromisoformat(text).replace(second=0, microsecond=0)
    except ValueError:
        return default
    if time.tzinfo is None:
        return time.replace(tzinfo=dt.UTC)
    try:
        return time.astimezone(dt.UTC)
    except OverflowError:
        return data.ALL_TIME[0] if time.year == 1 else data.ALL_TIME[1]


def _filters(names: tuple[str, ...], start: dt.datetime, end: dt.datetime) -> dict[str, tuple[str, ...]]:
    """The chosen values of each filter, in one place that takes little room."""
    count = sum(bool(_remembered(name, "")) for name in names) + (_remembered("spam", "") == "without")
    with st.popover(f"Filters · {count}" if count else "Filters", icon=":material/tune:"):
        found = {name: _values(name, start, end) for name in names}
        ready = data.has("spam")
        left_out = st.toggle(
            "Without accounts flagged as spam", value=ready and _remembered("spam", "") == "without", disabled=not ready,
            key="spam_control", help=design.meaning("without_spam"),
        )  # fmt: skip
        if not ready:
            st.caption("No accounts have been looked at yet: materialize `spam_accounts` and its copy in ClickHouse.")
        _remember("spam", "without" if left_out else "")
    return found


LABELS = {"channel": "Channels", "device": "Devices", "position": "Positions"}


def _values(name: str, start: dt.datetime, end: dt.datetime) -> tuple[str, ...]:
    if name == "position":
        known = list(data.BANDS)
    else:
        known = list(data.query(f"{name}s", start=_hour(start), end=end)[name])
    chosen = parted(_remembered(name, ""), known)
    found = st.multiselect(
        LABELS[name], list(dict.fromkeys([*known, *chosen])), default=chosen, format_func=lambda value: value or "(empty)",
        placeholder="All", key=f"{name}_control", help=design.meaning(f"by_{name}"),
    )  # fmt: skip
    _remember(name, joined(found))
    return tuple(found)


def joined(values: Iterable[str]) -> str:
    """Names as one text for the address: commas between them, a backslash before a comma or a backslash of a name; an empty one is `\\e`."""
    return ",".join(re.sub(r"[\\,]", r"\\\g<0>", value) or "\\e" for value in values)


def parted(text: str, known: Collection[str] = ()) -> list[str]:
    """The different names of `joined`. A comma that bears no backslash may still be of a name that is `known`: links of before, or
    written by hand, have none."""
    parts = ["" if part == "\\e" else re.sub(r"\\([\\,])", r"\1", part) for part in re.findall(r"(?:\\[\\,]|[^,])+", text)]
    longest = max((name.count(",") for name in known), default=0) + 1  # an address may hold thousands of commas, a name has few
    found: list[str] = []
    at = 0
    while at < len(parts):
        most = 1 if parts[at] in known else next((n for n in range(longest, 1, -1) if ",".join(parts[at : at + n]) in known), 1)
        found.append(",".join(parts[at : at + most]))
        at += most
    return list(dict.fromkeys(found))


def _hour(time: dt.datetime) -> dt.datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def _without_spam() -> bool:
    return data.has("spam") and _remembered("spam", "") == "without"


def _remembered(name: str, default: str) -> str:
    """From the address; else what this visitor chose on the page before (a change of page empties the address)."""
    return st.query_params.get(name) or st.session_state.get(f"chosen_{name}", default)


def _remember(name: str, value: str) -> None:
    st.session_state[f"chosen_{name}"] = value
    if value and st.query_params.get(name) != value:
        st.query_params[name] = value
    elif not value and name in st.query_params:
        del st.query_params[name]


def link(path: str, **more: str) -> str:
    """An address of another page with everything that is chosen now."""
    chosen = {name: st.query_params[name] for name in STATE if name in st.query_params}
    return f"{path}?{urlencode({**chosen, **more})}"


# --- panels ----------------------------------------------------------------------------------------------------------


def change(now: float | None, before: float | None, than: str = "before", colour: str = "normal") -> dict:
    """Relative change for st.metric, as `+3.1%`; nothing where there was nothing before. colour: normal, inverse (less is
    better) or off."""
    if not now or not before or pd.isna(now) or pd.isna(before):
        return {}
    if abs(now / before - 1) < 0.0005:
        return {"delta": "no change", "delta_color": "off", "delta_arrow": "off"}
    return {"delta": f"{now / before - 1:+.1%}", "delta_description": f"vs. {than}", "delta_color": colour}


Tile = tuple[str, str, Callable] | tuple[str, str, Callable, str]  # label, column and definition, number format, colour of its change


def tiles(
    shown: tuple[Tile, ...], now: pd.Series | dict, before: pd.Series | dict, choice: data.Choice, colour: str = "normal",
) -> None:  # fmt: skip
    """A row of numbers, each with its meaning one hover away and its change to the range compared with."""
    than = "a week before" if choice.compare == "week" else "before"
    with st.container(horizontal=True):
        for label, name, words, *own in shown:
            st.metric(
                label, words(now[name]), help=design.meaning(name), border=True, height="stretch",
                **change(now[name], before.get(name), than, *own or [colour]),
            )  # fmt: skip


def both(name: str, choice: data.Choice, **more) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """A query's rows for the range and for the one compared with (None for none).

    The times of the latter are moved onto this range; `was` holds what they were.
    """
    now = data.ask(name, choice, **more)
    if not choice.other:
        return now, None
    other = data.ask(name, choice.other, **more)
    if "time" in other:
        other["was"] = other["time"]
        other["time"] = other["time"] + pd.Timedelta(choice.shift)
    return now, other


def whole_steps(rows: pd.DataFrame | None, choice: data.Choice, step: int) -> pd.DataFrame | None:
    """Without the first and last step of so many seconds where the range cuts them: half a step looks like a fall."""
    if rows is None or rows.empty:
        return rows
    ends = rows["time"] + pd.Timedelta(seconds=step)
    whole = rows[(rows["time"] >= choice.start) & (ends <= choice.end)]
    return whole if len(whole) else rows


def every_step(
    rows: pd.DataFrame | None, step: int, zeros: tuple[str, ...] = (), kind: str | None = None,
) -> pd.DataFrame | None:  # fmt: skip
    """With a row for each step of so many seconds from the first to the last (and for each kind of a column).

    What is new is 0 in `zeros`, for counts of what is known at once; elsewhere missing: a chart breaks there. Rows with more than
    MOST_STEPS of them between, as strays have, stay as they are.
    """
    if rows is None or rows.empty or (rows["time"].max() - rows["time"].min()).total_seconds() > MOST_STEPS * step:
        return rows
    index = pd.date_range(rows["time"].min(), rows["time"].max(), freq=pd.Timedelta(seconds=step), name="time")
    if kind:
        index = pd.MultiIndex.from_product([index, rows[kind].unique()], names=["time", kind])
    every = rows.set_index(index.names).reindex(index).reset_index()
    return every.assign(**{name: every[name].fillna(0) for name in zeros})[list(rows.columns)]


def panel(
    title: str, meaning: str, chart: alt.TopLevelMixin | None, table: pd.DataFrame, name: str, note: str = "",
) -> None:  # fmt: skip
    """A chart with its definition one hover away and its rows to download; in words, where there are none."""
    with st.container(border=True):
        heading(title, meaning, table, name)
        if table.empty or chart is None:
            st.caption(note or "Nothing in this range.")
            return
        draw(chart, name)
        if note:
            st.caption(note)


def sheet(title: str, meaning: str, table: pd.DataFrame, name: str, note: str = "", empty: str = "", **columns) -> None:
    """Rows as a table, to download too. columns: st.column_config by column. Links are not downloaded."""
    with st.container(border=True):
        shown = table[[column for column in table.columns if column != "link"]]
        heading(title, meaning, shown, name)
        if table.empty:
            st.caption(empty or "Nothing in this range.")
            return
        height = min(420, 38 + 35 * len(table))
        st.dataframe(_wall(_exact(table)), hide_index=True, height=height, column_config={**_formats(table), **columns})
        if note:
            st.caption(note)


def _formats(table: pd.DataFrame) -> dict:
    """Times with their date; counts with marks between the thousands, which a number that names something must not have."""
    times = {
        name: st.column_config.DatetimeColumn(format=TIME_COLUMN) for name in table.select_dtypes("datetimetz").columns
    }  # fmt: skip
    counts = [name for name in table.select_dtypes("integer").columns if name not in NAMING and not name.endswith("_id")]
    return times | {name: st.column_config.NumberColumn(format="localized") for name in counts}


def _exact(table: pd.DataFrame) -> pd.DataFrame:
    # A browser's numbers are exact up to 2^53: what names something and is beyond is shown as text.
    ids = [name for name in table.select_dtypes("integer").columns
           if name.endswith("_id") and ((table[name] > 2**53) | (table[name] < -(2**53))).any()]  # fmt: skip
    return table.astype(dict.fromkeys(ids, str))


def _wall(table: pd.DataFrame) -> pd.DataFrame:
    # The browser would show a time with a zone in its own: what is shown is the wall clock of the chosen one.
    moved = {column: table[column].dt.tz_localize(None) for column in table.select_dtypes("datetimetz").columns}
    return table.assign(**moved)


# A spreadsheet runs a cell that begins so; in some countries it parts cells at `;` besides, whatever stands in quotes.
_FORMULA = re.compile(r"(?:^|(?<=[;\t\r\n]))(?=[\s\u200b\ufeff]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")


def csv(table: pd.DataFrame) -> str:
    """A table as a CSV file to download: numbers and times as they are; in a text, a quote before what could be a formula."""
    def inert(value: object) -> object:
        return _FORMULA.sub("'", value) if isinstance(value, str) else value

    texts = {name: table[name].map(inert) for name in table.columns if not _counts_or_times(table[name])}
    return table.assign(**texts).rename(columns=inert).to_csv(index=False, lineterminator="\r\n")  # so that a carriage return is quoted


def _counts_or_times(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column)


def draw(chart: alt.TopLevelMixin, name: str) -> None:
    """Draw a chart, its rows beside the spec under names that stay: the spec is the same while only rows change."""
    datasets: dict[str, pd.DataFrame] = {}

    def keep(frame):
        datasets[f"rows{len(datasets)}"] = frame
        return {"name": f"rows{len(datasets) - 1}"}

    with _ALTAIR:  # its transformers are one for all threads, and each viewer is a thread
        alt.data_transformers.register("beside", keep)
        with alt.data_transformers.enable("beside"):
            spec = chart.to_dict()
    spec.pop("$schema", None)
    spec["datasets"] = datasets
    st.vega_lite_chart(spec, width="stretch", key=f"chart_{name}")


def heading(title: str, meaning: str, table: pd.DataFrame, name: str) -> None:
    """A panel's title, its definition one hover away, and its rows to download where there are any."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.markdown(f"**{title}**", help=design.meaning(meaning), width="content")
        if len(table):
            st.download_button(
                "CSV", csv(table), f"{name}.csv", "text/csv", icon=":material/download:",
                type="tertiary", on_click="ignore", key=f"csv_{re.sub(r'[^a-z0-9_]', '_', name)}",
                help="These rows as a CSV file",
            )  # fmt: skip
