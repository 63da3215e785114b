"""Signs of life: a file for each service that `up` keeps up, touched while it is well.

Our own loops touch theirs between pieces of work (Beat, BeatingStop). Of the others a process asks (`watch`): a question that
only a well one answers, with a time limit, and the file is touched for a good answer. Here: the questions. Not here: what
silence means (supervisor.py).

`watch` is a process of its own so that what it loads (a ClickHouse client, gRPC) does not fork, hang or fail inside the
supervisor; it touches a file too.
"""

from __future__ import annotations

import argparse
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

EVERY_SECONDS = 5.0
ANSWER_SECONDS = 10.0
DAEMON_SECONDS = 30.0  # Dagster's daemons write theirs so often

Probe = Callable[[], bool]


class Beat:
    """Called: touches the file, where there is one."""

    def __init__(self, path: Path | None):
        self.path = path

    def __call__(self, *_: object) -> None:
        if self.path is not None:
            with suppress(OSError):  # a full disk is told by whoever writes to it
                self.path.touch()


class BeatingStop(threading.Event):
    """An event to stop by, for a loop that looks at it in every turn: being asked, and waiting, are signs of life."""

    def __init__(self, beat: Beat):
        super().__init__()
        self.beat = beat

    def is_set(self) -> bool:
        self.beat()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self.beat()
            left = EVERY_SECONDS if end is None else end - time.monotonic()
            if super().wait(max(0.0, min(EVERY_SECONDS, left))):
                return True
            if end is not None and time.monotonic() >= end:
                return False


# --- questions --------------------------------------------------------------------------------------------------------


def answers(url: str) -> Probe:
    """Something answers a GET there, if only with a refusal: a server that hangs does neither. A user and password of the URL are not sent."""
    parts = urlsplit(url)
    url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def probe() -> bool:
        try:
            with _DIRECT.open(url, timeout=ANSWER_SECONDS) as response:
                response.read(2**16)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code < 500
        except (OSError, ValueError):
            return False
        return True

    return probe


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: no proxy of the environment's


def queries(url: str | Callable[[], str]) -> Probe:
    """ClickHouse answers a query, not only a ping: queries may hang while pings are answered.

    url: or what returns it, asked for each new client: its password may change.
    """
    held: list = []

    def probe() -> bool:
        from assets.metrics.client import connect

        try:
            if not held:
                held.append(connect(url() if callable(url) else url))
            return held[0].command("SELECT 1") == 1
        except Exception:  # whatever it is, a new client may do better
            held.clear()
            return False

    return probe


def code_answers(socket_path: str) -> Probe:
    """Dagster's code server answers a ping, which it hands on to the process that holds the code.

    One whose code does not load answers too: starting it again mends no code.
    """

    def probe() -> bool:
        import grpc

        with grpc.insecure_channel(f"unix:{socket_path}") as channel:
            ping = channel.unary_unary("/api.DagsterApi/Ping", request_serializer=bytes, response_deserializer=bytes)
            try:
                ping(b"", timeout=ANSWER_SECONDS)
            except grpc.RpcError as error:
                return "No available client" in (error.details() or "")
        return True

    return probe


def daemon_beats(database: str) -> Probe:
    """Dagster's daemons have written heartbeats since the last look: times are compared, no clock is asked."""
    seen: list = []

    def probe() -> bool:
        newest = newest_daemon_beat(database)
        before, seen[:] = list(seen), [newest]
        return bool(before) and newest not in (None, *before)

    return probe


def newest_daemon_beat(database: str) -> str | None:
    """The time of the newest, as Dagster writes it; None where that database holds none (another storage, another Dagster)."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(Path(database).absolute().as_uri() + "?mode=ro", uri=True, timeout=5)) as found:
        return found.execute("SELECT max(timestamp) FROM daemon_heartbeats").fetchone()[0]
    return None


def _our_clickhouse(_: str) -> Probe:
    from dagster_project.settings import load

    return queries(lambda: load().clickhouse)  # with its password, which no command line is to show


PROBES = {"http": answers, "query": _our_clickhouse, "code": code_answers, "daemon": daemon_beats}


# --- the process ------------------------------------------------------------------------------------------------------


def watch(own: Path, asked: dict[Path, list[Probe]]) -> None:
    """Ask for ever, each service in a thread of its own; `own` is touched as long as all the threads live."""
    threads = [threading.Thread(target=_ask, args=(Beat(path), probes), daemon=True) for path, probes in asked.items()]
    for thread in threads:
        thread.start()
    beat = Beat(own)
    while all(thread.is_alive() for thread in threads):
        beat()
        time.sleep(EVERY_SECONDS / 5)


def _ask(beat: Beat, probes: list[Probe]) -> None:
    while True:
        if all(probe() for probe in probes):
            beat()
        time.sleep(EVERY_SECONDS)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dagster_project.heartbeats", description=__doc__.splitlines()[0])
    parser.add_argument("own", type=Path, help="file to touch")
    parser.add_argument("--ask", nargs=3, action="append", default=[], metavar=("FILE", "KIND", "WHERE"))
    given = parser.parse_args(arguments)
    asked: dict[Path, list[Probe]] = {}
    for path, kind, where in given.ask:
        asked.setdefault(Path(path), []).append(PROBES[kind](where))
    watch(given.own, asked)


if __name__ == "__main__":
    main()
