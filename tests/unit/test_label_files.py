"""The core of `glasshouse label`: files in, whole Parquet files and a summary out."""

import json

import pyarrow.parquet as pq
import pytest

from assets.attribution.label import LabelError, label_files
from assets.attribution.rules import Rules
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS, ORPHAN_ACTIONS
from tests.unit.labeling import event, expected, same
from tests.integration.test_label_live import drop


@pytest.fixture
def log(tmp_path):
    events = [event("a", 0, "impression"), event("b", 1, "click"), event("c", 2, "like"), event("d", 90, "hide")]
    drop(tmp_path / "in", "a", [*events, events[0]])
    with (tmp_path / "in" / "b.jsonl").open("w") as file:
        file.write("{broken\n" + json.dumps({"event_id": "x", "user_id": 1}) + "\n")
    return sorted((tmp_path / "in").glob("*")), events


def test_files_are_labeled_and_summarised(log, tmp_path):
    paths, events = log
    summary = label_files(paths, tmp_path / "out", None, Rules())
    names = ("impression_sessions", "click_sessions", "orphan_actions")
    tables = [pq.read_table(tmp_path / "out" / f"{name}.parquet") for name in names]
    same(tables, expected(events))
    for table, declared in zip(tables, (IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS), strict=True):
        assert table.schema.names == declared.schema.names
    assert (summary["rows"], summary["events"], summary["repeats"], summary["quarantined"]) == (7, 4, 1, 2)
    assert sum(summary["quarantine"].values()) == pq.read_table(tmp_path / "out" / "quarantine.parquet").num_rows == 2
    assert (summary["ctr"], summary["flags"]["like"], summary["orphan_actions"]) == (1.0, 1, 1)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"{name}.parquet" for name in sorted([*names, "quarantine"])]


def test_a_second_run_replaces_its_files_and_leaves_others(log, tmp_path):
    paths, events = log
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    label_files(paths, out, None, Rules())
    label_files(paths[:1], out, None, Rules())
    assert pq.read_table(out / "quarantine.parquet").num_rows == 0
    assert (out / "mine.txt").read_text() == "kept"


def test_out_that_is_a_file_is_refused(log, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(LabelError, match="give a folder"):
        label_files(log[0], tmp_path / "out", None, Rules())


def test_a_log_without_any_good_row(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    summary = label_files([tmp_path / "empty.jsonl"], tmp_path / "out", None, Rules())
    assert summary["events"] == 0 and summary["ctr"] is None


def test_labels_do_not_overwrite_their_log(log, tmp_path):
    label_files(log[0], tmp_path / "out", None, Rules())
    before = (tmp_path / "out" / "click_sessions.parquet").read_bytes()
    with pytest.raises(LabelError, match="would be overwritten by the labels; give another folder"):
        label_files([tmp_path / "out" / "click_sessions.parquet"], tmp_path / "out", None, Rules())
    assert (tmp_path / "out" / "click_sessions.parquet").read_bytes() == before
