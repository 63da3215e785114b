"""The map of ids to rows: who gets a row, who loses it, and that no two ids ever share one."""

import numpy as np
import pyarrow as pa
import pytest
from ranking_world import draw, plant, window

from assets.lake import Lake
from assets.ranking import features, samples
from assets.ranking.collisions import FILE, MANAGED, IdMap, IdMaps
from assets.ranking.config import TABLES, RankerConfig, RankerError

TIGHT = {**TABLES, "user_id": 60, "note_id": 40, "author_id": 11, "user_topic": 200}


def ids(*values):
    return np.array(values, np.uint64)


def owners(one: IdMap) -> dict[int, int]:
    return dict(zip(one.keys[1 : one.used + 1].tolist(), range(1, one.used + 1)))


def test_an_id_has_a_row_from_its_kth_display_on():
    one = IdMap.empty(100)
    for count in (1, 2):
        one.observe(ids(7), 3, "lru")
        assert one.rows(ids(7)).tolist() == [0], count
    one.observe(ids(7, 8), 3, "lru")
    assert one.rows(ids(7, 8)).tolist() == [1, 0]
    one.observe(ids(8, 8, 9), 3, "lru")
    assert one.rows(ids(8, 9)).tolist() == [2, 0] and one.hits[2] == 3 and one.used == one.admitted == 2


@pytest.mark.parametrize("key", [0, 1, 2**63, 2**64 - 1])
def test_any_number_can_be_an_id(key):
    one = IdMap.empty(10)
    assert one.rows(ids(key)).tolist() == [0]
    one.observe(ids(key), 1, "lru")
    assert one.rows(ids(key)).tolist() == [1]


def full(evict):
    """Rows 1, 2, 3 of ids 1 (4 displays, long ago), 2 (2 displays), 3 (1 display, just now)."""
    one = IdMap.empty(4)
    one.observe(ids(1, 1, 1, 1), 1, evict)
    one.observe(ids(2, 2), 1, evict)
    one.observe(ids(3), 1, evict)
    return one


@pytest.mark.parametrize(("evict", "loses"), [("lru", 1), ("lfu", 3), ("distance_lfu", 3)])
def test_who_loses_its_row(evict, loses):
    one = full(evict)
    changed = one.observe(ids(9, 9), 1, evict)
    assert changed.tolist() == [loses] and one.evicted == 1
    assert set(owners(one)) == {1, 2, 3, 9} - {loses} and one.rows(ids(loses, 9)).tolist() == [0, loses]


def test_with_age_an_often_displayed_id_loses_to_a_new_one():
    """4 displays, 40 displays ago, in a table of 4 rows: worth 4 / (1 + 40 / 4) < 1."""
    one = full("distance_lfu")
    for _ in range(20):
        one.observe(ids(2, 3), 1, "distance_lfu")
    assert one.observe(ids(9), 1, "distance_lfu").tolist() == [1]


def test_an_owner_that_is_worth_as_much_stays():
    one = IdMap.empty(3)
    one.observe(ids(1, 1, 2, 2), 1, "lfu")
    assert one.observe(ids(3, 3), 1, "lfu").tolist() == [] and one.rows(ids(1, 2, 3)).tolist() == [1, 2, 0]
    assert one.observe(ids(3), 1, "lfu").tolist() == [1]  # three displays by now: the filter went on counting


@pytest.mark.parametrize("evict", ["lru", "lfu", "distance_lfu"])
def test_no_two_ids_share_a_row_whatever_comes(evict):
    rng = np.random.default_rng(3)
    one = IdMap.empty(50)
    for _ in range(60):
        batch = (rng.zipf(1.3, 400) % 3000).astype(np.uint64)
        before = owners(one)
        changed = one.observe(batch, 2, evict)
        after = owners(one)
        assert len(after) == one.used <= 49 and sorted(after.values()) == list(range(1, one.used + 1))
        assert one.rows(np.array(list(after), np.uint64)).tolist() == list(after.values())
        gone = set(before) - set(after)
        assert {before[key] for key in gone} == set(changed.tolist()) and not one.rows(ids(*gone)).any()
    assert one.evicted > 50


