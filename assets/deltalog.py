"""A table's Delta log held against what was committed: entries that are gone, emptied or changed are found before they are read.

Here: the chain of checksums over a log, and what other writers (Spark, compaction) have put into it. Not here: the moments
that keep a table's chain (commits.py), who commits what (lake.py).

A reader of Delta takes an emptied entry for a commit that did nothing. So each moment says of each of its tables what the log
was: the checkpoint that it is read from, and one checksum over that and every entry since (tail); one more over all entries
since the first (whole), by which a damaged checkpoint can be done without.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from assets.durable import DamagedError, digest, set_aside, tell

LOG = "_delta_log"
HINT = "_last_checkpoint"
MOST_ENTRIES = 2000  # of a log that has no chain yet (written by older code); a longer one is followed from its checkpoint on


@dataclass(frozen=True)
class Chain:
    """The log up to a version. base: version of the checkpoint, -1 for none; tail: checksum from it on; whole: from the first
    entry on, empty where the first entries are gone."""

    version: int
    base: int
    tail: str
    whole: str


def chain_of(body: dict[str, Any] | None) -> Chain | None:
    return Chain(**body) if body else None


def as_json(chain: Chain) -> dict[str, Any]:
    return asdict(chain)


def entry(table: Path, version: int) -> Path:
    return table / LOG / f"{version:020d}.json"


def checkpoint(table: Path, version: int) -> Path:
    return table / LOG / f"{version:020d}.checkpoint.parquet"


def advanced(table: Path, before: Chain | None, upto: int) -> Chain:
    """The chain up to version `upto`. Raises DamagedError where an entry on the way is gone or no Delta entry."""
    if before is None:
        before = _begun(table, upto)
    if before.version > upto:  # the table is another one by now: written anew in its place
        before = _begun(table, upto)
    base, tail, whole = before.base, before.tail, before.whole
    for version in range(before.version + 1, upto + 1):
        body = _entry_body(table, version)
        tail = digest(tail.encode() + body)
        whole = digest(whole.encode() + body) if whole or version == 0 else ""
        point = checkpoint(table, version)
        if point.exists():
            base, tail = version, digest(point.read_bytes())
    return Chain(upto, base, tail, whole)


def _begun(table: Path, upto: int) -> Chain:
    """A chain from which one can go on, for a log that older code has written: what is there now is taken for right."""
    first = entry(table, 0).exists() and upto <= MOST_ENTRIES
    if first and all(entry(table, version).exists() for version in range(upto + 1)):
        return Chain(-1, -1, "", "")
    base = next((version for version in range(upto, -1, -1) if checkpoint(table, version).exists()), -1)
    if base < 0:
        return Chain(-1, -1, "", "")
    return Chain(base, base, digest(checkpoint(table, base).read_bytes()), "")


def _entry_body(table: Path, version: int) -> bytes:
    path = entry(table, version)
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(path, "is gone") from None
    if not body.strip():
        raise DamagedError(path, "is empty")
    return body


def is_whole(path: Path) -> bool:
    """Whether every line of an entry is JSON, and there is one; of the first entry, whether it says what table it begins."""
    try:
        lines = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except ValueError:
        return False
    if not lines or not all(isinstance(line, dict) for line in lines):
        return False
    return int(path.stem) > 0 or {"protocol", "metaData"} <= {key for line in lines for key in line}


def begins_torn(table: Path) -> bool:
    """Whether a table's first entry is there and not whole: one that no moment names was never made."""
    first = entry(table, 0)
    try:
        return first.exists() and not is_whole(first)
    except FileNotFoundError:  # set aside meanwhile
        return False


_seen: dict[tuple[str, int, str], tuple] = {}  # (table, version, tail) -> sizes and times of its files when they were read


def check(table: Path, chain: Chain, repair: bool = True) -> None:
    """Raises DamagedError where the log up to the chain's version is not what was committed, naming the file if it can.

    repair: a damaged checkpoint is set aside, and told, where all entries since the first are still there.
    """
    key, now = (str(table), chain.version, chain.tail), _signature(table, chain)
    if repair and _seen.get(key) == now:
        return
    try:
        tail = "" if chain.base < 0 else digest(checkpoint(table, chain.base).read_bytes())
    except FileNotFoundError:
        tail = None
    entries = [_entry_body(table, version) for version in range(chain.base + 1, chain.version + 1)]
    found = tail
    for body in entries if found is not None else ():
        found = digest(found.encode() + body)
    if found != chain.tail:
        _explain(table, chain, tail, repair)
    if len(_seen) > 10_000:
        _seen.clear()
    _seen[key] = _signature(table, chain)


def _signature(table: Path, chain: Chain) -> tuple:
    paths = [entry(table, version) for version in range(chain.base + 1, chain.version + 1)]
    if chain.base >= 0:
        paths.append(checkpoint(table, chain.base))
    found = []
    for path in paths:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(found)


