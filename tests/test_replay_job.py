"""The replay commands around the core: `run` for schedulers, and which versions they hand on."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pyspark.sql import functions as F
from rich.console import Console
from slidr.jobs import replay

from slidr.config import Config
from slidr.errors import ConflictError, ModelRefusedError, NotApprovedError
from slidr.lake import Lake
from slidr.replay import apply, audit
from slidr.replay.audit import canonical
from slidr.run import Job
from slidr.tables import REPLAYS
from slidr.version import Version
from tests import worlds
from tests.worlds import END, FIRST, NOW, rows_of, versions_of

STATES: dict[str, str] = {}  # of versions that are not stable
ASKED: dict[str, Any] = {"start": FIRST.isoformat(), "end": END.isoformat(), "model": "2", "mode": "rescore", "allow_charges": True}
ASKED |= dict.fromkeys(("decided_by", "advertiser", "slice_", "marketplace", "override", "reason", "ticket"))


class Versions:
    """A registry that holds the versions of the small world."""

    def inspect(self, number: str) -> Version:
        return worlds.version(number, STATES.get(number, "stable"))

    def load(self, number: str) -> Version:
        found = self.inspect(number)
        found.require(("stable", "champion", "suspect"), "decide")
        return found


@pytest.fixture
def job(world: Lake, loose: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Job:
    conf = loose.model_copy(update={"work": loose.work.model_copy(update={"root": tmp_path / "work"})})
    made = Job(conf, "run-1", NOW, Console(quiet=True), actor="ann")
    made.__dict__.update(lake=world, place=world)
    monkeypatch.setattr(replay, "_registry", lambda job: Versions())
    STATES.clear()
    return made


def cut_off_after(step: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(work: Any) -> None:
        raise KeyboardInterrupt

    steps = apply.STEPS
    monkeypatch.setattr(apply, "STEPS", (*steps[: steps.index(step) + 1], stop))


def test_a_run_that_was_cut_off_is_completed_by_running_it_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        cut_off_after(apply._publish_corrections, patched)
        with pytest.raises(KeyboardInterrupt):
            replay.run(job, **ASKED)
    done = replay.run(job, **ASKED)
    assert done.summary["corrections"] > 0
    assert done.summary["publication_no"] == 1
    events = [event.name for event in audit.read(job.lake).of(done.summary["plan_id"])]
    assert events == ["plan", "apply", "publish", "interrupt", "resume", "applied"]


def test_what_a_revoked_version_half_published_is_completed_and_no_more(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_id = replay.plan(job, **ASKED).summary["plan_id"]
    other = replay.plan(job, **ASKED | {"model": "3"}).summary["plan_id"]
    with monkeypatch.context() as patched:
        cut_off_after(apply._publish_corrections, patched)
        with pytest.raises(KeyboardInterrupt):
            replay.apply(job, plan_id)
    STATES.update({"2": "revoked", "3": "revoked"})
    assert replay.resume(job, plan_id).summary["publication_no"] == 1
    before, rows = versions_of(job.lake, *worlds.PUBLISHED, REPLAYS), rows_of(job.lake, worlds.PUBLISHED[0])
    assert replay.apply(job, plan_id).summary["already"]
    with pytest.raises(ModelRefusedError):
        replay.apply(job, other)
    assert versions_of(job.lake, *worlds.PUBLISHED, REPLAYS) == before
    assert rows_of(job.lake, worlds.PUBLISHED[0]) == rows


def test_a_stopped_plan_says_what_it_would_have_done_and_is_not_on_record(job: Job, conf: Config) -> None:
    strict = replace(job, conf=conf.model_copy(update={"work": job.conf.work}))
    strict.__dict__.update(lake=job.lake, place=job.place)
    for stopped in (replay.plan(strict, **ASKED), replay.run(strict, **ASKED)):
        assert stopped.exit_code == 4
        assert "changed share" in str(stopped.refused)
        assert sum(entry["clicks"] for entry in stopped.summary["money"]["directions"]) > 0
        assert {"Clicks", "Money", "Guardrails"} <= set(stopped.shown)
        assert job.lake.read(REPLAYS).isEmpty()


def with_plan(lake: Lake, **columns: Any) -> None:
    """Changes the plan on record."""
    rows = lake.read(REPLAYS)
    rows = rows.withColumns({name: F.lit(canonical(value)) for name, value in columns.items()}).localCheckpoint()
    rows.write.format("delta").mode("overwrite").save(lake.path(REPLAYS))


def test_a_plan_whose_numbers_were_changed_is_not_published(job: Job) -> None:
    plan_id = replay.plan(job, **ASKED).summary["plan_id"]
    true = audit.require_plan(job.lake, plan_id)
    before = versions_of(job.lake, *worlds.PUBLISHED)
    for column, value in (
        ("counts", {**true.counts, "newly_invalid": 0, "unchanged_valid": true.counts["unchanged_valid"] + true.counts["newly_invalid"]}),
        ("money", {**true.money, "directions": []}),
    ):
        with_plan(job.lake, **{column: value})
        with pytest.raises(ConflictError, match="clicks or money"):
            replay.apply(job, plan_id)
        with_plan(job.lake, **{column: getattr(true, column)})
    with_plan(job.lake, details={**true.details, "approval": {"needed": False, "above_micros": 0}})
    with pytest.raises(NotApprovedError):
        replay.apply(job, plan_id)
    with pytest.raises(NotApprovedError):
        replay.apply(job, plan_id, override=" ")
    assert versions_of(job.lake, *worlds.PUBLISHED) == before
