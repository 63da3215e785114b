"""Overview: how many users, displays and clicks, now and over the range."""

import datetime as dt
from dataclasses import replace

import pandas as pd
import streamlit as st

from dashboards import data, design, frame

LIVE_MINUTES = 30
TILES = (
    ("Active users", "users", design.number), ("Displays", "displays", design.number),
    ("Clicks", "clicks", design.number), ("CTR", "ctr", design.percent), ("Events", "events", design.number),
)  # fmt: skip


ACTIVE_TILES = (
    ("Users, last day", "dau", design.number), ("Users, last 7 days", "wau", design.number),
    ("Users, last 30 days", "mau", design.number),
)  # fmt: skip


def body(choice: data.Choice, span: data.Span) -> None:
    now, before = frame.both("totals", choice)
    frame.tiles(TILES, now.iloc[0], {} if before is None else before.iloc[0], choice)
    ended = data.ended(choice, span)
    active, active_before = frame.both("active_users", ended)
    frame.tiles(ACTIVE_TILES, active.iloc[0], {} if active_before is None else active_before.iloc[0], choice)
    live(choice, span)
    left, right = st.columns(2)
    with left:
        daily(choice)
    with right:
        actions(ended)
    displayed, other = (
        frame.whole_steps(rows, ended, choice.step) for rows in frame.both("displays_over_time", choice, step=choice.step)
    )
    # A step without displays may be one whose windows are still open: not none, but not known.
    drawn, other = (frame.every_step(rows, choice.step) for rows in (displayed, other))
    left, right = st.columns(2)
    with left:
        chart = design.time_area(drawn, "displays", f"per {design.seconds(choice.step)}", other=other)
        frame.panel("Displays", "displays", chart, displayed, "displays_over_time")
    with right:
        chart = design.time_line(drawn, "ctr", "CTR", other=other)
        frame.panel("CTR", "ctr", chart, displayed, "ctr_over_time")


def live(choice: data.Choice, span: data.Span) -> None:
    start = span.busy_until - dt.timedelta(minutes=LIVE_MINUTES)
    rows = data.ask("actions_over_time", replace(choice, start=start, end=span.busy_until), step=60)
    frame.panel(
        f"Live: actions per minute, the last {LIVE_MINUTES} minutes of data", "live",
        design.time_actions(_with_none(rows, 60)), rows, "live_actions",
    )  # fmt: skip


def daily(choice: data.Choice) -> None:
    users = data.ask("daily_users", choice)
    users["day"] = [f"{day:%b %d}" for day in users["day"]]
    chart = design.bars(users, "day", "users", "users", sort=list(users["day"]), height=design.TALL)
    frame.panel("Daily active users", "daily_users", chart, users, "daily_users")


def actions(choice: data.Choice) -> None:
    rows = frame.whole_steps(data.ask("actions_over_time", choice, step=choice.step), choice, choice.step)
    chart = design.time_actions(_with_none(rows, choice.step))
    frame.panel("Actions per minute", "actions_per_minute", chart, rows, "actions_over_time")


def _with_none(rows: pd.DataFrame, step: int) -> pd.DataFrame:
    return frame.every_step(rows, step, ("per_minute",), "action")


frame.page("Overview", "Who came, what was shown, what was clicked.", body)
