-- Invalidation rate (IVR), false-positive rate (FPR) and robotic coverage by report slice and UTC hour, from slice_metrics.
-- FPR = invalidated purchasing clicks / purchasing clicks: a lower estimate of the harm to people, about half of it in simulation;
-- high_rfm_share is the share of clicks of high-RFM accounts without a purchase that are invalid. NULL: not matured, or no such clicks.
-- $from_day: first UTC day [default 1970-01-01]
-- $to_day: UTC day at which it ends, excluded [default 2999-01-01]
-- $view: first (first decisions) or published (after corrections) [default published]
SELECT
  click_date,
  hour,
  report_slice,
  sum(clicks) AS clicks,
  sum(invalid) AS invalid,
  CAST(sum(invalid) AS DOUBLE) / nullif(sum(clicks), 0) AS ivr,
  sum(purchasing) AS purchasing,
  CAST(sum(purchasing_invalid) AS DOUBLE) / nullif(sum(purchasing), 0) AS fpr,
  CAST(sum(high_rfm_invalid) AS DOUBLE) / nullif(sum(high_rfm), 0) AS high_rfm_share,
  sum(heavy) AS heavy,
  CAST(sum(heavy_invalid) AS DOUBLE) / nullif(sum(heavy), 0) AS robotic_coverage
FROM slice_metrics
WHERE view = $view AND click_date >= CAST($from_day AS DATE) AND click_date < CAST($to_day AS DATE)
GROUP BY click_date, hour, report_slice
ORDER BY click_date, hour, report_slice
