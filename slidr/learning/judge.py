"""The judgement of what was learnt: scores, thresholds, the complete bundle, and its report."""

import math
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame

from slidr import evaluation, guardrails, judging, training_report
from slidr.bundle import Bundle
from slidr.curves import TOTAL
from slidr.learning.clicks import PARTS, Days
from slidr.learning.methods import METHOD, Lesson, keep, learn
from slidr.run import Job, folder
from slidr.thresholds import Calibration, Solution
from slidr.version import Version


@dataclass(frozen=True)
class Learnt:
    """What a training run made: the complete bundle, its judgement and the report's facts, and how the champion decides the same
    judging clicks (None without one, or where the lake lacks its features), with the seconds that this comparison took."""

    bundle: Bundle
    judgement: evaluation.Judgement
    facts: training_report.Facts
    alike: guardrails.Alike | None
    seconds: float


def make_bundle(
    job: Job,
    days: Days,
    labelled: DataFrame,
    identity: str,
    versions: dict[str, int],
    champion: Version | None,
    parent: Version | None = None,
) -> Learnt:
    """Weights, snapshot, methods, thresholds and judgement; nothing is registered yet. `versions`: table -> commit read. With a
    `parent` nothing is trained: its network gets new thresholds."""
    lesson = keep(job, parent, versions) if parent else learn(job, labelled, identity, versions)
    judgement, alike, seconds = judge(job, days, labelled, lesson.methods, champion)
    calibration = judgement.calibration
    metrics = bundle_metrics(judgement, lesson)
    if parent:
        metrics["parent"] = {"version": parent.number, "bundle_sha256": parent.bundle.sha256}
    bundle = replace(tuned_by(lesson.methods[METHOD], calibration.chosen), metrics=metrics)
    return Learnt(bundle, judgement, training_facts(job, days, judgement, lesson, bundle), alike, seconds)


def judge(
    job: Job, days: Days, labelled: DataFrame, methods: dict[str, Bundle], champion: Version | None
) -> tuple[evaluation.Judgement, guardrails.Alike | None, float]:
    """Scores the calibration and judging clicks once by all methods and the champion, chooses thresholds, and counts."""
    decides = champion.bundle if champion else None
    job.say("scoring the calibration and judging days")
    with judging.scored(labelled, methods, decides, lake=job.lake, days=days.judging, zones=job.conf.marketplaces) as (rows, why_not):
        histogram = judging.score_counts(rows)
        by_part, incomplete = judging.method_curves(rows, histogram)
        job.say("choosing thresholds")
        chosen_on = histogram[(histogram["part"] == "calibration") & (histogram["method"] == METHOD)]
        calibration = calibrate(job, chosen_on, judging.purchases_of_users(rows, METHOD))
        solved = {name: (METHOD, tuned_by(methods[METHOD], solution)) for name, solution in calibration.solutions.items()}
        money = judging.money(rows, solved)
        tuned = solved[calibration.method][1]
        deciding = {judging.NEW: (METHOD, tuned)}
        if decides and judging.CHAMPION in by_part["judging"]:
            deciding[judging.CHAMPION] = (judging.CHAMPION, decides)
        hours = judging.hour_counts(rows, deciding)
        alike, began = None, time.monotonic()
        if champion and judging.SCORE + judging.CHAMPION in rows.columns:
            decided = judging.decided_by_both(rows, deciding[judging.NEW], champion.bundle)
            alike = guardrails.decided_alike(decided, champion.number, min_clicks=job.conf.guardrails.min_advertiser_clicks)
        seconds = time.monotonic() - began
    number = champion.number if champion else None
    return evaluation.Judgement(METHOD, calibration, by_part, hours, money, number, why_not or incomplete), alike, seconds


def calibrate(job: Job, histogram: pd.DataFrame, purchases: pd.DataFrame) -> Calibration:
    """`histogram` and `purchases` of the calibration clicks: `judging.score_counts`, `judging.purchases_of_users`."""
    from slidr import calibration  # cvxpy is not in the base install

    conf = job.conf.calibration
    effect = calibration.design_effect(purchases, conf.fpr_budget)
    return calibration.calibrate(histogram, effect=effect, **conf.model_dump(exclude={"slices"}))


