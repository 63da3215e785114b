"""The live labeler's open sessions: a hash table by key that stays in memory, so that a batch costs what its events cost.

Here: numbers only: look up, apply the rules (fold.apply_event), close what the watermark has passed. Not here: the rules,
what survives a crash (state.py), strings and tables (live.py).

Why not the sorted merge of fold.py: it walks through every open session each batch, and there are sixteen times as many of
them as events in a minute. Sessions end in the order in which they began (the window is fixed), so a list by minute of
start finds those that are due without a walk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numba
import numpy as np

from assets.attribution.fold import (
    CLEARS,
    COUNTS,
    FIELDS,
    NONE,
    OPEN,
    SETS,
    SINCE,
    START,
    WORKING,
    Columns,
    Folded,
    Limits,
    apply_event,
    count_openers,
    key_order,
    put_column,
    widened,
)

if TYPE_CHECKING:
    from assets.attribution.memory import Maps
    from assets.attribution.rules import Rules

Zeros = Callable[["int | tuple[int, int]"], np.ndarray]

MINUTE_US = 60_000_000
_FIRST_SLOTS = 1024


@dataclass
class _Table:
    """Sessions of one kind.

    rows: int64[capacity, 9 or 12], columns as in fold.IMPRESSION_COLUMNS and, where rules ask for a stay, SINCE_COLUMNS. index: int64[power of two], 0 or the upper half of the
    key's hash and the row + 1. free: rows that are not in use. size: how many are. due: minute of start -> chunks of
    (row, start) of the sessions that began in it; an entry whose row holds another start by now is stale. zeros: makes rows
    and index.
    """

    rows: np.ndarray
    index: np.ndarray
    free: np.ndarray
    size: int = 0
    due: dict[int, list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    zeros: Zeros = field(kw_only=True)

    @classmethod
    def empty(cls, zeros: Zeros, fields: int = FIELDS) -> _Table:
        rows, index = zeros((_FIRST_SLOTS, fields)), zeros(2 * _FIRST_SLOTS)
        return cls(rows, index, np.arange(_FIRST_SLOTS - 1, -1, -1, dtype=np.int64), zeros=zeros)

    def room_for(self, more: int) -> None:
        """Grow, so that `more` sessions can be opened. The index stays at most half full."""
        old, wanted = self.rows.shape[0], self.size + more
        if wanted <= old:
            return
        capacity = max(wanted, old + old // 2)
        rows = self.zeros((capacity, self.rows.shape[1]))  # pages that are never touched cost nothing
        rows[:old] = self.rows
        free = np.empty(capacity, np.int64)
        unused = old - self.size
        free[: capacity - old] = np.arange(capacity - 1, old - 1, -1)
        free[capacity - old : capacity - old + unused] = self.free[:unused]
        self.rows, self.free = rows, free
        if self.index.size < 2 * capacity:
            index = self.zeros(1 << int(2 * capacity - 1).bit_length())
            _rehash(self.index, index)
            self.index = index

    def note_due(self, slots: np.ndarray, starts: np.ndarray) -> None:
        """Remember new sessions by the minute in which they began."""
        if not slots.size:
            return
        minutes = starts // MINUTE_US
        order = np.argsort(minutes, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(minutes[order])) + 1):
            self.due.setdefault(int(minutes[group[0]]), []).append((slots[group], starts[group]))

    def take_due(self, started_by: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and starts of the entries with start <= started_by, which are forgotten."""
        taken = []
        for minute in sorted(minute for minute in self.due if minute * MINUTE_US <= started_by):
            chunks = self.due.pop(minute)
            slots, starts = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
            if (minute + 1) * MINUTE_US > started_by + 1:
                now = starts <= started_by
                if not now.all():
                    self.due[minute] = [(slots[~now], starts[~now])]
                slots, starts = slots[now], starts[now]
            taken.append((slots, starts))
        if not taken:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return tuple(np.concatenate(parts) for parts in zip(*taken, strict=True))

    def load(self, sessions: np.ndarray) -> None:
        """Take in open sessions, int64[9 or 12, n] of distinct keys."""
        sessions = np.ascontiguousarray(widened(sessions, self.rows.shape[1]))
        self.room_for(sessions.shape[1])
        slots = _insert_all(self.rows, self.index, self.free, self.rows.shape[0] - self.size, sessions)
        self.size += sessions.shape[1]
        self.note_due(slots, sessions[START].copy())

    def sessions(self) -> np.ndarray:
        """The open sessions, int64[9, n], in no order."""
        out = self.zeros((self.rows.shape[1], self.size))
        _sessions(self.rows, self.index, out)
        return out

    @property
    def bytes(self) -> int:
        return self.size * self.rows.shape[1] * 8 + self.index.nbytes + sum(16 * s.size for c in self.due.values() for s, _ in c)


