"""How large the next batch of the live labeler may be, after one that took more memory than allowed."""

from types import SimpleNamespace

import pytest

from assets.attribution.live import UNPACKED, _Live

MB = 2**20


@pytest.mark.parametrize(
    "row_bytes, peak, batch_bytes, expected",
    [
        (80 * MB, 2_000, 64 * MB, 80 * MB // UNPACKED // 2),  # a bomb: its rows count, not its kilobyte
        (0, 2_000, 64 * MB, 512),
        (400 * MB, 2_000, 64 * MB, 32 * MB),
        (80 * MB, 800, 8 * MB, 8 * MB),
        (80 * MB, 400, 8 * MB, 16 * MB),
        (80 * MB, 400, 64 * MB, 64 * MB),
    ],
)
def test_batches_become_smaller_by_what_they_held_and_greater_again(tmp_path, row_bytes, peak, batch_bytes, expected):
    (tmp_path / "a.parquet").write_bytes(b"x" * 1024)
    labeler = SimpleNamespace(
        store=SimpleNamespace(maps=SimpleNamespace(limit=1_000)), landing=tmp_path, batch_bytes=batch_bytes, most_bytes=64 * MB
    )
    _Live._within_memory(labeler, SimpleNamespace(files=("a.parquet",)), row_bytes, peak)
    assert labeler.batch_bytes == expected
