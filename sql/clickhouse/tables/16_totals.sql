-- name: totals
-- description: The aggregates anew: one table a subject, minutes and hours in it, a partition a month. The feed is loaded again from the lake.
-- With a partition an hour and load a week's question opened 168 parts of each aggregate; here they merge, and what a replaced load
-- left is deleted (loads.sweep). That costs little in an aggregate and much in rows: those keep their partition an hour and load.
-- grain: 60 or 3600, the seconds that a row is about; at: the minute or the hour that it begins with. A question of whole hours reads
-- hours and takes its ends from minutes, in one read: planning a read takes longer than reading.
ALTER TABLE loads DELETE WHERE part = 'feed' SETTINGS mutations_sync = 2;

-- Rows: a note's drill-down reads a few granules of each hour by the order, a user's by the index. (Events in the order of users too
-- took an eighth of the speed of loading.)
CREATE OR REPLACE TABLE events_all AS events_all
ENGINE = MergeTree
PARTITION BY (hour, load)
ORDER BY (action, event_time)
SETTINGS non_replicated_deduplication_window = 10000;

ALTER TABLE events_all ADD INDEX IF NOT EXISTS by_user user_id TYPE bloom_filter(0.01) GRANULARITY 1;

CREATE OR REPLACE TABLE impression_sessions_all AS impression_sessions_all
ENGINE = MergeTree
PARTITION BY (hour, load)
ORDER BY (note_id, session_start)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE OR REPLACE TABLE click_sessions_all AS click_sessions_all
ENGINE = MergeTree
PARTITION BY (hour, load)
ORDER BY (note_id, session_start)
SETTINGS non_replicated_deduplication_window = 10000;

-- What is visible, by the partition: of millions of rows a comparison of texts that are the same for a whole part costs a third of
-- that of (hour, load). It prunes nothing by itself; the hours that a query asks for do.
CREATE OR REPLACE VIEW visible_partitions AS
SELECT part, concat(toString(toUnixTimestamp(hour)), '-', toString(load)) AS partition FROM visible_loads;

CREATE OR REPLACE VIEW events AS
SELECT * EXCEPT (load), device, band FROM events_all WHERE _partition_id IN (SELECT partition FROM visible_partitions WHERE part = 'feed');

CREATE OR REPLACE VIEW impression_sessions AS
SELECT * EXCEPT (load), device, band FROM impression_sessions_all WHERE _partition_id IN (SELECT partition FROM visible_partitions WHERE part = 'feed');

CREATE OR REPLACE VIEW click_sessions AS
SELECT * EXCEPT (load), device, band FROM click_sessions_all WHERE _partition_id IN (SELECT partition FROM visible_partitions WHERE part = 'feed');

DROP VIEW IF EXISTS events_by_hour_feed;

DROP VIEW IF EXISTS events_by_minute_feed;

DROP VIEW IF EXISTS users_by_hour_feed;

DROP VIEW IF EXISTS users_by_minute_feed;

DROP VIEW IF EXISTS displays_by_hour_feed;

DROP VIEW IF EXISTS displays_by_minute_feed;

DROP VIEW IF EXISTS clicks_by_hour_feed;

DROP VIEW IF EXISTS clicks_by_minute_feed;

DROP VIEW IF EXISTS events_by_hour;

DROP TABLE IF EXISTS events_by_hour_all;

DROP VIEW IF EXISTS events_by_minute;

DROP TABLE IF EXISTS events_by_minute_all;

DROP VIEW IF EXISTS users_by_hour;

DROP TABLE IF EXISTS users_by_hour_all;

DROP VIEW IF EXISTS users_by_minute;

DROP TABLE IF EXISTS users_by_minute_all;

DROP VIEW IF EXISTS displays_by_hour;

DROP TABLE IF EXISTS displays_by_hour_all;

DROP VIEW IF EXISTS displays_by_minute;

DROP TABLE IF EXISTS displays_by_minute_all;

