"""Files that outlast a power cut, and that tell when they are not what was written.

Here: fsync of files and of the folders that name them, many side by side; writing whole or not at all; checksums (xxh3) of
files, and of small JSON files within themselves. Not here: in which order a commit's files become durable (lake.py,
commits.py), what is done about a damaged one (whoever reads it).

A file is durable when its bytes and its name are: fsync of the file, and of the folder. Folders that are made are named by
their parents, so these too.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import mmap
import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

SYNCERS = 16  # fsyncs side by side: the disk's journal takes them in one go
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_log = logging.getLogger("glasshouse")


class DiskError(OSError):
    """A file or folder that cannot be written; the message names it and says what to do next."""


class DamagedError(Exception):
    """A file that is not what was written. path: the file; why: what is wrong with it."""

    def __init__(self, path: Path | str, why: str):
        super().__init__(f"{path} {why}")
        self.path, self.why = Path(path), why


def tell(text: str) -> None:
    """Say on stderr (Python's logging) that something damaged was rebuilt or set aside."""
    _log.warning(text)


# --- writing -----------------------------------------------------------------------------------------------------------


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn a full disk, a folder that is read-only and their like into a DiskError that names the path."""
    try:
        yield
    except (DiskError, FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        if error.errno is None and "o space left" not in str(error):
            raise
        advice = "make room" if error.errno in (None, *_NO_ROOM) else "see who may write there"
        raise DiskError(f"{path} cannot be written ({error.strerror or error}); {advice} and start again") from error


def write_durably(path: Path, body: bytes, mode: int = 0o666) -> None:
    """Write a file so that its name never stands for half of it, not even after a power cut. Raises DiskError.

    mode: who may read it, less the umask; 0o600 for a secret.
    """
    beside = _written_beside(path, body, mode)
    with writing(path):
        os.replace(beside, path)
        sync_folder(path.parent)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time in a folder that exists, of those that ask."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def create_durably(path: Path, body: bytes) -> bool:
    """Write a file unless there is one; False where there is. Whole or not at all, and durable. Raises DiskError."""
    beside = _written_beside(path, body)
    try:
        with writing(path):
            os.link(beside, path)
    except FileExistsError:
        return False
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def _written_beside(path: Path, body: bytes, mode: int = 0o666) -> Path:
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    with writing(path):
        try:
            with open(beside, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as handle:
                handle.write(body)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError:
            beside.unlink(missing_ok=True)
            raise
    return beside


def make_folder(folder: Path) -> Path:
    """Make a folder and those above it, each durable. Raises DiskError."""
    folder = Path(folder)
    if folder.is_dir():
        return folder
    with writing(folder):
        made = [folder, *(one for one in folder.parents if not one.exists())]
        folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(made):
        sync_folder(one.parent)
    return folder


def rename_durably(source: Path, target: Path) -> None:
    """Give a folder or file that is durable under one name another one in the same folder. Raises DiskError."""
    with writing(target):
        os.rename(source, target)
        sync_folder(target.parent)


# --- fsync -------------------------------------------------------------------------------------------------------------


def sync_file(path: Path | str) -> None:
    """What has been written to a file, by whomever, is on the disk."""
    _sync(path)


def sync_folder(folder: Path | str) -> None:
    """The names in a folder are on the disk."""
    _sync(folder)


def _sync(path: Path | str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with writing(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(files: Iterable[Path | str]) -> None:
    """Files side by side, then the folders that name them."""
    files = list(dict.fromkeys(map(str, files)))
    _side_by_side(files)
    _side_by_side(list(dict.fromkeys(os.path.dirname(path) for path in files)))


def sync_folders(folders: Iterable[Path | str]) -> None:
    """Folders side by side."""
    _side_by_side(list(dict.fromkeys(map(str, folders))))


def sync_tree(folder: Path) -> None:
    """Everything below a folder, and the folder; not its own name."""
    files, folders = [], [str(folder)]
    for place, inside, names in os.walk(folder):
        files += [os.path.join(place, name) for name in names]
        folders += [os.path.join(place, name) for name in inside]
    _side_by_side(files)
    _side_by_side(folders)


def sync_later(path: Path | str) -> Future[None]:
    """Begin the fsync of a file; the result raises what it raised."""
    return _pool().submit(_sync, path)


def _side_by_side(paths: list[str]) -> None:
    if len(paths) < 2:
        for path in paths:
            _sync(path)
        return
    list(_pool().map(_sync, paths))


_made: list[ThreadPoolExecutor] = []


def _pool() -> ThreadPoolExecutor:
    if not _made:
        _made.append(ThreadPoolExecutor(SYNCERS, thread_name_prefix="fsync"))
    return _made[0]


os.register_at_fork(after_in_child=_made.clear)  # threads do not come along


# --- checksums ---------------------------------------------------------------------------------------------------------


def digest(body: Any, name: str = "") -> str:
    """xxh3 of bytes or of a buffer, 16 hex digits. name: what the bytes are, so that they do not pass for something else."""
    state = xxhash.xxh3_64(name.encode()) if name else xxhash.xxh3_64()
    state.update(body)
    return state.hexdigest()


def digest_of(path: Path | str, name: str = "") -> str:
    """xxh3 of a file, read through a map of it. Raises FileNotFoundError."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return digest(b"", name)
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            return digest(mapped, name)


class Hashing:
    """A file to write to, for Arrow too, that knows the checksum of what went through it."""

    closed = False

    def __init__(self, handle: BinaryIO, name: str = ""):
        self._handle, self._state = handle, xxhash.xxh3_64(name.encode()) if name else xxhash.xxh3_64()

    def write(self, body: Any) -> int:
        self._state.update(body)
        return self._handle.write(body)

    def tell(self) -> int:
        return self._handle.tell()

    def flush(self) -> None:
        self._handle.flush()

    def close(self) -> None:
        """The handle is its opener's to close."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    @property
    def digest(self) -> str:
        return self._state.hexdigest()


_SEAL = re.compile(rb',?\s*"sum": "([0-9a-f]{16})"}\s*\Z')
_LIKE_A_SEAL = re.compile(rb'"[^"]{3}": "[^"]{16}"}\s*\Z')


def sealed(name: str, body: dict[str, Any], **how: Any) -> bytes:
    """JSON of a body, its own checksum as the last key, "sum". name: of the file within the lake. how: as for json.dumps."""
    text = json.dumps(body, **how).rstrip()[:-1].rstrip().encode()
    return text + (b", " if len(text) > 1 else b"") + f'"sum": "{digest(text, name)}"}}'.encode()


def unsealed(path: Path, name: str) -> Any:
    """A JSON file's body without its checksum; one without any (written by older code) as it is.

    Raises FileNotFoundError, and DamagedError for a file that is empty, no JSON, or not what was sealed under this name.
    """
    text = Path(path).read_bytes()
    if not text.strip():
        raise DamagedError(path, "is empty")
    found = _SEAL.search(text)
    if found:
        if digest(text[: found.start()], name).encode() != found[1]:
            raise DamagedError(path, "is damaged: its checksum is another")
    elif _LIKE_A_SEAL.search(text):
        raise DamagedError(path, "is damaged: its checksum cannot be read")
    try:
        body = json.loads(text)
    except ValueError as error:
        raise DamagedError(path, f"is damaged: {error}") from None
    if isinstance(body, dict):
        body.pop("sum", None)
    return body


def set_aside(path: Path, why: str, then: str) -> None:
    """Rename a damaged file or folder, so that what is rebuilt can take its name; and tell. then: what comes in its place."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:6]}.damaged")
    with writing(path):
        os.rename(path, aside)
    tell(f"{path} {why}; it lies beside as {aside.name} now, and {then}")


