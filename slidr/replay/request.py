"""What a replay is asked to do: window of click time, mode, filters. And the clicks that it is about."""

import shlex
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from slidr.days import days_of
from slidr.errors import NothingToDoError, UsageError
from slidr.lake import Lake
from slidr.replay.audit import Plan, from_micros
from slidr.slices import report_slice
from slidr.tables import CLICKS, CURRENT_DECISIONS

MODES = ("rescore", "recompute", "recompute-now")
REVERT = "revert"  # the mode of a plan that takes a replay back: nothing is scored
OLD = ("is_invalid", "score", "model_version", "basis", "spec_id", "slice", "replay_id", "first_is_invalid")


@dataclass(frozen=True)
class Request:
    """The half-open window [start, end) of click time and what narrows it; empty tuples do not narrow.

    `slices` match the published slice or the report slice; `decided_by` is the version that decided the published state.
    `allow_charges` lets the replay reinstate clicks, so that advertisers pay for them again.
    """

    start: datetime
    end: datetime
    mode: str = "rescore"
    decided_by: str | None = None
    advertisers: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    marketplaces: tuple[str, ...] = ()
    allow_charges: bool = False

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise UsageError(f"expected times with an offset from UTC, found {self.start} and {self.end}; write 2026-03-01T12:00+00:00")
        if not self.start < self.end:
            raise UsageError(f"expected a window that starts before it ends, found {self.start} to {self.end}; swap --from and --to")
        if self.mode not in (*MODES, REVERT):
            raise UsageError(f"expected --mode to be one of {', '.join(MODES)}, found {self.mode!r}")

    @property
    def window(self) -> tuple[str, str]:
        return _utc(self.start).isoformat(), _utc(self.end).isoformat()

    @property
    def days(self) -> list[date]:
        """UTC days that the window touches."""
        return days_of(_utc(self.start), _utc(self.end))

    @property
    def filters(self) -> dict[str, Any]:
        named = {"advertisers": self.advertisers, "slices": self.slices, "marketplaces": self.marketplaces}
        return {"decided_by": self.decided_by, **{name: sorted(values) for name, values in named.items()}}

    def refuse_future(self, now: datetime) -> None:
        if self.end > now:
            raise UsageError(
                f"expected a window that has passed, found an end at {self.window[1]}, later than now, {_utc(now).isoformat()}"
            )

    def command(self, *, version: str, mode: str | None = None) -> str:
        """The command line that plans this request, in another mode where one is given."""
        options = [("--decided-by", self.decided_by)] if self.decided_by else []
        options += [("--advertiser", name) for name in self.advertisers]
        options += [("--slice", name) for name in self.slices]
        options += [("--marketplace", name) for name in self.marketplaces]
        words = ["slidr", "replay", "plan", "--from", self.window[0], "--to", self.window[1], "--model", version]
        words += ["--mode", mode or self.mode, *[word for option in options for word in option]]
        return shlex.join(words + (["--allow-charges"] if self.allow_charges else []))


def request_of(plan: Plan) -> Request:
    """The request that a plan on record was made from; of a revert, that of the replay whose clicks it is about."""
    start, end = plan.window
    given = plan.pins["filters"]
    lists = {name: tuple(given[name]) for name in ("advertisers", "slices", "marketplaces")}
    allow = plan.pins["allow_charges"]
    return Request(start, end, mode=plan.pins["mode"], decided_by=given["decided_by"], allow_charges=allow, **lists)


def command_of(plan: Plan) -> str:
    """The command line that plans it again."""
    if plan.reverts:
        return f"slidr replay revert {plan.reverts}"
    return request_of(plan).command(version=plan.pins["version"])


def _utc(time: datetime) -> datetime:
    return time.astimezone(timezone.utc)


def in_window(time: Column, request: Request) -> Column:
    return (time >= F.lit(request.start)) & (time < F.lit(request.end))


def clicks_of(lake: Lake, request: Request, versions: dict[str, int] | None = None) -> DataFrame:
    """The clicks of window and filters with the published state as `old_…` columns (NULL where never decided), and report_slice.

    `versions` pins the commits that are read, by table; None reads the newest.
    """
    clicks = lake.read_at(CLICKS, request.days, versions).where(in_window(F.col("click_time"), request))
    published = lake.read_at(CURRENT_DECISIONS, request.days, versions).select("click_id", *_old())
    joined = clicks.join(published.hint("shuffle_hash"), on="click_id", how="left").withColumn("report_slice", report_slice())
    scoped = narrowed(joined, request, published_slice="old_slice")
    return scoped if request.decided_by is None else scoped.where(F.col("old_model_version") == request.decided_by)


def apart(lake: Lake, request: Request, versions: dict[str, int] | None = None) -> tuple[DataFrame, DataFrame]:
    """The clicks of `clicks_of`, and their published state with `old_…` columns, for what needs no click's both: joined only where
    the published state says which clicks are meant."""
    if request.decided_by or request.slices:
        scoped = clicks_of(lake, request, versions)
        return scoped, scoped
    clicks, current = (lake.read_at(table, request.days, versions) for table in (CLICKS, CURRENT_DECISIONS))
    frames = [frame.where(in_window(F.col("click_time"), request)) for frame in (clicks, current.select("*", *_old()))]
    narrow = [narrowed(frame, request, published_slice="slice") for frame in frames]
    return narrow[0], narrow[1]


def _old() -> list[Column]:
    return [F.col(name).alias(f"old_{name}") for name in OLD]


def decided_window(lake: Lake, version: str) -> tuple[datetime, datetime]:
    """From the first to just past the last click whose published decision is of a version. Raises NothingToDoError."""
    decided = lake.read(CURRENT_DECISIONS).where(F.col("model_version") == version)
    first, last = decided.agg(*[F.unix_micros(edge) for edge in (F.min("click_time"), F.max("click_time"))]).collect()[0]
    if first is None:
        raise NothingToDoError(f"expected clicks decided by version {version}, found none; `slidr models list` shows the versions")
    return from_micros(first), from_micros(last + 1)


def narrowed(df: DataFrame, request: Request, *, published_slice: str) -> DataFrame:
    """Rows of the request's advertisers, marketplaces and slices."""
    if request.advertisers:
        df = df.where(F.col("advertiser_id").isin(*request.advertisers))
    if request.marketplaces:
        df = df.where(F.col("marketplace").isin(*request.marketplaces))
    if request.slices:
        names = list(request.slices)
        df = df.where(F.col("report_slice").isin(names) | F.coalesce(F.col(published_slice).isin(names), F.lit(False)))
    return df
