"""Reads the counts that the checks on data need: of days, hours, reasons and bins, never of clicks."""

from collections.abc import Sequence
from datetime import date, timedelta

import pandas as pd
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.days import days_between
from slidr.features.spec import UNITS
from slidr.guardrails.data import Others
from slidr.guardrails.window import clicks_by_hour, orders_by_hour, rejects_by_reason
from slidr.lake import Lake
from slidr.tables import CLICKS, PURCHASES, REJECTS


def read_others(lake: Lake, days: Sequence[date], *, conf: Config) -> Others:
    """Counts of other tables than the labelled clicks, for the days of a training run and the weeks before."""
    spec, since = conf.spec, min(days)
    look_back = -(-spec.longest_window // UNITS["d"])
    back = max(look_back, 7 * conf.guardrails.volume_weeks)
    around = days_between(since - timedelta(days=back), max(days) + timedelta(days=1))
    later = [lake.read(table).where(F.col(table.day) >= F.lit(since)) for table in (CLICKS, PURCHASES)]
    rejects = lake.read(REJECTS) if lake.exists(REJECTS) else None
    rows: pd.DataFrame = rejects_by_reason(rejects, later, since).toPandas()
    kept = rows["reason"].isna()
    return Others(
        clicks=clicks_by_hour(lake.read(CLICKS, around)).toPandas(),
        orders=orders_by_hour(lake.read(PURCHASES, days), delay_days=conf.labels.delay_days).toPandas(),
        rejects=rows[~kept].rename(columns={"rows": "rejected"}),
        kept=int(rows.loc[kept, "rows"].sum()),
        first_day=lake.read(CLICKS).agg(F.min("click_date")).collect()[0][0],
        look_back_days=look_back,
        spec_id=spec.spec_id,
    )
