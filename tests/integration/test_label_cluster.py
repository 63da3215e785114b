"""Open sessions in buckets on Spark: the same rows as in one process, also when the number of buckets changes."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from assets.attribution.cluster import ClusterSessions, bucket_of
from assets.attribution.live import run, status
from assets.attribution.rules import Rules
from assets.lake import Lake
from dagster_project.settings import ROOT
from tests.integration.test_label_live import check, cut, drop, shaken
from tests.unit.test_label import big_log
from tests.unit.test_resident import both_ways, columns

pytestmark = pytest.mark.slow

LOG = big_log(17, count=900, keys=40, minutes=150)
ON_A_CLUSTER = """
import sys, threading
from pathlib import Path
from assets.attribution.cluster import ClusterSessions
from assets.attribution.live import run
from assets.attribution.rules import Rules
from assets.lake import Lake
from assets.spark import SparkSettings, get_spark
if __name__ == "__main__":
    root, landing, buckets = sys.argv[1:]
    spark = get_spark(SparkSettings(master="local-cluster[2,1,4096]", conf={"spark.executor.memory": "1g"}))
    sessions = ClusterSessions(spark, Path(root, "buckets"), int(buckets))
    pids = set(spark.sparkContext.parallelize(range(8), 8).map(lambda _: __import__("os").getppid()).collect())
    run(Lake(root), Path(landing), Rules(), 0, threading.Event(), once=True, batch_bytes=1, sessions=sessions)
    print("parents", len(pids))
"""


def label(lake, landing, sessions):
    run(lake, landing, Rules(), 0, threading.Event(), once=True, say=str, batch_bytes=1, sessions=sessions)


def test_a_key_has_one_bucket_and_buckets_are_of_a_size():
    dice = np.random.default_rng(5)
    user, note = dice.integers(-(2**62), 2**62, (2, 20_000))
    found = bucket_of(user, note, 7)
    assert np.array_equal(found, bucket_of(user.copy(), note.copy(), 7))
    assert found.min() == 0 and found.max() == 6 and np.bincount(found).min() > 2500


def test_buckets_give_what_the_merge_gives(spark, tmp_path):
    dice = np.random.default_rng(1)
    batches = []
    for number in range(5):
        rows = np.stack([dice.integers(0, 9, 200), dice.integers(-4, 4, 200),
                         dice.integers(60 * number, 60 * number + 60, 200), dice.integers(0, 13, 200)], axis=1)  # fmt: skip
        batches.append((columns([tuple(row) for row in rows.tolist()]), (number + 1) * 30 * 60_000_000))
    both_ways(batches, ClusterSessions(spark, tmp_path / "buckets", 3))


def test_the_number_of_buckets_may_change_between_batches(spark, lake, tmp_path):
    landing, events = tmp_path / "landing", shaken(LOG, 2, 6)
    for number, buckets in enumerate((3, 5, None, 1)):
        part = events[number * 225 : (number + 1) * 225]
        drop(landing, f"{number:08d}", part)
        label(lake, landing, buckets and ClusterSessions(spark, tmp_path / "buckets", buckets))
    check(lake, events)
    assert status(lake)["batch"] == 3


def test_executor_processes_of_a_cluster_give_the_same_rows(tmp_path):
    lake, landing, events = Lake(str(tmp_path / "lake")), tmp_path / "landing", shaken(LOG, 4, 6)
    cut(landing, events, 300)
    (tmp_path / "job.py").write_text(ON_A_CLUSTER)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "job.py"), lake.root, str(landing), "4"], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "parents 2" in done.stdout, "two executor processes"
    check(lake, events)
