"""The typed columns of a context: which spellings count, and the same by every way in and by a plain reader of JSON."""

import json
import random

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from assets.events import context as context_module
from assets.events.context import completed, retyped, typed
from assets.events.contract import EVENT_SCHEMA, TYPED_NAMES
from assets.events.intake import read_log
from assets.events.mapping import parse_mapping

KEY = xxhash.xxh64_intdigest("u_ab") - 2**64 if xxhash.xxh64_intdigest("u_ab") >= 2**63 else xxhash.xxh64_intdigest("u_ab")
TEXTS = {
    '"ios"': "ios", '"fo\\u00e9\\n\\"d\\""': 'foé\n"d"', '"😀"': "😀", "3": "3", "-1": "-1", "1.50": "1.50", "1e2": "1e2",
    '" "': " ", '"null"': "null", '"]}"': "]}", '"\\\\"': "\\", f'"{"x" * 5000}"': "x" * 5000,
    '""': None, "null": None, "true": None, "false": None, "{}": None, '{"device":"tv"}': None, '["a","]"]': None, '"NaN"': None,
    '"-Infinity"': None, '"NaNs"': "NaNs",
}  # fmt: skip
IDS = {
    "7": 7, '"7"': 7, "-9223372036854775808": -(2**63), "9223372036854775807": 2**63 - 1, '"9223372036854775807"': 2**63 - 1,
    "3.0": 3, "1e3": 1000, '"007"': 7, "0": 0, '"u_ab"': KEY, '"u\\u005fab"': KEY,
    "3.5": None, "9007199254740993.0": None, "null": None, '""': None, "true": None, "[7]": None, '{"author_id":7}': None,
    '"Infinity"': None,
}  # fmt: skip


def of(*contexts):
    return typed(pl.Series(contexts, dtype=pl.String)).rows(named=True)


@pytest.mark.parametrize("name", ["device", "topic", "device_id", "app_version"])
def test_a_text_is_itself_a_number_its_spelling_and_all_else_is_none(name):
    assert [row[name] for row in of(*(f'{{"a":1, "{name}" : {value} ,"b":[2]}}' for value in TEXTS))] == list(TEXTS.values())


def test_an_id_is_an_integer_or_the_key_of_a_text():
    assert [row["author_id"] for row in of(*(f'{{"author_id":{value}}}' for value in IDS))] == list(IDS.values())


@pytest.mark.parametrize(
    ("context", "device"),
    [
        ('{"utm":{"device":"tv","x":[{"device":"a"}]},"device":"ios"}', "ios"), ('{"utm":"{\\"device\\":\\"tv\\"}"}', None),
        ('{"device":"a","device":"b"}', "b"), ('{"device":"a","device":null}', None), ('{"dev\\u0069ce":"x"}', "x"),
        ('{"device":"a","dev\\u0069ce":"x"}', "x"), ('{"dev\\u0069ce":"x","device":"a"}', "a"), ('{"Device":"x"}', None),
        ('\t{ "b" : 1 ,\r\n "device"\t:\t"ios" } ', "ios"), ("{}", None), (None, None), ("", None), ("null", None), ('["device"]', None),
        ('{"device":"a\\ud83d"}', "a?"), ('{"dev\\u0069ce":"a\\ud83d"}', "a?"), ('{"device":"a\\x"}', None), ('{"device":"a\\', None),
        ("no JSON", None), ('{"device', None), ('{"device":', None), ('{"b":[[', None), ('{"device_id":"d","app":"device"}', None),
    ],
)  # fmt: skip
def test_the_value_is_that_of_the_contexts_own_last_key(context, device):
    assert of(context, '{"device":"after"}') == [
        {**dict.fromkeys(TYPED_NAMES), "device": device, **({"device_id": "d"} if context and "device_id" in context else {})},
        {**dict.fromkeys(TYPED_NAMES), "device": "after"},
    ]


def plain(context):
    """The rules once more, one value at a time."""
    found = json.loads(context)

    def text(value):
        if isinstance(value, bool) or value in (None, "", "NaN") or isinstance(value, dict | list):
            return None
        return value if isinstance(value, str) else json.dumps(value)

    def key(value):
        if isinstance(value, bool) or value in (None, "", "NaN") or isinstance(value, dict | list):
            return None
        if isinstance(value, float):
            return int(value) if value.is_integer() and abs(value) < 2**53 else None
        if isinstance(value, int):
            return value
        if value.lstrip("-").isdigit() and value.isascii():
            return int(value)
        digest = xxhash.xxh64_intdigest(value)
        return digest - 2**64 if digest >= 2**63 else digest

    return {name: (key if name == "author_id" else text)(found.get(name)) for name in TYPED_NAMES}


