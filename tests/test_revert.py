"""Taking replays back: the published state falls back to what remains, and the advertisers' charges with it."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.errors import ConflictError, GuardrailError, InputError
from slidr.lake import Lake
from slidr.replay import apply, audit
from slidr.replay.audit import Plan
from slidr.replay.plan import make_plan
from slidr.replay.revert import make_revert
from slidr.replay.stack import cancelled
from slidr.tables import CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAY_DECISIONS, REPLAYS
from tests import worlds
from tests.frames import at
from tests.oracles_replay import Verdict, naive_invalid, rerun
from tests.worlds import ANN, FIRST, NOW, SECOND, copy_of, request, version, versions_of

BY_WHOM = ("run_id", "decided_time", "corrected_time")  # differ by when it was published


def replay(lake: Lake, conf: Config, number: str, **given: Any) -> Plan:
    made = make_plan(lake, request=request(**given), version=version(number), conf=conf, now=NOW, who=ANN)
    apply.apply_plan(lake, plan_id=made.plan_id, version=version(number), now=NOW, who=ANN)
    return made


def revert(lake: Lake, conf: Config, replay_id: str) -> Plan:
    made = make_revert(lake, replay_id=replay_id, conf=conf, now=NOW, who=ANN)
    apply.apply_plan(lake, plan_id=made.plan_id, version=None, now=NOW, who=ANN)
    return made


def published(lake: Lake, b: str = "") -> list[tuple[Any, ...]]:
    """The whole published state, but for when and by which run it was written; the replay `b` by this name."""
    rows = lake.read(CURRENT_DECISIONS).drop(*BY_WHOM).collect()
    return sorted((tuple("b" if b and value == b else value for value in row) for row in rows), key=repr)


def charges(lake: Lake) -> dict[str, int]:
    """Sum of the changes by click, those that are not zero."""
    sums: Counter[str] = Counter()
    for row in lake.read(CORRECTIONS).select("click_id", "delta_cost_micros").collect():
        sums[row[0]] += row[1] or 0
    return {click: micros for click, micros in sums.items() if micros}


def test_a_then_b_then_revert_a_equals_b_alone(world: Lake, template: str, loose: Config, spark: SparkSession, tmp_path: Path) -> None:
    """A overlaps B; each decides clicks that nobody had decided, and A may charge."""
    alone = copy_of(template, spark, str(tmp_path / "alone"))
    before = published(world)
    a = replay(world, loose, "2", end=SECOND.replace(hour=10, minute=40), allow_charges=True)
    b = replay(world, loose, "3", start=FIRST.replace(hour=10, minute=30))
    taken = revert(world, loose, a.plan_id)
    alone_b = replay(alone, loose, "3", start=FIRST.replace(hour=10, minute=30))
    assert published(world, b=b.plan_id) == published(alone, b=alone_b.plan_id)
    assert charges(world) == charges(alone)
    assert {row[0] for row in world.read(CORRECTIONS).where(F.col("replay_id") == taken.plan_id).select("mode").collect()} == {"revert"}
    assert {row["reverts_replay_id"] for row in world.read(CORRECTIONS).collect()} == {None, a.plan_id}
    assert not world.read(REPLAY_DECISIONS).where(F.col("replay_id") == a.plan_id).isEmpty()  # what it decided stays on record
    numbers = sorted({row["publication_no"] for row in world.read(CORRECTIONS).collect()})
    assert numbers == [1, 2, 3]
    revert(world, loose, b.plan_id)
    assert published(world) == before
    assert charges(world) == {}


def test_a_revert_is_a_plan_like_any_other(world: Lake, loose: Config, conf: Config) -> None:
    a = replay(world, loose, "2", allow_charges=True)
    state, money = published(world), charges(world)
    commits = versions_of(world, *worlds.PUBLISHED)
    with pytest.raises(GuardrailError, match="changed share"):
        make_revert(world, replay_id=a.plan_id, conf=conf, now=NOW, who=ANN)
    first = make_revert(world, replay_id=a.plan_id, conf=loose, now=NOW, who=ANN)
    assert make_revert(world, replay_id=a.plan_id, conf=loose, now=NOW, who=ANN) == replace(first, already=True)
    assert versions_of(world, *worlds.PUBLISHED) == commits
    assert first.counts["undecided_valid"] + first.counts["undecided_invalid"] == len(worlds.UNDECIDED)
    done = apply.apply_plan(world, plan_id=first.plan_id, version=None, now=NOW, who=ANN)
    commits = versions_of(world, *worlds.PUBLISHED, REPLAYS)
    assert apply.apply_plan(world, plan_id=first.plan_id, version=None, now=NOW, who=ANN) == replace(done, already=True)
    assert apply.apply_plan(world, plan_id=a.plan_id, version=version("2"), now=NOW, who=ANN).reverted_by == first.plan_id
    assert versions_of(world, *worlds.PUBLISHED, REPLAYS) == commits
    with pytest.raises(InputError, match=f"which {first.plan_id} has reverted"):
        make_revert(world, replay_id=a.plan_id, conf=loose, now=NOW, who=ANN)
    revert(world, loose, first.plan_id)  # the revert of a revert brings the replay back
    assert published(world) == state
    assert charges(world) == money


def test_what_a_revert_refuses(world: Lake, loose: Config) -> None:
    planned = make_plan(world, request=request(), version=version("3"), conf=loose, now=NOW, who=ANN)
    with pytest.raises(InputError, match="was applied, found"):
        make_revert(world, replay_id=planned.plan_id, conf=loose, now=NOW, who=ANN)
    a = replay(world, loose, "2", allow_charges=True)
    taking = make_revert(world, replay_id=a.plan_id, conf=loose, now=NOW, who=ANN)
    replay(world, loose, "2", end=SECOND, allow_charges=True)  # decides nothing otherwise, but stays when the first is taken back
    with pytest.raises(ConflictError, match=r"stale: moved since: the replays in effect(.|\n)*slidr replay revert"):
        apply.apply_plan(world, plan_id=taking.plan_id, version=None, now=NOW, who=ANN)


def test_a_click_that_nothing_decides_any_more_can_be_decided_first(world: Lake, loose: Config) -> None:
    a = replay(world, loose, "3")
    revert(world, loose, a.plan_id)
    assert world.read(CURRENT_DECISIONS).where(F.col("click_id").isin(*worlds.UNDECIDED)).isEmpty()
    worlds.publish_first(world, worlds.decided(world, world.read(worlds.CLICKS)))
    there = world.read(CURRENT_DECISIONS).where(F.col("click_id").isin(*worlds.UNDECIDED)).collect()
    assert {(row["replay_id"], row["first_is_invalid"] == row["is_invalid"]) for row in there} == {(None, True)}


@pytest.mark.parametrize("seed", [1, *[pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4, 5)]])
def test_random_stacks_equal_the_naive_ones(world: Lake, loose: Config, seed: int) -> None:
    """Replays, reverts, reverts of reverts and first decisions that come late, against history run again without what was reverted."""
    rng = random.Random(seed)
    clicks = worlds.made_clicks()
    events: list[tuple[Any, ...]] = [("first", row["click_id"], row["is_invalid"]) for row in world.read(DECISIONS).collect()]
    standing: list[str] = []
    for turn in range(4 if seed == 1 else 10):
        kind = rng.choice(["replay", "replay", "revert"]) if standing and turn else "replay"
        if turn == 2:
            worlds.publish_first(world, worlds.decided(world, world.read(worlds.CLICKS)))
            known = {event[1] for event in events if event[0] == "first"}
            events += [("first", r["click_id"], r["is_invalid"]) for r in world.read(DECISIONS).collect() if r["click_id"] not in known]
        if kind == "revert":
            target = rng.choice(standing)
            made = revert(world, loose, target)
            events.append(("revert", made.plan_id, target))
        else:
            made = random_replay(world, loose, rng, clicks, events)
        applied = audit.read(world).applied()
        standing = [one.replay_id for one in applied if one.replay_id not in cancelled(applied)]
        found = {row["click_id"]: (row["is_invalid"], row["replay_id"] or "first") for row in world.read(CURRENT_DECISIONS).collect()}
        assert found == rerun(events), (turn, kind)
    assert charges(world) == expected_charges(clicks, events)


def random_replay(world: Lake, conf: Config, rng: random.Random, clicks: list[dict[str, Any]], events: list[tuple[Any, ...]]) -> Plan:
    """Plans and applies one, and adds it to the events with the verdicts of the naive model."""
    given: dict[str, Any] = {
        "start": rng.choice([FIRST, at("2026-03-01 10:30:00"), SECOND]),
        "advertisers": rng.choice([(), ("adv-0", "adv-2")]),
        "allow_charges": rng.random() < 0.5,
    }
    number = rng.choice(["1", "2", "3"])
    firsts = {event[1] for event in events if event[0] == "first"}
    made = replay(world, conf, number, **given)
    if any(event[1] == made.plan_id for event in events if event[0] == "replay"):
        return made  # the same once more: already applied
    wanted, verdicts = request(**given), {}
    for click in clicks:
        name = click["click_id"]
        if click["click_time"] < wanted.start or (wanted.advertisers and click["advertiser_id"] not in wanted.advertisers):
            continue
        unknown = name == worlds.WITHOUT_FEATURES
        invalid = not unknown and naive_invalid(click, clicks, version(number).bundle)
        authority = "none" if click["upstream_filter"] else "full" if wanted.allow_charges and not unknown else "credit"
        verdicts[name] = Verdict(invalid, authority, name in firsts)
    events.append(("replay", made.plan_id, verdicts))
    return made


def expected_charges(clicks: list[dict[str, Any]], events: list[tuple[Any, ...]]) -> dict[str, int]:
    """What each publication changes, one after the other: an undecided click is charged like a valid one."""
    cost = {click["click_id"]: click["cost_micros"] or 0 for click in clicks}
    sums: Counter[str] = Counter()
    for end in range(1, len(events) + 1):
        if events[end - 1][0] == "first":
            continue
        before, after = rerun(events[: end - 1]), rerun(events[:end])
        for name, price in cost.items():
            was, now = (state.get(name, (False,))[0] for state in (before, after))
            sums[name] += price * (int(was) - int(now))
    return {name: micros for name, micros in sums.items() if micros}
