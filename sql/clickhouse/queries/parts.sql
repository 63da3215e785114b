-- name: parts
-- description: Which parts of the tables have been loaded: feed, orders, spam; and the last hour of each.
-- parameters: none
SELECT part, count() AS hours, max(hour) AS newest_hour
FROM visible_loads
GROUP BY part
ORDER BY part
