"""Replay: the plan is what happens, nothing twice, nothing lost, nobody charged without leave, all on record."""

import json
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.errors import ConflictError, GuardrailError, InputError, ModelRefusedError, NothingToDoError, UsageError
from slidr.features import compare
from slidr.features.spec import FeatureSpec
from slidr.lake import Lake
from slidr.progress import Progress
from slidr.replay import apply, audit, lease, numbers, outcomes, report, rows
from slidr.replay.audit import Plan
from slidr.replay.moved import what_moved
from slidr.replay.plan import make_plan
from slidr.replay.request import clicks_of
from slidr.slice_spec import SlicePart, SliceSpec
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, LABELS, REPLAY_DECISIONS, REPLAYS, features_table
from tests import browser, worlds
from tests.frames import at, click, frame
from tests.oracles_replay import naive_count, naive_invalid, naive_replay
from tests.worlds import ANN, DAYS, END, FIRST, NOW, SECOND, SPEC, copy_of, request, rows_of, state, version, versions_of

RECOMPUTE_NOW, RESCORE = (pytest.param(mode, marks=pytest.mark.slow) for mode in ("recompute-now", "rescore"))
READ = (CLICKS, features_table(SPEC), LABELS, DECISIONS, REPLAY_DECISIONS, CORRECTIONS, CURRENT_DECISIONS)


@pytest.fixture(scope="module")
def planned(template: str, spark: SparkSession, loose: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Plan, Plan]:
    """A world with two plans: through version 2, charges allowed, and through version 3."""
    lake = copy_of(template, spark, str(tmp_path_factory.mktemp("planned") / "lake"))
    through_2 = make_plan(lake, request=request(allow_charges=True), version=version("2"), conf=loose, now=NOW, who=ANN)
    return lake.root, through_2, make_plan(lake, request=request(), version=version("3"), conf=loose, now=NOW, who=ANN)


@pytest.fixture
def planned_world(planned: tuple[str, Plan, Plan], spark: SparkSession, tmp_path: Path) -> Lake:
    return copy_of(planned[0], spark, str(tmp_path / "lake"))


def replay(lake: Lake, conf: Config, number: str, **given: Any) -> tuple[Plan, apply.Applied]:
    made = make_plan(lake, request=request(**given), version=version(number), conf=conf, now=NOW, who=ANN)
    return made, apply.apply_plan(lake, plan_id=made.plan_id, version=version(number), now=NOW, who=ANN)


def published(lake: Lake, plan_id: str) -> dict[str, int | None]:
    rows = lake.read(CORRECTIONS).where(F.col("replay_id") == plan_id).select("click_id", "delta_cost_micros").collect()
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1] for row in rows}


def changed(made: Plan) -> int:
    return sum(made.counts[name] for name in ("newly_invalid", "first_decided_invalid", "reinstated"))


def decided_state(lake: Lake) -> dict[str, tuple[bool, str]]:
    return {name: (invalid, number) for name, (invalid, number, _) in state(lake).items()}


def expected(lake: Lake, number: str, **given: Any) -> tuple[dict[str, tuple[bool, str]], dict[str, int | None]]:
    bundle = version(number).bundle
    clicks = worlds.made_clicks()
    return naive_replay(
        decided_state(lake), clicks, request=request(**given), number=number, bundle=bundle, unknown=worlds.WITHOUT_FEATURES
    )


