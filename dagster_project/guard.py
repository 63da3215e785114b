"""The guard in front of the web servers on loopback: who may ask, by which address, from which page.

Here: an ASGI application around another one: Host, Origin, fetch metadata, methods, headers of answers. Not here: what is served
(webserver.py for Dagster, dashboards/server.py for the pages), who is logged in (dashboards/entrance.py).

What it stops: a page of any other site that is open in a browser of this machine, and names that are made to point at this machine
(DNS rebinding). What it does not stop: a program of another user of this machine; SECURITY.md.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
ORIGIN = re.compile(r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE"}  # no OPTIONS: there is nothing that another origin may do
FRAMES = "frame-ancestors 'self'"
HEADERS = {
    b"x-frame-options": b"SAMEORIGIN",
    b"x-content-type-options": b"nosniff",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"referrer-policy": b"same-origin",
}

Rule = Callable[[Scope], "tuple[int, str] | None"]


def origin(text: str) -> str:
    """An address under which a reverse proxy shows a server, like https://boards.example.org, in the form that browsers send.

    Raises ValueError for anything but scheme, name and port.
    """
    text = text.strip().lower().rstrip("/")
    if not ORIGIN.fullmatch(text) or (urlsplit(text).port or 1) > 65535:
        raise ValueError(text)
    default = {"https": ":443", "http": ":80"}[text.partition(":")[0]]
    return text.removesuffix(default)


def headers(scope: Scope, name: bytes) -> list[bytes]:
    """Every value of a header, as received."""
    return [value for key, value in scope["headers"] if key.lower() == name]


class Guard:
    """Hand on only what the server's own pages, a person who follows a link, or a local program asks.

    origins: addresses of reverse proxies (`origin`), besides loopback with the server's own port. rule: what else is refused, as
    (status, words). csp: of every answer, besides `frame-ancestors`. paths: the csp of paths that begin so.
    """

    def __init__(
        self, app: App, origins: Iterable[str] = (), rule: Rule | None = None, csp: str = "", paths: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.app, self.rule, self.csp, self.paths = app, rule, csp, paths or {}
        self.public = {urlsplit(one).netloc.encode(): one.encode() for one in map(origin, origins)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        if refused := self._refusal(scope):
            return await _refuse(scope, send, *refused)
        await self.app(scope, receive, self._sender(scope, send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        own = self._own_origin(scope)
        if own is None:
            return 421, (
                "This server answers at its own address only (http://127.0.0.1:PORT, http://localhost:PORT). Behind a reverse proxy "
                "or another port, name the address people use in GLASSHOUSE_ORIGINS."
            )
        if not scope["path"].startswith("/"):
            return 400, "The path of a request begins with a slash."
        socket = scope["type"] == "websocket"
        if not socket and scope["method"] not in METHODS:
            return 405, "This method is not known here."
        origins = headers(scope, b"origin")
        if (origins and origins != [own]) or (socket and not origins):
            return 403, "Pages of other origins may not ask this server."
        if not _same_site(scope):
            return 403, "Pages of other sites may not ask this server; open its address by itself."
        return None if socket or self.rule is None else self.rule(scope)

    def _own_origin(self, scope: Scope) -> bytes | None:
        """The origin of the one Host that was sent, if it is one of ours; compared byte by byte, never parsed."""
        sent = headers(scope, b"host")
        if len(sent) != 1:
            return None
        host = sent[0].lower()
        if host in self.public:
            return self.public[host]
        port = (scope.get("server") or (None, None))[1]
        known = {f"{name}:{port}".encode() for name in LOOPBACK} | ({name.encode() for name in LOOPBACK} if port == 80 else set())
        return b"http://" + host if host in known else None

    def _sender(self, scope: Scope, send: Send) -> Send:
        csp = next((csp for path, csp in self.paths.items() if scope["path"].startswith(path)), self.csp)
        policy = "; ".join(part for part in (csp, FRAMES) if part).encode()

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [
                    (key, value) for key, value in message.get("headers", ())
                    if key.lower() not in HEADERS and not key.lower().startswith(b"access-control-")
                ]  # fmt: skip
                # A second policy takes nothing from the first: browsers hold a page to both.
                message = {**message, "headers": [*kept, *HEADERS.items(), (b"content-security-policy", policy)]}
            await send(message)

        return guarded


def _same_site(scope: Scope) -> bool:
    """Whether a browser says that the request is our own page's, or a person's who opened or followed an address.

    Fetch metadata is sent by every browser since 2023; programs send none.
    """
    site = headers(scope, b"sec-fetch-site")
    if not site or site in ([b"same-origin"], [b"none"]):
        return True
    opened = headers(scope, b"sec-fetch-mode") == [b"navigate"] and headers(scope, b"sec-fetch-dest") == [b"document"]
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and opened


async def _refuse(scope: Scope, send: Send, status: int, words: str) -> None:
    if scope["type"] == "websocket":
        # Before it is accepted: the server answers 403.
        return await send({"type": "websocket.close", "code": 1008, "reason": words})
    body = f"{words}\n".encode()
    sent = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *HEADERS.items()]
    await send({"type": "http.response.start", "status": status, "headers": [*sent, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
