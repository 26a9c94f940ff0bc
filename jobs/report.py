"""slice_metrics, corrections, promotions -> the page of a weekly review: spark-submit jobs/report.py --conf FILE --from DAY --to DAY"""

import sys

from slidr import pages
from slidr.options import From, To, whole_days
from slidr.run import Job, Outcome, folder
from slidr.weekly import figures, page


def report(job: Job, start: From, end: To) -> Outcome:
    """Writes the page of a weekly review: IVR, FPR, coverage, money, deviations, corrections, versions, quality of the data."""
    days = whole_days(start, end)
    week = figures.read(job.place, days, job.conf)
    target = folder(job, "reports", f"{days[0]}_{days[-1]}")
    facts = page.Facts(job.conf.calibration.fpr_budget, job.now, job.conf.config_hash)
    content = page.write(week, facts, target)
    said = "\n".join([*content["verdict"], f"Report: {target / page.PAGE}"])
    return Outcome({**pages.plain(content), "report": str(target / page.PAGE)}, page.shown(content), said)


if __name__ == "__main__":
    from slidr.cli import main

    main(["report", *sys.argv[1:]])
