"""decisions -> slice_metrics, and how they stand beside earlier weeks: spark-submit jobs/monitor.py --conf FILE --from DAY --to TIME"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Annotated

import pandas as pd
import typer
from pyspark.sql import functions as F

from slidr import labels as labelling
from slidr import monitoring
from slidr.curves import TOTAL
from slidr.days import days_between, days_of, midnight
from slidr.errors import GuardrailError, NothingToDoError
from slidr.monitoring import prometheus
from slidr.options import From, To, window
from slidr.run import Cells, Job, Outcome, folder
from slidr.tables import CLICKS, CURRENT_DECISIONS, PURCHASES, SLICE_METRICS

SHOWN = 12  # rows of a table on a terminal
LATEST_ORDERS = 7  # days that orders of the first hours may have come in late
WEEK_BEFORE = 1  # week more than the comparison needs: how much hours differ by chance is measured there
Act = Annotated[bool, typer.Option("--act", help="Where the verdict is `roll back`: roll back now.")]


@dataclass(frozen=True)
class Seen:
    """What is known at `end`: hours of all versions and views, and the signals of the hours from `start` on."""

    hours: pd.DataFrame
    judged: pd.DataFrame
    start: datetime
    end: datetime

    @property
    def verdict(self) -> str:
        """Of the last hour: what holds now."""
        return monitoring.verdict(self.newest)

    @property
    def newest(self) -> pd.DataFrame:
        return prometheus.newest(self.judged)

    @property
    def version(self) -> str | None:
        """Who decided last."""
        return monitoring.deciding(self.hours, self.judged["time"].max())


def monitor(job: Job, start: From, end: To, act: Act = False) -> Outcome:
    """Measures the decisions of the window's days by hour and slice, and judges its hours against the same hours of earlier weeks.

    The window ends where knowledge ends: nothing later is looked at, so a past hour is judged as it would have been then. `roll back`
    ends with exit code 4, unless --act rolls back.
    """
    first, last = window(start, end)
    days = days_of(first, last)
    if job.lake.read(CURRENT_DECISIONS, days).isEmpty():
        raise NothingToDoError(f"expected decisions from {days[0]} to {days[-1]}, found none; run `slidr score` first")
    measure(job, days, first, last)
    seen = look(job, first, last)
    picture = folder(job, "monitoring") / f"hours_{first:%Y-%m-%dT%H}_{last:%Y-%m-%dT%H}.png"
    monitoring.plot(seen.judged, picture)
    publish(job, seen)
    shown = {
        "Not ok in the window": _rows(monitoring.reasons(seen.judged)),
        "The last hour": _rows(seen.newest[seen.newest["place"] == TOTAL].drop(columns=["time", "place"])),
    }
    by_hour = monitoring.by_hour(seen.judged)["verdict"].value_counts()
    summary = {
        "verdict": seen.verdict,
        "version": seen.version,
        "hours": {str(name): int(count) for name, count in by_hour.items()},
        "signals": shown["Not ok in the window"],
        "picture": str(picture),
    }
    done = follow(job, seen, act)
    said = f"Verdict at {last:%Y-%m-%d %H:%MZ}: {seen.verdict}; hours: {_counted(by_hour)}. {done.said}Picture: {picture}"
    return Outcome(summary | done.summary, {k: v for k, v in shown.items() if v}, said, done.exit_code, done.refused)


def measure(job: Job, days: Sequence[date], start: datetime, end: datetime) -> None:
    """Metrics of these days anew, with the purchases that are known by now, and of those days that [start, end) is compared with that
    were never measured, or about which something was decided, corrected or labelled since."""
    conf, days = job.conf.labels, sorted({*days, *monitoring.stale(job.lake, compared(job, start, end))})
    clicks = job.lake.read(CLICKS, labelling.days_of_clicks(days, conf))
    # Purchases are looked for up to a day after a click.
    purchases = job.lake.read(PURCHASES, sorted({day + timedelta(days=later) for day in days for later in (0, 1)}))
    bought = labelling.attribute(clicks, purchases, conf=conf).select("click_id", F.col("arrival_time").alias("known_time"))
    monitoring.update(job.lake, days, bought, now=job.now, heavy=conf)


def compared(job: Job, start: datetime, end: datetime) -> list[date]:
    """Days whose hours stand beside those of [start, end), these included."""
    since = end.date() - timedelta(weeks=job.conf.monitoring.weeks + WEEK_BEFORE, days=(end - start).days + 1)
    return days_of(midnight(since), end)


def look(job: Job, start: datetime, end: datetime) -> Seen:
    """The hours of [start, end) beside the weeks before, as known at `end`. Raises NothingToDoError where no hour was decided."""
    conf = job.conf.monitoring
    days = compared(job, start, end)
    hours = monitoring.read_hours(job.lake.read(SLICE_METRICS, days))
    hours = hours[hours["time"] + pd.Timedelta(hours=1) <= monitoring.naive(end)]
    if hours[hours["view"] == "first"].empty:
        raise NothingToDoError(f"expected first decisions before {end.isoformat()}, found none; run `slidr score` first")
    purchases = job.lake.read(PURCHASES, days_between(days[0] - timedelta(days=LATEST_ORDERS), days[-1] + timedelta(days=1)))
    feed = monitoring.purchase_feed(purchases, start=midnight(days[0]), end=end)
    last = monitoring.naive(end).floor("h") - pd.Timedelta(hours=1)
    judged = monitoring.judge(hours, feed, conf=conf, matured_after=24 * (job.conf.labels.delay_days + 1), until=last)
    return Seen(hours, monitoring.between(judged, start, end), start, end)


def publish(job: Job, seen: Seen) -> None:
    """The numbers of the last hour, for Prometheus and in MLflow."""
    from slidr.registry import Registry

    content = prometheus.text(seen.newest, verdict=seen.verdict, version=seen.version, end=seen.end)
    prometheus.write(content, folder(job, "monitoring") / "slidr.prom")
    Registry(job.conf.registry, job.lake).log_monitoring(prometheus.flat(seen.newest), time=seen.end)


def follow(job: Job, seen: Seen, act: bool) -> Outcome:
    """What `roll back` leads to: with `act` the rollback, else the command for it; then the replay of what the version decided."""
    if seen.verdict != monitoring.ROLL_BACK:
        return Outcome({})
    from slidr.jobs import models

    from slidr.registry import Registry

    reason = f"monitor at {seen.end:%Y-%m-%d %H:%MZ}: {_told(monitoring.reasons(seen.newest))}"
    if seen.version not in Registry(job.conf.registry, job.lake).states().state:
        who = f"a live system's version {seen.version!r}" if seen.version else "no version on record"
        refused = f"expected hours like those of earlier weeks, found {reason}; {who} decided them, so there is none here to roll back"
        return Outcome({}, exit_code=GuardrailError.exit_code, refused=refused)
    replay = f"slidr replay plan --decided-by {seen.version} --model stable --allow-charges"
    if act:
        gone = models.rollback(job, reason, leave=seen.version)
        return Outcome({**gone.summary, "replay": replay}, said=f"{gone.said} Decide again what it decided: {replay}. ")
    rollback = f'slidr models rollback --leave {seen.version} --reason "{reason}"'
    refused = f"expected hours like those of earlier weeks, found {reason}; roll back with --act, or {rollback}; then {replay}"
    return Outcome({"rollback": rollback, "replay": replay}, exit_code=GuardrailError.exit_code, refused=refused)


def update(job: Job, days: Sequence[date]) -> Seen | None:
    """Metrics of these days anew, and what is known at their end; None where nothing is decided."""
    if job.lake.read(CURRENT_DECISIONS, days).isEmpty():
        return None
    start, end = midnight(days[0]), midnight(days[-1]) + timedelta(days=1)
    measure(job, days, start, end)
    seen = look(job, start, end)
    publish(job, seen)
    return seen


def at_worst(seen: Seen, since: datetime) -> Seen:
    """As it stood at the end of the latest hour from `since` on that has the worst verdict of these; itself where all are ok or unknown."""
    hours = monitoring.by_hour(monitoring.between(seen.judged, since, seen.end))
    worst = monitoring.verdict(hours)
    if worst not in (monitoring.ROLL_BACK, monitoring.WATCH):
        return seen
    time = hours.loc[hours["verdict"] == worst, "time"].max()
    end = (time + pd.Timedelta(hours=1)).tz_localize("UTC").to_pydatetime()
    return replace(seen, judged=seen.judged[seen.judged["time"] <= time], end=end)


def _told(rows: pd.DataFrame) -> str:
    """The numbers of what is not ok, in a sentence."""
    worst = rows[rows["verdict"] == monitoring.ROLL_BACK].head(3).to_dict("records")
    return "; ".join(
        f"{row['signal']} of {row['place']} {row['value']:.4f}, usual {row['usual']:.4f} "
        f"({row['sigmas']:+.1f} sigma, {row['count']:.0f} in {row['hours']:.0f} h)"
        for row in worst
    )


def _rows(table: pd.DataFrame) -> Cells:
    cells = table.head(SHOWN).astype(object).where(table.head(SHOWN).notna(), None)
    return [{name: str(value) if name == "time" else value for name, value in row.items()} for row in cells.to_dict("records")]


def _counted(hours: "pd.Series[int]") -> str:
    return ", ".join(f"{count} {name}" for name, count in hours.items())


if __name__ == "__main__":
    from slidr.cli import main

    main(["monitor", *sys.argv[1:]])
