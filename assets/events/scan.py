"""Compiled loops over the bytes of text logs: where records end, where fields and values lie, whether JSON is JSON.

Here: numba kernels that read bytes and write positions. Not here: files and blocks (sources.py), JSON lines and CSV as
columns (json_lines.py, csv_records.py), what a value means (values.py).

No JSON or CSV library that we know hands out the bytes of a value, goes on after a broken row, and names the reason; and
all of them recurse, panic or stop at something that a log can hold. The kernels are total: any bytes give a code for each
record, without recursion and in time linear in the bytes. Tests compare them with Python's json and csv.

Positions are int64 offsets into one uint8 array; a span is [start, end).
"""

from __future__ import annotations

import numba
import numpy as np

MAX_DEPTH = 200  # levels of lists and objects in a JSON row; readers of the context recurse

# Codes of a JSON row.
GOOD, NOT_OBJECT, HALF_CHARACTER, TOO_DEEP = 0, 1, 2, 3
# A good row whose further columns need a look one by one: an escaped or repeated key, or a column `context`.
PAIRWISE = 4

# Kinds of a JSON value.
ABSENT, NULL, PLAIN, ESCAPED, SCALAR, NESTED, NOT_FINITE = 0, 1, 2, 3, 4, 5, 6

# Codes of a CSV record.
UNCLOSED, TEXT_AFTER_QUOTE, WIDTH, SPANS = 1, 2, 3, 4

_QUOTE, _BACKSLASH, _LF, _CR = 34, 92, 10, 13
TRIES = 4  # broken records that span the same lines; from then on a table of the lines is used
_MANY_KEYS = 64  # further keys of a row that are compared with each other; more go the slow way


# --- JSON ---------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True, inline="always")
def _blanks(data, p, end):
    while p < end and (data[p] == 32 or data[p] == 10 or data[p] == 13 or data[p] == 9):
        p += 1
    return p


@numba.njit(cache=True, nogil=True)
def _hex4(data, p, end):
    """The number of four hexadecimal digits, -1 where they are none."""
    if p + 4 > end:
        return -1
    number = 0
    for i in range(p, p + 4):
        c = data[i]
        if 48 <= c <= 57:
            digit = c - 48
        elif 97 <= c <= 102:
            digit = c - 87
        elif 65 <= c <= 70:
            digit = c - 55
        else:
            return -1
        number = number * 16 + digit
    return number


@numba.njit(cache=True, nogil=True)
def _string(data, p, end):
    """(position after the closing quote or -code, whether it holds escapes) of the string whose quote stands at p."""
    p += 1
    escaped = False
    while p < end:
        c = data[p]
        if c == _QUOTE:
            return p + 1, escaped
        if c < 32:
            return -NOT_OBJECT, escaped
        if c != _BACKSLASH:
            p += 1
            continue
        escaped = True
        if p + 1 >= end:
            return -NOT_OBJECT, escaped
        c = data[p + 1]
        if c != 117:
            # " \ / b f n r t
            if not (c == 34 or c == 92 or c == 47 or c == 98 or c == 102 or c == 110 or c == 114 or c == 116):
                return -NOT_OBJECT, escaped
            p += 2
            continue
        unit = _hex4(data, p + 2, end)
        if unit < 0:
            return -NOT_OBJECT, escaped
        p += 6
        if 0xDC00 <= unit <= 0xDFFF:
            return -HALF_CHARACTER, escaped
        if 0xD800 <= unit <= 0xDBFF:
            if not (p + 1 < end and data[p] == _BACKSLASH and data[p + 1] == 117):
                return -HALF_CHARACTER, escaped
            unit = _hex4(data, p + 2, end)
            if not (0xDC00 <= unit <= 0xDFFF):
                return -HALF_CHARACTER, escaped
            p += 6
    return -NOT_OBJECT, escaped


@numba.njit(cache=True, nogil=True)
def _word(data, p, end):
    """Position after a literal or a number that JSON lacks: (after, kind), after 0 where there is none."""
    words = (b"null", b"true", b"false", b"NaN", b"Infinity", b"-Infinity")
    for i in range(6):
        word = words[i]
        if p + len(word) <= end:
            same = True
            for j in range(len(word)):
                if data[p + j] != word[j]:
                    same = False
                    break
            if same:
                return p + len(word), NULL if i == 0 else (SCALAR if i < 3 else NOT_FINITE)
    return 0, ABSENT


