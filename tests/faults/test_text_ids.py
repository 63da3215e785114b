"""Text ids of any type, by every way: their originals are in id_keys, and two of them are two users."""

import datetime as dt
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from tests.faults.ways import US, WAYS, came

pytestmark = pytest.mark.slow

MAPPING = (
    '[user]\ncolumn = "u"\nids = "string"\n[item]\ncolumn = "i"\nids = "string"\n[time]\ncolumn = "t"\n[event_id]\ncolumn = "e"\n'
    '[action]\ncolumn = "a"\n[action.values]\nv = "impression"\n'
)
MOMENT = dt.datetime(2026, 1, 5, 10, 0, 0, 120_000, dt.UTC)
FLOATS = ["5.0", "5.5", "9007199254740992.0", "-0.0", "0.0"]

# name -> (column, each id as text; None: no id)
COLUMNS = {
    "text": (pa.array(["5", "5.0", "05", " 5", "5 ", "ü", "Ü", "", None, "NaN", "a\0b"]), ["5", "5.0", "05", " 5", "5 ", "ü", "Ü", None, None, "NaN", "a\0b"]),
    "large text": (pa.array(["x", "X"], pa.large_string()), ["x", "X"]),
    "text in a view": (pa.array(["x", "a text that is longer than a view holds"], pa.string_view()), ["x", "a text that is longer than a view holds"]),
    "dictionary": (pa.array(["x", "y", "x", None]).dictionary_encode(), ["x", "y", "x", None]),
    "int64": (pa.array([5, -5, 2**63 - 1, -(2**63), None]), ["5", "-5", str(2**63 - 1), str(-(2**63)), None]),
    "uint64": (pa.array([5, 2**64 - 1, 2**64 - 2], pa.uint64()), ["5", str(2**64 - 1), str(2**64 - 2)]),
    "float": (pa.array([float(text) for text in FLOATS] + [None]), [*FLOATS, None]),
    "decimal": (pa.array([decimal.Decimal("5"), decimal.Decimal("12345678901234567890")], pa.decimal128(20, 0)), ["5", "12345678901234567890"]),
    "truth": (pa.array([True, False]), ["true", "false"]),
    "date": (pa.array([dt.date(2026, 1, 5)]), ["2026-01-05"]),
    "binary": (pa.array([b"\xff\x00", b"x"], pa.binary()), ["/wA=", "eA=="]),
    **{f"time in {unit}": (pa.array([MOMENT.replace(microsecond=0) if unit == "s" else MOMENT]).cast(pa.timestamp(unit, "UTC"), safe=False),
                           ["2026-01-05T10:00:00Z" if unit == "s" else "2026-01-05T10:00:00.120Z"]) for unit in ("s", "ms", "us", "ns")},
}  # fmt: skip


def key_of(text):
    key = xxhash.xxh64_intdigest(text)
    return key - 2**64 if key >= 2**63 else key


def read(way, path, folder):
    (folder / "m.toml").write_text(MAPPING)
    return came(way, path, folder, folder / "m.toml")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", COLUMNS)
def test_of_every_type_of_parquet_the_originals_are_kept_and_apart(tmp_path, way, name):
    column, ids = COLUMNS[name]
    rows = len(column)
    table = pa.table({
        "e": [f"e{n}" for n in range(rows)], "u": column, "i": column, "t": [US + n for n in range(rows)], "a": ["v"] * rows,
    })  # fmt: skip
    pq.write_table(table, tmp_path / "log.parquet")
    found = read(way, tmp_path / "log.parquet", tmp_path)
    there = {f"e{n}": id_ for n, id_ in enumerate(ids) if id_ is not None}
    assert {id_: found.originals["user", row["user_id"]] for id_, row in found.events.items()} == there
    assert {id_: found.originals["note", row["note_id"]] for id_, row in found.events.items()} == there
    assert found.originals == {(kind, key_of(text)): text for kind in ("user", "note") for text in there.values()}
    assert [why for _, why, _ in found.quarantine] == ["user_id: missing"] * (rows - len(there))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_of_text_files_too(tmp_path, way, suffix):
    texts = ["5", "5.0", "05", "1e3", "1000", "ü", '"', "a,b", "x" * 500, "😀", "null", "[1]"]
    path = tmp_path / f"log.{suffix}"
    if suffix == "jsonl":
        bodies = [json.dumps(text) for text in texts] + ["5e0", "5.00", "9007199254740993", "9007199254740993.0", "12345678901234567890123", "true"]
        path.write_text("".join(f'{{"e":"e{n}","u":{body},"i":{body},"t":{US + n},"a":"v"}}\n' for n, body in enumerate(bodies)))
        texts += bodies[len(texts) :]
    else:
        quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
        path.write_text("e,u,i,t,a\n" + "".join(f"e{n},{text},{text},{US + n},v\n" for n, text in enumerate(quoted)))
    found = read(way, path, tmp_path)
    assert {id_: found.originals["user", row["user_id"]] for id_, row in found.events.items()} == {f"e{n}": text for n, text in enumerate(texts)}
    assert len(found.originals) == 2 * len(texts) and not found.quarantine
