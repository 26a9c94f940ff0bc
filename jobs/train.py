"""labels, features -> model version: spark-submit jobs/train.py --conf FILE --as-of TIME"""

import hashlib
import json
import math
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

import slidr
from slidr import evaluation, guardrails, judging, plots, training_report, weights
from slidr import labels as labelling
from slidr.bundle import Bundle, Preparation, preparation_for
from slidr.curves import TOTAL, Calibration, Curve
from slidr.errors import NothingToDoError
from slidr.features.counters import prefer_logged
from slidr.features.spec import UNITS
from slidr.options import Override, parse_time
from slidr.run import Job, Outcome, folder
from slidr.slices import slice_name
from slidr.tables import CLICKS, LABELS, PURCHASES, features_table
from slidr.version import Version

AsOf = Annotated[str | None, typer.Option("--as-of", help="Trains on the days that have matured by this time; default: now.")]
LIBRARIES = ("numpy", "pyarrow", "pyspark", "torch", "petastorm", "cvxpy", "mlflow")
PARTS = ("training", "calibration", "judging")
METHOD = "mlp"  # the one that becomes the version; the others are baselines


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
    days = choose_days(job, now)
    labelled = labelled_clicks(job, days).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        identity = training_identity(job, days, labelled)
        known = registry.find(identity)
        if known:
            return Outcome({"version": known[0], "new": False}, said=f"Already trained: version {known[0]}.")
        failed = check_data(job, labelled, override)
        bundle, judgement, facts = make_bundle(job, days, labelled, identity, decides_now(registry))
        checks = check_judging(job, judgement.metrics("judging"))
        report = write_report(job, identity, judgement, facts, guardrail_rows(checks))  # before a guardrail stops the run
        failed += guardrails.require(checks, override)
    finally:
        labelled.unpersist()
    reason = f"trained on {days.training[0]} to {days.judging[-1]}" + (f"; override: {override}" if override else "")
    number = registry.register(
        bundle, identity=identity, pictures=folder(job, "models", identity[:12]), now=job.now, actor=job.actor, reason=reason
    )
    rows = training_report.summary(judgement)
    overridden = [f"{check.name}: observed {check.observed:.6g}, bound {check.bound:.6g}; {check.advice}" for check in failed]
    result = {
        "version": number,
        "new": True,
        "overridden": overridden,
        "bundle_metrics": bundle.metrics,
        "thresholds": bundle.thresholds,
        "comparison": rows,
        "verdict": training_report.verdict(judgement).sentence,
        "report": str(report),
    }
    next_step = f"Version {number} is a candidate; `slidr models promote {number} --reason …` makes it decide."
    return Outcome(result, training_report.shown(judgement), f"{result['verdict']}\nReport: {report}\n{next_step}")


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
    clicks = clicks.select("click_id", "click_time", "click_date", "user_id", "ip_key", "session_id", "device", "marketplace", "logged_in")
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


def check_data(job: Job, labelled: DataFrame, override: str | None) -> list[guardrails.Check]:
    """The guardrails on labels: a few hours without purchases would teach the model to invalidate these hours."""
    conf = job.conf.guardrails
    job.say("checking the labels of the training days")
    hours = guardrails.hour_density(labelled, per=conf.density_per).toPandas()
    checks = guardrails.check_training_data(
        hours, min_hour_clicks=conf.min_hour_clicks, min_human_density=conf.min_human_density, min_purchasing=conf.min_purchasing
    )
    return guardrails.require(checks, override)


def check_judging(job: Job, metrics: pd.DataFrame) -> list[guardrails.Check]:
    conf = job.conf.guardrails
    return guardrails.check_model(metrics, max_fpr=conf.max_judging_fpr, max_ivr=conf.max_judging_ivr, min_ivr=conf.min_judging_ivr)


def make_bundle(
    job: Job, days: Days, labelled: DataFrame, identity: str, champion: Version | None
) -> tuple[Bundle, evaluation.Judgement, training_report.Facts]:
    """Weights, snapshot, methods, thresholds and judgement; the bundle is complete, nothing is registered yet."""
    methods, raked, training_rows = learn(job, labelled, identity)
    judgement = judge(job, days, labelled, methods, champion)
    calibration = judgement.calibration
    plots.plot_curves(judgement.curves["calibration"][METHOD], calibration, folder(job, "models", identity[:12]) / "curves.png")
    bundle = replace(
        methods[METHOD],
        thresholds=dict(calibration.thresholds),
        default_threshold=calibration.default_threshold,
        table_versions=table_versions(job),
        metrics=bundle_metrics(judgement, raked),
    )
    losses = {name: method.metrics["loss_by_epoch"] for name, method in methods.items() if "loss_by_epoch" in method.metrics}
    return bundle, judgement, training_facts(job, days, judgement, raked, bundle, training_rows=training_rows, losses=losses)


