"""The training snapshot: rows that Spark wrote once, so that every epoch can read them whole.

A snapshot is a folder of Parquet files and a `manifest.json`, written last: without it the snapshot does not exist.
Each file is one row group of float32 columns: the features, NaN for NULL, `label` (1 = non-human, 0 = human), `weight`.

Files go round in lanes: file i belongs to lane i modulo `lanes`. Every step of the training takes an equal share of its
clicks from each lane, whatever the number of workers that the lanes are dealt to, so that this number changes nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.bundle import preparation_for
from slidr.errors import ConfigError, InputError
from slidr.features.spec import FeatureSpec

FORMAT = 2
LABEL, WEIGHT = "label", "weight"
MOST_LANES = 8  # and so the most workers
MANIFEST, DATA = "manifest.json", "data"
BUCKET, ORDER = "bucket", "order"
# A file is one row group (up to Parquet's limit of a million rows), whatever the Spark configuration says.
WRITE_OPTIONS = {
    "compression": "snappy",
    "parquet.block.size": str(1 << 30),
    "maxRecordsPerFile": "0",
    "partitionOverwriteMode": "static",
}


@dataclass(frozen=True)
class SnapshotFile:
    """One Parquet file of a snapshot; `path` is relative to the snapshot's folder, sizes are in bytes."""

    path: str
    rows: int
    row_groups: tuple[int, ...]
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a snapshot holds, and what it was made from (`identity`)."""

    folder: str
    files: tuple[SnapshotFile, ...]
    rows: int
    human: int
    non_human: int
    lanes: int
    identity: dict[str, Any]

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self.identity["features"])

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.features, LABEL, WEIGHT)

    def lane(self, number: int) -> tuple[SnapshotFile, ...]:
        """The files of a lane."""
        return self.files[number :: self.lanes]

    def lane_rows(self, number: int) -> int:
        return sum(file.rows for file in self.lane(number))

    def share(self, batch_size: int) -> int:
        """Clicks that a step takes from each lane."""
        return max(batch_size // self.lanes, 1)

    def steps(self, batch_size: int) -> int:
        """Steps of an epoch: until the longest lane has ended."""
        return max(-(-self.lane_rows(lane) // self.share(batch_size)) for lane in range(self.lanes))

    @property
    def sha256(self) -> str:
        """Hash of what the files hold."""
        return sha256(json.dumps([file.sha256 for file in self.files]).encode()).hexdigest()


def write_snapshot(
    df: DataFrame,
    folder: str,
    *,
    features: Sequence[str],
    spec: FeatureSpec,
    seed: int,
    row_group_rows: int,
    table_versions: dict[str, Any],
) -> Manifest:
    """Writes clicks (click_id, features, label, weight) as a snapshot with about `row_group_rows` rows a file.

    Rows are shuffled by a hash of click_id and seed, so the bytes do not depend on the frame's partitioning. A NULL feature
    becomes NaN. `table_versions` names everything that decides which rows `df` has. A snapshot
    with the same arguments is used again if its files are whole. `df` is read twice: persist it where it is expensive.
    Raises InputError that lists all columns with values that training can't use.
    """
    _check_arguments(folder, features, spec, seed)
    identity: dict[str, Any] = {
        "format": FORMAT,
        "features": list(features),
        "spec_id": spec.spec_id,
        "seed": seed,
        "row_group_rows": row_group_rows,
        "table_versions": table_versions,
    }
    existing = _reusable(folder, identity)
    if existing:
        return existing
    # From here on the folder holds no snapshot, until the new manifest is written.
    (Path(folder) / MANIFEST).unlink(missing_ok=True)
    rows = _prepared(df, features, seed)
    count = _check_rows(rows, features, spec)
    lanes, files = arrangement(count, row_group_rows)
    _write_files(rows, Path(folder) / DATA, files=files)
    manifest = _measure(Path(folder), lanes, identity)
    if manifest.rows != count:
        raise InputError(
            f"expected {count} rows in the snapshot {folder}, found {manifest.rows}: put work.root on a disk that the driver and all "
            "executors see; where it is on one, the rows changed while they were written: train again"
        )
    _write_manifest(manifest)
    return manifest


def load_manifest(folder: str) -> Manifest:
    """The manifest of a snapshot, after a check of every file. Raises InputError that lists all files that do not fit."""
    manifest = _read_manifest(Path(folder))
    problems = [problem for file in manifest.files for problem in _file_problems(Path(folder), file)]
    if sum(file.rows for file in manifest.files) != manifest.rows or manifest.human + manifest.non_human != manifest.rows:
        problems.append(f"{manifest.rows} rows in all, but files or labels add up to another number")
    if problems:
        raise InputError(
            f"the snapshot {folder} does not match its manifest: " + "; ".join(problems) + "; delete the folder and train again"
        )
    return manifest


def _check_arguments(folder: str, features: Sequence[str], spec: FeatureSpec, seed: int) -> None:
    if "://" in folder or any(sign in folder for sign in "#?%"):
        raise ConfigError(f"expected a folder on a disk that all machines see, without # ? %, found {folder}; set work.root")
    expected = [column.name for column in spec.columns]
    if list(features) != expected:
        raise InputError(f"expected the features of the spec in order ({', '.join(expected)}), found {', '.join(features)}")
    if seed < 1:
        raise ConfigError(f"expected a seed of at least 1, found {seed}; set training.seed")


def _reusable(folder: str, identity: dict[str, Any]) -> Manifest | None:
    try:
        manifest = load_manifest(folder)
    except InputError:
        return None
    return manifest if manifest.identity == json.loads(json.dumps(identity)) else None


def arrangement(rows: int, row_group_rows: int) -> tuple[int, int]:
    """(lanes, files): equally many files in each lane, of about `row_group_rows` rows."""
    lanes = min(max(round(rows / row_group_rows), 1), MOST_LANES)
    return lanes, lanes * max(round(rows / row_group_rows / lanes), 1)


def _prepared(df: DataFrame, features: Sequence[str], seed: int) -> DataFrame:
    """click_id, the shuffling hash, and float columns: features, label, weight, NaN for NULL."""
    columns = [F.coalesce(F.col(name).cast("float"), F.lit(float("nan")).cast("float")).alias(name) for name in (*features, LABEL, WEIGHT)]
    return df.select("click_id", F.xxhash64(F.lit(seed), F.col("click_id")).alias(ORDER), *columns)


def _check_rows(rows: DataFrame, features: Sequence[str], spec: FeatureSpec) -> int:
    """Number of rows, all of them usable: NaN or finite features (log-scaled ones not negative), label 0 or 1, finite weight > 0."""
    infinite = F.lit(float("inf"))
    logged = zip(features, preparation_for(spec).log, strict=True)
    good = {name: F.isnan(name) | ((F.abs(name) < infinite) & (F.lit(not log) | (F.col(name) >= 0))) for name, log in logged}
    good[LABEL] = F.col(LABEL).isin(0.0, 1.0)
    good[WEIGHT] = (F.col(WEIGHT) > 0) & (F.col(WEIGHT) < infinite)
    bad = [F.count_if(~F.coalesce(fine, F.lit(False))).alias(name) for name, fine in good.items()]
    counts = rows.agg(F.count("*").alias("rows"), *bad).collect()[0].asDict()  # one row
    count = int(counts.pop("rows"))
    broken = [f"{name} ({number} rows)" for name, number in counts.items() if number]
    if broken or not count:
        raise InputError(
            "expected training rows with finite features, counters of at least 0, label 0 or 1 and weight above 0; "
            f"found {count} rows, unusable: {', '.join(broken) or 'all'}; build features and labels again"
        )
    return count


def _write_files(rows: DataFrame, path: Path, files: int) -> None:
    # One directory per bucket makes one file per bucket: Spark has no other way to fix which rows share a file.
    bucket = F.lpad(F.pmod(F.col(ORDER), F.lit(files)).cast("string"), 6, "0")
    shuffled = rows.withColumn(BUCKET, bucket).repartition(files, BUCKET).sortWithinPartitions(BUCKET, ORDER, "click_id")
    writer = shuffled.drop(ORDER, "click_id").write.partitionBy(BUCKET).mode("overwrite")
    for key, value in WRITE_OPTIONS.items():
        writer = writer.option(key, value)
    writer.parquet(f"file://{path.absolute()}")


def _measure(folder: Path, lanes: int, identity: dict[str, Any]) -> Manifest:
    paths = sorted((folder / DATA).glob(f"{BUCKET}=*/*.parquet"))
    expected = [(name, pa.float32()) for name in (*identity["features"], LABEL, WEIGHT)]
    files, non_human = [], 0
    for path in paths:
        parquet = pq.ParquetFile(path)
        if [(field.name, field.type) for field in parquet.schema_arrow] != expected:
            raise InputError(f"expected features, label and weight as float32 in {path}, found {parquet.schema_arrow}; train again")
        non_human += int(np.sum(parquet.read([LABEL])[LABEL].to_numpy(), dtype=np.float64))
        groups = tuple(parquet.metadata.row_group(number).num_rows for number in range(parquet.metadata.num_row_groups))
        data = path.read_bytes()  # about one row group
        files.append(SnapshotFile(str(path.relative_to(folder)), sum(groups), groups, len(data), sha256(data).hexdigest()))
    rows = sum(file.rows for file in files)
    return Manifest(str(folder), tuple(files), rows, human=rows - non_human, non_human=non_human, lanes=lanes, identity=identity)


def _read_manifest(folder: Path) -> Manifest:
    try:
        content = json.loads((folder / MANIFEST).read_text())
        files = tuple(SnapshotFile(**{**file, "row_groups": tuple(file["row_groups"])}) for file in content.pop("files"))
        return Manifest(folder=str(folder), files=files, **content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"expected a snapshot with a {MANIFEST} in {folder}, found none that can be read ({error}); train again"
        ) from error


def _write_manifest(manifest: Manifest) -> None:
    content = asdict(manifest)
    del content["folder"]  # a snapshot can be moved
    (Path(manifest.folder) / MANIFEST).write_text(json.dumps(content, indent=1, sort_keys=True))


def _file_problems(folder: Path, file: SnapshotFile) -> list[str]:
    path = folder / file.path
    if folder.resolve() not in path.resolve().parents:
        return [f"{file.path} is not inside the folder"]
    if not path.is_file():
        return [f"{file.path} is missing"]
    data = path.read_bytes()
    if len(data) != file.size or sha256(data).hexdigest() != file.sha256:
        return [f"{file.path}: expected {file.size} bytes with sha256 {file.sha256}, found {len(data)} others"]
    return [] if file.rows == sum(file.row_groups) else [f"{file.path}: {file.rows} rows, but row groups of {sum(file.row_groups)}"]
