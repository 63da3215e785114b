-- name: loads
-- description: Which load of each hour is visible: the newest row of the hour (greatest seq). Appended to, never changed.
-- part: feed, orders or spam (schema.py): tables that are loaded and shown together.
-- Rows of all tables bear the number of the load that brought them. A reader sees the visible load of each hour; one insert
-- into this table changes what is visible, in all tables and aggregates and for all hours of a window at one moment.
-- moment: of the lake's commit log, up to which the load holds its hour; -1 where the lake keeps no such log.
CREATE TABLE IF NOT EXISTS loads
(
    part LowCardinality(String),
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(ZSTD),
    moment Int64 CODEC(ZSTD),
    seq UInt64 CODEC(ZSTD),
    reason LowCardinality(String),
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(ZSTD)
)
ENGINE = MergeTree
ORDER BY (part, hour, seq);

CREATE VIEW IF NOT EXISTS visible_loads AS
SELECT l.part AS part, l.hour AS hour, argMax(l.load, l.seq) AS load, argMax(l.moment, l.seq) AS moment, max(l.seq) AS seq
FROM loads AS l
GROUP BY l.part, l.hour;

-- The live labeler's batches that were appended, for freshness and for what is still owed. A batch may stand here twice.
CREATE TABLE IF NOT EXISTS batches
(
    moment Int64 CODEC(ZSTD),
    batch_id String CODEC(ZSTD),
    rows UInt64 CODEC(ZSTD),
    newest Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    committed_at DateTime64(6, 'UTC') CODEC(ZSTD),
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(ZSTD)
)
ENGINE = MergeTree
ORDER BY moment
TTL toDateTime(at) + INTERVAL 30 DAY;
