"""Dagster's SQLite event log, storing a batch of asset events in one transaction.

One run over hundreds of hourly partitions writes an event for each asset and partition; Dagster's own SQLite storage opens
two connections and commits twice for each of them. Here: that write, batched; files, schema and every read stay Dagster's,
so a home works with either class. Not here: where the log lies (instance.py).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dagster import EventLogEntry
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData

# Dagster hands over batches only when its environment variable asks for them, whatever the storage can do.
BATCH_SETTING, BATCH_SIZE = "DAGSTER_EVENT_BATCH_SIZE", "1000"


class BatchedSqliteEventLog(SqliteEventLogStorage):
    """SqliteEventLogStorage whose `store_event_batch` commits once a batch instead of twice an event."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> BatchedSqliteEventLog:
        os.environ.setdefault(BATCH_SETTING, BATCH_SIZE)
        return cls(inst_data=inst_data, **config_value)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of any runs: asset events in one transaction a run and one of the index, the others one by one."""
        runs, others = defaultdict(list), []
        for event in events:
            asset_event = event.is_dagster_event and event.dagster_event_type in ASSET_EVENTS
            (runs[event.run_id] if asset_event else others).append(event)
        for run_id, batch in runs.items():
            rows = [self._event_to_row(event) for event in batch]
            # The index first: every run shares it, so it is the write that may fail ("database is locked"), and Dagster
            # then stores each event alone, which must not find the batch in the run's own file already.
            self._mirror(batch, rows)
            with self.run_connection(run_id) as conn:
                conn.execute(SqlEventLogStorageTable.insert(), rows)
        for event in others:
            self.store_event(event)

    def _mirror(self, events: Sequence[EventLogEntry], rows: Sequence[dict[str, Any]]) -> None:
        """The index shard answers for assets across runs: it holds the events again, their tags, and each asset's newest."""
        with self.index_transaction() as conn:
            ids = [conn.execute(SqlEventLogStorageTable.insert().values(**row)).inserted_primary_key[0] for row in rows]
            self._store_asset_event_tags(conn, events, ids)
            newest = {
                (event.dagster_event.asset_key, event.dagster_event_type): (event, event_id)
                for event, event_id in zip(events, ids, strict=True)
            }
            for event, event_id in newest.values():
                self._store_asset_event(conn, event, event_id)
