-- Two model versions on the same clicks, by day: what each invalidates, what only one of them does, and how many purchasing clicks
-- of matured days each invalidates. A version's decisions are its first decisions, what it would have
-- decided beside the champion (`slidr score --shadow`), and those of its applied replays.
-- $a: a model version
-- $b: another model version
-- $from_day: first UTC day of the clicks [default 1970-01-01]
-- $to_day: UTC day at which they end, excluded [default 2999-01-01]
-- $mode: mode of the replays: rescore, recompute or recompute-now [default rescore]
WITH decided AS (
  SELECT click_id, click_date, model_version, is_invalid FROM decisions
  WHERE model_version IN ($a, $b) AND click_date >= CAST($from_day AS DATE) AND click_date < CAST($to_day AS DATE)
  UNION ALL
  SELECT click_id, click_date, model_version, is_invalid FROM shadow_decisions
  WHERE model_version IN ($a, $b) AND click_date >= CAST($from_day AS DATE) AND click_date < CAST($to_day AS DATE)
  UNION ALL
  SELECT click_id, click_date, model_version, is_invalid FROM replay_decisions
  WHERE model_version IN ($a, $b) AND mode = $mode AND click_date >= CAST($from_day AS DATE) AND click_date < CAST($to_day AS DATE)
    AND replay_id IN (SELECT replay_id FROM replays WHERE event = 'applied')
), compared AS (
  SELECT
    click_id,
    click_date,
    bool_or(CASE WHEN model_version = $a THEN is_invalid END) AS invalid_a,
    bool_or(CASE WHEN model_version = $b THEN is_invalid END) AS invalid_b
  FROM decided
  GROUP BY click_id, click_date
)
SELECT
  c.click_date,
  count(*) AS clicks,
  count(CASE WHEN c.invalid_a THEN 1 END) AS invalid_a,
  count(CASE WHEN c.invalid_b THEN 1 END) AS invalid_b,
  count(CASE WHEN c.invalid_a AND NOT c.invalid_b THEN 1 END) AS only_a,
  count(CASE WHEN c.invalid_b AND NOT c.invalid_a THEN 1 END) AS only_b,
  count(CASE WHEN l.is_purchase THEN 1 END) AS purchasing,
  count(CASE WHEN l.is_purchase AND c.invalid_a THEN 1 END) AS purchasing_invalid_a,
  count(CASE WHEN l.is_purchase AND c.invalid_b THEN 1 END) AS purchasing_invalid_b
FROM compared c
LEFT JOIN labels l ON l.click_id = c.click_id AND l.click_date = c.click_date
WHERE c.invalid_a IS NOT NULL AND c.invalid_b IS NOT NULL
GROUP BY c.click_date
ORDER BY c.click_date
