"""ClickHouse's HTTP protocol over one engine: one request in, one answer out, everything closed on every path.

Here: who asks and whether that is believed, the body, the answer. Not here: statements (guard.py), chdb (engine.py), the
connection's time limits (serving.py).

A request is taken from a program on this machine that has a password of the folder. What a browser sends for a page is refused by what
only browsers send; a page that has bound its own name to this address, by the Host it must name. GET and readers change nothing.
Sessions (session_id) and external data are not carried.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import json
import os
import re
import tempfile
import urllib.parse
import uuid
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from assets.metrics.access import ID_HEADER, USERS, WRITER
from assets.metrics.endpoint.engine import SPOOL, Answer, Call, Engine, Insert
from assets.metrics.endpoint.errors import QueryError
from assets.metrics.endpoint.guard import KNOWN_BYTES, MAX_SQL_BYTES, Head, insert_head
from assets.metrics.endpoint.lanes import RUNNING, Lane, Place

CHUNK = 1 << 20
IN_THREAD = 4 << 10  # bytes of a statement that are looked at on the event loop
FORM_BYTES = 16 << 20  # statement and parameters sent as form fields
LEFT_BYTES = 16 << 20  # of a body that is read to its end so that the refusal is read too
LEFT_S = 10.0
THREADS = sum(RUNNING.values()) + 16

# What the HTTP transport consumes itself; the engine would refuse them as unknown settings.
TRANSPORT = frozenset(
    "query database default_format user password buffer_size session_id session_timeout session_check query_id "
    "quota_key compress decompress wait_end_of_query client_protocol_version role send_progress_in_http_headers "
    "http_headers_progress_interval_ms enable_http_compression cancel_http_readonly_queries_on_client_close "
    "add_http_cors_header http_write_exception_in_output_format".split()
)
STATUS = {62: 400, 36: 400, 46: 404, 47: 404, 60: 404, 81: 404, 115: 404, 27: 400, 43: 400, 53: 400, 70: 400, 73: 400, 117: 400,
          164: 403, 202: 503, 394: 413, 452: 403, 497: 403, 516: 401, 159: 408}  # fmt: skip

Scope, Receive, Send = dict[str, Any], Callable[[], Awaitable[dict]], Callable[[dict], Awaitable[None]]

_HOST = re.compile(rb"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?")
_FORMAT = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_QUERY_ID = re.compile(r"[!-~]{1,128}")


class Incoming:
    """`receive` that knows whether the body has ended: what came after that would be waited for until the client goes."""

    def __init__(self, receive: Receive):
        self._receive, self.ended = receive, False

    async def __call__(self) -> dict:
        message = await self._receive()
        self.ended = self.ended or not message.get("more_body")
        return message


class Gone(Exception):
    """The client has closed the connection: nobody reads an answer."""


@dataclass(frozen=True)
class Request:
    """A request's parts: headers by lower-case name (all of a name), the query's last value of each name."""

    method: str
    path: str
    headers: dict[str, list[str]]
    query: dict[str, str]
    receive: Incoming

    def header(self, name: str) -> str | None:
        """The header's value. Raises QueryError where it was sent twice."""
        found = self.headers.get(name, [])
        if len(found) > 1:
            raise QueryError(f"the header {name} was sent {len(found)} times. (BAD_ARGUMENTS)", 36)
        return found[0] if found else None


def _request(scope: Scope, receive: Receive) -> Request:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    try:
        query = urllib.parse.parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise QueryError(f"the URL's query cannot be read: {error}. (BAD_ARGUMENTS)", 36) from error
    return Request(scope["method"], scope["path"], headers, dict(query), Incoming(receive))


def refuse_foreign(scope: Scope, loopback: bool) -> None:
    """A page from elsewhere, open in a browser on this machine, must not reach the tables. Raises QueryError.

    loopback: only a Host that names this machine is answered, as the bytes that were sent.
    """
    by_name: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        by_name.setdefault(name, []).append(value)
    foreign = not scope.get("origin_form", True) or b"origin" in by_name or b"referer" in by_name
    foreign |= any(value not in (b"none", b"same-origin") for value in by_name.get(b"sec-fetch-site", []))
    hosts = by_name.get(b"host", [])
    if foreign or (loopback and not (len(hosts) == 1 and _HOST.fullmatch(hosts[0]))):
        raise QueryError("requests from a browser's page, or for another host name, are refused. (ACCESS_DENIED)", 497)


