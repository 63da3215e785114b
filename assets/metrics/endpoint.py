"""ClickHouse's engine (chdb) behind ClickHouse's HTTP protocol, so that one client serves it and a real server.

Here: one request in, one answer out; the folder's lock; start and stop. Not here: tables (schema.py), what is written
(loader.py), the client (client.py), the environment (dagster_project/settings.py).

Every request has its own handle to the engine (about 2 ms), so its settings and its database end with it. There are
no users: whoever reaches the port may do everything. Hence it binds to loopback only, unless told otherwise, and
refuses what a browser sends for a foreign page. Sessions (session_id) and external data are not carried.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LOOPBACK = ("127.0.0.1", "::1", "localhost")
LOCK = "endpoint.lock"
MAX_SQL_BYTES = 16 << 20  # a statement (not an INSERT's data) is held in memory
CHUNK = 1 << 20
SPOOL = 32 << 20  # an answer that waits for its end is kept in memory up to here, then on disk

# What the HTTP transport consumes itself; the engine would refuse them as unknown settings.
TRANSPORT = frozenset(
    "query database default_format user password buffer_size session_id session_timeout session_check query_id "
    "quota_key compress decompress wait_end_of_query client_protocol_version role send_progress_in_http_headers "
    "http_headers_progress_interval_ms enable_http_compression cancel_http_readonly_queries_on_client_close "
    "add_http_cors_header http_write_exception_in_output_format".split()
)
# Formats of which each block is complete in itself: only these can be sent as they come.
STREAMED = frozenset({"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"})
STATUS = {62: 400, 36: 400, 46: 404, 47: 404, 60: 404, 81: 404, 115: 404, 27: 400, 43: 400, 53: 400, 70: 400, 117: 400,
          164: 403, 497: 403, 159: 408}  # fmt: skip

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BLANK = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*"
_IDENTIFIER = r"(?:`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|\w+)"
_INSERT = re.compile(
    rf"{_BLANK}INSERT\s+INTO\s+(?:TABLE\s+)?(?P<table>{_IDENTIFIER}(?:\.{_IDENTIFIER})?)"
    r"(?P<columns>\s*\((?:`(?:[^`\\]|\\.)*`|[^`)])*\))?"
    r"(?P<settings>\s+SETTINGS\s+[^\n]+?)?\s+(?:FORMAT\s+(?P<format>\w+)|(?P<values>VALUES))[ \t]*;?[ \t]*(?:\r?\n|$)",
    re.IGNORECASE | re.DOTALL,
)
_SELECT = re.compile(rf"{_BLANK}\(*{_BLANK}(?:SELECT|WITH)\b", re.IGNORECASE | re.DOTALL)
_FORMAT = re.compile(r"\s+FORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_CODE = re.compile(r"Code: (\d+)\.")


class EndpointError(Exception):
    """The endpoint cannot start; the message says what to do."""


class QueryError(Exception):
    """What the engine (or the protocol) refuses, with ClickHouse's code."""

    def __init__(self, message: str, code: int | None = None):
        found = _CODE.search(message)
        self.code = code or (int(found[1]) if found else 1002)
        # Without the prefixes of chdb's Python layer: the text a server would send.
        self.message = message[found.start() :] if found else f"Code: {self.code}. DB::Exception: {message}"
        super().__init__(self.message)


@dataclass
class Call:
    """One request, parsed: the statement, its bound parameters and its settings."""

    sql: str
    params: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    database: str | None = None
    default_format: str = "TabSeparated"
    wait: bool = False

    @property
    def format(self) -> str:
        found = _FORMAT.search(self.sql)
        return found[1] if found else self.default_format

    @property
    def selects(self) -> bool:
        return bool(_SELECT.match(self.sql))


# --- the engine ---------------------------------------------------------------------------------------------------


