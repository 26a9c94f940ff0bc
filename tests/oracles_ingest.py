"""The naive truth for ingest, in plain Python."""

import ipaddress
from collections.abc import Iterable


def ip_key(address: str) -> str:
    """IPv4 as it is, IPv6 as its /64, an IPv4 address inside IPv6 as that; anything else is its own key."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.strip().split("%")[0].strip("[]"))
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network(f"{parsed}/64", strict=False))


def sessions(clicks: Iterable[tuple[str, int, str | None, str | None, str | None]], gap: int) -> dict[str, str]:
    """click_id -> first click of its session, from (click_id, time, user, ip, agent), by comparing every pair."""
    clicks = sorted(clicks, key=lambda c: (c[1], c[0]))
    first: dict[str, str] = {}
    for position, (click, time, user, ip, agent) in enumerate(clicks):
        key = ("user", user) if user else ("ip", ip, agent) if ip else ("click", click)
        earlier = [c for c in clicks[:position] if key == (("user", c[2]) if c[2] else ("ip", c[3], c[4]) if c[3] else ("click", c[0]))]
        first[click] = first[earlier[-1][0]] if earlier and time - earlier[-1][1] <= gap else click
    return first
