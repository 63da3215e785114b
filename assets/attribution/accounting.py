"""Is every accepted event accounted for? Asked of the tables, not of the code that wrote them.

Here: events joined to sessions by key and time, without the fold. Not here: the fold (fold.py), Dagster's checks.
The rule is that of docs/attribution.md: an event is in a session of its key and kind whose [start, end) holds its time,
or it is an orphan, or it is late; never in two of these, never in none.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import polars as pl

from assets.attribution.rules import Rules
from assets.counts import rows
from assets.events import intake
from assets.lake import Lake, Window

KEY = ["user_id", "note_id"]
SLICE_HOURS = 12  # bounds memory: events of so many hours are joined at once
EXAMPLES = 5


def account(lake: Lake, window: Window, rules: Rules) -> dict[str, int | list[str]]:
    """Count the events of the window by where they went, and what contradicts the rules.

    Counts: events, in_impression_session, in_click_session, orphan, late. Contradictions (all 0 when right):
    missing (in none of them), twice (an orphan or late event that is elsewhere too, or an orphan that is no event),
    overlapping (sessions of one key and kind that overlap), wrong_counts (sessions whose number of impressions or
    clicks is not that of the events inside). examples: event ids of the first few contradictions.
    """
    lake, total = lake.pinned(), {}
    for part in slices(window, SLICE_HOURS):
        for name, value in _account(lake, part, rules).items():
            total[name] = total.get(name, type(value)()) + value
    total["examples"] = total["examples"][:EXAMPLES]
    return total


def account_raw(lake: Lake, parts: Iterable[tuple[Window, int | None]], repeats: int) -> dict[str, int | bool]:
    """Did every raw row of the windows become an event, a quarantined row or a repeat?

    parts: windows, each with the moment at which it was accepted (None: now): a live labeler may have written since.
    repeats: rows that intake dropped as repeats. Returns raw, events, quarantine, repeats; mapped: rows of logs that
    came in by a mapping; balanced: raw is the sum of the rest. A mapped row may hold several events, in the next hour
    too, so where there are any, balanced only says that no more rows are in quarantine than came in.
    """
    tables = {"raw": "raw_events", "events": "events", "quarantine": "quarantine"}
    counts, mapped, unkept = dict.fromkeys(tables, 0), 0, 0
    for window, moment in parts:
        then = lake.pinned(moment)
        for key, name in tables.items():
            counts[key] += rows(then, name, window)
        mapped += _mapped_rows(then, window)
        unkept += _without_raw(then, window)
    refused = counts["quarantine"] - unkept
    balanced = counts["raw"] == counts["events"] + refused + repeats
    if mapped:
        balanced = refused <= counts["raw"]
    return {**counts, "repeats": repeats, "mapped": mapped, "unkept": unkept, "balanced": balanced}


def _without_raw(lake: Lake, window: Window) -> int:
    """Quarantined files, and rows too long to be kept: `raw_events` has nothing of them."""
    refused = intake.refused_for_good(lake, window).select("source", "row")
    if refused.is_empty():
        return 0
    raw = pl.from_arrow(lake.read("raw_events", window, ["source", "row"]))
    return refused.join(raw, on=["source", "row"], how="anti").height


def _mapped_rows(lake: Lake, window: Window) -> int:
    sources = pl.from_arrow(lake.read("sources", columns=["source", "mapping"]))
    mapped = sources.filter(pl.col("mapping").is_not_null())["source"]
    if mapped.is_empty():
        return 0
    raw = pl.from_arrow(lake.read("raw_events", window, ["source"]))["source"]
    return int(raw.is_in(mapped.implode()).sum())


CONTRADICTIONS = ("missing", "twice", "overlapping", "wrong_counts")


def slices(window: Window, hours: int) -> list[Window]:
    """The window cut into windows of at most so many hours."""
    cuts = window.hours[::hours] + [window.end]
    return [Window(start, end) for start, end in zip(cuts, cuts[1:], strict=False)]


def _account(lake: Lake, window: Window, rules: Rules) -> dict[str, int | list[str]]:
    reach = dt.timedelta(hours=-(-rules.window // dt.timedelta(hours=1)))
    around = window.widened(before=reach, after=reach)
    columns = ["event_id", *KEY, "action", "event_time"]
    events = _read(lake, "events", window.widened(after=reach), columns)
    late = _read(lake, "late_events", window.widened(after=reach), ["event_id"])["event_id"]
    orphans = _read(lake, "orphan_actions", window, ["event_id"])["event_id"]
    impressions = _sessions(lake, "impression_sessions", around, "impressions")
    clicks = _sessions(lake, "click_sessions", around, "clicks")

    events = events.with_columns(late=pl.col("event_id").is_in(late.implode()))
    events = _place(_place(events, impressions, "impression"), clicks, "click")
    on_time = events.filter(~pl.col("late"))
    inside = on_time.filter(pl.col("event_time") < window.end)
    placed = inside.select(
        "event_id",
        # A session holds no event that opens the other kind.
        click=(pl.col("action") != "impression") & pl.col("click_start").is_not_null(),
        # But a click of too little dwell, where the rules ask for some: it opens nothing, and is the display's.
        impression=((pl.col("action") != "click") | bool(rules.valid_click_dwell)) & pl.col("impression_start").is_not_null(),
        orphan=pl.col("event_id").is_in(orphans.implode()),
    ).with_columns(impression=pl.col("impression") & ~pl.col("click"))
    places = placed.select("event_id", n=pl.sum_horizontal("click", "impression", "orphan"))
    strays = orphans.filter(~orphans.is_in(inside["event_id"].implode()))
    examples = [*places.filter(pl.col("n") != 1)["event_id"].head(EXAMPLES), *strays.head(EXAMPLES)]
    return {
        "events": events.filter(pl.col("event_time") < window.end).height,
        "in_impression_session": placed["impression"].sum(),
        "in_click_session": placed["click"].sum(),
        "orphan": placed["orphan"].sum(),
        "late": events.filter((pl.col("event_time") < window.end) & pl.col("late")).height,
        "missing": places.filter(pl.col("n") == 0).height,
        "twice": places.filter(pl.col("n") > 1).height + len(strays),
        "overlapping": _overlapping(impressions, window) + _overlapping(clicks, window),
        "wrong_counts": _wrong_counts(on_time, impressions, window, "impression")
        + _wrong_counts(on_time, clicks, window, "click"),
        "examples": examples,
    }


def _read(lake: Lake, name: str, window: Window, columns: list[str]) -> pl.DataFrame:
    return pl.from_arrow(lake.read(name, window, columns))


def _sessions(lake: Lake, name: str, window: Window, counter: str) -> pl.DataFrame:
    found = _read(lake, name, window, [*KEY, "session_start", "session_end", counter])
    return found.rename({counter: "counted"}).sort("session_start")


def _place(events: pl.DataFrame, sessions: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Add `{kind}_start`: the start of the session of this kind that holds the event, null where none does."""
    # Sessions of a key do not overlap (checked), so only the last one that began by then can hold the event.
    renamed = sessions.select(*KEY, pl.col("session_start").alias("start"), "session_end")
    joined = events.sort("event_time").join_asof(
        renamed, left_on="event_time", right_on="start", by=KEY, strategy="backward", check_sortedness=False
    )
    start = pl.when(pl.col("event_time") < pl.col("session_end")).then("start").alias(f"{kind}_start")
    return joined.with_columns(start).drop("start", "session_end")


