"""What was told of outlasts a power cut; a full disk and a folder that is read-only leave no half and are named."""

import datetime as dt
import json
import logging
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from assets import commits, durable
from assets.attribution import memory
from assets.check import check
from assets.commits import CommitLog
from assets.durable import DamagedError, sealed, unsealed
from assets.lake import HOUR, Lake, LakeError, Table
from tests.chaos import powercut
from tests.faults import damaged_lake as damaged
from tests.integration.test_label_live import check as exact
from tests.integration.test_label_live import cut, go, shaken
from tests.unit.test_label import big_log

ROOT = Path(__file__).resolve().parents[2]


# --- power cuts --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("work", powercut.WORKS)
def test_a_power_cut_loses_and_doubles_nothing_that_was_told(tmp_path, work):
    report = powercut.run(tmp_path, cuts=9, seed=7, works=[work], say=str)
    assert sum(report.cuts.values()) == 9 and report.events > 100
    assert report.faults == 0, report.first


def test_a_recording_knows_what_is_on_the_disk(tmp_path):
    """The tool itself: bytes without fsync are not on the disk, names without one of the folder neither."""
    recording = powercut.Recording(tmp_path / "disk", tmp_path / "record")
    work = """
        import os, sys
        from assets import durable
        from tests.chaos.powercut import mark
        from pathlib import Path
        disk = Path(sys.argv[1])
        def say(place, text):
            with open(disk / place, "w") as file: file.write(text)
        say("never", "x"); durable.sync_folder(disk)
        say("bytes", "x"); durable.sync_file(disk / "bytes")
        mark("one")
        durable.write_durably(disk / "whole", b"old")
        say("whole.part", "new"); os.replace(disk / "whole.part", disk / "whole")
        mark("two")
        durable.write_durably(disk / "whole", b"newer")
        durable.make_folder(disk / "a" / "b"); durable.create_durably(disk / "a" / "b" / "c", b"c")
        mark("three")
    """
    done = recording.run([sys.executable, "-c", "\n".join(line[8:] for line in work.splitlines()), str(recording.root)])
    assert done.returncode == 0, done.stderr
    events = recording.events
    ends = [place + 1 for place, one in enumerate(events) if one[0] == "mark"]
    found = {}
    for at, mode, marks, disk in recording.disks([(end, mode) for end in ends for mode in (powercut.STRICT, powercut.EAGER)], tmp_path / "cut", 1):
        found[marks[-1], mode] = {str(path.relative_to(disk)): path.read_text() for path in disk.rglob("*") if path.is_file()}
    assert found["one", powercut.STRICT] == {"never": ""}
    assert found["one", powercut.EAGER] == {"never": "", "bytes": "x"}
    assert found["two", powercut.STRICT] == {"never": "", "bytes": "x", "whole": "old"}
    assert found["two", powercut.EAGER] == {"never": "", "bytes": "x", "whole": ""}
    assert found["three", powercut.STRICT] == {"never": "", "bytes": "x", "whole": "newer", "a/b/c": "c"}


# --- a lake -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("durable")
    events = shaken(big_log(5, count=400, keys=20, minutes=120), 5, 6)
    cut(folder / "landing", events, 40)
    go(Lake(str(folder / "lake")), folder / "landing", batch_bytes=1, snapshot_batches=3)
    return folder, events


@pytest.fixture
def copied(labeled, tmp_path):
    subprocess.run(["cp", "-a", *(str(path) for path in labeled[0].iterdir()), str(tmp_path)], check=True)
    return tmp_path, labeled[1]


@pytest.mark.slow
def test_an_emptied_log_entry_is_not_read_as_a_commit_that_did_nothing(copied):
    folder, _ = copied
    entry = sorted((folder / "lake/events/_delta_log").glob("*.json"))[-2]
    os.truncate(entry, 0)
    with pytest.raises(LakeError, match=f"{entry.name} is empty; put it back"):
        Lake(str(folder / "lake")).read("events")
    with pytest.raises(LakeError, match=entry.name):
        go(Lake(str(folder / "lake")), folder / "landing")  # a labeler that starts, with nothing to do


