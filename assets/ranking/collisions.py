"""Collision-free embeddings: which id has which row of a table, admitted when seen often enough, evicted when others need it.

Here: the map of ids to rows, its rules, its file. Not here: what an id is (features.py), the rows' weights (checkpoint.py resets
those of an evicted id), the order of the samples (samples.py).

Hashing lets ids share rows. With `collisions = "managed"` an id of MANAGED has a row alone, or row 0 (not known) as long as it
has none: until it was displayed `admit_after` times, or while all rows belong to ids that are worth more. The map stands in front of
the tables and is moved on once a chunk of samples, by the ids of all processes' samples in the common order: each process
computes the same map, and none asks another. Lists are looked up and admit nothing.

Why not TorchRec's managed collision modules: docs/ranker_collisions.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

import numba
import numpy as np

from assets.ranking.config import RankerConfig, RankerError

MANAGED = ("user_id", "note_id", "author_id", "user_topic")
FILE = "ids.npz"
NO_MARK = (-1, -1)
FILTER_MAX = 255  # of a cell of the admission filter, one byte


@dataclass
class IdMap:
    """The rows 1 .. rows - 1 of one table and the ids that own them; row 0 belongs to nobody.

    keys: uint64 [rows], the id (mixed) of a row. hits: int64 [rows], displays since it was admitted. last: int64 [rows], `clock`
    of its last display. used: rows 1 .. used are owned. clock: displays observed. slots: int32 [a power of two], open
    addressing with linear probing: row of the key that hashes there, 0 if none. seen: uint8 [2, cells], how often an id without a
    row was displayed, a count-min sketch (Cormode, Muthukrishnan 2005): too high at worst, until it is halved now and then so that
    ids which never come back leave it. added: displays in it. admitted, evicted: counts since the beginning.
    """

    keys: np.ndarray
    hits: np.ndarray
    last: np.ndarray
    slots: np.ndarray
    seen: np.ndarray
    used: int = 0
    clock: int = 0
    added: int = 0
    admitted: int = 0
    evicted: int = 0

    @classmethod
    def empty(cls, rows: int) -> IdMap:
        return cls(
            np.zeros(rows, np.uint64), np.zeros(rows, np.int64), np.zeros(rows, np.int64),
            np.zeros(_power_of_two(2 * rows), np.int32), np.zeros((2, _power_of_two(2 * rows)), np.uint8),
        )  # fmt: skip

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in (self.keys, self.hits, self.last, self.slots, self.seen))

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """int64 [n]: the row of each key, 0 for one without."""
        return _looked_up(self.slots, self.keys, np.ascontiguousarray(keys))

    def observe(self, keys: np.ndarray, admit_after: int, evict: str) -> np.ndarray:
        """Move the map on by displays of these keys, uint64 [n]; returns the rows that changed their owner, int64."""
        keys, counts = np.unique(keys, return_counts=True)
        self.clock += int(counts.sum())
        rows = self.rows(keys)
        known = rows > 0
        self.hits[rows[known]] += counts[known]
        self.last[rows[known]] = self.clock
        keys, counts = keys[~known], counts[~known]
        total = self._count(keys, counts)
        enough = total >= admit_after
        keys, total = keys[enough], total[enough]
        order = np.lexsort((keys, -total))
        keys, total = keys[order], total[order]
        free = min(len(keys), len(self.keys) - 1 - self.used)
        self._take(np.arange(self.used + 1, self.used + 1 + free), keys[:free], total[:free])
        self.used += free
        return self._evict(keys[free:], total[free:], evict)

    def _count(self, keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Displays so far of keys without a row, these included."""
        if self.added > 8 * len(self.keys):  # else it would fill up with ids that never come back
            self.seen >>= 1
            self.added //= 2
        self.added += int(counts.sum())
        return _counted(self.seen, keys, counts)

    def _take(self, rows: np.ndarray, keys: np.ndarray, total: np.ndarray) -> None:
        self.keys[rows], self.hits[rows], self.last[rows] = keys, total, self.clock
        self.admitted += len(rows)
        _put_in(self.slots, self.keys, rows)

    def _evict(self, keys: np.ndarray, total: np.ndarray, evict: str) -> np.ndarray:
        """Give rows to keys that are worth more than their owners: the best key gets the row worth least, and so on."""
        if not len(keys) or not self.used:
            return np.empty(0, np.int64)
        owned = np.arange(1, self.used + 1)
        worth = _worth(self.hits[owned], self.last[owned], self.clock, len(self.keys), evict)
        least = np.lexsort((owned, worth))[: len(keys)]
        keys, total = keys[: len(least)], total[: len(least)]
        gain = _worth(total, np.full(len(keys), self.clock), self.clock, len(self.keys), evict)
        count = int((gain > worth[least]).cumprod().sum())
        rows = owned[least[:count]]
        if count:
            self.evicted += count
            self.keys[rows] = keys[:count]
            self.slots[:] = 0
            _put_in(self.slots, self.keys, np.arange(1, self.used + 1))
            self.hits[rows], self.last[rows] = total[:count], self.clock
            self.admitted += count
        return rows

    def copy(self) -> IdMap:
        return IdMap(**{name: value.copy() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()})


