"""Kinds of robots: which actors each has, and how their runs (visits, nights, days) go. No Spark here.

Kinds differ in strength by device, login and marketplace, so that no one threshold fits all slices.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slidr.simulator import addresses
from slidr.simulator.clicks import lengths_of_visits
from slidr.simulator.people import Population
from slidr.simulator.world import DESKTOP, MOBILE, TABLET, World


@dataclass
class Plan:
    """Actors (one entry each), their runs (one entry each), and the seconds before each click of the runs.

    `aim` is the advertiser that an actor is after, -1 for none; `rotate` is after how many clicks a run changes its session.
    """

    marketplace: NDArray[Any]
    device: NDArray[Any]
    logged_in: NDArray[Any]
    address: NDArray[Any]
    aim: NDArray[Any]
    actor: NDArray[Any]
    start: NDArray[Any]
    length: NDArray[Any]
    gap: NDArray[Any]
    rotate: NDArray[Any]
    common_agents: bool = False


@dataclass
class Scene:
    """What a kind draws from: the chunk's generator and people, and how many clicks it has to make."""

    rng: np.random.Generator
    world: World
    chunk: int
    chunks: int
    part: int
    target: int
    people: Population

    @property
    def hardness(self) -> float:
        return self.world.settings.hardness

    def runs(self, mean_length: float) -> int:
        """More runs than the target needs; what is too much is cut."""
        return int(self.target / mean_length * 1.5) + 20

    def actors(self, clicks_each: float) -> int:
        return max(1, round(self.target / clicks_each))

    def places(self, count: int, weights: tuple[float, ...]) -> NDArray[Any]:
        """Marketplaces of actors: the people's shares, tilted by the kind's weights."""
        tilted = self.world.shares * np.resize(np.array(weights), len(self.world.names))
        return self.rng.choice(len(tilted), count, p=tilted / tilted.sum())

    def devices(self, count: int, desktop: float, mobile: float) -> NDArray[Any]:
        return self.rng.choice([DESKTOP, MOBILE, TABLET], count, p=[desktop, mobile, max(0.0, 1 - desktop - mobile)])

    def homes(self, count: int) -> NDArray[Any]:
        """Residential addresses that no other part of the chunk uses."""
        first = 2 * len(self.people) + 1_000_000 // self.chunks * self.part
        return addresses.residential(self.chunk, self.chunks, first + np.arange(count))

    def infected(self, count: int, among_people: float) -> NDArray[Any]:
        """Addresses of robots that run on devices in homes; a share of the homes is people's."""
        host = self.rng.integers(0, len(self.people), count)
        return np.where(self.rng.random(count) < among_people, self.people.home_address[host], self.homes(count))

    def servers(self, count: int) -> NDArray[Any]:
        return addresses.datacenter(self.chunk, self.chunks, self.part * 8 + np.arange(count) % 64)

    def aims(self, count: int) -> NDArray[Any]:
        return self.rng.choice(len(self.world.advertiser_shares), count, p=self.world.advertiser_shares)


def flood(scene: Scene) -> Plan:
    """One address, few sessions, very fast: hundreds of clicks on one advertiser."""
    rng, runs = scene.rng, scene.runs(180)
    length = rng.integers(60, 300, runs)
    pace = np.exp(rng.normal(np.log(4 + 26 * scene.hardness), 0.8, runs))
    rotations = np.array([1000, 60, 20, 6])
    return Plan(
        marketplace=(marketplace := scene.places(runs, (1.3, 1.2, 0.6, 0.6))),
        device=scene.devices(runs, 0.85, 0.13),
        logged_in=rng.random(runs) < 0.08,
        address=np.where(rng.random(runs) < 0.4, scene.servers(runs), scene.homes(runs)),
        aim=scene.aims(runs),
        actor=np.arange(runs),
        start=scene.world.times(rng, marketplace, "flat"),
        length=length,
        gap=np.repeat(pace, length) * rng.exponential(1.0, length.sum()),
        rotate=rng.choice(rotations, runs, p=np.array([0.7, 0.15, 0.1, 0.05])),
    )


