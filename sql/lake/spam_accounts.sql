-- name: spam_accounts
-- owner: team:feed
-- grain: hour, user_id
-- partition: hourly
-- lookback: 24h
-- description: Accounts that look like spam as of the end of an hour, by what they did in its 24 hours, that hour included.
--   One row for each hour and account for which a rule fires; the rules, their thresholds and what they miss are in
--   docs/spam.md. A log that names no author_id or device_id goes without the rules that need them.
{% set peak_actions = 18 %} {# rate: actions in one minute #}
{% set hour_actions = 150 %} {# rate: actions in one clock hour #}
{% set regular_gaps = 50 %} {# regular: pauses of at most a minute in one clock hour, and #}
{% set regular_spread = 0.5 %} {# how far apart their quartiles lie at most, as a share of their median #}
{% set repeats = 5 %} {# repetition: third and further times of the same action, not a click, on the same note, and #}
{% set repeat_share = 0.2 %} {# their share of all actions #}
{% set author_actions = 10 %} {# author: comments and shares on one author, and #}
{% set author_share = 0.3 %} {# their share of all actions #}
{% set device_accounts = 4 %} {# device: accounts that act from one device, and #}
{% set device_accounts_max = 200 %} {# (a device of more accounts is a placeholder, not a phone) #}
{% set together_accounts = 3 %} {# accounts of it that act on the same note, and #}
{% set together = 6 %} {# actions on such notes, and #}
{% set together_share = 0.4 %} {# their share of all actions #}
-- Who could be flagged at all: what a rule needs in 24 hours is there in all that was read. Few are; only theirs is
-- added up hour by hour below.
with shared_devices as (
    select c.device_id
    from account_actions as c
    where c.hour >= {{ lookback_start }} and c.hour < {{ window_end }} and c.device_id is not null
    group by c.device_id
    having count(distinct c.user_id) >= {{ device_accounts }}
),
of_notes as (
    -- not clicks: a feed shows a popular note again and again, and readers open it again
    select c.user_id, c.note_id, c.action, sum(c.times) as times
    from account_actions as c
    where c.hour >= {{ lookback_start }} and c.hour < {{ window_end }} and c.action <> 'click'
    group by c.user_id, c.note_id, c.action
),
of_authors as (
    select c.user_id, c.author_id, sum(c.times) as times
    from account_actions as c
    where
        c.hour >= {{ lookback_start }} and c.hour < {{ window_end }}
        and c.action in ('comment', 'share') and c.author_id is not null
    group by c.user_id, c.author_id
),
suspects as (
    select r.user_id
    from account_hours as r
    where
        r.hour >= {{ lookback_start }} and r.hour < {{ window_end }}
        and (
            r.peak_actions_per_minute >= {{ peak_actions }}
            or r.actions >= {{ hour_actions }}
            or (r.pauses >= {{ regular_gaps }} and r.pause_spread <= {{ regular_spread }})
        )
    union
    select n.user_id
    from of_notes as n
    group by n.user_id
    having sum(greatest(n.times - 2, 0)) >= {{ repeats }}
    union
    select o.user_id
    from of_authors as o
    where o.times >= {{ author_actions }}
    union
    select c.user_id
    from account_actions as c
    inner join shared_devices as d on c.device_id = d.device_id
    where c.hour >= {{ lookback_start }} and c.hour < {{ window_end }}
),
-- from here on, `hour` is the hour as of whose end 24 hours are added up
hours_of as (
    select
        r.user_id, r.actions, r.active_minutes, r.peak_actions_per_minute, r.pauses, r.pause_spread,
        explode(sequence(r.hour, r.hour + interval 23 hours, interval 1 hour)) as hour
    from account_hours as r
    inner join suspects as s on r.user_id = s.user_id
    where r.hour >= {{ lookback_start }} and r.hour < {{ window_end }}
),
rates as (
    select
        h.hour,
        h.user_id,
        sum(h.actions) as actions,
        sum(h.active_minutes) as active_minutes,
        max(h.peak_actions_per_minute) as peak,
        max(h.actions) as hour_actions,
        min(case when h.pauses >= {{ regular_gaps }} then h.pause_spread end) as spread
    from hours_of as h
    where h.hour >= {{ window_start }} and h.hour < {{ window_end }}
    group by h.hour, h.user_id
),
actions_of as (
    select
        c.user_id, c.note_id, c.author_id, c.device_id, c.action, c.times,
        explode(sequence(c.hour, c.hour + interval 23 hours, interval 1 hour)) as hour
    from account_actions as c
    inner join suspects as s on c.user_id = s.user_id
    where c.hour >= {{ lookback_start }} and c.hour < {{ window_end }}
),
notes as (
    select a.hour, a.user_id, a.note_id, a.action, sum(a.times) as times
    from actions_of as a
    where a.hour >= {{ window_start }} and a.hour < {{ window_end }} and a.action <> 'click'
    group by a.hour, a.user_id, a.note_id, a.action
),
repetition as (
    select n.hour, n.user_id, sum(greatest(n.times - 2, 0)) as repeats
    from notes as n
    group by n.hour, n.user_id
),
authors as (
    select a.hour, a.user_id, a.author_id, sum(a.times) as times
    from actions_of as a
    where
        a.hour >= {{ window_start }} and a.hour < {{ window_end }}
        and a.action in ('comment', 'share') and a.author_id is not null
    group by a.hour, a.user_id, a.author_id
),
favourites as (
    select a.hour, a.user_id, max(a.times) as author_actions
    from authors as a
    group by a.hour, a.user_id
),
device_notes as (
    select a.hour, a.device_id, a.user_id, a.note_id, sum(a.times) as times
    from actions_of as a
    inner join shared_devices as d on a.device_id = d.device_id
    where a.hour >= {{ window_start }} and a.hour < {{ window_end }}
    group by a.hour, a.device_id, a.user_id, a.note_id
),
device_users as (
    select n.hour, n.device_id, count(distinct n.user_id) as accounts
    from device_notes as n
    group by n.hour, n.device_id
),
note_users as (
    select n.*, count(*) over (partition by n.hour, n.device_id, n.note_id) as accounts
    from device_notes as n
),
devices as (
    select
        n.hour,
        n.user_id,
        max(u.accounts) as accounts,
        sum(case when n.accounts >= {{ together_accounts }} then n.times else 0 end) as together
    from note_users as n
    inner join device_users as u on n.hour = u.hour and n.device_id = u.device_id
    where u.accounts between {{ device_accounts }} and {{ device_accounts_max }}
    group by n.hour, n.user_id
),
figures as (
    select
        r.hour,
        r.user_id,
        r.actions,
        r.active_minutes,
        r.peak,
        r.hour_actions,
        r.spread,
        coalesce(p.repeats, 0) as repeats,
        coalesce(a.author_actions, 0) as author_actions,
        coalesce(d.accounts, 0) as accounts,
        coalesce(d.together, 0) as together
    from rates as r
    left join repetition as p on r.hour = p.hour and r.user_id = p.user_id
    left join favourites as a on r.hour = a.hour and r.user_id = a.user_id
    left join devices as d on r.hour = d.hour and r.user_id = d.user_id
),
-- a rule that fires has a strength: how many times its threshold its figure is; else null
ruled as (
    select
        f.*,
        case
            when f.peak >= {{ peak_actions }} or f.hour_actions >= {{ hour_actions }}
                then greatest(f.peak / {{ peak_actions }}, f.hour_actions / {{ hour_actions }})
        end as rate,
        case when f.spread <= {{ regular_spread }} then {{ regular_spread }} / greatest(f.spread, 0.01) end as regular,
        case
            when f.repeats >= {{ repeats }} and f.repeats >= {{ repeat_share }} * f.actions
                then f.repeats / {{ repeats }}
        end as repetition,
        case
            when f.author_actions >= {{ author_actions }} and f.author_actions >= {{ author_share }} * f.actions
                then f.author_actions / {{ author_actions }}
        end as author,
        case
            when f.together >= {{ together }} and f.together >= {{ together_share }} * f.actions
                then f.together / {{ together }}
        end as device
    from figures as f
)
select
    r.hour, -- the hour by whose end this holds, UTC
    r.user_id, -- the account
    concat_ws(
        ',',
        case when r.rate is not null then 'rate' end,
        case when r.regular is not null then 'regular' end,
        case when r.repetition is not null then 'repetition' end,
        case when r.author is not null then 'author' end,
        case when r.device is not null then 'device' end
    ) as reasons, -- the rules that fired, of: rate, regular, repetition, author, device
    cast(
        least(coalesce(r.rate, 0), 5) + least(coalesce(r.regular, 0), 5) + least(coalesce(r.repetition, 0), 5)
        + least(coalesce(r.author, 0), 5) + least(coalesce(r.device, 0), 5) as double
    ) as score, -- over the rules that fired: how many times its threshold the figure is, 5 at most, added up
    cast(r.actions as bigint) as actions, -- events but impression and view_end in 24 hours
    cast(r.active_minutes as bigint) as active_minutes, -- minutes with an action
    cast(r.actions / r.active_minutes as double) as actions_per_active_minute, -- the mean of those
    cast(r.peak as bigint) as peak_actions_per_minute, -- the greatest of those
    cast(r.hour_actions as bigint) as peak_actions_per_hour, -- in one clock hour
    cast(r.spread as double) as pause_spread, -- (Q3 - Q1) / median of the pauses between events, the most regular busy hour; null without one
    cast(r.repeats as bigint) as repeats, -- third and further times of the same action, not a click, on the same note
    cast(r.repeats / r.actions as double) as repeat_share, -- of all actions
    cast(r.author_actions as bigint) as author_actions, -- comments and shares on the author who got the most of them
    cast(r.accounts as bigint) as accounts_on_device, -- accounts that acted from the same device, if they are suspiciously many; else 0
    cast(r.together as bigint) as actions_together -- actions on notes that several accounts of that device acted on
from ruled as r
where coalesce(r.rate, r.regular, r.repetition, r.author, r.device) is not null
