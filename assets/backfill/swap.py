"""Apply and undo: the hours of a plan swapped in Delta in one commit and in ClickHouse by one insert, and back.

Here: the order of things, and what is refused. Not here: how a commit of several tables or a load survives a crash (lake.py,
loader.py), what the rows are (plan.py).

Apply: journal (what will go, by which number) -> links to the files, new ones into the tables, old ones into before/ -> one
commit of the lake, whose fence looks once more that nothing has moved -> ClickHouse: a load of its own, shown by one insert ->
journal. No row is written. A crash before the commit leaves links that nobody names; a crash in it is finished by the next
writer; after it, a rerun goes on with ClickHouse. Undo is the same with the old files; ClickHouse shows the loads of before
again where they are still there and hold what Delta holds, else the hours are loaded.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets import durable
from assets.attribution.label import refuse_what_is_live
from assets.attribution.provenance import register
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS, LABELED_HOURS, LATE_EVENTS, ORPHAN_ACTIONS, SHORT_CLICKS
from assets.backfill import files, report, store
from assets.backfill.plan import LABEL_TABLES, rules_of
from assets.backfill.store import APPLIED, APPLYING, PLANNED, UNDOING, UNDONE, BackfillError, Folder
from assets.lake import Lake, Step, Window

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

APP = "backfill"  # the name of our commits in the commit log
Probe = Callable[[str], None]


def _no_probe(point: str) -> None:
    pass


def apply(
    lake: Lake, plan_id: str, clickhouse: Client | None = None, *, progress: Callable[..., None] = lambda **_: None,
    probe: Probe = _no_probe,
) -> dict[str, Any]:  # fmt: skip
    """Put a plan's rows in place of the tables', for all readers at one moment; a rerun finishes what a crash left.

    clickhouse: None leaves ClickHouse as it is; a later apply with one finishes it. progress: called with stage=, and of
    ClickHouse hours_done=, hours_total=. Returns plan, moment (of the commit log), clickhouse (was it swapped), stale
    (table -> hours downstream to launch again), models (versions trained on rows that are gone).
    Raises BackfillError where an input has moved since the plan, or other work meets its hours.
    """
    run = Folder(lake, plan_id)
    body, journal = run.read("plan"), run.read("journal")
    if journal["status"] not in (PLANNED, APPLYING, APPLIED, UNDONE):
        raise BackfillError(f"plan {plan_id} is {journal['status']}; {_advice(journal['status'], plan_id)}")
    swap = store.window_of(body, "swap")
    with store.claim(lake, swap, f"apply of plan {plan_id}"):
        lake.recover()
        journal = run.read("journal")
        seen = None
        if journal["status"] in (PLANNED, UNDONE) or _not_begun(lake, journal):
            refuse_what_is_live(lake, store.window_of(body), rules_of(body))
            seen = _unmoved(lake, body, plan_id)
            before = {name: files.adds_of(lake, name, _hours_of(name, body)) for name in _names(lake, run, body)}
            journal = run.note(
                status=APPLYING, number=store.next_number(lake), before=before, delta=None, clickhouse=False,
                loads=_loads(clickhouse, swap),
            )  # fmt: skip
        probe("journaled")
        if journal["delta"] is None:
            journal = _commit_rows(lake, run, body, journal, seen, probe)
        progress(stage="delta", hours_done=len(swap.hours), hours_total=len(swap.hours))
        if clickhouse is not None and not journal["clickhouse"]:
            _load(lake, clickhouse, swap, f"backfill {plan_id}", progress, probe)
            journal = run.note(clickhouse=True)
        probe("loaded")
        run.note(status=APPLIED)
        found = run.read("report")
    return _result(lake, run, found, run.read("journal"))


def undo(
    lake: Lake, plan_id: str, clickhouse: Client | None = None, *, progress: Callable[..., None] = lambda **_: None,
    probe: Probe = _no_probe,
) -> dict[str, Any]:  # fmt: skip
    """Put the rows back that were there before apply; a rerun finishes what a crash left. Returns what apply returns.

    Raises BackfillError where the plan is not applied, its hours were changed by something else since, or its files are gone.
    """
    run = Folder(lake, plan_id)
    body, journal = run.read("plan"), run.read("journal")
    if journal["status"] not in (APPLIED, UNDOING, APPLYING):
        raise BackfillError(f"plan {plan_id} is {journal['status']}, there is nothing to undo; {_advice(journal['status'], plan_id)}")
    if journal["status"] == APPLYING and journal["delta"] is None:
        raise BackfillError(f"plan {plan_id} is being applied; finish it with `glasshouse backfill apply {plan_id}`")
    swap = store.window_of(body, "swap")
    with store.claim(lake, swap, f"undo of plan {plan_id}"):
        lake.recover()
        journal = run.read("journal")
        if journal["status"] != UNDOING:
            refuse_what_is_live(lake, store.window_of(body), rules_of(body))
            _still_ours(lake, run, body, journal, plan_id)
            journal = run.note(status=UNDOING, number=store.next_number(lake), undone=None, clickhouse_back=False)
        probe("journaled")
        if journal["undone"] is None:
            journal = _commit_back(lake, run, body, journal, plan_id, probe)
        progress(stage="delta", hours_done=len(swap.hours), hours_total=len(swap.hours))
        if clickhouse is not None and not journal["clickhouse_back"]:
            if not _show_again(lake, clickhouse, journal["loads"], swap, f"undo {plan_id}"):
                _load(lake, clickhouse, swap, f"undo {plan_id}", progress, probe)
            journal = run.note(clickhouse_back=True)
        probe("loaded")
        run.note(status=UNDONE)
        found = run.read("report")
    return _result(lake, run, found, run.read("journal"))


def _advice(status: str, plan_id: str) -> str:
    if status == store.COMPUTING:
        return "plan the range again, which goes on where it was"
    if status == UNDOING:
        return f"finish it with `glasshouse backfill undo {plan_id}`"
    return f"apply it with `glasshouse backfill apply {plan_id}`"


def _result(lake: Lake, run: Folder, found: dict, journal: dict) -> dict[str, Any]:
    hours = [dt.datetime.fromisoformat(hour) for hour in found["hours_changed"]]
    back = journal["status"] == UNDONE
    return {
        "plan": run.plan_id, "status": journal["status"], "moment": journal["undone" if back else "delta"],
        "clickhouse": journal["clickhouse_back" if back else "clickhouse"], "hours": found["hours_changed"],
        "stale": report.stale(lake.pinned(), hours), "models": found["seen_by"]["models"],
    }  # fmt: skip


# --- Delta -------------------------------------------------------------------------------------------------------------


def _names(lake: Lake, run: Folder, body: dict) -> list[str]:
    """Tables that the plan writes."""
    names = [table.name for table in (IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS, LABELED_HOURS)]
    if run.rows.exists(SHORT_CLICKS.name) or lake.exists(SHORT_CLICKS.name):
        names.append(SHORT_CLICKS.name)
    return [*names, LATE_EVENTS.name] if run.read("report")["late_used"] else names


def _hours_of(name: str, body: dict) -> Window:
    """The hours that the plan writes: of late_events the range alone, of the others those beside it too."""
    return store.window_of(body, "window" if name == LATE_EVENTS.name else "swap")


def _unmoved(lake: Lake, body: dict, plan_id: str) -> dict[str, dict[str, list[str]]]:
    """What the inputs' files are now, table by table. Raises BackfillError where their rows are not those of the plan."""
    seen = {}
    for name, then in body["inputs"].items():
        hours, seen[name] = files.moved(lake, name, then["hours"], store.window_of(then))
        if hours:
            raise BackfillError(
                f"`{name}` has moved since plan {plan_id} was made ({hours[0]}Z{_more(hours)}): late events, or another run; plan "
                "the range again"
            )
    return seen