class Resident:
    """Every open session of the live labeler. maps: where large tables lie; None for memory. rules: by which it folds."""

    def __init__(self, maps: Maps | None = None, rules: Rules | None = None) -> None:
        self._zeros: Zeros = maps.zeros if maps else _in_memory
        self._fields = Limits.of(rules).fields if rules else FIELDS
        self._empty()

    def _empty(self) -> None:
        self.impressions, self.clicks = (_Table.empty(self._zeros, self._fields) for _ in range(2))

    def load(self, open_impressions: np.ndarray, open_clicks: np.ndarray) -> None:
        """Take these sessions, as fold() hands them out, in place of all that are held."""
        self._empty()
        self.impressions.load(open_impressions)
        self.clicks.load(open_clicks)

    def fold(self, events: Columns, rules: Rules | Limits | int, watermark: int) -> Folded:
        """What fold.fold does, the open sessions staying here: its open_impressions and open_clicks are empty.

        events: as for fold.fold, all of them older than the watermark. The sessions come out in no particular order.
        Raises ValueError for rules that ask for dwell in a click, which is only known when its window closes, and for
        rules that ask for a stay where the sessions were not made for one.
        """
        limits = Limits.of(rules)
        if limits.short is not None or limits.fields != self._fields:
            raise ValueError(f"these open sessions ({self._fields} fields) cannot be folded by {limits}")
        imps, clks = self.impressions, self.clicks
        opens, follows = count_openers(events.action)
        imps.room_for(opens)
        clks.room_for(follows)
        out = _apply_all(
            events.user, events.note, events.time, events.action, events.dwell, events.ctx,
            imps.rows, imps.index, imps.free, imps.rows.shape[0] - imps.size,
            clks.rows, clks.index, clks.free, clks.rows.shape[0] - clks.size,
            np.int64(limits.window), np.int64(limits.horizon), SETS, CLEARS, limits.stay_of_action, SINCE,
        )  # fmt: skip
        closed_imps, closed_clks, opened_imps, opened_clks, orphans, owners, counts, free_imps, free_clks, _ = out
        for table, opened, free in ((imps, opened_imps, free_imps), (clks, opened_clks, free_clks)):
            table.size = table.rows.shape[0] - free
            table.note_due(opened[0], opened[1])
        last = watermark - limits.window
        closed = [np.concatenate([early, self._close(table, last)], axis=1)
                  for table, early in ((imps, closed_imps), (clks, closed_clks))]  # fmt: skip
        none = np.empty((self._fields, 0), np.int64)
        named = dict(zip(COUNTS, counts.tolist(), strict=True))
        return Folded(*closed, none, none, orphans, np.empty(0, np.int64), owners, named)

    def _close(self, table: _Table, started_by: int) -> np.ndarray:
        slots, starts = table.take_due(started_by)
        unused = table.rows.shape[0] - table.size
        closed, unused, _ = _close_all(table.rows, table.index, table.free, unused, slots, starts)
        table.size = table.rows.shape[0] - unused
        return closed

    @property
    def sizes(self) -> tuple[int, int]:
        """How many impression and click sessions are open."""
        return self.impressions.size, self.clicks.size

    @property
    def bytes(self) -> int:
        """Memory that the open sessions take."""
        return self.impressions.bytes + self.clicks.bytes

    def export(self) -> tuple[np.ndarray, np.ndarray]:
        """Open impression and click sessions as copies, int64[9, n] each, in no order."""
        return self.impressions.sessions(), self.clicks.sessions()


def _in_memory(shape: int | tuple[int, int]) -> np.ndarray:
    return np.zeros(shape, np.int64)


def sorted_sessions(sessions: np.ndarray) -> np.ndarray:
    """Sessions in the order that fold.fold wants."""
    return np.ascontiguousarray(sessions[:, key_order([sessions[0], sessions[1]])])


# --- compiled --------------------------------------------------------------------------------------------------------


@numba.njit(nogil=True)
def _hash(user, note):
    """The upper half of the mixed key (splitmix64's finisher), never 0."""
    x = np.uint64(user) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(note)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((x ^ (x >> np.uint64(31))) >> np.uint64(33)) | 1


