"""Values as a log spells them, turned into typed columns; what cannot be read is told apart from what is missing.

Here: integers, times and texts, whole columns at a time. Not here: which column means what (mapping.py, intake.py) and
which values the contract allows (contract.py).

Every function takes a column of text (a number is its digits), of integers, or of times with a zone, and `odd`, which of the values are no text, number or truth
(a list, an object, NaN; None: none of them). It returns (values, wrong): the typed column, null where there is none, and
per row the reason why a value that is there could not be read, else null. `name` begins the reason.
"""

from __future__ import annotations

import polars as pl

UTC_US = pl.Datetime("us", "UTC")
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": None}

_DIGITS = {"s": 6, "ms": 3, "us": 0, "ns": 0}  # of a fraction, down to the microsecond
_NO_NUMBER = ["NaN", "Infinity", "-Infinity"]
_FLOAT = r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$"
_NO_ZONE = r"^\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?)?$"
_DATE = r"^\d{4}-\d\d-\d\d$"


def _no_reasons(rows: int) -> pl.Series:
    return pl.Series("wrong", [None], pl.String).new_from_index(0, rows)


def _reasons(wrong: pl.Series, reason: str, values: pl.Series) -> pl.Series:
    if not wrong.any():
        return _no_reasons(len(wrong))
    said = pl.when(pl.col("value").is_in(_NO_NUMBER)).then(pl.format(reason + " ({})", "value")).otherwise(pl.lit(reason))
    return pl.DataFrame({"wrong": wrong, "value": values}).select(pl.when(pl.col("wrong")).then(said))["value"]


def _without(values: pl.Series, odd: pl.Series | None) -> pl.Series:
    return values if odd is None else values.set(odd, None)


def as_int(values: pl.Series, name: str, odd: pl.Series | None = None) -> tuple[pl.Series, pl.Series]:
    """Any int64. Text of digits counts (JavaScript writes big ids so), and a whole float below 2^53 (pandas writes
    integers beside nulls so): above it a float no longer tells integers apart.
    """
    if values.dtype.is_temporal():
        values = values.cast(pl.String)
    typed = _without(values, odd).cast(pl.Int64, strict=False)
    if typed.null_count() == values.null_count():  # many small files: each step on a column costs them as much as a large one
        return typed, _no_reasons(len(values))
    values = values.cast(pl.String)
    at = (typed.is_null() & values.is_not_null()).arg_true()
    typed = typed.scatter(at, _whole(_without(values, odd).gather(at)))
    wrong = typed.is_null() & values.is_not_null()
    return typed, _reasons(wrong, f"{name}: not an integer of 64 bits", values)


def _whole(texts: pl.Series) -> pl.Series:
    floats = texts.set(~texts.str.contains(_FLOAT).fill_null(False), None).cast(pl.Float64, strict=False)
    whole = (floats == floats.floor()) & (floats.abs() < 2**53)
    return floats.set(~whole.fill_null(False), None).cast(pl.Int64, strict=False)


def as_text(values: pl.Series, name: str, odd: pl.Series | None = None) -> tuple[pl.Series, pl.Series]:
    """Text; a number counts as its digits. Lists, objects and NaN are refused."""
    if values.dtype.is_temporal():
        values = values.dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
    values = values.cast(pl.String)
    if odd is None:
        return values, _no_reasons(len(values))
    typed = _without(values, odd)
    return typed, _reasons(typed.is_null() & values.is_not_null(), f"{name}: not a text", values)


def as_time(
    values: pl.Series, name: str, unit: str = "us", zone: str | None = None, form: str | None = None,
    odd: pl.Series | None = None,
) -> tuple[pl.Series, pl.Series]:  # fmt: skip
    """A time in UTC, µs; what is finer is cut off.

    Numbers count `unit`s since the epoch. Text has the strptime form `form`, or is RFC 3339. Where neither value nor form
    names a zone, `zone` (an IANA name) applies; without it the row is refused.
    """
    if values.dtype.is_temporal():
        return values.dt.convert_time_zone("UTC").cast(UTC_US), _no_reasons(len(values))
    if form:
        values = values.cast(pl.String)
    texts = _without(values, odd)
    if not form and (numbers := texts.cast(pl.Int64, strict=False)).null_count() == values.null_count():
        return _from_integer(numbers, unit), _no_reasons(len(values))
    texts, values = texts.cast(pl.String), values.cast(pl.String)
    typed = pl.Series(values.name, [None], UTC_US).new_from_index(0, len(values))
    lacks_zone = pl.repeat(False, len(values), dtype=pl.Boolean, eager=True)
    if form:
        typed, lacks_zone = _from_form(texts, zone, form)
    rest = typed.is_null() & texts.is_not_null() & ~lacks_zone
    if rest.any():
        at = rest.arg_true()
        more, lacks = _from_text(texts.gather(at), unit if not form else "none", zone)
        typed, lacks_zone = typed.scatter(at, more), lacks_zone.scatter(at, lacks)
    wrong = typed.is_null() & values.is_not_null()
    reasons = _reasons(wrong, f"{name}: not a time", values)
    if lacks_zone.any():
        reasons = reasons.set(lacks_zone, f"{name}: a time without a zone")
    return typed, reasons