def botnet(scene: Scene) -> Plan:
    """Devices taken over: one to five clicks a day each, a new session for nearly every click, around the clock."""
    rng, runs = scene.rng, scene.runs(1.83)
    days = scene.world.settings.days
    actors = scene.actors(14)
    actor = rng.integers(0, actors, runs)
    first = rng.integers(-6, days, actors)
    day = np.clip(first[actor] + rng.integers(0, 8, runs), 0, days - 1)
    marketplace = scene.places(actors, (0.8, 0.6, 0.9, 2.2))
    hidden = rng.random(runs) < 1.2 * scene.hardness
    start = scene.world.times_on(rng, marketplace[actor], "flat", day)
    start[hidden] = scene.world.times_on(rng, marketplace[actor][hidden], "away", day[hidden])
    length = rng.choice([1, 2, 3, 4], runs, p=[0.5, 0.26, 0.15, 0.09])
    net = scene.aims(1 + actors // 60)
    return Plan(
        marketplace=marketplace,
        device=scene.devices(actors, 0.12, 0.86),
        logged_in=rng.random(actors) < 0.04,
        address=scene.infected(actors, 0.7 * scene.hardness),
        aim=net[rng.integers(0, len(net), actors)],
        actor=actor,
        start=start,
        length=length,
        gap=np.exp(rng.normal(np.log(50), 1.0, length.sum())),
        rotate=np.where(rng.random(runs) < 0.6, 4, 1),
        common_agents=True,
    )


def night_crawler(scene: Scene) -> Plan:
    """Works through the local night at a steady interval, from one address, in one session or a few."""
    rng, runs = scene.rng, scene.runs(70)
    actors = scene.actors(70 * 4)
    actor = rng.integers(0, actors, runs)
    marketplace = scene.places(actors, (0.7, 1.6, 1.8, 0.5))
    interval = np.exp(rng.normal(np.log(60 + 100 * scene.hardness), 0.45, runs))
    length = np.clip(rng.integers(30, 120, runs), 5, np.maximum(5, 4.5 * 3600 / interval)).astype(np.int64)
    return Plan(
        marketplace=marketplace,
        device=scene.devices(actors, 0.7, 0.22),
        logged_in=rng.random(actors) < 0.2,
        address=np.where(rng.random(actors) < 0.3, scene.servers(actors), scene.homes(actors)),
        aim=np.where(rng.random(actors) < 0.5, scene.aims(actors), -1),
        actor=actor,
        start=scene.world.times(rng, marketplace[actor], "night"),
        length=length,
        gap=np.repeat(interval, length) * np.clip(rng.normal(1, 0.06 + 0.1 * scene.hardness, length.sum()), 0.3, 2),
        rotate=rng.choice([1000, 25, 6], runs),
    )


def slow_account(scene: Scene) -> Plan:
    """Low and slow inside logged-in accounts: tens of clicks a day at regular intervals, in ever new sessions."""
    rng, runs = scene.rng, scene.runs(18)
    actors = scene.actors(18 * 6)
    actor = rng.integers(0, actors, runs)
    marketplace = scene.places(actors, (1.2, 1.0, 0.8, 0.9))
    length = rng.integers(8, 29, runs)
    interval = np.repeat(15 * 3600 / length, length)
    return Plan(
        marketplace=marketplace,
        device=scene.devices(actors, 0.6, 0.35),
        logged_in=np.ones(actors, dtype=bool),
        address=scene.infected(actors, 0.8 * scene.hardness),
        aim=np.where(rng.random(actors) < 0.4, scene.aims(actors), -1),
        actor=actor,
        start=scene.world.times(rng, marketplace[actor], "morning"),
        length=length,
        gap=interval * np.clip(rng.gamma(1 / (0.1 + 0.6 * scene.hardness) ** 2, (0.1 + 0.6 * scene.hardness) ** 2, length.sum()), 0.01, 4),
        rotate=rng.integers(1, 6, runs),
    )


def mimic(scene: Scene) -> Plan:
    """Keeps people's hours and the shape of their visits, but visits far more often and never buys."""
    rng, runs = scene.rng, scene.runs(3.5)
    actors = scene.actors(3.5 * (6 - 5 * scene.hardness) * min(12, scene.world.settings.days))
    actor = rng.integers(0, actors, runs)
    marketplace = scene.places(actors, (1.0, 1.0, 1.0, 1.3))
    length, median = lengths_of_visits(rng, runs, scene.hardness, stretch=1.3)
    gaps = np.repeat(median, length) * np.exp(rng.normal(0, 0.9, length.sum()))
    first = rng.integers(-6, max(1, scene.world.settings.days - 5), actors)
    day = np.clip(first[actor] + rng.integers(0, 12, runs), 0, scene.world.settings.days - 1)
    return Plan(
        marketplace=marketplace,
        device=scene.devices(actors, 0.4, 0.53),
        logged_in=rng.random(actors) < 0.5,
        address=scene.infected(actors, 0.7 * scene.hardness),
        aim=np.where(rng.random(actors) < 0.3, scene.aims(actors), -1),
        actor=actor,
        start=scene.world.times_on(rng, marketplace[actor], "home", day),
        length=length,
        gap=np.clip(gaps, 0.7, 1500),
        rotate=np.full(runs, 1000),
    )


def office_hider(scene: Scene) -> Plan:
    """Hides among hundreds of people behind the gateway of an office, in office hours."""
    rng, runs = scene.rng, scene.runs(12)
    staff = np.flatnonzero(scene.people.office >= 0)
    actors = scene.actors(12 * 25)
    host = rng.choice(staff if len(staff) else len(scene.people), actors)
    actor = rng.integers(0, actors, runs)
    length = rng.integers(4, 21, runs)
    return Plan(
        marketplace=(marketplace := scene.people.marketplace[host]),
        device=scene.devices(actors, 0.92, 0.08),
        logged_in=rng.random(actors) < 0.3,
        address=scene.people.office_address[host],
        aim=np.where(rng.random(actors) < 0.6, scene.aims(actors), -1),
        actor=actor,
        start=scene.world.times(rng, marketplace[actor], "office"),
        length=length,
        gap=np.exp(rng.normal(np.log(15 + 30 * scene.hardness), 0.5, length.sum())),
        rotate=np.full(runs, 1000),
    )


def declared(scene: Scene) -> Plan:
    """Crawlers that say what they are, or come from known servers; the upstream filter has made them free."""
    rng, runs = scene.rng, scene.runs(6)
    actors = scene.actors(60)
    length = rng.integers(2, 11, runs)
    return Plan(
        marketplace=scene.places(actors, (1.0,)),
        device=np.full(actors, DESKTOP),
        logged_in=np.zeros(actors, dtype=bool),
        address=scene.servers(actors),
        aim=np.full(actors, -1),
        actor=rng.integers(0, actors, runs),
        start=rng.integers(scene.world.start, scene.world.end, runs),
        length=length,
        gap=rng.exponential(20, length.sum()),
        rotate=np.full(runs, 1000),
    )
