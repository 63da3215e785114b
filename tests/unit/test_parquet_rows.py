"""Parquet files: small ones are read by polars and others by Arrow, and both give the same rows, columns and original bytes."""

import datetime as dt
import json
import random

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.events import intake, parquet_rows, sources
from assets.events.context import typed
from assets.events.contract import TYPED_NAMES

NOON = dt.datetime(2026, 1, 5, 12, tzinfo=dt.UTC)
TEXTS = ["ios", "", "NaN", "Infinity", "é\U0001f600", 'a"b\\', "\n", "0" * 40, None, " ", "null"]


def table(dice, rows, **columns):
    """A log of `rows` events, with some further columns or other types in place of the usual ones."""
    usual = {
        "event_id": pa.array([f"e{n}" for n in range(rows)]),
        "user_id": pa.array([dice.randrange(1000) for _ in range(rows)], pa.int32()),
        "note_id": pa.array([dice.choice([1, 2**62, -5]) for _ in range(rows)]),
        "action": pa.array([dice.choice(["impression", "click", "no action"]) for _ in range(rows)]),
        "event_time": pa.array([NOON] * rows, pa.timestamp("us", "UTC")),
    }
    return pa.table({name: column for name, column in (usual | columns).items() if column is not None})


def texts(dice, rows, kind=None):
    return pa.array([dice.choice(TEXTS) for _ in range(rows)], kind or pa.string())


SHAPES = {
    "plain": lambda dice, n: {},
    "typed": lambda dice, n: {name: texts(dice, n) for name in TYPED_NAMES if name != "author_id"}
    | {"author_id": pa.array([dice.choice([None, 7, -(2**63)]) for _ in range(n)], pa.int64())},
    "typed of odd types": lambda dice, n: {
        "device": pa.array(range(n), pa.int16()), "author_id": pa.array([f"user {i % 3}" for i in range(n)]),
        "topic": pa.array([i % 2 == 0 for i in range(n)]), "app_version": pa.array([1.5] * n), "device_id": pa.nulls(n),
    },
    "typed, ids beyond int64": lambda dice, n: {"author_id": pa.array([2**63 + i for i in range(n)], pa.uint64()), "device": texts(dice, n)},
    "small numbers": lambda dice, n: {
        "dwell_ms": pa.nulls(n, pa.uint8()), "position": pa.array([i % 100 for i in range(n)], pa.int8()), "n": pa.array([2**64 - 1] * n, pa.uint64()),
        "yes": pa.array([None, True, False][: n % 3 + 1] * n, pa.bool_())[:n], "long": texts(dice, n, pa.large_string()),
    },
    "times": lambda dice, n: {
        "event_time": pa.array([(NOON.timestamp() + i) * 1e9 for i in range(n)], pa.float64()).cast(pa.int64()).cast(pa.timestamp("ns", "UTC")),
        "ingest_time": pa.array([NOON] * n, pa.timestamp("ms", "UTC")), "seen": pa.array([-(2**62)] * n, pa.timestamp("ms", "UTC")),
    },
    "a context": lambda dice, n: {"context": pa.array(['{"device":"ios","author_id":"x"}'] * n)},
    "a context and nulls": lambda dice, n: {"context": pa.array(['{"device": "ios"}', None] * n)[:n]},
    "a context that is none": lambda dice, n: {"context": pa.array(["not an object"] * n)},
    "a column is missing": lambda dice, n: {"request_id": None},
}  # fmt: skip


def read(path, monkeypatch, by_arrow):
    with monkeypatch.context() as patch:
        if by_arrow:
            patch.setattr(parquet_rows, "_small", lambda *_: None)
        return intake.read_log([path])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [1, 3, 400])
def test_both_readers_give_the_same(tmp_path, monkeypatch, shape, rows):
    dice = random.Random(f"{shape}{rows}")
    path = tmp_path / "a.parquet"
    pq.write_table(table(dice, rows, **SHAPES[shape](dice, rows)), path, row_group_size=dice.choice([rows, 7]))
    by_polars, by_arrow = read(path, monkeypatch, False), read(path, monkeypatch, True)
    assert by_polars.events.equals(by_arrow.events)
    assert by_polars.quarantine.equals(by_arrow.quarantine)
    assert by_polars.rows == rows == by_arrow.events.num_rows + by_arrow.quarantine.num_rows + by_arrow.repeats
    contexts = pl.from_arrow(by_polars.events["context"])
    assert pl.from_arrow(by_polars.events.select(TYPED_NAMES)).equals(typed(contexts), null_equal=True), "as the context says"
    broken = zip(by_polars.quarantine["row"].to_pylist(), by_polars.quarantine["body"].to_pylist(), strict=True)
    assert all(json.loads(body)["event_id"] == f"e{row - 1}" for row, body in broken)


def lines(path, after):
    form = intake.Native()
    blocks = list(sources.read_blocks(path, form.layout(path), form.wanted, after))
    return [line for block in blocks for line in block.body(None)], [n for block in blocks for n in block.number]


@pytest.mark.parametrize("after", [0, 1, 39, 40, 90])
def test_a_file_is_read_on_after_a_row(tmp_path, monkeypatch, after):
    path = tmp_path / "a.parquet"
    pq.write_table(table(random.Random(1), 40), path)
    body, number = lines(path, after)
    assert number == list(range(after + 1, 41))
    monkeypatch.setattr(parquet_rows, "_small", lambda *_: None)
    assert lines(path, after) == (body, number)


def test_only_the_masked_rows_are_written(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(table(random.Random(1), 40), path)
    (rows,) = parquet_rows.rows(path)
    mask = pl.Series([n % 7 == 0 for n in range(40)])
    written = rows.lines.filter(mask).to_list()
    (again,) = parquet_rows.rows(path)
    sizes = []
    encoded = parquet_rows._encoded
    monkeypatch.setattr(parquet_rows, "_encoded", lambda frame: (sizes.append(len(frame)), encoded(frame))[1])
    assert again.lines_of(mask).to_list() == written
    assert sizes == [6]


@pytest.mark.parametrize("columns", [300, 1000])
def test_many_columns_of_nothing_are_read_in_small_steps(tmp_path, columns):
    path = tmp_path / "a.parquet"
    wide = {f"c{n}": pa.nulls(20_000, pa.int64()) for n in range(columns)}
    pq.write_table(table(random.Random(1), 20_000, **wide), path)
    sizes = [piece.size for piece in parquet_rows.rows(path)]
    assert sum(sizes) == 20_000 and max(sizes) * 16 * columns <= parquet_rows.STEP_BYTES


def test_few_bytes_that_unpack_to_many_are_not_for_polars(tmp_path):
    path = tmp_path / "a.parquet"
    bomb = pa.array(["x" * 100_000] * 1000).dictionary_encode()
    pq.write_table(table(random.Random(1), 1000, long=bomb.cast(pa.string())), path, row_group_size=1000)
    assert path.stat().st_size < 10**6
    pieces = list(parquet_rows.rows(path))
    assert len(pieces) > 5 and sum(piece.size for piece in pieces) == 1000
    assert max(piece.size for piece in pieces) * 100_000 <= 2 * parquet_rows.STEP_BYTES
