"""The lake's verbs on real Delta tables, without a JVM."""

import datetime as dt
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from assets.commits import CommitError, write_durably
from assets.followers import Follower
from assets.lake import HOUR, LakeError, Table, Window, Write
from assets.tidy import tidy

THING = Table("thing", pa.schema([HOUR, pa.field("x", pa.int64())]), "a thing")
T0 = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ROOT = Path(__file__).resolve().parents[2]


def hour(n):
    return T0 + dt.timedelta(hours=n)


def rows(*pairs):
    return pa.table({"hour": [hour(h) for h, _ in pairs], "x": [x for _, x in pairs]}, schema=THING.schema)


def content(lake):
    table = lake.read("thing")
    return sorted(zip(table["hour"].to_pylist(), table["x"].to_pylist(), strict=True))


def test_an_append_that_is_repeated_changes_nothing(lake):
    assert lake.append_once(THING, rows((0, 1)), "app", 1)
    assert not lake.append_once(THING, rows((0, 1)), "app", 1)
    assert lake.append_once(THING, rows((0, 2)), "app", 2)
    assert not lake.append_once(THING, rows((0, 1)), "app", 1)
    assert lake.append_once(THING, rows((0, 1)), "other", 1)
    assert content(lake) == [(hour(0), 1), (hour(0), 1), (hour(0), 2)]


def test_replacing_a_window_leaves_its_neighbours(lake):
    lake.append_once(THING, rows((0, 1), (1, 2), (2, 3), (3, 4)), "app", 1)
    lake.replace_window(THING, rows((1, 20)), Window(hour(1), hour(3)))
    assert content(lake) == [(hour(0), 1), (hour(1), 20), (hour(3), 4)]


def test_a_window_can_be_replaced_by_nothing(lake):
    lake.append_once(THING, rows((0, 1), (1, 2)), "app", 1)
    lake.replace_window(THING, THING.empty(), Window(hour(1), hour(2)))
    assert content(lake) == [(hour(0), 1)]
    assert lake.hours("thing") == [hour(0)]


def test_rows_in_any_order_are_found_in_their_hours(lake):
    given = [(n * 7 % 5, n) for n in range(200)]
    lake.replace_windows([Write(THING, rows(*given), Window(hour(0), hour(5)))], by="test")
    assert content(lake) == sorted((hour(h), n) for h, n in given)
    for h in range(5):
        found = lake.read("thing", Window(hour(h), hour(h + 1)))
        assert found["x"].to_pylist() == [n for of, n in given if of == h], "in the order in which they came"
    assert len(lake.files("thing")) == 5


def test_hours_without_rows_are_an_empty_table_of_the_same_columns(lake):
    lake.append_once(THING, rows((0, 1)), "app", 1)
    for columns in (None, ["x"], ["x", "hour"]):
        there, nothing = (lake.read("thing", Window(hour(h), hour(h + 1)), columns) for h in (0, 1))
        assert (there.num_rows, nothing.num_rows) == (1, 0)
        assert nothing.schema.equals(there.schema)


def test_a_pinned_lake_knows_its_versions(lake):
    lake.append_once(THING, rows((0, 1)), "app", 1)
    then = lake.pinned()
    version = then.version("thing")
    lake.append_once(THING, rows((0, 2)), "app", 2)
    assert (then.version("thing"), lake.version("thing")) == (version, version + 1)
    with pytest.raises(LakeError, match="has no table `other`"):
        then.version("other")


def test_a_row_outside_of_the_window_is_refused(lake):
    with pytest.raises(LakeError, match="outside"):
        lake.replace_window(THING, rows((3, 1)), Window(hour(0), hour(3)))


def test_an_old_version_can_be_read(lake):
    lake.append_once(THING, rows((0, 1)), "app", 1)
    version = lake.version("thing")
    lake.replace_window(THING, rows((0, 9)), Window(hour(0), hour(1)))
    assert lake.read("thing", version=version)["x"].to_pylist() == [1]
    assert lake.read("thing", Window(hour(0), hour(1)), columns=["x"])["x"].to_pylist() == [9]


def test_a_missing_table_is_named_with_what_to_do(lake):
    with pytest.raises(LakeError, match="materialize the asset `nothing`"):
        lake.read("nothing")


@pytest.mark.parametrize("start, end", [(hour(1), hour(1)), (hour(2), hour(1)), (T0.replace(minute=5), hour(1))])
def test_a_window_that_is_none_is_refused(start, end):
    with pytest.raises(ValueError, match="window"):
        Window(start, end)


