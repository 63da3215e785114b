"""What lies in the landing folder, and how it is to be read.

Here: finding logs. Not here: reading them (sources.py, intake.py).
A file `mapping.toml` in a folder says how the logs of that folder are to be read; without one they are native events.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assets.events.names import is_log, shown

if TYPE_CHECKING:
    from assets.events.intake import Native
    from assets.events.mapping import Mapping

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

    Hidden files and unfinished ones (.tmp, .part) are left. A folder that does not exist holds none. Links are followed;
    what is not a file that can be opened (a pipe, a link to nothing), or lies in a folder that cannot be listed, is left.
    """
    found = []
    for place, names in _folders(Path(folder)):
        if names:
            mapping = place / MAPPING
            found.append(Batch([place / name for name in names], mapping if _is(mapping.is_file) else None))
    return found


def logs(folder: Path) -> list[str]:
    """The logs under a folder as paths relative to it, in order of arrival: by name, then by path."""
    root = Path(folder)
    found = []
    for place, names in _folders(root):
        inside = os.path.relpath(place, root)
        found += [(name, name if inside == "." else os.path.join(inside, name)) for name in names]
    return [path for _, path in sorted(found)]


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder and the names of its logs, sorted; a folder that links lead to twice is visited once."""
    seen: set[tuple[int, int]] = set()
    places = [root]
    while places:
        place = places.pop(0)
        names, inner = [], []
        try:
            told = os.stat(place)
            if (told.st_dev, told.st_ino) in seen:
                continue
            seen.add((told.st_dev, told.st_ino))
            with os.scandir(place) as entries:
                for entry in entries:
                    if _is(entry.is_dir):
                        inner.append(place / entry.name)
                    elif not entry.name.startswith(".") and is_log(entry.name) and _is(entry.is_file):
                        names.append(entry.name)
        except OSError:  # it is no folder, is gone, or may not be listed
            continue
        yield place, sorted(names)
        places += sorted(inner)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a loop of links, say
        return False


def form_of(folder: Path) -> Mapping | Native:
    """How the logs of a folder are to be read. Raises MappingError for a mapping.toml that cannot be used."""
    from assets.events.intake import Native
    from assets.events.mapping import MappingError, load_mapping

    file = folder / MAPPING
    try:
        return load_mapping(file) if file.is_file() else Native()
    except OSError as error:  # the folder may not be searched, say
        raise MappingError(f"{shown(file)} cannot be read: {error}; see who may read the folder") from error


def is_there(path: Path) -> bool:
    """Whether a planned file is still there; one that cannot be looked at is, and its reading says why."""
    try:
        return path.exists()
    except OSError:
        return True
