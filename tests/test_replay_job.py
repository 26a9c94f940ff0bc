"""The replay commands around the core: `run` for schedulers, and which versions they hand on."""

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import functions as F
from rich.console import Console
from slidr.jobs import ingest, replay, score

from slidr import data_files
from slidr.config import Config
from slidr.errors import ConflictError, InputError, LockedError, ModelRefusedError, NotApprovedError, NothingToDoError, UsageError
from slidr.guardrails.checks import FAILED
from slidr.lake import Lake
from slidr.replay import apply, audit, lease, outcomes
from slidr.replay import rows as replay_rows
from slidr.replay.audit import Who, canonical
from slidr.run import Job
from slidr.tables import CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAYS
from slidr.version import Version
from tests import worlds
from tests.worlds import END, FIRST, NOW, copy_of, rows_of, state, versions_of

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
    assert events == ["plan", "apply", "publish", "renew", "interrupt", "resume", "applied"]


def test_no_first_decisions_while_a_replay_is_half_published(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its corrections are out already or not; elsewhere and afterwards they come, and change nothing that is published."""
    plan_id = replay.plan(job, **ASKED).summary["plan_id"]
    for step in (apply._commit_to, apply._publish_corrections):
        with monkeypatch.context() as patched:
            cut_off_after(step, patched)
            with pytest.raises(KeyboardInterrupt):
                replay.apply(job, plan_id)
        before = versions_of(job.lake, *worlds.PUBLISHED, DECISIONS)
        for first_decisions in (lambda: score.decide(job, worlds.version("1"), FIRST, END), lambda: ingest.publish_external(job)):
            with pytest.raises(LockedError, match=f"half-published.*slidr replay resume {plan_id}"):
                first_decisions()
        assert versions_of(job.lake, *worlds.PUBLISHED, DECISIONS) == before
    lease.refuse_half_published(audit.read(job.lake), END, NOW)
    replay.resume(job, plan_id)
    replayed = {name: row[:2] for name, row in state(job.lake).items()}
    assert score.decide(job, worlds.version("1"), FIRST, END).summary["new_decisions"] == len(worlds.UNDECIDED)
    assert {name: row[:2] for name, row in state(job.lake).items()} == replayed


@pytest.mark.parametrize(("cut_off", "moved"), [(True, "first decisions of 3 clicks that had none"), (False, "published decisions")])
def test_first_decisions_right_before_the_point_of_no_return_make_the_plan_stale(
    job: Job, monkeypatch: pytest.MonkeyPatch, cut_off: bool, moved: str
) -> None:
    """After the last look at the clicks, before the event; by a run that is cut off before it publishes them, or that publishes them."""
    plan_id, reconcile, commit = replay.plan(job, **ASKED).summary["plan_id"], apply._reconcile, data_files.commit

    def only_decisions(lake: Lake, target: Any, before: data_files.Files, *given: Any) -> None:
        if cut_off and before.table is CURRENT_DECISIONS:
            raise KeyboardInterrupt
        commit(lake, target, before, *given)

    def then_score(work: apply.Work, corrections: Any) -> None:
        reconcile(work, corrections)
        with suppress(KeyboardInterrupt):
            score.decide(job, worlds.version("1"), FIRST, END)

    with monkeypatch.context() as patched:
        patched.setattr(data_files, "commit", only_decisions)
        patched.setattr(apply, "_reconcile", then_score)
        with pytest.raises(ConflictError, match=moved):
            replay.apply(job, plan_id)
    with pytest.raises(ConflictError, match=moved):
        replay.apply(job, plan_id)
    assert job.lake.read(CORRECTIONS).isEmpty()
    score.decide(job, worlds.version("1"), FIRST, END)
    done = replay.run(job, **ASKED)
    assert (done.summary["publication_no"], done.summary["counts"]["first_decided_valid"]) == (1, 0)


def test_who_resumes_a_run_that_died_before_its_second_look_looks(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_id, reconcile, look = replay.plan(job, **ASKED).summary["plan_id"], apply._reconcile, apply._refuse_stale

    def then_score(work: apply.Work, corrections: Any) -> None:
        reconcile(work, corrections)
        score.decide(job, worlds.version("1"), FIRST, END)

    def look_or_die(work: apply.Work) -> None:
        if audit.read(job.lake).no_way_back(plan_id):
            raise KeyboardInterrupt
        look(work)

    with monkeypatch.context() as patched:
        patched.setattr(apply, "_reconcile", then_score)
        patched.setattr(apply, "_refuse_stale", look_or_die)
        with pytest.raises(KeyboardInterrupt):
            replay.apply(job, plan_id)
    assert audit.read(job.lake).no_way_back(plan_id)
    with pytest.raises(ConflictError, match="published decisions"):
        replay.resume(job, plan_id)
    assert job.lake.read(CORRECTIONS).isEmpty()
    assert replay.run(job, **ASKED).summary["publication_no"] == 1


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


@pytest.mark.parametrize("mode", ["rescore", *[pytest.param(mode, marks=pytest.mark.slow) for mode in ("recompute", "revert")]])
def test_rows_that_are_lost_while_half_published_are_made_again(
    job: Job, mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Nothing could be planned again in their place: what was published since has moved the tables. It ends as if undisturbed."""
    if mode == "revert":
        taken = replay.run(job, **ASKED).summary["plan_id"]
        plan_id = replay.revert(job, taken).summary["plan_id"]
    else:
        plan_id = replay.plan(job, **ASKED | {"mode": mode}).summary["plan_id"]
    smooth = copy_of(job.lake.root, job.lake.spark, str(tmp_path / "smooth"))
    apply.apply_plan(smooth, plan_id=plan_id, version=None if mode == "revert" else worlds.version("2"), now=NOW, who=Who("ann", "run-1"))
    for step in (apply._commit_to, apply._publish_corrections):
        with monkeypatch.context() as patched:
            cut_off_after(step, patched)
            with pytest.raises(KeyboardInterrupt):
                replay.apply(job, plan_id)
        shutil.rmtree(f"{job.lake.plan_path(plan_id)}")
    replay.resume(job, plan_id)
    for table in worlds.PUBLISHED:
        assert rows_of(job.lake, table) == rows_of(smooth, table), table.name


def test_changed_rows_that_can_not_be_made_again_are_told(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_id = replay.plan(job, **ASKED).summary["plan_id"]
    with monkeypatch.context() as patched:
        cut_off_after(apply._publish_corrections, patched)
        with pytest.raises(KeyboardInterrupt):
            replay.apply(job, plan_id)
    counts = audit.require_plan(job.lake, plan_id).counts
    with_plan(job.lake, counts={**counts, "late": counts["late"] + 1})
    before = versions_of(job.lake, *worlds.PUBLISHED)
    with pytest.raises(ConflictError, match=f"half-published plan {plan_id}.*also when made again.*restore the table replays"):
        replay.resume(job, plan_id)
    assert versions_of(job.lake, *worlds.PUBLISHED) == before


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
    plan_id = replay.plan(careful(job, approval_above_micros=0), **ASKED).summary["plan_id"]
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
    with_plan(job.lake, plan={**true.pins, "approval_above_micros": 2**60})
    with pytest.raises(InputError, match="hash of what it pins"):
        replay.apply(job, plan_id)
    with_plan(job.lake, plan=true.pins)
    with pytest.raises(NotApprovedError):
        replay.apply(job, plan_id)
    with pytest.raises(NotApprovedError):
        replay.apply(job, plan_id, override=" ")
    assert versions_of(job.lake, *worlds.PUBLISHED) == before


def test_a_plan_that_was_changed_on_record_is_made_again(job: Job) -> None:
    """Planning again says and records what is true, under the same id; who had approved the other numbers is asked again."""
    strict = careful(job, approval_above_micros=0)
    plan_id = replay.plan(strict, **ASKED).summary["plan_id"]
    true = audit.require_plan(job.lake, plan_id)
    for times, (column, value) in enumerate(
        {"counts": {**true.counts, "late": 7}, "money": {**true.money, "directions": []}, "plan": {}, "details": {}}.items(), 2
    ):
        replay.approve(careful(job, actor=f"bob-{times}"), plan_id)
        with_plan(job.lake, **{column: value})
        with pytest.raises((ConflictError, InputError), match="plan again"):
            replay.apply(strict, plan_id)
        again = replay.plan(strict, **ASKED).summary
        assert (again["plan_id"], again["already"], again["counts"], again["money"]) == (plan_id, False, true.counts, true.money)
        assert audit.read(job.lake).counted(plan_id)["plan"] == times
        with pytest.raises(NotApprovedError):
            replay.apply(strict, plan_id)
    assert [row["state"] for row in replay.list_replays(strict).summary["replays"]] == ["planned"]
    replay.approve(careful(job, actor="carol"), plan_id)
    assert replay.apply(strict, plan_id).summary["publication_no"] == 1


def with_replay(conf: Config, **bounds: Any) -> Config:
    return conf.model_copy(update={"replay": conf.replay.model_copy(update=bounds)})


def test_a_run_that_may_not_publish_tells_its_plan(job: Job) -> None:
    told = replay.run(careful(job, approval_above_micros=0), **ASKED)
    assert (told.exit_code, told.summary["needs_approval"]) == (7, True)
    assert "expected an approval" in str(told.refused)
    assert sum(entry["clicks"] for entry in told.summary["money"]["directions"]) > 0
    assert "publication_no" not in told.summary
    assert job.lake.read(CORRECTIONS).isEmpty()


def careful(job: Job, actor: str = "ann", **bounds: Any) -> Job:
    made = replace(job, conf=with_replay(job.conf, **bounds), actor=actor)
    made.__dict__.update(lake=job.lake, place=job.place)
    return made


def test_bounds_on_money_stop_the_command(job: Job) -> None:
    """Credits and charges of a currency together, of all and of one advertiser."""
    free = replay.plan(job, **ASKED).summary["money"]
    moved: Counter[str] = Counter()
    for entry in free["directions"]:
        moved[entry["currency"]] += abs(entry["micros"])
    largest = max(row["money_micros"] for row in free["advertisers"])
    for bound, most in (("max_money_micros", max(moved.values())), ("max_advertiser_micros", largest)):
        assert replay.plan(careful(job, **{bound: most}), **ASKED).exit_code == 0
        stopped = replay.run(careful(job, **{bound: most - 1}), **ASKED)
        failed = [row for row in stopped.summary["guardrails"] if row["verdict"] == FAILED]
        assert (stopped.exit_code, [row["observed"] for row in failed]) == (4, [most]), bound
    over = replay.plan(careful(job, max_money_micros=0), **ASKED | {"override": "incident 7"})
    assert audit.require_plan(job.lake, over.summary["plan_id"]).details["override"] == "incident 7"
    assert job.lake.read(CORRECTIONS).isEmpty()


def test_the_clicks_that_options_choose(job: Job) -> None:
    """--decided-by without a window takes all that the version decided, whenever; slices and marketplaces narrow it, each alone and all."""
    everywhere = ASKED | {"start": None, "end": None, "decided_by": "live-3"}
    clicks = {row["click_id"]: row for row in worlds.made_clicks()}
    theirs = [clicks[name] for name, (_, number, _) in state(job.lake).items() if number == "live-3"]
    for options, wanted in (
        ({}, theirs),
        ({"marketplace": ["DE"]}, [click for click in theirs if click["marketplace"] == "DE"]),
        ({"slice_": ["phone/guest"]}, [click for click in theirs if click["device"] == "phone"]),
        ({"slice_": ["phone/guest/US"]}, [c for c in theirs if (c["device"], c["marketplace"]) == ("phone", "US")]),
        (
            {"slice_": ["phone/guest"], "marketplace": ["DE", "US"], "advertiser": ["adv-1"]},
            [c for c in theirs if (c["device"], c["advertiser_id"]) == ("phone", "adv-1")],
        ),
    ):
        assert wanted
        made = replay.plan(job, **everywhere | options).summary
        plan = audit.require_plan(job.lake, made["plan_id"])
        found = {row["click_id"] for row in replay_rows.planned(job.lake, plan).collect()}
        assert found == {click["click_id"] for click in wanted}, options
    times = [click["click_time"] for click in theirs]
    plan = audit.require_plan(job.lake, replay.plan(job, **everywhere).summary["plan_id"])
    assert plan.window == (min(times), max(times) + timedelta(microseconds=1))
    for start, end in ((None, END.isoformat()), (FIRST.isoformat(), None)):
        with pytest.raises(UsageError, match="--decided-by VERSION without a window"):
            replay.plan(job, **everywhere | {"start": start, "end": end})
    with pytest.raises(NothingToDoError, match="decided by version nobody"):
        replay.plan(job, **everywhere | {"decided_by": "nobody"})


def test_corrections_that_do_not_sum_to_the_plan_are_not_published(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_id, corrections = replay.plan(job, **ASKED).summary["plan_id"], outcomes.corrections

    def one_less(*given: Any, **named: Any) -> Any:
        return corrections(*given, **named).where("ordinal > 1")

    with monkeypatch.context() as patched:
        patched.setattr(outcomes, "corrections", one_less)
        with pytest.raises(ConflictError, match=f"corrections of replay {plan_id} to sum to its plan, found others for adv-"):
            replay.apply(job, plan_id)
    assert not audit.read(job.lake).no_way_back(plan_id)
    assert job.lake.read(CORRECTIONS).isEmpty()
    assert replay.resume(job, plan_id).summary["publication_no"] == 1
