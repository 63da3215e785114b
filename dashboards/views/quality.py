"""Label quality: what is in no label, why rows were refused, who labeled which hour, and what a recomputation changed."""

import datetime as dt

import pandas as pd
import streamlit as st

from dashboards import data, design, frame
from dashboards.lakeside import coverage, recomputations

TILES = (
    ("Late events", "late_events", design.number), ("Orphan actions", "orphan_actions", design.number),
    ("Clicks without display", "unattributed_clicks", design.number), ("Quarantined rows", "quarantined", design.number),
)  # fmt: skip


def body(choice: data.Choice, span: data.Span) -> None:
    now, before = frame.both("quality_totals", choice)
    frame.tiles(TILES, now.iloc[0], {} if before is None else before.iloc[0], choice, colour="inverse")
    step = max(choice.whole_step, 3600)
    rows = data.ask("quality_over_time", choice, step=step)
    chart = design.time_kinds(frame.every_step(rows, step, ("rows",), "kind"), "kind", "rows", "rows per step")
    frame.panel("Outside of every label", "quality_over_time", chart, rows, "quality_over_time")
    left, right = st.columns(2)
    with left:
        outside = data.ask("outside_sessions", choice).sort_values(["rows", "kind", "detail"], ascending=[False, True, True], ignore_index=True)
        frame.sheet("By kind and action", "outside", outside, "quality_outside")
    with right:
        reasons = data.ask("quarantine_reasons", choice, show_ids=int(data.show_user_ids()))
        empty = "Nothing was refused in this range."
        frame.sheet("Quarantine, by reason", "quarantine_reasons", reasons, "quarantine_reasons", empty=empty)
    examples = data.ask("quarantine_examples", choice, show_ids=int(data.show_user_ids()))
    frame.sheet("Refused rows as received", "quarantine_examples", examples, "quarantine_examples",
                empty="Nothing was refused in this range.",
                received=st.column_config.TextColumn(width="large"))  # fmt: skip
    in_the_lake(choice)


def in_the_lake(choice: data.Choice) -> None:
    hours = coverage(data.lake(), choice.start, choice.end, choice.seen)
    missing = expected(choice) - set(hours["hour"])
    note = "Every hour of the range with events is labeled." if not missing else (
        f"{len(missing)} hours of the range are not labeled (yet): from {min(missing):%Y-%m-%d %H:%M} to {max(missing):%Y-%m-%d %H:%M} UTC."
    )  # fmt: skip
    by = hours.groupby("labeled_by", as_index=False).agg(hours=("hour", "count"), first=("hour", "min"), last=("hour", "max"))
    left, right = st.columns(2)
    with left:
        empty = f"The lake's book of labeled hours has none in this range. {note}"
        frame.sheet("Hours labeled, by whom", "coverage", data.in_zone(by, choice.zone), "coverage", note, empty)
    with right:
        rows = data.in_zone(recomputations(data.lake(), choice.start, choice.end, choice.seen), choice.zone)
        empty = "No hour of this range is known both as the live labeler left it and as a recomputation made it."
        frame.sheet("Live against recomputed", "recomputed", rows, "recomputed", empty=empty)


def expected(choice: data.Choice) -> set[pd.Timestamp]:
    """Hours of the range with events, but those whose windows cannot have closed."""
    settled = choice.seen - dt.timedelta(seconds=data.window_s()) if choice.seen else choice.end
    rows = data.query("displays_over_time", choice.seen, **choice.parameters(
        step=3600, channels=[], devices=[], bands=[], start=choice.start.replace(minute=0, second=0, microsecond=0)))  # fmt: skip
    ends = rows["time"] + pd.Timedelta(hours=1)
    return set(rows["time"][ends <= settled])


frame.page(
    "Label quality", "What is in no label and why, who labeled which hour, and what came out differently the second time.",
    body, filters=(),
)  # fmt: skip
