"""One logical day's chain: spark-submit jobs/daily.py --conf FILE --date DAY"""

import sys
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

import typer
from slidr.jobs import features, labels, monitor, score, train

from slidr import labels as labelling
from slidr.errors import GuardrailError, NothingToDoError
from slidr.lake import days_between
from slidr.options import parse_day
from slidr.run import Job, Outcome
from slidr.tables import CLICKS, LABELS

Day = Annotated[str, typer.Option("--date", help="Logical date D: features and decisions of D, labels of D - delay; now is the end of D.")]


def daily(job: Job, date: Day) -> Outcome:
    """Runs one day: features, decisions, labels, training, monitoring. Running it again changes nothing."""
    from slidr.registry import Registry

    day = parse_day(date)
    end_of_day = datetime(day.year, day.month, day.day, tzinfo=timezone.utc) + timedelta(days=1)
    registry = Registry(job.conf.registry, job.lake)
    registry.init()
    steps: dict[str, Any] = {}
    job.say(f"features of {day}")
    steps["features"] = features.build(job, job.conf.spec, [day], "then", allow_gaps=True)
    champion = registry.states().champion
    if champion:
        steps["decisions"] = decide(job, champion, end_of_day)
    steps["labels"] = label(job, end_of_day)
    steps["training"], exit_code, problem = learn(job, registry, end_of_day)
    if not champion and registry.states().champion:
        steps["decisions"] = decide(job, str(registry.states().champion), end_of_day)
    job.say("metrics")
    steps["monitor"] = monitor.update(
        job, days_between((end_of_day - timedelta(days=job.conf.labels.delay_days + 1)).date(), end_of_day.date())
    )
    rows = [{"step": name, "result": str(result)} for name, result in steps.items()]
    return Outcome({"date": str(day), **steps}, {f"Daily chain of {day}": rows}, problem, exit_code)


def decide(job: Job, champion: str, end_of_day: datetime) -> int:
    from slidr.registry import Registry

    job.say(f"decisions by version {champion}")
    version = Registry(job.conf.registry, job.lake).load(champion)
    return int(score.decide(job, version, end_of_day - timedelta(days=1), end_of_day).summary["new_decisions"])


def label(job: Job, now: datetime) -> int:
    """Labels every matured day that has none yet and returns how many; usually the one day that matured now."""
    with_clicks = {row[0] for row in job.lake.read(CLICKS).select("click_date").distinct().collect()}  # one row a day
    with_labels = {row[0] for row in job.lake.read(LABELS).select("click_date").distinct().collect()}
    due = labelling.matured(sorted(with_clicks - with_labels), now=now, conf=job.conf.labels)
    if due:
        job.say(f"labels of {due[0]} to {due[-1]}")
        labels.relabel(job, due, waiting=0, now=now)
    return len(due)


def learn(job: Job, registry: Any, now: datetime) -> tuple[str, int, str]:
    """(what happened, exit code, message): a guardrail leaves the champion as it is and tells why."""
    try:
        trained = train.train_as_of(job, now)
    except NothingToDoError as error:
        return f"waits: {error}", 0, ""
    except GuardrailError as error:
        return "stopped by a guardrail; the champion stays", error.exit_code, str(error)
    version = trained.summary["version"]
    # Only a version that this run made is promoted: an old day run again must not bring an old version back.
    if trained.summary["new"] and job.conf.promotion == "auto":
        registry.promote(version, now=job.now, actor=job.actor, reason=f"promotion: auto, trained as of {now.isoformat()}")
        return f"version {version}, champion", 0, ""
    return f"version {version}, {'candidate' if trained.summary['new'] else 'trained before'}", 0, ""


if __name__ == "__main__":
    from slidr.cli import main

    main(["daily", *sys.argv[1:]])
