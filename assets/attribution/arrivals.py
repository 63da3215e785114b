"""What landed, as the live labeler's input: events in order of arrival, and the rows of the tables beside them.

Here: the reading of a batch's files within its bounds, whole or (where a file cannot be read) as one row of quarantine.
Not here: how a file is parsed (assets/events), which files a batch takes and what becomes of the events (live.py).
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from assets.attribution.state import Plan, Rest
from assets.events import intake, landing, sources
from assets.events.contract import EVENTS, ID_KEYS, QUARANTINE, RAW_EVENTS, SOURCES
from assets.lake import Lake, Table

if TYPE_CHECKING:
    from assets.events.intake import Native
    from assets.events.mapping import Mapping

EVENT_COLUMNS = pa.schema([column for column in EVENTS.schema if column.name != "hour"])
ROW_BYTES = 400  # what a row takes beside its bytes; measured on rows of two bytes


class Stopped(Exception):
    """The labeler is asked to stop while it reads a batch: nothing of the batch is kept, its plan stays."""


@dataclass(frozen=True)
class Input:
    """What a batch's files hold.

    events: EVENT_SCHEMA, every good row in order of arrival, repeats included. rows: rows read. unreadable: files.
    raw, sources, quarantine, id_keys: rows of those tables. stored: the events are in the table `events` already, so they
    are not written again. gone: files of the plan that are no longer there. left: files of the plan that the next batches
    read. rest: where the file goes on that is read in part, None where there is none. stamps: what the files that are done with
    were like. growing: of those left the ones that were written to while they were read; unfinished: that are packed and not whole
    yet. appended: files, taken before, of which the new rows were read; replaced: of which all were. repeated_keys: rows that hold a key twice.
    """

    events: pa.Table
    quarantine: pa.Table
    raw: pa.Table
    sources: pa.Table
    id_keys: pa.Table
    rows: int
    unreadable: int = 0
    stored: bool = False
    gone: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    rest: Rest | None = None
    stamps: dict[str, landing.Stamp] = field(default_factory=dict)
    growing: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    appended: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    repeated_keys: int = 0


def landing_files(folder: Path) -> list[str]:
    """Logs under the landing folder in order of arrival: by name, then by subfolder."""
    return landing.logs(Path(folder))


@dataclass
class _Read:
    """Frames of the files read so far; bytes: of their rows, and what a row takes beside them."""

    raws: list[pl.DataFrame] = field(default_factory=list)
    events: list[pl.DataFrame] = field(default_factory=list)
    quarantine: list[pl.DataFrame] = field(default_factory=list)
    keys: list[pl.DataFrame] = field(default_factory=list)
    records: list[dict] = field(default_factory=list)
    bytes: int = 0

    def add(self, more: _Read) -> None:
        for name in ("raws", "events", "quarantine", "keys", "records"):
            getattr(self, name).extend(getattr(more, name))


class LandedFiles:
    """The `source` of every file that has landed, kept from batch to batch: only data files that are new to it are read."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.sources: set[str] = set()

    def at(self, lake: Lake, version: int) -> set[str]:
        """Those that `sources` holds at a version; not to be changed."""
        adds = pa.table(lake.open(SOURCES.name, version).get_add_actions(flatten=True))
        files = {unquote(path) for path in adds["path"].to_pylist()}
        if not self.files <= files:  # tidied, or another lake
            self.files, self.sources = set(), set()
        new = sorted(files - self.files)
        lake.check_files(SOURCES.name, new)
        for path in new:
            with pq.ParquetFile(f"{lake.path(SOURCES.name)}/{path}") as file:
                self.sources.update(file.read(columns=["source"])["source"].to_pylist())
        self.files = files
        return self.sources


def read_landing(
    lake: Lake, folder: Path, plan: Plan, stopped: Callable[[], bool] = lambda: False, patience_s: float = 0.0,
    landed: LandedFiles | None = None,
) -> Input:  # fmt: skip
    """Read the plan's files: a folder's own mapping.toml says how, else they are native events. They landed when it was made.

    A file whose content was landed before (`sources` at the plan's version) is not read again: its raw rows are in the
    lake, and the asset that landed them makes events of them. One that cannot be read is a row of quarantine, with row 0
    and its first bytes: land it again, mended, under another name. One that is gone is left out. After plan.most bytes of
    rows the batch is full: the files after it, and the rest of the one in hand, are for the next.
    Of a file that was taken before and has changed since (plan.again) the rows after the old ones are read where it begins with
    all that it was, else all of them. One that is written to meanwhile is left for the next batch, a packed one that is cut too
    until its last change lies patience_s back.
    Raises Stopped, between two blocks, once `stopped` says so.
    """
    reading = _Reading(lake, Path(folder), plan, stopped, patience_s, landed or LandedFiles())
    for place, name in enumerate(plan.files):
        if place and reading.is_full():  # the first is always read: a batch gets on
            reading.left += plan.files[place:]
            break
        reading.take(place, name)
        if reading.rest is not None:
            reading.left += plan.files[place:]
            break
    return reading.input()


