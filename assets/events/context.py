"""What boards and SQL jobs need of an event's context, as columns of their own: contract.TYPED_FIELDS.

Here: which spellings of a value count, and the reading of whole columns of contexts, at intake and where a table of an older
Glasshouse lacks the columns. Not here: how a context comes about (json_lines.py, csv_records.py, parquet_rows.py), and when
an old table is given the columns (assets/upgrade.py).

A value is that of the context's own key of the column's name, never of a nested one; of a repeated key the last counts. A
text is itself and a number is as it is spelled; null, an empty text, true, false, a list, an object, NaN, Infinity and -Infinity
are no value. An id is an integer of 64 bits, also as text of digits or as a whole float below 2^53; any other text becomes
the key that a mapping makes of it (xxhash64), its original being in the context; any other number is no value.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import polars as pl
import pyarrow as pa
import xxhash
from llvmlite import ir
from numba import types
from numba.cpython.unsafe.numbers import trailing_zeros
from numba.extending import intrinsic

from assets.events import json_lines, values
from assets.events.contract import TYPED_FIELDS, TYPED_NAMES

_INTEGER = np.array([pa.types.is_int64(field.type) for field in TYPED_FIELDS])
_KINDS = {pa.string(): pl.String, pa.int64(): pl.Int64}
SCHEMA = {field.name: _KINDS[field.type] for field in TYPED_FIELDS}

NOTHING, TEXT, ESCAPED, NUMBER, INTEGER = 0, 1, 2, 3, 4  # kinds of a value; of an id TEXT and NUMBER are looked at one by one
GOOD, ONE_BY_ONE = 0, 1  # a context with an escaped key is read by a parser
_NO_NUMBER = ("NaN", "Infinity", "-Infinity")
_GUESSES = 16  # names of an object that are looked for where they were in the row before
_SIDE_BY_SIDE = 50_000  # rows from which on two threads are worth it; the kernel leaves the interpreter to others
_MAX_VIEWED = 2**31 - 1  # bytes that a view of Arrow can point into
_FIRST = np.array([2 ** (8 * count) - 1 for count in range(9)], np.uint64)  # masks of the first bytes of eight
_DIGITS = 18  # of an integer that the kernel reads: more may leave int64


def typed(contexts: pl.Series) -> pl.DataFrame:
    """The columns of contract.TYPED_FIELDS of n contexts (texts of JSON objects, or null).

    What is no JSON object has no values; none is refused here.
    """
    rows = len(contexts)
    if rows >= _SIDE_BY_SIDE:
        with ThreadPoolExecutor(2) as two:
            return pl.concat(two.map(_typed, (contexts[: rows // 2], contexts[rows // 2 :])))
    return _typed(contexts)


def _typed(contexts: pl.Series) -> pl.DataFrame:
    rows = len(contexts)
    if contexts.null_count() == rows:
        return pl.DataFrame({name: pl.Series(name, [None], kind).new_from_index(0, rows) for name, kind in SCHEMA.items()})
    array = contexts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    data, at = _bytes(array)
    kind = np.zeros((len(TYPED_NAMES), rows), np.int8)
    start, end = np.empty((len(TYPED_NAMES), rows), np.int64), np.empty((len(TYPED_NAMES), rows), np.int64)
    code = np.zeros(rows, np.int8)
    _members(data, at, _PACKED, _INTEGER, kind, start, end, code)
    columns = {}
    for place, (name, wanted) in enumerate(SCHEMA.items()):
        read = _integers if wanted == pl.Int64 else _texts
        columns[name] = read(data, kind[place], start[place], end[place]).rename(name)
    if code.any():
        slow = np.flatnonzero(code)
        found = pl.DataFrame([_parsed(text) for text in contexts.gather(slow)], SCHEMA, orient="row")
        columns = {name: column.scatter(slow, found[name]) for name, column in columns.items()}
    return pl.DataFrame(columns)


def of_columns(columns: dict[str, pl.Series], rows: int) -> pl.DataFrame | None:
    """The same for contexts that are these columns, written as JSON; None where some must be read as JSON to tell.

    Ten times as fast as reading the JSON.
    """
    found = {}
    for name, kind in SCHEMA.items():
        values = columns.get(name)
        if values is None or values.null_count() == rows:
            found[name] = pl.Series([None], dtype=kind).new_from_index(0, rows)
        elif values.dtype in (pl.Int8, pl.Int16, pl.Int32, pl.Int64):
            found[name] = values.cast(kind)
        elif values.dtype == kind == pl.String and not any((values == text).any() for text in ("", *_NO_NUMBER)):
            found[name] = values
        else:
            return None
    return pl.DataFrame(found)


def one(name: str, value: str) -> str | int | None:
    """The typed column `name` of a context whose key of that name has this JSON value."""
    return _parsed(f'{{"{name}":{value}}}')[TYPED_NAMES.index(name)]


def completed(table: pa.Table) -> pa.Table:
    """A table with a column `context` and the typed columns, made of it where one is not there; they stand at the end."""
    if all(name in table.column_names for name in TYPED_NAMES):
        return table
    made = typed(pl.from_arrow(table["context"]))
    table = table.drop_columns([name for name in TYPED_NAMES if name in table.column_names])
    for field in TYPED_FIELDS:
        table = table.append_column(field.name, made[field.name].to_arrow(compat_level=pl.CompatLevel.oldest()).cast(field.type))
    return table


def retyped(table: pa.Table) -> pa.Table:
    """The same table, its typed columns made anew of its contexts."""
    return completed(table.drop_columns([name for name in TYPED_NAMES if name in table.column_names])).select(table.column_names)


def _bytes(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of all texts and int64[n + 1] of their ends; a null is empty."""
    array = array.cast(pa.large_string())
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.empty(int(offsets[-1]) + PAD, np.uint8)
    data[:-PAD] = np.frombuffer(array.buffers()[2] or b"", np.uint8)[: data.size - PAD]
    data[-PAD:] = 0
    return data, offsets


