"""Which version serves: an append-only history whose newest entry is the pointer, without torch."""

import datetime as dt
import json
import multiprocessing
import os
import signal
import time

import pyarrow as pa
import pytest
from ranking_world import plant, window

from assets.lake import Lake
from assets.ranking import promotion, registry
from assets.ranking.config import RankerError


def fill(folder):
    for name in registry.FILES:
        (folder / name).write_text("{}")


@pytest.fixture
def versions(lake):
    return [registry.publish(lake, fill) for _ in range(3)]


def test_nothing_serves_at_first(lake, versions):
    assert registry.serving(lake) is None and registry.history(lake) == []
    with pytest.raises(RankerError, match="ranker promote"):
        registry.read_metrics(lake, "serving")
    with pytest.raises(RankerError, match="nothing to roll back"):
        registry.rollback(lake, why="")


def test_promote_and_rollback_say_who_when_and_why(lake, versions):
    first, second, third = versions
    begun = dt.datetime.now(dt.UTC)
    registry.promote(lake, first, why="the first", by="ann")
    registry.promote(lake, third, why="better")
    assert registry.serving(lake) == third and registry.exact(lake, "serving") == third
    entry = registry.rollback(lake, why="complaints", by="bob")
    assert registry.serving(lake) == first and registry.rolled_back(lake) == {third}
    entries = registry.history(lake)
    assert [(e["number"], e["action"], e["version"], e["before"]) for e in entries] == [
        (1, "promote", first, None), (2, "promote", third, first), (3, "rollback", first, third)
    ]  # fmt: skip
    assert entries[2] == entry and entry["by"] == "bob" and entry["why"] == "complaints"
    assert begun <= dt.datetime.fromisoformat(entry["at"]) <= dt.datetime.now(dt.UTC)
    with pytest.raises(RankerError, match="first to serve"):
        registry.rollback(lake, why="again")
    registry.promote(lake, third, why="fixed elsewhere")
    assert registry.rolled_back(lake) == set()


def test_rollbacks_go_back_one_by_one(lake, versions):
    for version in versions:
        registry.promote(lake, version, why="")
    registry.rollback(lake, why="")
    assert registry.rollback(lake, why="")["version"] == versions[0] == registry.serving(lake)


def test_what_cannot_be_promoted_is_refused_and_nothing_changes(lake, versions):
    first, second, _ = versions
    registry.promote(lake, first, why="")
    for version, instead, words in ((first, registry.ANY, "serves already"), ("20200101", registry.ANY, "no ranker version"),
                                    (second, None, f"{first} serves by now"), (second, second, f"{first} serves by now")):
        with pytest.raises(RankerError, match=words):
            registry.promote(lake, version, why="", instead_of=instead)
    assert registry.serving(lake) == first and len(registry.history(lake)) == 1


def test_of_two_writers_at_once_one_is_told(lake, versions, monkeypatch):
    entries = registry.history(lake)
    registry.promote(lake, versions[0], why="the quick one")
    monkeypatch.setattr(registry, "history", lambda lake: entries)
    with pytest.raises(RankerError, match="just now"):
        registry.promote(lake, versions[1], why="the slow one")
    monkeypatch.undo()
    assert registry.serving(lake) == versions[0] and len(registry.history(lake)) == 1


def _move_forever(root, names):
    lake = Lake(root)
    first = int(registry.serving(lake) == names[0])
    for turn in range(first, 10**6):
        registry.promote(lake, names[turn % 2], why=str(turn))


@pytest.mark.slow
def test_a_killed_promote_leaves_the_old_or_the_new_one(lake, versions):
    """Killed again and again at moments of its own choosing: each time the history reads, and its end is the pointer."""
    spawn, seen = multiprocessing.get_context("spawn"), 0
    for turn in range(6):
        process = spawn.Process(target=_move_forever, args=(lake.root, versions[:2] if turn % 2 else versions[1:]))
        process.start()
        deadline = time.monotonic() + 60
        try:
            while len(registry.history(lake)) <= seen and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.005 * turn)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        entries = registry.history(lake)
        assert [entry["number"] for entry in entries] == list(range(1, len(entries) + 1)) and len(entries) > seen
        assert all(now["before"] == then["version"] for then, now in zip(entries, entries[1:]))
        assert registry.serving(lake) == entries[-1]["version"]
        seen = len(entries)
    assert registry.versions(lake) == versions


