"""Processes of `make up` that die, hang, are left behind or meet another's: signals, ports, second labelers, absurd settings, copies.

Here: what happens to the others and what is said of it. Not here: kills at named points, rows compared (tests/chaos/live.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.hostile.attack import ALIVE, GONE, attack
from tests.chaos.hostile.house import NOT_OF_UP, ROLES, House, HouseError, free_port, in_time, works

BACK_SECONDS = 45  # a killed process answers again
HANG_SECONDS = 20  # the setting HANG_AFTER of these attacks
NOTICED_SECONDS = 180  # a hung one is noticed, asked to end, ended, and another one runs
DAEMON_SECONDS = 180  # Dagster's daemons give a sign of life every half minute
UNNOTICED_SECONDS = 30  # how long a tree is watched that has no such setting
GONE_SECONDS = 30  # after which nothing is left of a killed `up`
SETTINGS = {"HANG_AFTER": f"{HANG_SECONDS}s"}
WORDS = ("killed", "ended", "died", "again", "restart", "signal", "exit", "hung", "hang", "silent", "no sign")


def _said_since(house: House, length: int, role: str) -> bool:
    """Whether the output since then has a line that names the role and says what became of it."""
    return any(role in line and any(word in line.lower() for word in WORDS) for line in house.said()[length:].splitlines())


def _back(house: House, role: str, before: dict[str, int], length: int, within_s: float) -> str | None:
    """The role's process is another one and answers, it was said, and the other processes are who they were."""
    in_time(lambda: house.process.poll() is not None or (house.pids().get(role) not in (None, before[role]) and not house.missing(0)), within_s, 1)
    if house.process.poll() is not None:
        return f"`up` ended with {house.process.returncode}"
    if house.pids().get(role) in (None, before[role]):
        return f"{role} was not started again within {within_s:g} s"
    if missing := house.missing(10):
        return f"{', '.join(missing)} does not answer after {within_s:g} s"
    if not _said_since(house, length, role):
        return f"{role} was started again without a word"
    others = [name for name, pid in before.items() if name != role and house.pids().get(name) != pid]
    return f"{', '.join(others)} went down with {role}" if others else None


def _killed(role: str) -> Callable[[House], str | None]:
    def run(house: House) -> str | None:
        before, length = house.pids(), len(house.said())
        os.kill(before[role], signal.SIGKILL)
        return _back(house, role, before, length, BACK_SECONDS)

    run.__name__ = f"kill_{role}"
    run.__doc__ = f"SIGKILL to {role}: it comes back, it is said, the others live on."
    return run


for _role in ROLES:
    if _role not in NOT_OF_UP:
        attack("process", after=ALIVE, **SETTINGS)(_killed(_role))


def _hung(name: str, *roles: str, within_s: float = NOTICED_SECONDS) -> None:
    def run(house: House) -> str | None:
        before, length = house.pids(), len(house.said())
        noticed = within_s if house.tree.knows("HANG_AFTER") else UNNOTICED_SECONDS
        for role in roles:
            os.kill(before[role], signal.SIGSTOP)
        try:
            in_time(lambda: house.process.poll() is not None or all(house.pids().get(role) not in (None, before[role]) for role in roles), noticed, 1)
            unnoticed = [role for role in roles if house.pids().get(role) == before[role]]
            if unnoticed:
                return f"{', '.join(unnoticed)} hung for {noticed} s and nobody noticed"
        finally:
            for role in roles:
                with contextlib.suppress(OSError):
                    os.kill(before[role], signal.SIGCONT)
        if missing := house.missing(BACK_SECONDS):
            return f"{', '.join(missing)} does not answer"
        silent = [role for role in roles if not _said_since(house, length, role)]
        return f"{', '.join(silent)} started again without a word" if silent else None

    run.__name__ = f"hang_{name}"
    run.__doc__ = f"SIGSTOP to {', '.join(roles)}: noticed, started again, said."
    attack("process", after=ALIVE, **SETTINGS)(run)


_hung("servers", "clickhouse", "code")
_hung("workers", "traffic", "live", "orders")
_hung("pages", "dagster", "pages")
_hung("daemon", "daemon", within_s=DAEMON_SECONDS)


@attack("process", after=ALIVE, **SETTINGS)
def hang_for_a_moment(house):
    """SIGSTOP for two seconds to every process: nothing is ended for that."""
    before = house.pids()
    for pid in before.values():
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2)
    for pid in before.values():
        os.kill(pid, signal.SIGCONT)
    time.sleep(5)
    ended = [role for role, pid in before.items() if house.pids().get(role) != pid]
    return f"{', '.join(ended)} ended" if ended else None


# --- the end of `up` --------------------------------------------------------------------------------------------------------


def _leaves_nothing(house: House, number: int, within_s: float = GONE_SECONDS) -> str | None:
    os.kill(house.process.pid, number)
    in_time(lambda: house.process.poll() is not None and not house.processes(), within_s, 0.5)
    left = house.processes()
    return f"{len(left)} processes are left after {within_s:g} s: {', '.join(sorted(house.pids())[:9])}" if left or house.process.poll() is None else None


@attack("process", after=GONE, **SETTINGS)
def hangup_of_up(house):
    """SIGHUP, as a closed terminal sends it: everything ends."""
    return _leaves_nothing(house, signal.SIGHUP, 45)


@attack("process", after=GONE, **SETTINGS)
def kill_up(house):
    """SIGKILL to `up` itself: nothing is left behind it."""
    return _leaves_nothing(house, signal.SIGKILL)