@numba.njit(cache=True, nogil=True)
def _digits(data, p, end):
    while p < end and 48 <= data[p] <= 57:
        p += 1
    return p


@numba.njit(cache=True, nogil=True)
def _fits(data, begin, point, end):
    """Whether a number fits 64 bits: an integer int64 or uint64, any other a finite double. point: end of its integer part."""
    p = begin + 1 if data[begin] == 45 else begin
    if point == end:
        count = end - p
        if count < 19:
            return True
        if count > 20:
            return False
        number, over = np.uint64(0), False
        for i in range(p, end):
            digit = np.uint64(data[i] - 48)
            if number > (np.uint64(18446744073709551615) - digit) // np.uint64(10):
                over = True
                break
            number = number * np.uint64(10) + digit
        if over:
            return False
        return data[begin] != 45 or number <= np.uint64(9223372036854775808)
    # The first 17 digits, and the power of ten that they are multiplied by.
    mantissa, scale, used, after = 0, 0, 0, False
    exponent, sign = 0, 1
    i = p
    while i < end:
        c = data[i]
        if c == 46:
            after = True
        elif c == 101 or c == 69:
            i += 1
            if data[i] == 45:
                sign = -1
                i += 1
            elif data[i] == 43:
                i += 1
            while i < end:
                if exponent < 1_000_000_000:
                    exponent = exponent * 10 + (data[i] - 48)
                i += 1
            break
        elif used < 17 and (used > 0 or c != 48):
            mantissa = mantissa * 10 + (c - 48)
            used += 1
            if after:
                scale -= 1
        elif used == 0:  # a leading zero
            if after:
                scale -= 1
        elif not after:
            scale += 1
        i += 1
    size = scale + sign * exponent + used
    if mantissa == 0 or size <= 308:
        return True
    if size > 309:
        return False
    for _ in range(17 - used):
        mantissa *= 10
    return mantissa <= 17976931348623158  # the greatest double begins so, rounded up


@numba.njit(cache=True, nogil=True)
def _scalar(data, p, end):
    """(position after a number or literal or -code, its kind)."""
    if p < end and not 48 <= data[p] <= 57:
        after, kind = _word(data, p, end)
        if after:
            return after, kind
    begin = p
    if p < end and data[p] == 45:
        p += 1
    if p >= end or not (48 <= data[p] <= 57):
        return -NOT_OBJECT, ABSENT
    p = p + 1 if data[p] == 48 else _digits(data, p, end)
    point = p
    if p < end and data[p] == 46:
        after = _digits(data, p + 1, end)
        if after == p + 1:
            return -NOT_OBJECT, ABSENT
        p = after
    if p < end and (data[p] == 101 or data[p] == 69):
        p += 1
        if p < end and (data[p] == 43 or data[p] == 45):
            p += 1
        after = _digits(data, p, end)
        if after == p:
            return -NOT_OBJECT, ABSENT
        p = after
    return p, SCALAR if _fits(data, begin, point, p) else NOT_FINITE


@numba.njit(cache=True, nogil=True)
def _value(data, p, end, stack):
    """(position after the value at p or -code, its kind, how many numbers in it JSON readers do not take)."""
    if p >= end:
        return -NOT_OBJECT, ABSENT, 0
    c = data[p]
    if c == _QUOTE:
        after, escaped = _string(data, p, end)
        return after, ESCAPED if escaped else PLAIN, 0
    if c != 123 and c != 91:
        after, kind = _scalar(data, p, end)
        return after, kind, 1 if kind == NOT_FINITE else 0
    after, odd = _nested(data, p, end, stack)
    return after, NESTED, odd


