-- What each advertiser pays per billing month, as `slidr statement` says it: gross, less general invalid traffic (GIVT, the upstream
-- filter's), less sophisticated invalid traffic (SIVT) found at once and found later by published corrections, is net; micro-units, NULL
-- where decided clicks have no known price. The month is that of the local date. Clicks that nobody decided, and that the upstream filter
-- did not make free, are charged and stand in columns of their own, in none of the others. Invalid at once is what is published without
-- corrections: a first decision that came after a replay's was never published.
-- $month: billing month such as 2026-03; % is every month [default %]
-- $advertiser: advertiser_id; % is every one [default %]
WITH moves AS (
  SELECT click_id, sum(CASE WHEN direction = 'invalidate' THEN 1 ELSE -1 END) AS taken
  FROM corrections
  WHERE $month IN ('%', billing_month) AND $advertiser IN ('%', advertiser_id)
  GROUP BY click_id
), known AS (
  SELECT substr(CAST(p.local_date AS STRING), 1, 7) AS billing_month, p.advertiser_id, p.currency, p.cost_micros,
    CASE WHEN CASE WHEN p.is_invalid THEN 1 ELSE 0 END - coalesce(m.taken, 0) = 0 THEN 'valid'
      WHEN d.ivt_class = 'givt' THEN 'givt' ELSE 'sivt' END AS at_once
  FROM current_decisions p
  LEFT JOIN moves m ON m.click_id = p.click_id
  LEFT JOIN decisions d ON d.click_id = p.click_id
  WHERE $month IN ('%', substr(CAST(p.local_date AS STRING), 1, 7)) AND $advertiser IN ('%', p.advertiser_id)
), decided AS (
  SELECT
    billing_month,
    advertiser_id,
    currency,
    count(*) AS clicks,
    count(CASE WHEN cost_micros IS NULL THEN 1 END) AS without_price,
    sum(cost_micros) AS gross_micros,
    sum(CASE WHEN at_once = 'givt' THEN cost_micros ELSE cost_micros * 0 END) AS givt_micros,
    sum(CASE WHEN at_once = 'sivt' THEN cost_micros ELSE cost_micros * 0 END) AS sivt_at_once_micros
  FROM known
  GROUP BY billing_month, advertiser_id, currency
), later AS (
  SELECT billing_month, advertiser_id, currency, -sum(delta_cost_micros) AS micros
  FROM corrections
  WHERE $month IN ('%', billing_month) AND $advertiser IN ('%', advertiser_id)
  GROUP BY billing_month, advertiser_id, currency
), undecided AS (
  SELECT substr(CAST(c.local_date AS STRING), 1, 7) AS billing_month, c.advertiser_id, c.currency,
    count(*) AS clicks, sum(c.cost_micros) AS micros
  FROM clicks c
  LEFT JOIN current_decisions p ON p.click_id = c.click_id
  WHERE p.click_id IS NULL AND c.upstream_filter IS NULL
    AND $month IN ('%', substr(CAST(c.local_date AS STRING), 1, 7)) AND $advertiser IN ('%', c.advertiser_id)
  GROUP BY 1, 2, 3
), summed AS (
  SELECT
    billing_month,
    advertiser_id,
    currency,
    coalesce(d.clicks, 0) AS clicks,
    coalesce(d.without_price, 0) AS without_price,
    CASE WHEN d.clicks IS NULL THEN 0 ELSE d.gross_micros END AS gross_micros,
    CASE WHEN d.clicks IS NULL THEN 0 ELSE d.givt_micros END AS givt_micros,
    CASE WHEN d.clicks IS NULL THEN 0 ELSE d.sivt_at_once_micros END AS sivt_at_once_micros,
    coalesce(k.micros, 0) AS sivt_later_micros,
    coalesce(u.clicks, 0) AS undecided_clicks,
    CASE WHEN u.clicks IS NULL THEN 0 ELSE u.micros END AS undecided_micros
  FROM decided d
  FULL OUTER JOIN later k USING (billing_month, advertiser_id, currency)
  FULL OUTER JOIN undecided u USING (billing_month, advertiser_id, currency)
)
SELECT
  billing_month,
  advertiser_id,
  currency,
  clicks,
  without_price,
  gross_micros,
  givt_micros,
  sivt_at_once_micros,
  sivt_later_micros,
  gross_micros - givt_micros - sivt_at_once_micros - sivt_later_micros AS net_micros,
  undecided_clicks,
  undecided_micros
FROM summed
ORDER BY billing_month, advertiser_id, currency
