"""Every kind of file of a lake, damaged in every way: it is noticed when it is used, and then rebuilt and told, or refused by name."""

import logging
import shutil

import pytest

from assets.check import check
from assets.lake import Lake
from tests.faults import damaged_lake as damaged

pytestmark = pytest.mark.slow

REFUSED, REBUILT, UNNEEDED = "refused by name", "rebuilt and told", "not needed"
# What must come of a kind, whatever the damage; a damage of its own below. Not needed: nothing that anybody is told hangs on it.
WANTED = {
    "Delta entry, newest": REFUSED, "Delta entry": REFUSED, "Delta entry of a table at rest": REFUSED, "Delta checkpoint": REBUILT,
    "_last_checkpoint": UNNEEDED, "data file": REFUSED, "data file of sources": REFUSED, "moment, newest": REFUSED, "moment": REFUSED,
    "follower's cursor": REBUILT, "stream": REBUILT, "epoch": UNNEEDED, "plan": REFUSED, "progress": REFUSED, "segment": REFUSED,
    "segment of open sessions": REFUSED, "snapshot: impressions": REBUILT, "snapshot: clicks": REBUILT, "snapshot: pending": REBUILT,
    "snapshot: consumed": REBUILT, "backfill: plan": REFUSED, "backfill: journal": REFUSED, "backfill: report": REFUSED,
    "backfill: number": REBUILT, "backfill: a file before": REFUSED, "backfill: rows' log": REFUSED, "backfill: rows' moment": REFUSED,
    "version: config": REFUSED, "version: metrics": REFUSED, "version: weights": REFUSED, "version: checksums": REFUSED,
    "serving, newest": REFUSED, "serving": REFUSED, "serving: head": REBUILT, "training: job": REFUSED, "training: checkpoint": REFUSED,
    "training: meta": REFUSED,
}  # fmt: skip
OTHERWISE = {
    ("follower's cursor", "missing"): UNNEEDED,  # as a follower that is new: everything is handed on once more
    ("follower's cursor", "older_copy"): UNNEEDED,  # moments are handed on once more
    ("backfill: number", "missing"): UNNEEDED,  # the journals say it too
    ("backfill: number", "older_copy"): UNNEEDED,
    ("version: checksums", "missing"): UNNEEDED,  # as a version of older code
    ("serving: head", "missing"): UNNEEDED,
    ("serving: head", "older_copy"): UNNEEDED,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damages")
    damaged.build(folder)
    assert check(Lake(str(folder / "lake"))).damages == []
    return folder


@pytest.fixture(scope="module")
def wanted(whole, tmp_path_factory):
    """What each use gives of the whole lake."""
    found = {}
    for use in dict.fromkeys(use for _, use in damaged.KINDS.values()):
        folder = tmp_path_factory.mktemp("whole") / "copy"
        shutil.copytree(whole, folder)
        found[use] = use(folder)
    return found


@pytest.mark.parametrize("damage", damaged.DAMAGES)
@pytest.mark.parametrize("kind", damaged.KINDS)
def test_a_damaged_file_is_rebuilt_and_told_or_refused_by_name(whole, wanted, tmp_path, caplog, kind, damage):
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    find, use = damaged.KINDS[kind]
    path, older = find(folder)
    before = path.read_bytes()
    damaged.DAMAGES[damage](path, older)
    if path.exists() and path.read_bytes() == before:
        pytest.skip("there is no older copy that differs")
    verdict = OTHERWISE.get((kind, damage), WANTED[kind])
    listed = [one.path for one in check(Lake(str(folder / "lake"))).damages]
    if verdict is not UNNEEDED:
        assert any(one in (str(path), str(path.parent)) for one in listed), listed
    with caplog.at_level(logging.WARNING, "glasshouse"):
        try:
            found = use(folder)
        except Exception as error:
            assert type(error).__module__.startswith("assets."), error
            assert verdict is REFUSED, error
            assert path.name in str(error) or path.parent.name in str(error), error
            assert "\n" not in str(error)
            return
    assert verdict is not REFUSED, "it was used as if nothing were wrong"
    assert found == wanted[use]
    if verdict is REBUILT:
        assert path.name in caplog.text or path.parent.name in caplog.text


@pytest.mark.parametrize("kind", ["data file", "Delta entry", "segment", "snapshot: impressions", "progress", "moment, newest"])
def test_a_flipped_bit_is_noticed_wherever_it_is(whole, wanted, tmp_path, kind):
    """Twelve places of each file; of the JSON ones too, where a digit that is another is JSON still."""
    find, use = damaged.KINDS[kind]
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    path, older = find(folder)
    before = path.read_bytes()
    for seed in range(1, 13):
        damaged.flipped(path, older, seed)
        listed = [one.path for one in check(Lake(str(folder / "lake"))).damages]
        assert any(one in (str(path), str(path.parent)) for one in listed), (seed, listed)
        path.write_bytes(before)