def _more(hours: list[str]) -> str:
    return f" and {len(hours) - 1} more hours" if len(hours) > 1 else ""


def _not_begun(lake: Lake, journal: dict) -> bool:
    """Whether an apply was killed before its commit: it is prepared anew, for files may have been compacted since."""
    return journal["status"] == APPLYING and journal["delta"] is None and _committed(lake, journal) is None


def _commit_rows(lake: Lake, run: Folder, body: dict, journal: dict, seen: dict | None, probe: Probe) -> dict[str, Any]:
    done = _committed(lake, journal)
    if done is None:
        seen = seen or _unmoved(lake, body, run.plan_id)
        register(lake, rules_of(body))
        steps = []
        for name in _names(lake, run, body):
            lake.create(next(table for table in (*LABEL_TABLES, LATE_EVENTS) if table.name == name))
            hours, adds = _hours_of(name, body), files.adds_of(run.rows, name, _hours_of(name, body))
            before, kept = [add["path"] for add in journal["before"].get(name, [])], run.root / "before" / name
            files.held_good(lake, name, before)
            files.held_good(run.rows, name, [add["path"] for add in adds])
            for path in before:
                files.link(Path(lake.path(name), path), kept / path)
            durable.sync_all(kept / path for path in before)  # those that come are made durable by the commit
            for add in adds:
                files.link(Path(run.rows.path(name), add["path"]), Path(lake.path(name), add["path"]))
            steps.append({"table": name, "window": [store.texts(hours)], "adds": adds})
        probe("linked")
        try:
            done = _commit(lake, run, "apply", journal, steps, lambda: _fence(lake, body, seen, run.plan_id), probe)
        except BackfillError:
            run.note(status=PLANNED)
            raise
    probe("committed")
    return run.note(delta=done)


