"""Files of a folder that others write into: which there are, what each holds, and its lines, whatever was put there.

Here: listing, fingerprints, unpacking and cutting into lines, in bounded memory; the reason why a file cannot be read. Not here: what a
line means (changes.py), what is done with a file and its lines (take.py).

Nothing of a file is believed: it may be a link, a pipe, a bomb, one line of many gigabytes, or gone by the time it is opened.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import xxhash

SUFFIXES = (".jsonl", ".ndjson", ".json")
PACKED = ".gz"
CHUNK = 2**20
LINE_BYTES = 8 * 2**20  # a longer line is not parsed: as Python's objects it would be many times that
KEPT_WHOLE = 2**20  # of a refused line; of a longer one only the first KEPT_BYTES
KEPT_BYTES = 64 * 2**10
UNPACKED_FREE, UNPACKED_TIMES = 256 * 2**20, 200  # a packed file may hold so many bytes, or so many times its size
NO_SIZE = -1  # stands for the size of a file that could not be read


class Unreadable(Exception):
    """A file whose content cannot be read; the message is the reason that goes to quarantine."""


class Moved(Exception):
    """A file that is gone, or is another one by now: there is nothing to tell, the next listing sees what there is."""


class Stopped(Exception):
    """Whoever reads is to end."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the folder. name: path under it, in Unicode. bytes, modified_ns: by which it is told from others unread.

    Of what cannot be looked at, and of a folder that cannot be listed, trouble is the error, bytes NO_SIZE.
    """

    path: str
    name: str
    bytes: int
    modified_ns: int
    trouble: OSError | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end. row: from 1; start, after: of its first byte and the next line's in the (unpacked) file; bytes: its length.

    body holds the first KEPT_BYTES and digest the SHA-256 of the whole where bytes is above LINE_BYTES; else digest is None.
    """

    row: int
    start: int
    after: int
    bytes: int
    body: bytes
    digest: str | None = None

    @property
    def kept(self) -> tuple[bytes, str]:
        """(what quarantine keeps of it, what the reason says of the rest)."""
        if self.bytes <= KEPT_WHOLE:
            return self.body, ""
        digest = self.digest or hashlib.sha256(self.body).hexdigest()
        kept = self.body[:KEPT_BYTES]
        return kept, f" (the first {len(kept):,} of {self.bytes:,} bytes from byte {self.start:,} on, sha256 {digest})"


# --- which there are --------------------------------------------------------------------------------------------------


def listed(folder: str | os.PathLike[str]) -> list[Entry]:
    """Change files under a folder in order of their names; none where there is no folder. Links to files are followed."""
    root = os.fspath(folder)
    found, waiting = [], [root]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif named_so(entry.name) and (one := _entry(entry.path, root)):
                        found.append(one)
        except OSError as error:
            if not _gone(error):
                found.append(_troubled(place, _shown(place, root), error))
    return sorted(found, key=lambda one: one.name.split("/"))


def named_so(name: str) -> bool:
    """Whether a file of this name is taken; suffixes count in any case."""
    return not name.startswith(".") and name.lower().removesuffix(PACKED).endswith(SUFFIXES)


