"""The life of a version as values: what the events say, and which changes a command asks for. No I/O.

candidate -> champion (decides now) -> stable; suspect after a rollback away from it; revoked: never used again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from slidr.errors import ModelRefusedError, NothingToDoError

Event = Mapping[str, Any]  # a row of `model_promotions`
GIVEN_UP = ("suspect", "revoked")


class Change(NamedTuple):
    """One version goes from a state (None: it is new) to another."""

    version: str
    from_state: str | None
    to_state: str
    reason: str


@dataclass(frozen=True)
class States:
    """What the events say: the deciding version, who decided before (newest last), and the versions by standing."""

    champion: str | None
    champions: tuple[str, ...]
    since: Mapping[str, datetime]  # when each of them became champion last
    state: Mapping[str, str]
    given_by: Mapping[str, Event]  # the event that gave each version the state it has
    bundle_sha256: Mapping[str, str]
    metrics: Mapping[str, str]  # as JSON, from the registration
    last: Event | None  # the newest event
    taken_back: Event | None  # the last giving up of a champion, unless a candidate was promoted since

    @property
    def newest_stable(self) -> str | None:
        return max((v for v, s in self.state.items() if s == "stable"), key=int, default=None)

    def unproven(self, by: datetime) -> list[str]:
        """Versions that became champion at `by` or before and are neither stable nor given up."""
        return [version for version, since in self.since.items() if since <= by and self.state[version] == "champion"]

    def resolve(self, which: str) -> str:
        """Number of `champion`, `stable` (the newest) or of a number that exists. Raises ModelRefusedError."""
        number = {"champion": self.champion, "stable": self.newest_stable}.get(which, which)
        if number is None:
            raise ModelRefusedError(f"expected a {which} model version, found none; see `slidr models list`")
        if number not in self.state:
            raise ModelRefusedError(f"expected one of the versions {sorted(self.state, key=int)}, found {number!r}")
        return number

    def usable(self, which: str) -> str:
        """The same, of versions that are not revoked."""
        number = self.resolve(which)
        if self.state[number] == "revoked":
            event = self.given_by[number]
            raise ModelRefusedError(
                f"version {number} is revoked ({event['actor']}, {event['event_time']:%Y-%m-%d %H:%M} UTC: {event['reason']}) and is never "
                "used again; choose another, see `slidr models list`"
            )
        return number


def fold(events: Sequence[Event]) -> States:
    """States from events in their order. `champion` does not end `stable`: a stable version that decides stays stable."""
    champion: str | None = None
    champions: list[str] = []
    taken_back: Event | None = None
    since: dict[str, datetime] = {}
    given_by: dict[str, Event] = {}
    first: dict[str, Event] = {}
    for event in events:
        version, to = event["model_version"], event["to_state"]
        first.setdefault(version, event)
        if to == "champion":
            champion = version
            champions.append(version)
            since[version] = event["event_time"]
            if event["from_state"] == "candidate":  # not a rollback, which goes to an older one
                taken_back = None
        if not (to == "champion" and version in given_by and given_by[version]["to_state"] == "stable"):
            given_by[version] = event
        if to in GIVEN_UP and champion == version:
            champion, taken_back = None, event
    state = {version: event["to_state"] for version, event in given_by.items()}
    sha = {version: event["bundle_sha256"] for version, event in first.items()}
    metrics = {version: event["metrics"] for version, event in first.items()}
    return States(champion, tuple(champions), since, state, given_by, sha, metrics, events[-1] if events else None, taken_back)


def at(events: Sequence[Event], time: datetime) -> States:
    """The states that held at a time: those of the events up to then, in their order. `at(events, time).champion` decided then."""
    return fold([event for event in events if event["event_time"] <= time])


def registration(states: States, number: str, reason: str) -> list[Change]:
    return [] if number in states.state else [Change(number, None, "candidate", reason)]


def promotion(states: States, number: str, reason: str) -> list[Change]:
    """A version becomes the champion; none where it is already. Suspect and revoked versions are refused."""
    number = states.resolve(number)
    if states.state[number] in GIVEN_UP:
        raise ModelRefusedError(f"expected a candidate or stable version, found {number} in state {states.state[number]}")
    return [] if states.champion == number else [_to(states, number, "champion", reason)]


def automatic(states: States, number: str, reason: str) -> list[Change]:
    """The same without a person: only of a candidate that nothing has happened after, and not after a person took a champion back.

    An old day run again must not bring an old version back, and the next training not what a person has just stopped.
    """
    if not states.last or states.last["model_version"] != number or states.state[number] != "candidate":
        return []
    if states.taken_back:
        event = states.taken_back
        raise ModelRefusedError(
            f"version {number} waits for a person: version {event['model_version']} was taken back ({event['actor']}, "
            f"{event['event_time']:%Y-%m-%d %H:%M} UTC: {event['reason']}); promote by hand to go on"
        )
    return promotion(states, number, reason)


def proof(states: States, number: str, reason: str) -> list[Change]:
    """A version that is or was champion becomes stable: it may publish corrections from now on."""
    number = states.resolve(number)
    if number not in states.champions or states.state[number] in GIVEN_UP:
        raise ModelRefusedError(f"expected a version that is or was champion, found {number} in state {states.state[number]}")
    return [] if states.state[number] == "stable" else [_to(states, number, "stable", reason)]


def rollback(states: States, reason: str, leave: str | None = None) -> list[Change]:
    """The champion becomes suspect; the stable version that was champion last before it decides.

    After the champion was revoked nobody decides; then the revoked one is the one that is left. `leave` names the version that is to
    be left: none where it is suspect already and another decides, so that the same command twice goes back once.
    """
    left = states.champion or next(reversed(states.champions), None)
    if leave is not None and states.resolve(leave) != left:
        if states.champion and states.state[states.resolve(leave)] in GIVEN_UP:
            return []
        raise ModelRefusedError(f"expected version {leave} to decide now, found {left or 'none'}; see `slidr models list`")
    if left is None:
        raise NothingToDoError("expected a champion to roll back from, found none; promote a stable version")
    before = [v for v in states.champions if v != left and states.state[v] == "stable"]
    if not before:
        raise ModelRefusedError(f"expected a stable version that was champion before {left}, found none; promote one by hand")
    suspicion = [] if states.state[left] in GIVEN_UP else [_to(states, left, "suspect", reason)]
    return [*suspicion, _to(states, before[-1], "champion", f"rollback: {reason}")]


def revocation(states: States, number: str, reason: str) -> list[Change]:
    number = states.resolve(number)
    return [] if states.state[number] == "revoked" else [_to(states, number, "revoked", reason)]


def _to(states: States, number: str, to: str, reason: str) -> Change:
    return Change(number, states.state[number], to, reason)
