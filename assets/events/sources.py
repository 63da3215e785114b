"""Log files as blocks of rows: JSON lines, CSV and TSV (each plain or gzipped), and Parquet.

Here: bytes to columns as the file spells them, with each row's original bytes and, for a row that cannot be read, the
reason. Not here: what a column means (mapping.py) or may hold (contract.py).

A broken line never stops a file. A file that cannot be read at all (unknown suffix, cut gzip stream, no such column)
is a SourceError.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from polars.exceptions import PolarsError

BLOCK_BYTES = 48 * 2**20
BLOCK_ROWS = 250_000
MAX_RECORD_LINES = 200  # a quoted CSV field that is still open after so many lines is a stray quote
CONTEXT = "_context"

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


class SourceError(Exception):
    """A file that cannot be read; the message names it and says what to do."""


@dataclass(frozen=True)
class Layout:
    """How a file is laid out. columns: names of a CSV without a header line, else None. quote: '' for none."""

    format: str
    separator: str = ","
    quote: str = '"'
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Block:
    """Some rows of a file.

    number: line (or row) in the file, from 1. wrong: why a row could not be read, else null. columns: the wanted
    columns, as text or as Parquet types them, and CONTEXT: the others as one JSON object (null: none).
    body(mask) returns the original bytes of the masked rows, of all without a mask.
    """

    number: pl.Series
    wrong: pl.Series
    columns: pl.DataFrame
    body: Callable[[pl.Series | None], pl.Series]

    def __len__(self) -> int:
        return len(self.number)


def layout_of(
    path: Path, columns: tuple[str, ...] | None = None, separator: str | None = None, quote: str = '"'
) -> Layout:
    """The layout that a file's name tells. Raises SourceError for an unknown suffix."""
    name = path.name.lower().removesuffix(".gz")
    suffix = Path(name).suffix
    if suffix not in _SUFFIXES or (suffix == ".parquet" and path.name.lower().endswith(".gz")):
        raise SourceError(f"{path}: unknown suffix; a log is .jsonl, .csv or .tsv (each also .gz), or .parquet")
    return Layout(_SUFFIXES[suffix], separator or ("\t" if suffix == ".tsv" else ","), quote, columns)


def header_of(path: Path, layout: Layout) -> str | None:
    """The header line of a CSV file, without its line end; None for other formats and where columns are given."""
    if layout.format != "csv" or layout.columns is not None:
        return None
    try:
        with _open(path) as file:
            line = file.readline(2**20)
        return line.decode("utf-8-sig").rstrip("\r\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot read the header line: {error}") from error


def names_of(path: Path, layout: Layout) -> list[str] | None:
    """The columns that a file says it has; None for JSON lines."""
    if layout.format == "parquet":
        return list(_parquet_schema(path))
    return csv_names(layout, header_of(path, layout)) if layout.format == "csv" else None


def csv_names(layout: Layout, header: str | None) -> list[str]:
    return list(layout.columns) if layout.columns is not None else next(_reader([header or ""], layout), [])


def read_blocks(path: Path, layout: Layout, wanted: tuple[str, ...]) -> Iterator[Block]:
    """Read a file block by block. Raises SourceError where the file as a whole cannot be read."""
    try:
        if layout.format == "parquet":
            yield from _parquet_blocks(path, wanted)
        else:
            yield from _text_blocks(path, layout, wanted)
    except (OSError, EOFError, zlib.error) as error:
        what = (
            "ends within its gzip stream; copy it again" if isinstance(error, EOFError) else f"cannot be read: {error}"
        )
        raise SourceError(f"{path} {what}") from error


def parse_bodies(
    bodies: pl.Series, layout: Layout, header: str | None, wanted: tuple[str, ...]
) -> tuple[pl.DataFrame, pl.Series]:
    """Rows as they were landed, to (columns, wrong) as in Block. A Parquet row was landed as a JSON line."""
    if layout.format == "csv":
        return _parse_csv(bodies, csv_names(layout, header), layout, wanted)
    return _parse_json(bodies, wanted)


# --- text files -------------------------------------------------------------------------------------------------------


