"""Random histories of one lake without Spark: first decisions, replays, reverts, and what each click is charged after each of them.

The oracle is `oracles_replay.rerun`, the published state by running history again; corrections are differences of it.
"""

import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from slidr import direct
from slidr.direct import Place
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAYS, Table
from tests.frames import at, click
from tests.oracles_replay import Verdict, rerun

START = at("2026-01-30 12:00:00")
ADVERTISERS = ("adv-1", "adv-2", "../<script>alert(1)</script>/x")
HOURS = {"US": -5, "DE": 1}  # in winter
Key = tuple[str, str, str, str]  # advertiser, month, campaign, currency


@dataclass
class History:
    """`sums`: by key and line, [clicks, clicks without a price, micro-units], as the statement has to have them."""

    clicks: dict[str, dict[str, Any]]
    events: list[tuple[Any, ...]] = field(default_factory=list)
    state: dict[str, tuple[bool, str]] = field(default_factory=dict)
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    corrections: list[dict[str, Any]] = field(default_factory=list)
    publications: int = 0
    sums: dict[tuple[Key, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))

    def count(self, name: str, line: str, sign: int = 1) -> None:
        row = self.clicks[name]
        key = (row["advertiser_id"], f"{row['local_date']:%Y-%m}", row["campaign_id"], row["currency"])
        cost = row["cost_micros"]
        found = self.sums[key, line]
        found[0], found[1], found[2] = found[0] + 1, found[1] + (cost is None), found[2] + sign * (cost or 0)

    def first(self, name: str, invalid: bool, time: datetime) -> None:
        free = self.clicks[name]["upstream_filter"] is not None
        self.decisions[name] = decision(self.clicks[name], invalid or free, "givt" if free else "sivt", time)
        if name not in self.state and (invalid or free):
            self.count(name, "givt" if free else "at_once")
        self.events.append(("first", name, invalid or free))
        self.state = rerun(self.events)

    def publish(self, event: tuple[Any, ...], time: datetime) -> None:
        before = self.state
        self.events.append(event)
        self.state = rerun(self.events)
        moved = []
        for name in sorted(self.clicks):
            old, new = before.get(name, (False,))[0], self.state.get(name, (False,))[0]
            if old != new:
                moved.append(correction(self.clicks[name], new, before.get(name, (None,))[0], time))
                self.count(name, "credited" if new else "recharged", -1 if new else 1)
        self.publications += bool(moved)
        numbered = {"publication_no": self.publications, "replay_id": event[1]}
        self.corrections += [{**row, **numbered, "ordinal": place} for place, row in enumerate(moved, start=1)]

    def finish(self) -> None:
        for name in self.clicks:
            if name in self.state:
                self.count(name, "gross")
                if not self.state[name][0]:
                    self.count(name, "valid")
            elif self.clicks[name]["upstream_filter"] is None:
                self.count(name, "undecided")

    def write(self, place: Place) -> None:
        published = [self.current(name) for name in self.state]
        for table, rows in {
            CLICKS: list(self.clicks.values()),
            DECISIONS: list(self.decisions.values()),
            CORRECTIONS: self.corrections,
            CURRENT_DECISIONS: published,
        }.items():
            add(place, table, rows)
        direct.create(place, REPLAYS)

    def current(self, name: str) -> dict[str, Any]:
        first = self.decisions.get(name)
        invalid, by = self.state[name]
        found = first or decision(self.clicks[name], invalid, "sivt", START)
        own = {"is_invalid": invalid, "first_is_invalid": first["is_invalid"] if first else None}
        return {**found, **own, "ivt_class": found["ivt_class"] if invalid else None, "replay_id": None if by == "first" else by}


def add(place: Place, table: Table, rows: list[dict[str, Any]]) -> None:
    direct.create(place, table)
    if rows:
        direct.add(place, table, [{name: row.get(name) for name in table.names} for row in rows])


def decision(row: dict[str, Any], invalid: bool, ivt_class: str, time: datetime) -> dict[str, Any]:
    named = {"slice": "secret-slice", "report_slice": "secret-report-slice", "score": 0.123456, "threshold": 0.654321}
    decided = {"is_invalid": invalid, "ivt_class": ivt_class if invalid else None, "basis": "upstream" if ivt_class == "givt" else "model"}
    reasons = {"reason_class": "secret-class", "reason_1": "secret-reason", "model_version": "secret-version", "spec_id": "secret-spec"}
    return {**row, **named, **decided, **reasons, "run_id": "secret-run", "decided_time": time}


def correction(row: dict[str, Any], invalid: bool, old: bool | None, time: datetime) -> dict[str, Any]:
    cost = row["cost_micros"]
    delta = None if cost is None else -cost if invalid else cost
    said = {"direction": "invalidate" if invalid else "reinstate", "delta_cost_micros": delta, "old_is_invalid": old}
    named = {"billing_month": f"{row['local_date']:%Y-%m}", "new_is_invalid": invalid, "reason_class": "secret-class", "mode": "rescore"}
    return {**row, **said, **named, "published_time": time, "correction_date": time.date()}


def made(seed: int, clicks: int = 60, steps: int = 50) -> History:
    """Clicks around the ends of two months, then random events some days to months after them."""
    rng = random.Random(seed)
    history = History({row["click_id"]: row for row in (made_click(number, rng) for number in range(clicks))})
    names, replays = sorted(history.clicks), []
    for step in range(steps):
        time = START + timedelta(days=step * 2, hours=rng.randrange(24))
        undecided = [name for name in names if name not in history.decisions]
        kind = rng.random()
        if kind < 0.5 and undecided:
            for name in rng.sample(undecided, min(4, len(undecided))):
                history.first(name, rng.random() < 0.4, time)
        elif kind < 0.75 or not replays:
            replays.append(f"replay-{step}")
            chosen = rng.sample(names, 15)
            history.publish(("replay", replays[-1], {name: verdict(history, name, rng) for name in chosen}), time)
        else:
            target = replays.pop(rng.randrange(len(replays)))
            replays.append(f"revert-{step}")
            history.publish(("revert", replays[-1], target), time)
    history.finish()
    return history


def verdict(history: History, name: str, rng: random.Random) -> Verdict:
    free = history.clicks[name]["upstream_filter"] is not None
    return Verdict(rng.random() < 0.5, "none" if free else rng.choice(["full", "credit"]), name in history.decisions)


def made_click(number: int, rng: random.Random) -> dict[str, Any]:
    market = rng.choice(sorted(HOURS))
    time = START + timedelta(hours=rng.choice([rng.randrange(72), rng.randrange(24 * 40)]))
    given = {
        "local_date": (time + timedelta(hours=HOURS[market])).date(),
        "marketplace": market,
        "advertiser_id": rng.choice(ADVERTISERS),
        "campaign_id": rng.choice(["=cmd", "summer"]),
        "cost_micros": rng.choice([None, 100_000 + number, 1, 0, 10**12 + 1]),
        "currency": rng.choice(["USD", "EUR"]),
        "upstream_filter": rng.choice([None, None, None, "secret-filter"]),
        "user_id": "secret-user",
        "session_id": "secret-session",
        "ip": "203.0.113.77",
        "ip_key": "203.0.113.77",
    }
    return click(f"secret-click-{number:03d}", time, **given)
