-- name: clicks_by_minute
-- description: Click sessions by the minute of the display that they belong to (attributed), else by that of the click.
-- dwell_seconds: whole seconds of dwell, rounded down -> click sessions; views of at least N seconds are those with a key >= N.
CREATE TABLE IF NOT EXISTS clicks_by_minute_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    minute DateTime('UTC') CODEC(Delta, ZSTD),
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
ORDER BY (minute, channel, device, band, attributed)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS clicks_by_minute_feed TO clicks_by_minute_all AS
SELECT
    hour,
    load,
    toStartOfMinute(if(r.attributed, assumeNotNull(r.impression_session_start), r.session_start), 'UTC') AS minute,
    ifNull(r.channel, 'none') AS channel,
    r.device AS device,
    r.band AS band,
    r.attributed AS attributed,
    count() AS clicks,
    sum(toUInt64(greatest(r.dwell_ms, 0))) AS dwell_ms,
    countIf(r.like) AS likes,
    countIf(r.fav) AS favs,
    countIf(r.comment) AS comments,
    countIf(r.share) AS shares,
    countIf(r.follow) AS follows,
    countIf(r.hide) AS hides,
    countIf(r.profile_enter) AS profile_enters,
    sumMap(map(toUInt16(least(65535, intDiv(greatest(r.dwell_ms, 0), 1000))), toUInt64(1))) AS dwell_seconds
FROM click_sessions_all AS r
GROUP BY hour, load, minute, channel, device, band, attributed;

CREATE VIEW IF NOT EXISTS clicks_by_minute AS
SELECT * EXCEPT (load) FROM clicks_by_minute_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');
