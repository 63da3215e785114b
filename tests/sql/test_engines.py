"""The same file on both engines: the same rows, types and order of lists, whatever the rows hold."""

import datetime as dt
import math
import random
from dataclasses import replace

import pyarrow as pa
import pytest
import sqlglot

from assets.attribution.rules import Rules
from assets.engines import embedded, translate
from assets.engines.choice import embedded_only, on_spark
from assets.engines.translate import arrow_type
from assets.lake import Lake, Table, Window
from assets.samples import sql_job
from tests.sql.test_sql_jobs import JOBS, KINDS

pytestmark = pytest.mark.slow
START = dt.datetime(2026, 1, 5, 22, tzinfo=dt.UTC)  # hours on both sides of a midnight
HOURS = 4
TEXTS = [None, "", "ios", "homefeed", "é\U0001f600", "'", '"\\', "%_", "a\nb", "\x00z"[1:], "NaN", "0", "x" * 300, "Z", "a", "\u00df", "\uffff"]
WHOLE = [None, 0, 1, -1, 2, 3, 2**31 - 1, -(2**31)]
LONG = [*WHOLE, 2**53 + 1, 2**62, -(2**62)]
ACTIONS = ["impression", "click", "view_end", "like", "fav", "comment", "share", "follow", "hide", "profile_enter"]


def value(dice, name, kind, hour):
    if name == "hour":
        return hour
    if kind == "TIMESTAMP":
        edge = dice.choice([0, 1, 999, 1000, 59_999_999, 3_599_999_999, dice.randrange(3_600_000_000)])
        moment = hour + dt.timedelta(microseconds=edge)
        spread = name in ("ingest_time", "first_click_time", "impression_session_start", "session_end")
        return None if spread and dice.random() < 0.2 else moment + dt.timedelta(minutes=dice.choice([0, 0, 5, 70]) if spread else 0)
    if name == "action":
        return dice.choice(ACTIONS)
    if name in ("user_id", "note_id"):
        return dice.choice([0, 1, 2, 3, 4, -7, 2**63 - 1, -(2**63)])
    if name in ("author_id", "dwell_ms", "impressions", "clicks"):
        return dice.choice(WHOLE if name != "author_id" or kind == "INT" else LONG) if name != "impressions" else dice.choice([1, 2, 7])
    if kind.startswith("ARRAY<"):
        return dice.choice([None, [], [value(dice, "", kind[6:-1], hour) for _ in range(3)]])
    kinds = {"STRING": TEXTS, "BIGINT": WHOLE, "INT": [None, 0, 1, 19], "BOOLEAN": [None, True, False], "BINARY": [None, b"", b"\xff"]}
    return dice.choice([None, 0.0, -0.0, 0.1, 1 / 3, math.inf, math.nan]) if kind == "DOUBLE" else dice.choice(kinds[kind])


def filled(lake, names, seed):
    """The tables of the line that jobs read, with some hundred rows of four hours each."""
    dice = random.Random(seed)
    for name in names:
        schema = pa.schema([pa.field(column, arrow_type(kind)) for column, kind in KINDS[name].items()])
        rows = []
        for number in range(400):
            hour = START + dt.timedelta(hours=dice.randrange(HOURS))
            row = {column: value(dice, column, kind, hour) for column, kind in KINDS[name].items()}
            rows.append(row | ({"event_id": f"e{number}"} if "event_id" in row else {}))
        lake.append_once(Table(name, schema, "rows of a test"), pa.Table.from_pylist(rows, schema), "test", 1)


def content(lake, job):
    found = lake.read(job.name)
    return found.schema, sorted(repr(row) for row in found.to_pylist())


@pytest.mark.parametrize("seed", [1, 2])
def test_every_job_gives_the_same_rows_on_both(spark, tmp_path, seed):
    base = {name for job in JOBS.values() for name in job.inputs} - set(JOBS)
    both = {}
    for engines in (embedded_only(), on_spark(spark)):
        lake = Lake(str(tmp_path / engines.wanted))
        filled(lake, sorted(base), seed)
        both[engines.wanted] = lake
        for job in JOBS.values():
            done = sql_job.run_job(job, lake, engines, Window(START, START + dt.timedelta(hours=HOURS)), Rules())
            assert done.engine.name == engines.wanted
    for job in JOBS.values():
        (schema, rows), (spark_schema, spark_rows) = (content(both[name], job) for name in ("duckdb", "spark"))
        assert schema.equals(spark_schema), job.name
        assert rows == spark_rows, job.name
    assert sum(len(content(both["duckdb"], job)[1]) for job in JOBS.values()) > 1000


