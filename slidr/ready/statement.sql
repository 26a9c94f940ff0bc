-- What each advertiser pays per billing month: gross, less general invalid traffic (GIVT, the upstream filter's), less sophisticated
-- invalid traffic (SIVT) found at once and found later by published corrections, is net; micro-units, NULL where no price is known.
-- The month is that of the local date. A click that nobody decided is charged.
-- $month: billing month such as 2026-03; % stands for any text [default %]
-- $advertiser: advertiser_id [default %]
WITH corrected AS (
  SELECT click_id, -sum(delta_cost_micros) AS later_micros FROM corrections WHERE billing_month LIKE $month GROUP BY click_id
), priced AS (
  SELECT
    substr(CAST(c.local_date AS STRING), 1, 7) AS billing_month,
    c.advertiser_id,
    c.currency,
    c.cost_micros,
    CASE WHEN c.upstream_filter IS NOT NULL OR d.ivt_class = 'givt' THEN c.cost_micros ELSE c.cost_micros * 0 END AS givt_micros,
    CASE WHEN c.upstream_filter IS NULL AND d.ivt_class = 'sivt' THEN c.cost_micros ELSE c.cost_micros * 0 END AS at_once_micros,
    coalesce(k.later_micros, c.cost_micros * 0) AS later_micros
  FROM clicks c
  LEFT JOIN decisions d ON d.click_id = c.click_id AND d.click_date = c.click_date
  LEFT JOIN corrected k ON k.click_id = c.click_id
  WHERE c.advertiser_id LIKE $advertiser AND CAST(c.local_date AS STRING) LIKE concat($month, '%')
)
SELECT
  billing_month,
  advertiser_id,
  currency,
  count(*) AS clicks,
  count(CASE WHEN cost_micros IS NULL THEN 1 END) AS without_price,
  sum(cost_micros) AS gross_micros,
  sum(givt_micros) AS givt_micros,
  sum(at_once_micros) AS sivt_at_once_micros,
  sum(later_micros) AS sivt_later_micros,
  sum(cost_micros) - sum(givt_micros) - sum(at_once_micros) - sum(later_micros) AS net_micros
FROM priced
GROUP BY billing_month, advertiser_id, currency
ORDER BY billing_month, advertiser_id, currency