def _entry(path: str, root: str) -> Entry | None:
    try:
        status = os.stat(path)
    except OSError as error:
        return None if _gone(error) and not os.path.islink(path) else _troubled(path, _shown(path, root), error)
    return Entry(path, _shown(path, root), status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def troubled(entry: Entry, error: OSError) -> Entry:
    """The entry as one that cannot be read. Its time is that of its last change of any kind: other rights may end the trouble."""
    return _troubled(entry.path, entry.name, error)


def told_apart(entry: Entry) -> str:
    """A fingerprint for what has no content that could be read."""
    return xxhash.xxh3_64(f"{entry.name}\0{entry.modified_ns}\0unread".encode()).hexdigest()


def _troubled(path: str, name: str, error: OSError) -> Entry:
    try:
        changed = os.lstat(path).st_ctime_ns
    except OSError:
        changed = 0
    return Entry(path, name, NO_SIZE, changed, error)


def _gone(error: OSError) -> bool:
    return error.errno in (errno.ENOENT, errno.ENOTDIR)


def _shown(path: str, root: str) -> str:
    """The path under the folder; bytes that are no UTF-8 as escapes, since no table can hold them."""
    return os.fsencode(os.path.relpath(path, root)).decode("utf-8", "backslashreplace")


# --- what it holds ----------------------------------------------------------------------------------------------------


class Source:
    """A file, opened once: the bytes that it had then, however it grows. Raises OSError, Unreadable, Moved, Stopped.

    stopped: asked at every piece that is read.
    """

    def __init__(self, entry: Entry, stopped: Callable[[], bool] = lambda: False) -> None:
        self.entry, self._stopped = entry, stopped
        self._file = _opened(entry)
        self._seen: str | None = None
        try:
            self.bytes = os.fstat(self._file.fileno()).st_size
            self.fingerprint = self._fingerprint()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    @property
    def is_packed(self) -> bool:
        return self.entry.name.lower().endswith(PACKED)

    def _check(self) -> None:
        """Unpack it once, to nowhere. Raises Unreadable for a file that is cut, no gzip, or too great unpacked."""
        size = 0
        limit = max(UNPACKED_FREE, UNPACKED_TIMES * self.bytes)
        try:
            for piece in unpacked(self._pieces()):
                size += len(piece)
                if size > limit:
                    raise Unreadable(
                        f"file: {self.bytes:,} bytes unpack to more than {limit:,}; if that is right, land it unpacked under another name"
                    )
        except (EOFError, zlib.error) as error:
            raise Unreadable(f"file: cannot be read ({error}); land it again, mended, under another name") from None

    def lines(self, row: int = 1, start: int = 0) -> Iterator[Line]:
        """Its lines from the line `row` on, which begins at byte `start`.

        Raises Unreadable before the first line of a packed file that is broken anywhere: its writer is to land it again, whole. Raises
        Moved after the last one where the file was changed since it was opened.
        """
        if self.is_packed:
            self._check()
        pieces = self._pieces()
        yield from lines(_skipped(unpacked(pieces) if self.is_packed else pieces, start), row, start)
        if self._seen != self.fingerprint:
            raise Moved(self.entry.name)

    def _fingerprint(self) -> str:
        for _ in self._pieces():
            pass
        return self._seen

    def _pieces(self) -> Iterator[bytes]:
        """Its bytes; when all are read, `_seen` is their fingerprint."""
        digest, left = xxhash.xxh3_64(), self.bytes
        self._seen = None
        self._file.seek(0)
        while left:
            if self._stopped():
                raise Stopped
            piece = self._file.read(min(CHUNK, left))
            if not piece:
                raise Moved(self.entry.name)
            digest.update(piece)
            left -= len(piece)
            if not left:
                self._seen = digest.hexdigest()
            yield piece
        self._seen = digest.hexdigest()


def _opened(entry: Entry) -> BinaryIO:
    """Open a file without waiting for anybody: what was a file when it was listed may be a pipe by now."""
    try:
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if _gone(error):
            raise Moved(entry.name) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Moved(entry.name)
    return os.fdopen(descriptor, "rb", buffering=0)


def unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What gzip has packed, in pieces of CHUNK at most, member after member. Raises EOFError, zlib.error."""
    member, first = None, True
    for piece in pieces:
        while piece:
            if member is None:
                piece = piece if first else piece.lstrip(b"\0")  # padding, as tapes and block devices leave it
                if not piece:
                    break
                member, first = zlib.decompressobj(zlib.MAX_WBITS | 16), False
            yield member.decompress(piece, CHUNK)
            piece = member.unused_data if member.eof else member.unconsumed_tail
            if member.eof:
                member = None
    if member is not None:
        yield member.flush()
        if not member.eof:
            raise EOFError("it ends within its packed data")


def _skipped(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    """The pieces without their first `count` bytes."""
    for piece in pieces:
        if count < len(piece):
            yield piece[count:]
        count = max(0, count - len(piece))


def lines(pieces: Iterable[bytes], row: int = 1, start: int = 0) -> Iterator[Line]:
    """Lines, ended by LF, CRLF or CR, of bytes in pieces. row, start: of the first one."""
    tail, long = b"", None
    for piece in pieces:
        data = tail + piece if tail else piece
        parts = data.splitlines(keepends=True)
        # A CR at the end may be half of CRLF: its line is not yet at its end.
        tail = parts.pop() if parts and not parts[-1].endswith(b"\n") else b""
        for part in parts:
            line = _line(part, row, start, long)
            yield line
            row, start, long = row + 1, line.after, None
        if tail and (long or len(tail) > LINE_BYTES) and not tail.endswith(b"\r"):
            long, tail = (long or _Long()).and_(tail), b""
    if tail or long:
        yield _line(tail, row, start, long)


class _Long:
    """What is known of a line that has become too long to hold."""

    def __init__(self) -> None:
        self.bytes, self.body, self.digest = 0, b"", hashlib.sha256()

    def and_(self, piece: bytes) -> _Long:
        self.body += piece[: KEPT_BYTES - len(self.body)] if len(self.body) < KEPT_BYTES else b""
        self.bytes += len(piece)
        self.digest.update(piece)
        return self


def _line(part: bytes, row: int, start: int, long: _Long | None) -> Line:
    """The line that `part` ends."""
    body = part.rstrip(b"\r\n")
    after = start + len(part) + (long.bytes if long else 0)
    if long is None and len(body) <= LINE_BYTES:
        return Line(row, start, after, len(body), body)
    long = (long or _Long()).and_(body)
    return Line(row, start, after, long.bytes, long.body, long.digest.hexdigest())
