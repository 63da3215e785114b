"""No row and no file stops a process: it is an event, or lies in quarantine with its reason and bytes, by every way in."""

import datetime as dt
import decimal
import gzip
import hashlib
import json
import os
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.attribution import live
from assets.attribution.rules import Rules
from assets.events import sources
from assets.events.intake import WHOLE_FILE, read_log
from assets.events.sources import HEAD_BYTES, MAX_ROW_BYTES, SourceError
from assets.lake import Lake
from tests.faults.ways import T0, US, WAYS, by_batch, by_live, came, event, line

pytestmark = pytest.mark.slow

HALF = "line: half a character"
DEEP = "line: lists and objects nested deeper"
NO_OBJECT = "line: not a JSON object"


def nested(levels, opening="[", closing="]"):
    return json.dumps(event(7))[:-1].encode() + b',"deep":' + (opening * levels + closing * levels).encode() + b"}"


POISON = {
    "half an emoji in a further column": (b'{"title":"nice \\ud83d",' + line(event(7))[1:], HALF),
    "half an emoji in the id": (line(event(7)).replace(b'"e7"', b'"e\\ude00"'), HALF),
    "half an emoji in a wanted column": (line(event(7, channel="x")).replace(b'"x"', b'"\\ud83d\\u0041"'), HALF),
    "half an emoji in a key": (b'{"\\udfff":1,' + line(event(7))[1:], HALF),
    "half an emoji deep inside": (b'{"a":[{"b":["\\ud800"]}],' + line(event(7))[1:], HALF),
    "half an emoji in the text of a context": (b'{"context":{"t":"\\ud83d"},' + line(event(7))[1:], HALF),
    "lists 3,000 deep": (nested(3_000), DEEP),
    "lists 100,000 deep": (nested(100_000), DEEP),
    "objects 100,000 deep": (nested(100_000, '{"a":', "}").replace(b":}", b":1}", 1), DEEP),
    "brackets that never close": (b'{"a":' + b"[" * 100_000, DEEP),
    "an id that is a list": (line(event(7, event_id=["e"])), "event_id: not a text"),
    "an id that is an object": (line(event(7, event_id={"e": 1})), "event_id: not a text"),
    "an id that is NaN": (line(event(7, event_id=float("nan"))), "event_id: not a text (NaN)"),
    "a user that is NaN": (line(event(7, user_id=float("nan"))), "user_id: not an integer of 64 bits (NaN)"),
    "a raw control character": (line(event(7, channel="x")).replace(b'"x"', b'"\x01"'), NO_OBJECT),
    "bytes that are no text": (line(event(7, channel="x")).replace(b'"x"', b'"\xed\xa0\xbd"'), "line: not UTF-8"),
    "a number with a leading zero": (line(event(7)).replace(b": 2,", b": 02,"), NO_OBJECT),
    "a huge exponent for an id": (line(event(7)).replace(b": 2,", b": 1e400,"), "note_id: not an integer of 64 bits"),
    "an integer of a thousand digits": (line(event(7)).replace(b": 2,", b": " + b"9" * 1000 + b","), "note_id: not an integer"),
    "a time without end": (line(event(7, event_time="9" * 400)), "event_time: not a time"),
    "an escape that is none": (line(event(7, channel="x")).replace(b'"x"', b'"\\q"'), NO_OBJECT),
    "an escape at the end": (b'{"a":"\\', NO_OBJECT),
    "two objects": (b"{}{}", NO_OBJECT),
    "nothing but quotes": (b'"' * 5_001, NO_OBJECT),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_poisonous_row_is_refused_and_its_neighbours_are_taken(tmp_path, way):
    path = tmp_path / "log.jsonl"
    rows = [event(0)]
    for number, (bytes_, _) in enumerate(POISON.values(), start=1):
        rows += [bytes_, event(1000 + number)]
    path.write_bytes(b"\n".join(map(line, rows)) + b"\n")
    found = came(way, path, tmp_path)
    assert found.events.keys() == {"e0", *(f"e{1001 + n}" for n in range(len(POISON)))}
    assert found.accounted and found.repeats == 0
    for place, (name, (body, reason)) in enumerate(POISON.items()):
        row, why, kept = found.quarantine[place]
        assert (row, kept) == (2 + 2 * place, body), name
        assert why.startswith(reason), name


def test_the_context_of_what_numbers_json_lacks_is_kept_as_text(tmp_path):
    path = tmp_path / "log.jsonl"
    numbers = ["NaN", "-Infinity", "Infinity", "1e400", "123456789012345678901234567890", "[1,{\"x\":NaN}]"]
    rows = [line(event(n))[:-1] + b',"v":' + text.encode() + b"}" for n, text in enumerate(numbers)]
    path.write_bytes(b"\n".join(rows))
    found = came("label", path, tmp_path)
    kept = [json.loads(found.events[f"e{n}"]["context"])["v"] for n in range(len(numbers))]
    assert kept == [*numbers[:5], [1, {"x": "NaN"}]]


# --- CSV --------------------------------------------------------------------------------------------------------------


HEAD = "event_id,user_id,note_id,action,event_time,title"


def rows_of(*titles):
    return [f"e{n},1,2,impression,{US + n},{title}" for n, title in enumerate(titles)]


@pytest.mark.parametrize("way", WAYS)
def test_long_fields_and_stray_quotes_cost_no_other_row(tmp_path, way):
    long = "x" * 400_000
    path = tmp_path / "log.csv"
    rows = rows_of(long, f'"{long}"', '5" wide', '"never closed', '"closed"x', "a\u2028b", "good", '"two\nlines"', "last")
    path.write_text("\n".join([HEAD, *rows]) + "\n", newline="")
    found = came(way, path, tmp_path)
    titles = {id_: json.loads(row["context"])["title"] for id_, row in found.events.items()}
    assert titles == {"e0": long, "e1": long, "e2": '5" wide', "e5": "a\u2028b", "e6": "good", "e7": "two\nlines", "e8": "last"}
    broken = "line: a quote that does not close, or text after one"
    assert found.quarantine == [(5, broken, rows[3].encode()), (6, broken, rows[4].encode())]
    assert found.accounted


def test_quoted_fields_across_the_edge_of_a_block_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1000)
    path = tmp_path / "log.csv"
    path.write_text("\r\n".join([HEAD, *rows_of(*(f'"line\r\n{n},""x""\n"' for n in range(500)))]) + "\r\n", newline="")
    found = came("label", path, tmp_path)
    assert len(found.events) == 500 and not found.quarantine
    assert json.loads(found.events["e7"]["context"])["title"] == 'line\r\n7,"x"\n'


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ('event_id,"user_id', "quote that does not close"),
        ('event_id,"user"x,b', "quote that does not close"),
        ("event_id,user_id,note_id,action,event_time,user_id", "'user_id' twice"),
        ("event_id,user_id\udcff", "not UTF-8"),
        ("x" * (2**20 + 5), "longer than"),
        ("", "has no column event_id"),
        ("\x00", "has no column event_id"),
    ],
)
def test_a_header_that_cannot_be_read_is_that_files_fault(tmp_path, header, error):
    path = tmp_path / "landing" / "log.csv"
    path.parent.mkdir()
    path.write_bytes(header.encode("utf-8", "surrogateescape") + b"\n1,2\n")
    with pytest.raises(SourceError, match=error):
        read_log([path])
    (path.parent / "zgood.jsonl").write_bytes(line(event(1)))
    found = by_live(tmp_path)
    assert found.events.keys() == {"e1"}
    ((row, reason, _),) = found.quarantine
    assert row == WHOLE_FILE and error in reason and reason.startswith("file: log.csv cannot be read")


