"""The kernels that read bytes: which rows are UTF-8, held against Python's decoder."""

import itertools
import random

import numpy as np
import pytest

from assets.events.json_lines import is_text, not_utf8

# Where the ranges of table 3-7 of the Unicode standard begin and end.
EDGES = [0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]


def some_rows():
    dice = random.Random(1)
    rows = [bytes(row) for size in range(4) for row in itertools.product(EDGES, repeat=size)]
    rows += [bytes(row) for row in itertools.product([0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5], EDGES, EDGES, [0x7F, 0x80, 0xBF, 0xC0])]
    return rows + [bytes(dice.choices(EDGES, k=dice.randint(4, 9))) for _ in range(20_000)]


@pytest.mark.parametrize("between", [b"", b"\n", b"\r\n"])
def test_a_row_is_utf8_where_python_decodes_it(between):
    rows = some_rows()
    ends = np.cumsum([len(row) + len(between) for row in rows]) - len(between)
    starts = ends - [len(row) for row in rows]
    data = np.frombuffer(between.join(rows), np.uint8)
    assert not_utf8(data, starts.astype(np.int64), ends.astype(np.int64)).tolist() == [not is_text(row) for row in rows]


def test_no_rows_and_plain_ascii():
    none = np.zeros(0, np.int64)
    assert not_utf8(np.zeros(1, np.uint8), none, none).tolist() == []
    assert not_utf8(np.frombuffer(b"ab", np.uint8), np.array([0, 1, 1]), np.array([1, 1, 2])).tolist() == [False] * 3
