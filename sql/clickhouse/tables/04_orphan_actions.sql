-- name: orphan_actions
-- description: Actions that belong to no session. As the Delta table.
CREATE TABLE IF NOT EXISTS orphan_actions
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    event_id String CODEC(ZSTD),
    user_id Int64 CODEC(ZSTD),
    note_id Int64 CODEC(ZSTD),
    action LowCardinality(String),
    event_time DateTime64(6, 'UTC') CODEC(Delta, ZSTD)
)
ENGINE = MergeTree
PARTITION BY hour
ORDER BY (action, event_time)
SETTINGS non_replicated_deduplication_window = 1000;
