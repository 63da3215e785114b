"""Every file of events in ../shared/cases by every way in: the right value of each, written out. Skipped where the folder is not there.

Here: label, live and batch. Not here: the cases of clocks (test_clocks.py has their kinds, the two folders are here), of orders
(test_orders_values.py) and of the boards.
"""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash

from assets.attribution import live
from assets.events.intake import WHOLE_FILE, read_log
from assets.events.sources import SourceError
from tests.faults.ways import WAYS, by_batch, by_live, came

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
US = 1_767_600_000_000_000  # 2026-01-05T08:00:00Z, of most cases

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not here")]


def case(name):
    if not (CASES / name).exists():
        pytest.skip(f"the case {name} lies in ../shared/cases, which is not here")
    return CASES / name


def us(moment):
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def values(found, *names):
    """event_id -> the named columns of it; times in µs, `context` parsed."""
    rows = {}
    for id_, row in found.events.items():
        row = row | {"event_time": us(row["event_time"]), "context": json.loads(row["context"]) if row["context"] else None}
        rows[id_] = tuple(row[name] for name in names) if len(names) > 1 else row[names[0]]
    return rows


def reasons(found):
    return [(row, why) for row, why, _ in found.quarantine]


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_csv_stray_quotes(tmp_path, way):
    found = came(way, case("csv_stray_quotes.csv"), tmp_path)
    titles = ["plain", '5" screen', "red shoes", "blue bag", '7" tablet', "last"]
    assert values(found, "note_id", "context") == {f"e{n}": (n, {"title": title}) for n, title in enumerate(titles, start=1)}
    assert found.accounted and not found.quarantine


@pytest.mark.parametrize("way", WAYS)
def test_csv_unicode_linebreak(tmp_path, way):
    found = came(way, case("csv_unicode_linebreak.csv"), tmp_path)
    titles = ["a\u2028b", "a\x85b", "a\x0cb", "a\u2028b"]
    assert values(found, "context") == {f"e{n}": {"q": "x", "title": title} for n, title in enumerate(titles, start=1)}
    assert found.accounted and not found.quarantine


@pytest.mark.parametrize("way", WAYS)
def test_csv_header_newline(tmp_path, way):
    found = came(way, case("csv_header_newline.csv"), tmp_path)
    assert values(found, "user_id", "note_id", "event_time", "context") == {"e1": (1, 1, US, {"free\ntext": "x"})}
    assert found.accounted and not found.quarantine


@pytest.mark.parametrize("way", WAYS)
def test_csv_duplicate_header(tmp_path, way):
    path = case("csv_duplicate_header.csv")
    if way == "label":
        with pytest.raises(SourceError, match="csv_duplicate_header.csv: the header names column 'user_id' twice"):
            read_log([path])
        return
    found = came(way, path, tmp_path)
    ((row, reason, body),) = found.quarantine
    assert not found.events and row == WHOLE_FILE and "'user_id' twice" in reason and body == path.read_bytes()


@pytest.mark.parametrize("way", WAYS)
def test_csv_block_boundary(tmp_path, way):
    subprocess.run([sys.executable, case("csv_block_boundary.py")], cwd=tmp_path, check=True, capture_output=True)
    found = came(way, tmp_path / "big.csv", tmp_path)
    assert found.rows == len(found.events) == 27_804 and not found.quarantine and not found.repeats
    long = json.loads(found.events["e27000"]["context"])["comment"]
    assert long == "x" * 900 + "\n" + "x" * 900


@pytest.mark.parametrize("way", WAYS)
def test_duplicate_keys(tmp_path, way):
    found = came(way, case("duplicate_keys.jsonl"), tmp_path)
    assert values(found, "user_id", "action", "context") == {
        "e1": (2, "impression", None), "e2": (1, "click", None), "e3": (1, "impression", {"t": 2}),
    }  # fmt: skip
    assert found.accounted and not found.quarantine and found.repeated_keys == 3


@pytest.mark.parametrize("way", WAYS)
def test_float_ids(tmp_path, way):
    found = came(way, case("float_ids.jsonl"), tmp_path)
    assert values(found, "user_id", "note_id", "event_time") == {
        "e1": (1, 1, US), "e2": (1, 2, US), "e3": (1000, 3, US), "e6": (2**53 + 1, 2**63 - 1, US),
    }  # fmt: skip
    no_integer = "user_id: not an integer of 64 bits"
    assert reasons(found) == [(4, no_integer), (5, no_integer), (7, no_integer), (8, no_integer)]
    assert found.accounted


@pytest.mark.parametrize("way", WAYS)
def test_float_seconds(tmp_path, way):
    found = came(way, case("float_seconds.jsonl"), tmp_path, case("string_ids.toml"))
    keys = {found.originals["user", row["user_id"]] + found.originals["note", row["note_id"]]: us(row["event_time"]) for row in found.events.values()}
    assert keys == {"u1a": US + 123_000, "u1b": US + 1_000_000, "u2a": US + 2_000_000}
    assert found.accounted and not found.quarantine


@pytest.mark.parametrize("way", WAYS)
def test_lone_surrogate(tmp_path, way):
    path = case("lone_surrogate.jsonl")
    found = came(way, path, tmp_path)
    assert values(found, "context") == {"e2": {"title": "fine"}}
    half = "line: half a character (an escape \\ud800 to \\udfff without its other half)"
    assert found.quarantine == [(1, half, path.read_bytes().splitlines()[0])]
    assert found.accounted


