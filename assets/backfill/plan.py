"""A plan: the hours of a range labeled anew beside the tables, and a report of what would change.

Here: which hours are recomputed, by which rules, into the shadow. Not here: the fold (assets/attribution), the comparison
(report.py), the swap (swap.py).

The late events of the range are used, and no others: what comes out is what a whole recompute gives of all events but those
that stay in late_events. So the hours beside the range can change too, and are recomputed by the rules that they bear:
- before: sessions that are open at the range's start and get a late event of the range;
- after: sessions that stand on others than before. Hour by hour until the sessions open at an hour's end are as they were.
A session follows the rules of the hour in which it starts.
"""

from __future__ import annotations

import datetime as dt
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from assets.attribution import state as live_state
from assets.attribution.label import (
    EPOCH,
    ONE_HOUR,
    LabelError,
    WindowRun,
    hours_up,
    refuse_other_years,
    refuse_what_is_live,
)
from assets.attribution.provenance import code_version, known
from assets.attribution.rules import Rules, parse_rules
from assets.attribution.tables import (
    CLICK_SESSIONS,
    IMPRESSION_SESSIONS,
    LABELED_HOURS,
    LATE_EVENTS,
    ORPHAN_ACTIONS,
    SHORT_CLICKS,
)
from assets.backfill import files, report, store
from assets.backfill.store import COMPUTING, PLANNED, BackfillError, Folder
from assets.backfill.sums import Sums
from assets.events.contract import EVENTS, TIME
from assets.hours import STRAY_AFTER, stretches
from assets.lake import Lake, LakeError, Window

# What a plan reads, and (all but events) may write.
LABEL_TABLES = (IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS, SHORT_CLICKS, LABELED_HOURS)
INPUTS = (EVENTS, LATE_EVENTS, *LABEL_TABLES)
FORWARD_HOURS = 48  # after so many hours that change after the range, the range is too small for what it changes

Progress = Callable[..., None]


def _silent(**_: Any) -> None:
    pass


def plan(
    lake: Lake, window: Window, rules: Rules, *, progress: Progress = _silent, probe: Callable[[str], None] = lambda at: None
) -> dict[str, Any]:  # fmt: skip
    """Recompute [window.start, window.end) by `rules` beside the tables; returns the report (see report.py), which is kept.

    An unfinished plan of the same range, rules and inputs, left by a crash, is gone on with. progress: called with stage=,
    hours_done=, hours_total=. probe: called with the name of each point passed (tests kill the process there).
    Raises BackfillError where other work meets the range, or hours after it would change that are not closed yet;
    LabelError where the live labeler still owes rows of the range, or it lies in years that no event bears.
    """
    began = time.perf_counter()
    with store.claim(lake, window, "a plan"):
        lake.recover()
        for table in (EVENTS, LATE_EVENTS, IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS, LABELED_HOURS):
            if table is EVENTS:
                lake.version(EVENTS.name)  # raises, saying what to do
            lake.create(table)
        now = lake.pinned()
        _refuse_empty_years(now, window)  # first: of a range over all time it names the stretches that hold events
        refuse_other_years(window)
        refuse_what_is_live(lake, window, rules)
        run = _unfinished(now, window, rules) or _begun(now, window, rules)
        probe("begun")
        work = _Work(now, run, window, rules, progress, probe)
        with ThreadPoolExecutor(1) as beside:
            before = report.Before(now, window, beside)  # read while the new rows are made
            try:
                work.compute()
            except BaseException:
                before.stop()
                raise
            probe("computed")
            found = report.make(now, run, work.swap, rules, work.counts, progress, before, work.sums)
        found["cost"] |= {
            "seconds": time.perf_counter() - began, "events_per_s": work.counts["events"] / (time.perf_counter() - began),
            "peak_gib": _peak_gib(),
        }  # fmt: skip
        run.write("report", found)
        probe("reported")
        run.note(status=PLANNED, window=store.texts(work.swap), planned_at=dt.datetime.now(dt.UTC).isoformat())
        return found


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _begun(now: Lake, window: Window, rules: Rules) -> Folder:
    run = Folder(now, store.new_id())
    run.write("plan", {
        "plan": run.plan_id, "window": store.texts(window), "rules": rules.to_toml(), "fingerprint": rules.fingerprint,
        "code": code_version(), "moment": now.moment.number, "events_version": now.version(EVENTS.name),
        "begun_inputs": inputs_of(now, window, rules),
    })  # fmt: skip
    run.write("journal", {"plan": run.plan_id, "status": COMPUTING, "window": store.texts(window), "pid": os.getpid(),
                          "changed_at": dt.datetime.now(dt.UTC).isoformat()})  # fmt: skip
    return run


