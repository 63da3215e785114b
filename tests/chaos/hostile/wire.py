"""HTTP by hand: bytes that no well-behaved client sends, and what came back.

Here: sockets. Not here: what is sent (the attacks).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlencode

MOST_BYTES = 4 << 20  # of an answer that is kept


@dataclass(frozen=True)
class Reply:
    """status 0: nothing came, or no HTTP. ended: the other side closed, or sent all it had announced."""

    status: int
    body: bytes
    head: bytes = b""
    ended: bool = True
    seconds: float = 0.0

    @property
    def said(self) -> str:
        return f"{self.status} {self.body[:160].decode(errors='replace')!r}"


def query(**options: str) -> str:
    return "?" + urlencode(options, quote_via=quote) if options else ""


def request(method: str, target: str | bytes, headers: dict[str, str] | list[tuple[str, str]], body: bytes = b"") -> bytes:
    """A request's bytes; headers as a list may repeat a name. Only what is given is sent."""
    target = target.encode("latin-1") if isinstance(target, str) else target
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    head = b"%s %s HTTP/1.1\r\n" % (method.encode(), target)
    head += b"".join(b"%s: %s\r\n" % (name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs)
    return head + b"\r\n" + body


def send(port: int, data: bytes, timeout_s: float = 10) -> Reply:
    """Send bytes on a new connection and read until the answer ends or the time is up. Never raises for what the other side does."""
    begun = time.monotonic()
    held, ended = bytearray(), False
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as sock:
            with contextlib.suppress(ConnectionError, TimeoutError):
                sock.sendall(data)
            while len(held) < MOST_BYTES:
                left = timeout_s - (time.monotonic() - begun)
                if left <= 0:
                    break
                sock.settimeout(left)
                piece = sock.recv(1 << 16)
                if not piece:
                    ended = True
                    break
                held += piece
                if _whole(held):
                    ended = True
                    break
    except (ConnectionError, TimeoutError, OSError):
        ended = bool(held)
    return _parsed(bytes(held), ended, time.monotonic() - begun)


def _whole(held: bytearray) -> bool:
    head, found, body = bytes(held).partition(b"\r\n\r\n")
    if not found:
        return False
    head = head.lower()
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    _, found, rest = head.partition(b"content-length:")
    return bool(found) and len(body) >= int(rest.split(b"\r\n")[0])


def _parsed(held: bytes, ended: bool, seconds: float) -> Reply:
    head, _, body = held.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if head.startswith(b"HTTP/") and len(words) > 1 and words[1][:3].isdigit() else 0
    if b"transfer-encoding: chunked" in head.lower():
        body = _unchunked(body)
    return Reply(status, body, head, ended, seconds)


def _unchunked(body: bytes) -> bytes:
    out = bytearray()
    while body:
        size, _, rest = body.partition(b"\r\n")
        try:
            length = int(size, 16)
        except ValueError:
            break
        if not length:
            break
        out += rest[:length]
        body = rest[length + 2 :]
    return bytes(out)


def get(port: int, target: str, headers: dict[str, str] | None = None, timeout_s: float = 10) -> Reply:
    return send(port, request("GET", target, {"Host": f"127.0.0.1:{port}", "Connection": "close"} | (headers or {})), timeout_s)


def post(port: int, target: str, body: bytes, headers: dict[str, str] | None = None, timeout_s: float = 10) -> Reply:
    head = {"Host": f"127.0.0.1:{port}", "Connection": "close", "Content-Length": str(len(body))} | (headers or {})
    return send(port, request("POST", target, head, body), timeout_s)


@contextlib.contextmanager
def held_open(port: int, count: int, data: bytes = b"", receive: int | None = None) -> Iterator[list[socket.socket]]:
    """So many connections that have sent `data` and read nothing. receive: bytes of each one's receive buffer."""
    found: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket()
            if receive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
            sock.settimeout(5)
            found.append(sock)
            with contextlib.suppress(OSError):
                sock.connect(("127.0.0.1", port))
                sock.sendall(data)
        yield found
    finally:
        for sock in found:
            sock.close()


class Listener:
    """A server of ours on loopback that counts what reaches it: an attacker's. Serves pages by path too."""

    def __init__(self):
        self.hits: list[str] = []
        self.pages: dict[str, str] = {}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._answer()

            def do_POST(self):
                length = int(self.headers.get("Content-Length") or 0)
                self._answer(self.rfile.read(length))

            do_PUT = do_HEAD = do_POST

            def _answer(self, body: bytes = b""):
                path = self.path.split("?")[0]
                page = owner.pages.get(path)
                if page is None and path != "/favicon.ico":
                    owner.hits.append(f"{self.command} {self.path} {body[:80]!r}")
                data = (page or "1\n").encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html" if page else "text/plain")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()
