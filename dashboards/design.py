"""The one look of the pages: colours, number formats, chart defaults, and the words of sql/definitions.toml.

Here: how things look; the theme's colours are in .streamlit/config.toml. Not here: queries (data.py), pages (views/).

Charts over time take a column `time` with a zone and show the wall clock of that zone; they break where a value is missing
(frame.every_step puts the missing steps in). `other`, where a chart takes it, is the
same frame of the range compared with, its times already moved onto this range: drawn faint, beside or behind.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import zoneinfo

import altair as alt
import pandas as pd

from assets import definitions

# Chosen to be told apart on light and dark ground; the first is the house's own.
GREEN, BLUE, ORANGE, VIOLET, RED, OLIVE, GREY, CYAN = (
    "#1F9E89", "#4C78D8", "#E8833A", "#B65FCF", "#D64F6B", "#8A9A2E", "#7A8794", "#2BA8D1",
)  # fmt: skip
ACTION_COLOURS = {
    "impression": GREY, "click": GREEN, "view_end": CYAN, "like": RED, "fav": ORANGE, "comment": BLUE, "share": VIOLET,
    "follow": OLIVE, "profile_enter": "#A9714B", "hide": "#8C6BB1", "undone": "#C9A227",
}  # fmt: skip
HEAD_COLOURS = {**ACTION_COLOURS, "long_view": CYAN}
UNDONE = ("unlike", "unfav", "unfollow")  # one line on a chart: rare, and told apart in the download
HEIGHT = 240
TALL = 330
DECADES = [0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000]


def meaning(name: str) -> str:
    """What a metric means; KeyError for one that sql/definitions.toml does not explain."""
    return definitions.load()[name].text


JOINER = "\u2060"  # has no width; parts what Streamlit looks for after Markdown is read: emoji, icons, addresses, arrows
SHOWN = 200  # characters of a text from data or from the address
_MARKS = re.compile(r"[\\`*{}\[\]<>#!|$~&^@]|:(?=\S)|(?<!\w)[-+=_]|[-+=_](?!\w)")  # a hyphen within a word is one, a colon at its end too
_PARTED = re.compile(r"\A(?=\d{1,9}[.)])|(?<=[:@])(?=\S)|(?<=www)(?=\.)|(?<=[<>~=-])(?=[<>~=-])", re.IGNORECASE)


def plain(text: object, most: int = SHOWN) -> str:
    """Any text as Markdown that shows just this text, on one line: no image, link, formula, colour, icon or emoji of it works.

    What no person sees (control characters, marks that turn the direction of writing) becomes U+FFFD; beyond `most` it is cut.
    """
    words = " ".join(str(text).split())
    words = words if len(words) <= most else f"{words[: most - 1]}…"
    words = "".join(character if character.isprintable() else "\ufffd" for character in words)
    # A number that stands first would begin a list: a joiner before it. Joiners come first: a backslash must stand beside its mark.
    return _MARKS.sub(r"\\\g<0>", _PARTED.sub(JOINER, words))


# A browser's charts look names up where these stand already, and stop: a joiner before one makes it another, and shows the same.
INHERITED = frozenset((
    "constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "prototype", "then", "toLocaleString", "toString", "valueOf", "__proto__",
    "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__",
))  # fmt: skip


def drawable(name: object) -> object:
    """A name of data as a chart can hold it."""
    return JOINER + name if isinstance(name, str) and name in INHERITED else name


def _named(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    # Of pandas' types of texts there are several.
    named = column in frame and not (pd.api.types.is_numeric_dtype(frame[column]) or pd.api.types.is_datetime64_any_dtype(frame[column]))
    return frame.assign(**{column: frame[column].map(drawable)}) if named else frame


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


def money(cents: float | None) -> str:
    """Cents of the orders' currency as 1,234.50, from a million on as 1.23M."""
    if cents is None or (isinstance(cents, float) and math.isnan(cents)):
        return "–"
    return number(cents / 100) if abs(cents) >= 1e8 else f"{cents / 100:,.2f}"


