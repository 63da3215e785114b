"""Freed memory goes back to the system."""

import os
import subprocess
import sys

import pytest

from assets import memory

HELD = """
import re, time
import polars as pl

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

frame = pl.DataFrame({"a": range(10)}).select(pl.int_range(60_000_000, dtype=pl.Int64).alias("a"))
full = resident()
del frame
end = time.monotonic() + 8
while resident() > full - 400 and time.monotonic() < end:
    time.sleep(0.2)
    pl.DataFrame({"a": [1]}).sort("a")  # the allocator looks at its clock when it is used
print(full - resident())
"""


@pytest.mark.parametrize(("before", "after"), [(None, memory.VALUE), (memory.OF_POLARS, memory.VALUE), ("x:1", "x:1")])
def test_what_somebody_has_set_stays_and_what_polars_has_does_not(monkeypatch, before, after):
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(memory.VARIABLE, before)
    memory.give_back()
    assert os.environ[memory.VARIABLE] == after


def test_polars_leaves_in_the_environment_what_is_taken_for_its_own():
    env = {name: value for name, value in os.environ.items() if name != memory.VARIABLE}
    code = f"import os, polars; print(os.environ[{memory.VARIABLE!r}])"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == memory.OF_POLARS


@pytest.mark.slow
def test_freed_memory_goes_back_within_seconds():
    env = {**os.environ, memory.VARIABLE: memory.VALUE}
    done = subprocess.run([sys.executable, "-c", HELD], env=env, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 400, "480 MB were freed"
