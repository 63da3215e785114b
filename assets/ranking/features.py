"""From columns of `training_samples` to arrays: ids and lists hashed to table rows, counters and rates scaled, labels, masks.

Here: which columns are features, and their transforms, fitted on training samples only and saved with the model.
Not here: reading Delta (samples.py), torch (model.py).

A feature is known at display time: the ids of config.TABLES, the lists of config.SEQUENCES, and every numeric column whose
name starts with user_, note_ or author_ and is no id (counters and rates as of the hour before). Everything else is label
or bookkeeping.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from assets.ranking.config import (
    CROSSES, HEADS, OUTPUTS, SEQUENCE_LENGTH, SEQUENCES, RankerConfig, RankerError,
)  # fmt: skip

if TYPE_CHECKING:
    from assets.ranking.collisions import IdMaps

GROUPS = ("user_topic_", "user_", "note_", "author_")  # the first that fits is a column's group
IDS = ("user_id", "note_id", "author_id")
DIRECT = ("position", "hour_of_day")  # small integers: the value is the row
LABELS = tuple(f"label_{head}" for head in HEADS)
MASK = "engaged"
DWELL_COLUMN = "dwell_ms"
TARGETS = (MASK, *LABELS, DWELL_COLUMN)  # columns that labels are made of
CLIP = 5.0  # standard deviations; a counter far beyond what training saw says no more than a large one


class Encoded(NamedTuple):
    """n samples as arrays.

    ids: int32 [n, features], rows of the tables in the order of config.TABLES. dense: float32 [n, dense inputs].
    labels and weights: float32 [n, outputs]; a weight of 0 masks the output out (not engaged, or no label). The last label
    is log1p of the reading time in seconds, the others are 0 or 1.
    lists: int32 [n, list columns, SEQUENCE_LENGTH], rows of the tables they share, newest first, 0 behind the end.
    lengths: int32 [n, lists], entries of each list.
    """

    ids: np.ndarray
    dense: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    lists: np.ndarray
    lengths: np.ndarray

    def rows(self, index) -> Encoded:
        return Encoded(*(array[index] for array in self))


def concat(parts: list[Encoded]) -> Encoded:
    return parts[0] if len(parts) == 1 else Encoded(*(np.concatenate(arrays) for arrays in zip(*parts)))


@dataclass(frozen=True)
class Dense:
    """One counter or rate. transform: log1p (signed), or logit for values that lie in [0, 1]; then (x - mean) / std."""

    name: str
    transform: str
    mean: float
    std: float


@dataclass(frozen=True)
class FeatureSchema:
    """What the model reads, in order: tables (feature to rows), dense inputs, a flag a group that says "no profile",
    lists (names of config.SEQUENCES).

    ids: the rows of the features that have a map (collisions = "managed"), in a file of its own; None: all are hashed.
    """

    tables: dict[str, int]
    dense: tuple[Dense, ...]
    sequences: tuple[str, ...] = ()
    ids: IdMaps | None = field(default=None, compare=False, repr=False)

    def rows(self, feature: str, *values: pa.Array) -> np.ndarray:
        """Rows of the feature's table, int64 [n], 0 where not known. values: its ids, or both columns of a cross."""
        if self.ids is not None and feature in self.ids:
            return self.ids.rows(feature, *keys(*values))
        size = self.tables[feature]
        return crossed_rows(*values, size) if len(values) == 2 else table_rows(feature, values[0], size)

    @property
    def columns(self) -> list[str]:
        return [*id_columns(self.tables), *(d.name for d in self.dense), *self.list_columns]

    @property
    def list_columns(self) -> dict[str, str]:
        """Column of a list -> the table its ids lie in."""
        return {column: table for name in self.sequences for column, table in SEQUENCES[name].items()}

    @property
    def groups(self) -> tuple[str, ...]:
        there = {group_of(d.name) for d in self.dense}
        return tuple(group for group in GROUPS if group in there)

    @property
    def width(self) -> int:
        """Dense inputs: one a column, one a group, and the hour's two."""
        return len(self.dense) + len(self.groups) + 2

    def as_dict(self) -> dict:
        return {
            "tables": self.tables, "dense": [asdict(d) for d in self.dense], "sequences": list(self.sequences),
            "outputs": list(OUTPUTS),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: dict) -> FeatureSchema:
        """Raises RankerError for the schema of a version that had other outputs."""
        if values.get("outputs") != list(OUTPUTS):
            raise RankerError("this model version was written by older code, with other heads; train the ranker anew")
        return cls(values["tables"], tuple(Dense(**d) for d in values["dense"]), tuple(values["sequences"]))


