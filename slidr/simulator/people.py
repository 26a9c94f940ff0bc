"""People: accounts and guests in homes, offices and on the road; their visits, clicks and orders. No Spark here."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slidr.simulator import addresses
from slidr.simulator.clicks import (
    ORDERS,
    PEOPLE,
    Clicks,
    Orders,
    concat,
    delivered,
    generator,
    inside,
    lengths_of_visits,
    numbers,
    priced,
    seconds,
    spread,
)
from slidr.simulator.world import ADVERTISERS, DESKTOP, HISTORY_DAYS, MOBILE, TABLET, World

CLICKS_PER_DAY = 1.1  # of one person
BUYING_SHARE = 0.031  # of people's clicks, followed by an order
HISTORY_ORDERS = 0.55  # of one person in 90 days, without an ad click


@dataclass
class Population:
    """One entry per person; `office` is -1 for those who work in none. Homes and offices lie in one marketplace."""

    marketplace: NDArray[Any]
    home: NDArray[Any]
    home_address: NDArray[Any]
    office: NDArray[Any]
    office_address: NDArray[Any]
    carrier_address: NDArray[Any]
    has_account: NDArray[Any]
    mobile_agent: NDArray[Any]
    desktop_agent: NDArray[Any]
    tablet_agent: NDArray[Any]
    mobile_device: NDArray[Any]
    activity: NDArray[Any]
    buying: NDArray[Any]
    user: NDArray[Any]

    def __len__(self) -> int:
        return len(self.marketplace)


def population(world: World, chunk: int, chunks: int, clicks: int) -> Population:
    """The people who make `clicks` clicks. Keen people both click and buy more."""
    rng = generator(world, chunk, PEOPLE)
    count = max(30, round(clicks / (CLICKS_PER_DAY * world.settings.days)))
    home = np.repeat(np.arange(count), rng.choice([1, 2, 3, 4], count, p=[0.2, 0.35, 0.27, 0.18]))[:count]
    marketplace = rng.choice(len(world.names), home[-1] + 1, p=world.shares)[home]
    office = _offices(rng, marketplace)
    carriers = marketplace * 4096 + (rng.random(count) * np.ceil(count * world.shares[marketplace] / 90)).astype(np.int64)
    keen = rng.normal(size=count)
    mobile_device = np.where(rng.random(count) < 0.07, TABLET, MOBILE)
    return Population(
        marketplace=marketplace,
        home=home,
        home_address=np.where(
            rng.random(count)[home] < 0.26,
            addresses.ipv6(chunk, home, np.zeros(count, dtype=np.int64)),
            addresses.residential(chunk, chunks, home),
        ),
        office=office,
        office_address=addresses.residential(chunk, chunks, count + np.maximum(office, 0)),
        carrier_address=addresses.carrier(chunk, chunks, carriers),
        has_account=rng.random(count) < 0.78,
        mobile_agent=world.browsers(rng, np.full(count, MOBILE)),
        desktop_agent=world.browsers(rng, np.full(count, DESKTOP)),
        tablet_agent=world.browsers(rng, np.full(count, TABLET)),
        mobile_device=mobile_device,
        activity=np.exp(0.9 * keen + rng.normal(0, 0.7, count)),
        buying=np.exp(0.85 * keen + rng.normal(0, 0.7, count)),
        user=numbers(chunk, PEOPLE, count),
    )


def _offices(rng: np.random.Generator, marketplace: NDArray[Any]) -> NDArray[Any]:
    """Office of each person, -1 for most; an office has 50 to 400 people of one marketplace."""
    office = np.full(len(marketplace), -1)
    works = rng.random(len(marketplace)) < 0.22
    opened = 0
    for code in np.unique(marketplace):
        staff = rng.permutation(np.flatnonzero(works & (marketplace == code)))
        while len(staff) >= 20:
            size = int(np.clip(np.exp(rng.normal(np.log(110), 0.6)), 50, 400))
            office[staff[:size]] = opened
            opened, staff = opened + 1, staff[size:]
    return office


def clicks_of_people(world: World, chunk: int, people: Population, count: int) -> tuple[Clicks, NDArray[Any]]:
    """`count` clicks, and the person of each."""
    rng = generator(world, chunk, PEOPLE + 100)
    length, median = lengths_of_visits(rng, count, world.settings.hardness)
    visits = int(np.searchsorted(np.cumsum(length), count)) + 1
    length, median = length[:visits], median[:visits]
    person = rng.choice(len(people), visits, p=people.activity / people.activity.sum())
    where = _where(rng, people, person)
    start = np.zeros(visits, dtype=np.int64)
    for code, rhythm in enumerate(("home", "office", "away")):
        here = where == code
        start[here] = world.times(rng, people.marketplace[person[here]], rhythm)
    gaps = np.clip(np.repeat(median, length) * np.exp(rng.normal(0, 0.9, length.sum())), 0.7, 1500)
    visit, time = spread(length, start, seconds(gaps))
    visit, time = visit[:count], time[:count]
    device, agent, address = _devices(rng, people, person, where)
    logged_in = people.has_account[person] & (rng.random(visits) < np.where(where == 2, 0.66, 0.75))
    time = inside(visit, time, world.end)
    main = world.interests(rng, start)[visit]
    advertiser = np.where(rng.random(count) < 0.55, main, world.interests(rng, time))
    campaign, cost = priced(rng, world, advertiser)
    return Clicks(
        number=numbers(chunk, PEOPLE, count),
        time=time,
        user=people.user[person][visit],
        session=numbers(chunk, PEOPLE, visits)[visit],
        address=address[visit],
        agent=agent[visit],
        device=device[visit],
        marketplace=people.marketplace[person][visit],
        logged_in=logged_in[visit],
        advertiser=advertiser,
        campaign=campaign,
        cost=cost,
        filter=np.zeros(count, dtype=np.int64),
        arrival=delivered(rng, time),
        kind=np.zeros(count, dtype=np.int64),
    ), person[visit]


def _where(rng: np.random.Generator, people: Population, person: NDArray[Any]) -> NDArray[Any]:
    """Place of each visit: 0 home, 1 office, 2 on the road."""
    at_work = (people.office[person] >= 0) & (rng.random(len(person)) < 0.45)
    return np.where(at_work, 1, np.where(rng.random(len(person)) < 0.3, 2, 0))


def _devices(
    rng: np.random.Generator, people: Population, person: NDArray[Any], where: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Device, user agent and address of each visit. In a home with IPv6 each device has an address of its own."""
    at_desk = np.where(where == 1, rng.random(len(person)) < 0.85, (where == 0) & (rng.random(len(person)) < 0.5))
    device = np.where(at_desk, DESKTOP, people.mobile_device[person])
    agent = np.choose(device, [people.desktop_agent[person], people.mobile_agent[person], people.tablet_agent[person]])
    home = people.home_address[person]
    home = np.where(home >= addresses.IPV6, home | (person % 64) * 3 + device + 1, home)
    address = np.where(where == 0, home, np.where(where == 1, people.office_address[person], people.carrier_address[person]))
    return device, agent, address