def size(value: float | None) -> str:
    """Bytes as 12 MB, 1.3 GB."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}" if value < 1000 * limit else f"{value / limit:,.0f} {unit}"
    return f"{value:.0f} B"


def moment(time: dt.datetime, now: dt.datetime) -> str:
    """12:03:05 for today, with the date for any other day; both in one zone."""
    return f"{time:%H:%M:%S}" if time.date() == now.date() else f"{time:%Y-%m-%d %H:%M:%S}"


def freshness(newest: dt.datetime, now: dt.datetime, zone: str = "UTC") -> str:
    """`data until 12:03:05 UTC, 4 s ago`. A clock that is behind counts as 0 s."""
    local = zoneinfo.ZoneInfo(zone)
    age = seconds(max(0, int((now - newest).total_seconds())))
    return f"data until {moment(newest.astimezone(local), now.astimezone(local))} {zone}, {age} ago"


def span_words(start: dt.datetime, end: dt.datetime, zone: str) -> str:
    """`2026-03-01 02:00 – 2026-03-01 04:00 UTC`, in the zone's wall clock; with the offset where that shows the time twice."""
    return f"{clock_words(start, zone)} – {clock_words(end, zone)} {zone}"


def clock_words(time: dt.datetime, zone: str) -> str:
    """`2026-03-01 02:00` in the zone's wall clock; `2026-10-25 02:30 (UTC+02:00)` where clocks are set back and show it twice."""
    local = time.astimezone(zoneinfo.ZoneInfo(zone))
    twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    return f"{local:%Y-%m-%d %H:%M}" + (f" (UTC{local.isoformat()[-6:]})" if twice else "")


def set_back(start: dt.datetime, end: dt.datetime, zone: str) -> dt.datetime | None:
    """When in [start, end) the zone's clocks are first set back, as they show it before; None where they are not. To the minute."""
    there, hour, minute = zoneinfo.ZoneInfo(zone), dt.timedelta(hours=1), dt.timedelta(minutes=1)

    def ahead(time: dt.datetime) -> dt.timedelta:
        return time.astimezone(there).utcoffset()

    hours = (start + n * hour for n in range(math.ceil((end - start) / hour)))
    found = next((time for time in hours if ahead(min(time + hour, end)) < ahead(time)), None)
    if found is None:
        return None
    moment = next(found + n * minute for n in range(1, 61) if ahead(found + n * minute) < ahead(found))
    return (moment.astimezone(dt.UTC) + ahead(found)).replace(tzinfo=None)


def _chart(frame: pd.DataFrame, height: int) -> alt.Chart:
    return alt.Chart(_wall(frame), height=height)


def _wall(frame: pd.DataFrame) -> pd.DataFrame:
    # The wall clock of the frame's zone, labelled UTC and drawn on a UTC scale: the same wherever the browser is.
    if "time" not in frame or frame.empty:
        return frame
    return frame.assign(time=frame["time"].dt.tz_localize(None).dt.tz_localize("UTC"))


def _zone(frame: pd.DataFrame) -> str:
    return str(frame["time"].dt.tz) if len(frame) else "UTC"


def _time() -> alt.X:
    # Of some minutes the steps are parts of a minute: without their seconds all would read alike.
    form = "utcseconds(datum.value) ? '%H:%M:%S' : utchours(datum.value) + utcminutes(datum.value) ? '%H:%M' : '%b %d'"
    label = f"utcFormat(datum.value, {form})"
    axis = alt.Axis(labelOverlap=True, grid=False, tickCount=7, labelExpr=label)
    return alt.X("time:T", title=None, scale=alt.Scale(type="utc"), axis=axis)


def _numbers(form: str = "~s", **more) -> alt.Axis:
    """An axis of numbers. Each is written by itself: with `format` all of an axis share one prefix, and 100 beside 1k is "0.1k".

    Below 1 there is no prefix: a half of an account would be "500m".
    """
    small = "'~g'" if form.endswith("s") else f"'{form}'"
    return alt.Axis(labelExpr=f"format(datum.value, abs(datum.value) < 1 ? {small} : '{form}')", **more)


def _time_tip(frame: pd.DataFrame) -> alt.Tooltip:
    return alt.Tooltip("utcyearmonthdatehoursminutes(time):T", title=_zone(frame))


