"""The traffic generator: a feed's events in the contract's form, drawn from probabilities that are kept aside.

Here: a small world (users with taste, notes with quality), what it displays, what readers do, how the network and
broken phones distort it. Not here: abusers (abusers.py), the orders after the clicks (shop.py), how events are read (intake.py)
or labelled.

Same seed and start: same bytes, whatever `hours` is. Each slot of time is drawn from its own (seed, slot) stream, so
memory is bounded by a slot plus what is still on its way. docs/contract.md describes the files.
"""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from assets.events import shop
from assets.events.abusers import CODE, HOUR, MINUTE, SECOND, Planted
from assets.events.contract import ACTIONS, MAX_CLOCK_AHEAD

TOPICS = (
    "food", "travel", "beauty", "fashion", "fitness", "home", "pets", "parenting", "cars", "gadgets", "games", "film",
    "music", "books", "art", "study", "work", "money", "outdoors", "football", "health", "garden", "diy", "humour",
)  # fmt: skip
CHANNELS = ("homefeed", "search", "follow", "nearby")
CHANNEL_SHARE = (0.70, 0.14, 0.10, 0.06)
CHANNEL_LOGIT = np.array([0.0, 0.45, 0.30, -0.35])
DEVICES = ("android", "ios", "web")
DEVICE_SHARE = (0.62, 0.33, 0.05)
DEVICE_LOGIT = np.array([0.0, 0.10, -0.30])
VERSIONS = ("8.41.0", "8.42.1", "8.43.0")
VERSION_SHARE = (0.15, 0.60, 0.25)

# Probability that each slot is reached: readers leave a request early.
REACH = 0.90
SLOTS = 12

# Logits GIVEN a click: constant, then weights on taste, quality, the user's sociability, the author's charm, the note's
# usefulness and its power to provoke. Chosen so that rates are those of a real feed and the truth's AUC is 0.7 to 0.85.
HEADS = ("like", "fav", "comment", "share", "follow", "hide", "profile_enter", "long_view")
HEAD_WEIGHTS = np.array(
    [
        # const  taste  quality social charm useful provoke
        [-4.25, 0.70, 0.60, 0.80, 0.10, 0.00, 0.00],  # like
        [-4.70, 0.60, 0.30, 0.40, 0.00, 0.95, 0.00],  # fav
        [-5.45, 0.50, 0.00, 0.90, 0.00, 0.00, 0.95],  # comment
        [-5.15, 0.20, 0.50, 0.50, 0.00, 0.90, 0.20],  # share
        [-5.60, 0.60, 0.30, 0.20, 1.10, 0.00, 0.00],  # follow
        [-4.60, -0.90, -0.80, 0.00, 0.00, 0.00, 0.40],  # hide
        [-3.95, 0.45, 0.00, 0.20, 1.00, 0.00, 0.00],  # profile_enter
        [-1.40, 0.75, 0.75, 0.00, 0.00, 0.30, 0.00],  # long_view
    ]
)
CLICK_CONST = -2.66
LONG_VIEW_US = 10 * SECOND

UNDO = {"like": ("unlike", 0.03), "fav": ("unfav", 0.03), "follow": ("unfollow", 0.02)}

# Measured: events that one feed request leads to, repeats and second displays included.
EVENTS_PER_REQUEST = 9.0
EVENTS_PER_FILE = 20_000
EVENTS_PER_SLOT = 300_000


@dataclass(frozen=True)
class TrafficConfig:
    """What to generate.

    start: tz-aware, on a full hour. events_per_hour: the mean over a day, approximate; the hour of day modulates it.
    file_format: `jsonl.gz`, `jsonl` or `parquet`. file_minutes: arrival time in one file; default: 5 to 60 by volume.
    broken, duplicates: share of rows added. tail: also what arrives after the last hour, for late rows travel for hours;
    without it the log ends as a log does that is read at that moment. abusers: how many of the users are planted abusers;
    with any, events carry a `device_id` too. drift: how fast the world changes: after 1 / drift days a reader's tastes, a note's quality
    and what is in fashion have nothing to do with what they were, and notes live for half a day, new ones all the time; 0:
    tastes stay. Raises ValueError for what cannot be generated.
    """

    seed: int = 7
    users: int = 20_000
    notes: int = 8_000
    start: dt.datetime = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
    hours: int = 24
    events_per_hour: float = 40_000
    file_format: str = "jsonl.gz"
    file_minutes: int | None = None
    broken: float = 0.0005
    duplicates: float = 0.01
    tail: bool = True
    abusers: int = 0
    drift: float = 0.0

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.start.minute or self.start.second or self.start.microsecond:
            raise ValueError(f"start is a full hour with a time zone, not {self.start!r}")
        if self.users < 10 or self.notes < 100 or self.hours < 1 or self.events_per_hour <= 0:
            raise ValueError("traffic needs at least 10 users, 100 notes, 1 hour and events_per_hour above 0")
        if self.file_format not in ("jsonl.gz", "jsonl", "parquet"):
            raise ValueError(f"file_format is jsonl.gz, jsonl or parquet, not {self.file_format!r}")
        if not 0 <= self.abusers <= self.users // 4:
            raise ValueError(f"abusers are at most a quarter of the users, not {self.abusers} of {self.users}")
        if not 0 <= self.drift <= 100:
            raise ValueError(f"drift lies between 0 and 100 a day, not {self.drift!r}")
        if self.file_minutes is not None and (self.file_minutes < 1 or 60 % self.file_minutes):
            raise ValueError(f"file_minutes divides 60, not {self.file_minutes!r}")

    @property
    def start_us(self) -> int:
        return int(self.start.timestamp()) * SECOND


