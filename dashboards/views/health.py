"""Health: how far behind the line is, where its time goes, who still has to hear of it, and how full the disk is."""

import pandas as pd
import streamlit as st

from dashboards import data, design, frame, lakeside

BATCHES = 120
MOMENTS = 25


def body(zone: str) -> None:
    lake = data.lake()
    try:
        status, batches = lakeside.live(lake, data.landing(), BATCHES)
    except lakeside.StateUnreadable as error:
        st.warning(f"The labeler's state cannot be read: {frame.said(error)}.", icon=":material/warning:")
        status, batches = None, []
    for warning in (status or {}).get("warnings", ()):
        st.warning(f"{warning[0].upper()}{warning[1:]}.", icon=":material/schedule:")
    for warning in lakeside.stray_hours(lake):
        st.caption(f":orange[{warning[0].upper()}{warning[1:]}.]")
    tiles(status)
    if status:
        over_batches(batches, zone)
    left, right = st.columns(2)
    with left:
        following(lake)
    with right:
        loads(zone)
    frame.sheet("Newest commits of the lake", "moments", data.in_zone(lakeside.moments(lake, MOMENTS), zone), "moments",
                empty="The lake's commit log is empty; `make demo` fills it.")  # fmt: skip


def tiles(status: dict | None) -> None:
    free, total = lakeside.disk(data.home())
    shown = [("Disk free", f"{design.size(free)} of {design.size(total)}", "disk")]
    if status is None:
        st.info("No live labeler has run on this lake; `make up` starts one. Batch work shows in Dagster.", icon=":material/eco:")
    else:
        opened = status["open_impressions"] + status["open_clicks"]
        shown = [
            ("Lag", design.seconds(status.get("lag_s")), "lag_s"),
            ("Last batch", f"{design.number(status['events_per_s'])} events/s", "events_per_s"),
            ("Took", design.seconds(status["seconds"]["total"]), "batch_seconds"),
            ("Open windows", design.number(opened), "open_sessions"),
            ("Files waiting", design.number(status["waiting_files"]), "waiting"), *shown,
        ]  # fmt: skip
    with st.container(horizontal=True):
        for label, words, name in shown:
            st.metric(label, words, help=design.meaning(name), border=True, height="stretch")


def over_batches(batches: list[dict], zone: str) -> None:
    times = pd.to_datetime([batch["at"] for batch in batches], utc=True)
    rows = pd.DataFrame({
        "time": times, "batch": [batch["batch"] for batch in batches],
        "events": [batch["rows"]["events"] for batch in batches], "lag_s": [batch["lag_s"] for batch in batches],
        "seconds": [batch["seconds"]["total"] for batch in batches],
        "events_per_s": [batch["events_per_s"] for batch in batches],
    })  # fmt: skip
    stages = pd.DataFrame(
        {"time": time, "stage": stage, "seconds": seconds}
        for time, batch in zip(times, batches, strict=True) for stage, seconds in batch["seconds"].items() if stage != "total"
    )  # fmt: skip
    rows, stages = data.in_zone(rows, zone), data.in_zone(stages, zone)
    left, right = st.columns(2)
    with left:
        chart = design.time_line(rows, "lag_s", "seconds", form=",.1f", axis="~s")
        frame.panel("Lag at each batch", "lag_s", chart, rows, "batches")
    with right:
        chart = design.time_kinds(stages, "stage", "seconds", "seconds", stacked=True, form=".3f", axis=".2f")
        frame.panel("Where a batch's time goes", "batch_seconds", chart, stages, "batch_stages")


def following(lake) -> None:
    rows = lakeside.followers(lake)
    left = list(rows.loc[rows["behind"] > MOMENTS, "follower"])
    note = "Everyone has heard of every commit." if len(rows) and not rows["behind"].any() else ""
    if left:
        note = f":orange[{design.plain(' and '.join(left), 600)}: far behind. It tries again by itself; what `make up` prints says why it fails.]"
    frame.sheet("Followers of the commits", "followers", rows, "followers", note,
                "Nobody follows the commits yet; `make up` starts the followers.")  # fmt: skip


def loads(zone: str) -> None:
    try:
        rows = data.in_zone(data.fresh("loads"), zone)
    except data.ClickHouseDown as error:
        st.warning(f"ClickHouse does not answer. {frame.said(error)}.", icon=":material/cloud_off:")
        return
    rows["bytes"] = [design.size(value) for value in rows["bytes"]]
    frame.sheet("What ClickHouse holds", "loads", rows, "loads", empty="ClickHouse holds no rows yet.")


frame.plain_page("Health", "How far behind the line is, and where it would hurt first.", body, every_s=frame.LIVE_S)
