"""Spam: which accounts the rules flagged, why, and what share of the numbers is theirs."""

import streamlit as st

from dashboards import data, design, frame

TILES = (
    ("Flagged accounts", "spam_users", design.number), ("of all users", "user_share", design.percent),
    ("of events", "event_share", design.percent), ("of displays", "display_share", design.percent),
    ("of clicks", "click_share", design.percent),
)  # fmt: skip


def body(choice: data.Choice, span: data.Span) -> None:
    if not data.has("spam"):
        st.info(
            "No accounts have been looked at yet. The job `spam_accounts` flags them by rules in SQL, each hour; materialize "
            "it in Dagster and its findings show here.",
            icon=":material/gpp_maybe:",
        )  # fmt: skip
        return
    now, before = frame.both("spam_totals", choice)
    frame.tiles(TILES, now.iloc[0], {} if before is None else before.iloc[0], choice, colour="inverse")
    left, right = st.columns([3, 2])
    with left:
        rows, other = frame.both("spam_over_time", choice)
        drawn, other = (frame.every_step(part, 3600) for part in (rows, other))
        chart = design.time_area(drawn, "accounts", "accounts", design.RED, other=other)
        frame.panel("Flagged accounts per hour", "spam_over_time", chart, rows, "spam_over_time")
    with right:
        rows = data.ask("spam_reasons", choice)
        chart = design.ranked(rows, "reason", "accounts", "accounts", design.RED)
        frame.panel("Why", "spam_reasons", chart, rows, "spam_reasons")
    accounts(choice)


def accounts(choice: data.Choice) -> None:
    rows = data.ask("spam_users", choice, **data.user_parameters())
    ids = rows.pop("user_id_shown")
    if data.show_user_ids():
        rows.insert(1, "user_id", ids)
    rows.insert(0, "link", [frame.link("/attribution", user=code) for code in rows["user"]])
    frame.sheet(
        "Flagged accounts", "spam_score", rows, "spam_users", empty="No account was flagged in this range.",
        link=st.column_config.LinkColumn("", display_text=":material/open_in_new:", width=35),
        score=st.column_config.NumberColumn(format="%.2f"),
    )  # fmt: skip


frame.page("Spam", "Which accounts the rules flagged, why, and what share of the numbers is theirs.", body, filters=())
