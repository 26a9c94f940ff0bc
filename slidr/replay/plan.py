"""Planning a replay: what would change, in clicks and in money. Changes no published table; only `replays` learns of it.

The planned rows and, where computed, the features lie under the lake's `_plans/<plan_id>/`.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.errors import ConflictError, NothingToDoError
from slidr.features import compare
from slidr.guardrails import Check, check_replay, require
from slidr.lake import Lake
from slidr.replay import features as replay_features
from slidr.replay import numbers, outcomes, pins
from slidr.replay.audit import Plan, Who, claimed_actor, read, record
from slidr.replay.request import Request, clicks_of
from slidr.tables import CLICKS, features_table
from slidr.version import STATES, Version

__all__ = ["Plan", "Request", "make_plan"]

PLANNABLE = tuple(state for state in STATES if state != "revoked")
FeaturesFor = Callable[[DataFrame], DataFrame]


def make_plan(
    lake: Lake,
    *,
    request: Request,
    version: Version,
    conf: Config,
    now: datetime,
    features_for: FeaturesFor | None = None,
    override: str | None = None,
    actor: str | None = None,
    reason: str | None = None,
    ticket: str | None = None,
    run_id: str | None = None,
) -> Plan:
    """Plans and records a replay; the same request on the same lake gives the same id, and nothing is recorded twice.

    `features_for` takes the clicks and gives their features, instead of those of the request's mode. Raises
    NothingToDoError for an empty window, InputError where features or days are missing, GuardrailError unless `override`
    gives a reason, ModelRefusedError for a revoked version.
    """
    version.require(PLANNABLE, "plan a replay")
    request.refuse_future(now)
    versions = pins.table_versions(lake, version)
    scoped = clicks_of(lake, request, versions)
    pinned = _pin(scoped, request=request, version=version, conf=conf, versions=versions)
    plan_id = pins.plan_id(pins.canonical(pinned))
    known = read(lake, plan_id).plan
    if known and intact(lake, known):
        return known
    stored = _features(lake, scoped, plan_id, request=request, version=version, conf=conf, versions=versions, features_for=features_for)
    _write_rows(lake, scoped, stored, plan_id, request=request, version=version)
    if known:  # the rows were lost or changed since; they follow from what is pinned
        return known
    plan = _measure(lake, plan_id, pinned, request=request, version=version, conf=conf, override=override)
    who = Who(actor or claimed_actor(), run_id or f"replay-{plan_id}", reason, ticket)
    record(lake, plan, "plan", who=who, now=now, seen=Counter())
    return plan


def planned_rows(lake: Lake, plan_id: str) -> DataFrame:
    """The rows of a plan: outcomes.ROWS, one per click."""
    return lake.spark.read.schema(outcomes.SCHEMA).parquet(f"{lake.plan_path(plan_id)}/rows")


def intact(lake: Lake, plan: Plan) -> bool:
    """Whether the planned rows can be read and are those on record."""
    try:
        found = numbers.identity(numbers.cells(planned_rows(lake, plan.plan_id)))
    except (PySparkException, Py4JJavaError):
        return False
    return found == plan.details["rows"]


def what_moved(lake: Lake, plan: Plan) -> list[str]:
    """The differences between what a plan was made on and what the lake holds now; empty if it still holds."""
    found = pins.fingerprints(clicks_of(lake, request_of(plan)))
    names = {"clicks": "clicks of the window", "published": "published decisions of these clicks"}
    return [
        f"{text} ({plan.pins[name]['count']} then, {found[name]['count']} now)"
        for name, text in names.items()
        if found[name] != plan.pins[name]
    ]


def request_of(plan: Plan) -> Request:
    start, end = plan.window
    given = plan.pins["filters"]
    lists = {name: tuple(given[name]) for name in ("advertisers", "slices", "marketplaces")}
    allow = plan.pins["allow_charges"]
    return Request(start, end, mode=plan.pins["mode"], decided_by=given["decided_by"], allow_charges=allow, **lists)


def _pin(scoped: DataFrame, *, request: Request, version: Version, conf: Config, versions: dict[str, int]) -> dict[str, Any]:
    seen = pins.fingerprints(scoped)
    if not seen["clicks"]["count"]:
        raise NothingToDoError(
            f"expected clicks from {request.window[0]} to {request.window[1]} with the filter {request.filters}, found none; "
            "look at the window, the names in the filter, and whether the days were ingested"
        )
    return pins.pin(request=request, version=version, guardrails=conf.replay, versions=versions, seen=seen)


def _features(
    lake: Lake,
    scoped: DataFrame,
    plan_id: str,
    *,
    request: Request,
    version: Version,
    conf: Config,
    versions: dict[str, int],
    features_for: FeaturesFor | None,
) -> DataFrame:
    """Features by the request's mode, one row per click. Computed ones are kept beside the plan's rows: counted once, read twice."""
    spec = version.bundle.spec
    if features_for:
        return features_for(scoped)
    if request.mode == "rescore":
        pins.refuse_other_spec(scoped, request=request, version=version)
        commit = versions[features_table(spec).name]
        replay_features.require(commit >= 0, request=request, version=version)
        return replay_features.used(lake, request=request, spec=spec, commit=commit)
    path = f"{lake.plan_path(plan_id)}/features"
    built = replay_features.computed(lake, request=request, spec=spec, commit=versions[CLICKS.name], zones=conf.marketplaces)
    built.write.mode("overwrite").parquet(path)
    return lake.spark.read.schema(features_table(spec).schema).parquet(path)


def _write_rows(lake: Lake, scoped: DataFrame, stored: DataFrame, plan_id: str, *, request: Request, version: Version) -> None:
    if request.filters != Request(request.start, request.end).filters:
        stored = stored.join(scoped.select("click_id"), on="click_id", how="left_semi")
    rows = outcomes.planned(scoped, stored, version.bundle, allow_charges=request.allow_charges)
    rows.write.mode("overwrite").parquet(f"{lake.plan_path(plan_id)}/rows")


def _measure(
    lake: Lake, plan_id: str, pinned: dict[str, Any], *, request: Request, version: Version, conf: Config, override: str | None
) -> Plan:
    """The plan with its numbers. Raises GuardrailError."""
    rows = planned_rows(lake, plan_id)
    cells = numbers.cells(rows)
    counts = numbers.counts(cells)
    replay_features.require(counts["no_features"] + counts["upstream"] < counts["clicks"], request=request, version=version)
    money = numbers.money(cells, numbers.largest_advertisers(rows))
    hours = numbers.window_hours(rows, numbers.labels_of(lake, request))
    measured = numbers.for_guardrails(counts, money, hours, outcomes.CORRECTED)
    checks = check_replay(**measured, **conf.replay.model_dump())
    require(checks, override)
    details = {
        "rows": numbers.identity(cells),
        "checks": [_plain(check) for check in checks],
        "override": override,
        "window_hours": hours,
        "hours": numbers.hours_around(lake, request, rows),
        "features": _differences(lake, plan_id, pinned, request=request, version=version),
    }
    return Plan(plan_id=plan_id, pins=pinned, counts=counts, money=money, details=details, already=False)


def _differences(lake: Lake, plan_id: str, pinned: dict[str, Any], *, request: Request, version: Version) -> list[dict[str, object]] | None:
    """How far recomputed features are from the stored ones, for the clicks of the plan; None where there is nothing to compare."""
    spec = version.bundle.spec
    commit = pinned["tables"][features_table(spec).name]
    if request.mode == "rescore" or commit < 0:
        return None
    path = f"{lake.plan_path(plan_id)}/features"
    new = lake.spark.read.schema(features_table(spec).schema).parquet(path)
    planned = planned_rows(lake, plan_id).select(F.col("click_id"))
    stored = replay_features.used(lake, request=request, spec=spec, commit=commit)
    planned_anew = new.join(planned, on="click_id", how="left_semi")
    return compare.differences(compare.side_by_side(planned_anew, stored, spec), spec)


def _plain(check: Check) -> dict[str, Any]:
    """A check as JSON; a share of nothing is null."""
    found = asdict(check)
    observed = float(found["observed"])
    return {**found, "observed": None if math.isnan(observed) else observed, "passed": bool(found["passed"])}


def refuse_changed_rows(lake: Lake, plan: Plan) -> None:
    """Raises ConflictError unless id and rows are those on record."""
    if pins.plan_id(pins.canonical(plan.pins)) != plan.plan_id:
        raise ConflictError(
            f"expected plan {plan.plan_id} to be the hash of what it pins, found another; plan again, nothing was published"
        )
    if not intact(lake, plan):
        raise ConflictError(
            f"expected the {plan.details['rows']['count']} rows of plan {plan.plan_id} as they were planned, found them changed or lost; "
            "plan again, nothing was published"
        )
