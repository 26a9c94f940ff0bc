"""Publishing a plan exactly as it was planned, once. Each step looks first whether it is done, so that running the whole again
completes what a kill left open.

Rows of `replay_decisions` count only for replays with an `applied` event in `replays`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import rewriting
from slidr.errors import ConflictError, InputError, NotApprovedError
from slidr.lake import Lake
from slidr.progress import Progress
from slidr.replay import feed, lease, numbers, outcomes, pace, pins, rows, stack
from slidr.replay.audit import Decision, Log, Plan, Who, from_micros, read, record, require_log
from slidr.replay.moved import what_moved
from slidr.replay.request import command_of, request_of
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAY_DECISIONS
from slidr.version import Version

MOST_PUBLISHERS = 20  # that may take the next publication number before ours gets one


@dataclass(frozen=True)
class Applied:
    """`publication_no` is None where nothing had to be corrected; `already` says that it was done before, and nothing was written;
    `reverted_by` names the revert that has taken it back since."""

    plan_id: str
    publication_no: int | None
    counts: dict[str, int]
    money: dict[str, Any]
    already: bool
    reverted_by: str | None = None


@dataclass
class Work:
    """What the steps share. `corrected` is the time of this replay's corrections, where they are out already; `seen` the commits at
    which the plan was last found to hold."""

    lake: Lake
    plan: Plan
    version: Version | None
    who: Who
    now: datetime
    minutes: float
    override: str | None
    corrected: datetime | None
    remake: Callable[[Plan], None] | None
    progress: Progress
    began: float = field(default_factory=time.monotonic)
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> DataFrame:
        return rows.planned(self.lake, self.plan)

    def planned(self, names: tuple[str, ...]) -> int:
        return sum(self.plan.counts[name] for name in names)

    def note(self, choose: Callable[[Log], Decision]) -> None:
        """Records what `choose` decides on the log as it is by then."""
        record(self.lake, self.plan, choose, who=self.who)


def apply_plan(
    lake: Lake,
    *,
    plan_id: str,
    version: Version | None,
    now: datetime,
    who: Who,
    lease_minutes: float = 15,
    resume: bool = False,
    override: str | None = None,
    remake: Callable[[Plan], None] | None = None,
    progress: Progress | None = None,
) -> Applied:
    """Publishes a plan, or says that it was published before. `version` is the plan's; None for a revert, which scores nothing.
    `remake` writes the plan's rows again from what it pins: for a half-published replay whose rows were lost.

    Raises ModelRefusedError unless the version is stable, NotApprovedError where the plan needs an approval and has none,
    LockedError where somebody publishes an overlapping window, ConflictError where the plan is stale, was changed, or another
    replay of the window is half published. Once it has begun to publish, running it again only completes it. `resume`
    refuses a plan that was never begun.
    """
    log, plan = require_log(lake, plan_id)
    number, corrected = _publication(lake, log, plan)
    if log.counted(plan_id)["applied"]:
        by = stack.cancelled(log.applied()).get(plan_id)
        return Applied(plan_id, number, plan.counts, plan.money, already=True, reverted_by=by)
    if resume and not log.is_open(plan_id):
        raise InputError(f"expected a plan whose publication was begun, found {plan_id} that was not; `slidr replay apply {plan_id}`")
    if not log.no_way_back(plan_id):
        rows.refuse_changed(lake, plan)
    progress = progress or Progress()
    work = Work(lake, plan, version, who, now, lease_minutes, override, corrected, remake, progress, seen=plan.pins["tables"])
    try:
        for step in STEPS:
            with lease.kept(partial(_keep, work), minutes=work.minutes):
                step(work)
    except (KeyboardInterrupt, SystemExit):  # asked to stop: the next one need not wait for the lease to end
        work.note(lambda log: ("interrupt", {}) if lease.is_mine(log, plan) else None)
        raise
    return Applied(plan_id, _publication(lake, read(lake), plan)[0], plan.counts, plan.money, already=False)


def _publication(lake: Lake, log: Log, plan: Plan) -> tuple[int | None, datetime | None]:
    """Number and time of this replay's publication; None and None where nothing is published."""
    first = feed.since(log, plan)
    if first is None:
        return None, None
    time = F.unix_micros(F.max("published_time")).alias("time")
    row = feed.own(lake, plan, first).agg(F.max("publication_no").alias("number"), time).collect()[0]
    return row["number"], None if row["time"] is None else from_micros(row["time"])


def _refuse_version(plan: Plan, version: Version | None) -> None:
    """A revert scores nothing, so nothing is asked of the version that it takes back: it may be the faulty one."""
    if plan.reverts:
        return
    if version is None:
        raise InputError(f"expected version {plan.pins['version']} to apply plan {plan.plan_id}, found none")
    version.require(("stable",), "publish corrections")
    found = (version.number, version.bundle.sha256)
    expected = (plan.pins["version"], plan.pins["bundle_sha256"])
    if found != expected:
        raise ConflictError(
            f"expected version {expected[0]} with bundle {expected[1]}, found version {found[0]} with bundle {found[1]}; plan again"
        )


