"""Log files as blocks of rows: JSON lines, CSV and TSV (each plain or gzipped), and Parquet.

Here: files to records of bytes and columns, a block at a time, with each row's original bytes and, for a row that cannot
be read, the reason. Not here: JSON and CSV themselves (json_lines.py, csv_records.py), Parquet's types (parquet_rows.py),
what a column means (mapping.py) or may hold (contract.py).

A broken row never stops a file, and a block never holds more than some MB, whatever a file unpacks to. A row of more than
MAX_ROW_BYTES is not held: its reason tells its length, place and sha256, and its body is its beginning. A file that
cannot be read at all (unknown suffix, cut gzip stream, a column twice) is a SourceError.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from assets.events import csv_records, json_lines, parquet_rows
from assets.events.json_lines import CONTEXT
from assets.events.names import SUFFIXES, is_log, shown, suffix_of

__all__ = ["CONTEXT", "Block", "Layout", "SourceError", "header_of", "layout_of", "names_of", "parse_bodies", "read_blocks"]

BLOCK_BYTES = 8 * 2**20
BLOCK_ROWS = 100_000
MAX_ROW_BYTES = 16 * 2**20
HEAD_BYTES = 64 * 2**10  # of a longer row, kept in quarantine
MAX_HEADER_BYTES = 2**20
TOO_LONG = "line: longer than"  # the reason of a row of which only the beginning is kept
_BOM = b"\xef\xbb\xbf"


class SourceError(Exception):
    """A file that cannot be read; the message names it and says what to do."""


class CutError(SourceError):
    """A packed file whose end is not there: cut, or still being written."""


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
    columns as text (of Parquet also as integers and times), and CONTEXT: the others as one JSON object (null: none). odd: of the columns that hold any, which
    values are no text, number or truth (json_lines.py). body(mask) returns the original bytes of the masked rows, of all
    without a mask. cut: the bodies are only the beginnings of rows, so that nothing can be made of them again. repeated_keys:
    rows that hold a key twice. unended: the last row has no line end, so that it may not be whole. typed: the typed columns of
    CONTEXT (context.py) where the file has them as columns; else None.
    """

    number: pl.Series
    wrong: pl.Series
    columns: pl.DataFrame
    body: Callable[[pl.Series | None], pl.Series]
    odd: dict[str, pl.Series] = field(default_factory=dict)
    cut: bool = False
    repeated_keys: int = 0
    unended: bool = False
    typed: pl.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.number)


def layout_of(
    path: Path, columns: tuple[str, ...] | None = None, separator: str | None = None, quote: str = '"'
) -> Layout:
    """The layout that a file's name tells. Raises SourceError for an unknown suffix."""
    if not is_log(path.name):
        raise SourceError(f"{shown(path)}: unknown suffix; a log is .jsonl, .csv or .tsv (each also .gz), or .parquet")
    suffix = suffix_of(path.name)
    return Layout(SUFFIXES[suffix], separator or ("\t" if suffix == ".tsv" else ","), quote, columns)


def header_of(path: Path, layout: Layout) -> str | None:
    """The header of a CSV file, without its line end; None for other formats and where columns are given.

    Raises SourceError where it cannot be read, has no end, or names a column twice.
    """
    if layout.format != "csv" or layout.columns is not None:
        return None
    try:
        with _open(path) as file:
            head = file.read(MAX_HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        kind = CutError if isinstance(error, EOFError) else SourceError
        raise kind(f"{shown(path)}: cannot read the header line: {_told(path, error)}") from error
    head = head.removeprefix(_BOM)
    data = np.frombuffer(head or b"\n", np.uint8)
    marks = csv_records.Marks.of(layout.separator, layout.quote)
    whole = len(head) < MAX_HEADER_BYTES - len(_BOM)
    # Of a header no width is known: a record that spans lines is taken as it is.
    end = csv_records.first_record(data, marks)
    if end is None or (end == data.size and not whole):
        raise SourceError(
            f"{shown(path)}: the header line has a quote that does not close, or is longer than {MAX_HEADER_BYTES:,} bytes"
        )
    try:
        header = head[:end].decode()
    except UnicodeDecodeError as error:
        advice = "; it is a Parquet file, name it .parquet" if head.startswith(b"PAR1") else ""
        raise SourceError(f"{shown(path)}: the header line is not UTF-8: {error}{advice}") from error
    names = csv_names(layout, header)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"{shown(path)}: the header names column {', '.join(map(repr, twice))} twice; rename one of them")
    return header


