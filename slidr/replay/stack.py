"""Replays on top of each other: which of them are in effect, and what they make of a click together.

The published state of a click is its first decision with the replays in effect run over it again, oldest first, as if the
others had never been. A replay's verdict stands by its authority: `full` replaces whatever was published, `credit` does not
reinstate an invalid click, `none` changes nothing. So applying A, then B, and reverting A leaves what B alone would have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr.scoring import NOTHING, REASONS

FULL, CREDIT, NONE = "full", "credit", "none"
STATE = ("is_invalid", "slice", "score", *NOTHING, "threshold", "ivt_class", "basis", *REASONS, "model_version", "spec_id", "replay_id")


@dataclass(frozen=True)
class Applied:
    """A publication; `reverts` names the earlier one that it takes back, None for a replay."""

    replay_id: str
    reverts: str | None = None


def cancelled(applied: Sequence[Applied]) -> dict[str, str]:
    """Publication -> the revert in effect that cancels it. A revert cancels what it reverts, unless it was reverted itself."""
    by: dict[str, str] = {}
    for one in reversed(applied):
        if one.reverts and one.replay_id not in by:
            by[one.reverts] = one.replay_id
    return by


def in_effect(applied: Sequence[Applied]) -> list[str]:
    """The replays that count, in order."""
    gone = cancelled(applied)
    return [one.replay_id for one in applied if not one.reverts and one.replay_id not in gone]


def root(replay_id: str, applied: Sequence[Applied]) -> str:
    """The replay whose clicks a revert is about: that of a revert of a revert is the first replay of the chain."""
    reverts = {one.replay_id: one.reverts for one in applied}
    while reverts[replay_id]:
        replay_id = str(reverts[replay_id])
    return replay_id


def settled(first: DataFrame, decided: DataFrame, order: Sequence[str]) -> DataFrame:
    """click_id and the columns STATE of the published state; is_invalid NULL where nothing decides the click.

    `first`: click_id and STATE of first decisions, replay_id NULL. `decided`: the same of replays in effect, with authority and
    after_first. `order`: their ids, oldest first. One row per click of either.
    """
    place = F.array_position(F.array(*map(F.lit, order)), F.col("replay_id")) if order else F.lit(0)
    entry = F.struct(F.col("after_first"), place.alias("place"), F.col("authority"), F.struct(*STATE).alias("state"))
    stacks = decided.groupBy("click_id").agg(F.array_sort(F.collect_list(entry)).alias("stack"))
    firsts = first.select("click_id", F.struct(*STATE).alias("first"))
    both = firsts.join(stacks, on="click_id", how="full")
    # A first decision that came after a replay had decided the click never was the published state.
    nothing = F.lit(None).cast(dict(both.dtypes)["first"])
    early = F.aggregate(F.filter("stack", lambda row: ~row["after_first"]), nothing, _step)
    late = F.aggregate(F.filter("stack", lambda row: row["after_first"]), F.coalesce(early, F.col("first")), _step)
    settled = F.when(F.col("stack").isNull(), F.col("first")).otherwise(late)
    return both.select("click_id", settled.alias("settled")).select("click_id", "settled.*")


def _step(state: Column, row: Column) -> Column:
    """The published state after one more replay; the same decision leaves it as it was."""
    verdict = row["state"]["is_invalid"]
    stands = (row["authority"] == FULL) | ((row["authority"] == CREDIT) & verdict)
    changes = state.isNull() & (row["authority"] != NONE) | ((state["is_invalid"] != verdict) & stands)
    return F.when(F.coalesce(changes, F.lit(False)), row["state"]).otherwise(state)