@numba.njit(cache=True, nogil=True)
def _nested(data, p, end, stack):
    """The same for a list or an object. stack: uint8[MAX_DEPTH], the open brackets."""
    # What may come: 0 a value, 1 a value or the end, 2 a key, 3 a key or the end, 4 a comma or the end
    stack[0] = data[p]
    depth, odd = 1, 1 if data[p] == 91 else 3
    state, odd = odd, 0
    p += 1
    while True:
        p = _blanks(data, p, end)
        if p >= end:
            return -NOT_OBJECT, odd
        c = data[p]
        if (state == 4 or state == 1 or state == 3) and c == stack[depth - 1] + 2:  # ] and } follow [ and { by two
            depth -= 1
            p += 1
            if depth == 0:
                return p, odd
            state = 4
        elif state == 4:
            if c != 44:
                return -NOT_OBJECT, odd
            p += 1
            state = 0 if stack[depth - 1] == 91 else 2
        elif state >= 2:
            if c != _QUOTE:
                return -NOT_OBJECT, odd
            p, _ = _string(data, p, end)
            if p < 0:
                return p, odd
            p = _blanks(data, p, end)
            if p >= end or data[p] != 58:
                return -NOT_OBJECT, odd
            p += 1
            state = 0
        elif c == 123 or c == 91:
            if depth == MAX_DEPTH:
                return -TOO_DEEP, odd
            stack[depth] = c
            depth += 1
            p += 1
            state = 1 if c == 91 else 3
        elif c == _QUOTE:
            p, _ = _string(data, p, end)
            if p < 0:
                return p, odd
            state = 4
        else:
            p, kind = _scalar(data, p, end)
            if p < 0:
                return p, odd
            odd += kind == NOT_FINITE
            state = 4


@numba.njit(cache=True, nogil=True)
def _copy(data, begin, end, out, o, odd):
    """Copy a value's bytes; `odd` numbers that JSON readers do not take become texts. Returns the position after."""
    if odd == 0:
        for i in range(begin, end):
            out[o] = data[i]
            o += 1
        return o
    p = begin
    while p < end:
        c = data[p]
        after = p + 1
        kind = ABSENT
        if c == _QUOTE:
            after, _ = _string(data, p, end)
        elif c == 45 or 48 <= c <= 57 or c == 73 or c == 78:  # a number, Infinity, NaN
            after, kind = _scalar(data, p, end)
        if kind == NOT_FINITE:
            out[o] = _QUOTE
            o += 1
        for i in range(p, after):
            out[o] = data[i]
            o += 1
        if kind == NOT_FINITE:
            out[o] = _QUOTE
            o += 1
        p = after
    return o


@numba.njit(cache=True, nogil=True, inline="always")
def _same(data, a, b, length):
    for i in range(length):
        if data[a + i] != data[b + i]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _which(data, begin, end, names, name_at, guess):
    """The wanted name whose bytes stand in [begin, end), -1 for none; `guess` is tried first."""
    count = name_at.size - 1
    for i in range(count):
        j = guess + i
        if j >= count:
            j -= count
        length = name_at[j + 1] - name_at[j]
        if length != end - begin:
            continue
        same = True
        for k in range(length):
            if names[name_at[j] + k] != data[begin + k]:
                same = False
                break
        if same:
            return j
    return -1


