"""A plain reader of logs: a file to events and quarantine with Python's json and csv, a row after the other. What the differential
test holds the house against.

Here: the rules of docs/contract.md, once more, by hand, without a line of the house's readers. Not here: hostile files
(differential.py), where records of CSV end (reference.py).
"""

from __future__ import annotations

import base64
import csv
import datetime as dt
import decimal
import gzip
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from tests.fuzz.reference import BOM, _Marks

TYPED = ("device", "author_id", "topic", "device_id", "app_version")

COLUMNS = ("event_id", "user_id", "note_id", "action", "event_time", "ingest_time", "dwell_ms", "request_id", "channel", "position")
REQUIRED = COLUMNS[:5]
ACTIONS = (
    "impression", "click", "view_end", "like", "unlike", "fav", "unfav", "comment", "share", "follow", "unfollow", "hide", "profile_enter",
)  # fmt: skip
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FIRST, LAST = ((dt.datetime(year, 1, 1, tzinfo=dt.UTC) - EPOCH) // dt.timedelta(microseconds=1) for year in (2000, 2100))
FIVE_MINUTES = 300_000_000
NOT_UTF8, NOT_OBJECT = "line: not UTF-8", "line: not a JSON object"
HALF = "line: half a character (an escape \\ud800 to \\udfff without its other half)"
TOO_DEEP = "line: lists and objects nested deeper than 200"
OPEN_QUOTE = "line: a quote that does not close, or text after one"


@dataclass(frozen=True)
class Number:
    """A number as it stands in the file."""

    text: str


@dataclass
class Plain:
    """events: id -> columns (times in µs, context as values, or None), the first of each id. quarantine: row -> reason."""

    events: dict[str, dict] = field(default_factory=dict)
    quarantine: dict[int, str] = field(default_factory=dict)
    rows: int = 0
    repeats: int = 0
    repeated_keys: int = 0


def read(path: Path) -> Plain:
    """A native log by its suffix."""
    name, found = path.name.lower(), Plain()
    if name.endswith(".parquet"):
        rows = _parquet(path)
    else:
        data = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
        stem = name.removesuffix(".gz")
        rows = _csv(data.removeprefix(BOM), "\t" if stem.endswith("tsv") else ",") if stem.endswith(("csv", "tsv")) else _json(data.removeprefix(BOM))
    for number, values, twice, wrong in rows:
        found.rows += 1
        found.repeated_keys += twice
        event, why = (None, wrong) if wrong else typed(values)
        if why:
            found.quarantine[number] = why
        elif event["event_id"] in found.events:
            found.repeats += 1
        else:
            found.events[event["event_id"]] = event
    return found


# --- files to values: (row, values by column, whether a key stands twice, why it cannot be read) -----------------------


def _json(data: bytes) -> Iterator[tuple[int, dict, bool, str | None]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line or line == b"\r":
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield number, {}, False, NOT_UTF8
            continue
        twice = []

        def pairs(found, twice=twice):
            twice[:] = [len({key for key, _ in found}) < len(found)]  # the outermost object comes last
            return dict(found)

        try:
            row = json.loads(text, object_pairs_hook=pairs, parse_int=Number, parse_float=Number, parse_constant=Number)
        except RecursionError:
            row = None
        except ValueError:
            yield number, {}, False, NOT_OBJECT
            continue
        if not isinstance(row, dict):
            yield number, {}, False, NOT_OBJECT
        elif _half(row):
            yield number, {}, False, HALF
        elif _depth(row) > 201:  # the row itself is one
            yield number, {}, False, TOO_DEEP
        else:
            yield number, row, twice[0], None


def _half(value) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, dict):
        return any(_half(key) or _half(one) for key, one in value.items())
    return isinstance(value, list) and any(map(_half, value))


def _depth(value) -> int:
    if isinstance(value, (dict, list)):
        return 1 + max((_depth(one) for one in (value.values() if isinstance(value, dict) else value)), default=0)
    return 0


def _csv(data: bytes, separator: str) -> Iterator[tuple[int, dict, bool, str | None]]:
    marks = _Marks(separator.encode(), b'"')
    at, line, names = 0, 1, None
    while at < len(data):
        end, after, fields, spans = marks.record(data, at)
        broken = end is None or (names is not None and spans and fields != len(names))
        if broken:
            ending = re.compile(rb"\r\n|\n|\r").search(data, at)
            end, after = ending.span() if ending else (len(data), len(data))
        record = data[at:end]
        number, line, at = line, line + len(re.findall(rb"\r\n|\n|\r", data[at:after])), after
        if not record:
            continue
        try:
            text = record.decode()
        except UnicodeDecodeError:
            yield number, {}, False, NOT_UTF8
            continue
        values = _fields(text, separator)
        if names is None:
            names = values
        elif values is None:
            yield number, {}, False, OPEN_QUOTE
        elif len(values) != len(names):
            yield number, {}, False, f"line: not {len(names)} fields"
        else:
            yield number, {name: value or None for name, value in zip(names, values, strict=True)}, False, None


def _fields(record: str, separator: str) -> list[str] | None:
    csv.field_size_limit(2**30)
    try:  # newline="": what ends a line within quotes is the field's
        (found,) = csv.reader(io.StringIO(record, newline=""), delimiter=separator, strict=True)
    except (csv.Error, ValueError):
        return None
    return found


def _parquet(path: Path) -> Iterator[tuple[int, dict, bool, str | None]]:
    table = pq.read_table(path)
    for number, row in enumerate(table.to_pylist(), 1):
        yield number, {name: _arrow(value, table.schema.field(name).type) for name, value in row.items()}, False, None


def _arrow(value, kind: pa.DataType):
    """A value of Arrow as JSON has it."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and pa.types.is_duration(kind) is False:
        return Number(str(value))
    if isinstance(value, float):
        return Number(repr(value) if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)])
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if value.tzinfo else value.isoformat()
    if isinstance(value, (dt.date, dt.time)):
        return str(value)
    if isinstance(value, dt.timedelta):
        return Number(str(value // dt.timedelta(microseconds=1)))
    if isinstance(value, list):
        return [_arrow(one, kind.value_type) for one in value]
    return {name: _arrow(one, kind.field(name).type) for name, one in value.items()}


# --- values to an event -----------------------------------------------------------------------------------------------


class Wrong(Exception):
    """Why a value cannot be read."""


def typed(values: dict) -> tuple[dict | None, str | None]:
    """(event, None) or (None, the first broken rule)."""
    event = {}
    try:
        for name in COLUMNS:
            read = _time if name.endswith("_time") else _integer if name in ("user_id", "note_id", "dwell_ms", "position") else _text
            event[name] = read(values.get(name), name)
    except Wrong as error:
        return None, str(error)
    event["ingest_time"] = event["event_time"] if event["ingest_time"] is None else event["ingest_time"]
    event["context"] = _context(values)
    return event, _violation(event)


def _refused(value, name: str, what: str) -> None:
    if isinstance(value, Number) and value.text in ("NaN", "Infinity", "-Infinity"):
        raise Wrong(f"{name}: {what} ({value.text})")
    if isinstance(value, (list, dict)):
        raise Wrong(f"{name}: {what}")


def _text(value, name: str) -> str | None:
    _refused(value, name, "not a text")
    return ("true" if value else "false") if isinstance(value, bool) else value.text if isinstance(value, Number) else value


def _integer(value, name: str) -> int | None:
    what = "not an integer of 64 bits"
    _refused(value, name, what)
    if value is None:
        return None
    text = _text(value, name)
    if re.fullmatch(r"-?[0-9]+", text):
        if -(2**63) <= int(text) < 2**63:
            return int(text)
    elif re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):
        number = float(text)
        if abs(number) < 2**53 and number == math.floor(number):
            return int(number)
    if text in ("NaN", "Infinity", "-Infinity"):
        what += f" ({text})"
    raise Wrong(f"{name}: {what}")


def _time(value, name: str) -> int | None:
    _refused(value, name, "not a time")
    if value is None:
        return None
    text = _text(value, name)
    if re.fullmatch(r"-?[0-9]+", text):
        if -(2**63) <= int(text) < 2**63:
            return int(text)
    elif re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):
        return math.floor(decimal.Decimal(text))
    elif re.fullmatch(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", text):
        try:
            moment = dt.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.upper()))
        except ValueError:
            raise Wrong(f"{name}: not a time") from None
        if moment.tzinfo is None:
            raise Wrong(f"{name}: a time without a zone")
        return (moment - EPOCH) // dt.timedelta(microseconds=1)
    elif re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise Wrong(f"{name}: a time without a zone")
    raise Wrong(f"{name}: not a time" + (f" ({text})" if text in ("NaN", "Infinity", "-Infinity") else ""))


def _violation(event: dict) -> str | None:
    for name in REQUIRED:
        if event[name] is None:
            return f"{name}: missing"
    if not 1 <= len(event["event_id"]) <= 200:
        return "event_id: not 1 to 200 characters"
    if event["action"] not in ACTIONS:
        return "action: not an action of the contract"
    for name in ("event_time", "ingest_time"):
        if not FIRST <= event[name] < LAST:
            return f"{name}: outside of 2000 to 2100 (integers count microseconds)"
    if event["event_time"] - event["ingest_time"] > FIVE_MINUTES:
        return "event_time: more than 5 minutes ahead of ingest_time (wrong clock)"
    if event["dwell_ms"] is not None and not 0 <= event["dwell_ms"] < 2**31:
        return "dwell_ms: not 0 to 2^31-1"
    if event["dwell_ms"] is not None and event["action"] != "view_end":
        return "dwell_ms: only view_end has one"
    if event["position"] is not None and not 0 <= event["position"] < 2**31:
        return "position: not 0 to 2^31-1"
    return None


def _context(values: dict):
    further = {key: value for key, value in values.items() if key not in COLUMNS}
    inner = further.get("context")
    if isinstance(inner, str):
        try:
            inner = json.loads(inner, parse_int=Number, parse_float=Number, parse_constant=Number)
        except ValueError:
            inner = None
    if inner is None and "context" in further and further.keys() >= set(TYPED):
        inner = {}
    if isinstance(inner, dict):
        del further["context"]
        # An export of our own tables: its typed columns say what its context says, or nothing. What they say beyond it stays.
        further = inner | {key: value for key, value in further.items() if key not in TYPED or not _says_nothing_new(key, value, inner)}
    return comparable(further) if further else None


def _says_nothing_new(name: str, value, inner: dict) -> bool:
    return value is None or (_of_a_typed_column(name, value) is not None and _of_a_typed_column(name, value) == _of_a_typed_column(name, inner.get(name)))


def _of_a_typed_column(name: str, value) -> str | int | None:
    text = value.text if isinstance(value, Number) else value
    if not isinstance(text, str) or text in ("", "NaN", "Infinity", "-Infinity"):
        return None
    if name != "author_id":
        return text
    try:
        return _integer(value, name)
    except Wrong:
        return None if isinstance(value, Number) else (xxhash.xxh64_intdigest(text) + 2**63) % 2**64 - 2**63


def comparable(value):
    """A value of JSON so that equal ones are equal: numbers that not every reader takes are texts."""
    if isinstance(value, Number):
        if re.fullmatch(r"-?[0-9]+", value.text):
            return int(value.text) if -(2**63) <= int(value.text) < 2**64 else value.text
        return float(value.text) if math.isfinite(float(value.text)) else value.text
    if isinstance(value, dict):
        return {key: comparable(one) for key, one in value.items()}
    return [comparable(one) for one in value] if isinstance(value, list) else value
