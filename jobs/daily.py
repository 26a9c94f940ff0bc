"""One logical day's chain: spark-submit jobs/daily.py --conf FILE --date DAY"""

import sys
from datetime import timedelta
from typing import Annotated, Any

import typer
from slidr.jobs import features, labels, monitor, score, train

from slidr import labels as labelling
from slidr import monitoring
from slidr.days import days_between, midnight
from slidr.errors import GuardrailError, NothingToDoError
from slidr.options import parse_day
from slidr.run import Job, Outcome, together
from slidr.tables import CLICKS, LABELS, SLICE_METRICS

Day = Annotated[str, typer.Option("--date", help="Logical date D: features and decisions of D, labels of D - delay; now is the end of D.")]


def daily(job: Job, date: Day) -> Outcome:
    """Runs one day: features, decisions, labels, training, monitoring. Running it again changes nothing."""
    from slidr.registry import Registry

    day = parse_day(date)
    job.now = midnight(day) + timedelta(days=1)
    registry = Registry(job.conf.registry, job.lake)
    registry.init()
    steps: dict[str, Any] = {}
    job.say(f"features of {day}, labels of the days that have matured")
    steps["features"], steps["labels"] = together(
        lambda: features.build(job, job.conf.spec, [day], "then", allow_gaps=True),
        lambda: label(job),
    )
    champion = registry.states().champion
    if champion:
        steps["decisions"] = decide(job, champion)
    steps["training"], exit_code, problem = learn(job, registry)
    if not champion:
        first = registry.states().champion
        steps["decisions"] = decide(job, first) if first else "none: no version decides; promote one"
    job.say("metrics")
    steps["monitor"] = monitor.update(job, days_between(day - timedelta(days=job.conf.labels.delay_days), job.now.date()))
    steps["stable"] = prove(job, registry)
    rows = [{"step": name, "result": str(result)} for name, result in steps.items()]
    return Outcome({"date": str(day), **steps}, {f"Daily chain of {day}": rows}, problem, exit_code)


def decide(job: Job, champion: str) -> int:
    from slidr.registry import Registry

    job.say(f"decisions by version {champion}")
    version = Registry(job.conf.registry, job.lake).load(champion)
    return int(score.decide(job, version, job.now - timedelta(days=1), job.now).summary["new_decisions"])


def label(job: Job) -> int:
    """Labels every matured day that has none yet and returns how many; usually the one day that matured now."""
    with_clicks = {row[0] for row in job.lake.read(CLICKS).select("click_date").distinct().collect()}  # one row a day
    with_labels = {row[0] for row in job.lake.read(LABELS).select("click_date").distinct().collect()}
    due = labelling.matured(sorted(with_clicks - with_labels), now=job.now, conf=job.conf.labels)
    if due:
        labels.relabel(job, due, waiting=0, now=job.now)
    return len(due)


def learn(job: Job, registry: Any) -> tuple[str, int, str]:
    """(what happened, exit code, message): a guardrail leaves the champion as it is and tells why."""
    try:
        trained = train.train_as_of(job, job.now)
    except NothingToDoError as error:
        return f"waits: {error}", 0, ""
    except GuardrailError as error:
        return "stopped by a guardrail; the champion stays", error.exit_code, str(error)
    version = trained.summary["version"]
    # Only a version that this run made is promoted: an old day run again must not bring an old version back.
    if trained.summary["new"] and job.conf.promotion == "auto":
        registry.promote(version, now=job.now, actor=job.actor, reason=f"promotion: auto, trained as of {job.now.isoformat()}")
        return f"version {version}, champion", 0, ""
    return f"version {version}, {'candidate' if trained.summary['new'] else 'trained before'}", 0, ""


def prove(job: Job, registry: Any) -> list[str]:
    """Marks the champions of long enough ago stable whose decisions since then were judged ok; returns their numbers."""
    conf = job.conf.monitoring
    waiting = registry.states().unproven(job.now - timedelta(hours=conf.stable_after_hours))
    if not waiting:
        return []
    days = days_between((job.now - timedelta(hours=conf.stable_after_hours, days=conf.baseline_days)).date(), job.now.date())
    verdicts = monitoring.verdicts_by_version(job.lake.read(SLICE_METRICS, days), conf=conf, now=job.now)
    proven = [version for version in waiting if verdicts.get(version) == monitoring.OK]
    for version in proven:
        registry.mark_stable(version, now=job.now, actor=job.actor, reason=f"{conf.stable_after_hours} h of ok verdicts")
    return proven


if __name__ == "__main__":
    from slidr.cli import main

    main(["daily", *sys.argv[1:]])
