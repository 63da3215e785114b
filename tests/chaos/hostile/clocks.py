"""Events of wrong clocks: good ones that follow must not be late, nor hours without end come into being.

Here: single events of 2099 and 2000, clocks some minutes ahead. Not here: times that are none (files.py).
"""

from __future__ import annotations

import datetime as dt
import json

from tests.chaos.hostile import doors, wire
from tests.chaos.hostile.attack import attack
from tests.chaos.hostile.house import House, column, event, in_time, land, lines, now, taken, works

FAR = dt.datetime(2099, 6, 1, tzinfo=dt.UTC)
MOST_PARTITIONS = 2_000


def _then_good(house: House, odd: list[dict]) -> str | None:
    """Good events, the odd ones, good ones again: none of the last is late."""
    if seen := works(house):
        return f"before the attack: {seen}"
    land(house.landing, "odd.jsonl", lines(odd))
    in_time(lambda: {one["event_id"] for one in odd} & {*column(house, "events", "event_id")} or column(house, "quarantine", "reason"), 10)
    return works(house) or works(house, at=now() - dt.timedelta(seconds=60))


@attack("time", verb="live", fresh=True)
def event_of_2099(house):
    """One event whose device and platform both say 2099."""
    return _then_good(house, [event(FAR)])


@attack("time", verb="live", fresh=True)
def event_of_2099_without_ingest_time(house):
    """One event of 2099 that says nothing of when it was received."""
    return _then_good(house, [event(FAR, ingest_time=None)])


@attack("time", verb="live", fresh=True)
def event_of_2099_received_now(house):
    """One event of 2099, received now; one of now, received in 2099; one hour ahead in both."""
    ahead = now() + dt.timedelta(hours=1)
    return _then_good(house, [event(now(), event_time=FAR.isoformat()), event(now(), ingest_time=FAR.isoformat()), event(ahead), event(ahead, ingest_time=None)])


@attack("time", verb="live", fresh=True)
def clocks_290_seconds_ahead(house):
    """10 of 3,010 events are 290 s ahead of their receipt, each in a file of its time; no other is late for them."""
    # All within the delay of two minutes before the event of now that warmed the house: that one makes none of them late.
    begun = now() - dt.timedelta(seconds=100)
    wanted: set[str] = set()
    for part in range(10):
        start = begun + dt.timedelta(seconds=10 * part)
        good = [event(start + dt.timedelta(seconds=number / 30)) for number in range(300)]
        fast = event(start + dt.timedelta(seconds=290), ingest_time=start.isoformat())
        wanted |= {one["event_id"] for one in good}
        land(house.landing, f"part-{part:02}.jsonl", lines([fast, *good]))
        in_time(lambda wanted=frozenset(wanted): wanted <= {*column(house, "events", "event_id"), *column(house, "late_events", "event_id")}, 6)
    return taken(house, wanted)


@attack("time", verb="live", fresh=True)
def event_of_2000_first(house):
    """The first event of a home is of 2000: good ones of now are labeled."""
    land(house.landing, "old.jsonl", lines([event(dt.datetime(2000, 1, 1, 1, tzinfo=dt.UTC))]))
    in_time(lambda: column(house, "events", "event_id"), 10)
    return works(house)


@attack("time", fresh=True)
def event_of_2000_and_dagster(house):
    """One event of 2000 makes 235,846 hourly partitions, which no page of Dagster's can show."""
    if seen := works(house, 60):
        return seen
    land(house.landing, "old.jsonl", lines([event(dt.datetime(2000, 1, 1, 1, tzinfo=dt.UTC), ingest_time=now().isoformat())]))
    if seen := works(house):
        return seen
    port = house.ports["dagster"]
    json_type = {"Content-Type": "application/json"}
    wire.post(port, "/graphql", doors.graphql_body('mutation { reloadRepositoryLocation(repositoryLocationName: "glasshouse") { __typename } }'), json_type, 60)
    reply = wire.post(port, "/graphql", doors.graphql_body('{ assetNodes(assetKeys: [{path: ["events"]}]) { partitionStats { numPartitions } } }'), json_type, 60)
    try:
        count = json.loads(reply.body)["data"]["assetNodes"][0]["partitionStats"]["numPartitions"]
    except (ValueError, KeyError, IndexError, TypeError):
        return f"Dagster does not say how many partitions there are: {reply.said}"
    return f"{count:,} partitions" if count > MOST_PARTITIONS else None