def _overlapping(sessions: pl.DataFrame, window: Window) -> int:
    ordered = sessions.sort(*KEY, "session_start")
    before = ordered.select(pl.col("session_end").shift(1).over(KEY).alias("before"), "session_start")
    here = pl.col("session_start").is_between(window.start, window.end, closed="left")
    return before.filter(here & (pl.col("before") > pl.col("session_start"))).height


def _wrong_counts(events: pl.DataFrame, sessions: pl.DataFrame, window: Window, kind: str) -> int:
    found = events.filter(pl.col("action") == kind).group_by(*KEY, pl.col(f"{kind}_start").alias("session_start")).len()
    here = sessions.filter(pl.col("session_start").is_between(window.start, window.end, closed="left"))
    joined = here.join(found, on=[*KEY, "session_start"], how="left")
    return joined.filter(pl.col("counted") != pl.col("len").fill_null(0)).height


def repeated_ids(lake: Lake, window: Window) -> int:
    """Rows of `events` in the window whose event_id another row of the window carries already."""
    # Eight bytes of hash an id let weeks fit into memory; two ids with one hash are told apart by reading the ids.
    hashes = [_read(lake, "events", part, ["event_id"])["event_id"].hash() for part in slices(window, SLICE_HOURS)]
    every = pl.concat(hashes)
    if every.len() == every.n_unique():
        return 0
    ids = _read(lake, "events", window, ["event_id"])["event_id"]
    return ids.len() - ids.n_unique()
