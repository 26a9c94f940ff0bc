"""The audit log of replays: events appended to `replays`, and what can be read off them."""

import getpass
import json
import os
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import functions as F

from slidr.errors import InputError
from slidr.lake import Lake
from slidr.replay.pins import canonical
from slidr.tables import REPLAYS


@dataclass(frozen=True)
class Who:
    """Who did it, as claimed by the environment, why, and by which run."""

    actor: str
    run_id: str
    reason: str | None = None
    ticket: str | None = None


@dataclass(frozen=True)
class Plan:
    """A plan on record. `plan_id` is the hash of `pins`; counts are clicks, money is integer micro-units.

    `details` holds count and hash of the planned rows, the guardrail checks, the override reason, hours, feature
    differences. `already` says that it was on record before.
    """

    plan_id: str
    pins: dict[str, Any]
    counts: dict[str, int]
    money: dict[str, Any]
    details: dict[str, Any]
    already: bool

    @property
    def window(self) -> tuple[datetime, datetime]:
        start, end = (datetime.fromisoformat(edge) for edge in self.pins["window"])
        return start, end


def claimed_actor() -> str:
    """SLIDR_ACTOR, else the user of the operating system, else `unknown`; nobody checks it."""
    try:
        return os.environ.get("SLIDR_ACTOR") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def find(lake: Lake, plan_id: str) -> Plan | None:
    """The plan on record under an id, or None."""
    if not lake.exists(REPLAYS):
        return None
    rows = lake.read(REPLAYS).where((F.col("replay_id") == plan_id) & (F.col("event") == "plan")).limit(1).collect()
    if not rows:
        return None
    parts = {name: json.loads(rows[0][name]) for name in ("counts", "money", "details")}
    return Plan(plan_id=plan_id, pins=json.loads(rows[0]["plan"]), already=True, **parts)


def events(lake: Lake, replay_id: str) -> Counter[str]:
    """How often each event of a replay is on record."""
    rows = lake.read(REPLAYS).where(F.col("replay_id") == replay_id).groupBy("event").count().collect()  # a handful of events
    return Counter({row["event"]: row["count"] for row in rows})


def is_open(events: Counter[str]) -> bool:
    """Whether publishing was begun, and neither completed nor given up."""
    return events["apply"] > events["fail"] and not events["applied"]


def open_replays(lake: Lake, plan: Plan) -> list[str]:
    """Other replays of overlapping windows that were begun and not completed; their corrections may be out and their state not."""
    start, end = plan.window
    overlapping = (F.col("window_from") < F.lit(end)) & (F.col("window_to") > F.lit(start)) & (F.col("replay_id") != plan.plan_id)
    rows = lake.read(REPLAYS).where(overlapping).groupBy("replay_id", "event").count().collect()  # replays of one window: a few
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row["replay_id"], Counter())[row["event"]] = row["count"]
    return sorted(replay_id for replay_id, seen in found.items() if is_open(seen))


def record(lake: Lake, plan: Plan, event: str, *, who: Who, now: datetime, seen: Counter[str]) -> None:
    """Appends one event of a plan; `seen` are the events on record, so that a commit that landed unseen is not repeated."""
    start, end = plan.window
    row = {
        "replay_id": plan.plan_id,
        "event": event,
        "event_time": now,
        "event_date": now.date(),
        "actor": who.actor,
        "reason": who.reason,
        "ticket": who.ticket,
        "window_from": start,
        "window_to": end,
        "filter": canonical({**plan.pins["filters"], "allow_charges": plan.pins["allow_charges"]}),
        "mode": plan.pins["mode"],
        "model_version": plan.pins["version"],
        "plan": canonical(plan.pins),
        "counts": canonical(plan.counts),
        "money": canonical(plan.money),
        "run_id": who.run_id,
        "details": canonical(plan.details),
    }
    frame = lake.spark.createDataFrame([tuple(row[name] for name in REPLAYS.names)], REPLAYS.schema)
    lake.append(frame, REPLAYS, token=f"slidr-replay:{plan.plan_id}:{event}:{seen[event]}")


def require_plan(lake: Lake, plan_id: str) -> Plan:
    plan = find(lake, plan_id)
    if plan is None:
        raise InputError(f"expected the id of a plan on record, found {plan_id}, which is not; make one with `slidr replay plan`")
    return plan
