"""The smallest file that still shows what a file has shown: rows left out, halves first (delta debugging).

Here: which rows stay. Not here: how a file is tried (drive.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tests.fuzz.files import File

TRIES = 40
One = TypeVar("One")


def smallest(file: File, shows: Callable[[File], bool], tries: int = TRIES) -> File:
    """shows: whether a file still shows it. A Parquet file loses columns, then rows."""
    budget = [tries]

    def asked(candidate: File) -> bool:
        budget[0] -= 1
        return budget[0] >= 0 and shows(candidate)

    if file.table is None:
        parts = fewest(file.parts, lambda parts: asked(replace(file, parts=list(parts))))
        return replace(file, parts=list(parts))
    names = fewest(file.table.column_names, lambda names: asked(replace(file, table=file.table.select(list(names)))))  if _distinct(file) else None
    table = file.table if names is None else file.table.select(list(names))
    rows = fewest(range(table.num_rows), lambda rows: asked(replace(file, table=table.take(list(rows)))))
    return replace(file, table=table.take(list(rows)))


def _distinct(file: File) -> bool:
    return len(set(file.table.column_names)) == len(file.table.column_names)


def fewest(ones: Sequence[One], shows: Callable[[Sequence[One]], bool]) -> Sequence[One]:
    """A part of the sequence that still shows it, from which no piece tried could be left out."""
    ones, pieces = list(ones), 2
    while ones:
        size = -(-len(ones) // pieces)
        cuts = [ones[at : at + size] for at in range(0, len(ones), size)]
        tried = [*cuts, *([one for cut in cuts[:at] + cuts[at + 1 :] for one in cut] for at in range(len(cuts)))] if len(cuts) > 1 else [[]]
        better = next((part for part in tried if len(part) < len(ones) and shows(part)), None)
        if better is not None:
            ones, pieces = better, 2
        elif size <= 1:
            break
        else:
            pieces = min(len(ones), 2 * pieces)
    return ones