def test_who_reads_while_another_writes_sees_a_history(lake, versions, monkeypatch):
    registry.promote(lake, versions[0], why="first")
    read, entry = registry._head, registry._entry

    def head_of_later(place):
        number = read(place)
        registry._entry, registry._head = entry, read
        registry.promote(lake, versions[1], why="while it is read")
        return number

    monkeypatch.setattr(registry, "_head", head_of_later)
    assert [one["why"] for one in registry.history(lake)] == ["first", "while it is read"]
    listed = type(lake_folder := registry._serving_folder(lake)).glob
    monkeypatch.setattr(type(lake_folder), "glob", lambda self, pattern: sorted(listed(self, pattern))[1:])
    assert len(registry.history(lake)) == 2  # an entry that the listing missed


def passed(before, good=True):
    return {"passed": good, "reasons": [] if good else ["click: AUC 0.5"], "samples": 1000, "compared_with": before}


def test_the_automation_promotes_what_passed_against_the_version_that_serves(lake, versions):
    first, second, third = versions
    with pytest.raises(RankerError, match="was not checked"):
        promotion.promote_checked(lake, first)
    registry.record_check(lake, first, passed(None, good=False))
    with pytest.raises(RankerError, match="click: AUC 0.5"):
        promotion.promote_checked(lake, first)
    registry.record_check(lake, first, passed(None))
    assert promotion.promote_checked(lake, first)["version"] == first
    assert promotion.promote_checked(lake, first)["number"] == 3  # serves already: nothing is written
    registry.record_check(lake, second, passed(first))
    registry.record_check(lake, third, passed(first))
    promotion.promote_checked(lake, third)
    with pytest.raises(RankerError, match="serves by now"):
        promotion.promote_checked(lake, second)
    registry.rollback(lake, why="complaints")
    with pytest.raises(RankerError, match="was rolled back"):
        promotion.promote_checked(lake, third)
    assert registry.serving(lake) == first


def test_a_version_names_the_delta_versions_and_rules_behind_it(lake):
    from assets.attribution import provenance
    from assets.attribution.rules import Rules
    from assets.attribution.tables import LABELED_HOURS

    fingerprint = provenance.register(lake, Rules())
    book = provenance.booked(window(2).hours, 1, 0, "label_window", fingerprint)
    lake.replace_window(LABELED_HOURS, book, window(2))
    plant(lake, 300, 2)
    read = lake.version("training_samples")
    then = lake.log.newest()
    plant(lake, 200, 2, seed=2)  # the samples move on before the version is written

    def write(folder):
        fill(folder)
        bounds = [bound.isoformat() for bound in (window(2).start, window(2).end)]
        config = {"table": "training_samples", "table_version": read, "window": bounds}
        (folder / "config.json").write_text(json.dumps(config))

    found = registry.read_config(lake, registry.publish(lake, write))["lineage"]
    assert found["read"] == {"training_samples": read}
    assert found["made_from"]["moment"] == then.number and found["made_from"]["tables"] == then.tables
    assert found["rules"] == [{"rules": fingerprint, "version": Rules().version, "hours": 2}]
    assert found["label_code"] == [provenance.code_version()]
    assert isinstance(lake.read("labeled_hours"), pa.Table)


def test_a_version_from_before_there_was_a_lineage_is_readable(lake, versions):
    for name in (registry.LINEAGE, registry.SUMS):
        (registry.folder(lake) / versions[0] / name).unlink()
    assert registry.read_config(lake, versions[0])["lineage"] == {}
