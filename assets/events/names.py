"""Names of log files: which are logs, and how a name is shown. Light to import: Dagster's code location loads it.

Not here: what is in a file (sources.py).
"""

from __future__ import annotations

import os
from pathlib import Path

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


def shown(path: Path | str) -> str:
    """A path as text that can be printed and stored: bytes of a name that are not UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def suffix_of(name: str) -> str:
    """The suffix that says how a file is laid out, in lower case and without .gz."""
    return os.path.splitext(name.lower().removesuffix(".gz"))[1]


def is_log(name: str) -> bool:
    """Whether a file of this name is a log by its suffix, in any case."""
    suffix = suffix_of(name)
    return suffix in SUFFIXES and not (suffix == ".parquet" and name.lower().endswith(".gz"))
