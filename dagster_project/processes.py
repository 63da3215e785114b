"""Which processes a home has running, and how they end: what `up`, `down` and `status` agree on.

Here: the files in HOME/run/ (a lock each, held as long as its process lives), the mark that everything below `make up` bears in its
environment, ending processes. Not here: which services there are (services.py), restarts (supervisor.py).

A lock (flock) says that its process lives, whatever number that had before; the number is believed only together with the time at
which the process began. A home that was copied holds copies of the files and none of the locks.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

FOLDER = "run"  # in the home
UP, CLICKHOUSE = "up", "clickhouse"
STATES = "up.json"  # what `up` last wrote of its services
# Inherited by every process below `up`, whatever session it makes for itself. RUN/SERVICE; not GLASSHOUSE_: it is no setting.
MARK, HOME = "_GLASSHOUSE_UP", "GLASSHOUSE_HOME"
STOP_SECONDS = 20.0  # the live labeler finishes the batch in hand
PROBED_SECONDS = 2.0  # for who only looks at the lock of `up` to let go of it
KILLED_SECONDS = 5.0  # for the kernel to take away what was killed

Say = Callable[[str], None]


class ProcessError(Exception):
    """A home whose processes stand in the way; the message says what to do."""


@dataclass(frozen=True)
class Registered:
    """A process that has told the home of itself. began: see `began`, with which `pid` names one process only."""

    name: str
    pid: int
    began: float
    home: str
    host: str
    since: float  # seconds since the epoch

    def alive(self) -> bool:
        return self.host == socket.gethostname() and began(self.pid) == self.began

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def began(pid: int) -> float | None:
    """When a process began, as a number that a process that gets its pid later does not have; None where there is none.

    On Linux in ticks since the machine's start, which no clock set back can change.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] == b"Z" else float(fields[19])
    import psutil

    with suppress(psutil.Error):
        return psutil.Process(pid).create_time()
    return None


# --- who is there -----------------------------------------------------------------------------------------------------


