"""What lies in _backfills/ of a lake: a folder a plan, and who works on which hours just now.

Here: the files, the journal, claims, forgetting. Not here: what a plan holds (plan.py), how it gets into force (swap.py).

    _backfills/running/ID.json       window and process of what runs (flock): overlapping work is refused
    _backfills/PLAN/plan.json        range, rules, what was read, what would be written
    _backfills/PLAN/rows/            a lake of its own with the new rows of the hours
    _backfills/PLAN/before/          hard links to the files that an apply took out of the tables: undo needs them
    _backfills/PLAN/journal.json     how far it has come
    _backfills/PLAN/report.json      what would change, what it cost

Rows and files before are hard links where they are in a table too: housekeeping of a table can delete its own name of a
file, never the plan's. Each file is durable before the next step stands on it, and bears a checksum: one that is damaged is a
BackfillError that names it. A plan is kept, and can be undone, for `keep` after the last thing that was done with it (`forget`).
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets import durable
from assets.lake import Lake, Window

NUMBER = "number.json"
DAMAGED = "damaged"  # in a list of plans: which file, is told
COMPUTING, PLANNED, APPLYING, APPLIED, UNDOING, UNDONE = "computing", "planned", "applying", "applied", "undoing", "undone"


class BackfillError(Exception):
    """A plan, an apply or an undo that is refused; the message says what to do next."""


@dataclass(frozen=True)
class Folder:
    """The folder of one plan."""

    lake: Lake
    plan_id: str

    @property
    def root(self) -> Path:
        return folder(self.lake) / self.plan_id

    @property
    def rows(self) -> Lake:
        """The shadow: the new rows of the hours, in tables of the same names."""
        return Lake(str(self.root / "rows"))

    def read(self, name: str) -> dict[str, Any]:
        """plan, journal or report. Raises BackfillError where there is none, or it is damaged."""
        path = self.root / f"{name}.json"
        try:
            found = durable.unsealed(path, self._named(name))
            if not isinstance(found, dict):
                raise durable.DamagedError(path, "is damaged: it is no JSON object")
            return found
        except durable.DamagedError as error:
            raise BackfillError(
                f"{error}; put it back from a copy of the lake, or delete {self.root} and plan the range again"
                + (", where the plan was not applied" if name == "journal" else "")
            ) from error
        except FileNotFoundError:
            have = ", ".join(ids(self.lake)) or "none"
            what = f"no {name} of plan {self.plan_id}" if self.root.exists() else f"no plan {self.plan_id}"
            raise BackfillError(f"{what} in {self.lake.root}; plans: {have}") from None

    def write(self, name: str, body: dict[str, Any]) -> None:
        durable.make_folder(self.root)
        durable.write_durably(self.root / f"{name}.json", durable.sealed(self._named(name), body, indent=1, default=str))

    def _named(self, name: str) -> str:
        return f"{self.plan_id}/{name}.json"

    def note(self, **changes: Any) -> dict[str, Any]:
        """Write changes into the journal; returns it."""
        journal = {**self.read("journal"), **changes, "changed_at": dt.datetime.now(dt.UTC).isoformat()}
        self.write("journal", journal)
        return journal


def folder(lake: Lake) -> Path:
    """Raises BackfillError for a lake that is not a local folder."""
    if lake.log is None:
        raise BackfillError(f"a backfill needs a lake in a local folder, not {lake.root}: renames and links are what it stands on")
    return Path(lake.root) / "_backfills"


def ids(lake: Lake) -> list[str]:
    """Plans, oldest first."""
    root = folder(lake)
    return sorted(path.parent.name for path in root.glob("*/journal.json")) if root.is_dir() else []


def new_id() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:4]}"


def listed(lake: Lake) -> list[dict[str, Any]]:
    """Plans, oldest first: plan, status, window, rules (name and fingerprint), changed (rows, None while it is computed),
    changed_at."""
    found = []
    for plan_id in ids(lake):
        run = Folder(lake, plan_id)
        try:
            journal, body = run.read("journal"), run.read("plan")
            report = run.read("report") if (run.root / "report.json").exists() else None
        except BackfillError as error:
            durable.tell(str(error))
            found.append({"plan": plan_id, "status": DAMAGED, "window": ["?", "?"], "rules": None, "fingerprint": None, "changed": None, "changed_at": None})
            continue
        found.append({
            "plan": plan_id, "status": journal["status"], "window": body["window"],
            "rules": report and report["rules"]["version"], "fingerprint": body["fingerprint"],
            "changed": report and sum(sum(kinds.values()) for kinds in report["rows"].values()),
            "changed_at": journal["changed_at"],
        })  # fmt: skip
    return found


def shown(lake: Lake, plan_id: str) -> dict[str, Any]:
    """The report of a plan, and its status. Raises BackfillError where there is none."""
    run = Folder(lake, plan_id)
    journal = run.read("journal")
    if journal["status"] == COMPUTING:
        raise BackfillError(f"plan {plan_id} was not finished; plan the range again, which goes on where it was")
    return {**run.read("report"), "status": journal["status"]}


def window_of(body: dict[str, Any], name: str = "window") -> Window:
    start, end = (dt.datetime.fromisoformat(one) for one in body[name])
    return Window(start, end)


def texts(window: Window) -> list[str]:
    return [window.start.isoformat(), window.end.isoformat()]


@contextmanager
def claim(lake: Lake, window: Window, what: str) -> Iterator[None]:
    """Work alone on these hours. Raises BackfillError where something else works on one of them."""
    running = durable.make_folder(folder(lake) / "running")
    mine = running / f"{uuid.uuid4().hex}.json"
    with open(running / "lock", "a+") as door, open(mine, "w") as handle:
        fcntl.flock(door, fcntl.LOCK_EX)
        try:
            for other in sorted(running.glob("*.json")):
                if other != mine:
                    _meets(other, window, what)
            fcntl.flock(handle, fcntl.LOCK_EX)
            handle.write(json.dumps({"what": what, "pid": os.getpid(), "window": texts(window)}))
            handle.flush()
        except BackfillError:
            mine.unlink()
            raise
        finally:
            fcntl.flock(door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            mine.unlink(missing_ok=True)


def _meets(path: Path, window: Window, what: str) -> None:
    """Raises BackfillError where what runs there meets the window; sweeps away what a killed process left."""
    with open(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                body = json.loads(handle.read())
            except ValueError:
                raise BackfillError(f"{path} is damaged, though what wrote it still works on its hours; wait for its end, then try again") from None
        else:
            path.unlink(missing_ok=True)
            return
    theirs = window_of(body)
    if theirs.start < window.end and window.start < theirs.end:
        raise BackfillError(
            f"{body['what']} (process {body['pid']}) works on [{body['window'][0]}, {body['window'][1]}), which meets "
            f"[{window.start.isoformat()}, {window.end.isoformat()}) of {what}; wait for its end, or take hours beside it"
        )


def next_number(lake: Lake) -> int:
    """A number for a commit of ours, greater than any that a journal or the commit log names."""
    with open(folder(lake) / "running" / "lock", "a+") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        path = folder(lake) / "number.json"
        newest = lake.log.newest()
        try:
            last = durable.unsealed(path, NUMBER)["number"]
        except FileNotFoundError:
            last = _greatest_number(lake)
        except (durable.DamagedError, TypeError, KeyError) as error:
            durable.set_aside(path, getattr(error, "why", "is damaged"), "the number is taken from the journals of the plans")
            last = _greatest_number(lake)
        number = max(last, newest.apps.get("backfill", 0) if newest else 0) + 1
        durable.write_durably(path, durable.sealed(NUMBER, {"number": number}))
        return number


def _greatest_number(lake: Lake) -> int:
    """The greatest that a journal names. Raises BackfillError for a damaged one: what it names could be given out twice."""
    return max((Folder(lake, plan_id).read("journal").get("number") or 0 for plan_id in ids(lake)), default=0)


def discard(lake: Lake, plan_id: str) -> None:
    """Delete a plan that is not in force. Raises BackfillError for one that is: undo it first."""
    found = Folder(lake, plan_id)
    status = found.read("journal")["status"]
    if status not in (COMPUTING, PLANNED, UNDONE):
        raise BackfillError(f"plan {plan_id} is {status}; `glasshouse backfill undo {plan_id}` first")
    (found.root / "journal.json").unlink()
    shutil.rmtree(found.root)


def forget(lake: Lake, keep: dt.timedelta, now: dt.datetime | None = None) -> list[str]:
    """Delete plans with which nothing was done for `keep`; one that is applied can then no longer be undone."""
    before, gone = (now or dt.datetime.now(dt.UTC)) - keep, []
    if lake.log is None or not folder(lake).is_dir():
        return gone
    for plan_id in ids(lake):
        found = Folder(lake, plan_id)
        try:
            journal = found.read("journal")
        except BackfillError as error:  # it stays, with the files that it may name
            durable.tell(str(error))
            continue
        if dt.datetime.fromisoformat(journal["changed_at"]) >= before or journal["status"] in (APPLYING, UNDOING):
            continue
        try:
            with claim(lake, window_of(journal), f"forgetting plan {plan_id}"):
                (found.root / "journal.json").unlink()
                shutil.rmtree(found.root)
                gone.append(plan_id)
        except BackfillError:  # at work just now
            continue
    return gone