def _refuse_unapproved(work: Work, log: Log) -> None:
    if not numbers.needs_approval(work.plan) or log.is_approved(work.plan.plan_id) or (work.override and work.override.strip()):
        return
    author, plan_id, limit = log.authors(work.plan.plan_id)[-1], work.plan.plan_id, work.plan.pins["approval_above_micros"]
    raise NotApprovedError(
        f"expected an approval, since more than {limit} micro-units of a currency move, found none; somebody else than "
        f"{author} runs `slidr replay approve {plan_id} --ticket …`, or, where nobody can be reached, "
        'apply it with --override "reason"'
    )


def _refuse_stale(work: Work) -> None:
    """Looks at the clicks again only where their tables have commits that the plan, or an earlier look, has not seen."""
    versions = pins.table_versions(work.lake, CLICKS, DECISIONS, CURRENT_DECISIONS)
    unseen = versions != {name: work.seen[name] for name in versions}
    moved = what_moved(work.lake, work.plan, read(work.lake), look=unseen)
    work.seen = versions
    if moved:
        work.note(lambda log: ("fail", {"moved": moved}) if log.is_open(work.plan.plan_id) else None)
        raise ConflictError(
            f"plan {work.plan.plan_id} is stale: moved since: {'; '.join(moved)}; nothing was published; plan again:\n"
            f"  {command_of(work.plan)}"
        )


def _begin(work: Work) -> None:
    """Takes the lease of the window, and gives up replays that hold it no longer."""
    log = read(work.lake, work.plan.plan_id)
    if not log.no_way_back(work.plan.plan_id):
        _refuse_version(work.plan, work.version)
        _refuse_unapproved(work, log)
        lease.refuse_others(log, work.plan)
        _refuse_stale(work)
    for other in lease.refuse_others(read(work.lake, work.plan.plan_id), work.plan):
        _give_up(work, require_log(work.lake, other)[1])
    work.note(lambda log: _taken(log, work))
    if log.no_way_back(work.plan.plan_id):
        _mend_rows(work)


def _mend_rows(work: Work) -> None:
    """A replay that may have published something is completed from the rows that it began with, which follow from what it pins."""
    if rows.intact(work.lake, work.plan):
        return
    if work.remake:
        with work.progress.step(work.lake.spark, "the planned rows are lost or changed: making them again"):
            work.remake(work.plan)
    if not rows.intact(work.lake, work.plan):
        raise ConflictError(
            f"expected the {work.plan.details['rows']['count']} rows of the half-published plan {work.plan.plan_id}, found others, also "
            "when made again from what it pins; restore the table replays (its counts and money) or the tables' old files from a copy, "
            f"then `slidr replay resume {work.plan.plan_id}`"
        )


def _give_up(work: Work, other: Plan) -> None:
    """On record, if it still stands as it was seen: begun, nothing published, its lease ended."""
    record(work.lake, other, lambda log: _given_up(log, other), who=work.who)


def _given_up(log: Log, other: Plan) -> Decision:
    stands = log.is_open(other.plan_id) and not log.no_way_back(other.plan_id) and not lease.held(log, other.plan_id)
    return ("fail", {"lease": "ended"}) if stands else None


def _taken(log: Log, work: Work) -> Decision:
    begun = lease.refuse_others(log, work.plan)
    if begun:
        raise ConflictError(
            f"expected no other replay of an overlapping window, found that {', '.join(begun)} was just begun; run it again"
        )
    flagged = {"override": work.override, "needs_approval": numbers.needs_approval(work.plan)} if work.override else {}
    return "resume" if log.is_open(work.plan.plan_id) else "apply", {**lease.facts(work.minutes), **flagged}


def _publish_decisions(work: Work) -> None:
    """What was decided for every click, a chunk at a time; each is written once. A revert decides nothing itself."""
    if work.plan.reverts:
        return
    chunks, plan_id = work.plan.details["chunks"], work.plan.plan_id
    expected = pace.estimate(read(work.lake), work.plan).total_seconds()
    for number in work.progress.chunks(work.lake.spark, "recording decisions", [chunk["clicks"] for chunk in chunks], expected):
        decided = outcomes.replay_decisions(rows.chunk(work.lake, plan_id, number), work.plan.pins)
        token = f"slidr-replay:{plan_id}:decisions:{number}"
        _appended(partial(work.lake.append, decided, REPLAY_DECISIONS, token=token))
        if number + 1 < len(chunks):
            work.note(partial(_renewed, work=work, chunk=number))


def _keep(work: Work) -> None:
    """Signs of life while a step takes long; who has lost the lease learns it at the next event."""
    work.note(lambda log: ("renew", lease.facts(work.minutes)) if lease.is_mine(log, work.plan) else None)


def _renewed(log: Log, work: Work, chunk: int) -> Decision:
    if log.no_way_back(work.plan.plan_id):
        return None
    lease.require_mine(log, work.plan)
    return "renew", {**lease.facts(work.minutes), "chunk": chunk}