def names_of(path: Path, layout: Layout) -> list[str] | None:
    """The columns that a file says it has; None for JSON lines. Raises SourceError as header_of does."""
    if layout.format == "parquet":
        names = _parquet_names(path)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SourceError(f"{shown(path)} has column {', '.join(map(repr, twice))} twice; rename one of them")
        return names
    return csv_names(layout, header_of(path, layout)) if layout.format == "csv" else None


def csv_names(layout: Layout, header: str | None) -> list[str]:
    if layout.columns is not None:
        return list(layout.columns)
    return csv_records.fields(header or "", csv_records.Marks.of(layout.separator, layout.quote)) or []


def read_blocks(path: Path, layout: Layout, wanted: tuple[str, ...], after: int = 0) -> Iterator[Block]:
    """Read a file block by block, from the first row whose number is above `after` on.

    Raises SourceError where the file as a whole cannot be read.
    """
    try:
        if layout.format == "parquet":
            yield from _parquet_blocks(path, layout, wanted, after)
        else:
            yield from _text_blocks(path, layout, wanted, after)
    except EOFError as error:
        raise CutError(f"{shown(path)} ends within its gzip stream; copy it again") from error
    except (OSError, zlib.error) as error:
        raise SourceError(f"{shown(path)} cannot be read: {_told(path, error)}") from error


def parse_bodies(
    bodies: pl.Series, layout: Layout, header: str | None, wanted: tuple[str, ...]
) -> tuple[pl.DataFrame, pl.Series, dict[str, pl.Series]]:
    """Rows as they were landed, to (columns, wrong, odd) as in Block. A Parquet row was landed as a JSON line."""
    return _parse(*json_lines.spans(bodies), layout, header, wanted)[:3]


def _parse(
    data: np.ndarray, start: np.ndarray, end: np.ndarray, layout: Layout, header: str | None, wanted: tuple[str, ...]
) -> tuple[pl.DataFrame, pl.Series, dict[str, pl.Series], int]:
    if layout.format != "csv":
        return json_lines.read(data, start, end, wanted)
    marks = csv_records.Marks.of(layout.separator, layout.quote)
    columns, wrong = csv_records.read(data, start, end, csv_names(layout, header), marks, wanted)
    return columns, wrong, {}, 0


# --- text files -------------------------------------------------------------------------------------------------------


def _told(path: Path, error: Exception) -> str:
    """The error's words; of a file that is not packed as its name says also what to do."""
    if not isinstance(error, gzip.BadGzipFile):
        return str(error)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
    except OSError:  # gone meanwhile
        return str(error)
    return f"{error}; " + ("after its gzip stream come other bytes, copy it again" if packed else "it is not packed, name it without .gz")


def _open(path: Path):
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _text_blocks(path: Path, layout: Layout, wanted: tuple[str, ...], passed: int) -> Iterator[Block]:
    header = header_of(path, layout)
    splitter = _Splitter(layout, len(csv_names(layout, header)) if layout.format == "csv" else 0, header)
    with _open(path) as file, ThreadPoolExecutor(1) as ahead:
        pieces = _ahead(file, ahead)
        held, offset = b"", 0  # bytes of a record that is not complete, and their place in the unpacked file
        for piece, last in pieces:
            if not offset and not held:
                piece, offset = piece.removeprefix(_BOM), len(piece) - len(piece.removeprefix(_BOM))
            data = np.frombuffer(held + piece or b"\n", np.uint8)
            start, end, number, rest = splitter.split(data, last)
            more = np.searchsorted(number, passed, side="right")
            unended = last and not _ends_a_line(int(data[-1]), splitter.csv)
            yield from _blocks_of(data, start[more:], end[more:], number[more:], offset, layout, header, wanted, unended)
            held, offset = data[rest:].tobytes() if not last else b"", offset + rest
            if len(held) > MAX_ROW_BYTES:
                long, held, offset = _long_row(held, offset, splitter, pieces)
                if long.number[0] > passed:
                    yield long


