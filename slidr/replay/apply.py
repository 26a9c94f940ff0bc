"""Publishing a plan exactly as it was planned, once. Each step looks first whether it is done, so that running the whole again
completes what a kill left open.

Rows of `replay_decisions` count only for replays with an `applied` event in `replays`.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.errors import ConflictError, UsageError
from slidr.lake import Lake
from slidr.replay import outcomes
from slidr.replay.audit import Plan, Who, claimed_actor, events, is_open, open_replays, record, require_plan
from slidr.replay.plan import planned_rows, refuse_changed_rows, request_of, what_moved
from slidr.tables import CORRECTIONS, CURRENT_DECISIONS, REPLAY_DECISIONS
from slidr.version import Version

PLAN_ID = re.compile(r"[0-9a-f]{16}")


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
    """What the steps share."""

    lake: Lake
    plan: Plan
    rows: DataFrame
    who: Who
    now: datetime

    def own(self, table: DataFrame) -> DataFrame:
        return table.where(F.col("replay_id") == self.plan.plan_id)

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
    if not PLAN_ID.fullmatch(plan_id):
        raise UsageError(f"expected a plan id of 16 hex digits, found {plan_id!r}; `slidr replay list` shows them")
    plan = require_plan(lake, plan_id)
    who = Who(actor or claimed_actor(), run_id or f"replay-{plan_id}", reason, ticket)
    work = Work(lake, plan, planned_rows(lake, plan_id), who, now)
    seen = events(lake, plan_id)
    if seen["applied"]:
        return _applied(work, already=True)
    refuse_changed_rows(lake, plan)
    if not _published(work):
        _refuse_version(plan, version)
        _refuse_stale(work, seen)
    for step in STEPS:
        step(work)
    return _applied(work, already=False)


def _refuse_version(plan: Plan, version: Version) -> None:
    version.require(("stable",), "publish corrections")
    found = (version.number, version.bundle.sha256)
    expected = (plan.pins["version"], plan.pins["bundle_sha256"])
    if found != expected:
        raise ConflictError(
            f"expected version {expected[0]} with bundle {expected[1]}, found version {found[0]} with bundle {found[1]}; plan again"
        )


def _refuse_stale(work: Work, seen: Counter[str]) -> None:
    others = open_replays(work.lake, work.plan)
    if others:
        raise ConflictError(
            f"expected no half-published replay of an overlapping window, found {', '.join(others)}; complete it first with "
            f"`slidr replay apply {others[0]}`, then plan this one again"
        )
    moved = what_moved(work.lake, work.plan)
    if moved:
        if is_open(seen):  # it was begun and has published nothing: give it up, so that it stands in nobody's way
            record(work.lake, work.plan, "fail", who=work.who, now=work.now, seen=seen)
        raise ConflictError(
            f"plan {work.plan.plan_id} is stale: moved since: {'; '.join(moved)}; nothing was published; plan again:\n"
            f"  {request_of(work.plan).command(version=work.plan.pins['version'])}"
        )


def _published(work: Work) -> bool:
    """Whether readers can see something of this replay."""
    corrected = work.planned(outcomes.CORRECTED) and not work.own(work.lake.read(CORRECTIONS)).isEmpty()
    return bool(corrected) or _state_done(work)


def _state_done(work: Work) -> bool:
    return not work.own(work.lake.read(CURRENT_DECISIONS, request_of(work.plan).days)).isEmpty()


def _begin(work: Work) -> None:
    seen = events(work.lake, work.plan.plan_id)
    if not is_open(seen):
        record(work.lake, work.plan, "apply", who=work.who, now=work.now, seen=seen)


def _publish_decisions(work: Work) -> None:
    if work.own(work.lake.read(REPLAY_DECISIONS, request_of(work.plan).days)).isEmpty():
        rows = outcomes.replay_decisions(work.rows, replay_id=work.plan.plan_id, pins=work.plan.pins)
        work.lake.append(rows, REPLAY_DECISIONS, token=f"slidr-replay:{work.plan.plan_id}:decisions")


def _publish_corrections(work: Work) -> None:
    if work.planned(outcomes.CORRECTED) and work.own(work.lake.read(CORRECTIONS)).isEmpty():
        table = work.lake.read(CORRECTIONS)
        rows = outcomes.corrections(work.rows, table, replay_id=work.plan.plan_id, pins=work.plan.pins, now=work.now)
        work.lake.append(rows, CORRECTIONS, token=f"slidr-replay:{work.plan.plan_id}:corrections")


def _publish_state(work: Work) -> None:
    if not work.planned(outcomes.PUBLISHED) or _state_done(work):
        return
    time = _publication(work)["published_time"] or work.now
    pins, run_id = work.plan.pins, work.who.run_id
    rows = outcomes.published_state(work.rows, replay_id=work.plan.plan_id, pins=pins, run_id=run_id, now=time)
    days = [row[0] for row in rows.select("click_date").distinct().orderBy("click_date").collect()]  # days of the window
    work.lake.merge_rows(rows, CURRENT_DECISIONS, days, update=outcomes.REPLACED)


def _publication(work: Work) -> dict[str, Any]:
    """publication_no and published_time of this replay's corrections; None and None without any."""
    own = work.own(work.lake.read(CORRECTIONS)).agg(F.max("publication_no").alias("publication_no"), F.max("published_time").alias("time"))
    row = own.withColumn("time", F.unix_micros("time")).collect()[0]
    return {"publication_no": row["publication_no"], "published_time": row["time"] and outcomes.from_micros(row["time"])}


def _reconcile(work: Work) -> None:
    """Raises ConflictError unless the corrections' clicks and money equal the plan's, by advertiser, currency and direction."""
    keys = ["advertiser_id", "currency", "direction"]
    sums = [F.count(F.lit(1)).alias("clicks"), F.coalesce(F.sum("delta_cost_micros"), F.lit(0)).alias("micros")]
    planned = work.rows.where(F.col("outcome").isin(*outcomes.CORRECTED)).groupBy(keys).agg(*sums)
    published = work.own(work.lake.read(CORRECTIONS)).groupBy(keys).agg(*sums)
    differing = planned.unionAll(published).groupBy(*keys, "clicks", "micros").count().where("count <> 2")
    found = differing.select("advertiser_id").distinct().orderBy("advertiser_id").limit(5).collect()
    if found:
        named = ", ".join(row[0] for row in found)
        raise ConflictError(
            f"expected the corrections of replay {work.plan.plan_id} to sum to its plan, found others for {named}; the corrections are "
            "published: do not bill from them, and report this with the plan"
        )


def _finish(work: Work) -> None:
    record(work.lake, work.plan, "applied", who=work.who, now=work.now, seen=events(work.lake, work.plan.plan_id))


def _applied(work: Work, *, already: bool) -> Applied:
    number = _publication(work)["publication_no"]
    return Applied(work.plan.plan_id, number, work.plan.counts, work.plan.money, already)


# The order is part of the contract: the record, what was decided, the feed, the published state, the proof, the record.
STEPS: tuple[Callable[[Work], None], ...] = (_begin, _publish_decisions, _publish_corrections, _publish_state, _reconcile, _finish)
