"""The tables that the labeler writes, column by column.

Here: declarations. Not here: how rows come about (fold.py).
"""

from __future__ import annotations

import pyarrow as pa

from assets.attribution.rules import LABELS as FLAGS
from assets.events.contract import EVENTS, TIME, TYPED_FIELDS
from assets.lake import HOUR, Table

KEY = [pa.field("user_id", pa.int64()), pa.field("note_id", pa.int64())]
SPAN = [pa.field("session_start", TIME), pa.field("session_end", TIME)]
LABELS = [pa.field("dwell_ms", pa.int64()), *(pa.field(name, pa.bool_()) for name in FLAGS)]
CONTEXT = [
    pa.field("request_id", pa.string()),
    pa.field("channel", pa.string()),
    pa.field("position", pa.int32()),
    pa.field("context", pa.string()),
    *TYPED_FIELDS,
]

IMPRESSION_SESSIONS = Table(
    "impression_sessions",
    pa.schema(
        [HOUR, *KEY, *SPAN, pa.field("impressions", pa.int32()), pa.field("clicked", pa.bool_()),
         pa.field("first_click_time", TIME), *LABELS, *CONTEXT]
    ),
    "One row a display window [session_start, session_end): was it clicked, and what happened without a click. "
    "Samples of the click model. Hour of session_start.",
    completed=EVENTS.completed,
)  # fmt: skip

CLICK_SESSIONS = Table(
    "click_sessions",
    pa.schema(
        [HOUR, *KEY, *SPAN, pa.field("clicks", pa.int32()), pa.field("attributed", pa.bool_()),
         pa.field("impression_session_start", TIME), *LABELS, *CONTEXT]
    ),
    "One row a click window: what the reader did after the click. Samples of the engagement models. "
    "Hour of session_start.",
    completed=EVENTS.completed,
)  # fmt: skip

ORPHAN_ACTIONS = Table(
    "orphan_actions",
    pa.schema([HOUR, pa.field("event_id", pa.string()), *KEY, pa.field("action", pa.string()), pa.field("event_time", TIME)]),
    "Actions that belong to no session. Hour of event_time.",
)

LATE_EVENTS = Table(
    "late_events",
    EVENTS.schema,
    "Accepted events that arrived behind the watermark and are in no session until their hour is recomputed.",
    completed=EVENTS.completed,
)

SHORT_CLICKS = Table(
    "short_clicks",
    pa.schema(
        [HOUR, *KEY, *SPAN, pa.field("clicks", pa.int32()), pa.field("dwell_ms", pa.int64())]
    ),
    "Click windows that are no clicks, for the rules ask for more dwell than they have (valid_click_dwell). What happened in "
    "them counts for the display, or is an orphan. Hour of session_start.",
)  # fmt: skip

LABELED_HOURS = Table(
    "labeled_hours",
    pa.schema(
        [HOUR, pa.field("window_us", pa.int64()), pa.field("events_version", pa.int64()),
         pa.field("labeled_by", pa.string()), pa.field("rules", pa.string()), pa.field("code", pa.string())]
    ),
    "The labeler's own book: an hour stands here once all sessions that start in it are in the lake, with the length "
    "of a session that was used, the version of `events` that was read (null where the live labeler did it), the fingerprint "
    "of the rules (see rule_versions; several, with commas, where they changed while it was open) and that of the code.",
)  # fmt: skip

RULE_VERSIONS = Table(
    "rule_versions",
    pa.schema(
        [pa.field("rules", pa.string()), pa.field("version", pa.string()), pa.field("text", pa.string()),
         pa.field("first_used_at", TIME)]
    ),
    "The rules that labels were made by: the text of each fingerprint, once, as a rules file.",
    partitioned=False,
)  # fmt: skip
