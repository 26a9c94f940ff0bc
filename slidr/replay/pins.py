"""What a plan pins, and the id that is a hash of it. Computed before the plan's rows are made, and again before they are published."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import reduce
from operator import xor
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.days import days_of
from slidr.errors import InputError
from slidr.features.spec import FeatureSpec
from slidr.hashing import row_hash
from slidr.lake import Lake
from slidr.replay.request import Request
from slidr.tables import CLICKS, Table
from slidr.version import Version

HOUR = 3_600_000_000  # microseconds
CLICK_MEANING = ("click_id", "click_time", "advertiser_id", "cost_micros", "currency", "upstream_filter", "session_id", "marketplace")
PUBLISHED_MEANING = ("click_id", "old_is_invalid", "old_model_version", "old_replay_id", "old_first_is_invalid")


def table_versions(lake: Lake, *tables: Table) -> dict[str, int]:
    """The newest commit of every table that a plan reads; -1 where a table does not exist."""
    return {table.name: lake.version(table) for table in tables}


def pin(*, request: Request, version: Version, conf: Config, versions: dict[str, int], seen: dict[str, Any]) -> dict[str, Any]:
    """Everything that decides what a plan says. `seen` is the result of `fingerprints`."""
    bundle = version.bundle
    return {
        "window": list(request.window),
        "filters": request.filters,
        "mode": request.mode,
        "allow_charges": request.allow_charges,
        "version": version.number,
        "bundle_sha256": bundle.sha256,
        "spec_id": bundle.spec.spec_id,
        "thresholds": dict(sorted(bundle.thresholds.items())),
        "default_threshold": bundle.default_threshold,
        **bounds(conf),
        "tables": versions,
        **seen,
    }


def bounds(conf: Config) -> dict[str, Any]:
    """The money above which a plan needs an approval, and a hash of the settings that decide what a plan says, beside the version: also
    zones, which features and billing months follow."""
    said = f"{conf.replay.model_dump_json()}:{conf.guardrails.late_minutes}:{sorted(conf.marketplaces.items())}"
    return {
        "guardrails": hashlib.sha256(said.encode()).hexdigest()[:12],
        "approval_above_micros": conf.replay.approval_above_micros,
    }


@dataclass(frozen=True)
class Seen:
    """What was found of the clicks of a request and of their published state.

    `pinned`: counts and hashes of both; `hours`: (hour since 1970, clicks); `specs`: (model version, its spec, clicks) of what slidr
    decided.
    """

    pinned: dict[str, Any]
    hours: list[tuple[int, int]]
    specs: list[tuple[str, str, int]]


def look(clicks: DataFrame, published: DataFrame) -> Seen:
    """Counts and hashes; a commit to other days does not show in them; a late click, a new decision and another replay of the same
    clicks do. `published` has the columns `old_…`; where it is the same frame as `clicks`, it is read once."""
    hour = F.floor(F.unix_micros("click_time") / F.lit(HOUR)).cast("bigint").alias("hour")
    # External decisions name no spec that slidr could compare.
    by_slidr = F.col("old_spec_id").isNotNull() & ~F.col("old_basis").isin("external", "upstream")
    decider = [F.when(by_slidr, F.col(f"old_{name}")).alias(name) for name in ("model_version", "spec_id")]
    decided = F.col("old_is_invalid").isNotNull()
    of_clicks = [F.count(F.lit(1)).alias("clicks"), F.bit_xor(row_hash(*map(F.col, CLICK_MEANING))).alias("clicks_hash")]
    of_state = [
        F.count_if(decided).alias("published"),
        F.bit_xor(F.when(decided, row_hash(*map(F.col, PUBLISHED_MEANING)))).alias("published_hash"),
    ]
    if clicks is published:
        first = second = clicks.groupBy(hour, *decider).agg(*of_clicks, *of_state).collect()  # hours x versions
    else:
        first = clicks.groupBy(hour).agg(*of_clicks).collect()
        second = published.groupBy(*decider).agg(*of_state).collect()
    pinned = {"clicks": _summed(first, "clicks"), "published": _summed(second, "published")}
    by_hour, by_spec = Counter[int](), Counter[tuple[str, str]]()
    for row in first:
        by_hour[row["hour"]] += row["clicks"]
    for row in second:
        if row["spec_id"]:
            by_spec[row["model_version"], row["spec_id"]] += row["published"]
    hours, specs = sorted(by_hour.items()), [(*key, count) for key, count in sorted(by_spec.items())]
    return Seen(pinned, hours, specs)


def counted(lake: Lake, window: tuple[datetime, datetime], keys: Sequence[str], commit: int | None = None) -> dict[str, Any]:
    """Count and hash of the clicks that counters with these key columns are computed from: all clicks of [start, end), whoever's."""
    start, end = window
    days = days_of(start, end)
    clicks = lake.read(CLICKS, days) if commit is None else lake.read_version(CLICKS, commit, days)
    inside = (F.col("click_time") >= F.lit(start)) & (F.col("click_time") < F.lit(end))
    told = row_hash(*map(F.col, ("click_id", "click_time", "arrival_time", *keys)))
    row = clicks.where(inside).agg(F.count(F.lit(1)).alias("clicks"), F.bit_xor(told).alias("hash")).collect()[0]
    return {"window": [edge.isoformat() for edge in window], "keys": list(keys), "count": row["clicks"], "hash": hex_of(row["hash"])}


