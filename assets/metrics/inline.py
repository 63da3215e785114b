"""A query's text as it is sent: its views with parameters written out, its comments left out.

Here: the text. Not here: the views (sql/clickhouse/tables/), their parameters' values (ranges.py). The answer is the same either way; but ClickHouse
takes a tenth longer to plan a question that names such a view, and the client reads every character of a query before it sends it (docs/metrics.md).
"""

from __future__ import annotations

import re
from functools import cache

from assets.metrics import schema

VIEWS = ("feed_in", "users_in")
_CALL = re.compile(rf"\b({'|'.join(VIEWS)})\(")
_ARGUMENT = re.compile(r"\s*(\w+)\s*=\s*(.+?)\s*", re.DOTALL)


@cache
def inlined(text: str) -> str:
    """A query with each `VIEW(name = value, ...)` of VIEWS replaced by what the view selects. Raises ValueError for one that cannot be read."""
    text = "\n".join(line.strip() for line in text.splitlines() if not line.lstrip().startswith("--"))
    out, at = [], 0
    while call := _CALL.search(text, at):
        given, end = _arguments(text, call.end())
        out += [text[at : call.start()], _body(call[1], given)]
        at = end
    return "".join([*out, text[at:]])


def _arguments(text: str, start: int) -> tuple[dict[str, str], int]:
    """Names and values of a call whose bracket opened before `start`, and where it has closed."""
    depth, at, parts = 1, start, [start]
    while depth and at < len(text):
        depth += {"(": 1, ")": -1, "[": 1, "]": -1, "{": 1, "}": -1}.get(text[at], 0)
        if depth == 0 or (depth == 1 and text[at] == ","):
            parts.append(at + 1)
        at += 1
    found = [_ARGUMENT.fullmatch(text[first : last - 1]) for first, last in zip(parts, parts[1:], strict=False)]
    if depth or not all(found):
        raise ValueError(f"a view's parameters are not NAME = VALUE, ...: {text[start : start + 80]!r}")
    return {one[1]: one[2] for one in found}, at


def _body(view: str, given: dict[str, str]) -> str:
    def value(parameter: re.Match) -> str:
        if parameter[1] not in given:
            raise ValueError(f"{view} is not given its parameter {parameter[1]}")
        return given[parameter[1]]

    return "(" + re.sub(r"\{(\w+):[^}]+\}", value, _views()[view]) + ")"


@cache
def _views() -> dict[str, str]:
    """What each view selects, as the newest file that makes it says."""
    made = re.compile(r"CREATE (?:OR REPLACE )?VIEW (?:IF NOT EXISTS )?(\w+) AS\s+(.+)", re.DOTALL)
    files = (path.read_text() for path in sorted(schema.FOLDER.glob("*.sql")))
    found = [made.fullmatch(statement) for text in files for statement in schema.statements(text)]
    return {one[1]: re.sub(r"\s+", " ", one[2]) for one in found if one and one[1] in VIEWS}
