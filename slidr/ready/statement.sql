-- What each advertiser pays per billing month: gross, less general invalid traffic (GIVT, the upstream filter's), less sophisticated
-- invalid traffic (SIVT) found at once and found later by published corrections, is net; micro-units, NULL where no price is known.
-- The month is that of the local date. A click that nobody decided is charged. Invalid at once is what is published without corrections:
-- a first decision that came after a replay's was never published.
-- $month: billing month such as 2026-03; % is every month [default %]
-- $advertiser: advertiser_id; % is every one [default %]
WITH clicked AS (
  SELECT
    substr(CAST(local_date AS STRING), 1, 7) AS billing_month,
    advertiser_id,
    currency,
    count(*) AS clicks,
    count(CASE WHEN cost_micros IS NULL THEN 1 END) AS without_price,
    sum(cost_micros) AS gross_micros,
    sum(CASE WHEN upstream_filter IS NOT NULL THEN cost_micros ELSE cost_micros * 0 END) AS givt_micros
  FROM clicks
  WHERE $month IN ('%', substr(CAST(local_date AS STRING), 1, 7)) AND $advertiser IN ('%', advertiser_id)
  GROUP BY 1, 2, 3
), moved AS (
  SELECT click_id, sum(CASE WHEN direction = 'invalidate' THEN 1 ELSE -1 END) AS taken
  FROM corrections
  WHERE $month IN ('%', billing_month) AND $advertiser IN ('%', advertiser_id)
  GROUP BY click_id
), at_once AS (
  SELECT substr(CAST(p.local_date AS STRING), 1, 7) AS billing_month, p.advertiser_id, p.currency, sum(p.cost_micros) AS micros
  FROM current_decisions p
  LEFT JOIN moved m ON m.click_id = p.click_id
  WHERE CASE WHEN p.is_invalid THEN 1 ELSE 0 END - coalesce(m.taken, 0) = 1 AND coalesce(p.ivt_class, 'sivt') <> 'givt'
    AND $month IN ('%', substr(CAST(p.local_date AS STRING), 1, 7)) AND $advertiser IN ('%', p.advertiser_id)
  GROUP BY 1, 2, 3
), later AS (
  SELECT billing_month, advertiser_id, currency, -sum(delta_cost_micros) AS micros
  FROM corrections
  WHERE $month IN ('%', billing_month) AND $advertiser IN ('%', advertiser_id)
  GROUP BY 1, 2, 3
), summed AS (
  SELECT
    c.*,
    coalesce(a.micros, c.gross_micros * 0) AS sivt_at_once_micros,
    coalesce(k.micros, c.gross_micros * 0) AS sivt_later_micros
  FROM clicked c
  LEFT JOIN at_once a ON a.billing_month = c.billing_month AND a.advertiser_id = c.advertiser_id AND a.currency = c.currency
  LEFT JOIN later k ON k.billing_month = c.billing_month AND k.advertiser_id = c.advertiser_id AND k.currency = c.currency
)
SELECT *, gross_micros - givt_micros - sivt_at_once_micros - sivt_later_micros AS net_micros
FROM summed
ORDER BY billing_month, advertiser_id, currency
