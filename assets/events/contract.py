"""The contract of an event, written once: columns, actions, ranges, and the tables that intake fills.

Here: what an event is, and the check of typed rows against it. Not here: how a file becomes typed rows (sources.py,
values.py, mapping.py), how a context becomes columns (context.py), where they are written (intake.py). Tests and docs/contract.md read this module.
"""

from __future__ import annotations

import datetime as dt

import polars as pl
import pyarrow as pa

from assets.lake import HOUR, Table

# The order is part of the rules: events of one key and one event_time are folded in this order.
ACTIONS = (
    "impression", "click", "view_end", "like", "unlike", "fav", "unfav",
    "comment", "share", "follow", "unfollow", "hide", "profile_enter",
)  # fmt: skip

TIME = pa.timestamp("us", "UTC")

# An event further ahead of its ingest_time than this comes from a wrong clock and is quarantined; in the live line also one of
# which a time lies further past its landing.
MAX_CLOCK_AHEAD = dt.timedelta(minutes=5)

# Times outside are not events of a feed; they would also leave what Parquet, Spark and ClickHouse share (µs, int64).
EARLIEST = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
LATEST = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


def _field(name: str, kind: pa.DataType, comment: str, required: bool = False) -> pa.Field:
    # Delta's own nullability is left open: a required column is enforced by the contract, which quarantines.
    return pa.field(name, kind, metadata={"comment": comment, "required": "yes" if required else "no"})


EVENT_FIELDS = (
    _field("event_id", pa.string(), "unique per client event, 1 to 200 characters; a repeat is dropped", True),
    _field("user_id", pa.int64(), "who; any int64", True),
    _field("note_id", pa.int64(), "what was shown; any int64", True),
    _field("action", pa.string(), "one of ACTIONS", True),
    _field("event_time", TIME, "when it happened on the device", True),
    _field("ingest_time", TIME, "when the platform received it; event_time where missing"),
    _field("dwell_ms", pa.int32(), "only on view_end: how long the note was open, ms, 0 to 2^31-1"),
    _field("request_id", pa.string(), "which feed request displayed the note"),
    _field("channel", pa.string(), "which surface: homefeed, search, ..."),
    _field("position", pa.int32(), "which slot of the request, from 0"),
    _field(
        "context", pa.string(), "further columns as one JSON object, untouched (device, app_version, author_id, ...)"
    ),
)

# What boards and SQL jobs read of the context: a log names them as further columns, intake makes them (context.py).
TYPED_FIELDS = (
    _field("device", pa.string(), "of the context: what it was displayed on, ios or android say"),
    _field("author_id", pa.int64(), "of the context: who wrote the note; a text that is no int64 as its key"),
    _field("topic", pa.string(), "of the context: what the note is about"),
    _field("device_id", pa.string(), "of the context: which phone or tablet"),
    _field("app_version", pa.string(), "of the context: the version of the app"),
)
TYPED_NAMES = tuple(field.name for field in TYPED_FIELDS)

EVENT_SCHEMA = pa.schema([*EVENT_FIELDS, *TYPED_FIELDS])


def _completed(rows: pa.Table) -> pa.Table:
    from assets.events import context  # numba's kernels: not for who only asks what an event is

    return context.completed(rows)


EVENTS = Table(
    "events", pa.schema([HOUR, *EVENT_SCHEMA]), "Good events, typed, one row an event_id; hour of event_time.",
    completed=_completed,
)  # fmt: skip

RAW_EVENTS = Table(
    "raw_events",
    pa.schema(
        [
            HOUR,
            _field("source", pa.string(), "the landed file's fingerprint, see the table sources", True),
            _field("row", pa.int64(), "line (or row) of that file, from 1", True),
            _field("body", pa.binary(), "the line as received; a Parquet row as JSON", True),
        ]
    ),
    "Rows as received, append once; hour of the event time that a row claims, see intake.py.",
)

QUARANTINE = Table(
    "quarantine",
    pa.schema(
        [*RAW_EVENTS.schema, _field("reason", pa.string(), "what broke the contract: `column: what is wrong`", True)]
    ),
    "Rows that broke the contract, with the reason and the bytes as received.",
)

SOURCES = Table(
    "sources",
    pa.schema(
        [
            _field("source", pa.string(), "fingerprint of content and mapping, 16 hex digits", True),
            _field("name", pa.string(), "file name"),
            _field("format", pa.string(), "jsonl, csv or parquet"),
            _field("header", pa.string(), "CSV: the header line; else null"),
            _field("mapping", pa.string(), "text of the mapping file (TOML); null for native events"),
            _field("rows", pa.int64(), "rows landed"),
            _field("bytes", pa.int64(), "file size"),
            _field("landed_at", TIME, "when it was taken in; never before the one taken in last, whatever the machine's clock says"),
            _field("live", pa.bool_(), "by the live labeler, which holds the rows' clocks against landed_at"),
            _field("after", pa.int64(), "its rows are those after this line: of a file that is taken in parts, or was appended to"),
            _field("last", pa.int64(), "the line after which the file goes on, should it be appended to; null where it cannot be"),
            _field("repeated_keys", pa.int64(), "rows of JSON that hold a key twice; the last value counts"),
        ]
    ),
    "One row a landed file: how to read its raw rows again.",
    partitioned=False,
)

