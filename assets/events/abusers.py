"""Planted abusers: what click farms, scripts and repeaters do, which phones they do it from, and who looks like them.

Here: who they are and what they do in a slot of time, in the generator's integer columns. Not here: how readers behave,
networks and files (generator.py); how abusers are found (sql/lake/spam_accounts.sql, which sees events alone).

Everything is drawn from streams of its own: the readers' traffic stays the same, row by row, whether any are planted.
An abuser is a reader too: the account's own reading goes on. Each has its own effort, so that some are hard to tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from assets.events.contract import ACTIONS

SECOND = 1_000_000  # all times here are integer microseconds
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
CODE = {name: code for code, name in enumerate(ACTIONS)}
HOMEFEED, SEARCH, FOLLOW = 0, 1, 2  # places in the generator's CHANNELS

# Abusers by kind, and honest accounts that look like them, per abuser.
KINDS = {"click_farm": 0.5, "rate": 0.25, "repeater": 0.25}
LOOKALIKES = {"binge": 1 / 6, "fan": 1 / 6}
FARM = 8  # accounts, about
IN_FAMILY = 0.10  # share of readers who share a device with one to three others
SECOND_DEVICE = 0.30  # share of readers who have one, and of requests that come from it
FROM_SECOND = 0.30


class Planted:
    """Who does it, and everyone's devices.

    kind, lookalike: user index -> kind. device_id: text of each device. devices: int [users, 2], a user's first and
    second device (the same one twice, if it is the only one).
    """

    def __init__(self, seed: int, users: int, author_id: np.ndarray, count: int) -> None:
        rng = np.random.default_rng([seed, 0, 1])
        kinds = [kind for kind, share in KINDS.items() for _ in range(round(count * share))]
        kinds = (kinds + ["rate"] * count)[:count]
        alike = [kind for kind, share in LOOKALIKES.items() for _ in range(round(count * share))]
        picked = rng.permutation(users)[: len(kinds) + len(alike)].tolist()
        self.kind = dict(zip(picked[:count], kinds, strict=True))
        self.lookalike = dict(zip(picked[count:], alike, strict=True))
        notes = _by_author(author_id)
        self.accounts = [
            _PLANS[kind](rng, user, notes) for user, kind in (self.kind | self.lookalike).items() if kind in _PLANS
        ]
        self.farms = _farms(rng, [user for user, kind in self.kind.items() if kind == "click_farm"], notes)
        self.devices, self.device_id = _devices(np.random.default_rng([seed, 0, 2]), users, self.farms)

    def device_of(self, rng: np.random.Generator, users: np.ndarray, requests: np.ndarray) -> np.ndarray:
        """The device of each row: one for all rows of a request."""
        second = rng.random(int(requests.max(initial=-1)) + 1) < FROM_SECOND
        return self.devices[users, second[requests].astype(np.int8)].astype(np.int32)

    def draw(self, world, rng: np.random.Generator, begin: int, end: int) -> Script:
        """What the planted accounts begin in [begin, end); it may go on after it."""
        script = Script(world, rng, begin)
        hours = (end - begin) / HOUR
        for actor in (*self.farms, *self.accounts):
            for _ in range(rng.poisson(actor.bouts_an_hour * hours)):
                actor.act(script, int(rng.integers(begin, end)))
        return script

    def truth(self, user_id: np.ndarray, chosen: dict[int, str]) -> pl.DataFrame:
        """user_id, kind; sorted by user."""
        users = sorted(chosen)
        ids = pl.Series("user_id", user_id[users], pl.Int64)
        return pl.DataFrame([ids, pl.Series("kind", [chosen[user] for user in users], pl.String)])


def _by_author(author_id: np.ndarray) -> list[np.ndarray]:
    """The notes (indices) of each author who has at least four."""
    order = np.argsort(author_id, kind="stable")
    _, first = np.unique(author_id[order], return_index=True)
    return [notes for notes in np.split(order, first[1:]) if len(notes) >= 4] or [order]


def _devices(rng: np.random.Generator, users: int, farms: list[Farm]) -> tuple[np.ndarray, np.ndarray]:
    devices = np.stack([np.arange(users), np.arange(users)], axis=1)
    count = users
    more = np.flatnonzero(rng.random(users) < SECOND_DEVICE)
    devices[more, 1] = count + np.arange(len(more))
    count += len(more)
    # The family's tablet, then the library's and the school's: many readers on one, and nothing wrong with it.
    family = rng.permutation(users)[: int(users * IN_FAMILY)]
    while len(family):
        size = int(rng.integers(2, 5))
        devices[family[:size], 1] = count
        family, count = family[size:], count + 1
    for _ in range(max(1, users // 2000)):
        devices[rng.integers(0, users, rng.integers(6, 13)), 1] = count
        count += 1
    for farm in farms:
        phones = count + np.arange(max(2, len(farm.members) // 3))
        count += len(phones)
        devices[farm.members] = rng.choice(phones, (len(farm.members), 2))
    numbers = rng.choice(2**32, count, replace=False)
    return devices, np.array([f"d{number:08x}" for number in numbers])


# --- what they do -----------------------------------------------------------------------------------------------------


@dataclass
class Script:
    """Displays and events as they are made up. Times µs, users and notes indices, dwell in ms (-1: none)."""

    world: object
    rng: np.random.Generator
    begin: int
    shown: dict[str, list] = field(
        default_factory=lambda: {n: [] for n in ("request", "position", "time", "user", "note", "channel")}
    )
    events: dict[str, list] = field(default_factory=lambda: {n: [] for n in ("display", "action", "time", "dwell")})
    requests: int = 0

    def request(self) -> int:
        self.requests += 1
        return self.requests - 1

    def notes(self, user: int, count: int) -> list[int]:
        """Notes as the feed shows them to this reader."""
        return self.world.pick_notes(self.rng, np.full(count, user), self.begin).tolist()

    def show(self, request: int, position: int, when: int, user: int, note: int, channel: int) -> int:
        for name, value in zip(self.shown, (request, position, when, user, note, channel), strict=True):
            self.shown[name].append(value)
        display = len(self.shown["user"]) - 1
        self.do(display, "impression", when)
        return display

    def do(self, display: int, action: str, when: int, dwell_us: int = -1) -> None:
        dwell = dwell_us // 1000 if dwell_us >= 0 else -1
        for name, value in zip(self.events, (display, CODE[action], when, dwell), strict=True):
            self.events[name].append(value)

    def columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """(displays, events) in the form of the generator's own."""
        small = {"channel": np.int8, "action": np.int8}
        return tuple(
            {name: np.array(values, small.get(name, np.int64)) for name, values in part.items()}
            for part in (self.shown, self.events)
        )

    def pause(self, seconds: float) -> int:
        """A person's pause: log-normal about `seconds`, in µs."""
        return int(self.rng.lognormal(np.log(seconds), 0.6) * SECOND)


