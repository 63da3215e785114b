"""Feed requests whose items and clicks are lists, as newspapers' logs have them: JSON arrays, Parquet lists, JSON texts in CSV."""

import datetime as dt
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.events.intake import read_log
from assets.events.mapping import MappingError, load_mapping, parse_mapping
from tests.faults.ways import WAYS, came

HEAD = '[user]\ncolumn = "u"\n[time]\ncolumn = "t"\n[columns]\nrequest_id = "r"\n'
CLICKED = HEAD + '[request]\nitems = "shown"\nclicked_items = "clicked"\n'
FLAGS = HEAD + '[request]\nitems = "shown"\nflags = "flags"\n'
TEXTS = '[item]\nids = "string"\n'
US = 1_767_600_000_000_000
MILLION = 1_000_000

ROWS = [
    {"u": 1, "t": US, "r": "a", "shown": [11, 12, 13], "clicked": [12], "flags": [0, 1, 0], "more": "x"},
    {"u": 2, "t": US, "r": "b", "shown": [14], "clicked": [], "flags": [0], "more": None},
    {"u": 2, "t": US, "r": "c", "shown": [11, 12], "clicked": None, "flags": [None, 0], "more": "[1]"},
    {"u": 3, "t": US, "r": "d", "shown": [13, -9], "clicked": [-9, 13], "flags": [1, 1], "more": "y"},
]
DISPLAYS = {("a", 11, 0), ("a", 12, 1), ("a", 13, 2), ("b", 14, 0), ("c", 11, 0), ("c", 12, 1), ("d", 13, 0), ("d", -9, 1)}
CLICKS = {("a", 12, 1), ("d", 13, 0), ("d", -9, 1)}


def write(folder, suffix, rows, kind=pa.int64(), lists=pa.list_):
    path = folder / f"log.{suffix}"
    if suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif suffix in ("csv", "tsv"):
        separator = "," if suffix == "csv" else "\t"
        lines = [separator.join(rows[0])]
        for row in rows:
            texts = ["" if value is None else value if isinstance(value, str) else json.dumps(value) for value in row.values()]
            lines.append(separator.join('"' + text.replace('"', '""') + '"' if text else "" for text in texts))
        path.write_text("\n".join(lines) + "\n")
    else:
        types = {"u": pa.int64(), "t": pa.int64(), "r": pa.string(), "shown": lists(kind), "clicked": lists(kind), "flags": lists(pa.int8()),
                 "more": pa.string()}  # fmt: skip
        pq.write_table(pa.table({name: pa.array([row[name] for row in rows], types[name]) for name in rows[0]}), path)
    return path


def read(way, path, folder, mapping):
    folder.mkdir(exist_ok=True)
    file = folder / "m.toml"
    file.write_text(mapping)
    return came(way, path, folder, file)


