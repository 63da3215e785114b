"""A column `context` beside further columns, typed ones among them: nothing of a row is lost, an export of our tables comes back the same."""

import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.events import context
from assets.events.contract import TYPED_FIELDS
from tests.faults.ways import WAYS, came, event

pytestmark = pytest.mark.slow

SUFFIXES = ("jsonl", "csv", "parquet")
ALL = {"device": "ios", "author_id": 7, "topic": "food", "device_id": "d1", "app_version": "8.1"}
NONE = dict.fromkeys(ALL)

# (context of the row, its typed columns, what is stored)
ROWS = [
    ('{"page":1}', ALL, {"page": 1} | ALL),
    ("home", ALL, {"context": "home"} | ALL),
    ('{"device":"tv"}', ALL, ALL),
    ('{"device":"tv","topic":"food"}', NONE | {"device": "ios"}, {"device": "ios", "topic": "food"}),
    ('{"device":"ios","author_id":7}', NONE | {"device": "ios", "author_id": 7}, {"device": "ios", "author_id": 7}),
    ('{"author_id":"7"}', NONE | {"author_id": 7}, {"author_id": "7"}),
    ('{"author_id":7.0,"x":[1]}', NONE | {"author_id": 7}, {"author_id": 7.0, "x": [1]}),
    ('{"device":true}', NONE, {"device": True}),
    ('{"device":true}', NONE | {"device": "ios"}, {"device": "ios"}),
    (None, NONE, None),
    ("{}", NONE, None),
]


def write(folder, suffix, rows):
    path = folder / f"log.{suffix}"
    if suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif suffix == "csv":
        pl.DataFrame(rows, infer_schema_length=None).write_csv(path)
    else:
        kinds = {field.name: field.type for field in TYPED_FIELDS}
        pq.write_table(pa.table({name: pa.array([row[name] for row in rows], kinds.get(name)) for name in rows[0]}), path)
    return path


def check(way, suffix, wanted, folder):
    rows = [event(n, context=inner, **typed) for n, (inner, typed, _) in enumerate(wanted)]
    found = came(way, write(folder, suffix, rows), folder)
    assert found.accounted and not found.quarantine
    for n, (_, typed, stored) in enumerate(wanted):
        text = found.events[f"e{n}"]["context"]
        if suffix == "csv" and typed is ALL:
            stored = stored | {"author_id": "7"}  # a further column of CSV is a text
        assert (json.loads(text) if text else None) == stored


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("number", range(len(ROWS)))
def test_a_rows_own_columns_stay(tmp_path, number, suffix):
    check("label", suffix, [ROWS[number]], tmp_path)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_they_stay_beside_other_rows_by_every_way(tmp_path, suffix, way):
    check(way, suffix, ROWS, tmp_path)


CONTEXTS = [None, "{}", '{"device":"ios","author_id":"user-7","n":1}', '{"author_id":12.0,"topic":3}', '{"a": 1, "device": "\\u00fc"}', '{"device":true,"topic":[1]}']


@pytest.mark.parametrize("contexts", [CONTEXTS, CONTEXTS[:1], CONTEXTS[:3], CONTEXTS[3:]], ids=["all", "none", "plain", "odd"])
def test_an_export_of_our_own_table_comes_back_the_same(tmp_path, contexts):
    rows = [event(n) | {"context": text} for n, text in enumerate(contexts)]
    typed = context.typed(pl.Series(contexts, dtype=pl.String))
    for suffix in ("jsonl", "parquet"):
        path = write(tmp_path, suffix, [row | of for row, of in zip(rows, typed.to_dicts(), strict=True)])
        found = came("label", path, tmp_path).events
        for n, text in enumerate(contexts):
            stored = found[f"e{n}"]["context"]
            assert (stored and json.loads(stored)) == (json.loads(text) if text and text != "{}" else None), suffix
            assert {name: found[f"e{n}"][name] for name in typed.columns} == typed.row(n, named=True), suffix
