"""The audit log of replays: events appended to `replays`, and what can be read off them."""

import getpass
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from slidr import ledger
from slidr.direct import Place
from slidr.errors import ConflictError, InputError, UsageError
from slidr.lake import Lake
from slidr.replay.stack import Applied, in_effect
from slidr.tables import REPLAYS

ID_DIGITS = 16
PLAN_ID = re.compile(f"[0-9a-f]{{{ID_DIGITS}}}")
WORKING = ("apply", "resume", "renew", "publish")  # the events of somebody who holds the window
ENDED = ("applied", "fail")
DETAILS = ("rows", "window_hours", "hours", "features", "chunks", "seconds")  # what every plan says of itself
MOST_TURNS = 50


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

    @property
    def reverts(self) -> str | None:
        """The replay that this plan takes back; None for a replay."""
        found: str | None = self.pins.get("reverts")
        return found


@dataclass(frozen=True)
class Event:
    """One row of the log. `facts` are the details of events other than `plan`: lease, order, override."""

    replay_id: str
    name: str
    time: datetime
    actor: str
    reason: str | None
    ticket: str | None
    run_id: str
    window: tuple[datetime, datetime]
    mode: str
    version: str
    facts: Mapping[str, Any] = field(default_factory=dict)


Decision = tuple[str, Mapping[str, Any]] | None  # an event and its facts; None where nothing is to be recorded


@dataclass(frozen=True)
class Log:
    """Everything on record, oldest first: a few events per replay, and the plan that was asked for, as it was made last."""

    events: tuple[Event, ...] = ()
    plan: Plan | None = None

    def of(self, replay_id: str) -> list[Event]:
        return [event for event in self.events if event.replay_id == replay_id]

    def counted(self, replay_id: str) -> Counter[str]:
        """How many events of each name a replay has."""
        return Counter(event.name for event in self.of(replay_id))

    def is_open(self, replay_id: str) -> bool:
        """Whether publishing was begun, and neither completed nor given up."""
        states = [event.name for event in self.of(replay_id) if event.name in (*WORKING, *ENDED)]
        return bool(states) and states[-1] not in ENDED

    def no_way_back(self, replay_id: str) -> bool:
        """Whether it may have published something since it was last given up: then it can only be completed."""
        states = [event.name for event in self.of(replay_id) if event.name in ("publish", "fail")]
        return states[-1:] == ["publish"]

    def looked_again(self, replay_id: str) -> bool:
        """Whether the plan was found to hold once its point of no return was on record: nothing of it is published before."""
        marks = [event for event in self.of(replay_id) if event.name == "publish" or event.facts.get("looked")]
        return bool(marks) and marks[-1].name != "publish"

    def open_beside(self, plan: Plan) -> list[str]:
        """Other replays of an overlapping window that were begun and not ended."""
        start, end = plan.window
        beside = {e.replay_id for e in self.events if e.replay_id != plan.plan_id and e.window[0] < end and e.window[1] > start}
        return sorted(name for name in beside if self.is_open(name))

    def applied(self) -> list[Applied]:
        """All that was ever published, in order."""
        done = [event for event in self.events if event.name == "applied"]
        return [Applied(e.replay_id, e.facts.get("reverts")) for e in sorted(done, key=lambda e: int(e.facts["order"]))]

    def in_effect_without(self, reverted: str, window: tuple[datetime, datetime]) -> list[str]:
        """The replays of overlapping windows that will be in effect once `reverted` is taken back, oldest first."""
        edges = {event.replay_id: event.window for event in self.events}
        kept = in_effect([*self.applied(), Applied("", reverted)])
        return [name for name in kept if edges[name][0] < window[1] and edges[name][1] > window[0]]

    def authors(self, plan_id: str) -> list[str]:
        """Who made the plan, as claimed, and who made it again since, after its record was changed."""
        return [event.actor for event in self.of(plan_id) if event.name == "plan"]

    def is_approved(self, plan_id: str) -> bool:
        """Whether somebody has approved the plan as it is on record now: made again, it is to be looked at again."""
        names = [event.name for event in self.of(plan_id) if event.name in ("plan", "approve")]
        return names[-1:] == ["approve"]


def claimed_actor() -> str:
    """SLIDR_ACTOR, else the user of the operating system, else `unknown`; nobody checks it."""
    try:
        return os.environ.get("SLIDR_ACTOR") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def read(lake: Lake | Place, plan_id: str = "") -> Log:
    """Everything on record, and the plan `plan_id`."""
    return _log(ledger.read(lake, REPLAYS).rows, plan_id) if ledger.exists(lake, REPLAYS) else Log()


