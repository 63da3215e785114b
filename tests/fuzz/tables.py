"""Parquet files of events whose columns have any type that Arrow can write, and values that the types allow.

Here: tables and their bytes. Not here: rows of text (rows.py), what is cut and flipped in files (files.py).
Parquet has no unions, run ends, intervals, views of lists and scales below zero: pyarrow refuses to write them.
"""

from __future__ import annotations

import datetime as dt
import decimal
import io
from collections.abc import Callable
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz import odd
from tests.fuzz.rows import Form

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
ZONES = ("UTC", "+00:00", "+05:30", "-08:00", "Europe/Berlin", "Etc/GMT+5", "America/New_York", "+14:00", "utc", "Z", "GMT", "Mars/Base")


def _decimals(precision: int, scale: int, kind: Callable = pa.decimal128):
    def made(rng: Random, rows: int) -> pa.Array:
        limit = 10 ** (precision - 1)
        with decimal.localcontext(prec=80):
            values = [decimal.Decimal(rng.choice((0, 1, -1, limit - 1, rng.randrange(limit)))).scaleb(-scale) for _ in range(rows)]
            return pa.array(_nulls(rng, values), kind(precision, scale))

    return made


def _nulls(rng: Random, values: list) -> list:
    share = rng.choice((0, 0, 0.2, 1))
    return [None if rng.random() < share else value for value in values]


def _of(kind: pa.DataType, *values):
    """A column of this type whose values are some of these."""
    return lambda rng, rows: pa.array(_nulls(rng, [rng.choice(values) for _ in range(rows)]), kind)


def _cast(kind: pa.DataType, *integers: int):
    return lambda rng, rows: pa.array(_nulls(rng, [rng.choice(integers) for _ in range(rows)]), pa.int64()).cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()).cast(kind)


def _times(kind: pa.DataType):
    unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
    seconds = (0, 1704067200, -1, 946684800, 4102444800, -62135596800 if unit < 10**9 else -1)
    borders = (2**63 - 1, -(2**63))

    def made(rng: Random, rows: int) -> pa.Array:
        integers = [rng.choice(borders) if rng.random() < 0.1 else rng.choice(seconds) * unit for _ in range(rows)]
        return pa.array(_nulls(rng, integers), pa.int64()).view(kind)

    return made


def _nested_times(rng: Random, rows: int) -> pa.Array:
    kind = pa.struct([("at", pa.timestamp(rng.choice(("ms", "us", "ns")), rng.choice((None, *ZONES[:7])))), ("many", pa.list_(pa.timestamp("us", "UTC")))])
    return pa.array(_nulls(rng, [{"at": None, "many": [0]} for _ in range(rows)]), kind)


class _Extension(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.int64(), "glasshouse.fuzz")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"\xff not text"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage, serialized):
        return cls()


def _extension(rng: Random, rows: int) -> pa.Array:
    kind = rng.randrange(4)
    if kind == 0:
        return pa.ExtensionArray.from_storage(_Extension(), pa.array(range(rows), pa.int64()))
    if kind == 1:
        return pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * rows, pa.binary(16)))
    if kind == 2:
        return pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(['{"a":1}'] * rows))
    return pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1] * rows, pa.int8()))


def _dictionary(values: pa.Array):
    return lambda rng, rows: pa.DictionaryArray.from_arrays(pa.array(_nulls(rng, [rng.randrange(len(values)) for _ in range(rows)]), pa.int8()), values)


def _deep(rng: Random, rows: int) -> pa.Array:
    value, kind = 1, pa.int64()
    for level in range(rng.choice((5, 30, 60))):
        value, kind = ([value], pa.list_(kind)) if level % 2 else ({"a": value}, pa.struct([("a", kind)]))
    return pa.array([value] * rows, kind)


