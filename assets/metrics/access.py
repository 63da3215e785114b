"""Who a ClickHouse endpoint of a home lets in: the key of its folder, and what is derived from it.

Here: the key's file, the passwords and the name of the folder made from it, URLs that carry them.
Not here: the endpoint (endpoint/), the client (client.py), users of a ClickHouse server (that server's own).

A folder has one key, drawn at first use. Passwords are an HMAC of a role and the inode of the key's file: a copy of a home,
which brings the file along, has other passwords than the original, so neither's loads go into the other's tables.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from assets.durable import alone, write_durably

KEY = "endpoint.key"
ID_HEADER = "X-Glasshouse-Folder"
WRITER, READER = "writer", "reader"

# Users are lanes of a role: each has its own places at the endpoint, so that none can take them all.
USERS = {"default": WRITER, "writer": WRITER, "loader": WRITER, "reader": READER, "pages": READER, "notebook": READER}

_DRAWN = re.compile(rb"[0-9a-f]{64}\n")


class AccessError(Exception):
    """The key of a folder can be neither read nor drawn; the message names the file and what to do."""


@dataclass(frozen=True)
class Keys:
    """Passwords of the two roles, and `folder`: 32 hex digits that name the folder and tell nothing else."""

    writer: str
    reader: str
    folder: str
    file: tuple[int, int, int]  # inode, time of change in ns, size: whether the file is still the one that was read

    def password(self, user: str) -> str:
        return self.writer if USERS[user] == WRITER else self.reader


def keys(folder: str | Path) -> Keys:
    """The passwords of a folder; its key is drawn if it has none, or one that a full disk cut short. Raises AccessError."""
    path = Path(folder) / KEY
    try:
        return _read(path) or _draw(path)
    except OSError as error:
        raise AccessError(f"{path}: the endpoint's key cannot be read or drawn ({error.strerror or error}); mend that and try again") from error


def changed(folder: str | Path, known: Keys) -> bool:
    """Is the key's file another one than when `known` was read?"""
    try:
        found = os.stat(Path(folder) / KEY)
    except OSError:
        return True
    return known.file != _identity(found)


def signed(url: str, folder: str | Path, user: str = WRITER) -> str:
    """The endpoint's URL with the credentials of a user of the folder. Raises AccessError."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{keys(folder).password(user)}@{host}"))


def _read(path: Path) -> Keys | None:
    """None where there is no key, or not a whole one."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        key = file.read(len("\n") + 64 + 1)
        if not _DRAWN.fullmatch(key):
            return None
        if found.st_mode & 0o077:
            with contextlib.suppress(OSError):
                os.fchmod(file.fileno(), 0o600)
                found = os.fstat(file.fileno())

    def derived(what: str) -> str:
        return hmac.new(key.strip(), f"{what}:{found.st_ino}".encode(), hashlib.sha256).hexdigest()

    return Keys(derived(WRITER), derived(READER), derived("folder")[:32], _identity(found))


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_mtime_ns, found.st_size


def _draw(path: Path) -> Keys:
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):
        if found := _read(path):  # drawn by another process meanwhile
            return found
        write_durably(path, secrets.token_hex(32).encode() + b"\n", mode=0o600)
        if found := _read(path):
            return found
    raise AccessError(f"{path}: a key was drawn and is not there whole; see whether the disk is full")
