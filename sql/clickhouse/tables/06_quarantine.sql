-- name: quarantine
-- description: Rows that broke the contract, with the reason and the bytes as received.
CREATE TABLE IF NOT EXISTS quarantine
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    source String CODEC(ZSTD),
    row Int64 CODEC(ZSTD),
    body String CODEC(ZSTD),
    reason String CODEC(ZSTD)
)
ENGINE = MergeTree
PARTITION BY hour
ORDER BY (reason, source, row)
SETTINGS non_replicated_deduplication_window = 1000;
