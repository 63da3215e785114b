"""A checkout that runs: its processes, ports, folders, memory; and good input, to see whether it still does its work.

Here: start, look, stop; the places that differ between trees. Not here: attacks (the modules beside), their order (__main__.py).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import hashlib
import hmac
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.hostile import wire

BIN = Path(sys.executable).parent
MARK = "HOSTILE_HOUSE"  # in the environment of every process of a house, its grandchildren too
START_SECONDS, STOP_SECONDS, ANSWER_SECONDS = 180, 45, 20
MEMORY_MB = 1024  # what the labeler is allowed
WATCHDOG_BYTES = 10 << 30  # a house that takes more is ended, for the sake of this machine
WARM_SECONDS = 180  # the first batch, compiling included
KEY_FILE = "endpoint.key"  # in the folder of ClickHouse's tables; passwords are derived from it
# A part of the command line of each process, in any tree.
ROLES = {
    "clickhouse": ("glasshouse clickhouse",),
    "traffic": ("glasshouse traffic",),
    "live": ("glasshouse live",),
    "orders": ("glasshouse orders",),
    "code": ("code-server start",),
    "dagster": ("dagster-webserver", "dagster_project.webserver"),
    "daemon": ("dagster-daemon",),
    "pages": ("streamlit run",),
    "notebook": ("jupyter-lab", "jupyter lab"),
}
NOT_OF_UP = ("notebook",)
PORT_SETTINGS = {
    "clickhouse": "GLASSHOUSE_CLICKHOUSE_PORT", "dagster": "GLASSHOUSE_DAGSTER_PORT", "pages": "GLASSHOUSE_STREAMLIT_PORT",
    "notebook": "GLASSHOUSE_NOTEBOOK_PORT",
}  # fmt: skip
WITH_PORT = {"clickhouse": "/ping", "dagster": "/server_info", "pages": "/_stcore/health", "notebook": "/login"}


class HouseError(Exception):
    """The tree under test does not start; the message holds the end of what it said."""


@dataclass(frozen=True)
class Tree:
    """A checkout. name: `today` or `base`."""

    root: Path
    name: str

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GLASSHOUSE_", "DAGSTER_"))}
        return {**inherited, "PYTHONPATH": str(self.root), "GLASSHOUSE_HOME": str(home), "PYTHONUNBUFFERED": "1", **more}

    def command(self, *words: str) -> list[str]:
        """`glasshouse WORDS` of this tree: one venv serves both, PYTHONPATH says whose code runs."""
        return [str(BIN / "glasshouse"), *words]

    def knows(self, setting: str) -> bool:
        """Whether the tree has this GLASSHOUSE_* setting: an older one refuses to start for names that it does not know."""
        return setting.removeprefix("GLASSHOUSE_") in _settings_of(self)

    def run(self, home: Path, *words: str, timeout_s: float = 120, **more: str) -> subprocess.CompletedProcess:
        """Run `glasshouse WORDS` to its end; output and errors together, as text."""
        return subprocess.run(
            self.command(*words), cwd=self.root, env=self.environment(home, **more), text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s,
        )  # fmt: skip


@functools.cache
def _settings_of(tree: Tree) -> frozenset[str]:
    with tempfile.TemporaryDirectory() as home:
        said = tree.run(Path(home), "settings", COLUMNS="200").stdout
    return frozenset(re.findall(r"GLASSHOUSE_(\w+)", said))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class House:
    """What a `glasshouse` command starts, in a home of its own. verb: its words, `("up",)` or one service's."""

    tree: Tree
    folder: Path
    verb: tuple[str, ...] = ("up",)
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen | None = None

    def __post_init__(self):
        self.mark = uuid.uuid4().hex
        self.home = self.folder / "home"
        self.log = self.folder / "said.txt"
        self.ports = {name: free_port() for name in WITH_PORT}
        self._over = threading.Event()
        self.ended_by_watchdog = False
        self._held: dict[int, int] = {}
        for name in ("landing", "orders"):
            (self.home / name).mkdir(parents=True, exist_ok=True)

    # --- places ---

    @property
    def landing(self) -> Path:
        return self.home / "landing"

    @property
    def orders(self) -> Path:
        return self.home / "orders"

    def password(self, role: str) -> str | None:
        """The home's password of a `reader` or `writer` at ClickHouse's endpoint; None where the tree draws none."""
        path = self.home / "clickhouse" / KEY_FILE
        if not path.exists():
            return None
        return hmac.new(path.read_bytes().strip(), f"{role}:{path.stat().st_ino}".encode(), hashlib.sha256).hexdigest()

    def credentials(self, user: str = "reader") -> dict[str, str]:
        """The headers by which a client of the house says who it is: `reader`, `pages` (a reader, too) or `writer`."""
        password = self.password("writer" if user == "writer" else "reader")
        return {"X-ClickHouse-User": user, "X-ClickHouse-Key": password} if password else {}

    # --- life ---

    def start(self) -> House:
        """Start and wait until every service answers; a house without a verb is a home alone. Raises HouseError."""
        if not self.verb:
            return self
        more = {
            MARK: self.mark,
            **{PORT_SETTINGS[name]: str(port) for name, port in self.ports.items()},
            "GLASSHOUSE_TRAFFIC_RATE": "5", "GLASSHOUSE_LIVE_INTERVAL": "1s", "GLASSHOUSE_ORDERS_INTERVAL": "1s",
            "GLASSHOUSE_LIVE_MEMORY_MB": str(MEMORY_MB), **{name: value for name, value in self.settings.items() if self.tree.knows(name)},
        }  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.tree.command(*self.verb), cwd=self.tree.root, env=self.tree.environment(self.home, **more),
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._over.clear()
        threading.Thread(target=self._watch, daemon=True).start()
        missing = self.missing(START_SECONDS)
        if missing:
            said = self.said()[-1500:]
            self.stop()
            raise HouseError(f"{', '.join(missing)} of {self.tree.name} did not start: {said}")
        if warm := {"live": works, "orders": takes_orders}.get(self.verb[0]):  # these have no port that would answer
            warm(self, WARM_SECONDS)
        return self

    def stop(self) -> None:
        """Ask it to stop, then end whatever bears its mark."""
        self._over.set()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        self.end()

    def end(self) -> None:
        """SIGKILL to every process of the house."""
        self._over.set()
        for _ in range(20):
            found = self.processes()
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if not found:
                break
            time.sleep(0.1)
        if self.process is not None:
            self.process.wait(10)

    def remove(self) -> None:
        """Stop, and delete the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self) -> House:
        """Start again on the same home."""
        self.stop()
        return self.start()

    def _watch(self) -> None:
        pids: list[int] = []
        for look in itertools.count():
            if self._over.wait(0.1):
                return
            if look % 5 == 0:  # to look for processes takes longer than to ask one
                if self.memory() > WATCHDOG_BYTES:
                    self.ended_by_watchdog = True
                    self.end()
                pids = [process.pid for process in self.roles().values()]
            for pid in pids:
                self._held[pid] = max(self._held.get(pid, 0), _anonymous_bytes(pid))

    # --- looks ---

    def processes(self) -> list[psutil.Process]:
        """Every living process that bears the house's mark."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def roles(self) -> dict[str, psutil.Process]:
        """The process that does the work of each role, of those that run."""
        found: dict[str, psutil.Process] = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                line = " ".join([os.path.basename(word) if word.startswith("/") else word for word in words])
                if not words or os.path.basename(words[0]) in ("sh", "bash"):  # ends just now, or waits and will become it
                    continue
                for role, parts in ROLES.items():
                    if any(part in line for part in parts):
                        found.setdefault(role, process)
        return found

    def pids(self) -> dict[str, int]:
        return {role: process.pid for role, process in self.roles().items()}

    def memory(self, role: str | None = None) -> int:
        """Resident bytes of a role, or of all processes."""
        total = 0
        for process in [self.roles()[role]] if role and role in self.roles() else [] if role else self.processes():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def held(self, role: str) -> int:
        """Memory of a role's process that the system cannot take back (no pages of files), at the most that ten looks a second saw; 0 where it is gone."""
        with contextlib.suppress(KeyError):
            return self._held.get(self.roles()[role].pid, 0)
        return 0

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def expected(self) -> list[str]:
        """The roles that this house consists of."""
        return [role for role in ROLES if role not in NOT_OF_UP] if self.verb == ("up",) else [self.verb[0]]

    def missing(self, within_s: float = ANSWER_SECONDS) -> list[str]:
        """Roles that do not run or do not answer, at the end of so many seconds; none as soon as all do."""
        end = time.monotonic() + within_s
        while True:
            found = self._missing_now()
            if not found or time.monotonic() > end or self.process is None or (self.process.poll() is not None and not self.processes()):
                return found
            time.sleep(0.3)

    def _missing_now(self) -> list[str]:
        if not self.verb:
            return []
        if self.process is None or self.process.poll() is not None:
            return [" ".join(self.verb)]
        running = self.roles()
        return [
            role for role in self.expected()
            if role not in running or (role in WITH_PORT and not self.answers(role))
        ]  # fmt: skip

    def answers(self, role: str, timeout_s: float = 3) -> bool:
        """Whether a service with a port answers, as its own pages and loaders would ask it; ClickHouse with a query."""
        port = self.ports[role]
        if role == "clickhouse":
            return self.ask("SELECT 1", timeout_s=timeout_s).body.strip() == b"1"
        return wire.get(port, WITH_PORT[role], timeout_s=timeout_s).status == 200

    def ask(self, sql: str, timeout_s: float = 10) -> wire.Reply:
        """A query as the pages send it: the body of a POST, as a reader."""
        return wire.post(self.ports["clickhouse"], "/" + wire.query(readonly="2"), sql.encode(), self.credentials("pages"), timeout_s)