@pytest.mark.parametrize("way", WAYS)
def test_nan(tmp_path, way):
    found = came(way, case("nan.jsonl"), tmp_path)
    scores = ["NaN", "Infinity", "-Infinity", 1.5]
    assert values(found, "note_id", "context") == {f"e{n}": (10 + n, {"score": score}) for n, score in enumerate(scores, start=1)}
    assert reasons(found) == [(5, "dwell_ms: not an integer of 64 bits (NaN)")] and found.accounted


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["ndjson_suffix.ndjson", "EVENTS.JSONL", "x.NDJSON"])
def test_ndjson_suffix(tmp_path, way, name):
    path = tmp_path / name
    path.write_bytes(case("ndjson_suffix.ndjson").read_bytes())
    found = came(way, path, tmp_path)
    expected = {f"e{n}": (n % 7, n, US + n * 1_000_000, "homefeed", {"device": ("android", "ios")[n % 2]}) for n in range(20)}
    expected |= {f"e{n}": (n % 7, n, US + (3500 + n) * 1_000_000, "homefeed", {"device": ("android", "ios")[n % 2]}) for n in range(100, 105)}
    assert values(found, "user_id", "note_id", "event_time", "channel", "context") == expected
    assert found.accounted and not found.quarantine


@pytest.mark.parametrize("way", WAYS)
def test_nested_device(tmp_path, way):
    found = came(way, case("nested_device.jsonl"), tmp_path)
    nested = {"utm": {"device": "tv", "src": "x"}, "device": "ios"}
    assert values(found, "context") == {**{f"n{n}": nested for n in range(20)}, **{f"m{n}": {"device": 3} for n in range(5)}}
    assert found.accounted and not found.quarantine


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["odd_channels.jsonl", "python_json_dumps.jsonl"])
def test_columns_are_what_python_reads(tmp_path, way, name):
    path = case(name)
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    further = [{name: value for name, value in row.items() if name in ("device", "author_id")} or None for row in rows]
    expected = {row["event_id"]: (row.get("channel"), row["event_time"], more) for row, more in zip(rows, further, strict=True)}
    found = came(way, path, tmp_path)
    assert values(found, "channel", "event_time", "context") == expected and found.accounted and not found.quarantine


# --- Parquet ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_parquet_decimal_id(tmp_path, way):
    found = came(way, case("parquet_decimal_id.parquet"), tmp_path)
    assert values(found, "user_id", "note_id", "event_time") == {"e0": (12_345_678_901_234_567, 0, US), "e1": (7, 1, US + 1)}
    assert found.accounted and not found.quarantine


@pytest.mark.parametrize("way", WAYS)
def test_parquet_fixed_offset(tmp_path, way):
    found = came(way, case("parquet_fixed_offset.parquet"), tmp_path)
    assert values(found, "user_id", "event_time") == {"e1": (1, US)}  # 13:30+05:30
    assert found.accounted and not found.quarantine


@pytest.mark.parametrize("way", WAYS)
def test_parquet_float_string_id(tmp_path, way):
    found = came(way, case("parquet_float_string_id.parquet"), tmp_path, case("string_ids.toml"))
    users = {found.originals["user", row["user_id"]]: (row["action"], found.originals["note", row["note_id"]]) for row in found.events.values()}
    assert users == {"5.0": ("impression", "a"), "7.0": ("click", "c")}
    assert found.originals == {(kind, key_of(text)): text for kind, text in
                               [("user", "5.0"), ("user", "7.0"), ("note", "a"), ("note", "b"), ("note", "c")]}  # fmt: skip
    assert reasons(found) == [(2, "user_id: missing")] and found.accounted


def key_of(text):
    key = xxhash.xxh64_intdigest(text)
    return key - 2**64 if key >= 2**63 else key


# --- clocks -----------------------------------------------------------------------------------------------------------


def landed(home, *paths):
    (home / "landing").mkdir(exist_ok=True)
    for path in paths:
        (home / "landing" / path.name).write_bytes(path.read_bytes())


def test_fast_clock(tmp_path):
    """One phone is 290 s ahead: nobody else's events become late."""
    files = sorted(case("fast_clock").iterdir())
    landed(tmp_path, *files)
    found = by_live(tmp_path)
    late = live.Lake(str(tmp_path / "lake")).read("late_events").num_rows
    assert (found.rows, len(found.events), len(found.quarantine), late) == (3010, 3010, 0, 0)
    (tmp_path / "batch").mkdir()
    landed(tmp_path / "batch", *files)
    assert by_batch(tmp_path / "batch").events.keys() == found.events.keys()


def test_future_clock(tmp_path):
    """An event of 2096 in the live line is refused and makes nobody late, also in the next batch."""
    files = sorted(case("future_clock").iterdir())
    landed(tmp_path, *files[:4])
    first = by_live(tmp_path)
    assert [(row, why.split(":")[0], "wrong clock" in why) for row, why, _ in first.quarantine] == [(1, "event_time", True)]
    landed(tmp_path, files[4])
    found = by_live(tmp_path)
    assert len(found.events) == len(first.events) + 100 and live.Lake(str(tmp_path / "lake")).read("late_events").num_rows == 0
    assert found.accounted