@numba.njit(cache=True, nogil=True)
def _is_context(data, begin, end):
    name = b"context"
    if end - begin != 7:
        return False
    for i in range(7):
        if data[begin + i] != name[i]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def objects(data, start, end, names, name_at, code, kind, value_start, value_end, out, out_at, odd, twice):
    """Read JSON objects, a record each.

    start, end: int64[n], spans of the records. names, name_at: the wanted keys' bytes one after the other, and their ends
    (int64[w + 1]). Written: code int8[n]; kind int8[n, w], value_start, value_end int64[n, w]: each wanted value (a
    string without its quotes), the last of a repeated key; out uint8[2 * bytes + 2 * n], out_at int64[n + 1]: the further
    pairs as one object (nothing where there are none); odd int64[n]: numbers of the further values that became texts; twice
    bool[n]: rows that hold a wanted key twice (of further keys `pairs` tells).
    Of a row that is not good only the code counts; of a PAIRWISE one the further pairs are to be asked of `pairs`.
    """
    stack = np.empty(MAX_DEPTH, np.uint8)
    key_start, key_end = np.empty(_MANY_KEYS, np.int64), np.empty(_MANY_KEYS, np.int64)
    o = 0
    out_at[0] = 0
    for row in range(start.size):
        stop = end[row]
        before = o
        further, guess, seen_odd, gap = 0, 0, 0, 0
        found = GOOD
        p = _blanks(data, start[row], stop)
        if p >= stop or data[p] != 123:
            code[row] = NOT_OBJECT
            out_at[row + 1] = o
            continue
        p = _blanks(data, p + 1, stop)
        if p < stop and data[p] == 125:
            p += 1
        else:
            while True:
                if p >= stop or data[p] != _QUOTE:
                    found = NOT_OBJECT
                    break
                k0 = p + 1
                p, escaped = _string(data, p, stop)
                if p < 0:
                    found = -p
                    break
                k1 = p - 1
                p = _blanks(data, p, stop)
                if p >= stop or data[p] != 58:
                    found = NOT_OBJECT
                    break
                v0 = _blanks(data, p + 1, stop)
                p, what, odd_here = _value(data, v0, stop, stack)
                if p < 0:
                    found = -p
                    break
                which = -1 if escaped else _which(data, k0, k1, names, name_at, guess)
                if which >= 0:
                    guess = which + 1
                    if kind[row, which] != ABSENT:
                        twice[row] = True
                    kind[row, which] = what
                    quoted = what == PLAIN or what == ESCAPED
                    value_start[row, which] = v0 + 1 if quoted else v0
                    value_end[row, which] = p - 1 if quoted else p
                else:
                    if escaped or further == _MANY_KEYS or _is_context(data, k0, k1):
                        found = PAIRWISE
                    if found == GOOD:
                        for i in range(further):
                            if key_end[i] - key_start[i] == k1 - k0 and _same(data, key_start[i], k0, k1 - k0):
                                found = PAIRWISE
                                break
                    if found == GOOD:
                        key_start[further], key_end[further] = k0, k1
                        out[o] = 44 if further else 123
                        o += 1
                        # The log's own blanks before the key and around the colon stay: the context is what came.
                        for i in range(gap if further else k0 - 1, v0):
                            out[o] = data[i]
                            o += 1
                        o = _copy(data, v0, p, out, o, odd_here)
                        further += 1
                        seen_odd += odd_here
                p = _blanks(data, p, stop)
                if p < stop and data[p] == 44:
                    gap = p + 1
                    p = _blanks(data, gap, stop)
                elif p < stop and data[p] == 125:
                    p += 1
                    break
                else:
                    found = NOT_OBJECT
                    break
        if (found == GOOD or found == PAIRWISE) and _blanks(data, p, stop) != stop:
            found = NOT_OBJECT
        if found == GOOD:
            if further:
                out[o] = 125
                o += 1
        else:
            o = before
        code[row] = found
        odd[row] = seen_odd if found == GOOD else 0
        out_at[row + 1] = o
    return o


@numba.njit(cache=True, nogil=True)
def pairs(data, begin, end):
    """The pairs of one object: int64[k, 5] of key span (in its quotes), value span, numbers to become texts; or a code.

    Returns (code, spans). Any bytes may stand in [begin, end).
    """
    stack = np.empty(MAX_DEPTH, np.uint8)
    count = 1
    for i in range(begin, end):
        count += data[i] == 44
    spans = np.empty((count, 5), np.int64)
    used = 0
    p = _blanks(data, begin, end)
    if p >= end or data[p] != 123:
        return NOT_OBJECT, spans[:0]
    p = _blanks(data, p + 1, end)
    if p < end and data[p] == 125:
        return GOOD if _blanks(data, p + 1, end) == end else NOT_OBJECT, spans[:0]
    while True:
        if p >= end or data[p] != _QUOTE:
            return NOT_OBJECT, spans[:0]
        k0 = p
        p, _ = _string(data, p, end)
        if p < 0:
            return -p, spans[:0]
        k1 = p
        p = _blanks(data, p, end)
        if p >= end or data[p] != 58:
            return NOT_OBJECT, spans[:0]
        v0 = _blanks(data, p + 1, end)
        p, _, odd = _value(data, v0, end, stack)
        if p < 0:
            return -p, spans[:0]
        spans[used, 0], spans[used, 1], spans[used, 2], spans[used, 3], spans[used, 4] = k0, k1, v0, p, odd
        used += 1
        p = _blanks(data, p, end)
        if p >= end:
            return NOT_OBJECT, spans[:0]
        if data[p] == 125:
            return GOOD if _blanks(data, p + 1, end) == end else NOT_OBJECT, spans[:used]
        if data[p] != 44:
            return NOT_OBJECT, spans[:0]
        p = _blanks(data, p + 1, end)