def _refuse_empty_years(now: Lake, window: Window) -> None:
    """Raises BackfillError where more than STRAY_AFTER of the range goes by without an hour that holds anything."""
    if window.end - window.start <= STRAY_AFTER:
        return
    held = {hour for table in (EVENTS, LABELED_HOURS) for hour in now.hours(table.name) if window.start <= hour < window.end}
    parts = stretches(held)
    if len(parts) == 1 and parts[0].start - window.start <= STRAY_AFTER and window.end - parts[0].end <= STRAY_AFTER:
        return
    said = ", ".join(f"--from {part.start:%Y-%m-%dT%H:%M} --to {part.end:%Y-%m-%dT%H:%M}" for part in parts[:10]) or "none of it"
    raise BackfillError(
        f"for more than {STRAY_AFTER.days} days in a row of [{window.start.isoformat()}, {window.end.isoformat()}) no hour holds "
        f"events; plan what does, one stretch at a time: {said}"
    )


def _unfinished(now: Lake, window: Window, rules: Rules) -> Folder | None:
    """The plan that a crash left, where it is this one and nothing that it has read has moved."""
    for plan_id in reversed(store.ids(now)):
        run = Folder(now, plan_id)
        if run.read("journal")["status"] != COMPUTING:
            continue
        body = run.read("plan")
        same = (body["window"], body["fingerprint"], body["code"]) == (store.texts(window), rules.fingerprint, code_version())
        late = now.read(LATE_EVENTS.name, window, ["hour"]).num_rows  # which of them were used is not on disk
        if same and not late and body["begun_inputs"] == inputs_of(now, window, rules):
            run.rows.recover()
            return run
    return None


def inputs_of(lake: Lake, swap: Window, rules: Rules, back: int = 0) -> dict[str, dict[str, Any]]:
    """The files that a plan which writes `swap` stands on: table -> window, and paths by hour.

    Events after it are not among them: of those that come now, each is late, and no plan uses late events from beyond its
    range. back: hours before it that were read for want of labels.
    """
    margin = ONE_HOUR * max(back, hours_up(rules.window))
    found = {}
    for table in INPUTS:
        hours = swap if table in (EVENTS, LATE_EVENTS) and not back else swap.widened(before=margin)
        found[table.name] = {"window": store.texts(hours), "hours": files.by_hour(files.adds_of(lake, table.name, hours))}
    return found


@dataclass(frozen=True)
class Overlay:
    """The tables of labels as they would be: the shadow's hours in place of the lake's. Late events are the lake's."""

    lake: Lake
    shadow: Lake

    def exists(self, name: str) -> bool:
        return self.lake.exists(name) or self.shadow.exists(name)

    def hours(self) -> list[dt.datetime]:
        """Hours that the shadow holds."""
        return self.shadow.hours(LABELED_HOURS.name) if self.shadow.exists(LABELED_HOURS.name) else []

    def read(self, name: str, window: Window | None = None, columns: list[str] | None = None) -> pa.Table:
        hours = self.hours() if name != LATE_EVENTS.name else []
        wanted = None if columns is None else list(dict.fromkeys([*columns, "hour"]))
        parts = []
        if self.lake.exists(name):
            rows = self.lake.read(name, window, wanted)
            parts.append(rows.filter(pc.invert(pc.is_in(rows["hour"], pa.array(hours, TIME)))) if hours else rows)
        if hours and self.shadow.exists(name):
            parts.append(self.shadow.read(name, window, wanted))
        if not parts:
            raise LakeError(f"neither the lake at {self.lake.root} nor the plan has a table `{name}`")
        return pa.concat_tables(parts, promote_options="default").select(columns or parts[0].column_names)


