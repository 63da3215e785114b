-- name: users_by_minute
-- description: Who was active, as exact bitmaps, per minute, channel, device and band of positions.
CREATE TABLE IF NOT EXISTS users_by_minute_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    minute DateTime('UTC') CODEC(Delta, ZSTD),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    users AggregateFunction(groupBitmap, UInt64) CODEC(ZSTD)
)
ENGINE = AggregatingMergeTree
PARTITION BY (hour, load)
ORDER BY (minute, channel, device, band)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS users_by_minute_feed TO users_by_minute_all AS
SELECT
    hour,
    load,
    toStartOfMinute(event_time, 'UTC') AS minute,
    ifNull(r.channel, 'none') AS channel,
    r.device AS device,
    r.band AS band,
    groupBitmapState(toUInt64(r.user_id)) AS users
FROM events_all AS r
GROUP BY hour, load, minute, channel, device, band;

CREATE VIEW IF NOT EXISTS users_by_minute AS
SELECT * EXCEPT (load) FROM users_by_minute_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

-- The same per hour: for days, weeks and months. Fed by what the view above writes.
CREATE TABLE IF NOT EXISTS users_by_hour_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    users AggregateFunction(groupBitmap, UInt64) CODEC(ZSTD)
)
ENGINE = AggregatingMergeTree
PARTITION BY (hour, load)
ORDER BY (channel, device, band)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS users_by_hour_feed TO users_by_hour_all AS
SELECT hour, load, channel, device, band,
    groupBitmapMergeState(r.users) AS users
FROM users_by_minute_all AS r
GROUP BY hour, load, channel, device, band;

CREATE VIEW IF NOT EXISTS users_by_hour AS
SELECT * EXCEPT (load) FROM users_by_hour_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');
