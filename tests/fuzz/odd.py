"""Values that logs are known to hold and that nobody expects: numbers, texts, times, and JSON text of them.

Here: single values. Not here: rows of them (rows.py, orders.py), files (files.py, tables.py).
"""

from __future__ import annotations

import json
from random import Random

INTEGERS = (
    0, 1, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64,
    10**19, 10**30,
)  # fmt: skip
NUMBERS = (
    "NaN", "Infinity", "-Infinity", "nan", "1e400", "-1e400", "1e308", "5e-324", "-0", "-0.0", "1.0", "2.5", "1e3", "01", "+1", ".5",
    "1.", "0x10", "1_000", "1.2345678901234567e18", "9007199254740993.0", "123456789012345678901234567890", "1" * 400, "1" * 5000,
    "1e5", "1e-7", "--1", "१२३", "9223372036854775807.0",
)  # fmt: skip
LITERALS = ("true", "false", "null", "True", "None", "undefined", "nil", "")
NESTED = (
    "[]", "{}", "[[]]", "[1]", '["a",null]', '{"a":{"b":[1,{"c":null}]}}', '[{"a":1},{"a":"x"},{"b":[1.5]}]', '{"":0}', "[1,2.5,\"a\",null,{}]",
    '{"a":NaN}', '[1e400]', '{"a":"\\ud83d"}', '{"a":1,"a":2}', '{"\\ud800":1}',
)  # fmt: skip
# JSON escapes of half a character, alone and beside others, in the wrong order.
SURROGATES = ("\\ud83d", "\\ude00", "nice \\ud83d", "\\ude00\\ud83d", "\\ud83d\\ud83d\\ude00", "\\uD800x", "\\udfff", "a\\ud83d\\u0041")
ESCAPES = ("\\u0000", "\\u001f", "\\ufeff", "\\uffff", "\\u2028", "\\u0085", "\\ud83d\\ude00", "\\/", "\\b\\f\\n\\r\\t", "\\x41", "\\u12", "\\", '\\"')
TEXTS = (
    "", " ", "  a  ", "\ufeff", "a\ufeffb", "\u2028", "a\u2028b", "\u0085x", "\x0c", "\x0b", "\x1c\x1d\x1e", "\u00a0", "\u200b", "\u202e", "é", "e\u0301",
    "漢字", "😀", "👩‍👩‍👧", "\U0010ffff", "\uffff", "\x7f", "\x80", "\x01", "a\tb", "null", "NULL", "NaN", "N/A", "-", "\\N", "\\", "\\\\", "'", "''", "`",
    "=1+1", "<b>", "{", "}", "{}", "[", "a,b", "a;b", "a|b", "a\tb", "%s", "%", "$1", "../x", "\x1b[31m",
)  # fmt: skip
TIMES = (
    "2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5Z", "2024-01-01T00:00:00.123456789Z", "2024-01-01T00:00:00.1234567890123Z",
    "2024-01-01t00:00:00z", "2024-01-01 00:00:00+00:00", "2024-01-01T00:00:00+0000", "2024-01-01T00:00:00+00", "2024-01-01T00:00:00",
    "2024-01-01", "20240101T000000Z", "2024-001", "2024-W01-1", "2024-01-01T23:59:60Z", "2024-01-01T24:00:00Z", "2024-01-01T25:00:00Z",
    "2024-02-30T00:00:00Z", "2024-13-01T00:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "-2024-01-01T00:00:00Z",
    "+12024-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "99999-01-01T00:00:00Z",
    "262143-01-01T00:00:00Z", "-262144-01-01T00:00:00Z", "2024-01-01T00:00:00+25:00", "2024-01-01T00:00:00+14:00", "2024-01-01T00:00:00-12:00",
    "2024-01-01T00:00:00+05:45", "2024-01-01T00:00:00+00:00:30", "2024-01-01T00:00:00+05:30:15", "2024-01-01T00:00:00+99:99",
    "2024-01-01T00:00:00 Europe/Berlin", "2024-01-01T00:00:00[Europe/Berlin]", "2024-01-01T00:00:00 UTC", "2024-01-01T00:00Z", "2024-01-01T00Z",
    "2024-01-01T00:00:00,5Z", " 2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z ", "2024-1-1T0:0:0Z", "24-01-01T00:00:00Z", "Mon, 01 Jan 2024 00:00:00 GMT",
    "01/02/2024 03:04:05 AM", "1704067200", "1704067200.123", "1704067200123", "1704067200123456", "1704067200123456789", "1.7040672e15", "-1",
    "1e400", "NaN", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "2000-01-01T00:00:00Z", "1999-12-31T23:59:59.999999Z",
    "2099-12-31T23:59:59Z", "2100-01-01T00:00:00Z", "２０２４-01-01T00:00:00Z", "2024\u221201\u221201T00:00:00Z", "now", "today", "0",
)  # fmt: skip
TIME_INTEGERS = (
    0, -1, 1704067200, 1704067200123, 1704067200123456789, 2**53, 2**63 - 1, -(2**63), 2**63, 946684800000000, 946684799999999, 4102444799999999,
    4102444800000000, -62135596800000000, 253402300799999999, 253402300800000000, 10**17, -(10**17), 8210298412800000, 9223372036854775,
)  # fmt: skip
BAD_UTF8 = (b"\xff", b"\xc3", b"\xe2\x80", b"\xf0\x9f\x98", b"\xc0\x80", b"\xed\xa0\xbd", b"\xed\xb8\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf5\x80\x80\x80", b"\x80", b"\xfe\xff")
CONTROLS = (b"\x00", b"\x00\x00", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1a", b"\x1b", b"\x7f", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"\xef\xbb\xbf")
MANY = 131_073  # characters: one more than the csv module's limit of a field
DEEP, DEEPER = 3_000, 100_000


def text(rng: Random) -> str:
    """Any text, odd or plain; no half characters."""
    if rng.random() < 0.7:
        return rng.choice(TEXTS)
    return "".join(chr(_code_point(rng)) for _ in range(rng.choice((1, 3, 20, 199, 200, 201))))


def _code_point(rng: Random) -> int:
    found = rng.choice((rng.randrange(32), rng.randrange(32, 127), rng.randrange(128, 0xD800), rng.randrange(0xE000, 0x110000)))
    return found


def json_value(rng: Random) -> str:
    """JSON text of any value; not always JSON."""
    kind = rng.randrange(8)
    if kind == 0:
        return str(rng.choice(INTEGERS))
    if kind == 1:
        return rng.choice(NUMBERS)
    if kind == 2:
        return rng.choice(LITERALS)
    if kind == 3:
        return rng.choice(NESTED)
    if kind == 4:
        return '"' + rng.choice((*SURROGATES, *ESCAPES)) + '"'
    if kind == 5:
        return json.dumps(rng.choice((*map(str, INTEGERS), *NUMBERS)))
    return json.dumps(text(rng), ensure_ascii=rng.random() < 0.5)


def deep(rng: Random) -> str:
    """JSON nested deeply, closed or not."""
    depth = rng.choice((100, 127, 128, 129, 500, 1_000, DEEP, DEEP, DEEPER))
    opened, closed = rng.choice((("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")))
    return opened * depth + ("1" if opened != "[" else "") + (closed * depth if rng.random() < 0.9 else "")


def time_text(rng: Random) -> str:
    return rng.choice(TIMES)