# --- good input -------------------------------------------------------------------------------------------------------


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _anonymous_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        if found := re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()):
            return int(found[1]) << 10
    return 0


def event(at: dt.datetime | None = None, **more) -> dict:
    """A good event of this second; `more` replaces or adds columns (None leaves one out)."""
    at = at or now()
    found = {
        "event_id": f"hostile-{uuid.uuid4().hex}", "user_id": 7_000_000_001, "note_id": 9_001, "action": "impression",
        "event_time": at.isoformat(), "ingest_time": at.isoformat(), "request_id": "r", "channel": "homefeed", "position": 0,
    } | more  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def lines(events: list[dict]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in events).encode()


def land(folder: Path, name: str | bytes, data: bytes) -> Path:
    """Put a file into a folder whole, as the contract asks: written aside, then renamed."""
    aside = folder / f".{uuid.uuid4().hex}.tmp"
    aside.write_bytes(data)
    target = os.path.join(os.fsencode(folder), name if isinstance(name, bytes) else os.fsencode(name))
    os.rename(os.fsencode(aside), target)
    return Path(os.fsdecode(target))


def column(house: House, table: str, name: str) -> list:
    """A column of one of the lake's tables; empty where there is no such table."""
    import deltalake

    path = house.home / "lake" / table
    if not (path / "_delta_log").is_dir():
        return []
    try:
        return deltalake.DeltaTable(str(path)).to_pyarrow_table(columns=[name])[name].to_pylist()
    except (OSError, deltalake.exceptions.DeltaError):  # a file of it is being replaced
        return []


