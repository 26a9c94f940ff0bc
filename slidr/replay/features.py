"""The features that a replay decides by: those that the decision used, or counters computed anew."""

from collections.abc import Mapping
from datetime import date, timedelta, timezone

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.days import days_between
from slidr.errors import InputError
from slidr.features import counters
from slidr.features.spec import FeatureSpec
from slidr.lake import Lake
from slidr.replay.request import Request, in_window
from slidr.tables import CLICKS, features_table
from slidr.version import Version

KNOWN = {"recompute": "then", "recompute-now": "now"}


def used(lake: Lake, *, request: Request, spec: FeatureSpec, commit: int) -> DataFrame:
    """Stored features of the window at a commit of their table, one row per click: logged by a live system, else as known then."""
    stored = lake.read_version(features_table(spec), commit, request.days)
    return counters.prefer_logged(stored.where(in_window(F.col("click_time"), request)))


def require(found: bool, *, request: Request, version: Version) -> None:
    """Raises InputError with the command that computes features, unless some were found."""
    if not found:
        raise InputError(
            f"expected stored features of spec {version.bundle.spec.spec_id} for clicks of the window, found none; compute them anew:\n"
            f"  {request.command(version=version.number, mode='recompute')}"
        )


def computed(lake: Lake, *, request: Request, spec: FeatureSpec, commit: int, zones: Mapping[str, str]) -> DataFrame:
    """Features of the window's clicks, counted anew from clicks back to the start of the longest window.

    Stored features are not read. Raises InputError that names the days without clicks; days before the first of the lake
    are a boundary, not missing.
    """
    first = (request.start.astimezone(timezone.utc) - timedelta(microseconds=spec.longest_window)).date()
    days = days_between(first, request.days[-1] + timedelta(days=1))
    clicks = lake.read_version(CLICKS, commit, days)
    _refuse_missing_days(lake, clicks, days)
    start, end = request.days[0], request.days[-1] + timedelta(days=1)
    built = counters.build(clicks, spec=spec, start=start, end=end, known=KNOWN[request.mode], zones=zones)
    return built.where(in_window(F.col("click_time"), request))


def _refuse_missing_days(lake: Lake, clicks: DataFrame, days: list[date]) -> None:
    present = {row[0] for row in clicks.select("click_date").distinct().collect()}  # at most one row per day
    missing = [day for day in days if day not in present]
    if missing and days[0] in missing and lake.read(CLICKS).where(F.col("click_date") < F.lit(days[0])).isEmpty():
        missing = [day for day in missing if day > min(present, default=days[-1])]
    if missing:
        named = ", ".join(day.isoformat() for day in missing)
        raise InputError(
            f"expected clicks of every day from {days[0]} to {days[-1]}, found none of {named}; ingest these days, then plan again"
        )
