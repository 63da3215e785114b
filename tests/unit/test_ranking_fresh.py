"""Which version the fresh loop goes on from, and how spans of a line add up; without torch."""

import json

import pytest

from assets.lake import Lake
from assets.ranking import fresh, registry
from assets.ranking.config import RankerError


def version(lake, name, base=None):
    folder = registry.folder(lake) / name
    folder.mkdir(parents=True)
    said = {"cutoff": "2026-01-05T05:00:00+00:00"}
    if base:
        said["fresh"] = {"base": base, "until": "2026-01-05T07:30:00+00:00"}
    (folder / "config.json").write_text(json.dumps(said))


def test_the_line_of_the_newest_version_trained_as_a_whole_goes_on(tmp_path):
    lake = Lake(str(tmp_path))
    assert fresh.head(lake) is None
    with pytest.raises(RankerError, match="materialize"):
        fresh.once(lake)
    for name, base, expected in [
        ("01", None, "01"), ("02", "01", "02"), ("03", "01", "03"), ("04", None, "04"),
        ("05", "01", "04"),  # was in training when 04 appeared
        ("06", "04", "06"), ("07", "01", "06"),
    ]:  # fmt: skip
        version(lake, name, base)
        assert fresh.head(lake) == expected, name
    assert fresh.seen_until(lake, "06").hour == 7 and fresh.seen_until(lake, "04").hour == 5


def test_neighbouring_spans_become_one():
    assert fresh._joined([], ["a", "b"]) == [["a", "b"]]
    assert fresh._joined([["a", "b"]], ["b", "c"]) == [["a", "c"]]
    assert fresh._joined([["a", "b"]], ["c", "d"]) == [["a", "b"], ["c", "d"]]
