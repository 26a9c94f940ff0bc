"""Whether the lake still is what a plan was made on."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.lake import Lake
from slidr.replay import pins
from slidr.replay.audit import Log, Plan
from slidr.replay.request import Request, clicks_of, request_of
from slidr.tables import REPLAY_DECISIONS

NAMES = {"clicks": "clicks of the window", "published": "published decisions of these clicks"}


def decided_by_replay(lake: Lake, replay_id: str, request: Request, versions: dict[str, int] | None = None) -> DataFrame:
    """The clicks that a replay of this window decided, as `clicks_of` gives them: what a revert is about.

    `versions` pins the commits that are read, by table; None reads the newest.
    """
    own = lake.read_at(REPLAY_DECISIONS, request.days, versions).where(F.col("replay_id") == replay_id)
    clicks = clicks_of(lake, Request(request.start, request.end), versions)
    return clicks.join(own.select("click_id"), on="click_id", how="left_semi")


def what_moved(lake: Lake, plan: Plan, log: Log) -> list[str]:
    """The differences between what a plan was made on and what the lake holds now; empty if it still holds."""
    request = request_of(plan)
    scoped = decided_by_replay(lake, plan.pins["clicks_of"], request) if plan.reverts else clicks_of(lake, request)
    found, _ = pins.fingerprints(scoped)
    moved = [
        f"{text} ({plan.pins[name]['count']} then, {found[name]['count']} now)"
        for name, text in NAMES.items()
        if found[name] != plan.pins[name]
    ]
    if plan.reverts and log.in_effect_without(plan.reverts, plan.window) != plan.pins["in_effect"]:
        moved.append("the replays in effect")
    return moved
