"""Fixtures that every suite shares: an empty lake, the real logs, one Spark session for the whole run.

Order: fast tests first, then those marked slow, so that a mistake shows early.
"""

from pathlib import Path

import pytest

from assets.lake import Lake

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)  # stable: order within stays


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
