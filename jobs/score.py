"""features -> decisions: spark-submit jobs/score.py --conf FILE --from TIME --to TIME"""

import sys
from datetime import datetime, timedelta
from typing import Annotated

import typer
from pyspark import StorageLevel
from pyspark.sql import functions as F

from slidr import scoring
from slidr.days import days_between
from slidr.errors import InputError, NothingToDoError
from slidr.features.counters import prefer_logged
from slidr.options import From, To, window
from slidr.run import Job, Outcome
from slidr.tables import CLICKS, DECISIONS, features_table
from slidr.version import Version

Model = Annotated[str, typer.Option("--model", help="champion, stable, or the number of a version.")]


def score(job: Job, start: From, end: To, model: Model = "champion") -> Outcome:
    """Decides the clicks of a window that have no decision yet; touches no other."""
    from slidr.registry import Registry

    first, last = window(start, end)
    version = Registry(job.conf.registry, job.lake).load(model)
    return decide(job, version, first, last)


def decide(job: Job, version: Version, first: datetime, last: datetime) -> Outcome:
    """First decisions of the window by one version, counted by basis."""
    days = days_between(first.date(), (last - timedelta(microseconds=1)).date() + timedelta(days=1))
    clicks = job.lake.read(CLICKS, days).where((F.col("click_time") >= F.lit(first)) & (F.col("click_time") < F.lit(last)))
    if clicks.isEmpty():
        raise NothingToDoError(f"expected clicks from {first.isoformat()} to {last.isoformat()}, found none; ingest them first")
    undecided = clicks.join(job.lake.read(DECISIONS, days).select("click_id"), on="click_id", how="left_anti")
    table = features_table(version.bundle.spec)
    if job.lake.version(table) < 0 or job.lake.read(table, days).isEmpty():
        raise InputError(
            f"expected features of spec {version.bundle.spec.spec_id} (of version {version.number}) from {days[0]} to {days[-1]}, "
            f"found none; run `slidr features --from {days[0]} --to {days[-1] + timedelta(days=1)}`"
        )
    decided = scoring.decisions(
        undecided,
        prefer_logged(job.lake.read(table, days)),
        version.bundle,
        version=version.number,
        run_id=job.run_id,
        decided_time=job.now,
    ).persist(StorageLevel.MEMORY_AND_DISK)
    counts = decided.groupBy("basis").agg(F.count("*").alias("clicks"), F.sum(F.col("is_invalid").cast("int")).alias("invalid")).collect()
    new = scoring.publish_first(job.lake, decided, days, expected=sum(row["clicks"] for row in counts))
    decided.unpersist()
    shown = [{"basis": row["basis"], "clicks": row["clicks"], "invalid": row["invalid"]} for row in counts]
    summary = {"model_version": version.number, "from": first.isoformat(), "to": last.isoformat(), "new_decisions": new, "by_basis": shown}
    return Outcome(summary, {"New decisions": shown} if shown else {}, f"{new:,} clicks decided by version {version.number}.")


if __name__ == "__main__":
    from slidr.cli import main

    main(["score", *sys.argv[1:]])