def generate(
    config: TrafficConfig,
    folder: Path,
    truth_folder: Path,
    progress: Callable[[float, int], None] | None = None,
) -> dict[str, int]:
    """Write the landing files of `config.hours` hours and, apart from them, the truth and the orders.

    folder: landing files, named so that their order is that of arrival. truth_folder: Parquet with, for every display,
    request_id, position, user_id, note_id, event_time and the probabilities; with abusers also abusers.parquet and
    lookalikes.parquet (user_id, kind), and no row for what those add. folder/../orders: the change stream of the shop's
    orders, and which note plants which product (shop.py).
    progress(share done, rows so far) is called once a slot. Returns counts: rows, events (distinct, good), repeats,
    broken, wrong_clock (quarantined for it), displays (those of the truth), planted (rows of abusers and lookalikes; only
    where there are any), files, order_changes and one count an action, e.g. action_click.
    """
    world = _World(config, config.start_us + shop.COLUMN_AFTER)
    minutes = _slot_minutes(config)
    slots = config.hours * 60 // minutes
    with _Output(world, folder, truth_folder) as output:
        for slot in range(slots):
            begin = config.start_us + slot * minutes * MINUTE
            output.add(_simulate(world, begin, begin + minutes * MINUTE, _requests(config, begin, minutes)))
            output.write_until(begin + minutes * MINUTE)
            if progress:
                progress((slot + 1) / slots, output.counts["rows"])
        if config.tail:
            output.write_rest()
    return dict(sorted(output.counts.items()))


def follow(
    config: TrafficConfig,
    folder: Path,
    truth_folder: Path,
    interval_s: float,
    stop: threading.Event,
) -> dict[str, int]:
    """Live traffic at wall clock until `stop` is set: the same users and notes, one landing file an interval.

    `config.hours` is ignored, and so is the hour of day: the rate is events_per_hour throughout, for a dashboard has to
    move at night too. A file appears complete (written aside, then renamed) once its rows have arrived.
    """
    world = _World(config, column_from=0)
    now = _now_us()
    with _Output(world, folder, truth_folder, live=True) as output:
        while not stop.wait(interval_s):
            begin, now = now, _now_us()
            share = (now - begin) / HOUR * config.events_per_hour / EVENTS_PER_REQUEST
            rng = np.random.default_rng([config.seed, begin])
            output.add(_simulate(world, begin, now, int(rng.poisson(share)), prefix="L"))
            output.write_until(now)
    return dict(sorted(output.counts.items()))


def displays(config: TrafficConfig, minutes: int = 60) -> Iterator[pl.DataFrame]:
    """The same world's displays, with what became of them: a frame for each `minutes`, in time order within it, of `config.hours`.

    For experiments that need to know what is true and when: nothing is sent, lost, repeated or labeled. Columns: time (µs), the
    context as in events (user_id, note_id, author_id, topic, channel, device, position), p_click and p_<behaviour> (given a
    click), click and the behaviours (bool, a behaviour with a click only).
    """
    world = _World(config, config.start_us + shop.COLUMN_AFTER)
    for begin in range(config.start_us, config.start_us + config.hours * HOUR, minutes * MINUTE):
        rng = np.random.default_rng([config.seed, begin, 3])
        shown = _displays(world, rng, begin, begin + minutes * MINUTE, _requests(config, begin, minutes))
        chance = _probabilities(world, shown)
        clicked = rng.random(len(shown["user"])) < chance["click"]
        does = {name: clicked & (rng.random(len(clicked)) < chance[name]) for name in HEADS}
        user, note = shown["user"], shown["note"]
        yield pl.DataFrame(
            {
                "time": shown["time"], "user_id": world.user_id[user], "note_id": world.note_id[note],
                "author_id": world.author_id[note], "topic": pl.Series(TOPICS)[world.topic[note]],
                "channel": pl.Series(CHANNELS)[shown["channel"]], "device": pl.Series(DEVICES)[world.device[user]],
                "position": shown["position"].astype(np.int32), **{f"p_{name}": chance[name] for name in ("click", *HEADS)},
                "click": clicked, **does,
            }
        ).sort("time", maintain_order=True)  # fmt: skip


