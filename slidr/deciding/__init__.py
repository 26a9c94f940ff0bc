"""First decisions of a window, and what other versions say of it: names of files to the tasks, Parquet in, Parquet out, a commit a table.

Moving rows between the JVM and Python costs more than scoring them, so Spark gets no row to see: it hands out names, exchanges bytes, and
tries again what was lost. Files of tasks that were lost or ran twice are in no commit: nobody sees them, and vacuum takes them away.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from math import ceil
from typing import Any

from pyspark.sql import Row
from pyspark.sql.pandas.types import from_arrow_schema

from slidr import data_files, scoring
from slidr.buckets import numbered, one_for_each
from slidr.data_files import Files
from slidr.days import days_of, midnight
from slidr.deciding.tasks import CLICK, DECIDED, DONE, LOGGED, MOVED, PUBLISHED, SCORE, SHADOWED, Judge, Part, Read, Work, inside
from slidr.errors import InputError, NothingToDoError
from slidr.lake import Lake
from slidr.new_files import WRITTEN, Target, Written
from slidr.pyworker import light
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS, SHADOW_DECISIONS, features_table
from slidr.version import Version

ROWS_OF_A_PART = 500_000  # some 40 MiB in a file, some hundred MiB in a task


@dataclass(frozen=True)
class Decided:
    """What a run decided: basis -> [clicks, invalid ones among them]; and how many rows of `shadow_decisions` it wrote."""

    counts: dict[str, list[int]]
    shadows: int

    @property
    def new(self) -> int:
        return sum(clicks for clicks, _ in self.counts.values())


def decide(
    lake: Lake,
    version: Version,
    first: datetime,
    last: datetime,
    *,
    run_id: str,
    decided_time: datetime,
    shadows: Sequence[Version] = (),
    may_publish: Callable[[], None] = lambda: None,
) -> Decided:
    """Decides the clicks of [first, last) that have no decision, by one version, and publishes them: `decisions`, then
    `current_decisions`, each in one commit. A run that was cut off between them is completed by the next one; `may_publish` cuts it
    off there, and where anything is published, by what it raises.

    In the same pass the versions of `shadows` say what they would have decided of all clicks of the window, where they have not said it
    before: a commit of `shadow_decisions`.

    A click without features is decided by `no_features`. Raises NothingToDoError where the window has no clicks, InputError where none of
    its days has features of a version's spec, and ConflictError where another writer changed these days of a table meanwhile.
    """
    days, (clicks, features) = days_of(first, last), _found(lake, [version, *shadows], first, last)
    for table in (DECISIONS, CURRENT_DECISIONS, SHADOW_DECISIONS):
        lake.create(table)
    known = data_files.of(lake, DECISIONS, days)
    may_publish()
    if known.files:
        scoring.complete(lake, days)
    published = data_files.of(lake, CURRENT_DECISIONS, days)
    shadowed = data_files.of(lake, SHADOW_DECISIONS, days if shadows else ())
    judges = tuple(Judge(one.number, one.bundle) for one in (version, *shadows))
    sources = {CLICK: clicks, **features, DECIDED: known, PUBLISHED: published, SHADOWED: shadowed}
    work = _work(sources, judges, (first, last), {"run_id": run_id, "decided_time": decided_time})
    files, decided = _run(lake, work)

    def commit(before: Files) -> None:
        data_files.commit(lake, work.targets[before.table.name], before, days, files.get(before.table.name, []))

    commit(known)
    may_publish()
    commit(published)
    commit(shadowed)
    if decided.new and published.files:
        scoring.complete(lake, days)
    return decided


def _found(lake: Lake, versions: Sequence[Version], first: datetime, last: datetime) -> tuple[Files, dict[str, Files]]:
    """Clicks and, by kind, features of the days of the window."""
    clicks = data_files.of(lake, CLICKS, days_of(first, last))
    if not clicks.holds(inside((first, last))):
        raise NothingToDoError(f"expected clicks from {first.isoformat()} to {last.isoformat()}, found none; ingest them first")
    features: dict[str, Files] = {}
    for version in versions:
        features |= _features(lake, version, days_of(first, last))
    return clicks, features


def _features(lake: Lake, version: Version, days: Sequence[date]) -> dict[str, Files]:
    spec = version.bundle.spec
    table = features_table(spec)
    there = data_files.of(lake, table, days) if lake.exists(table) else None
    of_origin = {f"{origin} {spec.spec_id}": _of_origin(there, origin) for origin in (SCORE, LOGGED)} if there else {}
    if not any(files.files for files in of_origin.values()):
        raise InputError(
            f"expected features of spec {spec.spec_id} (of version {version.number}) from {days[0]} to {days[-1]}, found none; run "
            f"`slidr features --from {days[0]} --to {days[-1] + timedelta(days=1)}` with a configuration that has this spec"
        )
    return of_origin


def _work(sources: dict[str, Files], judges: tuple[Judge, ...], window: tuple[datetime, datetime], constants: dict[str, Any]) -> Work:
    parts = _parts(sources[CLICK], window)
    with_clicks = {part.day for part in parts}
    return Work(
        judges=judges,
        sources={kind: replace(files, files=()) for kind, files in sources.items()},
        reads=tuple(Read(kind, file) for kind, files in sources.items() for file in files.files if file.values[0] in with_clicks),
        parts=parts,
        targets={files.table.name: Target(files.uri, files.table) for files in (sources[DECIDED], sources[PUBLISHED], sources[SHADOWED])},
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
    shadows = sum(file.rows for file in files.get(SHADOW_DECISIONS.name, []))
    return files, Decided(_counted(rows), shadows)


def _counted(rows: Sequence[Row]) -> dict[str, list[int]]:
    counts: dict[str, list[int]] = {}
    for group in (group for row in rows for group in json.loads(row["counts"] or "[]")):
        sums = counts.setdefault(group["basis"], [0, 0])
        sums[0] += group["click_id_count"]
        sums[1] += group["click_id_count"] if group["is_invalid"] else 0
    return dict(sorted(counts.items()))