def learn(job: Job, labelled: DataFrame, identity: str) -> tuple[dict[str, Bundle], weights.Raking, int]:
    """(all methods by name, that invalidate nothing yet; the weights; training clicks)."""
    raked = rake(job, labelled)
    manifest, preparation = snapshot(job, labelled, raked, identity)
    return {name: fit(job, manifest, preparation, hidden, name) for name, hidden in networks(job).items()}, raked, manifest.rows


def decides_now(registry: Any) -> Version | None:
    """The champion, which is compared with the new version on the new version's judging clicks."""
    number = registry.states().champion
    return registry.load(number) if number else None


def scored(
    job: Job, days: Days, labelled: DataFrame, methods: dict[str, Bundle], champion: Bundle | None = None
) -> AbstractContextManager[tuple[DataFrame, str]]:
    """`judging.scored` of the calibration and judging clicks, with the velocity rule beside the methods."""
    if "velocity" not in methods:
        labelled = labelled.withColumn("score_velocity", velocity(labelled.columns))
    return judging.scored(labelled, methods, champion, lake=job.lake, days=days.judging, zones=job.conf.marketplaces)


def judge(job: Job, days: Days, labelled: DataFrame, methods: dict[str, Bundle], champion: Version | None) -> evaluation.Judgement:
    """Scores the calibration and judging clicks once by all methods and the champion, chooses thresholds, and counts."""
    decides = champion.bundle if champion else None
    job.say("scoring the calibration and judging days")
    with scored(job, days, labelled, methods, decides) as (rows, why_not):
        by_part, incomplete = judging.method_curves(rows)
        job.say("choosing thresholds")
        calibration = calibrate(job, by_part["calibration"][METHOD])
        tuned = replace(methods[METHOD], thresholds=dict(calibration.thresholds), default_threshold=calibration.default_threshold)
        deciding = {judging.NEW: (METHOD, tuned)}
        if decides and judging.CHAMPION in by_part["judging"]:
            deciding[judging.CHAMPION] = (judging.CHAMPION, decides)
        hours = judging.hour_counts(rows, deciding)
    return evaluation.Judgement(METHOD, calibration, by_part, hours, champion.number if champion else None, why_not or incomplete)


def write_report(
    job: Job, identity: str, judgement: evaluation.Judgement, facts: training_report.Facts, rows: list[dict[str, Any]]
) -> Path:
    """Pictures and report into the folder that the registry keeps with the version."""
    target = folder(job, "models", identity[:12])
    training_report.draw(judgement, target)
    return training_report.write(judgement, facts, target, rows)


def guardrail_rows(checks: list[guardrails.Check]) -> list[dict[str, Any]]:
    verdicts = {True: "passed", False: "failed"}
    return [{"check": c.name, "observed": c.observed, "bound": c.bound, "verdict": verdicts[c.passed]} for c in checks]


def training_facts(
    job: Job,
    days: Days,
    judgement: evaluation.Judgement,
    raked: weights.Raking,
    bundle: Bundle,
    *,
    training_rows: int,
    losses: dict[str, list[float]],
) -> training_report.Facts:
    rows = {part: sum(curve.clicks for curve in by_method[METHOD].values()) for part, by_method in judgement.curves.items()}
    conf = job.conf.training
    return training_report.Facts(
        title=f"Model trained on {days.training[0]} to {days.training[-1]}, judged on {days.judging[0]} to {days.judging[-1]}",
        days={part: [str(day) for day in getattr(days, part)] for part in PARTS},
        rows={"training": training_rows, **rows},
        raking={
            "effective share of the clicks": raked.effective_share,
            "largest weight": raked.largest_weight,
            "dimensions left out, with one observed value": ", ".join(raked.dropped) or "none",
        },
        losses=losses,
        table_versions=bundle.table_versions,
        libraries=bundle.libraries,
        settings={
            "slidr": slidr.__version__,
            "configuration": job.conf.config_hash,
            "feature spec": job.conf.spec.spec_id,
            "seed": conf.seed,
            "epochs": conf.epochs,
            "calibration": f"{judgement.calibration.method}, FPR budget {judgement.calibration.fpr_budget:.2%}",
        },
    )


