"""The rules of orders as data, read from a TOML file.

Here: which keys there are, what they may hold, and errors that name key and line. Not here: how they are applied
(credit.py).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import tomllib
import zoneinfo
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

# What a rules file may choose from: what a reader does of his own will, and in favour of the note.
PLANTING = ("click", "like", "fav", "comment", "share", "follow", "profile_enter")
SHIPPED = Path(__file__).parent / "rules.toml"


class RulesError(Exception):
    """A rules file that cannot be used; the message names the file, the line, the key and what is allowed."""


@dataclass(frozen=True)
class OrderRules:
    """table: the shop's. time_zone: of times without one. window_days, actions: which clicks may have led to an order.

    statuses: in which an order is revenue. full_statuses: in which all of it was given back. partial: whether
    refunded_cents of the others counts.
    """

    table: str
    time_zone: str
    window_days: float
    actions: tuple[str, ...]
    statuses: tuple[str, ...]
    full_statuses: tuple[str, ...]
    partial: bool

    @property
    def window(self) -> dt.timedelta:
        return dt.timedelta(days=self.window_days)

    @property
    def fingerprint(self) -> str:
        """12 hex digits of what the rules say: comments and the order of lists do not count."""
        plain = {key: sorted(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def load_rules(path: Path = SHIPPED) -> OrderRules:
    """Read a rules file. Raises RulesError for one that is wrong, FileNotFoundError for none."""
    return parse_rules(Path(path).read_text(), str(path))


def parse_rules(text: str, name: str) -> OrderRules:
    """The rules of a text. name: how errors call it. Raises RulesError."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"{name}: not TOML: {error}") from error
    for section, values in given.items():
        if section not in _SCHEMA:
            raise RulesError(f"{_at(name, text, section)}: unknown [{section}]; allowed: {', '.join(_SCHEMA)}")
        if not isinstance(values, dict):
            raise RulesError(f"{_at(name, text, section)}: {section} is a table: write [{section}]")
        for key in values:
            if key not in _SCHEMA[section]:
                known = ", ".join(_SCHEMA[section])
                raise RulesError(f"{_at(name, text, section, key)}: unknown key {section}.{key}; allowed: {known}")
    found = {}
    for section, keys in _SCHEMA.items():
        for key, (fits, what) in keys.items():
            if key not in given.get(section, {}):
                raise RulesError(f"{_at(name, text, section)}: {section}.{key} is missing; it is {what}")
            value = given[section][key]
            if not fits(value):
                raise RulesError(f"{_at(name, text, section, key)}: {section}.{key} = {value!r} is not {what}")
            found[key] = tuple(value) if isinstance(value, list) else value
    if odd := sorted(set(found["full_statuses"]) - set(found["statuses"])):
        where = _at(name, text, "refunds", "full_statuses")
        raise RulesError(
            f"{where}: refunds.full_statuses names {odd[0]!r}, which revenue.statuses does not: a refund of what never "
            "counted would be subtracted; add it there, or take it out here"
        )
    return OrderRules(**found)


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_text, value)) and len(set(value)) == len(value)


def _zone(value: object) -> bool:
    try:
        return _text(value) and bool(zoneinfo.ZoneInfo(value))
    except (ValueError, zoneinfo.ZoneInfoNotFoundError):
        return False


def _days(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 366


def _actions(value: object) -> bool:
    return _texts(value) and bool(value) and set(value) <= set(PLANTING)


_SCHEMA: dict[str, dict[str, tuple[Callable[[object], bool], str]]] = {
    "stream": {
        "table": (_text, "the name of the shop's table"),
        "time_zone": (_zone, 'a time zone like "UTC" or "Asia/Shanghai"'),
    },
    "attribution": {
        "window_days": (_days, "a number of days above 0, 366 at most"),
        "actions": (_actions, f"a list of one or more of: {', '.join(PLANTING)}"),
    },
    "revenue": {"statuses": (lambda value: _texts(value) and bool(value), "a list of one or more statuses, each once")},
    "refunds": {
        "full_statuses": (_texts, "a list of statuses, each once; it may be empty"),
        "partial": (lambda value: isinstance(value, bool), "true or false"),
    },
}


def _at(name: str, text: str, section: str, key: str | None = None) -> str:
    """`file:line` of a key, else of its section, else of the file."""
    inside, found = False, None
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[+\s*([^\]\s]+)\s*\]", line)
        if head or number == 1:
            inside = bool(head) and head[1] == section
            found = number if inside else found
        if key and inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return f"{name}:{number}"
        if key is None and re.match(rf"\s*[\"']?{re.escape(section)}[\"']?\s*=", line):
            found = found or number
    return f"{name}:{found}" if found else name
