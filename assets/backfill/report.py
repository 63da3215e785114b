"""What a plan would change: rows, rates, funnel, users, samples and models that have seen the old rows. An hour at a time.

Here: the comparison of the lake's hours with the shadow's. Not here: how the shadow came about (plan.py), how it is shown
(dagster_project/show.py and the pages).
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from assets.attribution.provenance import code_version
from assets.attribution.rules import Rules, changes, parse_rules
from assets.attribution.tables import (
    CLICK_SESSIONS,
    FLAGS,
    IMPRESSION_SESSIONS,
    LABELED_HOURS,
    LATE_EVENTS,
    ORPHAN_ACTIONS,
    RULE_VERSIONS,
    SHORT_CLICKS,
)
from assets.backfill import files, store
from assets.backfill.sums import Sum, Sums, of_files
from assets.events.contract import TYPED_NAMES
from assets.lake import TIME, Lake, Window

if TYPE_CHECKING:
    import polars as pl

EXAMPLES = 10
PAIR_ROWS = 1_500_000  # label rows of an hour that are compared at once
ONE_HOUR = dt.timedelta(hours=1)
KEYS = {
    IMPRESSION_SESSIONS.name: ["user_id", "note_id", "session_start"],
    CLICK_SESSIONS.name: ["user_id", "note_id", "session_start"],
    SHORT_CLICKS.name: ["user_id", "note_id", "session_start"],
    ORPHAN_ACTIONS.name: ["event_id"],
}
KINDS = ("added", "removed", "changed")
# Rows and aggregates that the loader brings into the embedded ClickHouse in a second, about what docs/metrics.md measured.
CLICKHOUSE_ROWS_PER_S = 500_000


class Before:
    """What the lake's hours add up to now, read in a thread while a plan makes the new rows."""

    def __init__(self, now: Lake, window: Window, beside: Executor):
        self.now, self.window, self.stopped = now, window, False
        self.adds = _adds(now, window)
        self.sums = {
            (name, hour): beside.submit(self._sum, name, hour, adds.get(hour, []))
            for hour in window.hours for name, adds in self.adds.items()
        }  # fmt: skip
        self.users = beside.submit(self._users)

    def of(self, name: str, hour: dt.datetime) -> Sum:
        """Of an hour of the range, or one beside it."""
        found = self.sums.get((name, hour))
        return found.result() if found else of_files(self.now, name, hour, _adds(self.now, _hour(hour))[name].get(hour, []))

    def users_of(self, swap: Window) -> dict[str, Any]:
        return self.users.result() if swap == self.window else _users(self.now, swap)

    def stop(self) -> None:
        """Leave out what has not begun: nobody will ask."""
        self.stopped = True

    def _sum(self, name: str, hour: dt.datetime, adds: files.Adds) -> Sum:
        return Sum() if self.stopped else of_files(self.now, name, hour, adds)

    def _users(self) -> dict[str, Any]:
        return {} if self.stopped else _users(self.now, self.window)


def make(
    now: Lake, run: store.Folder, swap: Window, rules: Rules, counts: dict[str, int], progress: Callable[..., None],
    before: Before, made: Sums,
) -> dict[str, Any]:  # fmt: skip
    """The report of a plan, as plain values for JSON.

    before, made: sums of the lake's rows and of those that this process has written; hours that add up to the same are
    looked at no further. Returns
    plan, window, swap (hours that apply writes), rules (name, fingerprint, changes against those of the hours), rows: table
    -> added, removed, changed; late_used, edge_before, edge_after (rows of hours beside the range that change); totals:
    measure -> before, after; rates: the same as shares; by_hour, by_channel: rows of hour or channel and the measures
    before and after; users: day -> before, after; revenue; examples: kind -> ten rows with their events; seen_by: hours
    of training_samples, model versions; stale; cost; apply_cost.
    """
    shadow, rows, figures = run.rows.pinned(), {name: Counter() for name in KEYS}, []
    examples: dict[str, list] = {kind: [] for kind in KINDS}
    changed_hours, shadow_adds = [], _adds(shadow, swap)
    for number, hour in enumerate(swap.hours):
        changed = False
        for name in KEYS:
            old, new = before.of(name, hour), _made(shadow, name, hour, shadow_adds[name].get(hour, []), made)
            figures += [{"side": side, **one} for side, sums in (("before", old), ("after", new)) for one in sums.figures]
            if old.same(new):
                continue
            for _, was, will in _pairs(now, shadow, hour, [name]):
                found = _differences(name, was, will)
                changed |= any(found[kind].height for kind in KINDS)
                for kind in KINDS:
                    rows[name][kind] += found[kind].height
                    _collect(examples[kind], name, found[kind])
        if changed:
            changed_hours.append(hour)
        progress(stage="comparing", hours_done=number + 1, hours_total=len(swap.hours))
    totals = _summed(figures, lambda one: "all").get("all", {"before": {}, "after": {}})
    written = [add for name in shadow_adds for adds in shadow_adds[name].values() for add in adds]
    written += [add for name in (LABELED_HOURS.name, LATE_EVENTS.name) for add in files.adds_of(shadow, name, swap)]
    new_rows = sum(add["rows"] for add in written)
    return {
        "plan": run.plan_id, "window": run.read("journal")["window"], "swap": store.texts(swap),
        "rules": _rules(now, swap, rules), "rows": {name: {kind: found[kind] for kind in KINDS} for name, found in rows.items()},
        "hours_changed": [hour.isoformat() for hour in changed_hours],
        "late_used": counts["late_used"], "late_kept": counts["late_kept"],
        "edge_before": counts["edge_before"], "edge_after": counts["edge_after"],
        "totals": _paired(totals), "rates": _paired({side: _rates(one) for side, one in totals.items()}),
        "by_hour": _listed("hour", _summed(figures, lambda one: one["hour"])),
        "by_channel": _listed("channel", _summed(figures, lambda one: one["channel"])),
        "users": before.users_of(swap), "revenue": _revenue(now, swap),
        "examples": _with_events(now, examples),
        "seen_by": _seen_by(now, changed_hours), "stale": stale(now, changed_hours),
        "cost": {"events": counts["events"], "rows": new_rows, "bytes": sum(add["size"] for add in written)},
        "apply_cost": _apply_cost(now, swap, len(written), new_rows),
    }  # fmt: skip


