"""Hostile logs of our own form in every format, drawn from a seed: what the differential test reads by every way in.

Here: rows and files. Not here: what is right (plain.py), the ways (tests/faults/ways.py).
"""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import gzip
import io
import json
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = ("jsonl", "jsonl.gz", "csv", "csv.gz", "tsv", "tsv.gz", "parquet", "NDJSON", "CSV.GZ")
T0 = 1_767_600_000_000_000
TEXTS = (
    "plain", '5" screen', '"', '""', '"quoted"', "a,b", "a\tb", "a\nb", "a\r\nb", "a\rb", "a\u2028b", "a\x85b", "a\x0cb", "ü漢字", "😀", "\\", "\\n",
    "\\ud83d", "null", "NaN", "1e400", "true", "{", "[1]", "{\"a\":1}", " ", " lead", "trail ", "x" * 300, "'", "=1+1", "\ufeffx", "\x7f", "05", "5.0",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 7, 2**31, 2**53 - 1, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, 10**30, 0.5, -1.5, 2.0, 1e22, 5e-324, 1.7976931348623157e308,
)  # fmt: skip
RAW_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e400", "-1e999", "1E5", "1e0", "-0", "0.0", "123456789012345678901234567890", "1.0e-400", "12345.678901234567890123")
TIMES = (
    "2026-01-05T08:00:01Z", "2026-01-05T16:00:02+08:00", "2026-01-05t08:00:03.123456789z", "2026-01-05 08:00:04+00:00", "2026-01-05T08:00:05",
    "2026-01-05", "yesterday", "", "2026-13-05T08:00:00Z", "1999-12-31T23:59:59Z", "2100-01-01T00:00:00Z", "9" * 30, "-1", "1767600000000000.75", "1.7676e15",
)  # fmt: skip
KEYS = ("title", "device", "t", "author_id", "x y", "ünï", "a\"b", "context", "nested")
BROKEN_JSON = (
    b"{", b"[]", b'"x"', b"nul", b"{}x", b'{"a":01}', b'{"a":1,}', b"{'a':1}", b'{"a":"\x01"}', b'{"a":"\xff"}', b'{"a":"\\ud83d"}', b"\xef\xbb\xbf{}", b" ", b"{}",
    b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", b'{"a":"\\x"}', b'{"a":1 "b":2}', b'{"event_id":"half',
)  # fmt: skip
BROKEN_CSV = ('"', 'a"b', '"a"b{s}c', "a", "{s}" * 40, '{s}"x{s}y', '"a{n}b"', "", " ", "\xff")


def value(rng: Random):
    """A value of a further column that JSON has."""
    draw = rng.random()
    if draw < 0.45:
        return rng.choice(TEXTS)
    if draw < 0.75:
        return rng.choice(NUMBERS)
    if draw < 0.85:
        return rng.choice((None, True, False))
    if draw < 0.92:
        return [value(rng) for _ in range(rng.randrange(3))]
    return {rng.choice(KEYS): value(rng) for _ in range(rng.randrange(3))}


def row(rng: Random, prefix: str, number: int) -> dict:
    """A row of our own form, mostly good."""
    made = {
        "event_id": f"{prefix}-{number}", "user_id": rng.choice((1, 2, -5, 2**62, rng.randrange(10**6))), "note_id": rng.randrange(1000),
        "action": rng.choice(("impression", "click", "like", "view_end")), "event_time": T0 + rng.randrange(3_000_000_000),
    }  # fmt: skip
    if rng.random() < 0.3:
        made["ingest_time"] = made["event_time"] + rng.choice((0, 1_000_000, -1, -400_000_000))
    if made["action"] == "view_end" and rng.random() < 0.8:
        made["dwell_ms"] = rng.choice((0, 5000, "700", 12.0, -1, 2**31))
    for name, choices in (("request_id", TEXTS), ("channel", TEXTS), ("position", (0, 3, "4", 2.0, 2.5, -1))):
        if rng.random() < 0.3:
            made[name] = rng.choice(choices)
    if rng.random() < 0.35:  # one thing is odd
        odd = rng.choice(("event_id", "user_id", "note_id", "action", "event_time", "ingest_time", "dwell_ms", "again"))
        if odd == "again":
            made["event_id"] = f"{prefix}-{rng.randrange(max(1, number))}"
        elif odd.endswith("time"):
            made[odd] = rng.choice((*TIMES, None, True, [T0], T0 + 0.5, float(T0), -T0, 10**17))
        elif odd in ("event_id", "action"):
            made[odd] = rng.choice((None, "", "x" * 201, f"{prefix}-{rng.choice(TEXTS)}", 5, 2.5, True, [1], {}))
        else:
            made[odd] = rng.choice((None, "", "x", "12", "0012", 3.0, 3.5, 1e15, 2.0**53, 2**63, -(2**63), "1e3", True, [1], {"a": 1}, *NUMBERS))
    return made


