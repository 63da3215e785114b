-- name: feed_totals
-- description: One table of sums in place of three, and views of a range that are handed what they used to work out. The feed is loaded again.
-- A question that needs displays and the clicks upon them, or events beside displays, reads one table once: planning a read costs more than
-- reading. What a row counts is its subject:
--   events         n, dwell_ms, first and newest event time; by action
--   displays       impression sessions by the time they start: n, impressions, clicks, what happened without a click; seconds: whole
--                  seconds from display to first click, rounded up -> clicks
--   clicks         click sessions by the time of the display that they belong to; `hour` is the click's. n, every behaviour; seconds: whole
--                  seconds of dwell, rounded down -> click sessions; views of at least N seconds are those with a key >= N
--   stray clicks   the same of clicks that belong to no display, by their own time
--   late events, orphan actions   n by action; of no channel, device or band
-- grain: 60, 900 or 3600, the seconds that a row is about; at: the minute, quarter of an hour or hour that it begins with. A chart of a day has
-- steps of a quarter; of minutes it would read a million rows.
ALTER TABLE loads DELETE WHERE part = 'feed' SETTINGS mutations_sync = 2;

TRUNCATE TABLE events_all;

TRUNCATE TABLE impression_sessions_all;

TRUNCATE TABLE click_sessions_all;

TRUNCATE TABLE late_events_all;

TRUNCATE TABLE orphan_actions_all;

TRUNCATE TABLE quarantine_all;

TRUNCATE TABLE user_totals_all;

DROP VIEW IF EXISTS events_in;

DROP VIEW IF EXISTS displays_in;

DROP VIEW IF EXISTS clicks_in;

DROP VIEW IF EXISTS late_totals_feed;

DROP VIEW IF EXISTS late_minutes_feed;

DROP VIEW IF EXISTS orphan_totals_feed;

DROP VIEW IF EXISTS orphan_minutes_feed;

DROP VIEW IF EXISTS event_totals_feed;

DROP VIEW IF EXISTS display_totals_feed;

DROP VIEW IF EXISTS click_totals_feed;

DROP TABLE IF EXISTS event_totals_all;

DROP TABLE IF EXISTS display_totals_all;

DROP TABLE IF EXISTS click_totals_all;

CREATE OR REPLACE TABLE feed_totals_all
(
    grain UInt16,
    subject LowCardinality(String),
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    at DateTime('UTC') CODEC(Delta, ZSTD),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    action LowCardinality(String),
    n SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
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
    seconds SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) CODEC(ZSTD),
    first SimpleAggregateFunction(min, DateTime64(6, 'UTC')) CODEC(Delta, ZSTD),
    newest SimpleAggregateFunction(max, DateTime64(6, 'UTC')) CODEC(Delta, ZSTD)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (grain, subject, hour, load, at, channel, device, band, action)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE OR REPLACE TABLE late_minutes (hour DateTime('UTC'), load UInt64, minute DateTime('UTC'), action LowCardinality(String), n SimpleAggregateFunction(sum, UInt64)) ENGINE = Null;

CREATE OR REPLACE TABLE orphan_minutes (hour DateTime('UTC'), load UInt64, minute DateTime('UTC'), action LowCardinality(String), n SimpleAggregateFunction(sum, UInt64)) ENGINE = Null;

CREATE MATERIALIZED VIEW event_totals_feed TO feed_totals_all AS
SELECT 'events' AS subject, multiIf(grouping(minute) = 0, 60, grouping(quarter) = 0, 900, 3600) AS grain, hour, load,
    multiIf(grouping(minute) = 0, minute, grouping(quarter) = 0, quarter, hour) AS at,
    action, channel, device, band,
    sum(r.events) AS n,
    sum(r.dwell_ms) AS dwell_ms,
    min(r.first) AS first,
    max(r.newest) AS newest
FROM (SELECT *, toStartOfFifteenMinutes(minute) AS quarter FROM event_minutes) AS r
GROUP BY GROUPING SETS
(
    (hour, load, minute, channel, device, band, action),
    (hour, load, quarter, channel, device, band, action),
    (hour, load, channel, device, band, action)
);

