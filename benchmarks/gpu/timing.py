"""Times of work on a device, CPU or GPU. Imports torch.

Here: medians after a warm-up, the bandwidth of memory. Not here: what is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

COPY_BYTES = 2**30


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(work: Callable[[int], object], device: torch.device, rounds: int, warm: int = 3) -> float:
    """Seconds of work(i) in the median of `rounds`; i counts on, so that work can rotate among inputs. A GPU's by its own events."""
    for i in range(warm):
        work(i)
    synchronize(device)
    if device.type == "cuda":
        marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
        for i, (begin, end) in enumerate(marks):
            begin.record()
            work(warm + i)
            end.record()
        synchronize(device)
        return statistics.median(begin.elapsed_time(end) for begin, end in marks) / 1e3
    found = []
    for i in range(rounds):
        started = time.perf_counter()
        work(warm + i)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def copy_bytes_per_s(device: torch.device, size: int = COPY_BYTES) -> float:
    """What a plain copy from memory to the same memory moves, bytes read and bytes written."""
    block = torch.ones(size, dtype=torch.uint8, device=device)
    other = torch.empty_like(block)
    return 2 * size / median_seconds(lambda _: other.copy_(block), device, 20)