BYTES = (b"", b"x", b"\xff\xfe", b"\xed\xa0\xbd", b"a\x00b", b"homefeed")
TEXTS = (*odd.TEXTS, "click", "homefeed", "1", "NaN")
COLUMNS: dict[str, Callable[[Random, int], pa.Array]] = {
    "decimal128": _decimals(20, 0), "decimal128_scale": _decimals(38, 10), "decimal256": _decimals(50, 0, pa.decimal256),
    "decimal256_small": _decimals(10, 2, pa.decimal256), "decimal32": _decimals(7, 2, pa.decimal32), "decimal64": _decimals(15, 3, pa.decimal64),
    "timestamp_s": _times(pa.timestamp("s")), "timestamp_ms": _times(pa.timestamp("ms")), "timestamp_us": _times(pa.timestamp("us")),
    "timestamp_ns": _times(pa.timestamp("ns")), "timestamp_ns_utc": _times(pa.timestamp("ns", "UTC")),
    **{f"timestamp_{zone}": _times(pa.timestamp("us", zone)) for zone in ZONES},
    "date32": _of(pa.date32(), dt.date(2024, 1, 1), dt.date(1, 1, 1), dt.date(9999, 12, 31)), "date64": _of(pa.date64(), dt.date(2024, 1, 1)),
    "time32": _cast(pa.time32("ms"), 0, 86_399_999), "time32_s": _cast(pa.time32("s"), 1), "time64": _cast(pa.time64("us"), 1), "time64_ns": _cast(pa.time64("ns"), 0, 1),
    **{f"duration_{unit}": _cast(pa.duration(unit), 0, -1, 2**62) for unit in ("s", "ms", "us", "ns")},
    "float16": lambda rng, rows: pa.array([1.5] * rows, pa.float32()).cast(pa.float16()),
    "float32": _of(pa.float32(), 1.0, 1.5, float("nan"), float("inf"), -0.0), "float64": _of(pa.float64(), 1.0, 2.5, float("nan"), float("inf"), 2.0**63, 1e300),
    **{f"{sign}int{bits}": _of(getattr(pa, f"{sign}int{bits}")(), 0, 1, 2 ** (bits - 1) - 1) for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "uint64_large": _of(pa.uint64(), 2**64 - 1, 2**63, 0), "bool": _of(pa.bool_(), True, False), "null": lambda rng, rows: pa.nulls(rows),
    "string": _of(pa.string(), *TEXTS), "large_string": _of(pa.large_string(), *TEXTS), "string_view": _of(pa.string_view(), *TEXTS),
    "binary": _of(pa.binary(), *BYTES), "large_binary": _of(pa.large_binary(), *BYTES), "binary_view": _of(pa.binary_view(), *BYTES),
    "fixed_binary": _of(pa.binary(16), bytes(16), b"\xff" * 16),
    "dictionary": _dictionary(pa.array(["click", "like", "x"])), "dictionary_int": _dictionary(pa.array([1, 2])), "dictionary_binary": _dictionary(pa.array([b"\xff", b"x"])),
    "dictionary_time": _dictionary(pa.array([EPOCH], pa.timestamp("us", "+05:30"))), 
    "list_int": _of(pa.list_(pa.int64()), [], [1], [1, None]), "list_binary": _of(pa.list_(pa.binary()), [b"\xff"], []), "list_string": _of(pa.list_(pa.string()), ["a"]),
    "large_list": _of(pa.large_list(pa.binary()), [b"\xff"], []), "fixed_list": _of(pa.list_(pa.int8(), 2), [1, 2]), "fixed_list_0": _of(pa.list_(pa.int8(), 0), []),
    "list_decimal": _of(pa.list_(pa.decimal128(20, 2)), [decimal.Decimal("1.50")], []),
    "list_decimal256": _of(pa.list_(pa.decimal256(50, 2)), [decimal.Decimal("1.50")]), "list_null": _of(pa.list_(pa.null()), [None], []),
    "list_time": _of(pa.list_(pa.time64("us")), [dt.time(1)]), "list_duration": _of(pa.list_(pa.duration("us")), [dt.timedelta(1)]),
    "struct": _of(pa.struct([("a", pa.int64()), ("b", pa.string())]), {"a": 1, "b": "x"}, {"a": None, "b": "\u2028"}),
    "struct_binary": _of(pa.struct([("a", pa.binary())]), {"a": b"\xff"}), "struct_same": _of(pa.struct([("a", pa.int64())]), {"a": 1}),
    "struct_decimal": _of(pa.struct([("a", pa.decimal128(20, 0)), ("b", pa.date32())]), {"a": decimal.Decimal(1), "b": dt.date(2024, 1, 1)}),
    "map": _of(pa.map_(pa.string(), pa.int64()), [("a", 1)], []), "map_binary": _of(pa.map_(pa.binary(), pa.binary()), [(b"\xff", b"\xff")]),
    "map_struct": _of(pa.map_(pa.string(), pa.list_(pa.struct([("t", pa.timestamp("us", "+05:30"))]))), [("a", [{"t": None}])]),
    "bomb": _dictionary(pa.array(["x" * 100_000, "y"])), "nested_times": _nested_times, "extension": _extension, "deep": _deep,
}  # fmt: skip


def plain(rng: Random, form: Form, rows: int, tag: str) -> pa.Table:
    """Valid rows of a form, in the types that Arrow gives them."""
    values = [form.valid(rng, number, tag) for number in range(rows)]
    table = pa.table({name: pa.array([row[name] for row in values]) for name in form.columns})
    if form.name == "native" and rng.random() < 0.5:
        for name in form.times:
            at = table.column_names.index(name)
            table = table.set_column(at, name, table[name].cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC")))
    return table


def mutated(rng: Random, form: Form, table: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """Some columns of other types, or further ones; (table, what was taken)."""
    used = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.choice(list(COLUMNS))
        name = rng.choice((*table.column_names, "further", "context", "context", "title"))
        column = writable(rng, kind, table.num_rows)
        if column is None:
            continue
        used.append(f"{name}:{kind}")
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    return table, tuple(used)


def writable(rng: Random, kind: str, rows: int) -> pa.Array | None:
    """A column of this kind; None where this pyarrow can neither make nor write it."""
    try:
        column = COLUMNS[kind](rng, rows)
        pq.write_table(pa.table({"a": column}), io.BytesIO())
    except (pa.ArrowException, ValueError, TypeError, OverflowError, NotImplementedError, OSError):
        return None
    return column


def shape(rng: Random, table: pa.Table) -> tuple[pa.Table, str]:
    """The table with columns missing, twice, renamed, or none; and the word for it."""
    what = rng.choice(("missing", "twice", "none", "renamed", "case", "many", "context"))
    names = table.column_names
    at = rng.randrange(len(names))
    if what == "missing":
        return table.remove_column(at), what
    if what == "twice":
        return table.append_column(names[at], table.column(at)), what
    if what == "none":
        return table.select([]), what
    if what == "renamed":
        odd_name = rng.choice(("", " ", "a\nb", "a.b", "\u2028", "😀", '"', "x" * 100_000, "\x00", "context"))
        return table.rename_columns([*names[:at], odd_name, *names[at + 1 :]]), what
    if what == "case":
        return table.append_column(names[at].upper(), table.column(at)), what
    if what == "many":
        for number in range(1_000):
            table = table.append_column(f"x{number}", pa.nulls(table.num_rows))
        return table, what
    texts = ["{}", '{"a":1}', "{", "not", '{"a":"\\ud83d"}', '{"a":NaN}', None, "", '{"a":1}}']
    return table.append_column("context", pa.array([rng.choice(texts) for _ in range(table.num_rows)], pa.string())), what


def to_bytes(rng: Random, table: pa.Table) -> bytes:
    options = {
        "compression": rng.choice(("none", "snappy", "gzip", "zstd", "lz4", "brotli")), "use_dictionary": rng.random() < 0.5,
        "row_group_size": rng.choice((1, 7, 100, 10**6)), "data_page_version": rng.choice(("1.0", "2.0")), "version": rng.choice(("1.0", "2.4", "2.6")),
        "write_statistics": rng.random() < 0.7, "store_schema": rng.random() < 0.7,
    }  # fmt: skip
    file = io.BytesIO()
    try:
        pq.write_table(table, file, **options)
    except pa.ArrowException:  # older forms of the format hold less
        file = io.BytesIO()
        pq.write_table(table, file)
    return file.getvalue()