def _packed(names: tuple[str, ...]) -> np.ndarray:
    """uint64[w, 5] of names of at most 16 bytes: length; mask and bytes of the first eight; of the next eight."""
    rows = []
    for name in (name.encode() for name in names):
        words = [(b"\xff" * len(part), part) for part in (name[:8], name[8:16])]
        rows.append([len(name), *(int.from_bytes(one, "little") for word in words for one in word)])
    return np.array(rows, np.uint64)


_PACKED = _packed(TYPED_NAMES)


def _texts(data: np.ndarray, kind: np.ndarray, start: np.ndarray, end: np.ndarray) -> pl.Series:
    nothing = kind == NOTHING
    if nothing.all():
        return pl.Series([None], dtype=pl.String).new_from_index(0, kind.size)
    found = _viewed(data, start, end, nothing)
    if (escaped := np.flatnonzero(kind == ESCAPED)).size:
        found = found.scatter(escaped, _unescaped(found.gather(escaped)))
    return found


def _viewed(data: np.ndarray, start: np.ndarray, end: np.ndarray, nothing: np.ndarray) -> pl.Series:
    """Spans of UTF-8 as a column of texts that points into `data`, null where `nothing`: four times as fast as a copy."""
    if data.size > _MAX_VIEWED:
        return json_lines.text_series(data, start, end, nothing)
    views = np.empty((nothing.size, 2), np.uint64)
    _write_views(data, start, end, nothing, _FIRST, views)
    valid = pa.py_buffer(np.packbits(~nothing, bitorder="little")) if nothing.any() else None
    return pl.from_arrow(pa.Array.from_buffers(pa.string_view(), nothing.size, [valid, pa.py_buffer(views), pa.py_buffer(data)]))


def _unescaped(spelled: pl.Series) -> pl.Series:
    """Each spelling is read once: a log that escapes its characters has few."""
    plain = {text: _plain(text) for text in spelled.unique()}
    return spelled.replace_strict(list(plain), pl.Series(list(plain.values()), dtype=pl.String), return_dtype=pl.String)


def _plain(spelled: str) -> str | None:
    try:
        return _whole_characters(json.loads(f'"{spelled}"'))
    except ValueError:  # no JSON: of a table that intake has not written
        return None


def _whole_characters(text: str) -> str:
    """Half a character (an escape \\ud800 to \\udfff alone), as older code let in, is no text in any encoding: a question mark."""
    return text.encode(errors="replace").decode()