def _commit_to(work: Work) -> None:
    """From here on there is no way back. That the plan is not stale was seen while the lease was held; that it still is held decides
    the commit of this very event. Then looks again: first decisions that came before the event show now, later ones see the event.
    Whoever completes a run that was killed in between looks for it."""
    if not read(work.lake).no_way_back(work.plan.plan_id):
        _refuse_stale(work)
        _reconcile(work, outcomes.corrections(work.rows, feed.newest(work.lake), plan=work.plan, now=work.now))
        work.note(lambda log: _decided(log, work))
    if not read(work.lake).looked_again(work.plan.plan_id):
        _refuse_stale(work)
        work.note(lambda log: _looked(log, work))


def _decided(log: Log, work: Work) -> Decision:
    if log.no_way_back(work.plan.plan_id):
        return None
    lease.require_mine(log, work.plan)
    return "publish", {**lease.facts(work.minutes), "now": work.now.isoformat()}


def _looked(log: Log, work: Work) -> Decision:
    if log.looked_again(work.plan.plan_id):
        return None
    lease.require_mine(log, work.plan)
    return "renew", {**lease.facts(work.minutes), "looked": True}


def _publish_corrections(work: Work) -> None:
    if not work.planned(outcomes.CORRECTED) or work.corrected:
        return
    first = feed.since(read(work.lake), work.plan) or work.now
    made = outcomes.corrections(work.rows, feed.newest(work.lake), plan=work.plan, now=max(first, work.now))
    with work.progress.step(work.lake.spark, f"publishing {work.planned(outcomes.CORRECTED):,} corrections"):
        _appended(lambda: work.lake.append(made, CORRECTIONS, token=f"slidr-replay:{work.plan.plan_id}:corrections"))
    _reconcile(work, feed.own(work.lake, work.plan, first))


def _appended(append: Callable[[], None]) -> None:
    """Again where another commit came between: a publisher of another window took the next number, first decisions of the same days were
    published, or a killed run's own commit landed late, which the token then finds."""
    for _ in range(MOST_PUBLISHERS - 1):
        try:
            append()
        except ConflictError:
            continue
        return
    append()


def _publish_state(work: Work) -> None:
    if work.planned(outcomes.PUBLISHED):
        _appended(partial(_bring_up_to_date, work))


def _bring_up_to_date(work: Work) -> None:
    """Compares first: rows that are there already need no commit."""
    lake, plan = work.lake, work.plan
    days = request_of(plan).days
    wanted = outcomes.changing(work.rows)
    if outcomes.differing(wanted, lake.read(CURRENT_DECISIONS, days)).isEmpty():
        return
    firsts = lake.read(DECISIONS, days) if plan.reverts else None
    time = work.corrected or _publication(lake, read(lake), plan)[1] or work.now
    state = outcomes.published_state(wanted, firsts, run_id=work.who.run_id, now=time)
    many, delete = work.planned(outcomes.PUBLISHED), outcomes.is_gone() if plan.reverts else None
    with work.progress.step(lake.spark, f"bringing the published state of {many:,} clicks up to date"):
        rewriting.replace_rows(lake, state, CURRENT_DECISIONS, days, outcomes.REPLACED, rows=many, delete=delete)


def _reconcile(work: Work, corrections: DataFrame) -> None:
    """Raises ConflictError unless the corrections' clicks and money equal the plan's, by advertiser, currency and direction."""
    keys = ["advertiser_id", "currency", "direction"]
    sums = [F.count(F.lit(1)).alias("clicks"), F.coalesce(F.sum("delta_cost_micros"), F.lit(0)).alias("micros")]
    planned = outcomes.corrected(work.rows).groupBy(keys).agg(*sums)
    both = planned.unionAll(corrections.groupBy(keys).agg(*sums))
    found = both.groupBy(*keys, "clicks", "micros").count().where("count <> 2").orderBy("advertiser_id").limit(5).collect()
    if found:
        named = ", ".join(sorted({row["advertiser_id"] for row in found}))
        raise ConflictError(
            f"expected the corrections of replay {work.plan.plan_id} to sum to its plan, found others for {named}; do not bill from "
            "them if they are published, and report this with the plan"
        )


def _finish(work: Work) -> None:
    work.note(lambda log: _applied(log, work))


def _applied(log: Log, work: Work) -> Decision:
    if log.counted(work.plan.plan_id)["applied"]:
        return None
    seconds = round(time.monotonic() - work.began, 1)
    return "applied", {
        "order": len(log.applied()) + 1,
        "reverts": work.plan.reverts,
        "seconds": seconds,
        "planning": work.plan.details["seconds"],
        "clicks": work.plan.counts["clicks"],
    }


# The order is part of the contract: the lease, what was decided, the point of no return, the feed, the published state, the record.
STEPS: tuple[Callable[[Work], None], ...] = (_begin, _publish_decisions, _commit_to, _publish_corrections, _publish_state, _finish)
