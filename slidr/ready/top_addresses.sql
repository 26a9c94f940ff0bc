-- Addresses with the most clicks, and what was decided about them as published now. For people inside the house: addresses are
-- personal data, and an advertiser never sees them. An address is an IPv4 address or the /64 of an IPv6 address.
-- $from_day: first UTC day of the clicks [default 1970-01-01]
-- $to_day: UTC day at which they end, excluded [default 2999-01-01]
-- $rows: how many addresses [default 50]
SELECT
  c.ip_key,
  count(*) AS clicks,
  count(DISTINCT c.session_id) AS sessions,
  count(DISTINCT c.user_id) AS users,
  count(DISTINCT c.advertiser_id) AS advertisers,
  count(d.click_id) AS decided,
  count(CASE WHEN d.is_invalid THEN 1 END) AS invalid,
  count(CASE WHEN d.ivt_class = 'givt' THEN 1 END) AS givt,
  CAST(count(CASE WHEN d.is_invalid THEN 1 END) AS DOUBLE) / nullif(count(d.click_id), 0) AS ivr,
  min(c.click_time) AS first_click,
  max(c.click_time) AS last_click
FROM clicks c
LEFT JOIN current_decisions d ON d.click_id = c.click_id AND d.click_date = c.click_date
WHERE c.ip_key IS NOT NULL AND c.click_date >= CAST($from_day AS DATE) AND c.click_date < CAST($to_day AS DATE)
GROUP BY c.ip_key
ORDER BY clicks DESC, c.ip_key
LIMIT CAST($rows AS INT)
