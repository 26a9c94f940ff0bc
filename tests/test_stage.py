"""Stages without Spark: a plan run on arrays, in memory and from files, equal to every pair of clicks."""

import random

import numpy as np
import pyarrow as pa
import pytest

from slidr.features import store as stores
from slidr.features.cargo import FLAGS, LOGGED_IN, WANTED, Layout, Records, packed
from slidr.features.counters import families, plan
from slidr.features.spec import FeatureSpec
from slidr.features.stage import Stage
from tests.oracles import naive_features
from tests.test_counters import KEYS, random_clicks

SPEC = FeatureSpec.from_dict(
    {
        "entities": {"ip": ["ip_key"], "user": ["user_id"], "ip_ua": ["ip_key", "user_agent"]},
        "counters": [
            {"entity": "user", "measure": "clicks", "windows": ["1h"]},
            {"entity": "ip_ua", "measure": "since_prev", "windows": ["6h"]},
            {"entity": "ip", "measure": "clicks", "windows": ["1m", "6h"]},
            {"entity": "ip", "measure": "sessions", "distinct": "session_id", "windows": ["1h", "24h"]},
            {"entity": "ip", "measure": "users", "distinct": "user_id", "windows": ["24h"]},
        ],
        "time_of_click": True,
        "logged_in": True,
    }
)


def code(click: dict, columns: tuple[str, ...]) -> tuple[int, int]:
    """(hash, check) of a key, made by hand."""
    values = [click[name] for name in columns]
    if None in values:
        return 0, 0
    number = sum(ord(letter) * 131**place for place, letter in enumerate("/".join(values)))
    return number, number % 1_000_003 + 1


def records(clicks: list[dict], layout: Layout) -> Records:
    """What `reading` makes."""
    made = np.empty(len(clicks), dtype=layout.dtype)
    for name in set(layout.names) & {"time", "arrival"}:
        made[name] = [c[name] for c in clicks]
    for name, keys in layout.hashes:
        made[f"hash_{name}"], made[f"check_{name}"] = zip(*[code(c, keys) for c in clicks], strict=True)
    minute = 90 << FLAGS  # half past one on a Thursday
    made["moment"] = [minute | (1 << LOGGED_IN) | (int(c["wanted"]) << WANTED) for c in clicks]
    return made


def batches_of(clicks: list[dict], made: Records, size: int) -> list[pa.RecordBatch]:
    """All rows for one task, so many at a time."""
    ids = pa.array([c["click_id"] for c in clicks])
    parts = [slice(start, start + size) for start in range(0, len(ids), size)]
    return [packed(ids[part], made[part], np.zeros(len(made[part]), dtype=np.int64), (0,)) for part in parts]


def run(clicks: list[dict], known: str, size: int = 64) -> dict[str, dict]:
    stages = plan(SPEC, known=known, tasks=5)
    batches = batches_of(clicks, records(clicks, stages[0].layout), size)
    for stage in stages:
        batches = list(stage.run(batches))
    return {row["click_id"]: row for batch in batches for row in batch.to_pylist()}


def made(seed: int, size: int = 400) -> list[dict]:
    rng = random.Random(seed)
    return [{**click, "wanted": rng.random() < 0.7} for click in random_clicks(seed, size)]


@pytest.mark.parametrize("known", ["then", "now"])
@pytest.mark.parametrize("in_memory", [1, 10_000, 10_000_000])
def test_every_cell_equals_the_naive_count(monkeypatch: pytest.MonkeyPatch, known: str, in_memory: int) -> None:
    monkeypatch.setattr(stores, "IN_MEMORY", in_memory)
    clicks = made(seed=11)
    found, expected = run(clicks, known), naive_features(clicks, SPEC, known)
    assert set(found) == {click["click_id"] for click in clicks if click["wanted"]}
    for click_id, row in found.items():
        assert {name: row[name] for name in expected[click_id]} == expected[click_id]
        assert (row["logged_in"], round(row["hour_sin"], 6), round(row["weekday_cos"], 6)) == (1, 0.382683, -0.900969)


def test_files_are_gone_afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(stores, "IN_MEMORY", 10)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path},/elsewhere")
    assert run(made(seed=12, size=50), "now")
    assert not list(tmp_path.iterdir())  # type: ignore[attr-defined]


def test_batches_change_nothing() -> None:
    clicks = made(seed=13)
    assert run(clicks, "then", size=7) == run(list(reversed(clicks)), "then", size=1000)


def test_two_keys_of_one_hash_are_refused() -> None:
    stage = plan(SPEC, known="then", tasks=5)[0]
    clicks = made(seed=14, size=50)
    broken = records(clicks, stage.layout)
    broken["hash_user_id"] = 7
    with pytest.raises(ValueError, match="two different values of user_id have the same 64-bit hash"):
        list(stage.run(batches_of(clicks, broken, 1000)))


def test_a_task_without_rows_gives_none() -> None:
    assert [list(stage.run([])) for stage in plan(SPEC, known="then", tasks=5)] == [[], []]


def test_entities_that_share_a_column_share_an_exchange() -> None:
    assert [(exchange, {c.entity for c in counters}) for exchange, counters in families(SPEC)] == [
        (("user_id",), {"user"}),
        (("ip_key",), {"ip", "ip_ua"}),
    ]
    assert KEYS  # the oracle's clicks have every key that the spec names
    pair = FeatureSpec.from_dict(
        {
            "entities": {"adv_ip": ["advertiser_id", "ip_key"], "ip": ["ip_key"]},
            "counters": [{"entity": name, "measure": "clicks", "windows": ["1h"]} for name in ("adv_ip", "ip")],
            "time_of_click": False,
            "logged_in": False,
        }
    )
    assert [exchange for exchange, _ in families(pair)] == [("ip_key",)]


def test_a_spec_without_counters_has_one_stage() -> None:
    none = FeatureSpec.from_dict({"entities": {}, "counters": [], "time_of_click": True, "logged_in": False})
    stages = plan(none, known="now", tasks=5)
    assert [(type(stage), stage.counters, stage.next_layout) for stage in stages] == [(Stage, (), None)]
