"""The embedded SQL engine: what it reads of a lake, what it may not, how it is chosen. That it says what Spark says: tests/sql."""

import datetime as dt
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pytest

from assets.engines import embedded, translate
from assets.engines.choice import AUTO, EMBEDDED, SPARK, embedded_only
from assets.lake import HOUR, Lake, LakeError, Table, Window

T0 = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
THING = Table("thing", pa.schema([HOUR, pa.field("x", pa.int64())]), "a thing")
WIDER = replace(THING, schema=THING.schema.append(pa.field("name", pa.string())).append(pa.field("some", pa.list_(pa.int64()))))


def hour(n):
    return T0 + dt.timedelta(hours=n)


def rows(table, *given):
    return pa.Table.from_pylist([{"hour": hour(n), **row} for n, row in given], table.schema)


def ask(lake, sql, name="thing", version=None, **how):
    now = lake.pinned()
    read = {name: now.version(name) if version is None else version}
    return embedded.ask(now, read, lambda tables: translate.to_duckdb(sql, tables), lambda found: found.read_all().to_pylist(), **how)


def test_a_table_is_read_at_its_version(lake):
    lake.append_once(THING, rows(THING, (0, {"x": 1})), "app", 1)
    before = lake.version("thing")
    lake.append_once(THING, rows(THING, (1, {"x": 2})), "app", 2)
    assert ask(lake, "select sum(t.x) as s, max(t.hour) as h from thing as t") == [{"s": 3, "h": hour(1)}]
    assert ask(lake, "select sum(t.x) as s from thing as t", version=before) == [{"s": 1}]


def test_files_of_before_a_column_was_added_have_none_in_it(lake):
    lake.append_once(THING, rows(THING, (0, {"x": 1})), "app", 1)
    Lake(lake.root).create(WIDER)
    nothing = ask(lake, "select t.x, t.name, t.some from thing as t")
    assert nothing == [{"x": 1, "name": None, "some": None}]
    for n in (1, 2):
        lake.append_once(WIDER, rows(WIDER, (n, {"x": n, "name": "é", "some": [n]})), "app", n + 1)
    found = ask(lake, "select t.hour, t.x, t.name, t.some from thing as t order by t.hour")
    assert [row["some"] for row in found] == [None, [1], [2]] and [row["name"] for row in found] == [None, "é", "é"]
    assert [row["hour"] for row in found] == [hour(0), hour(1), hour(2)]


def test_an_empty_table_has_its_columns(lake):
    lake.create(WIDER)
    assert ask(lake, "select count(*) as n, max(t.name) as m, collect_list(t.some) as l from thing as t") == [{"n": 0, "m": None, "l": []}]


def test_a_filter_on_hours_opens_no_other_file(lake):
    for n in range(3):
        lake.append_once(THING, rows(THING, (n, {"x": n})), "app", n)
    # One file is always looked into, for the columns: the newest.
    for path in lake.files("thing", Window(hour(0), hour(2)))["path"].to_pylist():
        open(f"{lake.path('thing')}/{unquote(path)}", "wb").close()  # what is read of it would be an error
    assert ask(lake, f"select sum(t.x) as s from thing as t where t.hour >= timestamp '{hour(2).isoformat()}'") == [{"s": 2}]


def test_damaged_files_of_the_hours_that_are_read_are_named(lake):
    lake.append_once(THING, rows(THING, (0, {"x": 1})), "app", 1)
    (path,) = lake.files("thing")["path"].to_pylist()
    with open(f"{lake.path('thing')}/{unquote(path)}", "r+b") as file:
        file.seek(8)
        file.write(b"\xff\xff")
    with pytest.raises(LakeError, match="is damaged"):
        ask(lake, "select t.x from thing as t", window=Window(hour(0), hour(1)))


@pytest.mark.parametrize(
    "statement",
    ["copy (select 1) to '{lake}/x.csv'", "create table a as select 1", "drop table thing", "attach '{lake}/a.db'", "select 1; select 2", "set memory_limit = '1GB'"],
)
def test_only_queries_are_asked(lake, statement):
    lake.create(THING)
    with pytest.raises((translate.Untranslatable, translate.sqlglot.errors.SqlglotError)):
        ask(lake, statement.format(lake=lake.root))


def test_nothing_but_the_lake_is_read(lake, tmp_path):
    lake.create(THING)
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with embedded.connected(folder=str(lake.root)) as connection, pytest.raises(Exception, match="disabled by configuration"):
        connection.execute(f"select * from read_csv('{tmp_path}/secret.csv')").fetchall()
    with embedded.connected() as connection, pytest.raises(Exception, match="locked|disabled|Cannot"):
        connection.execute("set enable_external_access = true").fetchall()


def test_an_error_after_the_first_rows_is_the_engines_and_nothing_stays(lake):
    lake.append_once(THING, rows(THING, *((0, {"x": n}) for n in range(1000))), "app", 1)
    sql = "select t.hour, 1 / (a.x - 999) as x from thing as t cross join thing as a cross join thing as b where b.x < 3 and t.x < 900"
    seen = []

    def use(found):
        for batch in found:
            seen.append(batch.num_rows)

    with pytest.raises(embedded.EmbeddedError, match="division by zero"):
        embedded.ask(lake.pinned(), {"thing": lake.version("thing")}, lambda tables: translate.to_duckdb(sql, tables), use)