def _hour(hour: dt.datetime) -> Window:
    return Window(hour, hour + ONE_HOUR)


def _adds(lake: Lake, window: Window) -> dict[str, dict[dt.datetime, files.Adds]]:
    """Data files by table and hour."""
    found: dict[str, dict[dt.datetime, files.Adds]] = {name: {} for name in KEYS}
    for name, hours in found.items():
        for add in files.adds_of(lake, name, window):
            hours.setdefault(dt.datetime.fromisoformat(add["hour"]).replace(tzinfo=dt.UTC), []).append(add)
    return found


def _made(shadow: Lake, name: str, hour: dt.datetime, adds: files.Adds, made: Sums) -> Sum:
    """What this process has added up while it wrote the hour; of an hour that another one wrote, before a crash, its files."""
    found = made.of(name, hour)
    return found if found.rows == sum(add["rows"] for add in adds) else of_files(shadow, name, hour, adds)


def count_changes(now: Lake, shadow: Lake, hour: dt.datetime) -> int:
    """How many rows of an hour differ, over all tables."""
    return sum(frame.height for one in _pairs(now, shadow, hour) for frame in _differences(*one).values())


def _pairs(
    now: Lake, shadow: Lake, hour: dt.datetime, names: Iterable[str] = tuple(KEYS)
) -> Iterator[tuple[str, pl.DataFrame | None, pl.DataFrame | None]]:
    """(table, rows now, rows as they would be) of an hour, cut by time so that no more than about PAIR_ROWS are in memory."""
    window = _hour(hour)
    for name in names:
        rows = max(sum(add["rows"] for add in files.adds_of(lake, name, window)) for lake in (now, shadow))
        pieces = max(1, -(-rows // PAIR_ROWS))
        cuts = [hour + ONE_HOUR * n / pieces for n in range(pieces)] + [window.end]
        for start, end in zip(cuts, cuts[1:], strict=False):
            yield name, _read(now, name, hour, start, end), _read(shadow, name, hour, start, end)


def _read(lake: Lake, name: str, hour: dt.datetime, start: dt.datetime, end: dt.datetime) -> pl.DataFrame | None:
    import polars as pl

    if not lake.exists(name):
        return None
    inside = pc.field("hour") == pa.scalar(hour, TIME)
    if end - start < ONE_HOUR:
        time = pc.field("event_time" if name == ORPHAN_ACTIONS.name else "session_start")
        inside &= (time >= pa.scalar(start, TIME)) & (time < pa.scalar(end, TIME))
    data = lake.dataset(name)
    names = [one for one in data.schema.names if one not in TYPED_NAMES]
    return pl.from_arrow(data.to_table(columns=names, filter=inside))


def _differences(name: str, old: pl.DataFrame | None, new: pl.DataFrame | None) -> dict[str, pl.DataFrame]:
    """Rows of an hour by what becomes of them; changed ones as they will be, with `COLUMN was`: the value now."""
    import polars as pl

    if old is None and new is None:
        return dict.fromkeys(KINDS, pl.DataFrame())
    old, new = (new.clear() if old is None else old), (old.clear() if new is None else new)
    if old.height == new.height and old.equals(new):
        return dict.fromkeys(KINDS, old.clear())
    # Nearly all rows are the same: they go by their hashes, and only the others are compared column by column.
    here, there = old.hash_rows(seed=7), new.hash_rows(seed=7)
    gone, come = old.filter(~here.is_in(there.implode())), new.filter(~there.is_in(here.implode()))
    key = KEYS[name]
    both = come.join(gone, on=key, how="semi")
    was = gone.join(both, on=key, how="semi")
    return {
        "added": come.join(gone, on=key, how="anti"), "removed": gone.join(come, on=key, how="anti"),
        "changed": _changed(both, was, key),
    }  # fmt: skip


def _changed(new: pl.DataFrame, old: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    import polars as pl

    joined = new.join(old, on=key, how="left", suffix=" was")
    values = [name for name in new.columns if name not in (*key, "hour")]
    differ = [pl.col(name).ne_missing(pl.col(f"{name} was")) for name in values]
    return joined.filter(pl.any_horizontal(differ)) if differ else joined.clear()


def _collect(examples: list, name: str, frame: pl.DataFrame) -> None:
    for row in frame.head(max(0, EXAMPLES - len(examples))).iter_rows(named=True):
        was = {key.removesuffix(" was"): value for key, value in row.items() if key.endswith(" was")}
        plain = {key: value for key, value in row.items() if not key.endswith(" was")}
        changed = {key: [value, plain[key]] for key, value in was.items() if value != plain[key]}
        examples.append({"table": name, "row": plain, "changed": changed})


def _with_events(now: Lake, examples: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The examples, their times as texts, each with the events of its key from a session before it to its end."""
    spans = [_span(one["row"]) for some in examples.values() for one in some]
    events = _events_of(now, [one["row"] for some in examples.values() for one in some], spans)
    return {
        kind: [json.loads(json.dumps({**one, "events": _events_in(events, one["row"])}, default=_text)) for one in some]
        for kind, some in examples.items()
    }


def _span(row: dict[str, Any]) -> tuple[dt.datetime, dt.datetime]:
    start, end = row.get("session_start", row.get("event_time")), row.get("session_end", row.get("event_time"))
    return start - (end - start), end


def _events_of(now: Lake, rows: list[dict[str, Any]], spans: list[tuple[dt.datetime, dt.datetime]]) -> list[dict[str, Any]]:
    """Events of the rows' keys in the hours of the spans, by time: each hour is read once, whatever the number of rows."""
    if not rows:
        return []
    hours = {_floor(start) + ONE_HOUR * n for start, end in spans for n in range((_floor(end) - _floor(start)) // ONE_HOUR + 1)}
    inside = pc.field("hour").isin(pa.array(sorted(hours), TIME))
    for name in ("user_id", "note_id"):
        inside &= pc.field(name).isin(pa.array(sorted({row[name] for row in rows}), pa.int64()))
    columns = ["event_time", "action", "dwell_ms", "channel", "event_id", "user_id", "note_id"]
    return now.dataset("events").to_table(columns=columns, filter=inside).sort_by("event_time").to_pylist()


def _events_in(events: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    start, end = _span(row)
    key = ("user_id", "note_id")
    mine = [one for one in events if start <= one["event_time"] <= end and all(one[name] == row[name] for name in key)]
    return [{name: value for name, value in one.items() if name not in key} for one in mine]


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def _floor(moment: dt.datetime) -> dt.datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


# --- figures ----------------------------------------------------------------------------------------------------------


def _summed(figures: list[dict], name: Callable[[dict], str]) -> dict[str, dict[str, Counter]]:
    found: dict[str, dict[str, Counter]] = {}
    for one in figures:
        sides = found.setdefault(name(one), {"before": Counter(), "after": Counter()})
        sides[one["side"]].update({key: value for key, value in one.items() if key not in ("side", "hour", "channel")})
    return found


def _rates(one: Counter) -> dict[str, float | None]:
    """Shares: of displays that were clicked, and of clicks that were followed by each label."""
    displays, clicks = one.get("displays", 0), one.get("clicks", 0)
    found = {"ctr": one.get("clicked_displays", 0) / displays if displays else None}
    return found | {flag: one.get(flag, 0) / clicks if clicks else None for flag in FLAGS}


def _paired(sides: dict[str, dict]) -> dict[str, dict[str, Any]]:
    names = list(dict.fromkeys([*sides.get("before", {}), *sides.get("after", {})]))
    return {name: {side: sides[side].get(name, 0) for side in ("before", "after")} for name in names}


def _listed(head: str, found: dict[str, dict[str, Counter]]) -> list[dict[str, Any]]:
    return [{head: name, **_paired(sides), "rates": _paired({side: _rates(one) for side, one in sides.items()})}
            for name, sides in sorted(found.items())]  # fmt: skip


def _users(now: Lake, swap: Window) -> dict[str, Any]:
    """Active users a day of the range, of `events`: counted once, since a backfill writes no events."""
    import polars as pl

    days: dict[str, list] = {}
    for hour in swap.hours:
        rows = pl.from_arrow(now.read("events", Window(hour, hour + ONE_HOUR), ["user_id"]))
        if rows.height:
            seen = days.setdefault(f"{hour:%Y-%m-%d}", [])
            seen.append(rows["user_id"].unique())
            if len(seen) > 1:
                days[f"{hour:%Y-%m-%d}"] = [pl.concat(seen).unique()]
    counted = {day: int(seen[0].len()) for day, seen in days.items()}
    return {"by_day": {day: {"before": n, "after": n} for day, n in counted.items()},
            "note": "active users are counted in events, which a backfill of labels does not change"}  # fmt: skip


def _revenue(now: Lake, swap: Window) -> dict[str, Any] | None:
    if not now.exists("order_attributions"):
        return None
    rows = now.read("order_attributions", swap, ["net_cents", "note_id"])
    net = pc.sum(rows["net_cents"]).as_py() or 0
    return {"orders": rows.num_rows, "net_cents": {"before": net, "after": net},
            "note": "orders are attributed by events (planting_actions), which a backfill of labels does not change"}  # fmt: skip


# --- who has seen the old rows ----------------------------------------------------------------------------------------


def _touched(hours: list[dt.datetime]) -> set[dt.datetime]:
    """Hours whose samples read rows of these: a click session's display may be of the hour before."""
    return {hour - back for hour in hours for back in (dt.timedelta(0), ONE_HOUR)}


def stale(now: Lake, hours: list[dt.datetime]) -> dict[str, list[str]]:
    """Tables downstream that hold hours computed from the rows of these: table -> hours to launch again."""
    found = {}
    for name in ("training_samples", "hourly_funnel", "note_profiles", "user_profiles"):
        if now.exists(name) and _has_hours(now, name):
            there = sorted(set(now.hours(name)) & _touched(hours))
            if there:
                found[name] = [hour.isoformat() for hour in there]
    return found


def _has_hours(now: Lake, name: str) -> bool:
    return "hour" in {field.name for field in now.open(name).schema().fields}


def _seen_by(now: Lake, hours: list[dt.datetime]) -> dict[str, Any]:
    """Hours of training_samples and versions of the ranker that were made of the rows which change."""
    from assets.ranking import registry

    models = []
    for version in registry.versions(now) if hours else []:
        config = json.loads((registry.folder(now) / version / "config.json").read_text())
        start, end = (dt.datetime.fromisoformat(one) for one in config["window"])
        if any(start <= hour < end for hour in _touched(hours)):
            models.append(version)
    return {"training_samples": stale(now, hours).get("training_samples", []), "models": models}


def _rules(now: Lake, swap: Window, rules: Rules) -> dict[str, Any]:
    """The plan's rules, and what they change against each of those that the hours bear now."""
    book = now.read(LABELED_HOURS.name, swap).to_pylist()
    names = sorted({one for row in book for one in (row.get("rules") or "").split(",") if one})
    texts = {row["rules"]: row for row in now.read(RULE_VERSIONS.name).to_pylist()} if now.exists(RULE_VERSIONS.name) else {}
    windows = sorted({row["window_us"] for row in book})
    return {
        "version": rules.version, "fingerprint": rules.fingerprint, "code": code_version(),
        "was": [{"fingerprint": name, "version": texts[name]["version"],
                 "changes": changes(parse_rules(texts[name]["text"], name), rules)} for name in names if name in texts],
        "codes_were": sorted({row["code"] for row in book if row.get("code")}),
        "windows_were_s": [value / 1e6 for value in windows],
    }  # fmt: skip


# --- cost -------------------------------------------------------------------------------------------------------------


def _apply_cost(now: Lake, swap: Window, count: int, new_rows: int) -> dict[str, Any]:
    """What apply will do: files that are linked and committed, rows that ClickHouse loads, and how long that takes about."""
    same = ("events", "quarantine", LATE_EVENTS.name)
    loaded = sum(add["rows"] for name in same for add in files.adds_of(now, name, swap)) + new_rows
    return {"files": count, "clickhouse_rows": loaded, "clickhouse_s": loaded / CLICKHOUSE_ROWS_PER_S}
