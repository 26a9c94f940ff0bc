-- Why a click was invalidated or not: its first decision and every published correction of it, in order of time.
-- No row: nothing decided it, or only a replay, which found it valid; either way it is charged. A click is invalid if and only if score > threshold, where there is a score.
-- $click_id: the click
SELECT
  decided_time AS time,
  'decided' AS event,
  is_invalid,
  basis AS how,
  score,
  threshold,
  slice,
  model_version,
  reason_class,
  reason_1,
  reason_2,
  reason_3,
  CAST(NULL AS STRING) AS replay_id
FROM decisions
WHERE click_id = $click_id
UNION ALL
SELECT
  k.published_time,
  k.direction,
  k.new_is_invalid,
  k.mode,
  k.new_score,
  k.new_threshold,
  r.slice,
  k.new_model_version,
  coalesce(r.reason_class, k.reason_class),
  r.reason_1,
  r.reason_2,
  r.reason_3,
  k.replay_id
FROM corrections k
LEFT JOIN replay_decisions r ON r.click_id = k.click_id AND r.click_date = k.click_date AND r.replay_id = k.replay_id
WHERE k.click_id = $click_id
ORDER BY time, event
