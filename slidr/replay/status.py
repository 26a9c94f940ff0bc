"""What is on record about replays, for people: their list, the state of one, what it waits for."""

from typing import Any

from slidr.direct import Place
from slidr.lake import Lake
from slidr.replay import lease, numbers, pace, stack
from slidr.replay.audit import Log, Plan, read, require_log

NEWEST = 200


def state_of(log: Log, replay_id: str) -> str:
    """planned, approved, working, interrupted, half published, given up, applied, or reverted."""
    seen = log.counted(replay_id)
    if seen["applied"]:
        by = stack.cancelled(log.applied()).get(replay_id)
        return f"reverted by {by}" if by else "applied"
    if lease.held(log, replay_id):
        return "working"
    if log.is_open(replay_id):
        return "half published" if log.no_way_back(replay_id) else "interrupted"
    if seen["fail"]:
        return "given up"
    return "approved" if log.is_approved(replay_id) else "planned"


def listed(lake: Lake | Place) -> list[dict[str, Any]]:
    """One row per replay, the newest first."""
    log = read(lake)
    newest = {event.replay_id: event for event in log.events if event.name == "plan"}
    rows = [
        {
            "replay_id": event.replay_id,
            "state": state_of(log, event.replay_id),
            "window_from": event.window[0],
            "window_to": event.window[1],
            "mode": event.mode,
            "model_version": event.version,
            "planned": event.time,
            "by": event.actor,
        }
        for event in log.events
        if newest.get(event.replay_id) is event
    ]
    return rows[::-1][:NEWEST]


def status(lake: Lake | Place, replay_id: str) -> dict[str, Any]:
    """State, holder of the lease, how much is recorded, how fast, how long it will still take, and what to do next."""
    log, plan = require_log(lake, replay_id)
    working = lease.held(log, replay_id)
    state = state_of(log, replay_id)
    return {
        "replay_id": replay_id,
        "state": state,
        "by": working.actor if working else None,
        "holder": working.facts["holder"] if working else None,
        "since": working.time if working else None,
        "until": working.facts["until"] if working else None,
        "recorded": _recorded(log, plan),
        **(pace.of_work(log, plan) if working else {"clicks_per_second": None, "seconds_left": None}),
        "next": _next(plan, state),
    }


def events(log: Log, replay_id: str) -> list[dict[str, Any]]:
    """The events of one replay, oldest first."""
    return [
        {
            "when": event.time,
            "event": event.name,
            "who": event.actor,
            "why": event.facts.get("override") or event.reason,
            "ticket": event.ticket,
        }
        for event in log.of(replay_id)
    ]


def _recorded(log: Log, plan: Plan) -> str | None:
    """How much of what was decided is recorded; None for a revert, which records nothing."""
    if plan.reverts:
        return None
    clicks = [chunk["clicks"] for chunk in plan.details["chunks"]]
    return f"{sum(clicks[number] for number in pace.recorded(log, plan)):,} of {plan.counts['clicks']:,} clicks"


def _next(plan: Plan, state: str) -> str:
    if state in ("interrupted", "half published"):
        return f"slidr replay resume {plan.plan_id}"
    if state == "planned" and numbers.needs_approval(plan):
        return f"somebody else than the author: slidr replay approve {plan.plan_id} --ticket …"
    if state in ("planned", "approved", "given up"):
        return f"slidr replay apply {plan.plan_id}"
    return f"slidr replay revert {plan.plan_id}" if state == "applied" else "-"
