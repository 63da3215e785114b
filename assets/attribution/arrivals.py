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

import polars as pl
import pyarrow as pa

from assets.attribution.state import Plan, Rest
from assets.events import intake, landing, sources
from assets.events.contract import EVENTS, ID_KEYS, QUARANTINE, RAW_EVENTS, SOURCES
from assets.lake import Lake, Table

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


def read_landing(
    lake: Lake, folder: Path, plan: Plan, stopped: Callable[[], bool] = lambda: False, patience_s: float = 0.0
) -> Input:
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
    planned_at = dt.datetime.fromisoformat(plan.planned_at)
    version = plan.versions[SOURCES.name]
    known = set(lake.read(SOURCES.name, columns=["source"], version=version)["source"].to_pylist())
    book = intake.Landings(lake.read(SOURCES.name, version=version)) if plan.again else None
    ids = _Ids(lake, plan)
    found, gone, left, rest, stamps = _Read(), [], [], None, {}
    growing, unfinished, appended, replaced = [], [], [], []
    unreadable = 0
    for place, name in enumerate(plan.files):
        path = Path(folder) / name
        begun = plan.rest if plan.rest and plan.rest.file == name else None
        if place and plan.most is not None and found.bytes >= plan.most:  # the first is always read: a batch gets on
            left += plan.files[place:]
            break
        if not landing.is_there(path):
            gone.append(name)
            continue
        try:
            form = landing.form_of(path.parent)
        except sources.SourceError:  # its mapping was broken after the plan was made: it waits until that is mended
            left.append(name)
            continue
        # In the order of the plan, which is the order of arrival, also where the hours are accepted anew.
        landed_at = planned_at + place * dt.timedelta(microseconds=1)
        told = landing.told_of(path)
        try:
            source = intake.fingerprint(path, form)
            after = 0
            if begun:
                try:
                    after = _goes_on(path, form, source, begun)
                except sources.SourceError as error:  # what it was is gone, which is told; what it is now is taken whole
                    found.quarantine.append(intake.unreadable_file(path, form, landed_at, error))
                    unreadable, begun = unreadable + 1, None
            if not after and source in known:  # it has landed, perhaps by another name, or was only touched
                stamps[name] = _stamp(told)
                continue
            if name in plan.again and not begun:
                after = book.line(path, form)
            part = None if after is None else intake.part_of(source, after)
            if part is None or (part in known and not begun):
                stamps[name] = _stamp(told)
                continue
            known |= {source, part}
            line = _add_file(found, path, form, part, after, told, landed_at, plan.most, ids, stopped)
        except intake.Growing:
            growing.append(name)
            left.append(name)
            continue
        except (sources.SourceError, OSError) as error:
            if intake.is_unfinished(error, told, patience_s):
                unfinished.append(name)
                left.append(name)
                continue
            found.quarantine.append(intake.unreadable_file(path, form, landed_at, error))
            stamps[name] = _stamp(told, not os.access(path, os.R_OK))
            unreadable += 1
            continue
        if name in plan.again and not begun:
            (appended if after else replaced).append(name)
        if line is not None:
            rest = Rest(name, line, source, told.st_size if told else None)
            left += plan.files[place:]
            break
        stamps[name] = _stamp(told)
    return Input(
        events=intake.events_table(pl.concat(found.events) if found.events else intake.no_events(), EVENT_COLUMNS),
        quarantine=_frame_table(found.quarantine, QUARANTINE),
        raw=_frame_table(found.raws, RAW_EVENTS),
        sources=pa.Table.from_pylist(found.records, SOURCES.schema),
        id_keys=ids.new(),
        rows=sum(record["rows"] for record in found.records),
        unreadable=unreadable,
        gone=tuple(gone),
        left=tuple(left),
        rest=rest,
        stamps={name: stamp for name, stamp in stamps.items() if stamp is not None},
        growing=tuple(growing),
        unfinished=tuple(unfinished),
        appended=tuple(appended),
        replaced=tuple(replaced),
        repeated_keys=sum(record["repeated_keys"] for record in found.records),
    )


def _stamp(told: os.stat_result | None, trouble: bool = False) -> landing.Stamp | None:
    return told and landing.Stamp.of(told, trouble)


def _goes_on(path: Path, form, source: str, begun: Rest) -> int:
    """The line after which a file goes on that is taken in part. Raises SourceError where it no longer begins so."""
    if source != begun.source and (begun.bytes is None or intake.fingerprints(path, form, [begun.bytes])[0] != begun.source):
        raise sources.SourceError(
            f"it changed after the rows up to line {begun.line:,} were taken: the rows after them are gone, all that it holds now is taken"
        )
    return begun.line


def _add_file(
    found: _Read, path: Path, form, part: str, after: int, told: os.stat_result | None, landed_at: dt.datetime, most: int | None,
    ids: _Ids, stopped: Callable[[], bool],
) -> int | None:  # fmt: skip
    """Add a file's rows after a line; the line to go on after where the batch is full, None at its end.

    Raises Growing where the file is no longer what was `told` of it: then nothing is added.
    """
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
    if told is not None and not landing.Stamp.of(told).fits(path.stat()):
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
