"""What assets are given: the settings, and ClickHouse.

Here: connections and their life. Not here: tables, queries, the environment (settings.py).
"""

import contextlib

import dagster as dg
from pydantic import PrivateAttr

from dagster_project.settings import Settings


class ClickHouse(dg.ConfigurableResource):
    """A server by URL, or the embedded endpoint on loopback.

    Where no URL is set, the endpoint that serves the folder is used; if none does, one is started for the run.
    """

    url: str | None = None
    folder: str = ""
    _open: contextlib.ExitStack = PrivateAttr(default_factory=contextlib.ExitStack)
    _local: str | None = PrivateAttr(default=None)

    def client(self):
        """A clickhouse-connect client. Raises ClickHouseDown where a server that was named does not answer."""
        from assets.metrics.client import LOAD_S, connect

        return connect(self.address(), timeout_s=LOAD_S, folder=None if self.url else self.folder)

    def address(self, user: str = "loader") -> str:
        """The URL, for a process that connects by itself (a notebook's kernel). user: of the embedded endpoint (access.USERS)."""
        from assets.metrics import access

        return self.url or access.signed(self._endpoint(), self.folder, user)

    def _endpoint(self) -> str:
        from assets.metrics import endpoint

        if self._local is None:
            # Port 0: a run's own endpoint takes any free port and leaves the usual one to `make up`.
            self._local = endpoint.running(self.folder) or self._open.enter_context(endpoint.started(self.folder))
        return self._local

    def teardown_after_execution(self, context) -> None:
        self._open.close()
        self._local = None


def resources(settings: Settings) -> dict[str, object]:
    """By name, as the assets ask for them."""
    return {
        "settings": settings,
        "clickhouse": ClickHouse(url=settings.clickhouse_url, folder=str(settings.clickhouse_folder)),
    }
