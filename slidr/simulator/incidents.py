"""What incidents do to the clicks and orders of a chunk, and to logged features."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.errors import InputError
from slidr.simulator.clicks import INCIDENTS, LATE, Clicks, Orders, generator
from slidr.simulator.settings import Duplicates, Incident, LabelOutage, Late
from slidr.simulator.world import DAY, HOUR, World, micros


def _during(incident: Incident, time: NDArray[Any]) -> NDArray[Any]:
    return (time >= micros(incident.start)) & (time < micros(incident.end))


def delay_clicks(world: World, chunk: int, clicks: Clicks) -> Clicks:
    """The clicks with the arrival times that `Late` incidents give them."""
    arrival = clicks.arrival.copy()
    for order, incident in enumerate(world.settings.incidents):
        if isinstance(incident, Late):
            rng = generator(world, chunk, INCIDENTS + order)
            hit = _during(incident, clicks.time) & (rng.random(len(clicks)) < incident.share)
            hours = rng.uniform(*incident.hours, len(clicks))
            arrival = np.where(hit, clicks.time + (hours * HOUR).astype(np.int64), arrival)
    clicks.arrival = arrival
    return clicks


def second_copies(world: World, chunk: int, clicks: Clicks) -> Clicks:
    """The rows that `Duplicates` incidents deliver again; a few with another cost."""
    copies = np.zeros(len(clicks), dtype=bool)
    cost = clicks.cost.copy()
    for order, incident in enumerate(world.settings.incidents):
        if isinstance(incident, Duplicates):
            rng = generator(world, chunk, INCIDENTS + order)
            hit = _during(incident, clicks.time) & (rng.random(len(clicks)) < incident.share)
            cost = np.where(hit & (rng.random(len(clicks)) < incident.conflict_share), clicks.cost + 10_000, cost)
            copies |= hit
    doubled = clicks.take(np.flatnonzero(copies))
    doubled.cost = cost[copies]
    return doubled


def split_orders(world: World, chunk: int, orders: Orders) -> tuple[Orders, Orders]:
    """Orders that arrive as they should, and those that a `LabelOutage` holds back until days after its end."""
    rng = generator(world, chunk, LATE)
    late = np.zeros(len(orders.time), dtype=bool)
    hour = orders.time % DAY // HOUR
    arrival = orders.arrival.copy()
    for incident in world.settings.incidents:
        if isinstance(incident, LabelOutage):
            hit = _during(incident, orders.time) & (hour >= incident.hours[0]) & (hour < incident.hours[1])
            back = micros(incident.end) + int(incident.late_days * DAY) + rng.integers(0, 6 * HOUR, len(hit))
            arrival = np.where(hit, np.maximum(arrival, back), arrival)
            late |= hit
    orders.arrival = arrival
    return orders.take(np.flatnonzero(~late)), orders.take(np.flatnonzero(late))


def damage_features(
    features: DataFrame, *, start: datetime, end: datetime, spec_columns: Sequence[str], damage: str = "zeros"
) -> DataFrame:
    """`logged` rows of a features table as a live system with broken counters would have logged them.

    features: right rows of one origin, one per click. spec_columns: the feature columns; the user and address counters among
    them (`user_…`, `ip_…`) become 0 (`zeros`) or half, rounded down (`halved`), for clicks in [start, end); NULL stays NULL.
    The other rows are right. Raises InputError where no column is a user or address counter.
    """
    broken = {name for name in spec_columns if name.startswith(("user_", "ip_")) and not name.endswith("since_prev")}
    if not broken or damage not in ("zeros", "halved"):
        raise InputError(f"expected user_ or ip_ counters and damage zeros or halved, found {list(spec_columns)} and {damage!r}")
    inside = (F.col("click_time") >= F.lit(start)) & (F.col("click_time") < F.lit(end))
    columns = []
    for field in features.schema.fields:
        right = F.col(field.name)
        wrong = F.floor(right / 2) if damage == "halved" else right * 0
        wrong = F.when(inside, wrong).otherwise(right).cast(field.dataType) if field.name in broken else right
        columns.append((F.lit("logged") if field.name == "origin" else wrong).alias(field.name))
    return features.select(*columns)
