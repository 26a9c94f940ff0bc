"""What a day does without a person: labels, promotion, proof, and what a guardrail leaves; the whole chain is in test_jobs.py."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from slidr.jobs import daily, monitor, train

from slidr.config import Config, RegistryConf
from slidr.errors import GuardrailError, NothingToDoError
from slidr.lake import Lake
from slidr.registry import Registry
from slidr.run import Job, Outcome
from slidr.tables import CLICKS, CURRENT_DECISIONS, LABELS, PURCHASES, SLICE_METRICS
from tests.bundles import constant
from tests.frames import at, click, clicks, frame
from tests.test_notebooks import decision

START = at("2026-03-10")


COUNTS = tuple(column.name for column in SLICE_METRICS.columns if column.type == "bigint")
WEEKS = range(-28, 0)  # days before the start


def metrics(version: str, day: datetime, invalid: int = 30, hours: range = range(24)) -> list[dict[str, Any]]:
    """Both views of a day's hours."""
    base = {"report_slice": "desktop/guest/US", "model_version": version, "currency": "USD", **dict.fromkeys(COUNTS, 0), "clicks": 1000}
    rows = [{**base, "click_date": day.date(), "hour": hour, "invalid": invalid} for hour in hours]
    return [{**row, "view": view} for row in rows for view in ("first", "published")]


def usual(lake: Lake, *later: dict[str, Any], days: range = WEEKS) -> None:
    """Metrics of the days before the start, decided by version 0, and of what came later."""
    lake.create(PURCHASES)
    before = [row for offset in days for row in metrics("0", START + timedelta(days=offset))]
    lake.append(frame(lake.spark, SLICE_METRICS, [*before, *later]), SLICE_METRICS)


def job_at(lake: Lake, conf: Config, now: datetime, promotion: str = "manual") -> Job:
    job = Job(conf.model_copy(update={"promotion": promotion}), "run-1", now, Console(quiet=True), actor="test")
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
    usual(lake, *metrics("1", START), *metrics("2", START + timedelta(days=1)))
    before = job_at(lake, conf, START + timedelta(hours=47))
    assert daily.prove(before, registry) == []
    after = job_at(lake, conf, START + timedelta(hours=48))
    assert daily.prove(after, registry) == ["1"]  # it decided one of the two days; 2 came a day ago
    assert daily.prove(after, registry) == []
    event = registry.events()[-1]
    assert (event["model_version"], event["to_state"], event["event_time"]) == ("1", "stable", START + timedelta(hours=48))
    assert "48 h" in event["reason"]


def test_one_bad_hour_or_nothing_to_judge_leaves_it(lake: Lake, conf: Config, registry: Registry) -> None:
    second, third = START + timedelta(days=1), START + timedelta(days=2)
    bad = metrics("2", second, invalid=300, hours=range(23, 24))
    other = metrics("3", third)  # decided by a later version: no evidence for 2
    usual(lake, *metrics("1", START), *metrics("2", second, hours=range(23)), *bad, *other)
    assert daily.prove(job_at(lake, conf, START + timedelta(days=2)), registry) == ["1"]
    assert daily.prove(job_at(lake, conf, START + timedelta(days=3)), registry) == []
    assert daily.prove(job_at(lake, conf, START + timedelta(days=4)), registry) == []
    assert registry.states().state == {"1": "stable", "2": "champion"}


def test_few_judged_hours_prove_nothing(lake: Lake, conf: Config, registry: Registry) -> None:
    day = metrics("1", START)
    few = [{**row, "clicks": 1, "invalid": 0} if row["hour"] >= 11 else row for row in day]
    usual(lake, *few, *metrics("2", START + timedelta(days=1)))
    assert daily.prove(job_at(lake, conf, START + timedelta(days=2)), registry) == []


def test_under_three_weeks_nothing_becomes_stable_by_itself(lake: Lake, conf: Config, registry: Registry) -> None:
    usual(lake, *metrics("1", START), *metrics("2", START + timedelta(days=1)), days=range(-14, 0))
    assert daily.prove(job_at(lake, conf, START + timedelta(days=2)), registry) == []


