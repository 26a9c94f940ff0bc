"""Publishing a plan exactly as it was planned, once. Each step looks first whether it is done, so that running the whole again
completes what a kill left open.

Rows of `replay_decisions` count only for replays with an `applied` event in `replays`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.errors import ConflictError
from slidr.lake import Lake
from slidr.replay import outcomes
from slidr.replay.audit import Log, Plan, Who, claimed_actor, is_open, record, require_log
from slidr.replay.plan import planned_rows, refuse_changed_rows, request_of, what_moved
from slidr.tables import CORRECTIONS, CURRENT_DECISIONS, REPLAY_DECISIONS
from slidr.version import Version


@dataclass(frozen=True)
class Applied:
    """`publication_no` is None where nothing had to be corrected; `already` says that it was done before, and nothing was written."""

    plan_id: str
    publication_no: int | None
    counts: dict[str, int]
    money: dict[str, Any]
    already: bool


@dataclass(frozen=True)
class Work:
    """What the steps share. `seen` counts the events of the replay; `corrected` and `state_done` say what was found published
    at the start: the time of its corrections, and whether the published state has it.
    """

    lake: Lake
    plan: Plan
    who: Who
    now: datetime
    seen: Counter[str]
    corrected: datetime | None
    state_done: bool

    @property
    def rows(self) -> DataFrame:
        return planned_rows(self.lake, self.plan.plan_id)

    def planned(self, names: tuple[str, ...]) -> int:
        return sum(self.plan.counts[name] for name in names)


def apply_plan(
    lake: Lake,
    *,
    plan_id: str,
    version: Version,
    now: datetime,
    actor: str | None = None,
    reason: str | None = None,
    ticket: str | None = None,
    run_id: str | None = None,
) -> Applied:
    """Publishes a plan, or says that it was published before.

    Raises ModelRefusedError unless the version is stable, ConflictError where the plan is stale, was changed, or another
    replay of the window is half published. Once corrections are out, running it again only completes it.
    """
    log, plan = require_log(lake, plan_id)
    number, corrected = _publication(lake, plan_id)
    if log.events["applied"]:
        return Applied(plan_id, number, plan.counts, plan.money, already=True)
    refuse_changed_rows(lake, plan)
    state_done = not _own(lake.read(CURRENT_DECISIONS, request_of(plan).days), plan_id).isEmpty()
    who = Who(actor or claimed_actor(), run_id or f"replay-{plan_id}", reason, ticket)
    work = Work(lake, plan, who, now, log.events, corrected, state_done)
    if not (corrected or state_done):
        _refuse_version(plan, version)
        _refuse_stale(work, log)
    for step in STEPS:
        step(work)
    return Applied(plan_id, _publication(lake, plan_id)[0], plan.counts, plan.money, already=False)


def _own(table: DataFrame, plan_id: str) -> DataFrame:
    return table.where(F.col("replay_id") == plan_id)


def _publication(lake: Lake, plan_id: str) -> tuple[int | None, datetime | None]:
    """Number and time of this replay's publication; None and None where nothing is published."""
    time = F.unix_micros(F.max("published_time")).alias("time")
    row = _own(lake.read(CORRECTIONS), plan_id).agg(F.max("publication_no").alias("number"), time).collect()[0]
    return row["number"], None if row["time"] is None else outcomes.from_micros(row["time"])


def _refuse_version(plan: Plan, version: Version) -> None:
    version.require(("stable",), "publish corrections")
    found = (version.number, version.bundle.sha256)
    expected = (plan.pins["version"], plan.pins["bundle_sha256"])
    if found != expected:
        raise ConflictError(
            f"expected version {expected[0]} with bundle {expected[1]}, found version {found[0]} with bundle {found[1]}; plan again"
        )


def _refuse_stale(work: Work, log: Log) -> None:
    others = log.open_beside
    if others:
        raise ConflictError(
            f"expected no half-published replay of an overlapping window, found {', '.join(others)}; complete it first with "
            f"`slidr replay apply {others[0]}`, then plan this one again"
        )
    moved = what_moved(work.lake, work.plan)
    if moved:
        if is_open(work.seen):  # it was begun and has published nothing: give it up, so that it stands in nobody's way
            record(work.lake, work.plan, "fail", who=work.who, now=work.now, seen=work.seen)
        raise ConflictError(
            f"plan {work.plan.plan_id} is stale: moved since: {'; '.join(moved)}; nothing was published; plan again:\n"
            f"  {request_of(work.plan).command(version=work.plan.pins['version'])}"
        )


def _begin(work: Work) -> None:
    if not is_open(work.seen):
        record(work.lake, work.plan, "apply", who=work.who, now=work.now, seen=work.seen)


def _publish_decisions(work: Work) -> None:
    plan_id = work.plan.plan_id
    if _own(work.lake.read(REPLAY_DECISIONS, request_of(work.plan).days), plan_id).isEmpty():
        rows = outcomes.replay_decisions(work.rows, replay_id=plan_id, pins=work.plan.pins)
        work.lake.append(rows, REPLAY_DECISIONS, token=f"slidr-replay:{plan_id}:decisions")


def _publish_corrections(work: Work) -> None:
    if work.planned(outcomes.CORRECTED) and not work.corrected:
        plan_id, table = work.plan.plan_id, work.lake.read(CORRECTIONS)
        rows = outcomes.corrections(work.rows, table, replay_id=plan_id, pins=work.plan.pins, now=work.now)
        work.lake.append(rows, CORRECTIONS, token=f"slidr-replay:{plan_id}:corrections")


def _publish_state(work: Work) -> None:
    if work.planned(outcomes.PUBLISHED) and not work.state_done:
        plan, time = work.plan, work.corrected or work.now
        rows = outcomes.published_state(work.rows, replay_id=plan.plan_id, pins=plan.pins, run_id=work.who.run_id, now=time)
        work.lake.merge_rows(rows, CURRENT_DECISIONS, request_of(plan).days, update=outcomes.REPLACED)


def _reconcile(work: Work) -> None:
    """Raises ConflictError unless the corrections' clicks and money equal the plan's, by advertiser, currency and direction."""
    keys = ["advertiser_id", "currency", "direction"]
    sums = [F.count(F.lit(1)).alias("clicks"), F.coalesce(F.sum("delta_cost_micros"), F.lit(0)).alias("micros")]
    planned = work.rows.where(F.col("outcome").isin(*outcomes.CORRECTED)).groupBy(keys).agg(*sums)
    published = _own(work.lake.read(CORRECTIONS), work.plan.plan_id).groupBy(keys).agg(*sums)
    differing = planned.unionAll(published).groupBy(*keys, "clicks", "micros").count().where("count <> 2")
    found = differing.select("advertiser_id").distinct().orderBy("advertiser_id").limit(5).collect()
    if found:
        named = ", ".join(row[0] for row in found)
        raise ConflictError(
            f"expected the corrections of replay {work.plan.plan_id} to sum to its plan, found others for {named}; the corrections are "
            "published: do not bill from them, and report this with the plan"
        )


def _finish(work: Work) -> None:
    record(work.lake, work.plan, "applied", who=work.who, now=work.now, seen=work.seen)


# The order is part of the contract: the record, what was decided, the feed, the published state, the proof, the record.
STEPS: tuple[Callable[[Work], None], ...] = (_begin, _publish_decisions, _publish_corrections, _publish_state, _reconcile, _finish)