def group_of(column: str) -> str:
    return next(group for group in GROUPS if column.startswith(group))


def id_columns(tables: Iterable[str]) -> list[str]:
    """The columns from which table rows are made; a cross is made of columns that are features themselves."""
    return [name for name in tables if name not in CROSSES]


def splitmix64(values: np.ndarray) -> np.ndarray:
    """Mix int64 to uint64 so that nearby ids land far apart (Steele, Lea, Flood 2014, the finalizer of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = values.astype(np.int64, copy=False).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def table_rows(feature: str, values: pa.Array, rows: int) -> np.ndarray:
    """Rows of an embedding table, int64 [n]: 0 where null, else 1 + mix(id) mod (rows - 1).

    Strings are hashed first (xxh3, the same in every process and on every machine). position and hour_of_day keep their
    value, cut to the table.
    """
    null = values.is_null().to_numpy(zero_copy_only=False)
    if feature in DIRECT:
        numbers = values.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        return np.where(null, 0, np.clip(numbers, 0, rows - 2) + 1)
    return hashed_rows(mixed(values), null, rows)


def mixed(values: pa.Array) -> np.ndarray:
    """uint64 [n] from ids or strings, well spread."""
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = _hash_strings(values)
    return splitmix64(values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))


def crossed_rows(first: pa.Array, second: pa.Array, rows: int) -> np.ndarray:
    """Rows of a table of pairs, int64 [n]: 0 where either is null."""
    return hashed_rows(*keys(first, second), rows)


def keys(*values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """uint64 [n], an id or a pair of ids as a well spread number, and bool [n], where one is null. Two integers never have the
    same; texts and pairs are hashed to 64 bits."""
    null = values[0].is_null().to_numpy(zero_copy_only=False)
    if len(values) == 1:
        return mixed(values[0]), null
    first, second = values
    return paired(mixed(first), mixed(second)), null | second.is_null().to_numpy(zero_copy_only=False)


def key_columns(features: Iterable[str]) -> list[str]:
    """The columns that observed_keys reads."""
    return sorted({name for feature in features for name in CROSSES.get(feature, (feature,))})


def observed_keys(rows: pa.Table | pa.RecordBatch, features: Iterable[str]) -> dict[str, np.ndarray]:
    """By feature the keys of the rows that have one, as they stand."""
    found = {}
    for feature in features:
        key, null = keys(*(_array(rows, name) for name in CROSSES.get(feature, (feature,))))
        found[feature] = key[~null]
    return found


def paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One uint64 a pair of them. The second is mixed once more: a plain xor would take (3, 5) for (5, 3)."""
    return splitmix64((first ^ splitmix64(second.view(np.int64))).view(np.int64))


def hashed_rows(hashed: np.ndarray, null: np.ndarray, rows: int) -> np.ndarray:
    return np.where(null, 0, (hashed % np.uint64(rows - 1)).astype(np.int64) + 1)


def _hash_strings(values: pa.Array) -> pa.Array:
    coded = values.dictionary_encode()
    hashed = [xxhash.xxh3_64_intdigest(text.encode()) for text in coded.dictionary.to_pylist()]
    return pa.array(np.array(hashed, dtype=np.uint64).view(np.int64)).take(coded.indices)


