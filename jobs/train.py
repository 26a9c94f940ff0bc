"""labels, features -> model version: spark-submit jobs/train.py --conf FILE --as-of TIME"""

import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from importlib.metadata import version as installed
from typing import Annotated, Any

import pandas as pd
import typer
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import evaluation, guardrails, plots, scoring, weights
from slidr import labels as labelling
from slidr.bundle import Bundle, Preparation, preparation_for
from slidr.curves import TOTAL, Calibration, Curve, curves
from slidr.errors import NothingToDoError
from slidr.features.counters import prefer_logged
from slidr.features.spec import UNITS
from slidr.options import Override, parse_time
from slidr.run import Job, Outcome, folder, together
from slidr.slices import slice_name
from slidr.tables import CLICKS, LABELS, PURCHASES, features_table
from slidr.version import Version

AsOf = Annotated[str | None, typer.Option("--as-of", help="Trains on the days that have matured by this time; default: now.")]
LIBRARIES = ("numpy", "pyarrow", "pyspark", "torch", "petastorm", "cvxpy", "mlflow")
PARTS = ("training", "calibration", "judging")
JUDGED = ("arrival_time", "advertiser_id", "cost_micros", "currency")  # what guardrails look at besides


@dataclass(frozen=True)
class Days:
    """The newest matured days, oldest first, apart by use."""

    training: list[date]
    calibration: list[date]
    judging: list[date]

    @property
    def all(self) -> list[date]:
        return [*self.training, *self.calibration, *self.judging]


def train(job: Job, as_of: AsOf = None, override: Override = None) -> Outcome:
    """Trains, calibrates and registers a candidate on the newest matured days; guardrails may stop it."""
    return train_as_of(job, parse_time(as_of, "--as-of") if as_of else job.now, override=override)


def train_as_of(job: Job, now: datetime, *, override: str | None = None) -> Outcome:
    """The same training twice is one version: the second finds it and does nothing."""
    from slidr.registry import Registry

    registry = Registry(job.conf.registry, job.lake)
    registry.init()
    started = time.monotonic()
    days = choose_days(job, now)
    labelled = labelled_clicks(job, days).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        identity = training_identity(job, days, labelled)
        known = registry.find(identity)
        if known:
            return Outcome({"version": known[0], "new": False}, said=f"Already trained: version {known[0]}.")
        champion = current_champion(registry)
        data_started = time.monotonic()
        checks, features = check_data(job, days, labelled, champion)
        guardrail_seconds = time.monotonic() - data_started
        guardrails.require(checks, override)
        with guardrails.beside(checks, "weights, training and calibration"):
            bundle, summary = make_bundle(job, days, labelled, identity)
        model_started = time.monotonic()
        found = {"metrics": summary["judging"], "methods": summary["curves"], "calibration": summary["calibration"]}
        checks += check_judging(job, days, labelled, bundle, champion, **found)
        guardrail_seconds += time.monotonic() - model_started
        failed = guardrails.require(checks, override)
    finally:
        labelled.unpersist()
    bundle = replace(bundle, metrics={**bundle.metrics, guardrails.REFERENCE: features})
    reason = f"trained on {days.training[0]} to {days.judging[-1]}" + (f"; override: {override}" if override else "")
    number = registry.register(
        bundle, identity=identity, pictures=folder(job, "models", identity[:12]), now=job.now, actor=job.actor, reason=reason
    )
    table = guardrails.rows(checks)
    shown = {
        "Judging days": summary["judging_rows"],
        "At one global threshold of the same FPR": summary["comparison"],
        "Guardrails": table,
    }
    overridden = [f"{check.name}: observed {check.observed:.6g}, bound {check.bound:.6g}; {check.advice}" for check in failed]
    result = {
        "version": number,
        "new": True,
        "overridden": overridden,
        "guardrails": table,
        "seconds": {"guardrails": round(guardrail_seconds, 1), "all": round(time.monotonic() - started, 1)},
        "bundle_metrics": {name: value for name, value in bundle.metrics.items() if name != guardrails.REFERENCE},
        "thresholds": bundle.thresholds,
    }
    return Outcome(result, shown, f"Version {number} is a candidate; `slidr models promote {number} --reason …` makes it decide.")


