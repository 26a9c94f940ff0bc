"""Who may publish a replay of a window now: one at a time, on record, for a limited time.

A lease is an event of the log (`apply`, `resume`, `renew`, `publish`) with its holder and its end. It ends with the replay, by
time, or with its process where that can be seen. Who wants an overlapping window gives up a replay whose lease has ended
and that has published nothing; one that may have published something must be completed first.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from slidr.errors import ConflictError, LockedError
from slidr.process import has_ended, holder
from slidr.replay.audit import WORKING, Event, Log, Plan, clock


def facts(minutes: float) -> dict[str, Any]:
    """What an event says of a lease that begins or goes on now."""
    return {"holder": holder(), "until": (clock() + timedelta(minutes=minutes)).isoformat()}


def held(log: Log, replay_id: str) -> Event | None:
    """The event of the lease in force, None where nobody works on the replay."""
    last = next((event for event in reversed(log.of(replay_id)) if event.name in (*WORKING, "interrupt", "fail", "applied")), None)
    if last is None or last.name not in WORKING or _until(last) <= clock() or has_ended(last.facts["holder"]):
        return None
    return last


def refuse_others(log: Log, plan: Plan) -> list[str]:
    """Open replays of overlapping windows that may be given up, since their leases have ended and nothing of them is out.

    Raises LockedError where somebody works on this plan or an overlapping window, ConflictError where one is half published.
    """
    beside = log.open_beside(plan)
    for replay_id in (plan.plan_id, *beside):
        working = held(log, replay_id)
        if working and working.facts["holder"] != holder():
            what = "this plan" if replay_id == plan.plan_id else f"the overlapping replay {replay_id}"
            raise LockedError(
                f"expected nobody else at work on this window, found {working.actor} publishing {what} since {_minute(working.time)} as "
                f"{working.facts['holder']}, until {_minute(_until(working))} at most; watch it with `slidr replay status {replay_id}`"
            )
    half = [replay_id for replay_id in beside if log.no_way_back(replay_id)]
    if half:
        raise ConflictError(
            f"expected no half-published replay of an overlapping window, found {', '.join(half)}; complete it first with "
            f"`slidr replay resume {half[0]}`, then plan this one again"
        )
    return beside


def refuse_half_published(log: Log, start: datetime, end: datetime) -> None:
    """Raises LockedError where a replay of a window that overlaps [start, end) is half published.

    Its corrections may be out already: a click that they take for never decided must not get its first decision in between.
    """
    touched = dict.fromkeys(event.replay_id for event in log.events if event.window[0] < end and event.window[1] > start)
    half = [replay_id for replay_id in touched if log.is_open(replay_id) and log.no_way_back(replay_id)]
    if half:
        raise LockedError(
            f"expected no half-published replay from {_minute(start)} to {_minute(end)}, found {', '.join(half)}; wait until it is "
            f"applied, or complete it with `slidr replay resume {half[0]}`, then run this again"
        )


def require_mine(log: Log, plan: Plan) -> None:
    """Raises ConflictError where somebody broke the lease of this process."""
    events: Sequence[Event] = [event for event in log.of(plan.plan_id) if "holder" in event.facts or event.name == "fail"]
    if not events or events[-1].name == "fail" or events[-1].facts["holder"] != holder():
        raise ConflictError(
            f"expected plan {plan.plan_id} to be kept for this run, found that its lease had ended and was taken; nothing more was "
            f"published; look at `slidr replay status {plan.plan_id}`"
        )


def is_mine(log: Log, plan: Plan) -> bool:
    """Whether this process holds the lease of the plan."""
    working = held(log, plan.plan_id)
    return working is not None and working.facts["holder"] == holder()


@contextmanager
def kept(renew: Callable[[], None], *, minutes: float) -> Iterator[None]:
    """Calls `renew` from a thread, three times within the minutes of a lease, while the block runs; what it raises ends the block."""
    ended, failed = threading.Event(), list[Exception]()

    def beat() -> None:
        while not failed and not ended.wait(60 * minutes / 3):
            try:
                renew()
            except Exception as error:  # raised below, in the thread that works
                failed.append(error)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failed:
        raise failed[0]


def _until(event: Event) -> datetime:
    return datetime.fromisoformat(event.facts["until"])


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
