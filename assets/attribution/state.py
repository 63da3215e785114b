"""What the live labeler remembers between two batches, and where it lies in the lake: under _live/.

Here: the files, written so that a crash leaves either none or all of each, and how the state of a batch is built again from
them. Not here: what a batch does (live.py), when it counts (the commit log of the lake says which batch is the last).

    _live/stream.json         the stream's name, drawn once
    _live/epochs/N.json       who labels since when; only the newest may commit, and holds its lock (flock) while it lives
    _live/plans/K.json        which landing files batch K reads, and the versions of the tables that it looks into
    _live/segments/K.arrow    the accepted events of batch K, in order of arrival: the log from which the state is rebuilt
    _live/batches/K.json      watermark, segments and hours after batch K; its figures
    _live/snapshots/K/        open sessions and pending events after batch K, every now and then
    _live/reset.json          a watermark set back by hand, and after which batch

Each file is durable before the next step begins, and bears a checksum over its bytes and its name, so that what is damaged, or
an older copy, is noticed when it is read: a snapshot is then done without (the one before, and the segments since), the stream's
name and the plan of a batch that does not count yet are made anew, which is told; the rest is a LiveError that names the file.

The open sessions themselves stay in memory. After a crash they are the newest snapshot plus the events of the segments
since, folded again up to the watermark of each batch: the same function of the same numbers, so the same sessions. So a batch
writes its own events once and never the sixteen times larger state.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from assets import durable
from assets.attribution.fold import CLICK_COLUMNS, IMPRESSION_COLUMNS, NONE, SINCE_COLUMNS, Columns
from assets.attribution.memory import Maps, trailer
from assets.events.contract import EVENTS
from assets.events.landing import Stamp
from assets.lake import Lake

ROW_BITS = 32  # ctx = batch << ROW_BITS | row of that batch's segment
KEPT_BATCHES = 1000  # figures of batches kept for the pages and for looking back; older ones are deleted
APP = "live"  # the labeler's name in the commit log
STREAM, RESET = "stream.json", "reset.json"
_RESTORE = "restore {} from a copy"
LOCK, LABELING, LANDING = "lock", "labeling", "landing"  # who holds the lock writes into it for what
LANDING_PATIENCE_S = 600  # a labeler that starts waits so long for files to have landed


class LiveError(Exception):
    """The live labeler cannot start or go on; the message says what to do next."""


@dataclass(frozen=True)
class Rest:
    """A landing file of which the rows up to `line` are taken; source: the fingerprint of its content then, of so many bytes
    (None: by an older Glasshouse)."""

    file: str
    line: int
    source: str
    bytes: int | None = None


@dataclass(frozen=True)
class Plan:
    """What batch `batch` reads, so that a repeat of it reads the same.

    files: paths under the landing folder, in order. planned_at: when they landed, RFC 3339, see clocks.py.
    versions: of the tables that it looks into. most: bytes of rows after which the batch is full, None for no bound. rest: where the first file goes on.
    again: those of the files that were taken before and have changed since.
    """

    batch: int
    files: tuple[str, ...]
    planned_at: str
    versions: dict[str, int]
    most: int | None = None
    rest: Rest | None = None
    again: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Where the labeler stands after batch `batch`; everything but the open sessions. Times in µs, NONE before the first.

    greatest: event_time among accepted events. moved: the greatest min(event_time, ingest_time, landing time) among them, which
    moves the watermark; NONE where an older Glasshouse did not tell the two apart.
    segments: batch -> (least, greatest event_time) of the segments that open sessions or late repeats may need.
    memory_from: repeats of events with event_time >= it are in the segments; older ones are looked up in `events`.
    open_hours: hours with events of which not every session is closed. snapshot: batch of the newest one, -1 for none.
    stats: the batch's figures. rules: the fingerprint of those it was made by, None from before there were any. mixed: open
    hours (µs) that were begun by other rules, and by which. left: files of the plan that the batch did not finish: they are
    gone, or for the next. rests: by name, where files go on of which a part is taken. stamps: by name, what the files of the plan
    were like when they were read, see landing.Stamp.
    """

    batch: int = -1
    watermark: int = NONE
    greatest: int = NONE
    memory_from: int = NONE
    window_us: int = 0
    segments: dict[int, tuple[int, int]] = field(default_factory=dict)
    open_hours: frozenset[int] = frozenset()
    snapshot: int = -1
    stats: dict = field(default_factory=dict)
    rules: str | None = None
    mixed: dict[int, list[str]] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    rests: dict[str, Rest] = field(default_factory=dict)
    moved: int = NONE
    stamps: dict[str, Stamp] = field(default_factory=dict)

    def finished(self, files: Iterable[str]) -> dict[str, Stamp | None]:
        """Those of the plan's files that the batch is done with, and what they were like."""
        left = set(self.left)
        return {name: self.stamps.get(name) for name in files if name not in left}


