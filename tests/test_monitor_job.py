"""What `roll back` leads to, with and without --act, and where the numbers go; no Spark."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from rich.console import Console
from slidr.jobs import monitor

from slidr import direct, monitoring
from slidr.config import Config, RegistryConf
from slidr.errors import ModelRefusedError
from slidr.monitoring import prometheus
from slidr.registry import Registry
from slidr.run import Job
from slidr.tables import MODEL_PROMOTIONS
from tests.bundles import constant
from tests.frames import at

END = at("2026-03-10 14:00")


@pytest.fixture
def job(conf: Config, tmp_path: Path) -> Job:
    """Version 1 is stable, 2 decides."""
    where = RegistryConf(uri=f"sqlite:///{tmp_path}/registry.db", artifacts=str(tmp_path / "artifacts"), name="slidr")
    work = conf.work.model_copy(update={"root": tmp_path / "work"})
    job = Job(conf.model_copy(update={"registry": where, "work": work}), "run-1", END, Console(quiet=True), actor="test")
    place = direct.Place(str(tmp_path / "lake"))
    job.__dict__.update(place=place, lake=place)
    registry = Registry(where, place)
    (tmp_path / "pictures").mkdir()
    for number in ("1", "2"):
        made = constant(conf, float(number))
        registry.register(made, identity=number * 2, pictures=tmp_path / "pictures", now=END, actor="test", reason="test")
        registry.promote(number, now=END, actor="test", reason="test")
        if number == "1":
            registry.mark_stable("1", now=END, actor="test", reason="test")
    return job


def seen(verdict: str, version: str = "2", value: float = 0.41) -> monitor.Seen:
    """One hour that this version decided, with this verdict of its IVR."""
    time = monitoring.naive(END) - pd.Timedelta(hours=1)
    row: dict[str, Any] = {"time": time, "signal": "ivr", "place": "(all)", "hours": 2, "count": 4000, "value": value}
    row |= {"usual": 0.1, "sigmas": 25.0, "weeks": 4, "verdict": verdict}
    hours = pd.DataFrame({"time": [time], "view": "first", "model_version": version, "clicks": 10})
    return monitor.Seen(hours, pd.DataFrame([row]), END - timedelta(hours=1), END)


def states(job: Job) -> dict[str, str]:
    return dict(Registry(job.conf.registry, job.place).states().state)


@pytest.mark.parametrize("version", ["", "live-3"])
@pytest.mark.parametrize("act", [True, False])
def test_what_slidr_did_not_decide_it_cannot_roll_back_and_says_so(job: Job, version: str, act: bool) -> None:
    done = monitor.follow(job, seen("roll back", version), act)
    assert done.exit_code == 4
    assert (version or "no version on record") in str(done.refused)
    assert "slidr models" not in str(done.refused)
    assert states(job) == {"1": "stable", "2": "champion"}


def test_nothing_else_leads_to_a_rollback(job: Job) -> None:
    for verdict in ("ok", "watch", "not enough history", "too few clicks"):
        assert monitor.follow(job, seen(verdict), act=True).exit_code == 0
    assert states(job) == {"1": "stable", "2": "champion"}


def test_without_act_the_commands_are_told_and_the_scheduler_notices(job: Job) -> None:
    done = monitor.follow(job, seen("roll back"), act=False)
    assert done.exit_code == 4
    assert states(job) == {"1": "stable", "2": "champion"}
    assert done.summary["rollback"].startswith(
        'slidr models rollback --leave 2 --reason "monitor at 2026-03-10 14:00Z: ivr of (all) 0.4100'
    )
    assert done.summary["replay"] == "slidr replay plan --decided-by 2 --model stable --allow-charges"
    assert done.refused is not None
    assert done.summary["rollback"] in done.refused
    assert done.summary["replay"] in done.refused


def test_act_rolls_back_once_with_the_numbers_as_the_reason(job: Job) -> None:
    done = monitor.follow(job, seen("roll back"), act=True)
    assert (done.exit_code, done.summary["left"], done.summary["champion"]) == (0, "2", "1")
    assert "--decided-by 2" in done.said
    assert states(job) == {"1": "stable", "2": "suspect"}
    events = direct.read(job.place, MODEL_PROMOTIONS).rows
    assert {event["reason"] for event in events if event["to_state"] == "suspect"} == {
        "monitor at 2026-03-10 14:00Z: ivr of (all) 0.4100, usual 0.1000 (+25.0 sigma, 4000 in 2 h)"
    }
    again = monitor.follow(job, seen("roll back"), act=True)  # the hours are still those that 2 decided
    assert again.summary["already"]
    assert len(direct.read(job.place, MODEL_PROMOTIONS).rows) == len(events)


def test_act_leaves_a_champion_alone_that_did_not_decide_the_hour(job: Job) -> None:
    with pytest.raises(ModelRefusedError, match="expected version 1 to decide now, found 2"):
        monitor.follow(job, seen("roll back", version="1"), act=True)
    assert states(job) == {"1": "stable", "2": "champion"}


def test_mlflow_and_prometheus_have_the_same_numbers_hour_after_hour(job: Job) -> None:
    monitor.publish(job, seen("ok", value=0.1))
    monitor.publish(job, seen("watch", value=0.2))
    client = MlflowClient(tracking_uri=job.conf.registry.uri)
    experiment = client.get_experiment_by_name("slidr")
    runs = [run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == "monitoring"]
    assert len(runs) == 1
    history = client.get_metric_history(runs[0].info.run_id, "ivr/.28.all.29./value")
    assert {(metric.value, metric.step) for metric in history} == {(0.1, 492542), (0.2, 492542)}
    assert int(END.timestamp()) // 3600 == 492542
    prom = (job.conf.work.root / "monitoring" / "slidr.prom").read_text(encoding="utf-8")
    assert 'slidr_monitor_ratio{signal="ivr",place="(all)",window="2h"} 0.2' in prom


def test_no_two_places_share_a_name_in_mlflow() -> None:
    places = ("(all)", "all", "a.b", "ab", "a(b", "a.28.b", "a b", "é", "%28all", "28all")
    rows = pd.concat([seen("ok").judged.assign(place=place) for place in places])
    assert len(prometheus.flat(rows)) == 3 * len(places)