def test_a_plan_changes_no_published_table_and_is_recorded_once(world: Lake, loose: Config, planned: tuple[str, Plan, Plan]) -> None:
    before = versions_of(world, *READ)
    made = make_plan(world, request=request(), version=version("2", "candidate"), conf=loose, now=NOW, who=replace(ANN, ticket="T-1"))
    again = make_plan(world, request=request(), version=version("2", "candidate"), conf=loose, now=NOW + timedelta(hours=1), who=ANN)
    assert versions_of(world, *READ) == before
    assert (made.already, again.already, again.plan_id) == (False, True, made.plan_id)
    assert [again.counts, again.money, again.details] == [json.loads(json.dumps(part)) for part in (made.counts, made.money, made.details)]
    events = world.read(REPLAYS).select("event", "actor", "ticket", "model_version").collect()
    assert [tuple(row) for row in events] == [("plan", "ann", "T-1", "2")]
    assert made.pins["tables"]["clicks"] == before["clicks"]
    assert len({made.plan_id, planned[1].plan_id, planned[2].plan_id}) == 3  # the same tables, other requests


def test_credits_only_unless_charges_are_allowed(world: Lake, loose: Config) -> None:
    """The whole default replay against the naive one: upstream and featureless clicks, foreign decisions, undecided clicks."""
    after, corrections = expected(world, "2")
    firsts = {name: first for name, (_, _, first) in state(world).items()}
    made, applied = replay(world, loose, "2")
    assert published(world, made.plan_id) == corrections
    assert decided_state(world) == after
    assert {name: first for name, (_, _, first) in state(world).items() if name in firsts} == firsts
    assert all((micros or 0) <= 0 for micros in corrections.values())
    assert {row["reason_class"] for row in world.read(CORRECTIONS).collect()} == {"invalid_traffic"}
    assert made.counts["reinstated"] == 0
    assert made.counts["kept"] == 9  # 2 upstream, 1 without features, 6 that would be charged
    assert set(worlds.UNDECIDED) <= set(after)
    assert any(number == "live-3" for _, number in after.values())
    assert applied.publication_no == 1
    table = [
        tuple(row)
        for row in world.read(CORRECTIONS).groupBy("direction", "currency").agg(F.count("*"), F.sum("delta_cost_micros")).collect()
    ]
    plan_money = [(row["direction"], row["currency"], row["clicks"], row["micros"]) for row in made.money["directions"]]
    assert sorted(table) == sorted(plan_money)
    ordinals = [row[0] for row in world.read(CORRECTIONS).orderBy("click_time").select("ordinal").collect()]
    assert ordinals == list(range(1, len(corrections) + 1))
    decisions = world.read(REPLAY_DECISIONS)
    assert (decisions.count(), decisions.where("not decided").count()) == (32, 9)
    columns = ("click_id", "billing_month", "old_model_version", "new_model_version", "old_is_invalid", "new_is_invalid", "mode")
    assert set(world.read(CORRECTIONS).select(*columns[1:]).where("click_date = '2026-03-02'").collect()) == {
        ("2026-03", "live-3", "2", False, True, "rescore")
    }
    row = world.read(CURRENT_DECISIONS).where("click_id = 'c31'").collect()[0]
    assert (row["basis"], row["spec_id"], row["replay_id"], row["first_is_invalid"]) == ("model", SPEC.spec_id, made.plan_id, None)
    invalid = world.read(CURRENT_DECISIONS).where("is_invalid and basis <> 'external'")
    assert {row["reason_1"].split(":")[0] for row in invalid.collect()} == {"ip", "upstream filter"}
    assert world.read(CURRENT_DECISIONS).where("not is_invalid and coalesce(reason_class, reason_1) is not null").isEmpty()
    first_decision_comes_later(world)


def first_decision_comes_later(world: Lake) -> None:
    """Scoring decides a click that a replay decided before: the first decision is filled in, the published state stays."""
    before = state(world)
    worlds.publish_first(world, worlds.decided(world, world.read(CLICKS)))
    after = state(world)
    assert {name: row[:2] for name, row in after.items()} == {name: row[:2] for name, row in before.items()}
    assert {name for name in after if after[name] != before[name]} == set(worlds.UNDECIDED)
    assert all(first is not None for _, _, first in after.values())
    versions = versions_of(world, DECISIONS, CURRENT_DECISIONS)
    assert worlds.publish_first(world, world.read(DECISIONS), DAYS) == 0
    assert versions_of(world, DECISIONS, CURRENT_DECISIONS) == versions