def _from_text(values: pl.Series, unit: str, zone: str | None) -> tuple[pl.Series, pl.Series]:
    """(time, whether it lacks a zone). unit: of numbers; none: numbers are no times."""
    typed = pl.Series(values.name, [None], UTC_US).new_from_index(0, len(values))
    if unit != "none":
        numbers = values.cast(pl.Int64, strict=False)
        typed = _from_integer(numbers, unit)
        if (fractions := (numbers.is_null() & values.str.contains(_FLOAT)).fill_null(False)).any():
            at = fractions.arg_true()
            typed = typed.scatter(at, _from_fraction(values.gather(at), unit))
    rest = typed.is_null() & values.is_not_null()
    lacks_zone = pl.repeat(False, len(values), dtype=pl.Boolean, eager=True)
    if not rest.any():
        return typed, lacks_zone
    texts = values.filter(rest)
    parsed = texts.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    bare = parsed.is_null() & texts.str.contains(_NO_ZONE)
    if zone and bare.any():
        local = texts.filter(bare).str.replace("[Tt]", " ")
        local = local.to_frame("text").select(
            pl.when(pl.col("text").str.contains(_DATE)).then(pl.col("text") + " 00:00").otherwise("text")
        )["text"]
        parsed = parsed.scatter(bare.arg_true(), _localised(local.str.to_datetime(time_unit="us", strict=False), zone))
        bare = bare & False
    return typed.scatter(rest.arg_true(), parsed), lacks_zone.scatter(rest.arg_true(), bare)


def _from_integer(values: pl.Series, unit: str) -> pl.Series:
    if unit == "ns":
        return (values // 1000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    factor = UNITS[unit]
    limit = (2**63 - 1) // factor
    values = values.clip(-limit, limit)  # stays out of the contract's range
    return (values * factor).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _from_fraction(texts: pl.Series, unit: str) -> pl.Series:
    """A number with a fraction or an exponent, as time.time() and pandas write times."""
    digits = _DIGITS[unit]
    whole = texts.str.extract(r"^(-?\d{1,18})(?:\.\d+)?$", 1).cast(pl.Int64, strict=False)
    fraction = texts.str.extract(r"\.(\d+)$", 1).fill_null("").str.slice(0, digits).str.pad_end(digits, "0")
    if digits:
        micros = fraction.cast(pl.Int64, strict=False).fill_null(0) * texts.str.starts_with("-").replace_strict(
            {True: -1, False: 1}, return_dtype=pl.Int64
        )
    else:
        micros = pl.zeros(len(texts), dtype=pl.Int64, eager=True)
    exact = _from_integer(whole, unit) + micros.cast(pl.Duration("us"))
    powers = (whole.is_null() & texts.str.contains("[eE]")).fill_null(False)
    if not powers.any():
        return exact
    factor = UNITS[unit] or 1 / 1000
    micros = (texts.filter(powers).cast(pl.Float64, strict=False) * factor).floor().cast(pl.Int64, strict=False)
    return exact.scatter(powers.arg_true(), micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))


def _from_form(values: pl.Series, zone: str | None, form: str) -> tuple[pl.Series, pl.Series]:
    none_lack = pl.repeat(False, len(values), dtype=pl.Boolean, eager=True)
    if "%z" in form or "%:z" in form or "%#z" in form:
        return values.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False), none_lack
    naive = values.str.to_datetime(form, time_unit="us", strict=False)
    if zone is None:
        return naive.dt.replace_time_zone("UTC").clear(len(values)), naive.is_not_null()
    return _localised(naive, zone), none_lack


def _localised(naive: pl.Series, zone: str) -> pl.Series:
    """Local to UTC: of an hour that a clock change repeats the first is taken; one that it skips is no time."""
    local = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")
