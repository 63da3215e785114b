"""`label_files` on logs that others recorded: what their authors wrote down about each display comes back.

The expectations are read from the files with the csv module alone: nothing of intake or of the fold is in them.
"""

import csv
import gzip
import io
import random
from collections import Counter, defaultdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.attribution.label import label_files
from assets.attribution.rules import Rules
from assets.events.mapping import load_mapping

MINUTE_MS = 60_000
APART_MS = 20 * MINUTE_MS + 1000  # a click begins a millisecond after its display and lives as long
BEHAVIOURS = {
    "is_follow": "follow", "is_comment": "comment", "is_forward": "share", "is_profile_enter": "profile_enter",
}  # fmt: skip
US = ("session_start", "session_end", "impression_session_start", "first_click_time", "event_time")


def lines_of(path, delimiter):
    text = gzip.decompress(path.read_bytes()).decode()
    return text.splitlines(keepends=True), list(csv.DictReader(io.StringIO(text), delimiter=delimiter))


def labeled(out, name):
    table = pq.read_table(out / f"{name}.parquet")
    columns = {name: table[name].cast(pa.int64()) if name in US else table[name] for name in table.column_names}
    columns = {name: column.to_pylist() for name, column in columns.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def by_start(rows, column="session_start"):
    return {(row["user_id"], row["note_id"], row[column]): row for row in rows if row[column] is not None}


def displays(rows):
    """Rows by (user, video, time): exact repeats of a row are one display."""
    return {(int(r["user_id"]), int(r["video_id"]), int(r["time_ms"])): r for r in rows}


def stands_alone(shown):
    """Displays with no other of the same user and video near enough to share a session."""
    times = defaultdict(list)
    for user, video, time in shown:
        times[user, video].append(time)
    return {key for key in shown if all(t == key[2] or abs(t - key[2]) > APART_MS for t in times[key[0], key[1]])}


@pytest.fixture(scope="module")
def shaken_kuairand(kuairand, tmp_path_factory):
    """The log in another order, with a tenth of its rows twice: (path, rows as their authors wrote them)."""
    (header, *lines), rows = lines_of(kuairand, "\t")
    dice = random.Random(20)
    mixed = lines + dice.sample(lines, len(lines) // 10)
    dice.shuffle(mixed)
    path = tmp_path_factory.mktemp("kuairand") / "shaken.tsv.gz"
    path.write_bytes(gzip.compress("".join([header, *mixed]).encode(), 1))
    return path, rows, len(mixed)


@pytest.mark.slow
def test_every_behaviour_of_every_kuairand_display_comes_back(shaken_kuairand, tmp_path):
    path, rows, count = shaken_kuairand
    summary = label_files([path], tmp_path, load_mapping("kuairand"), Rules())
    assert summary["rows"] == count and summary["quarantined"] == 0 and summary["orphan_actions"] == 0
    impressions = by_start(labeled(tmp_path, "impression_sessions"))
    clicks = by_start(labeled(tmp_path, "click_sessions"), "impression_session_start")
    shown = displays(rows)
    alone = stands_alone(shown)
    for user, video, time in alone:
        row = shown[user, video, time]
        key = (user, video, time * 1000)
        session = impressions[key]
        assert session["impressions"] == 1
        assert session["clicked"] == (row["is_click"] == "1")
        assert (key in clicks) == session["clicked"]
        bearer = clicks.get(key, session)
        for column, flag in BEHAVIOURS.items():
            assert bearer[flag] == (row[column] == "1"), (key, flag)
        assert (bearer["like"], bearer["hide"]) == (row["label"] == "1", row["label"] == "0"), key
        assert not bearer["fav"] and bearer["dwell_ms"] == int(row["play_time_ms"]), key
        if session is not bearer:
            assert not any(session[flag] for flag in BEHAVIOURS.values()) and session["dwell_ms"] == 0
    # The others lie near another display of the same video: counted apart, and none of their impressions is lost.
    near = len(shown) - len(alone)
    print(f"\n{len(alone)} displays alone, {near} within 20 minutes of another of the same video")
    assert near < len(shown) / 50
    assert sum(session["impressions"] for session in impressions.values()) == len(shown)
    assert summary["click_sessions"] == len(clicks), "no click without its display"


@pytest.mark.slow
def test_order_and_duplicates_of_the_kuairand_log_change_no_label(kuairand, shaken_kuairand, tmp_path):
    label_files([kuairand], tmp_path / "as_is", load_mapping("kuairand"), Rules())
    summary = label_files([shaken_kuairand[0]], tmp_path / "shaken", load_mapping("kuairand"), Rules())
    assert summary["repeats"] > 0
    for name in ("impression_sessions", "click_sessions", "orphan_actions"):
        one, other = (pq.read_table(tmp_path / run / f"{name}.parquet") for run in ("as_is", "shaken"))
        if name == "orphan_actions":
            assert one.num_rows == other.num_rows == 0
            continue
        assert one.drop_columns(["context"]).equals(other.drop_columns(["context"])), name
        # Eight displays stand in the log twice with another `hourmin`: of two rows, the first to arrive counts.
        differing = sum(a != b for a, b in zip(one["context"].to_pylist(), other["context"].to_pylist(), strict=True))
        assert differing <= 8


@pytest.mark.slow
def test_deskdrop_has_clicks_without_displays_and_exact_duplicates(deskdrop, tmp_path):
    _, rows = lines_of(deskdrop, ",")
    summary = label_files([deskdrop], tmp_path, load_mapping("deskdrop"), Rules())
    distinct = Counter((r["personId"], r["contentId"], r["timestamp"], r["eventType"]) for r in rows)
    assert (summary["rows"], summary["quarantined"]) == (72_312, 0)
    assert summary["repeats"] == len(rows) - len(distinct)
    assert sum(n > 1 for n in distinct.values()) == 2_284, "the groups of duplicates that its description names"
    clicks = labeled(tmp_path, "click_sessions")
    assert summary["impression_sessions"] == 0
    assert not any(c["attributed"] or c["impression_session_start"] for c in clicks)
    views = [key for key in distinct if key[3] == "VIEW"]
    assert sum(c["clicks"] for c in clicks) == len(views)
    # Each other action is in the click session of its reader and article that is open then, else an orphan.
    others = {key for key in distinct if key[3] != "VIEW"}
    owned = 0
    spans = defaultdict(list)
    for c in clicks:
        spans[c["user_id"], c["note_id"]].append((c["session_start"], c["session_end"], c))
    flags = {"LIKE": "like", "BOOKMARK": "fav", "COMMENT CREATED": "comment", "FOLLOW": "follow"}
    for person, content, time, kind in others:
        us = int(time) * 1_000_000
        found = [c for start, end, c in spans[int(person), int(content)] if start <= us < end]
        owned += bool(found)
        assert all(c[flags[kind]] for c in found)
    assert summary["orphan_actions"] == len(others) - owned
    print(f"\n{summary['repeats']} repeats, {len(views)} views, {summary['orphan_actions']} orphans")