@pytest.mark.slow
def test_a_lake_of_older_code_opens_and_goes_on(copied):
    """Without checksums: none in its JSON files, none at the end of its segments, no chains of its logs."""
    folder, events = copied
    for path in folder.glob("lake/**/*.json"):
        if "_delta_log" not in path.parts:
            body = unsealed(path, _name_of(path))
            body.pop("logs", None) if isinstance(body, dict) else None
            if path.name == "consumed.json":
                body = list(body["files"])
            path.write_text(json.dumps(body))
    for path in folder.glob("lake/_live/**/*.arrow"):
        os.truncate(path, path.stat().st_size - memory.TRAILER)
    lake = Lake(str(folder / "lake"))
    assert check(lake).damages == []
    more = shaken(big_log(6, count=200, keys=20, minutes=120), 6, 6)
    later = [{**one, "event_id": f"later-{one['event_id']}", **{t: one[t] + 4 * 3_600_000_000 for t in ("event_time", "ingest_time")}} for one in more]
    for number in range(0, len(later), 40):
        cut(folder / f"landing/later{number:04d}", later[number : number + 40], 40)
    go(lake, folder / "landing", batch_bytes=1, snapshot_batches=3)
    assert lake.read("events").num_rows == len({one["event_id"] for one in [*events, *later]})
    assert lake.log.newest().logs["events"]["whole"], "the chain begins with the first entry"
    assert check(Lake(str(folder / "lake"))).damages == []


def _name_of(path: Path) -> str:
    if path.parent.name in ("_commits", "_live"):
        return path.name
    return "/".join(path.parts[-3:] if path.name == "consumed.json" else path.parts[-2:])


@pytest.mark.slow
def test_files_that_spark_or_a_compaction_wrote_have_checksums_too(copied):
    from assets.tidy import tidy

    folder, _ = copied
    lake = Lake(str(folder / "lake"))
    assert tidy(lake, open_hours=0)["events"]["hours_compacted"]
    found = check(lake)
    assert found.damages == [] and found.checksums > 10
    theirs = next(path for path in (folder / "lake/events").rglob("*.parquet") if path.name.startswith("part-"))
    damaged.flipped(theirs, theirs)
    with pytest.raises(LakeError, match=f"{theirs.name} is damaged"):
        Lake(str(folder / "lake")).read("events")


THING = Table("thing", pa.schema([HOUR, pa.field("x", pa.int64())]), "a thing")
OTHER = replace(THING, name="other")
ROWS = pa.table({"hour": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)], "x": [1]}, schema=THING.schema)
FIRST = "_delta_log/00000000000000000000.json"


def _whole_entry(tmp_path) -> bytes:
    whole = Lake(str(tmp_path / "whole"))
    whole.create(THING)
    return Path(whole.path("thing"), FIRST).read_bytes()


@pytest.mark.parametrize("before", ["no moment", "moments"])
@pytest.mark.parametrize("left", ["empty", "half", "a line", "no entry"])
def test_a_table_whose_making_a_power_cut_met_is_made_again(tmp_path, caplog, before, left):
    lake, whole = Lake(str(tmp_path / "lake")), _whole_entry(tmp_path)
    if before == "moments":
        lake.append_once(OTHER, ROWS, "app", 1)
    first = Path(lake.path("thing"), FIRST)
    first.parent.mkdir(parents=True)
    if left != "no entry":
        first.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "a line": whole[: whole.index(b"\n") + 1]}[left])
        assert [one.path for one in check(Lake(lake.root)).damages] == [str(first)]
    reader = Lake(lake.root)
    assert not reader.exists("thing") and reader.span("thing") is None
    with pytest.raises(LakeError, match="has no table `thing`"):
        reader.read("thing")
    with caplog.at_level(logging.WARNING, "glasshouse"):
        Lake(lake.root).append_once(THING, ROWS, "app", 1)
    assert (f"{first} was left torn" in caplog.text) == (left != "no entry")
    assert reader.read("thing").num_rows == 1
    assert check(Lake(lake.root)).damages == []


