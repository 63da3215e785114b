-- name: revenue_over_time
-- description: Gross, refunds and net of the orders placed, per time step.
-- parameters: start and end DateTime64(6, 'UTC') half-open; channels Array(String), empty for all; step UInt32, seconds
SELECT toStartOfInterval(placed_at, toIntervalSecond({step:UInt32}), 'UTC') AS time,
    count() AS orders, sum(o.net_cents + o.refunded_cents) AS gross_cents, sum(o.refunded_cents) AS refunded_cents, sum(o.net_cents) AS net_cents
FROM order_attributions AS o
WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    AND placed_at >= {start:DateTime64(6, 'UTC')} AND placed_at < {end:DateTime64(6, 'UTC')}
    AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, ifNull(channel, 'none')))
GROUP BY time
ORDER BY time
