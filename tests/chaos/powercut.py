"""Power cuts: what a process told the disk is recorded, and at any point of it the disk is built that a cut there leaves.

Here: the recording (powercut.c, preloaded), the disks of a cut, the suite: live labeler, backfill, housekeeping, versions of the
ranker, each cut many times, restarted and compared. `make chaos-hostile` runs it with the other attacks. Not here: assertions
(tests/faults/test_durable.py runs a short form).

A file's bytes count as on the disk from an fsync of it on, its name from an fsync of its folder on. What was not synced is in the
worst case gone (STRICT: no name, no byte of it), or its name is there and its bytes are not (EAGER: how journals of ext4 and XFS
leave a file that was renamed and never synced: empty), or of each folder the first few of its changes (MIXED).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STRICT, EAGER, MIXED = "strict", "eager", "mixed"
MODES = (STRICT, EAGER, MIXED)
HOURS = 3  # of the log that is labeled
BATCH_EVENTS = 60
FIRST_ENTRY = "/_delta_log/00000000000000000000.json"


# --- recording -------------------------------------------------------------------------------------------------------


def mark(text: str) -> None:
    """Leave a mark in the recording: from here on somebody was told of `text`. Nothing happens without one."""
    with contextlib.suppress(FileNotFoundError):
        os.close(os.open(f"POWERCUT_MARK:{text}", os.O_RDONLY))


def shim() -> Path:
    """The library to preload, compiled once a process."""
    if not _built:
        target = Path(tempfile.mkdtemp(prefix="powercut-")) / "powercut.so"
        source = Path(__file__).with_name("powercut.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", target, source, "-ldl", "-lpthread"], check=True)
        _built.append(target)
    return _built[0]


_built: list[Path] = []


@dataclass
class _File:
    """body: where the bytes lie that are on the disk; None before the first fsync."""

    body: Path | None = None


@dataclass
class _Folder:
    """names: as the process sees them; kept: as they are on the disk; since: changes (name, what or None) after that."""

    names: dict[str, _File | _Folder] = field(default_factory=dict)
    kept: dict[str, _File | _Folder] = field(default_factory=dict)
    since: list[list[tuple[str, _File | _Folder | None]]] = field(default_factory=list)

    def change(self, *changes: tuple[str, _File | _Folder | None]) -> None:
        _applied(self.names, changes)
        self.since.append(list(changes))

    def sync(self) -> None:
        self.kept, self.since = dict(self.names), []


def _applied(names: dict, changes: Sequence[tuple[str, _File | _Folder | None]]) -> dict:
    for name, what in changes:
        if what is None:
            names.pop(name, None)
        else:
            names[name] = what
    return names


class Recording:
    """What a process did to the files below `root`, from what they were when this was made."""

    def __init__(self, root: Path, folder: Path):
        self.root, self.store = Path(root).absolute(), Path(folder).absolute()
        (self.store / "before").mkdir(parents=True)
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.root, self.store / "before", dirs_exist_ok=True)
        self._inodes: dict[int, _File | _Folder] = {}
        self._top = self._load(self.root, self.store / "before")
        self._done = 0

    def _load(self, place: Path, copy: Path) -> _Folder:
        found = _Folder()
        for path in place.iterdir():
            one = self._load(path, copy / path.name) if path.is_dir() else self._inodes.get(path.stat().st_ino) or _File(copy / path.name)
            self._inodes[path.stat().st_ino] = found.names[path.name] = one
        found.sync()
        self._inodes[place.stat().st_ino] = found
        return found

    def run(self, command: Sequence[str], **environment: str) -> subprocess.CompletedProcess:
        """Run a command under the recording."""
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env={
                **os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1", "LD_PRELOAD": str(shim()), "POWERCUT_ROOT": str(self.root),
                "POWERCUT_STORE": str(self.store), **environment,
            },
        )  # fmt: skip

    @property
    def events(self) -> list[list[str]]:
        """kind, inode, path, other."""
        return [line.split("\t") for line in (self.store / "log").read_text().splitlines()]

    def disks(self, cuts: Sequence[tuple[int, str]], into: Path, seed: int) -> Iterator[tuple[int, str, list[str], Path]]:
        """(event, mode, marks so far, folder) of each cut, (event, mode), in order; the folder is gone at the next one. Once only."""
        dice, marks, events = random.Random(seed), [], self.events
        for at, mode in sorted(cuts):
            for kind, inode, path, other in events[self._done : at]:
                if kind == "mark":
                    marks.append(path)
                else:
                    self._replay(kind, int(inode), path, other)
            self._done = max(self._done, at)
            shutil.rmtree(into, ignore_errors=True)
            self._build(self._top, into, mode, dice)
            yield at, mode, list(marks), into
        shutil.rmtree(into, ignore_errors=True)

    def _place(self, path: str) -> tuple[_Folder, str]:
        parts = Path(path).relative_to(self.root).parts
        folder = self._top
        for part in parts[:-1]:
            folder = folder.names[part]
        return folder, parts[-1]

    def _replay(self, kind: str, inode: int, path: str, other: str) -> None:
        if kind == "create":
            folder, name = self._place(path)
            self._inodes[inode] = _File()
            folder.change((name, self._inodes[inode]))
        elif kind == "mkdir":
            if path != str(self.root):
                folder, name = self._place(path)
                self._inodes[inode] = _Folder()
                folder.change((name, self._inodes[inode]))
        elif kind == "sync":
            if inode in self._inodes:
                self._inodes[inode].body = self.store / other
        elif kind == "syncdir":
            if inode in self._inodes:
                self._inodes[inode].sync()
        elif kind == "unlink":
            folder, name = self._place(path)
            folder.change((name, None))
        elif kind in ("rename", "link"):
            folder, name = self._place(path)
            target, new = self._place(other)
            what = folder.names[name]
            if kind == "link":
                target.change((new, what))
            elif folder is target:
                folder.change((new, what), (name, None))
            else:
                target.change((new, what))
                folder.change((name, None))

    def _build(self, folder: _Folder, into: Path, mode: str, dice: random.Random) -> None:
        into.mkdir(parents=True)
        names = folder.names
        if mode == STRICT:
            names = folder.kept
        elif mode == MIXED:
            names = dict(folder.kept)
            for changes in folder.since[: dice.randint(0, len(folder.since))]:
                _applied(names, changes)
        for name, what in names.items():
            if isinstance(what, _Folder):
                self._build(what, into / name, mode, dice)
            elif what.body is None:
                (into / name).touch()
            else:
                shutil.copyfile(what.body, into / name)


def cuts_of(recording: Recording, count: int, seed: int) -> list[tuple[int, str]]:
    """So many cuts: at marks, where most is promised, where a table's first entry has got its name, and anywhere else; the modes in turn."""
    events, dice = recording.events, random.Random(seed)
    told = [place + 1 for place, one in enumerate(events) if one[0] == "mark"]
    dice.shuffle(told)
    born = [place + 1 for place, one in enumerate(events) if any(text.endswith(FIRST_ENTRY) for text in one[2:])]
    dice.shuffle(born)
    places = told[: count // 2] + born[: count // 4]
    places += [dice.randint(1, len(events)) for _ in range(count - len(places))]
    return [(place, MODES[number % len(MODES)]) for number, place in enumerate(places)]


# --- the suite -------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """cuts: by work and mode. lost, doubled: rows. untold: what somebody had been told of and is not there. refused: restarts
    that ended with an error. first: what the first few faults were."""

    cuts: dict[str, int] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    untold: int = 0
    refused: int = 0
    told_of_repair: int = 0
    events: int = 0
    seconds: float = 0.0
    first: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """Cuts after which something was wrong, at least."""
        return self.lost + self.doubled + self.untold + self.refused

    def fault(self, text: str) -> None:
        if len(self.first) < 10:
            self.first.append(text)


def run(folder: Path, cuts: int = 60, seed: int = 1, works: Sequence[str] = (), say: Callable[[str], None] = print) -> Report:
    """Cut the power so often in each work (live, backfill, tidy, versions), restart, and compare. Rows kind "power cut"."""
    report, began = Report(), time.monotonic()
    for work in works or tuple(WORKS):
        WORKS[work](Path(folder) / work, cuts, seed, report)
        say(f"power cut, {work}: {report.lost} lost, {report.doubled} doubled, {report.untold} untold, {report.refused} refused")
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _victim(recording: Recording, *words: str) -> None:
    done = recording.run([sys.executable, "-m", "tests.chaos.powercut_victim", *map(str, words)])
    if done.returncode:
        raise RuntimeError(f"the work to be cut failed by itself: {done.stderr[-2000:]}")


def _log(folder: Path, seed: int):
    from tests.integration.test_label_live import cut, shaken
    from tests.unit.test_label import big_log

    events = shaken(big_log(seed, count=BATCH_EVENTS * 8, keys=30, minutes=60 * HOURS), seed, 6)
    cut(folder, events, BATCH_EVENTS)
    return events


def _cut(recording: Recording, folder: Path, cuts: int, seed: int, report: Report, work: str, after: Callable[[Path, list[str]], None]) -> None:
    """Build each disk, and let `after` restart on it and compare; what it raises is a refusal."""
    report.events += len(recording.events)
    for at, mode, marks, disk in recording.disks(cuts_of(recording, cuts, seed), folder / "disk", seed):
        report.cuts[f"{work}, {mode}"] += 1
        said = io.StringIO()
        handler = logging.StreamHandler(said)
        logging.getLogger("glasshouse").addHandler(handler)
        try:
            after(disk, marks)
        except Exception as error:  # whatever it is: a restart after a power cut must need nobody
            report.refused += 1
            report.fault(f"{work}, {mode}, event {at}: {type(error).__name__}: {str(error)[:300]}")
        finally:
            logging.getLogger("glasshouse").removeHandler(handler)
            report.told_of_repair += bool(said.getvalue())


def live(folder: Path, cuts: int, seed: int, report: Report) -> None:
    """The live labeler; each batch that it told of must be there, and after the rest is labeled every row once."""
    from assets.attribution import live as labeler
    from assets.attribution.rules import Rules
    from assets.lake import Lake

    landing = folder / "landing"
    events = _log(landing, seed)
    recording = Recording(folder / "lake", folder / "record")
    _victim(recording, "live", recording.root, landing)

    def after(disk: Path, marks: list[str]) -> None:
        lake = Lake(str(disk))
        told = max((int(one) for one in marks), default=-1)
        moment = lake.recover()
        if (moment.apps.get("live", -1) if moment else -1) < told:
            report.untold += 1
            report.fault(f"live: batch {told} was told of and is not there")
        labeler.run(lake, landing, Rules(), 0, threading.Event(), once=True, say=str, snapshot_batches=3, batch_bytes=1)
        compare(lake, events, report)

    _cut(recording, folder, cuts, seed, report, "live", after)


def compare(lake, events: list[dict], report: Report) -> None:
    from tests.chaos import live as chaos

    found = chaos.Report()
    chaos._compare(lake, events, found)
    report.lost += found.lost
    report.doubled += found.doubled
    if found.lost or found.doubled:
        report.fault(f"rows: {found.lost} lost, {found.doubled} doubled")


def _labeled(folder: Path, seed: int):
    """A lake with a few labeled hours, and what its tables hold."""
    from assets.attribution import live as labeler
    from assets.attribution.rules import Rules
    from assets.lake import Lake

    landing, lake = folder / "landing", Lake(str(folder / "lake"))
    _log(landing, seed)
    labeler.run(lake, landing, Rules(), 0, threading.Event(), once=True, say=str, snapshot_batches=3, batch_bytes=1)
    return lake


TABLES = ("events", "impression_sessions", "click_sessions", "orphan_actions", "late_events", "labeled_hours")


def _contents(lake, names: Sequence[str] = TABLES) -> dict[str, Counter]:
    drop = ("labeled_at", "code", "run")
    return {name: Counter(str({k: v for k, v in row.items() if k not in drop}) for row in lake.read(name).to_pylist()) for name in names}


def backfill(folder: Path, cuts: int, seed: int, report: Report) -> None:
    """Plan, apply, undo: the tables hold the rows of before or of the plan, all of them; what was told of can be gone on with."""
    from assets.backfill import store, swap
    from assets.lake import Lake

    lake = _labeled(folder, seed)
    before = _contents(lake)
    recording = Recording(folder / "lake", folder / "record")
    _victim(recording, "backfill", recording.root)
    new = _planned_contents(folder, recording)

    def after(disk: Path, marks: list[str]) -> None:
        now = Lake(str(disk))
        now.recover()
        plans = store.ids(now)
        told = marks[-1].split()[0] if marks else None
        status = store.Folder(now, plans[0]).read("journal")["status"] if plans else None
        if told and (not plans or told not in _reached(status)):
            report.untold += 1
            report.fault(f"backfill: {told} was told of, the journal says {status}")
        if status in (store.APPLYING, store.APPLIED):
            swap.apply(now, plans[0])
        if status in (store.APPLYING, store.APPLIED, store.UNDOING):
            if status != store.UNDOING:
                _differ(_contents(now), new, report, "applied")
            swap.undo(now, plans[0])
        _differ(_contents(now), before, report, "not applied, or undone")

    _cut(recording, folder, cuts, seed, report, "backfill", after)


def _reached(status: str) -> tuple[str, ...]:
    order = ("planned", "applied", "undone")
    return order[: {"planned": 1, "applying": 1, "applied": 2, "undoing": 2, "undone": 3}.get(status, 0)]


def _planned_contents(folder: Path, recording: Recording) -> dict[str, Counter]:
    """What the tables hold when the plan is applied: once more, with no cut."""
    from assets.backfill import store, swap
    from assets.lake import Lake

    whole = folder / "whole"
    shutil.copytree(recording.root, whole)
    lake = Lake(str(whole))
    swap.apply(lake, store.ids(lake)[0])
    found = _contents(lake)
    shutil.rmtree(whole)
    return found


def _differ(have: dict[str, Counter], want: dict[str, Counter], report: Report, what: str) -> None:
    lost = sum(sum((want[name] - have[name]).values()) for name in want)
    doubled = sum(sum((have[name] - want[name]).values()) for name in want)
    report.lost, report.doubled = report.lost + lost, report.doubled + doubled
    if lost or doubled:
        report.fault(f"{what}: {lost} rows lost, {doubled} doubled")


def tidy(folder: Path, cuts: int, seed: int, report: Report) -> None:
    """Compaction and vacuum, and rows written by other ways (append once, a window, a new column): no row changes."""
    from assets.lake import Lake

    lake = _labeled(folder, seed)
    before = _contents(lake)
    recording = Recording(folder / "lake", folder / "record")
    _victim(recording, "tidy", recording.root)

    def after(disk: Path, marks: list[str]) -> None:
        from tests.chaos.powercut_victim import EXTRA

        now = Lake(str(disk))
        now.recover()
        _differ(_contents(now), before, report, "tidied")
        told = max((int(one) for one in marks if one.isdigit()), default=-1)
        have = sorted(now.read(EXTRA.name)["number"].to_pylist()) if now.exists(EXTRA.name) else []
        if have[: told + 1] != list(range(told + 1)):
            report.untold += 1
            report.fault(f"tidy: append {told} was told of, the table holds {have}")

    _cut(recording, folder, cuts, seed, report, "tidy", after)


def versions(folder: Path, cuts: int, seed: int, report: Report) -> None:
    """Versions of the ranker, which one serves, a training's checkpoints: what was told of is there and whole."""
    from assets.lake import Lake
    from assets.ranking import checkpoint, registry

    (folder / "lake").mkdir(parents=True)
    recording = Recording(folder / "lake", folder / "record")
    _victim(recording, "versions", recording.root)

    def after(disk: Path, marks: list[str]) -> None:
        lake = Lake(str(disk))
        told = dict(one.split("=") for one in marks)
        names = registry.versions(lake)
        for name in names:
            for file in registry.FILES:
                if (registry.folder(lake) / name / file).read_bytes()[:1] != b"{":
                    raise ValueError(f"{name}/{file} is not what was written")
            registry.read_metrics(lake, name)
        if "version" in told and told["version"] not in names or "serving" in told and registry.serving(lake) != told["serving"]:
            if registry.serving(lake) not in names:  # a later promote may have come through
                report.untold += 1
                report.fault(f"versions: {told}, there are {names}, {registry.serving(lake)} serves")
        if "step" in told:
            found = checkpoint.newest(registry.folder(lake) / ".training-x")
            step = checkpoint.read_meta(found)["step"] if found else -1
            if step < int(told["step"]) or (found / "rank-0.pt").read_bytes() != b"x" * 5000:
                report.untold += 1
                report.fault(f"versions: checkpoint {told['step']} was told of, there is {step}")

    _cut(recording, folder, cuts, seed, report, "versions", after)


WORKS: dict[str, Callable[[Path, int, int, Report], None]] = {"live": live, "backfill": backfill, "tidy": tidy, "versions": versions}


def main() -> int:
    from tests.chaos import command

    return command.main(__doc__, "Power cuts", "powercut.json", run, ("lost", "doubled", "untold", "refused"), kills=100)


if __name__ == "__main__":
    sys.exit(main())
