"""ClickHouse's tables and how they come about: sql/clickhouse/tables/*.sql, run in order, each once.

Here: which table mirrors which Delta table, and the migrations. Not here: rows (loader.py),
queries (sql/clickhouse/queries/).

A change to a table is a new file with the next number; a file that has run is never edited.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS, LATE_EVENTS, ORPHAN_ACTIONS
from assets.events.contract import EVENTS, QUARANTINE
from assets.lake import HOUR, Table
from assets.orders.tables import ORDER_ATTRIBUTIONS

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FOLDER = Path(__file__).resolve().parents[2] / "sql" / "clickhouse" / "tables"

# Of the rows of sql/lake/spam_accounts.sql what the pages show.
SPAM_ACCOUNTS = Table(
    "spam_accounts",
    pa.schema(
        [HOUR, ("user_id", pa.int64()), ("reasons", pa.string()), ("score", pa.float64()), ("actions", pa.int64()),
         ("active_minutes", pa.int64()), ("accounts_on_device", pa.int64())]
    ),
    "Accounts that look like spam as of the end of an hour.",
)  # fmt: skip

# What ClickHouse holds: the Delta tables of these names. Tables of one part are loaded and shown together; orders and spam
# change at other times than what the labeler writes.
FEED, ORDERS, SPAM = "feed", "orders", "spam"
PARTS = {
    FEED: (EVENTS, IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS, LATE_EVENTS, QUARANTINE),
    ORDERS: (ORDER_ATTRIBUTIONS,),
    SPAM: (SPAM_ACCOUNTS,),
}
TABLES = tuple(table for tables in PARTS.values() for table in tables)



@dataclass(frozen=True)
class Aggregate:
    """What materialized views sum up. source: the table whose rows feed it. table: where it lies, with the rows of every load; of that
    table the rows for which the SQL condition `mine` holds."""

    source: str
    table: str
    mine: str = "1"


# The view of an aggregate's name shows what is visible of it.
AGGREGATES = {
    "event_totals": Aggregate(EVENTS.name, "feed_totals_all", "subject = 'events'"),
    "user_totals": Aggregate(EVENTS.name, "user_totals_all"),
    "display_totals": Aggregate(IMPRESSION_SESSIONS.name, "feed_totals_all", "subject = 'displays'"),
    "click_totals": Aggregate(CLICK_SESSIONS.name, "feed_totals_all", "subject IN ('clicks', 'stray clicks')"),
    "late_totals": Aggregate(LATE_EVENTS.name, "feed_totals_all", "subject = 'late events'"),
    "orphan_totals": Aggregate(ORPHAN_ACTIONS.name, "feed_totals_all", "subject = 'orphan actions'"),
}

# Before it, a dropped partition of a plain MergeTree could come back after a restart (ClickHouse issue 107605).
OLDEST_SERVER = "26.6"

_RECORD = """
CREATE TABLE IF NOT EXISTS schema_migrations (file String, sha256 String, applied_at DateTime('UTC') DEFAULT now())
ENGINE = MergeTree ORDER BY file
"""


class SchemaError(Exception):
    """The tables cannot be brought to what the files say; the message names the file and what to do."""


def migrate(client: Client, folder: Path = FOLDER) -> list[str]:
    """Run the files that have not run yet, in order of name; returns their names. A second call does nothing.

    Statements are repeatable (IF NOT EXISTS), so a crash between a file and its record is mended by the next call.
    Raises SchemaError for a file edited or gone after it ran, and for a server older than OLDEST_SERVER.
    """
    if not client.min_version(OLDEST_SERVER):
        raise SchemaError(
            f"ClickHouse {client.server_version} is older than {OLDEST_SERVER}, where a dropped partition could come "
            "back after a restart; upgrade the server"
        )
    client.command(_RECORD)
    ran = dict(client.query("SELECT DISTINCT file, sha256 FROM schema_migrations").result_rows)
    files = {path.name: path.read_text() for path in sorted(folder.glob("*.sql"))}
    if gone := sorted(set(ran) - set(files)):
        raise SchemaError(f"{folder / gone[0]} ran on this database and is gone; restore it, or start a new database")
    done = []
    for name, text in files.items():
        if name in ran:
            if ran[name] != fingerprint(text):
                raise SchemaError(
                    f"{folder / name} was edited after it ran on this database; put the change into a new file with "
                    "the next number (ALTER TABLE ...), or start a new database"
                )
            continue
        for statement in statements(text):
            client.command(statement)
        client.insert("schema_migrations", [[name, fingerprint(text)]], column_names=["file", "sha256"])
        done.append(name)
    return done


def fed_by(table: str) -> list[str]:
    """The table itself and the aggregates that its rows feed."""
    return [table, *(name for name, one in AGGREGATES.items() if one.source == table)]


def retain(client: Client, rows: int | None, aggregates: int | None) -> None:
    """Delete rows and aggregates (and with them what `loads` says) so many days after their hour; None keeps for ever."""
    kept = {f"{table.name}_all": rows for table in TABLES} | {one.table: aggregates for one in AGGREGATES.values()}
    for name, days in kept.items():
        change = "REMOVE TTL" if days is None else f"MODIFY TTL hour + INTERVAL {int(days)} DAY"
        found = client.query(
            "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = {name:String}", parameters={"name": name}
        ).result_rows[0][0]
        if (days is None) == ("TTL" not in found) and (days is None or f"toIntervalDay({int(days)})" in found):
            continue
        client.command(f"ALTER TABLE {name} {change}")


def statements(text: str) -> list[str]:
    """The statements of a file: each ends with a semicolon at the end of a line. Comment lines are dropped."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [part.strip() for part in re.split(r";\s*(?:\n|$)", "\n".join(lines)) if part.strip()]


def fingerprint(text: str) -> str:
    """sha256 of what a file does: comments and white space do not count."""
    return hashlib.sha256(" ".join(";".join(statements(text)).split()).encode()).hexdigest()
