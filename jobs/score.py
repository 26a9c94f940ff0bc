"""features -> decisions: spark-submit jobs/score.py --conf FILE --from TIME --to TIME"""

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import pandas as pd
import typer
from pyspark.sql import Column
from pyspark.sql import functions as F

from slidr import deciding, pages, shadow
from slidr.days import days_of, midnight
from slidr.options import From, To, window
from slidr.replay import audit, lease
from slidr.run import Job, Outcome, folder
from slidr.version import Version

Model = Annotated[str, typer.Option("--model", help="champion, stable, or the number of a version.")]
Shadow = Annotated[
    list[str] | None, typer.Option("--shadow", help="A version whose decisions are kept apart and compared, never published; repeatable.")
]
SHOWN = 10  # rows of a table on a terminal


def score(job: Job, start: From, end: To, model: Model = "champion", shadows: Shadow = None) -> Outcome:
    """Decides the clicks of a window that have no decision yet; touches no other."""
    from slidr.registry import Registry

    first, last = window(start, end)
    registry = Registry(job.conf.registry, job.lake)
    version = registry.load(model)
    others = [registry.load(number) for number in dict.fromkeys(shadows or [])]
    done = decide(job, version, first, last, others)
    return compare(job, others, first, last, done) if others else done


def decide(job: Job, version: Version, first: datetime, last: datetime, others: Sequence[Version] = ()) -> Outcome:
    """First decisions of the window by one version, counted by basis; in the same pass what the others say of its clicks. Raises
    LockedError while a replay of its days is half published."""
    days = days_of(first, last)  # whole: decisions that an earlier run left unpublished are published by the day

    def may_publish() -> None:
        lease.refuse_half_published(audit.read(job.lake), midnight(days[0]), midnight(days[-1]) + timedelta(days=1))

    done = deciding.decide(job.lake, version, first, last, run_id=job.run_id, decided_time=job.now, shadows=others, may_publish=may_publish)
    summary = {"model_version": version.number, "from": first.isoformat(), "to": last.isoformat(), "new_decisions": done.new}
    shadows = {"new_shadow_decisions": done.shadows} if others else {}
    said = f"{done.new:,} clicks decided by version {version.number}."
    shown = [{"basis": basis, "clicks": clicks, "invalid": invalid} for basis, (clicks, invalid) in done.counts.items()]
    return Outcome({**summary, **shadows, "by_basis": shown}, {"New decisions": shown} if shown else {}, said)


def compare(job: Job, others: Sequence[Version], first: datetime, last: datetime, done: Outcome) -> Outcome:
    """The outcome `done` of the decisions, and how what the other versions said differs, which is kept in `shadow_decisions`."""
    rows = shadow.differences(job.lake, days_of(first, last), _inside(first, last), [version.number for version in others])
    path = folder(job, "shadow", job.run_id) / "differences.csv"
    pd.DataFrame(rows).map(pages.cell).to_csv(path, index=False)
    shown: dict[str, Any] = {
        "Shadow versions beside first decisions": _told(rows, "currency"),
        "By slice": _told(rows, "report_slice")[:SHOWN],
        "By advertiser and currency": _told(rows, "advertiser_id", "currency")[:SHOWN],
    }
    versions = ", ".join(version.number for version in others)
    new = done.summary["new_shadow_decisions"]
    said = f"{done.said}\n{new:,} shadow decisions by {versions}; nothing of them is published. All differences: {path}"
    return Outcome({**done.summary, "shadows": rows, "differences": str(path)}, {**done.shown, **shown}, said)


def _told(rows: Sequence[dict[str, Any]], *by: str) -> list[dict[str, Any]]:
    """Differences by these columns, in few words; money is what the shadow would have made free beyond the decisions."""
    found = []
    for row in shadow.summed(rows, ["model_version", *by]):
        invalid = f"{row['both_invalid']:,} / {row['only_decided_invalid']:,} / {row['only_shadow_invalid']:,}"
        told = {"version": row["model_version"], **{name: row[name] for name in by}, "clicks": row["clicks"]}
        told |= {"differ": pages.percent(row["differ"]), "invalid: both / decided / shadow alone": invalid}
        if "currency" in by:
            told["more free money"] = pages.amount(row["cost_only_shadow"] - row["cost_only_decided"])
        found.append(told)
    return found


def _inside(first: datetime, last: datetime) -> Column:
    return (F.col("click_time") >= F.lit(first)) & (F.col("click_time") < F.lit(last))


if __name__ == "__main__":
    from slidr.cli import main

    main(["score", *sys.argv[1:]])
