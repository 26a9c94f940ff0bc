"""clicks -> features: spark-submit jobs/features.py --conf FILE --from DAY --to DAY"""

import sys
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated, Any, Literal

import typer
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import data_files, plots
from slidr.days import days_between
from slidr.errors import InputError, NothingToDoError, UsageError
from slidr.features import builds, counters
from slidr.features import compare as comparing
from slidr.features.builds import look_back, reach_days
from slidr.features.explain import columns_read, explained
from slidr.features.repair import out_of_date
from slidr.features.spec import FeatureSpec
from slidr.options import OptionalFrom, OptionalTo, whole_days
from slidr.run import Job, Outcome, folder
from slidr.tables import CLICKS, Table, features_table

Known = Annotated[str, typer.Option("--known", help="then: clicks as known at arrival; now: all clicks.")]
AllowGaps = Annotated[bool, typer.Option("--allow-gaps", help="Days without any click are quiet days, not missing data.")]
ExplainSpec = Annotated[bool, typer.Option("--explain-spec", help="Prints what the spec computes and reads; needs no window.")]
Explain = Annotated[bool, typer.Option("--explain", help="Prints which days would be computed, what each reads, and the bytes.")]
Compare = Annotated[bool, typer.Option("--compare", help="Compares what a live system logged with what --known gives; writes nothing.")]
Repair = Annotated[bool, typer.Option("--repair", help="Rewrites the days of origin now that late clicks of these days change.")]
BLOCK_DAYS = 28  # days of one commit: what a kill loses at most; each block reads the look-back before it once more


def features(
    job: Job,
    start: OptionalFrom = None,
    end: OptionalTo = None,
    known: Known = "then",
    allow_gaps: AllowGaps = False,
    explain_spec: ExplainSpec = False,
    explain: Explain = False,
    compare: Compare = False,
    repair: Repair = False,
) -> Outcome:
    """Computes the windowed counters of the clicks of whole UTC days, by the spec of the configuration."""
    spec = job.conf.spec
    if explain_spec:
        return tell_spec(spec)
    if start is None or end is None:
        raise UsageError("expected a window: give --from and --to, dates such as 2026-03-01; --to is excluded")
    if known not in ("then", "now"):
        raise UsageError(f"--known: expected then or now, found {known!r}")
    days = whole_days(start, end)
    origin: Literal["then", "now"] = "now" if known == "now" else "then"
    if explain:
        return tell_plan(job, spec, days, origin)
    if compare:
        return tell_consistency(job, spec, days, origin)
    if repair:
        return rewrite_changed(job, spec, days)
    written = build(job, spec, days, origin, allow_gaps=allow_gaps)
    summary = {"spec_id": spec.spec_id, "from": str(days[0]), "to": str(days[-1] + timedelta(days=1)), "written": written}
    return Outcome(summary, said=f"{written:,} feature rows of spec {summary['spec_id']} written for {summary['from']} to {summary['to']}.")


def build(job: Job, spec: FeatureSpec, days: Sequence[date], known: Literal["then", "now"], *, allow_gaps: bool = False) -> int:
    """Writes the features of these days and returns the number of new rows. `then` is never rewritten, `now` is replaced where the clicks
    of the day or of its look-back were written to since.

    Days go in blocks, one commit each; a run that was killed goes on with the blocks that it lacks.
    """
    job.lake.create(features_table(spec))
    require_days(job, look_back(spec, days), days, allow_gaps=allow_gaps)
    written = 0
    for block in blocks(due(job, spec, days, known)):
        written += build_block(job, spec, block, known)
    return written


def build_block(job: Job, spec: FeatureSpec, days: Sequence[date], known: Literal["then", "now"]) -> int:
    """Writes the features of consecutive days in one commit."""
    table = features_table(spec)
    before = counters.there(job.lake, spec, days, known)
    clicks, zones = data_files.of(job.lake, CLICKS, look_back(spec, days)), job.conf.marketplaces
    if known == "now" or not before.files:
        written = counters.replace_days(job.lake, clicks, before, days, spec=spec, known=known, zones=zones)
        if known == "now":
            builds.note(job.lake, spec, days, commit=clicks.commit, run_id=job.run_id, now=job.now)
        return written
    end = days[-1] + timedelta(days=1)
    rows = counters.build(job.lake.spark, clicks, spec=spec, start=days[0], end=end, known=known, zones=zones)
    rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
    written = job.lake.insert_new(rows, table, days)
    rows.unpersist()
    return written


def due(job: Job, spec: FeatureSpec, days: Sequence[date], known: Literal["then", "now"]) -> list[date]:
    """Days with clicks that have no features yet; of `now`, also those whose clicks or look-back were written to since."""
    clicks = data_files.of(job.lake, CLICKS, days).rows
    there = counters.there(job.lake, spec, days, known).rows if job.lake.exists(features_table(spec)) else {}
    done = builds.up_to_date(job.lake, spec, there) if known == "now" else set(there)
    return [day for day in days if clicks.get(day, 0) > there.get(day, 0) or (day in there and day not in done)]


def stored(job: Job, table: Table, days: Sequence[date], known: str) -> DataFrame:
    return job.lake.read(table, days).where(F.col("origin") == known)


