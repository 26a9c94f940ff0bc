"""What to simulate: size, span, places, hardness, and incidents. No Spark here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal
from zoneinfo import available_timezones

from slidr.days import midnight
from slidr.errors import UsageError

MARKETPLACES = {"US": "America/New_York", "DE": "Europe/Berlin", "JP": "Asia/Tokyo", "IN": "Asia/Kolkata"}


@dataclass(frozen=True)
class Incident:
    """Something that goes wrong in [start, end); both carry a time zone."""

    start: datetime
    end: datetime

    def problems(self) -> list[str]:
        name = type(self).__name__
        if self.start.tzinfo is None or self.end.tzinfo is None:
            return [f"{name}: expected start and end with a UTC offset, found {self.start} and {self.end}"]
        return [] if self.start < self.end else [f"{name}: expected start before end, found {self.start} and {self.end}"]


@dataclass(frozen=True)
class LabelOutage(Incident):
    """Orders of the UTC hours [hours[0], hours[1]) of each day arrive `late_days` after the end, in `purchases_late`."""

    hours: tuple[int, int] = (0, 24)
    late_days: float = 4.0

    def problems(self) -> list[str]:
        valid = 0 <= self.hours[0] < self.hours[1] <= 24 and self.late_days >= 0
        wrong = f"LabelOutage: expected 0 <= hours[0] < hours[1] <= 24, late_days >= 0, found {self.hours}, {self.late_days}"
        return super().problems() + ([] if valid else [wrong])


@dataclass(frozen=True)
class Duplicates(Incident):
    """A share of the clicks is delivered twice; `conflict_share` of the second copies name another cost."""

    share: float = 0.02
    conflict_share: float = 0.05

    def problems(self) -> list[str]:
        valid = 0 <= self.share <= 1 and 0 <= self.conflict_share <= 1
        return super().problems() + ([] if valid else [f"Duplicates: expected shares in [0, 1], found {self.share}, {self.conflict_share}"])


@dataclass(frozen=True)
class Late(Incident):
    """A share of the clicks arrives hours[0] to hours[1] hours after the click."""

    share: float = 0.05
    hours: tuple[float, float] = (2.0, 72.0)

    def problems(self) -> list[str]:
        valid = 0 <= self.share <= 1 and 0 <= self.hours[0] < self.hours[1]
        wrong = f"Late: expected a share in [0, 1] and 0 <= hours[0] < hours[1], found {self.share}, {self.hours}"
        return super().problems() + ([] if valid else [wrong])


@dataclass(frozen=True)
class Attack(Incident):
    """Extra robots on one advertiser: `multiple` times the average traffic of all clicks; they come on top of `clicks`."""

    multiple: float = 1.0
    advertiser: int = 3  # rank by traffic, 0 is the largest

    def problems(self) -> list[str]:
        valid = self.multiple > 0 and 0 <= self.advertiser < 40
        wrong = f"Attack: expected multiple > 0 and an advertiser from 0 to 39, found {self.multiple}, {self.advertiser}"
        return super().problems() + ([] if valid else [wrong])


@dataclass(frozen=True)
class Sale(Incident):
    """People's clicks on one advertiser are `multiple` times the usual, beside the sales of some hours that there are anyway; the number
    of all clicks stays. Whole hours count."""

    multiple: float = 10.0
    advertiser: int = 0  # rank by traffic, 0 is the largest

    def problems(self) -> list[str]:
        valid = self.multiple > 1 and 0 <= self.advertiser < 40
        wrong = f"Sale: expected multiple > 1 and an advertiser from 0 to 39, found {self.multiple}, {self.advertiser}"
        return super().problems() + ([] if valid else [wrong])


@dataclass(frozen=True)
class Drift(Incident):
    """Robots change little by little: their gaps between clicks grow from start to end to `slower` times the usual, and stay there."""

    slower: float = 4.0

    def problems(self) -> list[str]:
        return super().problems() + ([] if self.slower >= 1 else [f"Drift: expected slower >= 1, found {self.slower}"])


@dataclass(frozen=True)
class CounterOutage(Incident):
    """Logged user and address counters are wrong. The clicks stay right: `damage_features` damages right features."""

    damage: Literal["zeros", "halved"] = "zeros"


@dataclass(frozen=True)
class Simulation:
    """Traffic of `days` UTC days from `start`, with orders from 90 days before.

    clicks: how many, attacks not counted. robot_share: robots' share of them. hardness: 0 to 1; people grow burstier and
    robots slower with it. marketplaces: name -> IANA time zone, the largest first.
    """

    seed: int = 1
    start: date = date(2026, 3, 1)
    days: int = 28
    clicks: int = 500_000
    marketplaces: Mapping[str, str] = field(default_factory=lambda: dict(MARKETPLACES))
    robot_share: float = 0.25
    hardness: float = 0.5
    incidents: tuple[Incident, ...] = ()

    def __post_init__(self) -> None:
        problems = [f"expected {what}, found {found}" for what, found, valid in self._checks() if not valid]
        problems += [problem for incident in self.incidents for problem in incident.problems()]
        problems = problems or [
            f"expected incidents from {self.start_time} to {self.end_time}, found {incident}"
            for incident in self.incidents
            if incident.start < self.start_time or incident.end > self.end_time
        ]
        if problems:
            raise UsageError("the simulation is not valid:\n  " + "\n  ".join(problems))

    def _checks(self) -> list[tuple[str, object, bool]]:
        unknown = sorted(set(self.marketplaces.values()) - available_timezones())
        return [
            ("seed >= 1", self.seed, self.seed >= 1),
            ("days from 1 to 1000", self.days, 1 <= self.days <= 1000),
            ("clicks from 1000 to 1000000000", self.clicks, 1000 <= self.clicks <= 10**9),
            ("robot_share from 0 to 0.9", self.robot_share, 0 <= self.robot_share <= 0.9),
            ("hardness from 0 to 1", self.hardness, 0 <= self.hardness <= 1),
            ("at least one marketplace", dict(self.marketplaces), bool(self.marketplaces)),
            ("IANA time zones", unknown, not unknown),
            ("at most 50 incidents", len(self.incidents), len(self.incidents) <= 50),
        ]

    @property
    def start_time(self) -> datetime:
        return midnight(self.start)

    @property
    def end_time(self) -> datetime:
        return self.start_time + timedelta(days=self.days)