@numba.njit(cache=True, nogil=True)
def elements(data, start, end, code, count, value_start, value_end, kind):
    """The elements of JSON lists, a list a record. start, end: int64[n], spans of the records.

    Written: code int8[n], NOT_OBJECT where the bytes are no list; count int64[n], its elements; value_start, value_end int64 and
    kind int8 of all elements, one list after the other (a string without its quotes): the caller makes room for one more than
    there are commas in all, a list. Returns how many there are.
    """
    stack = np.empty(MAX_DEPTH, np.uint8)
    used = 0
    for row in range(start.size):
        stop, first = end[row], used
        code[row] = GOOD
        p = _blanks(data, start[row], stop)
        if p >= stop or data[p] != 91:
            code[row] = NOT_OBJECT
            count[row] = 0
            continue
        p = _blanks(data, p + 1, stop)
        if p < stop and data[p] == 93:
            p += 1
        else:
            while True:
                v0 = p
                p, what, _ = _value(data, p, stop, stack)
                if p < 0:
                    code[row] = NOT_OBJECT
                    break
                quoted = what == PLAIN or what == ESCAPED
                value_start[used] = v0 + 1 if quoted else v0
                value_end[used] = p - 1 if quoted else p
                kind[used] = what
                used += 1
                p = _blanks(data, p, stop)
                if p < stop and data[p] == 44:
                    p = _blanks(data, p + 1, stop)
                elif p < stop and data[p] == 93:
                    p += 1
                    break
                else:
                    code[row] = NOT_OBJECT
                    break
        if code[row] == GOOD and _blanks(data, p, stop) != stop:
            code[row] = NOT_OBJECT
        if code[row] != GOOD:
            used = first
        count[row] = used - first
    return used


@numba.njit(cache=True, nogil=True)
def copied(data, begin, end, odd):
    """The bytes of a value, its `odd` numbers as texts."""
    out = np.empty(end - begin + 2 * odd, np.uint8)
    return out[: _copy(data, begin, end, out, 0, odd)]


# --- CSV ----------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True, inline="always")
def _at(data, p, end, mark):
    """Whether the bytes of `mark` stand at p."""
    if p + mark.size > end:
        return False
    for i in range(mark.size):
        if data[p + i] != mark[i]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _line_end(data, p, end):
    """Position of the first line feed or carriage return from p on, `end` where there is none."""
    while p < end and data[p] != _LF and data[p] != _CR:
        p += 1
    return p


@numba.njit(cache=True, nogil=True)
def _next_line(data, p, end):
    """Position after the line end at p: LF, CRLF or CR."""
    if data[p] == _CR and p + 1 < end and data[p + 1] == _LF:
        return p + 2
    return p + 1


