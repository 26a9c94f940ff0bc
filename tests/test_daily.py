"""A champion becomes stable after 48 hours in which nothing that it decided deviates; the whole chain is in test_jobs.py."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from slidr.jobs import daily

from slidr.config import Config, RegistryConf
from slidr.lake import Lake
from slidr.registry import Registry
from slidr.run import Job
from slidr.tables import SLICE_METRICS
from tests.bundles import constant
from tests.frames import at, frame

START = at("2026-03-10")


def metrics(version: str, day: datetime, invalid: int = 30, hours: range = range(24)) -> list[dict[str, Any]]:
    counts = ("purchasing", "purchasing_invalid", "high_rfm", "high_rfm_invalid", "heavy", "heavy_invalid", "invalid_cost_micros")
    base = {"report_slice": "desktop/guest/US", "model_version": version, "currency": "USD", "view": "first", "clicks": 1000}
    return [{**base, **dict.fromkeys(counts, 0), "click_date": day.date(), "hour": hour, "invalid": invalid} for hour in hours]


def job_at(lake: Lake, conf: Config, now: datetime) -> Job:
    job = Job(conf, "run-1", now, Console(quiet=True), actor="test")
    job.__dict__.update(lake=lake, spark=lake.spark)  # the session of the tests, as if it had started already
    return job


@pytest.fixture
def registry(lake: Lake, conf: Config, tmp_path: Path) -> Registry:
    """Two versions: 1 decides from START on, 2 from a day later."""
    registry = Registry(RegistryConf(uri=f"sqlite:///{tmp_path}/registry.db", artifacts=str(tmp_path / "artifacts"), name="slidr"), lake)
    (tmp_path / "pictures").mkdir()
    for number, days in (("1", 0), ("2", 1)):
        now = START + timedelta(days=days)
        made = constant(conf, float(number))
        registry.register(made, identity=number * 2, pictures=tmp_path / "pictures", now=now, actor="test", reason="test")
        registry.promote(number, now=now, actor="test", reason="test")
    return registry


def test_a_champion_becomes_stable_after_two_quiet_days(lake: Lake, conf: Config, registry: Registry) -> None:
    days = [START + timedelta(days=offset) for offset in range(-2, 4)]
    usual = [*metrics("0", days[0]), *metrics("0", days[1]), *metrics("1", days[2]), *metrics("2", days[3])]
    lake.append(frame(lake.spark, SLICE_METRICS, usual), SLICE_METRICS)
    before = job_at(lake, conf, START + timedelta(hours=47))
    assert daily.prove(before, registry) == []
    after = job_at(lake, conf, START + timedelta(hours=48))
    assert daily.prove(after, registry) == ["1"]  # it decided one of the two days; 2 came a day ago
    assert daily.prove(after, registry) == []
    event = registry.events()[-1]
    assert (event["model_version"], event["to_state"], event["event_time"]) == ("1", "stable", START + timedelta(hours=48))
    assert "48 h" in event["reason"]


def test_one_bad_hour_or_nothing_to_judge_leaves_it(lake: Lake, conf: Config, registry: Registry) -> None:
    days = [START + timedelta(days=offset) for offset in range(-2, 4)]
    seen = [*metrics("0", days[0]), *metrics("0", days[1]), *metrics("1", days[2]), *metrics("2", days[3], hours=range(23))]
    bad = metrics("2", days[3], invalid=300, hours=range(23, 24))
    other = metrics("3", days[4])  # decided by a later version: no evidence for 2
    lake.append(frame(lake.spark, SLICE_METRICS, [*seen, *bad, *other]), SLICE_METRICS)
    assert daily.prove(job_at(lake, conf, START + timedelta(days=2)), registry) == ["1"]
    assert daily.prove(job_at(lake, conf, START + timedelta(days=3)), registry) == []
    assert daily.prove(job_at(lake, conf, START + timedelta(days=4)), registry) == []
    assert registry.states().state == {"1": "stable", "2": "champion"}
