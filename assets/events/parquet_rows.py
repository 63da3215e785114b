"""Parquet as JSON lines: the form in which its rows are landed, so that every way in reads the same.

Here: row groups to rows of bytes, within a bound of memory, each Arrow type as JSON that keeps its value. Not here: what
the rows mean (they are read as any JSON line).

A time with a zone becomes RFC 3339 in UTC, one without has no zone; a decimal, a date and a time of day are texts; binary
is base64; a duration is microseconds; NaN and infinities stay (NaN, Infinity). A text that is not UTF-8 stays as its
bytes, so its row is refused as any such row. Files that expand without measure (a few bytes for a million rows of a
megabyte) are read in as small steps as it takes.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from polars.exceptions import PanicException

from assets.events import json_lines, rfc3339

STEP_BYTES = 16 * 2**20
STEP_ROWS = 65_536
_ROWS_A_THREAD = 1_000
_OLDEST = pl.CompatLevel.oldest()


def names(path: Path) -> list[str]:
    """The columns' names. Raises pa.ArrowException or OSError where it is no Parquet file."""
    with path.open("rb") as bytes_, pq.ParquetFile(bytes_) as file:
        return file.schema_arrow.names


class Rows:
    """Some rows of a file, some MB at the most.

    columns: as the file types them; a column of texts of which all are UTF-8 may be one of polars.
    """

    def __init__(self, size: int, columns: dict[str, pa.Array | pl.Series]) -> None:
        self.size, self.given = size, columns
        self.plain = {name: _plain(column) for name, column in columns.items()}

    @cached_property
    def usual(self) -> bool:
        """Whether polars writes every value as JSON that keeps it."""
        return bool(self.plain) and all(_polars_writes(column) and not odd.any() for column, odd in self.plain.values())

    @cached_property
    def lines(self) -> pl.Series:
        """The rows as JSON lines (Binary)."""
        if self.usual:
            return self._usual_lines(pl.DataFrame(self.series))
        return _lines(self.size, {name: column for name, (column, _) in self.plain.items()}, self._odd())

    def lines_of(self, mask: pl.Series | None) -> pl.Series:
        """The lines of the masked rows, of all without a mask; a few cost little."""
        if mask is None:
            return self.lines
        return self._usual_lines(pl.DataFrame(self.series).filter(mask)) if self.usual else self.lines.filter(mask)

    @staticmethod
    def _usual_lines(rows: pl.DataFrame) -> pl.Series:
        return _encoded(rows).cast(pl.Binary)

    @cached_property
    def series(self) -> dict[str, pl.Series]:
        return {name: _series(column) for name, (column, _) in self.plain.items()}

    def _odd(self) -> np.ndarray:
        odd = np.zeros(self.size, bool)
        for column, strange in self.plain.values():
            odd |= strange | (not _polars_writes(column))
        return odd

    @property
    def bytes(self) -> int:
        return sum(values.estimated_size() for values in self.series.values())

    def typed(self, wanted: tuple[str, ...]) -> pl.DataFrame | None:
        """The wanted columns as they are typed, where that is what their JSON is read as too; else None.

        Integers, texts and times with a zone: the columns of most logs, which need not be written and read again.
        """
        if not self.usual:
            return None
        columns = {}
        for name in wanted:
            values = self._typed(name) if name in self.plain else pl.Series([None], dtype=pl.String).new_from_index(0, self.size)
            if values is None:
                return None
            columns[name] = values
        return pl.DataFrame(columns)

    def _typed(self, name: str) -> pl.Series | None:
        given, column = self.given[name], self.plain[name][0]
        if isinstance(column, pl.Series):
            return column
        if pa.types.is_timestamp(given.type) and given.type.tz:
            return pl.from_arrow(given.cast(pa.timestamp(given.type.unit, "UTC"))) if _in_years(given) else None
        if pa.types.is_timestamp(given.type) or pa.types.is_duration(given.type):
            return None
        return self.series[name] if pa.types.is_integer(column.type) or pa.types.is_large_string(column.type) else None

    def further(self, wanted: tuple[str, ...]) -> tuple[pl.Series | None, pl.DataFrame | None]:
        """(context, its typed columns where they are there without reading it). Of usual rows.

        The context is the columns beyond the wanted ones as one JSON object a row; None where there are none.
        """
        from assets.events import context  # its kernels are for who reads such a file

        more = {name: values for name, values in self.series.items() if name not in wanted}
        if not more:
            return None, None
        if (made := _of_export(more)) is not None:
            return more["context"], made
        rows = _encoded(pl.DataFrame(more))
        return (json_lines.merged(rows), None) if "context" in more else (rows, context.of_columns(more, self.size))


