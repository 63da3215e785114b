-- name: late_events
-- description: Accepted events that arrived behind the watermark, in no session until their hour is recomputed.
CREATE TABLE IF NOT EXISTS late_events
AS events
ENGINE = MergeTree
PARTITION BY hour
ORDER BY (action, event_time)
SETTINGS non_replicated_deduplication_window = 1000;