@numba.njit(nogil=True)
def _find(index, rows, user, note, mark):
    """Place in the index of the key, or of the hole where it would go."""
    mask = index.size - 1
    place = mark & mask
    while True:
        entry = index[place]
        if entry == 0:
            return place
        if entry >> 32 == mark:
            slot = (entry & 0xFFFFFFFF) - 1
            if rows[slot, 0] == user and rows[slot, 1] == note:
                return place
        place = (place + 1) & mask


BLOCK = 256  # keys looked up ahead; what they touch fits into a core's cache


@numba.njit(nogil=True)
def _touch(user, note, begin, end, i_rows, i_index, c_index):
    """Load what a block of events is going to need, in loops whose loads do not wait for each other.

    One lookup after the other spends its time waiting for memory: 110 ms a batch of 165,000 events, less than half with it.
    """
    total = np.int64(0)
    for k in range(begin, end):
        mark = _hash(user[k], note[k])
        total += c_index[mark & (c_index.size - 1)] & 1
        entry = i_index[mark & (i_index.size - 1)]
        if entry:
            total += i_rows[(entry & 0xFFFFFFFF) - 1, 0] & 1
    return total


@numba.njit(nogil=True)
def _touch_rows(slots, begin, end, rows):
    total = np.int64(0)
    for k in range(begin, end):
        total += rows[slots[k], 0] & 1
    return total


@numba.njit(nogil=True)
def _touch_index(slots, begin, end, rows, index):
    total = np.int64(0)
    for k in range(begin, end):
        total += index[_hash(rows[slots[k], 0], rows[slots[k], 1]) & (index.size - 1)] & 1
    return total


@numba.njit(nogil=True)
def _erase(index, place):
    """Take an entry out and close the hole, so that no search ends too early (Knuth 6.4, algorithm R)."""
    mask = index.size - 1
    hole = place
    while True:
        place = (place + 1) & mask
        entry = index[place]
        if entry == 0:
            index[hole] = 0
            return
        home = (entry >> 32) & mask
        if (place - home) & mask >= (place - hole) & mask:
            index[hole] = entry
            hole = place


@numba.njit(nogil=True)
def _store(session, had, place, rows, index, free, unused, mark, opened, n_opened, old_start, stays):
    """Put a key's session back after its events: changed, new, or gone. Returns (unused, n_opened)."""
    if session[OPEN]:
        if had:
            slot = (index[place] & 0xFFFFFFFF) - 1
        else:
            unused -= 1
            slot = free[unused]
            index[place] = (mark << 32) | (slot + 1)
        for i in range(FIELDS):
            rows[slot, i] = session[i]
        if stays is not None:
            for i in range(FIELDS, rows.shape[1]):
                rows[slot, i] = session[i + 1]
        if not had or old_start != session[2]:
            opened[0, n_opened], opened[1, n_opened] = slot, session[2]
            n_opened += 1
    elif had:
        slot = (index[place] & 0xFFFFFFFF) - 1
        _erase(index, place)
        free[unused] = slot
        unused += 1
    return unused, n_opened


@numba.njit(nogil=True)
def _load(session, rows, index, place, stays):
    entry = index[place]
    if entry == 0:
        session[OPEN] = 0
        return False
    slot = (entry & 0xFFFFFFFF) - 1
    for i in range(FIELDS):
        session[i] = rows[slot, i]
    if stays is not None:
        for i in range(FIELDS, rows.shape[1]):
            session[i + 1] = rows[slot, i]
    session[OPEN] = 1
    return True


@numba.njit(nogil=True)
def _emit(out, n_out, session, stays):
    if session[4] == 0:
        put_column(out, n_out, session, stays)
        n_out += 1
    session[OPEN] = 0
    return n_out


