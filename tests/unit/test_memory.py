"""Arrays in mapped files: large ones only, room asked for at once, and the hash tables the same in them."""

import numpy as np
import pyarrow as pa
import pytest

from assets.attribution.memory import Maps, anonymous_bytes
from assets.attribution.resident import Resident
from tests.unit.test_resident import MINUTE, both_ways, columns

LIMIT = 8 * 64 * 1024


def in_a_file(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.base is not None


def test_only_large_arrays_lie_in_files(tmp_path):
    maps = Maps(tmp_path, LIMIT)
    small, large = maps.zeros(16), maps.zeros((9, 1024 * 1024))
    assert not in_a_file(small) and in_a_file(large)
    assert large.shape == (9, 1024 * 1024) and not large.any()
    large[8, -1] = 7
    assert large.sum() == 7
    assert not list(tmp_path.iterdir()), "the file has no name: it cannot outlive the process"


def test_a_large_array_does_not_count_as_memory(tmp_path):
    before = anonymous_bytes()
    if before is None:
        pytest.skip("this system does not tell memory apart")
    large = Maps(tmp_path, LIMIT).zeros(16 * 2**20)
    large[:] = 1
    assert anonymous_bytes() - before < large.nbytes // 4


def test_no_room_on_the_disk_is_an_error_at_once(tmp_path):
    with pytest.raises(OSError):
        Maps(tmp_path, LIMIT).zeros(2**58)


def test_a_damaged_file_is_an_error(tmp_path):
    maps, path = Maps(tmp_path), tmp_path / "one.arrow"
    table = pa.table({"a": np.arange(1000)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert maps.table(path).equals(table)
    for size in (path.stat().st_size // 2, 0):
        with path.open("r+b") as file:
            file.truncate(size)
        with pytest.raises(pa.ArrowInvalid):
            maps.table(path)
    with pytest.raises(FileNotFoundError):
        maps.table(tmp_path / "none.arrow")


def test_open_sessions_in_files_are_the_same(tmp_path):
    dice = np.random.default_rng(4)
    batches = []
    for number in range(12):
        rows = np.stack([dice.integers(0, 9000, 9000), dice.integers(0, 3, 9000),
                         dice.integers(2 * number, 2 * number + 2, 9000), dice.integers(0, 13, 9000)], axis=1)  # fmt: skip
        batches.append((columns([tuple(row) for row in rows.tolist()]), (number + 1) * MINUTE))
    table = both_ways(batches, Resident(Maps(tmp_path, LIMIT)))
    assert in_a_file(table.impressions.rows) and in_a_file(table.impressions.index)
