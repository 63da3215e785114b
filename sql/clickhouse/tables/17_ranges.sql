-- name: ranges
-- description: Aggregates of a range, filtered: whole hours from hours, the range's ends from minutes.
-- Views with parameters: start and end DateTime64(6, 'UTC'), half-open, whole minutes; zone String, IANA; step UInt32, seconds, the
-- least that `at` is to be told apart by; channels, devices, bands Array(String), empty for all. Where the zone's hours or the step
-- are not whole hours, all comes from minutes. What is visible is looked up here once more, for the hours of the range only.

-- Of the bitmaps that have just the dimensions that are filtered by; where a dimension is left out it is ''.
CREATE VIEW IF NOT EXISTS users_in AS
WITH
    {start:DateTime64(6, 'UTC')} AS range_start,
    {end:DateTime64(6, 'UTC')} AS range_end,
    toStartOfHour(range_start + INTERVAL 3599 SECOND) AS hours_start,
    toStartOfHour(range_end) AS hours_end,
    ({step:UInt32} % 3600 = 0 AND timezoneOffset(toDateTime(range_start, {zone:String})) % 3600 = 0
        AND timezoneOffset(toDateTime(range_end, {zone:String})) % 3600 = 0 AND {zone:String} != 'Australia/Lord_Howe') AS whole_hours,
    4 * empty({channels:Array(String)}) + 2 * empty({devices:Array(String)}) + empty({bands:Array(String)}) AS left_out
SELECT at, channel, device, band, users
FROM user_totals_all
WHERE hour >= toStartOfHour(range_start) AND hour < range_end
    AND
    (
        (grain = 3600 AND whole_hours AND at >= hours_start AND at < hours_end AND rolled = left_out)
        OR (grain = 60 AND at >= range_start AND at < range_end AND (NOT whole_hours OR at < hours_start OR at >= hours_end) AND rolled = if(left_out = 7, 7, 0))
    )
    AND (hour, load) IN
    (
        SELECT hour, argMax(load, seq) FROM loads
        WHERE part = 'feed' AND hour >= toStartOfHour(range_start) AND hour < range_end GROUP BY hour
    )
    AND (empty({channels:Array(String)}) OR channel IN {channels:Array(String)})
    AND (empty({devices:Array(String)}) OR device IN {devices:Array(String)})
    AND (empty({bands:Array(String)}) OR band IN {bands:Array(String)});

CREATE VIEW IF NOT EXISTS events_in AS
WITH
    {start:DateTime64(6, 'UTC')} AS range_start,
    {end:DateTime64(6, 'UTC')} AS range_end,
    toStartOfHour(range_start + INTERVAL 3599 SECOND) AS hours_start,
    toStartOfHour(range_end) AS hours_end,
    ({step:UInt32} % 3600 = 0 AND timezoneOffset(toDateTime(range_start, {zone:String})) % 3600 = 0
        AND timezoneOffset(toDateTime(range_end, {zone:String})) % 3600 = 0 AND {zone:String} != 'Australia/Lord_Howe') AS whole_hours
SELECT at, channel, device, band, action, events, dwell_ms
FROM event_totals_all
WHERE hour >= toStartOfHour(range_start) AND hour < range_end
    AND
    (
        (grain = 3600 AND whole_hours AND at >= hours_start AND at < hours_end)
        OR (grain = 60 AND at >= range_start AND at < range_end AND (NOT whole_hours OR at < hours_start OR at >= hours_end))
    )
    AND (hour, load) IN
    (
        SELECT hour, argMax(load, seq) FROM loads
        WHERE part = 'feed' AND hour >= toStartOfHour(range_start) AND hour < range_end GROUP BY hour
    )
    AND (empty({channels:Array(String)}) OR channel IN {channels:Array(String)})
    AND (empty({devices:Array(String)}) OR device IN {devices:Array(String)})
    AND (empty({bands:Array(String)}) OR band IN {bands:Array(String)});

CREATE VIEW IF NOT EXISTS displays_in AS
WITH
    {start:DateTime64(6, 'UTC')} AS range_start,
    {end:DateTime64(6, 'UTC')} AS range_end,
    toStartOfHour(range_start + INTERVAL 3599 SECOND) AS hours_start,
    toStartOfHour(range_end) AS hours_end,
    ({step:UInt32} % 3600 = 0 AND timezoneOffset(toDateTime(range_start, {zone:String})) % 3600 = 0
        AND timezoneOffset(toDateTime(range_end, {zone:String})) % 3600 = 0 AND {zone:String} != 'Australia/Lord_Howe') AS whole_hours
SELECT at, channel, device, band, displays, impressions, clicks, dwell_ms, likes, favs, comments, shares, follows, hides, profile_enters, click_seconds
FROM display_totals_all
WHERE hour >= toStartOfHour(range_start) AND hour < range_end
    AND
    (
        (grain = 3600 AND whole_hours AND at >= hours_start AND at < hours_end)
        OR (grain = 60 AND at >= range_start AND at < range_end AND (NOT whole_hours OR at < hours_start OR at >= hours_end))
    )
    AND (hour, load) IN
    (
        SELECT hour, argMax(load, seq) FROM loads
        WHERE part = 'feed' AND hour >= toStartOfHour(range_start) AND hour < range_end GROUP BY hour
    )
    AND (empty({channels:Array(String)}) OR channel IN {channels:Array(String)})
    AND (empty({devices:Array(String)}) OR device IN {devices:Array(String)})
    AND (empty({bands:Array(String)}) OR band IN {bands:Array(String)});

-- By the time of the display, though the click may be of a later hour. Where a click belongs to no display (not attributed), by its own.
CREATE VIEW IF NOT EXISTS clicks_in AS
WITH
    {start:DateTime64(6, 'UTC')} AS range_start,
    {end:DateTime64(6, 'UTC')} AS range_end,
    toStartOfHour(range_start + INTERVAL 3599 SECOND) AS hours_start,
    toStartOfHour(range_end) AS hours_end,
    ({step:UInt32} % 3600 = 0 AND timezoneOffset(toDateTime(range_start, {zone:String})) % 3600 = 0
        AND timezoneOffset(toDateTime(range_end, {zone:String})) % 3600 = 0 AND {zone:String} != 'Australia/Lord_Howe') AS whole_hours
SELECT at, attributed, channel, device, band, clicks, dwell_ms, likes, favs, comments, shares, follows, hides, profile_enters, dwell_seconds
FROM click_totals_all
WHERE hour >= toStartOfHour(range_start) AND hour < range_end + INTERVAL 1 DAY
    AND
    (
        (grain = 3600 AND whole_hours AND at >= hours_start AND at < hours_end)
        OR (grain = 60 AND at >= range_start AND at < range_end AND (NOT whole_hours OR at < hours_start OR at >= hours_end))
    )
    AND (hour, load) IN
    (
        SELECT hour, argMax(load, seq) FROM loads
        WHERE part = 'feed' AND hour >= toStartOfHour(range_start) AND hour < range_end + INTERVAL 1 DAY GROUP BY hour
    )
    AND (empty({channels:Array(String)}) OR channel IN {channels:Array(String)})
    AND (empty({devices:Array(String)}) OR device IN {devices:Array(String)})
    AND (empty({bands:Array(String)}) OR band IN {bands:Array(String)});
