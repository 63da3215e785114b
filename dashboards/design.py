"""The one look of the pages: colours, number formats, chart defaults, and the words of definitions.toml.

Here: how things look; the theme's colours are in .streamlit/config.toml. Not here: queries (data.py), pages (views/).
"""

from __future__ import annotations

import datetime as dt
import math
import tomllib
from functools import cache
from pathlib import Path

import altair as alt
import pandas as pd

DEFINITIONS = Path(__file__).parent / "definitions.toml"

# Chosen to be told apart on light and dark ground; the first is the house's own.
GREEN, BLUE, ORANGE, VIOLET, RED, OLIVE, GREY, CYAN = (
    "#1F9E89", "#4C78D8", "#E8833A", "#B65FCF", "#D64F6B", "#8A9A2E", "#7A8794", "#2BA8D1",
)  # fmt: skip
ACTION_COLOURS = {
    "impression": GREY, "click": GREEN, "view_end": CYAN, "like": RED, "fav": ORANGE, "comment": BLUE, "share": VIOLET,
    "follow": OLIVE, "profile_enter": "#A9714B", "hide": "#8C6BB1", "undone": "#C9A227",
}  # fmt: skip
UNDONE = ("unlike", "unfav", "unfollow")  # one line on a chart: rare, and told apart in the download
HEIGHT = 240
TALL = 330
DECADES = [0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000]


@cache
def definitions() -> dict[str, str]:
    return tomllib.loads(DEFINITIONS.read_text())


def meaning(name: str) -> str:
    """What a metric means; KeyError for one that definitions.toml does not explain."""
    return definitions()[name]


def number(value: float | None) -> str:
    """12,345 up to a million, then 1.23M; a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    for limit, unit in ((1e9, "B"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{value / limit:.2f}{unit}"
    return f"{value:,.0f}"


def percent(value: float | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.2%}"


def seconds(value: float | None) -> str:
    """0.8 s, 12 s, 3 min, 2 h, 5 d."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if value < 10:
        return f"{value:.3g} s"
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if value < limit:
            return f"{value / size:.0f} {unit}"
    return f"{value / 86400:,.0f} d"


def moment(time: dt.datetime, now: dt.datetime) -> str:
    """12:03:05 for today, with the date for any other day. UTC."""
    return f"{time:%H:%M:%S}" if time.date() == now.date() else f"{time:%Y-%m-%d %H:%M:%S}"


def freshness(newest: dt.datetime, now: dt.datetime) -> str:
    """`data until 12:03:05 UTC, 4 s ago`. A clock that is behind counts as 0 s."""
    return f"data until {moment(newest, now)} UTC, {seconds(max(0, int((now - newest).total_seconds())))} ago"


def _chart(frame: pd.DataFrame, height: int) -> alt.Chart:
    return alt.Chart(frame, height=height)


def _time(frame: pd.DataFrame) -> alt.X:
    # The columns are UTC and shown as UTC, wherever the browser is.
    length = frame["time"].max() - frame["time"].min() if len(frame) else pd.Timedelta(0)
    form = "%H:%M" if length <= pd.Timedelta(hours=30) else "%b %d"
    axis = alt.Axis(labelOverlap=True, grid=False, tickCount=7, format=form)
    return alt.X("time:T", title=None, scale=alt.Scale(type="utc"), axis=axis)


def _time_tip() -> alt.Tooltip:
    return alt.Tooltip("utcyearmonthdatehoursminutes(time):T", title="UTC")


def time_area(frame: pd.DataFrame, column: str, title: str, colour: str = GREEN, form: str = ",.0f") -> alt.Chart:
    """One measure over `time`, filled: for counts."""
    return _chart(frame, HEIGHT).mark_area(
        color=colour, opacity=0.28, line={"color": colour, "strokeWidth": 2}, interpolate="monotone"
    ).encode(
        x=_time(frame), y=alt.Y(f"{column}:Q", title=title, axis=alt.Axis(format="~s", tickCount=5)),
        tooltip=[_time_tip(), alt.Tooltip(f"{column}:Q", title=title, format=form)],
    )  # fmt: skip


