"""The labeler's rules as data: what decides a label, read from a TOML file (rules.toml beside this one is the default).

Here: which keys there are, what they may hold, what contradicts what. Not here: reading a file and its
errors (rules_file.py), how the rules are applied (fold.py), which hours were labeled by which (provenance.py), where a person sets them (settings.py).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from assets.rules_file import RulesError, Schema, at, read

SHIPPED = Path(__file__).parent / "rules.toml"
# The label columns, which are fixed, and at the same time the actions that can make one. In the order of the kernel's bits.
LABELS = ("like", "fav", "comment", "share", "follow", "hide", "profile_enter")
UNDOABLE = ("like", "fav", "follow")
# What no label can be made of, and why.
_IMPOSSIBLE = {
    "impression": "opens a display window", "click": "opens a click window", "view_end": "only measures dwell",
    "unlike": "undoes like", "unfav": "undoes fav", "unfollow": "undoes follow",
}  # fmt: skip
_UNITS = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600}
NO_TIME = dt.timedelta(0)
LONGEST = dt.timedelta(days=30)  # of any span in the rules: a window of years would hold every session open


def parse_duration(text: str) -> dt.timedelta:
    """`20m`, `90s`, `1h`, `500ms` as a timedelta of 1 µs to LONGEST. Raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h)", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0
    if not 1e-6 <= seconds <= LONGEST.total_seconds():
        raise ValueError(f"not a duration: {text!r}; write a positive number with ms, s, m or h, like 20m, and at most {LONGEST.days} days")
    return dt.timedelta(seconds=seconds)


@dataclass(frozen=True)
class Rules:
    """window: length W of a session. delay: how far the watermark lies behind what has been received. idle_after: how long
    nothing arrives before it follows the clock, None for never.

    long_view: dwell from which a view counts as long. horizon: how long after its display's start a click may be
    attributed, None for window. valid_click_dwell: below it a click window is no click. *_stay: an action undone within it
    does not count; zero: the state at the close. labels: per label (in the order of LABELS) the actions that make it.
    version: a name for people. Raises RulesError where they contradict each other.
    """

    window: dt.timedelta = dt.timedelta(minutes=20)
    delay: dt.timedelta = dt.timedelta(minutes=2)
    long_view: dt.timedelta = dt.timedelta(seconds=10)
    horizon: dt.timedelta | None = None
    valid_click_dwell: dt.timedelta = NO_TIME
    like_stay: dt.timedelta = NO_TIME
    fav_stay: dt.timedelta = NO_TIME
    follow_stay: dt.timedelta = NO_TIME
    labels: tuple[tuple[str, ...], ...] = tuple((label,) for label in LABELS)
    version: str = "default"
    idle_after: dt.timedelta | None = None

    def __post_init__(self) -> None:
        if self.horizon is not None and not NO_TIME < self.horizon <= self.window:
            raise RulesError(
                f"sessions.horizon = {_text(self.horizon)} is not between 0 and sessions.window ({_text(self.window)}): a "
                "click later than that has no open display to be attributed to"
            )

    @property
    def fingerprint(self) -> str:
        """12 hex digits of what the rules say; their name, comments and the order of lists do not count."""
        plain = {one.name: _plain(getattr(self, one.name)) for one in fields(self) if one.name != "version"}
        plain["horizon"] = _plain(self.horizon or self.window)
        if self.idle_after is None:
            del plain["idle_after"]  # rules from before there was it keep their fingerprint
        plain["labels"] = [sorted(actions) for actions in self.labels]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def stays(self) -> tuple[dt.timedelta, ...]:
        """In the order of UNDOABLE."""
        return (self.like_stay, self.fav_stay, self.follow_stay)

    def to_toml(self) -> str:
        """The rules as a file that parse_rules reads back."""
        horizon = [f"horizon = {json.dumps(_text(self.horizon))}"] if self.horizon is not None else []
        idle = [f"idle_after = {json.dumps(_text(self.idle_after))}"] if self.idle_after is not None else []
        lines = [
            f"version = {json.dumps(self.version)}", "", "[sessions]", f'window = "{_text(self.window)}"', *horizon,
            f'valid_click_dwell = "{_text(self.valid_click_dwell)}"', "", "[watermark]", f'delay = "{_text(self.delay)}"',
            *idle, "", "[views]", f'long_view = "{_text(self.long_view)}"', "", "[stay]",
            *(f'{name} = "{_text(stay)}"' for name, stay in zip(UNDOABLE, self.stays, strict=True)), "", "[labels]",
            *(f"{label} = {json.dumps(list(actions))}" for label, actions in zip(LABELS, self.labels, strict=True)), "",
        ]  # fmt: skip
        return "\n".join(lines)


