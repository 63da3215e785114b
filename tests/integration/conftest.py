"""Fixtures of the tests that need ClickHouse's engine: one embedded endpoint a file, a database of its own for each test."""

import pytest


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    from assets.metrics import endpoint

    with endpoint.started(tmp_path_factory.mktemp("clickhouse")) as url:
        yield url


@pytest.fixture
def client(url, request):
    from assets.metrics.client import connect

    name = f"db_{abs(hash(request.node.name)) % 10**9}"
    connect(url).command(f"CREATE DATABASE {name}")
    return connect(f"{url}/{name}")
