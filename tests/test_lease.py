"""Who may publish: one at a time for an overlapping window, dead and late holders give way, money waits for a second pair of eyes."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from slidr import direct
from slidr.direct import Place
from slidr.errors import ConflictError, InputError, LockedError, NotApprovedError, UsageError
from slidr.replay import audit, lease, pace, status
from slidr.replay.approve import approve
from slidr.replay.audit import Plan, canonical, id_of
from slidr.tables import REPLAYS
from tests.frames import at
from tests.worlds import ANN, BOB, END, FIRST, SECOND

OTHERS = "elsewhere:1:2"
Clock = Callable[[datetime], None]


def plan_of(start: datetime, end: datetime, *, needed: bool = False, reverts: str | None = None) -> Plan:
    filters: dict[str, Any] = {"decided_by": None, "advertisers": [], "slices": [], "marketplaces": []}
    pins = {"window": [start.isoformat(), end.isoformat()], "filters": filters, "mode": "rescore", "allow_charges": False, "version": "2"}
    pins |= {"approval_above_micros": 4 if needed else 5} | ({"reverts": reverts} if reverts else {})
    details: dict[str, Any] = {"chunks": [{"clicks": 3}, {"clicks": 4}], "seconds": 60.0}
    details |= {"rows": {}, "window_hours": [], "hours": [], "features": None}
    return Plan(id_of(canonical(pins)), pins, {"clicks": 7}, {"directions": [{"currency": "USD", "micros": -5}]}, details, already=False)


FIRST_DAY, BOTH_DAYS, SECOND_DAY = plan_of(FIRST, SECOND), plan_of(FIRST, END), plan_of(SECOND, END)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(str(tmp_path))
    direct.create(found, REPLAYS)
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    def set_to(time: datetime) -> None:
        monkeypatch.setattr(audit, "clock", lambda: time)
        monkeypatch.setattr(lease, "clock", lambda: time)

    set_to(at("2026-03-05 12:00:00"))
    return set_to


def note(place: Place, of: Plan, event: str, **facts: Any) -> audit.Log:
    audit.record(place, of, lambda log: (event, facts or of.details), who=ANN)
    return audit.read(place, of.plan_id)


def working(place: Place, plan: Plan, event: str = "apply", holder: str = OTHERS, minutes: float = 15) -> audit.Log:
    return note(place, plan, event, holder=holder, until=(audit.clock() + timedelta(minutes=minutes)).isoformat())


def test_a_lease_keeps_others_from_overlapping_windows_only(place: Place, clock: Clock) -> None:
    log = working(place, FIRST_DAY)
    with pytest.raises(LockedError, match=r"found ann publishing the overlapping replay .* since 2026-03-05 12:00:00 UTC as elsewhere"):
        lease.refuse_others(log, BOTH_DAYS)
    with pytest.raises(LockedError, match="publishing this plan") as caught:
        lease.refuse_others(log, FIRST_DAY)
    assert caught.value.exit_code == 6
    assert lease.refuse_others(log, SECOND_DAY) == []


def test_a_lease_ends_by_time(place: Place, clock: Clock) -> None:
    working(place, FIRST_DAY)
    clock(at("2026-03-05 12:14:59"))
    assert lease.held(audit.read(place), FIRST_DAY.plan_id)
    working(place, FIRST_DAY, "renew")
    clock(at("2026-03-05 12:29:58"))
    assert lease.held(audit.read(place), FIRST_DAY.plan_id)
    clock(at("2026-03-05 12:29:59"))
    assert lease.refuse_others(audit.read(place), BOTH_DAYS) == [FIRST_DAY.plan_id]  # may be given up: it has published nothing


@pytest.mark.parametrize("event", ["interrupt", "fail", "applied"])
def test_a_lease_ends_with_the_work(place: Place, clock: Clock, event: str) -> None:
    working(place, FIRST_DAY)
    log = note(place, FIRST_DAY, event, order=1)
    assert lease.held(log, FIRST_DAY.plan_id) is None
    assert log.is_open(FIRST_DAY.plan_id) == (event == "interrupt")


def test_a_dead_process_of_this_machine_holds_nothing(place: Place, clock: Clock) -> None:
    host, number, started = lease.holder().rsplit(":", 2)
    assert lease.held(working(place, FIRST_DAY, holder=lease.holder()), FIRST_DAY.plan_id)
    assert lease.refuse_others(audit.read(place), FIRST_DAY) == []  # one's own
    assert lease.held(working(place, FIRST_DAY, "resume", f"{host}:{number}:{int(started) - 1}"), FIRST_DAY.plan_id) is None
    assert lease.held(working(place, FIRST_DAY, "resume", f"{host}:4194305:1"), FIRST_DAY.plan_id) is None


def test_what_may_have_published_must_be_completed(place: Place, clock: Clock) -> None:
    working(place, FIRST_DAY, "publish", minutes=-1)
    with pytest.raises(ConflictError, match=f"half-published.*slidr replay resume {FIRST_DAY.plan_id}"):
        lease.refuse_others(audit.read(place), BOTH_DAYS)
    assert lease.refuse_others(audit.read(place), FIRST_DAY) == []


def test_whose_lease_was_taken_stops(place: Place, clock: Clock) -> None:
    mine = working(place, FIRST_DAY, holder=lease.holder())
    lease.require_mine(mine, FIRST_DAY)
    assert lease.is_mine(mine, FIRST_DAY)
    for event in ("resume", "fail"):
        taken = working(place, FIRST_DAY, event)
        assert not lease.is_mine(taken, FIRST_DAY)
        with pytest.raises(ConflictError, match="was taken"):
            lease.require_mine(taken, FIRST_DAY)


def test_a_lease_is_kept_while_a_step_takes_long() -> None:
    beats = []
    with lease.kept(lambda: beats.append(time.monotonic()), minutes=0.005):  # 0.3 s, so each 0.1 s
        time.sleep(0.5)
    assert len(beats) >= 2
    ended = len(beats)
    time.sleep(0.3)
    assert len(beats) == ended

    def broken() -> None:
        raise ConflictError("the log is out of reach")

    with pytest.raises(ConflictError, match="out of reach"), lease.kept(broken, minutes=0.005):
        time.sleep(0.3)


def test_decisions_on_the_log_are_made_on_the_newest(place: Place, clock: Clock) -> None:
    """Somebody's event comes between reading and writing: what is recorded is decided again."""
    seen = []

    def choose(log: audit.Log) -> audit.Decision:
        seen.append(len(log.events))
        if len(seen) == 1:
            working(place, SECOND_DAY)
        return "apply", {"after": len(log.events)}

    audit.record(place, FIRST_DAY, choose, who=BOB)
    assert seen == [0, 1]
    assert [event.facts.get("after") for event in audit.read(place).of(FIRST_DAY.plan_id)] == [1]


