"""Which days a training run uses, and their clicks with labels and features."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from itertools import accumulate

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import labels as labelling
from slidr.build import code_version
from slidr.config import Config
from slidr.errors import NothingToDoError
from slidr.features.counters import prefer_logged
from slidr.features.spec import UNITS
from slidr.run import Job
from slidr.slices import slice_name
from slidr.tables import CLICKS, LABELS, Table, features_table
from slidr.thresholds import FOLDS
from slidr.version import Version

PARTS = ("training", "calibration", "judging")
JUDGED = ("arrival_time", "advertiser_id", "campaign_id", "cost_micros", "currency")  # what guardrails and slices look at besides


@dataclass(frozen=True)
class Days:
    """The newest matured days, oldest first, apart by use."""

    training: list[date]
    calibration: list[date]
    judging: list[date]

    @property
    def all(self) -> list[date]:
        return [*self.training, *self.calibration, *self.judging]


def choose_days(job: Job, now: datetime) -> Days:
    """The newest labelled days that have matured, warm-up days left out. Raises NothingToDoError where there are too few."""
    first = job.lake.read(CLICKS).agg(F.min("click_date")).collect()[0][0]
    labelled = [row[0] for row in job.lake.read(LABELS).select("click_date").distinct().collect()]  # one row a day
    return pick(labelled, first, now=now, conf=job.conf)


def pick(labelled: Sequence[date], first: date, *, now: datetime, conf: Config) -> Days:
    """The same of these days, in a lake whose first day is `first`."""
    wanted = conf.training.train_days + conf.training.calibration_days + conf.training.judging_days
    warm_up = -(-conf.spec.longest_window // UNITS["d"])
    ready = sorted(day for day in labelling.matured(labelled, now=now, conf=conf.labels) if (day - first).days >= warm_up)
    if len(ready) < wanted:
        raise NothingToDoError(
            f"expected {wanted} labelled days that matured by {now.isoformat()} (after {warm_up} warm-up days), found {len(ready)}; "
            "label more days, or ask for fewer in `training`"
        )
    chosen = ready[-wanted:]
    judged = conf.training.train_days + conf.training.calibration_days
    return Days(chosen[: conf.training.train_days], chosen[conf.training.train_days : judged], chosen[judged:])


def read_versions(job: Job) -> dict[str, int]:
    """The newest commit of each table that a training reads; it reads no later one, whatever is written meanwhile."""
    return {table.name: job.lake.version(table) for table in (CLICKS, LABELS, features_table(job.conf.spec))}


def labelled_clicks(job: Job, days: Days, versions: dict[str, int]) -> DataFrame:
    """Clicks of the days with labels, features, slice and `part`; clicks that the upstream filter made free are left out.

    Days and users are apart: a click of a training day counts only if its user (or address, for guests) is one of the
    training share, and so on; no user is in two parts, and users beyond the three shares are in none. A click without features
    (`has_features` false) is in no part: guardrails count it. `versions`: the commit of each table that is read. `user_key` is a
    hash of the user, `fold` (0 to FOLDS - 1) is chosen by it.
    """
    spec = job.conf.spec

    def read(table: Table) -> DataFrame:
        return job.lake.read_version(table, versions[table.name], days.all)

    clicks = read(CLICKS).where("upstream_filter is null")
    clicks = clicks.select(
        "click_id", "click_time", "click_date", "user_id", "ip_key", "session_id", "device", "marketplace", "logged_in", *JUDGED
    )
    labels = read(LABELS).select("click_id", "is_human", "is_purchase", "label_reason", "in_heavy_session")
    names = [column.name for column in spec.columns if column.name != "logged_in"]
    features = prefer_logged(read(features_table(spec))).select("click_id", *names, F.lit(True).alias("has_features"))
    first, second, end = accumulate(job.conf.training.user_shares)
    user = F.coalesce("user_id", "ip_key", "session_id")
    place = F.pmod(F.xxhash64(F.lit(job.conf.training.seed), user), F.lit(1_000_000)) / 1_000_000
    in_day = {part: F.col("click_date").isin(list(getattr(days, part))) for part in PARTS}
    part = (
        F.when(in_day["training"] & (place < first), "training")
        .when(in_day["calibration"] & (place >= first) & (place < second), "calibration")
        .when(in_day["judging"] & (place >= second) & (place < end), "judging")
    )
    joined = clicks.join(labels, on="click_id", how="inner").join(features, on="click_id", how="left")
    seed = job.conf.training.seed
    fold = F.pmod(F.xxhash64(F.lit(seed), F.lit("fold"), user), F.lit(FOLDS)).cast("int")
    joined = joined.withColumns(
        {"has_features": F.coalesce("has_features", F.lit(False)), "user_key": F.xxhash64(F.lit(seed), user), "fold": fold}
    )
    return joined.withColumn("part", F.when(F.col("has_features"), part)).withColumn("slice", slice_name(job.conf.slices))


def training_identity(job: Job, days: Days, labelled: DataFrame, parent: Version | None) -> str:
    """Hash of what the model is made of: code, settings, days, a fingerprint of the labelled clicks with their features, and the
    version whose network it keeps."""
    row = labelled.select(F.xxhash64(*labelled.columns).alias("h")).agg(F.count("*"), F.sum(F.col("h").cast("decimal(38,0)"))).collect()[0]
    content = {
        "code": code_version(),
        "config": job.conf.config_hash,
        "days": asdict(days),
        "clicks": row[0],
        "fingerprint": str(row[1]),
        "parent": parent.bundle.sha256 if parent else None,
    }
    return hashlib.sha256(json.dumps(content, default=str, sort_keys=True).encode()).hexdigest()