def some_context(dice):
    values = ["ios", "é\U0001f600", "", "12", 'a"b\\', "\n", 5, -7, 2**40, 1.5, 4.0, True, None, {"device": "tv"}, [1, {"topic": "x"}], "NaN"]
    pairs = [(name, dice.choice(values)) for name in (*TYPED_NAMES, "utm", "a", "devicé") if dice.random() < 0.7]
    dice.shuffle(pairs)
    style = dice.choice([{"separators": (",", ":")}, {}, {"indent": 1}, {"separators": (" , ", " : ")}])
    return json.dumps(dict(pairs), ensure_ascii=dice.random() < 0.5, **style)


def test_a_thousand_contexts_of_every_style_are_as_a_plain_reader_has_them(monkeypatch):
    dice = random.Random(1)
    contexts = [some_context(dice) for _ in range(1000)]
    assert of(*contexts) == [plain(context) for context in contexts]
    monkeypatch.setattr(context_module, "_SIDE_BY_SIDE", 999)
    assert of(*contexts) == [plain(context) for context in contexts], "so many that two threads read them"


BASE = {"user_id": 1, "note_id": 2, "action": "impression", "event_time": 1_767_607_200_000_000}
FURTHER = {"device": "iös", "author_id": 77, "topic": "food", "device_id": "d 1", "app_version": "8.4"}


def test_every_format_gives_them_and_leaves_the_context_as_it_came(tmp_path):
    row = {"event_id": "e", **BASE, **FURTHER}
    for name, line in (
        ("a.jsonl", json.dumps(row)), ("b.jsonl", json.dumps(row, separators=(",", ":"), ensure_ascii=False)),
        ("c.jsonl", json.dumps({"event_id": "e", **BASE, "context": FURTHER})),
        ("d.jsonl", json.dumps({"event_id": "e", **BASE, "context": json.dumps(FURTHER)})),
        ("e.csv", ",".join(row) + "\n" + ",".join(map(str, row.values()))),
    ):  # fmt: skip
        (tmp_path / name).write_text(line + "\n")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "f.parquet")
    for path in sorted(tmp_path.iterdir()):
        events = read_log([path]).events
        assert events.schema == EVENT_SCHEMA
        (found,) = events.to_pylist()
        assert {name: found[name] for name in TYPED_NAMES} == FURTHER, path.name
        want = {**FURTHER, "author_id": "77", "app_version": "8.4"} if path.suffix == ".csv" else FURTHER
        assert json.loads(found["context"]) == want, path.name
    assert read_log([tmp_path / "a.jsonl"]).events["context"].to_pylist() == [json.dumps(FURTHER)]


def test_an_export_of_our_own_tables_comes_back_as_it_was(tmp_path):
    contexts = ['{"device":"ios","author_id":"u_ab","x":1}', '{"device":true}', '{"topic":""}']
    rows = [{"event_id": f"e{i}", **BASE, "context": context} for i, context in enumerate(contexts)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = read_log([tmp_path / "a.jsonl"]).events
    pq.write_table(first, tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row, default=str) + "\n" for row in first.to_pylist()))
    for name in ("b.parquet", "c.jsonl"):
        again = read_log([tmp_path / name]).events
        assert again.select(TYPED_NAMES).equals(first.select(TYPED_NAMES)), name
        assert [json.loads(text) for text in again["context"].to_pylist()] == [json.loads(text) for text in contexts], name


def test_a_mapping_leaves_further_columns_to_the_context_and_all_events_of_a_row_have_them(tmp_path):
    mapping = parse_mapping(
        '[user]\ncolumn = "u"\n[item]\ncolumn = "n"\n[time]\ncolumn = "t"\nunit = "s"\n[display]\n[display.behaviours]\nclicked = "click"\n', "m"
    )
    (tmp_path / "a.csv").write_text("u,n,t,clicked,device,author_id\n1,2,1767607200,1,ios,7\n1,3,1767607200,0,,x\n")
    events = read_log([tmp_path / "a.csv"], mapping).events.to_pylist()
    assert [(row["note_id"], row["action"], row["device"]) for row in events] == [(2, "impression", "ios"), (2, "click", "ios"), (3, "impression", None)]
    assert [row["author_id"] for row in events][:2] == [7, 7] and isinstance(events[2]["author_id"], int)


def test_a_table_without_the_columns_is_given_them():
    rows = pa.table({"context": ['{"device":"ios"}', None], "n": [1, 2]})
    assert completed(rows).to_pylist()[0] == {"context": '{"device":"ios"}', "n": 1, **dict.fromkeys(TYPED_NAMES), "device": "ios"}
    assert completed(completed(rows)).equals(completed(rows))
    wrong = completed(rows).set_column(2, "device", pa.array(["tv", "tv"]))
    assert retyped(wrong)["device"].to_pylist() == ["ios", None] and retyped(wrong).column_names == wrong.column_names