def dense_columns(schema: pa.Schema) -> list[str]:
    """The counters and rates of a table: numeric, named user_*, note_* or author_*, and no id."""
    return [f.name for f in schema if f.name.startswith(GROUPS) and f.name not in IDS and _numeric(f.type)]


def _numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def check_columns(schema: pa.Schema, config: RankerConfig) -> None:
    """Raises RankerError naming every column that `training_samples` lacks."""
    lists = [column for name in config.sequences for column in SEQUENCES[name]]
    if missing := [name for name in lists if name not in schema.names]:
        raise RankerError(
            f"`training_samples` lacks the lists {', '.join(missing)}: it was made before there were any; materialize "
            "user_histories, user_topic_profiles and training_samples again for these hours, or train with sequences = []"
        )
    needed = ["hour", "session_start", *id_columns(config.tables), *TARGETS]
    if missing := [name for name in needed if name not in schema.names]:
        raise RankerError(f"`training_samples` lacks {', '.join(missing)}; see sql/lake/training_samples.sql")


def fit(sample: pa.Table, config: RankerConfig) -> FeatureSchema:
    """Choose and fit the transforms on a sample of training rows: rates are floats that stay within [0, 1]."""
    dense = tuple(_fit_one(sample, name) for name in dense_columns(sample.schema))
    return FeatureSchema(dict(config.tables), dense, config.sequences)


def _fit_one(sample: pa.Table, name: str) -> Dense:
    column = sample.column(name)
    span = pc.min_max(column).as_py()
    known = span["min"] is not None
    rate = known and not pa.types.is_integer(column.type) and span["min"] >= 0 and span["max"] <= 1
    transform = "logit" if rate else "log1p"
    values = _transformed(_floats(column), transform)
    values = values[np.isfinite(values)]
    mean, std = (float(values.mean()), float(values.std())) if len(values) else (0.0, 1.0)
    return Dense(name, transform, mean, std if std > 1e-6 else 1.0)


def positive_rates(sample: pa.Table) -> tuple[float, ...]:
    """Mean label by output (for a head: the share of positives) over the rows that its mask lets in; 0 without any."""
    labels = np.zeros((sample.num_rows, len(OUTPUTS)), dtype=np.float32)
    weights = np.zeros_like(labels)
    _fill_labels(sample, labels, weights)
    return tuple(float(x) for x in (labels * weights).sum(0, np.float64) / np.maximum(weights.sum(0, np.float64), 1))


def _floats(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """float64 [n], NaN where null."""
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)  # pyarrow writes null as NaN


def _transformed(values: np.ndarray, transform: str) -> np.ndarray:
    if transform == "logit":
        inside = np.clip(values, 1e-4, 1 - 1e-4)
        return np.log(inside / (1 - inside))
    return np.sign(values) * np.log1p(np.abs(values))


def encode(rows: pa.Table | pa.RecordBatch, schema: FeatureSchema, labelled: bool = True) -> Encoded:
    """Arrays of the rows. labelled=False leaves labels and weights at 0 (scoring: the columns need not be there)."""
    if missing := [name for name in schema.columns if name not in rows.schema.names]:
        raise RankerError(f"the samples lack {', '.join(missing)}, which this model version reads")
    ids = np.empty((rows.num_rows, len(schema.tables)), dtype=np.int32)
    for i, feature in enumerate(schema.tables):
        ids[:, i] = schema.rows(feature, *(_array(rows, name) for name in CROSSES.get(feature, (feature,))))
    labels = np.zeros((rows.num_rows, len(OUTPUTS)), dtype=np.float32)
    weights = np.zeros_like(labels)
    if labelled:
        _fill_labels(rows, labels, weights)
    return Encoded(ids, encode_dense(rows, schema), labels, weights, *encode_lists(rows, schema))