def sound(lake: Lake | Place, plan_id: str) -> Plan | None:
    """The plan on record; None where there is none, and where what is there can't be used: then it is to be made again."""
    rows = ledger.read(lake, REPLAYS).rows if ledger.exists(lake, REPLAYS) else []
    found = _newest(rows, plan_id)
    try:
        return _plan(found) if found else None
    except InputError:
        return None


def _log(rows: list[dict[str, Any]], plan_id: str) -> Log:
    found = _newest(rows, plan_id)
    return Log(tuple(sorted(map(_event, rows), key=lambda event: event.time)), _plan(found) if found else None)


def _newest(rows: list[dict[str, Any]], plan_id: str) -> dict[str, Any] | None:
    """The event `plan` of a plan that counts: the last one."""
    made = [row for row in rows if row["replay_id"] == plan_id and row["event"] == "plan"]
    return max(made, key=lambda row: row["event_time"], default=None)


def _plan(row: dict[str, Any]) -> Plan:
    """The plan of a row. Its id is the hash of what it pins: looked at before any of it is parsed. Raises InputError."""
    plan_id = row["replay_id"]
    if id_of(row["plan"] or "") != plan_id:
        raise InputError(f"expected the plan {plan_id} to be the hash of what it pins, found another; plan again, nothing was published")
    pins, counts, money, details = (_object(row, name) for name in ("plan", "counts", "money", "details"))
    lacking = sorted(set(DETAILS) - set(details)) + [name for name, number in counts.items() if type(number) is not int]
    lacking += [] if isinstance(money.get("directions"), list) else ["money"]
    if lacking:
        raise InputError(f"expected the plan {plan_id} whole in the table {REPLAYS.name}, found no usable {', '.join(lacking)}; plan again")
    return Plan(plan_id, pins, counts, money, details, already=True)


def id_of(pins: str) -> str:
    """First hex digits of the sha256 of the canonical JSON: the id of the plan that pins it."""
    return hashlib.sha256(pins.encode("utf-8", "surrogatepass")).hexdigest()[:ID_DIGITS]


def _object(row: dict[str, Any], name: str) -> dict[str, Any]:
    where = f"{name} of {row['replay_id']} in the table {REPLAYS.name}"
    try:
        found = json.loads(row[name] or "")
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected JSON in {where}, found: {error}; plan again") from error
    if not isinstance(found, dict):
        raise InputError(f"expected an object in {where}, found {type(found).__name__}; plan again")
    return found


def _event(row: dict[str, Any]) -> Event:
    facts = _object(row, "details") if row["event"] != "plan" and row["details"] else {}
    texts = (row["actor"], row["reason"], row["ticket"], row["run_id"])
    window = (row["window_from"], row["window_to"])
    return Event(row["replay_id"], row["event"], row["event_time"], *texts, window, row["mode"], row["model_version"], facts)


def require_plan(lake: Lake | Place, plan_id: str) -> Plan:
    """The plan on record. Raises UsageError for what can't be an id, InputError for one that is not on record."""
    return require_log(lake, plan_id)[1]


def require_log(lake: Lake | Place, plan_id: str) -> tuple[Log, Plan]:
    """`read` and its plan, with the errors of `require_plan`."""
    if not PLAN_ID.fullmatch(plan_id):
        raise UsageError(f"expected a plan id of {ID_DIGITS} hex digits, found {plan_id!r}; `slidr replay list` shows them")
    log = read(lake, plan_id)
    if log.plan is None:
        raise InputError(f"expected the id of a plan on record, found {plan_id}, which is not; make one with `slidr replay plan`")
    return log, log.plan


def record(lake: Lake | Place, plan: Plan, choose: Callable[[Log], Decision], *, who: Who) -> Log:
    """Reads the log, has `choose` decide on it, and appends the event that it chose, if the log is still as it was read; else
    again from the start. Returns the log that the decision rests on. What `choose` raises ends it.
    """
    for _ in range(MOST_TURNS):
        found = ledger.read(lake, REPLAYS)
        log = _log(found.rows, "")
        chosen = choose(log)
        if chosen is None or found.append([_row(plan, *chosen, who, log)]):
            return log
    raise ConflictError(f"expected to write one event of {plan.plan_id}, found {MOST_TURNS} others written in between; run it again")


def _row(plan: Plan, event: str, facts: Mapping[str, Any], who: Who, log: Log) -> dict[str, Any]:
    """A row of `replays`, later than every other, whatever the clocks of the machines say."""
    start, end = plan.window
    now = clock()
    time = max(now, log.events[-1].time + timedelta(microseconds=1)) if log.events else now
    return {
        "replay_id": plan.plan_id,
        "event": event,
        "event_time": time,
        "event_date": time.date(),
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
        "details": canonical(facts),
    }


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def clock() -> datetime:
    return datetime.now(timezone.utc)


def from_micros(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=micros)