def _open(path: Path):
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _text_blocks(path: Path, layout: Layout, wanted: tuple[str, ...]) -> Iterator[Block]:
    header = header_of(path, layout)
    first = 1
    for data in _line_aligned(path):
        lines = _split_lines(data)
        number = pl.Series(np.arange(first, first + len(lines)))
        first += len(lines)
        if header is not None and number[0] == 1:
            lines, number = lines[1:], number[1:]
        if layout.format == "csv" and layout.quote and lines.bin.contains(layout.quote.encode()).any():
            lines, number = _join_records(lines, number, layout.quote.encode())
        blank = lines.bin.size() <= 2
        if blank.any():
            blank = blank & lines.is_in([b"\n", b"\r\n", b"\r"])
            lines, number = lines.filter(~blank), number.filter(~blank)
        if not len(lines):
            continue
        columns, wrong = parse_bodies(lines, layout, header, wanted)
        yield Block(
            number,
            wrong,
            columns,
            lambda mask, lines=lines: _without_end(lines if mask is None else lines.filter(mask)),
        )


def _line_aligned(path: Path) -> Iterator[bytes]:
    """The file in pieces that end with a line; the next piece is unpacked while one is being parsed."""
    with _open(path) as file, ThreadPoolExecutor(1) as ahead:
        rest = b""
        coming = ahead.submit(file.read, BLOCK_BYTES)
        while data := coming.result():
            coming = ahead.submit(file.read, BLOCK_BYTES)
            cut = data.rfind(b"\n") + 1
            if cut:
                yield rest + data[:cut]
                rest = data[cut:]
            else:
                rest += data
        if rest:
            yield rest


