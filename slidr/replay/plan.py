"""Planning a replay: what would change, in clicks and in money. Changes no published table; only `replays` learns of it.

The planned rows and, where computed, the features lie under the lake's `_plans/<plan_id>/`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import guardrails
from slidr.config import Config
from slidr.errors import NothingToDoError, UsageError
from slidr.features import compare
from slidr.lake import Lake
from slidr.progress import Progress
from slidr.replay import features as replay_features
from slidr.replay import measure, outcomes, pins, rows
from slidr.replay.audit import Plan, Who, canonical, id_of, read, record
from slidr.replay.request import REVERT, Request, apart, clicks_of, in_window
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, Table, features_table
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
    who: Who,
    features_for: FeaturesFor | None = None,
    override: str | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Plans and records a replay; the same request on the same lake gives the same id, and nothing is recorded twice.

    `features_for` takes the clicks and gives their features, instead of those of the request's mode. Raises
    NothingToDoError for an empty window, InputError where features or days are missing, GuardrailError unless `override`
    gives a reason, ModelRefusedError for a revoked version.
    """
    if request.mode == REVERT:
        raise UsageError("expected a mode that decides clicks, found revert; use `slidr replay revert REPLAY_ID`")
    version.require(PLANNABLE, "plan a replay")
    request.refuse_future(now)
    progress = progress or Progress()
    versions = pins.table_versions(lake, CLICKS, features_table(version.bundle.spec), DECISIONS, CURRENT_DECISIONS, CORRECTIONS)
    with progress.step(lake.spark, "reading the clicks of the window and what is published of them"):
        seen = pins.look(*apart(lake, request, versions))
    pinned = _pin(seen, request=request, version=version, conf=conf, versions=versions)
    plan_id = id_of(canonical(pinned))
    known = read(lake, plan_id).plan
    if known and rows.intact(lake, known):
        return known
    progress.tell(f"plan {plan_id}: {pinned['clicks']['count']:,} clicks")
    chunks = pins.chunks((request.start, request.end), seen.hours, conf.replay.chunk_clicks)
    made = _Making(lake, request, version, conf, versions, plan_id, features_for, progress)
    began = time.monotonic()
    made.write(seen, chunks, again=bool(known))
    if known:  # the rows were lost or changed since; they follow from what is pinned
        return known
    seconds = round(time.monotonic() - began, 1)
    with progress.step(lake.spark, "counting what would change"):
        plan, checks = measure.measured(
            lake,
            pinned,
            rows.of_chunks(lake, plan_id, len(chunks)),
            request=request,
            conf=conf,
            now=now,
            override=override,
            extra={"chunks": chunks, "seconds": seconds},
        )
        lacking = plan.counts["no_features"] + plan.counts["upstream"] == plan.counts["clicks"]
        replay_features.require(not lacking, request=request, version=version)
        plan = replace(plan, details={**plan.details, "features": made.differences(len(chunks))})
    guardrails.require(checks, override)
    record(lake, plan, lambda log: None if log.plan else ("plan", plan.details), who=who)
    return plan


def _pin(seen: pins.Seen, *, request: Request, version: Version, conf: Config, versions: dict[str, int]) -> dict[str, Any]:
    if not seen.hours:
        raise NothingToDoError(
            f"expected clicks from {request.window[0]} to {request.window[1]} with the filter {request.filters}, found none; "
            "look at the window, the names in the filter, and whether the days were ingested"
        )
    return pins.pin(request=request, version=version, conf=conf, versions=versions, seen=seen.pinned)


@dataclass(frozen=True)
class _Making:
    """What the steps of making the rows share."""

    lake: Lake
    request: Request
    version: Version
    conf: Config
    versions: dict[str, int]
    plan_id: str
    features_for: FeaturesFor | None
    progress: Progress

    @property
    def table(self) -> Table:
        return features_table(self.version.bundle.spec)

    @property
    def features_path(self) -> str:
        return f"{self.lake.plan_path(self.plan_id)}/features"

    def write(self, seen: pins.Seen, chunks: list[rows.Chunk], *, again: bool) -> None:
        if self.features_for is None:
            self._ready_features(seen, again=again)
        rows.write(self.lake, self.plan_id, chunks, self._rows_of, again=again, progress=self.progress)

    def _ready_features(self, seen: pins.Seen, *, again: bool) -> None:
        """Checks that stored features are there, or computes them: counted once, read by each chunk."""
        if self.request.mode == "rescore":
            pins.refuse_other_spec(seen.specs, request=self.request, version=self.version)
            replay_features.require(self.versions[self.table.name] >= 0, request=self.request, version=self.version)
        elif again or not self.lake.is_written(self.features_path):
            built = replay_features.computed(
                self.lake,
                request=self.request,
                spec=self.version.bundle.spec,
                commit=self.versions[CLICKS.name],
                zones=self.conf.marketplaces,
            )
            with self.progress.step(self.lake.spark, "computing the counters anew"):
                built.write.partitionBy("click_date").mode("overwrite").parquet(self.features_path)

    def _rows_of(self, chunk: rows.Chunk) -> DataFrame:
        """The planned rows of one chunk of the window."""
        part = replace(self.request, start=datetime.fromisoformat(chunk["start"]), end=datetime.fromisoformat(chunk["end"]))
        scoped = clicks_of(self.lake, part, self.versions)
        stored = self._features_of(scoped, part)
        if part.filters != Request(part.start, part.end).filters:
            stored = stored.join(scoped.select("click_id"), on="click_id", how="left_semi")
        charges, late = self.request.allow_charges, self.conf.guardrails.late_minutes
        return outcomes.planned(scoped, stored, self.version, replay_id=self.plan_id, allow_charges=charges, late_minutes=late)

    def _features_of(self, scoped: DataFrame, part: Request) -> DataFrame:
        """Features by the request's mode, one row per click."""
        if self.features_for:
            return self.features_for(scoped)
        if self.request.mode == "rescore":
            return self._stored(part)
        return self._computed(part)

    def _stored(self, part: Request) -> DataFrame:
        return replay_features.used(self.lake, request=part, spec=self.version.bundle.spec, commit=self.versions[self.table.name])

    def _computed(self, part: Request) -> DataFrame:
        built = self.lake.spark.read.schema(self.table.schema).parquet(self.features_path)
        return built.where(F.col("click_date").isin(part.days) & in_window(F.col("click_time"), part))

    def differences(self, chunks: int) -> list[dict[str, object]] | None:
        """How far recomputed features are from the stored ones, for the clicks of the plan; None where there is nothing to compare."""
        if self.request.mode == "rescore" or self.features_for or self.versions[self.table.name] < 0:
            return None
        planned = rows.of_chunks(self.lake, self.plan_id, chunks).select("click_id")
        anew = self._computed(self.request).join(planned, on="click_id", how="left_semi")
        spec = self.version.bundle.spec
        return compare.differences(compare.side_by_side(anew, self._stored(self.request), spec), spec)
