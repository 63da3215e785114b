"""Spark SQL as the embedded engine (DuckDB) understands it, with Spark's meaning.

Here: text to text, and what cannot be said alike. Most is sqlglot's work; the rules below are where its DuckDB says something
else than Spark 4 (ANSI): a division by zero and a text that is no number are errors, percentiles interpolate, floats are cut and not
rounded to integers, as times are to their milliseconds, arrays are turned round as arrays, and a list of nothing is empty. Not here: tables and connections (embedded.py).

What gives other answers on both engines by its nature (approximate percentiles and counts) is refused, with what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.dialects import Spark
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.schema import MappingSchema

# sqlglot 30 does not know what Spark's date_trunc returns.
_TYPES = {**Spark.EXPRESSION_METADATA, exp.TimestampTrunc: {"returns": exp.DType.TIMESTAMPTZ}}

DIVIDE, FLOORED = "spark_divide", "spark_unix"
# Macros that a connection needs for what `to_duckdb` writes. FLOORED: whole units of so many microseconds since 1970, downwards.
MACROS = (
    f"CREATE OR REPLACE TEMP MACRO {DIVIDE}(a, b) AS CASE WHEN a IS NULL OR b IS NULL THEN NULL WHEN b = 0 THEN error('division by zero') ELSE a / b END",
    f"CREATE OR REPLACE TEMP MACRO {FLOORED}(t, unit) AS (epoch_us(t) - ((epoch_us(t) % unit) + unit) % unit) // unit",
)
_UNITS = {exp.UnixMillis: 1_000, exp.UnixSeconds: 1_000_000}

_APPROXIMATE = {
    exp.ApproxQuantile: ("percentile_approx", "percentile_disc(0.5) within group (order by x)"),
    exp.ApproxDistinct: ("approx_count_distinct", "count(distinct x)"),
    exp.ApproxTopK: ("approx_top_k", "count(*) with group by, order by and limit"),
}
# Functions that say the same on both engines by tests/sql/test_engines.py, as they are or by a rule below. Others are refused: DuckDB has many of
# Spark's names with another meaning (weekday, hash, substring from 0), and says nothing.
_SAME = {
    exp.Abs, exp.And, exp.Array, exp.ArrayAgg, exp.ArrayContains, exp.ArraySize, exp.ArraySlice, exp.ArraySort, exp.ArrayUniqueAgg, exp.Avg, exp.Case, exp.Cast,
    exp.Ceil, exp.Coalesce, exp.Concat, exp.ConcatWs, exp.Count, exp.CountIf, exp.DenseRank, exp.Exists, exp.Explode, exp.Floor, exp.GenerateSeries,
    exp.Greatest, exp.Hour, exp.If, exp.Lag, exp.Lead, exp.Least, exp.Length, exp.Lower, exp.Max, exp.Min, exp.Nullif, exp.Or, exp.PercentileCont, exp.PercentileDisc,
    exp.Quantile, exp.Rank, exp.Replace, exp.Reverse, exp.RowNumber, exp.Sqrt, exp.Struct, exp.Sum, exp.TimestampTrunc, exp.Transform, exp.Trim, exp.TryCast,
    exp.UnixMicros, exp.UnixMillis, exp.UnixSeconds, exp.Upper, exp.Flatten,
}  # fmt: skip
_INTEGERS = {exp.DType.TINYINT, exp.DType.SMALLINT, exp.DType.INT, exp.DType.BIGINT}
_SPELLED_OTHERWISE = {*exp.DataType.TEMPORAL_TYPES, *exp.DataType.REAL_TYPES}
_WHOLE = {*_INTEGERS, exp.DType.BOOLEAN, exp.DType.TEXT, exp.DType.VARCHAR, exp.DType.NULL}  # nothing is cut off them


class Untranslatable(Exception):
    """A query that the embedded engine cannot answer as Spark does; the message says why."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


class NotAQuery(Untranslatable):
    """A statement that changes something: no engine is asked."""