class Engine:
    """chdb on one folder: locked against a second endpoint, a handle for each request."""

    def __init__(self, path: str | Path, url: str = ""):
        import chdb

        self.path = Path(path).resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path, url)
        self._connect = chdb.connect
        try:
            self._keep = chdb.connect(str(self.path))  # the engine lives as long as one handle is open
            self._keep.query("SELECT 1")
            self.timezone = self._keep.query("SELECT timezone()", "TSVRaw").bytes().decode().strip()
        except Exception as error:
            self._lock.close()
            raise EndpointError(f"ClickHouse's engine does not open {self.path}: {error}") from error

    def close(self) -> None:
        self._keep.close()
        self._lock.close()

    @contextlib.contextmanager
    def handle(self, call: Call) -> Iterator[Any]:
        """A handle with the request's database and settings. Raises QueryError."""
        handle = self._connect(str(self.path))
        try:
            _prepare(handle, call)
            yield handle
        except QueryError:
            raise
        except Exception as error:
            raise QueryError(str(error)) from error
        finally:
            handle.close()


def _lock(path: Path, url: str):
    """Hold the folder for this process, and leave in it who serves it where. Raises EndpointError."""
    file = open(path / LOCK, "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = " at ".join(file.read().split()) or "another process"
        file.close()
        raise EndpointError(
            f"{path} is served by {holder}: one endpoint serves a folder. "
            "Connect to that one, stop it first, or give another folder"
        ) from error
    file.truncate(0)
    file.write(f"process-{os.getpid()} {url}")
    file.flush()
    return file


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _prepare(handle: Any, call: Call) -> None:
    if call.database and call.database != "default":
        handle.query("USE `" + call.database.replace("\\", "\\\\").replace("`", "\\`") + "`")
    if call.settings:
        # One statement, as one URL: `readonly` counts only for what follows.
        handle.query("SET " + ", ".join(f"{name} = {_quoted(value)}" for name, value in call.settings.items()))


def _chunks(handle: Any, call: Call) -> Iterator[bytes]:
    """The answer's bytes, block by block where the format allows it."""
    if call.selects and call.format in STREAMED:
        stream = handle.send_query(call.sql, call.format, params=call.params)
        empty = True
        try:
            for block in stream:
                if data := block.bytes():
                    empty = False
                    yield data
        finally:
            stream.close()
        if empty and call.format == "Native":
            yield _header_block(handle, call)
    else:
        yield handle.query(call.sql, call.default_format, params=call.params).bytes()


def _header_block(handle: Any, call: Call) -> bytes:
    """Names and types of an empty answer: chdb sends nothing, a server sends a block of no rows."""
    described = handle.query(f"DESCRIBE TABLE ({_FORMAT.sub('', call.sql)}\n)", "JSONCompact", params=call.params)
    columns = [(row[0], row[1]) for row in json.loads(described.bytes())["data"]]
    return _varint(len(columns)) + b"\0" + b"".join(_string(name) + _string(kind) for name, kind in columns)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _string(text: str) -> bytes:
    data = text.encode()
    return _varint(len(data)) + data


# --- HTTP ---------------------------------------------------------------------------------------------------------


def _call(query: dict[str, str], headers: Any, method: str) -> Call:
    call = Call(sql=query.get("query", ""), database=query.get("database") or headers.get("x-clickhouse-database"))
    call.default_format = query.get("default_format") or headers.get("x-clickhouse-format") or call.default_format
    call.wait = query.get("wait_end_of_query", "0") not in ("0", "false")
    for name, value in query.items():
        if name.startswith("param_"):
            call.params[name.removeprefix("param_")] = value
        elif name not in TRANSPORT:
            if not _NAME.fullmatch(name):
                raise QueryError(f"Unknown setting {name!r}. (UNKNOWN_SETTING)", 115)
            call.settings[name] = value
    if method != "POST":
        call.settings.setdefault("readonly", "2")  # as a server does: GET changes nothing
    return call


def _refuse_foreign(request: Request, hosts: tuple[str, ...] | None) -> None:
    """A page from elsewhere, open in a browser on this machine, must not reach the tables."""
    host = (request.url.hostname or "").strip("[]")
    if "origin" in request.headers or (hosts and host not in hosts):
        raise QueryError("requests from a browser's page, or for another host name, are refused. (ACCESS_DENIED)", 497)


def _decompressor(encoding: str | None) -> Callable[[bytes], bytes]:
    if not encoding or encoding == "identity":
        return lambda data: data
    if encoding == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        return LZ4FrameDecompressor().decompress
    if encoding == "zstd":
        from backports.zstd import ZstdDecompressor

        return ZstdDecompressor().decompress
    if encoding in ("gzip", "deflate"):
        return zlib.decompressobj(wbits=47).decompress  # either header
    raise QueryError(f"Content-Encoding {encoding!r} is not one of: lz4, zstd, gzip, deflate. (BAD_ARGUMENTS)", 36)


async def _body(request: Request) -> AsyncIterator[bytes]:
    """The request's body, decompressed, in pieces of about CHUNK bytes."""
    decompress = _decompressor(request.headers.get("content-encoding"))
    held = bytearray()
    async for piece in request.stream():
        try:
            held += decompress(piece) if piece else b""
        except Exception as error:
            raise QueryError(f"the body does not decompress: {error}. (CANNOT_DECOMPRESS)", 271) from error
        if len(held) >= CHUNK:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


async def _statement(call: Call, body: AsyncIterator[bytes]) -> tuple[re.Match | None, bytes]:
    """Complete `call.sql` from the body. For an INSERT with data: its parsed head, and the data read so far."""
    head = call.sql.encode()
    if insert := _INSERT.fullmatch(call.sql):
        return insert, b""
    if head:
        head += b"\n"
    async for piece in body:
        head += piece
        # Native bytes are no text: the head is looked for in a reading that keeps every byte.
        if insert := _INSERT.match(head[:MAX_SQL_BYTES].decode("latin-1")):
            if insert["format"] and insert.end() <= len(head):
                return _INSERT.match(head[: insert.end()].decode()), head[insert.end() :]
        if len(head) > MAX_SQL_BYTES:
            raise QueryError(f"the statement is longer than {MAX_SQL_BYTES} bytes. (QUERY_IS_TOO_LARGE)", 394)
    try:
        call.sql = head.decode().strip()
    except UnicodeDecodeError as error:
        raise QueryError(f"the statement is not UTF-8: {error}. (SYNTAX_ERROR)", 62) from error
    if not call.sql:
        raise QueryError("Empty query. (SYNTAX_ERROR)", 62)
    return None, b""


class Endpoint:
    """The HTTP application over one engine."""

    def __init__(self, engine: Engine, hosts: tuple[str, ...] | None):
        self.engine = engine
        self.hosts = hosts

    async def __call__(self, request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        body = None
        try:
            _refuse_foreign(request, self.hosts)
            call = _call(dict(request.query_params), request.headers, request.method)
            if request.headers.get("content-type", "").startswith("multipart/"):  # curl calls any body a form
                await self._form(request, call)
                body = _nothing()
            body = body or _body(request)
            insert, data = await _statement(call, body)
            if insert:
                return await self._insert(call, insert, data, body, request)
            return await self._answer(call, await run_in_threadpool(_Answer, self.engine, call), request)
        except QueryError as error:
            if body is not None:
                with contextlib.suppress(Exception):
                    async for _ in body:  # a client that is still sending could not read the error
                        pass
            return self._refusal(error, request)

    async def _form(self, request: Request, call: Call) -> None:
        """Statement and parameters too long for a URL arrive as form fields."""
        async with request.form() as form:
            for name, value in form.items():
                if not isinstance(value, str):
                    raise QueryError("external data is not carried by the embedded endpoint. (NOT_IMPLEMENTED)", 48)
                if name == "query":
                    call.sql = value
                elif name.startswith("param_"):
                    call.params[name.removeprefix("param_")] = value

    async def _insert(
        self, call: Call, insert: re.Match, data: bytes, body: AsyncIterator[bytes], request: Request
    ) -> Response:
        from starlette.concurrency import run_in_threadpool

        writer = await run_in_threadpool(_Insert, self.engine, call, insert)
        try:
            if data:
                await run_in_threadpool(writer.append, data)
            async for piece in body:
                await run_in_threadpool(writer.append, piece)
            written = await run_in_threadpool(writer.finish)
        finally:
            await _shielded(writer.close)
        return self._response(b"", request, {"X-ClickHouse-Summary": json.dumps(written)})

    async def _answer(self, call: Call, answer: _Answer, request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import StreamingResponse

        headers = {"X-ClickHouse-Format": call.format, "X-ClickHouse-Summary": json.dumps(answer.summary)}
        if not call.wait:
            # The first block has come: errors of parsing and planning already had their status.
            tag = uuid.uuid4().hex[:16]
            headers["X-ClickHouse-Exception-Tag"] = tag
            return StreamingResponse(answer.pieces(tag), headers=self._headers(request) | headers)
        try:
            spool = await run_in_threadpool(answer.spool)
        finally:
            await _shielded(answer.close)
        headers["Content-Length"] = str(spool.seek(0, os.SEEK_END))
        spool.seek(0)
        return StreamingResponse(_file(spool), headers=self._headers(request) | headers)

    def _refusal(self, error: QueryError, request: Request) -> Response:
        headers = {"X-ClickHouse-Exception-Code": str(error.code)}
        return self._response(f"{error.message}\n".encode(), request, headers, STATUS.get(error.code, 500))

    def _response(self, body: bytes, request: Request, headers: dict[str, str], status: int = 200) -> Response:
        from starlette.responses import Response

        return Response(body, status, self._headers(request) | headers)

    def _headers(self, request: Request) -> dict[str, str]:
        return {
            "Content-Type": "text/plain; charset=UTF-8",
            "X-ClickHouse-Server-Display-Name": "glasshouse",
            "X-ClickHouse-Query-Id": request.query_params.get("query_id") or str(uuid.uuid4()),
            "X-ClickHouse-Timezone": self.engine.timezone,
        }


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _shielded(work: Callable[[], None]) -> None:
    """Run `work` to its end even where the client has gone and the request is being cancelled."""
    import anyio
    from starlette.concurrency import run_in_threadpool

    with anyio.CancelScope(shield=True):
        await run_in_threadpool(work)


def _file(spool: Any) -> Iterator[bytes]:
    with spool:
        while piece := spool.read(CHUNK):
            yield piece


class _Insert:
    """An INSERT whose data comes in pieces. Nothing is committed before `finish`, up to a million rows a block."""

    def __init__(self, engine: Engine, call: Call, insert: re.Match):
        self._stack = contextlib.ExitStack()
        handle = self._stack.enter_context(engine.handle(call))
        statement = f"INSERT INTO {insert['table']}{insert['columns'] or ''}{insert['settings'] or ''}"
        try:
            self._writer = handle.send_insert(statement, insert["format"] or "Values")
        except Exception as error:
            self._stack.close()
            raise QueryError(str(error)) from error

    def append(self, data: bytes) -> None:
        try:
            self._writer.append(data)
        except Exception as error:
            raise QueryError(str(error)) from error

    def finish(self) -> dict[str, str]:
        try:
            done = self._writer.finish()
        except Exception as error:
            raise QueryError(str(error)) from error
        return {"written_rows": str(done.rows_written), "written_bytes": str(done.bytes_written)}

    def close(self) -> None:
        with contextlib.suppress(Exception):  # finished, or the engine has said why already
            self._writer.cancel()
        self._stack.close()


class _Answer:
    """A running statement of which the first block is there."""

    def __init__(self, engine: Engine, call: Call):
        self.summary = {"read_rows": "0", "written_rows": "0"}
        self._stack = contextlib.ExitStack()
        handle = self._stack.enter_context(engine.handle(call))
        self._chunks = _chunks(handle, call)
        try:
            self._first = next(self._chunks, b"")
        except Exception as error:
            self.close()
            raise error if isinstance(error, QueryError) else QueryError(str(error)) from error

    def _next(self) -> bytes | None:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            return next(self._chunks, None)
        except Exception as error:
            raise QueryError(str(error)) from error

    def spool(self) -> Any:
        spool = tempfile.SpooledTemporaryFile(max_size=SPOOL)
        while (piece := self._next()) is not None:
            spool.write(piece)
        return spool

    async def pieces(self, tag: str) -> AsyncIterator[bytes]:
        from starlette.concurrency import run_in_threadpool

        try:
            while (piece := await run_in_threadpool(self._next)) is not None:
                yield piece
        except QueryError as error:
            # The status is out: ClickHouse's way to say that the rest is missing.
            message = error.message.encode()
            yield b"\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n" % (
                tag.encode(), message, len(message) + 1, tag.encode(),
            )  # fmt: skip
        finally:
            await _shielded(self.close)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._chunks.close()
        self._stack.close()


def application(engine: Engine, hosts: tuple[str, ...] | None = LOOPBACK) -> Starlette:
    """The endpoint as an ASGI application. hosts: the Host names it answers to; None for any."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def ping(request: Request) -> PlainTextResponse:
        return PlainTextResponse("Ok.\n")

    endpoint = Endpoint(engine, hosts)
    return Starlette(
        routes=[
            Route("/ping", ping, methods=["GET"]),
            Route("/", endpoint.__call__, methods=["GET", "POST"]),
        ]
    )


# --- start and stop -----------------------------------------------------------------------------------------------


def serve(
    path: str | Path,
    host: str = "127.0.0.1",
    port: int = 8123,
    ready: Callable[[int], None] | None = None,
    allow_remote: bool = False,
) -> None:
    """Serve the folder until SIGTERM or Ctrl-C. port 0 takes a free one; `ready` is told the port once it answers.

    Raises EndpointError where the folder is served already, the port is taken, or `host` is not loopback without
    allow_remote (there are no users: everybody who reaches the port may read and drop the tables).
    """
    import uvicorn

    if host not in LOOPBACK and not allow_remote:
        raise EndpointError(
            f"{host} is not loopback, and the embedded endpoint has no users: allow it explicitly (--allow-remote), "
            "or run a ClickHouse server and set CLICKHOUSE_URL"
        )
    listening = _listen(host, port)
    try:
        engine = Engine(path, _url(host, listening.getsockname()[1]))
    except EndpointError:
        listening.close()
        raise
    config = uvicorn.Config(
        application(engine, LOOPBACK if host in LOOPBACK else None),
        log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=10,
    )  # fmt: skip
    server = uvicorn.Server(config)
    try:
        with _quiet_signals():
            if ready:
                threading.Thread(target=_tell, args=(server, ready, listening.getsockname()[1]), daemon=True).start()
            server.run(sockets=[listening])
    finally:
        engine.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
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


def running(path: str | Path) -> str | None:
    """URL of the endpoint that serves this folder on this machine, or None."""
    with contextlib.suppress(OSError):
        words = (Path(path) / LOCK).read_text().split()
        if words and words[-1].startswith("http") and answers(words[-1]):
            return words[-1]
    return None


@contextlib.contextmanager
def started(path: str | Path, port: int = 0, timeout_s: float = 30) -> Iterator[str]:
    """An endpoint as a child process for the time of a `with`; yields its URL. Raises EndpointError if it dies."""
    command = [sys.executable, "-m", "assets.metrics.endpoint", "--path", str(path), "--port", str(port)]
    root = str(Path(__file__).resolve().parents[2])
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
            yield wait_until_ready(url, child, timeout_s)
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
            raise EndpointError(f"the endpoint for {url} ended with status {process.returncode}; see its message above")
        if time.monotonic() > end:
            raise EndpointError(f"the endpoint at {url} does not answer after {timeout_s:g} s")
        time.sleep(0.05)
    return url


def answers(url: str, timeout_s: float = 1) -> bool:
    """Does something answer /ping there?"""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/ping", timeout=timeout_s) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def main(arguments: list[str] | None = None) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="python -m assets.metrics.endpoint", description=__doc__.splitlines()[0])
    parser.add_argument("--path", required=True, help="folder of the tables")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8123, help="0 takes a free one")
    parser.add_argument("--allow-remote", action="store_true", help="bind to an address that is not loopback")
    given = parser.parse_args(arguments)
    try:
        serve(
            given.path, given.host, given.port, lambda port: print(_url(given.host, port), flush=True),
            given.allow_remote,
        )  # fmt: skip
    except EndpointError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
