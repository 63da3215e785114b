-- name: order_attributions
-- description: One row an order: the note that planted it, and what it brought. As the Delta table.
CREATE TABLE IF NOT EXISTS order_attributions_all
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    load UInt64 CODEC(Delta, ZSTD),
    order_id String CODEC(ZSTD),
    user_id Int64 CODEC(ZSTD),
    product_id Int64 CODEC(ZSTD),
    note_id Nullable(Int64) CODEC(ZSTD),
    author_id Nullable(Int64) CODEC(ZSTD),
    channel LowCardinality(Nullable(String)),
    click_time Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD),
    placed_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    status LowCardinality(String),
    amount_cents Int64 CODEC(ZSTD),
    gross_cents Int64 CODEC(ZSTD),
    refunded_cents Int64 CODEC(ZSTD),
    net_cents Int64 CODEC(ZSTD),
    rules LowCardinality(String)
)
ENGINE = MergeTree
PARTITION BY (hour, load)
ORDER BY (placed_at, order_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE VIEW IF NOT EXISTS order_attributions AS
SELECT * EXCEPT (load) FROM order_attributions_all
WHERE (hour, load) IN (SELECT hour, load FROM visible_loads WHERE part = 'orders');