# --- the world --------------------------------------------------------------------------------------------------------


class _World:
    """Users and notes: drawn once from the seed, the same in `generate` and in `follow`."""

    def __init__(self, config: TrafficConfig, column_from: int) -> None:
        rng = np.random.default_rng([config.seed, 0])
        users, notes, topics = config.users, config.notes, len(TOPICS)
        self.config = config
        self.user_id = 100_000 + np.arange(users, dtype=np.int64)
        self.taste = rng.normal(size=(users, topics)).astype(np.float32)
        self.activity = np.cumsum(rng.lognormal(0, 0.9, users))
        self.user_bias = rng.normal(0, 0.35, users)
        self.social = rng.normal(size=users)
        self.device = rng.choice(len(DEVICES), users, p=DEVICE_SHARE).astype(np.int8)
        self.version = rng.choice(len(VERSIONS), users, p=VERSION_SHARE).astype(np.int8)
        interest = np.cumsum(np.exp(self.taste), axis=1)
        self.interest = interest / interest[:, -1:]
        # Notes sorted by topic, so that a topic is a slice of one cumulative weight.
        self.topic = np.sort(rng.integers(0, topics, notes)).astype(np.int8)
        self.note_id = 5_000_000_000 + rng.permutation(notes).astype(np.int64)
        authors = max(10, notes // 8)
        author = np.minimum((rng.power(0.6, notes) * authors).astype(np.int64), authors - 1)
        self.author_id = 900_000 + author
        self.charm = rng.normal(size=authors)[author]
        self.quality = 0.9 * rng.normal(size=notes) + 0.45 * rng.normal(size=authors)[author]
        topic_useful, topic_provoke = rng.normal(size=(2, topics))
        self.useful = 0.7 * topic_useful[self.topic] + 0.7 * rng.normal(size=notes)
        self.provoke = 0.6 * topic_provoke[self.topic] + 0.8 * rng.normal(size=notes)
        self.popularity = rng.pareto(1.2, notes) + 0.05 + np.exp(0.5 * self.quality)
        self.born = rng.integers(0, 14 * 24 * HOUR, notes)  # a note surfaces, fades, and comes round after two weeks
        self.evening = rng.normal(0, 0.35, topics)  # some topics are for the evening, some for the morning
        self.bounds = np.searchsorted(self.topic, np.arange(topics + 1))
        # Two phones of busy readers have a wrong clock.
        busy = np.argsort(-np.diff(self.activity, prepend=0), kind="stable")
        self.ahead, self.behind = busy[users // 50 + 1], busy[users // 50 + 2]
        self.shop = shop.Shop(config.seed, self.note_id, self.user_id, column_from)
        self.planted = Planted(config.seed, users, self.author_id, config.abusers) if config.abusers else None
        if config.drift:
            # What tastes and quality turn into, each at a pace of its own: a rotation keeps their spread.
            late = np.random.default_rng([config.seed, 3])
            self.other_taste = late.normal(size=(users, topics)).astype(np.float32)
            self.other_quality = self.quality.std() * late.normal(size=notes)
            self.user_pace, self.note_pace = late.lognormal(0, 0.3, users), late.lognormal(0, 0.3, notes)
            self.fashion = late.uniform(0, 2 * np.pi, topics)

    def turned(self, when: np.ndarray, pace: np.ndarray) -> np.ndarray:
        """Angle of the rotation at a time: a quarter turn in 1 / drift days."""
        days = (when - self.config.start_us) / (24 * HOUR)
        return np.pi / 2 * self.config.drift * days * pace

    def taste_at(self, user: np.ndarray, topic: np.ndarray, when: np.ndarray) -> np.ndarray:
        taste = self.taste[user, topic].astype(np.float64)
        if not self.config.drift:
            return taste
        angle = self.turned(when, self.user_pace[user])
        in_fashion = 0.7 * np.sin(self.turned(when, np.ones(len(when))) + self.fashion[topic])
        return np.cos(angle) * taste + np.sin(angle) * self.other_taste[user, topic] + in_fashion

    def quality_at(self, note: np.ndarray, when: np.ndarray) -> np.ndarray:
        if not self.config.drift:
            return self.quality[note]
        angle = self.turned(when, self.note_pace[note])
        return np.cos(angle) * self.quality[note] + np.sin(angle) * self.other_quality[note]

    def age_hours(self, when: int) -> np.ndarray:
        return ((when - self.born) % (14 * 24 * HOUR)) / HOUR

    def pick_notes(self, rng: np.random.Generator, users: np.ndarray, when: int) -> np.ndarray:
        """A note for each user: a topic by taste (a fifth by chance), then by popularity and freshness within it."""
        life, floor = (12, 0.0) if self.config.drift else (36, 0.15)
        weight = np.cumsum(self.popularity * (floor + np.exp(-self.age_hours(when) / life)))
        topic = (self.interest[users] < rng.random(len(users))[:, None]).sum(axis=1)
        chance = rng.random(len(users)) < 0.2
        topic[chance] = rng.integers(0, len(TOPICS), chance.sum())
        low = np.concatenate([[0.0], weight])[self.bounds]
        target = low[topic] + rng.random(len(users)) * (low[topic + 1] - low[topic])
        return np.minimum(np.searchsorted(weight, target, side="right"), len(weight) - 1)


def _rhythm(when_us: int) -> float:
    """Traffic over the day (UTC), mean 1: low at 4, a step at lunch, a peak at 21."""
    hour = when_us / HOUR % 24
    return 1 + 0.55 * np.cos((hour - 20) / 24 * 2 * np.pi) + 0.2 * np.cos((hour - 12.5) / 12 * 2 * np.pi)


def _requests(config: TrafficConfig, begin: int, minutes: int) -> int:
    rng = np.random.default_rng([config.seed, begin, 1])
    mean = config.events_per_hour * minutes / 60 * _rhythm(begin + minutes * MINUTE // 2) / EVENTS_PER_REQUEST
    return int(rng.poisson(mean))


def _slot_minutes(config: TrafficConfig) -> int:
    """Minutes drawn at a time: whole files, and small enough for memory."""
    file = _file_minutes(config)
    fitting = [m for m in (60, 30, 20, 15, 10, 5, 4, 3, 2, 1) if m % file == 0 and 60 % m == 0]
    return next((m for m in fitting if config.events_per_hour * m / 60 <= EVENTS_PER_SLOT), file)


def _file_minutes(config: TrafficConfig) -> int:
    if config.file_minutes:
        return config.file_minutes
    return next((m for m in (5, 10, 15, 20, 30) if config.events_per_hour * m / 60 >= EVENTS_PER_FILE), 60)


# --- what happens in a slot -------------------------------------------------------------------------------------------


@dataclass
class _Slot:
    """Rows on their way (integers only; text is made when a file is written), the truth of the displays, the orders."""

    rows: pl.DataFrame
    truth: pl.DataFrame
    orders: list[dict] = field(default_factory=list)


def _simulate(world: _World, begin: int, end: int, requests: int, prefix: str = "") -> _Slot:
    rng = np.random.default_rng([world.config.seed, begin, 2])
    displays = _displays(world, rng, begin, end, requests)
    chance = _probabilities(world, displays)
    clicked = np.flatnonzero(rng.random(len(displays["user"])) < chance["click"])
    events = _events(rng, displays, chance, clicked)
    rows = _travel(world, rng, displays, events)
    if world.planted:
        rows = _with_planted(world, rows, begin, end)
    prefix = f"{prefix}{world.config.seed}-{begin // MINUTE if not prefix else begin // 1000}-"
    truth = _truth(world, displays, chance, prefix)
    orders = world.shop.orders(displays, clicked, begin, prefix)
    return _Slot(rows.with_columns(prefix=pl.lit(prefix)), truth, orders)


def _displays(world: _World, rng: np.random.Generator, begin: int, end: int, requests: int) -> dict[str, np.ndarray]:
    who = np.searchsorted(world.activity, rng.random(requests) * world.activity[-1], side="right")
    who = np.minimum(who, len(world.activity) - 1)
    when = np.sort(rng.integers(begin, end, requests))
    viewed = np.minimum(rng.geometric(1 - REACH, requests), SLOTS)
    channel = rng.choice(len(CHANNELS), requests, p=CHANNEL_SHARE).astype(np.int8)
    request = np.repeat(np.arange(requests), viewed)
    first = np.cumsum(viewed) - viewed
    position = np.arange(len(request)) - first[request]
    scroll = rng.exponential(1.6 * SECOND, len(request)).astype(np.int64) + SECOND // 5
    passed = np.cumsum(scroll)
    time_us = when[request] + passed - passed[first[request]] if requests else when
    user = who[request]
    fresh = {
        "request": request, "position": position, "time": time_us, "user": user,
        "note": world.pick_notes(rng, user, begin), "channel": channel[request],
    }  # fmt: skip
    return _again(rng, fresh, requests)


def _again(rng: np.random.Generator, shown: dict[str, np.ndarray], requests: int) -> dict[str, np.ndarray]:
    """Show 3 % of the notes to the same reader once more: soon, around the 20 minutes of a session, or hours later."""
    picked = np.flatnonzero(rng.random(len(shown["user"])) < 0.03)
    kind = rng.random(len(picked))
    later = np.where(
        kind < 0.45, rng.exponential(6 * MINUTE, len(picked)),
        np.where(kind < 0.60, rng.uniform(19.5 * MINUTE, 20.5 * MINUTE, len(picked)),
                 rng.exponential(80 * MINUTE, len(picked)) + 20 * MINUTE),
    )  # fmt: skip
    # Exactly 20 minutes: the half-open edge of a window.
    later[kind > 0.99] = 20 * MINUTE
    again = {name: values[picked] for name, values in shown.items()}
    again["time"] = again["time"] + np.maximum(later.astype(np.int64), SECOND)
    again["request"] = requests + np.arange(len(picked))
    again["position"] = rng.integers(0, SLOTS // 2, len(picked))
    return {name: np.concatenate([shown[name], again[name]]) for name in shown}


def _probabilities(world: _World, shown: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """P(click | display) and P(action | click), logistic in taste, quality, position, channel, device and hour."""
    user, note = shown["user"], shown["note"]
    topic = world.topic[note]
    taste = world.taste_at(user, topic, shown["time"])
    quality = world.quality_at(note, shown["time"])
    hour = shown["time"] / HOUR % 24
    evening = np.cos((hour - 21) / 24 * 2 * np.pi) * world.evening[topic]
    logit = (
        CLICK_CONST + 0.72 * taste + 0.55 * quality + world.user_bias[user] - 0.09 * shown["position"]
        + CHANNEL_LOGIT[shown["channel"]] + DEVICE_LOGIT[world.device[user]] + evening
    )  # fmt: skip
    features = np.stack(
        [
            np.ones(len(user)),
            taste,
            quality,
            world.social[user],
            world.charm[note],
            world.useful[note],
            world.provoke[note],
        ]
    )
    heads = _sigmoid(HEAD_WEIGHTS @ features + 0.5 * evening)
    return {"click": _sigmoid(logit), **dict(zip(HEADS, heads, strict=True))}


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def _events(
    rng: np.random.Generator, shown: dict[str, np.ndarray], chance: dict[str, np.ndarray], clicked: np.ndarray
) -> dict[str, np.ndarray]:
    """Events as columns: display (index), action (code), time, dwell (ms, -1: none)."""
    parts: list[tuple[np.ndarray, str, np.ndarray, np.ndarray | None]] = []
    displays = len(shown["user"])
    parts.append((np.arange(displays), "impression", shown["time"], None))

    click_time = shown["time"][clicked] + (rng.lognormal(1.0, 0.8, len(clicked)) * SECOND).astype(np.int64)
    slow = rng.random(len(clicked)) < 0.004  # a tab left open: clicks around the end of the display's window
    click_time[slow] = shown["time"][clicked][slow] + rng.integers(18 * MINUTE, 21 * MINUTE, slow.sum())
    parts.append((clicked, "click", click_time, None))
    twice = rng.random(len(clicked)) < 0.02
    parts.append(
        (clicked[twice], "click", click_time[twice] + rng.integers(20 * SECOND, 15 * MINUTE, twice.sum()), None)
    )

    long = rng.random(len(clicked)) < chance["long_view"][clicked]
    dwell = np.where(
        long, LONG_VIEW_US + rng.exponential(25 * SECOND, len(clicked)), rng.uniform(0.3, 9.999, len(clicked)) * SECOND
    )
    dwell = np.minimum(dwell, 15 * MINUTE).astype(np.int64)
    left = rng.random(len(clicked)) > 0.01  # else the app was killed: no view_end
    parts.append((clicked[left], "view_end", click_time[left] + dwell[left], dwell[left] // 1000))

    for name in HEADS[:-1]:
        does = rng.random(len(clicked)) < chance[name][clicked]
        when = click_time[does] + (dwell[does] * rng.uniform(0.1, 0.98, does.sum())).astype(np.int64)
        # A few come back to it after the session has closed: orphans.
        stray = rng.random(len(when)) < 0.01
        when[stray] += rng.integers(20 * MINUTE, 90 * MINUTE, stray.sum())
        parts.append((clicked[does], name, when, None))
        if name in UNDO:
            undo, share = UNDO[name]
            undone = rng.random(len(when)) < share
            parts.append(
                (clicked[does][undone], undo, when[undone] + rng.integers(SECOND, 40 * SECOND, undone.sum()), None)
            )

    # Without a click: a like, a hide or a look at the author straight from the feed.
    for name, share in (("like", 0.002), ("hide", 0.002), ("profile_enter", 0.001)):
        direct = np.flatnonzero(rng.random(displays) < share)
        parts.append((direct, name, shown["time"][direct] + rng.integers(SECOND, 9 * SECOND, len(direct)), None))

    return {
        "display": np.concatenate([part[0] for part in parts]),
        "action": np.concatenate([np.full(len(part[0]), CODE[part[1]], np.int8) for part in parts]),
        "time": np.concatenate([part[2] for part in parts]),
        "dwell": np.concatenate([part[3] if part[3] is not None else np.full(len(part[0]), -1) for part in parts]),
    }


def _travel(
    world: _World, rng: np.random.Generator, shown: dict[str, np.ndarray], events: dict[str, np.ndarray]
) -> pl.DataFrame:
    """What the platform receives: network delays, phones that were offline, duplicate sends, wrong clocks."""
    display, count = events["display"], len(events["display"])
    delay = (0.05 * SECOND + rng.exponential(0.4 * SECOND, count)).astype(np.int64)
    # A phone without a network sends a whole request's events later: minutes (behind the watermark), or hours.
    requests = int(shown["request"].max(initial=-1)) + 1
    fate = rng.random(requests)
    offline = np.zeros(requests, np.int64)
    short, long = fate < 0.02, fate > 0.997
    offline[short] = rng.exponential(4 * MINUTE, short.sum()).astype(np.int64)
    offline[long] = rng.integers(HOUR, 6 * HOUR, long.sum())
    ingest = events["time"] + delay + offline[shown["request"][display]]

    user = shown["user"][display]
    claimed = events["time"] + np.where(user == world.ahead, 5 * HOUR, 0) - np.where(user == world.behind, 3 * HOUR, 0)
    repeats = np.flatnonzero(rng.random(count) < world.config.duplicates)
    wait = np.where(
        rng.random(len(repeats)) < 0.9,
        rng.exponential(20 * SECOND, len(repeats)),
        rng.uniform(HOUR, 3 * HOUR, len(repeats)),
    )
    sent = np.concatenate([np.arange(count), repeats])
    ingest = np.concatenate([ingest, ingest[repeats] + wait.astype(np.int64) + 1])
    display = display[sent]
    return pl.DataFrame(
        {
            "number": sent.astype(np.int64),
            "repeat": np.arange(len(sent)) >= count,
            "user": shown["user"][display].astype(np.int32),
            "note": shown["note"][display].astype(np.int32),
            "action": events["action"][sent],
            "event_time": claimed[sent],
            "ingest_time": ingest,
            "dwell": events["dwell"][sent].astype(np.int32),
            "request": shown["request"][display].astype(np.int64),
            "channel": shown["channel"][display],
            "position": shown["position"][display].astype(np.int32),
        }
    )


def _with_planted(world: _World, rows: pl.DataFrame, begin: int, end: int) -> pl.DataFrame:
    """The rows of a slot with what abusers and those who look like them add, and everyone's device.

    Event and request numbers go on after the readers': nothing in an id tells who sent it.
    """
    seed = world.config.seed
    rng = np.random.default_rng([seed, begin, 4])
    more = _travel(world, rng, *world.planted.draw(world, rng, begin, end).columns())
    after = [(pl.col(name) + (rows[name].max() or 0) + 1).alias(name) for name in ("number", "request")]
    rows = pl.concat([rows.with_columns(planted=False), more.with_columns(*after, planted=True)])
    rng = np.random.default_rng([seed, begin, 5])
    return rows.with_columns(device=world.planted.device_of(rng, rows["user"].to_numpy(), rows["request"].to_numpy()))


def _truth(world: _World, shown: dict[str, np.ndarray], chance: dict[str, np.ndarray], prefix: str) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "request": shown["request"],
            "position": shown["position"].astype(np.int32),
            "user_id": world.user_id[shown["user"]],
            "note_id": world.note_id[shown["note"]],
            "event_time": shown["time"],
            **{f"p_{name}": values.astype(np.float32) for name, values in chance.items()},
        }
    )
    request_id = (pl.lit("r" + prefix) + pl.col("request").cast(pl.String)).alias("request_id")
    time = pl.from_epoch("event_time", time_unit="us").dt.replace_time_zone("UTC")
    return frame.with_columns(time).select(request_id, pl.exclude("request"))


# --- files ------------------------------------------------------------------------------------------------------------


class _Output:
    """Holds what is still on its way and writes what has arrived; threads encode and compress beside the drawing."""

    def __init__(self, world: _World, folder: Path, truth_folder: Path, live: bool = False) -> None:
        self.world, self.config, self.live = world, world.config, live
        config = world.config
        self.folder, self.truth_folder, self.orders_folder = (
            Path(folder),
            Path(truth_folder),
            Path(folder).parent / "orders",
        )
        for path in (self.folder, self.truth_folder, self.orders_folder):
            path.mkdir(parents=True, exist_ok=True)
        _write_atomically(self.orders_folder / "note_products.jsonl", world.shop.note_products())
        self.file_us = _file_minutes(config) * MINUTE
        self.pending: pl.DataFrame | None = None
        self.orders: list[dict] = []
        self.truth: list[pl.DataFrame] = []
        self.written_until = config.start_us
        self.counts: Counter[str] = Counter()
        self.pool = ThreadPoolExecutor(2)  # encoding and compressing cost more than drawing
        self.jobs: list[Future] = []

    def __enter__(self) -> _Output:
        if planted := self.world.planted:
            for name, chosen in (("abusers", planted.kind), ("lookalikes", planted.lookalike)):
                path = self.truth_folder / f"{name}.parquet"
                truth = planted.truth(self.world.user_id, chosen)
                # Live traffic of another seed goes on in the folder of the demo: both truths hold.
                if path.exists():
                    truth = pl.concat([pl.read_parquet(path), truth]).unique("user_id", keep="first").sort("user_id")
                _write_truth_file(path, truth)
        return self

    def __exit__(self, *_) -> None:
        try:
            self._wait(0)
        finally:
            self.pool.shutdown()

    def add(self, slot: _Slot) -> None:
        self.pending = slot.rows if self.pending is None else pl.concat([self.pending, slot.rows])
        self.orders.extend(slot.orders)
        self.truth.append(slot.truth)
        self.counts["displays"] += slot.truth.height

    def write_until(self, end: int) -> None:
        """Write all rows that arrived before `end`: one file for each stretch of arrival time (live: one in all)."""
        arrived = self.pending.filter(pl.col("ingest_time") < end).sort("ingest_time", maintain_order=True)
        self.pending = self.pending.filter(pl.col("ingest_time") >= end)
        if self.live:
            self._write_file(arrived, end)
        else:
            stretch = (arrived["ingest_time"] - self.written_until) // self.file_us
            edges = np.searchsorted(stretch.to_numpy(), np.arange((end - self.written_until) // self.file_us + 1))
            for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
                self._write_file(arrived[low:high], self.written_until + number * self.file_us)
        self._write_orders(end)
        self._write_truth(end)
        self.written_until = end

    def write_rest(self) -> None:
        """After the last hour: what still travels arrives within hours; one file an hour."""
        while len(self.pending):
            end = self.written_until + HOUR
            self.file_us = HOUR
            self.write_until(end)
        last = max((change["ts_us"] for change in self.orders), default=0)
        if last:
            self._write_orders(last + 1)

    def _write_file(self, rows: pl.DataFrame, when: int) -> None:
        if not len(rows):
            return
        rng = np.random.default_rng([self.config.seed, when, 3])
        name = f"events-{_stamp(when)}.{self.config.file_format}"
        self._count(rows)
        # Of the readers' rows, so that the same ones break whether abusers are planted or not.
        places = np.flatnonzero(~rows["planted"]) if self.world.planted else np.arange(len(rows))
        broken = places[rng.choice(len(places), rng.binomial(len(places), self.config.broken))]
        self.counts.update(rows=len(broken), broken=len(broken), files=1)
        self._submit(self._encode_and_write, rows, rng, broken, self.folder / name)

    def _count(self, rows: pl.DataFrame) -> None:
        ahead = rows["event_time"] > rows["ingest_time"] + int(MAX_CLOCK_AHEAD / dt.timedelta(microseconds=1))
        good = rows.filter(~ahead & ~rows["repeat"])
        # A repeat of a row that is quarantined is quarantined too.
        self.counts.update(rows=len(rows), wrong_clock=int(ahead.sum()), events=len(good))
        self.counts["repeats"] += int((rows["repeat"] & ~ahead).sum())
        if self.world.planted:
            self.counts["planted"] += int(rows["planted"].sum())
        for code, count in good["action"].value_counts().iter_rows():
            self.counts[f"action_{ACTIONS[code]}"] += count

    def _encode_and_write(self, rows: pl.DataFrame, rng: np.random.Generator, broken: np.ndarray, path: Path) -> None:
        frame = _readable(self.world, rows)
        if self.config.file_format == "parquet":
            frame = _with_broken_rows(frame, rng, broken)
            body = io.BytesIO()
            frame.write_parquet(body, compression="zstd", compression_level=1)
            data = body.getvalue()
        else:
            body = io.BytesIO()
            frame.write_ndjson(body)
            data = _with_broken_lines(body.getvalue(), frame, rng, broken)
            if self.config.file_format == "jsonl.gz":
                data = gzip.compress(data, compresslevel=1, mtime=0)
        _write_atomically(path, data)

    def _write_orders(self, end: int) -> None:
        done = [c for c in self.orders if c["ts_us"] < end]
        self.orders = [c for c in self.orders if c["ts_us"] >= end]
        if done:
            lines, count = self.world.shop.lines(done)
            self.counts["order_changes"] += count
            name = f"orders-{_stamp(self.written_until if not self.live else end)}.jsonl"
            self._submit(_write_atomically, self.orders_folder / name, lines.encode())

    def _write_truth(self, end: int) -> None:
        if not self.truth or not sum(len(part) for part in self.truth):
            return
        truth, self.truth = pl.concat(self.truth), []
        name = f"truth-{_stamp(self.written_until if not self.live else end)}.parquet"
        self._submit(_write_truth_file, self.truth_folder / name, truth)

    def _submit(self, work: Callable, *arguments) -> None:
        self.jobs.append(self.pool.submit(work, *arguments))
        self._wait(0 if self.live else 6)

    def _wait(self, allowed: int) -> None:
        while len(self.jobs) > allowed:
            self.jobs.pop(0).result()


def _readable(world: _World, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows as the contract names them; null where a column does not apply."""
    user, note = rows["user"].to_numpy(), rows["note"].to_numpy()
    request = rows["prefix"] + rows["request"].cast(pl.String)
    device = {"device_id": world.planted.device_id[rows["device"].to_numpy()]} if world.planted else {}
    return pl.DataFrame(
        {
            "event_id": rows["prefix"] + rows["number"].cast(pl.String),
            "user_id": world.user_id[user],
            "note_id": world.note_id[note],
            "action": pl.Series(ACTIONS)[rows["action"].to_numpy()],
            "event_time": rows["event_time"],
            "ingest_time": rows["ingest_time"],
            "dwell_ms": rows["dwell"].replace(-1, None),
            "request_id": "r" + request,
            "channel": pl.Series(CHANNELS)[rows["channel"].to_numpy()],
            "position": rows["position"],
            "device": pl.Series(DEVICES)[world.device[user]],
            "app_version": pl.Series(VERSIONS)[world.version[user]],
            "author_id": world.author_id[note],
            "topic": pl.Series(TOPICS)[world.topic[note]],
            **device,
        }
    )


# Ways in which a row breaks that any typed file can hold: changes to a good row.
_BREAKS: tuple[dict, ...] = (
    {"user_id": None},
    {"note_id": None},
    {"event_id": ""},
    {"event_id": "x" * 201},
    {"action": "clik"},
    {"action": None},
    {"event_time": None},
    {"event_time": 1_767_571_200},  # seconds instead of microseconds
    {"action": "view_end", "dwell_ms": -5},
    {"action": "impression", "dwell_ms": 900},
    {"position": -1},
)
# And those that only text can hold: changed values of another type.
_TEXT_BREAKS: tuple[dict, ...] = (
    {"user_id": "u-17"},
    {"user_id": 1.5},
    {"event_time": "yesterday"},
    {"event_time": "2026-01-05T10:00:00"},  # no zone
    {"position": "first"},
)
_GARBAGE = (b'{"event_id":"cut","user_id":1,"note_', b"not json at all", b"[1,2]", b"\xff\xfe\x00broken", b'"text"')


def _with_broken_rows(frame: pl.DataFrame, rng: np.random.Generator, picked: np.ndarray) -> pl.DataFrame:
    if not len(picked):
        return frame
    rows = frame[picked].to_dicts()
    for number, row in enumerate(rows):
        row["event_id"] = f"b{number}-{row['event_id']}"
        row.update(_BREAKS[rng.integers(len(_BREAKS))])
    return pl.concat([frame, pl.DataFrame(rows, schema=frame.schema)])


def _with_broken_lines(data: bytes, frame: pl.DataFrame, rng: np.random.Generator, picked: np.ndarray) -> bytes:
    """Put as many broken lines as rows are picked between the good lines, which stay as they are."""
    if not len(picked):
        return data
    kinds = _BREAKS + _TEXT_BREAKS
    picked = np.sort(picked)
    pieces, done = [], 0
    for number, (index, row) in enumerate(zip(picked, frame[picked].to_dicts(), strict=True)):
        kind = int(rng.integers(len(kinds) + len(_GARBAGE)))
        if kind >= len(kinds):
            line = _GARBAGE[kind - len(kinds)]
        else:
            row["event_id"] = f"b{number}-{row['event_id']}"
            line = json.dumps(row | kinds[kind], separators=(",", ":")).encode()
        # About where the picked row stands: looking for that very line would cost a split of the whole file.
        place = data.find(b"\n", max(done, len(data) * int(index) // len(frame))) + 1
        place = place or len(data)
        pieces += [data[done:place], line + b"\n"]
        done = place
    return b"".join([*pieces, data[done:]])


def _write_truth_file(path: Path, truth: pl.DataFrame) -> None:
    body = io.BytesIO()
    truth.write_parquet(body, compression="zstd", compression_level=1)
    _write_atomically(path, body.getvalue())


def _write_atomically(path: Path, data: bytes) -> None:
    aside = path.with_name("." + path.name)
    aside.write_bytes(data)
    aside.rename(path)


def _stamp(when: int) -> str:
    return dt.datetime.fromtimestamp(when / SECOND, dt.UTC).strftime("%Y%m%dT%H%M%S%f")[:-3]


def _now_us() -> int:
    return time.time_ns() // 1000