def test_events_are_in_order_whatever_the_clocks_say(place: Place, clock: Clock) -> None:
    note(place, FIRST_DAY, "plan")
    clock(at("2026-03-05 11:00:00"))
    note(place, FIRST_DAY, "approve", plan=FIRST_DAY.plan_id)
    assert [event.name for event in audit.read(place).events] == ["plan", "approve"]


def test_somebody_else_approves(place: Place, clock: Clock) -> None:
    plan = plan_of(FIRST, END, needed=True)
    note(place, plan, "plan")
    assert status.status(place, plan.plan_id)["next"].startswith("somebody else")
    with pytest.raises(NotApprovedError, match="found ann, who made it") as caught:
        approve(place, plan_id=plan.plan_id, who=ANN)
    assert caught.value.exit_code == 7
    approve(place, plan_id=plan.plan_id, who=replace(BOB, ticket="T-9"))
    approved = audit.read(place).of(plan.plan_id)[-1]
    assert (approved.name, approved.actor, approved.ticket, approved.facts) == ("approve", "bob", "T-9", {"plan": plan.plan_id})
    assert status.status(place, plan.plan_id)["state"] == "approved"
    working(place, plan)
    with pytest.raises(ConflictError, match="waits to be applied"):
        approve(place, plan_id=plan.plan_id, who=BOB)
    for wrong, error in (("../x", UsageError), ("0" * 16, InputError)):
        with pytest.raises(error):
            approve(place, plan_id=wrong, who=BOB)