def rake(job: Job, labelled: DataFrame) -> weights.Raking:
    cells = weights.weight_cells(labelled.where("part = 'training'"), zones=job.conf.marketplaces).toPandas()
    return weights.rake(cells, **job.conf.weights.model_dump())


def networks(job: Job) -> dict[str, tuple[int, ...]]:
    """Method -> units of the intermediate layers; without any it is logistic regression."""
    return {"mlp": job.conf.training.hidden, "logistic": ()}


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


def fit(job: Job, manifest: Any, preparation: Preparation, hidden: tuple[int, ...], name: str) -> Bundle:
    """One network trained on the snapshot, as a bundle that invalidates nothing yet."""
    from slidr.models import Mlp, export_layers
    from slidr.training import data, loop

    conf = job.conf.training
    loop.seeded(conf.seed)
    model = Mlp(preparation, hidden)
    losses = loop.fit(
        model,
        lambda epoch: data.batches(manifest, batch_size=conf.batch_size, seed=conf.seed, epoch=epoch),
        epochs=conf.epochs,
        learning_rate=conf.learning_rate,
        l2=conf.l2,
        on_epoch=lambda epoch, loss: job.say(f"{name}: epoch {epoch + 1} of {conf.epochs}, loss {loss:.4f}, {manifest.rows:,} clicks"),
    )
    return replace(draft(job, preparation, export_layers(model)), metrics={"loss_by_epoch": losses})


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
        config=job.conf.model_dump(mode="json", exclude={"lake", "work", "registry", "spark"}),
        libraries={name: installed(name) for name in LIBRARIES},
        metrics={},
    )


def velocity(columns: list[str]) -> Column:
    """The velocity rule as a score: v / (1 + v) with v the clicks of the last hour of the user, else of the session."""
    clicks = F.coalesce(*[F.col(name) for name in ("user_clicks_1h", "session_clicks_1h") if name in columns], F.lit(0))
    return F.round(clicks / (clicks + 1.0), 6)


def calibrate(job: Job, calibration_curves: dict[str, Curve]) -> Calibration:
    from slidr import calibration  # cvxpy is not in the base install

    return calibration.calibrate(calibration_curves, **job.conf.calibration.model_dump(exclude={"slices"}))


def bundle_metrics(judgement: evaluation.Judgement, raked: weights.Raking) -> dict[str, Any]:
    """Plain numbers by name, shares in [0, 1]; NaN becomes None, since JSON has none. Nothing of the champion: the same
    training gives the same bundle whoever decides at the time."""
    calibration = judgement.calibration
    total = evaluation.with_shares(judgement.metrics("judging").set_index("slice").loc[[TOTAL]]).iloc[0]
    names = ("ivr", "fpr", "fpr_low", "fpr_high", "high_rfm_fpr", "coverage", "clicks", "purchasing")
    numbers = {f"judging_{name}": float(total[name]) for name in names}
    numbers |= {"calibration_ivr": calibration.ivr, "calibration_fpr": calibration.fpr, "calibration_global_ivr": calibration.global_ivr}
    numbers |= {"weights_effective_share": raked.effective_share, "weights_largest": raked.largest_weight}
    compared = judgement.compared()
    methods = compared[compared["method"] != judging.CHAMPION]
    numbers |= {f"{row['method']}_ivr_at_budget": float(row["ivr"]) for row in methods.to_dict("records")}
    plain: dict[str, Any] = {name: None if math.isnan(value) else float(value) for name, value in numbers.items()}
    notes = {row.slice: row.outcome for row in calibration.slices}
    return plain | {"calibration_method": calibration.method, "calibration_outcomes": notes, "weights_dropped": list(raked.dropped)}


def table_versions(job: Job) -> dict[str, int]:
    tables = (CLICKS, PURCHASES, LABELS, features_table(job.conf.spec))
    return {table.name: job.lake.version(table) for table in tables}


if __name__ == "__main__":
    from slidr.cli import main

    main(["train", *sys.argv[1:]])