@contextmanager
def registered(home: Path, name: str) -> Iterator[None]:
    """Be known as a process of the home while the `with` lasts, so that `glasshouse down` ends it and `status` lists it."""
    folder = _folder(home)
    path = folder / f"{name}.{os.getpid()}.lock"
    beside = folder / f".{path.name}"
    with open(beside, "w+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _write(handle, _myself(home, name))
        beside.rename(path)  # seen only with its lock held
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def leaving_nothing(home: Path, name: str) -> Iterator[None]:
    """What is started while the `with` lasts ends with it: it bears a mark in its environment, as what is below `up`.

    A JVM outlives the Python that started it where that one is stopped just then. Of a process that is killed `down` finds what is left.
    """
    run, before = f"{name}-{os.getpid()}-{began(os.getpid())}", {key: os.environ.get(key) for key in (MARK, HOME)}
    os.environ |= {MARK: f"{run}/below {name}", HOME: str(home)}
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
        sweep(lambda: marked(run), KILLED_SECONDS)


@contextmanager
def only_up(home: Path) -> Iterator[None]:
    """Be the one `up` of a home. Raises ProcessError where another is, naming its pid."""
    with open(_folder(home) / f"{UP}.lock", "a+") as handle:
        end = time.monotonic() + PROBED_SECONDS
        while not _taken(handle):
            other = _read(handle, home, seconds=0)
            if not (other and other.alive()) and time.monotonic() < end:
                time.sleep(0.01)  # `status` or `down` looks whether somebody holds it
                continue
            raise ProcessError(
                f"{home} is up already{f': process {other.pid} on {other.host}' if other else ''}; "
                "`glasshouse down` stops it, GLASSHOUSE_HOME=... names another home"
            )
        _write(handle, _myself(home, UP))
        try:
            yield
        finally:
            handle.truncate(0)


def running(home: Path) -> list[Registered]:
    """The processes of a home that live and have told of themselves: `up` first, ClickHouse last."""
    found = []
    for path in sorted((home / FOLDER).glob("[!.]*.lock")):
        with suppress(OSError), open(path, "r+") as handle:
            # Shared: two who look do not take each other for the holder.
            if _taken(handle, fcntl.LOCK_SH):  # nobody holds it: left by one that was killed
                if path.stem != UP:
                    path.unlink(missing_ok=True)
            elif (one := _read(handle, home)) is not None:
                found.append(one)
    return sorted(found, key=lambda one: (one.name != UP, one.name == CLICKHOUSE, one.name, one.pid))


def _folder(home: Path) -> Path:
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _myself(home: Path, name: str) -> Registered:
    return Registered(name, os.getpid(), began(os.getpid()), str(home), socket.gethostname(), time.time())


def _taken(handle: TextIO, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(handle: TextIO, one: Registered) -> None:
    handle.seek(0)
    handle.truncate(0)
    handle.write(json.dumps(asdict(one)))
    handle.flush()


def _read(handle: TextIO, home: Path, seconds: float = 1.0) -> Registered | None:
    """Who holds a lock, or None where it does not say so: it just changes hands, or is another home's (a linked copy)."""
    end = time.monotonic() + seconds
    while True:
        handle.seek(0)
        with suppress(ValueError, TypeError):
            one = Registered(**json.loads(handle.read()))
            return one if one.home == str(home) else None
        if time.monotonic() >= end:
            return None
        time.sleep(0.05)


# --- what `up` says of its services -----------------------------------------------------------------------------------


def write_states(home: Path, states: list[dict[str, Any]]) -> None:
    """Leave for `status` what the services of `up` do: name, state, pid, restarts, beat_at (of time.monotonic), said."""
    path = home / FOLDER / STATES
    beside = path.with_name(f".{STATES}.{os.getpid()}")
    beside.write_text(json.dumps({"pid": os.getpid(), "services": states}))
    beside.replace(path)


def read_states(home: Path) -> list[dict[str, Any]]:
    """The services of the home's `up`; empty where none runs."""
    up = next((one for one in running(home) if one.name == UP), None)
    with suppress(OSError, ValueError):
        body = json.loads((home / FOLDER / STATES).read_text())
        return body["services"] if up and body["pid"] == up.pid else []
    return []


# --- ending -----------------------------------------------------------------------------------------------------------


def marked(mark: str | None = None, home: Path | None = None) -> list[Any]:
    """Processes (psutil) that bear the mark: of a RUN, of a RUN/SERVICE, or any that a home's `up` has started. Never this one.

    Whom they have for a parent, and in which session they are, does not matter.
    """
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            theirs = process.environ() if process.pid != os.getpid() else {}
            bears = theirs.get(MARK, "")
            if bears and (mark is None or bears == mark or bears.startswith(f"{mark}/")) and (home is None or theirs.get(HOME) == str(home)):
                found.append(process)
    return found


def leftovers(home: Path) -> list[Any]:
    """What a home's processes started and left behind: it bears a mark, and is below none that has told of itself and lives."""
    beneath = {f"{one.name}-{one.pid}-{one.began}" for one in running(home)}
    return [process for process in marked(home=home) if _mark_of(process).partition("/")[0] not in beneath]


def _mark_of(process: Any) -> str:
    import psutil

    with suppress(psutil.Error, OSError):
        return process.environ().get(MARK, "")
    return ""


def heard(number: int) -> bool:
    """Whether to listen to a signal: who was started by nohup is to outlive its terminal."""
    return number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN


def hit(process: Any, number: int) -> None:
    """Send a signal to a process (psutil's, which knows when the number has another owner); gone is no error."""
    import psutil

    with suppress(psutil.Error):
        process.send_signal(number)
        if number != signal.SIGKILL:
            process.send_signal(signal.SIGCONT)  # one that was stopped would not hear the other before


class Sweep:
    """Ends what `found` finds, in steps: asked to, then killed after so many seconds, until nothing is found.

    told: what it was, by pid.
    """

    def __init__(self, found: Callable[[], list[Any]], seconds: float):
        self.found, self.told = found, {}
        self.kill_at = time.monotonic() + seconds
        self.give_up_at = self.kill_at + KILLED_SECONDS

    def step(self) -> bool:
        """True where nothing is left, or what is left cannot be ended."""
        for process in (left := self.found()):
            if process.pid not in self.told:
                self.told[process.pid] = _called(process)
                hit(process, signal.SIGTERM)
            if time.monotonic() >= self.kill_at:
                hit(process, signal.SIGKILL)
        return not left or time.monotonic() > self.give_up_at


def sweep(found: Callable[[], list[Any]], seconds: float) -> list[str]:
    """A Sweep to its end; returns what it was."""
    work = Sweep(found, seconds)
    while not work.step():
        time.sleep(0.1)
    return list(work.told.values())


def _called(process: Any) -> str:
    import psutil

    with suppress(psutil.Error, OSError):
        service = process.environ().get(MARK, "").partition("/")[2]
        return f"{service or process.name()} (pid {process.pid})"
    return f"pid {process.pid}"


def down(home: Path, locks: list[Path], say: Say) -> int:
    """End everything that runs in a home, whoever started it: asked to, then killed. Returns how many it has ended.

    locks: files of which the holder is a process of the home too, though it has not told of itself. Raises ProcessError for one
    that does not end, or that another machine has.
    """
    ended = 0
    for group in (lambda one: one.name == UP, lambda one: one.name not in (UP, CLICKHOUSE), lambda one: one.name == CLICKHOUSE):
        ended += _end([one for one in running(home) if group(one)], say)
    ended += _end(_holders(home, locks), say)
    left = sweep(lambda: marked(home=home), STOP_SECONDS)
    for one in left:
        say(f"{one} stopped; it was left over")
    return ended + len(left)


def _end(those: list[Registered], say: Say) -> int:
    import psutil

    found = {}
    for one in those:
        if not one.alive():
            raise ProcessError(f"{one} holds its lock in {Path(one.home) / FOLDER} from {one.host}: stop it there")
        with suppress(psutil.NoSuchProcess):
            found[one] = psutil.Process(one.pid)
            say(f"stopping {one}")
            hit(found[one], signal.SIGTERM)
    # `up` itself waits for its services, then for ClickHouse.
    _wait(found, 3 * STOP_SECONDS if any(one.name == UP for one in found) else STOP_SECONDS)
    for one in (stubborn := [one for one in found if one.alive()]):
        say(f"{one} does not stop: killed")
        hit(found[one], signal.SIGKILL)
    _wait(stubborn, KILLED_SECONDS)
    if left := [str(one) for one in found if one.alive()]:
        raise ProcessError(f"{', '.join(left)} cannot be ended, not even by SIGKILL; is a disk gone? Look at it with `ps`")
    return len(found)


def _holders(home: Path, locks: list[Path]) -> list[Registered]:
    """The processes that hold these locks, by the kernel's own list (Linux)."""
    files = {}
    for path in locks:
        with suppress(OSError):
            stat = path.stat()
            files[f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"] = path
    found = {}
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()  # 1: FLOCK ADVISORY WRITE pid device:inode from to
            if len(words) > 5 and words[1] == "FLOCK" and words[5] in files:
                pid = int(words[4])
                if pid != os.getpid() and (start := began(pid)) is not None:
                    name = f"the holder of {files[words[5]].name}"
                    found[pid] = Registered(name, pid, start, str(home), socket.gethostname(), time.time())
    return list(found.values())


def _wait(those: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(one.alive() for one in those) and time.monotonic() < end:
        time.sleep(0.05)