def test_status_tells_how_far_it_is(place: Place, clock: Clock) -> None:
    name = FIRST_DAY.plan_id
    found = []

    def look() -> None:
        row = status.status(place, name)
        found.append((row["state"], row["recorded"], row["by"], row["next"]))

    note(place, FIRST_DAY, "plan")
    look()
    working(place, FIRST_DAY)
    look()
    note(place, FIRST_DAY, "renew", chunk=0, holder=OTHERS, until=(audit.clock() + timedelta(minutes=1)).isoformat())
    look()
    clock(at("2026-03-05 12:05:00"))
    look()
    working(place, FIRST_DAY, "publish", minutes=0)
    look()
    note(place, FIRST_DAY, "applied", order=1)
    look()
    assert found == [
        ("planned", "0 of 7 clicks", None, f"slidr replay apply {name}"),
        ("working", "0 of 7 clicks", "ann", "-"),
        ("working", "3 of 7 clicks", "ann", "-"),
        ("interrupted", "3 of 7 clicks", None, f"slidr replay resume {name}"),
        ("half published", "7 of 7 clicks", None, f"slidr replay resume {name}"),
        ("applied", "7 of 7 clicks", None, f"slidr replay revert {name}"),
    ]
    taking = plan_of(FIRST, SECOND, reverts=name)
    note(place, taking, "plan")
    note(place, taking, "applied", order=2, reverts=name)
    assert [(row["replay_id"], row["state"]) for row in status.listed(place)] == [
        (taking.plan_id, "applied"),
        (name, f"reverted by {taking.plan_id}"),
    ]


def test_status_tells_rate_and_time_left(place: Place, clock: Clock) -> None:
    """By the estimate until a chunk is recorded, then by what this run has recorded; who goes on does not count what was there."""
    found = []

    def look(at_: str) -> None:
        clock(at(at_))
        row = status.status(place, FIRST_DAY.plan_id)
        found.append((row["clicks_per_second"], row["seconds_left"]))

    def recorded(chunk: int) -> None:
        note(place, FIRST_DAY, "renew", chunk=chunk, holder=OTHERS, until=(audit.clock() + timedelta(minutes=15)).isoformat())

    made = {"seconds": 1.0, "clicks": 7, "order": 1}
    note(place, FIRST_DAY, "plan")
    look("2026-03-05 12:00:00")
    note(place, SECOND_DAY, "applied", **made)  # 7 clicks a second
    working(place, FIRST_DAY)
    look("2026-03-05 12:00:00")
    clock(at("2026-03-05 12:00:01"))
    recorded(0)  # 3 of 7 clicks
    look("2026-03-05 12:00:01")
    working(place, FIRST_DAY, "renew")
    look("2026-03-05 12:00:02")
    clock(at("2026-03-05 12:00:10"))
    working(place, FIRST_DAY, "resume")
    clock(at("2026-03-05 12:00:12"))
    recorded(1)  # 4 clicks in 2 s
    look("2026-03-05 12:00:12")
    assert found == [(None, None), (7, 1), (3, 1), (3, 0), (2, 0)]


def test_the_estimate_follows_earlier_replays(place: Place, clock: Clock) -> None:
    log = note(place, FIRST_DAY, "plan")
    assert pace.estimate(log, FIRST_DAY) == timedelta(seconds=60)
    log = note(place, SECOND_DAY, "applied", order=1, seconds=30.0, clicks=10)
    assert pace.estimate(log, FIRST_DAY) == timedelta(seconds=21)
