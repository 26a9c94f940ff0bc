"""The guardrails of a training run: of its data, of the new model, and of both beside the champion."""

from typing import Any

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import guardrails, scoring
from slidr.bundle import Bundle
from slidr.curves import Calibration, Curve
from slidr.features.counters import prefer_logged
from slidr.learning.clicks import Days
from slidr.run import Job, together
from slidr.tables import features_table
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
    (hours, histogram), others = together(
        lambda: guardrails.window_tables(counted, names), lambda: guardrails.read_others(job.lake, days.all, conf=job.conf)
    )
    measured = guardrails.Measured(tuple(days.all), tuple(days.training), hours, histogram, others)
    reference = champion.bundle.metrics.get(guardrails.REFERENCE) if champion else None
    return guardrails.check_training_data(measured, bounds=conf, reference=reference), guardrails.reference_of(histogram, days.training)


def check_judging(
    job: Job,
    days: Days,
    labelled: DataFrame,
    bundle: Bundle,
    champion: Version | None,
    *,
    metrics: pd.DataFrame,
    methods: dict[str, dict[str, Curve]],
    calibration: Calibration,
) -> list[guardrails.Check]:
    """The checks on the model: by itself and beside the baselines, and beside the champion on the same judging clicks.

    `metrics` of the judging days by slice; `methods`: method -> slice -> curve of the judging days.
    """
    conf = job.conf.guardrails
    job.say("guardrails: model")
    own = guardrails.check_model(metrics, methods=methods, calibration=calibration, bounds=conf, days=days.judging)
    alike, why = None, "there is no champion to compare with"
    if champion:
        decided = decided_by_both(job, days, labelled.where("part = 'judging'"), bundle, champion.bundle)
        alike = guardrails.decided_alike(decided, champion.number, min_clicks=conf.min_advertiser_clicks)
        why = f"the judging clicks have no features of spec {champion.bundle.spec.spec_id}, which champion {champion.number} reads"
    return own + guardrails.check_champion(alike, why=why, bounds=conf, days=days.judging)


def decided_by_both(job: Job, days: Days, judged: DataFrame, new: Bundle, old: Bundle) -> DataFrame:
    """One row per judging click: what the new model and the champion decide by the one scoring path; NULL without features."""
    kept = ("click_id", "device", "marketplace", "logged_in", "advertiser_id", "currency", "cost_micros")
    clicks = judged.select(*kept, F.lit(None).cast("string").alias("upstream_filter"))
    decision = F.when(F.col("basis") != "no_features", F.col("is_invalid"))
    stored = features_table(old.spec)
    features = judged if old.spec == new.spec else None
    if features is None and job.lake.exists(stored):
        features = prefer_logged(job.lake.read(stored, days.judging))
    by_new = scoring.score_clicks(clicks, judged, new).select("slice", *kept, decision.alias("new_invalid"))
    if features is None:
        return by_new.withColumn("old_invalid", F.lit(None).cast("boolean"))
    by_old = scoring.score_clicks(clicks, features, old).select("click_id", decision.alias("old_invalid"))
    return by_new.join(by_old, on="click_id", how="inner")
