"""Keeping several processes up: starting, watching, starting again, stopping together, and printing what they say.

Here: what is true of any processes. Not here: which there are (services.py), how a heartbeat is found (heartbeats.py), who else
is in a home (processes.py).

One thread, a loop of a tenth of a second. A process that ends is started again, later each time it ends soon; one whose heartbeat
(a file that something touches while it is well) stands still is asked to end, then killed, and started again. What a process has
started itself goes with it, whatever session it has made for itself. A killed supervisor leaves nothing: keeper.py.

supervisord and circus were looked at: neither hears a heartbeat, both leave their processes behind when they are killed.
"""

from __future__ import annotations

import datetime as dt
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from dagster_project import processes
from dagster_project.processes import KILLED_SECONDS, STOP_SECONDS

SYSTEM = "system"  # the name under which the supervisor itself speaks
TICK = 0.1
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # before a process starts again; twice as long each time
WELL_SECONDS = 60.0  # who ran so long begins with FIRST_WAIT again
OFTEN = 5  # ends in a row after which it is said what to do
START_SECONDS = 300.0  # without a first heartbeat: a first start compiles, makes databases, folds what was open
BUSY_TIMES = 10  # a process that works hears its time limit so many times later
BUSY_SHARE = 0.05  # of a core: below it nobody works
BUSY_BYTES = 10 * 2**20  # read or written: who waits for a slow disk
STATES_SECONDS = 2.0
CLEAR_SECONDS = 2.0  # for what an ended process had started
PAUSE_SECONDS = 2.0  # between two turns of the loop
HELD_LINES, LONGEST_LINE, PIECE = 10_000, 2**16, 4096
WIDEST = 10  # bytes of one character at most, as backslashreplace writes it


@dataclass(frozen=True)
class Service:
    """A process to keep up.

    heartbeat: a file that is touched while it is well; None where there is none. hang_after: seconds without a touch after which
    it hangs. works: it touches the file itself between pieces of work, which may be long: as long as it uses the processor or
    the disk it hangs only after BUSY_TIMES as long. watched_by: the service that touches the file, if it does not do so itself.
    last: stopped when all others have ended.
    """

    name: str
    command: list[str]
    heartbeat: Path | None = None
    hang_after: float = 120.0
    works: bool = False
    watched_by: str | None = None
    last: bool = False


@dataclass
class _Running:
    """A service and its process. Times: time.monotonic. state: starting, running, stopping, clearing (it has ended, what it had
    started is being ended), waiting (for its next start), ended.

    ends: in a row, without having run well between them. beat: what the heartbeat's file last bore.
    """

    service: Service
    colour: str | None
    state: str = "waiting"
    process: subprocess.Popen | None = None
    started_at: float = 0.0
    next_at: float = 0.0  # of the next start, or of SIGKILL while it stops
    restarts: int = 0
    ends: int = 0
    beat: int | None = None
    beat_at: float = 0.0
    work: tuple[float, float] = (0.0, 0.0)
    hung: bool = False
    said: str = ""
    clearing: processes.Sweep | None = None
    rest: bytearray = field(default_factory=bytearray)  # of a line


