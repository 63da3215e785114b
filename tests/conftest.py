"""Fixtures that every suite shares: an empty lake, the real logs, one Spark session for the whole run.

Order: fast tests first, then those marked slow, so that a mistake shows early. `make test` runs three processes (their tests wait a lot): one has all files that
need Spark, so that there is one session; the others go file by file to whoever is free.
"""

from pathlib import Path

import pytest

from assets.lake import Lake

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items):
    with_spark = {item.path for item in items if "spark" in item.fixturenames}
    # Stable: order within stays. The longest part begins first, or the other process would wait for it at the end.
    items.sort(key=lambda item: (item.get_closest_marker("slow") is not None, item.path not in with_spark))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("spark" if item.path in with_spark else item.path.stem))


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