def user_of(request: Request, engine: Engine) -> str:
    """The user whose password the request bears. Raises QueryError (516)."""
    given = []
    if basic := request.header("authorization"):
        kind, _, text = basic.partition(" ")
        try:
            user, colon, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if kind.lower() != "basic" or not colon:
            raise QueryError("the Authorization header is no Basic authentication. (AUTHENTICATION_FAILED)", 516)
        given.append((user, password))
    if "x-clickhouse-user" in request.headers or "x-clickhouse-key" in request.headers:
        given.append((request.header("x-clickhouse-user") or "default", request.header("x-clickhouse-key") or ""))
    if "user" in request.query or "password" in request.query:
        given.append((request.query.get("user", "default"), request.query.get("password", "")))
    if len(given) > 1:
        raise QueryError("credentials were given in more than one way. (AUTHENTICATION_FAILED)", 516)
    user, password = given[0] if given else ("default", "")
    keys = engine.current_keys()
    right = keys.password(user) if user in USERS else ""
    if not (hmac.compare_digest(password.encode("utf-8", "replace"), (right or keys.writer).encode()) and right):
        raise QueryError(
            f"{_plain(user)[:40]}: Authentication failed: no user of the folder {keys.folder}, which this endpoint serves, has that password. "
            "`glasshouse clickhouse --url` prints the URL of a home. (AUTHENTICATION_FAILED)", 516,
        )  # fmt: skip
    return user


def _plain(text: str) -> str:
    """As it may stand in a header or a message: printable ASCII."""
    return "".join(one if " " <= one <= "~" else "?" for one in text)


def call_of(request: Request, writer: bool) -> Call:
    """What a request's URL and headers say. Raises QueryError."""
    query = request.query
    call = Call(sql=query.get("query", ""), database=query.get("database") or request.header("x-clickhouse-database"))
    call.writes = writer and request.method == "POST"
    call.default_format = query.get("default_format") or request.header("x-clickhouse-format") or call.default_format
    if not _FORMAT.fullmatch(call.default_format):
        raise QueryError(f"Unknown format {_plain(call.default_format)[:64]}. (UNKNOWN_FORMAT)", 73)
    call.wait = query.get("wait_end_of_query", "0") not in ("0", "false")
    for name, value in query.items():
        if name.startswith("param_"):
            call.params[name.removeprefix("param_")] = value
        elif name not in TRANSPORT:
            call.settings[name] = value
    return call


# --- the body -------------------------------------------------------------------------------------------------------


class _Decompressor:
    """Pieces of at most CHUNK bytes of one Content-Encoding, whatever it was packed to; frames that follow one another are one."""

    def __init__(self, encoding: str):
        self._fresh = _codec(encoding)
        self._codec, self._begun = self._fresh and self._fresh(), False

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._codec is None:
            yield data
            return
        while True:
            self._begun |= bool(data)
            out = self._codec.decompress(data, CHUNK)
            if out:
                yield out
            if self._codec.eof:
                data = self._codec.unused_data or b""
                self._codec, self._begun = self._fresh(), False
                if not data:
                    return
                continue
            data = getattr(self._codec, "unconsumed_tail", b"")  # zlib gives back what it has not read, the others keep it
            if not data and getattr(self._codec, "needs_input", len(out) < CHUNK):
                return

    def finish(self) -> None:
        if self._begun:
            raise ValueError("it ends before its end")


def _codec(encoding: str) -> Callable[[], Any] | None:
    if not encoding or encoding == "identity":
        return None
    if encoding == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        return LZ4FrameDecompressor
    if encoding == "zstd":
        from backports.zstd import ZstdDecompressor

        return ZstdDecompressor
    if encoding in ("gzip", "deflate"):
        return lambda: zlib.decompressobj(wbits=47)  # either header
    raise QueryError(f"Content-Encoding {_plain(encoding)[:40]!r} is not one of: lz4, zstd, gzip, deflate. (BAD_ARGUMENTS)", 36)