def _commit_back(lake: Lake, run: Folder, body: dict, journal: dict, plan_id: str, probe: Probe) -> dict[str, Any]:
    done = _committed(lake, journal)
    if done is None:
        _still_ours(lake, run, body, journal, plan_id)
        steps: list[Step] = []
        for name, adds in journal["before"].items():
            for add in adds:
                kept = run.root / "before" / name / add["path"]
                if not kept.exists():
                    raise BackfillError(f"{kept} is gone, so plan {plan_id} cannot be undone; recompute its hours instead")
            files.held_good(lake, name, [add["path"] for add in adds], run.root / "before" / name)
            for add in adds:
                files.link(run.root / "before" / name / add["path"], Path(lake.path(name), add["path"]))
            step: Step = {"table": name, "window": [store.texts(_hours_of(name, body))], "adds": adds}
            ours = files.adds_of(run.rows, name, _hours_of(name, body))
            now = files.by_hour(files.adds_of(lake, name, _hours_of(name, body)))
            if name == LATE_EVENTS.name and _within(files.by_hour(ours), now):  # what arrived since stays
                step |= {"window": None, "removes": [add["path"] for add in ours]}
            steps.append(step)
        probe("linked")
        fence = lambda: _still_ours(lake, run, body, journal, plan_id)  # noqa: E731
        try:
            done = _commit(lake, run, "undo", journal, steps, fence, probe)
        except BackfillError:
            run.note(status=APPLIED)
            raise
    probe("committed")
    return run.note(undone=done)


def _committed(lake: Lake, journal: dict) -> int | None:
    """The moment with which our commit became visible, or that of now where it has; None where it has not."""
    newest = lake.log.newest()
    if newest is None or newest.apps.get(APP, 0) < journal["number"]:
        return None
    for number in reversed(lake.log.numbers()):
        if lake.log.moment(number).note.get("number") == journal["number"]:
            return number
        if lake.log.moment(number).apps.get(APP, 0) < journal["number"]:
            break
    # Another plan's later commit may have set the number higher while ours never came.
    return None


def _commit(lake: Lake, run: Folder, what: str, journal: dict, steps: list[Step], fence, probe: Probe) -> int:
    """One commit of all tables. It bears a number of its own, by which a rerun knows that it is there."""
    newest = lake.log.newest()
    number = journal["number"]
    if newest.apps.get(APP, 0) >= number:  # somebody else's came between; lake.commit would take ours for a repeat
        number = store.next_number(lake)
        run.note(number=number)
    moment = lake.commit(
        steps, by=APP, app=(APP, number), note={"plan": run.plan_id, "what": what, "number": number}, fence=fence, probe=probe
    )
    if moment is None:
        raise BackfillError(f"another backfill was committed just now; run the {what} of plan {run.plan_id} again")
    return moment.number


