-- name: events
-- description: Good events, typed, one row an event_id; as the Delta table `events`.
-- One partition an hour, so that REPLACE PARTITION swaps an hour. The deduplication window makes a repeated
-- append (same insert_deduplication_token) change nothing; it is 0, hence off, unless the table says so.
CREATE TABLE IF NOT EXISTS events
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    event_id String CODEC(ZSTD),
    user_id Int64 CODEC(ZSTD),
    note_id Int64 CODEC(ZSTD),
    action LowCardinality(String),
    event_time DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    ingest_time Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    dwell_ms Nullable(Int32) CODEC(ZSTD),
    request_id Nullable(String) CODEC(ZSTD),
    channel LowCardinality(Nullable(String)),
    position Nullable(Int32) CODEC(ZSTD),
    context Nullable(String) CODEC(ZSTD)
)
ENGINE = MergeTree
PARTITION BY hour
ORDER BY (action, event_time)
SETTINGS non_replicated_deduplication_window = 1000;