async def _received(receive: Incoming) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Gone."""
    while not receive.ended:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        if piece := message.get("body"):
            yield piece


async def _body(request: Request) -> AsyncIterator[bytes]:
    """The request's body, decompressed, in pieces of about CHUNK bytes: small ones are put together, large ones cut."""
    codec = _Decompressor((request.header("content-encoding") or "").strip().lower())
    held = bytearray()
    try:
        async for piece in _received(request.receive):
            for part in codec.feed(piece):
                held += part
                if len(held) >= CHUNK:
                    yield bytes(held)
                    held.clear()
        codec.finish()
    except (Gone, QueryError, GeneratorExit):
        raise
    except Exception as error:
        raise QueryError(f"the body does not decompress: {error}. (CANNOT_DECOMPRESS)", 271) from error
    if held:
        yield bytes(held)


async def _head(data: bytes, whole: bool) -> Head | None | bool:
    """insert_head of a statement's first bytes, apart from the event loop where they are many."""
    import anyio

    first = data[:MAX_SQL_BYTES]
    return await anyio.to_thread.run_sync(insert_head, first, whole) if len(first) > IN_THREAD else insert_head(first, whole)


async def _statement(call: Call, body: AsyncIterator[bytes]) -> tuple[Head | None, bytes]:
    """Complete `call.sql` from the body. For an INSERT with data: its head, and the data read so far."""
    read, seen, more = call.sql.encode(), -1, True
    if read and isinstance(head := await _head(read, whole=True), Head):
        return head, read[head.length :]
    if read:
        read += b"\n"
    while more:
        piece = await anext(body, None)
        more = piece is not None
        read += piece or b""
        if len(read) >= 2 * seen or not more:  # not anew for every piece
            seen = len(read)
            if isinstance(head := await _head(read, whole=not more), Head):
                return head, read[head.length :]
        if len(read) > MAX_SQL_BYTES:
            raise QueryError(f"the statement is longer than {MAX_SQL_BYTES} bytes. (QUERY_IS_TOO_LARGE)", 394)
    try:
        call.sql = read.decode().strip()
    except UnicodeDecodeError as error:
        raise QueryError(f"the statement is not UTF-8: {error}. (SYNTAX_ERROR)", 62) from error
    if not call.sql:
        raise QueryError("Empty query. (SYNTAX_ERROR)", 62)
    return None, b""


async def _form(request: Request, call: Call) -> None:
    """Statement and parameters too long for a URL arrive as form fields."""
    from starlette.formparsers import MultiPartException, MultiPartParser
    from starlette.datastructures import Headers

    async def limited() -> AsyncIterator[bytes]:
        size = 0
        async for piece in _received(request.receive):
            size += len(piece)
            if size > FORM_BYTES:
                raise QueryError(f"the form is longer than {FORM_BYTES} bytes. (QUERY_IS_TOO_LARGE)", 394)
            yield piece

    if request.header("content-encoding"):
        raise QueryError("a form with a Content-Encoding is not carried. (NOT_IMPLEMENTED)", 48)
    headers = Headers({"content-type": request.header("content-type") or ""})
    try:
        form = await MultiPartParser(headers, limited(), max_files=0, max_fields=1000, max_part_size=FORM_BYTES).parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise QueryError("external data is not carried by the embedded endpoint. (NOT_IMPLEMENTED)", 48) from error
        raise QueryError(f"the form cannot be read: {error.message}. (BAD_ARGUMENTS)", 36) from error
    for name, value in form.multi_items():
        if name == "query":
            call.sql = str(value)
        elif name.startswith("param_"):
            call.params[name.removeprefix("param_")] = str(value)


# --- the application ------------------------------------------------------------------------------------------------


