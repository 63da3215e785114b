-- name: loads
-- description: What ClickHouse holds, by table: rows that are visible and rows of replaced loads, bytes on disk, newest part.
-- parameters: none
SELECT
    replaceRegexpOne(p.table, '_all$', '') AS table,
    sumIf(p.rows, (p.hour, p.load) IN (SELECT toUnixTimestamp(hour), load FROM visible_loads)) AS rows,
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
