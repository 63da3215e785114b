-- name: daily_active_users
-- owner: team:feed
-- grain: hour
-- partition: hourly
-- description: Distinct users of each hour, and of its UTC day up to the end of that hour; the last hour of a day holds
--   the day's number.
with hours as (
    select e.hour, e.user_id
    from events as e
    where e.hour >= date_trunc('DAY', {{ window_start }}) and e.hour < {{ window_end }}
    group by e.hour, e.user_id
),
firsts as (
    select h.user_id, date_trunc('DAY', h.hour) as day, min(h.hour) as hour
    from hours as h
    group by h.user_id, date_trunc('DAY', h.hour)
),
arrivals as (
    select f.hour, count(*) as users
    from firsts as f
    group by f.hour
),
active as (
    select h.hour, date_trunc('DAY', h.hour) as day, count(*) as users
    from hours as h
    group by h.hour
),
running as (
    select
        a.hour,
        a.day,
        a.users,
        sum(coalesce(n.users, 0)) over (partition by a.day order by a.hour) as users_of_day
    from active as a
    left join arrivals as n on a.hour = n.hour
)
select
    r.hour, -- start of the hour, UTC
    r.day, -- start of its day, UTC
    r.users as active_users, -- distinct users of the hour
    r.users_of_day as active_users_of_day -- distinct users of the day until the end of this hour
from running as r
where r.hour >= {{ window_start }}