@numba.njit(cache=True, nogil=True)
def _record(data, p, end, separator, quote, field_start, field_end, quoted, longest):
    """Read one record from p on: (code, position of its line end, fields, lines that it spans).

    Fields beyond the room of field_start are counted, not kept. A position of `end` says that the bytes end first.
    Where the code is not GOOD the position says nothing. longest: of a record that spans lines; a greater one is UNCLOSED.
    """
    width, fields, lines, begin = field_start.size, 0, 1, p
    while True:
        inside = quote.size > 0 and _at(data, p, end, quote)
        f0 = p + quote.size if inside else p
        doubled = False
        if inside:
            p = f0
            while True:
                if p >= end:
                    return UNCLOSED, end, fields, lines
                if _at(data, p, end, quote):
                    if _at(data, p + quote.size, end, quote):
                        doubled = True
                        p += 2 * quote.size
                        continue
                    break
                if data[p] == _LF or (data[p] == _CR and not (p + 1 < end and data[p + 1] == _LF)):
                    lines += 1
                    if p - begin > longest:
                        return UNCLOSED, p, fields, lines
                p += 1
            f1 = p
            p += quote.size
        else:
            while p < end and data[p] != _LF and data[p] != _CR and not _at(data, p, end, separator):
                p += 1
            f1 = p
        if fields < width:
            field_start[fields], field_end[fields] = f0, f1
            quoted[fields] = 2 if doubled else (1 if inside else 0)
        fields += 1
        if p >= end or data[p] == _LF or data[p] == _CR:
            return GOOD, p, fields, lines
        if not _at(data, p, end, separator):
            return TEXT_AFTER_QUOTE, p, fields, lines
        p += separator.size


@numba.njit(cache=True, nogil=True)
def _line(data, p, end, separator, quote, inside):
    """Read a record from p to the end of its line: (code, position, fields that end in this line).

    inside: p lies in a quoted field. SPANS: the line ends in one, at the position.
    """
    fields = 0
    while True:
        if inside or (quote.size > 0 and _at(data, p, end, quote)):
            p = p if inside else p + quote.size
            inside = False
            while True:
                if p >= end:
                    return UNCLOSED, end, fields
                if _at(data, p, end, quote):
                    if not _at(data, p + quote.size, end, quote):
                        break
                    p += 2 * quote.size
                elif data[p] == _LF or data[p] == _CR:
                    return SPANS, p, fields
                else:
                    p += 1
            p += quote.size
        else:
            while p < end and data[p] != _LF and data[p] != _CR and not _at(data, p, end, separator):
                p += 1
        fields += 1
        if p >= end or data[p] == _LF or data[p] == _CR:
            return GOOD, p, fields
        if not _at(data, p, end, separator):
            return TEXT_AFTER_QUOTE, p, fields
        p += separator.size


@numba.njit(cache=True, nogil=True)
def _from_inside(data, begin, end, separator, quote):
    """How a record goes on that is in a quoted field where a line begins, for each line of data[begin:end].

    (code, position of the record's end, its fields from that line on, line in which it ends, counted from 0); read from the
    last line to the first, so that each line is read once. int32: a piece is far below 2 GiB.
    """
    lines = 1
    p = _line_end(data, begin, end)
    while p < end:
        lines += 1
        p = _line_end(data, _next_line(data, p, end), end)
    at = np.empty(lines, np.int32)
    at[0] = p = begin
    for i in range(1, lines):
        at[i] = p = _next_line(data, _line_end(data, p, end), end)
    code, stop, fields, last = np.empty(lines, np.int8), np.empty(lines, np.int32), np.empty(lines, np.int32), np.empty(lines, np.int32)
    for i in range(lines - 1, -1, -1):
        code[i], stop[i], fields[i] = _line(data, at[i], end, separator, quote, True)
        last[i] = i
        if code[i] == SPANS:
            code[i], stop[i], last[i] = code[i + 1], stop[i + 1], last[i + 1]
            fields[i] += fields[i + 1]
    return code, stop, fields, last