@dataclass
class IdMaps:
    """The maps of a model by feature, and the chunk of samples that moved them last.

    mark: (epoch, number of the chunk): a training that is resumed within it does not count it twice.
    """

    of: dict[str, IdMap]
    admit_after: int
    evict: str
    mark: tuple[int, int] = field(default=NO_MARK)

    @classmethod
    def empty(cls, config: RankerConfig) -> IdMaps:
        return cls({name: IdMap.empty(config.tables[name]) for name in MANAGED}, config.admit_after, config.evict)

    def __contains__(self, feature: str) -> bool:
        return feature in self.of

    def rows(self, feature: str, keys: np.ndarray, null: np.ndarray) -> np.ndarray:
        return np.where(null, 0, self.of[feature].rows(keys))

    def observe(self, keys: dict[str, np.ndarray], mark: tuple[int, int] = NO_MARK) -> dict[str, np.ndarray]:
        """Move all maps on by a chunk's ids; returns by feature the rows that changed their owner."""
        self.mark = mark
        return {name: self.of[name].observe(found, self.admit_after, self.evict) for name, found in keys.items()}

    def copy(self) -> IdMaps:
        return IdMaps({name: one.copy() for name, one in self.of.items()}, self.admit_after, self.evict, self.mark)

    def report(self) -> dict[str, dict[str, int]]:
        """By feature: rows, owned, admitted and evicted since the beginning, bytes of the map."""
        return {
            name: {"rows": len(one.keys) - 1, "owned": one.used, "admitted": one.admitted, "evicted": one.evicted, "bytes": one.bytes}
            for name, one in self.of.items()
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """Write everything but the slots, which are made of the rest."""
        arrays = {"mark": np.array(self.mark)}
        for feature, one in self.of.items():
            for part in fields(IdMap):
                if part.name != "slots":
                    arrays[f"{feature}.{part.name}"] = np.asarray(getattr(one, part.name))
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path, config: RankerConfig) -> IdMaps:
        """Raises RankerError where the file is of tables of other sizes."""
        found = cls.empty(config)
        with np.load(path) as arrays:
            for feature, one in found.of.items():
                if len(arrays[f"{feature}.keys"]) != len(one.keys):
                    raise RankerError(f"{path}: the map of {feature} is of a table of another size; train without start_from")
                for part in fields(IdMap):
                    if part.name != "slots":
                        value = arrays[f"{feature}.{part.name}"]
                        setattr(one, part.name, value if value.ndim else int(value))
                _put_in(one.slots, one.keys, np.arange(1, one.used + 1))
            found.mark = tuple(int(x) for x in arrays["mark"])
        return found


def observed(features: Iterable[str]) -> list[str]:
    """Those of the features that have a map."""
    return [name for name in features if name in MANAGED]


def _worth(hits: np.ndarray, last: np.ndarray, clock: int, rows: int, evict: str) -> np.ndarray:
    """What an owner is worth, float64: of "lru" its last display, of "lfu" its displays, of "distance_lfu" its displays over its
    age, where an age of as many displays as the table has rows halves them (TorchRec's policy counts steps)."""
    if evict == "lru":
        return last.astype(np.float64)
    if evict == "lfu":
        return hits.astype(np.float64)
    return hits / (1 + (clock - last) / rows)


def _power_of_two(least: int) -> int:
    return 1 << max(3, (least - 1).bit_length())


@numba.njit(nogil=True, cache=True)
def _looked_up(slots, keys, wanted):
    mask = np.uint64(len(slots) - 1)
    out = np.zeros(len(wanted), np.int64)
    for i in range(len(wanted)):
        at = wanted[i] & mask
        while slots[at] != 0:
            if keys[slots[at]] == wanted[i]:
                out[i] = slots[at]
                break
            at = (at + np.uint64(1)) & mask
    return out


@numba.njit(nogil=True, cache=True)
def _put_in(slots, keys, rows):
    mask = np.uint64(len(slots) - 1)
    for row in rows:
        at = keys[row] & mask
        while slots[at] != 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = row


@numba.njit(nogil=True, cache=True)
def _counted(seen, keys, counts):
    """Add to both rows of the sketch, each at a place of its own bits of the key; the lower of the two is the count."""
    mask = np.uint64(seen.shape[1] - 1)
    out = np.empty(len(keys), np.int64)
    for i in range(len(keys)):
        first, second = keys[i] & mask, (keys[i] >> np.uint64(32)) & mask
        total = min(np.int64(seen[0, first]), np.int64(seen[1, second])) + counts[i]
        out[i] = total
        kept = min(total, FILTER_MAX)
        seen[0, first] = max(np.int64(seen[0, first]), kept)
        seen[1, second] = max(np.int64(seen[1, second]), kept)
    return out