def tuned_by(bundle: Bundle, solution: Solution) -> Bundle:
    """The network with these thresholds."""
    return replace(bundle, thresholds=solution.thresholds, default_threshold=solution.default_threshold)


def write_report(
    job: Job, identity: str, judgement: evaluation.Judgement, facts: training_report.Facts, rows: list[dict[str, Any]]
) -> Path:
    """Pictures and report into the folder that the registry keeps with the version."""
    target = folder(job, "models", identity[:12])
    training_report.draw(judgement, target)
    return training_report.write(judgement, facts, target, rows)


def training_facts(job: Job, days: Days, judgement: evaluation.Judgement, lesson: Lesson, bundle: Bundle) -> training_report.Facts:
    rows = {part: sum(curve.clicks for curve in by_method[METHOD].values()) for part, by_method in judgement.curves.items()}
    calibration, parent = judgement.calibration, bundle.metrics.get("parent")
    taught = f"trained on {between(days.training)}" if not parent else f"with the weights of version {parent['version']} and new thresholds"
    methods = lesson.methods.items()
    return training_report.Facts(
        title=f"Model {taught}, judged on {between(days.judging)}",
        days={part: [str(day) for day in getattr(days, part)] for part in PARTS if getattr(days, part)},
        rows={"training": lesson.rows, **rows} if lesson.rows else rows,
        raking={
            "effective share of the clicks": lesson.weighing["weights_effective_share"],
            "largest weight": lesson.weighing["weights_largest"],
            "dimensions left out, or made coarser": ", ".join(lesson.weighing["weights_dropped"]) or "none",
        },
        losses={name: method.metrics["loss_by_epoch"] for name, method in methods if "loss_by_epoch" in method.metrics},
        table_versions=bundle.table_versions,
        libraries=bundle.libraries,
        settings={
            "configuration": job.conf.config_hash,
            "feature spec": job.conf.spec.spec_id,
            "seed": job.conf.training.seed,
            "epochs": job.conf.training.epochs,
            "calibration": f"{calibration.method}, FPR budget {calibration.fpr_budget:.2%}, confidence {calibration.confidence:.0%}",
        },
    )


def between(days: list[date]) -> str:
    """First and last day as text."""
    return f"{days[0]} to {days[-1]}"


def bundle_metrics(judgement: evaluation.Judgement, lesson: Lesson) -> dict[str, Any]:
    """Plain numbers by name, shares in [0, 1]; NaN becomes None, since JSON has none. Nothing of the champion: the same
    training gives the same bundle whoever decides at the time."""
    calibration = judgement.calibration
    total = evaluation.with_shares(judgement.metrics("judging").set_index("slice").loc[[TOTAL]]).iloc[0]
    names = ("ivr", "fpr", "fpr_low", "fpr_high", "high_rfm_fpr", "coverage", "clicks", "purchasing")
    numbers = {f"judging_{name}": float(total[name]) for name in names}
    for name, solution in calibration.solutions.items():
        shares = {"ivr": solution.ivr, "fpr": solution.fpr, "fpr_held_out": solution.held_out, "fpr_bound": solution.bound}
        numbers |= {f"calibration_{name}_{of}": value for of, value in shares.items()}
    compared = judgement.compared()
    methods = compared[compared["method"] != judging.CHAMPION]
    numbers |= {f"{row['method']}_ivr_at_budget": float(row["ivr"]) for row in methods.to_dict("records")}
    plain: dict[str, Any] = {name: None if math.isnan(value) else float(value) for name, value in numbers.items()}
    notes = {row.slice: row.outcome for row in calibration.slices}
    return plain | {
        **lesson.weighing,
        "calibration_method": calibration.method,
        "calibrations": {
            name: {"thresholds": solution.thresholds, "default_threshold": solution.default_threshold}
            for name, solution in calibration.solutions.items()
        },
        "calibration_outcomes": notes,
    }
