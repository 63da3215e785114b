"""Which events were there before: the live labeler's memory of event ids.

Here: ids of events at or above the watermark, hashed; a repeat that is older is looked up where its event lies (live.py).
Not here: what counts as a repeat (docs/attribution.md).

The memory is a few generations of hash tables. A generation is filled until it holds GENERATION_IDS, and dropped whole
once the watermark has passed everything in it: so memory is bounded by the events of the delay and a generation.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import polars as pl

from assets.attribution.fold import NONE

GENERATION_IDS = 1 << 18
_BYTES_A_SLOT = 16


class _Generation:
    def __init__(self, ids: int):
        size = 1 << int(max(2 * ids, 1024) - 1).bit_length()
        self.hashes, self.places = np.zeros(size, np.uint64), np.empty(size, np.int64)
        self.size, self.greatest = 0, NONE


class Repeats:
    """Ids that arrived, by hash; `place` is a number under which `ids_at` finds the id itself again.

    Two ids with one hash are told apart by the ids themselves, so the answer is exact.
    """

    def __init__(self) -> None:
        self.generations: list[_Generation] = []
        self.apart: set[str] = set()  # ids whose hash was taken, by another id or by one that is gone: practically none

    def find(
        self, ids: pl.Series, times: np.ndarray, places: np.ndarray, ids_at: Callable[[np.ndarray], list[str | None]]
    ) -> np.ndarray:
        """Mark (bool[n]) the ids that were there before, in this call too; remember the others.

        ids in order of arrival. times: int64[n] event_time, by which the memory is dropped later. places: int64[n].
        """
        if not len(ids):
            return np.zeros(0, bool)
        hashes = ids.hash(0).to_numpy() | np.uint64(1)
        found = np.full(len(ids), -1, np.int64)
        last = self._with_room(len(ids))
        for generation in self.generations[:-1]:
            _probe(generation.hashes, generation.places, hashes, found)
        _probe_and_insert(last.hashes, last.places, hashes, places, found)
        last.size += len(ids)
        last.greatest = max(last.greatest, int(times.max()))
        return self._settled(ids, found, ids_at)

    def _with_room(self, more: int) -> _Generation:
        """The generation that takes new ids: the last one, grown while it is small, or a new one."""
        last = self.generations[-1] if self.generations else None
        if last and 2 * (last.size + more) <= last.hashes.size:
            return last
        fresh = _Generation(max(GENERATION_IDS, more))
        if last and last.size < GENERATION_IDS:
            fresh = _Generation(max(GENERATION_IDS, 2 * (last.size + more)))
            _copy(last.hashes, last.places, fresh.hashes, fresh.places)
            fresh.size, fresh.greatest = last.size, last.greatest
            self.generations.pop()
        self.generations.append(fresh)
        return fresh

    def _settled(self, ids: pl.Series, found: np.ndarray, ids_at) -> np.ndarray:
        """Look at the ids themselves wherever a hash was there before (None: that one is gone by now)."""
        hits = np.flatnonzero(found >= 0)
        again = np.zeros(found.size, bool)
        if hits.size:
            for row, mine, theirs in zip(hits, ids.gather(hits).to_list(), ids_at(found[hits]), strict=True):
                if mine == theirs or mine in self.apart:
                    again[row] = True
                else:
                    self.apart.add(mine)
        return again

    def forget(self, before: int) -> None:
        """Drop what holds no event with event_time >= before."""
        self.generations = [one for one in self.generations if one.greatest >= before]

    @property
    def bytes(self) -> int:
        return sum(one.hashes.size * _BYTES_A_SLOT for one in self.generations)


@numba.njit(cache=True, nogil=True)
def _probe(table, places, hashes, found):
    mask = table.size - 1
    for i in range(hashes.size):
        if found[i] >= 0:
            continue
        at = np.int64(hashes[i] >> np.uint64(1)) & mask
        while table[at]:
            if table[at] == hashes[i]:
                found[i] = places[at]
                break
            at = (at + 1) & mask


@numba.njit(cache=True, nogil=True)
def _probe_and_insert(table, places, hashes, new_places, found):
    mask = table.size - 1
    for i in range(hashes.size):
        if found[i] >= 0:
            continue
        at = np.int64(hashes[i] >> np.uint64(1)) & mask
        while table[at] and table[at] != hashes[i]:
            at = (at + 1) & mask
        if table[at]:
            found[i] = places[at]
        else:
            table[at], places[at] = hashes[i], new_places[i]


@numba.njit(cache=True, nogil=True)
def _copy(table, places, new_table, new_places):
    mask = new_table.size - 1
    for k in range(table.size):
        if table[k]:
            at = np.int64(table[k] >> np.uint64(1)) & mask
            while new_table[at]:
                at = (at + 1) & mask
            new_table[at], new_places[at] = table[k], places[k]


def warm_up() -> None:
    """Compile into numba's cache on disk."""
    memory = Repeats()
    ids = pl.Series(["a", "b"])
    for _ in range(2):
        memory.find(ids, np.zeros(2, np.int64), np.arange(2), lambda rows: ids.gather(rows).to_list())
        memory.generations.insert(0, _Generation(1))
    _copy(*(np.zeros(2, kind) for kind in (np.uint64, np.int64, np.uint64, np.int64)))