def schema_of(tables: Mapping[str, pa.Schema]) -> dict[str, dict[str, str]]:
    """Arrow schemas as Spark's names of types, column by column."""
    return {name: {field.name: spark_name(field.type) for field in schema} for name, schema in tables.items()}


def spark_name(kind: pa.DataType) -> str:
    """An Arrow type as Spark SQL spells it. Raises ValueError for one that no table of the lake has."""
    simple = {
        pa.string(): "STRING", pa.large_string(): "STRING", pa.int64(): "BIGINT", pa.int32(): "INT", pa.int16(): "SMALLINT",
        pa.int8(): "TINYINT", pa.bool_(): "BOOLEAN", pa.binary(): "BINARY", pa.float64(): "DOUBLE", pa.float32(): "FLOAT",
        pa.date32(): "DATE",
    }  # fmt: skip
    if kind in simple:
        return simple[kind]
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz else "TIMESTAMP_NTZ"
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"ARRAY<{spark_name(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"STRUCT<{', '.join(f'{field.name}: {spark_name(field.type)}' for field in kind)}>"
    if pa.types.is_map(kind):
        return f"MAP<{spark_name(kind.key_type)}, {spark_name(kind.item_type)}>"
    raise ValueError(f"no Spark type for {kind}")


def arrow_type(spark_type: str) -> pa.DataType:
    """The other way round, of the types that the line's tables have. Raises ValueError for another."""
    if spark_type.startswith("ARRAY<"):
        return pa.list_(arrow_type(spark_type[6:-1]))
    simple = {
        "STRING": pa.string(), "BIGINT": pa.int64(), "INT": pa.int32(), "BOOLEAN": pa.bool_(), "BINARY": pa.binary(), "DOUBLE": pa.float64(),
        "FLOAT": pa.float32(), "DATE": pa.date32(), "TIMESTAMP": pa.timestamp("us", "UTC"),
    }  # fmt: skip
    if spark_type not in simple:
        raise ValueError(f"no table of the line has {spark_type}")
    return simple[spark_type]


def duckdb_name(spark_type: str) -> str:
    """A type as Spark spells it, as DuckDB does."""
    return exp.DataType.build(spark_type, dialect="spark").sql("duckdb")


def to_duckdb(sql: str, tables: Mapping[str, Mapping[str, str]]) -> str:
    """One query in Spark SQL for DuckDB. tables: columns and their Spark types, by the names that the query uses.

    Raises Untranslatable; sqlglot's own errors for what is no SQL.
    """
    tree = sqlglot.parse_one(sql, read="spark")
    if not isinstance(tree, exp.Query):  # nothing is written, and no file is read, by this way
        raise NotAQuery("only one query can be asked: SELECT ...")
    return written(typed(tree, tables))


def typed(query: exp.Query, tables: Mapping[str, Mapping[str, str]]) -> exp.Query:
    """A query in Spark SQL with each column's table and type. Raises sqlglot's OptimizeError for a column that is not there."""
    schema = MappingSchema({name: dict(columns) for name, columns in tables.items()}, dialect="spark")
    query = qualify(query, schema=schema, dialect="spark", quote_identifiers=False, identify=False)
    return annotate_types(query, schema=schema, dialect="spark", expression_metadata=_TYPES)


def written(tree: exp.Query) -> str:
    """A query for DuckDB. tree: qualified, with types; it is not kept as it was. Raises Untranslatable."""
    for node in reversed(list(tree.walk())):  # what lies within first
        if (new := _ruled(node)) is not node:
            new.type = node.type
            node.replace(new)
    return tree.sql("duckdb")


