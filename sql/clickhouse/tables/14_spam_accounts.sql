-- name: spam_accounts
-- description: Accounts that look like spam as of the end of an hour: some columns of the Delta table.
CREATE TABLE IF NOT EXISTS spam_accounts_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    user_id Int64 CODEC(ZSTD),
    reasons LowCardinality(String),
    score Float64 CODEC(ZSTD),
    actions Int64 CODEC(ZSTD),
    active_minutes Int64 CODEC(ZSTD),
    accounts_on_device Int64 CODEC(ZSTD)
)
ENGINE = MergeTree
PARTITION BY (hour, load)
ORDER BY user_id
SETTINGS non_replicated_deduplication_window = 1000;

CREATE VIEW IF NOT EXISTS spam_accounts AS
SELECT * EXCEPT (load) FROM spam_accounts_all
WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'spam');