def time_line(frame: pd.DataFrame, column: str, title: str, colour: str = GREEN) -> alt.Chart:
    """One rate over `time`, from zero: for percentages."""
    return _chart(frame, HEIGHT).mark_line(color=colour, strokeWidth=2, interpolate="monotone").encode(
        x=_time(frame), y=alt.Y(f"{column}:Q", title=title, axis=alt.Axis(format=".0%", tickCount=5)),
        tooltip=[_time_tip(), alt.Tooltip(f"{column}:Q", title=title, format=".2%")],
    )  # fmt: skip


def time_actions(frame: pd.DataFrame) -> alt.Chart:
    """Actions per minute over `time`, a line each, on a scale that shows rare ones beside displays.

    The height holds the legend too.
    """
    frame = frame.assign(action=frame["action"].where(~frame["action"].isin(UNDONE), "undone"))
    frame = frame.groupby(["time", "action"], as_index=False)["per_minute"].sum()
    top = max(1.0, frame["per_minute"].max()) if len(frame) else 1.0
    axis = alt.Axis(format="~s", values=[step for step in DECADES if step <= 2 * top], labelOverlap=False)
    present = [action for action in ACTION_COLOURS if action in set(frame["action"])]
    colours = alt.Scale(domain=present, range=[ACTION_COLOURS[action] for action in present])
    return _chart(frame, TALL).mark_line(strokeWidth=1.8, interpolate="monotone").encode(
        x=_time(frame),
        y=alt.Y("per_minute:Q", title="per minute", scale=alt.Scale(type="symlog"), axis=axis),
        color=alt.Color("action:N", scale=colours, legend=alt.Legend(orient="bottom", title=None, columns=3)),
        tooltip=[_time_tip(), "action:N", alt.Tooltip("per_minute:Q", title="per minute", format=",.1f")],
    )  # fmt: skip


def bars(
    frame: pd.DataFrame, x: str, column: str, title: str, x_title: str | None = None, colour: str = GREEN,
    form: str = ",.0f", axis: str = "~s", sort: list | None = None, height: int = HEIGHT,
) -> alt.Chart:  # fmt: skip
    """Bars over a few values of `x`, in the order given (or of the values)."""
    return _chart(frame, height).mark_bar(color=colour, cornerRadiusEnd=3, width={"band": 0.75}).encode(
        x=alt.X(f"{x}:O", title=x_title, sort=sort, axis=alt.Axis(labelAngle=0, labelOverlap=True, grid=False)),
        y=alt.Y(f"{column}:Q", title=title, axis=alt.Axis(format=axis, tickCount=5)),
        tooltip=[alt.Tooltip(f"{x}:O", title=x_title or x), alt.Tooltip(f"{column}:Q", title=title, format=form)],
    )  # fmt: skip


def steps(frame: pd.DataFrame) -> alt.Chart:
    """The funnel: a bar a step on a square-root scale (a share can be a thousandth), its count and share beside it.

    frame: step, count, words.
    """
    order = list(frame["step"])
    room = 2.6 * float(frame["count"].max() or 1)  # for the words beside the longest bar
    names = alt.Axis(ticks=False, domain=False, labelPadding=8, labelLimit=120)
    base = _chart(frame, TALL).encode(
        y=alt.Y("step:N", sort=order, title=None, axis=names),
        x=alt.X("count:Q", title=None, axis=None, scale=alt.Scale(type="sqrt", domainMax=room)),
        tooltip=["step:N", alt.Tooltip("count:Q", format=","), alt.Tooltip("words:N", title="share")],
    )  # fmt: skip
    colours = [GREY, GREEN] + [BLUE] * (len(order) - 2)
    colour = alt.Color("step:N", legend=None, scale=alt.Scale(domain=order, range=colours))
    label = base.mark_text(align="left", dx=6, fontSize=12, color=GREY).encode(text="words:N")
    return base.mark_bar(cornerRadiusEnd=3, height=20).encode(color=colour) + label
