"""Memory and time of child processes, for every design alike.

Here: a command run to its end with the memory of its whole process tree sampled. Not here: what a design counts as
its time (each says so in its module).
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

INTERVAL_S = 0.1
PAGE = os.sysconf("SC_PAGE_SIZE")


class CommandFailed(Exception):
    """A design's process ended badly; the message is the end of what it said."""


@dataclass(frozen=True)
class Watched:
    """wall_s of a command, and peak_gib: the most that the resident pages of it and its descendants came to."""

    wall_s: float
    peak_gib: float


def watch(command: list[str], output: Path, **kwargs) -> Watched:
    """Run the command, stdout and stderr to the file `output`. Raises CommandFailed with that file's end."""
    start, peak, done = time.perf_counter(), 0, threading.Event()
    with output.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, **kwargs)

        def sample() -> None:
            nonlocal peak
            while not done.wait(INTERVAL_S):
                peak = max(peak, tree_rss(process.pid))

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        try:
            status = process.wait()
        finally:
            done.set()
            sampler.join()
            if process.poll() is None:
                process.kill()
    if status:
        tail = output.read_text(errors="replace")[-3000:]
        raise CommandFailed(f"`{Path(command[0]).name}` ended with status {status}:\n{tail}")
    return Watched(time.perf_counter() - start, peak / 2**30)


def tree_rss(pid: int) -> int:
    """Resident bytes of a process and its descendants; pages that they share count once for each."""
    children, sizes = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while we looked
            children.setdefault(int(stat[1]), []).append(int(folder.name))
            sizes[int(folder.name)] = int(stat[21]) * PAGE
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        total += sizes.get(one, 0)
        todo += children.get(one, [])
    return total