@dataclass(frozen=True)
class _File:
    """A file of the plan. form: how it is read; told: what the system tells of it, before it is read."""

    name: str
    path: Path
    form: Native | Mapping
    told: os.stat_result | None
    landed_at: dt.datetime


class _Reading:
    """A batch in the making: which files were landed before, and what became of the plan's so far, by the names of Input."""

    def __init__(
        self, lake: Lake, folder: Path, plan: Plan, stopped: Callable[[], bool], patience_s: float, landed: LandedFiles
    ) -> None:
        self.folder, self.plan, self.stopped, self.patience_s = folder, plan, stopped, patience_s
        version = plan.versions[SOURCES.name]
        self.landed, self.taken = landed.at(lake, version), set()
        self.book = intake.Landings(lake.read(SOURCES.name, version=version)) if plan.again else None
        self.ids, self.found = _Ids(lake, plan), _Read()
        self.gone, self.left, self.growing, self.unfinished, self.appended, self.replaced = ([] for _ in range(6))
        self.stamps: dict[str, landing.Stamp | None] = {}
        self.rest: Rest | None = None
        self.unreadable = 0

    def is_full(self) -> bool:
        return self.plan.most is not None and self.found.bytes >= self.plan.most

    def take(self, place: int, name: str) -> None:
        """Read a file, as far as the batch has room; or note why it is not read."""
        path = self.folder / name
        if not landing.is_there(path):
            self.gone.append(name)
            return
        try:
            form = landing.form_of(path.parent)
        except sources.SourceError:  # its mapping was broken after the plan was made: it waits until that is mended
            self.left.append(name)
            return
        # In the order of the plan, which is the order of arrival, also where the hours are accepted anew.
        landed_at = dt.datetime.fromisoformat(self.plan.planned_at) + place * dt.timedelta(microseconds=1)
        file = _File(name, path, form, landing.told_of(path), landed_at)
        try:
            self._read(file)
        except intake.Growing:
            self.growing.append(name)
            self.left.append(name)
        except (sources.SourceError, OSError) as error:
            self._not_read(file, error)

    def _read(self, file: _File) -> None:
        """Take the rows of a file that have not landed before."""
        source = intake.fingerprint(file.path, file.form)
        begun = self._begun(file, source)
        again = file.name in self.plan.again and not begun
        after = begun.line if begun else 0
        if not after and self._is_known(source):  # it has landed, perhaps by another name, or was only touched
            self.stamps[file.name] = _stamp(file.told)
            return
        if again:
            after = self.book.line(file.path, file.form)
        part = None if after is None else intake.part_of(source, after)
        if part is None or (self._is_known(part) and not begun):
            self.stamps[file.name] = _stamp(file.told)
            return
        self.taken |= {source, part}
        line = _add_file(self.found, file, part, after, self.plan.most, self.ids, self.stopped)
        if again:
            (self.appended if after else self.replaced).append(file.name)
        if line is None:
            self.stamps[file.name] = _stamp(file.told)
        else:
            self.rest = Rest(file.name, line, source, file.told.st_size if file.told else None)

    def _is_known(self, source: str) -> bool:
        return source in self.landed or source in self.taken

    def _begun(self, file: _File, source: str) -> Rest | None:
        """Where a file goes on that is taken in part."""
        begun = self.plan.rest
        if begun is None or begun.file != file.name:
            return None
        try:
            _check_goes_on(file, source, begun)
        except sources.SourceError as error:  # what it was is gone, which is told; what it is now is taken whole
            self.found.quarantine.append(intake.unreadable_file(file.path, file.form, file.landed_at, error))
            self.unreadable += 1
            return None
        return begun

    def _not_read(self, file: _File, error: Exception) -> None:
        """A file that cannot be read is a row of quarantine; one that may be whole later is left."""
        if intake.is_unfinished(error, file.told, self.patience_s):
            self.unfinished.append(file.name)
            self.left.append(file.name)
            return
        self.found.quarantine.append(intake.unreadable_file(file.path, file.form, file.landed_at, error))
        self.stamps[file.name] = _stamp(file.told, not os.access(file.path, os.R_OK))
        self.unreadable += 1

    def input(self) -> Input:
        found = self.found
        return Input(
            events=intake.events_table(intake.joined(found.events), EVENT_COLUMNS),
            quarantine=_frame_table(found.quarantine, QUARANTINE),
            raw=_frame_table(found.raws, RAW_EVENTS),
            sources=pa.Table.from_pylist(found.records, SOURCES.schema),
            id_keys=self.ids.new(),
            rows=sum(record["rows"] for record in found.records),
            unreadable=self.unreadable,
            gone=tuple(self.gone),
            left=tuple(self.left),
            rest=self.rest,
            stamps={name: stamp for name, stamp in self.stamps.items() if stamp is not None},
            growing=tuple(self.growing),
            unfinished=tuple(self.unfinished),
            appended=tuple(self.appended),
            replaced=tuple(self.replaced),
            repeated_keys=sum(record["repeated_keys"] for record in found.records),
        )