def blocks(days: Sequence[date]) -> list[list[date]]:
    """Runs of consecutive days, at most BLOCK_DAYS long."""
    result: list[list[date]] = []
    for day in days:
        if result and day - result[-1][-1] == timedelta(days=1) and len(result[-1]) < BLOCK_DAYS:
            result[-1].append(day)
        else:
            result.append([day])
    return result


def require_days(job: Job, read: Sequence[date], days: Sequence[date], *, allow_gaps: bool) -> None:
    """Raises where a day is missing. Before the first day of the lake nothing is missing: it is a boundary."""
    found = set(data_files.of(job.lake, CLICKS).rows)
    if not found & set(days):
        raise NothingToDoError(f"expected clicks from {days[0]} to {days[-1]}, found none; ingest them first")
    missing = [str(day) for day in read if min(found) < day < max(found) and day not in found]
    if missing and not allow_gaps:
        raise InputError(
            f"expected clicks of every day from {read[0]} to {read[-1]}, found none of {', '.join(missing)}: counters would be too low; "
            "ingest these days, or pass --allow-gaps if there was no traffic"
        )


def tell_spec(spec: FeatureSpec) -> Outcome:
    """What the spec computes and reads."""
    told = explained(spec)
    said = (
        f"Spec {told['spec_id']}, revision {told['revision']}: {len(told['features'])} features; looks back {told['look_back']:,} s. "
        f"Reads of clicks: {', '.join(told['reads'])}."
    )
    return Outcome(told, {"Features": told["features"], "Exchanges of the rows": told["exchanges"]}, said)


def tell_plan(job: Job, spec: FeatureSpec, days: Sequence[date], known: Literal["then", "now"]) -> Outcome:
    """Which days would be computed, in which commits, and what each reads. Writes nothing."""
    rows = [_block_plan(job, spec, block) for block in blocks(due(job, spec, days, known))]
    summary = {"spec_id": spec.spec_id, "blocks": rows, "days_done": len(days) - sum(row["days"] for row in rows)}
    said = f"{len(rows)} commits; {summary['days_done']} of {len(days)} days need nothing. Columns: {', '.join(columns_read(spec))}."
    return Outcome(summary, {"Would be computed": rows} if rows else {}, said)


def tell_consistency(job: Job, spec: FeatureSpec, days: Sequence[date], known: Literal["then", "now"]) -> Outcome:
    """Logged features beside those computed: equal cells and differences by feature, by hour, and the keys that differ most."""
    table = features_table(spec)
    nothing = NothingToDoError(
        f"expected logged features and features as known {known} of the same clicks from {days[0]} to {days[-1]}, found none; "
        f"ingest the logged ones, and run `slidr features --known {known}` for these days"
    )
    if not job.lake.exists(table):
        raise nothing
    logged, computed = stored(job, table, days, "logged"), stored(job, table, days, known)
    both = comparing.side_by_side(computed, logged, spec).persist(StorageLevel.MEMORY_AND_DISK)
    rows = comparing.differences(both, spec)
    if not rows[0]["compared"]:
        raise nothing
    hours, keys = comparing.by_hour(both, spec), comparing.worst_keys(both, job.lake.read(CLICKS, days), spec)
    both.unpersist()
    picture = folder(job, "features") / f"consistency_{days[0]}_{days[-1]}.png"
    plots.plot_consistency(rows, hours, picture)
    shares = [{**row, "share_equal": row["equal"] / row["compared"]} for row in rows]
    worst = sorted(hours, key=lambda hour: -hour["differing"] / hour["clicks"])[: comparing.WORST]
    differing, clicks = sum(hour["differing"] for hour in hours), rows[0]["compared"]
    summary = {"clicks": clicks, "differing": differing, "features": shares, "hours": hours, "keys": keys, "picture": str(picture)}
    shown = {"Features": sorted(shares, key=lambda row: row["share_equal"]), "Hours that differ most": worst, "Keys that differ most": keys}
    return Outcome(summary, shown, f"{differing:,} of {clicks:,} clicks differ in a feature. Picture: {picture}")


def rewrite_changed(job: Job, spec: FeatureSpec, days: Sequence[date]) -> Outcome:
    """Finds the clicks of these days that built days of origin now don't count yet, and rewrites the days that they change."""
    ahead = days_between(days[0], days[-1] + timedelta(days=1 + reach_days(spec)))
    job.lake.create(features_table(spec))
    built = set(counters.there(job.lake, spec, ahead, "now").rows)
    found = out_of_date(job.lake, spec, days, built)
    for block in blocks(found.days):
        build_block(job, spec, block, "now")
    named, late = [str(day) for day in found.days], sum(found.came.values())
    keys = [{**row, "day": str(row["day"])} for row in found.keys]
    said = f"{late:,} late clicks; {len(named)} days rewritten: {', '.join(named) or 'none'}."
    return Outcome({"late_clicks": late, "days": named, "keys": keys}, {"Keys that count late clicks": keys} if keys else {}, said)


def _block_plan(job: Job, spec: FeatureSpec, days: Sequence[date]) -> dict[str, Any]:
    read = look_back(spec, days)
    files = job.lake.read_files(CLICKS, read)
    return {
        "from": str(days[0]),
        "to": str(days[-1] + timedelta(days=1)),
        "days": len(days),
        "reads from": str(read[0]),
        "files": len(files),
        "bytes of these files": sum(files.values()),
    }


if __name__ == "__main__":
    from slidr.cli import main

    main(["features", *sys.argv[1:]])
