"""Attribution explorer: how the time to click, the slot, the surface and the window decide, down to one note or one user."""

import re

import pandas as pd
import streamlit as st

from dashboards import data, design, frame

NUMBER = re.compile(r"[+-]?[0-9]+")
SHORT_S = (10, 30, 60, 120, 300, 600)
TILES = (
    ("Displays", "displays", design.number), ("Clicks", "clicks", design.number), ("CTR", "ctr", design.percent),
    ("Median to click", "median_s", design.seconds), ("90% within", "p90_s", design.seconds),
)  # fmt: skip
NOTE_TILES = (
    ("Displays", "displays", design.number), ("Audience", "audience", design.number), ("Clicks", "clicks", design.number),
    ("CTR", "ctr", design.percent), ("Likes", "likes", design.number), ("Mean reading time", "dwell_s", design.seconds),
)  # fmt: skip


def body(choice: data.Choice, span: data.Span) -> None:
    note, user = st.query_params.get("note", ""), st.query_params.get("user", "")
    if note:
        return of_note(choice, note)
    if user:
        return of_user(choice, user)
    everything(choice)


def everything(choice: data.Choice) -> None:
    lengths = [float(length) for length in SHORT_S if length < data.window_s()] + [data.window_s()]
    windows, windows_before = frame.both("ctr_by_window", choice, lengths=lengths)
    summary, summary_before = frame.both("time_to_click_summary", choice)
    before = {} if windows_before is None else totals(windows_before, summary_before)
    frame.tiles(TILES, totals(windows, summary), before, choice)
    left, right = st.columns(2)
    with left:
        time_to_click(*frame.both("time_to_click", choice))
    with right:
        window_lengths(windows, windows_before)
    asked = {"long_view_ms": data.long_view_ms()}
    for place, (query, column, label, meaning) in zip(
        [*st.columns(2), st.container()],
        (("funnel_by_position", "band", "position", "by_position"), ("funnel_by_channel", "channel", "channel", "by_channel"),
         ("funnel_by_hour", "hour_of_day", f"hour of day, {choice.zone}", "by_hour")),
        strict=True,
    ):  # fmt: skip
        with place:
            rows, other = frame.both(query, choice, **asked)
            order = list(rows[column]) if column != "hour_of_day" else None
            chart = design.bars(rows, column, "ctr", "CTR", label, form=".2%", axis=".0%", sort=order, other=other)
            title = f"CTR by {label.split(',')[0]}"
            frame.panel(title, meaning, chart, rows, f"attribution_{query}")
    left, right = st.columns(2)
    with left:
        top_notes(choice)
    with right:
        top_users(choice)


def totals(windows: pd.DataFrame, summary: pd.DataFrame) -> dict:
    whole = windows.iloc[-1] if len(windows) else {"displays": 0, "clicks": 0, "ctr": None}
    return {**dict(whole), **dict(summary.iloc[0])}


def time_to_click(rows: pd.DataFrame, other: pd.DataFrame | None) -> None:
    parts = [rows] if other is None else [rows, other]
    for part in parts:
        part["share"] = part["clicks"] / max(1, part["clicks"].sum())
        part["within"] = [design.seconds(value) for value in part["up_to_s"]]
    order = [design.seconds(value) for value in sorted(set(pd.concat([part["up_to_s"] for part in parts])))]
    chart = design.bars(rows, "within", "share", "share of clicks", "time to click, up to", design.BLUE, form=".1%",
                        axis=".0%", sort=order, other=other)  # fmt: skip
    frame.panel("Time to click", "time_to_click", chart, rows, "attribution_time_to_click")


def window_lengths(rows: pd.DataFrame, other: pd.DataFrame | None) -> None:
    for part in (rows, other):
        if part is not None:
            part["within"] = [design.seconds(value) for value in part["length_s"]]
    chart = design.bars(rows, "within", "ctr", "clicked within", "after the display", form=".2%", axis=".0%",
                        sort=list(rows["within"]), other=other)  # fmt: skip
    frame.panel("CTR by length of the window", "window_lengths", chart, rows, "ctr_by_window")


def top_notes(choice: data.Choice) -> None:
    rows = data.ask("top_notes", choice)
    rows.insert(0, "link", [frame.link("/attribution", note=str(note)) for note in rows["note_id"]])
    frame.sheet("Notes", "top_notes", rows, "top_notes", link=LINK, ctr=SHARE)


def top_users(choice: data.Choice) -> None:
    rows = users_shown(data.ask("top_users", choice, **data.user_parameters()))
    frame.sheet("Users", "top_users", rows, "top_users", link=LINK)


