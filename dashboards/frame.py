"""What every page has around it: range and channels (kept in the address), freshness, and plain words when it breaks.

Here: the frame. Not here: connection and queries (data.py), looks (design.py), what a page shows (views/).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import altair as alt
import pandas as pd
import streamlit as st

from assets.metrics.client import ClickHouseDown
from dashboards import data, design
from dagster_project.settings import SettingsError

LIVE_S = 5


def page(title: str, intro: str, body: Callable[[data.Choice, data.Span], None]) -> None:
    """Draw a page: its head, the choice, the body; or say in words why there is nothing to see."""
    st.title(title, anchor=False)
    try:
        span = data.span()
        _freshness()
        st.caption(intro)
        body(choose(span), span)
    except ClickHouseDown as error:
        st.warning(f"ClickHouse does not answer, so there is nothing to show. {str(error).capitalize()}.", icon="🔌")
        _again()
    except data.NoTables:
        st.info(
            "ClickHouse holds no events yet. `make demo` runs the whole line on generated traffic (or on a log of your "
            "own), `make up` starts live traffic; this page fills as they go.",
            icon="🌱",
        )
        _again()
    except SettingsError as error:
        st.error(f"A setting cannot be used: {error}.", icon="⚙️")
    except _DatabaseError() as error:
        st.error("ClickHouse refused a question of this page. Its words are below.", icon="🪟")
        st.code(str(error)[:2000], language=None, wrap_lines=True)
        _again()


def _DatabaseError() -> type[Exception]:
    from clickhouse_connect.driver.exceptions import DatabaseError

    return DatabaseError


def _again() -> None:
    if st.button("Try again", icon=":material/refresh:"):
        data.query.clear()
        st.rerun()


@st.fragment(run_every=LIVE_S)
def _freshness() -> None:
    try:
        newest = data.span().newest
    except (ClickHouseDown, data.NoTables):
        st.markdown(":orange-badge[ClickHouse does not answer]")
        return
    now = dt.datetime.now(dt.UTC)
    colour = "green" if now - newest < dt.timedelta(minutes=5) else "gray"
    words = f":{colour}-badge[:material/schedule: {design.freshness(newest, now)}]"
    st.markdown(words, help=design.meaning("freshness"))


def choose(span: data.Span) -> data.Choice:
    """Range and channels, from the address or the visitor; what is chosen goes back into the address."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = _remembered("range", data.DEFAULT_RANGE)
        key = st.segmented_control(
            "Range", list(data.RANGES), format_func=lambda name: data.RANGES[name][0],
            default=key if key in data.RANGES else data.DEFAULT_RANGE, key="range_control",
            help="Up to where the data's traffic ends, not to the clock on the wall. All times are UTC.",
        ) or data.DEFAULT_RANGE  # fmt: skip
        own = _own_range(span) if key == "own" else None
        start, end = data.range_of(key, span, own)
        channels = _channels(start, end)
    _remember("range", key)
    _remember("channel", ",".join(channels))
    st.caption(f"{start:%Y-%m-%d %H:%M} – {end:%Y-%m-%d %H:%M} UTC")
    return data.Choice(start, end, tuple(channels))


def _own_range(span: data.Span) -> tuple[dt.datetime, dt.datetime]:
    default = data.range_of(data.DEFAULT_RANGE, span)
    before = [_parsed(_remembered(name, ""), time).replace(tzinfo=None) for name, time in zip(("from", "to"), default)]
    start = st.datetime_input("From (UTC)", before[0], key="from_input")
    end = st.datetime_input("To (UTC)", before[1], key="to_input")
    if not start or not end or start >= end:
        st.warning("A range ends after it starts.", icon="🕰️")
        st.stop()
    _remember("from", start.isoformat(timespec="minutes"))
    _remember("to", end.isoformat(timespec="minutes"))
    return start.replace(tzinfo=dt.UTC), end.replace(tzinfo=dt.UTC)


def _parsed(text: str, default: dt.datetime) -> dt.datetime:
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        return default
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


def _channels(start: dt.datetime, end: dt.datetime) -> list[str]:
    known = list(data.query("channels", start=start, end=end)["channel"])
    chosen = [name for name in _remembered("channel", "").split(",") if name]
    options = known + [name for name in chosen if name not in known]
    return st.multiselect(
        "Channels", options, default=chosen, placeholder="All channels", key="channel_control", width=320,
        help="The surface that a display names. Nothing chosen means all.",
    )  # fmt: skip


def _remembered(name: str, default: str) -> str:
    """From the address; else what this visitor chose on the page before (a change of page empties the address)."""
    return st.query_params.get(name) or st.session_state.get(f"chosen_{name}", default)


def _remember(name: str, value: str) -> None:
    st.session_state[f"chosen_{name}"] = value
    if value and st.query_params.get(name) != value:
        st.query_params[name] = value
    elif not value and name in st.query_params:
        del st.query_params[name]


def panel(title: str, meaning: str, chart: alt.Chart | None, table: pd.DataFrame, name: str, note: str = "") -> None:
    """A chart with its definition one hover away and its rows to download; in words, where there are none."""
    with st.container(border=True):
        heading(title, meaning, table, name)
        if table.empty or chart is None:
            st.caption(note or "Nothing in this range.")
            return
        st.altair_chart(chart, width="stretch")
        if note:
            st.caption(note)


def heading(title: str, meaning: str, table: pd.DataFrame, name: str) -> None:
    """A panel's title, its definition one hover away, and its rows to download where there are any."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.markdown(f"**{title}**", help=design.meaning(meaning), width="content")
        if len(table):
            st.download_button(
                "CSV", table.to_csv(index=False), f"{name}.csv", "text/csv", icon=":material/download:",
                type="tertiary", on_click="ignore", key=f"csv_{name}", help="These rows as a CSV file",
            )  # fmt: skip
