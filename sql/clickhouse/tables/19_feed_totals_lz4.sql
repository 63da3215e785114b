-- name: feed_totals_lz4
-- description: Sums in LZ4: a third of the time of a question about a week was ZSTD unpacking them (docs/metrics.md). What lies there stays readable, and is
-- written anew as parts merge.
ALTER TABLE feed_totals_all
    MODIFY COLUMN hour DateTime('UTC') CODEC(Delta, LZ4),
    MODIFY COLUMN load UInt64 CODEC(Delta, LZ4),
    MODIFY COLUMN at DateTime('UTC') CODEC(Delta, LZ4),
    MODIFY COLUMN n SimpleAggregateFunction(sum, UInt64) CODEC(LZ4),
    MODIFY COLUMN impressions SimpleAggregateFunction(sum, UInt64) CODEC(LZ4),
    MODIFY COLUMN clicks SimpleAggregateFunction(sum, UInt64) CODEC(LZ4),
    MODIFY COLUMN dwell_ms SimpleAggregateFunction(sum, UInt64) CODEC(LZ4),
    MODIFY COLUMN likes SimpleAggregateFunction(sum, UInt64) CODEC(LZ4),
    MODIFY COLUMN favs SimpleAggregateFunction(sum, UInt64) CODEC(LZ4),
    MODIFY COLUMN comments SimpleAggregateFunction(sum, UInt64) CODEC(LZ4),
    MODIFY COLUMN shares SimpleAggregateFunction(sum, UInt64) CODEC(LZ4),
    MODIFY COLUMN follows SimpleAggregateFunction(sum, UInt64) CODEC(LZ4),
    MODIFY COLUMN hides SimpleAggregateFunction(sum, UInt64) CODEC(LZ4),
    MODIFY COLUMN profile_enters SimpleAggregateFunction(sum, UInt64) CODEC(LZ4),
    MODIFY COLUMN seconds SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) CODEC(LZ4),
    MODIFY COLUMN first SimpleAggregateFunction(min, DateTime64(6, 'UTC')) CODEC(Delta, LZ4),
    MODIFY COLUMN newest SimpleAggregateFunction(max, DateTime64(6, 'UTC')) CODEC(Delta, LZ4);
