"""Weights, snapshot, and every method trained on it, as bundles that invalidate nothing yet; or the network of a version that is there."""

import shutil
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import weights
from slidr.build import code_version
from slidr.bundle import Bundle, Preparation, preparation_for
from slidr.config import Config
from slidr.run import Job, folder
from slidr.version import Version

LIBRARIES = ("numpy", "pyarrow", "pyspark", "torch", "petastorm", "cvxpy", "mlflow")


METHOD = "mlp"  # the one that becomes the version; the others are baselines
WEIGHING = ("weights_effective_share", "weights_largest", "weights_dropped")


@dataclass(frozen=True)
class Lesson:
    """All methods by name, how the clicks that they learnt from were weighed (WEIGHING), and how many clicks that were."""

    methods: dict[str, Bundle]
    weighing: dict[str, Any]
    rows: int


def learn(job: Job, labelled: DataFrame, identity: str, versions: dict[str, int]) -> Lesson:
    """`versions`: table -> commit read."""
    raked = rake(job, labelled)
    manifest, preparation = snapshot(job, labelled, raked, identity, versions)
    weighed = (raked.effective_share, raked.largest_weight, [*raked.dropped, *raked.pooled])
    return Lesson(fit_all(job, manifest, preparation, versions), dict(zip(WEIGHING, weighed, strict=True)), manifest.rows)


def keep(job: Job, parent: Version, versions: dict[str, int]) -> Lesson:
    """The network of a version as it is, for new thresholds; no baseline beside it."""
    network = parent.bundle
    known = {name: network.metrics[name] for name in WEIGHING}
    return Lesson({METHOD: draft(job, network.preparation, network.layers, [], versions)}, known, 0)


def as_taught(conf: Config, parent: Version) -> Config:
    """The settings of a run that only calibrates: features, seed and shares of the users as the parent's training had them, so that no
    user who taught it judges it; and no training days."""
    taught = parent.bundle.config["training"]
    kept = {"seed": taught["seed"], "user_shares": tuple(taught["user_shares"]), "train_days": 0}
    return conf.model_copy(update={"features": parent.bundle.spec.to_dict(), "training": conf.training.model_copy(update=kept)})


def forget(job: Job, identity: str) -> None:
    """Deletes the snapshot and the progress of a training that is registered: as large as its clicks, and never read again."""
    shutil.rmtree(_snapshot_folder(job, identity), ignore_errors=True)


def _snapshot_folder(job: Job, identity: str) -> Path:
    return folder(job, "snapshots", identity[:12])


def rake(job: Job, labelled: DataFrame) -> weights.Raking:
    cells = weights.weight_cells(labelled.where("part = 'training'"), zones=job.conf.marketplaces).toPandas()
    return weights.rake(cells, **job.conf.weights.model_dump())


def snapshot(job: Job, labelled: DataFrame, raked: weights.Raking, identity: str, versions: dict[str, int]) -> tuple[Any, Preparation]:
    """The training part as files for the loaders, and how its features are scaled; all networks learn from the same."""
    from slidr.training import data  # torch and petastorm take seconds to import and are not in the base install

    conf, spec = job.conf.training, job.conf.spec
    rows = weights.with_weights(labelled.where("part = 'training'"), raked, zones=job.conf.marketplaces)
    rows = rows.withColumn("label", (~F.col("is_human")).cast("double")).withColumn("logged_in", F.col("logged_in").cast("int"))
    manifest = data.write_snapshot(
        rows,
        str(_snapshot_folder(job, identity)),
        features=[column.name for column in spec.columns],
        spec=spec,
        seed=conf.seed,
        row_group_rows=conf.row_group_rows,
        table_versions={**versions, "identity": identity},
    )
    return manifest, data.feature_statistics(manifest, preparation_for(spec))


def fit_all(job: Job, manifest: Any, preparation: Preparation, versions: dict[str, int]) -> dict[str, Bundle]:
    """Every method trained on the snapshot; the metric `loss_by_epoch` has the losses of those that have any."""
    from slidr.training.methods import METHODS, School

    place = Path(manifest.folder) / "progress"
    school = School(manifest, preparation, job.conf.training, job.conf.workers, job.spark, place, job.say)
    fitted = {name: method(school) for name, method in METHODS.items()}
    return {name: draft(job, learnt.preparation, learnt.layers, learnt.history, versions) for name, learnt in fitted.items()}


def draft(job: Job, preparation: Preparation, layers: tuple[Any, ...], losses: list[float], versions: dict[str, int]) -> Bundle:
    return Bundle(
        spec=job.conf.spec,
        features=tuple(column.name for column in job.conf.spec.columns),
        preparation=preparation,
        layers=layers,
        slices=job.conf.slices,
        thresholds={},
        default_threshold=1.0,
        labels=job.conf.labels.model_dump(mode="json"),
        table_versions=dict(versions),
        config=job.conf.meaning,
        libraries={"slidr": code_version(), **{name: installed(name) for name in LIBRARIES}},
        metrics={"loss_by_epoch": losses} if losses else {},
    )
