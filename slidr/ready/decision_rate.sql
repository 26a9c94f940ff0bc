-- How many clicks of each UTC day are decided, by what, and how many are not: an undecided click is charged. no_features and
-- unseen_slice are decisions without a score of their own.
-- $from_day: first UTC day of the clicks [default 1970-01-01]
-- $to_day: UTC day at which they end, excluded [default 2999-01-01]
SELECT
  c.click_date,
  count(*) AS clicks,
  count(d.click_id) AS decided,
  count(*) - count(d.click_id) AS undecided,
  CAST(count(d.click_id) AS DOUBLE) / count(*) AS decided_share,
  count(CASE WHEN d.basis = 'model' THEN 1 END) AS by_model,
  count(CASE WHEN d.basis = 'no_features' THEN 1 END) AS no_features,
  count(CASE WHEN d.basis = 'unseen_slice' THEN 1 END) AS unseen_slice,
  count(CASE WHEN d.basis = 'upstream' THEN 1 END) AS upstream,
  count(CASE WHEN d.basis = 'external' THEN 1 END) AS external,
  count(CASE WHEN d.replay_id IS NOT NULL THEN 1 END) AS by_replay,
  count(CASE WHEN d.is_invalid THEN 1 END) AS invalid
FROM clicks c
LEFT JOIN current_decisions d ON d.click_id = c.click_id AND d.click_date = c.click_date
WHERE c.click_date >= CAST($from_day AS DATE) AND c.click_date < CAST($to_day AS DATE)
GROUP BY c.click_date
ORDER BY c.click_date