def _faint(frame: pd.DataFrame, other: pd.DataFrame | None, encode: dict) -> list[alt.Chart]:
    if other is None or other.empty:
        return []
    tips = [alt.Tooltip("was:N", title="compared with"), *encode["tooltip"][1:]]
    other = other.assign(was=other["was"].dt.strftime("%Y-%m-%d %H:%M"))
    faint = alt.Chart(_wall(other)).mark_line(color=GREY, strokeWidth=1.5, strokeDash=[4, 3], opacity=0.7, interpolate="monotone")
    return [faint.encode(**{**encode, "tooltip": tips})]


def _alone(frame: pd.DataFrame, column: str, colour: str, encode: dict) -> list[alt.Chart]:
    # A value between two gaps has no line to be seen by.
    there = frame[column].notna()
    alone = frame[there & ~there.shift(1, fill_value=False) & ~there.shift(-1, fill_value=False)]
    return [alt.Chart(_wall(alone)).mark_point(color=colour, filled=True, size=40).encode(**encode)] if len(alone) else []


def _layered(marked: alt.Chart, behind: list[alt.Chart], height: int) -> alt.Chart | alt.LayerChart:
    return alt.layer(*behind, marked).properties(height=height) if behind else marked


def time_area(
    frame: pd.DataFrame, column: str, title: str, colour: str = GREEN, form: str = ",.0f",
    other: pd.DataFrame | None = None, axis: str = "~s", height: int = HEIGHT,
) -> alt.Chart | alt.LayerChart:  # fmt: skip
    """One measure over `time`, filled: for counts."""
    encode = {
        "x": _time(), "y": alt.Y(f"{column}:Q", title=title, axis=_numbers(axis, tickCount=5)),
        "tooltip": [_time_tip(frame), alt.Tooltip(f"{column}:Q", title=title, format=form)],
    }  # fmt: skip
    line = {"color": colour, "strokeWidth": 2}
    area = _chart(frame, height).mark_area(color=colour, opacity=0.28, line=line, interpolate="monotone")
    return _layered(area.encode(**encode), [*_faint(frame, other, encode), *_alone(frame, column, colour, encode)], height)


def time_line(
    frame: pd.DataFrame, column: str, title: str, colour: str = GREEN, other: pd.DataFrame | None = None,
    form: str = ".2%", axis: str = ".0%", height: int = HEIGHT,
) -> alt.Chart | alt.LayerChart:  # fmt: skip
    """One rate over `time`, from zero: for percentages."""
    encode = {
        "x": _time(), "y": alt.Y(f"{column}:Q", title=title, axis=_numbers(axis, tickCount=5)),
        "tooltip": [_time_tip(frame), alt.Tooltip(f"{column}:Q", title=title, format=form)],
    }  # fmt: skip
    line = _chart(frame, height).mark_line(color=colour, strokeWidth=2, interpolate="monotone")
    return _layered(line.encode(**encode), [*_faint(frame, other, encode), *_alone(frame, column, colour, encode)], height)


def time_kinds(
    frame: pd.DataFrame, kind: str, column: str, title: str, stacked: bool = False, form: str = ",.0f", axis: str = "~s",
    height: int = HEIGHT + 60, zero: bool = True,
) -> alt.Chart:  # fmt: skip
    """One measure over `time`, a line (or a layer) for each of a few kinds. Above four, the legend makes the chart higher."""
    frame = _named(frame, kind)
    kinds = list(frame[kind].unique()) if len(frame) else []
    chart = _chart(frame, height + 26 * max(0, math.ceil(len(kinds) / 2) - 2))
    # Nine heads are more than the theme has colours.
    known = set(kinds) <= HEAD_COLOURS.keys()
    scale = alt.Scale(domain=kinds, range=[HEAD_COLOURS[name] for name in kinds]) if kinds and known else alt.Undefined
    mark = chart.mark_area(opacity=0.75) if stacked else chart.mark_line(strokeWidth=2, point=len(frame) < 40)
    return mark.encode(
        x=_time(), y=alt.Y(f"{column}:Q", title=title, stack=stacked, scale=alt.Scale(zero=zero),
                                  axis=_numbers(axis, tickCount=5)),
        color=alt.Color(f"{kind}:N", scale=scale, legend=alt.Legend(orient="bottom", title=None, columns=2)),
        tooltip=[_time_tip(frame), f"{kind}:N", alt.Tooltip(f"{column}:Q", title=title, format=form)],
    )  # fmt: skip


