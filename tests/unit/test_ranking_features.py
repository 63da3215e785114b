"""Columns to arrays: hashing, scaling, masks, and which columns may be read at all."""

import numpy as np
import pyarrow as pa
import pytest
from ranking_world import SCHEMA, draw

from assets.ranking import features
from assets.ranking.config import HEADS, OUTPUTS, SEQUENCE_LENGTH, SEQUENCES, TABLES, RankerConfig, RankerError

EDGES = pa.array([-(2**63), -1, 0, 1, 2**63 - 1, None], pa.int64())


def fitted(rows=500):
    samples, _ = draw(rows, 3)
    return samples, features.fit(samples, RankerConfig())


def test_splitmix64_known_answers():
    # First two outputs of the reference generator seeded with 0 (its state grows by the same constant).
    found = features.splitmix64(np.array([0, -0x61C8864680B583EB], dtype=np.int64))
    assert [int(x) for x in found] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@pytest.mark.parametrize("rows", [2, 3, 1000])
def test_any_int64_lands_in_the_table_and_null_in_row_0(rows):
    found = features.table_rows("user_id", EDGES, rows)
    assert found[-1] == 0 and found[:-1].min() >= 1 and found.max() < rows


def test_consecutive_ids_spread():
    found = features.table_rows("note_id", pa.array(np.arange(10_000)), 1001)
    assert np.bincount(found, minlength=1001)[1:].max() < 30  # 10 expected


def test_strings_hash_the_same_whatever_else_is_there():
    alone = features.table_rows("topic", pa.array(["food"]), 4099)
    among = features.table_rows("topic", pa.array(["travel", None, "food", "food"]), 4099)
    assert among[2] == among[3] == alone[0] != among[0] and among[1] == 0


def test_position_is_its_own_row():
    found = features.table_rows("position", pa.array([0, 1, 199, 5000, -3, None], pa.int32()), 202)
    assert found.tolist() == [1, 2, 200, 201, 1, 0]


def test_a_cross_knows_which_is_which():
    a, b = pa.array([1, 2, None, 1]), pa.array([2, 1, 1, None])
    found = features.crossed_rows(a, b, 500_009)
    assert found[0] != found[1] and found[2:].tolist() == [0, 0]


def test_features_are_known_at_display_time_only():
    planted = SCHEMA.append(pa.field("note_title", pa.string())).append(pa.field("author_followers", pa.int64()))
    assert features.dense_columns(planted) == [
        "user_impressions", "user_ctr", "user_topic_clicks", "note_impressions", "note_ctr", "author_followers",
    ]  # fmt: skip
    _, schema = fitted()
    outcome = {name for name in SCHEMA.names if name.startswith("label_")} | {"engaged", "dwell_ms", "session_start"}
    assert not outcome & set(schema.columns)


