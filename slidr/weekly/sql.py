"""The queries of the weekly report; parameters are bound. `first` and `following` are UTC days, [first, following)."""

METRICS = """
SELECT click_date, hour, report_slice, view, sum(clicks)::BIGINT AS clicks, sum(invalid)::BIGINT AS invalid,
    sum(purchasing)::BIGINT AS purchasing, sum(purchasing_invalid)::BIGINT AS purchasing_invalid,
    sum(high_rfm)::BIGINT AS high_rfm, sum(high_rfm_invalid)::BIGINT AS high_rfm_invalid,
    sum(heavy)::BIGINT AS heavy, sum(heavy_invalid)::BIGINT AS heavy_invalid
FROM slice_metrics WHERE click_date >= $first AND click_date < $following GROUP BY ALL ORDER BY ALL
"""

HOURS = """
SELECT * EXCLUDE (currency, cost_micros, invalid_cost_micros) FROM slice_metrics WHERE click_date >= $first AND click_date < $following
"""

FEED = """
SELECT date_trunc('hour', arrival_time) AS time, marketplace, count(*) AS purchases FROM purchases
WHERE purchase_date >= $first - 7 AND purchase_date <= $following
    AND arrival_time >= CAST($first AS TIMESTAMPTZ) AND arrival_time < CAST($following AS TIMESTAMPTZ)
GROUP BY ALL
"""

MONEY = """
SELECT click_date, currency, view, sum(cost_micros)::BIGINT AS cost_micros, sum(invalid_cost_micros)::BIGINT AS invalid_cost_micros
FROM slice_metrics WHERE click_date >= $first AND click_date < $following GROUP BY ALL ORDER BY ALL
"""

VERSIONS = """
SELECT model_version, min(click_date) AS first_day, max(click_date) AS last_day,
    coalesce(sum(clicks) FILTER (view = 'first'), 0)::BIGINT AS first_clicks,
    coalesce(sum(invalid) FILTER (view = 'first'), 0)::BIGINT AS first_invalid,
    coalesce(sum(clicks) FILTER (view = 'published'), 0)::BIGINT AS published_clicks,
    coalesce(sum(invalid) FILTER (view = 'published'), 0)::BIGINT AS published_invalid
FROM slice_metrics WHERE click_date >= $first AND click_date < $following GROUP BY ALL ORDER BY first_day, model_version
"""

PROMOTIONS = """
SELECT event_time, model_version, from_state, to_state, actor, reason FROM model_promotions
WHERE event_date >= $first AND event_date < $following ORDER BY event_no
"""

CORRECTIONS = """
SELECT publication_no, replay_id, mode, reverts_replay_id, max(published_time) AS published_time, min(click_date) AS first_day,
    max(click_date) AS last_day, direction, currency, count(*) AS clicks, count(*) - count(delta_cost_micros) AS no_cost,
    sum(delta_cost_micros)::BIGINT AS micros
FROM corrections WHERE correction_date >= $first AND correction_date < $following
GROUP BY ALL ORDER BY publication_no, direction, currency
"""

REJECTS = """
SELECT table_name, reason, count(*) AS input_rows FROM rejects
WHERE reject_date >= $first AND reject_date < $following GROUP BY ALL ORDER BY input_rows DESC, table_name, reason
"""

KNOWN = "SELECT click_date, count(*) AS found FROM clicks WHERE click_date >= $first AND click_date < $following GROUP BY ALL"

DECIDED = """
SELECT click_date, count(*) AS found, count_if(is_invalid) AS invalid FROM current_decisions
WHERE click_date >= $first AND click_date < $following GROUP BY ALL
"""
