"""Revenue: what orders brought, and the notes, authors and hours that planted them."""

import streamlit as st

from dashboards import data, design, frame

TILES = (
    ("Net", "net_cents", design.money), ("Gross", "gross_cents", design.money), ("Refunds", "refunded_cents", design.money, "inverse"),
    ("Orders", "orders", design.number), ("Attributed", "attributed_share", design.percent),
)  # fmt: skip
CENTS = ("gross_cents", "refunded_cents", "net_cents")
MONEY = {name.removesuffix("_cents"): st.column_config.NumberColumn(format="%.2f") for name in CENTS}


def body(choice: data.Choice, span: data.Span) -> None:
    if not data.has("orders"):
        st.info(
            "There are no orders in ClickHouse yet. They come from the change stream of the shop; "
            "once attributed to notes they show here.",
            icon=":material/shopping_cart:",
        )  # fmt: skip
        return
    now, before = frame.both("revenue_totals", choice)
    frame.tiles(TILES, now.iloc[0], {} if before is None else before.iloc[0], choice)
    step = max(choice.whole_step, 900)
    rows, other = (in_units(part) for part in frame.both("revenue_over_time", choice, step=step))
    rows = frame.whole_steps(rows, choice, step)
    drawn, other = (frame.every_step(part, step, ("net",)) for part in (rows, other))
    chart = design.time_area(drawn, "net", "net", form=",.2f", other=other)
    frame.panel("Net revenue", "net_cents", chart, rows, "revenue_over_time")
    left, right = st.columns(2)
    with left:
        by("revenue_by_note", "note_id", "Net by note", choice, note=True)
    with right:
        by("revenue_by_author", "author_id", "Net by author", choice)
    left, right = st.columns(2)
    with left:
        hours, hours_before = (in_units(part) for part in frame.both("revenue_by_hour", choice))
        chart = design.bars(hours, "hour_of_day", "net", "net", f"hour of day, {choice.zone}", form=",.2f", other=hours_before)
        frame.panel("Net by hour of day", "revenue_by_hour", chart, hours, "revenue_by_hour")
    with right:
        channels, before = (in_units(part) for part in frame.both("revenue_by_channel", choice))
        order = list(channels["click_channel"])
        chart = design.bars(channels, "click_channel", "net", "net", "channel of the click", sort=order, form=",.2f", other=before)
        frame.panel("Net by channel", "revenue_by_channel", chart, channels, "revenue_by_channel")


def in_units(rows):
    """Cents as units of the orders' currency: what people read, and what the download holds."""
    if rows is None:
        return None
    renamed = {name: name.removesuffix("_cents") for name in CENTS}
    return rows.assign(**{name: rows[name] / 100 for name in CENTS}).rename(columns=renamed)


def by(query: str, column: str, title: str, choice: data.Choice, note: bool = False) -> None:
    rows = in_units(data.ask(query, choice))
    links = {}
    if note and len(rows):
        rows.insert(0, "link", [frame.link("/attribution", note=str(value)) for value in rows[column]])
        links = {"link": st.column_config.LinkColumn("", display_text=":material/open_in_new:", width=35)}
    empty = "No order of this range was planted by a click that is known."
    frame.sheet(title, query, rows, query, empty=empty, **MONEY, **links)


frame.page(
    "Revenue", "What orders brought, by the note that planted them. Money in units of the shop's currency.", body,
    filters=("channel",),
)  # fmt: skip
