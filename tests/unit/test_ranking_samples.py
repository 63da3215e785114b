"""Delta to batches: the split by time, every row once, shares of processes, the version read, errors."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from ranking_world import SAMPLES, START, draw, plant, window

from assets.lake import Lake, Window
from assets.ranking import samples
from assets.ranking.config import RankerConfig, RankerError

ROWS, HOURS = 3000, 5
CONFIG = RankerConfig(batch=128, min_steps=1, shuffle_rows=500)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    return lake, plant(lake, ROWS, HOURS)


def read(lake, config=CONFIG, epoch=0, rank=0, start=0):
    where = samples.split(lake, window(HOURS), config)
    schema, _ = samples.fit_schema(where, config)
    return where, list(samples.training_batches(where, schema, config, epoch, rank, start))


def keys(batches):
    """A multiset of rows: ids, inputs and labels, padding left out."""
    rows = np.concatenate([np.concatenate([b.ids, b.dense, b.labels], axis=1)[b.weights[:, 0] > 0] for b in batches])
    return sorted(map(tuple, rows))


def test_newest_fifth_is_held_out(planted):
    lake, table = planted
    where = samples.split(lake, window(HOURS), CONFIG)
    times = table["session_start"].to_pylist()
    assert where.train_rows == sum(t < where.cutoff for t in times) and where.train_rows + where.holdout_rows == ROWS
    assert abs(where.holdout_rows / ROWS - 0.2) < 0.02
    held = pa.concat_tables(samples.held_out(where, ["session_start", "user_id"], 10**6))
    assert len(held) == where.holdout_rows and min(held["session_start"].to_pylist()) >= where.cutoff


def test_every_training_row_once_in_equal_batches(planted):
    lake, _ = planted
    where, batches = read(lake)
    assert len(batches) == samples.steps(where.train_rows, 128, 1) and {len(b.ids) for b in batches} == {128}
    assert len(keys(batches)) == where.train_rows
    assert keys(batches) == keys(read(lake, RankerConfig(batch=512, min_steps=1))[1])


def test_same_seed_same_order_other_epoch_other_order(planted):
    lake, _ = planted
    first, same, other = (read(lake, epoch=epoch)[1] for epoch in (0, 0, 1))
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(first, same, strict=True))
    assert not np.array_equal(first[0].ids, other[0].ids) and keys(first) == keys(other)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_reading_on_from_any_step_gives_the_batches_that_were_to_come(planted, processes):
    lake, _ = planted
    config = RankerConfig(batch=128, min_steps=1, shuffle_rows=500 * processes, processes=processes)
    for rank in range(processes):
        _, whole = read(lake, config, epoch=1, rank=rank)
        for start in range(len(whole) + 1):
            _, rest = read(lake, config, epoch=1, rank=rank, start=start)
            assert len(rest) == len(whole) - start
            assert all(np.array_equal(x, y) for a, b in zip(rest, whole[start:], strict=True) for x, y in zip(a, b))


def test_without_a_holdout_all_rows_train(planted):
    lake, _ = planted
    where = samples.split(lake, window(HOURS), RankerConfig(holdout=0))
    assert (where.train_rows, where.holdout_rows, where.cutoff) == (ROWS, 0, window(HOURS).end)
    assert list(samples.held_out(where, ["user_id"], 10)) == [] or sum(map(len, samples.held_out(where, ["user_id"], 10))) == 0


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_share_all_rows_and_take_equally_many_steps(planted, processes):
    lake, _ = planted
    config = RankerConfig(batch=128, min_steps=1, shuffle_rows=500, processes=processes)
    parts = [read(lake, config, rank=rank)[1] for rank in range(processes)]
    assert len({len(part) for part in parts}) == 1
    assert sorted(k for part in parts for k in keys(part)) == keys(read(lake)[1])


def test_a_version_is_read_though_the_table_moves_on(tmp_path):
    lake = Lake(str(tmp_path))
    plant(lake, 400, 2)
    before = lake.version("training_samples")
    plant(lake, 900, 2, seed=2)
    where = samples.split(lake, window(2), CONFIG, version=before)
    schema, _ = samples.fit_schema(where, CONFIG)
    assert where.train_rows + where.holdout_rows == 400
    assert len(keys(samples.training_batches(where, schema, CONFIG))) == where.train_rows


def test_a_window_reads_its_hours_only(planted):
    lake, table = planted
    part = Window(START + dt.timedelta(hours=1), START + dt.timedelta(hours=3))
    where = samples.split(lake, part, CONFIG)
    inside = sum(part.start <= t < part.end for t in table["session_start"].to_pylist())
    assert where.train_rows + where.holdout_rows == inside


def test_an_even_sample_of_a_large_holdout(planted):
    lake, _ = planted
    where = samples.split(lake, window(HOURS), CONFIG)
    held = pa.concat_tables(samples.held_out(where, ["session_start"], 100))
    assert 80 <= len(held) <= 100


def test_missing_empty_and_unsplittable_tables_say_what_to_do(tmp_path):
    lake = Lake(str(tmp_path))
    with pytest.raises(RankerError, match="training_samples.*materialize"):
        samples.split(lake, window(1), CONFIG)
    lake.create(SAMPLES)
    with pytest.raises(RankerError, match="no rows.*materialize"):
        samples.split(lake, window(1), CONFIG)
    one, _ = draw(5, 1)
    lake.replace_window(SAMPLES, one.slice(0, 1), window(1))
    with pytest.raises(RankerError, match="one minute.*widen"):
        samples.split(lake, window(1), CONFIG)


def test_small_logs_get_small_batches():
    config = RankerConfig(batch=1024, min_steps=200)
    assert samples.batch_size(10**6, config) == 1024 and samples.batch_size(33_000, config) == 128
    assert samples.batch_size(10, config) == 64


def test_prefetching_passes_on_items_and_errors():
    def broken():
        yield 1
        raise ValueError("planted")

    assert list(samples.prefetched(iter(range(50)), ahead=2)) == list(range(50))
    with pytest.raises(ValueError, match="planted"):
        list(samples.prefetched(broken()))
    endless = samples.prefetched(iter(range(10**9)), ahead=2)
    next(endless)
    endless.close()  # returns: the thread ends
