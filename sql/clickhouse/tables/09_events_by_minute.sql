-- name: events_by_minute
-- description: Good events of each kind per minute, channel, device and band of positions, and their dwell.
-- A materialized view feeds it with every insert into the rows, whichever load they are of; it keeps the load's number, so that
-- what is visible changes with the rows. With a deduplication window here too, and
-- deduplicate_blocks_in_dependent_materialized_views=1 at the insert, a repeated append changes nothing here either.
CREATE TABLE IF NOT EXISTS events_by_minute_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    minute DateTime('UTC') CODEC(Delta, ZSTD),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    action LowCardinality(String),
    events SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    dwell_ms SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD)
)
ENGINE = AggregatingMergeTree
PARTITION BY (hour, load)
ORDER BY (minute, channel, device, band, action)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS events_by_minute_feed TO events_by_minute_all AS
SELECT
    hour,
    load,
    toStartOfMinute(event_time, 'UTC') AS minute,
    ifNull(r.channel, 'none') AS channel,
    r.device AS device,
    r.band AS band,
    r.action AS action,
    count() AS events,
    sum(toUInt64(greatest(ifNull(r.dwell_ms, 0), 0))) AS dwell_ms
FROM events_all AS r
GROUP BY hour, load, minute, channel, device, band, action;

CREATE VIEW IF NOT EXISTS events_by_minute AS
SELECT * EXCEPT (load) FROM events_by_minute_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');
