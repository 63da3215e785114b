"""A small world whose truth is known, as `training_samples` and as the generator's truth files: to test the ranker.

Every sample is a display; clicks and what follows are drawn from logistic probabilities of taste (user x topic), the
note's quality and the position. Some profiles are missing, as in a lake's first hour. A reader's lists hold notes of the
topics that the reader likes; reading time grows with taste.
"""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets.lake import HOUR, Lake, Table, Window
from assets.ranking.config import HEADS, SEQUENCES

START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
TIME = pa.timestamp("us", "UTC")

SCHEMA = pa.schema(
    [
        HOUR, ("user_id", pa.int64()), ("note_id", pa.int64()), ("session_start", TIME), ("request_id", pa.string()),
        ("channel", pa.string()), ("position", pa.int32()), ("device", pa.string()), ("author_id", pa.int64()),
        ("topic", pa.string()), ("hour_of_day", pa.int32()),
        ("user_impressions", pa.int64()), ("user_ctr", pa.float64()),
        ("user_topic_clicks", pa.int64()),
        ("note_impressions", pa.int64()), ("note_ctr", pa.float64()),
        *((name, pa.list_(pa.string() if "topics" in name else pa.int64())) for of in SEQUENCES.values() for name in of),
        ("label_click", pa.int32()), ("engaged", pa.int32()),
        *((f"label_{head}", pa.int32()) for head in HEADS[1:]), ("dwell_ms", pa.int64()),
    ]
)  # fmt: skip
SAMPLES = Table("training_samples", SCHEMA, "test samples")


def window(hours: int) -> Window:
    return Window(START, START + dt.timedelta(hours=hours))


def plant(lake: Lake, rows: int, hours: int, seed: int = 1, truth=None, without: tuple[str, ...] = ()) -> pa.Table:
    """Write `rows` samples of `hours` hours into the lake, and their probabilities into the folder `truth`.

    without: heads that never have a positive.
    """
    samples, chance = draw(rows, hours, seed, without)
    lake.replace_window(SAMPLES, samples, window(hours))
    if truth is not None:
        truth.mkdir(parents=True, exist_ok=True)
        keys = {name: samples[name] for name in ("request_id", "position", "user_id", "note_id")}
        known = {f"p_{head}": chance[head] for head in HEADS}
        pq.write_table(pa.table({**keys, "event_time": samples["session_start"], **known}), truth / "truth-0.parquet")
    return samples


def draw(rows: int, hours: int, seed: int = 1, without: tuple[str, ...] = ()) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """Samples in time order and their true probabilities by head (click | display, the others | click)."""
    rng = np.random.default_rng(seed)
    users, notes, topics = 200, 150, 5
    taste, quality = rng.normal(size=(users, topics)), rng.normal(size=notes)
    topic_of, author_of = rng.integers(0, topics, notes), rng.integers(0, 40, notes)
    user, note = rng.integers(0, users, rows), rng.integers(0, notes, rows)
    position = rng.integers(0, 10, rows)
    seconds = np.sort(rng.integers(0, hours * 3600, rows))
    liking = taste[user, topic_of[note]]
    chance = {"click": _sigmoid(-1.0 + 1.0 * liking + 0.8 * quality[note] - 0.1 * position)}
    for i, head in enumerate(HEADS[1:]):
        level = -np.inf if head in without else -1.5 + 0.2 * i
        chance[head] = _sigmoid(level + (-0.8 if head == "hide" else 0.8) * liking + 0.4 * quality[note])
    clicked = rng.random(rows) < chance["click"]
    labels = {f"label_{head}": (clicked & (rng.random(rows) < chance[head])).astype(np.int32) for head in HEADS[1:]}
    start = int(START.timestamp())
    known = rng.random(rows) < 0.9
    names = np.array([f"topic-{i}" for i in range(topics)])
    seconds_read = np.exp(1 + 0.7 * liking + 0.3 * rng.normal(size=rows))
    columns = {
        "hour": pa.array((start + seconds // 3600 * 3600) * 1_000_000, TIME),
        "session_start": pa.array((start + seconds) * 1_000_000, TIME),
        "user_id": user * 7 - 300, "note_id": note + 2**62,
        "request_id": [f"r{i // 4}" for i in range(rows)], "channel": np.array(["homefeed", "search"])[user % 2],
        "position": position.astype(np.int32),
        "device": pa.array(np.array(["ios", "android"])[user % 2], mask=user % 11 == 0),
        "author_id": author_of[note], "topic": names[topic_of[note]],
        "hour_of_day": (seconds // 3600 % 24).astype(np.int32),
        "user_impressions": pa.array(user + 5, mask=~known),
        "user_ctr": pa.array(_sigmoid(taste[user].mean(1)), mask=~known),
        "user_topic_clicks": pa.array(user % 7, mask=~known),
        "note_impressions": pa.array(note + 5, mask=~known), "note_ctr": pa.array(_sigmoid(quality[note]), mask=~known),
        "label_click": clicked.astype(np.int32), "engaged": clicked.astype(np.int32), **labels,
        "dwell_ms": np.where(clicked, seconds_read * 1000, 0).astype(np.int64),
        **_lists(rng, user, taste, topic_of, author_of, names),
    }  # fmt: skip
    return pa.table(columns).select(SCHEMA.names).cast(SCHEMA), chance


def _lists(rng, user, taste, topic_of, author_of, names) -> dict[str, pa.Array]:
    """Up to 20 notes, mostly of the reader's best topic; a tenth of the lists is null, some topics in them are unknown."""
    found = {}
    by_topic = [np.flatnonzero(topic_of == t) for t in range(taste.shape[1])]
    best = [by_topic[t] for t in taste.argmax(1)]
    for columns in SEQUENCES.values():
        lengths = rng.integers(0, 21, len(user))
        none = rng.random(len(user)) < 0.1
        lengths[none] = 0
        notes = np.concatenate([rng.choice(best[u], n) for u, n in zip(user, lengths) if n])
        offsets = pa.array(np.r_[0, lengths.cumsum()].astype(np.int32), mask=np.r_[none, False])
        topics = pa.array(names[topic_of[notes]], mask=rng.random(len(notes)) < 0.05)
        for name, values in zip(columns, (pa.array(notes + 2**62), topics, pa.array(author_of[notes])), strict=True):
            found[name] = pa.ListArray.from_arrays(offsets, values)
    return found


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))