def test_identity_then_there_and_back_again(world: Lake, loose: Config) -> None:
    """The deciding version corrects nothing; A, B, A nets to zero clicks and zero money; publications have no gaps."""
    decided = {"end": at("2026-03-01 11:10:00"), "allow_charges": True}  # all of these clicks were decided by version 1
    before = {name: row[0] for name, row in state(world).items()}
    there, applied_there = replay(world, loose, "2", **decided)
    back, applied_back = replay(world, loose, "1", **decided)
    assert {name: row[0] for name, row in state(world).items()} == before
    assert changed(there) == changed(back) > 0
    sums: Counter[str] = Counter()
    for made in (there, back):
        sums.update({name: micros or 0 for name, micros in published(world, made.plan_id).items()})
    assert set(sums.values()) == {0}
    assert [a.publication_no for a in (applied_there, applied_back)] == [1, 2]
    repeat, applied_repeat = replay(world, loose, "1", **decided)
    assert (changed(repeat), applied_repeat.publication_no, repeat.counts["clicks"]) == (0, None, 14)
    assert world.read(CORRECTIONS).count() == changed(there) + changed(back)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the next apply die right after its n-th step."""

    def after(number: int) -> None:
        def die(work: apply.Work) -> None:
            raise KeyboardInterrupt(f"killed after step {number}")

        monkeypatch.setattr(apply, "STEPS", (*STEPS[:number], die))

    return after


STEPS = apply.STEPS


def test_killed_after_every_step_ends_like_an_undisturbed_run(
    planned: tuple[str, Plan, Plan],
    planned_world: Lake,
    spark: SparkSession,
    tmp_path: Path,
    killed: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it is half published it blocks other replays of the window, and nothing keeps it from being completed."""
    smooth = copy_of(planned[0], spark, str(tmp_path / "smooth"))
    plan_id, other, deciding = planned[1].plan_id, planned[2].plan_id, version("2")
    whole = apply.apply_plan(smooth, plan_id=plan_id, version=deciding, now=NOW, who=ANN)
    for number in range(1, len(STEPS)):
        killed(number)
        with pytest.raises(KeyboardInterrupt):
            apply.apply_plan(planned_world, plan_id=plan_id, version=deciding, now=NOW, who=ANN)
        if number == 3:  # corrections are out, the published state is not
            with pytest.raises(ConflictError, match=f"half-published.*{plan_id}"):
                apply.apply_plan(planned_world, plan_id=other, version=version("3"), now=NOW, who=ANN)
            late_click(planned_world, FIRST)
            deciding = version("2", "suspect")
    monkeypatch.setattr(apply, "STEPS", STEPS)
    assert apply.apply_plan(planned_world, plan_id=plan_id, version=deciding, now=NOW, who=ANN) == whole
    for table in worlds.PUBLISHED:
        assert rows_of(planned_world, table) == rows_of(smooth, table), table.name
    # Nothing was written twice, not even with the same content.
    assert versions_of(planned_world, *worlds.PUBLISHED) == versions_of(smooth, *worlds.PUBLISHED)
    events = [event.name for event in audit.read(planned_world).of(plan_id)]
    begun = ["plan", "apply", "interrupt", "resume", "interrupt", "resume", "publish", "renew", "interrupt"]
    assert events == [*begun, "resume", "interrupt", "resume", "interrupt", "resume", "applied"]
    commits = versions_of(planned_world, *worlds.PUBLISHED, REPLAYS)
    again = apply.apply_plan(planned_world, plan_id=plan_id, version=version("2", "revoked"), now=NOW, who=ANN)
    assert again == replace(whole, already=True)
    assert versions_of(planned_world, *worlds.PUBLISHED, REPLAYS) == commits
    with pytest.raises(ConflictError, match="stale.*clicks of the window .32 then, 33 now.*published decisions"):
        apply.apply_plan(planned_world, plan_id=other, version=version("3"), now=NOW, who=ANN)


