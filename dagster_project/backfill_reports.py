"""A backfill's report as metadata of Dagster: numbers that it plots, tables that a person reads.

Here: form. Not here: what is reported (assets/backfill/report.py), the same in the terminal (show.py) and on the page.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from assets.lake import windows

KINDS = ("added", "removed", "changed")
HOURS_SHOWN = 48
SIDES = ("before", "after")
COMPARED = ("clicked_displays", "clicks", "like")


def plan_metadata(found: dict[str, Any]) -> dict[str, Any]:
    """A plan's report (as assets.backfill.report.make gives it, with `status` where it is known)."""
    totals = {f"rows_{kind}": sum(one[kind] for one in found["rows"].values()) for kind in KINDS}
    return {
        "plan": found["plan"], "state": found.get("status", "planned"), **totals,
        "hours_changed": len(found["hours_changed"]), "late_used": found["late_used"],
        "Range and rules": _facts(_head(found)),
        "Rows": _table(("table", *KINDS), [(name, *(_n(one[kind]) for kind in KINDS)) for name, one in found["rows"].items()]),
        "Rates": _table(("", *SIDES, "change"), [_rate(name, one) for name, one in found["rates"].items()]),
        "Funnel": _table(("", *SIDES, "difference"), [_figure(name, one) for name, one in found["totals"].items()]),
        "Users and revenue": _facts(_unchanged(found)),
        "By hour": _by("hour", found, found["hours_changed"]),
        "By channel": _by("channel", found),
        **{f"Examples: {kind}": _examples(found["examples"][kind]) for kind in KINDS if found["examples"][kind]},
        "Stale after apply": dg.MetadataValue.md(_stale(found["stale"], found["seen_by"]["models"])),
        "Cost": _facts(_cost(found)),
    }  # fmt: skip


def done_metadata(done: dict[str, Any]) -> dict[str, Any]:
    """What apply or undo answered."""
    return {
        "moment": done["moment"], "clickhouse_swapped": dg.MetadataValue.bool(bool(done["clickhouse"])),
        "Launch now": dg.MetadataValue.md(_stale(done["stale"], done["models"])),
    }  # fmt: skip


def launch(done: dict[str, Any]) -> str:
    """What to launch after apply or undo, in one line."""
    parts = [f"{name} of {', '.join(_ranges(hours))}" for name, hours in done["stale"].items()]
    parts += [f"ranker (versions trained on other rows: {', '.join(done['models'])})"] if done["models"] else []
    return f"Computed from other rows, launch: {'; '.join(parts)}" if parts else "Nothing downstream was computed from other rows"


def _head(found: dict[str, Any]) -> dict[str, str]:
    rules = found["rules"]
    head = {"range": " to ".join(found["window"]), "written by apply": " to ".join(found["swap"]), "rules": f"{rules['version']} ({rules['fingerprint']})"}
    for was in rules["was"]:
        changes = ", ".join(f"{key} {old} → {new}" for key, (old, new) in was["changes"].items()) or "the same"
        head[f"rules were {was['version']} ({was['fingerprint']})"] = changes
    head["late events used"] = _n(found["late_used"])
    head["rows of hours beside the range"] = f"{_n(found['edge_before'])} before, {_n(found['edge_after'])} after"
    return head


def _unchanged(found: dict[str, Any]) -> dict[str, str]:
    users = {f"active users {day}": f"{_n(one['before'])} before, {_n(one['after'])} after" for day, one in found["users"]["by_day"].items()}
    revenue = found["revenue"]
    if revenue:
        before, after = (f"{revenue['net_cents'][side] / 100:,.2f}" for side in SIDES)
        users[f"net revenue of {_n(revenue['orders'])} orders"] = f"{before} before, {after} after"
    return {**users, "why": "; ".join(one["note"] for one in (found["users"], revenue) if one)}


def _cost(found: dict[str, Any]) -> dict[str, str]:
    cost, then = found["cost"], found["apply_cost"]
    return {
        "this plan": f"{cost['seconds']:,.1f} s, {_n(cost['events'])} events, {_n(cost['events_per_s'])} a second, peak {cost['peak_gib']:.1f} GiB",
        "kept for it": f"{_n(cost['rows'])} rows, {cost['bytes'] / 1e6:,.1f} MB",
        "apply": f"{_n(then['files'])} files linked; {_n(then['clickhouse_rows'])} rows into ClickHouse, about {then['clickhouse_s']:,.1f} s",
    }


def _rate(name: str, one: dict[str, float | None]) -> tuple[str, ...]:
    before, after = one["before"], one["after"]
    return name, *("–" if value is None else f"{value:.3%}" for value in (before, after)), _change(before, after)


def _figure(name: str, one: dict[str, Any]) -> tuple[str, ...]:
    before, after = one["before"] or 0, one["after"] or 0
    return name, _n(before), _n(after), f"{after - before:+,}"


def _change(before: float | None, after: float | None) -> str:
    return f"{after / before - 1:+.2%}" if before and after is not None else "–"


def _by(head: str, found: dict[str, Any], only: Sequence[str] | None = None) -> dg.MetadataValue:
    rows = [one for one in found[f"by_{head}"] if only is None or one[head] in set(only)]
    shown = [(str(one[head])[:16], *(_n(one.get(name, {}).get(side)) for name in COMPARED for side in SIDES)) for one in rows[:HOURS_SHOWN]]
    columns = (head, *(f"{name} {side}" for name in ("clicked displays", "clicks", "likes") for side in SIDES))
    more = f"\n\n{len(rows) - HOURS_SHOWN} more hours change; the page Backfills shows them." if len(rows) > HOURS_SHOWN else ""
    return dg.MetadataValue.md((_markdown(columns, shown) if shown else "none") + more)


def _examples(examples: list[dict[str, Any]]) -> dg.MetadataValue:
    rows = []
    for one in examples:
        row = one["row"]
        changes = ", ".join(f"{key} {old} → {new}" for key, (old, new) in one["changed"].items())
        did = ", ".join(f"{event['action']} {event['event_time'][11:19]}" for event in one["events"][:8])
        start = str(row.get("session_start") or row.get("event_time"))[:19]
        rows.append((one["table"], row["user_id"], row["note_id"], start, changes, did))
    return _table(("table", "user", "note", "start", "change", "events"), rows)


def _stale(stale: dict[str, list[str]], models: list[str]) -> str:
    rows = [(name, len(hours), ", ".join(_ranges(hours))) for name, hours in stale.items()]
    rows += [("ranker", "", f"versions {', '.join(models)}")] if models else []
    return _markdown(("asset", "partitions", "which"), rows) if rows else "Nothing downstream was computed from these rows."


def _ranges(hours: Iterable[str]) -> list[str]:
    return [f"{one.start:%Y-%m-%d-%H:%M}...{one.end - dt.timedelta(hours=1):%Y-%m-%d-%H:%M}" for one in windows(map(dt.datetime.fromisoformat, hours))]


def _facts(found: dict[str, str]) -> dg.MetadataValue:
    return _table(("", " "), list(found.items()))


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.MetadataValue:
    return dg.MetadataValue.md(_markdown(columns, rows))


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cell = lambda value: str(value).replace("|", "\\|").replace("\n", " ")  # noqa: E731
    return "\n".join(f"| {' | '.join(map(cell, row))} |" for row in (columns, ["---"] * len(columns), *rows))


def _n(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