class _Work:
    """The computing of one plan."""

    def __init__(self, now: Lake, run: Folder, window: Window, rules: Rules, progress: Progress, probe):
        self.now, self.run, self.window, self.rules, self.progress, self.probe = now, run, window, rules, progress, probe
        self.body = run.read("plan")
        self.shadow = run.rows
        self.sums = Sums()
        self.labels = Overlay(now, self.shadow)
        self.window_us = rules.window // dt.timedelta(microseconds=1)
        self.counts: dict[str, int] = {"events": 0, "late_used": 0, "late_kept": 0, "edge_before": 0, "edge_after": 0}
        book = now.read(LABELED_HOURS.name)
        self.book = {row["hour"].astimezone(dt.UTC): row for row in book.to_pylist()}
        self.rules_by_name = known(now)

    def compute(self) -> None:
        self._before()
        done = set(self.labels.hours())
        left = [hour for hour in self.window.hours if hour not in done]
        if left:
            main = self._label(Window(left[0], self.window.end), self.rules, "labeling", settles=True)
            self.counts |= {name: main.counts[name] for name in ("late_used", "late_kept", "carried", "hours_before")}
        self.counts["events"] = self._events_inside()
        end = self._after()
        start = self._changed_before()
        self.swap = Window(start, end)
        body = {**self.body, "swap": store.texts(self.swap), "inputs": inputs_of(self.now, self.swap, self.rules, self.counts.get("hours_before", 0))}
        self.run.write("plan", body)

    def _label(self, window: Window, rules: Rules, stage: str, settles: bool = False) -> WindowRun:
        one = WindowRun(
            self.now, window, rules, version=self.body["events_version"], target=self.shadow, labels=self.labels,
            late=self.window, settles=settles, after=self._rules_at(window.end), by="backfill", probe=self.probe,
            seen=self.sums.add,
        )  # fmt: skip
        one.go(lambda **done: self.progress(stage=stage, **done))
        return one

    def _events_inside(self) -> int:
        adds = files.adds_of(self.now, EVENTS.name, self.window)
        return sum(add["rows"] for add in adds)

    # --- the hours beside the range ------------------------------------------------------------------------------------

    def _rules_of(self, hour: dt.datetime) -> Rules | None:
        """The rules by which an hour is labeled, None where it is not, or with sessions of another length."""
        row = self.book.get(hour)
        if row is None or row["window_us"] != self.window_us:
            return None
        named = (row.get("rules") or "").split(",")[-1]
        return self.rules_by_name.get(named) or Rules(window=self.rules.window)

    def _rules_at(self, hour: dt.datetime) -> Rules | None:
        """The rules by which an hour will be labeled after this plan."""
        return self.rules if self.window.start <= hour < self.window.end else self._rules_of(hour)

    def _before(self) -> None:
        """Label the hours before anew, by their own rules, where sessions that are open at the range's start may change: by a
        late event of the range, or by a click in it that becomes none, or one."""
        late = self.now.read(LATE_EVENTS.name, self.window, ["event_time"])
        edge = pa.scalar(self.window.start + self.rules.window, TIME)
        count = hours_up(self.rules.window)
        hours = [self.window.start - ONE_HOUR * n for n in range(count, 0, -1)]
        was = self._rules_of(self.window.start)
        judged = was is None or was.valid_click_dwell != self.rules.valid_click_dwell
        if not (judged or pc.any(pc.less(late["event_time"], edge)).as_py()) or not all(map(self._rules_of, hours)):
            return
        done = set(self.labels.hours())
        for hour in hours:
            if hour not in done:
                self._label(Window(hour, hour + ONE_HOUR), self._rules_of(hour), "hours before")

    def _changed_before(self) -> dt.datetime:
        """The first hour whose rows change."""
        shadow = self.shadow.pinned()
        for hour in self.labels.hours():
            if hour >= self.window.start:
                break
            changed = report.count_changes(self.now, shadow, hour)
            self.counts["edge_before"] += changed
            if changed or self.counts["edge_before"]:
                return hour
        return self.window.start

    def _after(self) -> dt.datetime:
        """Go on behind the range, each hour by its own rules, until open sessions are what they were; returns that end."""
        end, rules = self.window.end, self.rules
        while self._edge_differs(end, rules):
            rules = self._rules_of(end)
            if rules is None:
                self._refuse_open_hour(end)
                break
            if end - self.window.end >= FORWARD_HOURS * ONE_HOUR:
                raise BackfillError(f"{FORWARD_HOURS} hours after the range would change too; plan a range that ends later")
            if end not in set(self.labels.hours()):
                refuse_what_is_live(self.now, Window(end, end + ONE_HOUR), rules)
                self._label(Window(end, end + ONE_HOUR), rules, "hours after")
            self.counts["edge_after"] += report.count_changes(self.now, self.shadow.pinned(), end)
            end += ONE_HOUR
        return end

    def _edge_differs(self, end: dt.datetime, rules: Rules) -> bool:
        if end not in self.book and not self._held(end):
            return False
        if end in self.book and self.book[end]["window_us"] != self.window_us:
            return False  # sessions of another length: the report says so
        edge = WindowRun(self.now, Window(end - ONE_HOUR, end), rules, self.body["events_version"], self.shadow, self.labels)
        before, after = edge.crossing(self.now_with_short), edge.crossing(self.labels)
        return bool(
            before.join(after, on=before.columns, how="anti", nulls_equal=True).height
            or after.join(before, on=before.columns, how="anti", nulls_equal=True).height
        )

    @property
    def now_with_short(self) -> Any:
        return _WithShort(self.now)

    def _held(self, hour: dt.datetime) -> bool:
        owed = live_state.held(self.now)
        return bool(owed) and EPOCH + dt.timedelta(microseconds=owed[1]) >= hour

    def _refuse_open_hour(self, end: dt.datetime) -> None:
        if self._held(end):
            raise LabelError(
                f"sessions that reach over {end.isoformat()} change, and with them the hour after it, which the live labeler has "
                "not closed yet; take an earlier end, or wait until that hour is closed"
            )


@dataclass(frozen=True)
class _WithShort:
    """The lake, with an empty short_clicks where it has none yet."""

    lake: Lake

    def read(self, name: str, window: Window | None = None, columns: list[str] | None = None) -> pa.Table:
        if name == SHORT_CLICKS.name and not self.lake.exists(name):
            return SHORT_CLICKS.empty().select(columns or SHORT_CLICKS.schema.names)
        return self.lake.read(name, window, columns)


def rules_of(body: dict[str, Any]) -> Rules:
    """The rules of a plan."""
    return parse_rules(body["rules"], f"plan {body['plan']}")


def differences(lake: Lake, window: Window, rules: Rules) -> dict[str, int]:
    """What a plan of the range finds, without keeping it: rows by table that are added, removed or changed; late_used.

    For a check that an hour's labels are what its events say: all 0 where there are no late events.
    """
    found = plan(lake, window, rules)
    store.discard(lake, found["plan"])
    return {**{name: sum(kinds.values()) for name, kinds in found["rows"].items()}, "late_used": found["late_used"]}


