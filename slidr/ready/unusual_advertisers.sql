-- Advertisers whose share of invalid clicks is unlike that of all advertisers on the same report slices, as published now; what the
-- upstream filter made free is left out. expected: their clicks times the slices' shares; deviations: (invalid - expected) in
-- standard deviations of independent clicks, which real clicks are not: an order to look at them, not a test.
-- $from_day: first UTC day of the clicks [default 1970-01-01]
-- $to_day: UTC day at which they end, excluded [default 2999-01-01]
-- $min_clicks: fewest clicks of an advertiser [default 100]
WITH decided AS (
  SELECT advertiser_id, report_slice, count(*) AS clicks, count(CASE WHEN is_invalid THEN 1 END) AS invalid FROM current_decisions
  WHERE (ivt_class IS NULL OR ivt_class <> 'givt') AND click_date >= CAST($from_day AS DATE) AND click_date < CAST($to_day AS DATE)
  GROUP BY advertiser_id, report_slice
), slices AS (
  SELECT report_slice, CAST(sum(invalid) AS DOUBLE) / sum(clicks) AS share FROM decided GROUP BY report_slice
), advertisers AS (
  SELECT
    d.advertiser_id,
    sum(d.clicks) AS clicks,
    sum(d.invalid) AS invalid,
    sum(d.clicks * s.share) AS expected,
    sqrt(sum(d.clicks * s.share * (1 - s.share))) AS deviation
  FROM decided d
  JOIN slices s ON s.report_slice = d.report_slice
  GROUP BY d.advertiser_id
)
SELECT
  advertiser_id,
  clicks,
  invalid,
  CAST(invalid AS DOUBLE) / clicks AS ivr,
  round(expected, 2) AS expected,
  round((invalid - expected) / nullif(deviation, 0), 2) AS deviations
FROM advertisers
WHERE clicks >= CAST($min_clicks AS BIGINT)
ORDER BY abs(round((invalid - expected) / nullif(deviation, 0), 2)) DESC NULLS LAST, advertiser_id