# --- files ------------------------------------------------------------------------------------------------------------


def write(folder: Path, seed: int, format: str, rows: int) -> Path:
    """A file of about so many rows; the same for the same seed."""
    rng = Random(f"{seed}/{format}")
    path, kind = folder / f"log-{format.replace('.', '-')}.{format}", format.lower().removesuffix(".gz")
    prefix = format.replace(".", "-")
    made = [row(rng, prefix, number) for number in range(rows)]
    if kind == "parquet":
        pq.write_table(_table(rng, made), path, row_group_size=rng.choice((7, 100, 10_000)))
        return path
    data = _csv(rng, made, "\t" if kind == "tsv" else ",") if kind in ("csv", "tsv") else _json(rng, made)
    if rng.random() < 0.3:
        data = b"\xef\xbb\xbf" + data
    if format.lower().endswith(".gz"):
        cut = rng.randrange(len(data))
        data = gzip.compress(data[:cut]) + gzip.compress(data[cut:])
    path.write_bytes(data)
    return path


def _json(rng: Random, rows: list[dict]) -> bytes:
    lines = []
    for made in rows:
        made |= {rng.choice(KEYS): value(rng) for _ in range(rng.randrange(4))}
        pairs = list(made.items())
        rng.shuffle(pairs)
        lines.append(_object(rng, pairs))
        if rng.random() < 0.08:
            lines.append(rng.choice(BROKEN_JSON))
        if rng.random() < 0.03:
            lines.append(b"")
    end = rng.choice((b"\n", b"\r\n"))
    return end.join(lines) + rng.choice((b"", b"\n", end + end))


def _object(rng: Random, pairs: list[tuple]) -> bytes:
    ascii_, blanks = rng.random() < 0.5, rng.choice(("", " ", "\t "))
    texts = []
    for key, one in pairs:
        text = json.dumps(one, ensure_ascii=ascii_, separators=rng.choice(((",", ":"), (", ", ": "))))
        if key in KEYS and rng.random() < 0.2:
            text = rng.choice(RAW_NUMBERS)
        name = json.dumps(key, ensure_ascii=ascii_)
        if rng.random() < 0.05:
            name = f'"\\u{ord(key[0]):04x}{name[2:]}' if key[0].isalpha() and key.isascii() else name
        texts.append(f"{blanks}{name}{blanks}:{blanks}{text}{blanks}")
        if rng.random() < 0.06:
            texts.append(f"{json.dumps(key)}:{json.dumps(value(rng) if key in KEYS else one)}")
    return f"{blanks}{{{','.join(texts)}}}{blanks}".encode()


def _csv(rng: Random, rows: list[dict], separator: str) -> bytes:
    names = ["event_id", "user_id", "note_id", "action", "event_time", "ingest_time", "dwell_ms", "request_id", "channel", "position"]
    names += rng.sample(KEYS, rng.randrange(4))
    rng.shuffle(names)
    end = rng.choice(("\n", "\r\n", "\r"))
    out = []
    for record in [dict(zip(names, names, strict=True)), *rows]:
        texts = []
        for name in names:
            one = record.get(name, value(rng) if name in KEYS else None)
            texts.append("" if one is None else one if isinstance(one, str) else json.dumps(one))
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=separator, lineterminator="", quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))).writerow(texts)
        out.append(text.getvalue().encode())
        if record is not rows[-1] and len(out) > 1 and rng.random() < 0.08:
            out.append(rng.choice(BROKEN_CSV).format(s=separator, n=end).encode("latin-1"))
    return end.encode().join(out) + rng.choice((b"", end.encode()))


