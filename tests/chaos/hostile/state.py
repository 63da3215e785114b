"""Files of a home that a failing disk or a power cut has damaged: noticed by name, or mended and told.

Here: single damages under a labeler that is started again, and the power cuts of tests/chaos/powercut.py, run on the tree under test.
Not here: each of the damages that are known (tests/faults).
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.chaos.hostile.attack import Skip, attack
from tests.chaos.hostile.house import House, Tree, column, now, works

HERE = Path(__file__).resolve().parents[3]
CUTS = 4  # of each kind of work; `python -m tests.chaos.powercut` makes more
POWERCUT = ("powercut.py", "powercut_victim.py", "powercut.c", "command.py")


def _damaged(house: House, damage: Callable[[Path], Path | None]) -> str | None:
    """Label some files, stop, damage a file of the lake, start again and let it read: the file is named, or nothing is lost.

    damage: given the lake's folder, returns the damaged file.
    """
    one = House(house.tree, Path(tempfile.mkdtemp(dir=house.folder)), ("live",))
    try:
        one.start()
        for _ in range(4):
            if seen := works(one, count=50):
                return f"before the damage: {seen}"
        one.stop()
        events = set(column(one, "events", "event_id"))
        path = damage(one.home / "lake")
        length = len(one.said())
        told = _told(one, path, length)
        one.end()
        if told:
            return None
        lost = events - set(column(one, "events", "event_id"))
        return f"{path.relative_to(one.home)} is damaged and nobody says so" + (f"; {len(lost)} events are lost" if lost else "")
    finally:
        one.end()


def _told(one: House, path: Path, length: int) -> bool:
    """Start again, take a repeat of an old event and new ones, relabel: whether any of it names the file."""
    try:
        one.start()
        works(one, 10)
    except Exception:  # noqa: BLE001  that it does not start is an answer, too, if it names the file
        pass
    if path.name in one.said()[length:]:
        return True
    one.stop()
    hour = now().replace(minute=0, second=0, microsecond=0)
    span = (hour.isoformat()[:16], (hour + dt.timedelta(hours=1)).isoformat()[:16])
    words = ("check",), ("status",), ("backfill", "plan", "--from", span[0], "--to", span[1])
    return any(path.name in one.tree.run(one.home, *command, COLUMNS="400").stdout for command in words)


def _flip(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    for spot in (len(data) // 3, len(data) // 2):
        data[spot] ^= 0x10
    path.write_bytes(data)
    return path


def _newest(paths) -> Path:
    return max(paths, key=lambda path: (path.stat().st_mtime_ns, path.name))


@attack("state", verb="")
def emptied_delta_log_entry(house):
    """The newest entry of a table's log is a file of no bytes, as a journal leaves it: its events are not silently lost."""
    def damage(lake: Path) -> Path:
        path = max((lake / "events" / "_delta_log").glob("*.json"))
        path.write_bytes(b"")
        return path

    return _damaged(house, damage)


@attack("state", verb="")
def emptied_delta_log_entry_in_the_middle(house):
    """The same of an older entry: the table opens and lacks what it added."""
    def damage(lake: Path) -> Path:
        path = sorted((lake / "events" / "_delta_log").glob("*.json"))[-2]
        path.write_bytes(b"")
        return path

    return _damaged(house, damage)


@attack("state", verb="")
def flipped_bit_in_state(house):
    """A bit of the newest file of the labeler's own state (segments, snapshots): noticed by its checksum."""
    return _damaged(house, lambda lake: _flip(_newest(path for path in (lake / "_live").rglob("*") if path.is_file() and path.stat().st_size > 500)))


@attack("state", verb="")
def emptied_moment(house):
    """The newest file of the commit log is empty."""
    def damage(lake: Path) -> Path:
        folder = next(path for path in lake.iterdir() if path.is_dir() and path.name.startswith("_") and path.name != "_live")
        path = _newest(path for path in folder.rglob("*.json") if path.stat().st_size)
        path.write_bytes(b"")
        return path

    return _damaged(house, damage)


@attack("state", verb="")
def power_cuts(house):
    """The power is cut at recorded moments of a labeler, a backfill, housekeeping and versions: nothing told of is lost."""
    here = HERE / "tests" / "chaos"
    if not (here / "powercut.py").exists():
        raise Skip("tests/chaos/powercut.py is not in this checkout")
    if not shutil.which("gcc"):
        raise Skip("needs gcc, for what records the writes")
    copy, report = house.folder / "cut", house.folder / "powercut.json"
    shutil.copytree(house.tree.root, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__"), symlinks=True)
    for name in POWERCUT:
        shutil.copy(here / name, copy / "tests" / "chaos" / name)
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.powercut", "--kills", str(CUTS), "--report", str(report)], cwd=copy, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=Tree(copy, "copy").environment(house.home), timeout=600,
    )  # fmt: skip
    shutil.rmtree(copy, ignore_errors=True)
    if not report.exists():
        return f"the power cuts could not be made: {done.stdout[-300:]}"
    found = json.loads(report.read_text())
    bad = {name: found[name] for name in ("lost", "doubled", "untold", "refused") if found[name]}
    return f"{bad} after {sum(found['cuts'].values())} power cuts: {found['first'][:1]}" if bad else None