def test_files_that_others_wrote_are_replaced_too(lake):
    """delta-rs's own writer and its compaction name folders with characters that a URL escapes."""
    lake.append_once(THING, rows((0, 1), (1, 5)), "app", 1)
    write_deltalake(lake.path("thing"), rows((0, 2)), mode="append")
    lake.append_once(THING, rows((0, 3)), "app", 2)
    lake.replace_window(THING, rows((0, 9)), Window(hour(0), hour(1)))
    assert content(lake) == [(hour(0), 9), (hour(1), 5)]
    lake.append_once(THING, rows((0, 10)), "app", 3)
    lake.open("thing").optimize.compact()
    lake.publish("compaction", ["thing"])
    lake.replace_window(THING, rows((0, 11)), Window(hour(0), hour(1)))
    assert content(lake) == [(hour(0), 11), (hour(1), 5)]


# --- moments ---------------------------------------------------------------------------------------------------------

OTHER = Table("other", THING.schema, "another thing")


class PowerCut(Exception):
    pass


def both(lake, x, app=None, **how):
    steps = [lake.stage(Write(table, rows((0, x)))) for table in (THING, OTHER)]
    return lake.commit(steps, by="test", app=app, **how)


def counts(lake):
    now = lake.pinned()
    return now.read("thing").num_rows, now.read("other").num_rows


def cut_at(point):
    def probe(at):
        if at == point:
            raise PowerCut

    return probe


def test_a_commit_of_two_tables_is_one_moment(lake):
    first = both(lake, 1)
    before = lake.pinned()
    second = both(lake, 2)
    assert second.number == first.number + 1 and second.tables["other"] == first.tables["other"] + 1
    assert counts(before) == (1, 1) and counts(lake) == (2, 2)
    assert lake.added(second, OTHER)["x"].to_pylist() == [2]
    assert counts(lake.pinned(first.number)) == (1, 1)
    with pytest.raises(LakeError, match="moment 99 is not"):
        lake.pinned(99)


@pytest.mark.parametrize("point", ["intent", "thing", "other", "published"])
def test_a_commit_that_was_cut_is_seen_whole_or_not_at_all_and_finished_by_the_next(lake, point):
    both(lake, 1)
    with pytest.raises(PowerCut):
        both(lake, 2, probe=cut_at(point))
    assert counts(lake) == ((2, 2) if point == "published" else (1, 1))
    lake.recover()
    assert counts(lake) == (2, 2)
    both(lake, 3)
    assert counts(lake) == (3, 3)


def test_a_commit_of_an_app_is_not_repeated_even_where_it_was_cut(lake):
    with pytest.raises(PowerCut):
        both(lake, 1, app=("app", 1), probe=cut_at("thing"))
    assert both(lake, 1, app=("app", 1)) is None
    assert counts(lake) == (1, 1)
    files = [path for path in Path(lake.path("thing")).rglob("*.parquet")]
    assert len(files) == 1, "the repeat's own files are gone"


def test_a_commit_of_an_app_is_counted_even_where_it_is_of_one_table(lake):
    """A live batch without rows is one: who starts after it goes on behind it."""

    def empty(version):
        return lake.commit([{"table": "thing", "window": None, "adds": []}], by="test", app=("app", version))

    both(lake, 1)
    assert empty(0).apps == {"app": 0} and empty(0) is None
    assert empty(1).apps == {"app": 1}


def test_an_append_is_counted_by_its_table_not_by_the_moment(lake):
    assert lake.append_once(THING, rows((0, 1)), "app", 1) and lake.append_once(OTHER, rows((0, 1)), "app", 1)
    assert not lake.append_once(OTHER, rows((0, 1)), "app", 1)
    assert counts(lake) == (1, 1) and "app" not in lake.log.newest().apps


def test_what_the_fence_raises_leaves_nothing_behind(lake):
    def fence():
        raise PowerCut

    both(lake, 1)
    with pytest.raises(PowerCut):
        both(lake, 2, fence=fence)
    both(lake, 3)
    assert counts(lake) == (2, 2)


def test_a_newer_version_that_no_moment_names_is_not_seen(lake):
    """Another program's append, until it is published."""
    both(lake, 1)
    write_deltalake(lake.path("thing"), rows((0, 2)), mode="append")
    assert counts(lake) == (1, 1)
    lake.publish("other program", ["thing"])
    assert counts(lake) == (2, 1)


