"""What the live labeler remembers between two batches, and where it lies in the lake: under _live/.

Here: the files of a batch (plan, segment, state, commit marker), written so that a crash leaves either none or all of
each. Not here: what a batch does (live.py).

    _live/stream.json              the stream's name, drawn once
    _live/plans/K.json             which landing files batch K reads, and the version of `events` it looks repeats up in
    _live/segments/K.arrow         the accepted events of batch K, while an open session or a repeat may need one
    _live/state/K/*.arrow          open sessions and pending events, numbers only; they name strings by segment and row
    _live/commits/K.json           batch K is in every table; watermark and measurements
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from assets.attribution.fold import CLICK_COLUMNS, IMPRESSION_COLUMNS, NONE, Columns, no_sessions
from assets.lake import Lake

ROW_BITS = 32  # ctx = batch << ROW_BITS | row of that batch's segment
KEPT_COMMITS = 1000  # markers kept for the pages and for looking back; older ones are deleted


class LiveError(Exception):
    """The live labeler cannot start or go on; the message says what to do next."""


@dataclass(frozen=True)
class State:
    """After batch `batch`. watermark, memory_from: µs since the epoch, NONE before the first event.

    Repeats of events with event_time >= memory_from are all in `segments`; older ones are looked up in `events`.
    segments: batch -> greatest event_time in it. consumed: landing files that are done and still lie there.
    open_hours: hours (µs) with events of which not every session is closed. window_us: the length of a session.
    """

    batch: int = -1
    watermark: int = NONE
    greatest: int = NONE
    memory_from: int = NONE
    window_us: int = 0
    open_impressions: np.ndarray = field(default_factory=no_sessions)
    open_clicks: np.ndarray = field(default_factory=no_sessions)
    pending: Columns = field(default_factory=Columns.empty)
    segments: dict[int, int] = field(default_factory=dict)
    consumed: frozenset[str] = frozenset()
    open_hours: frozenset[int] = frozenset()

    @property
    def held(self) -> tuple[int, int] | None:
        """First and last moment of which a row is still to come, or None: starts of open sessions, pending events."""
        times = np.concatenate([self.open_impressions[2], self.open_clicks[2], self.pending.time])
        return (int(times.min()), int(times.max())) if times.size else None


@dataclass(frozen=True)
class Plan:
    """What batch `batch` reads, so that a repeat of it reads the same.

    files: paths under the landing folder, in order. planned_at: RFC 3339. versions: of the tables that it looks into.
    """

    batch: int
    files: tuple[str, ...]
    planned_at: str
    versions: dict[str, int]


class Store:
    """The folder _live/ of a lake on a local disk.

    Raises LiveError where the lake is not a local folder: renames and locks are what the protocol stands on.
    """

    def __init__(self, lake: Lake):
        if "://" in str(lake.root):
            raise LiveError(f"the live labeler keeps its state beside a lake on a local disk, not at {lake.root}")
        self.root = Path(lake.root) / "_live"

    def prepare(self) -> str:
        """Make the folders; returns the stream's name."""
        for name in ("plans", "segments", "state", "commits"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        path = self.root / "stream.json"
        if not path.exists():
            _write_json(path, {"stream": uuid.uuid4().hex[:12]})
        return json.loads(path.read_text())["stream"]

    @contextmanager
    def locked(self):
        """Hold the lake's live labeler alone. Raises LiveError where another process holds it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "lock", "a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                raise LiveError(
                    f"another live labeler (process {handle.read().strip() or 'unknown'}) works on {self.root.parent}; "
                    "stop it, or give this one another lake"
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    # --- plans and markers -----------------------------------------------------------------------------------------

    def last_commit(self) -> dict | None:
        """The marker of the newest batch that is in every table."""
        batches = self._numbers("commits", ".json")
        return json.loads((self.root / "commits" / f"{batches[-1]:012d}.json").read_text()) if batches else None

    def commits(self, last: int = 100) -> list[dict]:
        """The newest markers, oldest first."""
        batches = self._numbers("commits", ".json")[-last:]
        return [json.loads((self.root / "commits" / f"{batch:012d}.json").read_text()) for batch in batches]

    def write_plan(self, plan: Plan) -> None:
        _write_json(self.root / "plans" / f"{plan.batch:012d}.json", asdict(plan))

    def plan(self, batch: int) -> Plan | None:
        path = self.root / "plans" / f"{batch:012d}.json"
        if not path.exists():
            return None
        body = json.loads(path.read_text())
        return Plan(**{**body, "files": tuple(body["files"])})

    def write_commit(self, batch: int, body: dict) -> None:
        _write_json(self.root / "commits" / f"{batch:012d}.json", {"batch": batch, **body})

    # --- segments and state ----------------------------------------------------------------------------------------

    def write_segment(self, batch: int, table: pa.Table) -> None:
        _write_arrow(self.root / "segments" / f"{batch:012d}.arrow", table)

    def segment(self, batch: int) -> pa.Table:
        """A segment, mapped into memory: only the pages that are looked at are read."""
        path = self.root / "segments" / f"{batch:012d}.arrow"
        try:
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except FileNotFoundError as error:
            raise LiveError(f"{path} is gone, open sessions need it; restore {self.root} from a copy") from error

    def write_state(self, state: State) -> None:
        """Write state K as a folder: first beside, then renamed into place."""
        final = self.root / "state" / f"{state.batch:012d}"
        beside = final.with_suffix(".part")
        for path in (beside, final):  # left by a crash: this is the same batch again
            shutil.rmtree(path, ignore_errors=True)
        beside.mkdir()
        _write_arrow(beside / "open_impressions.arrow", _matrix_table(state.open_impressions, IMPRESSION_COLUMNS))
        _write_arrow(beside / "open_clicks.arrow", _matrix_table(state.open_clicks, CLICK_COLUMNS))
        pending = {name: getattr(state.pending, name) for name in Columns.__dataclass_fields__}
        _write_arrow(beside / "pending.arrow", pa.table(pending))
        _write_json(beside / "numbers.json", {
            "batch": state.batch, "watermark": state.watermark, "greatest": state.greatest,
            "memory_from": state.memory_from, "window_us": state.window_us,
            "segments": {str(batch): time for batch, time in state.segments.items()},
            "consumed": sorted(state.consumed), "open_hours": sorted(state.open_hours),
        })  # fmt: skip
        os.rename(beside, final)
        _sync(final.parent)

    def state(self, batch: int) -> State:
        folder = self.root / "state" / f"{batch:012d}"
        if not folder.exists():
            raise LiveError(f"{folder} is gone, though batch {batch} is committed; restore {self.root} from a copy")
        numbers = json.loads((folder / "numbers.json").read_text())
        pending = _read_arrow(folder / "pending.arrow")
        return State(
            batch=numbers["batch"],
            watermark=numbers["watermark"],
            greatest=numbers["greatest"],
            memory_from=numbers["memory_from"],
            window_us=numbers["window_us"],
            open_impressions=_matrix(_read_arrow(folder / "open_impressions.arrow")),
            open_clicks=_matrix(_read_arrow(folder / "open_clicks.arrow")),
            pending=Columns(*(pending[name].to_numpy() for name in Columns.__dataclass_fields__)),
            segments={int(batch): time for batch, time in numbers["segments"].items()},
            consumed=frozenset(numbers["consumed"]),
            open_hours=frozenset(numbers["open_hours"]),
        )

    def forget(self, state: State) -> None:
        """Delete what no restart after this state's commit can need."""
        for batch in self._numbers("segments", ".arrow"):
            if batch <= state.batch and batch not in state.segments:
                (self.root / "segments" / f"{batch:012d}.arrow").unlink()
        for batch in self._numbers("state", ""):
            if batch < state.batch:
                shutil.rmtree(self.root / "state" / f"{batch:012d}")
        for folder in ("plans", "commits"):
            for batch in self._numbers(folder, ".json"):
                if batch < state.batch - KEPT_COMMITS:
                    (self.root / folder / f"{batch:012d}.json").unlink()

    def _numbers(self, folder: str, suffix: str) -> list[int]:
        try:
            names = os.listdir(self.root / folder)
        except FileNotFoundError:
            return []
        stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
        return sorted(int(stem) for stem in stems if stem.isdigit())


def held(lake: Lake) -> tuple[int, int] | None:
    """The range of event time (µs, both ends included) of which the live labeler still owes rows, or None."""
    if "://" in str(lake.root):
        return None
    commit = Store(lake).last_commit()
    return tuple(commit["held"]) if commit and commit["held"] else None


def _matrix_table(matrix: np.ndarray, names: tuple[str, ...]) -> pa.Table:
    return pa.table([pa.array(row) for row in matrix], list(names))


def _matrix(table: pa.Table) -> np.ndarray:
    return np.stack([column.to_numpy() for column in table.columns])


def _write_json(path: Path, body: dict) -> None:
    _replace(path, lambda handle: handle.write(json.dumps(body, indent=1).encode()))


def _write_arrow(path: Path, table: pa.Table) -> None:
    def write(handle):
        with pa.ipc.new_file(handle, table.schema) as writer:
            writer.write_table(table)

    _replace(path, write)


def _read_arrow(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _replace(path: Path, write) -> None:
    """Write a file so that its name never stands for half of it, not even after a power cut."""
    beside = path.with_suffix(path.suffix + ".part")
    with open(beside, "wb") as handle:
        write(handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(beside, path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