def _integers(data: np.ndarray, kind: np.ndarray, start: np.ndarray, end: np.ndarray) -> pl.Series:
    # The kernel has put the integers that it could read in the place of their beginnings.
    found = pl.Series(start)
    if (others := np.flatnonzero(kind != INTEGER)).size:
        found = found.scatter(others, pl.Series([None], dtype=pl.Int64).new_from_index(0, others.size))
    if (at := np.flatnonzero((kind != INTEGER) & (kind != NOTHING))).size:
        texts = json_lines.text_series(data, start[at], end[at], np.zeros(at.size, bool))
        if (escaped := np.flatnonzero(kind[at] == ESCAPED)).size:
            texts = texts.scatter(escaped, _unescaped(texts.gather(escaped)))
        found = found.scatter(at, _ids(texts, pl.Series(kind[at] == NUMBER)))
    return found


def _ids(spelled: pl.Series, number: pl.Series) -> pl.Series:
    ids, wrong = values.as_int(spelled, "author_id")
    if (rest := wrong.is_not_null() & ~number).any():
        texts = spelled.filter(rest)
        keys = {text: xxhash.xxh64_intdigest(text) for text in texts.unique()}
        made = pl.Series(np.array(list(keys.values()), np.uint64).view(np.int64))
        ids = ids.scatter(rest.arg_true(), texts.replace_strict(list(keys), made, return_dtype=pl.Int64))
    return ids


def _parsed(text: str) -> list:
    """The typed values of one context, by a parser."""
    try:
        found = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return [None] * len(TYPED_NAMES)
    if not isinstance(found, dict):
        return [None] * len(TYPED_NAMES)
    return [_one(found.get(name), kind) for name, kind in SCHEMA.items()]


class _Number(str):
    """A number as it is spelled."""


def _one(value: object, kind: type) -> str | int | None:
    if not isinstance(value, str) or value in ("", *_NO_NUMBER):
        return None
    text = _whole_characters(str(value))
    return text if kind == pl.String else _ids(pl.Series([text]), pl.Series([isinstance(value, _Number)]))[0]


# --- the kernel ---------------------------------------------------------------------------------------------------


# Strings are walked eight bytes at a time, and names compared so: byte by byte it took three times as long (0.42 in place of 0.15 µs a
# context of a hundred bytes). So the bytes go on for PAD after the last text.

PAD = 16
_LOW, _QUOTES, _BACKSLASHES = np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(0x2222222222222222), np.uint64(0x5C5C5C5C5C5C5C5C)


