"""Backfills: the plans that are kept, and of one of them what it would change, what it costs, how to swap it in or take it back.

The page changes nothing; its reports are those that the plans wrote.
"""

import pandas as pd
import streamlit as st

from assets.backfill.store import COMPUTING, DAMAGED
from dashboards import data, design, frame, lakeside

LINK = st.column_config.LinkColumn("", display_text=":material/open_in_new:", width=35)
SHARE = st.column_config.NumberColumn(format="percent")
KINDS = ("added", "removed", "changed")
SIDES = ("before", "after")
STEPS = {"displays": "displays", "clicked_displays": "clicked", "clicks": "clicks", "attributed_clicks": "attributed clicks",
         **{name: name for name in ("like", "fav", "comment", "share", "follow", "hide", "profile_enter")}}  # fmt: skip
OTHERS = {"orphans": "orphan actions", "short_clicks": "clicks too short", "dwell_ms": "dwell, ms"}
COLOURS = {"before": "rgba(122,135,148,0.55)", "after": design.GREEN}
ROW_COLOURS = {"added": design.GREEN, "removed": design.RED, "changed": design.ORANGE}
TILES = (
    ("Rows added", "rows_added", design.number), ("Rows removed", "rows_removed", design.number),
    ("Rows changed", "rows_changed", design.number), ("Hours that change", "hours_changed", design.number),
    ("Late events used", "late_used", design.number), ("Plan took", "plan_seconds", design.seconds),
)  # fmt: skip


def body(zone: str) -> None:
    found = lakeside.backfills(data.lake())
    if not found:
        st.info(
            "There is no plan yet. `glasshouse backfill plan --from HOUR --to HOUR` labels hours anew beside the tables, or in Dagster "
            "the asset `label_backfill`; what it would change then shows here, before anything is swapped in.",
            icon=":material/eco:",
        )  # fmt: skip
        return
    names = [one["plan"] for one in reversed(found)]
    asked = st.query_params.get("plan", "")
    if asked and asked not in names:
        st.warning(f"No plan is called {design.plain(asked)}; it was tidied away, or never was. This is the newest one.", icon=":material/search_off:")
    words = {one["plan"]: f"{one['plan']} · {one['status']}" for one in found}
    chosen = st.selectbox("Plan", names, index=names.index(asked) if asked in names else 0, format_func=words.get, width=420)
    st.query_params["plan"] = chosen
    one = next(one for one in found if one["plan"] == chosen)
    report = lakeside.backfill(data.lake(), chosen)
    if one["status"] == DAMAGED or report is None and one["status"] != COMPUTING:
        st.error(f"A file of plan {design.plain(chosen)} is damaged; `glasshouse backfill show {chosen}` says which, and what to do.", icon=":material/error:")
    elif report is None:
        st.info(
            f"Plan {design.plain(chosen)} of {_range(one['window'], zone)} is being computed, or was cut short. The same command again goes on where it was.",
            icon=":material/hourglass_top:",
        )  # fmt: skip
    else:
        of_plan(report, zone)
    plans(found, zone)


def of_plan(report: dict, zone: str) -> None:
    st.subheader(f"{_range(report['window'], zone)}: {design.plain(report['status'])}", anchor=False)
    st.caption(rules_words(report))
    rows = {f"rows_{kind}": sum(one[kind] for one in report["rows"].values()) for kind in KINDS}
    values = {**rows, "hours_changed": len(report["hours_changed"]), "late_used": report["late_used"], "plan_seconds": report["cost"]["seconds"]}
    with st.container(horizontal=True):
        for label, name, said in TILES:
            st.metric(label, said(values[name]), help=design.meaning(name), border=True, height="stretch")
    commands(report)
    left, right = st.columns(2)
    with left:
        rates(report)
    with right:
        funnel(report)
    chosen = figure(report)
    left, right = st.columns(2)
    with left:
        over_time(report, chosen, zone)
    with right:
        by_channel(report, chosen)
    by_table(report)
    left, right = st.columns(2)
    with left:
        users(report)
    with right:
        revenue(report)
    examples(report, zone)
    left, right = st.columns(2)
    with left:
        stale(report, zone)
    with right:
        cost(report)


def rules_words(report: dict) -> str:
    """The plan's rules against those of the hours, and what else is to know of its range."""
    rules = report["rules"]
    said = [f"Rules {rules['version']} ({rules['fingerprint']})"]
    for was in rules["was"]:
        changes = ", ".join(f"{key} {old} → {new}" for key, (old, new) in was["changes"].items())
        said.append(f"against {was['version']} ({was['fingerprint']}): {changes or 'the same'}")
    if report["edge_before"] or report["edge_after"]:
        said.append(f"rows of sessions over the edges: {report['edge_before']:,} before the range, {report['edge_after']:,} after it")
    return " · ".join(design.plain(one, 600) for one in said)


