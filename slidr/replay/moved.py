"""Whether the lake still is what a plan was made on."""

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.lake import Lake
from slidr.replay import pins, rows
from slidr.replay.audit import Log, Plan
from slidr.replay.outcomes import FIRST_DECIDED
from slidr.replay.request import Request, apart, clicks_of, request_of
from slidr.tables import DECISIONS, REPLAY_DECISIONS

NAMES = {"clicks": "clicks of the window", "published": "published decisions of these clicks"}


def decided_by_replay(lake: Lake, replay_id: str, request: Request, versions: dict[str, int] | None = None) -> tuple[DataFrame, DataFrame]:
    """The clicks that a replay of this window decided, as `clicks_of` gives them, twice, as `apart`: what a revert is about.

    `versions` pins the commits that are read, by table; None reads the newest.
    """
    own = lake.read_at(REPLAY_DECISIONS, request.days, versions).where(F.col("replay_id") == replay_id)
    clicks = clicks_of(lake, Request(request.start, request.end), versions)
    scoped = clicks.join(own.select("click_id"), on="click_id", how="left_semi")
    return scoped, scoped


def what_moved(lake: Lake, plan: Plan, log: Log, *, look: bool = True) -> list[str]:
    """The differences between what a plan was made on and what the lake holds now; empty if it still holds.

    Without `look` the clicks are known to be the same, and only the log is looked at.
    """
    moved = [*_clicks_moved(lake, plan), *_counted_moved(lake, plan), *_decided_meanwhile(lake, plan)] if look else []
    if plan.reverts and log.in_effect_without(plan.reverts, plan.window) != plan.pins["in_effect"]:
        moved.append("the replays in effect")
    return moved


def _clicks_moved(lake: Lake, plan: Plan) -> list[str]:
    request = request_of(plan)
    frames = decided_by_replay(lake, plan.pins["clicks_of"], request) if plan.reverts else apart(lake, request)
    found = pins.look(*frames).pinned
    return [
        f"{text} ({plan.pins[name]['count']} then, {found[name]['count']} now)"
        for name, text in NAMES.items()
        if found[name] != plan.pins[name]
    ]


def _counted_moved(lake: Lake, plan: Plan) -> list[str]:
    """The clicks of the look-back, of a plan that counts anew."""
    then = plan.pins.get("counted")
    if then is None:
        return []
    start, end = map(datetime.fromisoformat, then["window"])
    now = pins.counted(lake, (start, end), then["keys"])
    text = f"clicks from {then['window'][0]} on, which its counters are computed from ({then['count']} then, {now['count']} now)"
    return [] if now == then else [text]


def _decided_meanwhile(lake: Lake, plan: Plan) -> list[str]:
    """First decisions, published or not yet, of clicks that the plan takes for never decided."""
    if not sum(plan.counts[name] for name in FIRST_DECIDED):
        return []
    never = rows.planned(lake, plan).where(F.col("outcome").isin(*FIRST_DECIDED)).select("click_id")
    found = lake.read(DECISIONS, request_of(plan).days).join(never, on="click_id", how="left_semi").count()
    return [f"first decisions of {found} clicks that had none (if they are not published yet, run `slidr score` again)"] if found else []