DROP VIEW IF EXISTS clicks_by_hour;

DROP TABLE IF EXISTS clicks_by_hour_all;

DROP VIEW IF EXISTS clicks_by_minute;

DROP TABLE IF EXISTS clicks_by_minute_all;

-- Events of each kind, their dwell, the first and the newest. A Null table keeps nothing and hands on: minutes are added up once for both grains.
DROP VIEW IF EXISTS event_totals_feed;

DROP VIEW IF EXISTS event_minutes_feed;

DROP TABLE IF EXISTS event_totals_all;

CREATE TABLE event_totals_all
(
    grain UInt16,
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    at DateTime('UTC') CODEC(Delta, ZSTD),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    action LowCardinality(String),
    events SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    dwell_ms SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    first SimpleAggregateFunction(min, DateTime64(6, 'UTC')) CODEC(Delta, ZSTD),
    newest SimpleAggregateFunction(max, DateTime64(6, 'UTC')) CODEC(Delta, ZSTD)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (grain, hour, load, at, channel, device, band, action)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE OR REPLACE TABLE event_minutes
(
    hour DateTime('UTC'),
    load UInt64,
    minute DateTime('UTC'),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    action LowCardinality(String),
    events SimpleAggregateFunction(sum, UInt64),
    dwell_ms SimpleAggregateFunction(sum, UInt64),
    first SimpleAggregateFunction(min, DateTime64(6, 'UTC')),
    newest SimpleAggregateFunction(max, DateTime64(6, 'UTC'))
)
ENGINE = Null;

CREATE MATERIALIZED VIEW event_minutes_feed TO event_minutes AS
SELECT
    hour,
    load,
    toStartOfMinute(event_time, 'UTC') AS minute,
    ifNull(r.channel, 'none') AS channel,
    r.device AS device,
    r.band AS band,
    r.action AS action,
    count() AS events,
    sum(toUInt64(greatest(ifNull(r.dwell_ms, 0), 0))) AS dwell_ms,
    min(r.event_time) AS first,
    max(r.event_time) AS newest
FROM events_all AS r
GROUP BY hour, load, minute, channel, device, band, action;

CREATE MATERIALIZED VIEW event_totals_feed TO event_totals_all AS
SELECT if(grouping(minute) = 1, 3600, 60) AS grain, hour, load, if(grouping(minute) = 1, hour, minute) AS at, channel, device, band, action,
    sum(r.events) AS events,
    sum(r.dwell_ms) AS dwell_ms,
    min(r.first) AS first,
    max(r.newest) AS newest
FROM event_minutes AS r
GROUP BY GROUPING SETS ((hour, load, minute, channel, device, band, action), (hour, load, channel, device, band, action));

-- Who was active, as exact bitmaps. rolled: which dimensions are left out, 4 for the channel, 2 the device, 1 the band, added up; what is left
-- out is ''. A question reads the bitmaps that have just the dimensions that it filters by: 168 for a week, not ten thousand. A minute has
-- all dimensions or none. Bitmaps hardly shrink, so the quickest codec; short granules, since one has up to 128 kB for a million users.
-- Hours are rolled up from hours: from minutes it took a seventh of the speed of loading.
DROP VIEW IF EXISTS user_totals_of_hours_feed;

DROP VIEW IF EXISTS user_totals_of_minutes_feed;

DROP VIEW IF EXISTS user_hours_feed;

DROP VIEW IF EXISTS user_minutes_feed;

DROP TABLE IF EXISTS user_totals_all;

CREATE TABLE user_totals_all
(
    grain UInt16,
    rolled UInt8,
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    at DateTime('UTC') CODEC(Delta, ZSTD),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    users AggregateFunction(groupBitmap, UInt64) CODEC(LZ4)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (grain, rolled, channel, device, band, hour, load, at)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 16;

CREATE OR REPLACE TABLE user_minutes
(
    hour DateTime('UTC'),
    load UInt64,
    minute DateTime('UTC'),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    users AggregateFunction(groupBitmap, UInt64)
)
ENGINE = Null;

CREATE OR REPLACE TABLE user_hours
(
    hour DateTime('UTC'),
    load UInt64,
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    users AggregateFunction(groupBitmap, UInt64)
)
ENGINE = Null;

CREATE MATERIALIZED VIEW user_minutes_feed TO user_minutes AS
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

CREATE MATERIALIZED VIEW user_hours_feed TO user_hours AS
SELECT hour, load, channel, device, band,
    groupBitmapMergeState(r.users) AS users
FROM user_minutes AS r
GROUP BY hour, load, channel, device, band;

CREATE MATERIALIZED VIEW user_totals_of_minutes_feed TO user_totals_all AS
SELECT 60 AS grain, 7 * grouping(channel) AS rolled, hour, load, minute AS at, channel, device, band,
    groupBitmapMergeState(r.users) AS users
FROM user_minutes AS r
GROUP BY GROUPING SETS ((hour, load, minute, channel, device, band), (hour, load, minute));

CREATE MATERIALIZED VIEW user_totals_of_hours_feed TO user_totals_all AS
SELECT 3600 AS grain, 4 * grouping(channel) + 2 * grouping(device) + grouping(band) AS rolled, hour, load, hour AS at, channel, device, band,
    groupBitmapMergeState(r.users) AS users
FROM user_hours AS r
GROUP BY GROUPING SETS
(
    (hour, load, channel, device, band), (hour, load, channel, device), (hour, load, channel, band), (hour, load, device, band),
    (hour, load, channel), (hour, load, device), (hour, load, band), (hour, load)
);

-- Displays (impression sessions) by the time they start: clicks, what happened without a click. click_seconds: whole seconds from display to
-- first click, rounded up -> clicks.
DROP VIEW IF EXISTS display_totals_feed;

DROP VIEW IF EXISTS display_minutes_feed;

DROP TABLE IF EXISTS display_totals_all;

CREATE TABLE display_totals_all
(
    grain UInt16,
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    at DateTime('UTC') CODEC(Delta, ZSTD),
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
PARTITION BY toYYYYMM(hour)
ORDER BY (grain, hour, load, at, channel, device, band)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE OR REPLACE TABLE display_minutes
(
    hour DateTime('UTC'),
    load UInt64,
    minute DateTime('UTC'),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    displays SimpleAggregateFunction(sum, UInt64),
    impressions SimpleAggregateFunction(sum, UInt64),
    clicks SimpleAggregateFunction(sum, UInt64),
    dwell_ms SimpleAggregateFunction(sum, UInt64),
    likes SimpleAggregateFunction(sum, UInt64),
    favs SimpleAggregateFunction(sum, UInt64),
    comments SimpleAggregateFunction(sum, UInt64),
    shares SimpleAggregateFunction(sum, UInt64),
    follows SimpleAggregateFunction(sum, UInt64),
    hides SimpleAggregateFunction(sum, UInt64),
    profile_enters SimpleAggregateFunction(sum, UInt64),
    click_seconds SimpleAggregateFunction(sumMap, Map(UInt16, UInt64))
)
ENGINE = Null;

CREATE MATERIALIZED VIEW display_minutes_feed TO display_minutes AS
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

CREATE MATERIALIZED VIEW display_totals_feed TO display_totals_all AS
SELECT if(grouping(minute) = 1, 3600, 60) AS grain, hour, load, if(grouping(minute) = 1, hour, minute) AS at, channel, device, band,
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
FROM display_minutes AS r
GROUP BY GROUPING SETS ((hour, load, minute, channel, device, band), (hour, load, channel, device, band));

-- Click sessions by the time of the display that they belong to (attributed), else by their own; `hour` is the click's. dwell_seconds: whole
-- seconds of dwell, rounded down -> click sessions; views of at least N seconds are those with a key >= N.
DROP VIEW IF EXISTS click_totals_feed;

DROP VIEW IF EXISTS click_minutes_feed;

DROP TABLE IF EXISTS click_totals_all;

CREATE TABLE click_totals_all
(
    grain UInt16,
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    at DateTime('UTC') CODEC(Delta, ZSTD),
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
PARTITION BY toYYYYMM(hour)
ORDER BY (grain, hour, load, at, channel, device, band, attributed)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE OR REPLACE TABLE click_minutes
(
    hour DateTime('UTC'),
    load UInt64,
    minute DateTime('UTC'),
    display_hour DateTime('UTC'),
    channel LowCardinality(String),
    device LowCardinality(String),
    band LowCardinality(String),
    attributed Bool,
    clicks SimpleAggregateFunction(sum, UInt64),
    dwell_ms SimpleAggregateFunction(sum, UInt64),
    likes SimpleAggregateFunction(sum, UInt64),
    favs SimpleAggregateFunction(sum, UInt64),
    comments SimpleAggregateFunction(sum, UInt64),
    shares SimpleAggregateFunction(sum, UInt64),
    follows SimpleAggregateFunction(sum, UInt64),
    hides SimpleAggregateFunction(sum, UInt64),
    profile_enters SimpleAggregateFunction(sum, UInt64),
    dwell_seconds SimpleAggregateFunction(sumMap, Map(UInt16, UInt64))
)
ENGINE = Null;

CREATE MATERIALIZED VIEW click_minutes_feed TO click_minutes AS
SELECT
    hour,
    load,
    toStartOfMinute(if(r.attributed, assumeNotNull(r.impression_session_start), r.session_start), 'UTC') AS minute,
    toStartOfHour(minute, 'UTC') AS display_hour,
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
GROUP BY hour, load, minute, display_hour, channel, device, band, attributed;

CREATE MATERIALIZED VIEW click_totals_feed TO click_totals_all AS
SELECT if(grouping(minute) = 1, 3600, 60) AS grain, hour, load, if(grouping(minute) = 1, display_hour, minute) AS at, channel, device, band, attributed,
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
FROM click_minutes AS r
GROUP BY GROUPING SETS ((hour, load, minute, display_hour, channel, device, band, attributed), (hour, load, display_hour, channel, device, band, attributed));

-- What is visible of them; by minute and by hour for people.
CREATE OR REPLACE VIEW event_totals AS
SELECT * EXCEPT (load) FROM event_totals_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE OR REPLACE VIEW user_totals AS
SELECT * EXCEPT (load) FROM user_totals_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE OR REPLACE VIEW display_totals AS
SELECT * EXCEPT (load) FROM display_totals_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE OR REPLACE VIEW click_totals AS
SELECT * EXCEPT (load) FROM click_totals_all WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'feed');

CREATE VIEW events_by_minute AS SELECT * EXCEPT (grain, at), at AS minute FROM event_totals WHERE grain = 60;

CREATE VIEW events_by_hour AS SELECT * EXCEPT (grain, at) FROM event_totals WHERE grain = 3600;

CREATE VIEW users_by_minute AS SELECT * EXCEPT (grain, rolled, at), at AS minute FROM user_totals WHERE grain = 60 AND rolled = 0;

CREATE VIEW users_by_hour AS SELECT * EXCEPT (grain, rolled, at) FROM user_totals WHERE grain = 3600 AND rolled = 0;

CREATE VIEW displays_by_minute AS SELECT * EXCEPT (grain, at), at AS minute FROM display_totals WHERE grain = 60;

CREATE VIEW displays_by_hour AS SELECT * EXCEPT (grain, at) FROM display_totals WHERE grain = 3600;

CREATE VIEW clicks_by_minute AS SELECT * EXCEPT (grain, at), at AS minute FROM click_totals WHERE grain = 60;

CREATE VIEW clicks_by_hour AS SELECT * EXCEPT (grain, at), at AS display_hour FROM click_totals WHERE grain = 3600;
