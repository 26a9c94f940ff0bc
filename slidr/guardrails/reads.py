"""Reads the counts that the checks on data need: of days, hours, reasons and bins, never of clicks."""

from collections.abc import Sequence
from datetime import date, timedelta

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.features.spec import UNITS
from slidr.guardrails.data import Others
from slidr.guardrails.window import clicks_by_hour, orders_by_hour, rejects_by_reason
from slidr.lake import Lake
from slidr.tables import CLICKS, PURCHASES, REJECTS, Table


def read_others(lake: Lake, days: Sequence[date], *, conf: Config) -> Others:
    """Counts of other tables than the labelled clicks, for the days of a training run and the weeks before."""
    spec, since = conf.spec, min(days)
    look_back = -(-spec.longest_window // UNITS["d"])
    start = since - timedelta(days=max(look_back, 7 * conf.guardrails.volume_weeks))
    # Each table is read once: what came since the window began is counted from the same rows as the hours.
    clicks: pd.DataFrame = clicks_by_hour(_from(lake, CLICKS, start)).toPandas()
    orders: pd.DataFrame = orders_by_hour(_from(lake, PURCHASES, since), delay_days=conf.labels.delay_days).toPandas()
    return Others(
        clicks=clicks[clicks["day"] <= max(days) + timedelta(days=1)],
        orders=orders.loc[orders["day"].isin(list(days)) & (orders["orders"] > 0), ["day", "hour", "orders"]],
        rejects=_rejects(lake, since),
        kept=int(clicks.loc[clicks["day"] >= since, "clicks"].sum() + orders["rows"].sum()),
        first_day=lake.read(CLICKS).agg(F.min("click_date")).collect()[0][0],
        look_back_days=look_back,
        spec_id=spec.spec_id,
    )


def _from(lake: Lake, table: Table, day: date) -> DataFrame:
    return lake.read(table).where(F.col(table.day) >= F.lit(day))


def _rejects(lake: Lake, since: date) -> pd.DataFrame:
    if not lake.exists(REJECTS):
        return pd.DataFrame({"reason": [], "rejected": []})
    return rejects_by_reason(lake.read(REJECTS), since).toPandas()