@attack("process", after=GONE, **SETTINGS)
def terminate_up(house):
    """SIGTERM: everything ends, with status 0."""
    return _leaves_nothing(house, signal.SIGTERM, 45) or (f"`up` ended with {house.process.returncode}" if house.process.returncode else None)


# --- others -----------------------------------------------------------------------------------------------------------------


@attack("process", verb="")
def neighbour_on_the_same_port(house):
    """The endpoint of home A has stopped, B's answers at its port: what A labels must not land in B."""
    port = str(free_port())
    settings = {"GLASSHOUSE_CLICKHOUSE_PORT": port}
    made = [House(house.tree, house.folder / name, (verb,), settings) for name, verb in (("a", "clickhouse"), ("b", "clickhouse"), ("a2", "live"))]
    first, second, labeler = made
    labeler.home = first.home
    for one in (first, second):
        one.ports["clickhouse"] = int(port)
    try:
        first.start().stop()
        second.start()
        before = _tables(second)
        labeler.start()
        if seen := works(labeler):
            return seen
        grown = in_time(lambda: _tables(second) - before, 10)
        return f"A's labeler made {len(grown)} tables in B's ClickHouse" if grown else None
    finally:
        for one in made:
            one.end()


def _tables(house: House) -> set[str]:
    return {path.name for path in (house.home / "clickhouse" / "store").glob("*/*/*.sql")}


@attack("process", verb="")
def third_labeler(house):
    """One labeler hangs, a second takes over; a third is refused, the second goes on, the first commits no more."""
    first, second, third = (House(house.tree, house.folder / name, verb) for name, verb in
                            (("one", ("live",)), ("two", ("live", "--take-over")), ("three", ("live",))))  # fmt: skip
    second.home = third.home = first.home
    try:
        first.start()
        if seen := works(first):
            return seen
        os.kill(first.pids()["live"], signal.SIGSTOP)
        second.start()
        if seen := works(second):
            return f"the second: {seen}"
        with contextlib.suppress(Exception):
            third.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            third.process.wait(45)  # it has to load first, and then to find the second
        if third.process.poll() is None:
            if second.process.poll() is not None:
                return "the third labeler evicted the second"
            return "a third labeler runs beside the second"
        with contextlib.suppress(OSError, KeyError):
            os.kill(first.pids()["live"], signal.SIGCONT)
        return (f"the second: {seen}" if (seen := works(second)) else None)
    finally:
        for one in (first, second, third):
            one.end()


ABSURD = {
    "CLICKHOUSE_PORT": ("99999", "-1", "0x50"), "DAGSTER_PORT": ("70000",), "LIVE_MEMORY_MB": ("-5", "0"), "LIVE_BATCH_MB": ("-1",), "KEEP_DAYS": ("nan", "-1", "0.0001", "1e300"),
    "WINDOW": ("999999999999d", "0s"), "TRAFFIC_RATE": ("-5",), "LIVE_INTERVAL": ("-1s",), "CLICKHOUSE_ROW_DAYS": ("99999999999",),
}  # fmt: skip


@attack("setting", verb="")
def absurd_settings(house):
    """Ports, sizes and times that cannot be meant: refused by name, in a line, before anything is written."""
    bad = []
    for name, values in ABSURD.items():
        for value in values:
            done = house.tree.run(house.home, "settings", **{f"GLASSHOUSE_{name}": value})
            if done.returncode == 0 or "Traceback" in done.stdout or name not in done.stdout:
                bad.append(f"{name}={value}")
    return f"{len(bad)} are taken or end in a traceback: {', '.join(bad[:12])}" if bad else None


@attack("setting", verb="")
def home_with_odd_letters(house):
    """A home whose name holds ?, #, %, a blank and an umlaut: it works, or the setting is refused by name."""
    odd = House(house.tree, house.folder / "ho?me #%41 \xfc", ("live",))
    try:
        with contextlib.suppress(HouseError):
            odd.start()
        if odd.process.poll() is not None and "GLASSHOUSE_HOME" in odd.said() and "Traceback" not in odd.said():
            return None
        if seen := works(odd):
            return seen
        done = house.tree.run(odd.home, "status")
        return None if done.returncode == 0 and "Traceback" not in done.stdout else f"status: {done.stdout[-200:]}"
    finally:
        odd.end()


@attack("state", verb="")
def copied_home(house):
    """A home is copied and the copy used: nothing of the original changes, Dagster's log least of all."""
    original, copy = House(house.tree, house.folder / "first", ("live",)), House(house.tree, house.folder / "second", ("live",))
    try:
        original.start()
        if seen := works(original):
            return seen
        time.sleep(3)  # Dagster's follower
        original.stop()
        shutil.rmtree(copy.home)
        shutil.copytree(original.home, copy.home)
        before = _stamps(original.home)
        copy.start()
        if seen := works(copy):
            return seen
        time.sleep(4)
        changed = [str(path) for path, stamp in _stamps(original.home).items() if before.get(path) != stamp]
        return f"{len(changed)} files of the original changed: {', '.join(changed[:4])}" if changed else None
    finally:
        for one in (original, copy):
            one.end()


def _stamps(home: Path) -> dict[Path, tuple[int, int]]:
    return {path.relative_to(home): (path.stat().st_mtime_ns, path.stat().st_size) for path in home.rglob("*") if path.is_file() and path.suffix != ".lock"}
