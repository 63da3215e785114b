"""One reading for every way in: hostile logs in every format, by `label`, live and batch, against a plain reader.

DIFFERENTIAL_SEED=N repeats a run, DIFFERENTIAL_ROUNDS=N makes more of them.
"""

import json
import os
import random

import pytest

from assets.events.intake import read_log
from assets.lake import Lake
from tests.faults.ways import by_batch, by_live
from tests.fuzz import differential, plain

ROUNDS = int(os.environ.get("DIFFERENTIAL_ROUNDS", "1"))
SEED = os.environ.get("DIFFERENTIAL_SEED")


def shown(row):
    """An event of the house as plain.py has it."""
    found = {name: row[name] for name in plain.COLUMNS}
    for name in ("event_time", "ingest_time"):
        found[name] = (row[name] - plain.EPOCH) // plain.dt.timedelta(microseconds=1)
    return found | {"context": None if row["context"] is None else plain.comparable(json.loads(row["context"], parse_int=plain.Number, parse_float=plain.Number))}


def refused(home):
    """Quarantine of a lake: file -> row -> reason."""
    lake = Lake(str(home / "lake"))
    names = {row["source"]: row["name"] for row in lake.read("sources").to_pylist()}
    found = {}
    for row in lake.read("quarantine").to_pylist():
        found.setdefault(names[row["source"]], {})[row["row"]] = row["reason"]
    return found


def same(found, expected, what):
    """Compared key by key, so that a difference is short enough to be read."""
    assert found.keys() == expected.keys(), (what, sorted(found.keys() ^ expected.keys(), key=str)[:5])
    for key, right in expected.items():
        assert found[key] == right, (what, key, found[key], right)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [18, *([int(SEED)] if SEED else [None] * ROUNDS)])
def test_every_way_and_every_format_read_the_same_as_a_plain_reader(tmp_path, seed):
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    print(f"again: DIFFERENTIAL_SEED={seed} pytest tests/fuzz/test_differential.py")
    (tmp_path / "landing").mkdir()
    paths = [differential.write(tmp_path / "landing", seed, format, 250) for format in differential.FORMATS]
    right = {path.name: plain.read(path) for path in paths}
    # One in six draws gives Parquet times without a zone: then all its rows are refused, by every way for the same reason.
    few = {name for name, one in right.items() if len(one.events) <= 50}
    assert all(one.quarantine for one in right.values()) and few <= ({"log-parquet.parquet"} if seed != 18 else set())
    for path in paths:
        found, expected = read_log([path]), right[path.name]
        same({row["row"]: row["reason"] for row in found.quarantine.to_pylist()}, expected.quarantine, (seed, path.name))
        same({row["event_id"]: shown(row) for row in found.events.to_pylist()}, expected.events, (seed, path.name))
        counts = (found.rows, found.repeats, found.repeated_keys)
        assert counts == (expected.rows, expected.repeats, expected.repeated_keys), (seed, path.name)
    events: dict[str, dict] = {}
    for name in sorted(right):  # the order of arrival
        events = right[name].events | events
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch" / "landing").symlink_to(tmp_path / "landing")
    for take, home in ((by_live, tmp_path), (by_batch, tmp_path / "batch")):
        came = take(home)
        same(refused(home), {name: one.quarantine for name, one in right.items()}, (seed, take.__name__))
        same({id_: shown(row) for id_, row in came.events.items()}, events, (seed, take.__name__))
        assert (came.rows, came.repeated_keys) == tuple(sum(getattr(one, name) for one in right.values()) for name in ("rows", "repeated_keys"))
        assert came.accounted
    # Accepted anew by the assets what the live labeler has taken is the same.
    same({id_: shown(row) for id_, row in by_batch(tmp_path).events.items()}, events, (seed, "live, then batch"))
