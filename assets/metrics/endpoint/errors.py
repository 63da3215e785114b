"""What the endpoint's parts raise.

Here: the exceptions. Not here: how they are answered (http.py).
"""

from __future__ import annotations

import re

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
