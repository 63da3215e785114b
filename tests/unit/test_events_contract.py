"""The contract itself: every rule refuses what it should, and docs/contract.md says what the code does."""

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from assets.events import contract

DOC = (Path(__file__).resolve().parents[2] / "docs" / "contract.md").read_text()
NOON = dt.datetime(2026, 1, 5, 12, tzinfo=dt.UTC)
GOOD = {
    "event_id": "e1", "user_id": -(2**63), "note_id": 2**63 - 1, "action": "view_end", "event_time": NOON,
    "ingest_time": NOON, "dwell_ms": 0, "request_id": None, "channel": None, "position": 0, "context": None,
}  # fmt: skip
TIME = pl.Datetime("us", "UTC")
TYPES = {
    "user_id": pl.Int64,
    "note_id": pl.Int64,
    "dwell_ms": pl.Int64,
    "position": pl.Int64,
    "event_time": TIME,
    "ingest_time": TIME,
}
SCHEMA = {field.name: TYPES.get(field.name, pl.String) for field in contract.EVENT_FIELDS}


def reason(**changes):
    return contract.violations(pl.DataFrame([GOOD | changes], schema=SCHEMA))[0]


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"action": "like", "dwell_ms": None}, {"event_id": "x" * 200}, {"dwell_ms": 2**31 - 1},
        {"event_time": NOON + contract.MAX_CLOCK_AHEAD},
        {"event_time": contract.EARLIEST, "ingest_time": contract.LATEST - dt.timedelta(microseconds=1)},
    ],
)  # fmt: skip
def test_what_just_fits_is_accepted(changes):
    assert reason(**changes) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"event_id": None}, "event_id: missing"),
        ({"user_id": None}, "user_id: missing"),
        ({"note_id": None}, "note_id: missing"),
        ({"action": None}, "action: missing"),
        ({"event_time": None}, "event_time: missing"),
        ({"event_id": ""}, "event_id: not 1"),
        ({"event_id": "x" * 201}, "event_id: not 1"),
        ({"action": "Click"}, "action: not an action"),
        ({"event_time": contract.EARLIEST - dt.timedelta(microseconds=1)}, "event_time: outside"),
        ({"event_time": contract.LATEST, "ingest_time": contract.LATEST}, "event_time: outside"),
        ({"ingest_time": contract.LATEST}, "ingest_time: outside"),
        ({"event_time": NOON + contract.MAX_CLOCK_AHEAD + dt.timedelta(microseconds=1)}, "event_time: more than 5 min"),
        ({"dwell_ms": -1}, "dwell_ms: not 0"),
        ({"dwell_ms": 2**31}, "dwell_ms: not 0"),
        ({"action": "click"}, "dwell_ms: only view_end"),
        ({"position": -1}, "position: not 0"),
        ({"position": 2**31}, "position: not 0"),
        ({"context": "[1]"}, "context: not a JSON object"),
    ],
)
def test_each_rule_refuses(changes, why):
    assert (reason(**changes) or "").startswith(why)


def test_the_page_has_the_table_of_the_code():
    rows = [
        f"| `{f.name}` | {f.type} | {f.metadata[b'required'].decode()} | {f.metadata[b'comment'].decode()} |"
        for f in contract.EVENT_FIELDS
    ]
    assert "\n".join(rows) in DOC


def test_the_page_names_every_action_in_order_and_every_rule():
    assert ", ".join(contract.ACTIONS) in DOC
    listed = [line.removeprefix("- ") for line in DOC.splitlines() if line.startswith("- ")]
    rules = [why for _, why in contract.RULES]
    assert [line for line in listed if line in rules] == rules
    landing = [why for _, why in contract.LANDING_RULES]
    assert [line for line in listed if line in landing] == landing