@intrinsic
def _eight(typing, data, place):
    """The eight bytes of a uint8 array from a place on, as one number; there is nothing that looks whether they are there."""

    def code(context, builder, signature, given):
        first = builder.gep(context.make_array(signature.args[0])(context, builder, given[0]).data, [given[1]])
        return builder.load(builder.bitcast(first, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(data, place), code


@numba.njit(cache=True, nogil=True, inline="always")
def _zeros(word):
    """The highest bit of each byte that is 0."""
    return ~(((word & _LOW) + _LOW) | word | _LOW)


@numba.njit(cache=True, nogil=True, inline="always")
def _string_end(data, p, stop):
    """(position after the closing quote, whether an escape stands in it) of a string that begins at p."""
    escaped = False
    while p < stop:
        word = _eight(data, p)
        found = _zeros(word ^ _QUOTES) | _zeros(word ^ _BACKSLASHES)
        if not found:
            p += 8
            continue
        p += np.int64(trailing_zeros(found) >> np.uint64(3))
        if p >= stop or data[p] == 34:
            break
        escaped = True
        p += 2
    return min(p, stop) + 1, escaped


@numba.njit(cache=True, nogil=True, inline="always")
def _blank(data, p, stop):
    while p < stop and data[p] <= 32:
        p += 1
    return p


@numba.njit(cache=True, nogil=True, inline="always")
def _is_no_number(data, begin, end):
    """Whether NaN, Infinity or -Infinity stands there; these begin with N, I or -I and are so long."""
    length = end - begin
    if length == 3:
        return data[begin] == 78 and data[begin + 1] == 97 and data[begin + 2] == 78
    if length != 8 and length != 9:
        return False
    if length == 9:
        if data[begin] != 45:
            return False
        begin += 1
    name = b"Infinity"
    for i in range(8):
        if data[begin + i] != name[i]:
            return False
    return True


@numba.njit(cache=True, nogil=True, inline="always")
def _is_name(data, begin, end, names, j):
    """names: uint64[w, 5] as _packed makes them."""
    return (
        np.uint64(end - begin) == names[j, 0]
        and _eight(data, begin) & names[j, 1] == names[j, 2]
        and _eight(data, begin + 8) & names[j, 3] == names[j, 4]
    )


@numba.njit(cache=True, nogil=True)
def _members(data, at, names, integer, kind, start, end, code):
    """Find the wanted members of objects that are valid JSON; of others, what is found before it shows.

    data, at: bytes, with PAD more, and int64[n + 1] ends of the texts. names: see _packed. Written, [w, n]: kind, and start and end of the values (a string
    without its quotes); where an `integer` column has kind INTEGER, `start` is the number itself. code: int8[n].
    """
    count = names.shape[0]
    # The place that the name n of an object had in the row before, -1 for another name: rows of one log look alike.
    before = np.full(_GUESSES, -1, np.int64)
    for row in range(at.size - 1):
        stop = at[row + 1]
        n = 0
        p = _blank(data, at[row], stop)
        if p >= stop or data[p] != 123:
            continue
        p = _blank(data, p + 1, stop)
        while p < stop and data[p] == 34:
            k0 = p + 1
            p, escaped = _string_end(data, k0, stop)
            if escaped:
                code[row] = ONE_BY_ONE
                break
            j = before[n]
            if j < 0 or not _is_name(data, k0, p - 1, names, j):
                j = -1
                for i in range(count):
                    if _is_name(data, k0, p - 1, names, i):
                        j = i
                        break
                before[n] = j
            n = min(n + 1, _GUESSES - 1)
            a, b, what = p, p, NOTHING
            p = _blank(data, p, stop)
            if p >= stop or data[p] != 58:
                break
            p = _blank(data, p + 1, stop)
            if p >= stop:
                break
            first = data[p]
            v0 = p
            if first == 34:
                p, escaped = _string_end(data, p + 1, stop)
                a, b = v0 + 1, min(p - 1, stop)
                if j >= 0 and a < b and not _is_no_number(data, a, b):
                    what = ESCAPED if escaped else TEXT
            elif first == 123 or first == 91:
                depth = 0
                while p < stop:
                    c = data[p]
                    if c == 34:
                        p, _ = _string_end(data, p + 1, stop)
                        continue
                    if c == 123 or c == 91:
                        depth += 1
                    elif c == 125 or c == 93:
                        depth -= 1
                    p += 1
                    if depth == 0:
                        break
            else:
                while p < stop and data[p] != 44 and data[p] != 125 and data[p] > 32:
                    p += 1
                a, b = v0, p
                # A number begins with a digit or a sign; null, true, false, NaN and Infinity do not.
                if 48 <= first <= 57 or (first == 45 and p - v0 > 1 and data[v0 + 1] != 73):
                    what = NUMBER
            if j >= 0:
                if integer[j] and (what == TEXT or what == NUMBER):
                    d = a + 1 if data[a] == 45 else a
                    if 0 < b - d <= _DIGITS:
                        value = np.int64(0)
                        while d < b and 48 <= data[d] <= 57:
                            value = 10 * value + np.int64(data[d]) - 48
                            d += 1
                        if d == b:
                            what = INTEGER
                            a = -value if data[a] == 45 else value
                kind[j, row], start[j, row], end[j, row] = what, a, b
            p = _blank(data, p, stop)
            if p >= stop or data[p] != 44:
                break
            p = _blank(data, p + 1, stop)


@numba.njit(cache=True, nogil=True)
def _write_views(data, start, end, nothing, first, views):
    """Arrow's views of texts: the length, then up to twelve bytes of text, or its first four, buffer 0 and the place there.

    views: uint64[n, 2]. first: _FIRST. Source: https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout
    """
    for row in range(start.size):
        if nothing[row]:
            views[row, 0] = views[row, 1] = 0
            continue
        p, length = start[row], end[row] - start[row]
        head = _eight(data, p) & first[min(length, 4)]
        views[row, 0] = np.uint64(length) | head << np.uint64(32)
        if length <= 12:
            views[row, 1] = _eight(data, p + 4) & first[max(length - 4, 0)]
        else:
            views[row, 1] = np.uint64(p) << np.uint64(32)
