-- name: by_hour
-- description: The minute aggregates once more, per hour: a week's question then reads thousands of rows and not millions.
-- Fed by what the minutes' views write, so a row is added up twice over and read once.
CREATE TABLE IF NOT EXISTS events_by_hour_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    action LowCardinality(String),
    events SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    dwell_ms SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD)
)
ENGINE = AggregatingMergeTree
PARTITION BY (hour, load)
ORDER BY (channel, device, band, action)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS events_by_hour_feed TO events_by_hour_all AS
SELECT hour, load, channel, device, band, action,
    sum(r.events) AS events,
    sum(r.dwell_ms) AS dwell_ms
FROM events_by_minute_all AS r
GROUP BY hour, load, channel, device, band, action;

CREATE VIEW IF NOT EXISTS events_by_hour AS
SELECT * EXCEPT (load) FROM events_by_hour_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE TABLE IF NOT EXISTS displays_by_hour_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    displays SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    impressions SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    clicks SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    dwell_ms SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    likes SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    favs SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    comments SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    shares SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    follows SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    hides SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    profile_enters SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    click_seconds SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) CODEC(ZSTD)
)
ENGINE = AggregatingMergeTree
PARTITION BY (hour, load)
ORDER BY (channel, device, band)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS displays_by_hour_feed TO displays_by_hour_all AS
SELECT hour, load, channel, device, band,
    sum(r.displays) AS displays,
    sum(r.impressions) AS impressions,
    sum(r.clicks) AS clicks,
    sum(r.dwell_ms) AS dwell_ms,
    sum(r.likes) AS likes,
    sum(r.favs) AS favs,
    sum(r.comments) AS comments,
    sum(r.shares) AS shares,
    sum(r.follows) AS follows,
    sum(r.hides) AS hides,
    sum(r.profile_enters) AS profile_enters,
    sumMap(r.click_seconds) AS click_seconds
FROM displays_by_minute_all AS r
GROUP BY hour, load, channel, device, band;

CREATE VIEW IF NOT EXISTS displays_by_hour AS
SELECT * EXCEPT (load) FROM displays_by_hour_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

-- display_hour: of the display that the clicks belong to, as `minute` in clicks_by_minute.
CREATE TABLE IF NOT EXISTS clicks_by_hour_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    display_hour DateTime('UTC') CODEC(Delta, ZSTD),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    attributed Bool,
    clicks SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    dwell_ms SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    likes SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    favs SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    comments SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    shares SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    follows SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    hides SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    profile_enters SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    dwell_seconds SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) CODEC(ZSTD)
)
ENGINE = AggregatingMergeTree
PARTITION BY (hour, load)
ORDER BY (display_hour, channel, device, band, attributed)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS clicks_by_hour_feed TO clicks_by_hour_all AS
SELECT hour, load, toStartOfHour(r.minute, 'UTC') AS display_hour, channel, device, band, attributed,
    sum(r.clicks) AS clicks,
    sum(r.dwell_ms) AS dwell_ms,
    sum(r.likes) AS likes,
    sum(r.favs) AS favs,
    sum(r.comments) AS comments,
    sum(r.shares) AS shares,
    sum(r.follows) AS follows,
    sum(r.hides) AS hides,
    sum(r.profile_enters) AS profile_enters,
    sumMap(r.dwell_seconds) AS dwell_seconds
FROM clicks_by_minute_all AS r
GROUP BY hour, load, display_hour, channel, device, band, attributed;

CREATE VIEW IF NOT EXISTS clicks_by_hour AS
SELECT * EXCEPT (load) FROM clicks_by_hour_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');
