"""How fast replays are: what earlier ones took a click, and how far the one at work is. From the log alone, so any terminal can tell."""

from datetime import timedelta
from typing import Any

from slidr.replay import audit
from slidr.replay.audit import Log, Plan

LAST = 3  # applied replays that are looked at


def expected(log: Log, name: str, clicks: int) -> float | None:
    """Seconds that so many clicks take by the slowest of the last applied replays a click; `name` is `seconds` for publishing, `planning`
    for deciding. None where there was none."""
    done = [event.facts for event in log.events if event.name == "applied" and event.facts.get("clicks") and name in event.facts][-LAST:]
    return max((facts[name] / facts["clicks"] for facts in done), default=0.0) * clicks if done else None


def estimate(log: Log, plan: Plan) -> timedelta:
    """How long publishing will take: as `expected`, else as long as deciding the clicks took."""
    known = expected(log, "seconds", plan.counts["clicks"])
    return timedelta(seconds=round(plan.details["seconds"] if known is None else known))


def recorded(log: Log, plan: Plan) -> set[int]:
    """Numbers of the chunks whose decisions are recorded."""
    if log.no_way_back(plan.plan_id):
        return set(range(len(plan.details["chunks"])))
    return {event.facts["chunk"] for event in log.of(plan.plan_id) if event.name == "renew" and "chunk" in event.facts}


def of_work(log: Log, plan: Plan) -> dict[str, Any]:
    """Clicks a second and seconds left of whoever works on the plan now: by the chunks recorded since the work began, and before the first
    of them by what earlier replays took."""
    events = log.of(plan.plan_id)
    begun = next(place for place in reversed(range(len(events))) if events[place].name in ("apply", "resume"))
    marks = [event for event in events[begun:] if event.name == "renew" and "chunk" in event.facts]
    clicks = [chunk["clicks"] for chunk in plan.details["chunks"]]
    before = {event.facts["chunk"] for event in events[:begun] if event.name == "renew" and "chunk" in event.facts}
    todo = sum(clicks) - sum(clicks[number] for number in before)
    if marks:
        took = max((marks[-1].time - events[begun].time).total_seconds(), 1e-9)
        rate = sum(clicks[number] for number in {event.facts["chunk"] for event in marks} - before) / took
    else:
        rate = plan.counts["clicks"] / max(estimate(log, plan).total_seconds(), 1.0)
    left = todo / rate - (audit.clock() - events[begun].time).total_seconds() if rate else 0.0
    return {"clicks_per_second": round(rate), "seconds_left": round(max(left, 0.0))}
