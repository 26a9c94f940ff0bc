"""labels, features -> model version: spark-submit jobs/train.py --conf FILE --as-of TIME"""

import sys
import time
from dataclasses import replace
from datetime import datetime
from typing import Annotated

import typer
from pyspark import StorageLevel

from slidr import guardrails, training_report
from slidr.errors import NothingToDoError
from slidr.learning.checks import check_data, check_judging, current_champion
from slidr.learning.clicks import choose_days, labelled_clicks, read_versions, training_identity
from slidr.learning.judge import between, make_bundle, write_report
from slidr.learning.methods import as_taught, forget
from slidr.options import Override, parse_time
from slidr.run import Cells, Job, Outcome, folder

AsOf = Annotated[str | None, typer.Option("--as-of", help="Trains on the days that have matured by this time; default: now.")]
CalibrateOnly = Annotated[bool, typer.Option("--calibrate-only", help="Trains nothing: new thresholds for the champion's weights.")]


def train(job: Job, as_of: AsOf = None, override: Override = None, calibrate_only: CalibrateOnly = False) -> Outcome:
    """Trains, calibrates and registers a candidate on the newest matured days; guardrails may stop it."""
    now = parse_time(as_of, "--as-of") if as_of else job.now
    return train_as_of(job, now, override=override, calibrate_only=calibrate_only)


def train_as_of(job: Job, now: datetime, *, override: str | None = None, calibrate_only: bool = False, drawn: bool = True) -> Outcome:
    """The same training twice is one version: the second finds it and does nothing.

    The tables are read as of their newest commits at the start. Without `drawn` there are no pictures and no report.
    """
    from slidr.registry import Registry

    registry = Registry(job.conf.registry, job.lake)
    registry.init()
    started = time.monotonic()
    champion = current_champion(registry)
    parent = champion if calibrate_only else None
    if calibrate_only:
        if champion is None:
            raise NothingToDoError(
                "--calibrate-only expected a champion whose weights get new thresholds, found none; train and promote one"
            )
        job = replace(job, conf=as_taught(job.conf, champion))
    days = choose_days(job, now)
    versions = read_versions(job)
    labelled = labelled_clicks(job, days, versions).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        identity = training_identity(job, days, labelled, parent)
        known = registry.find(identity)
        state = registry.states().state.get(known[0]) if known else None
        if known and state:  # without a state its registration was cut off: it is registered to the end below
            forget(job, identity)  # it is still there where the run that registered the version was cut off right after
            return Outcome({"version": known[0], "new": False, "state": state}, said=f"Already trained: version {known[0]}, {state}.")
        data_started = time.monotonic()
        checks, features = check_data(job, days, labelled, champion)
        guardrail_seconds = time.monotonic() - data_started
        guardrails.require(checks, override)
        with guardrails.beside(checks, "weights, training and calibration"):
            learnt = make_bundle(job, days, labelled, identity, versions, champion, parent)
        judgement = learnt.judgement
        checks += check_judging(job, days, judgement, learnt.alike)
        guardrail_seconds += learnt.seconds
        table = guardrails.rows(checks)
        report = write_report(job, identity, judgement, learnt.facts, table) if drawn else None  # before a guardrail stops the run
        failed = guardrails.require(checks, override)
    finally:
        labelled.unpersist()
    taught = parent.bundle.metrics[guardrails.REFERENCE] if parent else features
    bundle = replace(learnt.bundle, metrics={**learnt.bundle.metrics, guardrails.REFERENCE: taught})
    made = f"thresholds for the weights of version {parent.number} chosen" if parent else "trained"
    reason = f"{made} on {between(days.all)}" + (f"; override: {override}" if override else "")
    number = registry.register(
        bundle, identity=identity, pictures=folder(job, "models", identity[:12]), now=job.now, actor=job.actor, reason=reason
    )
    forget(job, identity)
    verdict = training_report.verdict(judgement, table).sentence
    result = {
        "version": number,
        "new": True,
        "parent": parent.number if parent else None,
        "overridden": [guardrails.one_line([check]) for check in failed],
        "guardrails": table,
        "seconds": {"guardrails": round(guardrail_seconds, 1), "all": round(time.monotonic() - started, 1)},
        "bundle_metrics": {name: value for name, value in bundle.metrics.items() if name != guardrails.REFERENCE},
        "thresholds": bundle.thresholds,
        "comparison": training_report.summary(judgement),
        "verdict": verdict,
        "report": str(report) if report else None,
    }
    # The queries are as long as a terminal is wide: they are in the report and in the result.
    narrow = [{name: value for name, value in row.items() if name != "query"} for row in table]
    shown: dict[str, Cells] = {**training_report.shown(judgement), "Guardrails": narrow}
    next_step = f"Version {number} is a candidate; `slidr models promote {number} --reason …` makes it decide."
    return Outcome(result, shown, f"{verdict}\nReport: {report}\n{next_step}")


if __name__ == "__main__":
    from slidr.cli import main

    main(["train", *sys.argv[1:]])