def load_rules(path: Path = SHIPPED) -> Rules:
    """Read a rules file. Raises RulesError for one that is wrong, FileNotFoundError for none."""
    return parse_rules(Path(path).read_text(), str(path))


def parse_rules(text: str, name: str) -> Rules:
    """The rules of a text. name: how errors call it. Raises RulesError."""
    found = read(text, name, _SCHEMA, texts=("version",), optional={("sessions", "horizon"), ("watermark", "idle_after")},
                 why={"labels": "a label is a column of the tables"})  # fmt: skip
    sessions, stay = found["sessions"], found["stay"]
    try:
        return Rules(
            window=sessions["window"], horizon=sessions.get("horizon"), valid_click_dwell=sessions["valid_click_dwell"],
            delay=found["watermark"]["delay"], idle_after=found["watermark"].get("idle_after"), long_view=found["views"]["long_view"],
            **{f"{one}_stay": stay[one] for one in UNDOABLE},
            labels=tuple(found["labels"][label] for label in LABELS), version=found[""]["version"],
        )  # fmt: skip
    except RulesError as error:
        raise RulesError(f"{at(name, text, 'sessions', 'horizon')}: {error}") from None


def _or_zero(value: str) -> dt.timedelta:
    if re.fullmatch(r"0+(?:\.0+)?(ms|s|m|h)", value.strip()):
        return NO_TIME
    return parse_duration(value)


def _actions(value: object) -> tuple[str, ...]:
    for action in value if isinstance(value, list) else ():
        if action in _IMPOSSIBLE:
            raise RulesError(f"{action} cannot make a label, it {_IMPOSSIBLE[action]}; allowed: {', '.join(LABELS)}")
    if not isinstance(value, list) or not value or len(set(value)) < len(value) or not set(value) <= set(LABELS):
        raise ValueError(value)
    return tuple(value)


_SPAN = (parse_duration, 'a duration above zero like "20m"')
_SPAN_OR_ZERO = (_or_zero, 'a duration like "5s", or "0s"')
_SCHEMA: Schema = {
    "sessions": {"window": _SPAN, "horizon": _SPAN, "valid_click_dwell": _SPAN_OR_ZERO},
    "watermark": {"delay": _SPAN, "idle_after": _SPAN},
    "views": {"long_view": _SPAN},
    "stay": dict.fromkeys(UNDOABLE, _SPAN_OR_ZERO),
    "labels": dict.fromkeys(LABELS, (_actions, f"a list of one or more of: {', '.join(LABELS)}, each once")),
}


def changes(one: Rules, other: Rules) -> dict[str, tuple[str, str]]:
    """What differs between two sets of rules: key -> (one's value, the other's), as texts."""
    ours, theirs = ({**asdict(rules), "horizon": rules.horizon or rules.window} for rules in (one, other))
    return {
        name: (_shown(ours[name]), _shown(theirs[name])) for name in ours if name != "version" and ours[name] != theirs[name]
    }  # fmt: skip


def _shown(value: object) -> str:
    if value is None:
        return "never"
    if isinstance(value, dt.timedelta):
        return _text(value)
    return "; ".join(f"{label}: {', '.join(actions)}" for label, actions in zip(LABELS, value, strict=True))


def _text(span: dt.timedelta) -> str:
    """A span as parse_duration reads it."""
    us = span // dt.timedelta(microseconds=1)
    for unit, size in (("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000)):
        if us % size == 0 and us:
            return f"{us // size}{unit}"
    return f"{us / 1000:.3f}".rstrip("0").rstrip(".") + "ms" if us else "0s"


def _plain(value: object) -> object:
    return value // dt.timedelta(microseconds=1) if isinstance(value, dt.timedelta) else value
