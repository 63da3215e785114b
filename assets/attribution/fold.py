"""The fold: one compiled, linear merge of key-sorted events with key-sorted open sessions. And the sort before it.

Here: numbers only, and the rules: `apply_event` is the one place where they stand, compiled into two loops. `fold` merges
sorted events with sorted sessions, for a bounded log, a window of history and the buckets of a cluster; resident.py keeps
the sessions of the live labeler in a hash table. Not here: strings, tables and files (label.py, live.py, state.py). A row of
strings is carried as its number, `ctx`.

Rules: docs/attribution.md. Times are int64 microseconds since the epoch, UTC.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace

import numba
import numpy as np
import polars as pl

from assets.attribution.rules import UNDOABLE, Rules
from assets.attribution.tables import FLAGS
from assets.events.contract import ACTIONS

NEVER = np.iinfo(np.int64).max  # a watermark that closes every session
NONE = np.iinfo(np.int64).min  # no time

# Rows of the int64 matrices in which sessions enter and leave the fold: one session a column, ascending by key.
# The names are those of the tables; `ctx` is the number of the event whose context the session bears; `flags` has a bit an
# action (in the order of FLAGS, whose names they bear); `carried` is 1 for a session whose row is in the lake already: it
# takes part and is never emitted. 2 more (SHORT) for a click session that has too little dwell to be one.
IMPRESSION_COLUMNS = (
    "user_id", "note_id", "session_start", "ctx", "carried", "dwell_ms", "flags", "impressions", "first_click_time",
)  # fmt: skip
CLICK_COLUMNS = (
    "user_id", "note_id", "session_start", "ctx", "carried", "dwell_ms", "flags", "clicks", "impression_session_start",
)  # fmt: skip

# What became of the events: the kernel counts each in exactly one of these.
COUNTS = (
    "impressions", "clicks", "click_session_actions", "impression_session_actions", "orphans", "carried", "pending",
)  # fmt: skip

# Where the rules ask for a stay, three more rows: since when the like, fav and follow stand that the flags hold.
SINCE_COLUMNS = tuple(f"{name}_since" for name in UNDOABLE)

START, CTX, CARRIED = 2, 3, 4  # places in a column of sessions
SHORT = 2
_ACTION = {name: code for code, name in enumerate(ACTIONS)}
_IMPRESSION, _CLICK, _VIEW_END = _ACTION["impression"], _ACTION["click"], _ACTION["view_end"]


def _masks() -> tuple[np.ndarray, np.ndarray]:
    """Per action: the bit that it sets, and the one that it clears."""
    sets, clears = np.zeros(len(ACTIONS), np.int64), np.zeros(len(ACTIONS), np.int64)
    for bit, flag in enumerate(FLAGS):
        sets[_ACTION[flag]] = 1 << bit
        if "un" + flag in _ACTION:
            clears[_ACTION["un" + flag]] = 1 << bit
    return sets, clears


SETS, CLEARS = _masks()


@dataclass(frozen=True)
class Limits:
    """What of the rules the kernels need, in µs (dwell in ms). stays: in the order of UNDOABLE.

    later_dwell_ms: the dwell that a click session needs which starts at `border` or after it, where other rules hold.
    """

    window: int
    horizon: int
    short_dwell_ms: int = 0
    stays: tuple[int, ...] = (0, 0, 0)
    later_dwell_ms: int = 0
    border: int = NEVER

    @classmethod
    def of(cls, rules: Rules | Limits | int) -> Limits:
        """Of rules; a bare number is the window of rules that are otherwise the default."""
        if isinstance(rules, Limits):
            return rules
        if isinstance(rules, Rules):
            window, *stays = (_us(span) for span in (rules.window, *rules.stays))
            return cls(window, _us(rules.horizon or rules.window), dwell_ms(rules), tuple(stays))
        return cls(int(rules), int(rules))

    def then(self, rules: Rules, border: int) -> Limits:
        """Where other rules hold for the sessions that start at `border` or after it."""
        return replace(self, later_dwell_ms=dwell_ms(rules), border=border)

    @property
    def short(self) -> np.ndarray | None:
        """For the kernel; None where no click needs dwell."""
        if not (self.short_dwell_ms or self.later_dwell_ms):
            return None
        return np.array([self.short_dwell_ms, self.later_dwell_ms, self.border])

    def __post_init__(self) -> None:
        if self.window <= 0:
            raise ValueError(f"a session's window is positive, not {self.window} µs")

    @property
    def fields(self) -> int:
        """Rows of the matrices of sessions."""
        return FIELDS + len(SINCE_COLUMNS) * any(self.stays)

    @property
    def stay_of_action(self) -> np.ndarray | None:
        """int64[actions]: the stay that an action's stretch needs, 0 for none; None where no rule asks for one."""
        if not any(self.stays):
            return None
        stays = np.zeros(len(ACTIONS), np.int64)
        for name, stay in zip(UNDOABLE, self.stays, strict=True):
            stays[_ACTION[name]] = stays[_ACTION["un" + name]] = stay
        return stays