def test_a_lease_is_renewed_within_a_long_chunk(
    planned: tuple[str, Plan, Plan], planned_world: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else takes the window while a step takes longer than the lease."""
    plan_id, record, held = planned[1].plan_id, outcomes.replay_decisions, []

    def slow(*given: Any) -> Any:
        time.sleep(8)
        held.append(lease.held(audit.read(planned_world), plan_id))
        return record(*given)

    monkeypatch.setattr(outcomes, "replay_decisions", slow)
    apply.apply_plan(planned_world, plan_id=plan_id, version=version("2"), now=NOW, who=ANN, lease_minutes=0.08)  # 4.8 s
    assert held[0].name == "renew"
    assert audit.read(planned_world).counted(plan_id)["applied"] == 1


def late_click(lake: Lake, day: Any) -> None:
    lake.append(frame(lake.spark, CLICKS, [click("late", day + timedelta(hours=20), arrival_time=END)]), CLICKS)


def test_stale_plans_are_refused_and_other_days_do_not_matter(
    planned: tuple[str, Plan, Plan], planned_world: Lake, killed: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_id = planned[1].plan_id
    late_click(planned_world, END)
    assert what_moved(planned_world, planned[1], audit.read(planned_world)) == []
    killed(2)  # begun, nothing published
    with pytest.raises(KeyboardInterrupt):
        apply.apply_plan(planned_world, plan_id=plan_id, version=version("2"), now=NOW, who=ANN)
    monkeypatch.setattr(apply, "STEPS", STEPS)
    late_click(planned_world, SECOND)
    for _ in range(2):
        with pytest.raises(ConflictError, match="is stale: moved since: clicks of the window .32 then, 33 now.") as caught:
            apply.apply_plan(planned_world, plan_id=plan_id, version=version("2"), now=NOW, who=ANN)
    assert caught.value.exit_code == 5
    events = [row[0] for row in planned_world.read(REPLAYS).select("event").collect()]
    assert Counter(events) == {"plan": 2, "apply": 1, "interrupt": 1, "fail": 1}
    assert planned_world.read(CORRECTIONS).isEmpty()


@pytest.mark.parametrize("mode", ["recompute", RECOMPUTE_NOW, RESCORE])
def test_late_clicks_of_the_look_back_make_plans_stale_that_count_anew(world: Lake, loose: Config, mode: str) -> None:
    """They lie before the window and outside of the filter, and change its counters all the same."""
    half_past = SECOND + timedelta(hours=10, minutes=30)
    asked = request(start=half_past, mode=mode, advertisers=("adv-0",), allow_charges=True)
    made = make_plan(world, request=asked, version=version("2"), conf=loose, now=NOW, who=ANN)
    early = click("early", half_past - timedelta(hours=1, microseconds=1), ip_key="192.0.2.0")
    world.append(frame(world.spark, CLICKS, [early]), CLICKS)
    assert what_moved(world, made, audit.read(world)) == []
    inside = click("inside", half_past - timedelta(hours=1), ip_key="192.0.2.0", advertiser_id="another")
    world.append(frame(world.spark, CLICKS, [inside]), CLICKS)
    if mode != "rescore":
        with pytest.raises(ConflictError, match=r"clicks from 2026-03-02T09:30:00.00:00 on, which its counters .* \(16 then, 17 now\)"):
            apply.apply_plan(world, plan_id=made.plan_id, version=version("2"), now=NOW, who=ANN)
    else:
        assert not apply.apply_plan(world, plan_id=made.plan_id, version=version("2"), now=NOW, who=ANN).already


def test_labels_and_zones_that_a_plan_rests_on_are_pinned(world: Lake, loose: Config) -> None:
    """With new ones the same request is another plan, with other numbers; the old one can still be applied."""

    def planning(conf: Config = loose) -> Plan:
        return make_plan(world, request=request(end=SECOND, allow_charges=True), version=version("2"), conf=conf, now=NOW, who=ANN)

    def purchasing(made: Plan) -> int:
        return sum(hour["purchasing"] for hour in made.details["window_hours"])

    first = planning()
    bought = world.read(LABELS).withColumns({"is_purchase": F.lit(True), "is_human": F.lit(True), "label_reason": F.lit("purchase")})
    world.replace_days(bought.localCheckpoint(), LABELS, DAYS[:1])
    second = planning()
    assert (purchasing(first), purchasing(second)) == (2, 16)
    assert planning(loose.model_copy(update={"marketplaces": {**loose.marketplaces, "US": "Asia/Tokyo"}})).plan_id != second.plan_id
    apply.apply_plan(world, plan_id=first.plan_id, version=version("2"), now=NOW, who=ANN)


def test_what_apply_refuses(planned: tuple[str, Plan, Plan], planned_world: Lake, loose: Config) -> None:
    plan_id = planned[1].plan_id
    commits = versions_of(planned_world, *worlds.PUBLISHED)

    def applying(given: str = plan_id, **changes: Any) -> apply.Applied:
        return apply.apply_plan(planned_world, plan_id=given, version=replace(version("2"), **changes), now=NOW, who=ANN)

    for wrong in ("../../etc", plan_id.upper(), plan_id + "0", ""):
        with pytest.raises(UsageError, match="plan id"):
            applying(wrong)
    with pytest.raises(InputError, match="not; make one"):
        applying("0123456789abcdef")
    for unstable in ("candidate", "champion", "suspect", "revoked"):
        with pytest.raises(ModelRefusedError, match=f"which is {unstable}"):
            applying(state=unstable)
    with pytest.raises(ModelRefusedError):
        make_plan(planned_world, request=request(), version=version("2", "revoked"), conf=loose, now=NOW, who=ANN)
    with pytest.raises(ConflictError, match="with bundle"):
        applying(bundle=replace(version("2").bundle, sha256="other"))
    folder = f"{planned_world.plan_path(plan_id)}/rows"
    written = next(path.parent for path in Path(folder).rglob("_SUCCESS"))
    dearer = rows.planned(planned_world, planned[1]).withColumn("delta_cost_micros", F.col("delta_cost_micros") - 1)
    dearer.localCheckpoint().write.mode("overwrite").parquet(str(written))
    with pytest.raises(ConflictError, match="changed or lost"):
        applying()
    shutil.rmtree(folder)
    with pytest.raises(ConflictError, match="changed or lost"):
        applying()
    assert versions_of(planned_world, *worlds.PUBLISHED) == commits
    mended = make_plan(planned_world, request=request(allow_charges=True), version=version("2"), conf=loose, now=NOW, who=ANN)
    assert mended.already
    assert applying().publication_no == 1


def test_what_plan_refuses(world: Lake, loose: Config, conf: Config) -> None:
    def planning(version_: Any = None, conf_: Config = loose, override: str | None = None, **given: Any) -> Plan:
        return make_plan(world, request=request(**given), version=version_ or version("2"), conf=conf_, now=NOW, who=ANN, override=override)

    with pytest.raises(NothingToDoError, match="found none"):
        planning(advertisers=("x' OR 1=1 --",))
    with pytest.raises(UsageError, match="offset"):
        planning(start=FIRST.replace(tzinfo=None))
    with pytest.raises(UsageError, match="starts before"):
        planning(end=FIRST)
    with pytest.raises(UsageError, match="mode"):
        planning(mode="guess")
    with pytest.raises(UsageError, match="later than now"):
        planning(end=NOW + timedelta(microseconds=1))
    with pytest.raises(InputError, match="features"):
        planning(worlds.revised(spec=other_spec("2h")), decided_by="live-3")
    with pytest.raises(InputError, match=r"13 clicks by version 1(.|\n)*slidr replay plan .*--mode recompute"):
        planning(worlds.revised(spec=other_spec("2h")))
    world.append(frame(world.spark, CLICKS, [click("old", at("2026-02-27 10:00:00"))]), CLICKS)
    with pytest.raises(InputError, match="none of 2026-02-28; ingest"):
        planning(worlds.revised(spec=other_spec("24h")), mode="recompute")
    with pytest.raises(GuardrailError, match="changed share"):
        planning(conf_=conf, allow_charges=True)
    assert world.read(REPLAYS).isEmpty()
    forced = planning(conf_=conf, allow_charges=True, override="incident 7")
    assert forced.details["override"] == "incident 7"
    assert [check["name"] for check in forced.details["checks"] if not check["passed"]] == ["changed share", "FPR of the new decisions"]


def other_spec(window: str) -> FeatureSpec:
    raw = {**SPEC.to_dict(), "counters": [{"entity": "ip", "measure": "clicks", "windows": [window]}]}
    return FeatureSpec.from_dict(raw)


def test_recompute_finds_what_a_broken_counter_store_did(world: Lake, loose: Config, tmp_path: Path) -> None:
    """Stored counts are damaged: recomputing decides as if they had been right, and says which feature differed, how often.

    Clicks that came late count only for `recompute-now`: there the first click of the address has five before it.
    """
    table = features_table(SPEC)
    broken = world.read(table).withColumn("ip_clicks_1h", F.when(F.minute("click_time") < 30, 0).otherwise(F.col("ip_clicks_1h")))
    world.replace_days(broken.localCheckpoint(), table, DAYS)
    late = [click(f"x{n}", FIRST + timedelta(hours=9, minutes=59), ip_key="192.0.2.0", arrival_time=END) for n in range(5)]
    world.append(frame(world.spark, CLICKS, late), CLICKS)
    scope = {"decided_by": "1", "allow_charges": True}
    now = make_plan(world, request=request(mode="recompute-now", **scope), version=version("1"), conf=loose, now=NOW, who=ANN)
    assert (changed(now), now.counts["newly_invalid"]) == (1, 1)
    made = make_plan(world, request=request(mode="recompute", **scope), version=version("1"), conf=loose, now=NOW, who=ANN)
    assert changed(made) == 0
    hour = {"start": FIRST + timedelta(hours=9), "end": FIRST + timedelta(hours=10)}
    only_late = make_plan(world, request=request(mode="recompute-now", **hour), version=version("1"), conf=loose, now=NOW, who=ANN)
    assert (only_late.counts["late"], only_late.counts["clicks"], made.counts["late"]) == (5, 5, 0)
    counts = {row["feature"]: (row["compared"], row["equal"]) for row in made.details["features"]}
    assert counts == {"ip_clicks_1h": (15, 8), "logged_in": (15, 15)}  # 9 are damaged, 2 of them were 0 anyway
    changes = numbers.changes(rows.planned(world, now))
    written = report.write(made, changes, folder=tmp_path / "replays", zones=loose.marketplaces)
    assert browser.path() is None or browser.problems({"plan": written}) == []
    page = written.read_text(encoding="utf-8")
    assert "2026-02-28 19:00:00 to 2026-03-02 19:00:00" in page  # the window in New York
    assert f"slidr replay apply {made.plan_id}" in page
    assert not [secret for secret in ("192.0.2", "s-c", "user_id") if secret in page]
    assert (tmp_path / "replays" / made.plan_id / report.PICTURE).stat().st_size > 10_000
    saved = json.loads((tmp_path / "replays" / made.plan_id / report.DATA).read_text())
    assert saved["plan"]["counts"] == made.counts


def test_what_a_replay_decided_by_counters_of_its_own_is_rescored_by_these(world: Lake, loose: Config) -> None:
    """The stored counters were broken, and still are: the same version again corrects nothing, and neither do they come back by another."""
    table = features_table(SPEC)
    world.replace_days(world.read(table).withColumn("ip_clicks_1h", F.lit(0)).localCheckpoint(), table, DAYS)
    anew, _ = replay(world, loose, "2", mode="recompute", allow_charges=True)
    given = {"decided_by": "2", "allow_charges": True}
    again = make_plan(world, request=request(**given), version=version("2"), conf=loose, now=NOW, who=ANN)
    assert (changed(again), again.counts["clicks"]) == (0, sum(number == "2" for _, number in decided_state(world).values()))
    assert again.counts["clicks"] > 0
    by_3 = make_plan(world, request=request(**given), version=version("3"), conf=loose, now=NOW, who=ANN)
    clicks = {made["click_id"]: made for made in worlds.made_clicks()}
    for row in rows.planned(world, by_3).where("basis in ('model', 'unseen_slice')").collect():
        assert row["is_invalid"] == naive_invalid(clicks[row["click_id"]], list(clicks.values()), version("3").bundle)
    shutil.rmtree(f"{world.plan_path(anew.plan_id)}/features")
    with pytest.raises(InputError, match=rf"by which {anew.plan_id} decided clicks.*lost(.|\n)*--mode recompute"):
        make_plan(world, request=request(**given), version=version("1"), conf=loose, now=NOW, who=ANN)


def test_of_many_clicks_a_sample_is_compared(world: Lake, loose: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clicks of both tables, of which all counts are damaged."""
    table = features_table(SPEC)
    world.replace_days(world.read(table).withColumn("ip_clicks_1h", F.col("ip_clicks_1h") + 1).localCheckpoint(), table, DAYS)
    monkeypatch.setattr(compare, "ENOUGH", 6)
    made = make_plan(world, request=request(mode="recompute"), version=version("1"), conf=loose, now=NOW, who=ANN)
    ids = world.spark.createDataFrame([(c["click_id"],) for c in worlds.made_clicks()], "click_id string")
    chosen = compare.sampled(ids, made.counts["clicks"]).count()
    assert 0 < chosen < made.counts["clicks"]
    counts = {row["feature"]: (row["compared"], row["equal"]) for row in made.details["features"]}
    assert counts == {"ip_clicks_1h": (chosen, 0), "logged_in": (chosen, chosen)}
    assert compare.sampled(ids, 6).count() == ids.count()


@pytest.mark.parametrize("mode", ["recompute", RESCORE])
def test_a_slice_on_a_feature_is_named_by_the_features_that_the_replay_decides_by(world: Lake, loose: Config, mode: str) -> None:
    """The store holds too low counts: `rescore` takes them for scores and slices, `recompute` takes neither."""
    table, made_clicks = features_table(SPEC), worlds.made_clicks()
    world.replace_days(world.read(table).withColumn("ip_clicks_1h", F.lit(0)).localCheckpoint(), table, DAYS)
    slices = SliceSpec((SlicePart("device"), SlicePart("ip_clicks_1h", cuts=(1.0, 3.0))))
    thresholds = {"phone/ip_clicks_1h<1": 0.1, "phone/ip_clicks_1h>=3": 0.9}
    through = replace(version("2"), bundle=replace(version("2").bundle, slices=slices, thresholds=thresholds))
    plan = make_plan(world, request=request(mode=mode), version=through, conf=loose, now=NOW, who=ANN)
    found = {row["click_id"]: row for row in rows.planned(world, plan).collect()}
    for made in made_clicks:
        known = mode == "recompute" or made["click_id"] != worlds.WITHOUT_FEATURES
        count = naive_count(made, made_clicks) if mode == "recompute" else 0
        band = ("<1" if count < 1 else "[1,3)" if count < 3 else ">=3") if known else "=none"
        name, row = f"{made['device']}/ip_clicks_1h{band}", found[made["click_id"]]
        basis = "upstream" if made["upstream_filter"] else "no_features" if not known else "model" if name in thresholds else "unseen_slice"
        threshold = {"model": thresholds.get(name), "unseen_slice": 0.5}.get(basis)
        assert (row["slice"], row["basis"], row["threshold"]) == (name, basis, threshold)


def test_the_window_is_half_open_and_reads_its_days_only(world: Lake, loose: Config) -> None:
    start = at("2026-03-01 10:05:00").astimezone(timezone(timedelta(hours=5)))
    inside = request(start=start, end=at("2026-03-01 10:10:00"))
    scoped = clicks_of(world, inside)
    assert [row[0] for row in scoped.select("click_id").collect()] == ["c01"]
    scans = re.findall(r"PartitionFilters: (.*)", scoped._jdf.queryExecution().executedPlan().toString())
    assert len(scans) == 2
    assert all("click_date" in scan for scan in scans), scans
    assert request(end=SECOND).days == DAYS[:1]


@pytest.mark.parametrize("seed", [1, *[pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4)]])
def test_random_histories_equal_the_naive_one(world: Lake, loose: Config, seed: int) -> None:
    rng = random.Random(seed)
    numbers = []
    for _ in range(2 if seed == 1 else 5):
        given = {
            "start": rng.choice([FIRST, FIRST + timedelta(hours=10, minutes=30), SECOND]),
            "advertisers": rng.choice([(), (), ("adv-0", "adv-2")]),
            "decided_by": rng.choice([None, None, None, "1"]),
            "allow_charges": rng.random() < 0.6,
        }
        number = rng.choice(["1", "2", "3"])
        after, corrections = expected(world, number, **given)
        try:
            made, applied = replay(world, loose, number, **given)
        except NothingToDoError:
            continue
        assert published(world, made.plan_id) == corrections, given
        assert decided_state(world) == after, given
        numbers += [applied.publication_no] if corrections else []
    assert numbers == list(range(1, len(numbers) + 1))


