"""The queries of a statement. Parameters are bound; rows are lines of one kind each, so that all of them are summed alike.

click_date is UTC, local_date the marketplace's: the two are at most a day apart, and the former skips files.
"""

# A click was invalid at once if it is invalid now without corrections, or stopped being so by corrections alone: its published state
# less its corrections. `decisions` alone can't tell: a first decision that came after a replay's was never published.
LINES = """
WITH moved AS (
    SELECT click_id, campaign_id, currency, direction, delta_cost_micros FROM corrections
    WHERE advertiser_id = $advertiser AND billing_month = $month
), moves AS (
    SELECT click_id, sum(CASE direction WHEN 'invalidate' THEN 1 ELSE -1 END) AS taken FROM moved GROUP BY click_id
), published AS (
    SELECT click_id, campaign_id, currency, cost_micros, is_invalid FROM current_decisions
    WHERE advertiser_id = $advertiser AND local_date >= $first AND local_date < $following
        AND click_date >= $first - 1 AND click_date <= $following
), firsts AS (
    SELECT click_id, campaign_id, currency, cost_micros, is_invalid AS first_invalid, ivt_class FROM decisions
    WHERE advertiser_id = $advertiser AND local_date >= $first AND local_date < $following
        AND click_date >= $first - 1 AND click_date <= $following
), known AS (
    SELECT published.*, first_invalid, ivt_class, is_invalid::INT - coalesce(taken, 0) AS at_once
    FROM published LEFT JOIN moves USING (click_id) LEFT JOIN (SELECT click_id, first_invalid, ivt_class FROM firsts) USING (click_id)
), lines AS (
    SELECT campaign_id, currency, 'gross' AS line, cost_micros AS price FROM known
    UNION ALL
    SELECT campaign_id, currency, CASE ivt_class WHEN 'givt' THEN 'givt' ELSE 'at_once' END, cost_micros FROM known WHERE at_once = 1
    UNION ALL
    SELECT campaign_id, currency, 'valid', cost_micros FROM known WHERE NOT is_invalid
    UNION ALL
    SELECT campaign_id, currency, CASE direction WHEN 'invalidate' THEN 'credited' ELSE 'recharged' END, delta_cost_micros FROM moved
    UNION ALL
    SELECT campaign_id, currency, 'undecided', cost_micros FROM clicks ANTI JOIN published USING (click_id)
    WHERE advertiser_id = $advertiser AND local_date >= $first AND local_date < $following
        AND click_date >= $first - 1 AND click_date <= $following AND upstream_filter IS NULL
    UNION ALL
    SELECT campaign_id, currency, 'astray', cost_micros FROM known
    WHERE at_once NOT IN (0, 1) OR (at_once = 1 AND first_invalid IS DISTINCT FROM true)
    UNION ALL
    SELECT campaign_id, currency, 'astray', cost_micros FROM firsts ANTI JOIN published USING (click_id)
)
SELECT campaign_id, currency, line, count(*) AS clicks, count(*) - count(price) AS no_cost, sum(price)::BIGINT AS micros
FROM lines GROUP BY ALL
"""

# A month is billed to the end of its close day in the next month: what is published until then belongs to its own invoice, what
# comes later to the invoice that is open by then.
BOOKED = """
WITH dated AS (
    SELECT *, list_extract($zones, list_position($markets, marketplace)) AS zone FROM corrections WHERE advertiser_id = $advertiser
), booked AS (
    SELECT *, CASE WHEN zone IS NOT NULL THEN
        greatest(billing_month, strftime(timezone(zone, published_time)::DATE - $close_day::INT, '%Y-%m')) END AS invoice_month
    FROM dated
)
SELECT campaign_id, currency, billing_month AS original_month, invoice_month,
    CASE direction WHEN 'invalidate' THEN 'credited' ELSE 'recharged' END AS line,
    count(*) AS clicks, count(*) - count(delta_cost_micros) AS no_cost, sum(delta_cost_micros)::BIGINT AS micros
FROM booked WHERE billing_month = $month OR invoice_month = $month OR invoice_month IS NULL GROUP BY ALL
"""

OPEN = """
SELECT DISTINCT replay_id FROM replays
WHERE event = 'publish' AND window_from < $following::TIMESTAMPTZ + INTERVAL 1 DAY AND window_to > $first::TIMESTAMPTZ - INTERVAL 1 DAY
    AND replay_id NOT IN (SELECT replay_id FROM replays WHERE event = 'applied')
ORDER BY replay_id
"""

UNTIL = """
SELECT (SELECT coalesce(max(publication_no), 0) FROM corrections) AS publication_no,
    (SELECT max(decided_time) FROM decisions WHERE advertiser_id = $advertiser AND local_date >= $first AND local_date < $following
        AND click_date >= $first - 1 AND click_date <= $following) AS decided_time
"""
