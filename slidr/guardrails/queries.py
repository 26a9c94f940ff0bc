"""Sample queries for `slidr sql`: fixed texts in which only days and names of features of the spec are put in."""

import re
from collections.abc import Iterable
from datetime import date
from string import Template

from slidr.errors import InputError

NAME = re.compile(r"[a-z][a-z0-9_]*")
LABELS_BY_HOUR = Template(
    "SELECT c.click_date, hour(c.click_time) AS hour, count(*) AS clicks, count_if(l.is_purchase) AS purchasing, "
    "count_if(l.label_reason = 'rfm') AS high_rfm FROM clicks c JOIN labels l ON l.click_id = c.click_id "
    "AND l.click_date = c.click_date WHERE c.click_date $days GROUP BY ALL ORDER BY 1, 2"
)
LABELS_BY_DAY = Template(
    "SELECT click_date, count(*) AS clicks, count_if(is_human) AS humans, count_if(is_purchase) AS purchasing FROM labels "
    "WHERE click_date $days GROUP BY ALL ORDER BY 1"
)
ORDERS_BY_HOUR = Template(
    "SELECT purchase_date, hour(purchase_time) AS hour, count(*) AS orders, max(arrival_time) AS last_arrival FROM purchases "
    "WHERE purchase_date $days AND NOT cancelled GROUP BY ALL ORDER BY 1, 2"
)
CLICKS_BY_HOUR = Template(
    "SELECT click_date, hour(click_time) AS hour, count(*) AS clicks, count_if(user_id IS NULL) AS without_user, "
    "count_if(ip_key IS NULL) AS without_address FROM clicks WHERE click_date $days GROUP BY ALL ORDER BY 1, 2"
)
CLICKS_BY_DAY = Template("SELECT click_date, count(*) AS clicks FROM clicks WHERE click_date $days GROUP BY ALL ORDER BY 1")
LATE_BY_DAY = Template(
    "SELECT click_date, count(*) AS clicks, max(seconds) AS latest, quantile_cont(seconds, [0.5, 0.95, 0.99]) AS seconds FROM "
    "(SELECT click_date, epoch(arrival_time) - epoch(click_time) AS seconds FROM clicks WHERE click_date $days) GROUP BY ALL ORDER BY 1"
)
FEATURE_BY_DAY = Template(
    "SELECT click_date, origin, count(*) AS clicks, count($feature) AS known, avg($feature) AS mean, quantile_cont($feature, "
    "[0.1, 0.5, 0.9, 0.99]) AS quantiles FROM features WHERE click_date $days GROUP BY ALL ORDER BY 1, 2"
)
WITHOUT_FEATURES = Template(
    "SELECT l.click_date, count(*) AS labelled, count_if(f.click_id IS NULL) AS without_features FROM labels l LEFT JOIN "
    "(SELECT DISTINCT click_id FROM features WHERE origin IN ('logged', 'then') AND click_date $days) f ON f.click_id = l.click_id "
    "WHERE l.click_date $days GROUP BY ALL ORDER BY 1"
)
REJECTS = Template(
    "SELECT table_name, reason, source_file, count(*) AS rejected FROM rejects WHERE reject_date >= $first "
    "GROUP BY ALL ORDER BY rejected DESC"
)
SLICES = Template(
    "SELECT c.device, c.logged_in, c.marketplace, count(*) AS clicks, count_if(l.is_purchase) AS purchasing, "
    "count_if(l.in_heavy_session) AS heavy FROM clicks c JOIN labels l ON l.click_id = c.click_id AND l.click_date = c.click_date "
    "WHERE c.click_date $days GROUP BY ALL ORDER BY clicks DESC"
)
ADVERTISERS = Template(
    "SELECT advertiser_id, currency, count(*) AS clicks, sum(cost_micros) AS cost_micros FROM clicks WHERE click_date $days "
    "AND upstream_filter IS NULL GROUP BY ALL ORDER BY cost_micros DESC, clicks DESC"
)


def query(template: Template, days: Iterable[date], *, feature: str = "") -> str:
    """The text with days as date literals. Raises InputError for anything but dates and a feature's plain name."""
    days = sorted(set(days))
    if not days or any(type(day) is not date for day in days):
        raise InputError(f"expected days for a sample query, found {days}")
    if feature and not NAME.fullmatch(feature):
        raise InputError(f"expected the name of a feature for a sample query, found {feature!r}")
    return template.substitute(days=_these(days), first=_literal(days[0]), feature=feature)


def _these(days: list[date]) -> str:
    """`= day`, `BETWEEN first AND last` where no day is left out, else `IN (days)`."""
    if len(days) == 1:
        return f"= {_literal(days[0])}"
    if (days[-1] - days[0]).days == len(days) - 1:
        return f"BETWEEN {_literal(days[0])} AND {_literal(days[-1])}"
    return f"IN ({', '.join(map(_literal, days))})"


def _literal(day: date) -> str:
    return f"DATE'{day.isoformat()}'"