def test_in_chunks_it_is_the_same_plan_and_a_killed_one_goes_on(
    world: Lake, loose: Config, planned: tuple[str, Plan, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of whole hours; those that were written before the kill are not decided again, and each is recorded by itself."""
    conf = loose.model_copy(update={"replay": loose.replay.model_copy(update={"chunk_clicks": 14})})
    given = {"request": request(allow_charges=True), "version": version("2"), "conf": conf, "now": NOW, "who": ANN}
    decided = []
    real = outcomes.planned

    def second_fails(*args: Any, **named: Any) -> Any:
        decided.append(args)
        if len(decided) == 2:
            raise KeyboardInterrupt
        return real(*args, **named)

    monkeypatch.setattr(outcomes, "planned", second_fails)
    with pytest.raises(KeyboardInterrupt):
        make_plan(world, **given)
    assert audit.read(world).events == ()
    made = make_plan(world, **given)
    edges = [(chunk["start"][8:16], chunk["clicks"]) for chunk in made.details["chunks"]]
    assert edges == [("01T00:00", 12), ("01T11:00", 4), ("02T00:00", 12), ("02T11:00", 4)] or sum(c for _, c in edges) == 32
    assert len(decided) == len(edges) + 1
    assert (made.counts, made.money) == (planned[1].counts, planned[1].money)
    said: list[str] = []
    apply.apply_plan(world, plan_id=made.plan_id, version=version("2"), now=NOW, who=ANN, progress=Progress(said.append))
    assert world.read(REPLAY_DECISIONS).count() == 32
    names = [event.name for event in audit.read(world).of(made.plan_id)]
    assert names == ["plan", "apply", *["renew"] * (len(edges) - 1), "publish", "renew", "applied"]
    assert any("recording decisions: 32 of 32 clicks" in line for line in said)
