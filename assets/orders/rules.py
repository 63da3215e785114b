"""The rules of orders as data, read from a TOML file.

Here: which keys there are and what they may hold. Not here: reading a file and its errors (rules_file.py), how they are applied
(credit.py).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import zoneinfo
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from assets.rules_file import RulesError, Schema, at, read

# What a rules file may choose from: what a reader does of his own will, and in favour of the note.
PLANTING = ("click", "like", "fav", "comment", "share", "follow", "profile_enter")
SHIPPED = Path(__file__).parent / "rules.toml"


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
    sections = read(text, name, _SCHEMA)
    found = {key: value for section in sections.values() for key, value in section.items()}
    if odd := sorted(set(found["full_statuses"]) - set(found["statuses"])):
        where = at(name, text, "refunds", "full_statuses")
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


def _that(fits: Callable[[object], bool]) -> Callable[[object], object]:
    """A parser of what fits, lists as tuples."""

    def parse(value: object) -> object:
        if not fits(value):
            raise ValueError(value)
        return tuple(value) if isinstance(value, list) else value

    return parse


_SCHEMA: Schema = {
    "stream": {
        "table": (_that(_text), "the name of the shop's table"),
        "time_zone": (_that(_zone), 'a time zone like "UTC" or "Asia/Shanghai"'),
    },
    "attribution": {
        "window_days": (_that(_days), "a number of days above 0, 366 at most"),
        "actions": (_that(_actions), f"a list of one or more of: {', '.join(PLANTING)}"),
    },
    "revenue": {"statuses": (_that(lambda value: _texts(value) and bool(value)), "a list of one or more statuses, each once")},
    "refunds": {
        "full_statuses": (_that(_texts), "a list of statuses, each once; it may be empty"),
        "partial": (_that(lambda value: isinstance(value, bool)), "true or false"),
    },
}
