"""What each metric and column means, from sql/definitions.toml: the words that the pages and the SQL jobs share.

Here: reading that file. Not here: the words themselves, who shows them.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "sql" / "definitions.toml"


class DefinitionError(Exception):
    """An entry that is no definition; the message names it."""


@dataclass(frozen=True)
class Definition:
    """text: one or two sentences. sql: the expression by store (clickhouse, spark), where one line says it."""

    text: str
    sql: dict[str, str] = field(default_factory=dict)


@cache
def load(path: Path = FILE) -> dict[str, Definition]:
    """Every definition by name. Raises DefinitionError for a file that is no TOML, an entry without a text or with an unknown store."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DefinitionError(f"{path} cannot be read: {error}") from error
    return {name: _definition(name, entry) for name, entry in found.items()}


def texts() -> dict[str, str]:
    return {name: found.text for name, found in load().items()}


def _definition(name: str, entry) -> Definition:
    if isinstance(entry, str):
        entry = {"text": entry}
    if not isinstance(entry, dict):
        raise DefinitionError(f"`{name}` in definitions.toml is a text or a table, not {entry!r}")
    stores = {key: value for key, value in entry.items() if key != "text"}
    if not entry.get("text") or set(stores) - {"clickhouse", "spark"}:
        raise DefinitionError(f"`{name}` in definitions.toml needs a text, and beside it only clickhouse and spark")
    return Definition(entry["text"], stores)