def test_a_recovery_clears_what_is_left_of_a_table_that_was_never_made(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    lake.append_once(OTHER, ROWS, "app", 1)
    first = Path(lake.path("thing"), FIRST)
    first.parent.mkdir(parents=True)
    first.touch()
    Lake(lake.root).recover()
    assert not first.exists() and check(lake).damages == []


@pytest.mark.parametrize("lost", ["its moment", "no moment"])
def test_rows_above_a_torn_first_entry_are_not_taken_away(tmp_path, lost):
    """They were told of: their moments are gone, or they come from a writer that makes none."""
    lake = Lake(str(tmp_path / "lake"))
    if lost == "its moment":
        lake.append_once(THING, ROWS, "app", 1)
        for path in lake.log.root.glob("0*.json"):
            path.unlink()
    else:
        for _ in range(2):
            write_deltalake(lake.path("thing"), ROWS, mode="append")
    first = Path(lake.path("thing"), FIRST)
    os.truncate(first, 0)
    with pytest.raises(LakeError, match=rf"{first} is empty or damaged, and .*1\.json stands on it; put it back"):
        Lake(lake.root).append_once(THING, ROWS, "app", 2)
    assert first.exists()


@pytest.mark.slow
def test_two_who_make_a_table_at_once_make_one(tmp_path):
    work = """
        import sys
        from assets.lake import Lake
        from tests.faults.test_durable import ROWS, THING
        sys.stdin.readline()
        Lake(sys.argv[1]).append_once(THING, ROWS, sys.argv[2], 1)
    """
    text = "\n".join(line[8:] for line in work.splitlines())
    makers = [
        subprocess.Popen([sys.executable, "-c", text, str(tmp_path / "lake"), f"app{number}"], cwd=ROOT, stdin=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        for number in range(3)
    ]  # fmt: skip
    for maker in makers:  # all begin before the first has ended
        maker.stdin.write("go\n")
        maker.stdin.flush()
    ends = [maker.communicate(timeout=120) for maker in makers]
    assert not any(maker.returncode for maker in makers), ends
    lake = Lake(str(tmp_path / "lake"))
    assert lake.read("thing").num_rows == 3 and check(lake).damages == []


def test_checksums_that_are_tidied_away_while_they_are_read_are_left_out(tmp_path, monkeypatch):
    reader, other = CommitLog(str(tmp_path)), CommitLog(str(tmp_path))
    reader.note_sums("thing", 1, {"gone.parquet": "0" * 16})
    reader.note_sums("thing", 2, {"there.parquet": "1" * 16})
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing/there.parquet").touch()
    real = commits.unsealed

    def just_then(path, name):
        monkeypatch.setattr(commits, "unsealed", real)
        other.forget_sums("thing")
        return real(path, name)

    monkeypatch.setattr(commits, "unsealed", just_then)
    assert reader.sums("thing") == {"there.parquet": "1" * 16}


@pytest.mark.slow
def test_two_readers_may_meet_a_damaged_checkpoint_at_once(tmp_path, monkeypatch):
    lake = Lake(str(tmp_path / "lake"))
    for number in range(25):
        lake.append_once(THING, ROWS, "app", number)
    (point,) = Path(lake.path("thing"), "_delta_log").glob("*.checkpoint.parquet")
    damaged.flipped(point, point)
    both, rename = threading.Barrier(2), os.rename

    def together(source, target):
        if str(target).endswith(".damaged"):
            both.wait(60)
        return rename(source, target)

    monkeypatch.setattr(durable.os, "rename", together)
    with ThreadPoolExecutor(2) as readers:
        found = list(readers.map(lambda _: Lake(lake.root).read("thing").num_rows, range(2)))
    assert found == [25, 25] and not point.exists()


# --- no room, no right --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("limit", [300, 2_000, 5_000, 9_000])
def test_a_full_disk_is_named_and_leaves_no_half(tmp_path, limit):
    """No file may grow beyond `limit` bytes: the write fails as one on a full disk does."""
    events = shaken(big_log(8, count=300, keys=20, minutes=120), 8, 6)
    cut(tmp_path / "landing", events, 60)
    said = _labeled_with(tmp_path, f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))")
    if said != "done":
        assert re.search(rf"{tmp_path}/lake/\S+", said) and re.search("make room|File too large|cannot be", said), said
    lake = Lake(str(tmp_path / "lake"))
    go(lake, tmp_path / "landing", batch_bytes=1)
    exact(lake, events)
    assert check(lake).damages == []
    assert not list((tmp_path / "lake").rglob("*.part"))


def test_full_disks_were_met():
    """The limits above do stop the labeler, all but perhaps the largest."""
    with pytest.raises(durable.DiskError, match="/x cannot be written .* make room"):
        with durable.writing("/x"):
            raise OSError(28, "No space left on device")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["_commits", "_live/segments", "events", "events/_delta_log"])
