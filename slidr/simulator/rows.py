"""Columns of a chunk as Arrow record batches with the tables' own column names. No Spark here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from slidr.simulator import addresses
from slidr.simulator.clicks import FILTERS, Clicks, Orders
from slidr.simulator.world import DAY, DEVICES, KINDS, World

HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)


def identifiers(letter: str, number: NDArray[Any], seed: int) -> pa.Array:
    """A letter and 16 hexadecimal digits. One-to-one per seed; they tell neither order nor who made them."""
    mixed = number.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + ord(letter)) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    digits = HEX[(mixed ^ (mixed >> np.uint64(31))).astype(">u8").view(np.uint8)].view(np.uint8)
    text = np.full((len(number), 17), ord(letter), dtype=np.uint8)
    text[:, 1:] = digits.reshape(len(number), 16)
    offsets = np.arange(len(number) + 1, dtype=np.int32) * 17
    return pa.StringArray.from_buffers(len(number), pa.py_buffer(offsets), pa.py_buffer(text))


def _names(codes: NDArray[Any], names: Sequence[str]) -> pa.Array:
    """Text of codes; negative codes are NULL."""
    return pa.array(list(names), pa.string()).take(pa.array(codes, mask=codes < 0))


def _only(values: pa.Array, keep: NDArray[Any]) -> pa.Array:
    return pc.if_else(pa.array(keep), values, pa.scalar(None, pa.string()))


def _times(values: NDArray[Any]) -> pa.Array:
    return pa.array(values, pa.int64()).cast(pa.timestamp("us", "UTC"))


def _days(values: NDArray[Any]) -> pa.Array:
    return pa.array((values // DAY).astype(np.int32), pa.int32()).cast(pa.date32())


def _addresses(codes: NDArray[Any]) -> pa.Array:
    distinct, position = np.unique(codes, return_inverse=True)
    return pa.array([addresses.text(code) for code in distinct.tolist()], pa.string()).take(pa.array(position))


def _advertisers(world: World) -> list[str]:
    return [f"adv-{rank:02d}" for rank in range(len(world.advertiser_shares))]


def click_rows(world: World, clicks: Clicks) -> pa.RecordBatch:
    """Canonical clicks, and `day`, the UTC day of their arrival, which becomes their folder."""
    seed, advertisers = world.settings.seed, _advertisers(world)
    campaigns = [f"{advertiser}-c{number}" for advertiser in advertisers for number in range(world.prices.shape[1])]
    return pa.RecordBatch.from_pydict(
        {
            "click_id": identifiers("c", clicks.number, seed),
            "click_time": _times(clicks.time),
            "user_id": _only(identifiers("u", clicks.user, seed), clicks.logged_in),
            "session_id": identifiers("s", clicks.session, seed),
            "ip": _addresses(clicks.address),
            "user_agent": _names(clicks.agent, [agent["user_agent"] for agent in world.agents]),
            "device": _names(clicks.device, DEVICES),
            "marketplace": _names(clicks.marketplace, world.names),
            "logged_in": pa.array(clicks.logged_in),
            "advertiser_id": _names(clicks.advertiser, advertisers),
            "campaign_id": _names(clicks.advertiser * world.prices.shape[1] + clicks.campaign, campaigns),
            "cost_micros": pa.array(clicks.cost),
            "currency": _names(clicks.marketplace, world.currencies),
            "upstream_filter": _names(clicks.filter - 1, FILTERS),
            "arrival_time": _times(clicks.arrival),
            "day": _days(clicks.arrival),
        }
    )


def order_rows(world: World, orders: Orders) -> pa.RecordBatch:
    """Canonical purchases."""
    seed = world.settings.seed
    return pa.RecordBatch.from_pydict(
        {
            "order_id": identifiers("o", orders.number, seed),
            "user_id": _only(identifiers("u", orders.user, seed), orders.logged_in),
            "session_id": identifiers("s", orders.session, seed),
            "purchase_time": _times(orders.time),
            "marketplace": _names(orders.marketplace, world.names),
            "advertiser_id": _names(orders.advertiser, _advertisers(world)),
            "amount_micros": pa.array(orders.amount),
            "currency": _names(orders.marketplace, world.currencies),
            "cancelled": pa.array(orders.cancelled),
            "click_id": _only(identifiers("c", orders.click, seed), orders.click >= 0),
            "arrival_time": _times(orders.arrival),
        }
    )


def kind_rows(world: World, clicks: Clicks) -> pa.RecordBatch:
    """Who made each click."""
    return pa.RecordBatch.from_pydict(
        {
            "click_id": identifiers("c", clicks.number, world.settings.seed),
            "is_robot": pa.array(clicks.kind > 0),
            "kind": _names(clicks.kind, KINDS),
        }
    )
