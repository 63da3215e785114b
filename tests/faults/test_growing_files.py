"""Logs that are written in place, appended to, replaced, rotated: every row is taken once, whenever the labeler or the assets look.

Here: the landing folder's files as they change. Not here: what a row is (test_poison.py), kills of a process (tests/chaos).
"""

import gzip
import json
import os
import threading
import time

import pyarrow.parquet as pq
import pytest

from assets.attribution import live
from assets.attribution.rules import Rules
from assets.events import contract, landing, sources
from assets.events.intake import WHOLE_FILE
from assets.lake import Lake
from tests.faults.test_poison import arrow
from tests.faults.ways import by_batch, by_live, event, line

pytestmark = pytest.mark.slow

HEAD = b"event_id,user_id,note_id,action,event_time,title\n"
POINTS = ("planned", "segment", "staged", "progress", "intent", "published")


def rows(first, after):
    return b"".join(line(event(n)) + b"\n" for n in range(first, after))


def ids(first, after):
    return {f"e{n}" for n in range(first, after)}


def put(path, data):
    """Written anew in place; the clock of files may be coarse, so it is set on."""
    older = path.stat().st_mtime_ns if path.exists() else 0
    path.write_bytes(data)
    if path.stat().st_mtime_ns <= older:
        os.utime(path, ns=(older + 1_000_000, older + 1_000_000))


def append(path, data):
    put(path, path.read_bytes() + data)


def lake_of(home):
    return Lake(str(home / "lake"))


def raw_rows(home):
    """(source's name, row) of every raw row, sorted."""
    lake = lake_of(home)
    names = {row["source"]: row["name"] for row in lake.read("sources").to_pylist()}
    return sorted((names[row["source"]], row["row"]) for row in lake.read("raw_events").to_pylist())


@pytest.fixture
def log(tmp_path):
    (tmp_path / "landing").mkdir()
    return tmp_path / "landing" / "a.jsonl"


TAKES = pytest.mark.parametrize("take", [by_live, by_batch])


# --- appended to ------------------------------------------------------------------------------------------------------


@TAKES
def test_of_a_log_that_is_appended_to_the_new_rows_are_taken_once(tmp_path, log, take):
    log.write_bytes(rows(0, 500))
    take(tmp_path)
    for first in (500, 700, 1000):
        append(log, rows(first, {500: 700, 700: 1000, 1000: 1001}[first]))
        found = take(tmp_path)
    assert found.events.keys() == ids(0, 1001) and found.repeats == 0 and not found.quarantine
    assert raw_rows(tmp_path) == [("a.jsonl", n) for n in range(1, 1002)]
    again = take(tmp_path)
    assert again.events == found.events and raw_rows(tmp_path) == [("a.jsonl", n) for n in range(1, 1002)]
    assert by_batch(tmp_path).events == found.events  # and accepted anew it is the same


def test_it_is_told_once(tmp_path, log):
    log.write_bytes(rows(0, 5))
    by_live(tmp_path)
    append(log, rows(5, 7))
    said = by_live(tmp_path).said
    assert len(said) == 1 and "1 files were appended to after they were taken: their new rows are in this batch: a.jsonl" in said[0]
    assert by_live(tmp_path).said == []
    assert live.status(lake_of(tmp_path))["appended_files"] == ["a.jsonl"]


@TAKES
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "jsonl.gz", "csv.gz"])
def test_a_row_cut_in_the_middle_is_read_again_when_it_is_whole(tmp_path, take, suffix):
    (tmp_path / "landing").mkdir()
    path = tmp_path / "landing" / f"a.{suffix}"
    pack = (lambda data: gzip.compress(data)) if suffix.endswith(".gz") else bytes
    whole = rows(0, 100) if suffix.startswith("jsonl") else HEAD + b"".join(f"e{n},1,2,click,{event(n)['event_time']},t\n".encode() for n in range(100))
    cut = whole.index(b"e50") + 20
    put(path, pack(whole[:cut]))
    half = take(tmp_path)
    assert half.events.keys() == ids(0, 50) and len(half.quarantine) == 1
    append(path, pack(whole[cut:]))
    found = take(tmp_path)
    assert found.events.keys() == ids(0, 100)
    assert len(found.quarantine) == 1  # the half row stays where it was put
    if take is by_live:
        assert found.rows == 101 and found.accounted
    numbers = [row for _, row in raw_rows(tmp_path)]
    first = 1 if suffix.startswith("jsonl") else 2
    assert sorted(set(numbers)) == list(range(first, 100 + first)) and len(numbers) == 101


@TAKES
def test_a_good_row_without_a_line_end_is_a_repeat_of_itself(tmp_path, log, take):
    put(log, rows(0, 3)[:-1])
    take(tmp_path)
    append(log, b"\n" + rows(3, 5))
    found = take(tmp_path)
    assert found.events.keys() == ids(0, 5) and not found.quarantine and found.repeats == 1


