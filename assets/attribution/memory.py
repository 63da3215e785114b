"""Memory of the live labeler that the system can take back: files mapped into memory.

Here: arrays and Arrow tables whose pages lie in files, so that a system that runs short writes them out instead of killing
the labeler; how much memory is not of that kind. Not here: what is kept in them (resident.py, state.py).

Everything that grows with the events of a window lies here or can: segments are files anyway, the hash tables of open sessions
move into files once they are large. What stays in memory for good is 24 bytes an open session, 16 an id above the
watermark, and the batch in hand.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from assets.durable import DamagedError, digest

MAGIC, ARROW_END = b"GLASSSUM", b"ARROW1"
TRAILER = len(MAGIC) + 16


class Maps:
    """Files of `folder` that are mapped into memory.

    limit: bytes of memory that the process may take beside such files; an array of more than an eighth of it goes into one.
    """

    def __init__(self, folder: Path, limit: int | None = None):
        self.folder, self.limit = Path(folder), limit

    def zeros(self, shape: int | tuple[int, ...]) -> np.ndarray:
        """int64 zeros. A large array lies in a file without a name, which is gone when the array is, or the process.

        Raises OSError where the disk has no room for it: asked for at once, as a page that cannot be written kills.
        """
        size = 8 * math.prod(np.atleast_1d(shape).tolist())
        if self.limit is None or size <= self.limit // 8:
            return np.zeros(shape, np.int64)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder, prefix="sessions-") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            mapped = mmap.mmap(file.fileno(), size)
        return np.frombuffer(mapped, np.int64).reshape(shape)

    def table(self, path: Path, name: str | None = None) -> pa.Table:
        """An Arrow file; only pages that are looked at are read, all where a checksum is looked at.

        name: by which its checksum is made, where it is to be looked at; a file of older code has none.
        Raises FileNotFoundError, ArrowInvalid, DamagedError.
        """
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise pa.ArrowInvalid("the file is empty")
            mapped = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
        body = memoryview(mapped)
        if body[size - TRAILER :][: len(MAGIC)] == MAGIC:
            body, wanted = body[: size - TRAILER], bytes(body[size - TRAILER + len(MAGIC) :])
            if name is not None and digest(body, name).encode() != wanted:
                raise DamagedError(path, "is damaged: its checksum is another")
        elif bytes(body[size - len(ARROW_END) :]) != ARROW_END:
            raise DamagedError(path, "is damaged: it ends as no file that was written")
        return pa.ipc.open_file(pa.py_buffer(body)).read_all()


def trailer(checksum: str) -> bytes:
    """What follows an Arrow file whose checksum this is (durable.Hashing)."""
    return MAGIC + checksum.encode()


def anonymous_bytes() -> int | None:
    """Memory of this process that the system cannot take back (without swapping): not in files. None off Linux."""
    try:
        with open("/proc/self/status") as file:
            found = next((line for line in file if line.startswith("RssAnon:")), None)
    except OSError:
        return None
    return int(found.split()[1]) * 1024 if found else None
