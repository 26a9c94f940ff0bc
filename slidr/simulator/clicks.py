"""Clicks and orders of one chunk as numpy columns, before they become text; and the shape of visits. No Spark here."""

from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slidr.simulator.world import KINDS, SECOND, World


@dataclass
class Clicks:
    """One row per click. Codes are positions in the lists of `World`; `filter` is 0, or 1 + position in FILTERS."""

    number: NDArray[Any]
    time: NDArray[Any]
    user: NDArray[Any]
    session: NDArray[Any]
    address: NDArray[Any]
    agent: NDArray[Any]
    device: NDArray[Any]
    marketplace: NDArray[Any]
    logged_in: NDArray[Any]
    advertiser: NDArray[Any]
    campaign: NDArray[Any]
    cost: NDArray[Any]
    filter: NDArray[Any]
    arrival: NDArray[Any]
    kind: NDArray[Any]

    def __len__(self) -> int:
        return len(self.number)

    def take(self, index: NDArray[Any]) -> "Clicks":
        return Clicks(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass
class Orders:
    """One row per order. advertiser and click are -1 where the order names none."""

    number: NDArray[Any]
    user: NDArray[Any]
    session: NDArray[Any]
    logged_in: NDArray[Any]
    time: NDArray[Any]
    marketplace: NDArray[Any]
    advertiser: NDArray[Any]
    amount: NDArray[Any]
    cancelled: NDArray[Any]
    click: NDArray[Any]
    arrival: NDArray[Any]

    def take(self, index: NDArray[Any]) -> "Orders":
        return Orders(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


Columns = TypeVar("Columns", Clicks, Orders)
FILTERS = ("declared_robot", "datacenter")
# Parts of a chunk: each draws from a generator of its own, so that an incident changes no other part.
PEOPLE, ROBOTS, ORDERS, LATE, INCIDENTS, ATTACKS = 0, 1, 16, 20, 21, 150


def generator(world: World, chunk: int, part: int) -> np.random.Generator:
    return np.random.default_rng([world.settings.seed, 1000 + chunk, part])


def numbers(chunk: int, part: int, count: int) -> NDArray[Any]:
    """Numbers that no other part of any chunk has: 24 bits of chunk, 8 of part, 31 within."""
    return (chunk << 39 | part << 31) + np.arange(count, dtype=np.int64)


def concat(parts: list[Columns]) -> Columns:
    kind = type(parts[0])
    return kind(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(kind)})


def lengths_of_visits(rng: np.random.Generator, count: int, hardness: float, stretch: float = 1.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Clicks of each visit, and the median gap in seconds. Most are short; some compare dozens of offers within minutes."""
    burst = rng.random(count) < 0.006 + 0.018 * hardness
    short = 1 + rng.geometric(1 / (1 + 1.3 * stretch), count) - 1 * (rng.random(count) < 0.45)
    long = 6 + rng.geometric(1 / (6 + 10 * hardness), count)
    median = np.where(burst, np.exp(rng.normal(np.log(25 - 8 * hardness), 0.5, count)), np.exp(rng.normal(np.log(75), 0.6, count)))
    return np.where(burst, np.minimum(long, 150), short), median


def spread(length: NDArray[Any], start: NDArray[Any], gap: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Run and time of each click. `gap` (microseconds, one per click) is the time since the click before in the run."""
    run = np.repeat(np.arange(len(length)), length)
    first = np.cumsum(length) - length
    passed = np.cumsum(gap)
    return run, start[run] + passed - passed[first][run]


def seconds(values: NDArray[Any]) -> NDArray[Any]:
    return (values * SECOND).astype(np.int64)


def inside(run: NDArray[Any], time: NDArray[Any], end: int) -> NDArray[Any]:
    """Times with each run that passes the end moved back as a whole, so that no click is lost."""
    last = np.full(run.max() + 1 if len(run) else 0, end - 1, dtype=np.int64)
    np.maximum.at(last, run, time)
    found: NDArray[Any] = time - (last - (end - 1))[run]
    return found


def priced(rng: np.random.Generator, world: World, advertiser: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Campaign and cost in micro-units of each click."""
    campaign = (rng.random(len(advertiser)) * world.campaigns[advertiser]).astype(np.int64)
    cost = world.prices[advertiser, campaign] * np.exp(rng.normal(0, 0.2, len(advertiser)))
    return campaign, np.clip(cost, 50_000, 2_500_000).astype(np.int64) // 1000 * 1000


def delivered(rng: np.random.Generator, time: NDArray[Any]) -> NDArray[Any]:
    """Arrival of ordinary rows: some seconds later."""
    found: NDArray[Any] = time + seconds(0.5 + rng.gamma(2.0, 1.5, len(time)))
    return found


def kind_code(name: str) -> int:
    return KINDS.index(name)
