"""The commit log: which versions of all tables belong together, and how a commit of several tables survives a crash.

Delta commits one table at a time. Here: a moment (the versions of every table that one reader may see together) and the
intent from which a commit of several tables is finished by whoever comes next. Not here: what is written (lake.py).

    _commits/000000000042.json   moment 42: versions of all tables, what it added, who wrote it
    _commits/intent.json         a commit that is decided and perhaps not in every table yet
    _commits/lock                held (flock) from the intent to its moment

Order of a commit: data files (nobody sees them) -> lock -> intent (from here on it will happen, by us or by the next who
takes the lock) -> one Delta commit a table, each bearing the moment's number as its transaction id, so that a repeat is
recognised -> moment, created only if it is not there yet -> lock given back. Readers take the newest moment and the
versions it names: they see all of a commit or nothing of it, and never wait.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LOCK_TIMEOUT_S = 120.0
FOLDER = "_commits"


class CommitError(Exception):
    """A commit that cannot be made; the message says what to do next."""


@dataclass(frozen=True)
class Moment:
    """One state of the whole lake.

    tables: version of each table. apps: the newest version that each application has committed across tables. added:
    the data files that this commit added, by table, as paths within the table. at: RFC 3339. note: the writer's own.
    """

    number: int
    by: str
    at: str
    tables: dict[str, int]
    apps: dict[str, int] = field(default_factory=dict)
    added: dict[str, list[str]] = field(default_factory=dict)
    note: dict[str, Any] = field(default_factory=dict)


class CommitLog:
    """The folder _commits/ of a lake on a local (or shared POSIX) disk."""

    def __init__(self, root: str):
        self.root = Path(root) / FOLDER
        self.named: set[str] = set()  # tables that a moment is known to name; none is ever taken out again

    # --- readers ---------------------------------------------------------------------------------------------------

    def numbers(self) -> list[int]:
        """Numbers of the moments that are kept, ascending."""
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return []
        return sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit())

    def moment(self, number: int) -> Moment:
        """Raises CommitError where that moment is not kept (any more)."""
        try:
            return Moment(**json.loads(self._path(number).read_text()))
        except FileNotFoundError as error:
            raise CommitError(f"moment {number} is not in {self.root}; it was tidied away, or never was") from error

    def newest(self) -> Moment | None:
        """The newest moment, None for a lake without any."""
        while numbers := self.numbers():
            try:
                return self.moment(numbers[-1])
            except CommitError:  # tidied away between the two lines: there is a newer one
                continue
        return None

    # --- writers ---------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Hold the lake's writing alone. Raises CommitError after timeout_s, naming who holds it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "lock", "a+") as handle:
            deadline = time.monotonic() + timeout_s
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        handle.seek(0)
                        raise CommitError(
                            f"process {handle.read().strip() or 'unknown'} has held the commit lock of "
                            f"{self.root.parent} for {timeout_s:g} s; look at it, end it, and try again"
                        ) from None
                    time.sleep(0.002)
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def intent(self) -> dict[str, Any] | None:
        """The commit that is decided and not published yet. Only under the lock."""
        path = self.root / "intent.json"
        return json.loads(path.read_text()) if path.exists() else None

    def decide(self, intent: dict[str, Any]) -> None:
        """Write the intent: from here on the commit will happen."""
        write_durably(self.root / "intent.json", json.dumps(intent).encode())

    def publish(self, moment: Moment) -> None:
        """Create the moment and forget the intent. Raises CommitError where the number is taken: we were not alone."""
        self.root.mkdir(parents=True, exist_ok=True)
        beside = self.root / f"{moment.number}.{os.getpid()}.part"
        write_durably(beside, json.dumps(asdict(moment)).encode())
        try:
            os.link(beside, self._path(moment.number))
        except FileExistsError:
            raise CommitError(
                f"moment {moment.number} of {self.root.parent} was published by another process though this one holds "
                "the lock; is the lake on a disk without locks? Start again"
            ) from None
        finally:
            beside.unlink()
        (self.root / "intent.json").unlink(missing_ok=True)

    def forget(self, before: dt.datetime, upto: int | None = None) -> int:
        """Delete moments published before that time, never the newest nor any above `upto`; returns how many."""
        gone = 0
        for number in self.numbers()[:-1]:
            if upto is not None and number > upto:
                break
            if dt.datetime.fromisoformat(self.moment(number).at) >= before:
                break
            self._path(number).unlink()
            gone += 1
        return gone

    def _path(self, number: int) -> Path:
        return self.root / f"{number:012d}.json"


def write_durably(path: Path, body: bytes) -> None:
    """Write a file so that its name never stands for half of it, not even after a power cut."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(beside, "wb") as handle:
        handle.write(body)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