FURTHER = {
    "title": (pa.string(), TEXTS), "device": (pa.dictionary(pa.int32(), pa.string()), TEXTS), "score": (pa.float64(), (0.5, float("nan"), float("inf"), None, 1e300)),
    "price": (pa.decimal128(20, 2), (decimal.Decimal("1.50"), None, decimal.Decimal("-99999999999999.99"))), "bin": (pa.binary(), (b"\xff\x00", b"", None)),
    "day": (pa.date32(), (dt.date(2026, 1, 5), None)), "tags": (pa.list_(pa.string()), (["a", 'b"'], [], None, [None])), "n": (pa.uint64(), (2**64 - 1, 0, None)),
    "more": (pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())}), ({"a": 1, "b": ["x"]}, None, {"a": None, "b": None})),
    "flag": (pa.bool_(), (True, False, None)), "wait": (pa.duration("ms"), (dt.timedelta(seconds=1), None)),
    "context": (pa.string(), ('{"k":1}', '{"title":"inner", "k":[1]}', "no object", None)), "nothing": (pa.null(), (None,)),
}  # fmt: skip
TYPES = {
    "event_id": (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())), "user_id": (pa.int64(), pa.float64(), pa.decimal128(20, 0), pa.string(), pa.uint64()),
    "note_id": (pa.int64(), pa.int32(), pa.float64(), pa.string()), "action": (pa.string(), pa.dictionary(pa.int8(), pa.string())),
    "event_time": (pa.int64(), pa.timestamp("us", "UTC"), pa.timestamp("ms", "+05:30"), pa.timestamp("ns", "Asia/Shanghai"), pa.string(), pa.timestamp("us")),
    "ingest_time": (pa.int64(), pa.timestamp("us", "UTC")), "dwell_ms": (pa.int32(), pa.int64(), pa.float64(), pa.string()),
    "request_id": (pa.string(),), "channel": (pa.string(), pa.dictionary(pa.int32(), pa.string())), "position": (pa.int16(), pa.int64(), pa.float64()),
}  # fmt: skip


def _table(rng: Random, rows: list[dict]) -> pa.Table:
    columns = {name: _column([made.get(name) for made in rows], rng.choice(kinds)) for name, kinds in TYPES.items()}
    for name in rng.sample(list(FURTHER), rng.randrange(1, 6)):
        kind, choices = FURTHER[name]
        columns[name] = pa.array([rng.choice(choices) for _ in rows], kind)
    names = list(columns)
    rng.shuffle(names)
    return pa.table({name: columns[name] for name in names})


def _column(values: list, kind: pa.DataType) -> pa.Array:
    return pa.array([_fitting(one, kind) for one in values], kind)


def _fitting(one, kind: pa.DataType):
    """The value in this type, null where it does not fit."""
    if isinstance(one, (list, dict)):
        return None
    try:
        if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return one if one is None or isinstance(one, str) else json.dumps(one)
        if isinstance(one, (str, bool)) or one is None:
            return None
        if pa.types.is_timestamp(kind):
            found = dt.datetime.fromtimestamp(one // 1_000_000, dt.UTC).replace(microsecond=int(one) % 1_000_000)
            found = found if kind.tz else found.replace(tzinfo=None)
            pa.scalar(found, kind)  # nanoseconds end in 2262
            return found
        if pa.types.is_decimal(kind):
            return pa.scalar(decimal.Decimal(int(one)), kind).as_py()
        return pa.scalar(float(one) if pa.types.is_floating(kind) else int(one), kind).as_py()
    except (pa.ArrowException, OverflowError, ValueError, OSError, TypeError):
        return None
