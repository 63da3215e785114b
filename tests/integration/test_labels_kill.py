"""The live labeler killed with SIGKILL, at named points and at random, then started again: nothing lost or doubled."""

import datetime as dt
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assets.attribution.accounting import CONTRADICTIONS, account
from assets.attribution.live import status
from assets.attribution.rules import Rules
from assets.attribution.state import Store
from assets.lake import Window
from tests.unit.labeling import event
from tests.unit.test_label import big_log
from tests.integration.test_label_live import arriving, check, cut, drop, shaken

ROOT = Path(__file__).resolve().parents[2]
LABELER = """
import os, signal, sys
from pathlib import Path
from assets.attribution import live
from assets.attribution.rules import Rules
from assets.lake import Lake
live.BATCH_BYTES = 1
lake, landing, point, times, once = sys.argv[1:]
left = int(times)
def probe(at):
    global left
    left -= at == point
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
live.run(Lake(lake), Path(landing), Rules(), 0.05, live.stop_on_signals(), once=once == "once", probe=probe,
         snapshot_batches=3)
"""


def labeler(lake, landing, point="none", times=1, once=True):
    command = [sys.executable, "-c", LABELER, lake.root, str(landing), point, str(times), "once" if once else "follow"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def everything(lake, events):
    check(lake, events)
    assert lake.read("raw_events").num_rows == len(events)
    # The hours at the end of the stream are still open; those in the labeler's book must be accounted for.
    hours = sorted(lake.hours("labeled_hours"))
    counts = account(lake, Window(hours[0], hours[-1] + dt.timedelta(hours=1)), Rules())
    assert len(hours) >= 3 and not any(counts[name] for name in CONTRADICTIONS), counts


@pytest.fixture
def landing(tmp_path):
    return tmp_path / "landing"


@pytest.mark.slow
def test_kills_at_every_point_and_at_random(lake, landing):
    events = shaken(big_log(11, count=6000, keys=80, minutes=300), 12, 6)
    cut(landing, events, 150)
    points = ["segment", "staged", "intent", "events", "impression_sessions", "late_events", "published", "snapshot"]
    for point in points:
        process = labeler(lake, landing, point, times=2)
        assert process.wait(120) == -signal.SIGKILL, process.stdout.read()
    dice = random.Random(13)
    kills = 0
    for _ in range(3):
        process = labeler(lake, landing, once=False)
        process.stdout.readline()  # it labels
        time.sleep(dice.random() * 1.5)
        process.kill()
        process.wait()
        kills += 1
    process = labeler(lake, landing)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    everything(lake, events)
    print(f"\n{len(points) + kills} kills, {status(lake)['batch'] + 1} batches")


@pytest.mark.slow
def test_sigterm_ends_after_the_batch_in_hand_and_a_second_process_is_refused(lake, landing):
    drop(landing, "a", arriving([event("a", 0, "impression")]))
    first = labeler(lake, landing, once=False)
    assert "batch 0" in first.stdout.readline()
    second = labeler(lake, landing)
    output, _ = second.communicate(timeout=60)
    assert second.returncode != 0 and f"another live labeler (process {first.pid} " in output
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    assert Store(lake).committed() == 0