class Supervisor:
    """Keeps services up until a signal; see `run`."""

    def __init__(
        self, services: list[Service], home: Path, env: dict[str, str], cwd: Path, folder: Path,
        stop_seconds: float = STOP_SECONDS, first_wait: float = FIRST_WAIT, output: TextIO | None = None,
    ):  # fmt: skip
        """env: of every service. folder: a short-lived one, removed with the last process. stop_seconds: before SIGKILL.
        first_wait: before the first new start."""
        from honcho.colour import get_colours

        self.home, self.env, self.cwd, self.folder = home, env, cwd, folder
        self.stop_seconds, self.first_wait = stop_seconds, first_wait
        self.run_id = f"{os.getpid()}-{os.urandom(4).hex()}"
        self.all = [_Running(service, colour) for service, colour in zip(services, get_colours(), strict=False)]
        self.screen = _Screen(output or sys.stdout, max(len(SYSTEM), *(len(one.name) for one in services)))
        self.selector = selectors.PollSelector()  # as `poll`, it takes files too
        self.stopping = False
        self.hard = False
        self.keeper: subprocess.Popen | None = None
        self.turned_at = self.states_at = time.monotonic()
        self.told: list[tuple] = []

    # --- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start all, keep them up until SIGINT, SIGTERM, SIGHUP or SIGQUIT, then stop them; a second signal kills them."""
        wakened, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        handlers = {one: signal.signal(one, self._signalled) for one in _SIGNALS if processes.heard(one)}
        before = signal.set_wakeup_fd(waker)
        self.selector.register(wakened, selectors.EVENT_READ, lambda: os.read(wakened, 512))
        _adopt_orphans()
        try:
            while not (self.stopping and all(one.state == "ended" for one in self.all)):
                self._turn()
        finally:
            self._end_all()
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for one in (wakened, waker):
                os.close(one)

    def _turn(self) -> None:
        self._read(TICK)
        self.screen.flush()
        now = time.monotonic()
        if now - self.turned_at > PAUSE_SECONDS:  # this process was stopped, or the machine: nobody else is to blame
            for one in self.all:
                one.beat_at += now - self.turned_at
        self.turned_at = now
        self._keep_keeper()
        for one in self.all:
            self._look_after(one, now)
        shape = [(one.state, one.hung, one.restarts, one.process and one.process.pid) for one in self.all]
        if now - self.states_at > STATES_SECONDS or shape != self.told:
            self.states_at, self.told = now, shape
            self._reap()
            self._tell_states()

    def _read(self, seconds: float) -> None:
        for key, _ in self.selector.select(seconds):
            key.data()

    def _look_after(self, one: _Running, now: float) -> None:
        if one.state == "clearing":
            if one.clearing.step():
                self._cleared(one, now)
        elif one.process is not None and one.process.poll() is not None:
            self._ended(one, now)
        elif one.state == "waiting" and self.stopping:
            one.state = "ended"
        elif one.state == "waiting" and now >= one.next_at:
            self._start(one, now)
        elif one.state in ("starting", "running"):
            if self.stopping:
                if not one.service.last or all(other.state == "ended" for other in self.all if not other.service.last):
                    self._stop(one, now)
            else:
                self._listen(one, now)
        elif one.state == "stopping" and (now >= one.next_at or self.hard):
            self._say(f"{one.service.name} does not stop: killed (pid {one.process.pid})")
            self._kill(one)
            one.next_at = now + KILLED_SECONDS

    # --- one service -------------------------------------------------------------------------------------------------

    def _start(self, one: _Running, now: float) -> None:
        service = one.service
        one.started_at = one.beat_at = now
        one.beat, one.hung, one.work = None, False, (0.0, 0.0)
        if service.heartbeat:
            service.heartbeat.unlink(missing_ok=True)
        try:
            one.process = subprocess.Popen(
                service.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={**self.env, processes.MARK: self._mark(one)}, cwd=self.cwd, start_new_session=True,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        except OSError as error:  # out of processes, of memory; a program that is gone
            self._later(one, now, f"{service.name} cannot be started ({error})")
            return
        one.state = "starting" if service.heartbeat else "running"
        pipe = one.process.stdout.fileno()
        os.set_blocking(pipe, False)
        self.selector.register(pipe, selectors.EVENT_READ, lambda: self._hear(one, one.process.stdout))
        self._say(f"{service.name} started (pid {one.process.pid})")

    def _mark(self, one: _Running) -> str:
        return f"{self.run_id}/{one.service.name}"

    def _hear(self, one: _Running, pipe: Any) -> None:
        try:
            data = os.read(pipe.fileno(), LONGEST_LINE)
        except BlockingIOError:
            return
        if not data:
            self.selector.unregister(pipe.fileno())
            pipe.close()
        one.rest += data
        *lines, rest = one.rest.split(b"\n")
        if not data or len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        one.rest = bytearray(rest)
        for line in lines:
            if line:
                self.screen.line(one.service.name, bytes(line), one.colour)

    def _listen(self, one: _Running, now: float) -> None:
        """Note a heartbeat; one that stands still for too long is a process that hangs."""
        service = one.service
        if service.heartbeat is None:
            return
        with suppress(OSError):
            beat = service.heartbeat.stat().st_mtime_ns  # compared, not read as a time: clocks are set back
            if beat != one.beat:
                one.beat, one.beat_at, one.state = beat, now, "running"
                one.work = _work(one.process.pid) if service.works else one.work
        watcher = next((other for other in self.all if other.service.name == service.watched_by), None)
        if watcher is not None and watcher.state != "running":
            one.beat_at = now  # who would tell is away
            return
        if watcher is not None and watcher.beat_at < now - service.hang_after / 2:
            return  # it may be the watcher that hangs
        limit = service.hang_after if one.beat is not None else max(START_SECONDS, service.hang_after)
        silent = now - one.beat_at
        if silent > limit and not (service.works and silent < BUSY_TIMES * limit and _worked(one, silent)):
            self._say(f"{service.name} hangs: no sign of life for {silent:.0f} s; it is stopped and started again")
            one.hung = True
            self._stop(one, now)

    def _stop(self, one: _Running, now: float) -> None:
        one.state, one.next_at = "stopping", now + self.stop_seconds / (2 if one.hung else 1)  # a hung one has hardly a batch in hand
        one.process.terminate()
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGCONT)  # one that was stopped would not hear it before

    def _kill(self, one: _Running) -> None:
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)

    def _ended(self, one: _Running, now: float) -> None:
        if not one.process.stdout.closed:
            self._hear(one, one.process.stdout)
        self._forget_pipe(one)
        one.state = "clearing"
        grace = 0.0 if self.hard else self.stop_seconds / 2 if self.stopping else CLEAR_SECONDS
        one.clearing = processes.Sweep(lambda: processes.marked(self._mark(one)), grace)

    def _cleared(self, one: _Running, now: float) -> None:
        status, one.process = one.process.returncode, None
        how = f"was ended by {_signal(-status)}" if status < 0 else f"ended with exit status {status}"
        if one.clearing.told:
            self._say(f"{one.service.name} had left {', '.join(one.clearing.told.values())}: ended too")
        if self.stopping:
            self._say(f"{one.service.name} {how}")
            one.state = "ended"
        else:
            self._later(one, now, f"{one.service.name} {how}")

    def _forget_pipe(self, one: _Running) -> None:
        pipe = one.process.stdout
        if not pipe.closed:  # a grandchild may hold the other end for ever
            self.selector.unregister(pipe.fileno())
            pipe.close()
        if one.rest:
            self.screen.line(one.service.name, bytes(one.rest), one.colour)
            one.rest = bytearray()

    def _later(self, one: _Running, now: float, what: str) -> None:
        """Start again after a while, and say so."""
        one.ends = 1 if now - one.started_at > max(WELL_SECONDS, LONGEST_WAIT) else one.ends + 1
        wait = min(LONGEST_WAIT, self.first_wait * 2 ** (one.ends - 1))
        one.state, one.next_at, one.restarts, one.said = "waiting", now + wait, one.restarts + 1, what
        self._say(f"{what}; it starts again in {wait:g} s")
        if one.ends >= OFTEN:
            self._say(
                f"{one.service.name} has ended {one.ends} times in a row: its own lines above say why. It is tried again all the same; "
                "mend the cause, or stop everything with Ctrl-C or `glasshouse down`"
            )

    # --- all of them -------------------------------------------------------------------------------------------------

    def _signalled(self, number: int, frame: Any) -> None:
        if self.stopping:
            self.hard = True
            return
        self.stopping = True
        self._say(f"{_signal(number)}: stopping everything, {processes.CLICKHOUSE} last; once more kills")

    def _keep_keeper(self) -> None:
        if self.keeper is not None and self.keeper.poll() is None:
            return
        if self.keeper is not None:
            self._say("the keeper, which ends everything should this process be killed, has gone; it starts again")
            self.keeper.stdin.close()
        command = [sys.executable, "-m", "dagster_project.keeper", self.run_id, str(self.folder)]
        with suppress(OSError):
            self.keeper = subprocess.Popen(command, stdin=subprocess.PIPE, env=self.env, cwd=self.cwd, start_new_session=True)

    def _end_all(self) -> None:
        """Nothing is left: what the services had started, and after an error the services."""
        for one in self.all:
            if one.process is not None:
                self._kill(one)
        left = processes.sweep(lambda: processes.marked(self.run_id), 0 if self.hard else self.stop_seconds / 4)
        if left:
            self._say(f"left over and ended: {', '.join(left)}")
        self.screen.flush(patient=True)
        if self.keeper is not None:
            self.keeper.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self.keeper.wait(KILLED_SECONDS)

    def _tell_states(self) -> None:
        states = [
            {"name": one.service.name, "state": "hangs" if one.hung else one.state, "pid": one.process and one.process.pid,
             "restarts": one.restarts, "beat_at": one.beat_at if one.beat is not None else None, "said": one.said}
            for one in self.all
        ]  # fmt: skip
        with suppress(OSError):  # a full disk must not end what it cannot tell of
            processes.write_states(self.home, states)

    def _reap(self) -> None:
        """Take note of orphans that have ended; the status of a service is Popen's to read."""
        import psutil

        ours = {one.process.pid for one in self.all if one.process} | {self.keeper and self.keeper.pid}
        for child in psutil.Process().children():
            with suppress(psutil.Error, ChildProcessError):
                if child.pid not in ours and child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, os.WNOHANG)

    def _say(self, text: str) -> None:
        self.screen.line(SYSTEM, text.encode(), None)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class _Screen:
    """Where the lines go. Who does not read them (a stopped terminal, a full pipe) holds nothing up: the oldest are left out."""

    def __init__(self, output: TextIO, width: int):
        from honcho.printer import Printer

        self.output, self.held, self.left_out = output, deque(), 0
        with suppress(AttributeError, OSError, ValueError):  # what the terminal has no letters for is no reason to fall silent
            output.reconfigure(errors="backslashreplace")
        self.colours = output.isatty()
        self.printer = Printer(self, width=width)
        self.poll = selectors.PollSelector()
        try:
            self.poll.register(output.fileno(), selectors.EVENT_WRITE)
        except (OSError, ValueError):  # an output that is no file: a test's
            self.poll = None

    def line(self, name: str, data: bytes, colour: str | None) -> None:
        from honcho.printer import Message

        self.printer.write(Message(type="line", data=data, time=dt.datetime.now(), name=name, colour=colour))

    # What the printer takes for a file.

    def isatty(self) -> bool:
        return self.colours

    def write(self, text: str) -> None:
        self.held.append(text)
        if len(self.held) > HELD_LINES:
            self.held.popleft()
            self.left_out += 1

    def flush(self, patient: bool = False) -> None:
        """Hand on what the output takes without waiting; patient: wait a moment for it."""
        while self.held and self.output is not None:
            if self.poll is not None and not self.poll.select(1.0 if patient else 0):
                return
            text = self.held.popleft()
            if self.left_out:
                text, self.left_out = f"({self.left_out} pieces of output left out: nobody read them)\n{text}", 0
            if len(text) > PIECE // WIDEST:  # a pipe that takes anything takes PIECE bytes
                self.held.appendleft(text[PIECE // WIDEST :])
                text = text[: PIECE // WIDEST]
            try:
                self.output.write(text)
                self.output.flush()
            except (OSError, ValueError):  # the terminal was closed: what is left to do needs none
                self.output = None


def _work(pid: int) -> tuple[float, float]:
    """What a process and its children have used so far: seconds of processor, bytes read and written."""
    import psutil

    seconds = moved = 0.0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                times = one.cpu_times()
                seconds += times.user + times.system
                if hasattr(one, "io_counters"):
                    counters = one.io_counters()
                    moved += counters.read_bytes + counters.write_bytes
    return seconds, moved


def _worked(one: _Running, silent: float) -> bool:
    seconds, moved = _work(one.process.pid)
    return seconds - one.work[0] > BUSY_SHARE * silent or moved - one.work[1] > BUSY_BYTES


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# --- Linux: families ----------------------------------------------------------------------------------------------------

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def _prctl(option: int, value: int) -> None:
    if _LIBC is not None:
        _LIBC.prctl(option, value, 0, 0, 0)


def _libc() -> Any:
    if sys.platform != "linux":
        return None
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


_LIBC = _libc()  # before any fork: a child must not load libraries


def die_with_parent() -> None:
    """In a child, before its program: be asked to end when the parent dies, however it does (Linux)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _adopt_orphans() -> None:
    """What a killed service leaves becomes a child of ours, so that it is taken note of when it ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