@pytest.fixture
def watched(lake: Lake, conf: Config, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Version 2 decided the second day; at noon it found almost nothing."""
    second = START + timedelta(days=1)
    wrong = metrics("2", second, invalid=0, hours=range(10, 14))
    good = [row for row in metrics("2", second, invalid=30) if row["hour"] not in range(10, 14)]
    usual(lake, *metrics("1", START), *wrong, *good)
    lake.create(CURRENT_DECISIONS)
    lake.append(frame(lake.spark, CURRENT_DECISIONS, [decision(0) | {"click_date": second.date()}]), CURRENT_DECISIONS)
    monkeypatch.setattr(monitor, "measure", lambda *_: None)  # the metrics are there
    job = job_at(lake, conf, second + timedelta(days=1))
    job.conf = job.conf.model_copy(update={"registry": registry.conf, "work": conf.work.model_copy(update={"root": tmp_path / "work"})})
    return job


def test_an_hour_that_says_roll_back_ends_the_day_with_4_until_the_version_is_left(watched: Job, registry: Registry) -> None:
    day = (START + timedelta(days=1)).date()
    told = daily.watch(watched, day, registry)
    assert (told.summary["monitor"], told.exit_code) == ("roll back", 4)
    assert told.summary["rollback"].startswith("slidr models rollback --leave 2")
    done = daily.ended(day, told.summary, None, told.refused)
    assert (done.exit_code, done.refused) == (4, told.refused)
    assert daily.ended(day, {}, GuardrailError("too few"), told.refused).refused == f"too few\n{told.refused}"
    assert (daily.ended(day, {}, None, None).exit_code, daily.ended(day, {}, None, None).refused) == (0, None)
    registry.mark_stable("1", now=START, actor="test", reason="test")
    registry.rollback(now=START, actor="ann", reason="harms people")
    after = daily.watch(watched, day, registry)
    assert (after.summary["monitor"], after.exit_code) == ("roll back: version 2, which was left since", 0)


def candidate(registry: Registry, conf: Config, tmp_path: Path, number: str) -> None:
    """The next version, as a training registers it."""
    made = constant(conf, float(number))
    registry.register(made, identity=number * 2, pictures=tmp_path / "pictures", now=START, actor="test", reason="test")


def test_the_newest_candidate_is_promoted_without_a_person_also_after_a_kill(
    lake: Lake, conf: Config, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate(registry, conf, tmp_path, "3")  # the run that registered it was killed before the promotion
    monkeypatch.setattr(train, "train_as_of", lambda *_, **__: Outcome({"version": "3", "new": False, "state": "candidate"}))
    by_hand, auto = job_at(lake, conf, START), job_at(lake, conf, START, "auto")
    assert daily.learn(by_hand, registry) == ("version 3, candidate", None)
    assert registry.states().champion == "2"
    assert daily.learn(auto, registry) == ("version 3, champion", None)
    assert registry.states().champion == "3"
    monkeypatch.setattr(train, "train_as_of", lambda *_, **__: Outcome({"version": "3", "new": False, "state": "champion"}))
    events = len(registry.events())
    assert daily.learn(auto, registry) == ("version 3, champion", None)
    assert len(registry.events()) == events


def test_what_a_person_took_back_does_not_return_by_itself(
    lake: Lake, conf: Config, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.mark_stable("1", now=START, actor="test", reason="test")
    registry.rollback(now=START, actor="ann", reason="harms people")
    candidate(registry, conf, tmp_path, "3")
    monkeypatch.setattr(train, "train_as_of", lambda *_, **__: Outcome({"version": "3", "new": True}))
    said, stopped = daily.learn(job_at(lake, conf, START, "auto"), registry)
    assert "version 3 waits for a person: version 2 was taken back (ann" in said
    assert stopped is None
    assert registry.states().champion == "1"


@pytest.mark.parametrize(
    ("error", "said", "stops"),
    [
        (GuardrailError("too few", [{"check": "x"}]), "stopped by a guardrail", True),
        (NothingToDoError("too early"), "waits: too early", False),
    ],
)
def test_a_training_that_ends_without_a_version_promotes_nothing(
    error: Exception, said: str, stops: bool, lake: Lake, conf: Config, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> Outcome:
        raise error

    monkeypatch.setattr(train, "train_as_of", fails)
    text, stopped = daily.learn(job_at(lake, conf, START, "auto"), registry)
    assert text.startswith(said)
    assert (stopped is error) == stops
    assert registry.states().champion == "2"


def test_a_day_is_labelled_again_when_clicks_came_in(lake: Lake, conf: Config) -> None:
    for table in (CLICKS, LABELS, PURCHASES):
        lake.create(table)
    lake.append(clicks(lake.spark, click("a", START), click("b", START + timedelta(days=9))), CLICKS)
    job = job_at(lake, conf, START + timedelta(days=5))
    assert daily.label(job) == 1  # the other day has not matured
    version = lake.version(LABELS)
    assert (daily.label(job), lake.version(LABELS)) == (0, version)
    lake.append(clicks(lake.spark, click("late", START)), CLICKS)
    assert daily.label(job) == 1
    assert {row.click_id for row in lake.read(LABELS).collect()} == {"a", "late"}
    assert daily.label(job) == 0
