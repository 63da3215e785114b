"""What landed, as the live labeler's input: events in order of arrival, and the rows of the tables beside them.

Here: the reading of a batch's files, whole or (where a file cannot be read) as one row of quarantine. Not here: how a file is
parsed (assets/events), which files a batch takes and what becomes of the events (live.py).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from assets.attribution.state import LiveError, Plan
from assets.events import intake, landing, sources
from assets.events.contract import EVENTS, ID_KEYS, QUARANTINE, RAW_EVENTS, SOURCES
from assets.lake import Lake, Table

HEAD_BYTES = 1000  # of an unreadable file, kept in quarantine
EVENT_COLUMNS = pa.schema([column for column in EVENTS.schema if column.name != "hour"])


@dataclass(frozen=True)
class Input:
    """What a batch's files hold.

    events: EVENT_SCHEMA, every good row in order of arrival, repeats included. rows: rows read. unreadable: files.
    raw, sources, quarantine, id_keys: rows of those tables. stored: the events are in the table `events` already, so they
    are not written again.
    """

    events: pa.Table
    quarantine: pa.Table
    raw: pa.Table
    sources: pa.Table
    id_keys: pa.Table
    rows: int
    unreadable: int = 0
    stored: bool = False


def landing_files(folder: Path) -> list[str]:
    """Logs under the landing folder in order of arrival: by name, then by subfolder."""
    found = [path.relative_to(folder) for batch in landing.batches(Path(folder)) for path in batch.paths]
    return [str(path) for path in sorted(found, key=lambda path: (path.name, str(path)))]


@dataclass
class _Read:
    """Frames of the files read so far."""

    raws: list[pl.DataFrame]
    events: list[pl.DataFrame]
    quarantine: list[pl.DataFrame]
    keys: list[pl.DataFrame]
    records: list[dict]


def read_landing(lake: Lake, folder: Path, plan: Plan) -> Input:
    """Read the plan's files: a folder's own mapping.toml says how, else they are native events. They landed when it was made.

    A file whose content was landed before (`sources` at the plan's version) is not read again: its raw rows are in the
    lake, and the asset that landed them makes events of them. One that cannot be read is a row of quarantine, with row 0
    and its first bytes: land it again, mended, under another name. Raises LiveError where a file of the plan is gone.
    """
    landed_at = dt.datetime.fromisoformat(plan.planned_at)
    known = set(lake.read(SOURCES.name, columns=["source"], version=plan.versions[SOURCES.name])["source"].to_pylist())
    found = _Read([], [], [], [], [])
    forms: dict[Path, object] = {}
    unreadable = 0
    for path in (Path(folder) / name for name in plan.files):
        if not path.exists():
            raise LiveError(f"{path} is gone though batch {plan.batch} is to read it; put it back")
        if path.parent not in forms:
            forms[path.parent] = _form(path.parent / landing.MAPPING)
        form = forms[path.parent]
        source = intake.fingerprint(path, form)
        if source in known:
            continue
        known.add(source)
        try:
            _add_file(found, path, form, source, landed_at)
        except (sources.SourceError, OSError, EOFError, pa.ArrowInvalid, pl.exceptions.PolarsError) as error:
            found.quarantine.append(_unreadable(path, source, landed_at, error))
            unreadable += 1
    return Input(
        events=intake.to_arrow(pl.concat(found.events) if found.events else intake.no_events(), EVENT_COLUMNS),
        quarantine=_frame_table(found.quarantine, QUARANTINE),
        raw=_frame_table(found.raws, RAW_EVENTS),
        sources=pa.Table.from_pylist(found.records, SOURCES.schema),
        id_keys=_new_keys(lake, found.keys, plan),
        rows=sum(record["rows"] for record in found.records),
        unreadable=unreadable,
    )


def _add_file(found: _Read, path: Path, form, source: str, landed_at: dt.datetime) -> None:
    raws, events, quarantine, keys, rows = [], [], [], [], 0
    for block, parsed in intake.parse_file(path, form, landed_at):
        hour = intake.raw_hours(parsed.clock, landed_at, live=True)
        raw = pl.DataFrame({"hour": hour, "row": block.number, "body": block.body(None)})
        raw = raw.with_columns(source=pl.lit(source), reason=parsed.reason)
        raws.append(raw.select(RAW_EVENTS.schema.names))
        quarantine.append(raw.filter(parsed.reason.is_not_null()).select(QUARANTINE.schema.names))
        events.append(parsed.events)
        keys.append(parsed.id_keys)
        rows += len(block)
    layout = form.layout(path)
    found.records.append({
        "source": source, "name": path.name, "format": layout.format, "header": sources.header_of(path, layout),
        "mapping": form.text, "rows": rows, "bytes": path.stat().st_size, "landed_at": landed_at,
        "live": True,
    })  # fmt: skip
    # Only now: a file counts as a whole or not at all.
    found.raws += raws
    found.events += events
    found.quarantine += quarantine
    found.keys += keys


def _unreadable(path: Path, source: str, landed_at: dt.datetime, error: Exception) -> pl.DataFrame:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    hour = landed_at.replace(minute=0, second=0, microsecond=0)
    row = {"hour": [hour], "source": [source], "row": [intake.WHOLE_FILE], "body": [head],
           "reason": [f"file: {path.name} cannot be read: {error}"]}  # fmt: skip
    schema = {"hour": intake.UTC_US, "source": pl.String, "row": pl.Int64, "body": pl.Binary, "reason": pl.String}
    return pl.DataFrame(row, schema=schema).select(QUARANTINE.schema.names)


def _form(mapping_file: Path):
    if not mapping_file.exists():
        return intake.Native()
    from assets.events.mapping import load_mapping

    return load_mapping(mapping_file)


def _frame_table(frames: Sequence[pl.DataFrame], table: Table) -> pa.Table:
    if not frames:
        return table.empty()
    return intake.to_arrow(pl.concat(frames), table.schema)


def _new_keys(lake: Lake, keys: Sequence[pl.DataFrame], plan: Plan) -> pa.Table:
    """Keys of string ids that `id_keys` does not hold yet. Raises SourceError where two ids have one key."""
    frames = [frame for frame in keys if len(frame)]
    if not frames:
        return ID_KEYS.empty()
    known = pl.from_arrow(lake.read(ID_KEYS.name, version=plan.versions[ID_KEYS.name]))
    new = pl.concat(frames).unique(maintain_order=True).join(known, on=["kind", "key", "original"], how="anti")
    intake.check_collisions(pl.concat([known.select(new.columns), new]))
    return _frame_table([new.select(ID_KEYS.schema.names)], ID_KEYS)