def test_a_difference_between_the_engines_is_found(spark, lake, monkeypatch):
    filled(lake, ["events"], 1)
    job, window = JOBS["account_actions"], Window(START, START + dt.timedelta(hours=1))
    engines = replace(embedded_only(), spark=lambda: spark)
    found = sql_job.compared(job, lake, engines, window, Rules())
    assert found.same and found.rows > 50 and found.embedded_s > 0 and found.spark_s > 0
    written = translate.to_duckdb
    monkeypatch.setattr(translate, "to_duckdb", lambda sql, tables: written(sql, tables).replace("COUNT(*)", "COUNT(*) + 1", 1))
    wrong = sql_job.compared(job, lake, engines, window, Rules())
    assert not wrong.same and wrong.embedded_only == wrong.spark_only == found.rows


# Each in the lake's own terms: what the two engines would otherwise say differently.
QUERIES = {
    "no value is counted": "select count_if(e.b) as a, sum(e.i) as b, count(e.i) as c, max(e.s) as d from rows as e where e.i is null",
    "lists of nothing": "select collect_list(e.i) as a, collect_set(e.b) as b from rows as e where e.i = 12345",
    "lists leave null out": "select array_sort(collect_list(e.i)) as a from rows as e",
    "a list turned round": "select reverse(array_sort(collect_list(e.i))) as a, reverse('abc') as b from rows as e",
    "some of a list": "select slice(array_sort(collect_list(e.i)), 2, 3) as a, slice(array_sort(collect_list(e.i)), -2, 2) as b from rows as e",
    "percentiles": "select percentile(e.i, 0.5) as a, percentile_cont(0.3) within group (order by e.i) as d, percentile(e.i, array(0.1, 0.25, 0.9)) as b, cast(percentile_disc(0.5) within group (order by e.i) as bigint) as c from rows as e",
    "integers of floats": "select e.n, cast(e.f as bigint) as a, cast(-e.f as int) as b, cast(e.f * 1.5 as bigint) as c from rows as e where e.f between -1000 and 1000",
    "division": "select e.n, e.i / 7 as a, e.n / 2 as b, e.n % 3 as c, -e.n % 3 as d, e.n div 2 as g from rows as e",
    "milliseconds before and after 1970": "select e.n, unix_millis(e.t) as a, unix_seconds(e.t) as b, unix_micros(e.t) as c from rows as e",
    "hours and days": "select e.n, date_trunc('HOUR', e.t) as a, date_trunc('DAY', e.t) as b, hour(e.t) as c, e.t + interval 90 minutes as d from rows as e",
    "greatest and least": "select e.n, greatest(e.i, e.n) as a, least(e.i, e.n, null) as b, coalesce(e.i, -1) as c from rows as e",
    "texts": "select e.n, length(e.s) as a, upper(replace(e.s, '\u00df', 's')) as b, concat_ws(',', e.s, null, 'x') as c, e.s || 'y' as d, e.s like 'a%' as f, e.s like '%\\\\_%' as g from rows as e",
    "order of nulls": "select e.n, row_number() over (order by e.i, e.n) as a, row_number() over (order by e.s desc, e.n) as b from rows as e",
    "a running sum": "select e.n, sum(e.i) over (order by e.n rows unbounded preceding) as a, lag(e.s) over (order by e.n) as b from rows as e",
    "rows of a list": "select e.n, explode(sequence(e.n, e.n + 2)) as a from rows as e where e.n < 5",
    "hours of a range": "select e.n, explode(sequence(date_trunc('HOUR', e.t), date_trunc('HOUR', e.t) + interval 2 hours, interval 1 hour)) as a from rows as e where e.n < 5",
    "comparisons with NaN": "select e.n, e.f > 1 as a, e.f = e.f as b, max(e.f) over () as c from rows as e",
    "numbers": "select e.n, abs(e.i) as a, ceil(e.f) as b, floor(e.f) as c, sqrt(abs(e.i)) as d, null / 0 as g from rows as e where e.f between -100 and 100",
    "means": "select e.b as k, avg(e.i) as a, min(e.s) as b, max(e.n) as c, count(distinct e.i) as d from rows as e group by e.b",
    "ranks": "select e.n, rank() over (order by e.i nulls first) as a, dense_rank() over (order by e.i) as b, lead(e.i) over (order by e.n) as c from rows as e",
    "more texts": "select e.n, lower(replace(e.s, '\u00df', 's')) as a, trim(e.s) as b, concat('<', e.s, '>') as c, replace(e.s, 'o', '0') as d, cast(e.n as string) as f from rows as e",
    "lists and structs": "select e.n, transform(array(e.n, e.i), x -> x + 1) as a, size(array(e.i)) as c, array_contains(array(1, 2), e.n) as d, flatten(array(array(e.n), array(1))) as f, struct(e.n, e.s).s as g from rows as e",
    "there is one": "select e.n from rows as e where exists (select 1 from rows as o where o.i = e.n) and e.n in (0, 1, 2, 3, 50)",
    "null-safe": "select e.n, e.i <=> null as a, e.s is distinct from 'a' as b, nullif(e.n, 3) as c, if(e.b, 1, 2) as d from rows as e",
}  # fmt: skip


