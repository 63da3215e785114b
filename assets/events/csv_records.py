"""CSV and TSV as columns: RFC 4180 with any separator, a quote inside an unquoted field being text.

Here: records to columns and reasons, and the header, by the kernels of scan.py. Not here: files and pieces (sources.py).

A record ends at a line feed, a carriage return, or both, outside of quotes. A field is quoted where a quote is its first
character; in it two quotes are one, and after it comes a separator or the record's end. A record that breaks this, or has
too few or too many fields, and spans several lines, is cut after its first line: a stray quote costs its own line only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from assets.events import json_lines, scan
from assets.events.json_lines import CONTEXT

REASONS = {
    scan.UNCLOSED: "line: a quote that does not close, or text after one",
    scan.TEXT_AFTER_QUOTE: "line: a quote that does not close, or text after one",
}


@dataclass(frozen=True)
class Marks:
    """The bytes of separator and quote (none: no quotes)."""

    separator: np.ndarray
    quote: np.ndarray

    @classmethod
    def of(cls, separator: str, quote: str) -> Marks:
        return cls(*(np.frombuffer(text.encode(), np.uint8) if text else np.empty(0, np.uint8) for text in (separator, quote)))


def split(
    data: np.ndarray, begin: int, whole: bool, first_line: int, marks: Marks, width: int, longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Records of data[begin:]: (start, end, line each begins in, position of the unfinished rest, its line)."""
    ends = (data[begin:] == 10) | (data[begin:] == 13)
    room = int(np.count_nonzero(ends)) + 1
    start, stop, number = (np.empty(room, np.int64) for _ in range(3))
    count, rest, line = scan.csv_records(
        data, begin, data.size, whole, first_line, marks.separator, marks.quote, width, longest, start, stop, number
    )
    return start[:count], stop[:count], number[:count], rest, line


def first_record(data: np.ndarray, marks: Marks) -> int | None:
    """Position of the first record's line end (or of the bytes' end); None where the record is broken."""
    none, no_marks = np.empty(0, np.int64), np.empty(0, np.int8)
    code, end, _, _ = scan._record(data, 0, data.size, marks.separator, marks.quote, none, none, no_marks, data.size)
    return int(end) if code == scan.GOOD else None


def after_line(data: np.ndarray, end: int) -> tuple[int, int]:
    """(position after the line end at `end`, lines up to there)."""
    lines = sum(1 for _ in re.finditer(rb"\r\n|\r|\n", data[:end].tobytes())) + 1
    return (int(scan._next_line(data, end, data.size)) if end < data.size else int(data.size)), lines


def fields(record: str, marks: Marks) -> list[str] | None:
    """The fields of one record; None where it is broken."""
    data = np.frombuffer(record.encode() or b"\n", np.uint8)
    room = record.count(marks.separator.tobytes().decode()) + 1
    start, end, quoted = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int8)
    code, after, count, _ = scan._record(data, 0, data.size, marks.separator, marks.quote, start, end, quoted, data.size)
    if code != scan.GOOD or data[after:].tobytes().strip(b"\r\n"):
        return None
    texts = [data[a:b].tobytes().decode() for a, b in zip(start[:count].tolist(), end[:count].tolist(), strict=True)]
    quote = marks.quote.tobytes().decode()
    return [text.replace(2 * quote, quote) if mark == 2 else text for text, mark in zip(texts, quoted.tolist(), strict=False)]


def read(
    data: np.ndarray, start: np.ndarray, end: np.ndarray, names: list[str], marks: Marks, wanted: tuple[str, ...]
) -> tuple[pl.DataFrame, pl.Series]:
    """Records in data[start:end] to (columns, wrong) as in json_lines.read. An empty field is null."""
    rows, width = len(start), len(names)
    code = np.zeros(rows, np.int8)
    field_start, field_end = np.zeros((rows, width), np.int64), np.zeros((rows, width), np.int64)
    quoted = np.zeros((rows, width), np.int8)
    scan.csv_fields(data, start, end, marks.separator, marks.quote, code, field_start, field_end, quoted)
    not_text = json_lines.not_utf8(data, start, end)
    wrong = pl.Series([None], dtype=pl.String).new_from_index(0, rows)
    for number, reason in (REASONS | {scan.WIDTH: f"line: not {width} fields"}).items():
        if (code == number).any():
            wrong = wrong.set(pl.Series(code == number), reason)
    if not_text.any():
        wrong = wrong.set(pl.Series(not_text), json_lines.NOT_UTF8)
    broken = (code != scan.GOOD) | not_text
    quote = marks.quote.tobytes().decode()
    columns = {}
    for place, name in enumerate(names):
        texts = json_lines.text_series(
            data, field_start[:, place], field_end[:, place], broken | (field_start[:, place] == field_end[:, place])
        )
        doubled = np.flatnonzero((quoted[:, place] == 2) & ~broken)
        if doubled.size:
            plain = [text.replace(2 * quote, quote) for text in texts.gather(doubled)]
            texts = texts.scatter(doubled, pl.Series(plain, dtype=pl.String))
        columns[name] = texts.rename(name)
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, rows)
    frame = {name: columns.get(name, nothing) for name in wanted}
    further = [name for name in names if name not in wanted]
    frame[CONTEXT] = _as_objects(pl.DataFrame([columns[name] for name in further])) if further else nothing
    return pl.DataFrame(frame), wrong


def _as_objects(further: pl.DataFrame) -> pl.Series:
    rows = further.select(pl.struct(pl.all()).struct.json_encode().alias(CONTEXT))[CONTEXT]
    return json_lines.merged(rows) if "context" in further.columns else rows