def _of_export(further: dict[str, pl.Series]) -> pl.DataFrame | None:
    """The typed columns of a context, where these columns are one and at most what is made of it, as an export of our own tables has
    them; None where they are something else."""
    from assets.events import context

    found = further.get("context")
    if found is None or found.dtype != pl.String or further.keys() - {"context"} not in (set(), context.SCHEMA.keys()):
        return None
    if found.null_count() and len(further) == 1:
        return None
    with ThreadPoolExecutor(1) as beside:  # both walk over every byte, outside of the interpreter
        whole = beside.submit(json_lines.whole_objects, found.drop_nulls())
        made = context.typed(found)
        if found.null_count() < len(found) and not whole.result():
            return None
    same = all(further[name].dtype == made[name].dtype and further[name].equals(made[name], null_equal=True) for name in made.columns) \
        if len(further) > 1 else True  # fmt: skip
    return made if same else None


def rows(path: Path, after: int = 0) -> Iterator[Rows]:
    """The rows after the first `after`, some MB at a time, in order. Raises as `names` does."""
    # Opened here: pyarrow takes no name that is not UTF-8.
    with path.open("rb") as bytes_, pq.ParquetFile(bytes_) as file:
        schema, metadata = file.schema_arrow, file.metadata
    frame = _small(path, schema, metadata)
    if frame is not None:
        if len(frame) > after:
            yield Rows(len(frame) - after, _columns(frame[after:]))
        return
    texts = [field.name for field in schema if _is_text(field.type)]
    with path.open("rb") as bytes_, pq.ParquetFile(
        bytes_, metadata=metadata, read_dictionary=texts, pre_buffer=False
    ) as file:
        for batch in file.iter_batches(batch_size=_step(metadata)):
            passed = min(after, batch.num_rows)
            after -= passed
            for piece in _pieces(batch.slice(passed)):
                if piece.num_rows:
                    yield Rows(piece.num_rows, dict(zip(piece.schema.names, piece.columns, strict=True)))


