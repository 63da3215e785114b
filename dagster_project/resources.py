"""What assets are given: the settings, and ClickHouse.

Here: connections and their life. Not here: tables, queries, the environment (settings.py).
"""

from __future__ import annotations

import contextlib

import dagster as dg

from assets.metrics.client import masked
from dagster_project.settings import Settings


class ClickHouse:
    """A server by URL, or the embedded endpoint on loopback.

    Where no URL is set, the endpoint that serves the folder is used; if none does, one is started for the run. No configurable
    resource: Dagster would show its URL, and with it the password, to whoever opens the UI.
    """

    def __init__(self, url: str | None = None, folder: str = "") -> None:
        self._url, self._folder = url, folder
        self._open = contextlib.ExitStack()
        self._local: str | None = None

    def __repr__(self) -> str:
        return f"ClickHouse({masked(self._url or self._folder)!r})"

    def client(self):
        """A clickhouse-connect client. Raises ClickHouseDown where a server that was named does not answer."""
        from assets.metrics.client import LOAD_S, connect

        return connect(self.address(), timeout_s=LOAD_S, folder=None if self._url else self._folder)

    def address(self, user: str = "loader") -> str:
        """The URL, for a process that connects by itself (a notebook's kernel). user: of the embedded endpoint (access.USERS)."""
        from assets.metrics import access

        return self._url or access.signed(self._endpoint(), self._folder, user)

    def _endpoint(self) -> str:
        from assets.metrics import endpoint

        if self._local is None:
            # Port 0: a run's own endpoint takes any free port and leaves the usual one to `make up`.
            self._local = endpoint.running(self._folder) or self._open.enter_context(endpoint.started(self._folder))
        return self._local

    def close(self) -> None:
        self._open.close()
        self._local = None


def clickhouse(settings: Settings) -> dg.ResourceDefinition:
    @dg.resource(description="ClickHouse, a server or the embedded endpoint; by GLASSHOUSE_CLICKHOUSE_URL.")
    def of_a_run(_):
        with contextlib.closing(ClickHouse(settings.clickhouse_url, str(settings.clickhouse_folder))) as found:
            yield found

    return of_a_run


def resources(settings: Settings) -> dict[str, object]:
    """By name, as the assets ask for them."""
    return {
        "settings": settings,
        "clickhouse": clickhouse(settings),
    }
