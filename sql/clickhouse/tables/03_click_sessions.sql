-- name: click_sessions
-- description: One row a click window: what the reader did after the click. As the Delta table.
CREATE TABLE IF NOT EXISTS click_sessions
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    user_id Int64 CODEC(ZSTD),
    note_id Int64 CODEC(ZSTD),
    session_start DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    session_end DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    clicks Int32 CODEC(ZSTD),
    attributed Bool,
    impression_session_start Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    dwell_ms Int64 CODEC(ZSTD),
    like Bool,
    fav Bool,
    comment Bool,
    share Bool,
    follow Bool,
    hide Bool,
    profile_enter Bool,
    request_id Nullable(String) CODEC(ZSTD),
    channel LowCardinality(Nullable(String)),
    position Nullable(Int32) CODEC(ZSTD),
    context Nullable(String) CODEC(ZSTD)
)
ENGINE = MergeTree
PARTITION BY hour
ORDER BY (session_start, user_id, note_id)
SETTINGS non_replicated_deduplication_window = 1000;
