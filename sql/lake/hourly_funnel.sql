-- name: hourly_funnel
-- owner: team:feed
-- grain: hour, channel
-- partition: hourly
-- description: From display to click to behaviour, by the hour of the display and its channel. Displays are session
--   windows; behaviours are those of the click session attributed to the display.
with displays as (
    select s.hour, coalesce(s.channel, 'unknown') as channel, s.user_id, s.note_id, s.session_start, s.impressions,
        s.clicked, s.first_click_time
    from impression_sessions as s
    where s.hour >= {{ window_start }} and s.hour < {{ window_end }}
),
engagements as (
    select c.*
    from click_sessions as c
    where
        c.attributed
        and c.hour >= {{ window_start }}
        and c.hour < {{ window_end }} + interval {{ window_ms }} milliseconds
)
select
    d.hour, -- hour of the display, UTC
    d.channel, -- the surface; unknown where the display named none
    count(*) as displays,
    sum(d.impressions) as impressions,
    count_if(d.clicked) as clicked,
    count(e.user_id) as engaged,
    count_if(e.dwell_ms >= {{ long_view_ms }}) as long_views,
    count_if(e.like) as likes,
    count_if(e.fav) as favs,
    count_if(e.comment) as comments,
    count_if(e.share) as shares,
    count_if(e.follow) as follows,
    count_if(e.hide) as hides,
    count_if(e.profile_enter) as profile_enters,
    count_if(d.clicked) / count(*) as ctr,
    cast(
        percentile_disc(0.5) within group (order by unix_millis(d.first_click_time) - unix_millis(d.session_start)) as bigint
    ) as click_delay_ms_p50,
    cast(percentile_disc(0.5) within group (order by e.dwell_ms) as bigint) as dwell_ms_p50
from displays as d
left join engagements as e
    on d.user_id = e.user_id and d.note_id = e.note_id and d.session_start = e.impression_session_start
group by d.hour, d.channel