def told(found, action, names=None):
    rows = [row for row in found.events.values() if row["action"] == action]
    return {(row["request_id"], names[row["note_id"]] if names else row["note_id"], row["position"]) for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_two_lists_become_displays_and_clicks_by_every_way(tmp_path, suffix):
    path = write(tmp_path, suffix, ROWS)
    events = {}
    for mapping in (CLICKED, FLAGS):
        for way in WAYS:
            found = read(way, path, tmp_path / f"{way}{mapping is FLAGS}", mapping)
            assert (told(found, "impression"), told(found, "click")) == (DISPLAYS, CLICKS), (way, mapping)
            assert not found.quarantine and found.rows == 4
            after = {row["event_time"] - dt.datetime(2026, 1, 5, 8, tzinfo=dt.UTC) for row in found.events.values() if row["action"] == "click"}
            assert after == {dt.timedelta(seconds=5)}
            contexts = {row["request_id"]: json.loads(row["context"]) for row in found.events.values() if row["context"]}
            assert contexts["a"]["more"] == "x" and contexts["c"]["more"] == "[1]"
            assert not {"shown", "clicked" if mapping is CLICKED else "flags"} & contexts["a"].keys()
            events.setdefault(mapping, found.events)
            assert found.events.keys() == events[mapping].keys()  # the same event_ids, however the row was written


TEXT_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
LISTS = {"list": pa.list_, "large_list": pa.large_list, "fixed_size_list": lambda kind: pa.list_(kind, 2)}
# No writer of Parquet has the other lists of a dictionary.
LISTS_OF_TEXTS = [(kind, name) for kind in (pa.string(), pa.large_string()) for name in LISTS] + [(TEXT_DICTIONARY, "list")]


@pytest.mark.parametrize(("kind", "lists"), LISTS_OF_TEXTS, ids=str)
def test_lists_of_texts_have_string_ids_and_their_originals(tmp_path, kind, lists):
    names = ['N1', 'N"2\\', "ü,]", "[x", "5.0", "05"]
    rows = [ROWS[0] | {"r": str(n), "t": US + n * MILLION, "shown": [names[n], names[n + 1]], "clicked": [names[n + 1], names[n]], "flags": [0, 1]} for n in range(5)]
    path = write(tmp_path, "parquet", rows, kind, LISTS[lists])
    found = read("label", path, tmp_path / "x", CLICKED + TEXTS)
    originals = {key: text for (_, key), text in found.originals.items()}
    assert set(originals.values()) == set(names) and len(originals) == len(names)
    expected = {(str(n), names[n + m], m) for n in range(5) for m in (0, 1)}
    assert told(found, "impression", originals) == told(found, "click", originals) == expected


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint32(), pa.float64(), pa.int64()], ids=str)
def test_lists_of_numbers_of_any_type_are_the_same_ids(tmp_path, kind):
    path = write(tmp_path, "parquet", [ROWS[0], ROWS[1]], kind)
    found = read("label", path, tmp_path / "x", CLICKED)
    assert told(found, "click") == {("a", 12, 1)} and not found.quarantine


BROKEN = {
    "no item": (CLICKED, {"shown": []}, "items: missing"),
    "no list at all": (CLICKED, {"shown": None}, "items: missing"),
    "an object for a list": (CLICKED, {"shown": {"a": 1}}, "items: not a list"),
    "a null item": (CLICKED, {"shown": [11, None, 12]}, "items: an empty item"),
    "NaN for an item": (CLICKED, {"shown": [11, float("nan"), 12]}, "items: an empty item"),
    "a list in the list": (CLICKED, {"shown": [11, [12]]}, "items: an item that is a list or an object"),
    "an item that is no number": (CLICKED, {"shown": [11, "N12"]}, "note_id: not an integer of 64 bits"),
    "a click on what was not shown": (CLICKED, {"clicked": [12, 99]}, "clicked: an item that is not among shown"),
    "a click on nothing": (CLICKED, {"clicked": [None]}, "clicked: not an item"),
    "an object for the clicks": (CLICKED, {"clicked": {"12": 1}}, "clicked: not a list"),
    "a click on a word": (CLICKED, {"clicked": ["x"]}, "clicked: not an integer"),
    "too few flags": (FLAGS, {"flags": [0, 1]}, "flags: not one for each of shown"),
    "too many flags": (FLAGS, {"flags": [0, 1, 0, 0]}, "flags: not one for each of shown"),
    "no flags": (FLAGS, {"flags": None}, "flags: not one for each of shown"),
    "a flag of another kind": (FLAGS, {"flags": [0, 2, 0]}, "flags: not 0 or 1"),
    "a list for a flag": (FLAGS, {"flags": [0, [1], 0]}, "flags: not 0 or 1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_lists_that_do_not_go_together_cost_their_row_and_are_named(tmp_path, name):
    mapping, change, reason = BROKEN[name]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, [ROWS[0], ROWS[3] | {"shown": [11, 12, 13], "clicked": [12], "flags": [0, 1, 0]} | change, ROWS[1]])))
    found = read("label", path, tmp_path / "x", mapping)
    ((row, why, body),) = found.quarantine
    assert row == 2 and why.startswith(reason), why
    assert told(found, "impression") == {one for one in DISPLAYS if one[0] in "ab"} and told(found, "click") == {("a", 12, 1)}


