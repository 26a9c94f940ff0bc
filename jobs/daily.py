"""One logical day's chain: spark-submit jobs/daily.py --conf FILE --date DAY"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Annotated, Any

import typer
from slidr.jobs import features, labels, monitor, score, train

from slidr import labels as labelling
from slidr import monitoring
from slidr.days import days_between, midnight
from slidr.errors import DONE, GuardrailError, ModelRefusedError, NothingToDoError
from slidr.options import parse_day
from slidr.run import Cells, Job, Outcome
from slidr.tables import CLICKS, LABELS, Table
from slidr.threads import together

LEFT = ("suspect", "revoked")  # states of versions that somebody has taken back
Day = Annotated[str, typer.Option("--date", help="Logical date D: features and decisions of D, labels of D - delay; now is the end of D.")]


def daily(job: Job, date: Day) -> Outcome:
    """Runs one day: features, decisions, labels, training, monitoring. Running it again changes nothing.

    A guardrail that stops the training stops nothing else: the champion decides on, and the run ends with its reason and exit code. So does
    an hour of the day that says `roll back`, with the commands to follow: the chain itself rolls nothing back.
    """
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
    steps["training"], stopped = learn(job, registry)
    if not champion:
        first = registry.states().champion
        steps["decisions"] = decide(job, first) if first else "none: no version decides; promote one"
    job.say("metrics")
    watched = watch(job, day, registry)
    steps |= watched.summary
    steps["stable"] = prove(job, registry)
    return ended(day, steps, stopped, watched.refused)


def ended(day: date, steps: Mapping[str, Any], stopped: GuardrailError | None, alarm: str | None) -> Outcome:
    """What the day did. A guardrail that stopped the training, and an hour that says `roll back`, end it with their exit code."""
    shown: dict[str, Cells] = {f"Daily chain of {day}": [{"step": name, "result": str(result)} for name, result in steps.items()]}
    table = {"guardrails": stopped.rows} if stopped else {}
    if stopped:
        shown["Guardrails"] = stopped.rows
    refused = "\n".join(text for text in (str(stopped) if stopped else "", alarm) if text)
    return Outcome(
        {"date": str(day), **steps, **table}, shown, exit_code=GuardrailError.exit_code if refused else DONE, refused=refused or None
    )


def decide(job: Job, champion: str) -> int:
    from slidr.registry import Registry

    job.say(f"decisions by version {champion}")
    version = Registry(job.conf.registry, job.lake).load(champion)
    return int(score.decide(job, version, job.now - timedelta(days=1), job.now).summary["new_decisions"])


def label(job: Job) -> int:
    """Labels every matured day with clicks that have no label, and returns how many: usually the one day that matured now, and
    days that clicks came in for since."""
    clicks, labelled = (_rows_of_days(job, table) for table in (CLICKS, LABELS))
    behind = sorted(day for day, count in clicks.items() if count > labelled.get(day, 0))
    due = labelling.matured(behind, now=job.now, conf=job.conf.labels)
    if due:
        labels.relabel(job, due, waiting=0, now=job.now)
    return len(due)


def _rows_of_days(job: Job, table: Table) -> dict[date, int]:
    """Rows by day, of all days: counted from the headers of the files."""
    return dict(tuple(row) for row in job.lake.read(table).groupBy("click_date").count().collect())  # one row a day


def learn(job: Job, registry: Any, *, drawn: bool = True) -> tuple[str, GuardrailError | None]:
    """(what happened; the guardrail that stopped it): the champion stays as it is then. `drawn`: with pictures and a report."""
    try:
        trained = train.train_as_of(job, job.now, drawn=drawn).summary
    except NothingToDoError as error:
        return f"waits: {error}", None
    except GuardrailError as error:
        return "stopped by a guardrail; the champion stays", error
    known = f"version {trained['version']}, {'candidate' if trained['new'] else trained['state']}"
    return (advance(job, registry, trained["version"]) if job.conf.promotion == "auto" else "") or known, None


def advance(job: Job, registry: Any, version: str) -> str:
    """Promotes the newest candidate, also one of a run that was cut off before; what it did or why not, '' if nothing is to be done."""
    try:
        reason = f"promotion: auto, trained as of {job.now.isoformat()}"
        promoted = registry.promote_newest(version, now=job.now, actor=job.actor, reason=reason)
    except ModelRefusedError as error:
        return str(error)
    return f"version {version}, champion" if promoted else ""


def watch(job: Job, day: date, registry: Any) -> Outcome:
    """Metrics of the days whose labels may have changed, and the worst verdict of the day's own hours. `roll back` is refused with the
    commands to follow, unless the version was left since."""
    seen = monitor.update(job, days_between(day - timedelta(days=job.conf.labels.delay_days), job.now.date()))
    if not seen:
        return Outcome({"monitor": "no decisions"})
    worst = monitor.at_worst(seen, midnight(day))
    if worst.verdict == monitoring.ROLL_BACK and registry.states().state.get(worst.version) in LEFT:
        return Outcome({"monitor": f"{worst.verdict}: version {worst.version}, which was left since"})
    told: Outcome = monitor.follow(job, worst, act=False)
    return replace(told, summary={"monitor": worst.verdict, **told.summary})


def prove(job: Job, registry: Any) -> list[str]:
    """Marks the champions of long enough ago stable whose decisions since then were judged ok; returns their numbers."""
    conf = job.conf.monitoring
    waiting = registry.states().unproven(job.now - timedelta(hours=conf.stable_after_hours))
    if not waiting:
        return []
    seen = monitor.look(job, job.now - timedelta(hours=conf.stable_after_hours), job.now)
    verdicts = monitoring.by_version(seen.judged, seen.hours, conf=conf, now=job.now)
    proven = [version for version in waiting if verdicts.get(version) == monitoring.OK]
    for version in proven:
        registry.mark_stable(version, now=job.now, actor=job.actor, reason=f"{conf.stable_after_hours} h of ok verdicts")
    return proven


if __name__ == "__main__":
    from slidr.cli import main

    main(["daily", *sys.argv[1:]])
