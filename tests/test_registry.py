"""Model versions: states folded from events, and the whole life of a version on a real registry."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from slidr.config import Config, RegistryConf
from slidr.errors import ModelRefusedError, NothingToDoError
from slidr.lake import Lake
from slidr.registry import Registry, fold
from tests.bundles import constant

NOW = datetime(2026, 3, 20, tzinfo=timezone.utc)


def events(*changes: tuple[str, str]) -> list[dict]:
    """One change an hour."""
    return [
        {"model_version": version, "to_state": to, "bundle_sha256": f"sha-{version}", "event_time": NOW + timedelta(hours=hour)}
        for hour, (version, to) in enumerate(changes)
    ]


def test_states_follow_the_events() -> None:
    states = fold(events(("1", "candidate"), ("1", "champion"), ("1", "stable"), ("2", "candidate"), ("2", "champion")))
    assert (states.champion, states.champions, states.newest_stable) == ("2", ("1", "2"), "1")
    assert states.state == {"1": "stable", "2": "champion"}
    assert (states.unproven(NOW + timedelta(hours=4)), states.unproven(NOW + timedelta(hours=3))) == (["2"], [])


def test_a_stable_version_that_decides_again_stays_stable() -> None:
    states = fold(events(("1", "candidate"), ("1", "champion"), ("1", "stable"), ("2", "candidate"), ("2", "champion"), ("2", "suspect")))
    assert states.champion is None
    states = fold(events(("1", "candidate"), ("1", "champion"), ("1", "stable"), ("1", "champion")))
    assert (states.champion, states.state["1"]) == ("1", "stable")


def test_the_life_of_a_version(lake: Lake, conf: Config, tmp_path: Path) -> None:
    settings = RegistryConf(uri=f"sqlite:///{tmp_path}/registry.db", artifacts=str(tmp_path / "artifacts"), name="slidr")
    registry = Registry(settings, lake)
    registry.init()
    registry.init()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "curves.png").write_bytes(b"png")
    clock = iter(NOW + timedelta(hours=n) for n in range(100))

    def register(shift: float, identity: str) -> str:
        return registry.register(constant(conf, shift), identity=identity, pictures=pictures, now=next(clock), actor="ann", reason="test")

    assert (register(0.0, "aa"), register(0.0, "aa"), register(1.0, "bb")) == ("1", "1", "2")
    with pytest.raises(ModelRefusedError, match="champion"):
        registry.load("champion")
    with pytest.raises(ModelRefusedError, match="is or was champion"):
        registry.mark_stable("1", now=next(clock), actor="ann", reason="too early")
    registry.promote("1", now=next(clock), actor="ann", reason="first")
    registry.mark_stable("1", now=next(clock), actor="ann", reason="48 h")
    registry.promote("2", now=next(clock), actor="bob", reason="second")
    assert registry.client.get_model_version_by_alias("slidr", "champion").version in (2, "2")
    assert registry.load("stable").number == "1"
    loaded = registry.load("2")
    assert (loaded.state, float(loaded.bundle.layers[0][1][0])) == ("champion", 1.0)
    assert registry.rollback(now=next(clock), actor="ann", reason="wrong") == ("2", "1")
    with pytest.raises(ModelRefusedError, match="suspect"):
        registry.promote("2", now=next(clock), actor="bob", reason="again")
    with pytest.raises(ModelRefusedError, match="no|none"):
        registry.rollback(now=next(clock), actor="ann", reason="further")
    registry.revoke("2", now=next(clock), actor="ann", reason="never again")
    with pytest.raises(ModelRefusedError, match="revoked"):
        registry.load("2")
    history = [(e["model_version"], e["from_state"], e["to_state"]) for e in registry.events()]
    assert history == [
        ("1", None, "candidate"),
        ("2", None, "candidate"),
        ("1", "candidate", "champion"),
        ("1", "champion", "stable"),
        ("2", "candidate", "champion"),
        ("2", "champion", "suspect"),
        ("1", "stable", "champion"),
        ("2", "suspect", "revoked"),
    ]
    assert [e["event_no"] for e in registry.events()] == list(range(1, 9))
    refuses_foreign_bytes(registry, tmp_path)


def refuses_foreign_bytes(registry: Registry, tmp_path: Path) -> None:
    for stored in (tmp_path / "artifacts").rglob("weights.safetensors"):
        stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelRefusedError, match="manifest names"):
        registry.load("1")
    for source in ("file:///etc", f"file://{tmp_path}/artifacts/../secret", "http://elsewhere/bundle", f"file://{tmp_path}/artifacts/x#y"):
        with pytest.raises(ModelRefusedError, match="inside"):
            registry._require_inside(source)


def test_rolling_back_without_a_champion_says_so(lake: Lake, tmp_path: Path) -> None:
    settings = RegistryConf(uri=f"sqlite:///{tmp_path}/registry.db", artifacts=str(tmp_path / "artifacts"), name="slidr")
    with pytest.raises(NothingToDoError, match="champion"):
        replace(Registry(settings, lake)).rollback(now=NOW, actor="ann", reason="none")