def with_moment(chart: alt.Chart, time: pd.Timestamp, words: str) -> alt.LayerChart:
    """A chart over `time` with a dashed line at one moment; words: its tooltip."""
    height = chart.height
    line = alt.Chart(_wall(pd.DataFrame({"time": [time], "words": [words]}))).mark_rule(color=GREY, strokeDash=[4, 3], strokeWidth=2)
    moment = line.encode(x=alt.X("time:T", scale=alt.Scale(type="utc")), tooltip=alt.Tooltip("words:N", title=""))
    return alt.layer(moment, chart).properties(height=height)


def time_actions(frame: pd.DataFrame) -> alt.Chart:
    """Actions per minute over `time`, a line each, on a scale that shows rare ones beside displays.

    The height holds the legend too.
    """
    frame = _named(frame, "action")
    frame = frame.assign(action=frame["action"].where(~frame["action"].isin(UNDONE), "undone"))
    frame = frame.groupby(["time", "action"], as_index=False, observed=True)["per_minute"].sum()
    top = max(1.0, frame["per_minute"].max()) if len(frame) else 1.0
    axis = _numbers(values=[step for step in DECADES if step <= 2 * top], labelOverlap=False)
    present = [action for action in ACTION_COLOURS if action in set(frame["action"])]
    colours = alt.Scale(domain=present, range=[ACTION_COLOURS[action] for action in present])
    return _chart(frame, TALL).mark_line(strokeWidth=1.8, interpolate="monotone").encode(
        x=_time(),
        y=alt.Y("per_minute:Q", title="per minute", scale=alt.Scale(type="symlog"), axis=axis),
        color=alt.Color("action:N", scale=colours, legend=alt.Legend(orient="bottom", title=None, columns=3)),
        tooltip=[_time_tip(frame), "action:N", alt.Tooltip("per_minute:Q", title="per minute", format=",.1f")],
    )  # fmt: skip


THIS, OTHER = "this range", "compared with"


def bars(
    frame: pd.DataFrame, x: str, column: str, title: str, x_title: str | None = None, colour: str = GREEN,
    form: str = ",.0f", axis: str = "~s", sort: list | None = None, height: int = HEIGHT,
    other: pd.DataFrame | None = None,
) -> alt.Chart:  # fmt: skip
    """Bars over a few values of `x`, in the order given (or of the values); with `other`, two a value side by side."""
    frame, other, sort = _named(frame, x), other if other is None else _named(other, x), [drawable(name) for name in sort or ()]
    encode = {
        "x": alt.X(f"{x}:O", title=x_title, sort=sort or alt.Undefined, axis=alt.Axis(labelAngle=0, labelOverlap=True, grid=False)),
        "y": alt.Y(f"{column}:Q", title=title, axis=_numbers(axis, tickCount=5)),
        "tooltip": [alt.Tooltip(f"{x}:O", title=x_title or x), alt.Tooltip(f"{column}:Q", title=title, format=form)],
    }  # fmt: skip
    if other is None or other.empty:
        return _chart(frame, height).mark_bar(color=colour, cornerRadiusEnd=3, width={"band": 0.75}).encode(**encode)
    both = pd.concat([frame.assign(range=THIS), other.assign(range=OTHER)])
    scale = alt.Scale(domain=[THIS, OTHER], range=[colour, "rgba(122,135,148,0.55)"])
    legend = alt.Legend(orient="bottom", title=None)
    return _chart(both, height + 50).mark_bar(cornerRadiusEnd=2).encode(
        **encode, xOffset=alt.XOffset("range:N", sort=[THIS, OTHER]),
        color=alt.Color("range:N", scale=scale, legend=legend, sort=[THIS, OTHER]),
    )  # fmt: skip