def _ruled(node: exp.Expression) -> exp.Expression:
    """The node as DuckDB has to be told it; the same one where sqlglot does it right."""
    if isinstance(node, exp.Func) and type(node) not in _SAME and type(node) not in _APPROXIMATE:
        name = node.name if isinstance(node, exp.Anonymous) else node.sql_name()
        raise Untranslatable(f"{name.lower()} has not been compared with Spark's", _line(node))
    if type(node) in _APPROXIMATE:
        name, better = _APPROXIMATE[type(node)]
        raise Untranslatable(f"{name} is approximate, each engine in its own way; write {better}", _line(node))
    if isinstance(node, exp.Reverse) and node.this.type is not None and node.this.is_type(exp.DType.ARRAY):
        return exp.Anonymous(this="list_reverse", expressions=[node.this])
    if isinstance(node, exp.Quantile):  # DuckDB's quantile is the discrete one
        return exp.Anonymous(this="quantile_cont", expressions=[node.this, node.args["quantile"]])
    if isinstance(node, exp.WithinGroup) and isinstance(node.this, (exp.PercentileDisc, exp.PercentileCont)):
        return _percentile(node)
    if isinstance(node, exp.Div):
        return _divided(node)
    if type(node) in _UNITS:  # DuckDB rounds
        return exp.Anonymous(this=FLOORED, expressions=[node.this, exp.Literal.number(_UNITS[type(node)])])
    if isinstance(node, (exp.Ceil, exp.Floor)) and not isinstance(node.parent, exp.Cast):
        return exp.Cast(this=node.copy(), to=exp.DataType.build("BIGINT"))
    if _inner(node, exp.Sum) and node.type is not None and node.type.this == exp.DType.BIGINT and not _belongs(node):
        return exp.Cast(this=node.copy(), to=exp.DataType.build("BIGINT"))  # DuckDB adds up to 128 bits
    if isinstance(node, exp.CountIf):  # DuckDB's is null where no value is there
        return exp.Count(this=exp.Case(ifs=[exp.If(this=node.this, true=exp.Literal.number(1))]))
    if _inner(node, exp.ArrayAgg, exp.ArrayUniqueAgg) and not _belongs(node):
        return exp.Coalesce(this=node.copy(), expressions=[exp.Array()])  # of nothing DuckDB makes no list
    if isinstance(node, exp.Cast):
        return _cast(node)
    if isinstance(node, exp.Like) and not isinstance(node.parent, exp.Escape):
        return exp.Escape(this=node.copy(), expression=exp.Literal.string("\\"))
    return node


def _inner(node: exp.Expression, *kinds: type[exp.Expression]) -> bool:
    """Whether it is such an aggregate, with what belongs to it: a filter, a window."""
    while isinstance(node, (exp.Filter, exp.Window)):
        node = node.this
    return isinstance(node, kinds)


def _belongs(node: exp.Expression) -> bool:
    return isinstance(node.parent, (exp.Filter, exp.Window)) and node.parent.this is node


def _percentile(node: exp.WithinGroup) -> exp.Expression:
    order = node.expression.expressions
    if len(order) != 1 or order[0].args.get("desc"):
        raise Untranslatable("a percentile within a group is ordered by one expression, ascending", _line(node))
    name = "quantile_disc" if isinstance(node.this, exp.PercentileDisc) else "quantile_cont"
    return exp.Anonymous(this=name, expressions=[order[0].this, node.this.this])


def _divided(node: exp.Div) -> exp.Expression:
    if all(side.type is not None and side.is_type(exp.DType.DECIMAL) for side in (node.this, node.expression)):
        raise Untranslatable("a decimal divided by a decimal has other digits; cast one of them to double", _line(node))
    return exp.Anonymous(this=DIVIDE, expressions=[node.this, node.expression])


def _cast(node: exp.Cast) -> exp.Expression:
    value = node.this
    if node.args.get("safe"):
        raise Untranslatable("try_cast has not been compared with Spark's", _line(node))
    if node.to.this in exp.DataType.TEXT_TYPES and value.type is not None and value.type.this in _SPELLED_OTHERWISE:
        raise Untranslatable("a time or a float as text is spelled by each engine in its own way; leave it as it is", _line(node))
    cut = node.to.this in _INTEGERS and (value.type is None or value.type.this not in _WHOLE)
    return exp.Cast(this=exp.Anonymous(this="trunc", expressions=[value]) if cut else value, to=node.to)


def _line(node: exp.Expression) -> int:
    return min((part.meta["line"] for part in node.walk() if "line" in part.meta), default=1)
