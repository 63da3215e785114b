-- name: spam_users
-- description: The flagged accounts of the range by their codes, highest score first.
-- parameters: start and end DateTime64(6, 'UTC') half-open; user_key String; show_ids UInt8, 1: ids too
SELECT substring(lower(hex(SHA256(concat({user_key:String}, ':', toString(user_id))))), 1, 12) AS user, if({show_ids:UInt8} = 1, toString(user_id), '') AS user_id_shown, best AS score, why AS reasons, hours, first_hour, newest_hour
FROM
(
    SELECT user_id, max(score) AS best,
        arrayStringConcat(arraySort(groupUniqArrayArray(extractAll(toString(reasons), '[A-Za-z_]+'))), ', ') AS why,
        uniqExact(hour) AS hours, min(hour) AS first_hour, max(hour) AS newest_hour
    FROM spam_accounts
    WHERE hour >= toStartOfHour({start:DateTime64(6, 'UTC')}) AND hour < {end:DateTime64(6, 'UTC')}
    GROUP BY user_id
    ORDER BY best DESC, user_id
    LIMIT 200
)
ORDER BY score DESC, user
