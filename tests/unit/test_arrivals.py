"""What the live labeler knows of earlier batches: which files have landed."""

import json

import pyarrow.parquet as pq
import pytest

from assets.attribution.arrivals import LandedFiles
from assets.events.contract import SOURCES
from assets.events.intake import land
from assets.lake import Lake, LakeError
from assets.tidy import tidy


@pytest.fixture
def log(tmp_path):
    def write(number):
        row = {"event_id": f"e{number}", "user_id": 1, "note_id": 2, "action": "impression", "event_time": 1_767_607_200_000_000}
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(row) + "\n")
        return path

    return write


def named(lake, version=None):
    return set(lake.read(SOURCES.name, version=version)["source"].to_pylist())


def test_files_that_landed_are_known_and_only_new_data_files_are_read(lake, log, monkeypatch):
    known, read = LandedFiles(), []
    opened = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda path, *args, **how: (read.append(path), opened(path, *args, **how))[1])
    for number in range(3):
        land(lake, [log(number)])
        read.clear()
        assert known.at(lake, lake.version(SOURCES.name)) == named(lake)
        assert len([path for path in read if SOURCES.name in str(path)]) == 1
    assert len(named(lake)) == 3


def test_an_older_version_a_tidied_table_and_another_lake_are_read_anew(lake, log, tmp_path):
    known = LandedFiles()
    land(lake, [log(0)])
    first = lake.version(SOURCES.name)
    for number in range(1, 12):
        land(lake, [log(number)])
    newest = lake.version(SOURCES.name)
    assert known.at(lake, newest) == named(lake)
    assert known.at(lake, first) == named(lake, first) != named(lake)
    tidy(lake)
    assert known.at(lake, lake.version(SOURCES.name)) == named(lake)
    other = Lake(str(tmp_path / "other"))
    land(other, [log(50)])
    assert known.at(other, other.version(SOURCES.name)) == named(other)


def test_a_damaged_file_is_named(lake, log):
    land(lake, [log(0)])
    (path,) = lake.files(SOURCES.name)["path"].to_pylist()
    with open(f"{lake.path(SOURCES.name)}/{path}", "r+b") as file:
        file.seek(20)
        file.write(b"\xff\xff")
    with pytest.raises(LakeError, match="is damaged"):
        LandedFiles().at(lake, lake.version(SOURCES.name))
