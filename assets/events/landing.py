"""What lies in the landing folder, and how it is to be read.

Here: finding logs. Not here: reading them (sources.py, intake.py).
A file `mapping.toml` in a folder says how the logs of that folder are to be read; without one they are native events.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assets.events.mapping import Mapping

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
MAPPING = "mapping.toml"


@dataclass(frozen=True)
class Batch:
    """Logs that are read alike, in order of their names: arrival order. mapping: None for native events."""

    paths: list[Path]
    mapping_file: Path | None

    @property
    def mapping(self) -> Mapping | None:
        from assets.events.mapping import load_mapping

        return load_mapping(self.mapping_file) if self.mapping_file else None


def batches(folder: Path) -> list[Batch]:
    """The logs of a folder and of its subfolders, a batch a folder.

    Hidden files and unfinished ones (.tmp, .part) are left. A folder that does not exist holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = []
    for place in [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]:
        paths = sorted(path for path in place.iterdir() if path.is_file() and _is_log(path))
        mapping = place / MAPPING
        if paths:
            found.append(Batch(paths, mapping if mapping.exists() else None))
    return found


def _is_log(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.removesuffix(".gz").endswith(SUFFIXES)