def _us(span: dt.timedelta) -> int:
    return span // dt.timedelta(microseconds=1)


def dwell_ms(rules: Rules) -> int:
    """The dwell that a click session needs; whole ms, as events bear it."""
    return -(-rules.valid_click_dwell // dt.timedelta(milliseconds=1))


def _since_places() -> np.ndarray:
    """Per action: the place of its stretch's beginning in the kernels' working copy."""
    places = np.zeros(len(ACTIONS), np.int64)
    for number, name in enumerate(UNDOABLE):
        places[_ACTION[name]] = places[_ACTION["un" + name]] = OPEN + 1 + number
    return places


OPEN = 9  # place behind the nine of a session's row, in the kernels' working copy: 1 while the session is open
FIELDS = 9
WORKING = OPEN + 1 + len(SINCE_COLUMNS)
SINCE = _since_places()


@dataclass(frozen=True)
class Columns:
    """Events for the fold, all of one length n, ascending by (user_id, note_id, time, action, event_id).

    user, note, time, ctx: int64[n]; action: int8[n], its place in ACTIONS; dwell: int32[n], 0 where there is none.
    """

    user: np.ndarray
    note: np.ndarray
    time: np.ndarray
    action: np.ndarray
    dwell: np.ndarray
    ctx: np.ndarray

    def take(self, index: np.ndarray) -> Columns:
        return Columns(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @classmethod
    def empty(cls) -> Columns:
        kinds = (np.int64, np.int64, np.int64, np.int8, np.int32, np.int64)
        return cls(*(np.empty(0, kind) for kind in kinds))


@dataclass(frozen=True)
class Folded:
    """impressions, clicks: closed sessions that were not carried in, int64[9, m], rows as in IMPRESSION_COLUMNS; 12 rows
    where the rules ask for a stay (SINCE_COLUMNS). short: click sessions of too little dwell, which are no clicks.
    open_impressions, open_clicks: the new state, the same shape, ascending by key.
    orphans, pending: places (int64) in the events that were given. owners: per event the start of the session that it
    belongs to, NONE for orphans and pending ones. counts: by the names of COUNTS.
    """

    impressions: np.ndarray
    clicks: np.ndarray
    open_impressions: np.ndarray
    open_clicks: np.ndarray
    orphans: np.ndarray
    pending: np.ndarray
    owners: np.ndarray
    counts: dict[str, int]
    short: np.ndarray = field(default_factory=lambda: no_sessions())


def no_sessions(rules: Rules | Limits | None = None) -> np.ndarray:
    return np.empty((Limits.of(rules).fields if rules else FIELDS, 0), np.int64)


def widened(sessions: np.ndarray, fields: int) -> np.ndarray:
    """Sessions with as many rows as asked for; what stands in one that bore no since stands since its start."""
    if sessions.shape[0] == fields:
        return sessions
    return np.concatenate([sessions[:FIELDS], np.repeat(sessions[START : START + 1], fields - FIELDS, axis=0)])


def fold(
    events: Columns, open_impressions: np.ndarray, open_clicks: np.ndarray, rules: Rules | Limits | int, watermark: int
) -> Folded:
    """Fold events with time < watermark into the sessions; close those with session_end <= watermark.

    Events at or above the watermark are `pending`: hand them in again, merged with what came since. So no border
    between two calls can change a row. No event may be older than the watermark of the call before.

    Where the rules ask for dwell in a click, the events must reach to watermark + window: a click is judged when it comes.
    """
    limits = Limits.of(rules)
    shorts = limits.short
    if shorts is None and (open_clicks[CARRIED] & SHORT).any():  # of hours with other rules
        shorts = np.array([0, 0, NEVER])
    *arrays, counts = _fold(
        _own(events.user, np.int64), _own(events.note, np.int64), _own(events.time, np.int64),
        _own(events.action, np.int8), _own(events.dwell, np.int32), _own(events.ctx, np.int64),
        _own(widened(open_impressions, limits.fields), np.int64), _own(widened(open_clicks, limits.fields), np.int64),
        np.int64(limits.window), np.int64(limits.horizon), shorts,
        np.int64(watermark),
        SETS, CLEARS, limits.stay_of_action, SINCE,
    )  # fmt: skip
    found = Folded(*arrays, dict(zip(COUNTS, counts.tolist(), strict=True)))
    if limits.short is None:
        return found
    short = found.clicks[CARRIED] == SHORT
    return replace(found, clicks=found.clicks[:, ~short], short=found.clicks[:, short])


def _own(array: np.ndarray, kind: type) -> np.ndarray:
    """The same numbers as a writable, contiguous array: another layout would be compiled for anew."""
    return np.require(array, kind, ("C", "W"))


# A rule that is not asked for is None to the kernels: numba compiles them without it, and the default costs nothing.


@numba.njit(nogil=True)
def put_column(matrix, place, session, stays):
    for i in range(FIELDS):
        matrix[i, place] = session[i]
    if stays is not None:
        for i in range(FIELDS, matrix.shape[0]):
            matrix[i, place] = session[i + 1]


@numba.njit(nogil=True)
def _get_column(session, matrix, place, stays):
    for i in range(FIELDS):
        session[i] = matrix[i, place]
    if stays is not None:
        for i in range(FIELDS, matrix.shape[0]):
            session[i + 1] = matrix[i, place]
    session[OPEN] = 1


@numba.njit(nogil=True)
def _mark(session, t, action, sets, clears, stays, since):
    """What an action does to its bit. A stretch that has stood for its stay is never ended."""
    if stays is None:
        session[6] = (session[6] | sets[action]) & ~clears[action]
    elif stays[action] == 0:
        session[6] = (session[6] | sets[action]) & ~clears[action]
    else:
        bit, place = sets[action] | clears[action], since[action]
        if sets[action]:
            if session[6] & bit == 0:
                session[6] |= bit
                session[place] = t
        elif session[6] & bit and t - session[place] < stays[action]:
            session[6] &= ~bit


@numba.njit(nogil=True)
def apply_event(user, note, t, action, dwell, ctx, imp, clk, horizon, short, sets, clears, stays, since):
    """The rules, for one event of a key whose sessions that had ended by then are closed already.

    imp, clk: int64[WORKING], changed in place. short: whether a click session that this event opens has too little
    dwell, None where no rule asks.
    Returns the place in COUNTS where the event belongs and the start of its session (NONE for an orphan).
    """
    if action == _IMPRESSION:
        if imp[OPEN] == 0:
            imp[0], imp[1], imp[2], imp[3] = user, note, t, ctx
            imp[4], imp[5], imp[6], imp[7], imp[8] = 0, 0, 0, 0, NONE
            imp[OPEN] = 1
            if stays is not None:
                imp[OPEN + 1 :] = 0
        imp[7] += 1
        return (5 if imp[4] else 0), imp[2]
    if action == _CLICK:
        near = imp[OPEN] and t < imp[2] + horizon
        if clk[OPEN] == 0:
            clk[0], clk[1], clk[2], clk[3] = user, note, t, imp[3] if near else ctx
            clk[4], clk[5], clk[6], clk[7], clk[8] = 0, 0, 0, 0, imp[2] if near else NONE
            clk[OPEN] = 1
            if short is not None:
                clk[4] = SHORT if short else 0
            if stays is not None:
                clk[OPEN + 1 :] = 0
        clk[7] += 1
        if short is None or clk[4] & SHORT == 0:
            if near and imp[8] == NONE:
                imp[8] = t
            return (5 if clk[4] else 1), clk[2]
    elif clk[OPEN]:
        if action == _VIEW_END:
            clk[5] += dwell
        if short is None or clk[4] & SHORT == 0:
            _mark(clk, t, action, sets, clears, stays, since)
            return (5 if clk[4] else 2), clk[2]
    # No click session, or one that is no click: what it has collected is the display's.
    if imp[OPEN]:
        if action == _VIEW_END:
            imp[5] += dwell
        _mark(imp, t, action, sets, clears, stays, since)
        return (5 if imp[4] else 3), imp[2]
    return 4, NONE


@numba.njit(nogil=True)
def _is_short(i, user, note, time, action, dwell, window, clk, shorts):
    """Whether event i opens a click session that collects less dwell: all of its key's until the window's end."""
    if shorts is None:
        return None
    if action[i] != _CLICK or clk[OPEN]:
        return False
    short_ms = shorts[0] if time[i] < shorts[2] else shorts[1]
    if short_ms == 0:
        return False
    total = np.int64(0)
    for j in range(i + 1, user.size):
        if user[j] != user[i] or note[j] != note[i] or time[j] >= time[i] + window:
            break
        if action[j] == _VIEW_END:
            total += dwell[j]
            if total >= short_ms:
                return False
    return total < short_ms


@numba.njit(nogil=True)
def count_openers(action):
    """How many sessions of each kind these events can open at most."""
    opens, follows = 0, 0
    for i in range(action.size):
        if action[i] == _IMPRESSION:
            opens += 1
        elif action[i] == _CLICK:
            follows += 1
    return opens, follows


@numba.njit(cache=True, nogil=True)
def _fold(
    user, note, time, action, dwell, ctx, imps, clks, window, horizon, shorts, watermark, sets, clears, stays, since
):  # fmt: skip
    n, n_imps, n_clks = user.size, imps.shape[1], clks.shape[1]
    opens, follows = count_openers(action)
    # Memory that is never written costs nothing, so the upper bounds will do.
    fields = imps.shape[0]
    out_imps = np.empty((fields, opens + n_imps), np.int64)
    out_clks = np.empty((fields, follows + n_clks), np.int64)
    new_imps = np.empty((fields, opens + n_imps), np.int64)
    new_clks = np.empty((fields, follows + n_clks), np.int64)
    orphans = np.empty(n - opens, np.int64)
    pending = np.empty(n, np.int64)
    owners = np.empty(n, np.int64)
    counts = np.zeros(7, np.int64)
    oi, oc, ni, nc, no, npend = 0, 0, 0, 0, 0, 0
    imp = np.empty(WORKING, np.int64)
    clk = np.empty(WORKING, np.int64)
    i, p, c = 0, 0, 0

    while i < n or p < n_imps or c < n_clks:
        # The least key of the three inputs.
        ku, kn = np.int64(0), np.int64(0)
        known = False
        if i < n:
            ku, kn, known = user[i], note[i], True
        if p < n_imps and (not known or imps[0, p] < ku or (imps[0, p] == ku and imps[1, p] < kn)):
            ku, kn, known = imps[0, p], imps[1, p], True
        if c < n_clks and (not known or clks[0, c] < ku or (clks[0, c] == ku and clks[1, c] < kn)):
            ku, kn = clks[0, c], clks[1, c]
        imp[OPEN], clk[OPEN] = 0, 0
        if p < n_imps and imps[0, p] == ku and imps[1, p] == kn:
            _get_column(imp, imps, p, stays)
            p += 1
        if c < n_clks and clks[0, c] == ku and clks[1, c] == kn:
            _get_column(clk, clks, c, stays)
            c += 1

        while i < n and user[i] == ku and note[i] == kn:
            t = time[i]
            if t >= watermark:
                pending[npend] = i
                owners[i] = NONE
                npend += 1
                i += 1
                continue
            if imp[OPEN] and t >= imp[2] + window:
                if imp[4] == 0:
                    put_column(out_imps, oi, imp, stays)
                    oi += 1
                imp[OPEN] = 0
            if clk[OPEN] and t >= clk[2] + window:
                if clk[4] & 1 == 0:
                    put_column(out_clks, oc, clk, stays)
                    oc += 1
                clk[OPEN] = 0
            short = _is_short(i, user, note, time, action, dwell, window, clk, shorts)
            kind, owner = apply_event(
                ku, kn, t, action[i], dwell[i], ctx[i], imp, clk, horizon, short, sets, clears, stays, since
            )  # fmt: skip
            owners[i] = owner
            if kind == 4:
                orphans[no] = i
                no += 1
            else:
                counts[kind] += 1
            i += 1

        if imp[OPEN]:
            if imp[2] + window > watermark:
                put_column(new_imps, ni, imp, stays)
                ni += 1
            elif imp[4] == 0:
                put_column(out_imps, oi, imp, stays)
                oi += 1
        if clk[OPEN]:
            if clk[2] + window > watermark:
                put_column(new_clks, nc, clk, stays)
                nc += 1
            elif clk[4] & 1 == 0:
                put_column(out_clks, oc, clk, stays)
                oc += 1

    counts[4], counts[6] = no, npend
    return (
        out_imps[:, :oi], out_clks[:, :oc], new_imps[:, :ni].copy(), new_clks[:, :nc].copy(),
        orphans[:no], pending[:npend], owners, counts,
    )  # fmt: skip


def warm_up() -> None:
    """Compile the fold into numba's cache on disk, beside this file (a few seconds, once)."""
    fold(Columns.empty(), no_sessions(), no_sessions(), 1, NEVER)


# --- order -----------------------------------------------------------------------------------------------------------


def key_order(columns: list[np.ndarray]) -> np.ndarray:
    """Stable order (int64[n]) of rows by int64 columns, the most significant first.

    Few bits (the usual log): each round packs bits of the key and a row number into one word and lets numpy's
    vectorised sort do the rest, twice as fast as a comparison of rows. Many bits (hashed ids): polars.
    """
    size = columns[0].size
    room = 64 - max(1, (size - 1).bit_length())
    lows = [column.min() if size else 0 for column in columns]
    spans = [int(column.max()) - int(low) if size else 0 for column, low in zip(columns, lows, strict=True)]
    if sum(span.bit_length() for span in spans) > 3 * room:
        frame = pl.DataFrame(dict(zip("abcdefgh", columns, strict=False)))
        return frame.select(pl.arg_sort_by(frame.columns, maintain_order=True)).to_series().to_numpy().astype(np.int64)
    order = np.arange(size, dtype=np.int64)
    for word in _words(columns, lows, spans, room):
        step = (word[order] << np.uint64(64 - room)) | np.arange(size, dtype=np.uint64)
        step.sort()
        order = order[(step & np.uint64((1 << (64 - room)) - 1)).view(np.int64)]
    return order


def _words(columns, lows, spans, room):
    """The rows' keys as unsigned words of at most `room` bits, the least significant first."""
    word, used = None, 0
    for column, low, span in zip(reversed(columns), reversed(lows), reversed(spans), strict=True):
        rest, bits = (column - low).view(np.uint64), span.bit_length()  # wraps where the span exceeds int64: intended
        while bits:
            taken = min(bits, room - used)
            part = (rest & np.uint64((1 << taken) - 1)) << np.uint64(used)
            word = part if word is None else word | part
            rest, bits, used = rest >> np.uint64(taken), bits - taken, used + taken
            if used == room:
                yield word
                word, used = None, 0
    if word is not None:
        yield word


def fold_order(user: np.ndarray, note: np.ndarray, time: np.ndarray, action: np.ndarray, event_ids) -> np.ndarray:
    """Order of events by (user_id, note_id, event_time, action, event_id).

    event_ids: called with row numbers (int64) and answering their ids as a list of strings; asked only for rows that
    tie on everything else, which are few.
    """
    moment = time * 16 + action  # 13 actions; µs since the epoch leave the bits
    order = key_order([user, note, moment])
    u, n, m = user[order], note[order], moment[order]
    ties = np.flatnonzero((u[1:] == u[:-1]) & (n[1:] == n[:-1]) & (m[1:] == m[:-1]))
    if ties.size:
        _settle(order, ties, event_ids)
    return order


def _settle(order: np.ndarray, ties: np.ndarray, event_ids) -> None:
    """Put runs of equal rows into the order of their ids. ties[i]: place whose successor is equal to it."""
    places = np.union1d(ties, ties + 1)
    run = np.cumsum(np.concatenate(([True], ~np.isin(places[:-1], ties))))
    rows = order[places]
    ids = event_ids(rows)
    ranked = sorted(range(places.size), key=lambda i: (run[i], ids[i]))
    order[places] = rows[ranked]
