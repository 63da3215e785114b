"""The commit log: which versions of all tables belong together, and how a commit of several tables survives a crash.

Delta commits one table at a time. Here: a moment (the versions of every table that one reader may see together) and the
intent from which a commit of several tables is finished by whoever comes next. Not here: what is written (lake.py).

    _commits/000000000042.json   moment 42: versions of all tables, what it added, who wrote it, checksums of the tables' logs
    _commits/intent.json         a commit that is decided and perhaps not in every table yet
    _commits/sums/TABLE/         checksums of data files whose names hold none (written by Spark, compacted)
    _commits/lock                held (flock) from the intent to its moment

Order of a commit: data files (nobody sees them), durable -> lock -> intent (from here on it will happen, by us or by the next
who takes the lock) -> one Delta commit a table, each bearing the moment's number as its transaction id, so that a repeat is
recognised; durable -> moment, created only if it is not there yet -> lock given back. Readers take the newest moment and the
versions it names: they see all of a commit or nothing of it, and never wait. Each step is on the disk before the next one
begins (fsync of files and folders, durable.py): what a power cut leaves is what a kill leaves.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from assets.durable import DamagedError, create_durably, make_folder, sealed, sync_folder, unsealed, write_durably

__all__ = ["CommitError", "CommitLog", "Moment", "Untidied", "sync_folder", "write_durably"]

LOCK_TIMEOUT_S = 120.0
FOLDER, INTENT, SUMS = "_commits", "intent.json", "sums"


class CommitError(Exception):
    """A commit that cannot be made, or a moment that cannot be read; the message says what to do next."""


class Untidied(CommitError):
    """A moment that is not there."""


@dataclass(frozen=True)
class Moment:
    """One state of the whole lake.

    tables: version of each table. apps: the newest version that each application has committed across tables. added:
    the data files that this commit added, by table, as paths within the table. at: RFC 3339. note: the writer's own.
    logs: by table what its log was (deltalog.Chain), empty in moments of older code.
    """

    number: int
    by: str
    at: str
    tables: dict[str, int]
    apps: dict[str, int] = field(default_factory=dict)
    added: dict[str, list[str]] = field(default_factory=dict)
    note: dict[str, Any] = field(default_factory=dict)
    logs: dict[str, dict[str, Any]] = field(default_factory=dict)


class CommitLog:
    """The folder _commits/ of a lake on a local (or shared POSIX) disk."""

    def __init__(self, root: str):
        self.root = Path(root) / FOLDER
        self.named: set[str] = set()  # tables that a moment is known to name; none is ever taken out again
        self._last: int | None = None  # number of the newest moment seen
        self._read: tuple[tuple, Moment] | None = None  # the newest moment read, and what its file was
        self._sums: dict[str, dict[str, dict[str, str]]] = {}  # table -> file of checksums -> path -> checksum

    # --- readers ---------------------------------------------------------------------------------------------------

    def numbers(self) -> list[int]:
        """Numbers of the moments that are kept, ascending."""
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return []
        return sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit())

    def moment(self, number: int) -> Moment:
        """Raises CommitError where that moment is not kept (any more), or its file is damaged."""
        path = self._path(number)
        try:
            found = Moment(**unsealed(path, path.name))
            if found.number != number:
                raise DamagedError(path, f"is the file of moment {found.number}")
            return found
        except FileNotFoundError as error:
            raise Untidied(f"moment {number} is not in {self.root}; it was tidied away, or never was") from error
        except (DamagedError, TypeError) as error:
            why = error if isinstance(error, DamagedError) else f"{path} is damaged: {error}"
            raise CommitError(f"{why}; put {path.name} of a copy of the lake in its place") from error

    def newest(self) -> Moment | None:
        """The newest moment, None for a lake without any. Raises CommitError where its file is damaged."""
        while True:
            number = self._newest_number()
            if number is None:
                return None
            try:
                return self._cached(number)
            except Untidied:  # tidied away between the two lines: there is a newer one
                self._last = None

    def _newest_number(self) -> int | None:
        """From the newest one seen before, since the folder is long: a listing only where that one is gone."""
        number = self._last
        if number is None or not self._path(number).exists():
            number = next(reversed(self.numbers()), None)
        while number is not None and self._path(number + 1).exists():
            number += 1
        self._last = number
        return number

    def _cached(self, number: int) -> Moment:
        """A moment's file does not change; one that did is read again."""
        try:
            status = os.stat(self._path(number))
        except FileNotFoundError:
            return self.moment(number)
        now = (number, status.st_size, status.st_mtime_ns, status.st_ino)
        if self._read is None or self._read[0] != now:
            self._read = (now, self.moment(number))
        return self._read[1]

    def of_version(self, table: str, version: int) -> Moment | None:
        """A moment that names the table at this version, or None: one that is kept, of those that followed each other."""
        newest = self.newest()
        if newest is None or newest.tables.get(table) == version:
            return newest
        numbers = self.numbers()
        try:
            place = bisect_left(numbers, version, key=lambda number: self.moment(number).tables.get(table, -1))
            found = self.moment(numbers[place]) if place < len(numbers) else None
        except CommitError:
            return None
        return found if found and found.tables.get(table) == version else None

    # --- writers ---------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Hold the lake's writing alone. Raises CommitError after timeout_s, naming who holds it."""
        make_folder(self.root)
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
        """The commit that is decided and not published yet. Only under the lock. Raises DamagedError."""
        path = self.root / INTENT
        try:
            found = unsealed(path, INTENT)
        except FileNotFoundError:
            return None
        if not isinstance(found, dict) or not {"moment", "by", "app", "note", "steps"} <= found.keys():
            raise DamagedError(path, "is damaged: it is no intent")
        return found

    def decide(self, intent: dict[str, Any]) -> None:
        """Write the intent: from here on the commit will happen."""
        write_durably(self.root / INTENT, sealed(INTENT, intent))

    def publish(self, moment: Moment) -> None:
        """Create the moment and forget the intent. Raises CommitError where the number is taken: we were not alone."""
        make_folder(self.root)
        path = self._path(moment.number)
        if not create_durably(path, sealed(path.name, asdict(moment))):
            raise CommitError(
                f"moment {moment.number} of {self.root.parent} was published by another process though this one holds "
                "the lock; is the lake on a disk without locks? Start again"
            )
        (self.root / INTENT).unlink(missing_ok=True)

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

    # --- checksums of data files whose names hold none ---------------------------------------------------------------

    def note_sums(self, table: str, version: int, sums: dict[str, str]) -> None:
        """Keep the checksums of files that version `version` of a table added: path within the table -> digest."""
        folder = make_folder(self.root / SUMS / table)
        path = folder / f"{version:020d}.json"
        write_durably(path, sealed(f"{SUMS}/{table}/{path.name}", {"files": sums}))

    def sums(self, table: str) -> dict[str, str]:
        """The checksums that are kept for a table's files. Raises DamagedError."""
        folder = self.root / SUMS / table
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
        except FileNotFoundError:
            return {}
        known = self._sums.setdefault(table, {})
        for name in [name for name in known if name not in names]:
            del known[name]
        for name in names:
            if name not in known:
                with suppress(FileNotFoundError):  # its files were tidied away meanwhile, and it with them
                    known[name] = unsealed(folder / name, f"{SUMS}/{table}/{name}")["files"]
        return {path: one for files in known.values() for path, one in files.items()}

    def forget_sums(self, table: str) -> None:
        """Delete the checksums of files that are all gone."""
        for path in (self.root / SUMS / table).glob("*.json"):
            try:
                files = unsealed(path, f"{SUMS}/{table}/{path.name}")["files"]
            except (DamagedError, FileNotFoundError):
                continue
            if not any((self.root.parent / table / name).exists() for name in files):
                path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.root / f"{number:012d}.json"
