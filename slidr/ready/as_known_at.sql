-- Decisions as they were known at a time, one row per click that was decided then: first decisions made by then, overlaid by the replays
-- that were published by then and not taken back. It is what the published state was, also of clicks that a replay was the first to
-- decide and found valid, which have no correction; corrected_by is the replay whose decision held, NULL for a first decision.
-- $at: the time, ISO 8601 with an offset, such as 2026-03-05T12:00:00Z
-- $from_day: first UTC day of the clicks [default 1970-01-01]
-- $to_day: UTC day at which they end, excluded [default 2999-01-01]
WITH published AS (
  SELECT replay_id, min(published_time) AS published_time FROM corrections GROUP BY replay_id
), applied AS (
  SELECT r.replay_id, r.mode, r.plan, CAST(regexp_extract(r.details, '"order": ?([0-9]+)', 1) AS INT) AS place
  FROM replays r
  LEFT JOIN published p ON p.replay_id = r.replay_id
  WHERE r.event = 'applied' AND coalesce(p.published_time, r.event_time) <= $at
), reverts AS (
  SELECT
    regexp_extract(plan, '"clicks_of": ?"([^"]+)"', 1) AS replay_id,
    regexp_extract(plan, '"in_effect": ?.([a-z0-9", -]*)', 1) AS kept,
    place
  FROM applied
  WHERE mode = 'revert'
), numbered AS (
  SELECT *, row_number() OVER (PARTITION BY replay_id ORDER BY place DESC) AS newest FROM reverts
), in_effect AS (
  SELECT a.replay_id, a.place
  FROM applied a
  LEFT JOIN numbered n ON n.replay_id = a.replay_id AND n.newest = 1
  WHERE a.mode <> 'revert' AND (n.replay_id IS NULL OR n.kept LIKE concat('%"', a.replay_id, '"%'))
), told AS (
  SELECT click_id, click_date, is_invalid, score, model_version, CAST(NULL AS STRING) AS replay_id, 2 AS turn, 0 AS place, FALSE AS stands
  FROM decisions
  WHERE decided_time <= $at AND click_date >= CAST($from_day AS DATE) AND click_date < CAST($to_day AS DATE)
  UNION ALL
  SELECT r.click_id, r.click_date, r.is_invalid, r.score, r.model_version, r.replay_id, CASE WHEN r.after_first THEN 3 ELSE 1 END, e.place,
    r.authority = 'full' OR r.is_invalid
  FROM replay_decisions r
  INNER JOIN in_effect e ON e.replay_id = r.replay_id
  WHERE r.authority <> 'none' AND r.click_date >= CAST($from_day AS DATE) AND r.click_date < CAST($to_day AS DATE)
), ordered AS (
  SELECT *, row_number() OVER (PARTITION BY click_id ORDER BY turn, place) AS step FROM told
), heard AS (
  SELECT *, lag(is_invalid) OVER (PARTITION BY click_id ORDER BY step) AS before FROM ordered WHERE step = 1 OR stands
), changes AS (
  SELECT *, row_number() OVER (PARTITION BY click_id ORDER BY step DESC) AS newest FROM heard WHERE before IS NULL OR before <> is_invalid
)
SELECT
  c.click_date,
  c.click_id,
  c.advertiser_id,
  c.cost_micros,
  c.currency,
  s.is_invalid,
  s.score,
  s.model_version,
  s.replay_id AS corrected_by
FROM changes s
INNER JOIN clicks c ON c.click_id = s.click_id AND c.click_date = s.click_date
WHERE s.newest = 1
ORDER BY c.click_date, c.click_id
