"""What lies in the landing folder, how it is to be read, and whether its writer is done with it.

Here: finding logs, and telling what is not taken. Not here: reading them (sources.py, intake.py).
A file `mapping.toml` in a folder says how the logs of that folder are to be read; without one they are native events.

A log is taken when it has stopped growing: it was not written to for some seconds, or it was renamed to its place (which
changes a file's status and not its bytes: its ctime is later than its mtime). Whether a file has changed since it was taken is
told by its size and mtime.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from assets.events.names import is_log, shown

if TYPE_CHECKING:
    from assets.events.intake import Native
    from assets.events.mapping import Mapping

MAPPING = "mapping.toml"
TEMPORARY = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".swp", "~")
UNFINISHED_TIMES = 10  # a packed file that is cut is waited for so many times as long as one that may still grow


class Stamp(NamedTuple):
    """By which a file is told from what it was. bytes: its size. changed_ns: its mtime; of one that could not be opened less its
    ctime, for other rights may end the trouble."""

    bytes: int
    changed_ns: int

    @classmethod
    def of(cls, told: os.stat_result, trouble: bool = False) -> Stamp:
        return cls(told.st_size, -told.st_ctime_ns if trouble else told.st_mtime_ns)

    def fits(self, told: os.stat_result) -> bool:
        return self == Stamp.of(told, self.changed_ns < 0)


@dataclass(frozen=True)
class Left:
    """What lies in a folder and is not taken. name: path under it, as it can be printed; why: one of a few sentences."""

    name: str
    why: str


def told_of(path: Path | str) -> os.stat_result | None:
    """What the system tells of a file; None where it is gone or may not be looked at."""
    try:
        return os.stat(path)
    except OSError:
        return None


def is_settled(told: os.stat_result, settle_s: float, now_ns: int | None = None) -> bool:
    """Whether a file has stopped growing. One of which the clock says that it lies in the future is not waited for."""
    if settle_s <= 0 or told.st_ctime_ns > told.st_mtime_ns:
        return True
    age = (time.time_ns() if now_ns is None else now_ns) - told.st_mtime_ns
    return abs(age) >= settle_s * 1e9


@dataclass(frozen=True)
class Batch:
    """Logs that are read alike, in order of their names: arrival order. mapping: None for native events."""

    paths: list[Path]
    mapping_file: Path | None

    @property
    def mapping(self) -> Mapping | None:
        from assets.events.mapping import load_mapping

        return load_mapping(self.mapping_file) if self.mapping_file else None


def batches(folder: Path, settle_s: float = 0.0) -> list[Batch]:
    """The logs of a folder and of its subfolders that have stopped growing for settle_s seconds, a batch a folder.

    Hidden files and unfinished ones (.tmp, .part) are left. A folder that does not exist holds none. Links are followed;
    what is not a file that can be opened (a pipe, a link to nothing), or lies in a folder that cannot be listed, is left.
    """
    found = []
    for place, names in _folders(Path(folder)):
        if settle_s > 0:
            names = [name for name in names if (told := told_of(place / name)) is None or is_settled(told, settle_s)]
        if names:
            mapping = place / MAPPING
            found.append(Batch([place / name for name in names], mapping if _is(mapping.is_file) else None))
    return found


def wait(folder: Path, settle_s: float) -> None:
    """Give the logs of a folder that were just written the time to settle, settle_s at most: for who looks only once."""
    now = time.time_ns()
    told = [one for place, names in _folders(Path(folder)) for name in names if (one := told_of(place / name))]
    ages = [(now - one.st_mtime_ns) / 1e9 for one in told if not is_settled(one, settle_s, now)]
    if ages:
        time.sleep(min(settle_s, settle_s - min(ages)) + 0.01)


def logs(folder: Path) -> list[str]:
    """The logs under a folder as paths relative to it, in order of arrival: by name, then by path."""
    root = Path(folder)
    found = []
    for place, names in _folders(root):
        inside = os.path.relpath(place, root)
        found += [(name, name if inside == "." else os.path.join(inside, name)) for name in names]
    return [path for _, path in sorted(found)]


def not_taken(folder: Path, settle_s: float = 0.0, takes: Callable[[str], bool] = is_log) -> list[Left]:
    """What lies under a folder and is not taken, and why, by name. takes: whether a file of this name is."""
    root = Path(folder)
    found: list[tuple[Path, str]] = []
    for place, names in _folders(root, takes, found):
        for name in names:
            told = told_of(place / name)
            if told is not None and not is_settled(told, settle_s):
                found.append((place / name, f"still growing: written to less than {settle_s:g} s ago"))
            elif not os.access(place / name, os.R_OK):
                found.append((place / name, "may not be read"))
    return sorted((Left(shown(os.path.relpath(path, root)), why) for path, why in found), key=lambda left: left.name)


def _folders(
    root: Path, takes: Callable[[str], bool] = is_log, left: list[tuple[Path, str]] | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Each folder and the names of its logs, sorted; a folder that links lead to twice is visited once.

    left: gets what is not taken, and why.
    """
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
                    elif not entry.name.startswith(".") and takes(entry.name) and _is(entry.is_file):
                        names.append(entry.name)
                    elif left is not None and entry.name != MAPPING:
                        left.append((place / entry.name, _why_left(entry, takes)))
        except OSError as error:  # it is no folder, is gone, or may not be listed
            if left is not None and not (place == root and isinstance(error, FileNotFoundError)):
                left.append((place, f"a folder that cannot be listed ({error.strerror})"))
            continue
        yield place, sorted(names)
        places += sorted(inner)


def _why_left(entry: os.DirEntry, takes: Callable[[str], bool]) -> str:
    if entry.name.startswith("."):
        return "hidden: its name begins with a dot"
    if entry.name.lower().endswith(TEMPORARY):
        return "temporary, by its suffix"
    if not takes(entry.name):
        return "not a log, by its suffix"
    if _is(entry.is_symlink):
        told = told_of(entry.path)
        return "a link to nothing" if told is None else "a link to what is no file"
    return "no file: a pipe, a socket or a device"


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