def sides(
    frame: pd.DataFrame, name: str, columns: tuple[str, ...], title: str, colours: dict[str, str], form: str = ",.0f",
    axis: str = "~s", scale: str = "linear",
) -> alt.Chart:  # fmt: skip
    """Lying bars, one for each of a few columns under one another, for each name in its order. scale: linear, or sqrt where
    small values stand beside large ones. The height holds the legend too."""
    frame = _named(frame, name)
    tall = frame.melt([name], list(columns), "side", "value").dropna()
    names = alt.Axis(ticks=False, domain=False, labelPadding=8, labelLimit=130)
    legend = alt.Legend(orient="bottom", title=None)
    return alt.Chart(tall, height=max(190, 14 * len(columns) * len(frame) + 130)).mark_bar(cornerRadiusEnd=2).encode(
        y=alt.Y(f"{name}:N", title=None, sort=list(frame[name]), axis=names),
        yOffset=alt.YOffset("side:N", sort=list(columns)),
        x=alt.X("value:Q", title=title, scale=alt.Scale(type=scale), axis=_numbers(axis, tickCount=4)),
        color=alt.Color("side:N", sort=list(columns), legend=legend,
                        scale=alt.Scale(domain=list(columns), range=[colours[column] for column in columns])),
        tooltip=[f"{name}:N", "side:N", alt.Tooltip("value:Q", title=title, format=form)],
    )  # fmt: skip


def before_after(frame: pd.DataFrame, title: str, form: str = ",.0f", height: int = HEIGHT) -> alt.LayerChart:
    """Columns `before`, faint, and `after` over `time`."""
    tips = [_time_tip(frame), *(alt.Tooltip(f"{side}:Q", format=form) for side in ("before", "after"))]
    axis = _numbers(tickCount=5)
    base = _chart(frame, height).encode(x=_time(), tooltip=tips)
    after = base.mark_line(color=GREEN, strokeWidth=2.5, point={"color": GREEN, "size": 45}).encode(y=alt.Y("after:Q", title=title, axis=axis))
    before = base.mark_line(color=GREY, strokeWidth=1.5, strokeDash=[4, 3]).encode(y=alt.Y("before:Q", title=title, axis=axis))
    return alt.layer(before, after).properties(height=height)


def points(
    frame: pd.DataFrame, name: str, columns: dict[str, str], title: str, order: list, line: float,
) -> alt.LayerChart:  # fmt: skip
    """A row of points for each name, one a column (label by column), and a line to hold them against."""
    frame, order = _named(frame, name), [drawable(one) for one in order]
    tall = frame.melt([name], list(columns), "series", "value").dropna()
    tall["series"] = tall["series"].map(columns)
    base = alt.Chart(tall).encode(
        y=alt.Y(f"{name}:N", sort=order, title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8)),
        x=alt.X("value:Q", title=title, scale=alt.Scale(zero=False, padding=10), axis=alt.Axis(tickCount=6, format=".2f")),
        tooltip=[f"{name}:N", "series:N", alt.Tooltip("value:Q", format=".4f")],
    )  # fmt: skip
    scale = alt.Scale(domain=list(columns.values()), range=[GREEN, GREY][: len(columns)])
    legend = alt.Legend(orient="bottom", title=None) if len(columns) > 1 else None
    dots = base.mark_point(size=110, filled=True).encode(color=alt.Color("series:N", scale=scale, legend=legend))
    rule = alt.Chart(pd.DataFrame({"value": [line]})).mark_rule(color=GREY, strokeDash=[4, 3]).encode(x="value:Q")
    return alt.layer(rule, dots).properties(height=TALL)


def ranked(
    frame: pd.DataFrame, name: str, column: str, title: str, colour: str = GREEN, form: str = ",.0f", axis: str = "~s",
) -> alt.Chart:  # fmt: skip
    """Lying bars, the longest first: for names too long to stand under a bar."""
    frame = _named(frame, name)
    names = alt.Axis(ticks=False, domain=False, labelPadding=8, labelLimit=150)
    return _chart(frame, max(110, 28 * len(frame) + 60)).mark_bar(color=colour, cornerRadiusEnd=3, height=16).encode(
        y=alt.Y(f"{name}:N", sort=list(frame[name]), title=None, axis=names),
        x=alt.X(f"{column}:Q", title=title, axis=_numbers(axis, tickCount=4)),
        tooltip=[f"{name}:N", alt.Tooltip(f"{column}:Q", title=title, format=form)],
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
