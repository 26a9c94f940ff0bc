-- Decisions as they were known at a time: first decisions made by then, overlaid by the newest correction published by then.
-- A click that a replay was the first to decide and found valid has no correction, so it is not here; it is charged like one that
-- was never decided. A first decision made after a replay had taken its own back counts; one made after a replay decided does not.
-- $at: the time, ISO 8601 with an offset, such as 2026-03-05T12:00:00Z
-- $from_day: first UTC day of the clicks [default 1970-01-01]
-- $to_day: UTC day at which they end, excluded [default 2999-01-01]
WITH decided AS (
  SELECT click_id, click_date, advertiser_id, cost_micros, currency, is_invalid, score, model_version, decided_time FROM decisions
  WHERE decided_time <= $at AND click_date >= CAST($from_day AS DATE) AND click_date < CAST($to_day AS DATE)
), numbered AS (
  SELECT *, row_number() OVER (PARTITION BY click_id ORDER BY publication_no DESC) AS newest FROM corrections
  WHERE published_time <= $at AND click_date >= CAST($from_day AS DATE) AND click_date < CAST($to_day AS DATE)
), corrected AS (
  SELECT n.* FROM numbered n
  LEFT JOIN decided d ON d.click_id = n.click_id
  WHERE n.newest = 1 AND NOT (n.new_model_version IS NULL AND coalesce(d.decided_time > n.published_time, FALSE))
)
SELECT
  coalesce(d.click_date, k.click_date) AS click_date,
  coalesce(d.click_id, k.click_id) AS click_id,
  coalesce(d.advertiser_id, k.advertiser_id) AS advertiser_id,
  coalesce(d.cost_micros, k.cost_micros) AS cost_micros,
  coalesce(d.currency, k.currency) AS currency,
  coalesce(k.new_is_invalid, d.is_invalid) AS is_invalid,
  CASE WHEN k.click_id IS NULL THEN d.score ELSE k.new_score END AS score,
  CASE WHEN k.click_id IS NULL THEN d.model_version ELSE k.new_model_version END AS model_version,
  k.replay_id AS corrected_by
FROM decided d
FULL OUTER JOIN corrected k ON k.click_id = d.click_id
WHERE d.click_id IS NOT NULL OR k.new_model_version IS NOT NULL
ORDER BY click_date, click_id