def in_time(check, within_s: float, every_s: float = 0.3):
    """The first true value of `check()`, or its last one after so many seconds."""
    end = time.monotonic() + within_s
    while not (found := check()) and time.monotonic() < end:
        time.sleep(every_s)
    return found


def works(house: House, within_s: float = 30, at: dt.datetime | None = None, count: int = 3) -> str | None:
    """Land good events; None once they are among the events and not late, else what became of them."""
    good = [event(at) for _ in range(count)]
    land(house.landing, f"good-{time.time_ns()}.jsonl", lines(good))
    return taken(house, {one["event_id"] for one in good}, within_s)


def taken(house: House, wanted: set[str], within_s: float = 30) -> str | None:
    """None once these events are accepted and not late, else what became of them."""
    def settled() -> bool:
        return wanted <= set(column(house, "events", "event_id")) or house.process.poll() is not None

    in_time(settled, within_s)
    late = wanted & set(column(house, "late_events", "event_id"))
    if late:
        return f"{len(late)} of {len(wanted)} good events are late"
    lacking = wanted - set(column(house, "events", "event_id"))
    if not lacking:
        return None
    end = house.process.poll()
    state = f"it ended with {end}" if end is not None else "it still runs"
    return f"{len(lacking)} of {len(wanted)} good events are not taken within {within_s:g} s ({state}): ...{house.said()[-250:]}"


def order(order_id: int, **more) -> dict:
    """A good change of the shop's, by Debezium: an order of now."""
    at = int(time.time() * 1e6)
    row = {
        "order_id": order_id, "user_id": 1, "product_id": 70, "amount_cents": 1000, "refunded_cents": 0, "status": "paid",
        "created_at": at, "updated_at": at,
    }  # fmt: skip
    source = {"connector": "mysql", "table": "orders", "ts_ms": at // 1000, "ts_us": at, "file": "b.000002", "pos": order_id}
    return {"op": "c", "before": None, "after": row, "source": source, "ts_us": at} | more


def takes_orders(house: House, within_s: float = 30) -> str | None:
    """Land a good order; None once it is among the orders."""
    number = time.time_ns() // 1000
    land(house.orders, f"good-{number}.jsonl", lines([order(number)]))
    in_time(lambda: str(number) in _order_ids(house) or house.process.poll() is not None, within_s)
    if str(number) in _order_ids(house):
        return None
    end = house.process.poll()
    return f"a good order is not taken ({f'it ended with {end}' if end is not None else 'it still runs'}): ...{house.said()[-250:]}"


def _order_ids(house: House) -> set[str]:
    return {str(one) for one in column(house, "orders", "order_id")}
