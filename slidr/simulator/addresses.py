"""Addresses as integer codes. All of them come from ranges that are nobody's: private, shared, benchmark, documentation.

An IPv4 address is its own 32 bits. An IPv6 address is bit 62, then the number of its home (a /64), then 8 bits of device.
"""

import ipaddress
from typing import Any

from numpy.typing import NDArray

RESIDENTIAL = int(ipaddress.IPv4Address("10.0.0.0"))  # /8: homes, offices, devices taken over by robots
CARRIER = int(ipaddress.IPv4Address("100.64.0.0"))  # /10: shared by the customers of a mobile carrier
DATACENTER = int(ipaddress.IPv4Address("198.18.0.0"))  # /15: rented servers
DOCUMENTATION = int(ipaddress.IPv6Address("2001:db8::"))
IPV6 = 1 << 62


def _shuffled(number: NDArray[Any], bits: int) -> NDArray[Any]:
    """A one-to-one map of [0, 2^bits), so that neighbours in number are not neighbours in address."""
    mask = (1 << bits) - 1
    mixed = (number * 0x9E3779B1) & mask
    mixed ^= mixed >> (bits // 2)
    return (mixed * 0x85EBCA6B) & mask


def _within(chunk: int, chunks: int, bits: int, number: NDArray[Any]) -> NDArray[Any]:
    """Numbers of a chunk in its own part of the range; very large runs use addresses again, as real networks do."""
    return (chunk * max(1, (1 << bits) // chunks) + number) & ((1 << bits) - 1)


def residential(chunk: int, chunks: int, number: NDArray[Any]) -> NDArray[Any]:
    return RESIDENTIAL + _shuffled(_within(chunk, chunks, 24, number), 24)


def carrier(chunk: int, chunks: int, number: NDArray[Any]) -> NDArray[Any]:
    return CARRIER + _shuffled(_within(chunk, chunks, 22, number), 22)


def datacenter(chunk: int, chunks: int, number: NDArray[Any]) -> NDArray[Any]:
    return DATACENTER + _shuffled(_within(chunk, chunks, 17, number), 17)


def ipv6(chunk: int, home: NDArray[Any], device: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = IPV6 | (chunk << 24 | home) << 8 | device
    return found


def text(code: int) -> str:
    """The address as written in a log."""
    if code < IPV6:
        return f"{code >> 24}.{code >> 16 & 255}.{code >> 8 & 255}.{code & 255}"
    home, device = (code - IPV6) >> 8 & 0xFFFFFFFF, code & 255
    interface = (home * 0x9E3779B97F4A7C15 + device * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF
    return str(ipaddress.IPv6Address(DOCUMENTATION | home << 64 | interface))
