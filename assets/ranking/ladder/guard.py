"""What no rung may read: anything that is only known after the display.

Here: two looks at the features, by name and by what they give away. Not here: whether a counter counts an event too early:
that is the audit of training_samples (assets/samples/audit.py).

The reading time is the trap: in logs such as KuaiRand, play time is a column of the display's own row, and long view is
that very column cut at a threshold. A model that reads it has an AUC of nearly 1 and is of no use.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from assets.ranking.config import HEADS, RankerError
from assets.ranking.evaluate import auc
from assets.ranking.features import FeatureSchema
from assets.ranking.ladder.read import Part

# Words in the name of a column that tell of the display's outcome.
OUTCOMES = {"dwell", "play", "playtime", "watch", "watched", "stay", "label", "engaged", "end"}
# Sums over the week before the display's hour, which may carry such a word.
BEFORE = {"user_dwell_ms", "note_dwell_ms", "author_dwell_ms"}
# A single input that alone tells nearly all positives from negatives: no counter known beforehand does that. (On generated
# traffic the truth itself has 0.7 to 0.85.)
TELLTALE = 0.95
LOOKED_AT = 100_000  # training samples
ENOUGH = 30  # positives, and negatives, below which an AUC of 0.95 may be luck


def check_names(columns: Iterable[str]) -> None:
    """Raises RankerError where a feature's name says that it is of the display's outcome."""
    if found := [name for name in columns if name not in BEFORE and OUTCOMES & set(name.lower().split("_"))]:
        raise RankerError(
            f"{', '.join(found)}: known only after the display, so no feature; take it out of training_samples, or rename "
            "it if it is a sum of earlier hours (assets/ranking/ladder/guard.py lists those)"
        )


def check_values(train: Part, schema: FeatureSchema) -> None:
    """Raises RankerError where one dense input alone nearly is a head's label."""
    names = [column.name for column in schema.dense]
    if found := list(_telltales(train, names)):
        raise RankerError(f"leak: {'; '.join(found)}. Nothing that is known before the display says so much of what follows it")


def _telltales(train: Part, names: list[str]) -> Iterable[str]:
    rows = train.encoded.rows(slice(None, None, -(-len(train) // LOOKED_AT)))
    for head, label, weight in zip(HEADS, rows.labels.T, rows.weights.T):
        inside = weight > 0
        label = label[inside]
        if min(label.sum(), len(label) - label.sum()) < ENOUGH:
            continue
        for name, values in zip(names, rows.dense.T):
            alone = auc(values[inside].astype(np.float64), label)
            if alone is not None and max(alone, 1 - alone) > TELLTALE:
                yield f"{name} alone has an AUC of {alone:.3f} for {head}"