def test_a_folder_that_is_read_only_is_named(copied, place):
    if os.getuid():
        pytest.skip("only root can become a user who may not write")
    folder, events = copied
    cut(folder / "landing/later", [{**one, "event_id": f"later-{one['event_id']}"} for one in events[:40]], 40)
    before = Lake(str(folder / "lake")).read("events").num_rows
    subprocess.run(["chmod", "-R", "a+rwX", str(folder)], check=True)
    for path in [folder, *folder.parents][:4]:
        os.chmod(path, os.stat(path).st_mode | 0o055)
    subprocess.run(["chmod", "-R", "a-w", str(folder / "lake" / place)], check=True)
    said = _labeled_with(folder, "os.setgid(65534); os.setuid(65534)")
    assert str(folder / "lake") in said and ("may write there" in said or "Permission denied" in said), said
    subprocess.run(["chmod", "-R", "u+w", str(folder / "lake")], check=True)
    lake = Lake(str(folder / "lake"))
    go(lake, folder / "landing", batch_bytes=1)
    assert lake.read("events").num_rows == before + 40
    assert check(lake).damages == []


def _labeled_with(folder: Path, handicap: str) -> str:
    """Label in a process with a handicap; "done", or the one line that the command would show."""
    work = f"""
        import os, resource, signal, threading
        from pathlib import Path
        from assets.attribution import live, repeats, resident
        from assets.attribution.rules import Rules
        from assets.lake import Lake
        from dagster_project import show
        resident.warm_up(); repeats.warm_up()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        {handicap}
        with show.expected_errors():
            live.run(Lake({str(folder / "lake")!r}), Path({str(folder / "landing")!r}), Rules(), 0, threading.Event(), once=True, say=str,
                     snapshot_batches=2, batch_bytes=1)
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in work.splitlines())], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/tmp"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return "done" if done.returncode == 0 else done.stderr


# --- files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"indent": 1}, {"indent": 2}])
def test_every_bit_of_a_sealed_file_counts(tmp_path, how):
    path = tmp_path / "file.json"
    body = sealed("file.json", {"batch": 12, "watermark": 1_767_225_600_000_000, "files": ["a", "b"]}, **how)
    path.write_bytes(body)
    assert unsealed(path, "file.json") == {"batch": 12, "watermark": 1_767_225_600_000_000, "files": ["a", "b"]}
    with pytest.raises(DamagedError, match="checksum"):
        unsealed(path, "another.json")  # a copy of another file
    for place in range(len(body)):
        for bit in range(8):
            changed = bytearray(body)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            try:
                found = unsealed(path, "file.json")
            except DamagedError:
                continue
            assert found == {"batch": 12, "watermark": 1_767_225_600_000_000, "files": ["a", "b"]}, (place, bit, bytes(changed))


def test_a_file_without_a_seal_is_of_older_code(tmp_path):
    (tmp_path / "a.json").write_text('{"stream": "abc"}')
    assert unsealed(tmp_path / "a.json", "a.json") == {"stream": "abc"}
    (tmp_path / "a.json").write_text("")
    with pytest.raises(DamagedError, match="is empty"):
        unsealed(tmp_path / "a.json", "a.json")


def test_a_file_set_aside_is_told(tmp_path, caplog):
    (tmp_path / "a").write_text("x")
    with caplog.at_level(logging.WARNING, "glasshouse"):
        durable.set_aside(tmp_path / "a", "is damaged", "it is made anew")
    assert not (tmp_path / "a").exists() and "it is made anew" in caplog.text
    assert [path.read_text() for path in tmp_path.glob("a.*.damaged")] == ["x"]
