"""The memory of ids: exact, also where hashes collide and where what they stood for is gone."""

import numpy as np
import polars as pl
import pytest

from assets.attribution import repeats
from assets.attribution.repeats import Repeats


class Ids:
    """Ids by place, as segments keep them."""

    def __init__(self):
        self.kept: dict[int, str] = {}

    def find(self, memory, ids, minute=0):
        places = len(self.kept) + np.arange(len(ids))
        self.kept.update(zip(places.tolist(), ids, strict=True))
        return memory.find(
            pl.Series(ids, dtype=pl.String), np.full(len(ids), minute), places, lambda at: [self.kept.get(p) for p in at.tolist()]
        ).tolist()  # fmt: skip


def test_repeats_in_a_batch_and_across_batches_are_found():
    memory, ids = Repeats(), Ids()
    assert ids.find(memory, ["a", "b", "a", "c"]) == [False, False, True, False]
    assert ids.find(memory, ["d", "b", "d"]) == [False, True, True]
    assert ids.find(memory, []) == []


def test_it_agrees_with_a_set_through_many_generations(monkeypatch):
    monkeypatch.setattr(repeats, "GENERATION_IDS", 700)
    memory, ids, seen, dice = Repeats(), Ids(), set(), np.random.default_rng(3)
    for minute in range(40):
        batch = [f"e{number}" for number in dice.integers(0, 9000, 400)]
        known = []
        for one in batch:
            known.append(one in seen)
            seen.add(one)
        assert ids.find(memory, batch, minute) == known
    assert len(memory.generations) > 3


def test_memory_is_bounded_by_what_the_watermark_has_not_passed(monkeypatch):
    monkeypatch.setattr(repeats, "GENERATION_IDS", 1000)
    memory, ids, sizes = Repeats(), Ids(), []
    for minute in range(60):
        ids.find(memory, [f"{minute}-{i}" for i in range(500)], minute)
        memory.forget(minute - 2)
        sizes.append(memory.bytes)
    assert max(sizes[10:]) == max(sizes[40:]) and len(memory.generations) <= 4
    assert ids.find(memory, ["59-1", "0-1"], 60) == [True, False], "what is forgotten is looked up elsewhere"


def test_ids_with_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(pl.Series, "hash", lambda self, seed: pl.Series([7] * len(self), dtype=pl.UInt64))
    memory, ids = Repeats(), Ids()
    assert ids.find(memory, ["a", "b", "c", "b", "a"]) == [False, False, False, True, True]
    assert ids.find(memory, ["c", "d"]) == [True, False]


def test_an_id_whose_place_is_gone_is_not_taken_for_known_but_its_own_repeat_is():
    memory, ids = Repeats(), Ids()
    ids.find(memory, ["a"])
    ids.kept[0] = None
    assert ids.find(memory, ["a", "a"]) == [False, True]


@pytest.fixture(scope="module", autouse=True)
def compiled():
    repeats.warm_up()