@numba.njit(cache=True, nogil=True)
def _apply_all(
    user, note, time, action, dwell, ctx, i_rows, i_index, i_free, i_unused, c_rows, c_index, c_free, c_unused,
    window, horizon, sets, clears, stays, since,
):  # fmt: skip
    n = user.size
    opens, follows = count_openers(action)
    # A session that ends here was either open before and met by an event, or was opened here: both have an opener or a
    # key among the events.
    fields = i_rows.shape[1]
    out_imps, out_clks = np.empty((fields, n), np.int64), np.empty((fields, n), np.int64)
    opened_imps, opened_clks = np.empty((2, opens), np.int64), np.empty((2, follows), np.int64)
    orphans = np.empty(n - opens - follows, np.int64)
    owners = np.empty(n, np.int64)
    counts = np.zeros(7, np.int64)
    oi, oc, no, io, co = 0, 0, 0, 0, 0
    imp, clk = np.empty(WORKING, np.int64), np.empty(WORKING, np.int64)
    i, touched, total = 0, 0, np.int64(0)
    while i < n:
        if i >= touched:
            touched = min(n, i + BLOCK)
            total += _touch(user, note, i, touched, i_rows, i_index, c_index)
        ku, kn = user[i], note[i]
        mark = _hash(ku, kn)
        i_place, c_place = _find(i_index, i_rows, ku, kn, mark), _find(c_index, c_rows, ku, kn, mark)
        had_imp, had_clk = _load(imp, i_rows, i_index, i_place, stays), _load(clk, c_rows, c_index, c_place, stays)
        imp_start, clk_start = imp[2], clk[2]
        while i < n and user[i] == ku and note[i] == kn:
            t = time[i]
            if imp[OPEN] and t >= imp[2] + window:
                oi = _emit(out_imps, oi, imp, stays)
            if clk[OPEN] and t >= clk[2] + window:
                oc = _emit(out_clks, oc, clk, stays)
            kind, owner = apply_event(
                ku, kn, t, action[i], dwell[i], ctx[i], imp, clk, horizon, None, sets, clears, stays, since
            )  # fmt: skip
            owners[i] = owner
            if kind == 4:
                orphans[no] = i
                no += 1
            counts[kind] += 1
            i += 1
        i_unused, io = _store(
            imp, had_imp, i_place, i_rows, i_index, i_free, i_unused, mark, opened_imps, io, imp_start, stays
        )  # fmt: skip
        c_unused, co = _store(
            clk, had_clk, c_place, c_rows, c_index, c_free, c_unused, mark, opened_clks, co, clk_start, stays
        )  # fmt: skip
    return (
        out_imps[:, :oi], out_clks[:, :oc], opened_imps[:, :io].copy(), opened_clks[:, :co].copy(), orphans[:no],
        owners, counts, i_unused, c_unused, total,
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _close_all(rows, index, free, unused, slots, starts):
    """Close the sessions that stand in these rows with these starts; returns those not carried, and unused."""
    out = np.empty((rows.shape[1], slots.size), np.int64)
    n_out, total = 0, np.int64(0)
    for k in range(slots.size):
        if k % BLOCK == 0:
            end = min(slots.size, k + BLOCK)
            total += _touch_rows(slots, k, end, rows) + _touch_index(slots, k, end, rows, index)
        slot = slots[k]
        if rows[slot, 2] != starts[k]:
            continue
        ku, kn = rows[slot, 0], rows[slot, 1]
        place = _find(index, rows, ku, kn, _hash(ku, kn))
        entry = index[place]
        if entry == 0 or (entry & 0xFFFFFFFF) - 1 != slot:
            continue  # closed before: the row is free
        if rows[slot, 4] == 0:
            for i in range(FIELDS):
                out[i, n_out] = rows[slot, i]
            for i in range(FIELDS, rows.shape[1]):
                out[i, n_out] = rows[slot, i]
            n_out += 1
        _erase(index, place)
        free[unused] = slot
        unused += 1
    return out[:, :n_out], unused, total


@numba.njit(cache=True, nogil=True)
def _insert_all(rows, index, free, unused, sessions):
    slots = np.empty(sessions.shape[1], np.int64)
    for k in range(sessions.shape[1]):
        ku, kn = sessions[0, k], sessions[1, k]
        mark = _hash(ku, kn)
        place = _find(index, rows, ku, kn, mark)
        unused -= 1
        slot = free[unused]
        index[place] = (mark << 32) | (slot + 1)
        for i in range(rows.shape[1]):
            rows[slot, i] = sessions[i, k]
        slots[k] = slot
    return slots


@numba.njit(cache=True, nogil=True)
def _sessions(rows, index, out):
    k = 0
    for place in range(index.size):
        if index[place]:
            slot = (index[place] & 0xFFFFFFFF) - 1
            for i in range(rows.shape[1]):
                out[i, k] = rows[slot, i]
            k += 1


@numba.njit(cache=True, nogil=True)
def _rehash(index, new):
    mask = new.size - 1
    for k in range(index.size):
        if index[k]:
            place = (index[k] >> 32) & mask
            while new[place]:
                place = (place + 1) & mask
            new[place] = index[k]


def warm_up() -> None:
    """Compile into numba's cache on disk, beside this file (a few seconds, once)."""
    found = Resident()
    found.fold(Columns.empty(), 1, NONE + 2)
    found.impressions.load(np.empty((FIELDS, 0), np.int64))
    found.export()
    _rehash(found.impressions.index, np.zeros(4 * _FIRST_SLOTS, np.int64))
