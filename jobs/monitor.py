"""decisions -> slice_metrics, and which hours deviate: spark-submit jobs/monitor.py --conf FILE --from DAY --to DAY"""

import sys
from collections.abc import Sequence
from datetime import date, timedelta

from slidr import monitoring
from slidr.curves import TOTAL
from slidr.errors import NothingToDoError
from slidr.options import From, To, whole_days
from slidr.run import Job, Outcome, folder
from slidr.tables import CURRENT_DECISIONS, SLICE_METRICS

SHOWN = 12  # rows of a table on a terminal


def monitor(job: Job, start: From, end: To) -> Outcome:
    """Measures the decisions of whole UTC days by hour and slice, and tells which hours deviate from the days before."""
    days = whole_days(start, end)
    if job.lake.read(CURRENT_DECISIONS, days).isEmpty():
        raise NothingToDoError(f"expected decisions from {days[0]} to {days[-1]}, found none; run `slidr score` first")
    monitoring.update(job.lake, days)
    table = deviations(job, days)
    picture = folder(job, "monitor") / f"ivr_{days[0]}_{days[-1]}.png"
    monitoring.plot(table, picture)
    worst = table[table["verdict"] == monitoring.DEVIATING].sort_values("clicks", ascending=False)
    whole = worst[worst["report_slice"] == TOTAL]
    rows = worst[["time", "report_slice", "clicks", "ivr", "baseline_ivr"]].head(SHOWN).to_dict("records")
    verdict = monitoring.verdict(table[table["report_slice"] == TOTAL])
    summary = {"verdict": verdict, "deviating_hours": len(whole), "deviating_slice_hours": len(worst) - len(whole), "picture": str(picture)}
    said = f"Verdict: {verdict}; {len(whole)} hours deviate over all slices, {len(worst) - len(whole)} in single slices. Picture: {picture}"
    return Outcome(summary, {"Deviating most": rows} if rows else {}, said)


def deviations(job: Job, days: Sequence[date]):  # type: ignore[no-untyped-def]
    """Each hour of the days against its baseline."""
    conf = job.conf.monitoring
    read = [days[0] - timedelta(days=back) for back in range(conf.baseline_days, 0, -1)] + list(days)
    return monitoring.deviations(job.lake.read(SLICE_METRICS, read), conf=conf, days=days)


def update(job: Job, days: Sequence[date]) -> str:
    """Metrics of these days anew; the verdict on them."""
    if job.lake.read(CURRENT_DECISIONS, days).isEmpty():
        return "no decisions"
    monitoring.update(job.lake, days)
    return monitoring.verdict(deviations(job, days))


if __name__ == "__main__":
    from slidr.cli import main

    main(["monitor", *sys.argv[1:]])
