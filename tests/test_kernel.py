"""The kernel against every pair of clicks, on random events made of ties, NULLs and window edges."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slidr.features import kernel
from slidr.features.spec import SECOND, FeatureSpec, micros
from tests.oracles import naive_features

SPEC = FeatureSpec.from_dict(
    {
        "entities": {"ip": ["ip_key"]},
        "counters": [
            {"entity": "ip", "measure": "clicks", "windows": ["1m", "1h"]},
            {"entity": "ip", "measure": "since_prev", "windows": ["1h"]},
            {"entity": "ip", "measure": "users", "distinct": "user_id", "windows": ["1m", "1h"]},
        ],
        "time_of_click": False,
        "logged_in": False,
    }
)
# Offsets that fall on and around the edges of the windows, so that ties and exact distances are common.
OFFSETS = [0, 1, micros("1m") - 1, micros("1m"), micros("1m") + 1, micros("1h") - 1, micros("1h"), micros("1h") + 1]
EVENT = st.tuples(
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, 7, 8, 9]),
    st.builds(lambda base, offset: base * 30 * SECOND + offset, st.integers(0, 3), st.sampled_from(OFFSETS)),
    st.sampled_from([0, 1, -1, -micros("1m"), micros("1m"), micros("1h")]),
)


@dataclass
class Arrays:
    """Clicks in arrays; columns by name."""

    columns: dict[str, tuple[np.ndarray, np.ndarray]]  # code, check
    times: np.ndarray
    arrivals: np.ndarray | None = None

    def code(self, name: str) -> np.ndarray:
        return self.columns[name][0]

    def check(self, name: str) -> np.ndarray:
        return self.columns[name][1]

    def time(self) -> np.ndarray:
        return self.times

    def arrival(self) -> np.ndarray:
        assert self.arrivals is not None
        return self.arrivals


def run(events: list[tuple], known: str) -> list[dict[str, float | None]]:
    ip, user, time, delay = zip(*events, strict=True)
    time = np.array(time, dtype=np.int64)
    clicks = Arrays({"ip": codes(ip), "user_id": codes(user)}, time, time + np.array(delay, dtype=np.int64))
    results = dict(kernel.count(clicks, "ip", SPEC.counters, then=known == "then"))
    return [{name: float(r.value[i]) if r.known[i] else None for name, r in results.items()} for i in range(len(events))]


def codes(values: tuple) -> tuple[np.ndarray, np.ndarray]:
    return np.array([v or 0 for v in values], dtype=np.int64), np.array([v is not None for v in values], dtype=np.int32)


def expected(events: list[tuple], known: str) -> list[dict[str, float | None]]:
    clicks = [
        {"click_id": i, "ip_key": ip, "user_id": user, "time": time, "arrival": time + delay}
        for i, (ip, user, time, delay) in enumerate(events)
    ]
    rows = naive_features(clicks, SPEC, known)
    return [rows[i] for i in range(len(events))]


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=40), st.sampled_from(["then", "now"]))
def test_equals_every_pair_of_clicks(events: list[tuple], known: str) -> None:
    assert run(events, known) == expected(events, known)


def test_keys_that_do_not_fit_one_axis_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    events = [(int(random.integers(1, 20)), int(random.integers(1, 4)), int(t), 0) for t in random.integers(0, micros("1h"), 300)]
    whole = run(events, "now")
    monkeypatch.setattr(kernel, "AXIS_LIMIT", 3 * micros("1h"))
    assert run(events, "now") == whole == expected(events, "now")


def test_a_giant_key_costs_what_its_clicks_cost() -> None:
    rows = 1_000_000
    time = np.sort(np.random.default_rng(2).integers(0, micros("7d"), rows)).astype(np.int64)
    one_key = (np.ones(rows, dtype=np.int64), np.ones(rows, dtype=np.int32))
    result = dict(kernel.count(Arrays({"ip": one_key, "user_id": one_key}, time), "ip", SPEC.counters, then=False))
    assert result["ip_clicks_1h"].value[-1] == np.sum((time >= time[-1] - micros("1h")) & (time < time[-1]))
    assert result["ip_users_1h"].value.max() == 1


@pytest.mark.parametrize("known", ["then", "now"])
def test_chunks_and_wide_counts_change_nothing(monkeypatch: pytest.MonkeyPatch, known: str) -> None:
    random = np.random.default_rng(4)
    times, delays = random.integers(0, micros("2h"), 300), random.integers(0, micros("1h"), 300)
    events = [
        (int(n % 3), int(random.integers(1, 60)), int(time), int(delay)) for n, (time, delay) in enumerate(zip(times, delays, strict=True))
    ]
    monkeypatch.setattr(kernel, "CHUNK", 7)
    monkeypatch.setattr(kernel, "WIDE", 3)
    assert run(events, known) == expected(events, known)


@pytest.mark.parametrize("late", range(12))
def test_one_late_click_is_found_wherever_the_parts_end(monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    events = [(1, 1, place * 1_000_000, 11_500_000 if place == late else 0) for place in range(13)]
    monkeypatch.setattr(kernel, "CHUNK", 4)
    assert run(events, "then") == expected(events, "then") != expected(events, "now")


@pytest.mark.parametrize("groups", [1, 60])
def test_values_that_share_the_upper_bits_of_their_hash_are_told_apart(groups: int) -> None:
    """Of 1,000 clicks the number takes ten bits, so the hashes of a group differ only in bits that the first sort doesn't see."""
    random = np.random.default_rng(5)
    users = (random.integers(0, groups, 1000) << 20) + random.integers(1, 400 // groups, 1000)
    events = [(1, int(user), int(t), 0) for user, t in zip(users, random.integers(0, micros("2h"), 1000), strict=True)]
    assert run(events, "now") == expected(events, "now")


def test_different_values_of_one_hash_are_refused() -> None:
    rows = 50
    check = np.ones(rows, dtype=np.int32)
    check[-1] = 2
    key, collides = (np.ones(rows, dtype=np.int64), np.ones(rows, dtype=np.int32)), (np.full(rows, 9, dtype=np.int64), check)
    time = np.arange(rows, dtype=np.int64)
    for columns in ({"ip": collides, "user_id": key}, {"ip": key, "user_id": collides}):
        with pytest.raises(ValueError, match="same 64-bit hash"):
            dict(kernel.count(Arrays(columns, time), "ip", SPEC.counters, then=False))