def test_rows_that_come_sorted_are_staged_or_nothing_is(lake):
    wide = Window(hour(0), hour(3))

    def parts(*given):
        yield from (rows(THING, *part) for part in given)
        if len(given) == 3:
            raise RuntimeError("the engine failed")

    step = lake.stage_sorted(THING, wide, parts([(0, {"x": 1})], [(0, {"x": 2}), (1, {"x": 3})]))
    assert [(add["hour"], add["rows"]) for add in step["adds"]] == [("2026-01-05 00:00:00", 2), ("2026-01-05 01:00:00", 1)]
    lake.commit([step], by="test")
    assert sorted(lake.read("thing")["x"].to_pylist()) == [1, 2, 3]
    there = {path for path in Path(lake.path("thing")).rglob("*.parquet")}
    for given, said in (
        (([(0, {"x": 1})], [(1, {"x": 2})], [(2, {"x": 2})]), "the engine failed"),
        (([(1, {"x": 1})], [(0, {"x": 2})]), "order them by hour"),
        (([(0, {"x": 1})], [(9, {"x": 2})]), "lies outside of"),
    ):
        with pytest.raises((RuntimeError, LakeError), match=said):
            lake.stage_sorted(THING, wide, parts(*given))
        assert {path for path in Path(lake.path("thing")).rglob("*") if path.suffix in (".parquet", ".part")} == there


def test_many_rows_are_sorted_within_little_memory(tmp_path):
    settings = embedded.EmbeddedSettings(memory_mb=160, threads=1, spill=tmp_path / "spill")
    with embedded.connected(settings) as connection:
        text = "select i, repeat(cast(hash(i) as varchar), 6) as s from range(3000000) t(i) order by s"
        reader = connection.sql(text).to_arrow_reader(100_000)
        assert sum(batch.num_rows for batch in reader) == 3_000_000
    assert not list((tmp_path / "spill").iterdir())


def test_auto_takes_what_fits_and_says_why(lake):
    lake.append_once(THING, rows(THING, (0, {"x": 1}), (1, {"x": 2}), (5, {"x": 3})), "app", 1)
    engines = replace(embedded_only(), wanted=AUTO, most_rows=2)
    reads = Window(hour(0), hour(2))
    few = engines.chosen(lake, ["thing"], reads)
    assert (few.name, few.rows) == (EMBEDDED, 2) and few.bytes > 0 and "2 rows" in few.why
    many = engines.chosen(lake, ["thing"], Window(hour(0), hour(6)))
    assert many.name == SPARK and "more than 2 rows" in many.why
    assert engines.chosen(lake, ["thing"], None).rows == 3
    assert replace(engines, most_bytes=10).chosen(lake, ["thing"], reads).name == SPARK
    assert replace(engines, local=False).chosen(lake, ["thing"], reads).name == SPARK
    assert engines.chosen(lake, ["thing"], reads, only=SPARK).why == "its head says `engine: spark`"
    assert replace(engines, wanted=EMBEDDED).chosen(lake, ["thing"], Window(hour(0), hour(6))).name == EMBEDDED
    assert engines.chosen(Lake("s3://bucket/lake"), ["thing"], reads).name == SPARK


def test_a_folder_above_the_lake_that_is_named_as_a_partition_is_not_taken_for_one(tmp_path):
    lake = Lake(str(tmp_path / "x=7" / "lake"))
    lake.append_once(THING, rows(THING, (0, {"x": 1})), "app", 1)
    with pytest.raises(LakeError, match="x=7 would be read as a column"):
        ask(lake, "select t.x from thing as t")
    assert replace(embedded_only(), wanted=AUTO).chosen(lake, ["thing"], None).name == SPARK


def test_a_lake_that_is_no_folder_is_refused_in_words():
    with pytest.raises(LakeError, match="GLASSHOUSE_SQL_ENGINE=spark"):
        embedded.ask(Lake("s3://bucket/lake"), {}, str, str)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select percentile_approx(t.x, 0.5) from thing as t", "approximate"),
        ("select weekday(t.hour) as w from thing as t", "weekday has not been compared"),
        ("select hash(t.x) as w from thing as t", "hash has not been compared"),
        ("select substring('abc', 0, 2) as w from thing as t", "substring has not been compared"),
        ("select t.x rlike 'a' as w from thing as t", "has not been compared"),
        ("select try_cast('7' as int) as w from thing as t", "try_cast has not been compared"),
        ("select cast(t.hour as string) as w from thing as t", "spelled by each engine"),
        ("select approx_count_distinct(t.x) from thing as t", "count\\(distinct x\\)"),
        ("select percentile_disc(0.5) within group (order by t.x desc) from thing as t", "ascending"),
        ("select cast(1.5 as decimal(3, 1)) / cast(2 as decimal(3, 1)) from thing as t", "cast one of them to double"),
    ],
)
def test_what_cannot_be_said_alike_is_refused(sql, said):
    with pytest.raises(translate.Untranslatable, match=said):
        translate.to_duckdb(sql, {"thing": {"x": "BIGINT", "hour": "TIMESTAMP"}})


@pytest.mark.parametrize(
    ("kind", "spark", "duck"),
    [
        (pa.timestamp("us", "UTC"), "TIMESTAMP", "TIMESTAMPTZ"), (pa.timestamp("us"), "TIMESTAMP_NTZ", "TIMESTAMP"),
        (pa.list_(pa.string()), "ARRAY<STRING>", "TEXT[]"), (pa.decimal128(10, 2), "DECIMAL(10, 2)", "DECIMAL(10, 2)"),
        (pa.struct([("a", pa.int32())]), "STRUCT<a: INT>", "STRUCT(a INT)"), (pa.binary(), "BINARY", "BLOB"),
    ],
)  # fmt: skip
def test_types_by_their_names(kind, spark, duck):
    assert (translate.spark_name(kind), translate.duckdb_name(spark)) == (spark, duck)
