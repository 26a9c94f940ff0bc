"""Planning a replay: what would change, in clicks and in money. Changes no published table; only `replays` learns of it.

The planned rows and, where computed, the features lie under the lake's `_plans/<plan_id>/`.
"""

import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import data_files
from slidr.config import Config
from slidr.data_files import Files
from slidr.deciding import scores
from slidr.errors import NothingToDoError, UsageError
from slidr.features import compare
from slidr.lake import Lake
from slidr.progress import Progress
from slidr.replay import features as replay_features
from slidr.replay import measure, outcomes, pins, rows
from slidr.replay.audit import Plan, Who, canonical, id_of, read, record, sound
from slidr.replay.request import REVERT, Request, apart, clicks_of, request_of
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, LABELS, Table, features_table
from slidr.version import STATES, Version

__all__ = ["Plan", "Request", "make_plan"]

MOST_NAMED = 200_000  # clicks that are sent to the tasks by their ids
PLANNABLE = tuple(state for state in STATES if state != "revoked")


def make_plan(
    lake: Lake,
    *,
    request: Request,
    version: Version,
    conf: Config,
    now: datetime,
    who: Who,
    override: str | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Plans and records a replay; the same request on the same lake gives the same id, and is recorded again only where its record
    was changed: the last one counts.

    Raises NothingToDoError for an empty window, InputError where features or days are missing, `measure.Stopped` unless `override`
    gives a reason, ModelRefusedError for a revoked version.
    """
    if request.mode == REVERT:
        raise UsageError("expected a mode that decides clicks, found revert; use `slidr replay revert REPLAY_ID`")
    version.require(PLANNABLE, "plan a replay")
    request.refuse_future(now)
    progress = progress or Progress()
    versions = pins.table_versions(lake, CLICKS, features_table(version.bundle.spec), LABELS, DECISIONS, CURRENT_DECISIONS, CORRECTIONS)
    with progress.step(lake.spark, "reading the clicks of the window and what is published of them"):
        seen = pins.look(*apart(lake, request, versions))
        seen = seen if request.mode == "rescore" else _with_counted(lake, seen, request, version, versions)
    pinned = _pin(seen, request=request, version=version, conf=conf, versions=versions)
    plan_id = id_of(canonical(pinned))
    known, times = sound(lake, plan_id), read(lake).counted(plan_id)["plan"]
    if known and rows.intact(lake, known):
        return known
    progress.tell(f"plan {plan_id}: {pinned['clicks']['count']:,} clicks")
    chunks = pins.chunks((request.start, request.end), seen.hours, conf.replay.chunk_clicks)
    made = _Making(lake, request, version, conf, versions, plan_id, progress)
    began = time.monotonic()
    made.write(seen, chunks, again=times > 0)
    if known and rows.intact(lake, known):  # the rows were lost or changed since; they follow from what is pinned
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
        plan = replace(plan, details={**plan.details, "features": made.differences(len(chunks), plan.counts["clicks"])})
    measure.require(plan, checks, override)
    record(lake, plan, lambda log: ("plan", plan.details) if log.counted(plan_id)["plan"] == times else None, who=who)
    return plan


def make_rows_again(lake: Lake, plan: Plan, version: Version, *, conf: Config, progress: Progress) -> None:
    """The rows of a replay's plan on record, as they were planned: they follow from what it pins."""
    made = _Making(lake, request_of(plan), version, conf, plan.pins["tables"], plan.plan_id, progress)
    made.write(pins.Seen({}, [], []), plan.details["chunks"], again=True)


def _with_counted(lake: Lake, seen: pins.Seen, request: Request, version: Version, versions: dict[str, int]) -> pins.Seen:
    """Pins also the clicks that counters are computed from: all of the look-back, whatever the filter."""
    found = pins.counted(lake, *pins.counted_from(request, version.bundle.spec), versions[CLICKS.name])
    return replace(seen, pinned={**seen.pinned, "counted": found})


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
    progress: Progress

    @property
    def table(self) -> Table:
        return features_table(self.version.bundle.spec)

    @property
    def own(self) -> Lake:
        """Where features lie that were computed for this plan."""
        return Lake(self.lake.spark, self.lake.plan_path(self.plan_id))

    def write(self, seen: pins.Seen, chunks: list[rows.Chunk], *, again: bool) -> None:
        self._ready_features(seen, again=again)
        rows.write(self.lake, self.plan_id, chunks, self._rows_of, again=again, progress=self.progress)

    def _ready_features(self, seen: pins.Seen, *, again: bool) -> None:
        """Checks that stored features are there, or computes them: counted once, read by each chunk."""
        spec = self.version.bundle.spec
        if self.request.mode == "rescore":
            pins.refuse_other_spec(seen.specs, request=self.request, version=self.version)
            replay_features.require(self.versions[self.table.name] >= 0, request=self.request, version=self.version)
        elif again or not replay_features.is_computed(self.own, spec):
            with self.progress.step(self.lake.spark, "computing the counters anew"):
                commit, zones = self.versions[CLICKS.name], self.conf.marketplaces
                replay_features.compute(self.lake, self.own, request=self.request, spec=spec, commit=commit, zones=zones)

    def _rows_of(self, chunk: rows.Chunk) -> DataFrame:
        """The planned rows of one chunk of the window."""
        part = replace(self.request, start=datetime.fromisoformat(chunk["start"]), end=datetime.fromisoformat(chunk["end"]))
        scoped = clicks_of(self.lake, part, self.versions)
        only = scoped.select("click_id").toArrow()["click_id"] if self._are_few(chunk) else None
        found = self._scores_of(part, scoped, only)
        charges, late = self.request.allow_charges, self.conf.guardrails.late_minutes
        return outcomes.planned(scoped, found, self.version, replay_id=self.plan_id, allow_charges=charges, late_minutes=late)

    def _scores_of(self, part: Request, scoped: DataFrame, only: pa.ChunkedArray | None) -> DataFrame:
        """Scores by the request's mode. `rescore`: clicks that a replay decided by counters of its own are scored by these."""
        window, bundle = (part.start, part.end), self.version.bundle
        found = scores.of_window(self.lake.spark, self._features_of(part), bundle, window, only)
        for replay_id in replay_features.counted_anew(self.lake, self.request, self.version):
            its = scoped.where(F.col("old_replay_id") == replay_id).select("click_id")
            files = data_files.of(Lake(self.lake.spark, self.lake.plan_path(replay_id)), self.table, part.days)
            anew = scores.of_window(self.lake.spark, files, bundle, window, only).join(its, on="click_id", how="left_semi")
            found = found.join(its, on="click_id", how="left_anti").unionByName(anew)
        return found

    def _are_few(self, chunk: rows.Chunk) -> bool:
        """Whether it pays to say which clicks are meant, rather than to score all that there are."""
        return self.request.filters != Request(self.request.start, self.request.end).filters and chunk["clicks"] <= MOST_NAMED

    def _features_of(self, part: Request) -> Files:
        """Files of features by the request's mode."""
        spec = self.version.bundle.spec
        if self.request.mode == "rescore":
            return replay_features.stored_files(self.lake, request=part, spec=spec, commit=self.versions[self.table.name])
        return data_files.of(self.own, self.table, part.days)

    def differences(self, chunks: int, clicks: int) -> list[dict[str, object]] | None:
        """How far recomputed features are from the stored ones, for the clicks of the plan, of many for a sample of them; None where there
        is nothing to compare."""
        commit, spec = self.versions[self.table.name], self.version.bundle.spec
        if self.request.mode == "rescore" or commit < 0:
            return None
        planned = rows.of_chunks(self.lake, self.plan_id, chunks).select("click_id")
        anew = replay_features.computed(self.own, request=self.request, spec=spec)
        stored = replay_features.stored(self.lake, request=self.request, spec=spec, commit=commit)
        planned, anew, stored = (compare.sampled(side, clicks) for side in (planned, anew, stored))
        return compare.differences(compare.side_by_side(anew.join(planned, on="click_id", how="left_semi"), stored, spec), spec)