def _ends_a_line(byte: int, csv: bool) -> bool:
    return byte == 10 or (csv and byte == 13)


def _ahead(file, pool: ThreadPoolExecutor) -> Iterator[tuple[bytes, bool]]:
    """Pieces of a file, and whether each is the last (an empty one); one is unpacked while another is parsed."""
    coming = pool.submit(file.read, BLOCK_BYTES)
    while data := coming.result():
        coming = pool.submit(file.read, BLOCK_BYTES)
        yield data, False
    yield b"", True


class _Splitter:
    """Finds the records of consecutive pieces of a file; knows the line that comes next."""

    def __init__(self, layout: Layout, width: int, header: str | None) -> None:
        self.csv = layout.format == "csv"
        self.marks = csv_records.Marks.of(layout.separator, layout.quote) if self.csv else None
        self.width, self.line, self.header = width, 1, header is not None

    def split(self, data: np.ndarray, last: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """(start, end, line) of the records of data, and where the unfinished one begins."""
        if not self.csv:
            return self._lines(data, last)
        begin = self._after_header(data) if self.header else 0
        start, end, number, rest, self.line = csv_records.split(data, begin, last, self.line, self.marks, self.width, MAX_ROW_BYTES)
        return start, end, number, rest

    def _after_header(self, data: np.ndarray) -> int:
        self.header = False
        end = csv_records.first_record(data, self.marks)
        after, lines = csv_records.after_line(data, end)
        self.line += lines
        return after

    def _lines(self, data: np.ndarray, last: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        ends = np.flatnonzero(data == 10)
        start = np.concatenate([[0], ends + 1])
        rest = int(start[-1])
        if last and rest < data.size:
            ends = np.append(ends, data.size)
        else:
            start = start[:-1]
        number = self.line + np.arange(len(start))
        self.line += len(start)
        # No row: nothing but a line end. A carriage return before the line feed stays with the row.
        size = ends - start
        blank = (size == 0) | ((size == 1) & (data[np.minimum(start, data.size - 1)] == 13))
        if blank.any():
            start, ends, number = start[~blank], ends[~blank], number[~blank]
        return start, ends, number, rest


def _blocks_of(
    data: np.ndarray, start: np.ndarray, end: np.ndarray, number: np.ndarray, offset: int, layout: Layout,
    header: str | None, wanted: tuple[str, ...], unended: bool = False,
) -> Iterator[Block]:  # fmt: skip
    """A block of the records between two that are too long, and a block for each of those. unended: see Block, of the last one."""
    first = 0
    for long in [*np.flatnonzero(end - start > MAX_ROW_BYTES).tolist(), len(start)]:
        for begin in range(first, long, BLOCK_ROWS):
            some = slice(begin, min(long, begin + BLOCK_ROWS))
            yield _block(data, start[some], end[some], number[some], layout, header, wanted, unended and some.stop == len(start))
        if long < len(start):
            row = data[start[long] : end[long]]
            digest = hashlib.sha256(row)
            yield _cut_block(row[:HEAD_BYTES].tobytes(), len(row), digest, offset + int(start[long]), int(number[long]))
        first = long + 1


def _block(data, start, end, number, layout: Layout, header: str | None, wanted: tuple[str, ...], unended: bool) -> Block:
    columns, wrong, odd, repeated_keys = _parse(data, start, end, layout, header, wanted)

    def body(mask: pl.Series | None = None) -> pl.Series:
        rows = slice(None) if mask is None else mask.to_numpy()
        return _bodies(data, start[rows], end[rows])

    return Block(pl.Series(number), wrong, columns, body, odd, repeated_keys=repeated_keys, unended=unended)


def _bodies(data: np.ndarray, start: np.ndarray, end: np.ndarray) -> pl.Series:
    from assets.events import scan

    offsets = np.empty(len(start) + 1, np.int64)
    body = scan.gather(data, start, end, offsets)
    array = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(start), [None, pa.py_buffer(offsets), pa.py_buffer(body)])
    return pl.from_arrow(array)


def _long_row(held: bytes, offset: int, splitter: _Splitter, pieces) -> tuple[Block, bytes, int]:
    """Read to the end of a line that is too long to be held: (its block, the bytes after it, their place)."""
    digest, size, head, number = hashlib.sha256(), 0, held[:HEAD_BYTES], splitter.line
    piece, last = held, False
    while (at := _line_end(piece, splitter.csv)) < 0 and not last:
        digest.update(piece)
        size += len(piece)
        piece, last = next(pieces)
    line = piece if at < 0 else piece[:at]
    digest.update(line)
    size += len(line)
    splitter.line += 1
    after = b"" if at < 0 else piece[at + 1 :]
    if splitter.csv and at >= 0 and piece[at : at + 1] == b"\r":
        after = after.removeprefix(b"\n")
    gone = size + (0 if at < 0 else len(piece) - at - len(after))
    return _cut_block(head, size, digest, offset, number), after, offset + gone


def _line_end(piece: bytes, csv: bool) -> int:
    feed = piece.find(b"\n")
    if not csv:
        return feed
    back = piece.find(b"\r", 0, feed if feed >= 0 else len(piece))
    return back if back >= 0 else feed


def _cut_block(head: bytes, size: int, digest, offset: int, number: int) -> Block:
    reason = (
        f"{TOO_LONG} {MAX_ROW_BYTES:,} bytes: {size:,} bytes from byte {offset:,} on, sha256 {digest.hexdigest()}; "
        f"the first {len(head):,} are kept"
    )
    return Block(
        number=pl.Series([number], dtype=pl.Int64),
        wrong=pl.Series([reason], dtype=pl.String),
        columns=pl.DataFrame(),
        body=lambda mask=None: pl.Series([head], dtype=pl.Binary),
        cut=True,
    )


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _parquet_names(path: Path) -> list[str]:
    try:
        return parquet_rows.names(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        kind = CutError if _lacks_footer(path) else SourceError
        raise kind(f"{shown(path)} is not a Parquet file that can be read: {error}") from error


def _lacks_footer(path: Path) -> bool:
    """Whether a file begins as Parquet does, or with nothing at all, and does not end so."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(-min(4, file.seek(0, 2)), 2)
            return b"PAR1".startswith(head) and (file.read() != b"PAR1" or file.tell() < 12)
    except OSError:
        return False


def _parquet_blocks(path: Path, layout: Layout, wanted: tuple[str, ...], passed: int) -> Iterator[Block]:
    first = passed
    for rows in parquet_rows.rows(path, passed):
        number = np.arange(first + 1, first + 1 + rows.size)
        first += rows.size
        if (block := _typed_block(rows, number, wanted)) is not None:
            yield block
            continue
        data, start, end = json_lines.spans(rows.lines)
        yield from _blocks_of(data, start, end, number, 0, layout, None, wanted)


def _typed_block(rows: parquet_rows.Rows, number: np.ndarray, wanted: tuple[str, ...]) -> Block | None:
    """The rows without writing and reading their JSON, where that comes to the same."""
    columns = rows.typed(wanted)
    # No character takes more than six bytes of JSON: no row is too long where all together are not.
    if columns is None or 6 * rows.bytes + 100 * len(rows.plain) > MAX_ROW_BYTES and rows.lines.bin.size().max() > MAX_ROW_BYTES:
        return None
    further, typed = rows.further(wanted)
    context = pl.Series(CONTEXT, [None], pl.String).new_from_index(0, rows.size) if further is None else further.rename(CONTEXT)
    wrong = pl.Series([None], dtype=pl.String).new_from_index(0, rows.size)
    return Block(
        number=pl.Series(number),
        wrong=wrong,
        columns=columns.with_columns(context),
        body=lambda mask=None: rows.lines_of(mask),
        typed=typed,
    )
