"""Files of tables and queries: parsed as meant, complete, and as the lake declares."""

import re

import polars as pl
import pyarrow as pa
import pytest

from assets.metrics import loader, schema, verify
from dashboards import data, design

QUERIES = sorted(data.QUERIES.glob("*.sql"))
KINDS = {
    pa.int64(): "Int64", pa.int32(): "Int32", pa.bool_(): "Bool", pa.string(): "String", pa.binary(): "String",
    pa.timestamp("us", "UTC"): "DateTime64(6, 'UTC')", pa.float64(): "Float64",
}  # fmt: skip


def test_a_file_may_hold_several_statements():
    text = "-- a; b\nCREATE TABLE a (x String DEFAULT ';')\nENGINE = Memory;\n\n  -- more\nCREATE TABLE b (x Int8);\n"
    first, second = schema.statements(text)
    assert first == "CREATE TABLE a (x String DEFAULT ';')\nENGINE = Memory" and second == "CREATE TABLE b (x Int8)"


def test_a_comment_is_no_edit_and_a_column_is():
    text = "CREATE TABLE a (x Int8);"
    assert schema.fingerprint("-- why\n" + text) == schema.fingerprint(text)
    assert schema.fingerprint(text.replace("Int8", "Int16")) != schema.fingerprint(text)


@pytest.mark.parametrize("table", schema.TABLES, ids=lambda table: table.name)
def test_each_column_is_declared_as_in_the_lake(table):
    text = "".join(path.read_text() for path in sorted(schema.FOLDER.glob("*.sql")))
    body = text[text.index(f"EXISTS {table.name}_all\n(\n") :]
    body = body[: body.index("\n)\n")]
    columns = dict(re.findall(r"^    (\w+) (.+?)(?: CODEC\(.*\))?,?$", body, re.MULTILINE))
    assert columns.pop("load") == "UInt64"
    columns = {name: kind for name, kind in columns.items() if " MATERIALIZED " not in kind}
    changes = "".join(re.findall(rf"^ALTER TABLE {table.name}_all$(.+?);$", text, re.MULTILINE | re.DOTALL))
    columns |= dict(re.findall(r"(?:MODIFY COLUMN|ADD COLUMN IF NOT EXISTS) (\w+) (.+)", changes))
    assert list(columns) == table.schema.names
    for field in table.schema:
        kind = columns[field.name].removeprefix("LowCardinality(").removeprefix("Nullable(")
        expected = "DateTime('UTC')" if field.name == "hour" else KINDS[field.type]
        assert kind.startswith(expected), field.name


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_a_query_has_a_head_and_bound_parameters_only(path):
    text = path.read_text()
    head = dict(re.findall(r"^-- (\w+): (.+)$", text, re.MULTILINE))
    assert head["name"] == path.stem and head["description"] and head["parameters"]
    for name in set(re.findall(r"\{(\w+):", text)):
        assert name in head["parameters"], f"{name} is bound and not in the head"
    assert "%(" not in text and "{{" not in text


def test_a_stream_of_arrow_comes_in_pieces_and_reads_back():
    rows = pa.table({"a": range(loader.BATCH_ROWS * 2 + 1)})
    pieces = list(loader._ipc(rows))
    assert len(pieces) == 4
    assert pa.ipc.open_stream(b"".join(pieces)).read_all().equals(rows)


def test_checksums_see_a_changed_row_and_not_the_order():
    hour = pa.array([0, 0, 0], pa.timestamp("us", "UTC"))
    rows = pa.table({"hour": hour, "a": [1, 2, 2], "b": ["x", None, ""]})
    def summed(rows):
        return verify._checksums(pl.from_arrow(rows))

    assert summed(rows) == summed(rows.take([2, 0, 1]))
    assert summed(rows) != summed(rows.set_column(2, "b", pa.array(["x", "", ""])))
    assert summed(rows) != summed(rows.set_column(1, "a", pa.array([1, 2, 3])))


def test_every_meaning_that_a_page_asks_for_is_written():
    for path in (data.QUERIES.parents[2] / "dashboards" / "views").glob("*.py"):
        for name in re.findall(r'meaning\("(\w+)"\)', path.read_text()):
            assert design.meaning(name)
