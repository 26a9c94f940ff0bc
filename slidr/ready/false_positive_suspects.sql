-- Clicks that are invalid as published now and led to a purchase: what a false positive looks like. Their days have matured. Some are
-- robots that buy; people who do not buy are invalidated too and do not show here.
-- $from_day: first UTC day of the clicks [default 1970-01-01]
-- $to_day: UTC day at which they end, excluded [default 2999-01-01]
SELECT
  d.click_time,
  d.click_id,
  d.advertiser_id,
  d.slice,
  d.score,
  d.threshold,
  d.basis,
  d.reason_1,
  d.model_version,
  d.first_is_invalid,
  l.in_heavy_session,
  d.cost_micros,
  d.currency
FROM current_decisions d
JOIN labels l ON l.click_id = d.click_id AND l.click_date = d.click_date
WHERE d.is_invalid AND d.ivt_class = 'sivt' AND l.is_purchase
  AND d.click_date >= CAST($from_day AS DATE) AND d.click_date < CAST($to_day AS DATE)
ORDER BY d.click_time, d.click_id
