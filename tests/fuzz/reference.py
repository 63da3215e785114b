"""How many rows a text file holds, by the rules alone and one record after the other: what the fuzz holds a reader's counts against.

Here: where a record begins and ends, bytes. Not here: what a record means, and how the house reads files (assets/events/sources.py).

JSON lines: a line feed ends a record. CSV: LF, CRLF and CR end one outside of quotes; a field is quoted if its first byte is a
quote; inside, two quotes are one; after the quote that closes it, and inside a field that is not quoted, a quote is text. A
field that is never closed (nor within MAX_RECORD_LINES lines) spoils the line that it begins on, and the next line is read anew.
An empty record is no row. Whether one of blanks alone, or of a byte order mark, is a row is left open: hence two numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

BOM = b"\xef\xbb\xbf"
MAX_RECORD_LINES = 200
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Rows:
    """records: of the file, each without its end, the header left out. least, most: how many of them are rows."""

    records: list[bytes]
    least: int
    most: int


def json_rows(data: bytes) -> Rows:
    return _counted([line.removesuffix(b"\r") for line in data.split(b"\n")])


def csv_rows(data: bytes, separator: str, quote: str, header: bool) -> Rows:
    """The header is the first record that is not empty."""
    found = [record for record in csv_records(data, separator.encode(), quote.encode()) if record]
    return _counted(found[1:] if header else found)


def _counted(records: list[bytes]) -> Rows:
    records = [record for record in records if record]
    doubtful = sum(not record.replace(BOM, b"").strip(b" \t\r") for record in records)
    return Rows(records, len(records) - doubtful, len(records))


def csv_records(data: bytes, separator: bytes, quote: bytes) -> Iterator[bytes]:
    """Every record, the empty ones too, without its end. quote: b'' where quotes are text."""
    stop = re.compile(re.escape(separator) + rb"|\r\n|\n|\r")
    at = len(BOM) if data.startswith(BOM) else 0
    while at < len(data):
        end, after = _record_end(data, at, stop, separator, quote)
        yield data[at:end]
        at = after


def _record_end(data: bytes, start: int, stop: re.Pattern, separator: bytes, quote: bytes) -> tuple[int, int]:
    """Where the record that begins at start ends, and where the next one begins."""
    at = start
    while True:
        if quote and data.startswith(quote, at):
            at = _closed(data, at + 1, quote)
            if at is None or len(_LINE_END.findall(data, start, at)) >= MAX_RECORD_LINES:
                return _first_line(data, start)
        found = stop.search(data, at)
        if found is None:
            return len(data), len(data)
        if found[0] != separator:
            return found.span()
        at = found.end()


def _closed(data: bytes, at: int, quote: bytes) -> int | None:
    """After the quote that closes a field; None where there is none."""
    while (found := data.find(quote, at)) >= 0:
        if not data.startswith(quote, found + 1):
            return found + 1
        at = found + 2
    return None


def _first_line(data: bytes, start: int) -> tuple[int, int]:
    found = _LINE_END.search(data, start)
    return found.span() if found else (len(data), len(data))
