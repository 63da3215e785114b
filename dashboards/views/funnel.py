"""Attribution funnel: from a display to its click and to what followed, and what belongs to no display."""

import pandas as pd
import streamlit as st

from dashboards import data, design, frame

STEPS = (
    ("display", "displays"), ("click", "clicks"), ("long view", "long_views"), ("like", "likes"), ("fav", "favs"),
    ("profile enter", "profile_enters"), ("comment", "comments"), ("share", "shares"), ("follow", "follows"),
    ("hide", "hides"),
)  # fmt: skip


TILES = (
    ("Displays", "displays", design.number), ("Clicks", "clicks", design.number), ("CTR", "ctr", design.percent),
    ("Likes / click", "likes_per_click", design.percent), ("Long views / click", "long_views_per_click", design.percent),
)  # fmt: skip


def body(choice: data.Choice, span: data.Span) -> None:
    asked = {"long_view_ms": data.long_view_ms()}
    hours, hours_before = frame.both("funnel_by_hour", choice, **asked)
    row = total(hours)
    frame.tiles(TILES, row, {} if hours_before is None else total(hours_before), choice)
    left, right = st.columns([3, 2])
    with left:
        funnel(row)
    with right:
        time_to_click(choice)
    left, right = st.columns(2)
    with left:
        by_channel(*frame.both("funnel_by_channel", choice, **asked))
    with right:
        by_position(*frame.both("funnel_by_position", choice, **asked))
    left, right = st.columns(2)
    with left:
        by_hour(hours, hours_before, choice.zone)
    with right:
        outside(choice)


def total(hours: pd.DataFrame) -> pd.Series:
    """The funnel of all hours: every display has one hour, so the counts add up. One scan less."""
    row = hours.drop(columns=["hour_of_day", "ctr"]).sum()
    clicks = row["clicks"] or None
    row["ctr"] = row["clicks"] / row["displays"] if row["displays"] else None
    row["likes_per_click"] = row["likes"] / clicks if clicks else None
    row["long_views_per_click"] = row["long_views"] / clicks if clicks else None
    return row


def shares(row: pd.Series) -> pd.DataFrame:
    """The steps with their counts, and the share of the step they come from in words."""
    def words(name: str) -> str:
        count = design.number(row[name])
        base, of = (row["displays"], "displays") if name == "clicks" else (row["clicks"], "clicks")
        return count if name == "displays" or not base else f"{count} · {design.percent(row[name] / base)} of {of}"

    return pd.DataFrame([{"step": step, "count": int(row[name]), "words": words(name)} for step, name in STEPS])


def funnel(row: pd.Series) -> None:
    table = shares(row) if row["displays"] else pd.DataFrame()
    chart = design.steps(table) if len(table) else None
    frame.panel("Display → click → what followed", "funnel", chart, table, "funnel")


def time_to_click(choice: data.Choice) -> None:
    rows = data.ask("time_to_click", choice)
    summary = data.ask("time_to_click_summary", choice).iloc[0]
    rows["within"] = [design.seconds(value) for value in rows["up_to_s"]]
    chart = design.bars(rows, "within", "clicks", "clicks", "time to click, up to", design.BLUE,
                        sort=list(rows["within"]), height=design.TALL - 35)  # fmt: skip
    note = f"Median {design.seconds(summary['median_s'])}; 90% within {design.seconds(summary['p90_s'])}."
    frame.panel("Time to click", "time_to_click", chart, rows, "time_to_click", note if len(rows) else "")


def by_channel(rows: pd.DataFrame, other: pd.DataFrame | None) -> None:
    order = list(rows["channel"])
    chart = design.bars(rows, "channel", "ctr", "CTR", None, form=".2%", axis=".0%", sort=order, other=other)
    frame.panel("CTR by channel", "by_channel", chart, rows, "funnel_by_channel")


def by_position(rows: pd.DataFrame, other: pd.DataFrame | None) -> None:
    chart = design.bars(
        rows, "band", "ctr", "CTR", "position", form=".2%", axis=".0%", sort=list(rows["band"]), other=other
    )
    frame.panel("CTR by position", "by_position", chart, rows, "funnel_by_position")


def by_hour(rows: pd.DataFrame, other: pd.DataFrame | None, zone: str) -> None:
    chart = design.bars(rows, "hour_of_day", "ctr", "CTR", f"hour of day, {zone}", form=".2%", axis=".0%", other=other)
    frame.panel("CTR by hour of day", "by_hour", chart, rows, "funnel_by_hour")


def outside(choice: data.Choice) -> None:
    rows = data.ask("outside_sessions", choice).sort_values(["rows", "kind", "detail"], ascending=[False, True, True], ignore_index=True)
    with st.container(border=True):
        frame.heading("Outside of every display", "outside", rows, "outside_sessions")
        if rows.empty:
            st.caption("Nothing in this range: every action found its display.")
            return
        height = min(design.HEIGHT + 15, 38 + 35 * len(rows))
        columns = {"kind": st.column_config.Column(width=140), "detail": st.column_config.Column(width=260),
                   "rows": st.column_config.NumberColumn(format="localized", width=70)}  # fmt: skip
        st.dataframe(rows, hide_index=True, height=height, column_config=columns)


frame.page(
    "Attribution funnel", "What each display led to: its click, and what the reader did with the note after it.", body
)