def _stamp(told: os.stat_result | None, trouble: bool = False) -> landing.Stamp | None:
    return told and landing.Stamp.of(told, trouble)


def _check_goes_on(file: _File, source: str, begun: Rest) -> None:
    """Raises SourceError where a file that is taken in part no longer begins so."""
    if source == begun.source:
        return
    if begun.bytes is None or intake.fingerprints(file.path, file.form, [begun.bytes])[0] != begun.source:
        raise sources.SourceError(
            f"it changed after the rows up to line {begun.line:,} were taken: the rows after them are gone, all that it holds now is taken"
        )


def _add_file(
    found: _Read, file: _File, part: str, after: int, most: int | None, ids: _Ids, stopped: Callable[[], bool],
) -> int | None:  # fmt: skip
    """Add a file's rows after a line; the line to go on after where the batch is full, None at its end.

    Raises Growing where the file is no longer what was told of it: then nothing is added.
    """
    path, form, landed_at = file.path, file.form, file.landed_at
    line, tail, csv = after, intake.Tail(after), form.layout(path).format == "csv"
    mine, rows, full = _Read(), 0, False
    for block, parsed in intake.parse_file(path, form, after=line, landed_at=landed_at):
        if stopped():
            raise Stopped
        if full:
            break
        tail.add(block, csv)
        hour = intake.raw_hours(parsed.clock, landed_at, live=True)
        raw = pl.DataFrame({"hour": hour, "row": block.number, "body": block.body(None)})
        raw = raw.with_columns(source=pl.lit(part), reason=parsed.reason)
        if not block.cut:
            mine.raws.append(raw.select(RAW_EVENTS.schema.names))
        mine.quarantine.append(raw.filter(parsed.reason.is_not_null()).select(QUARANTINE.schema.names))
        mine.events.append(parsed.events)
        mine.keys.append(parsed.id_keys)
        rows += len(block)
        mine.bytes += raw["body"].bin.size().sum() + ROW_BYTES * len(block)
        line = int(block.number[-1])
        full = most is not None and found.bytes + mine.bytes >= most
    else:
        full = False
    if file.told is not None and not landing.Stamp.of(file.told).fits(path.stat()):
        raise intake.Growing
    mine.records.append(intake.record_of(path, form, part, rows, landed_at, tail, live=True))
    ids.add(mine.keys)
    # Only now: a file, or what of it a batch has room for, counts as a whole or not at all.
    found.add(mine)
    found.bytes += mine.bytes
    return line if full else None


class _Ids:
    """Keys of string ids: those that `id_keys` holds at the plan's version, and the batch's new ones."""

    def __init__(self, lake: Lake, plan: Plan) -> None:
        self.lake, self.version = lake, plan.versions[ID_KEYS.name]
        self.known: pl.DataFrame | None = None
        self.fresh: list[pl.DataFrame] = []

    def add(self, keys: Sequence[pl.DataFrame]) -> None:
        """Raises SourceError where two ids have one key; then nothing is added."""
        frames = [frame for frame in keys if len(frame)]
        if not frames:
            return
        if self.known is None:
            self.known = pl.from_arrow(self.lake.read(ID_KEYS.name, version=self.version))
        columns = ["kind", "key", "original"]
        new = pl.concat(frames).unique(maintain_order=True).join(self.known, on=columns, how="anti").select(columns)
        same_key = self.known.join(new, on=["kind", "key"], how="semi").select(columns)
        intake.check_collisions(pl.concat([same_key, new]))
        self.fresh.append(new)
        self.known = pl.concat([self.known.select(columns), new])

    def new(self) -> pa.Table:
        return _frame_table(self.fresh, ID_KEYS)


def _frame_table(frames: Sequence[pl.DataFrame], table: Table) -> pa.Table:
    if not frames:
        return table.empty()
    return intake.to_arrow(pl.concat([frame.select(table.schema.names) for frame in frames]), table.schema)
