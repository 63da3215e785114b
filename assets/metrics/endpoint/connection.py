"""A connection to the endpoint: how long it may keep others waiting, and how many there may be.

Here: limits on what a client sends and reads, in time and bytes. Not here: requests (http.py), places at the engine (lanes.py).
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTIONS = 256
HEAD_BYTES = 2 << 20
HEAD_S = 15.0  # from the first byte (or the connection) to the end of a request's headers
BODY_IDLE_S = 60.0  # no byte of a body came, though it was waited for
UNREAD_S = 20.0  # no byte of an answer was taken
LOOK_S = 1.0


class Connection(HttpToolsProtocol):
    """uvicorn's connection with limits; one that is over them is closed at once, which ends its request."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.since = self.moved = self.taken_at = self.loop.time()
        self.head_bytes, self.in_head, self.unread = 0, True, 0
        if len(self.connections) > CONNECTIONS:
            idle = [one for one in self.connections if not one.busy()]
            min(idle or [self], key=lambda one: one.since).transport.abort()
        self.loop.call_later(LOOK_S, self.look)

    def busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        self.moved = self.loop.time()
        if self.in_head:
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES:
                self.send_400_response(f"the request's head is longer than {HEAD_BYTES} bytes")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.in_head, self.head_bytes, self.since = True, 0, self.loop.time()

    def on_headers_complete(self) -> None:
        self.in_head = False
        # An absolute target names a host of its own, beside the Host header.
        self.scope["origin_form"] = self.url.startswith(b"/")
        super().on_headers_complete()

    def look(self) -> None:
        """Close the connection if its client keeps it waiting for too long."""
        if self.transport.is_closing() and not self.transport.get_write_buffer_size():
            return
        now, size = self.loop.time(), self.transport.get_write_buffer_size()
        if size != self.unread or not size:
            self.unread, self.taken_at = size, now
        if not self.busy() or self.flow.read_paused or not self.cycle.more_body:
            self.moved = now
        late = not self.busy() and self.in_head and now - self.since > HEAD_S
        if late or now - self.moved > BODY_IDLE_S or now - self.taken_at > UNREAD_S:
            self.transport.abort()
            return
        self.loop.call_later(LOOK_S, self.look)

    def on_response_complete(self) -> None:
        # Before the next request's first byte, uvicorn's own limit for idle connections holds.
        self.in_head = False
        super().on_response_complete()