@dataclass(frozen=True)
class Reset:
    """A watermark (µs) that takes the place of that after batch `batch`. landed_at: no batch landed later, RFC 3339."""

    batch: int
    watermark: int
    landed_at: str


@dataclass(frozen=True)
class Snapshot:
    """open_impressions, open_clicks: int64[9 or 12, n] as in fold.py, in no order. consumed: landing files that are done, and what
    they were like (None where an older Glasshouse took them)."""

    open_impressions: np.ndarray
    open_clicks: np.ndarray
    pending: Columns
    consumed: dict[str, Stamp | None]


@dataclass(frozen=True)
class _Lock:
    """A file that one process holds (flock), and for what it does. Nothing stands in it while it changes hands."""

    handle: TextIO

    def taken_by(self, purpose: str) -> bool:
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.handle.truncate(0)
        self.handle.write(purpose)
        self.handle.flush()
        return True

    def holder(self) -> str:
        self.handle.seek(0)
        return self.handle.read()

    @contextmanager
    def left(self, ours: bool) -> Iterator[bool]:
        """Empty the file in the end, if it is ours: its closing then gives the lock back."""
        try:
            yield ours
        finally:
            if ours:
                self.handle.truncate(0)


class Store:
    """The folder _live/ of a lake on a local disk.

    Raises LiveError where the lake is not a local folder: renames and locks are what the protocol stands on.
    """

    def __init__(self, lake: Lake, memory: int | None = None):
        """memory: bytes that the labeler may take, see memory.Maps."""
        self.tell = durable.tell
        if "://" in str(lake.root):
            raise LiveError(f"the live labeler keeps its state beside a lake on a local disk, not at {lake.root}")
        self.lake, self.root = lake, Path(lake.root) / "_live"
        self.maps = Maps(self.root / "scratch", memory)

    def prepare(self) -> str:
        """Make the folders, sweep away what a crash left half-written; returns the stream's name."""
        for name in ("plans", "segments", "batches", "snapshots", "epochs"):
            durable.make_folder(self.root / name)
        for half in self.root.rglob("*.part"):
            shutil.rmtree(half) if half.is_dir() else half.unlink()
        path = self.root / "stream.json"
        try:
            return durable.unsealed(path, STREAM)["stream"]
        except FileNotFoundError:
            pass
        except (durable.DamagedError, TypeError, KeyError) as error:
            durable.set_aside(path, getattr(error, "why", "is damaged"), "the stream's name is taken from its batches, or drawn anew")
        name = self._stream_of_batches()
        if name:
            self.tell(f"{path} was rebuilt from the batches: stream {name}")
        name = name or uuid.uuid4().hex[:12]
        durable.write_durably(path, durable.sealed(STREAM, {"stream": name}))
        return name

    def _stream_of_batches(self) -> str | None:
        last = self.committed()
        return self.progress(last).stats.get("batch_id", "").rpartition("-")[0] or None if last >= 0 else None

    # --- one labeler at a time -------------------------------------------------------------------------------------

    @contextmanager
    def owned(self, take_over: bool = False):
        """Be the lake's labeler: yields the epoch, with which `fence` tells whether we still are.

        Raises LiveError where another process is, unless take_over: then that one can no longer commit. A lock of its own on the
        epoch says that its labeler lives: who has taken over does not hold the lake's, which the hung one keeps.
        """
        with self._lock() as lock:
            end = time.monotonic() + LANDING_PATIENCE_S
            while not (ours := lock.taken_by(LABELING)):
                labeling = lock.holder() == LABELING
                if not labeling and time.monotonic() < end:
                    time.sleep(0.1)
                elif labeling and take_over:
                    break
                else:
                    raise LiveError(self._held_by_another() if labeling else self._held_by_landing())
            with lock.left(ours):
                if ours and not take_over and self._labeler() is not None:
                    raise LiveError(self._held_by_another())
                with self._living(self._next_epoch()) as epoch:
                    yield epoch

    def _held_by_another(self) -> str:
        holder = self._labeler() or {}
        return (
            f"another live labeler (process {holder.get('pid', 'unknown')} on {holder.get('host', 'this machine')}, "
            f"since {holder.get('since', '?')}) works on {self.lake.root}; stop it, give this one another lake, or "
            "start with --take-over: then the other can no longer commit"
        )

    def _held_by_landing(self) -> str:
        return f"the asset `raw_events` still lands files into {self.lake.root}; wait for its run to end"

    @contextmanager
    def idle(self) -> Iterator[bool]:
        """Keep the live labeler from starting; False where one is at work. For who lands files: two would land them twice."""
        with self._lock() as lock, lock.left(lock.taken_by(LANDING)) as ours:
            yield ours and self._labeler() is None

    @contextmanager
    def _lock(self) -> Iterator[_Lock]:
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / LOCK, "a+") as handle:
            yield _Lock(handle)

    def epochs(self) -> list[int]:
        return self._numbers("epochs", ".json")

    def _epoch(self, number: int) -> dict:
        try:
            return self._read_json(f"epochs/{number:012d}.json") or {}
        except LiveError:  # who held it is not known then; that somebody did is in the name
            return {}

    def _labeler(self) -> dict | None:
        """Who labels: of the newest epoch whose process lives, or None."""
        for number in reversed(self.epochs()):
            with open(self._epoch_path(number)) as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return self._epoch(number)
        return None

    @contextmanager
    def _living(self, epoch: int) -> Iterator[int]:
        """Hold the epoch's own lock."""
        with open(self._epoch_path(epoch)) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                yield epoch
            finally:
                fcntl.flock(handle, fcntl.LOCK_UN)  # at once, though a child may have inherited the file

    def _epoch_path(self, number: int) -> Path:
        return self.root / "epochs" / f"{number:012d}.json"

    def _next_epoch(self) -> int:
        durable.make_folder(self.root / "epochs")
        while True:
            number = max(self.epochs(), default=-1) + 1
            body = {"pid": os.getpid(), "host": socket.gethostname(), "since": dt.datetime.now(dt.UTC).isoformat()}
            if self._create_json(f"epochs/{number:012d}.json", body):
                return number

    def fence(self, epoch: int) -> None:
        """Raises LiveError where another labeler has taken the lake over since."""
        newest = max(self.epochs(), default=-1)
        if newest < epoch:
            raise LiveError(
                f"{self.root / 'epochs' / f'{epoch:012d}.json'} is gone, by which this labeler holds the lake; it stops, nothing of "
                "its batch in hand was committed: start it again"
            )
        if newest != epoch:
            other = self._epoch(newest)
            raise LiveError(
                f"process {other.get('pid', 'unknown')} on {other.get('host', 'this machine')} has taken {self.lake.root} over at {other.get('since', '?')}; this "
                "labeler stops, nothing of its batch in hand was committed"
            )

    # --- plans and batches -----------------------------------------------------------------------------------------

    def committed(self) -> int:
        """The last batch that counts, -1 before the first."""
        moment = self.lake.log.newest()
        return moment.apps.get(APP, -1) if moment else -1

    def write_plan(self, plan: Plan) -> Plan:
        """Write a plan, unless the batch has one: that one is returned and holds."""
        self._create_json(f"plans/{plan.batch:012d}.json", asdict(plan))
        return self.plan(plan.batch)

    def plan(self, batch: int) -> Plan | None:
        """None where there is none; a damaged one of a batch that does not count yet is set aside, and there is none then.

        Raises LiveError where the plan of a batch that counts is damaged.
        """
        name = f"plans/{batch:012d}.json"
        try:
            body = self._read_json(name)
            found = body and Plan(**{**body, "files": tuple(body["files"]), "rest": _rest(body), "again": tuple(body.get("again", ()))})
            if found and found.batch != batch:
                raise LiveError(f"{self.root / name} is the plan of batch {found.batch}; {_RESTORE.format(self.root)}")
            return found
        except (LiveError, TypeError, KeyError) as error:
            if batch <= self.committed():
                raise self._unreadable(name, error) from error
        durable.set_aside(self.root / name, "is damaged", f"batch {batch}, which does not count yet, is planned anew")
        return None

    def known_plan(self, batch: int) -> Plan:
        """The plan of a batch that counts. Raises LiveError where it is gone or damaged."""
        found = self.plan(batch)
        if found is None:
            raise LiveError(f"{self.root / 'plans' / f'{batch:012d}.json'} is gone, though batch {batch} is committed; {_RESTORE.format(self.root)}")
        return found

    def finished(self, batch: int) -> dict[str, Stamp | None]:
        """Landing files that batch `batch`, committed, is done with, and what they were like."""
        return self.progress(batch).finished(self.known_plan(batch).files)

    def write_progress(self, progress: Progress) -> None:
        name = f"batches/{progress.batch:012d}.json"
        body = {**asdict(progress), "open_hours": sorted(progress.open_hours)}
        durable.write_durably(self.root / name, durable.sealed(name, body))

    def progress(self, batch: int) -> Progress:
        """Raises LiveError where it is gone or damaged."""
        name = f"batches/{batch:012d}.json"
        body = self._read_json(name)
        if body is None:
            raise LiveError(f"{self.root / name} is gone, though batch {batch} is committed; {_RESTORE.format(self.root)}")
        try:
            segments = {int(number): tuple(span) for number, span in body["segments"].items()}
            mixed = {int(hour): names for hour, names in body.get("mixed", {}).items()}
            found = Progress(**{
                **body, "mixed": mixed, "segments": segments, "open_hours": frozenset(body["open_hours"]),
                "left": tuple(body.get("left", ())),
                "rests": {name: Rest(**rest) for name, rest in body.get("rests", {}).items()},
                "stamps": {name: Stamp(*one) for name, one in body.get("stamps", {}).items()},
            })  # fmt: skip
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise self._unreadable(name, error) from error
        if found.batch != batch:
            raise LiveError(f"{self.root / name} is the file of batch {found.batch}; {_RESTORE.format(self.root)}")
        return found

    def last(self, count: int = 1) -> list[dict]:
        """Figures of the newest committed batches, oldest first."""
        end = self.committed()
        numbers = [batch for batch in self._numbers("batches", ".json") if batch <= end][-count:]
        return [self.progress(batch).stats for batch in numbers]

    # --- a watermark set back by hand --------------------------------------------------------------------------------

    def write_reset(self, reset: Reset) -> None:
        durable.write_durably(self.root / RESET, durable.sealed(RESET, asdict(reset)))

    def reset(self, batch: int) -> Reset | None:
        """What was set back after this batch; it counts until the next one is committed."""
        body = self._read_json(RESET)
        return Reset(**body) if body and body["batch"] == batch else None

    # --- segments and snapshots ------------------------------------------------------------------------------------

    def write_segment(self, batch: int, table: pa.Table) -> int:
        """Returns its bytes."""
        return self._write_arrow(f"segments/{batch:012d}.arrow", table)

    def segment(self, batch: int, check: bool = True) -> pa.Table:
        """A segment, mapped into memory: only the pages that are looked at are read, all of them if check.

        That of an older Glasshouse is given the columns that it lacks. Raises LiveError where it is gone, or (check) not
        what was written.
        """
        return EVENTS.completed(self._open(f"segments/{batch:012d}.arrow", check))

    def write_snapshot(self, batch: int, snapshot: Snapshot) -> None:
        """Write as a folder: first beside, then renamed into place."""
        name = f"snapshots/{batch:012d}"
        final = self.root / name
        beside = final.with_suffix(".part")
        for path in (beside, final):  # left by a crash: this is the same batch again
            shutil.rmtree(path, ignore_errors=True)
        beside.mkdir()
        self._write_arrow(f"{name}/open_impressions.arrow", _matrix_table(snapshot.open_impressions, IMPRESSION_COLUMNS), beside)
        self._write_arrow(f"{name}/open_clicks.arrow", _matrix_table(snapshot.open_clicks, CLICK_COLUMNS), beside)
        pending = {one: getattr(snapshot.pending, one) for one in Columns.__dataclass_fields__}
        self._write_arrow(f"{name}/pending.arrow", pa.table(pending), beside)
        consumed = f"{name}/consumed.json"
        durable.write_durably(beside / "consumed.json", durable.sealed(consumed, {"files": dict(sorted(snapshot.consumed.items()))}))
        durable.rename_durably(beside, final)

    def snapshot(self, batch: int) -> Snapshot:
        """Raises LiveError where a file of it is gone or damaged."""
        name = f"snapshots/{batch:012d}"
        pending = self._open(f"{name}/pending.arrow")
        consumed = self._read_json(f"{name}/consumed.json")
        if consumed is None:
            raise LiveError(f"{self.root / name / 'consumed.json'} is gone; {_RESTORE.format(self.root)}")
        try:
            return Snapshot(
                open_impressions=_matrix(self._open(f"{name}/open_impressions.arrow")),
                open_clicks=_matrix(self._open(f"{name}/open_clicks.arrow")),
                pending=Columns(*(pending[one].to_numpy() for one in Columns.__dataclass_fields__)),
                consumed=_consumed(consumed["files"] if isinstance(consumed, dict) else consumed),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._unreadable(name, error) from error

    def snapshots(self, upto: int) -> list[int]:
        """Batches of the snapshots on disk, the newest first; whether they can be read is another question."""
        return [batch for batch in reversed(self._numbers("snapshots", "")) if batch <= upto]

    def whole_history(self, last: int) -> bool:
        """Whether the segments of all batches up to `last` are there, so that no snapshot is needed."""
        return set(range(last + 1)) <= set(self._numbers("segments", ".arrow"))

    def forget(self, progress: Progress) -> None:
        """Delete what no restart after this batch's commit can need, if the newest snapshot turns out damaged too."""
        kept = self.snapshots(progress.snapshot)[:2]
        oldest = kept[1] if len(kept) == 2 else -1
        for batch in self._numbers("segments", ".arrow"):
            if batch <= oldest and batch not in progress.segments:
                (self.root / "segments" / f"{batch:012d}.arrow").unlink(missing_ok=True)
        for batch in self._numbers("snapshots", ""):
            if batch < oldest:
                shutil.rmtree(self.root / "snapshots" / f"{batch:012d}", ignore_errors=True)
        needed = min(oldest, progress.batch - KEPT_BATCHES)
        for folder in ("plans", "batches"):
            for batch in self._numbers(folder, ".json"):
                if batch >= needed:
                    break
                (self.root / folder / f"{batch:012d}.json").unlink(missing_ok=True)

    def _open(self, name: str, check: bool = True) -> pa.Table:
        path = self.root / name
        try:
            return self.maps.table(path, name if check else None)
        except FileNotFoundError as error:
            raise LiveError(f"{path} is gone, open sessions need it; {_RESTORE.format(self.root)}") from error
        except (pa.ArrowInvalid, pa.ArrowSerializationError, OSError, durable.DamagedError) as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: Exception) -> LiveError:
        if isinstance(error, LiveError):
            return error
        why = error.why if isinstance(error, durable.DamagedError) else f"is damaged: {error}"
        return LiveError(f"{self.root / name} {why}; {_RESTORE.format(self.root)}, or start on another lake and land the log again")

    def _read_json(self, name: str) -> Any:
        """None where there is none. Raises LiveError where it is damaged."""
        try:
            return durable.unsealed(self.root / name, name)
        except FileNotFoundError:
            return None
        except durable.DamagedError as error:
            raise self._unreadable(name, error) from error

    def _create_json(self, name: str, body: dict) -> bool:
        """Write a file unless there is one; False where there is."""
        return durable.create_durably(self.root / name, durable.sealed(name, body))

    def _write_arrow(self, name: str, table: pa.Table, folder: Path | None = None) -> int:
        """folder: in which the file lies for now. Returns its bytes."""
        path = folder / Path(name).name if folder else self.root / name
        beside = path.with_name(f"{path.name}.part")
        with durable.writing(path):
            with open(beside, "wb") as handle:
                sink = durable.Hashing(handle, name)
                with pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
                handle.write(trailer(sink.digest))
                handle.flush()
                os.fsync(handle.fileno())
                size = handle.tell()
            os.replace(beside, path)
            durable.sync_folder(path.parent)
        return size

    def _numbers(self, folder: str, suffix: str) -> list[int]:
        try:
            names = os.listdir(self.root / folder)
        except FileNotFoundError:
            return []
        stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
        return sorted(int(stem) for stem in stems if stem.isdigit())


def held(lake: Lake) -> tuple[int, int] | None:
    """A range of event time (µs, both ends included) that covers all rows that the live labeler still owes, or None."""
    if "://" in str(lake.root):
        return None
    last = Store(lake).last()
    return tuple(last[0]["held"]) if last and last[0]["held"] else None


@contextmanager
def idle(lake: Lake) -> Iterator[bool]:
    """Store.idle, for any lake: on one that is not a local folder there is no live labeler."""
    if lake.log is None:
        yield True
        return
    with Store(lake).idle() as free:
        yield free


def _consumed(files: dict | list) -> dict[str, Stamp | None]:
    """Older code wrote a list of names."""
    if isinstance(files, list):
        return dict.fromkeys(files)
    return {name: stamp and Stamp(*stamp) for name, stamp in files.items()}


def _rest(body: dict) -> Rest | None:
    return Rest(**body["rest"]) if body.get("rest") else None


def _matrix_table(matrix: np.ndarray, names: tuple[str, ...]) -> pa.Table:
    return pa.table([pa.array(row) for row in matrix], [*names, *SINCE_COLUMNS][: matrix.shape[0]])


def _matrix(table: pa.Table) -> np.ndarray:
    return np.stack([column.to_numpy() for column in table.columns])