def counted_from(request: Request, spec: FeatureSpec) -> tuple[tuple[datetime, datetime], list[str]]:
    """Window and key columns of the clicks that the spec's counters of the request are computed from."""
    start, end = (edge.astimezone(timezone.utc) for edge in (request.start, request.end))
    keys = {name for counter in spec.counters for name in (*spec.key_columns(counter.entity), counter.distinct) if name}
    return (start - timedelta(microseconds=spec.longest_window), end), sorted(keys)


def _summed(rows: Sequence[Row], name: str) -> dict[str, Any]:
    return {"count": sum(row[name] for row in rows), "hash": hex_of(reduce(xor, (row[f"{name}_hash"] or 0 for row in rows), 0))}


def chunks(window: tuple[datetime, datetime], hours: Sequence[tuple[int, int]], chunk_clicks: int) -> list[dict[str, Any]]:
    """Pieces of the window that begin and end at full hours (but for its own ends), with about `chunk_clicks` clicks each:
    start and end (ISO 8601), clicks."""
    edges, sums = [window[0]], [0]
    for hour, clicks in hours:
        if sums[-1] and sums[-1] + clicks > chunk_clicks:
            edges.append(datetime.fromtimestamp(hour * 3600, timezone.utc))
            sums.append(0)
        sums[-1] += clicks
    ends = [*edges[1:], window[1]]
    return [
        {"start": start.isoformat(), "end": end.isoformat(), "clicks": clicks} for start, end, clicks in zip(edges, ends, sums, strict=True)
    ]


def hex_of(number: int | None) -> str:
    return format((number or 0) & (2**64 - 1), "016x")


def refuse_other_spec(specs: Sequence[tuple[str, str, int]], *, request: Request, version: Version) -> None:
    """Raises InputError where slidr decided some of the clicks by another feature spec: its features say nothing to this version."""
    spec_id = version.bundle.spec.spec_id
    other = [(number, spec, clicks) for number, spec, clicks in specs if spec != spec_id]
    if other:
        named = ", ".join(f"{clicks} clicks by version {number} (spec {spec})" for number, spec, clicks in other)
        raise InputError(
            f"expected decisions by the feature spec {spec_id} of version {version.number}, found {named}; compute that version's own "
            f"features instead:\n  {request.command(version=version.number, mode='recompute')}"
        )
