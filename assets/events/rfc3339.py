"""Columns of times as RFC 3339 texts.

Here: whole numbers since 1970 to bytes, compiled: polars takes a microsecond a value, this a fiftieth of it. Not here: which
times are an event's (contract.py), and reading them (values.py).
"""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
# Seconds of 0001-01-01 and of 10000-01-01: a year has four digits.
FIRST_SECOND, END_SECOND = -62_135_596_800, 253_402_300_800
_LONGEST = len("2026-01-05T00:00:00.123456789Z")
_DAY = 86_400


def inside(ticks: np.ndarray, unit: str) -> np.ndarray:
    """Which times (int64, units since 1970) lie in the years 1 to 9999."""
    seconds = ticks // PER_SECOND[unit]
    return (seconds >= FIRST_SECOND) & (seconds < END_SECOND)


def texts(ticks: np.ndarray, unit: str, zoned: bool, valid: np.ndarray) -> pa.Array:
    """Times as large_string: 2026-01-05T00:00:00.123Z; no fraction where it is 0, else 3, 6 or 9 digits.

    ticks: int64, units since 1970, inside of the years 1 to 9999 where valid. zoned: with a Z. valid: bool, false for null.
    """
    offsets = np.empty(len(ticks) + 1, np.int64)
    bytes_ = _write(ticks, PER_SECOND[unit], zoned, valid, offsets)
    nulls = None if valid.all() else pa.array(valid).buffers()[1]
    return pa.LargeStringArray.from_buffers(len(ticks), pa.py_buffer(offsets), pa.py_buffer(bytes_), nulls)


@numba.njit(cache=True, nogil=True)
def _digits(out, o, value, digits):
    for place in range(digits - 1, -1, -1):
        out[o + place] = 48 + value % 10
        value //= 10
    return o + digits


@numba.njit(cache=True, nogil=True)
def _write(ticks, per_second, zoned, valid, offsets):
    """The texts one after the other; offsets int64[n + 1] is written."""
    out = np.empty(_LONGEST * ticks.size, np.uint8)
    digits, rest = 0, per_second
    while rest > 1:
        rest //= 10
        digits += 1
    o = 0
    for i in range(ticks.size):
        offsets[i] = o
        if not valid[i]:
            continue
        seconds = ticks[i] // per_second
        fraction = ticks[i] - seconds * per_second
        days = seconds // _DAY
        second = seconds - days * _DAY
        # Days to year, month, day in the proleptic Gregorian calendar, years from March: H. Hinnant, "chrono-compatible
        # low-level date algorithms", civil_from_days.
        shifted = days + 719_468
        era = shifted // 146_097
        day_of_era = shifted - era * 146_097
        year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
        day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
        from_march = (5 * day_of_year + 2) // 153
        day = day_of_year - (153 * from_march + 2) // 5 + 1
        month = from_march + 3 if from_march < 10 else from_march - 9
        year = year_of_era + era * 400 + (1 if month <= 2 else 0)
        o = _digits(out, o, year, 4)
        out[o] = 45
        o = _digits(out, o + 1, month, 2)
        out[o] = 45
        o = _digits(out, o + 1, day, 2)
        out[o] = 84
        o = _digits(out, o + 1, second // 3600, 2)
        out[o] = 58
        o = _digits(out, o + 1, second // 60 % 60, 2)
        out[o] = 58
        o = _digits(out, o + 1, second % 60, 2)
        if fraction:
            shown = digits
            while shown > 3 and fraction % 1000 == 0:
                fraction //= 1000
                shown -= 3
            out[o] = 46
            o = _digits(out, o + 1, fraction, shown)
        if zoned:
            out[o] = 90
            o += 1
    offsets[ticks.size] = o
    return out[:o]