def _split_lines(data: bytes) -> pl.Series:
    """Lines with their line feed, as one binary column over the bytes themselves."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
    starts = np.concatenate([[0], ends + 1])
    if starts[-1] == len(data):
        starts = starts[:-1]
    offsets = np.concatenate([starts, [len(data)]]).astype(np.int64)
    array = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    return pl.from_arrow(array)


def _without_end(lines: pl.Series) -> pl.Series:
    """The lines without their line feed (a carriage return before it stays: it is what was received)."""
    frame = lines.to_frame("line").with_columns(ends=pl.col("line").bin.ends_with(b"\n"))
    size = pl.col("line").bin.size().cast(pl.Int64) - pl.col("ends").cast(pl.Int64)
    return frame.select(pl.col("line").bin.slice(0, size))["line"]


def _decoded(lines: pl.Series) -> pl.Series:
    """Bytes as text; null where they are not UTF-8."""
    try:
        return lines.cast(pl.String)
    except PolarsError:
        return pl.Series(lines.name, [_decode(line) for line in lines], pl.String)


def _decode(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _empty(rows: int, wanted: tuple[str, ...]) -> dict[str, pl.Series]:
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, rows)
    return {name: nothing for name in (*wanted, CONTEXT)}


# --- JSON lines -------------------------------------------------------------------------------------------------------


def _parse_json(lines: pl.Series, wanted: tuple[str, ...]) -> tuple[pl.DataFrame, pl.Series]:
    text = _decoded(lines).rename("line")
    wrong = pl.select(pl.when(text.is_null()).then(pl.lit("line: not UTF-8")))["literal"]
    text = text.str.strip_chars(" \t\r\n")
    # No JSON object lacks these two; what has them may still be broken.
    shape = (text.str.starts_with("{") & text.str.ends_with("}")).fill_null(False)
    if not shape.all():
        wrong = wrong.set(~shape & wrong.is_null(), "line: not a JSON object")
    good = text if shape.all() else text.filter(shape)
    schema = dict.fromkeys(wanted, pl.String)
    parsed, readable = _read_objects(good, schema)
    context = _further(good, readable, wanted)
    parsed = parsed.with_columns(context)
    if not readable.all():
        wrong = wrong.scatter(shape.arg_true().filter(~readable), "line: not a JSON object")
    if len(parsed) == len(lines):
        return parsed, wrong
    place = pl.DataFrame({"at": shape.arg_true()}).hstack(parsed)
    rows = pl.DataFrame({"at": pl.arange(0, len(lines), eager=True, dtype=pl.UInt32)})
    return rows.join(place, on="at", how="left", maintain_order="left").drop("at"), wrong


def _read_objects(text: pl.Series, schema: dict) -> tuple[pl.DataFrame, pl.Series]:
    """Objects to columns; (columns, readable). One broken line makes the parser refuse all: then halve, and look."""
    everything = pl.repeat(True, len(text), dtype=pl.Boolean, eager=True)
    nothing = pl.DataFrame({name: pl.Series([None], dtype=pl.String).new_from_index(0, len(text)) for name in schema})
    if not len(text):
        return nothing, everything
    try:
        parsed = pl.read_ndjson(text.str.join("\n")[0].encode(), schema=schema)
        if len(parsed) == len(text):
            return parsed, everything
    except PolarsError:
        pass
    if len(text) == 1:
        return nothing, ~everything
    if len(text) <= 256:
        sound = pl.Series([_is_object(line) for line in text])
        if not sound.all():
            parsed, readable = _read_objects(text.filter(sound), schema)
            at = sound.arg_true()
            columns = {name: nothing[name].scatter(at, parsed[name]) for name in schema}
            return pl.DataFrame(columns), (~everything).scatter(at, readable)
    half = len(text) // 2
    left, right = _read_objects(text[:half], schema), _read_objects(text[half:], schema)
    return pl.concat([left[0], right[0]]), pl.concat([left[1], right[1]])


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _further(text: pl.Series, readable: pl.Series, wanted: tuple[str, ...]) -> pl.Series:
    """The columns beyond the wanted ones as the JSON text they were, in braces; null where there are none.

    Flat objects without escapes are cut as text, exactly; others are parsed and written anew.
    """
    names = "|".join(re.escape(name) for name in wanted)
    pair = rf'"(?:{names})"\s*:\s*(?:"[^"]*"|[^",}}]*),?\s*'
    flat = (
        ~text.str.contains("\\", literal=True)
        & ~text.str.contains("[", literal=True)
        & (text.str.count_matches("{", literal=True) == 1)
        & ~text.str.contains('"context"', literal=True)
    )
    cut = text.str.replace(rf"^\{{\s*(?:{pair})*", "{")
    more = cut.str.contains(rf'"(?:{names})"\s*:')
    if more.any():
        more_cut = cut.filter(more).str.replace_all(pair, "").str.replace(r",\s*\}$", "}")
        cut = cut.scatter(more.arg_true(), more_cut)
    cut = cut.set(cut.str.contains(r"^\{\s*\}$"), None)
    if not (flat & readable).all():
        slow = (~flat & readable).arg_true()
        cut = cut.scatter(slow, [_further_of(line, wanted) for line in text.gather(slow)])
        if not readable.all():
            cut = cut.set(~readable, None)
    return cut.rename(CONTEXT)


def _further_of(line: str, wanted: tuple[str, ...]) -> str | None:
    row = {name: value for name, value in json.loads(line).items() if name not in wanted}
    # A nested `context` is what an export of our own tables holds: its entries are further columns.
    inner = row.get("context")
    if isinstance(inner, str) and inner.startswith("{"):
        try:
            inner = json.loads(inner)
        except ValueError:
            pass
    if isinstance(inner, dict):
        del row["context"]
        row = inner | row
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) if row else None


# --- CSV --------------------------------------------------------------------------------------------------------------


def _join_records(lines: pl.Series, number: pl.Series, quote: bytes) -> tuple[pl.Series, pl.Series]:
    """Join lines where a quoted field holds line feeds: an odd count of quotes means that one is open."""
    records, numbers, start = [], [], 0
    texts = lines.to_list()
    while start < len(texts):
        end, open_ = start + 1, texts[start].count(quote) % 2
        while open_ and end < len(texts) and end - start < MAX_RECORD_LINES:
            open_ ^= texts[end].count(quote) % 2
            end += 1
        if open_:  # never closed: the first line alone is broken
            end = start + 1
        records.append(b"".join(texts[start:end]))
        numbers.append(number[start])
        start = end
    return pl.Series(records, dtype=pl.Binary), pl.Series(numbers)


def _reader(texts: list[str], layout: Layout):
    if not layout.quote:
        return csv.reader(texts, delimiter=layout.separator, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(texts, delimiter=layout.separator, quotechar=layout.quote, strict=True)


def _parse_csv(
    lines: pl.Series, names: list[str], layout: Layout, wanted: tuple[str, ...]
) -> tuple[pl.DataFrame, pl.Series]:
    rows: list[list[str] | None] = []
    reasons: list[str | None] = []
    for line in lines:
        row, reason = _csv_fields(line, layout, len(names))
        rows.append(row)
        reasons.append(reason)
    blank = [""] * len(names)
    fields = zip(*(blank if row is None else row for row in rows), strict=True) if rows else [[] for _ in names]
    columns = {name: pl.Series(name, values, pl.String) for name, values in zip(names, fields, strict=True)}
    columns = {name: values.set(values == "", None) for name, values in columns.items()}
    found = {name: columns[name] for name in names if name not in wanted}
    frame = _empty(len(lines), wanted) | {name: columns[name] for name in names if name in wanted}
    if found:
        frame[CONTEXT] = _encoded(pl.DataFrame(found))
    return pl.DataFrame(frame), pl.Series(reasons, dtype=pl.String)


def _csv_fields(line: bytes, layout: Layout, width: int) -> tuple[list[str] | None, str | None]:
    text = _decode(line)
    if text is None:
        return None, "line: not UTF-8"
    text = text.rstrip("\r\n")
    if layout.quote and layout.quote in text:
        try:
            row = next(_reader(text.splitlines(keepends=True), layout))
        except (csv.Error, StopIteration):
            return None, "line: a quote that does not close, or text after one"
    else:
        row = text.split(layout.separator)
    if len(row) != width:
        return None, f"line: not {width} fields"
    return row, None


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _parquet_schema(path: Path) -> pl.Schema:
    try:
        return pl.read_parquet_schema(path)
    except (PolarsError, OSError) as error:
        raise SourceError(f"{path} is not a Parquet file that can be read: {error}") from error


def _parquet_blocks(path: Path, wanted: tuple[str, ...]) -> Iterator[Block]:
    schema = _parquet_schema(path)
    scan = pl.scan_parquet(path)
    first = 0
    while True:
        try:
            frame = scan.slice(first, BLOCK_ROWS).collect()
        except PolarsError as error:
            raise SourceError(f"{path} cannot be read: {error}") from error
        if not len(frame):
            return
        yield _parquet_block(frame, list(schema), wanted, first)
        first += len(frame)


def _parquet_block(frame: pl.DataFrame, names: list[str], wanted: tuple[str, ...], first: int) -> Block:
    number = pl.Series(np.arange(first + 1, first + 1 + len(frame)))
    columns = _empty(len(frame), wanted) | {name: frame[name] for name in names if name in wanted}
    further = [name for name in names if name not in wanted]
    if further == ["context"] and frame["context"].dtype == pl.String:
        columns[CONTEXT] = frame["context"]
    elif further:
        columns[CONTEXT] = _encoded(_plain(frame.select(further)))

    def body(mask: pl.Series | None = None) -> pl.Series:
        rows = _plain(frame if mask is None else frame.filter(mask))
        encoded = rows.select(pl.struct(pl.all()).struct.json_encode().alias("body"))
        return encoded["body"].cast(pl.Binary)

    wrong = pl.Series([None], dtype=pl.String).new_from_index(0, len(frame))
    return Block(number, wrong, pl.DataFrame(columns), body)


def _encoded(further: pl.DataFrame) -> pl.Series:
    """Each row as one JSON object; a column `context` that holds an object is merged into it."""
    rows = further.select(pl.struct(pl.all()).struct.json_encode().alias(CONTEXT))[CONTEXT]
    if "context" in further.columns:
        rows = pl.Series(CONTEXT, [_further_of(row, ()) for row in rows], pl.String)
    return rows


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Types that JSON lacks as what the contract reads back: times as RFC 3339 (no zone where there is none)."""
    changes = []
    for name, kind in frame.schema.items():
        if kind == pl.Datetime:
            if kind.time_zone:
                changes.append(pl.col(name).dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ"))
            else:
                changes.append(pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.f"))
        elif kind == pl.Binary:
            changes.append(pl.col(name).bin.encode("base64"))
        elif kind in (pl.Date, pl.Time, pl.Decimal, pl.Categorical, pl.Enum):
            changes.append(pl.col(name).cast(pl.String))
        elif kind == pl.Duration:
            changes.append(pl.col(name).dt.total_microseconds())
    return frame.with_columns(changes)
