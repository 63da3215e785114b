"""Fixtures that every suite shares: an empty lake, the real logs, one Spark session for the whole run.

Order: fast tests first, then those marked slow, so that a mistake shows early. `make test` runs three processes (tests wait a lot): one
has all files that need Spark, so that there is one session; the others go file by file to whoever is free.
"""

import os
import re
import signal
from functools import cache
from pathlib import Path

import pytest

from assets.lake import Lake

# Three processes and their children share two cores: threads that wait for others are to sleep, not to spin. Set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A suite that runs in the background, or under nohup, is deaf to these, and would hand that on to what it starts.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
LONG = ("test_ranker", "test_live", "test_backfill", "test_metrics")  # minutes each
NAMES_SPARK = re.compile(r'\bspark[,)]|usefixtures\("spark"\)')


@cache
def needs_spark(path):
    """Whether a file's text names the fixture: pytest-xdist shares the tests out in a process that has not imported them."""
    return bool(NAMES_SPARK.search((ROOT / path).read_text()))


def pytest_collection_modifyitems(items):
    with_spark = {item.path for item in items if "spark" in item.fixturenames}
    if hidden := [str(path) for path in with_spark if not needs_spark(path)]:
        raise pytest.UsageError(f"name the fixture `spark` in {', '.join(hidden)}: usefixtures")
    # Stable: order within stays. The longest parts begin first, or the other processes would wait for them at the end.
    items.sort(key=lambda item: (item.get_closest_marker("slow") is not None, item.path not in with_spark, item.path.stem not in LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Not --dist loadgroup: pytest-xdist 3.8 writes a test's group where pytest 9.2 does not look, and then each goes anywhere."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.split("::")[0]
            return "spark" if needs_spark(path) else path

    return ByFile(config, log)


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path / "lake"))


@pytest.fixture(scope="session")
def spark():
    from assets.spark import get_spark

    return get_spark()


def shared_log(name):
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"the real log {name} lies in ../shared/data, which is not here")
    return path


@pytest.fixture(scope="session")
def kuairand():
    return shared_log("kuairand27k_subset.tsv.gz")


@pytest.fixture(scope="session")
def deskdrop():
    return shared_log("deskdrop_interactions.csv.gz")
