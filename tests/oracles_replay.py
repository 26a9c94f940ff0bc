"""Replays on plain dictionaries: what the published state and the corrections must be."""

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from slidr.bundle import Bundle
from slidr.replay.request import Request


def naive_count(click: dict[str, Any], clicks: list[dict[str, Any]]) -> int:
    earliest = click["click_time"] - timedelta(hours=1)
    return sum(other["ip_key"] == click["ip_key"] and earliest <= other["click_time"] < click["click_time"] for other in clicks)


def naive_invalid(click: dict[str, Any], clicks: list[dict[str, Any]], bundle: Bundle) -> bool:
    """The decision of a bundle of one layer that looks at one count."""
    (weight, bias), count = bundle.layers[0], naive_count(click, clicks)
    score = round(1 / (1 + math.exp(-(float(weight[0][0]) * math.log1p(count) + float(bias[0])))), 6)
    return score > bundle.thresholds.get(f"{click['device']}/guest", bundle.default_threshold)


def naive_replay(
    state: dict[str, tuple[bool, str]], clicks: list[dict[str, Any]], *, request: Request, number: str, bundle: Bundle, unknown: str
) -> tuple[dict[str, tuple[bool, str]], dict[str, int | None]]:
    """The published state (click_id -> invalid, version) after a replay, and its corrections (click_id -> change of charges).

    `unknown` is the click without features.
    """
    after, corrections = dict(state), {}
    for click in clicks:
        name, cost = click["click_id"], click["cost_micros"]
        old = state.get(name, (None, None))
        outside = not request.start <= click["click_time"] < request.end
        filtered = request.advertisers and click["advertiser_id"] not in request.advertisers
        if outside or filtered or click["upstream_filter"] or (request.decided_by and old[1] != request.decided_by):
            continue
        invalid = name != unknown and naive_invalid(click, clicks, bundle)
        if invalid == old[0] or (old[0] and not (request.allow_charges and name != unknown)):
            continue
        after[name] = (invalid, number)
        if invalid or old[0]:
            sign = -1 if invalid else 1
            corrections[name] = None if cost is None else sign * cost
    return after, corrections


@dataclass(frozen=True)
class Verdict:
    """What a replay says of a click, with what authority, and whether the click had a first decision by then."""

    invalid: bool
    authority: str
    after_first: bool

    def over(self, state: dict[str, tuple[bool, str]], click: str, name: str) -> dict[str, tuple[bool, str]]:
        """The published state (click -> invalid, who decided) after it."""
        there = state.get(click)
        stands = {"full": True, "credit": there is None or self.invalid, "none": False}[self.authority]
        return {**state, click: (self.invalid, name)} if stands and (there is None or there[0] != self.invalid) else state


def rerun(events: list[tuple[Any, ...]]) -> dict[str, tuple[bool, str]]:
    """The published state by running history again without what was reverted: ("first", click, invalid), ("replay", id, {click:
    Verdict}), ("revert", id, target)."""
    gone: set[str] = set()
    for event in reversed(events):
        if event[0] == "revert" and event[1] not in gone:
            gone.add(event[2])
    state: dict[str, tuple[bool, str]] = {}
    for event in events:
        if event[0] == "first":
            state.setdefault(event[1], (event[2], "first"))
        elif event[0] == "replay" and event[1] not in gone:
            for click, verdict in event[2].items():
                state = verdict.over(state, click, event[1])
    return state