def _explain(table: Path, chain: Chain, tail: str | None, repair: bool) -> None:
    """Raises DamagedError, unless it is the checkpoint that differs and the log can do without."""
    for version in range(chain.base + 1, chain.version + 1):
        if not is_whole(entry(table, version)):
            raise DamagedError(entry(table, version), "is damaged: it is no Delta entry")
    point = checkpoint(table, chain.base)
    if chain.base >= 0 and _whole(table, chain.version) == chain.whole:
        if not repair:
            raise DamagedError(point, "is gone" if tail is None else "is damaged")
        if tail is not None:
            set_aside(point, "is damaged", "the table is read from its entries until the next checkpoint")
        else:
            _told_once(f"{point} is gone; the table is read from its entries until the next checkpoint")
        for path in (table / LOG).glob("*.checkpoint.parquet"):
            if int(path.name.split(".")[0]) < chain.base:  # it stands for older entries, and nothing says what it was
                path.unlink(missing_ok=True)
        (table / LOG / HINT).unlink(missing_ok=True)
        return
    if chain.base >= 0 and tail is None:
        raise DamagedError(point, "is gone, and the entries before it are not all there")
    first, last = entry(table, chain.base + 1), entry(table, chain.version)
    what = f"one of {first.name} to {last.name}" if chain.base < 0 else f"{point.name}, or one of {first.name} to {last.name},"
    raise DamagedError(table / LOG, f"is not what was committed: {what} is damaged or an older copy")


_told: set[str] = set()


def _told_once(text: str) -> None:
    if text not in _told:
        _told.add(text)
        tell(text)


def _whole(table: Path, version: int) -> str | None:
    found = ""
    for number in range(version + 1):
        try:
            found = digest(found.encode() + _entry_body(table, number))
        except DamagedError:
            return None
    return found


def drop_stale_hint(table: Path) -> bool:
    """Remove a `_last_checkpoint` that names a checkpoint which is not there, and tell; Delta refuses such a table."""
    hint = table / LOG / HINT
    try:
        version = json.loads(hint.read_bytes())["version"]
        if isinstance(version, int) and checkpoint(table, version).exists():
            return False
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, KeyError):
        pass
    hint.unlink(missing_ok=True)
    tell(f"{hint} is damaged; it was removed, the table is read without it until the next checkpoint")
    return True


def check_unchained(table: Path, version: int) -> None:
    """The same for a log of which no moment says what it was (older code): entries since the checkpoint are there and whole."""
    while version >= 0:
        path = entry(table, version)
        if checkpoint(table, version).exists():
            return
        if not path.exists():
            if not any((table / LOG).glob("*.json")):
                return  # no table at all: whoever opens it says so
            raise DamagedError(path, "is gone")
        if not is_whole(path):
            raise DamagedError(path, "is empty or damaged: it is no Delta entry")
        version -= 1


def actions(table: Path, version: int) -> list[dict[str, Any]]:
    """The actions of an entry, in order. Raises DamagedError."""
    body = _entry_body(table, version)
    try:
        return [json.loads(line) for line in body.splitlines() if line]
    except ValueError:
        raise DamagedError(entry(table, version), "is damaged: it is no Delta entry") from None


def transactions(found: list[dict[str, Any]]) -> dict[str, int]:
    """Application -> version, of an entry's actions."""
    return {one["txn"]["appId"]: one["txn"]["version"] for one in found if "txn" in one}


def added(found: list[dict[str, Any]]) -> list[str]:
    """Paths on disk, within the table, of the data files that an entry adds."""
    return [unquote(one["add"]["path"]) for one in found if "add" in one]


def drop_broken_end(table: Path, after: int, app: str, decided: int | None) -> None:
    """Remove entries above a version from the first on that a power cut left empty or torn: no moment names them.

    after: -1 for a table that no moment names. What stands on a torn entry goes with it: a compaction, or a commit that is decided (moment `decided`, under `app`) and is
    made once more. Only for who holds the lake's lock. Raises DamagedError where one belongs to another moment, which is gone, or
    holds rows of which no moment knows.
    """
    version, ends = after + 1, []
    while entry(table, version).exists():
        if not is_whole(entry(table, version)):
            ends.append(version)
        elif ends:
            found = actions(table, version)
            seen = transactions(found).get(app)
            # Rows that stand on the first entry of a table no moment names: of a writer without moments, who told of them.
            if (seen is not None and seen != decided) or (seen is None and after < 0 and added(found)):
                raise DamagedError(entry(table, ends[0]), f"is empty or damaged, and {entry(table, version).name} stands on it")
            ends.append(version)
        version += 1
    for version in reversed(ends):
        checkpoint(table, version).unlink(missing_ok=True)
        set_aside(entry(table, version), "was left torn by a crash, or stands on one that was", "never counted: it is written again, or was never told of")
    if ends:
        drop_stale_hint(table)