class Endpoint:
    """The HTTP application over one engine. loopback: answer only to a Host that names this machine."""

    def __init__(self, engine: Engine, loopback: bool = True):
        import anyio

        self.engine, self.loopback = engine, loopback
        self.lanes = {user: Lane(user, running) for user, running in RUNNING.items()}
        self.threads = anyio.CapacityLimiter(THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[str, str] = {}
        try:
            refuse_foreign(scope, self.loopback)
            if scope["path"] == "/ping" and scope["method"] in ("GET", "HEAD"):
                return await _send(send, b"Ok.\n", self._headers(""))
            request = _request(scope, receive)
            headers = self._headers(request.query.get("query_id", ""))
            if scope["path"] != "/":
                return await _send(send, b"There is nothing at this path\n", headers, 404)
            if request.method not in ("GET", "HEAD", "POST"):
                return await _send(send, b"GET, HEAD and POST are answered\n", headers | {"Allow": "GET, HEAD, POST"}, 405)
            user = user_of(request, self.engine)
        except QueryError as error:
            # Who is not known is not read to the end either.
            return await _send(send, *_refusal(error, (headers or self._headers("")) | {"Connection": "close"}))
        await self._known(request, user, headers, send)

    async def _known(self, request: Request, user: str, headers: dict[str, str], send: Send) -> None:
        sent = _Sent(send)
        try:
            await self._run(request, user, headers, sent)
        except Gone:
            return
        except QueryError as error:
            if sent.begun:
                raise
            closing = {} if await self._left(request) else {"Connection": "close"}
            await _send(sent, *_refusal(error, headers | closing))

    async def _run(self, request: Request, user: str, headers: dict[str, str], send: Send) -> None:
        call = call_of(request, USERS[user] == WRITER)
        body = _body(request)
        if (request.header("content-type") or "").startswith("multipart/"):  # curl calls any body a form
            await _form(request, call)
            body = _nothing()
        head, data = await _statement(call, body)
        place = await self.lanes[user].enter()
        try:
            if head:
                await self._insert(call, head, data, body, headers, send)
            else:
                await self._answer(call, request, headers, send, place)
        finally:
            place.leave()

    async def _thread(self, work: Callable, *given: Any) -> Any:
        import anyio

        return await anyio.to_thread.run_sync(work, *given, limiter=self.threads)

    async def _close(self, work: Callable[[], None]) -> None:
        """Run `work` to its end even where the client has gone and the request is being cancelled."""
        import anyio

        with anyio.CancelScope(shield=True):
            await self._thread(work)

    async def _opened(self, make: Callable[..., Any], *given: Any) -> Any:
        """Make an answer or insert in a thread; one that is made while the request is cancelled is closed."""
        import anyio

        made: list[Any] = []
        try:
            await self._thread(lambda: made.append(make(*given)))
        except anyio.get_cancelled_exc_class():
            for one in made:
                await self._close(one.close)
            raise
        return made[0]

    async def _insert(
        self, call: Call, head: Head, data: bytes, body: AsyncIterator[bytes], headers: dict[str, str], send: Send
    ) -> None:
        while head.format == "Values" and len(data) <= KNOWN_BYTES and (piece := await anext(body, None)):
            data += piece  # whether expressions are worked out depends on all of them
        writer = await self._opened(Insert, self.engine, call, head.sql, head.format, data)
        try:
            if data:
                await self._thread(writer.append, data)
            async for piece in body:
                await self._thread(writer.append, piece)
            written = await self._thread(writer.finish)
        finally:
            await self._close(writer.close)
        await _send(send, b"", headers | {"X-ClickHouse-Summary": json.dumps(written)})

    async def _answer(self, call: Call, request: Request, headers: dict[str, str], send: Send, place: Place) -> None:
        answer = await self._opened(Answer, self.engine, call)
        spool = None
        try:
            headers = headers | {"X-ClickHouse-Format": _plain(answer.format), "X-ClickHouse-Summary": json.dumps(answer.summary)}
            async with _while_there(request):
                if answer.streamed and not call.wait:
                    # The first block has come: errors of parsing and planning already had their status.
                    return await self._stream(answer, headers, send)
                spool = tempfile.SpooledTemporaryFile(max_size=SPOOL, dir=self.engine.spool)
                async for piece in self._pieces(answer):
                    await self._thread(spool.write, piece)
                await self._close(answer.close)
                place.leave()  # what is left is to send a file
                await self._send_file(spool, headers, send)
        finally:
            await self._close(answer.close)
            if spool is not None:
                await self._close(spool.close)

    async def _stream(self, answer: Answer, headers: dict[str, str], send: Send) -> None:
        tag = uuid.uuid4().hex[:16]
        await _start(send, headers | {"X-ClickHouse-Exception-Tag": tag})
        try:
            async for piece in self._pieces(answer):
                await _send_pieces(send, piece)
        except QueryError as error:
            await _send_pieces(send, _late(error, tag))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self, answer: Answer) -> AsyncIterator[bytes]:
        for piece in answer.ready():
            yield piece
        while not answer.ended and (piece := await self._thread(answer.next)) is not None:
            yield piece

    async def _send_file(self, spool: Any, headers: dict[str, str], send: Send) -> None:
        await _start(send, headers | {"Content-Length": str(spool.seek(0, os.SEEK_END))})
        spool.seek(0)
        while piece := await self._thread(spool.read, CHUNK):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _left(self, request: Request) -> bool:
        """Read what a client is still sending, as it is, for it could not read the refusal before; False where it is too much."""
        import anyio

        size = 0
        with anyio.move_on_after(LEFT_S), contextlib.suppress(Gone):
            async for piece in _received(request.receive):
                size += len(piece)
                if size > LEFT_BYTES:
                    return False
            return True
        return False

    def _headers(self, query_id: str) -> dict[str, str]:
        keys = self.engine.current_keys()
        return {
            "Content-Type": "text/plain; charset=UTF-8",
            "X-ClickHouse-Server-Display-Name": "glasshouse",
            "X-ClickHouse-Query-Id": query_id if _QUERY_ID.fullmatch(query_id) else str(uuid.uuid4()),
            "X-ClickHouse-Timezone": self.engine.timezone,
            ID_HEADER: keys.folder,
        }


