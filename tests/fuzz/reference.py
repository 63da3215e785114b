"""How many rows a text file holds, by the rules alone and one record after the other: what the fuzz holds a reader's counts against.

Here: where a record begins and ends, bytes. Not here: what a record means, and how the house reads files (assets/events/sources.py).

JSON lines: a line feed ends a record. CSV: LF, CRLF and CR end one outside of quotes; a field is quoted if a quote is its first
character; in it two quotes are one, and after it comes a separator or the record's end; a quote in any other field is text. A
record that breaks this, or spans lines and has not as many fields as the header, ends with its first line.
An empty record is no row. Whether one of blanks alone, or of a byte order mark, is a row is left open: hence two numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

BOM = b"\xef\xbb\xbf"
LONGEST = 16 * 2**20  # bytes of a record that spans lines; a longer one has a stray quote
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Rows:
    """records: of the file, each without its end, the header left out. least, most: how many of them are rows."""

    records: list[bytes]
    least: int
    most: int


def json_rows(data: bytes) -> Rows:
    return _counted([line.removesuffix(b"\r") for line in data.split(b"\n")])


def csv_rows(data: bytes, separator: str, quote: str, width: int | None) -> Rows | None:
    """width: fields of a record where the file has no header; None: it has one, the first record that is not empty.

    None where the header is broken: then nobody can tell.
    """
    data = data.removeprefix(BOM)
    marks = _Marks(separator.encode(), quote.encode())
    begin = 0
    if width is None:
        while (blank := _LINE_END.match(data, begin)) is not None:
            begin = blank.end()
        end, begin, width, _ = marks.record(data, begin)
        if end is None:
            return None
    return _counted(list(marks.records(data, begin, width)))


def _counted(records: list[bytes]) -> Rows:
    records = [record for record in records if record]
    doubtful = sum(len(record) < 100 and not record.replace(BOM, b"").strip(b" \t\r") for record in records)
    return Rows(records, len(records) - doubtful, len(records))


class _Marks:
    def __init__(self, separator: bytes, quote: bytes) -> None:
        self.separator, self.quote = separator, quote
        self.stop = re.compile(re.escape(separator) + rb"|\r\n|\n|\r")

    def records(self, data: bytes, at: int, width: int) -> Iterator[bytes]:
        """Every record, the empty ones too, without its end."""
        while at < len(data):
            end, after, fields, spans = self.record(data, at)
            if end is None or spans and (fields != width or end - at > LONGEST):
                found = _LINE_END.search(data, at)
                end, after = found.span() if found else (len(data), len(data))
            yield data[at:end]
            at = after

    def record(self, data: bytes, start: int) -> tuple[int | None, int, int, bool]:
        """(where the record ends, where the next one begins, its fields, whether it spans lines); None for a broken one."""
        at, fields, spans = start, 1, False
        while True:
            if self.quote and data.startswith(self.quote, at):
                closed = self._closed(data, at + len(self.quote))
                if closed is None:
                    return None, 0, 0, False
                spans = spans or _LINE_END.search(data, at, closed) is not None
                found, at = self.stop.match(data, closed), closed
                if found is None and closed < len(data):
                    return None, 0, 0, False
            else:
                found = self.stop.search(data, at)
            if found is None:
                return len(data), len(data), fields, spans
            if found[0] != self.separator:
                return *found.span(), fields, spans
            at, fields = found.end(), fields + 1

    def _closed(self, data: bytes, at: int) -> int | None:
        """After the quote that closes a field; None where there is none."""
        while (found := data.find(self.quote, at)) >= 0:
            if not data.startswith(self.quote, found + len(self.quote)):
                return found + len(self.quote)
            at = found + 2 * len(self.quote)
        return None