def _fence(lake: Lake, body: dict, seen: dict[str, dict[str, list[str]]], plan_id: str) -> None:
    """Under the lake's lock: the files are still those that were looked at."""
    for name, then in seen.items():
        if files.by_hour(files.adds_of(lake, name, store.window_of(body["inputs"][name]))) != then:
            raise BackfillError(f"`{name}` was written to while plan {plan_id} was applied; nothing has changed, apply it again")


def _within(ours: dict[str, list[str]], now: dict[str, list[str]]) -> bool:
    """Whether the files are all there still; late events that arrived since lie beside them."""
    return all(set(paths) <= set(now.get(hour, [])) for hour, paths in ours.items())


def _still_ours(lake: Lake, run: Folder, body: dict, journal: dict, plan_id: str) -> None:
    """Raises BackfillError where the hours hold other rows than those that apply brought, late events since apart."""
    for name in journal["before"]:
        hours = _hours_of(name, body)
        ours = files.by_hour(files.adds_of(run.rows, name, hours))
        now = files.by_hour(files.adds_of(lake, name, hours))
        added = name == LATE_EVENTS.name and _within(ours, now)
        changed = [] if now == ours or added else files.moved(lake, name, ours, hours, kept=run.rows)[0]
        if changed:
            raise BackfillError(
                f"`{name}` was changed since plan {plan_id} was applied ({changed[0]}Z{_more(changed)}), by something else; undo "
                "that first, or recompute the hours"
            )


# --- ClickHouse --------------------------------------------------------------------------------------------------------


def _loads(clickhouse: Client | None, swap: Window) -> dict[str, int]:
    """The load that readers see, by hour: what undo can show again."""
    if clickhouse is None:
        return {}
    from assets.metrics import loads
    from assets.metrics.schema import migrate

    migrate(clickhouse)
    inside = set(swap.hours)
    return {hour.isoformat(): one.load for hour, one in loads.visible(clickhouse).items() if hour in inside}


def _load(lake: Lake, clickhouse: Client, swap: Window, reason: str, progress, probe: Probe) -> None:
    from assets.metrics import loader

    def tell(table: str, done: int, total: int) -> None:
        progress(stage=f"clickhouse {table}", hours_done=done, hours_total=total)

    loader.load_window(lake, clickhouse, swap, tell, reason=reason, probe=probe)


def _show_again(lake: Lake, clickhouse: Client, then: dict[str, int], swap: Window, reason: str) -> bool:
    """Show the loads that were visible before apply, by one insert; False where one is gone or lacks what Delta holds now."""
    from assets.metrics import loader, loads
    from assets.metrics.schema import FEED, PARTS

    numbers = {dt.datetime.fromisoformat(hour): load for hour, load in then.items()}
    if set(numbers) != set(swap.hours):
        return False
    loader.prepare(lake, clickhouse)
    if loads.outdated(clickhouse) & set(numbers.values()):
        return False
    with loads.alone(lake):
        now = loader.latest(lake)
        for table in PARTS[FEED]:
            version = now.version(table.name) if now.exists(table.name) else None
            wanted = {hour: n for hour, n in loader.delta_counts(now, table.name, version).items() if hour in numbers and n}
            if _counted(clickhouse, table.name, numbers) != wanted:
                return False
        loads.publish(clickhouse, numbers, numbers, now.moment.number, reason)
    return True


def _counted(clickhouse: Client, name: str, numbers: dict[dt.datetime, int]) -> dict[dt.datetime, int]:
    from assets.metrics.loads import utc

    rows = clickhouse.query(
        f"SELECT hour, load, count() FROM {name}_all WHERE load IN {{loads:Array(UInt64)}} GROUP BY hour, load",
        parameters={"loads": sorted(set(numbers.values()))},
    ).result_rows
    return {utc(hour): n for hour, load, n in rows if numbers.get(utc(hour)) == load}