@numba.njit(cache=True, nogil=True)
def csv_records(data, begin, end, whole, first_line, separator, quote, width, longest, start, stop, number):
    """Find the records of a piece of a file: (records, position where the unfinished one begins, its line).

    whole: the piece ends where the file ends. first_line: number of the line at `begin`. Written: start, stop, number
    int64[...]: spans without the line end, and the line that each begins in; the caller makes room for a record a line
    end. A record that is broken and spans lines is cut after its first line: the quote was a stray one, and what follows
    may be good. Blank lines are no records. Where many broken records would each be read to the same far place, the rest
    of the piece is read with a table of its lines: the time stays linear, the records are the same.
    """
    none = np.empty(0, np.int64)
    no_marks = np.empty(0, np.int8)
    count, p, line = 0, begin, first_line
    reach, tries = begin, 0  # how far broken records were read, and how many of them to there
    origin = -1  # line at which the table begins; -1: there is none
    code_of, stop_of, fields_of, last_of = np.empty(0, np.int8), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int32)
    while p < end:
        if data[p] == _LF or data[p] == _CR:
            if data[p] == _CR and p + 1 == end and not whole:
                break  # a line feed may follow
            p = _next_line(data, p, end)
            line += 1
            continue
        tries = tries if p < reach else 0
        if origin < 0 and tries >= TRIES:
            origin = line
            code_of, stop_of, fields_of, last_of = _from_inside(data, p, end, separator, quote)
        if origin < 0:
            code, q, fields, lines = _record(data, p, end, separator, quote, none, none, no_marks, longest)
        else:
            code, q, fields = _line(data, p, end, separator, quote, False)
            lines = 1
            if code == SPANS:
                then = line - origin + 1
                code, q, lines = code_of[then], stop_of[then], last_of[then] - then + 2
                fields += fields_of[then]
        cut_mark = code == TEXT_AFTER_QUOTE and q + max(separator.size, quote.size) > end
        if not whole and (q >= end or cut_mark) and end - p <= longest:
            break  # it may go on in the next piece
        if code != GOOD or (lines > 1 and (fields != width or q - p > longest)):
            if lines > 1:
                reach, tries = max(reach, q), tries + 1
            q, lines = _line_end(data, p, end), 1
        if q >= end and not whole:
            break
        if q < end and data[q] == _CR and q + 1 == end and not whole:
            break
        after = end if q >= end else _next_line(data, q, end)
        # A carriage return before the line feed stays with the record: it is what was received.
        start[count], stop[count], number[count] = p, q + 1 if after == q + 2 else q, line
        count += 1
        line += lines
        p = after
    return count, p, line


@numba.njit(cache=True, nogil=True)
def csv_fields(data, start, stop, separator, quote, code, field_start, field_end, quoted):
    """The fields of records. Written: code int8[n], and [n, width] of spans and marks (1: quoted, 2: with doubled quotes)."""
    width = field_start.shape[1]
    for row in range(start.size):
        found, p, fields, lines = _record(
            data, start[row], stop[row], separator, quote, field_start[row], field_end[row], quoted[row], stop[row] - start[row]
        )
        # One carriage return before the end belongs to the line end.
        if found == GOOD and p < stop[row] and not (data[p] == _CR and p + 1 == stop[row]):
            found = WIDTH
        if found == GOOD and fields != width:
            found = WIDTH
        code[row] = found


# --- gathering ----------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def gather(data, start, end, offsets):
    """The bytes of spans one after the other; offsets int64[n + 1] is written."""
    total = 0
    for i in range(start.size):
        offsets[i] = total
        total += end[i] - start[i]
    offsets[start.size] = total
    out = np.empty(total, np.uint8)
    o = 0
    for i in range(start.size):
        for p in range(start[i], end[i]):
            out[o] = data[p]
            o += 1
    return out


# --- UTF-8 --------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def not_utf8(data, start, end, wrong):
    """Which spans are not UTF-8 by table 3-7 of the Unicode standard: wrong, bool[n], is written where one is not."""
    for row in range(start.size):
        p, stop = start[row], end[row]
        while p < stop:
            lead = data[p]
            if lead < 0x80:
                p += 1
                continue
            # How many bytes follow, and between which bounds the first of them lies; the others are 80 to BF.
            low, high = 0x80, 0xBF
            if 0xC2 <= lead <= 0xDF:
                more = 1
            elif 0xE0 <= lead <= 0xEF:
                more = 2
                low = 0xA0 if lead == 0xE0 else low
                high = 0x9F if lead == 0xED else high
            elif 0xF0 <= lead <= 0xF4:
                more = 3
                low = 0x90 if lead == 0xF0 else low
                high = 0x8F if lead == 0xF4 else high
            else:
                more = -1
            good = more > 0 and p + more < stop and low <= data[p + 1] <= high
            for i in range(2, more + 1):
                good = good and 0x80 <= data[p + i] <= 0xBF
            if not good:
                wrong[row] = True
                break
            p += more + 1
