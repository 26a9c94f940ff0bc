"""Robots of all kinds in one chunk: their clicks, attacks, and the few orders of accounts that were people's. No Spark here."""

from collections.abc import Callable

import numpy as np

from slidr.simulator.clicks import (
    ATTACKS,
    ROBOTS,
    Clicks,
    Orders,
    concat,
    delivered,
    generator,
    inside,
    kind_code,
    numbers,
    priced,
    seconds,
    spread,
)
from slidr.simulator.kinds import Plan, Scene, botnet, declared, flood, mimic, night_crawler, office_hider, slow_account
from slidr.simulator.people import Population
from slidr.simulator.settings import Attack
from slidr.simulator.world import DAY, HISTORY_DAYS, HOUR, World, micros

# Kind -> share of the robots' clicks.
SHARES: dict[Callable[[Scene], Plan], float] = {
    flood: 0.20,
    botnet: 0.28,
    night_crawler: 0.12,
    slow_account: 0.16,
    mimic: 0.14,
    office_hider: 0.08,
    declared: 0.02,
}


def clicks_of_robots(world: World, chunk: int, chunks: int, people: Population, count: int) -> list[Clicks]:
    """The clicks of each kind, `count` in all; the rounding goes to the first kind."""
    targets = {kind: int(count * share) for kind, share in SHARES.items()}
    targets[flood] += count - sum(targets.values())
    batches = []
    for part, (kind, target) in enumerate(targets.items(), start=ROBOTS):
        scene = Scene(generator(world, chunk, part), world, chunk, chunks, part, target, people)
        batches.append(_carry_out(scene, kind(scene), kind.__name__))
    return batches


def clicks_of_attack(world: World, chunk: int, chunks: int, people: Population, incident: Attack, order: int) -> Clicks:
    """This chunk's part of an attack: half flood, half botnet, all on one advertiser, within the incident's hours."""
    part, start, span = ATTACKS + order, micros(incident.start), micros(incident.end) - micros(incident.start)
    hourly = world.settings.clicks / (world.settings.days * 24)
    target = round(hourly * incident.multiple * span / HOUR / chunks)
    scene = Scene(generator(world, chunk, part), world, chunk, chunks, part, target - target // 2, people)
    fast = _carry_out(scene, flood(scene), "attack")
    scene.part, scene.target = part + 1, target // 2
    wide = _carry_out(scene, botnet(scene), "attack")
    both = concat([fast, wide])
    delay = both.arrival - both.time
    both.time = start + (both.time - world.start) % span
    both.arrival = both.time + delay
    both.advertiser = np.full(len(both), incident.advertiser)
    both.campaign, both.cost = priced(scene.rng, world, both.advertiser)
    return both


def _carry_out(scene: Scene, plan: Plan, kind: str) -> Clicks:
    """The first `target` clicks of a plan."""
    rng, world, count = scene.rng, scene.world, scene.target
    slowness = np.repeat(world.slowness(plan.start), plan.length)
    run, time = spread(plan.length, plan.start, seconds(plan.gap * slowness))
    within = np.arange(len(run)) - (np.cumsum(plan.length) - plan.length)[run]
    run, time, within = run[:count], time[:count], within[:count]
    time = inside(run, time, world.end)
    actor = plan.actor[run]
    sessions = np.cumsum((within % plan.rotate[run]) == 0)
    advertiser = np.where((plan.aim[actor] >= 0) & (rng.random(count) < 0.85), plan.aim[actor], world.interests(rng, time))
    campaign, cost = priced(rng, world, advertiser)
    agent = world.browsers(rng, plan.device, common=plan.common_agents)
    filtered = np.zeros(len(plan.device), dtype=np.int64)
    if kind == "declared":
        filtered = rng.integers(1, 3, len(plan.device))
        agent = np.where(filtered == 1, len(world.agents) - 1 - rng.integers(0, 2, len(agent)), agent)
    return Clicks(
        number=numbers(scene.chunk, scene.part, count),
        time=time,
        user=(scene.chunk << 39 | scene.part << 31) + actor,
        session=(scene.chunk << 39 | scene.part << 31) + sessions,
        address=plan.address[actor],
        agent=agent[actor],
        device=plan.device[actor],
        marketplace=plan.marketplace[actor],
        logged_in=plan.logged_in[actor],
        advertiser=advertiser,
        campaign=campaign,
        cost=cost,
        filter=filtered[actor],
        arrival=delivered(rng, time),
        kind=np.full(count, kind_code(kind)),
    )


def orders_of_robots(world: World, chunk: int, clicks: list[Clicks]) -> Orders:
    """Some slow accounts belonged to people once: a third has one order, from before the simulated days."""
    rng = generator(world, chunk, ROBOTS + 100)
    slow = clicks[list(SHARES).index(slow_account)]
    users, first = np.unique(slow.user, return_index=True)
    chosen = first[rng.random(len(users)) < 0.33]
    count = len(chosen)
    time = world.start - rng.integers(DAY, HISTORY_DAYS * DAY, count)
    part = ROBOTS + 100
    return Orders(
        number=numbers(chunk, part, count),
        user=slow.user[chosen],
        session=numbers(chunk, part, count),
        logged_in=np.ones(count, dtype=bool),
        time=time,
        marketplace=slow.marketplace[chosen],
        advertiser=slow.advertiser[chosen],
        amount=rng.integers(5, 60, count) * 1_000_000,
        cancelled=np.zeros(count, dtype=bool),
        click=np.full(count, -1, dtype=np.int64),
        arrival=delivered(rng, time),
    )