def commands(report: dict) -> None:
    plan, status = report["plan"], report["status"]
    todo = {
        "planned": ("Swap it in, everywhere at one moment:", "apply"), "undone": ("Swap it in again:", "apply"),
        "applying": ("Its apply was cut short, or is at work; this finishes it:", "apply"),
        "applied": ("It is in force. Take it back:", "undo"), "undoing": ("Its undo was cut short, or is at work; this finishes it:", "undo"),
    }  # fmt: skip
    words, verb = todo[status]
    with st.container(border=True):
        st.markdown(f"**{words}**", help=design.meaning("backfill_commands"))
        st.code(f"glasshouse backfill {verb} {plan}", language="bash")
        st.caption(f"In Dagster: the asset `label_backfill`, the same partitions, `mode: {verb}`, plan {design.plain(plan)}. This page changes nothing.")


def _sides(rows: dict, names: dict, of: str) -> pd.DataFrame:
    """name, before, after of those that the report has."""
    return pd.DataFrame([{of: words, **{side: rows[name][side] for side in SIDES}} for name, words in names.items() if name in rows])


def rates(report: dict) -> None:
    rows = _sides(report["rates"], {name: name for name in report["rates"]}, "rate")
    rows["change"] = rows["after"] / rows["before"] - 1
    chart = design.sides(rows, "rate", SIDES, "share", COLOURS, form=".3%", axis=".0%", scale="sqrt")
    frame.panel("Rates, before and after", "backfill_rates", chart, rows, "backfill_rates", _changes(rows))


def _changes(rows: pd.DataFrame) -> str:
    moved = rows[rows["change"].abs() >= 0.0005]
    said = ", ".join(f"{row.rate} {row.before:.2%} → {row.after:.2%} ({row.change:+.1%})" for row in moved.itertuples())
    return design.plain(said, 600) or "No rate changes."


def funnel(report: dict) -> None:
    rows = _sides(report["totals"], STEPS, "step")
    chart = design.sides(rows, "step", SIDES, "rows", COLOURS, scale="sqrt")
    frame.panel("Funnel, before and after", "backfill_funnel", chart, rows, "backfill_funnel")


def figure(report: dict) -> str:
    """The choice of what to follow by hour and channel; at first, what changes most."""
    there = {name: words for name, words in {**STEPS, **OTHERS}.items() if name in report["totals"]}
    names = list(there)
    change = {name: abs((one["after"] or 0) - (one["before"] or 0)) for name, one in report["totals"].items() if name in STEPS}
    first = names.index(max(change, key=change.get)) if change else 0
    return st.selectbox("Figure by hour and by channel", names, index=first, format_func=there.get, key=f"figure_{report['plan']}", width=260)


def over_time(report: dict, name: str | None, zone: str) -> None:
    words = {**STEPS, **OTHERS}.get(name, "")
    rows = [{"time": pd.Timestamp(one["hour"]), **one.get(name, dict.fromkeys(SIDES, 0))} for one in report["by_hour"]]
    hours = data.in_zone(pd.DataFrame(rows, columns=["time", *SIDES]), zone)
    chart = design.before_after(hours, words) if rows else None
    note = f"{len(report['hours_changed'])} of {len(rows)} hours change."
    frame.panel(f"By hour: {words}", "backfill_by_hour", chart, hours, "backfill_by_hour", note)


def by_channel(report: dict, name: str | None) -> None:
    words = {**STEPS, **OTHERS}.get(name, "")
    rows = pd.DataFrame([{"channel": one["channel"], **one[name]} for one in report["by_channel"] if name in one])
    chart = design.sides(rows, "channel", SIDES, words, COLOURS) if len(rows) else None
    frame.panel(f"By channel: {words}", "backfill_by_channel", chart, rows, "backfill_by_channel")


def by_table(report: dict) -> None:
    rows = pd.DataFrame([{"table": name, **kinds} for name, kinds in report["rows"].items()])
    chart = design.sides(rows, "table", KINDS, "rows", ROW_COLOURS, scale="sqrt") if rows[list(KINDS)].to_numpy().any() else None
    frame.panel("Rows by table", "backfill_rows", chart, rows, "backfill_rows", "" if chart else "No row changes.")


def users(report: dict) -> None:
    rows = pd.DataFrame([{"day": day, **one} for day, one in report["users"]["by_day"].items()])
    chart = design.sides(rows, "day", SIDES, "users", COLOURS) if len(rows) else None
    frame.panel("Active users a day", "backfill_users", chart, rows, "backfill_users", _sentence(report["users"]["note"]))


