"""The features that a replay decides by: those that the decision used, or counters computed anew."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta, timezone

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr import data_files, direct
from slidr.data_files import Files
from slidr.days import days_between
from slidr.errors import InputError
from slidr.features import counters
from slidr.features.spec import FeatureSpec
from slidr.lake import Lake
from slidr.replay import audit
from slidr.replay.request import Request, in_window
from slidr.tables import CLICKS, features_table
from slidr.version import Version

KNOWN = {"recompute": "then", "recompute-now": "now"}


def stored(lake: Lake, *, request: Request, spec: FeatureSpec, commit: int) -> DataFrame:
    """Stored features of the window at a commit of their table, one row per click: logged by a live system, else as known then."""
    found = lake.read_version(features_table(spec), commit, request.days)
    return counters.prefer_logged(found.where(in_window(F.col("click_time"), request)))


def stored_files(lake: Lake, *, request: Request, spec: FeatureSpec, commit: int) -> Files:
    """The files of what `stored` reads."""
    found = data_files.of(lake, features_table(spec), request.days, commit=commit)
    return replace(found, files=tuple(file for file in found.files if set(file.values) & {"logged", "then"}))


def require(found: bool, *, request: Request, version: Version) -> None:
    """Raises InputError with the command that computes features, unless some were found."""
    if not found:
        raise InputError(
            f"expected stored features of spec {version.bundle.spec.spec_id} for clicks of the window, found none; compute them anew:\n"
            f"  {request.command(version=version.number, mode='recompute')}"
        )


def compute(lake: Lake, into: Lake, *, request: Request, spec: FeatureSpec, commit: int, zones: Mapping[str, str]) -> None:
    """Counts the features of the window's days anew, from clicks back to the start of the longest window, into a table of `into`.

    Stored features are not read. Raises InputError that names the days without clicks; days before the first of the lake
    are a boundary, not missing.
    """
    first = (request.start.astimezone(timezone.utc) - timedelta(microseconds=spec.longest_window)).date()
    days = days_between(first, request.days[-1] + timedelta(days=1))
    clicks, known = data_files.of(lake, CLICKS, days, commit=commit), KNOWN[request.mode]
    _refuse_missing_days(lake, clicks, days)
    direct.create(into, features_table(spec))
    before = counters.there(into, spec, request.days, known)
    counters.replace_days(into, clicks, before, request.days, spec=spec, known=known, zones=zones)


def counted_anew(lake: Lake, request: Request, version: Version) -> list[str]:
    """The applied replays that decided clicks of the window by counters of their own, which lie in their plans' folders: what `rescore`
    takes for the clicks that they decided. Raises InputError where these features are lost."""
    log, start, end = audit.read(lake), request.start, request.end
    done = [event for event in log.events if event.name == "applied" and event.mode in KNOWN]
    near = [event.replay_id for event in done if event.window[0] < end and event.window[1] > start] if request.mode == "rescore" else []
    spec = version.bundle.spec
    found = [name for name in near if audit.require_plan(lake, name).pins["spec_id"] == spec.spec_id]
    lost = [name for name in found if not is_computed(Lake(lake.spark, lake.plan_path(name)), spec)]
    if lost:
        raise InputError(
            f"expected the features by which {', '.join(lost)} decided clicks of the window, found them lost; compute them anew:\n"
            f"  {request.command(version=version.number, mode='recompute')}"
        )
    return found


def is_computed(into: Lake, spec: FeatureSpec) -> bool:
    """Whether `compute` came to its end."""
    table = features_table(spec)
    return direct.exists(into, table) and bool(data_files.of(into, table).files)


def computed(into: Lake, *, request: Request, spec: FeatureSpec) -> DataFrame:
    """What `compute` found, of the window."""
    return into.read(features_table(spec), request.days).where(in_window(F.col("click_time"), request))


def _refuse_missing_days(lake: Lake, clicks: Files, days: list[date]) -> None:
    present = {file.values[0] for file in clicks.files if file.rows != 0}
    missing = [day for day in days if day not in present]
    if missing and days[0] in missing and lake.read(CLICKS).where(F.col("click_date") < F.lit(days[0])).isEmpty():
        missing = [day for day in missing if day > min(present, default=days[-1])]
    if missing:
        named = ", ".join(day.isoformat() for day in missing)
        raise InputError(
            f"expected clicks of every day from {days[0]} to {days[-1]}, found none of {named}; ingest these days, then plan again"
        )
