"""The guardrails of a training run: of its data, of the new model, and of both beside the champion."""

from typing import Any

from pyspark.sql import DataFrame

from slidr import evaluation, guardrails
from slidr.learning.clicks import Days
from slidr.run import Job
from slidr.threads import together
from slidr.version import Version


def current_champion(registry: Any) -> Version | None:
    """The version that decides now, with its bundle; None where there is none."""
    number = registry.states().champion
    return registry.load(number) if number else None


def check_data(job: Job, days: Days, labelled: DataFrame, champion: Version | None) -> tuple[list[guardrails.Check], dict[str, Any]]:
    """The checks on data, and what the new bundle keeps of its features for the next training's check of drift.

    One pass over the labelled clicks, and counts of other tables beside it.
    """
    conf = job.conf.guardrails
    job.say("guardrails: data")
    names = [column.name for column in job.conf.spec.columns]
    counted = guardrails.measure(labelled, features=names, late_minutes=conf.late_minutes)
    (hours, histogram, missing), others = together(
        lambda: guardrails.window_tables(counted, names), lambda: guardrails.read_others(job.lake, days.all, conf=job.conf)
    )
    taught = days.training or days.calibration  # a run that only calibrates compares its own days with those of the champion's training
    measured = guardrails.Measured(tuple(days.all), tuple(taught), hours, histogram, missing, others)
    reference = champion.bundle.metrics.get(guardrails.REFERENCE) if champion else None
    return guardrails.check_training_data(measured, bounds=conf, reference=reference), guardrails.reference_of(histogram, taught)


def check_judging(job: Job, days: Days, judgement: evaluation.Judgement, alike: guardrails.Alike | None) -> list[guardrails.Check]:
    """The checks on the model: by itself and beside the baselines, and beside the champion on the same judging clicks."""
    conf = job.conf.guardrails
    own = guardrails.check_model(
        judgement.metrics("judging"), lead=judgement.lead(), calibration=judgement.calibration, bounds=conf, days=days.judging
    )
    why = f"champion {judgement.champion}: {judgement.note}" if judgement.champion else "there is no champion to compare with"
    return own + guardrails.check_champion(alike, champion=judgement.champion, why=why, bounds=conf, days=days.judging)
