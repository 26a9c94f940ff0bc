"""Planning the revert of a replay: its clicks fall back to what the other replays in effect and their first decisions say."""

import time
from dataclasses import replace
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.errors import InputError
from slidr.lake import Lake
from slidr.progress import Progress
from slidr.replay import measure, outcomes, pins, rows, stack
from slidr.replay.audit import Log, Plan, Who, canonical, id_of, read, record, require_log, sound
from slidr.replay.moved import decided_by_replay
from slidr.replay.request import REVERT, Request, request_of
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, LABELS, REPLAY_DECISIONS

SAME = ("window", "filters", "version", "bundle_sha256", "spec_id", "thresholds", "default_threshold")  # as the replay's plan has it


def make_revert(
    lake: Lake, *, replay_id: str, conf: Config, now: datetime, who: Who, override: str | None = None, progress: Progress | None = None
) -> Plan:
    """Plans and records the revert of an applied replay, or of a revert; it may credit and charge, under the guardrails of any plan.

    Raises InputError where the replay is not in effect, GuardrailError unless `override` gives a reason.
    """
    progress = progress or Progress()
    log, target = require_log(lake, replay_id)
    _refuse_not_in_effect(log, replay_id)
    origin = require_log(lake, stack.root(replay_id, log.applied()))[1]
    request = replace(request_of(origin), mode=REVERT, allow_charges=True)
    versions = pins.table_versions(lake, CLICKS, LABELS, REPLAY_DECISIONS, DECISIONS, CURRENT_DECISIONS, CORRECTIONS)
    order = log.in_effect_without(replay_id, target.window)
    with progress.step(lake.spark, "reading what is published of the replay's clicks"):
        seen = pins.look(*decided_by_replay(lake, origin.plan_id, request, versions))
    pinned = _pinned(origin, replay_id, order, conf, versions, seen.pinned)
    plan_id = id_of(canonical(pinned))
    known, times = sound(lake, plan_id), read(lake).counted(plan_id)["plan"]
    if known and rows.intact(lake, known):
        return known
    chunks = pins.chunks((request.start, request.end), seen.hours, conf.replay.chunk_clicks)
    began = time.monotonic()
    _write(lake, plan_id, pinned, chunks, conf, again=times > 0, progress=progress)
    if known and rows.intact(lake, known):
        return known
    extra = {"chunks": chunks, "seconds": round(time.monotonic() - began, 1)}
    with progress.step(lake.spark, "counting what would change"):
        made = rows.of_chunks(lake, plan_id, len(chunks))
        plan, checks = measure.measured(lake, pinned, made, request=request, conf=conf, now=now, override=override, extra=extra)
    measure.require(plan, checks, override)
    record(lake, plan, lambda log: ("plan", plan.details) if log.counted(plan_id)["plan"] == times else None, who=who)
    return plan


def _refuse_not_in_effect(log: Log, replay_id: str) -> None:
    applied = log.applied()
    if replay_id not in {one.replay_id for one in applied}:
        raise InputError(f"expected a replay that was applied, found {replay_id}, which publishes nothing; there is nothing to take back")
    by = stack.cancelled(applied).get(replay_id)
    if by:
        raise InputError(f"expected a replay in effect, found {replay_id}, which {by} has reverted; revert {by} to bring it back")


def _pinned(origin: Plan, replay_id: str, order: list[str], conf: Config, versions: dict[str, int], seen: dict[str, Any]) -> dict[str, Any]:
    """Everything that decides what the plan says."""
    return {
        **{name: origin.pins[name] for name in SAME},
        "mode": REVERT,
        "allow_charges": True,
        "reverts": replay_id,
        "clicks_of": origin.plan_id,
        "in_effect": order,
        **pins.bounds(conf),
        "tables": versions,
        **seen,
    }


def make_rows_again(lake: Lake, plan: Plan, *, conf: Config, progress: Progress) -> None:
    """The rows of a revert's plan on record, as they were planned: they follow from what it pins."""
    _write(lake, plan.plan_id, plan.pins, plan.details["chunks"], conf, again=True, progress=progress)


def _write(
    lake: Lake, plan_id: str, pinned: dict[str, Any], chunks: list[rows.Chunk], conf: Config, *, again: bool, progress: Progress
) -> None:
    late = conf.guardrails.late_minutes
    rows.write(lake, plan_id, chunks, lambda part: _rows_of(lake, pinned, part, late), again=again, progress=progress)


def _rows_of(lake: Lake, pinned: dict[str, Any], part: rows.Chunk, late: int) -> DataFrame:
    """The planned rows of one chunk of the window."""
    order, versions = pinned["in_effect"], pinned["tables"]
    narrow = Request(datetime.fromisoformat(part["start"]), datetime.fromisoformat(part["end"]))
    scoped, _ = decided_by_replay(lake, pinned["clicks_of"], narrow, versions)
    ids = scoped.select("click_id")
    firsts = lake.read_at(DECISIONS, narrow.days, versions).withColumn("replay_id", F.lit(None).cast("string"))
    decided = lake.read_at(REPLAY_DECISIONS, narrow.days, versions).where(F.col("replay_id").isin(order))
    decided = decided.withColumn("ivt_class", F.when(F.col("is_invalid"), "sivt"))
    first, later = (frame.join(ids, on="click_id", how="left_semi") for frame in (firsts, decided))
    return outcomes.reverted(scoped, stack.settled(first, later, order), late_minutes=late)