@TAKES
def test_a_field_of_several_lines_that_was_cut(tmp_path, take):
    (tmp_path / "landing").mkdir()
    path = tmp_path / "landing" / "a.csv"
    records = [f'e{n},1,2,click,{event(n)["event_time"]},"one\ntwo, ""x""\n"\n'.encode() for n in range(20)]
    whole = HEAD + b"".join(records)
    cut = len(HEAD) + sum(map(len, records[:10])) + records[10].index(b"two")
    put(path, whole[:cut])
    assert take(tmp_path).events.keys() == ids(0, 10)
    append(path, whole[cut:])
    found = take(tmp_path)
    assert found.events.keys() == ids(0, 20)
    assert {json.loads(row["context"])["title"] for row in found.events.values()} == {'one\ntwo, "x"\n'}


@TAKES
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", HEAD[:9], HEAD[:-1], HEAD, HEAD[:-7]], ids=["nothing", "a mark", "half a header", "no end", "header", "fewer"])
def test_a_csv_that_was_seen_before_its_header_was_whole(tmp_path, take, begin):
    (tmp_path / "landing").mkdir()
    path = tmp_path / "landing" / "a.csv"
    put(path, begin)
    take(tmp_path)
    put(path, (begin if begin == b"\xef\xbb\xbf" else b"") + HEAD + b"".join(f"e{n},1,2,click,{event(n)['event_time']},t\n".encode() for n in range(9)))
    found = take(tmp_path)
    assert found.events.keys() == ids(0, 9) and {row["context"] for row in found.events.values()} == {'{"title":"t"}'}


def test_kills_between_two_looks_at_a_growing_file_lose_and_double_nothing(tmp_path, log):
    class Killed(BaseException):
        pass

    log.write_bytes(rows(0, 10))
    for place, point in enumerate(POINTS):
        def probe(here, point=point):
            if here.startswith(point):
                raise Killed

        append(log, rows(10 + 10 * place, 20 + 10 * place))
        with pytest.raises(Killed):
            by_live(tmp_path, probe=probe, snapshot_batches=2)
        append(log, b"{broken\n") if place == 2 else None
    found = by_live(tmp_path)
    assert found.events.keys() == ids(0, 70) and len(found.quarantine) == 1 and found.repeats == 0
    assert raw_rows(tmp_path) == [("a.jsonl", n) for n in range(1, 72)]


