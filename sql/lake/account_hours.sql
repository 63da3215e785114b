-- name: account_hours
-- owner: team:feed
-- grain: hour, user_id
-- partition: hourly
-- description: How fast and how evenly each account acted in an hour: what the spam rules about rates add up. Actions are
--   events other than impression and view_end; an account without one has no row.
{% set busy_actions = 12 %} {# the evenness of fewer actions than these says nothing #}
with minutes as (
    select e.hour, e.user_id, date_trunc('MINUTE', e.event_time) as minute, count(*) as n
    from events as e
    where
        e.hour >= {{ window_start }} and e.hour < {{ window_end }} and e.action not in ('impression', 'view_end')
    group by e.hour, e.user_id, date_trunc('MINUTE', e.event_time)
),
rates as (
    select m.hour, m.user_id, sum(m.n) as actions, count(*) as active_minutes, max(m.n) as peak
    from minutes as m
    group by m.hour, m.user_id
),
-- pauses between all events, displays included, while the account is at it
pauses as (
    select
        e.hour,
        e.user_id,
        unix_micros(e.event_time)
        - lag(unix_micros(e.event_time)) over (partition by e.hour, e.user_id order by e.event_time) as pause
    from events as e
    inner join rates as r on e.hour = r.hour and e.user_id = r.user_id
    where e.hour >= {{ window_start }} and e.hour < {{ window_end }} and r.actions >= {{ busy_actions }}
),
spreads as (
    select p.hour, p.user_id, count(*) as pauses, percentile(p.pause, array(0.25, 0.5, 0.75)) as q
    from pauses as p
    where p.pause > 0 and p.pause <= 60000000
    group by p.hour, p.user_id
)
select
    r.hour, -- hour of the events, UTC
    r.user_id, -- who
    cast(r.actions as bigint) as actions, -- events but impression and view_end
    cast(r.active_minutes as bigint) as active_minutes, -- minutes with an action
    cast(r.peak as bigint) as peak_actions_per_minute, -- actions in the busiest minute
    cast(coalesce(s.pauses, 0) as bigint) as pauses, -- pauses of at most a minute between events, in an hour of 12 actions or more
    cast((s.q[2] - s.q[0]) / s.q[1] as double) as pause_spread -- (Q3 - Q1) / median of those; 0 is a clock, a person is above 1
from rates as r
left join spreads as s on r.hour = s.hour and r.user_id = s.user_id
