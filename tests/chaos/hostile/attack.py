"""The list of attacks, and how one is run and judged.

Here: the decorator, the runner of one tree, a row of the report. Not here: the attacks.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.hostile.house import House, Tree

HELD, FAULT, SKIPPED = "held", "fault", "skipped"
SAME, ALIVE, GONE = "same", "alive", "gone"
ATTACKS: list[Attack] = []


class Skip(Exception):
    """The attack cannot be made here; the text says why."""


@dataclass(frozen=True)
class Attack:
    """run: called with the house, returns None where it held, else what was seen. fresh: wants a home without a past.

    after: what is to be found afterwards: the SAME processes, all services ALIVE (it ends some itself), or it is GONE. spoils:
    where it is a fault, what it left in the home would trip the next attack, too.
    """

    name: str
    kind: str
    run: Callable[[House], str | None]
    verb: tuple[str, ...]
    fresh: bool
    after: str
    spoils: bool
    settings: dict[str, str]


@dataclass(frozen=True)
class Result:
    """result: held, fault or skipped. seen: what was seen, or why it was skipped."""

    result: str
    seen: str
    seconds: float


def attack(
    kind: str, verb: str = "up", fresh: bool = False, after: str = SAME, spoils: bool = False, **settings: str
):
    """Add a function to the list. verb: what of `glasshouse` it attacks, "" for nothing started; settings: GLASSHOUSE_* that it wants."""

    def add(run: Callable[[House], str | None]):
        named = {f"GLASSHOUSE_{name}": value for name, value in settings.items()}
        ATTACKS.append(Attack(run.__name__.strip("_"), kind, run, tuple(verb.split()), fresh, after, spoils, named))
        return run

    return add


class Keeper(AbstractContextManager):
    """Keeps one house for attacks that want the same one, and builds another where one was spoilt."""

    def __init__(self, tree: Tree):
        self.tree, self.house, self.wanted = tree, None, None
        self._folder = tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True)

    def house_for(self, one: Attack) -> House:
        wanted = (one.verb, tuple(sorted(one.settings.items())))
        if self.house is not None and (one.fresh or wanted != self.wanted or self.house.missing()):
            self.drop()
        if self.house is None:
            folder = Path(tempfile.mkdtemp(dir=self._folder.name))
            self.house, self.wanted = House(self.tree, folder, one.verb, one.settings), wanted
            self.house.start()
        return self.house

    def drop(self) -> None:
        if self.house is not None:
            self.house.end()  # nothing in it is worth a graceful end
            self.house.remove()
            self.house = None

    def __exit__(self, *_) -> None:
        self.drop()
        self._folder.cleanup()


def run(tree: Tree, attacks: Iterable[Attack], say: Callable[[str], None] = print) -> dict[str, Result]:
    """Run the attacks in order on a tree; results by name."""
    found: dict[str, Result] = {}
    with Keeper(tree) as keeper:
        for one in attacks:
            begun = time.monotonic()
            result, seen = _one(keeper, one)
            found[one.name] = Result(result, seen, round(time.monotonic() - begun, 1))
            say(f"{tree.name:5}  {one.kind:9} {one.name:45} {result:7} {found[one.name].seconds:5.1f} s  {seen[:150]}")
    return found


def _one(keeper: Keeper, one: Attack) -> tuple[str, str]:
    try:
        house = keeper.house_for(one)
        before = house.pids()
        seen = one.run(house) or _afterwards(house, one, before)
    except Skip as why:
        return SKIPPED, str(why)
    except Exception as error:  # of the attack's own; as bad as a fault, and told apart by its words
        keeper.drop()
        return FAULT, f"the attack broke: {type(error).__name__}: {error} ({traceback.format_exc().splitlines()[-3].strip()})"
    if one.fresh or one.after == GONE or (seen and (one.spoils or _afterwards(house, one, before))):
        keeper.drop()
    return (FAULT, " ".join(seen.split())) if seen else (HELD, "")


def _afterwards(house: House, one: Attack, before: dict[str, int]) -> str | None:
    """What the attack left broken, though it had no effect of its own."""
    if house.ended_by_watchdog:
        return "took more memory than the watchdog allows"
    if one.after == GONE:
        return None
    if missing := house.missing():
        return f"afterwards {', '.join(missing)} does not answer"
    if one.after == ALIVE:
        return None
    ended = [role for role, pid in before.items() if house.pids().get(role) != pid]
    return f"ended: {', '.join(ended)} (and was started again)" if ended else None