@contextlib.asynccontextmanager
async def _while_there(request: Request) -> AsyncIterator[None]:
    """What is done here ends where the client goes, as nobody reads its answer."""
    import anyio

    async def until_gone() -> None:
        with contextlib.suppress(Gone):
            async for _ in _received(request.receive):
                pass
            while (await request.receive())["type"] != "http.disconnect":
                pass
        group.cancel_scope.cancel()

    failed = None
    async with anyio.create_task_group() as group:
        group.start_soon(until_gone)
        try:
            yield
        except QueryError as error:  # not as a group of one
            failed = error
        group.cancel_scope.cancel()
    if failed:
        raise failed


class _Sent:
    """`send` that remembers whether an answer has begun."""

    def __init__(self, send: Send):
        self._send, self.begun = send, False

    async def __call__(self, message: dict) -> None:
        self.begun = True
        await self._send(message)


def _refusal(error: QueryError, headers: dict[str, str]) -> tuple[bytes, dict[str, str], int]:
    text = f"{error.message}\n".encode("utf-8", "backslashreplace")
    more = {"X-ClickHouse-Exception-Code": str(error.code)}
    if error.code == 516:
        more["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
    return text, headers | more, STATUS.get(error.code, 500)


def _late(error: QueryError, tag: str) -> bytes:
    """After the status is out: ClickHouse's way to say that the rest is missing."""
    message = error.message.encode("utf-8", "backslashreplace")
    return b"\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n" % (tag.encode(), message, len(message) + 1, tag.encode())


async def _start(send: Send, headers: Mapping[str, str], status: int = 200) -> None:
    raw = [(name.lower().encode("ascii"), _plain(value).encode("ascii")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _send(send: Send, body: bytes, headers: Mapping[str, str], status: int = 200) -> None:
    await _start(send, {**headers, "Content-Length": str(len(body))}, status)
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _send_pieces(send: Send, data: bytes) -> None:
    """Not all at once: the connection would copy what the client does not read yet."""
    view = memoryview(data)
    for at in range(0, len(view), CHUNK):
        await send({"type": "http.response.body", "body": bytes(view[at : at + CHUNK]), "more_body": True})


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def application(engine: Engine, loopback: bool = True) -> Endpoint:
    """The endpoint as an ASGI application. loopback: answer only to a Host that names this machine."""
    return Endpoint(engine, loopback)