def encode_lists(rows: pa.Table | pa.RecordBatch, schema: FeatureSchema) -> tuple[np.ndarray, np.ndarray]:
    """lists and lengths of Encoded. Of a list the first SEQUENCE_LENGTH entries are read; null is a list without any.

    Raises RankerError where the columns of a list differ in length: entry i of each is the same event.
    """
    lists = np.zeros((rows.num_rows, len(schema.list_columns), SEQUENCE_LENGTH), dtype=np.int32)
    lengths = np.zeros((rows.num_rows, len(schema.sequences)), dtype=np.int32)
    place = 0
    for s, name in enumerate(schema.sequences):
        for i, (column, table) in enumerate(SEQUENCES[name].items()):
            entries, found = _entries(_array(rows, column))
            if i and not np.array_equal(found, lengths[:, s]):
                raise RankerError(f"the lists {', '.join(SEQUENCES[name])} of a sample differ in length")
            lengths[:, s] = found
            _pad(schema.rows(table, entries), lengths[:, s], lists[:, place])
            place += 1
    return lists, lengths


def unpadded(lists: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Of a column of lists [n, SEQUENCE_LENGTH] the entries, one after the other; lengths [n]."""
    entries = np.empty(lengths.sum(), lists.dtype)
    _unpad(lists, lengths, entries)
    return entries


@numba.njit(nogil=True, cache=True)
def _pad(entries, lengths, lists):
    e = 0
    for i in range(len(lengths)):
        for j in range(lengths[i]):
            lists[i, j] = entries[e]
            e += 1


@numba.njit(nogil=True, cache=True)
def _unpad(lists, lengths, entries):
    e = 0
    for i in range(len(lengths)):
        for j in range(lengths[i]):
            entries[e] = lists[i, j]
            e += 1


def _entries(column: pa.ListArray) -> tuple[pa.Array, np.ndarray]:
    """The entries of all lists, one after the other, each list cut to SEQUENCE_LENGTH; and how many each has."""
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    if (lengths > SEQUENCE_LENGTH).any():
        column = pc.list_slice(column, 0, SEQUENCE_LENGTH)
        lengths = np.minimum(lengths, SEQUENCE_LENGTH)
    return column.flatten(), lengths


def encode_dense(rows: pa.Table | pa.RecordBatch, schema: FeatureSchema) -> np.ndarray:
    """float32 [n, schema.width]: standardised values, 0 for unknown; "no profile" flags; the hour on a circle.

    The circle lets the model say something of an hour that training never saw, and joins 23 to 0.
    """
    dense = np.empty((rows.num_rows, schema.width), dtype=np.float32)
    absent = {group: np.ones(rows.num_rows, dtype=bool) for group in schema.groups}
    for i, column in enumerate(schema.dense):
        values = (_transformed(_floats(_array(rows, column.name)), column.transform) - column.mean) / column.std
        known = np.isfinite(values)
        dense[:, i] = np.clip(np.where(known, values, 0), -CLIP, CLIP)
        absent[group_of(column.name)] &= ~known
    for i, group in enumerate(schema.groups):
        dense[:, len(schema.dense) + i] = absent[group]
    angle = _floats(_array(rows, "hour_of_day")) * (2 * np.pi / 24)
    dense[:, -2] = np.nan_to_num(np.cos(angle))
    dense[:, -1] = np.nan_to_num(np.sin(angle))
    return dense


def _fill_labels(rows: pa.Table | pa.RecordBatch, labels: np.ndarray, weights: np.ndarray) -> None:
    engaged = np.nan_to_num(_floats(_array(rows, MASK))) > 0
    for i, name in enumerate(LABELS):
        values = _floats(_array(rows, name))
        known = np.isfinite(values)
        labels[:, i] = np.where(known, values, 0) > 0
        weights[:, i] = known if i == 0 else known & engaged
    dwell = _floats(_array(rows, DWELL_COLUMN))
    known = np.isfinite(dwell)
    labels[:, -1] = np.log1p(np.where(known, dwell, 0).clip(min=0) / 1000)
    weights[:, -1] = known & engaged


def _array(rows: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    column = rows.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
