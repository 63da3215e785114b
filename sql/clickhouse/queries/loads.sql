-- name: loads
-- description: What ClickHouse holds, by table: rows, bytes on disk, and when its newest part was written.
-- parameters: none
SELECT table, sum(rows) AS rows, sum(bytes_on_disk) AS bytes, count() AS parts, max(modification_time) AS newest_part
FROM system.parts
WHERE active AND database = currentDatabase()
GROUP BY table
ORDER BY rows DESC, table