_AS_POLARS = {
    **{getattr(pa, f"{sign}int{bits}")(): getattr(pl, f"{sign.upper()}Int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    pa.bool_(): pl.Boolean, pa.string(): pl.String, pa.large_string(): pl.String,
    **{pa.timestamp(unit, "UTC"): pl.Datetime(unit, "UTC") for unit in ("ms", "us", "ns")},
}  # fmt: skip


def _small(path: Path, schema: pa.Schema, metadata: pq.FileMetaData) -> pl.DataFrame | None:
    """A small file of integers, truths, texts and times in UTC, whole; None for others, and where polars does not read it so.

    polars takes half of Arrow's time for it. What it cannot read, Arrow reads or refuses row by row.
    """
    if metadata.num_rows > _step(metadata):  # of many columns, too: a value of each row is held, however few bytes the file has for it
        return None
    wanted = {field.name: _AS_POLARS.get(field.type) for field in schema}
    if None in wanted.values() or len(wanted) != len(schema) or path.stat().st_size > STEP_BYTES:
        return None
    try:
        frame = pl.read_parquet(path.read_bytes(), rechunk=True)
    except (pl.exceptions.PolarsError, PanicException):
        return None
    if dict(frame.schema) != wanted or len(frame) != metadata.num_rows:
        return None
    # Texts of a dictionary are not written out until here.
    texts = frame.select(pl.sum_horizontal(pl.lit(0), pl.col(pl.String).str.len_bytes().sum())).item()
    return frame if texts <= STEP_BYTES else None


def _columns(frame: pl.DataFrame) -> dict[str, pa.Array | pl.Series]:
    return {column.name: column if column.dtype == pl.String else column.to_arrow() for column in frame}


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()


def _step(metadata: pq.FileMetaData) -> int:
    """Rows at a time: by the bytes and values that the file says its rows have."""
    most = 0.0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = [group.column(place) for place in range(group.num_columns)]
        sizes = sum(max(column.total_uncompressed_size, 16 * column.num_values) for column in columns)
        most = max(most, sizes / max(1, group.num_rows))
    return int(max(1, min(STEP_ROWS, STEP_BYTES / max(most, 1))))


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in pieces of about STEP_BYTES once its dictionaries are written out."""
    size = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        if pa.types.is_dictionary(column.type) and len(column.dictionary):
            lengths = pc.binary_length(column.dictionary).fill_null(0).to_numpy(zero_copy_only=False)
            size += lengths[column.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    if size.sum() <= STEP_BYTES:
        yield batch
        return
    first, held = 0, 0
    for row, more in enumerate(size.tolist()):
        if row > first and held + more > STEP_BYTES:
            yield batch.slice(first, row - first)
            first, held = row, 0
        held += more
    yield batch.slice(first)


def _lines(size: int, columns: dict[str, pa.Array | pl.Series], odd: np.ndarray) -> pl.Series:
    if not columns:
        return pl.Series([b"{}"] * size, dtype=pl.Binary)
    columns = {name: column.to_arrow(compat_level=_OLDEST) if isinstance(column, pl.Series) else column for name, column in columns.items()}
    strange = np.flatnonzero(odd)
    written = [_written({name: column[row] for name, column in columns.items()}) for row in strange.tolist()]
    if strange.size == size:
        return pl.Series("body", written, pl.Binary)
    if strange.size:
        usual = pa.array(np.flatnonzero(~odd))
        columns = {name: column.take(usual) for name, column in columns.items()}
    frame = pl.DataFrame({name: _series(column) for name, column in columns.items()})
    lines = _encoded(frame).cast(pl.Binary)
    if not strange.size:
        return lines
    order = np.argsort(np.concatenate([np.flatnonzero(~odd), strange]), kind="stable")
    return pl.concat([lines, pl.Series("body", written, pl.Binary)]).gather(order)


def _encoded(frame: pl.DataFrame) -> pl.Series:
    # One thread a chunk writes them.
    step = max(_ROWS_A_THREAD, -(-len(frame) // pl.thread_pool_size()))
    if len(frame) > step:
        frame = pl.concat([frame[first : first + step] for first in range(0, len(frame), step)], rechunk=False)
    return frame.select(pl.struct(pl.all()).struct.json_encode().alias("row"))["row"]


def _plain(column: pa.Array | pl.Series) -> tuple[pa.Array | pl.Series, np.ndarray]:
    """A column in a type that JSON has, and which rows polars would not write as they are."""
    nothing = np.zeros(len(column), bool)
    if isinstance(column, pl.Series):
        return column, nothing
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(column.storage)
    if pa.types.is_dictionary(kind):
        kept = _texts_of_dictionary(column)
        return _plain(column.dictionary_decode()) if kept is None else (kept, nothing)
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(column))
    if pa.types.is_large_list(kind):  # polars panics at large lists of texts; a piece is far below what a list may hold
        return _plain(column.cast(pa.list_(kind.value_type)))
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.string()), nothing
    if pa.types.is_float16(kind):
        return _plain(column.cast(pa.float32()))
    if pa.types.is_floating(kind):
        finite = pc.is_finite(column).fill_null(True).to_numpy(zero_copy_only=False)
        return column, ~finite
    if pa.types.is_timestamp(kind):
        return _times(column), nothing
    if pa.types.is_decimal(kind) or pa.types.is_date(kind) or pa.types.is_time(kind):
        return pa.array([None if value is None else str(value) for value in _values(column)], pa.string()), nothing
    if pa.types.is_duration(kind):
        return pc.cast(column, pa.duration("us"), safe=False).cast(pa.int64()), nothing
    if _is_string(kind):
        column = column.cast(pa.large_string())
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            column = column.cast(pa.large_binary())
            return column, _not_text(column)
        return column, nothing
    if _is_text(kind) or pa.types.is_fixed_size_binary(kind) or kind == pa.binary_view():
        encoded = [None if value is None else base64.b64encode(value).decode() for value in column.to_pylist()]
        return pa.array(encoded, pa.string()), nothing
    return column, nothing


def _texts_of_dictionary(column: pa.DictionaryArray) -> pl.Series | None:
    """The texts of a dictionary of which all are UTF-8, each looked at once: a row points to its text. Else None."""
    if not _is_string(column.type.value_type):
        return None
    texts, odd = _plain(column.dictionary)
    return None if odd.any() else pl.from_arrow(texts).gather(pl.from_arrow(column.indices))


def _values(column: pa.Array) -> list:
    if pa.types.is_time64(column.type):
        return [value and _time_of_day(value) for value in pc.cast(column.cast(pa.int64()), pa.string()).to_pylist()] \
            if column.type.unit == "ns" else column.to_pylist()
    return column.to_pylist()


def _time_of_day(nanoseconds: str) -> str:
    seconds, rest = divmod(int(nanoseconds), 10**9)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:09d}"


def _ticks(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The times' whole numbers (0 for null), and which are none."""
    numbers = column.cast(pa.timestamp(column.type.unit, "UTC" if column.type.tz else None)).cast(pa.int64())
    return numbers.fill_null(0).to_numpy(zero_copy_only=False), column.is_null().to_numpy(zero_copy_only=False)


def _in_years(column: pa.Array) -> bool:
    ticks, _ = _ticks(column)
    return bool(rfc3339.inside(ticks, column.type.unit).all())


def _times(column: pa.Array) -> pa.Array:
    """Times as RFC 3339; those outside of the years 1 to 9999 as their whole number, which the contract refuses."""
    ticks, null = _ticks(column)
    inside = rfc3339.inside(ticks, column.type.unit)
    texts = rfc3339.texts(ticks, column.type.unit, bool(column.type.tz), inside & ~null)
    if inside.all():
        return texts
    return pc.if_else(pa.array(inside | null), texts, pa.array(ticks).cast(pa.large_string()))


def _not_text(column: pa.Array) -> np.ndarray:
    try:
        pl.from_arrow(column).cast(pl.String)
    except pl.exceptions.PolarsError:
        return np.array([value is not None and not json_lines.is_text(value) for value in column.to_pylist()], bool)
    return np.zeros(len(column), bool)


def _series(column: pa.Array | pl.Series) -> pl.Series:
    if isinstance(column, pl.Series):
        return column
    return pl.from_arrow(column.cast(pa.large_string()) if pa.types.is_large_binary(column.type) else column)


def _polars_writes(column: pa.Array | pl.Series) -> bool:
    """Whether polars writes the column's values as JSON that keeps them."""
    if isinstance(column, pl.Series):
        return True
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_type
        if pa.types.is_string(inner) or pa.types.is_large_string(inner):
            return not _not_text(column.flatten().cast(pa.large_string()).cast(pa.large_binary())).any()
        return pa.types.is_integer(inner) or pa.types.is_boolean(inner)
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind) \
        or pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)


def _written(row: dict[str, pa.Scalar]) -> bytes:
    """One row as JSON; bytes of a text that is not UTF-8 stay as they are."""
    values = {name: _value(scalar) for name, scalar in row.items()}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def _value(scalar: pa.Scalar):
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        # As a column of one: whatever it holds, it is written as a column's value is.
        return _plain(pa.array([scalar.value] if _has_ticks(kind) else [scalar.as_py()], kind))[0][0].as_py()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        scalar = scalar.cast(pa.large_binary())
    if pa.types.is_large_binary(scalar.type):  # a text, see _plain
        return scalar.as_py().decode("utf-8", "surrogateescape")
    if pa.types.is_map(kind):
        return [{"key": _value(pair["key"]), "value": _value(pair["value"])} for pair in scalar.values]
    if pa.types.is_struct(kind):
        return {name: _value(value) for name, value in scalar.items()}
    if isinstance(scalar, pa.ListScalar):
        return [_value(value) for value in scalar.values] if scalar.values is not None else None
    return _json(scalar.as_py())


def _has_ticks(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind)


def _json(value):
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): _json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(one) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value // dt.timedelta(microseconds=1)
    if isinstance(value, decimal.Decimal):
        return str(value)
    return str(value)
