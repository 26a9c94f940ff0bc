"""First decisions of a window: names of files to the tasks, Parquet in, Parquet out, and two commits.

Moving rows between the JVM and Python costs more than scoring them, so Spark gets no row to see: it hands out names, exchanges bytes, and
tries again what was lost. Files of tasks that were lost or ran twice are in no commit: nobody sees them, and vacuum takes them away.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from math import ceil
from typing import Any

from pyspark.sql import Row
from pyspark.sql.pandas.types import from_arrow_schema

from slidr import data_files, scoring
from slidr.buckets import numbered, one_for_each
from slidr.bundle import Bundle
from slidr.data_files import Files
from slidr.days import days_of, midnight
from slidr.deciding.tasks import CLICK, DECIDED, DONE, LOGGED, MOVED, PUBLISHED, SCORE, Part, Read, Work, inside
from slidr.errors import InputError, NothingToDoError
from slidr.lake import Lake
from slidr.new_files import WRITTEN, Target, Written
from slidr.pyworker import light
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS, features_table
from slidr.version import Version

ROWS_OF_A_PART = 500_000  # some 40 MiB in a file, some hundred MiB in a task


@dataclass(frozen=True)
class Decided:
    """What a run decided: basis -> [clicks, invalid ones among them]."""

    counts: dict[str, list[int]]

    @property
    def new(self) -> int:
        return sum(clicks for clicks, _ in self.counts.values())


def decide(lake: Lake, version: Version, first: datetime, last: datetime, *, run_id: str, decided_time: datetime) -> Decided:
    """Decides the clicks of [first, last) that have no decision, by one version, and publishes them: `decisions`, then
    `current_decisions`, each in one commit. A run that was cut off between them is completed by the next one.

    A click without features is decided by `no_features`. Raises NothingToDoError where the window has no clicks, InputError where none of
    its days has features of the version's spec, and ConflictError where another writer changed these days of either table meanwhile.
    """
    days, clicks, features = _found(lake, version, first, last)
    for table in (DECISIONS, CURRENT_DECISIONS):
        lake.create(table)
    known = data_files.of(lake, DECISIONS, days)
    if known.files:
        scoring.complete(lake, days)
    published = data_files.of(lake, CURRENT_DECISIONS, days)
    sources = {CLICK: clicks, SCORE: _of_origin(features, "then"), LOGGED: _of_origin(features, "logged")}
    constants = {"model_version": version.number, "spec_id": version.bundle.spec.spec_id, "run_id": run_id, "decided_time": decided_time}
    work = _work({**sources, DECIDED: known, PUBLISHED: published}, version.bundle, (first, last), constants)
    files, decided = _run(lake, work)
    for before in (known, published):
        data_files.commit(lake, work.targets[before.table.name], before, days, files.get(before.table.name, []))
    if decided.new and published.files:
        scoring.complete(lake, days)
    return decided


def _found(lake: Lake, version: Version, first: datetime, last: datetime) -> tuple[list[date], Files, Files]:
    """Days, clicks and features of the window."""
    days, spec = days_of(first, last), version.bundle.spec
    clicks = data_files.of(lake, CLICKS, days)
    if not clicks.holds(inside((first, last))):
        raise NothingToDoError(f"expected clicks from {first.isoformat()} to {last.isoformat()}, found none; ingest them first")
    table = features_table(spec)
    features = data_files.of(lake, table, days) if lake.exists(table) else None
    if features is None or not any(_of_origin(features, origin).files for origin in ("then", "logged")):
        raise InputError(
            f"expected features of spec {spec.spec_id} (of version {version.number}) from {days[0]} to {days[-1]}, "
            f"found none; run `slidr features --from {days[0]} --to {days[-1] + timedelta(days=1)}`"
        )
    return days, clicks, features


def _work(sources: dict[str, Files], bundle: Bundle, window: tuple[datetime, datetime], constants: dict[str, Any]) -> Work:
    parts = _parts(sources[CLICK], window)
    with_clicks = {part.day for part in parts}
    return Work(
        bundle=bundle,
        sources={kind: replace(files, files=()) for kind, files in sources.items()},
        reads=tuple(Read(kind, file) for kind, files in sources.items() for file in files.files if file.values[0] in with_clicks),
        parts=parts,
        targets={files.table.name: Target(files.uri, files.table) for files in (sources[DECIDED], sources[PUBLISHED])},
        window=window,
        constants=constants,
    )


def _of_origin(features: Files, origin: str) -> Files:
    return replace(features, files=tuple(file for file in features.files if file.values == (file.values[0], origin)))


def _parts(clicks: Files, window: tuple[datetime, datetime]) -> tuple[Part, ...]:
    """Shares of each day that has clicks, as many as the clicks of the window need."""
    rows: Counter[date] = Counter()
    for file in clicks.files:
        rows[file.values[0]] += file.rows or ROWS_OF_A_PART
    shares = [day for day, count in sorted(rows.items()) for _ in range(ceil(count * _covered(day, window) / ROWS_OF_A_PART))]
    return tuple(Part(day, bucket) for day, bucket in zip(shares, one_for_each(len(shares)), strict=True))


def _covered(day: date, window: tuple[datetime, datetime]) -> float:
    """Share of the day that the window covers."""
    start = midnight(day)
    end = start + timedelta(days=1)
    return (min(end, window[1]) - max(start, window[0])) / (end - start)


def _run(lake: Lake, work: Work) -> tuple[dict[str, list[Written]], Decided]:
    """The files that the tasks wrote, by table, and what they decided."""
    spark = lake.spark
    shared = spark.sparkContext.broadcast(work)  # kept by a process for all of its tasks, as the network in it
    moved = numbered(spark, len(work.reads)).mapInArrow(light(lambda batches: shared.value.read(batches)), from_arrow_schema(MOVED))
    parts = moved.repartition(len(work.parts), "bucket")
    rows = parts.mapInArrow(light(lambda batches: shared.value.decide(batches)), from_arrow_schema(DONE)).collect()
    shared.destroy()
    files: dict[str, list[Written]] = {}
    for row in rows:
        files.setdefault(row["table"], []).append(Written(*[row[name] for name in WRITTEN.names]))
    return files, _counted(rows)


def _counted(rows: Sequence[Row]) -> Decided:
    counts: dict[str, list[int]] = {}
    for group in (group for row in rows for group in json.loads(row["counts"] or "[]")):
        sums = counts.setdefault(group["basis"], [0, 0])
        sums[0] += group["click_id_count"]
        sums[1] += group["click_id_count"] if group["is_invalid"] else 0
    return Decided(dict(sorted(counts.items())))
