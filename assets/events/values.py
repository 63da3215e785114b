"""Values as a log spells them, turned into typed columns; what cannot be read is told apart from what is missing.

Here: integers, times and texts, whole columns at a time. Not here: which column means what (mapping.py, intake.py) and
which values the contract allows (contract.py).

Every function returns (values, wrong): the typed column, null where there is none, and per row the reason why a value
that is there could not be read, else null. `name` begins the reason.
"""

from __future__ import annotations

import polars as pl

UTC_US = pl.Datetime("us", "UTC")
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": None}

_NO_ZONE = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?$"


def _reasons(wrong: pl.Series, reason: str) -> pl.Series:
    if not wrong.any():
        return pl.Series("wrong", [None], pl.String).new_from_index(0, len(wrong))
    return wrong.to_frame("wrong").select(pl.when(pl.col("wrong")).then(pl.lit(reason)))["literal"]


def as_int(values: pl.Series, name: str) -> tuple[pl.Series, pl.Series]:
    """Any int64; text of digits counts (JavaScript writes big ids so), and a whole float (pandas writes nulls so)."""
    kind = values.dtype
    if kind.is_float():
        whole = (values == values.floor()) & (values.abs() < 2**53)
        typed = values.set(~whole.fill_null(False), None).cast(pl.Int64, strict=False)
    elif kind.is_integer() or kind == pl.Null or kind == pl.String:
        typed = values.cast(pl.Int64, strict=False)
    else:
        typed = pl.Series(values.name, [None], pl.Int64).new_from_index(0, len(values))
    wrong = typed.is_null() & values.is_not_null()
    if kind == pl.String and wrong.any():
        floats = values.filter(wrong)
        whole = floats.str.contains(r"^-?\d{1,15}\.0+$")
        fixed = floats.str.replace(r"\.0+$", "").set(~whole, None).cast(pl.Int64, strict=False)
        typed = typed.scatter(wrong.arg_true(), fixed)
        wrong = typed.is_null() & values.is_not_null()
    return typed, _reasons(wrong, f"{name}: not an integer of 64 bits")


def as_text(values: pl.Series, name: str) -> tuple[pl.Series, pl.Series]:
    """Text; a number counts as its digits. Lists and objects are refused."""
    kind = values.dtype
    if kind.is_nested() or kind == pl.Binary:
        typed = pl.Series(values.name, [None], pl.String).new_from_index(0, len(values))
    else:
        typed = values.cast(pl.String)
    return typed, _reasons(typed.is_null() & values.is_not_null(), f"{name}: not a text")


def as_time(
    values: pl.Series, name: str, unit: str = "us", zone: str | None = None, form: str | None = None
) -> tuple[pl.Series, pl.Series]:
    """A time in UTC, µs.

    Integers (and text of digits) count `unit`s since the epoch. Text is RFC 3339 with a zone, or has the strptime form
    `form`. Where neither value nor form names a zone, `zone` (an IANA name) applies; without it the row is refused.
    """
    if values.dtype.is_temporal():
        typed, lacks_zone = _from_datetime(values, zone)
    elif values.dtype == pl.String and form:
        typed, lacks_zone = _from_form(values, zone, form)
    elif values.dtype == pl.String:
        typed, lacks_zone = _from_text(values, unit, zone)
    else:
        typed, lacks_zone = _from_integer(as_int(values, name)[0], unit), None
    wrong = typed.is_null() & values.is_not_null()
    reasons = _reasons(wrong, f"{name}: not a time")
    if lacks_zone is not None and lacks_zone.any():
        reasons = reasons.set(lacks_zone, f"{name}: a time without a zone")
    return typed, reasons


def _from_integer(values: pl.Series, unit: str) -> pl.Series:
    if unit == "ns":
        return (values // 1000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    factor = UNITS[unit]
    limit = (2**63 - 1) // factor
    values = values.set((values.abs() > limit).fill_null(False), limit)  # stays out of the contract's range
    return (values * factor).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _from_text(values: pl.Series, unit: str, zone: str | None) -> tuple[pl.Series, pl.Series | None]:
    numbers = values.cast(pl.Int64, strict=False)
    typed = _from_integer(numbers, unit)
    rest = numbers.is_null() & values.is_not_null()
    if not rest.any():
        return typed, None
    texts = values.filter(rest)
    parsed = texts.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    bare = parsed.is_null() & texts.str.contains(_NO_ZONE)
    if zone and bare.any():
        local = texts.filter(bare).str.replace("[Tt]", " ")
        parsed = parsed.scatter(bare.arg_true(), _localised(local.str.to_datetime(time_unit="us", strict=False), zone))
        bare = bare & False
    lacks_zone = pl.repeat(False, len(values), dtype=pl.Boolean, eager=True)
    lacks_zone = lacks_zone.scatter(rest.arg_true(), bare)
    return typed.scatter(rest.arg_true(), parsed), lacks_zone


def _from_form(values: pl.Series, zone: str | None, form: str) -> tuple[pl.Series, pl.Series | None]:
    if "%z" in form or "%:z" in form or "%#z" in form:
        return values.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False), None
    naive = values.str.to_datetime(form, time_unit="us", strict=False)
    if zone is None:
        return naive.dt.replace_time_zone("UTC").clear(len(values)), naive.is_not_null()
    return _localised(naive, zone), None


def _from_datetime(values: pl.Series, zone: str | None) -> tuple[pl.Series, pl.Series | None]:
    if values.dtype not in (pl.Datetime, pl.Date):
        return pl.Series(values.name, [None], UTC_US).new_from_index(0, len(values)), None
    if getattr(values.dtype, "time_zone", None):
        return values.dt.convert_time_zone("UTC").cast(UTC_US), None
    naive = values.cast(pl.Datetime("us"))
    if zone is None:
        return pl.Series(values.name, [None], UTC_US).new_from_index(0, len(values)), naive.is_not_null()
    return _localised(naive, zone), None


def _localised(naive: pl.Series, zone: str) -> pl.Series:
    """Local to UTC: of an hour that a clock change repeats the first is taken; one that it skips is no time."""
    local = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")
