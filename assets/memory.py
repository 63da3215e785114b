"""Memory that polars has freed goes back to the system.

Here: the setting of its allocator (jemalloc), to be made before polars is loaded. Not here: how much a part of Glasshouse takes.

polars lets jemalloc keep for ever what was freed (`muzzy_decay_ms:-1`). A plan of 21 million events in slices held 4.6 GiB that way where it
needs 3.0, for 4 % less time (docs/backfill.md).
"""

from __future__ import annotations

import os

VARIABLE = "_RJEM_MALLOC_CONF"  # of the jemalloc that polars brings along
VALUE = "dirty_decay_ms:2000,muzzy_decay_ms:0"
OF_POLARS = "dirty_decay_ms:500,muzzy_decay_ms:-1"  # what it leaves in the environment of those that its process starts


def give_back() -> None:
    """Let this process, and those that it starts, give freed memory back after two seconds; what somebody has set stays."""
    if os.environ.get(VARIABLE) in (None, OF_POLARS):
        os.environ[VARIABLE] = VALUE
