"""The endpoint as a process: start, stop, whether one serves a folder.

Here: the process, its port, what it may reach. Not here: the protocol (http.py), the engine (engine.py), passwords (access.py).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from assets.metrics import access
from assets.metrics.client import masked
from assets.metrics.endpoint.engine import LOCK, TEMPORARY, Engine, KeyReader, held
from assets.metrics.endpoint.errors import EndpointError
from assets.metrics.endpoint.http import application

LOOPBACK = ("127.0.0.1", "::1", "localhost")
BACKLOG = 128
# Folders that the engine makes in its own, some of them only when they are needed.
STORE = ("data", "metadata", "metadata_dropped", "store", "tmp", "user_defined")
STATUS = "status"  # the engine's own, beside them


def serve(
    path: str | Path,
    host: str = "127.0.0.1",
    port: int = 8123,
    ready: Callable[[int], None] | None = None,
    allow_remote: bool = False,
    reads: list[str | Path] | None = None,
    confined: bool = False,
    writes: list[str | Path] | None = None,
) -> None:
    """Serve the folder until SIGTERM or Ctrl-C. port 0 takes a free one; `ready` is told the port once it answers.

    confined: this process is for the endpoint alone, and gives up what that does not need, for good (confine.py). reads: then the folders
    that the loader lets ClickHouse read (the lake); without them it may read any. writes: folders
    beside its own in which it may write. Raises EndpointError where the folder is served already, the port is taken, or `host` is not loopback without
    allow_remote (the passwords are sent in clear).
    """
    import uvicorn

    from assets.metrics.endpoint.connection import Connection

    if host not in LOOPBACK and not allow_remote:
        raise EndpointError(
            f"{host} is not loopback, and the embedded endpoint has no TLS: allow it explicitly (--allow-remote), "
            "or run a ClickHouse server and set CLICKHOUSE_URL"
        )
    listening = _listen(host, port)
    try:
        read_keys = _confine(path, reads, writes or []) if confined else None
        engine = Engine(path, _url(host, listening.getsockname()[1]), read_keys)
    except EndpointError:
        listening.close()
        raise
    config = uvicorn.Config(
        application(engine, host in LOOPBACK), http=Connection, ws="none", log_level="error", access_log=False, lifespan="off",
        timeout_graceful_shutdown=10, server_header=False, proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    try:
        with _quiet_signals():
            if ready:
                threading.Thread(target=_tell, args=(server, ready, listening.getsockname()[1]), daemon=True).start()
            server.run(sockets=[listening])
    finally:
        engine.close()


def _confine(path: str | Path, reads: list[str | Path] | None, writes: list[str | Path]) -> KeyReader:
    """Confine this thread and those to come; returns the one that still reads the folder's key, which statements must not."""
    from assets.metrics.endpoint.confine import confine, not_kept

    folder = Path(path).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # chdb could read a table named like a file of the working folder from that file: there is none.
    nothing = folder / TEMPORARY / "empty"
    nothing.mkdir(parents=True, exist_ok=True)
    os.chdir(nothing)
    os.environ["TMPDIR"] = tempfile.tempdir = str(nothing.parent)
    read_keys = KeyReader(folder)
    for name in STORE:
        (folder / name).mkdir(exist_ok=True)
    files = [folder / LOCK, folder / STATUS]
    for file in files:
        file.touch()
    # All that lies in the folder but files, of which one is the key. The engine makes files of its own there, and reads none but these.
    own = [one for one in folder.iterdir() if one.is_dir() and not one.is_symlink()] + files
    done = confine([*own, *writes], None if reads is None else [Path(one).resolve() for one in reads], around=[folder])
    if missing := not_kept() or (None if done else "the kernel refused it"):
        print(f"ClickHouse's endpoint is not wholly confined: {missing}; the rules for statements hold all the same", file=sys.stderr, flush=True)
    return read_keys


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise EndpointError(
            f"port {port} on {host} cannot be taken ({error.strerror}); stop what holds it, or choose another "
            "(GLASSHOUSE_CLICKHOUSE_PORT)"
        ) from error
    return listening


