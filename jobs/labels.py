"""clicks, purchases -> labels: spark-submit jobs/labels.py --conf FILE --from DAY --to DAY"""

import sys
from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated

import typer
from pyspark.sql import DataFrame

from slidr import labels as stage
from slidr.config import LabelsConf
from slidr.errors import NothingToDoError
from slidr.lake import Lake
from slidr.options import From, To, parse_time, whole_days
from slidr.run import Job, Outcome
from slidr.tables import CLICKS, LABELS, PURCHASES

AsOf = Annotated[str | None, typer.Option("--as-of", help="Labels the days that have matured by this time; default: now.")]


def labels(job: Job, start: From, end: To, as_of: AsOf = None) -> Outcome:
    """Labels the clicks of whole UTC days that have matured; a day that has not gets no row."""
    now = parse_time(as_of, "--as-of") if as_of else job.now
    days = whole_days(start, end)
    ready = stage.matured(days, now=now, conf=job.conf.labels)
    if not ready:
        due = stage.label_time(days[0], job.conf.labels)
        raise NothingToDoError(f"expected a matured day from {days[0]} to {days[-1]}, found none: {days[0]} matures at {due.isoformat()}")
    return relabel(job, ready, waiting=len(days) - len(ready), now=now)


def relabel(job: Job, days: Sequence[date], *, waiting: int, now: datetime) -> Outcome:
    """Replaces the labels of these days in one commit and counts them by reason, late purchases apart."""
    conf = job.conf.labels
    if job.lake.read(CLICKS, days).isEmpty():
        raise NothingToDoError(f"expected clicks from {days[0]} to {days[-1]}, found none; ingest them first")
    clicks = job.lake.read(CLICKS, stage.days_of_clicks(days, conf))
    purchases = job.lake.read(PURCHASES, stage.days_of_purchases(days, conf))
    on_time, late = publish(job.lake, clicks, purchases, days=days, conf=conf, now=now)
    rows = job.lake.read(LABELS, days).groupBy("label_reason").count().collect()  # three rows
    counts = {row["label_reason"]: row["count"] for row in rows}
    summary = {"days": len(days), "waiting_days": waiting, **counts, "orders_on_time": on_time, "orders_late": late}
    return Outcome(summary, shown={"Labels": [summary]})


def publish(
    lake: Lake, clicks: DataFrame, purchases: DataFrame, *, days: Sequence[date], conf: LabelsConf, now: datetime
) -> tuple[int, int]:
    """Writes the labels of these days into the lake in one commit; (orders that label, orders that came too late for it).

    `clicks` and `purchases` hold the days that `slidr.labels` asks for.
    """
    attributed = stage.attribute(clicks, purchases, conf=conf).persist()
    lake.replace_days(stage.label(clicks, purchases, attributed, days=days, conf=conf), LABELS, days)
    counts = stage.purchases_in_time(attributed, days=days, now=now)
    attributed.unpersist()
    return counts


if __name__ == "__main__":
    from slidr.cli import main

    main(["labels", *sys.argv[1:]])
