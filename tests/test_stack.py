"""Replays and reverts on top of each other: any stack leaves what the replays that remain would have made alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from pyspark.sql import SparkSession

from slidr.replay import stack
from slidr.replay.stack import Applied
from tests.oracles_replay import Verdict, rerun

CLICKS = "abcde"
VERDICTS = st.dictionaries(
    st.sampled_from(CLICKS), st.tuples(st.booleans(), st.sampled_from([stack.FULL, stack.CREDIT, stack.CREDIT, stack.NONE])), min_size=1
)


@dataclass
class History:
    """Events in order: ("first", click, invalid), ("replay", id, {click: Verdict}), ("revert", id, target)."""

    events: list[tuple[Any, ...]] = field(default_factory=list)

    def applied(self) -> list[Applied]:
        kinds = {"replay": lambda event: Applied(event[1]), "revert": lambda event: Applied(event[1], event[2])}
        return [kinds[event[0]](event) for event in self.events if event[0] in kinds]

    def firsts(self) -> dict[str, bool]:
        return {event[1]: event[2] for event in self.events if event[0] == "first"}

    def replays(self) -> dict[str, dict[str, Verdict]]:
        return {event[1]: event[2] for event in self.events if event[0] == "replay"}

    def new_id(self) -> str:
        return f"r{len(self.applied()):02d}"


class Publishing(RuleBasedStateMachine):
    """The published state is kept as slidr keeps it: a replay touches its own clicks, a revert those of the replay it is about."""

    histories: list[History]

    @initialize()
    def begin(self) -> None:
        self.history = History()
        self.histories.append(self.history)
        self.state: dict[str, tuple[bool, str]] = {}

    @rule(click=st.sampled_from(CLICKS), invalid=st.booleans())
    def first_decision(self, click: str, invalid: bool) -> None:
        if click not in self.history.firsts():
            self.history.events.append(("first", click, invalid))
            self.state.setdefault(click, (invalid, "first"))

    @rule(verdicts=VERDICTS)
    def replay(self, verdicts: dict[str, tuple[bool, str]]) -> None:
        firsts, name = self.history.firsts(), self.history.new_id()
        rows = {click: Verdict(invalid, authority, click in firsts) for click, (invalid, authority) in verdicts.items()}
        self.history.events.append(("replay", name, rows))
        for click, row in rows.items():
            self.state = row.over(self.state, click, name)

    @precondition(lambda self: self.history.applied())
    @rule(pick=st.integers(min_value=0, max_value=99))
    def revert(self, pick: int) -> None:
        applied = self.history.applied()
        cancelled = stack.cancelled(applied)
        standing = [one.replay_id for one in applied if one.replay_id not in cancelled]
        target, name = standing[pick % len(standing)], self.history.new_id()
        touched = self.history.replays()[stack.root(target, applied)]
        self.history.events.append(("revert", name, target))
        after = rerun(self.history.events)
        self.state = {click: made for click, made in {**self.state, **{c: after.get(c) for c in touched}}.items() if made}

    @invariant()
    def equals_what_remains_alone(self) -> None:
        if hasattr(self, "history"):
            assert self.state == rerun(self.history.events)


@pytest.fixture(scope="module")
def histories() -> Iterator[list[History]]:
    Publishing.histories = []
    run_state_machine_as_test(Publishing, settings=settings(max_examples=150, stateful_step_count=15, deadline=None))
    yield Publishing.histories
    del Publishing.histories


def test_any_stack_equals_what_remains_of_it(histories: list[History]) -> None:
    """The machine has run: its invariant holds. Here: it did see what it is about."""
    kinds = [event[0] for history in histories for event in history.events]
    assert min(kinds.count(kind) for kind in ("first", "replay", "revert")) > 100
    twice = [h for h in histories if {e[2] for e in h.events if e[0] == "revert"} & {e[1] for e in h.events if e[0] == "revert"}]
    assert twice, "no revert was reverted"


def test_spark_settles_every_click_of_these_stacks_alike(histories: list[History], spark: SparkSession) -> None:
    """All histories at once: each click of each history is a click of its own."""
    firsts, decided, expected = [], [], {}
    for number, history in enumerate(histories):
        remaining = set(stack.in_effect(history.applied()))
        firsts += [(f"{number}{click}", *state(invalid, "first", None)) for click, invalid in history.firsts().items()]
        decided += [
            (f"{number}{click}", *state(row.invalid, "replay", name), row.authority, row.after_first)
            for name, rows in history.replays().items()
            if name in remaining
            for click, row in rows.items()
        ]
        expected |= {f"{number}{click}": made for click, made in rerun(history.events).items()}
    order = [f"r{number:02d}" for number in range(40)]
    first = spark.createDataFrame(firsts, COLUMNS)
    rows = stack.settled(first, spark.createDataFrame(decided, COLUMNS + ", authority string, after_first boolean"), order).collect()
    found = {row["click_id"]: (row["is_invalid"], row["replay_id"] or "first") for row in rows if row["is_invalid"] is not None}
    assert found == expected
    assert len({row["click_id"] for row in rows}) == len(rows)
    assert {row["basis"] for row in rows if row["replay_id"]} == {"replay"}


COLUMNS = "click_id string, is_invalid boolean, slice string, score double, empty_permille int, null_permille int, threshold double, "
COLUMNS += "ivt_class string, basis string, reason_class string, reason_1 string, reason_2 string, reason_3 string, "
COLUMNS += "model_version string, spec_id string, replay_id string"


def state(invalid: bool, basis: str, replay_id: str | None) -> tuple[Any, ...]:
    return invalid, "slice", 0.5, 250, 100, 0.5, None, basis, "rate", "r1", "r2", None, "1", "spec", replay_id


def test_a_revert_of_a_revert_brings_back() -> None:
    applied = [Applied("a"), Applied("b"), Applied("c", "a"), Applied("d", "c")]
    assert stack.in_effect(applied[:2]) == ["a", "b"]
    assert stack.in_effect(applied[:3]) == ["b"]
    assert stack.in_effect(applied) == ["a", "b"]
    assert stack.cancelled(applied) == {"c": "d"}
    assert stack.root("d", applied) == "a"


def test_without_replays_the_first_decision_stands(spark: SparkSession) -> None:
    first = spark.createDataFrame([("x", *state(True, "first", None))], COLUMNS)
    nothing = spark.createDataFrame([], COLUMNS + ", authority string, after_first boolean")
    assert [tuple(row)[:3] for row in stack.settled(first, nothing, []).collect()] == [("x", True, "slice")]
