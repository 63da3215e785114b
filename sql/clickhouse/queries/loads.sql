-- name: loads
-- description: What ClickHouse holds, by table: rows that are visible and rows of replaced loads, bytes on disk, newest part.
-- parameters: none
-- A part of the rows is of one load, which the partition names; sums lie by month and are counted.
WITH
    (SELECT countIf((hour, load) IN (SELECT hour, load FROM visible_loads)) FROM feed_totals_all) AS feed_rows,
    (SELECT countIf((hour, load) IN (SELECT hour, load FROM visible_loads)) FROM user_totals_all) AS user_rows
SELECT
    replaceRegexpOne(p.table, '_all$', '') AS table,
    multiIf(
        table = 'feed_totals', feed_rows,
        table = 'user_totals', user_rows,
        sumIf(p.rows, (p.hour, p.load) IN (SELECT toUnixTimestamp(hour), load FROM visible_loads))
    ) AS rows,
    sum(p.rows) - rows AS replaced_rows,
    sum(p.bytes_on_disk) AS bytes,
    count() AS parts,
    max(p.modification_time) AS newest_part
FROM
(
    SELECT table, rows, bytes_on_disk, modification_time,
        toUInt32OrZero(splitByChar('-', partition_id)[1]) AS hour, toUInt64OrZero(splitByChar('-', partition_id)[2]) AS load
    FROM system.parts
    WHERE active AND database = currentDatabase() AND endsWith(table, '_all')
) AS p
GROUP BY table
ORDER BY rows DESC, table
