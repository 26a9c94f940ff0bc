-- What a replay changed, and what a revert took back of it: corrections and money by advertiser, billing month and direction.
-- $replay_id: id of the replay, as in `slidr replay list`
SELECT
  publication_no,
  CASE WHEN reverts_replay_id = $replay_id THEN 'reverted' ELSE 'published' END AS event,
  billing_month,
  advertiser_id,
  currency,
  direction,
  count(*) AS clicks,
  sum(delta_cost_micros) AS delta_cost_micros,
  count(CASE WHEN delta_cost_micros IS NULL THEN 1 END) AS without_price,
  min(click_time) AS first_click,
  max(click_time) AS last_click
FROM corrections
WHERE replay_id = $replay_id OR reverts_replay_id = $replay_id
GROUP BY publication_no, reverts_replay_id, billing_month, advertiser_id, currency, direction
ORDER BY publication_no, billing_month, advertiser_id, currency, direction
