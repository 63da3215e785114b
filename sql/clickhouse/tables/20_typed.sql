-- name: typed
-- description: What an event's context says of device, author, topic and app, as columns that come from the lake (docs/contract.md).
-- device was taken out of the context here, by its first "device": at any depth, and of JSON without blanks only. Now it is the
-- lake's; where a row has none it is `none`, by which the filters of the pages find it. The loads from before are listed:
-- hours of them are loaded again from the lake, where the truth is (loader.load_missing).
CREATE TABLE IF NOT EXISTS outdated_loads
(
    load UInt64 CODEC(ZSTD)
)
ENGINE = MergeTree
ORDER BY load;

INSERT INTO outdated_loads SELECT DISTINCT load FROM loads WHERE part = 'feed';

ALTER TABLE events_all
    MODIFY COLUMN device LowCardinality(String) DEFAULT 'none',
    ADD COLUMN IF NOT EXISTS author_id Nullable(Int64) CODEC(ZSTD) AFTER context,
    ADD COLUMN IF NOT EXISTS topic LowCardinality(Nullable(String)) AFTER author_id,
    ADD COLUMN IF NOT EXISTS device_id Nullable(String) CODEC(ZSTD) AFTER topic,
    ADD COLUMN IF NOT EXISTS app_version LowCardinality(Nullable(String)) AFTER device_id;

ALTER TABLE impression_sessions_all
    MODIFY COLUMN device LowCardinality(String) DEFAULT 'none',
    ADD COLUMN IF NOT EXISTS author_id Nullable(Int64) CODEC(ZSTD) AFTER context,
    ADD COLUMN IF NOT EXISTS topic LowCardinality(Nullable(String)) AFTER author_id,
    ADD COLUMN IF NOT EXISTS device_id Nullable(String) CODEC(ZSTD) AFTER topic,
    ADD COLUMN IF NOT EXISTS app_version LowCardinality(Nullable(String)) AFTER device_id;

ALTER TABLE click_sessions_all
    MODIFY COLUMN device LowCardinality(String) DEFAULT 'none',
    ADD COLUMN IF NOT EXISTS author_id Nullable(Int64) CODEC(ZSTD) AFTER context,
    ADD COLUMN IF NOT EXISTS topic LowCardinality(Nullable(String)) AFTER author_id,
    ADD COLUMN IF NOT EXISTS device_id Nullable(String) CODEC(ZSTD) AFTER topic,
    ADD COLUMN IF NOT EXISTS app_version LowCardinality(Nullable(String)) AFTER device_id;

ALTER TABLE late_events_all
    MODIFY COLUMN device LowCardinality(String) DEFAULT 'none',
    ADD COLUMN IF NOT EXISTS author_id Nullable(Int64) CODEC(ZSTD) AFTER context,
    ADD COLUMN IF NOT EXISTS topic LowCardinality(Nullable(String)) AFTER author_id,
    ADD COLUMN IF NOT EXISTS device_id Nullable(String) CODEC(ZSTD) AFTER topic,
    ADD COLUMN IF NOT EXISTS app_version LowCardinality(Nullable(String)) AFTER device_id;

-- device is one of the columns that the lake has now; band is still made here.
CREATE OR REPLACE VIEW events AS
SELECT * EXCEPT (load), band FROM events_all WHERE _partition_id IN (SELECT partition FROM visible_partitions WHERE part = 'feed');

CREATE OR REPLACE VIEW impression_sessions AS
SELECT * EXCEPT (load), band FROM impression_sessions_all WHERE _partition_id IN (SELECT partition FROM visible_partitions WHERE part = 'feed');

CREATE OR REPLACE VIEW click_sessions AS
SELECT * EXCEPT (load), band FROM click_sessions_all WHERE _partition_id IN (SELECT partition FROM visible_partitions WHERE part = 'feed');

CREATE OR REPLACE VIEW late_events AS
SELECT * EXCEPT (load), band FROM late_events_all WHERE _partition_id IN (SELECT partition FROM visible_partitions WHERE part = 'feed');
