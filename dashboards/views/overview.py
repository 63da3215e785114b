"""Overview: how many users, displays and clicks, now and over the range."""

import datetime as dt

import pandas as pd
import streamlit as st

from dashboards import data, design, frame

LIVE_MINUTES = 30


def change(now: float | None, before: float | None) -> dict:
    """Relative change to the range before, as `+3.1%`, for st.metric; nothing where there was nothing before."""
    if not now or not before:
        return {}
    if abs(now / before - 1) < 0.0005:
        return {"delta": "no change", "delta_color": "off", "delta_arrow": "off"}
    return {"delta": f"{now / before - 1:+.1%}", "delta_description": "vs. before"}


def whole_steps(rows: pd.DataFrame, choice: data.Choice) -> pd.DataFrame:
    """Without the first and last step where the range cuts them: half a step looks like a fall."""
    ends = rows["time"] + pd.Timedelta(seconds=choice.step)
    whole = rows[(rows["time"] >= choice.start) & (ends <= choice.end)]
    return whole if len(whole) else rows


def body(choice: data.Choice, span: data.Span) -> None:
    totals(choice, span)
    live(choice)
    left, right = st.columns(2)
    with left:
        daily(choice)
    with right:
        actions(choice)
    displayed = whole_steps(data.query("displays_over_time", **choice.parameters(step=choice.step)), choice)
    left, right = st.columns(2)
    with left:
        chart = design.time_area(displayed, "displays", f"per {design.seconds(choice.step)}")
        frame.panel("Displays", "displays", chart, displayed, "displays_over_time")
    with right:
        frame.panel("CTR", "ctr", design.time_line(displayed, "ctr", "CTR"), displayed, "ctr_over_time")


def totals(choice: data.Choice, span: data.Span) -> None:
    now = data.query("totals", **choice.parameters()).iloc[0]
    # A range that the data does not fill would make every change look like growth.
    whole = choice.before.start >= span.first - dt.timedelta(minutes=1)
    before = data.query("totals", **choice.before.parameters()).iloc[0] if whole else {}
    shown = (
        ("Active users", "users", design.number), ("Displays", "displays", design.number),
        ("Clicks", "clicks", design.number), ("CTR", "ctr", design.percent), ("Events", "events", design.number),
    )  # fmt: skip
    with st.container(horizontal=True):
        for label, name, words in shown:
            st.metric(
                label, words(now[name]), help=design.meaning(name), border=True, height="stretch",
                **change(now[name], before.get(name)),
            )  # fmt: skip


@st.fragment(run_every=frame.LIVE_S)
def live(choice: data.Choice) -> None:
    try:
        end = data.span().busy_until
        start = end - dt.timedelta(minutes=LIVE_MINUTES)
        rows = data.fresh("actions_over_time", **data.Choice(start, end, choice.channels).parameters(step=60))
    except (data.ClickHouseDown, data.NoTables):
        st.caption("Live: ClickHouse does not answer at the moment; asking again.")
        return
    frame.panel(
        f"Live: actions per minute, the last {LIVE_MINUTES} minutes of data", "live",
        design.time_actions(rows), rows, "live_actions",
    )  # fmt: skip


def daily(choice: data.Choice) -> None:
    users = data.query("daily_users", **choice.parameters())
    users["day"] = [f"{day:%b %d}" for day in users["day"]]
    chart = design.bars(users, "day", "users", "users", sort=list(users["day"]), height=design.TALL)
    frame.panel("Daily active users", "daily_users", chart, users, "daily_users")


def actions(choice: data.Choice) -> None:
    rows = whole_steps(data.query("actions_over_time", **choice.parameters(step=choice.step)), choice)
    frame.panel("Actions per minute", "actions_per_minute", design.time_actions(rows), rows, "actions_over_time")


frame.page("Overview", "Who came, what was shown, what was clicked.", body)