CREATE MATERIALIZED VIEW display_totals_feed TO feed_totals_all AS
SELECT 'displays' AS subject, multiIf(grouping(minute) = 0, 60, grouping(quarter) = 0, 900, 3600) AS grain, hour, load,
    multiIf(grouping(minute) = 0, minute, grouping(quarter) = 0, quarter, hour) AS at,
    '' AS action, channel, device, band,
    sum(r.displays) AS n,
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
    sumMap(r.click_seconds) AS seconds
FROM (SELECT *, toStartOfFifteenMinutes(minute) AS quarter FROM display_minutes) AS r
GROUP BY GROUPING SETS
(
    (hour, load, minute, channel, device, band),
    (hour, load, quarter, channel, device, band),
    (hour, load, channel, device, band)
);

CREATE MATERIALIZED VIEW click_totals_feed TO feed_totals_all AS
SELECT if(attributed, 'clicks', 'stray clicks') AS subject, multiIf(grouping(minute) = 0, 60, grouping(quarter) = 0, 900, 3600) AS grain, hour, load,
    multiIf(grouping(minute) = 0, minute, grouping(quarter) = 0, quarter, display_hour) AS at,
    '' AS action, channel, device, band,
    sum(r.clicks) AS n,
    sum(r.dwell_ms) AS dwell_ms,
    sum(r.likes) AS likes,
    sum(r.favs) AS favs,
    sum(r.comments) AS comments,
    sum(r.shares) AS shares,
    sum(r.follows) AS follows,
    sum(r.hides) AS hides,
    sum(r.profile_enters) AS profile_enters,
    sumMap(r.dwell_seconds) AS seconds
FROM (SELECT *, toStartOfFifteenMinutes(minute) AS quarter FROM click_minutes) AS r
GROUP BY GROUPING SETS
(
    (hour, load, minute, display_hour, channel, device, band, attributed),
    (hour, load, quarter, display_hour, channel, device, band, attributed),
    (hour, load, display_hour, channel, device, band, attributed)
);

CREATE MATERIALIZED VIEW late_minutes_feed TO late_minutes AS
SELECT hour, load, toStartOfMinute(event_time, 'UTC') AS minute, r.action AS action, count() AS n
FROM late_events_all AS r
GROUP BY hour, load, minute, action;

CREATE MATERIALIZED VIEW late_totals_feed TO feed_totals_all AS
SELECT 'late events' AS subject, multiIf(grouping(minute) = 0, 60, grouping(quarter) = 0, 900, 3600) AS grain, hour, load,
    multiIf(grouping(minute) = 0, minute, grouping(quarter) = 0, quarter, hour) AS at,
    action, 'none' AS channel, 'none' AS device, 'none' AS band, sum(r.n) AS n
FROM (SELECT *, toStartOfFifteenMinutes(minute) AS quarter FROM late_minutes) AS r
GROUP BY GROUPING SETS ((hour, load, minute, action), (hour, load, quarter, action), (hour, load, action));

CREATE MATERIALIZED VIEW orphan_minutes_feed TO orphan_minutes AS
SELECT hour, load, toStartOfMinute(event_time, 'UTC') AS minute, r.action AS action, count() AS n
FROM orphan_actions_all AS r
GROUP BY hour, load, minute, action;

CREATE MATERIALIZED VIEW orphan_totals_feed TO feed_totals_all AS
SELECT 'orphan actions' AS subject, multiIf(grouping(minute) = 0, 60, grouping(quarter) = 0, 900, 3600) AS grain, hour, load,
    multiIf(grouping(minute) = 0, minute, grouping(quarter) = 0, quarter, hour) AS at,
    action, 'none' AS channel, 'none' AS device, 'none' AS band, sum(r.n) AS n
FROM (SELECT *, toStartOfFifteenMinutes(minute) AS quarter FROM orphan_minutes) AS r
GROUP BY GROUPING SETS ((hour, load, minute, action), (hour, load, quarter, action), (hour, load, action));

