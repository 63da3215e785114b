"""A small lake for the notebooks' tests: made-up readers, labelled by the labeler itself.

Here: rows from a seed. Not here: assertions.
"""

import datetime as dt
import json
import random

import pyarrow as pa
import pyarrow.compute as pc

from assets.attribution.label import label
from assets.attribution.rules import Rules
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS, LATE_EVENTS, ORPHAN_ACTIONS
from assets.events.context import retyped
from assets.events.contract import EVENT_SCHEMA, EVENTS, QUARANTINE
from assets.lake import Lake, Window

START = dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC)
HOURS = 3
WINDOW = Window(START, START + dt.timedelta(hours=HOURS))


def events(readers: int = 400, seed: int = 7) -> pa.Table:
    """Three feed requests a reader, eight displays each; a click rate that falls with the position."""
    rnd, rows = random.Random(seed), []

    def add(user, note, action, seconds, **more):
        time = START + dt.timedelta(seconds=seconds)
        rows.append(
            {"event_id": f"e{len(rows)}", "user_id": user, "note_id": note, "action": action, "event_time": time,
             "ingest_time": time, **more}
        )  # fmt: skip

    for user in range(readers):
        for request in range(3):
            begin = rnd.uniform(0, HOURS * 3600 - 3600)
            for position in range(8):
                note, shown = rnd.randrange(500), begin + 2 * position
                context = {
                    "request_id": f"r{user}-{request}", "channel": rnd.choice(["homefeed", "search"]),
                    "position": position, "context": json.dumps({"device": "ios"}),
                }  # fmt: skip
                add(user, note, "impression", shown, **context)
                if rnd.random() < 0.3 - 0.03 * position:
                    clicked = shown + rnd.lognormvariate(1.5, 1)
                    add(user, note, "click", clicked, **context)
                    if rnd.random() < 0.3:
                        add(user, note, "like", clicked + 9)
                    add(user, note, "view_end", clicked + 20, dwell_ms=rnd.randrange(500, 40_000))
    return retyped(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA))


def fill(lake: Lake) -> None:
    """Write events, sessions, orphans, late events and quarantine of WINDOW."""
    accepted = events()
    labels = label(accepted, Rules())
    hour = pc.floor_temporal(accepted["event_time"], unit="hour")
    lake.replace_window(EVENTS, accepted.append_column("hour", hour), WINDOW)
    lake.replace_window(IMPRESSION_SESSIONS, labels.impression_sessions, WINDOW)
    lake.replace_window(CLICK_SESSIONS, labels.click_sessions, WINDOW)
    lake.replace_window(ORPHAN_ACTIONS, labels.orphan_actions, WINDOW)
    for table in (LATE_EVENTS, QUARANTINE):
        lake.replace_window(table, table.empty(), WINDOW)
