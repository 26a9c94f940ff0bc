"""What all chunks share: places and their hours, advertisers, sales, user agents. Made from the seed alone; no Spark here.

Times are integer microseconds since 1970-01-01 UTC. Hours are indices from `HISTORY_DAYS` before the start.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from slidr.simulator.settings import Drift, Sale, Simulation

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
HISTORY_DAYS = 90
ADVERTISERS = 40
CAMPAIGNS = 6  # at most, per advertiser
CURRENCIES = {"US": "USD", "DE": "EUR", "JP": "JPY", "IN": "INR"}
DEVICES = ("desktop", "mobile", "tablet")
DESKTOP, MOBILE, TABLET = range(3)
KINDS = ("human", "flood", "botnet", "night_crawler", "slow_account", "mimic", "office_hider", "declared", "attack")

# Weight of each local hour, and of a Saturday or Sunday against a working day.
RHYTHMS = {
    "home": ([12, 7, 4, 3, 3, 5, 10, 18, 24, 27, 29, 30, 32, 31, 30, 31, 35, 42, 52, 62, 70, 68, 50, 28], 1.35),
    "office": ([0, 0, 0, 0, 0, 0, 1, 6, 22, 38, 42, 45, 62, 48, 40, 38, 34, 24, 9, 3, 1, 0, 0, 0], 0.12),
    "away": ([8, 4, 2, 2, 3, 8, 22, 42, 40, 30, 28, 34, 48, 44, 34, 34, 40, 50, 54, 52, 50, 46, 34, 18], 1.1),
    "night": ([60, 60, 50, 25, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20], 1.0),
    "morning": ([0, 0, 0, 0, 0, 8, 30, 50, 30, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1.0),
    "flat": ([1] * 24, 1.0),
}


def micros(moment: datetime) -> int:
    """Microseconds since 1970 of a time with an offset, exact."""
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)


@dataclass(frozen=True)
class World:
    settings: Simulation

    @property
    def start(self) -> int:
        return micros(self.settings.start_time)

    @property
    def end(self) -> int:
        return micros(self.settings.end_time)

    @property
    def origin(self) -> int:
        """Time of hour 0."""
        return self.start - HISTORY_DAYS * DAY

    @cached_property
    def names(self) -> list[str]:
        return list(self.settings.marketplaces)

    @cached_property
    def currencies(self) -> list[str]:
        return [CURRENCIES.get(name, "USD") for name in self.names]

    @cached_property
    def shares(self) -> NDArray[Any]:
        """Share of each marketplace in people."""
        weights = 1 / np.arange(1.0, len(self.names) + 1)
        found: NDArray[Any] = weights / weights.sum()
        return found

    @cached_property
    def local(self) -> NDArray[Any]:
        """Local hour of the week (Monday 0:00 = 0) by marketplace and UTC hour; follows daylight-saving changes."""
        first = self.settings.start_time - timedelta(days=HISTORY_DAYS)
        hours = [first + timedelta(hours=h) for h in range((HISTORY_DAYS + self.settings.days) * 24)]
        zones = [ZoneInfo(zone) for zone in self.settings.marketplaces.values()]
        return np.array([[t.weekday() * 24 + t.hour for t in (h.astimezone(zone) for h in hours)] for zone in zones])

    @cached_property
    def weights(self) -> dict[str, NDArray[Any]]:
        """Relative traffic by rhythm: array of marketplace by UTC hour."""
        rng = np.random.default_rng([self.settings.seed, 1])
        days = np.repeat(rng.gamma(60, 1 / 60, self.local.shape[1] // 24), 24)
        sale = 1 + self.boosts * self.advertiser_shares[np.maximum(self.sales, 0)]
        weights = {}
        for name, (hours, weekend) in RHYTHMS.items():
            base = np.array(hours, dtype=float)[self.local % 24] * np.where(self.local >= 120, weekend, 1.0)
            weights[name] = base * (days * sale if name in ("home", "office", "away") else 1.0)
        return weights

    @cached_property
    def sales(self) -> NDArray[Any]:
        """Advertiser on sale by UTC hour, -1 where there is none: one sale of 6 hours in about ten days, and those asked for."""
        rng = np.random.default_rng([self.settings.seed, 2])
        sales = np.full(self.local.shape[1], -1)
        for _ in range(max(1, round(self.settings.days / 10))):
            first = HISTORY_DAYS * 24 + rng.integers(self.settings.days) * 24 + 12
            sales[first : first + 6] = rng.integers(ADVERTISERS // 4)
        for sale, hours in self._asked:
            sales[hours] = sale.advertiser
        return sales

    @cached_property
    def boosts(self) -> NDArray[Any]:
        """How many times more clicks than usual people make on the advertiser on sale, by UTC hour; 0 where there is no sale."""
        boosts = np.where(self.sales >= 0, 4.0, 0.0)
        for sale, hours in self._asked:
            boosts[hours] = sale.multiple - 1
        return boosts

    @property
    def _asked(self) -> list[tuple[Sale, slice]]:
        """`Sale` incidents with their hours."""
        sales = [incident for incident in self.settings.incidents if isinstance(incident, Sale)]
        return [(sale, slice(*((micros(edge) - self.origin) // HOUR for edge in (sale.start, sale.end)))) for sale in sales]

    def slowness(self, times: NDArray[Any]) -> NDArray[Any]:
        """What robots' gaps are multiplied with at these times; 1 without a `Drift`."""
        factor = np.ones(len(times))
        for incident in self.settings.incidents:
            if isinstance(incident, Drift):
                start, end = micros(incident.start), micros(incident.end)
                factor *= 1 + (incident.slower - 1) * np.clip((times - start) / (end - start), 0, 1)
        return factor

    @cached_property
    def advertiser_shares(self) -> NDArray[Any]:
        weights = np.arange(1.0, ADVERTISERS + 1) ** -0.9
        found: NDArray[Any] = weights / weights.sum()
        return found

    @cached_property
    def campaigns(self) -> NDArray[Any]:
        """Number of campaigns of each advertiser."""
        return np.random.default_rng([self.settings.seed, 3]).integers(1, CAMPAIGNS + 1, ADVERTISERS)

    @cached_property
    def prices(self) -> NDArray[Any]:
        """Usual price of a click in micro-units, by advertiser and campaign."""
        rng = np.random.default_rng([self.settings.seed, 4])
        found: NDArray[Any] = np.exp(rng.normal(np.log(400_000), 0.7, (ADVERTISERS, CAMPAIGNS)))
        return found

    @cached_property
    def agents(self) -> list[dict[str, Any]]:
        """Browsers with device and weight, see LICENSE.user-agents; the last are declared robots, of weight 0."""
        text = resources.files("slidr.simulator").joinpath("user_agents.json").read_text(encoding="utf-8")
        crawlers = [f"Mozilla/5.0 (compatible; ExampleBot/{n}.0; +https://bot.example/about)" for n in (1, 2)]
        found: list[dict[str, Any]] = json.loads(text) + [
            {"device": "desktop", "weight": 0.0, "user_agent": crawler} for crawler in crawlers
        ]
        return found

    def times(self, rng: np.random.Generator, marketplace: NDArray[Any], rhythm: str, history: bool = False) -> NDArray[Any]:
        """Random times by the rhythm of each marketplace, in the simulated days, or from the begin of the history."""
        first = 0 if history else HISTORY_DAYS * 24
        times = np.zeros(len(marketplace), dtype=np.int64)
        for code in range(len(self.names)):
            here = np.flatnonzero(marketplace == code)
            cumulative = np.cumsum(self.weights[rhythm][code, first:])
            hour = np.searchsorted(cumulative, rng.random(len(here)) * cumulative[-1], side="right")
            times[here] = self.origin + (first + hour) * HOUR + rng.integers(0, HOUR, len(here))
        return times

    def times_on(self, rng: np.random.Generator, marketplace: NDArray[Any], rhythm: str, day: NDArray[Any]) -> NDArray[Any]:
        """Random times by the rhythm, each on its given day (0 is the first simulated UTC day)."""
        hours = (HISTORY_DAYS + day)[:, None] * 24 + np.arange(24)
        cumulative = np.cumsum(self.weights[rhythm][marketplace[:, None], hours] + 1e-9, axis=1)
        hour = (rng.random(len(day))[:, None] * cumulative[:, -1:] >= cumulative).sum(axis=1)
        found: NDArray[Any] = self.start + day * DAY + hour * HOUR + rng.integers(0, HOUR, len(day))
        return found

    def interests(self, rng: np.random.Generator, times: NDArray[Any]) -> NDArray[Any]:
        """An advertiser for each time, by size; one on sale is as many times as likely as its sale says, five times as a rule."""
        advertiser = rng.choice(ADVERTISERS, len(times), p=self.advertiser_shares)
        hour = np.clip((times - self.origin) // HOUR, 0, len(self.sales) - 1)
        sale, boost = self.sales[hour], self.boosts[hour]
        share = self.advertiser_shares[np.maximum(sale, 0)]
        return np.where((sale >= 0) & (rng.random(len(times)) < boost * share / (1 + boost * share)), sale, advertiser)

    def browsers(self, rng: np.random.Generator, device: NDArray[Any], common: bool = False) -> NDArray[Any]:
        """A user agent that fits each device; `common` takes only the three most frequent of each."""
        chosen = np.zeros(len(device), dtype=np.int64)
        for code, name in enumerate(DEVICES):
            fits = [i for i, agent in enumerate(self.agents) if agent["device"] == name and agent["weight"] > 0][: 3 if common else None]
            weights = np.array([self.agents[i]["weight"] for i in fits])
            here = np.flatnonzero(device == code)
            chosen[here] = rng.choice(fits, len(here), p=weights / weights.sum())
        return chosen
