-- name: quarantine_reasons
-- description: Quarantined rows by reason, most first.
-- parameters: start and end DateTime64(6, 'UTC') half-open
SELECT reason, count() AS rows, uniqExact(source) AS files, max(hour) AS newest_hour
FROM quarantine
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
GROUP BY reason
ORDER BY rows DESC, reason
LIMIT 50
