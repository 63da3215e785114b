"""Dagster's web server behind the guard: `python -m dagster_project.webserver -p PORT -w WORKSPACE`.

Here: what `dagster-webserver` does, with guard.py around it. Not here: the guard, when the server is started (services.py).

By itself Dagster takes mutations by GET, answers under any name, and opens websockets for every origin: any page open on the machine
could launch runs and wipe materializations.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dagster_project.guard import Guard, Scope, headers

if TYPE_CHECKING:
    from dagster._core.workspace.context import IWorkspaceProcessContext

POLL_MS = 2000  # as often as dagster-webserver's own default
# An executed notebook holds what its outputs hold. In Dagster's UI it is shown in a frame without an origin; opened by
# itself it would have Dagster's own, and could launch runs. It reaches no network either.
NOTEBOOK = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:"


def graphql_by_post(scope: Scope) -> tuple[int, str] | None:
    """GraphQL takes queries by POST of JSON only, which no page of another origin can send; GET shows the playground."""
    if scope["path"].rstrip("/") != "/graphql":
        return None
    if scope["method"] == "GET":
        accepted = headers(scope, b"accept")
        shown = len(accepted) == 1 and b"text/html" in accepted[0]
        return None if shown else (405, "GraphQL is asked by POST with Content-Type: application/json.")
    kinds = headers(scope, b"content-type")
    if scope["method"] != "POST" or len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != b"application/json":
        return 415, "GraphQL is asked by POST with Content-Type: application/json."
    return None


def guarded_app(context: IWorkspaceProcessContext, origins: Iterable[str] = ()) -> Guard:
    """Dagster's UI and GraphQL as an ASGI application, guarded."""
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.cli import _lifespan

    app = create_app_from_workspace_process_context(context, "", POLL_MS, lifespan=_lifespan)
    return Guard(app, origins, graphql_by_post, paths={"/notebook": NOTEBOOK, "/dagit/notebook": NOTEBOOK})


def serve(workspace: str, port: int, origins: Iterable[str] = ()) -> None:
    """Serve the instance of DAGSTER_HOME on loopback until stopped. workspace: path of a workspace.yaml."""
    import uvicorn
    from dagster import DagsterInstance
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster._utils.interrupts import setup_interrupt_handlers
    from dagster._utils.log import configure_loggers
    from dagster_webserver import cli
    from dagster_webserver.version import __version__

    configure_loggers()
    setup_interrupt_handlers()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(
            cli.DEFAULT_DB_STATEMENT_TIMEOUT, cli.DEFAULT_POOL_RECYCLE, cli.DEFAULT_POOL_MAX_OVERFLOW
        )
        target = WorkspaceFileTarget(paths=[workspace])
        with WorkspaceProcessContext(instance, version=__version__, workspace_load_target=target) as context:
            # The forwarded headers of a proxy decide nothing here.
            uvicorn.run(guarded_app(context, origins), host="127.0.0.1", port=port, log_level="warning", proxy_headers=False)


def main() -> None:
    from dagster_project import settings

    parser = argparse.ArgumentParser(prog="python -m dagster_project.webserver", description=__doc__)
    parser.add_argument("-p", "--port", type=int, required=True)
    parser.add_argument("-w", "--workspace", required=True)
    given = parser.parse_args()
    serve(given.workspace, given.port, settings.load().origins)


if __name__ == "__main__":
    main()