def revenue(report: dict) -> None:
    found = report["revenue"]
    columns = ["figure", *SIDES]
    rows = pd.DataFrame([["net revenue", *(found["net_cents"][side] / 100 for side in SIDES)]] if found else [], columns=columns)
    note = f"{design.number(found['orders'])} orders. {_sentence(found['note'])}" if found else ""
    chart = design.sides(rows, "figure", SIDES, "net", COLOURS, form=",.2f") if found else None
    frame.panel("Net revenue", "backfill_revenue", chart, rows, "backfill_revenue", note or "The lake holds no orders.")


def examples(report: dict, zone: str) -> None:
    for kind in KINDS:
        rows = pd.DataFrame([_example(one) for one in report["examples"][kind]], columns=["table", "user", "note_id", "start", "change", "events"])
        rows["start"] = pd.to_datetime(rows["start"], utc=True)
        if kind != "changed":
            rows = rows.drop(columns="change")
        frame.sheet(
            f"Examples of rows {kind}", "backfill_examples", data.in_zone(rows, zone), f"backfill_{kind}", empty=f"No row is {kind}.",
            events=st.column_config.TextColumn(width="large"),
        )  # fmt: skip


def _example(one: dict) -> dict:
    row = one["row"]
    start = pd.Timestamp(row.get("session_start") or row["event_time"])
    changes = ", ".join(f"{key} {_plain(old)} → {_plain(new)}" for key, (old, new) in one["changed"].items()
                        if key != "user_id" or data.show_user_ids())  # fmt: skip
    return {"table": one["table"], "user": data.shown_user(row["user_id"]), "note_id": row["note_id"], "start": start, "change": changes,
            "events": " · ".join(_event(event, start) for event in one["events"])}  # fmt: skip


def _event(event: dict, start: pd.Timestamp) -> str:
    """`like +3 s`, seconds from the session's start; with what a view's end says of its dwell."""
    after = (pd.Timestamp(event["event_time"]) - start).total_seconds()
    dwell = f" (dwell {event['dwell_ms'] / 1000:.1f} s)" if event["dwell_ms"] is not None else ""
    return f"{event['action']} {after:+.1f} s{dwell}"


def _plain(value: object) -> str:
    return "–" if value is None else str(value)[:23]  # of a time no more than its milliseconds


def stale(report: dict, zone: str) -> None:
    rows = pd.DataFrame(
        [{"table": name, "hours": len(hours), "first": pd.Timestamp(hours[0]), "last": pd.Timestamp(hours[-1])} for name, hours in report["stale"].items()],
        columns=["table", "hours", "first", "last"],
    )  # fmt: skip
    for column in ("first", "last"):
        rows[column] = pd.to_datetime(rows[column], utc=True)
    models = report["seen_by"]["models"]
    note = f"Model versions trained on rows that change: {design.plain(', '.join(models), 600)}." if models else "No model version was trained on rows that change."
    frame.sheet("Made of the old rows", "backfill_stale", data.in_zone(rows, zone), "backfill_stale", note,
                f"Nothing downstream was made of rows that change. {note}")  # fmt: skip


def cost(report: dict) -> None:
    made, then = report["cost"], report["apply_cost"]
    rows = pd.DataFrame(
        [
            ("events labeled", design.number(made["events"])), ("time", design.seconds(made["seconds"])),
            ("events a second", design.number(made["events_per_s"])), ("peak memory", f"{made['peak_gib']:.1f} GiB"),
            ("rows kept for it", design.number(made["rows"])), ("on disk", design.size(made["bytes"])),
            ("apply: files linked", design.number(then["files"])), ("apply: rows into ClickHouse", design.number(then["clickhouse_rows"])),
            ("apply: seconds in ClickHouse, about", design.seconds(then["clickhouse_s"])),
        ], columns=["what", "value"],
    )  # fmt: skip
    frame.sheet("What it cost, and what apply will", "backfill_cost", rows, "backfill_cost")


def plans(found: list[dict], zone: str) -> None:
    rows = pd.DataFrame(
        {
            "link": frame.link("/backfills", plan=one["plan"]), "plan": one["plan"], "state": one["status"],
            "from": one["window"][0], "to": one["window"][1], "rules": one["rules"],
            "rows_that_change": one["changed"], "last_touched": one["changed_at"],
        }
        for one in reversed(found)
    )  # fmt: skip
    for column in ("from", "to", "last_touched"):  # of a damaged plan they are not known
        rows[column] = pd.to_datetime(rows[column], utc=True, format="ISO8601", errors="coerce")
    frame.sheet("Plans that are kept", "backfill_plans", data.in_zone(rows, zone), "backfill_plans", link=LINK)


def _range(window: list[str], zone: str) -> str:
    start, end = (pd.Timestamp(one).to_pydatetime() for one in window)
    return design.span_words(start, end, zone)


def _sentence(text: str) -> str:
    return design.plain(f"{text[:1].upper()}{text[1:]}.", 600)


frame.plain_page("Backfills", "Hours labeled anew beside the tables: what would change, what it costs, how to take it back.", body)
