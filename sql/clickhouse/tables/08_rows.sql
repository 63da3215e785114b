-- name: rows
-- description: The mirrored tables again, each row with its load; the old names become views of what is visible.
-- What the old tables held is loaded again from the lake, where the truth is (loader.load_missing).
-- One partition an hour and load, so that a load that is not needed any more is dropped whole. device and band are for the filters of the
-- pages; the lake has them in context and position. The deduplication window makes a
-- repeated append (same insert_deduplication_token) change nothing; it is 0, hence off, unless the table says so.
CREATE TABLE IF NOT EXISTS events_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
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
    context Nullable(String) CODEC(ZSTD),
    device LowCardinality(String) MATERIALIZED if(empty(simpleJSONExtractString(ifNull(context, ''), 'device')), 'none', simpleJSONExtractString(ifNull(context, ''), 'device')),
    band LowCardinality(String) MATERIALIZED multiIf(position IS NULL, 'none', position < 1, '0', position < 3, '1-2', position < 6, '3-5', position < 10, '6-9', '10+')
)
ENGINE = MergeTree
PARTITION BY (hour, load)
ORDER BY (action, event_time)
SETTINGS non_replicated_deduplication_window = 10000;

DROP TABLE IF EXISTS events;

CREATE VIEW IF NOT EXISTS events AS
SELECT * EXCEPT (load), device, band FROM events_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE TABLE IF NOT EXISTS impression_sessions_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    user_id Int64 CODEC(ZSTD),
    note_id Int64 CODEC(ZSTD),
    session_start DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    session_end DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    impressions Int32 CODEC(ZSTD),
    clicked Bool,
    first_click_time Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
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
    context Nullable(String) CODEC(ZSTD),
    device LowCardinality(String) MATERIALIZED if(empty(simpleJSONExtractString(ifNull(context, ''), 'device')), 'none', simpleJSONExtractString(ifNull(context, ''), 'device')),
    band LowCardinality(String) MATERIALIZED multiIf(position IS NULL, 'none', position < 1, '0', position < 3, '1-2', position < 6, '3-5', position < 10, '6-9', '10+')
)
ENGINE = MergeTree
PARTITION BY (hour, load)
ORDER BY (session_start, user_id, note_id)
SETTINGS non_replicated_deduplication_window = 10000;

DROP TABLE IF EXISTS impression_sessions;

CREATE VIEW IF NOT EXISTS impression_sessions AS
SELECT * EXCEPT (load), device, band FROM impression_sessions_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE TABLE IF NOT EXISTS click_sessions_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
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
    context Nullable(String) CODEC(ZSTD),
    device LowCardinality(String) MATERIALIZED if(empty(simpleJSONExtractString(ifNull(context, ''), 'device')), 'none', simpleJSONExtractString(ifNull(context, ''), 'device')),
    band LowCardinality(String) MATERIALIZED multiIf(position IS NULL, 'none', position < 1, '0', position < 3, '1-2', position < 6, '3-5', position < 10, '6-9', '10+')
)
ENGINE = MergeTree
PARTITION BY (hour, load)
ORDER BY (session_start, user_id, note_id)
SETTINGS non_replicated_deduplication_window = 10000;

DROP TABLE IF EXISTS click_sessions;

CREATE VIEW IF NOT EXISTS click_sessions AS
SELECT * EXCEPT (load), device, band FROM click_sessions_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE TABLE IF NOT EXISTS orphan_actions_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    event_id String CODEC(ZSTD),
    user_id Int64 CODEC(ZSTD),
    note_id Int64 CODEC(ZSTD),
    action LowCardinality(String),
    event_time DateTime64(6, 'UTC') CODEC(Delta, ZSTD)
)
ENGINE = MergeTree
PARTITION BY (hour, load)
ORDER BY (action, event_time)
SETTINGS non_replicated_deduplication_window = 10000;

DROP TABLE IF EXISTS orphan_actions;

CREATE VIEW IF NOT EXISTS orphan_actions AS
SELECT * EXCEPT (load) FROM orphan_actions_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE TABLE IF NOT EXISTS late_events_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
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
    context Nullable(String) CODEC(ZSTD),
    device LowCardinality(String) MATERIALIZED if(empty(simpleJSONExtractString(ifNull(context, ''), 'device')), 'none', simpleJSONExtractString(ifNull(context, ''), 'device')),
    band LowCardinality(String) MATERIALIZED multiIf(position IS NULL, 'none', position < 1, '0', position < 3, '1-2', position < 6, '3-5', position < 10, '6-9', '10+')
)
ENGINE = MergeTree
PARTITION BY (hour, load)
ORDER BY (action, event_time)
SETTINGS non_replicated_deduplication_window = 10000;

DROP TABLE IF EXISTS late_events;

CREATE VIEW IF NOT EXISTS late_events AS
SELECT * EXCEPT (load), device, band FROM late_events_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE TABLE IF NOT EXISTS quarantine_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    source String CODEC(ZSTD),
    row Int64 CODEC(ZSTD),
    body String CODEC(ZSTD),
    reason String CODEC(ZSTD)
)
ENGINE = MergeTree
PARTITION BY (hour, load)
ORDER BY (reason, source, row)
SETTINGS non_replicated_deduplication_window = 10000;

DROP TABLE IF EXISTS quarantine;

CREATE VIEW IF NOT EXISTS quarantine AS
SELECT * EXCEPT (load) FROM quarantine_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');
