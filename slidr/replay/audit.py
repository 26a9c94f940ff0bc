"""The audit log of replays: events appended to `replays`, and what can be read off them."""

import getpass
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import functions as F

from slidr.errors import InputError, UsageError
from slidr.lake import Lake
from slidr.replay.pins import ID_DIGITS, canonical
from slidr.tables import REPLAYS

PLAN_ID = re.compile(f"[0-9a-f]{{{ID_DIGITS}}}")


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


@dataclass(frozen=True)
class Log:
    """What is on record about one plan: the plan, its events, and overlapping replays that were begun and not completed."""

    plan: Plan | None
    events: Counter[str]
    open_beside: list[str]


def read(lake: Lake, plan_id: str) -> Log:
    """One pass over the log, which holds a few rows per replay."""
    if not lake.exists(REPLAYS):
        return Log(None, Counter(), [])
    own_plan = (F.col("replay_id") == plan_id) & (F.col("event") == "plan")
    parts = [F.when(own_plan, F.col(name)).alias(name) for name in ("plan", "counts", "money", "details")]
    window = [F.unix_micros(name).alias(name) for name in ("window_from", "window_to")]
    rows = lake.read(REPLAYS).select("replay_id", "event", *window, *parts).collect()
    seen: dict[str, Counter[str]] = {}
    for row in rows:
        seen.setdefault(row["replay_id"], Counter())[row["event"]] += 1
    own = [row for row in rows if row["replay_id"] == plan_id]
    beside = {
        row["replay_id"]
        for row in rows
        if own and row["replay_id"] != plan_id and row["window_from"] < own[0]["window_to"] and row["window_to"] > own[0]["window_from"]
    }
    found = next((row for row in own if row["event"] == "plan"), None)
    plan = None
    if found:
        numbers = {name: json.loads(found[name]) for name in ("counts", "money", "details")}
        plan = Plan(plan_id=plan_id, pins=json.loads(found["plan"]), already=True, **numbers)
    return Log(plan, seen.get(plan_id, Counter()), sorted(name for name in beside if is_open(seen[name])))


def require_plan(lake: Lake, plan_id: str) -> Plan:
    """The plan on record. Raises UsageError for what can't be an id, InputError for one that is not on record."""
    return require_log(lake, plan_id)[1]


def require_log(lake: Lake, plan_id: str) -> tuple[Log, Plan]:
    """`read` and its plan, with the errors of `require_plan`."""
    if not PLAN_ID.fullmatch(plan_id):
        raise UsageError(f"expected a plan id of {ID_DIGITS} hex digits, found {plan_id!r}; `slidr replay list` shows them")
    log = read(lake, plan_id)
    if log.plan is None:
        raise InputError(f"expected the id of a plan on record, found {plan_id}, which is not; make one with `slidr replay plan`")
    return log, log.plan


def is_open(events: Counter[str]) -> bool:
    """Whether publishing was begun, and neither completed nor given up."""
    return events["apply"] > events["fail"] and not events["applied"]


def record(lake: Lake, plan: Plan, event: str, *, who: Who, now: datetime, seen: Counter[str]) -> None:
    """Appends one event of a plan; `seen` counts the events on record, and now this one: the token of a commit
    that landed unseen is not used again."""
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

    seen[event] += 1