@dataclass
class Farm:
    """Accounts on a few phones that push the same few notes of one author, together, again and again."""

    members: list[int]
    targets: list[int]
    takes_part: list[float]
    rounds: float
    bouts_an_hour: float

    def act(self, script: Script, start: int) -> None:
        rng = script.rng
        for user, share in zip(self.members, self.takes_part, strict=True):
            if rng.random() < share:
                self._push(script, user, start + int(rng.integers(0, 8 * MINUTE)))

    def _push(self, script: Script, user: int, when: int) -> None:
        rng = script.rng
        for _ in range(1 + rng.poisson(self.rounds)):
            request, position = script.request(), 0
            for target in rng.permutation(self.targets).tolist():
                # Other notes are scrolled past in between, as a reader would.
                for note in script.notes(user, int(rng.poisson(0.7))):
                    script.show(request, position, when, user, note, SEARCH)
                    when, position = when + script.pause(1.5), position + 1
                display = script.show(request, position, when, user, target, SEARCH)
                position += 1
                when += script.pause(1.2)
                script.do(display, "click", when)
                for action, chance in (("like", 0.5), ("fav", 0.15)):
                    if rng.random() < chance:
                        script.do(display, action, when + int(rng.integers(SECOND // 2, 2 * SECOND)))
                dwell = int(rng.uniform(2, 5) * SECOND)
                script.do(display, "view_end", when + dwell, dwell)
                when += dwell + script.pause(2)


def _farms(rng: np.random.Generator, users: list[int], notes: list[np.ndarray]) -> list[Farm]:
    farms = []
    for members in np.array_split(np.array(users, np.int64), max(1, round(len(users) / FARM))) if users else []:
        own = notes[rng.integers(len(notes))]
        targets = rng.choice(own, min(len(own), int(rng.integers(2, 5))), replace=False).tolist()
        takes_part = rng.uniform(0.15, 0.95, len(members)).tolist()
        farms.append(Farm(members.tolist(), targets, takes_part, rng.uniform(0.2, 1.5), rng.uniform(0.2, 0.5)))
    return farms


@dataclass
class Bot:
    """An account that a program works: note after note at even intervals, for minutes."""

    user: int
    interval_s: float
    jitter: float
    bouts_an_hour: float

    @classmethod
    def plan(cls, rng: np.random.Generator, user: int, notes: list[np.ndarray]) -> Bot:
        return cls(user, rng.uniform(1.5, 5), rng.uniform(0.02, 0.4), rng.uniform(0.05, 0.3))

    def act(self, script: Script, start: int) -> None:
        rng = script.rng
        when, end = start, start + int(rng.uniform(4, 18) * MINUTE)
        request, position = script.request(), 0
        while when < end:
            if position == 12:
                request, position = script.request(), 0
            (note,) = script.notes(self.user, 1)
            display = script.show(request, position, when, self.user, note, HOMEFEED)
            position += 1
            opened = when = when + self._tick(rng)
            script.do(display, "click", when)
            for action, chance in (("like", 0.5), ("fav", 0.2), ("follow", 0.1)):
                if rng.random() < chance:
                    when += self._tick(rng)
                    script.do(display, action, when)
            if rng.random() < 0.5:
                when += self._tick(rng)
                script.do(display, "view_end", when, when - opened)
            when += self._tick(rng)

    def _tick(self, rng: np.random.Generator) -> int:
        return int(self.interval_s * max(0.2, rng.normal(1, self.jitter)) * SECOND)


@dataclass
class Repeater:
    """An account that likes and takes back, or comments and shares, over and over on one author's notes."""

    user: int
    notes: list[int]
    effort: float
    toggles: bool
    bouts_an_hour: float

    @classmethod
    def plan(cls, rng: np.random.Generator, user: int, notes: list[np.ndarray]) -> Repeater:
        own = notes[rng.integers(len(notes))].tolist()[:6]
        return cls(user, own, rng.uniform(1, 7), bool(rng.random() < 0.5), rng.uniform(0.08, 0.5))

    def act(self, script: Script, start: int) -> None:
        rng = script.rng
        note = self.notes[rng.integers(len(self.notes))]
        display = script.show(script.request(), int(rng.integers(0, 6)), start, self.user, note, FOLLOW)
        opened = when = start + script.pause(2)
        script.do(display, "click", when)
        for turn in range(2 + rng.poisson(self.effort)):
            when += script.pause(4)
            action = ("like", "unlike")[turn % 2] if self.toggles else ("comment", "comment", "share")[turn % 3]
            script.do(display, action, when)
        when += script.pause(3)
        script.do(display, "view_end", when, when - opened)


# --- honest accounts that look alike ----------------------------------------------------------------------------------


@dataclass
class Binge:
    """A reader who scrolls and opens for half an hour on end, fast, but as a person does."""

    user: int
    bouts_an_hour: float = 0.08

    @classmethod
    def plan(cls, rng: np.random.Generator, user: int, notes: list[np.ndarray]) -> Binge:
        return cls(user)

    def act(self, script: Script, start: int) -> None:
        rng = script.rng
        when, end = start, start + int(rng.uniform(10, 30) * MINUTE)
        while when < end:
            request = script.request()
            for position, note in enumerate(script.notes(self.user, 12)):
                display = script.show(request, position, when, self.user, note, HOMEFEED)
                when += script.pause(2)
                if rng.random() < 0.25:
                    when = _reads(script, display, when, {"like": 0.15, "fav": 0.05, "share": 0.03}, 7)


@dataclass
class Fan:
    """A reader who follows a few authors and reads, likes and comments little else."""

    user: int
    notes: list[int]
    bouts_an_hour: float = 0.15

    @classmethod
    def plan(cls, rng: np.random.Generator, user: int, notes: list[np.ndarray]) -> Fan:
        authors = rng.integers(0, len(notes), 3)
        return cls(user, np.concatenate([notes[author] for author in authors]).tolist())

    def act(self, script: Script, start: int) -> None:
        rng, when = script.rng, start
        request = script.request()
        seen = rng.permutation(self.notes)[: rng.integers(4, 13)].tolist()
        for position, note in enumerate(seen):
            display = script.show(request, position, when, self.user, note, FOLLOW)
            when += script.pause(2)
            if rng.random() < 0.8:
                when = _reads(script, display, when, {"like": 0.5, "comment": 0.15, "share": 0.06}, 15)


def _reads(script: Script, display: int, when: int, chances: dict[str, float], seconds: float) -> int:
    """Open a note, perhaps do something, leave; returns when it was left."""
    rng = script.rng
    script.do(display, "click", when)
    dwell = script.pause(seconds) + SECOND
    for action, chance in chances.items():
        if rng.random() < chance:
            script.do(display, action, when + int(dwell * rng.uniform(0.1, 0.95)))
    script.do(display, "view_end", when + dwell, dwell)
    return when + dwell + script.pause(1)


_PLANS = {"rate": Bot.plan, "repeater": Repeater.plan, "binge": Binge.plan, "fan": Fan.plan}
