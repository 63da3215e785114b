"""Read a whole lake and list every file that is not what was written: `glasshouse check`.

Here: looking, at the newest moment and at all that lies beside the tables. Not here: repairing (each reader does what can be done
when it meets a damaged file), rules about rows (dagster_project/checks.py).

Nothing is changed. A lake that is written to meanwhile is looked at as it was when this began; a file that goes while it is read
(tidied, or a batch's that is over) is no damage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets import deltalog, durable, followers
from assets.attribution.state import LiveError, Store
from assets.commits import CommitError
from assets.lake import Lake, LakeError, files_on_disk

Say = Callable[[str], None]


@dataclass(frozen=True)
class Damage:
    """A file that is gone or not what was written. part: of the lake (table, commits, live, backfill, models)."""

    part: str
    path: str
    why: str


@dataclass
class Found:
    """damages, and how much was looked at: files; checksums: those of them that have one."""

    damages: list[Damage]
    files: int = 0
    checksums: int = 0


def check(lake: Lake, say: Say = lambda text: None) -> Found:
    """Look at every file of a local lake. say: told what is looked at. Raises LakeError for a lake that is not a local folder."""
    if lake.log is None:
        raise LakeError(f"only a lake in a local folder can be checked, not {lake.root}")
    found = Found([])
    if not Path(lake.root).is_dir():
        raise LakeError(f"there is no lake at {lake.root}")
    for part, look in (("commits", _commits), ("table", _tables), ("live", _live), ("backfill", _backfills), ("models", _models)):
        say(part)
        try:
            for path, why in look(lake, found):
                found.damages.append(Damage(part, str(path), why))
        except (CommitError, LakeError) as error:  # the newest moment is damaged: listed with the commits, and nothing can be opened
            if not found.damages:
                found.damages.append(Damage(part, str(lake.log.root), str(error)))
    return found


Damages = Iterator[tuple[Path | str, str]]


def _sealed(found: Found, path: Path, name: str) -> Damages:
    try:
        durable.unsealed(path, name)
        found.files += 1
    except FileNotFoundError:
        return
    except durable.DamagedError as error:
        yield path, error.why


def _commits(lake: Lake, found: Found) -> Damages:
    log = lake.log
    numbers = log.numbers()
    for number, after in zip(numbers, numbers[1:], strict=False):
        for gone in range(number + 1, after):
            if not log._path(gone).exists() and log._path(number).exists():  # else tidied away just now
                yield log._path(gone), "is gone, though older moments are there"
    for number in numbers:
        found.files += 1
        try:
            log.moment(number)
        except CommitError as error:
            if log._path(number).exists():
                yield log._path(number), _why(error, log._path(number))
    yield from _sealed(found, log.root / "intent.json", "intent.json")
    for path in sorted((log.root / followers.FOLDER).glob("*.json")):
        yield from _sealed(found, path, f"{followers.FOLDER}/{path.name}")
    for path in sorted((log.root / "sums").glob("*/*.json")):
        yield from _sealed(found, path, f"sums/{path.parent.name}/{path.name}")


def _tables(lake: Lake, found: Found) -> Damages:
    try:
        now = lake.pinned()
    except LakeError as error:
        yield lake.log.root, str(error)
        return
    for name in sorted(now.moment.tables) if now.moment else ():
        yield from _table(now, name, found)
    for name in lake.unmade(now.moment):
        if deltalog.begins_torn(Path(now.path(name))) and not lake._is_named(name):
            yield deltalog.entry(Path(now.path(name)), 0), "was left torn while its table was made, which no moment names: the next writer makes it"


def _table(now: Lake, name: str, found: Found) -> Damages:
    chain = deltalog.chain_of(now.moment.logs.get(name))
    try:
        if chain is not None:
            deltalog.check(Path(now.path(name)), chain, repair=False)
        files = files_on_disk(now.open(name))
    except durable.DamagedError as error:
        yield error.path, error.why
        return
    except LakeError as error:
        yield Path(now.path(name), "_delta_log"), str(error)
        return
    for path, size in files.items():
        place = Path(now.path(name), path)
        found.files += 1
        try:
            found.checksums += now.check_files(name, [path])
            if (real := place.stat().st_size) != size:
                yield place, f"has {real:,} bytes, its table's log says {size:,}"
            pq.ParquetFile(place).close()
        except LakeError as error:
            yield place, _why(error, place)
        except (pa.ArrowException, OSError) as error:
            yield place, f"cannot be read ({str(error).splitlines()[0]})"


def _live(lake: Lake, found: Found) -> Damages:
    store = Store(lake)
    if not store.root.is_dir():
        return
    last = store.committed()
    yield from _sealed(found, store.root / "stream.json", "stream.json")
    if last >= 0 and not (store.root / "stream.json").exists():
        yield store.root / "stream.json", "is gone"
    for folder in ("epochs", "plans", "batches"):
        for path in sorted((store.root / folder).glob("*.json")):
            yield from _sealed(found, path, f"{folder}/{path.name}")
    try:
        progress = store.progress(last) if last >= 0 else None
    except LiveError as error:
        yield store.root / "batches" / f"{last:012d}.json", _why(error, store.root)
        return
    good = -1
    for number in store.snapshots(upto=10**12):
        found.files += 4
        try:
            store.snapshot(number)
            good = max(good, number)
        except LiveError as error:
            yield store.root / "snapshots" / f"{number:012d}", _why(error, store.root)
    needed = {*progress.segments, *range(good + 1, last + 1)} if progress else set()
    for number in sorted(needed | {int(path.stem) for path in (store.root / "segments").glob("*.arrow") if path.stem.isdigit()}):
        path = store.root / "segments" / f"{number:012d}.arrow"
        found.files += 1
        try:
            store.segment(number)
        except LiveError as error:
            if number in needed or path.exists():
                yield path, _why(error, store.root)
    for number in range(good + 1, last + 1):
        if not (store.root / "plans" / f"{number:012d}.json").exists():
            yield store.root / "plans" / f"{number:012d}.json", "is gone"


def _backfills(lake: Lake, found: Found) -> Damages:
    from assets.backfill import store

    if not store.folder(lake).is_dir():
        return
    yield from _sealed(found, store.folder(lake) / store.NUMBER, store.NUMBER)
    for root in sorted(path for path in store.folder(lake).iterdir() if path.is_dir() and path.name != "running"):
        run = store.Folder(lake, root.name)
        for name in ("plan", "journal", "report"):
            yield from _sealed(found, root / f"{name}.json", f"{root.name}/{name}.json")
            if not (root / f"{name}.json").exists() and (name != "report" or not _computing(run)):
                yield root / f"{name}.json", "is gone"
        if (root / "rows").is_dir():
            yield from _commits(run.rows, found)
            yield from _tables(run.rows, found)
        yield from _before(lake, run)
        for place in sorted((root / "before").rglob("*.parquet")):
            found.files += 1
            table = place.relative_to(root / "before").parts[0]
            try:
                found.checksums += lake.check_files(table, [str(place.relative_to(root / "before" / table))], str(root / "before" / table))
            except LakeError as error:
                yield place, _why(error, place)


def _before(lake: Lake, run) -> Damages:
    """Files that undo needs, and are gone; a journal that says less than the commit log does."""
    from assets.backfill import store

    try:
        journal = run.read("journal")
    except store.BackfillError:
        return
    done = [moment.note["what"] for moment in _moments(lake) if moment.note.get("plan") == run.plan_id]
    if done and journal["status"] in (store.COMPUTING, store.PLANNED):
        yield run.root / "journal.json", f"is an older copy: it says {journal['status']}, the commit log knows an {done[-1]}"
    if journal["status"] in (store.APPLIED, store.UNDOING):
        for name, adds in journal["before"].items():
            for add in adds:
                if not (run.root / "before" / name / add["path"]).exists():
                    yield run.root / "before" / name / add["path"], "is gone"


def _moments(lake: Lake) -> Iterator[Any]:
    for number in lake.log.numbers():
        try:
            yield lake.log.moment(number)
        except CommitError:
            continue


def _computing(run) -> bool:
    from assets.backfill import store

    try:
        return run.read("journal")["status"] == store.COMPUTING
    except store.BackfillError:
        return False


def _models(lake: Lake, found: Found) -> Damages:
    from assets.ranking import checkpoint, registry
    from assets.ranking.config import RankerError

    for name in registry.versions(lake):
        place = registry.folder(lake) / name
        found.files += sum(1 for _ in place.iterdir())
        for file in registry.FILES:
            if not (place / file).exists():
                yield place / file, "is gone"
        try:
            registry.checked(place)
        except RankerError as error:
            yield place, _why(error, place)
    yield from _sealed(found, registry.folder(lake) / ".serving" / registry.HEAD, registry.HEAD)
    for run in sorted(registry.folder(lake).glob(".training-*")):
        newest = checkpoint.newest(run)
        try:
            checkpoint.read_job(run)
            if newest is not None:
                checkpoint.read_meta(newest)
        except RankerError as error:
            yield newest if newest is not None and str(newest) in str(error) else run / checkpoint.JOB, _why(error, run)
    try:
        registry.history(lake)
    except RankerError as error:
        yield registry.folder(lake) / ".serving", _why(error, registry.folder(lake))


def _why(error: Exception, path: Path) -> str:
    return str(error).replace(f"{path} ", "").split("; ")[0]