LINK = st.column_config.LinkColumn("", display_text=":material/open_in_new:", width=35)
SHARE = st.column_config.NumberColumn(format="percent")


def users_shown(rows: pd.DataFrame) -> pd.DataFrame:
    """With a link of each user's code; the id itself only where a setting lets ClickHouse give it."""
    ids = rows.pop("user_id_shown")
    if data.show_user_ids():
        rows.insert(1, "user_id", ids)
    rows.insert(0, "link", [frame.link("/attribution", user=code) for code in rows["user"]])
    return rows


# --- one note, one user ----------------------------------------------------------------------------------------------


def back(what: str) -> None:
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.subheader(what, anchor=False)
    if right.button("All notes and users", icon=":material/arrow_back:", type="tertiary", key="leave"):
        for name in ("note", "user"):
            st.query_params.pop(name, None)
        st.rerun()


def of_note(choice: data.Choice, text: str) -> None:
    back(f"Note {design.plain(text)}")
    if not NUMBER.fullmatch(text):
        st.info("A note's id is a whole number; this one is not.", icon=":material/search:")
        return
    note_id = int(text[:30])  # no more of a number that is too long anyway
    if not -(2**63) <= note_id < 2**63:
        st.info("No note has this id: ids have 64 bits, from -2^63 to 2^63 - 1.", icon=":material/search:")
        return
    asked = {"note_id": note_id, "long_view_ms": data.long_view_ms()}
    now, before = frame.both("note_funnel", choice, **asked)
    row = now.iloc[0]
    if not row["displays"]:
        st.info("This note was not displayed in this range, or not with these filters.", icon=":material/search:")
        return
    frame.tiles(NOTE_TILES, row, {} if before is None else before.iloc[0], choice)
    step = max(choice.step, 3600)
    rows, other = frame.both("note_over_time", choice, note_id=note_id, step=step)
    drawn, other = (frame.every_step(part, step) for part in (rows, other))
    left, right = st.columns(2)
    with left:
        chart = design.time_area(drawn, "displays", "displays", other=other)
        frame.panel("Displays over time", "displays", chart, rows, "note_over_time")
    with right:
        frame.panel("CTR over time", "ctr", design.time_line(drawn, "ctr", "CTR", other=other), rows, "note_ctr_over_time")
    left, right = st.columns(2)
    with left:
        steps = [("display", "displays"), ("click", "clicks"), *FOLLOWED]
        table = pd.DataFrame([{"step": step, "count": int(row[name]), "words": design.number(row[name])} for step, name in steps])
        frame.panel("Display → click → what followed", "note_funnel", design.steps(table), table, "note_funnel")
    with right:
        places, other = frame.both("note_by_position", choice, note_id=note_id)
        chart = design.bars(places, "slot", "displays", "displays", "position", other=other, height=design.TALL - 20)
        frame.panel("Positions", "by_position", chart, places, "note_by_position")


FOLLOWED = (
    ("long view", "long_views"), ("like", "likes"), ("fav", "favs"), ("profile enter", "profile_enters"),
    ("comment", "comments"), ("share", "shares"), ("follow", "follows"), ("hide", "hides"),
)  # fmt: skip


def of_user(choice: data.Choice, code: str) -> None:
    back(f"User {design.plain(code)}")
    if not data.USER_CODE.fullmatch(code):
        st.info("A user's code is twelve hexadecimal digits; this is not one.", icon=":material/search:")
        return
    found = data.ask("user_of", choice, user=code, user_key=data.user_parameters()["user_key"])["user_id"]
    if len(found) != 1:
        words = "More than one user has" if len(found) else "No user with an event in this range has"
        st.info(f"{words} this code. Choose another range; codes hold within one home folder only.", icon=":material/search:")
        return
    if data.show_user_ids():
        st.caption(f"user_id {found[0]}")
    sessions = data.ask("user_sessions", choice, user_id=int(found[0]))
    events = data.ask("user_events", choice, user_id=int(found[0]))
    st.caption("Filters do not apply here: these are all sessions and events of the user in the range.")
    if len(sessions):
        sessions.insert(0, "link", [frame.link("/attribution", note=str(note)) for note in sessions["note_id"]])
    frame.sheet("Display windows", "user_sessions", sessions, "user_sessions", link=LINK)
    frame.sheet("Events", "user_events", events, "user_events")


frame.page(
    "Attribution explorer", "What decides whether a display is clicked, and which notes and readers stand behind it.", body
)
