-- name: quarantine_reasons
-- description: Quarantined rows by reason, most first; what a reason quotes from a row only where ids may be shown.
-- parameters: start and end DateTime64(6, 'UTC') half-open; show_ids UInt8, 1: as it is
SELECT if({show_ids:UInt8} = 1, why, replaceRegexpAll(why, '\'[^\']*\'|"[^"]*"', '·')) AS reason,
    count() AS rows, uniqExact(source) AS files, max(hour) AS newest_hour
FROM (SELECT reason AS why, source, hour FROM quarantine)
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
GROUP BY reason
ORDER BY rows DESC, reason
LIMIT 50