def test_items_that_are_objects_and_lists_beside_texts(tmp_path):
    mapping = HEAD + '[request]\nitems = "shown"\nid_key = "id"\nflag_key = "hit"\n'
    shown = [{"id": 5, "hit": 1, "score": 0.5}, {"hit": False, "id": "6"}, {"id": 7}]
    rows = [ROWS[0] | {"shown": shown}, ROWS[1] | {"shown": [7]}, ROWS[2] | {"shown": [{"id": 8, "hit": "yes"}]}, ROWS[3] | {"shown": [{"hit": 1}]}]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read("label", path, tmp_path / "x", mapping)
    assert told(found, "impression") == {("a", 5, 0), ("a", 6, 1), ("a", 7, 2)} and told(found, "click") == {("a", 5, 0)}
    assert [(row, why) for row, why, _ in found.quarantine] == [
        (2, "items: an item that is not an object with the key 'id'"), (3, "hit: not 0 or 1"), (4, "items: an empty item"),
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist([rows[0] | {"shown": [{"id": 5, "hit": 1}, {"id": 6, "hit": 0}]}]), tmp_path / "log.parquet")
    found = read("label", tmp_path / "log.parquet", tmp_path / "y", mapping)
    assert told(found, "impression") == {("a", 5, 0), ("a", 6, 1)} and told(found, "click") == {("a", 5, 0)}
    # A text with a separator beside an array in one log; a text that only looks like an array.
    path.write_text("\n".join(map(json.dumps, [ROWS[0] | {"shown": "11 12", "clicked": "12"}, ROWS[3] | {"shown": "[x] y", "clicked": ""}])))
    found = read("label", path, tmp_path / "z", CLICKED + TEXTS)
    names = {key: text for (_, key), text in found.originals.items()}
    assert told(found, "impression", names) == {("a", "11", 0), ("a", "12", 1), ("d", "[x]", 0), ("d", "y", 1)}
    assert told(found, "click", names) == {("a", "12", 1)}


def test_ebnerd_is_shipped(tmp_path):
    time = pa.array([dt.datetime(2023, 5, 20, 7, 10, 0, 500_000)], pa.timestamp("us"))
    table = pa.table({
        "impression_id": pa.array([48401], pa.uint32()), "article_id": pa.array([None], pa.int32()), "impression_time": time,
        "read_time": pa.array([13.0], pa.float32()), "article_ids_inview": pa.array([[9774516, 9771051]], pa.list_(pa.int32())),
        "article_ids_clicked": pa.array([[9771051]], pa.list_(pa.int32())), "user_id": pa.array([22779], pa.uint32()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "behaviors.parquet")
    found = read_log([tmp_path / "behaviors.parquet"], load_mapping("ebnerd"))
    rows = [(row["note_id"], row["action"], row["position"], row["event_time"].isoformat(), row["request_id"]) for row in found.events.to_pylist()]
    assert rows == [
        (9774516, "impression", 0, "2023-05-20T05:10:00.500000+00:00", "48401"),
        (9771051, "impression", 1, "2023-05-20T05:10:00.500000+00:00", "48401"),
        (9771051, "click", 1, "2023-05-20T05:10:05.500000+00:00", "48401"),
    ]
    assert json.loads(found.events["context"][0].as_py()) == {"article_id": None, "read_time": 13.0}


@pytest.mark.parametrize(("text", "words"), [
    ('clicked_items = "c"\nflags = "f"\n', "request.flags: beside clicked_items"),
    ('clicked_items = "c"\nclicked = "-"\n', "request.clicked_items: beside clicked"),
    ('flag_key = "f"\n', "request.id_key: missing beside flag_key"),
    ('id_key = "f"\nclicked = "-"\n', "request.clicked: beside id_key"),
    ("clicked_items = 5\n", "request.clicked_items: 5 is not a text"),
    ('click_list = "c"\n', "request.click_list: unknown"),
])  # fmt: skip
def test_mistakes_in_the_mapping_are_named(text, words):
    with pytest.raises(MappingError, match=words):
        parse_mapping(HEAD + '[request]\nitems = "shown"\n' + text, "m.toml")


def test_a_list_column_that_is_not_there_is_an_error(tmp_path):
    path = write(tmp_path, "csv", ROWS)
    with pytest.raises(MappingError, match="column 'hits' is not in log.csv"):
        read_log([path], parse_mapping(HEAD + '[request]\nitems = "shown"\nclicked_items = "hits"\n', "m.toml"))