def test_labels_change_nothing_of_the_inputs():
    samples, schema = fitted()
    flipped = samples
    for name in [*features.LABELS, "engaged", "dwell_ms"]:
        i = flipped.schema.get_field_index(name)
        ones = pa.array(np.ones(len(samples)), SCHEMA.field(name).type)
        flipped = flipped.set_column(i, flipped.schema.field(i), ones)
    one, other = features.encode(samples, schema), features.encode(flipped, schema)
    for name in ("ids", "dense", "lists", "lengths"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert not np.array_equal(one.labels, other.labels)


def test_rates_and_counters_are_told_apart_and_standardised():
    samples, schema = fitted(2000)
    assert {d.name: d.transform for d in schema.dense} == {
        "user_impressions": "log1p", "user_ctr": "logit", "user_topic_clicks": "log1p", "note_impressions": "log1p",
        "note_ctr": "logit",
    }  # fmt: skip
    dense = features.encode_dense(samples, schema)
    known = samples["user_ctr"].is_valid().to_numpy()
    scaled = dense[known][:, :5]
    assert np.allclose(scaled.mean(0), 0, atol=0.05) and np.allclose(scaled.std(0), 1, atol=0.1)
    assert schema.groups == ("user_topic_", "user_", "note_")
    assert np.array_equal(dense[:, 5], ~known) and np.all(dense[~known][:, :5] == 0)
    assert np.isfinite(dense).all() and dense.shape[1] == schema.width


def test_engagement_is_masked_to_engaged_displays():
    samples, schema = fitted()
    batch = features.encode(samples, schema)
    engaged = samples["engaged"].to_numpy()
    assert (batch.weights[:, 0] == 1).all()
    assert np.array_equal(batch.weights[:, 1:], np.repeat(engaged[:, None], len(OUTPUTS) - 1, axis=1))
    assert np.allclose(np.expm1(batch.labels[:, -1]), samples["dwell_ms"].to_numpy() / 1000, rtol=1e-4)
    rates = features.positive_rates(samples)
    assert rates[1] == pytest.approx(samples["label_like"].to_numpy()[engaged == 1].mean(), abs=1e-6)


def test_a_log_without_author_topic_and_profiles_encodes():
    samples, _ = draw(50, 1)
    for name in ("author_id", "topic", "device", "position", "request_id", "user_ctr", "user_impressions"):
        i = samples.schema.get_field_index(name)
        samples = samples.set_column(i, samples.schema.field(i), pa.nulls(50, samples.schema.field(i).type))
    schema = features.fit(samples, RankerConfig())
    batch = features.encode(samples, schema)
    names = list(TABLES)
    absent = [names.index(name) for name in ("author_id", "topic", "device", "position", "user_topic")]
    assert (batch.ids[:, absent] == 0).all()
    assert np.isfinite(batch.dense).all()


def test_a_missing_column_is_named():
    samples, schema = fitted()
    with pytest.raises(RankerError, match="note_ctr"):
        features.encode(samples.drop_columns(["note_ctr"]), schema)
    with pytest.raises(RankerError, match="liked_notes.*user_histories.*again"):
        features.check_columns(pa.schema([f for f in SCHEMA if f.name != "liked_notes"]), RankerConfig())
    features.check_columns(pa.schema([f for f in SCHEMA if f.name != "liked_notes"]), RankerConfig(sequences=("clicked",)))
    with pytest.raises(RankerError, match="label_hide"):
        features.check_columns(pa.schema([f for f in SCHEMA if f.name != "label_hide"]), RankerConfig())


def test_schema_survives_json():
    _, schema = fitted()
    assert features.FeatureSchema.from_dict(schema.as_dict()) == schema
    with pytest.raises(RankerError, match="train the ranker anew"):
        features.FeatureSchema.from_dict({"tables": {}, "dense": []})


def lists_of(**columns):
    """Samples whose lists are those given, and no others."""
    samples, schema = fitted(len(next(iter(columns.values()))))
    for of in SEQUENCES.values():
        for name in of:
            i = samples.schema.get_field_index(name)
            values = columns.get(name, [None] * len(samples))
            samples = samples.set_column(i, SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type))
    return features.encode(samples, schema), samples, schema


def test_an_entry_of_a_list_lies_where_the_id_itself_does():
    batch, samples, schema = lists_of(
        clicked_notes=[[5, 6], None, [], [7]], clicked_topics=[["food", None], None, [], ["art"]],
        clicked_authors=[[1, 2], None, [], [None]],
    )  # fmt: skip
    assert batch.lengths.tolist() == [[2, 0], [0, 0], [0, 0], [1, 0]]
    row = features.table_rows("note_id", pa.array([5, 6, 7]), schema.tables["note_id"])
    assert batch.lists[0, 0, :3].tolist() == [row[0], row[1], 0] and batch.lists[3, 0, 0] == row[2]
    food = features.table_rows("topic", pa.array(["food"]), schema.tables["topic"])[0]
    assert batch.lists[0, 1, :2].tolist() == [food, 0] and batch.lists[3, 2, 0] == 0
    assert not batch.lists[1:3].any()
    part = features.encode(samples.slice(3, 1), schema)
    assert np.array_equal(part.lists, batch.lists[3:]) and np.array_equal(part.lengths, batch.lengths[3:])


def test_of_a_longer_list_the_newest_are_read_and_unequal_columns_are_an_error():
    long = list(range(SEQUENCE_LENGTH + 5))
    same = {"clicked_topics": [["a"] * len(long)], "clicked_authors": [long]}
    batch, _, schema = lists_of(clicked_notes=[long], **same)
    assert batch.lengths[0, 0] == SEQUENCE_LENGTH
    assert batch.lists[0, 0, -1] == features.table_rows("note_id", pa.array([SEQUENCE_LENGTH - 1]), schema.tables["note_id"])[0]
    with pytest.raises(RankerError, match="clicked_notes.*length"):
        lists_of(clicked_notes=[[1]], **same)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dim": 6},
        {"holdout": 1},
        {"device": "tpu"},
        {"processes": -1},
        {"tables": {"user_id": 5}},
        {"sharding": {"user_id": "x"}},
        {"sharding": {"position": "row_wise"}},
        {"network": "tree"},
        {"space": "all"},
        {"sequences": ("bought",)},
        {"hidden": ()},
        {"lr_final": 0},
    ],
)
def test_configuration_is_checked(wrong):
    with pytest.raises(RankerError):
        RankerConfig(**wrong)