def test_every_function_that_is_let_through_is_compared_here_or_in_a_job():
    texts = [*QUERIES.values(), *(sql_job.render(job, sql_job.EXAMPLE, Rules()) for job in JOBS.values())]
    used = {type(node) for text in texts for node in sqlglot.parse_one(text, read="spark").find_all(sqlglot.exp.Func)}
    assert not {kind.__name__ for kind in translate._SAME - used}


def hostile_rows():
    dice = random.Random(7)
    start = dt.datetime(1969, 12, 31, 23, 59, 59, 999_500, tzinfo=dt.UTC)
    return pa.table({
        "hour": pa.array([START] * 60, pa.timestamp("us", "UTC")), "n": pa.array(range(60), pa.int64()),
        "i": pa.array([dice.choice([None, 0, 1, 2, 3, -5, 11]) for _ in range(60)], pa.int64()),
        "f": pa.array([dice.choice([None, 0.5, -0.5, 1.5, 2.5, -2.5, 1 / 3, math.nan, 99.999]) for _ in range(60)], pa.float64()),
        "s": pa.array([dice.choice(TEXTS) for _ in range(60)]), "b": pa.array([dice.choice([None, True, False]) for _ in range(60)]),
        "t": pa.array([start + dt.timedelta(microseconds=dice.choice([0, 1, 499, 500, 501, 10**9 + 3])) for _ in range(60)], pa.timestamp("us", "UTC")),
    })  # fmt: skip


@pytest.fixture(scope="module")
def rows_lake(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("queries") / "lake"))
    data = hostile_rows()
    lake.append_once(Table("rows", data.schema, "rows of a test"), data, "test", 1)
    return lake


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_says_the_same_on_both(spark, rows_lake, name):
    sql = QUERIES[name]
    now = rows_lake.pinned()
    now.frame(spark, "rows").createOrReplaceTempView("rows")
    expected = spark.sql(sql).toArrow()
    found = embedded.ask(now, {"rows": now.version("rows")}, lambda tables: translate.to_duckdb(sql, tables), lambda rows: rows.read_all())
    assert found.column_names == expected.column_names
    assert sorted(map(plain, found.to_pylist())) == sorted(map(plain, expected.to_pylist()))


def plain(row):
    """A row as text; lists keep their order, a set has none."""
    return repr({key: sorted(one, key=repr) if key == "b" and isinstance(one, list) and isinstance((one or [0])[0], bool) else one for key, one in row.items()})


ERRORS = {
    "a division by zero": "select 1 / (e.n - 3) as a from rows as e",
    "a text that is no number": "select cast(e.s as int) as a from rows as e",
    "more than 64 bits": "select cast(sum(9223372036854775807) as bigint) as a from rows as e",
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_an_error_on_spark_is_one_here(spark, rows_lake, name):
    now = rows_lake.pinned()
    now.frame(spark, "rows").createOrReplaceTempView("rows")
    with pytest.raises(Exception, match="DIVIDE_BY_ZERO|CAST_INVALID_INPUT|ARITHMETIC_OVERFLOW"):
        spark.sql(ERRORS[name]).toArrow()
    with pytest.raises(embedded.EmbeddedError):
        embedded.ask(now, {"rows": now.version("rows")}, lambda tables: translate.to_duckdb(ERRORS[name], tables), lambda rows: rows.read_all())
