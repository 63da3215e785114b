"""The one way to reach ClickHouse, embedded or a server: a URL in, a clickhouse-connect client out.

Here: the connection and its errors. Not here: SQL, tables (schema.py), where the URL comes from (settings.py).
"""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ANSWER_S = 75  # the endpoint ends a reader's statement after 60 and says so
LOAD_S = 600  # statements of a load, a migration or a backfill, which may take minutes


HIDDEN = "***"
# A password may hold what it should not (`/`, `@`): all up to the last @ before a blank is taken for the user and password.
_PASSWORD = re.compile(r"(?<=://)(?P<user>[^\s:@/?#]*):[^\s\"'<>]*@")  # among words
_ONE = re.compile(r"\A\s*(?P<before>[\w.+-]+://)(?P<user>[^\s:@/?#]*):.*@", re.DOTALL)  # a URL alone: blanks and quotes too
_QUERY = re.compile(r"(?<=[?&;#])(?P<name>[\w.\[\]%-]+)=[^\s&;#\"'<>]*")


def masked(text: str) -> str:
    """A URL, or words with URLs in them, as it may be printed: passwords and the values after `?` are hidden."""
    text = _ONE.sub(rf"\g<before>\g<user>:{HIDDEN}@", str(text))
    text = _PASSWORD.sub(rf"\g<user>:{HIDDEN}@", text)
    return _QUERY.sub(rf"\g<name>={HIDDEN}", text) if "://" in text else text


class ClickHouseDown(ConnectionError):
    """Nothing answers at the URL; the message says what to start."""


class OtherHome(ClickHouseDown):
    """An embedded endpoint answers that does not know this home's password; the message names both folders."""


def connect(
    url: str, read_only: bool = False, wait_s: float = 0, timeout_s: float = ANSWER_S, folder: str | Path | None = None
) -> Client:
    """A client for http(s)://user:password@host:port/database, safe to share between threads.

    read_only: sends readonly=2 with every query (settings may be given, nothing can be written), unless the server's
    user is read-only anyway. wait_s: how long to wait for an endpoint that is still starting. timeout_s: so long the client waits for
    the next bytes of an answer. folder: the home's folder that is meant: its password counts, as it is now, and not the URL's, which
    may be from before a key was drawn anew; and the message names it where another's endpoint answers.
    Raises ValueError for a URL of another kind, ClickHouseDown where nothing answers, OtherHome where another home's endpoint does, and
    clickhouse_connect's DatabaseError for what the server itself refuses (a wrong password).
    """
    import clickhouse_connect
    from clickhouse_connect.driver.exceptions import DatabaseError

    if folder and urlsplit(url).hostname:
        url = _signed_now(url, folder)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a ClickHouse URL looks like http(s)://user:password@host:port/database")
    port = parts.port or (8443 if parts.scheme == "https" else 8123)
    _wait(parts.hostname, port, wait_s)
    try:
        client = clickhouse_connect.get_client(
            interface=parts.scheme,
            host=parts.hostname,
            port=port,
            username=unquote(parts.username or "default"),
            password=unquote(parts.password or ""),
            database=unquote(parts.path.strip("/")) or "default",
            autogenerate_session_id=False,  # a session takes one query at a time; threads share this client
            connect_timeout=5,
            send_receive_timeout=timeout_s,
        )
    except DatabaseError as error:
        if error.code == 516:
            _other_home(url, f"{parts.hostname}:{port}", folder, error)
        raise
    if read_only and _setting(client, "readonly") == "0":
        client.set_client_setting("readonly", "2")
    return client


def _signed_now(url: str, folder: str | Path) -> str:
    from assets.metrics import access

    user = urlsplit(url).username
    return access.signed(url, folder, user if user in access.USERS else access.WRITER)


def _other_home(url: str, address: str, folder: str | Path | None, error: Exception) -> None:
    """Raises OtherHome where what answers is the embedded endpoint of another folder."""
    from assets.metrics import access
    from assets.metrics.endpoint import serves

    if not (theirs := serves(url, timeout_s=5)):
        return
    ours = f"{folder} (folder {access.keys(folder).folder})" if folder else "the home that this URL is of"
    raise OtherHome(
        f"the ClickHouse endpoint at {address} serves another folder ({theirs}) and not {ours}; stop it, or give one of the two homes "
        "another GLASSHOUSE_CLICKHOUSE_PORT (`glasshouse clickhouse --url` prints a home's URL)"
    ) from error


def _wait(host: str, port: int, wait_s: float) -> None:
    # Asked before the client is made: its own failure is a page of log, and says nothing of what to start.
    end = time.monotonic() + wait_s
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() >= end:
                raise ClickHouseDown(
                    f"no ClickHouse answers at {host}:{port}; start it with `make up` or `glasshouse clickhouse`, "
                    "or set CLICKHOUSE_URL to a server"
                ) from error
            time.sleep(0.2)


def _setting(client: Client, name: str) -> str:
    found = client.server_settings.get(name)
    return found.value if found else "0"