def orders_of_people(world: World, chunk: int, people: Population, clicks: Clicks, person: NDArray[Any]) -> Orders:
    """Orders after clicks, and orders of the history and of the simulated days that no ad led to."""
    rng = generator(world, chunk, ORDERS)
    return concat([_orders_after_clicks(rng, world, chunk, people, clicks, person), _other_orders(rng, world, chunk, people)])


def _orders_after_clicks(
    rng: np.random.Generator, world: World, chunk: int, people: Population, clicks: Clicks, person: NDArray[Any]
) -> Orders:
    """Most orders follow within the hour, some up to 40 hours later and then often in another session of the account."""
    weight = people.buying[person] ** 0.6 * np.where(clicks.logged_in, 1.0, 0.35)
    chance = np.minimum(weight * BUYING_SHARE / weight.mean(), 0.5)
    chosen = np.flatnonzero(rng.random(len(clicks)) < chance)
    bought = clicks.take(chosen)
    slow = rng.random(len(chosen)) < 0.25
    hours = np.where(slow, rng.gamma(1.6, 6.0, len(chosen)), np.exp(rng.normal(np.log(0.3), 1.0, len(chosen))))
    time = bought.time + np.maximum(seconds(np.clip(hours, 0.01, 40) * 3600), 1)
    elsewhere = bought.logged_in & (hours > 1) & (rng.random(len(chosen)) < 0.6)
    return Orders(
        number=numbers(chunk, ORDERS, len(chosen)),
        user=bought.user,
        session=np.where(elsewhere, numbers(chunk, ORDERS, len(chosen)), bought.session),
        logged_in=bought.logged_in,
        time=time,
        marketplace=bought.marketplace,
        advertiser=bought.advertiser,
        amount=_amounts(rng, people.buying[person[chosen]]),
        cancelled=rng.random(len(chosen)) < 0.03,
        click=np.where(rng.random(len(chosen)) < 0.2, bought.number, -1),
        arrival=delivered(rng, time),
    )


def _other_orders(rng: np.random.Generator, world: World, chunk: int, people: Population) -> Orders:
    """Orders without a click, from 90 days before the start; what gives accounts their recency, frequency and value."""
    rate = people.buying * np.where(people.has_account, 1.0, 0.3)
    rate *= HISTORY_ORDERS * (HISTORY_DAYS + world.settings.days) / HISTORY_DAYS / rate.mean()
    person = np.repeat(np.arange(len(people)), rng.poisson(rate))
    count = len(person)
    time = world.times(rng, people.marketplace[person], "home", history=True)
    advertiser = rng.choice(ADVERTISERS, count, p=world.advertiser_shares)
    return Orders(
        number=numbers(chunk, ORDERS + 1, count),
        user=people.user[person],
        session=numbers(chunk, ORDERS + 1, count),
        logged_in=people.has_account[person] & (rng.random(count) < 0.93),
        time=time,
        marketplace=people.marketplace[person],
        advertiser=np.where(rng.random(count) < 0.15, -1, advertiser),
        amount=_amounts(rng, people.buying[person]),
        cancelled=rng.random(count) < 0.03,
        click=np.full(count, -1, dtype=np.int64),
        arrival=delivered(rng, time),
    )


def _amounts(rng: np.random.Generator, buying: NDArray[Any]) -> NDArray[Any]:
    """Values of orders in micro-units, about 30 units; keen buyers spend more."""
    value = 28e6 * buying**0.25 * np.exp(rng.normal(0, 0.7, len(buying)))
    found: NDArray[Any] = np.clip(value, 2e6, 2e9).astype(np.int64) // 10_000 * 10_000
    return found
