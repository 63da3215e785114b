-- name: funnel_by_channel
-- description: The funnel per channel of the display; none where it names none.
-- parameters: start and end DateTime64(6, 'UTC') half-open, whole minutes; channels, devices, bands Array(String), empty for all; long_view_ms UInt32
-- Whole hours are read from the aggregates of hours, the range's ends from those of minutes.
-- Long views are counted by whole seconds of dwell: exact for a threshold of whole seconds.
SELECT
    channel,
    sum(displays) AS displays, sum(clicks) AS clicks, clicks / nullIf(displays, 0) AS ctr,
    sum(long_views) AS long_views, sum(likes) AS likes, sum(favs) AS favs, sum(comments) AS comments,
    sum(shares) AS shares, sum(follows) AS follows, sum(profile_enters) AS profile_enters, sum(hides) AS hides
FROM
(
    SELECT channel AS channel, sum(d.displays) AS displays, sum(d.clicks) AS clicks, 0 AS long_views,
        0 AS likes, 0 AS favs, 0 AS comments, 0 AS shares, 0 AS follows, 0 AS profile_enters, 0 AS hides
    FROM
    (
        SELECT hour AS at, channel, displays, clicks
        FROM displays_by_hour
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND hour < toStartOfHour({end:DateTime64(6, 'UTC')})
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        UNION ALL
        SELECT minute AS at, channel, displays, clicks
        FROM displays_by_minute
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
            AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
            AND (hour < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')}))
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    ) AS d
    GROUP BY channel
    UNION ALL
    -- What followed their clicks, by the time of the display, though the click may be of the next hour.
    SELECT channel AS channel, 0, 0,
        arraySum(mapValues(mapFilter((seconds, n) -> seconds * 1000 >= {long_view_ms:UInt32}, sumMap(c.dwell_seconds)))),
        sum(c.likes), sum(c.favs), sum(c.comments), sum(c.shares), sum(c.follows), sum(c.profile_enters), sum(c.hides)
    FROM
    (
        SELECT display_hour AS at, channel, dwell_seconds, likes, favs, comments, shares, follows, profile_enters, hides
        FROM clicks_by_hour
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')} + INTERVAL 1 DAY
            AND display_hour >= toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) AND display_hour < toStartOfHour({end:DateTime64(6, 'UTC')})
            AND attributed
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
        UNION ALL
        SELECT minute AS at, channel, dwell_seconds, likes, favs, comments, shares, follows, profile_enters, hides
        FROM clicks_by_minute
        WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')} + INTERVAL 1 DAY
            AND minute >= toStartOfMinute({start:DateTime64(6, 'UTC')}) AND minute < {end:DateTime64(6, 'UTC')}
            AND ((hour < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) + INTERVAL 1 DAY AND toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) > {start:DateTime64(6, 'UTC')}) OR hour >= toStartOfHour({end:DateTime64(6, 'UTC')}))
            AND (minute < toStartOfHour({start:DateTime64(6, 'UTC')} + INTERVAL 3599 SECOND) OR minute >= toStartOfHour({end:DateTime64(6, 'UTC')}))
            AND attributed
            AND (empty({channels:Array(String)}) OR has({channels:Array(String)}, channel))
            AND (empty({devices:Array(String)}) OR has({devices:Array(String)}, device))
            AND (empty({bands:Array(String)}) OR has({bands:Array(String)}, band))
    ) AS c
    GROUP BY channel
)
GROUP BY channel
ORDER BY displays DESC, channel
LIMIT 50