def test_a_map_survives_its_file_and_goes_on_alike(tmp_path):
    rng = np.random.default_rng(4)
    config = RankerConfig(tables=TIGHT, collisions="managed")
    maps = IdMaps.empty(config)
    made = lambda: {name: (rng.zipf(1.3, 300) % 900).astype(np.uint64) for name in MANAGED}  # noqa: E731
    for number in range(10):
        maps.observe(made(), (0, number))
    maps.save(tmp_path / FILE)
    again = IdMaps.load(tmp_path / FILE, config)
    assert again.mark == (0, 9) and again.report() == maps.report()
    more = made()
    one, other = maps.observe(more), again.observe(more)
    for name in MANAGED:
        assert np.array_equal(one[name], other[name])
        assert all(np.array_equal(a, vars(again.of[name])[part]) for part, a in vars(maps.of[name]).items() if part != "slots")
        assert np.array_equal(maps.of[name].rows(more[name]), again.of[name].rows(more[name]))
    with pytest.raises(RankerError, match="another size"):
        IdMaps.load(tmp_path / FILE, RankerConfig(collisions="managed"))


def test_lists_and_ids_lie_in_the_same_row_and_unknown_ids_in_row_0():
    rows, _ = draw(400, 2)
    config = RankerConfig(tables=TIGHT, collisions="managed", admit_after=1)
    maps = IdMaps.empty(config)
    schema = features.fit(rows, config)
    schema = features.FeatureSchema(schema.tables, schema.dense, schema.sequences, maps)
    assert not features.encode(rows, schema).ids[:, :3].any()
    maps.observe(features.observed_keys(rows, MANAGED))
    batch = features.encode(rows, schema)
    of = {note: row for note, row in zip(rows["note_id"].to_pylist(), batch.ids[:, list(TIGHT).index("note_id")].tolist())}
    assert len({row for row in of.values() if row}) == sum(row > 0 for row in of.values()) == 39
    listed = rows["clicked_notes"].to_pylist()
    first = next(i for i, one in enumerate(listed) if one)
    assert batch.lists[first, 0, : len(listed[first])].tolist() == [of.get(note, 0) for note in listed[first]]
    assert schema.rows("note_id", pa.array([2**61, None])).tolist() == [0, 0]
    assert schema.rows("user_topic", pa.array([5, None]), pa.array(["x", "y"])).tolist() == [0, 0]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_process_has_the_same_map_and_reads_on_from_any_step(tmp_path, processes):
    lake = Lake(str(tmp_path))
    plant(lake, 1500, 2)
    config = RankerConfig(
        tables=TIGHT, collisions="managed", batch=64, min_steps=1, shuffle_rows=192 * processes, processes=processes, holdout=0,
    )  # fmt: skip
    where = samples.split(lake, window(2), config)
    schema, _ = samples.fit_schema(where, config)
    whole = [list(samples.training_steps(where, schema, config, 0, rank)) for rank in range(processes)]
    moves = [[moved for _, moved in steps if moved] for steps in whole]
    assert len({len(steps) for steps in whole}) == 1 and len({len(one) for one in moves}) == 1 and len(moves[0]) > 2
    for one, *others in zip(*moves):
        for other in others:
            assert one.seed == other.seed and one.ids.report() == other.ids.report()
            assert all(np.array_equal(one.changed[n], other.changed[n]) for n in MANAGED)
            assert all(np.array_equal(one.ids.of[n].keys, other.ids.of[n].keys) for n in MANAGED)
    assert any(len(move.changed["note_id"]) for move in moves[0])
    known = None
    for start, (_, moved) in enumerate(whole[0]):
        known = moved.ids if moved else known
        if start % 4:  # a chunk has three steps: all places in a chunk come up
            continue
        rest = list(samples.training_steps(where, schema, config, 0, 0, start + 1, known.copy()))
        assert len(rest) == len(whole[0]) - start - 1
        for (batch, moved), (batch_then, moved_then) in zip(rest, whole[0][start + 1 :], strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(batch, batch_then)) and (moved is None) == (moved_then is None)