def test_a_header_of_several_lines_or_of_carriage_returns_is_read(tmp_path):
    for name, end in (("cr.csv", "\r"), ("lf.csv", "\n")):
        path = tmp_path / name
        path.write_text(end.join(['event_id,user_id,note_id,action,event_time,"ti\ntle"', *rows_of("a", "b")]) + end, newline="")
        found = came("label", path, tmp_path)
        assert [json.loads(row["context"]) for row in found.events.values()] == [{"ti\ntle": "a"}, {"ti\ntle": "b"}]


# --- Parquet ----------------------------------------------------------------------------------------------------------


def arrow(**more):
    base = {
        "event_id": pa.array(["a", "b"]), "user_id": pa.array([1, 2]), "note_id": pa.array([3, 4]),
        "action": pa.array(["click", "click"]), "event_time": pa.array([T0, T0], pa.timestamp("us", "UTC")),
    }  # fmt: skip
    return pa.table(base | more)


EXTRA = {
    "decimal256": (pa.array([decimal.Decimal("1.50"), None], pa.decimal256(50, 2)), "1.50"),
    "decimal128": (pa.array([decimal.Decimal("1.50"), None], pa.decimal128(20, 2)), "1.50"),
    "list of binary": (pa.array([[b"a", b"\xff"], None], pa.list_(pa.binary())), ["YQ==", "/w=="]),
    "binary": (pa.array([b"\xff", None], pa.binary()), "/w=="),
    "binary view": (pa.array([b"\xff", None], pa.binary_view()), "/w=="),
    "fixed offset": (pa.array([T0, None], pa.timestamp("us", "+05:30")), "2026-01-05T10:00:00Z"),
    "nanoseconds": (pa.array([US * 1000 + 1, None], pa.timestamp("ns", "UTC")), "2026-01-05T10:00:00.000000001Z"),
    "year 300,000": (pa.array([9 * 10**18, None], pa.timestamp("us", "UTC")), "9000000000000000000"),
    "duration": (pa.array([dt.timedelta(seconds=1), None], pa.duration("ns")), 1_000_000),
    "struct": (pa.array([{"x": 1, "t": T0}, None]), {"x": 1, "t": "2026-01-05T10:00:00Z"}),
    "map": (pa.array([[("k", 1.5)], None], pa.map_(pa.string(), pa.float64())), [{"key": "k", "value": 1.5}]),
    "dictionary": (pa.array(["x", None]).dictionary_encode(), "x"),
    "half float": (pa.array([1.5, None], pa.float16()), 1.5),
    "NaN": (pa.array([float("nan"), None]), "NaN"),
    "unsigned": (pa.array([2**64 - 1, None], pa.uint64()), 2**64 - 1),
    "date": (pa.array([dt.date(2026, 1, 5), None]), "2026-01-05"),
    "time": (pa.array([dt.time(1, 2, 3), None], pa.time64("us")), "01:02:03"),
    "nested decimal": (pa.array([[decimal.Decimal("2.5")], None], pa.list_(pa.decimal128(9, 1))), ["2.5"]),
    "nothing": (pa.nulls(2), None),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_arrow_type_is_read_and_its_value_kept(tmp_path, way):
    path = tmp_path / "log.parquet"
    pq.write_table(arrow(**{name: values for name, (values, _) in EXTRA.items()}), path)
    found = came(way, path, tmp_path)
    assert json.loads(found.events["a"]["context"]) == {name: value for name, (_, value) in EXTRA.items()}
    assert json.loads(found.events["b"]["context"]) == dict.fromkeys(EXTRA)


WANTED = {
    "decimal id": ({"user_id": pa.array([decimal.Decimal(5), decimal.Decimal("1.5")], pa.decimal128(20, 1))}, [5, None]),
    "unsigned id": ({"user_id": pa.array([5, 2**64 - 1], pa.uint64())}, [5, None]),
    "float id": ({"user_id": pa.array([5.0, 2.0**53])}, [5, None]),
    "list id": ({"user_id": pa.array([[5], None], pa.list_(pa.int64()))}, [None, None]),
    "binary id": ({"user_id": pa.array([b"5", b"\xff"], pa.binary())}, [None, None]),
    "text id": ({"user_id": pa.array(["5", "x"]).dictionary_encode()}, [5, None]),
    "text id in a view": ({"user_id": pa.array(["5", "x"], pa.string_view())}, [5, None]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", WANTED)
def test_ids_of_any_type_have_one_answer(tmp_path, way, kind):
    changes, users = WANTED[kind]
    path = tmp_path / "log.parquet"
    pq.write_table(arrow(**changes), path)
    found = came(way, path, tmp_path)
    assert {id_: row["user_id"] for id_, row in found.events.items()} == {
        id_: user for id_, user in zip("ab", users, strict=True) if user is not None
    }
    assert found.accounted


def test_text_in_parquet_that_is_not_utf8_is_that_rows_fault(tmp_path):
    broken = pa.array([b"ok", b"\xff\xfe"], pa.binary()).view(pa.string())
    path = tmp_path / "log.parquet"
    pq.write_table(arrow(title=broken), path)
    for way in WAYS:
        found = came(way, path, tmp_path)
        assert found.events.keys() == {"a"}
        ((row, reason, body),) = found.quarantine
        assert (row, reason) == (2, "line: not UTF-8") and b"\xff\xfe" in body


def test_a_parquet_file_with_a_column_twice_is_an_error_that_names_it(tmp_path):
    table = arrow()
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_arrays([*table.columns, table["user_id"]], [*table.schema.names, "user_id"]), path)
    with pytest.raises(SourceError, match="'user_id' twice"):
        read_log([path])


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def landing_folder(tmp_path):
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder


BAD_FILES = {
    "cut.jsonl.gz": gzip.compress(line(event(5)) * 1000)[:60],
    "not.jsonl.gz": b"no gzip",
    "after.jsonl.gz": gzip.compress(line(event(5))) + b"garbage",
    "empty.parquet": b"",
    "no.parquet": b"PAR1 no PAR1",
}


@pytest.mark.parametrize("take", [by_live, by_batch])
def test_files_that_cannot_be_read_are_one_row_each_and_the_others_go_on(tmp_path, landing_folder, take):
    for name, body in BAD_FILES.items():
        (landing_folder / name).write_bytes(body)
    (landing_folder / "zgood.jsonl").write_bytes(line(event(1)))
    os.mkfifo(landing_folder / "pipe.jsonl")
    (landing_folder / "folder.jsonl").mkdir()
    (landing_folder / "loop.jsonl").symlink_to("loop.jsonl")
    (landing_folder / "lost.jsonl").symlink_to("nowhere.jsonl")
    (landing_folder / "self").symlink_to(landing_folder)
    found = take(tmp_path)
    assert found.events.keys() == {"e1"}
    assert sorted(reason.split()[1] for _, reason, _ in found.quarantine) == sorted(BAD_FILES)
    assert {body for _, _, body in found.quarantine} == set(BAD_FILES.values())
    assert {row for row, _, _ in found.quarantine} == {WHOLE_FILE}
    again = take(tmp_path)
    assert (again.events, again.quarantine) == (found.events, found.quarantine)  # once


@pytest.mark.parametrize("take", [by_live, by_batch])
def test_names_that_are_not_utf8_and_suffixes_in_any_case(tmp_path, landing_folder, take):
    for number, name in enumerate([b"a\xff.jsonl", b"b.NDJSON", b"c.JSONL.GZ", b"d\nd.Json", b"e.ndjson.gz"]):
        body = line(event(number))
        with open(os.path.join(os.fsencode(landing_folder), name), "wb") as file:
            file.write(gzip.compress(body) if name.lower().endswith(b".gz") else body)
    with open(os.path.join(os.fsencode(landing_folder), b"bad\xfe.parquet"), "wb") as file:
        file.write(b"no")
    with open(os.path.join(os.fsencode(landing_folder), b"good\xfe.PARQUET"), "wb") as file:
        pq.write_table(arrow(), file)
    found = take(tmp_path)
    assert found.events.keys() == {"e0", "e1", "e2", "e3", "e4", "a", "b"}
    ((_, reason, _),) = found.quarantine
    assert "bad\\xfe.parquet" in reason
    assert "a\\xff.jsonl" in Lake(str(tmp_path / "lake")).read("sources")["name"].to_pylist()


def test_what_lies_behind_links_is_taken_once(tmp_path, landing_folder):
    elsewhere = tmp_path / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    (elsewhere / "far.jsonl").write_bytes(line(event(1)))
    (tmp_path / "one.jsonl").write_bytes(line(event(2)))
    (landing_folder / "a").symlink_to(elsewhere.parent)
    (landing_folder / "b").symlink_to(elsewhere)
    (landing_folder / "link.jsonl").symlink_to(tmp_path / "one.jsonl")
    found = by_live(tmp_path)
    assert found.events.keys() == {"e1", "e2"} and found.repeats == 0


def test_a_planned_file_that_is_gone_is_left_out_told_and_taken_when_it_comes_back(tmp_path, landing_folder):
    for name in ("a", "b"):
        (landing_folder / f"{name}.jsonl").write_bytes(line(event(ord(name))))

    class Killed(BaseException):
        pass

    def probe(point):
        if point == "planned":
            raise Killed

    with pytest.raises(Killed):
        by_live(tmp_path, probe=probe)
    kept = (landing_folder / "a.jsonl").read_bytes()
    (landing_folder / "a.jsonl").unlink()
    found = by_live(tmp_path)
    assert found.events.keys() == {"e98"}
    assert any("1 files are gone and were left out: a.jsonl" in said for said in found.said)
    (landing_folder / "a.jsonl").write_bytes(kept)
    assert by_live(tmp_path).events.keys() == {"e97", "e98"}


def test_a_mapping_that_cannot_be_used_lets_its_folder_wait_and_says_so(tmp_path, landing_folder):
    (landing_folder / "other").mkdir()
    (landing_folder / "other" / "mapping.toml").write_bytes(b"\xff = [")
    (landing_folder / "other" / "x.jsonl").write_bytes(line(event(1)))
    (landing_folder / "good.jsonl").write_bytes(line(event(2)))
    found = by_live(tmp_path)
    assert found.events.keys() == {"e2"} and any("wait until their mapping is mended" in said for said in found.said)
    (landing_folder / "other" / "mapping.toml").unlink()
    assert by_live(tmp_path).events.keys() == {"e1", "e2"}


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_of_a_row_too_long_to_be_held_the_beginning_is_kept(tmp_path, way, suffix, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 3 * 2**20)
    path = tmp_path / f"log{suffix}.gz"
    huge = b'{"a":"' + os.urandom(4).hex().encode() * (MAX_ROW_BYTES // 8 + 10_000) + b'"}'
    after = b"x" * (MAX_ROW_BYTES + 1)
    first, second = (line(event(1)), line(event(2))) if suffix == ".jsonl" else (row.encode() for row in rows_of("a", "b"))
    head = [HEAD.encode()] if suffix == ".csv" else []
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"\n".join([*head, first, huge, second, after]))
    found = came(way, path, tmp_path)
    assert len(found.events) == 2 and len(found.quarantine) == 2
    for (row, reason, body), whole, at in zip(found.quarantine, (huge, after), (2, 4), strict=True):
        assert row == at + len(head) and body == whole[:HEAD_BYTES]
        offset = sum(len(one) + 1 for one in head) + len(first) + 1
        offset += len(huge) + len(second) + 2 if whole is after else 0
        assert f"{len(whole):,} bytes from byte {offset:,} on" in reason and hashlib.sha256(whole).hexdigest() in reason
    assert found.accounted


def test_a_file_that_unpacks_to_more_than_a_batch_is_taken_in_parts(tmp_path, landing_folder, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(live, "UNPACKED", 1)
    rows = b"\n".join(line(event(n)) for n in range(400))
    (landing_folder / "big.jsonl.gz").write_bytes(gzip.compress(rows))
    (landing_folder / "later.jsonl").write_bytes(line(event(999)))

    killed = []

    class Killed(BaseException):
        pass

    def probe(point):
        if point == "progress" and len(killed) < 3:
            killed.append(point)
            raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            by_live(tmp_path, probe=probe, batch_bytes=6000)
    found = by_live(tmp_path, batch_bytes=6000)
    assert len(found.events) == 401 and not found.quarantine and found.repeats == 0 and found.rows == 401
    lake = Lake(str(tmp_path / "lake"))
    named = lake.read("sources").to_pylist()
    assert len(named) > 4 and sum(one["rows"] for one in named) == 401
    parts = {one["source"] for one in named if one["name"] == "big.jsonl.gz"}
    numbers = sorted(row["row"] for row in lake.read("raw_events").to_pylist() if row["source"] in parts)
    assert numbers == list(range(1, 401))
    assert by_batch(tmp_path).events.keys() == found.events.keys()  # and accepted anew it is the same


def test_a_file_that_changes_between_its_parts_is_told(tmp_path, landing_folder, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(live, "UNPACKED", 1)
    path = landing_folder / "big.jsonl"
    path.write_bytes(b"\n".join(line(event(n)) for n in range(100)))
    stop = threading.Event()
    lake = Lake(str(tmp_path / "lake"))
    live.run(lake, landing_folder, Rules(), 0, stop, lambda *_: stop.set(), say=lambda _: None, batch_bytes=6000)
    taken = lake.read("events").num_rows
    assert 0 < taken < 100
    path.write_bytes(b"other")
    found = by_live(tmp_path)
    assert len(found.events) == taken
    ((row, reason, _), (first, broken, body)) = found.quarantine
    assert row == WHOLE_FILE and "changed after the rows up to line" in reason
    assert (first, broken, body) == (1, "line: not a JSON object", b"other")
    path.write_bytes(line(event(500)) + b"\n")
    assert "e500" in by_live(tmp_path).events


def test_stop_is_heard_between_two_blocks(tmp_path, landing_folder, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 2000)
    (landing_folder / "big.jsonl").write_bytes(b"\n".join(line(event(n)) for n in range(5000)))
    stop = threading.Event()
    lake = Lake(str(tmp_path / "lake"))
    live.run(lake, landing_folder, Rules(), 0, stop, say=lambda _: None, probe=lambda point: stop.set())
    assert live.Store(lake).committed() == -1 and live.Store(lake).plan(0) is not None
    assert len(by_live(tmp_path).events) == 5000


def test_many_small_files_are_several_batches(tmp_path, landing_folder, monkeypatch):
    monkeypatch.setattr(live, "BATCH_FILES", 10)
    for number in range(25):
        (landing_folder / f"{number:03d}.jsonl").write_bytes(line(event(number)))
    found = by_live(tmp_path)
    assert len(found.events) == 25 and len(found.said) == 3


# --- found by review --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", "||"])
def test_a_record_is_the_same_wherever_a_piece_of_the_file_ends(tmp_path, monkeypatch, separator):
    lines = ["event_id,user_id,note_id,action,event_time,title,more".replace(",", separator)]
    titles = ['"one\r\ntwo"', '"a""b"', '"x\n""y"""', '5" wide', '"stray', '"closed"x', '"wrong\nwidth",a,b', "plain", '""', '"\r"']
    for number, title in enumerate(titles):
        row = f"e{number},1,2,impression,{US},TITLE,end".replace(",", separator)
        lines.append(row.replace("TITLE", title.replace(",", separator)))
    data = "\r\n".join(lines).encode()
    path = tmp_path / "log.csv"
    path.write_bytes(data)
    layout = sources.layout_of(path, separator=separator)
    wanted = ("event_id",)

    def read():
        found = []
        for block in sources.read_blocks(path, layout, wanted):
            found += zip(block.number, block.wrong, block.body(None), block.columns["event_id"], strict=True)
        return found

    whole = read()
    assert len(whole) > len(titles)
    for size in range(len(lines[0]) + 2, len(data)):
        monkeypatch.setattr(sources, "BLOCK_BYTES", size)
        assert read() == whole, size


def test_stray_quotes_in_every_line_cost_no_more_than_their_lines(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"event_id,user_id,note_id,action,event_time\n" + b'",",x",y,"b\n' * 400_000)
    found = read_log([path])  # each line leaves a quote open, entered inside of quotes or not
    assert found.quarantine.num_rows == found.rows == 400_000


@pytest.mark.parametrize("way", WAYS)
def test_times_out_of_all_ranges_in_parquet_cost_their_own_row(tmp_path, way):
    path = tmp_path / "log.parquet"
    far = pa.array([US // 1000, 2**62], pa.int64()).cast(pa.timestamp("ms", "UTC"))
    nested = pa.StructArray.from_arrays(
        [pa.array([2**62, 1], pa.int64()).cast(pa.timestamp("us", "UTC")), pa.array([2**62, 1], pa.int64()).cast(pa.duration("s"))], ["t", "d"]
    )
    pq.write_table(arrow(event_time=far, nested=nested), path)
    found = came(way, path, tmp_path)
    assert found.events.keys() == {"a"} and found.accounted
    assert json.loads(found.events["a"]["context"])["nested"]["t"] == str(2**62)


def test_the_greatest_double_is_a_number(tmp_path):
    path = tmp_path / "log.jsonl"
    numbers = ["1.7976931348623157e308", "-1.7976931348623157e308", "1.79769313486231571e308", "17976931348623157" + "0" * 292, "0.0e999", "4e-400"]
    more = ["1.8e308", "1e309", "1e99999999999"]
    path.write_bytes(b"\n".join(line(event(n))[:-1] + f',"v":{text}}}'.encode() for n, text in enumerate(numbers + more)))
    kept = [json.loads(row["context"])["v"] for row in came("label", path, tmp_path).events.values()]
    assert kept[: len(numbers) - 3] == [float(text) for text in numbers[:-3]]
    assert not any(isinstance(value, str) for value in kept[: len(numbers) - 3] + kept[4:6]) and kept[6:] == more


def test_a_key_written_with_escapes_holds_what_any_key_holds(tmp_path):
    path = tmp_path / "log.jsonl"
    rows = [line(event(1, channel="NaN")).replace(b'"channel"', b'"ch\\u0061nnel"'), line(event(2)).replace(b'"user_id": 1', b'"user\\u005fid": NaN')]
    path.write_bytes(b"\n".join(rows))
    found = came("label", path, tmp_path)
    assert found.events["e1"]["channel"] == "NaN" and found.quarantine[0][1] == "user_id: not an integer of 64 bits (NaN)"


def begun(tmp_path, landing_folder, monkeypatch, rows=400):
    """A lake in which the first part of a file big.jsonl is taken."""
    monkeypatch.setattr(sources, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(live, "UNPACKED", 1)
    (landing_folder / "a").mkdir(exist_ok=True)
    path = landing_folder / "a" / "big.jsonl"
    path.write_bytes(b"\n".join(line(event(n)) for n in range(rows)))
    stop = threading.Event()
    live.run(Lake(str(tmp_path / "lake")), landing_folder, Rules(), 0, stop, lambda *_: stop.set(), say=lambda _: None, batch_bytes=6000)
    return path


def test_a_file_that_is_away_between_its_parts_goes_on_when_it_is_back(tmp_path, landing_folder, monkeypatch):
    path = begun(tmp_path, landing_folder, monkeypatch)
    path.rename(tmp_path / "away")
    (landing_folder / "other.jsonl").write_bytes(line(event(1000)))
    assert len(by_live(tmp_path, batch_bytes=6000).events) < 200
    (tmp_path / "away").rename(path)
    assert len(by_live(tmp_path, batch_bytes=6000).events) == 401


def test_a_file_that_waits_between_its_parts_is_not_forgotten_for_another_big_one(tmp_path, landing_folder, monkeypatch):
    begun(tmp_path, landing_folder, monkeypatch)
    (landing_folder / "a" / "mapping.toml").write_text("broken")
    (landing_folder / "zbig.jsonl").write_bytes(b"\n".join(line(event(n)) for n in range(1000, 1400)))
    by_live(tmp_path, batch_bytes=6000)
    (landing_folder / "a" / "mapping.toml").unlink()
    assert len(by_live(tmp_path, batch_bytes=6000).events) == 800


def test_a_mapping_broken_after_the_plan_lets_its_files_wait(tmp_path, landing_folder):
    (landing_folder / "x.jsonl").write_bytes(line(event(1)))
    stop = threading.Event()
    live.run(
        Lake(str(tmp_path / "lake")), landing_folder, Rules(), 0, stop, say=lambda _: None, probe=lambda point: stop.set()
    )
    (landing_folder / "mapping.toml").write_bytes(b"n = " + b"1" * 5000)
    assert not by_live(tmp_path).quarantine
    (landing_folder / "mapping.toml").unlink()
    assert by_live(tmp_path).events.keys() == {"e1"}


def test_two_ids_with_one_key_cost_their_own_file(tmp_path, landing_folder, monkeypatch):
    from assets.events import mapping

    (landing_folder / "mapping.toml").write_text(
        'name = "t"\n[user]\ncolumn = "u"\nids = "string"\n[item]\ncolumn = "i"\n[time]\ncolumn = "t"\n[action]\ncolumn = "a"\n[action.values]\nc = "click"\n'
    )
    monkeypatch.setattr(mapping.xxhash, "xxh64_intdigest", lambda text: 7 if text in ("x", "y") else hash(text) % 2**63)
    for name, user in (("1", "x"), ("2", "y"), ("3", "z")):
        (landing_folder / f"{name}.jsonl").write_bytes(json.dumps({"u": user, "i": 5, "t": US, "a": "c"}).encode())
    for take, folder in ((by_live, "live"), (by_batch, "batch")):
        home = tmp_path / folder
        home.mkdir()
        (home / "landing").symlink_to(landing_folder)
        found = take(home)
        assert len(found.events) == 2, folder
        assert [reason.split()[1] for _, reason, _ in found.quarantine] == ["2.jsonl"]


def test_a_file_of_another_kind_than_its_name_says_is_told_what_it_is(tmp_path):
    plain, more, parquet = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz", tmp_path / "c.csv"
    plain.write_bytes(line(event()))
    more.write_bytes(gzip.compress(line(event())) + b"garbage")
    pq.write_table(pa.table({"a": [1]}), parquet)
    for path, words in ((plain, "it is not packed, name it without .gz"), (more, "after its gzip stream come other bytes"), (parquet, "it is a Parquet file, name it .parquet")):
        with pytest.raises(SourceError, match=words):
            read_log([path])
