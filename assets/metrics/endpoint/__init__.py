"""ClickHouse's engine (chdb) behind ClickHouse's HTTP protocol, so that one client serves it and a real server.

Here: one endpoint on one folder: its process (serving.py), the connection and its time limits (connection.py), the protocol and who is let
in (http.py), what a statement may do (guard.py), places for each user (lanes.py), chdb (engine.py). Not here: tables (schema.py), what is
written (loader.py), the client (client.py), the folder's passwords (access.py), the environment (dagster_project/settings.py).
"""

from assets.metrics.endpoint.engine import LOCK
from assets.metrics.endpoint.errors import EndpointError, QueryError
from assets.metrics.endpoint.serving import _listen, answers, main, running, serve, serves, started, wait_until_ready

__all__ = [
    "LOCK", "EndpointError", "QueryError", "_listen", "answers", "main", "running", "serve", "serves", "started", "wait_until_ready",
]  # fmt: skip
