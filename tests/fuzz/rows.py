"""Rows of event logs: valid ones of several forms, and what is done to them so that they no longer are.

Here: one row as JSON line or as CSV record, bytes. Not here: files (files.py), Parquet (tables.py), the shop's changes (orders.py).

A file uses only a few of the faults (its `kinds`): with all of them at once the first to stop a reader would hide the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz import odd

MAPPINGS = Path(__file__).resolve().parents[2] / "assets" / "events" / "mappings"
T0 = 1_704_067_200_000_000  # 2024-01-01, µs: an old log, so that no clock is ahead of its landing
ACTIONS = ("impression", "click", "view_end", "like", "unlike", "fav", "comment", "share", "follow", "hide", "profile_enter")
STRING_IDS = """[user]
column = "uid"
ids = "string"
[item]
column = "iid"
ids = "string"
[time]
column = "ts"
unit = "s"
[action]
column = "act"
[action.values]
view = "impression"
buy = "click"
"""


@dataclass(frozen=True)
class Row:
    """data: without a line end. malformed: something was done to it. event_id: of a valid row of our own form."""

    data: bytes
    malformed: bool
    event_id: str | None = None


@dataclass(frozen=True)
class Form:
    """A form of logs. one_event: a row is one event. header: CSV files have one. quote: '' where quotes are text."""

    name: str
    columns: tuple[str, ...]
    valid: Callable[[Random, int, str], dict]
    mapping: str | None = None
    one_event: bool = True
    header: bool = True
    quote: str = '"'
    times: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()


def _native(rng: Random, number: int, tag: str) -> dict:
    action = rng.choice(ACTIONS)
    time = T0 + number * 1_000_000 + rng.randrange(1_000_000)
    row = {
        "event_id": f"{tag}-{number}", "user_id": rng.randrange(50), "note_id": rng.randrange(20), "action": action,
        "event_time": time, "ingest_time": time + rng.randrange(60_000_000), "dwell_ms": rng.randrange(60_000) if action == "view_end" else None,
        "request_id": f"r{number // 5}", "channel": rng.choice(("homefeed", "search")), "position": number % 10,
        "device": rng.choice(("ios", "android")), "title": rng.choice(("", "plain", 'say "x"', "漢字", "a,b", "o'x")),
    }  # fmt: skip
    return row


def _string_ids(rng: Random, number: int, tag: str) -> dict:
    return {"uid": f"u{rng.randrange(50)}", "iid": f"{tag}i{rng.randrange(20)}", "ts": T0 // 10**6 + number, "act": rng.choice(("view", "buy")), "note": "x"}


def _deskdrop(rng: Random, number: int, tag: str) -> dict:
    return {
        "timestamp": T0 // 10**6 + number, "eventType": rng.choice(("VIEW", "LIKE", "BOOKMARK", "FOLLOW", "COMMENT CREATED")),
        "contentId": -rng.randrange(10**18), "personId": rng.randrange(10**18), "sessionId": rng.randrange(10**18),
        "userAgent": rng.choice(("", "Mozilla/5.0 (X11; Linux x86_64)")), "userCountry": rng.choice(("", "BR")),
    }  # fmt: skip


def _kuairand(rng: Random, number: int, tag: str) -> dict:
    flags = {name: int(rng.random() < 0.2) for name in ("is_click", "is_follow", "is_comment", "is_forward", "is_profile_enter")}
    return {"user_id": rng.randrange(50), "video_id": rng.randrange(10**6), "time_ms": T0 // 1000 + number * 1000, **flags,
            "play_time_ms": rng.randrange(10**5), "duration_ms": 9_000, "label": rng.choice((0, 1)), "tab": 1}  # fmt: skip


def _mind(rng: Random, number: int, tag: str) -> dict:
    items = " ".join(f"N{rng.randrange(10**5)}-{rng.randrange(2)}" for _ in range(rng.randrange(1, 6)))
    return {"impression_id": number + 1, "user_id": f"U{rng.randrange(999)}", "time": "11/11/2023 9:05:58 AM", "history": "N1 N2", "impressions": items}


def _shipped(name: str) -> str:
    return (MAPPINGS / f"{name}.toml").read_text()


NATIVE = Form(
    "native",
    ("event_id", "user_id", "note_id", "action", "event_time", "ingest_time", "dwell_ms", "request_id", "channel", "position", "device", "title"),
    _native, times=("event_time", "ingest_time"), integers=("user_id", "note_id", "dwell_ms", "position"),
)  # fmt: skip
FORMS = (
    NATIVE,
    Form("string_ids", ("uid", "iid", "ts", "act", "note"), _string_ids, STRING_IDS, times=("ts",)),
    Form("deskdrop", ("timestamp", "eventType", "contentId", "personId", "sessionId", "userAgent", "userCountry"), _deskdrop,
         _shipped("deskdrop"), times=("timestamp",), integers=("contentId", "personId")),
    Form("kuairand", ("user_id", "video_id", "time_ms", "is_click", "is_follow", "is_comment", "is_forward", "is_profile_enter", "play_time_ms",
                      "duration_ms", "label", "tab"), _kuairand, _shipped("kuairand"), one_event=False, times=("time_ms",),
         integers=("user_id", "video_id", "is_click", "play_time_ms", "label")),
    Form("mind", ("impression_id", "user_id", "time", "history", "impressions"), _mind, _shipped("mind"), one_event=False, header=False, quote="",
         times=("time",)),
)  # fmt: skip


# --- JSON lines -------------------------------------------------------------------------------------------------------

Pairs = list[tuple[str, str]]  # of JSON text: key, value


def json_line(rng: Random, form: Form, number: int, tag: str, kind: str | None) -> Row:
    """A row as a JSON line; kind: one of JSON_KINDS, None for a valid row."""
    values = form.valid(rng, number, tag)
    pairs = [(json.dumps(name), json.dumps(value, ensure_ascii=rng.random() < 0.7)) for name, value in values.items() if value is not None]
    if kind is None:
        if form is NATIVE and rng.random() < 0.2:
            pairs = [(key, _as_text_time(value) if key == '"event_time"' else value) for key, value in pairs]
        return Row(_joined(rng, pairs).encode(), False, values.get("event_id"))
    made = JSON_KINDS[kind](rng, pairs, form)
    return Row(made if isinstance(made, bytes) else made.encode("utf-8", "surrogatepass"), True)


def _as_text_time(value: str) -> str:
    import datetime as dt

    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=int(value))
    return json.dumps(moment.isoformat().replace("+00:00", "Z"))


def _joined(rng: Random, pairs: Pairs) -> str:
    comma, colon = rng.choice(((",", ":"), (", ", ": ")))
    return "{" + comma.join(f"{key}{colon}{value}" for key, value in pairs) + "}"


def _replaced(rng: Random, pairs: Pairs, value: str, names: tuple[str, ...] = ()) -> str:
    """One value (of these columns, if any are there) replaced by JSON text."""
    places = [at for at, (key, _) in enumerate(pairs) if not names or key[1:-1] in names] or range(len(pairs))
    at = rng.choice(list(places))
    return _joined(rng, [*pairs[:at], (pairs[at][0], value), *pairs[at + 1 :]])


def _added(rng: Random, pairs: Pairs, key: str, value: str) -> str:
    at = rng.randrange(len(pairs) + 1)
    return _joined(rng, [*pairs[:at], (key, value), *pairs[at:]])


def _anywhere(rng: Random, pairs: Pairs, value: str) -> str:
    """In a column that is there, or in a further one."""
    return _replaced(rng, pairs, value) if rng.random() < 0.5 else _added(rng, pairs, '"further"', value)


def _inserted(rng: Random, data: bytes, what: bytes) -> bytes:
    at = rng.choice((0, len(data), rng.randrange(len(data) + 1)))
    return data[:at] + what + data[at:]


def _flipped(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    made = bytes([data[at] ^ (1 << rng.randrange(8))])
    return data[:at] + (made if made not in b"\r\n" else b"?") + data[at + 1 :]


def _context(rng: Random, pairs: Pairs, form: Form) -> str:
    inner = rng.choice((
        '"{}"', '"{\\"a\\":1}"', '"{"', '"not json"', '"[1]"', "{}", '{"device":"x","device":"y"}', '{"utm":{"device":"tv"}}', '"{\\"a\\":\\"\\\\ud83d\\"}"',
        '"{\\"a\\":NaN}"', "[]", "1", "null", '"{\\"a\\":1e400}"', '{"user_id":"other"}', '"{\\"a\\":1}}"', '{"context":{"context":{}}}',
        json.dumps(odd.deep(rng)), odd.deep(rng), json.dumps('{"a":' + "9" * 5000 + "}"),
    ))  # fmt: skip
    return _added(rng, pairs, '"context"', inner)


def _not_object(rng: Random, pairs: Pairs, form: Form) -> str:
    row = _joined(rng, pairs)
    return rng.choice((
        "[]", "[" + row + "]", "1", "null", '"text"', "true", "{", "}", "{}", "{}{}", row + row, row + ",", row + " " + row, "// " + row, row + "#x",
        row.replace('"', "'"), row.replace(":", "=", 1), row[:-1] + ",}", "{" + row + "}", row.replace(",", ",,", 1), "NaN", "{{}}", '{"a"}', "{]}",
        row[1:-1], "\t" + row, row + "\r", "\r" + row, row + "\r\r", row.replace(",", ",\r", 1), json.dumps(row),
    ))  # fmt: skip


def _blank(rng: Random, pairs: Pairs, form: Form) -> bytes:
    return rng.choice((b"", b" ", b"\t", b"\r", b"\r\r", b"  \r", b"\x0c", b"\x0b", b"\xc2\x85", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xc2\xa0", b"\x00"))


def _keys(rng: Random, pairs: Pairs, form: Form) -> str:
    made = list(pairs)
    what = rng.randrange(6)
    at = rng.randrange(len(made))
    if what == 0:
        del made[at]
    elif what == 1:  # twice, with another value
        made.insert(rng.randrange(len(made) + 1), (made[at][0], odd.json_value(rng)))
    elif what == 2:
        made[at] = (rng.choice((made[at][0].upper(), made[at][0][:-1] + ' "', '"\\u0065vent_id"', '"\\ud83d"', '""', "key")), made[at][1])
    elif what == 3:
        made += [(json.dumps(f"x{number}"), "1") for number in range(rng.choice((1, 50, 2_000)))]
    elif what == 4:
        rng.shuffle(made)
        made = made[: rng.randrange(len(made))]
    else:
        made.append((json.dumps(odd.text(rng) * rng.choice((1, 1, 1000))), odd.json_value(rng)))
    return _joined(rng, made)


def _long(rng: Random) -> str:
    return json.dumps(rng.choice(("x", "漢", '"', "\\", "a b,")) * rng.choice((200, 201, 1_000, 70_000, odd.MANY)))


JSON_KINDS: dict[str, Callable[[Random, Pairs, Form], str | bytes]] = {
    "type": lambda rng, pairs, form: _replaced(rng, pairs, odd.json_value(rng)),
    "further": lambda rng, pairs, form: _added(rng, pairs, '"further"', odd.json_value(rng)),
    "keys": _keys,
    "nested": lambda rng, pairs, form: _anywhere(rng, pairs, rng.choice(odd.NESTED)),
    "number": lambda rng, pairs, form: _anywhere(rng, pairs, rng.choice(odd.NUMBERS)),
    "integer": lambda rng, pairs, form: _replaced(
        rng, pairs, rng.choice(("{}", '"{}"', "{}.0", '"{}.0"', "{}e0", "[{}]")).format(rng.choice(odd.INTEGERS)), form.integers),
    "surrogate": lambda rng, pairs, form: _anywhere(rng, pairs, '"' + rng.choice(odd.SURROGATES) + '"'),
    "surrogate_key": lambda rng, pairs, form: _added(rng, pairs, '"' + rng.choice(odd.SURROGATES) + '"', odd.json_value(rng)),
    "escape": lambda rng, pairs, form: _anywhere(rng, pairs, '"' + rng.choice(odd.ESCAPES) + '"'),
    "text": lambda rng, pairs, form: _anywhere(rng, pairs, json.dumps(odd.text(rng), ensure_ascii=rng.random() < 0.3)),
    "utf8": lambda rng, pairs, form: _inserted(rng, _joined(rng, pairs).encode(), rng.choice(odd.BAD_UTF8)),
    "control": lambda rng, pairs, form: _inserted(rng, _joined(rng, pairs).encode(), rng.choice(odd.CONTROLS)),
    "deep": lambda rng, pairs, form: _anywhere(rng, pairs, odd.deep(rng)),
    "context": _context,
    "time": lambda rng, pairs, form: _replaced(rng, pairs, json.dumps(odd.time_text(rng), ensure_ascii=False), form.times),
    "time_number": lambda rng, pairs, form: _replaced(
        rng, pairs, rng.choice(("{}", '"{}"', "{}.0", "{}.5")).format(rng.choice(odd.TIME_INTEGERS)), form.times),
    "repeat": lambda rng, pairs, form: _replaced(rng, pairs, rng.choice(('"same"', '"other"', "1", '"1"')), ("event_id", "sessionId")),
    "long": lambda rng, pairs, form: _anywhere(rng, pairs, _long(rng)),
    "not_object": _not_object,
    "blank": _blank,
    "cut": lambda rng, pairs, form: (row := _joined(rng, pairs).encode())[: rng.randrange(1, len(row))],
    "flip": lambda rng, pairs, form: _flipped(rng, _joined(rng, pairs).encode()),
    "huge": lambda rng, pairs, form: _anywhere(rng, pairs, '"' + "x" * rng.choice(HUGE) + '"'),
}  # fmt: skip
HUGE = (500_000, 500_000, 2_000_000, 2_000_000, 5_000_000, 17_000_000)  # characters
HEAVY = {"deep": 6, "huge": 1, "long": 6, "long_field": 3}  # so many rows of a file at most


# --- CSV --------------------------------------------------------------------------------------------------------------

Fields = list[str]


def csv_line(rng: Random, form: Form, separator: str, number: int, tag: str, kind: str | None) -> Row:
    """A row as a CSV record (or TSV, by the separator); kind: one of CSV_KINDS, None for a valid row."""
    values = form.valid(rng, number, tag)
    fields = ["" if values[name] is None else str(values[name]) for name in form.columns]
    if kind is None:
        return Row(plain_csv(fields, separator, form.quote).encode(), False, values.get("event_id"))
    made = CSV_KINDS[kind](rng, fields, separator, form)
    return Row(made if isinstance(made, bytes) else made.encode("utf-8", "surrogatepass"), True)


def plain_csv(fields: Fields, separator: str, quote: str) -> str:
    """RFC 4180; without quotes what needs them is left out."""
    if not quote:
        return separator.join(field.replace(separator, " ").replace("\n", " ").replace("\r", " ") for field in fields)
    odd_ones = (separator, '"', "\n", "\r")
    quoted = ['"' + field.replace('"', '""') + '"' if any(one in field for one in odd_ones) else field for field in fields]
    return separator.join(quoted)


def _with(rng: Random, fields: Fields, value: str, form: Form, names: tuple[str, ...] = ()) -> Fields:
    places = [at for at, name in enumerate(form.columns) if not names or name in names] or list(range(len(fields)))
    at = rng.choice(places)
    return [*fields[:at], value, *fields[at + 1 :]]


def _valued(value: Callable[[Random], str], names: Callable[[Form], tuple[str, ...]] = lambda form: ()):
    def made(rng: Random, fields: Fields, separator: str, form: Form) -> str:
        return plain_csv(_with(rng, fields, value(rng), form, names(form)), separator, form.quote)

    return made


def _raw(value: Callable[[Random], str]):
    """A field as it stands, not quoted as it should be."""

    def made(rng: Random, fields: Fields, separator: str, form: Form) -> str:
        at = rng.randrange(len(fields))
        quoted = [plain_csv([field], separator, form.quote) for field in fields]
        quoted[at] = value(rng).replace("@", quoted[at])
        return separator.join(quoted)

    return made


STRAY = ('5" screen', '"', '""', '"@', '@"', '"a"b', '"a" ', ' "a"', '"a"b"', '"a""', "'@'", '"a\\"b"', '"""', '""""', 'a""b', '""a', '"@"x"@"', '“@”')
BROKEN = ('"a\nb"', '"a\r\nb"', '"a\rb"', '"\n"', '"a\n\nb"', '"' + "\n" * 30 + '"', 'a\rb', '"a""\n""b"', '"\r"', '"a\n@"')
OPEN = ('"open', '"open""', '"open, ', '"')


def _width(rng: Random, fields: Fields, separator: str, form: Form) -> str:
    made = list(fields)
    what = rng.randrange(4)
    if what == 0:
        del made[rng.randrange(len(made))]
    elif what == 1:
        made.append("x")
    elif what == 2:
        made = made[: rng.randrange(len(made))]
    else:
        made += [""] * rng.choice((1, 100, 5_000))
    return plain_csv(made, separator, form.quote)


def _line(change: Callable[[Random, bytes], bytes]):
    return lambda rng, fields, separator, form: change(rng, plain_csv(fields, separator, form.quote).encode())


CSV_KINDS: dict[str, Callable[[Random, Fields, str, Form], str | bytes]] = {
    "type": _valued(lambda rng: rng.choice((*odd.NUMBERS, *odd.LITERALS, *odd.NESTED, *odd.SURROGATES, *odd.ESCAPES))),
    "text": _valued(odd.text),
    "integer": _valued(lambda rng: rng.choice(("{}", "{}.0", " {}", "{} ", "{}e0", "+{}", "0{}")).format(rng.choice(odd.INTEGERS)), lambda form: form.integers),
    "time": _valued(odd.time_text, lambda form: form.times),
    "time_number": _valued(lambda rng: rng.choice(("{}", "{}.0", "{}.5")).format(rng.choice(odd.TIME_INTEGERS)), lambda form: form.times),
    "repeat": _valued(lambda rng: rng.choice(("same", "other", "1")), lambda form: ("event_id", "sessionId")),
    "empty": _valued(lambda rng: ""),
    "stray_quote": _raw(lambda rng: rng.choice(STRAY)),
    "line_break": _raw(lambda rng: rng.choice(BROKEN)),
    "open_quote": _raw(lambda rng: rng.choice(OPEN)),
    "unicode_break": _raw(lambda rng: rng.choice(('"a\u2028b"', '"a\u0085b"', '"a\x0cb"', '"a\x0bb"', '"a\x1cb"', "a\u2028b", "a\u0085b", "a\x0cb", "a\x1eb"))),
    "width": _width,
    "long_field": _valued(lambda rng: rng.choice(("x", "漢", '"', ", ")) * rng.choice((odd.MANY - 1, odd.MANY, 400_000))),
    "utf8": _line(lambda rng, line: _inserted(rng, line, rng.choice(odd.BAD_UTF8))),
    "control": _line(lambda rng, line: _inserted(rng, line, rng.choice(odd.CONTROLS))),
    "carriage_return": _line(lambda rng, line: _inserted(rng, line, rng.choice((b"\r", b"\r\r", b"\r ")))),
    "flip": _line(_flipped),
    "cut": _line(lambda rng, line: line[: rng.randrange(len(line))]),
    "blank": lambda rng, fields, separator, form: _blank(rng, [], form),
    "separators": lambda rng, fields, separator, form: rng.choice((separator * len(fields), separator * (len(fields) - 1), ";".join(fields), "|".join(fields))),
    "context": _valued(lambda rng: rng.choice(("{", "{}", "[1]", '{"a":1}', '{"a":NaN}', '{"a":"\\ud83d"}', odd.deep(rng)))),
    "huge": _valued(lambda rng: "x" * rng.choice(HUGE)),
}  # fmt: skip