def test_a_file_taken_in_parts_that_grows_between_them(tmp_path, log, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(live, "UNPACKED", 1)
    log.write_bytes(rows(0, 100))
    stop = threading.Event()
    live.run(lake_of(tmp_path), log.parent, Rules(), 0, stop, lambda *_: stop.set(), say=lambda _: None, batch_bytes=6000)
    assert 0 < lake_of(tmp_path).read("events").num_rows < 100
    append(log, rows(100, 150))
    found = by_live(tmp_path, batch_bytes=6000)
    append(log, rows(150, 300))
    found = by_live(tmp_path, batch_bytes=6000)
    assert found.events.keys() == ids(0, 300) and not found.quarantine and found.repeats == 0
    assert raw_rows(tmp_path) == [("a.jsonl", n) for n in range(1, 301)]
    append(log, rows(300, 310))
    assert by_batch(tmp_path).events.keys() == ids(0, 310) and len(raw_rows(tmp_path)) == 310


# --- replaced, rotated, touched ---------------------------------------------------------------------------------------


@TAKES
@pytest.mark.parametrize("size", [3, 10, 20])
def test_a_file_of_the_same_name_with_other_rows_is_taken_whole(tmp_path, log, take, size):
    put(log, rows(0, 10))
    take(tmp_path)
    put(log, rows(100, 100 + size))
    found = take(tmp_path)
    assert found.events.keys() == ids(0, 10) | ids(100, 100 + size) and found.repeats == 0
    if take is by_live:
        assert "1 files were written anew after they were taken: all their rows are in this batch: a.jsonl" in found.said[-1]


@TAKES
def test_copy_and_truncate_loses_nothing(tmp_path, log, take):
    put(log, rows(0, 10))
    take(tmp_path)
    append(log, rows(10, 15))
    (log.parent / "a-1.jsonl").write_bytes(log.read_bytes())
    put(log, rows(15, 17))
    take(tmp_path)
    append(log, rows(17, 40))
    found = take(tmp_path)
    assert found.events.keys() == ids(0, 40)
    if take is by_live:
        assert found.repeats == 10 and found.accounted


@TAKES
def test_rotation_by_rename_takes_the_rest_under_the_new_name(tmp_path, log, take):
    put(log, rows(0, 10))
    take(tmp_path)
    append(log, rows(10, 15))
    log.rename(log.parent / "a-1.jsonl")
    put(log, rows(15, 17))
    found = take(tmp_path)
    assert found.events.keys() == ids(0, 17)


@TAKES
def test_what_is_only_touched_is_not_taken_again(tmp_path, log, take):
    put(log, rows(0, 10))
    take(tmp_path)
    os.utime(log)
    os.utime(log, ns=(log.stat().st_mtime_ns + 5_000_000_000,) * 2)
    found = take(tmp_path)
    assert found.events.keys() == ids(0, 10) and found.repeats == 0 and len(raw_rows(tmp_path)) == 10
    assert all("0 events" in said for said in found.said)
    assert take(tmp_path).said == []
    append(log, rows(10, 12))
    take(tmp_path)
    os.utime(log, ns=(log.stat().st_mtime_ns + 5_000_000_000,) * 2)
    for _ in range(2):
        assert take(tmp_path).events.keys() == ids(0, 12)
    assert [row["rows"] for row in lake_of(tmp_path).read("sources").sort_by("landed_at").to_pylist()] == [10, 2]


# --- packed -----------------------------------------------------------------------------------------------------------


@TAKES
def test_a_gz_that_was_cut_is_taken_when_it_is_whole(tmp_path, take):
    (tmp_path / "landing").mkdir()
    path = tmp_path / "landing" / "a.jsonl.gz"
    whole = gzip.compress(rows(0, 1000))
    put(path, whole[: len(whole) // 2])
    cut = take(tmp_path)
    assert not cut.events and [row for row, *_ in cut.quarantine] == [WHOLE_FILE]
    put(path, whole)
    found = take(tmp_path)
    assert found.events.keys() == ids(0, 1000) and len(found.quarantine) == 1
    append(path, gzip.compress(rows(1000, 1100)))
    found = take(tmp_path)
    assert found.events.keys() == ids(0, 1100) and found.repeats == 0 and len(raw_rows(tmp_path)) == 1100


@TAKES
def test_a_parquet_that_is_written_in_place(tmp_path, take):
    (tmp_path / "landing").mkdir()
    path = tmp_path / "landing" / "a.parquet"
    pq.write_table(arrow(), tmp_path / "whole")
    put(path, (tmp_path / "whole").read_bytes()[:100])
    assert [row for row, *_ in take(tmp_path).quarantine] == [WHOLE_FILE]
    put(path, (tmp_path / "whole").read_bytes())
    assert take(tmp_path).events.keys() == {"a", "b"}


def test_what_is_cut_and_young_is_waited_for_and_not_refused(tmp_path):
    (tmp_path / "landing").mkdir()
    pq.write_table(arrow(), tmp_path / "whole")
    bodies = {"a.jsonl.gz": gzip.compress(rows(0, 300)), "b.parquet": (tmp_path / "whole").read_bytes(), "c.csv.gz": gzip.compress(HEAD)}
    for name, body in bodies.items():
        (tmp_path / "landing" / name).write_bytes(body[: len(body) // 2])
    (tmp_path / "landing" / "good.jsonl").write_bytes(rows(500, 501))
    lake, stop, said = lake_of(tmp_path), threading.Event(), []
    labeler = threading.Thread(
        target=live.run, args=(lake, tmp_path / "landing", Rules(), 0.05, stop), kwargs={"say": said.append, "settle_s": 0.5}
    )
    labeler.start()
    try:
        until(lambda: lake.exists("events") and lake.read("events").num_rows == 1)
        time.sleep(1)
        assert lake.read("quarantine").num_rows == 0 and live.Store(lake).committed() < 6  # no batch without end
        for name, body in bodies.items():
            (tmp_path / "landing" / name).write_bytes(body)
        until(lambda: lake.read("events").num_rows == 303)
    finally:
        stop.set()
        labeler.join()
    assert lake.read("quarantine").num_rows == 0


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


# --- settled ----------------------------------------------------------------------------------------------------------


def test_a_writer_in_place_beside_the_labeler_loses_no_row(tmp_path, log):
    """Half lines, flushes and pauses shorter and longer than the labeler waits."""
    lake, stop, said = lake_of(tmp_path), threading.Event(), []
    labeler = threading.Thread(target=live.run, args=(lake, log.parent, Rules(), 0.02, stop), kwargs={"say": said.append, "settle_s": 0.15})
    labeler.start()
    data = rows(0, 400)
    try:
        with open(log, "wb", buffering=0) as file:
            for place in range(0, len(data), 3001):
                file.write(data[place : place + 3001])
                time.sleep(0.25 if place % 2 else 0.02)
        until(lambda: lake.exists("events") and lake.read("events").num_rows == 400)
    finally:
        stop.set()
        labeler.join()
    found = by_live(tmp_path)
    assert found.events.keys() == ids(0, 400) and found.accounted
    assert by_batch(tmp_path).events == found.events


def test_a_renamed_file_need_not_wait_and_one_written_in_place_does(tmp_path):
    (tmp_path / "a.part").write_bytes(b"{}")
    time.sleep(0.02)
    (tmp_path / "a.part").rename(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b"{}")
    assert landing.is_settled(landing.told_of(tmp_path / "a.jsonl"), 60)
    assert not landing.is_settled(landing.told_of(tmp_path / "b.jsonl"), 60)
    assert landing.is_settled(landing.told_of(tmp_path / "b.jsonl"), 60, time.time_ns() + 61 * 10**9)
    assert landing.is_settled(landing.told_of(tmp_path / "b.jsonl"), 60, time.time_ns() - 3600 * 10**9)  # a clock that was set back
    assert [path.name for batch in landing.batches(tmp_path, 60) for path in batch.paths] == ["a.jsonl"]
    os.utime(tmp_path / "b.jsonl")
    landing.wait(tmp_path, 0.3)
    assert [path.name for batch in landing.batches(tmp_path, 0.3) for path in batch.paths] == ["a.jsonl", "b.jsonl"]


def test_many_files_are_looked_at_in_turn(tmp_path, log, monkeypatch):
    monkeypatch.setattr(live, "LOOKS", 4)
    for n in range(11):
        (log.parent / f"{n:02d}.jsonl").write_bytes(rows(10 * n, 10 * n + 5))
    by_live(tmp_path)
    for n in range(11):
        append(log.parent / f"{n:02d}.jsonl", rows(10 * n + 5, 10 * n + 10))
    lake, stop = lake_of(tmp_path), threading.Event()
    labeler = threading.Thread(target=live.run, args=(lake, log.parent, Rules(), 0.02, stop), kwargs={"say": str})
    labeler.start()
    try:
        until(lambda: lake.read("events").num_rows == 110)
    finally:
        stop.set()
        labeler.join()


# --- the state of an older Glasshouse ---------------------------------------------------------------------------------


def test_files_that_an_older_glasshouse_took_are_held_against_what_they_are_now(tmp_path, log, monkeypatch):
    older = [column for column in contract.SOURCES.schema if column.name not in ("after", "last", "repeated_keys")]
    lake = lake_of(tmp_path)
    lake.create(live.Table("sources", live.pa.schema(older), "as it was", partitioned=False))
    (log.parent / "b.jsonl").write_bytes(rows(50, 55))
    log.write_bytes(rows(0, 5))
    by_live(tmp_path)
    store = live.Store(lake)
    for batch in range(store.committed() + 1):  # it did not say what a file was like, nor where it goes on
        store.write_progress(live.replace(store.progress(batch), stamps={}))
    found = by_live(tmp_path)
    assert found.events.keys() == ids(0, 5) | ids(50, 55) and found.repeats == 0
    stop, said = threading.Event(), []
    labeler = threading.Thread(target=live.run, args=(lake, log.parent, Rules(), 0.02, stop), kwargs={"say": said.append})
    labeler.start()
    try:
        time.sleep(0.5)
        append(log, rows(5, 9))
        until(lambda: lake.read("events").num_rows == 14)
    finally:
        stop.set()
        labeler.join()


# --- what is not taken ------------------------------------------------------------------------------------------------


def test_what_lies_there_and_is_not_taken_is_named_with_the_reason(tmp_path):
    folder = tmp_path / "landing"
    (folder / "in").mkdir(parents=True)
    for name in ("a.log", "b.jsonl.bz2", ".hidden.jsonl", "c.jsonl.tmp", "d.csv.part", "good.jsonl", "mapping.toml", "in/e.txt", "n.jsonl"):
        (folder / name).write_bytes(b"{}")
    os.utime(folder / "good.jsonl", ns=(0, 0))
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "lost.jsonl").symlink_to("nowhere")
    (folder / "device.jsonl").symlink_to("/dev/null")
    left = {one.name: one.why for one in landing.not_taken(folder, 3600)}
    assert left == {
        "a.log": "not a log, by its suffix", "b.jsonl.bz2": "not a log, by its suffix", "in/e.txt": "not a log, by its suffix",
        ".hidden.jsonl": "hidden: its name begins with a dot", "c.jsonl.tmp": "temporary, by its suffix",
        "d.csv.part": "temporary, by its suffix", "pipe.jsonl": "no file: a pipe, a socket or a device", "lost.jsonl": "a link to nothing",
        "device.jsonl": "a link to what is no file", "n.jsonl": "still growing: written to less than 3600 s ago",
    }  # fmt: skip
    assert landing.not_taken(tmp_path / "nothing") == []
