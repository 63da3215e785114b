"""The samples of one split, as every rung of the ladder reads them.

Here: training rows up to a cap, in memory; which columns are features. Not here: the split and what a column means
(assets/ranking), which rung makes what of it (baselines.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from assets.ranking import features, samples

# The note's counter behind each head's popularity, and what it is counted out of.
COUNTERS = {
    "click": ("note_clicks", "note_impressions"),
    "like": ("note_likes", "note_clicks"),
    "fav": ("note_favs", "note_clicks"),
    "comment": ("note_comments", "note_clicks"),
    "share": ("note_shares", "note_clicks"),
    "follow": ("note_follows", "note_clicks"),
    "hide": ("note_hides", "note_clicks"),
    "profile_enter": ("note_profile_enters", "note_clicks"),
    "long_view": ("note_long_views", "note_clicks"),
}


@dataclass(frozen=True)
class Part:
    """n samples: encoded as for the ranker, and the raw counters of COUNTERS, float64 [n], NaN without a profile."""

    encoded: features.Encoded
    counters: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.encoded.ids)


def counters_of(names: list[str]) -> list[str]:
    """Those counters that the table has (a table without any has no popularity)."""
    wanted = dict.fromkeys(name for pair in COUNTERS.values() for name in pair)
    return [name for name in wanted if name in names]


def columns_of(schema: features.FeatureSchema) -> list[str]:
    """Every column that some rung reads as a feature."""
    return list(dict.fromkeys([*schema.columns, *counters_of([d.name for d in schema.dense])]))


def part_of(rows: pa.Table | pa.RecordBatch, schema: features.FeatureSchema, labelled: bool = True) -> Part:
    """Encode rows. labelled=False reads no label, mask or other outcome."""
    raw = {name: _floats(rows, name) for name in counters_of(rows.schema.names)}
    return Part(features.encode(rows, schema, labelled), raw)


def _floats(rows: pa.Table | pa.RecordBatch, name: str) -> np.ndarray:
    return rows.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)


def training_rows(where: samples.Split, schema: features.FeatureSchema, cap: int) -> Part:
    """Training samples in time order, every k-th where there are more than `cap`: memory is bounded by the cap."""
    every = -(-where.train_rows // cap)
    columns = [*columns_of(schema), *features.TARGETS]
    table = where.lake.dataset(samples.TABLE, where.version).schema
    parts, seen = [], 0
    for fragment in where.fragments("train"):
        batches = fragment.to_batches(schema=table, columns=columns, filter=where.filter("train"), use_threads=False)
        for batch in batches:
            mine = np.arange(-seen % every, batch.num_rows, every)
            seen += batch.num_rows
            if len(mine):
                parts.append(part_of(batch.take(pa.array(mine)), schema))
    counters = {name: np.concatenate([part.counters[name] for part in parts]) for name in parts[0].counters}
    return Part(features.concat([part.encoded for part in parts]), counters)