-- What is visible of each subject, under its own names.
CREATE OR REPLACE VIEW event_totals AS
SELECT grain, hour, at, channel, device, band, action, n AS events, dwell_ms, first, newest
FROM feed_totals_all WHERE subject = 'events' AND (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE OR REPLACE VIEW display_totals AS
SELECT grain, hour, at, channel, device, band, n AS displays, impressions, clicks, dwell_ms, likes, favs, comments, shares, follows, hides, profile_enters, seconds AS click_seconds
FROM feed_totals_all WHERE subject = 'displays' AND (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE OR REPLACE VIEW click_totals AS
SELECT grain, hour, at, channel, device, band, subject = 'clicks' AS attributed, n AS clicks, dwell_ms, likes, favs, comments, shares, follows, hides, profile_enters, seconds AS dwell_seconds
FROM feed_totals_all WHERE subject IN ('clicks', 'stray clicks') AND (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE OR REPLACE VIEW late_totals AS
SELECT grain, hour, at, action, n AS events FROM feed_totals_all WHERE subject = 'late events' AND (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE OR REPLACE VIEW orphan_totals AS
SELECT grain, hour, at, action, n AS events FROM feed_totals_all WHERE subject = 'orphan actions' AND (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

-- Aggregates of a range, filtered: its middle from rows of one grain, its ends from minutes. Parameters: start and end DateTime('UTC'), half-open,
-- whole minutes; grain UInt16, 900 or 3600; grain_start and grain_end DateTime('UTC'), the range to take from it, all else comes from minutes (both are
-- end: none); channels, devices, bands Array(String), empty for all. assets/metrics/ranges.py works them out: here, each condition that
-- names one would plan it anew, and a DateTime compared with a DateTime64 does not use the index.
-- By subject: clicks may be of a later hour than their display.
CREATE OR REPLACE VIEW feed_in AS
SELECT subject, at, channel, device, band, action, n, impressions, clicks, dwell_ms, likes, favs, comments, shares, follows, hides, profile_enters, seconds
FROM feed_totals_all
WHERE hour >= toStartOfHour({start:DateTime('UTC')}) AND hour < {end:DateTime('UTC')} + INTERVAL 1 DAY
    AND
    (
        (grain = {grain:UInt16} AND at >= {grain_start:DateTime('UTC')} AND at < {grain_end:DateTime('UTC')})
        OR (grain = 60 AND at >= {start:DateTime('UTC')} AND at < {grain_start:DateTime('UTC')})
        OR (grain = 60 AND at >= {grain_end:DateTime('UTC')} AND at < {end:DateTime('UTC')})
    )
    AND (hour, load) IN
    (
        SELECT hour, argMax(load, seq) FROM loads
        WHERE part = 'feed' AND hour >= toStartOfHour({start:DateTime('UTC')}) AND hour < {end:DateTime('UTC')} + INTERVAL 1 DAY GROUP BY hour
    )
    AND (empty({channels:Array(String)}) OR channel IN {channels:Array(String)})
    AND (empty({devices:Array(String)}) OR device IN {devices:Array(String)})
    AND (empty({bands:Array(String)}) OR band IN {bands:Array(String)});

-- Hours or minutes (hours_start, hours_end) of the bitmaps that have just the dimensions that are filtered by: left_out UInt8, as `rolled`.
CREATE OR REPLACE VIEW users_in AS
SELECT at, channel, device, band, users
FROM user_totals_all
WHERE hour >= toStartOfHour({start:DateTime('UTC')}) AND hour < {end:DateTime('UTC')}
    AND
    (
        (grain = 3600 AND rolled = {left_out:UInt8} AND at >= {hours_start:DateTime('UTC')} AND at < {hours_end:DateTime('UTC')})
        OR (grain = 60 AND rolled = if({left_out:UInt8} = 7, 7, 0) AND at >= {start:DateTime('UTC')} AND at < {hours_start:DateTime('UTC')})
        OR (grain = 60 AND rolled = if({left_out:UInt8} = 7, 7, 0) AND at >= {hours_end:DateTime('UTC')} AND at < {end:DateTime('UTC')})
    )
    AND (hour, load) IN
    (
        SELECT hour, argMax(load, seq) FROM loads
        WHERE part = 'feed' AND hour >= toStartOfHour({start:DateTime('UTC')}) AND hour < {end:DateTime('UTC')} GROUP BY hour
    )
    AND (empty({channels:Array(String)}) OR channel IN {channels:Array(String)})
    AND (empty({devices:Array(String)}) OR device IN {devices:Array(String)})
    AND (empty({bands:Array(String)}) OR band IN {bands:Array(String)});
