-- name: revenue_by_hour
-- description: Revenue by the hour of the zone's day in which the order was placed.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels Array(String), empty for all; zone String, IANA
SELECT toHour(placed_at, {zone:String}) AS hour_of_day,
    count() AS orders, sum(o.net_cents + o.refunded_cents) AS gross_cents, sum(o.refunded_cents) AS refunded_cents, sum(o.net_cents) AS net_cents
FROM order_attributions AS o
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND placed_at >= {start:DateTime64(6, 'UTC')} AND placed_at < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
GROUP BY hour_of_day
ORDER BY hour_of_day
