"""clicks -> features: spark-submit jobs/features.py --conf FILE --from DAY --to DAY"""

import sys
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated, Literal

import typer
from pyspark import StorageLevel

from slidr.errors import InputError, NothingToDoError
from slidr.features import counters
from slidr.features.spec import UNITS, FeatureSpec
from slidr.options import From, To, whole_days
from slidr.run import Job, Outcome
from slidr.tables import CLICKS, features_table

Known = Annotated[str, typer.Option("--known", help="then: clicks as known at arrival; now: all clicks.")]
AllowGaps = Annotated[bool, typer.Option("--allow-gaps", help="Days without any click are quiet days, not missing data.")]


def features(job: Job, start: From, end: To, known: Known = "then", allow_gaps: AllowGaps = False) -> Outcome:
    """Computes the windowed counters of the clicks of whole UTC days, by the spec of the configuration."""
    days = whole_days(start, end)
    if known not in ("then", "now"):
        raise InputError(f"--known: expected then or now, found {known!r}")
    written = build(job, job.conf.spec, days, "now" if known == "now" else "then", allow_gaps=allow_gaps)
    summary = {"spec_id": job.conf.spec.spec_id, "from": str(days[0]), "to": str(days[-1] + timedelta(days=1)), "written": written}
    return Outcome(summary, said=f"{written:,} feature rows of spec {summary['spec_id']} written for {summary['from']} to {summary['to']}.")


def build(job: Job, spec: FeatureSpec, days: Sequence[date], known: Literal["then", "now"], *, allow_gaps: bool = False) -> int:
    """Writes the features of these days and returns the number of new rows. `then` is never rewritten, `now` is replaced."""
    table = features_table(spec)
    job.lake.create(table)
    read = look_back(spec, days)
    require_days(job, read, days, allow_gaps=allow_gaps)
    clicks = job.lake.read(CLICKS, read)
    rows = counters.build(clicks, spec=spec, start=days[0], end=days[-1] + timedelta(days=1), known=known, zones=job.conf.marketplaces)
    present = job.lake.read(table, days).where(f"origin = '{known}'")
    if known == "now" or present.isEmpty():
        job.lake.replace_days(rows, table, days, origin=known)
        return job.lake.read(table, days).where(f"origin = '{known}'").count()
    rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
    written = job.lake.insert_new(rows, table, days)
    rows.unpersist()
    return written


def look_back(spec: FeatureSpec, days: Sequence[date]) -> list[date]:
    """The days, and those before them that the longest window reaches into."""
    reach = -(-spec.longest_window // UNITS["d"])
    return [days[0] - timedelta(days=back) for back in range(reach, 0, -1)] + list(days)


def require_days(job: Job, read: Sequence[date], days: Sequence[date], *, allow_gaps: bool) -> None:
    """Raises where a day is missing. Before the first day of the lake nothing is missing: it is a boundary."""
    found = {row[0] for row in job.lake.read(CLICKS).select("click_date").distinct().collect()}  # one row per day
    if not found & set(days):
        raise NothingToDoError(f"expected clicks from {days[0]} to {days[-1]}, found none; ingest them first")
    missing = [str(day) for day in read if min(found) < day < max(found) and day not in found]
    if missing and not allow_gaps:
        raise InputError(
            f"expected clicks of every day from {read[0]} to {read[-1]}, found none of {', '.join(missing)}: counters would be too low; "
            "ingest these days, or pass --allow-gaps if there was no traffic"
        )


if __name__ == "__main__":
    from slidr.cli import main

    main(["features", *sys.argv[1:]])