ID_KEYS = Table(
    "id_keys",
    pa.schema(
        [
            _field("kind", pa.string(), "user or note", True),
            _field("key", pa.int64(), "the stable int64 key used everywhere else", True),
            _field("original", pa.string(), "the id as the log spelled it", True),
        ]
    ),
    "Originals of string ids.",
    partitioned=False,
)

MAX_ID_LENGTH = 200
INT32_MAX = 2**31 - 1


def violations(events: pl.DataFrame, landed_at: dt.datetime | pl.Series | None = None) -> pl.Series:
    """The first broken rule of each row as `column: what is wrong`, null for a good row.

    events: typed rows, one column for each of EVENT_FIELDS (position and dwell_ms as int64, so that their range can be
    checked here), ingest_time already filled with event_time where it was missing. landed_at: when the live line took the
    rows in, one moment or one a row (null: not by the live line); None for a bounded log, which may be of any time.
    """
    rules = RULES
    earliest = landed_at.min() if isinstance(landed_at, pl.Series) else landed_at
    # Hardly ever is there one: the greatest times tell it sooner than each row does. Compared by polars, for a time may be any int64.
    greatest = pl.max_horizontal(pl.col("event_time").max(), pl.col("ingest_time").max())
    if earliest is not None and events.select(greatest > earliest + MAX_CLOCK_AHEAD).item():
        rules = [*RULES, *LANDING_RULES]
        column = landed_at if isinstance(landed_at, pl.Series) else pl.lit(landed_at)
        events = events.with_columns(column.cast(pl.Datetime("us", "UTC")).alias("landed_at"))
    # Whether a rule is broken at all is told five times sooner than by which row, and mostly none or a few rows break one.
    any_broken = events.select(broken.any().alias(why) for broken, why in rules).row(0)
    rules = [rule for rule, some in zip(rules, any_broken, strict=True) if some]
    reasons = pl.Series("reason", [None], pl.String).new_from_index(0, len(events))
    if not rules:
        return reasons
    at = events.select(pl.arg_where(pl.any_horizontal(broken for broken, _ in rules)))[:, 0]
    first = events[at].select(pl.coalesce(pl.when(broken).then(pl.lit(why)) for broken, why in rules))[:, 0]
    return reasons.scatter(at, first)


def _landing_rules() -> list[tuple[pl.Expr, str]]:
    said = f"more than {MAX_CLOCK_AHEAD.seconds // 60} minutes past its landing (wrong clock)"
    return [(pl.col(name) - pl.col("landed_at") > MAX_CLOCK_AHEAD, f"{name}: {said}") for name in ("event_time", "ingest_time")]


def _rules() -> list[tuple[pl.Expr, str]]:
    col = pl.col
    length = col("event_id").str.len_chars()
    rules = [(col(f.name).is_null(), f"{f.name}: missing") for f in EVENT_FIELDS if f.metadata[b"required"] == b"yes"]
    rules += [
        ((length < 1) | (length > MAX_ID_LENGTH), f"event_id: not 1 to {MAX_ID_LENGTH} characters"),
        (~col("action").is_in(ACTIONS), "action: not an action of the contract"),
    ]
    for name in ("event_time", "ingest_time"):
        outside = (col(name) < EARLIEST) | (col(name) >= LATEST)
        rules.append((outside, f"{name}: outside of {EARLIEST.year} to {LATEST.year} (integers count microseconds)"))
    ahead = col("event_time") - col("ingest_time") > MAX_CLOCK_AHEAD
    rules += [
        (ahead, f"event_time: more than {MAX_CLOCK_AHEAD.seconds // 60} minutes ahead of ingest_time (wrong clock)"),
        ((col("dwell_ms") < 0) | (col("dwell_ms") > INT32_MAX), "dwell_ms: not 0 to 2^31-1"),
        (col("dwell_ms").is_not_null() & (col("action") != "view_end"), "dwell_ms: only view_end has one"),
        (~(col("context").str.starts_with("{") & col("context").str.ends_with("}")), "context: not a JSON object"),
        ((col("position") < 0) | (col("position") > INT32_MAX), "position: not 0 to 2^31-1"),
    ]
    return rules


RULES = _rules()
LANDING_RULES = _landing_rules()  # of the live line alone