def choose_days(job: Job, now: datetime) -> Days:
    """The newest labelled days that have matured, warm-up days left out. Raises NothingToDoError where there are too few."""
    conf = job.conf.training
    wanted = conf.train_days + conf.calibration_days + conf.judging_days
    first = job.lake.read(CLICKS).agg(F.min("click_date")).collect()[0][0]
    labelled = [row[0] for row in job.lake.read(LABELS).select("click_date").distinct().collect()]  # one row a day
    warm_up = -(-job.conf.spec.longest_window // UNITS["d"])
    ready = sorted(day for day in labelling.matured(labelled, now=now, conf=job.conf.labels) if (day - first).days >= warm_up)
    if len(ready) < wanted:
        raise NothingToDoError(
            f"expected {wanted} labelled days that matured by {now.isoformat()} (after {warm_up} warm-up days), found {len(ready)}; "
            "label more days, or ask for fewer in `training`"
        )
    chosen = ready[-wanted:]
    judged = conf.train_days + conf.calibration_days
    return Days(chosen[: conf.train_days], chosen[conf.train_days : judged], chosen[judged:])


def labelled_clicks(job: Job, days: Days) -> DataFrame:
    """Clicks of the days with labels, features, slice and `part`; clicks that the upstream filter made free are left out.

    Days and users are apart: a click of a training day counts only if its user (or address, for guests) is one of the
    training share, and so on; no user is in two parts.
    """
    spec = job.conf.spec
    clicks = job.lake.read(CLICKS, days.all).where("upstream_filter is null")
    clicks = clicks.select(
        "click_id", "click_time", "click_date", "user_id", "ip_key", "session_id", "device", "marketplace", "logged_in", *JUDGED
    )
    labels = job.lake.read(LABELS, days.all).select("click_id", "is_human", "is_purchase", "label_reason", "in_heavy_session")
    names = [column.name for column in spec.columns if column.name != "logged_in"]
    features = prefer_logged(job.lake.read(features_table(spec), days.all)).select("click_id", *names)
    shares = job.conf.training.user_shares
    user = F.coalesce("user_id", "ip_key", "session_id")
    place = F.pmod(F.xxhash64(F.lit(job.conf.training.seed), user), F.lit(1_000_000)) / 1_000_000
    in_day = {part: F.col("click_date").isin(list(getattr(days, part))) for part in PARTS}
    part = (
        F.when(in_day["training"] & (place < shares[0]), "training")
        .when(in_day["calibration"] & (place >= shares[0]) & (place < shares[0] + shares[1]), "calibration")
        .when(in_day["judging"] & (place >= shares[0] + shares[1]), "judging")
    )
    joined = clicks.join(labels, on="click_id", how="inner").join(features, on="click_id", how="inner")
    return joined.withColumn("part", part).withColumn("slice", slice_name(job.conf.calibration.slices))


def training_identity(job: Job, days: Days, labelled: DataFrame) -> str:
    """Hash of what the model is made of: settings, days, and a fingerprint of the labelled clicks with their features."""
    row = labelled.select(F.xxhash64(*labelled.columns).alias("h")).agg(F.count("*"), F.sum(F.col("h").cast("decimal(38,0)"))).collect()[0]
    content = {"config": job.conf.config_hash, "days": asdict(days), "clicks": row[0], "fingerprint": str(row[1])}
    return hashlib.sha256(json.dumps(content, default=str, sort_keys=True).encode()).hexdigest()


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


def decided_by_both(job: Job, days: Days, judging: DataFrame, new: Bundle, old: Bundle) -> DataFrame:
    """One row per judging click: what the new model and the champion decide by the one scoring path; NULL without features."""
    kept = ("click_id", "device", "marketplace", "logged_in", "advertiser_id", "currency", "cost_micros")
    clicks = judging.select(*kept, F.lit(None).cast("string").alias("upstream_filter"))
    decision = F.when(F.col("basis") != "no_features", F.col("is_invalid"))
    stored = features_table(old.spec)
    features = judging if old.spec == new.spec else None
    if features is None and job.lake.exists(stored):
        features = prefer_logged(job.lake.read(stored, days.judging))
    by_new = scoring.score_clicks(clicks, judging, new).select("slice", *kept, decision.alias("new_invalid"))
    if features is None:
        return by_new.withColumn("old_invalid", F.lit(None).cast("boolean"))
    by_old = scoring.score_clicks(clicks, features, old).select("click_id", decision.alias("old_invalid"))
    return by_new.join(by_old, on="click_id", how="inner")


def make_bundle(job: Job, days: Days, labelled: DataFrame, identity: str) -> tuple[Bundle, dict[str, Any]]:
    """Weights, snapshot, network, thresholds and judgement; the bundle is complete, nothing is registered yet."""
    raked = rake(job, labelled)
    manifest, preparation = snapshot(job, labelled, raked, identity)
    untuned = fit_all(job, manifest, preparation)
    job.say("choosing thresholds")
    found = method_curves(labelled, untuned)
    chosen_on = found["calibration"]["mlp"]
    calibration = calibrate(job, chosen_on)
    plots.plot_curves(chosen_on, calibration, folder(job, "models", identity[:12]) / "curves.png")
    judged = found["judging"]
    metrics = evaluation.slice_metrics(judged["mlp"], calibration.thresholds, calibration.default_threshold)
    comparison = compare(judged, job.conf.calibration.fpr_budget)
    bundle = replace(
        untuned["mlp"],
        thresholds=dict(calibration.thresholds),
        default_threshold=calibration.default_threshold,
        table_versions=table_versions(job),
        metrics=bundle_metrics(metrics, calibration, raked, comparison),
    )
    rows = metrics[["slice", "threshold", "clicks", "ivr", "purchasing", "fpr", "coverage"]].to_dict("records")
    return bundle, {"judging": metrics, "judging_rows": rows, "comparison": comparison, "curves": judged, "calibration": calibration}


def rake(job: Job, labelled: DataFrame) -> weights.Raking:
    cells = weights.weight_cells(labelled.where("part = 'training'"), zones=job.conf.marketplaces).toPandas()
    return weights.rake(cells, **job.conf.weights.model_dump())


def snapshot(job: Job, labelled: DataFrame, raked: weights.Raking, identity: str) -> tuple[Any, Preparation]:
    """The training part as files for the loaders, and how its features are scaled; all networks learn from the same."""
    from slidr.training import data  # torch and petastorm take seconds to import and are not in the base install

    conf, spec = job.conf.training, job.conf.spec
    rows = weights.with_weights(labelled.where("part = 'training'"), raked, zones=job.conf.marketplaces)
    rows = rows.withColumn("label", (~F.col("is_human")).cast("double")).withColumn("logged_in", F.col("logged_in").cast("int"))
    manifest = data.write_snapshot(
        rows,
        str(folder(job, "snapshots", identity[:12])),
        features=[column.name for column in spec.columns],
        spec=spec,
        seed=conf.seed,
        row_group_rows=conf.row_group_rows,
        table_versions={"identity": identity},
    )
    return manifest, data.feature_statistics(manifest, preparation_for(spec))


def fit_all(job: Job, manifest: Any, preparation: Preparation) -> dict[str, Bundle]:
    """Every method trained on the snapshot, as a bundle that invalidates nothing yet."""
    from slidr.training.methods import METHODS, School

    place = folder(job, "training", manifest.sha256[:12])
    school = School(manifest, preparation, job.conf.training, job.conf.workers, job.spark, place, job.say)
    fitted = {name: method(school) for name, method in METHODS.items()}
    return {name: draft(job, learnt.preparation, learnt.layers) for name, learnt in fitted.items()}


def draft(job: Job, preparation: Preparation, layers: tuple[Any, ...]) -> Bundle:
    return Bundle(
        spec=job.conf.spec,
        features=tuple(column.name for column in job.conf.spec.columns),
        preparation=preparation,
        layers=layers,
        slices=tuple(job.conf.calibration.slices),
        thresholds={},
        default_threshold=1.0,
        labels=job.conf.labels.model_dump(mode="json"),
        table_versions={},
        config=job.conf.meaning,
        libraries={name: installed(name) for name in LIBRARIES},
        metrics={},
    )


def method_curves(labelled: DataFrame, methods: dict[str, Bundle]) -> dict[str, dict[str, dict[str, Curve]]]:
    """part -> method -> slice -> curve, of the calibration and judging clicks, in one pass; scored by the function that all
    scoring uses."""
    scored = labelled.where(F.col("part").isin("calibration", "judging"))
    for name, bundle in methods.items():
        scored = scoring.with_scores(scored, bundle, column=f"score_{name}")
    scores = {name: F.col(f"score_{name}") for name in methods}
    by_method = F.explode(F.array(*[F.struct(F.lit(name).alias("method"), score.alias("score")) for name, score in scores.items()]))
    signs = ("is_purchase", "label_reason", "in_heavy_session")
    rows = scored.select("part", "slice", *signs, by_method.alias("by")).select("part", "slice", *signs, "by.*")
    histogram = evaluation.score_histogram(rows, by=("part", "method")).toPandas()
    if histogram.empty:
        raise NothingToDoError("expected labelled clicks on the calibration and judging days, found none; label more days")
    return {
        part: {name: curves(histogram[(histogram["part"] == part) & (histogram["method"] == name)]) for name in scores}
        for part in ("calibration", "judging")
    }


def calibrate(job: Job, calibration_curves: dict[str, Curve]) -> Calibration:
    from slidr import calibration  # cvxpy is not in the base install

    return calibration.calibrate(calibration_curves, **job.conf.calibration.model_dump(exclude={"slices"}))


def compare(judged: dict[str, dict[str, Curve]], budget: float) -> list[dict[str, Any]]:
    """IVR, FPR and coverage of each method at one global threshold of the same FPR; empty where nobody purchased."""
    if not sum(curve.purchasing for curve in judged["mlp"].values()):
        return []
    table = evaluation.compare_at_budget(judged, budget)
    return table[["method", "threshold", "ivr", "fpr", "coverage"]].to_dict("records")


def bundle_metrics(
    metrics: pd.DataFrame, calibration: Calibration, raked: weights.Raking, comparison: list[dict[str, Any]]
) -> dict[str, Any]:
    """Plain numbers by name, shares in [0, 1]; NaN becomes None, since JSON has none."""
    total = metrics[metrics["slice"] == TOTAL].iloc[0]
    numbers = {f"judging_{name}": float(total[name]) for name in ("ivr", "fpr", "high_rfm_fpr", "coverage", "clicks", "purchasing")}
    numbers |= {"calibration_ivr": calibration.ivr, "calibration_fpr": calibration.fpr, "calibration_global_ivr": calibration.global_ivr}
    numbers |= {"weights_effective_share": raked.effective_share, "weights_largest": raked.largest_weight}
    numbers |= {f"{row['method']}_ivr_at_budget": float(row["ivr"]) for row in comparison}
    plain: dict[str, Any] = {name: None if pd.isna(value) else float(value) for name, value in numbers.items()}
    notes = {row.slice: row.outcome for row in calibration.slices}
    return plain | {
        "calibration_method": calibration.method,
        "calibration_outcomes": notes,
        "weights_dropped": list(raked.dropped + raked.pooled),
    }


def table_versions(job: Job) -> dict[str, int]:
    tables = (CLICKS, PURCHASES, LABELS, features_table(job.conf.spec))
    return {table.name: job.lake.version(table) for table in tables}


if __name__ == "__main__":
    from slidr.cli import main

    main(["train", *sys.argv[1:]])
