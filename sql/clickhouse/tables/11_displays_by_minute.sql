-- name: displays_by_minute
-- description: Displays (impression sessions) by the minute they start in: clicks, what happened without a click, time to click.
-- click_seconds: whole seconds from display to first click, rounded up -> clicks.
CREATE TABLE IF NOT EXISTS displays_by_minute_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    minute DateTime('UTC') CODEC(Delta, ZSTD),
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
ORDER BY (minute, channel, device, band)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS displays_by_minute_feed TO displays_by_minute_all AS
SELECT
    hour,
    load,
    toStartOfMinute(session_start, 'UTC') AS minute,
    ifNull(r.channel, 'none') AS channel,
    r.device AS device,
    r.band AS band,
    count() AS displays,
    sum(toUInt64(r.impressions)) AS impressions,
    countIf(r.clicked) AS clicks,
    sum(toUInt64(greatest(r.dwell_ms, 0))) AS dwell_ms,
    countIf(r.like) AS likes,
    countIf(r.fav) AS favs,
    countIf(r.comment) AS comments,
    countIf(r.share) AS shares,
    countIf(r.follow) AS follows,
    countIf(r.hide) AS hides,
    countIf(r.profile_enter) AS profile_enters,
    sumMap(if(r.clicked AND r.first_click_time IS NOT NULL, map(toUInt16(least(65535, ceil(dateDiff('millisecond', r.session_start, assumeNotNull(r.first_click_time)) / 1000))), toUInt64(1)), CAST(map(), 'Map(UInt16, UInt64)'))) AS click_seconds
FROM impression_sessions_all AS r
GROUP BY hour, load, minute, channel, device, band;

CREATE VIEW IF NOT EXISTS displays_by_minute AS
SELECT * EXCEPT (load) FROM displays_by_minute_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');