def test_a_lock_that_is_held_for_too_long_names_its_holder(lake):
    both(lake, 1)
    with lake.log.locked(), pytest.raises(CommitError, match=f"process {os.getpid()} has held"):
        with lake.log.locked(timeout_s=0.05):
            pass


def test_a_pinned_lake_opens_a_version_once_and_a_new_moment_is_read_anew(lake):
    lake.replace_window(THING, rows((0, 1)), Window(hour(0), hour(1)))
    pinned = lake.pinned()
    assert pinned.open("thing") is pinned.open("thing") and pinned.dataset("thing") is pinned.dataset("thing")
    lake.replace_window(THING, rows((0, 2)), Window(hour(0), hour(1)))
    assert content(pinned) == [(hour(0), 1)]
    assert content(lake) == content(lake.pinned()) == [(hour(0), 2)]
    assert content(pickle.loads(pickle.dumps(pinned))) == [(hour(0), 1)]


def test_tidying_changes_no_row_and_keeps_what_a_reader_pinned(lake):
    for x in range(5):
        both(lake, x)
    pinned, before = lake.pinned(), content(lake)
    found = tidy(lake, keep=dt.timedelta(hours=1), open_hours=0)
    assert found["thing"]["hours_compacted"] == 1 and found["thing"]["files_after"] == 1
    assert content(lake) == before and counts(pinned) == (5, 5)
    assert tidy(lake, keep=dt.timedelta(hours=1), open_hours=0)["thing"]["hours_compacted"] == 0
    old = tidy(lake, keep=dt.timedelta(0), open_hours=0)
    assert old["thing"]["files_deleted"] == 5 and old["moments"]["forgotten"] > 3
    assert content(lake) == before


def test_a_moment_that_a_follower_has_not_fetched_is_not_forgotten(lake):
    for x in range(4):
        both(lake, x)
    seen = []
    follower = Follower(lake, "late", lambda lake, moment: seen.append(moment.number), by="test")
    follower.step()
    write_durably(follower.path, json.dumps({"moment": 3}).encode())
    tidy(lake, keep=dt.timedelta(0))
    assert lake.log.numbers()[0] == 4
    while follower.step():
        pass
    assert len(seen) == 2 and follower.waiting() == 0


def test_a_lake_travels_to_another_process_after_it_has_been_written_to(lake):
    both(lake, 1)
    again = pickle.loads(pickle.dumps(lake.pinned()))
    both(lake, 2)
    assert again.read("thing").num_rows == 1 and again.moment == lake.pinned(again.moment.number).moment


@pytest.mark.slow
def test_a_process_that_ends_right_after_reading_ends_well(lake):
    lake.append_once(THING, rows((0, 1), (1, 2)), "app", 1)
    code = f"from assets.lake import Lake; print(Lake({lake.root!r}).read('thing', columns=['x']).num_rows)"
    for _ in range(4):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_a_table_gains_columns_and_old_rows_have_none_in_them(lake):
    lake.append_once(THING, rows((0, 1)), "app", 1)
    before, extra = lake.pinned(), [pa.field("y", pa.int64()), pa.field("x", pa.int64())]
    assert lake.add_columns("thing", extra, by="test") == ["y"]
    assert lake.add_columns("thing", extra, by="test") == []
    assert lake.read("thing").to_pylist() == [{"hour": hour(0), "x": 1, "y": None}]
    assert before.read("thing").schema.names == ["hour", "x"]
    wide = Table("thing", pa.schema([*THING.schema, pa.field("y", pa.int64())]), "a thing")
    more = pa.table({"hour": [hour(0), hour(1)], "x": [2, 3], "y": [4, None]}, schema=wide.schema)
    lake.append_once(wide, more, "app", 2)
    assert sorted(map(str, lake.read("thing")["y"].to_pylist())) == ["4", "None", "None"]
    tidy(lake, open_hours=0)
    assert sorted(map(str, lake.read("thing")["y"].to_pylist())) == ["4", "None", "None"]


def test_tidying_leaves_what_a_writer_has_staged(lake):
    """Its files are named by no version yet, and it commits them after the tidying, whatever `keep` says."""
    both(lake, 1)
    staged = lake.stage(Write(THING, rows((0, 2))))
    tidy(lake, keep=dt.timedelta(0), open_hours=0)
    lake.commit([staged], by="test")
    assert content(lake) == [(hour(0), 1), (hour(0), 2)]
