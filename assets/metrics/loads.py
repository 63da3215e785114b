"""Which rows of ClickHouse are visible: every row bears the number of its load, and one insert says which load holds an hour.

Here: publishing a load, what is visible, dropping what nobody sees any more, and one writer at a time. Not here: rows
(loader.py), the tables (schema.py, sql/clickhouse/tables/07_loads.sql).

ClickHouse changes one table at a time; REPLACE PARTITION swaps one hour of one table, and no materialized view sees it. So
nothing is swapped: the new rows of all tables lie beside the old ones, the views feed the aggregates with them, and one
insert into `loads` shows all of it, for every hour of a window, at one moment.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.lake import Lake
from assets.metrics.schema import AGGREGATES, FEED, PARTS, TABLES

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

NO_MOMENT = -1  # of a lake that keeps no commit log
# A reader that has looked up what is visible still needs it while its query runs; and an undo within it is one insert.
GRACE = dt.timedelta(hours=1)
LOCK_TIMEOUT_S = 900.0


class LoadError(Exception):
    """A load that did not come out as Delta has it; the message says what to do."""


@dataclass(frozen=True)
class Visible:
    """load: number of the load that holds an hour. moment: of the commit log, up to which that load held it at first."""

    load: int
    moment: int


def fresh_number() -> int:
    """A number for a load, never used before: µs since the epoch, so that its age can be told."""
    return time.time_ns() // 1000


def visible(client: Client, part: str = FEED) -> dict[dt.datetime, Visible]:
    """What readers see of a part's tables, by hour."""
    sql = "SELECT hour, load, moment FROM visible_loads WHERE part = {part:String}"
    rows = client.query(sql, parameters={"part": part}).result_rows
    return {utc(hour): Visible(load, moment) for hour, load, moment in rows}


def publish(
    client: Client, hours: Iterable[dt.datetime], load: int | Mapping[dt.datetime, int], moment: int, reason: str,
    part: str = FEED,
) -> None:  # fmt: skip
    """Show `load` (of each hour its own, in a mapping) in these hours, in all tables and aggregates of the part at once; what
    was shown stays for GRACE."""
    seq = _next_seq(client)
    of = load.__getitem__ if isinstance(load, Mapping) else lambda hour: load
    rows = [[part, hour, of(hour), moment, seq, reason] for hour in hours]
    if rows:  # one block into one part: it is there or not
        client.insert("loads", rows, column_names=["part", "hour", "load", "moment", "seq", "reason"],
                      settings={"max_insert_block_size": len(rows) + 1})  # fmt: skip


def _next_seq(client: Client) -> int:
    """Greater than any before: the clock's ns, as it always was, unless the clock was set back since."""
    (newest,) = client.query("SELECT max(seq) FROM loads").result_rows[0]
    return max(time.time_ns(), newest + 1)


def drop(client: Client, tables: Iterable[str], hours: Iterable[dt.datetime], load: int) -> None:
    """Take the rows of a load out of these tables and aggregates; hours that have none are no error."""
    hours = list(hours)
    for table in tables:
        if table in AGGREGATES:
            _delete(client, AGGREGATES[table].table, [(hour, load) for hour in hours], AGGREGATES[table].mine)
        else:
            _drop_partitions(client, table, [partition(hour, load) for hour in hours])


def sweep(client: Client, grace: dt.timedelta = GRACE) -> int:
    """Take out the rows that nobody sees and that are older than `grace`: of replaced loads, and of loads that were killed.

    Returns of how many (hour, load) of all tables and aggregates.
    """
    shown = {(hour, one.load) for part in PARTS for hour, one in visible(client, part).items()}
    oldest = fresh_number() - grace // dt.timedelta(microseconds=1)
    gone = 0

    def unseen(held: list[tuple[dt.datetime, int]]) -> list[tuple[dt.datetime, int]]:
        return [one for one in held if one not in shown and one[1] < oldest]

    for table in TABLES:
        old = unseen(_partitions(client, table.name))
        _drop_partitions(client, table.name, [partition(hour, load) for hour, load in old])
        gone += len(old)
    for name in sorted({one.table for one in AGGREGATES.values()}):
        found = client.query(f"SELECT DISTINCT hour, load FROM {name}").result_rows
        old = unseen([(utc(hour), load) for hour, load in found])
        _delete(client, name, old)
        gone += len(old)
    return gone


def _partitions(client: Client, table: str) -> list[tuple[dt.datetime, int]]:
    """The hours and loads of which a table has rows."""
    found = client.query(
        "SELECT DISTINCT partition_id FROM system.parts WHERE database = currentDatabase() AND active AND table = {table:String}",
        parameters={"table": f"{table}_all"},
    ).result_rows
    return [(dt.datetime.fromtimestamp(int(hour), dt.UTC), int(load)) for (one,) in found for hour, load in [one.split("-")]]


def _drop_partitions(client: Client, table: str, ids: list[str]) -> None:
    for i in range(0, len(ids), 200):
        drops = ", ".join(f"DROP PARTITION ID '{one}'" for one in ids[i : i + 200])
        client.command(f"ALTER TABLE {table}_all {drops}")


def _delete(client: Client, table: str, held: list[tuple[dt.datetime, int]], mine: str = "1") -> None:
    """Mask rows of an aggregate's table for which `mine` holds; the next merges leave them out. Its partitions are months, which hold other loads too."""
    for i in range(0, len(held), 200):
        pairs = ", ".join(f"({int(hour.timestamp())}, {load})" for hour, load in held[i : i + 200])
        client.command(f"DELETE FROM {table} WHERE {mine} AND (toUnixTimestamp(hour), load) IN ({pairs})")


def outdated(client: Client, part: str = FEED) -> set[int]:
    """Loads of a part from before its tables had their typed columns: what they hold is loaded again (20_typed.sql)."""
    if part != FEED:
        return set()
    return {load for (load,) in client.query("SELECT DISTINCT load FROM outdated_loads").result_rows}


@contextmanager
def alone(lake: Lake) -> Iterator[None]:
    """Change what is visible alone: a window's load and the live labeler's batches must know of each other.

    On a local lake only; one on an object store has no live labeler. Raises LoadError after LOCK_TIMEOUT_S.
    """
    if lake.log is None:
        yield
        return
    lake.log.root.mkdir(parents=True, exist_ok=True)
    with open(lake.log.root / "clickhouse.lock", "a+") as handle:
        end = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise LoadError(
                        f"another load into ClickHouse has held {handle.name} for {LOCK_TIMEOUT_S / 60:g} minutes; look "
                        "what it does, end it, and load again"
                    ) from None
                time.sleep(0.01)
        yield


def partition(hour: dt.datetime, load: int) -> str:
    """The id of a partition (hour, load): ClickHouse takes the number behind a DateTime, seconds since the epoch."""
    return f"{int(hour.timestamp())}-{load}"


def utc(time: dt.datetime) -> dt.datetime:
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
