-- name: training_samples
-- owner: team:ranking
-- grain: user_id, note_id, session_start
-- partition: hourly
-- lookback: 7d
-- description: One row a display window: its labels, and what was known of its user and of its note before the hour of
--   the display began (the newest profile or history of an earlier hour, seven days old at most, else null). The labels other than
--   label_click mean something where engaged = 1 only.
with displays as (
    select
        s.hour,
        s.user_id,
        s.note_id,
        s.session_start,
        s.request_id,
        s.channel,
        s.position,
        s.device,
        s.author_id,
        s.topic,
        s.clicked
    from impression_sessions as s
    where s.hour >= {{ window_start }} and s.hour < {{ window_end }}
),
engagements as (
    -- a click opens its session less than one session window after the display opened its own
    select c.*
    from click_sessions as c
    where
        c.attributed
        and c.hour >= {{ window_start }}
        and c.hour < {{ window_end }} + interval {{ window_ms }} milliseconds
),
-- Which profile was the newest? Within a key, a display (place 0) sorts before the profile of its own hour (place 1), so
-- the greatest profile hour above it is an earlier one. A join by a range would pair it with a week of profiles.
user_hours as (
    select d.user_id, d.hour, 0 as place, cast(null as timestamp) as profile_hour
    from displays as d
    group by d.user_id, d.hour
    union all
    select p.user_id, p.hour, 1 as place, p.hour as profile_hour
    from user_profiles as p
    where p.hour >= {{ lookback_start }} and p.hour < {{ window_end }}
),
user_line as (
    select h.user_id, h.hour, h.place,
        max(h.profile_hour) over (
            partition by h.user_id order by h.hour, h.place rows unbounded preceding
        ) as profile_hour
    from user_hours as h
),
users as (
    select l.hour as display_hour, p.*
    from user_line as l
    inner join user_profiles as p on l.user_id = p.user_id and l.profile_hour = p.hour
    where l.place = 0 and l.profile_hour >= l.hour - interval 168 hours
),
note_hours as (
    select d.note_id, d.hour, 0 as place, cast(null as timestamp) as profile_hour
    from displays as d
    group by d.note_id, d.hour
    union all
    select p.note_id, p.hour, 1 as place, p.hour as profile_hour
    from note_profiles as p
    where p.hour >= {{ lookback_start }} and p.hour < {{ window_end }}
),
note_line as (
    select h.note_id, h.hour, h.place,
        max(h.profile_hour) over (
            partition by h.note_id order by h.hour, h.place rows unbounded preceding
        ) as profile_hour
    from note_hours as h
),
notes as (
    select l.hour as display_hour, p.*
    from note_line as l
    inner join note_profiles as p on l.note_id = p.note_id and l.profile_hour = p.hour
    where l.place = 0 and l.profile_hour >= l.hour - interval 168 hours
),
history_hours as (
    select d.user_id, d.hour, 0 as place, cast(null as timestamp) as history_hour
    from displays as d
    group by d.user_id, d.hour
    union all
    select p.user_id, p.hour, 1 as place, p.hour as history_hour
    from user_histories as p
    where p.hour >= {{ lookback_start }} and p.hour < {{ window_end }}
),
history_line as (
    select h.user_id, h.hour, h.place,
        max(h.history_hour) over (
            partition by h.user_id order by h.hour, h.place rows unbounded preceding
        ) as history_hour
    from history_hours as h
),
histories as (
    select l.hour as display_hour, p.*
    from history_line as l
    inner join user_histories as p on l.user_id = p.user_id and l.history_hour = p.hour
    where l.place = 0 and l.history_hour >= l.hour - interval 168 hours
),
topic_hours as (
    select d.user_id, d.topic, d.hour, 0 as place, cast(null as timestamp) as profile_hour
    from displays as d
    where d.topic is not null
    group by d.user_id, d.topic, d.hour
    union all
    select p.user_id, p.topic, p.hour, 1 as place, p.hour as profile_hour
    from user_topic_profiles as p
    where p.hour >= {{ lookback_start }} and p.hour < {{ window_end }}
),
topic_line as (
    select h.user_id, h.topic, h.hour, h.place,
        max(h.profile_hour) over (
            partition by h.user_id, h.topic order by h.hour, h.place rows unbounded preceding
        ) as profile_hour
    from topic_hours as h
),
topics as (
    select l.hour as display_hour, p.*
    from topic_line as l
    inner join user_topic_profiles as p
        on l.user_id = p.user_id and l.topic = p.topic and l.profile_hour = p.hour
    where l.place = 0 and l.profile_hour >= l.hour - interval 168 hours
)
select
    d.hour, -- hour of the display, UTC
    d.user_id, -- to whom
    d.note_id, -- what
    d.session_start, -- first display of the session, UTC
    d.request_id, -- the feed request
    d.channel, -- the surface
    d.position, -- the slot, from 0
    d.device, -- from the display's context
    d.author_id, -- from the display's context
    d.topic, -- from the display's context
    hour(d.session_start) as hour_of_day, -- 0 to 23, UTC
    u.impressions as user_impressions, -- the user: displays in seven days; null without a profile
    u.clicks as user_clicks, -- the user: clicks in seven days; null without a profile
    u.views as user_views, -- the user: opened notes in seven days; null without a profile
    u.long_views as user_long_views, -- the user: long views in seven days; null without a profile
    u.dwell_ms as user_dwell_ms, -- the user: reading time, ms in seven days; null without a profile
    u.likes as user_likes, -- the user: likes in seven days; null without a profile
    u.favs as user_favs, -- the user: favs in seven days; null without a profile
    u.comments as user_comments, -- the user: comments in seven days; null without a profile
    u.shares as user_shares, -- the user: shares in seven days; null without a profile
    u.follows as user_follows, -- the user: follows in seven days; null without a profile
    u.hides as user_hides, -- the user: hides in seven days; null without a profile
    u.profile_enters as user_profile_enters, -- the user: author pages entered in seven days; null without a profile
    u.ctr as user_ctr, -- the user: clicks per display, smoothed
    u.like_rate as user_like_rate, -- the user: likes per click, smoothed
    u.long_view_rate as user_long_view_rate, -- the user: long views per click, smoothed
    t.impressions as user_topic_impressions, -- the user with the note's topic: displays in seven days; null without a profile
    t.clicks as user_topic_clicks, -- the user with the note's topic: clicks in seven days; null without a profile
    t.long_views as user_topic_long_views, -- the user with the note's topic: long views in seven days; null without a profile
    t.likes as user_topic_likes, -- the user with the note's topic: likes in seven days; null without a profile
    t.ctr as user_topic_ctr, -- the user with the note's topic: clicks per display, smoothed
    n.impressions as note_impressions, -- the note: displays in seven days; null without a profile
    n.clicks as note_clicks, -- the note: clicks in seven days; null without a profile
    n.views as note_views, -- the note: times opened in seven days; null without a profile
    n.long_views as note_long_views, -- the note: long views in seven days; null without a profile
    n.dwell_ms as note_dwell_ms, -- the note: reading time, ms in seven days; null without a profile
    n.likes as note_likes, -- the note: likes in seven days; null without a profile
    n.favs as note_favs, -- the note: favs in seven days; null without a profile
    n.comments as note_comments, -- the note: comments in seven days; null without a profile
    n.shares as note_shares, -- the note: shares in seven days; null without a profile
    n.follows as note_follows, -- the note: follows in seven days; null without a profile
    n.hides as note_hides, -- the note: hides in seven days; null without a profile
    n.profile_enters as note_profile_enters, -- the note: author pages entered in seven days; null without a profile
    n.ctr as note_ctr, -- the note: clicks per display, smoothed
    n.like_rate as note_like_rate, -- the note: likes per click, smoothed
    n.long_view_rate as note_long_view_rate, -- the note: long views per click, smoothed
    s.clicked_notes, -- the user: notes of the last clicks (20 at most, seven days), newest first; null without a history
    s.clicked_topics, -- their topics
    s.clicked_authors, -- their authors
    s.liked_notes, -- the user: notes of the last likes (20 at most, seven days), newest first; null without a history
    s.liked_topics, -- their topics
    s.liked_authors, -- their authors
    cast(d.clicked as int) as label_click, -- clicked within the session window
    cast(g.impression_session_start is not null as int) as engaged, -- a click session is attributed to this display
    cast(coalesce(g.like, false) as int) as label_like, -- liked at the close of the click session
    cast(coalesce(g.fav, false) as int) as label_fav, -- in favourites at the close
    cast(coalesce(g.comment, false) as int) as label_comment, -- commented
    cast(coalesce(g.share, false) as int) as label_share, -- shared
    cast(coalesce(g.follow, false) as int) as label_follow, -- following the author at the close
    cast(coalesce(g.hide, false) as int) as label_hide, -- hid the note
    cast(coalesce(g.profile_enter, false) as int) as label_profile_enter, -- entered the author's page
    cast(coalesce(g.dwell_ms >= {{ long_view_ms }}, false) as int) as label_long_view, -- read for long_view or longer
    coalesce(g.dwell_ms, 0) as dwell_ms -- reading time in the click session, ms
from displays as d
left join engagements as g
    on d.user_id = g.user_id and d.note_id = g.note_id and d.session_start = g.impression_session_start
left join users as u on d.user_id = u.user_id and d.hour = u.display_hour
left join notes as n on d.note_id = n.note_id and d.hour = n.display_hour
left join histories as s on d.user_id = s.user_id and d.hour = s.display_hour
left join topics as t on d.user_id = t.user_id and d.topic = t.topic and d.hour = t.display_hour