def _tell(server: Any, ready: Callable[[int], None], port: int) -> None:
    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.01)
    ready(port)


@contextlib.contextmanager
def _quiet_signals() -> Iterator[None]:
    """uvicorn stops on a signal and then raises it again, for the handlers before its own: those do nothing here."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def running(path: str | Path, user: str = access.WRITER) -> str | None:
    """URL, with the user's password, of the endpoint that serves this folder on this machine, or None.

    The lock file's address is believed only while an endpoint holds the lock, and where what answers there names this folder.
    """
    path = Path(path)
    with contextlib.suppress(OSError):
        words = (path / LOCK).read_text().split()
        if words and words[-1].startswith("http") and held(path):
            url = access.signed(words[-1], path, user)
            return url if serves(url, timeout_s=5) == access.keys(path).folder else None
    return None


@contextlib.contextmanager
def started(
    path: str | Path, port: int = 0, timeout_s: float = 30, reads: list[str | Path] | None = None, user: str = access.WRITER
) -> Iterator[str]:
    """An endpoint as a child process for the time of a `with`; yields its URL, with the user's password. Raises EndpointError if it dies."""
    command = [sys.executable, "-m", "assets.metrics.endpoint", "--path", str(path), "--port", str(port)]
    command += [word for folder in reads or [] for word in ("--reads", str(folder))]
    root = str(Path(__file__).resolve().parents[3])
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env,
            start_new_session=True,  # Ctrl-C goes to the parent, which stops it when done
        )  # fmt: skip
        try:
            url = child.stdout.readline().strip()
            if not url:
                child.wait(timeout_s)
                errors.seek(0)
                raise EndpointError(errors.read().strip() or f"the endpoint ended with {child.returncode}")
            yield access.signed(wait_until_ready(url, child, timeout_s), path, user)
        finally:
            child.terminate()
            try:
                child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdout.close()


def wait_until_ready(url: str, process: subprocess.Popen | None = None, timeout_s: float = 30) -> str:
    """Wait until the endpoint answers; returns `url`. Raises EndpointError at the time limit or if `process` ends."""
    end = time.monotonic() + timeout_s
    while not answers(url):
        if process is not None and process.poll() is not None:
            raise EndpointError(
                f"the endpoint for {masked(url)} ended with status {process.returncode}; see its message above"
            )
        if time.monotonic() > end:
            raise EndpointError(f"the endpoint at {masked(url)} does not answer after {timeout_s:g} s")
        time.sleep(0.05)
    return url


def answers(url: str, timeout_s: float = 1) -> bool:
    """Does something answer /ping there?"""
    return serves(url, timeout_s) is not None


def serves(url: str, timeout_s: float = 1) -> str | None:
    """The name of the folder that is served there (access.Keys.folder), "" where what answers names none; None without an answer."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", "/ping")
        response = connection.getresponse()
        return response.headers.get(access.ID_HEADER, "") if response.status == 200 else None
    except (http.client.HTTPException, OSError):
        return None
    finally:
        connection.close()


def main(arguments: list[str] | None = None) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m assets.metrics.endpoint",
        description="ClickHouse's engine (chdb) behind ClickHouse's HTTP protocol, on one folder.",
    )
    parser.add_argument("--path", required=True, help="folder of the tables")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8123, help="0 takes a free one")
    parser.add_argument("--allow-remote", action="store_true", help="bind to an address that is not loopback")
    parser.add_argument("--reads", action="append", help="a folder of Delta tables that may be read; without it any")
    given = parser.parse_args(arguments)
    try:
        serve(
            given.path, given.host, given.port, lambda port: print(_url(given.host, port), flush=True),
            given.allow_remote, given.reads, confined=True,
        )  # fmt: skip
    except EndpointError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
