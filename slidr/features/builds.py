"""Which commit of `clicks` each day's features of all known clicks (`now`) were counted from, and which clicks have come since."""

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta

from slidr import data_files, direct
from slidr.data_files import CommitGoneError, Files
from slidr.features.spec import UNITS, FeatureSpec
from slidr.lake import Lake
from slidr.tables import CLICKS, FEATURE_BUILDS


def note(lake: Lake, spec: FeatureSpec, days: Sequence[date], *, commit: int, run_id: str, now: datetime) -> None:
    """Says, after their commit, what these days were counted from. Where a run was killed in between, the older word stands: such days
    are counted once more."""
    row = {"spec_id": spec.spec_id, "clicks_version": commit, "run_id": run_id, "built_time": now, "built_date": now.date()}
    lake.create(FEATURE_BUILDS)
    direct.add(lake, FEATURE_BUILDS, [{**row, "click_date": day} for day in days])


def by_commit(lake: Lake, spec: FeatureSpec, days: Collection[date]) -> dict[int | None, list[date]]:
    """The days by the newest commit that they were counted from; None where none was noted."""
    rows = direct.read(lake, FEATURE_BUILDS).rows if direct.exists(lake, FEATURE_BUILDS) else []
    newest: dict[date, int] = {}
    for row in rows:
        if row["spec_id"] == spec.spec_id:
            newest[row["click_date"]] = max(row["clicks_version"], newest.get(row["click_date"], -1))
    found: dict[int | None, list[date]] = {}
    for day in sorted(days):
        found.setdefault(newest.get(day), []).append(day)
    return found


def up_to_date(lake: Lake, spec: FeatureSpec, days: Collection[date]) -> set[date]:
    """Of these days those whose own clicks, and those of their look-back, lie in the very files that they were counted from."""
    found: set[date] = set()
    for commit, counted in by_commit(lake, spec, days).items():
        read = {day for one in counted for day in look_back(spec, [one])}
        changed = {path.values[0] for path in set(data_files.of(lake, CLICKS, read).files) ^ set(_as_of(lake, read, commit).files)}
        found |= {day for day in counted if not changed & set(look_back(spec, [day]))}
    return found


def come_since(lake: Lake, days: Collection[date], commit: int | None) -> tuple[Files, dict[date, int]]:
    """Files of clicks of these days that hold the clicks which came after the commit, and how many came, by click day.

    Days that have no more clicks than then are left out: files may have been brought together. Where that happened beside new clicks,
    the files hold older ones too.
    """
    now, then = data_files.of(lake, CLICKS, days), _as_of(lake, days, commit)
    before = then.rows
    more = {day: rows - before.get(day, 0) for day, rows in now.rows.items() if rows > before.get(day, 0)}
    return now.only(file for file in now.files if file.values[0] in more and file.path not in then.paths), more


def look_back(spec: FeatureSpec, days: Sequence[date]) -> list[date]:
    """Consecutive days, and those before them that the longest window reaches into."""
    return [days[0] - timedelta(days=back) for back in range(reach_days(spec), 0, -1)] + list(days)


def reach_days(spec: FeatureSpec) -> int:
    """Days that the longest window reaches over, rounded up."""
    return -(-spec.longest_window // UNITS["d"])


def _as_of(lake: Lake, days: Collection[date], commit: int | None) -> Files:
    """No files where the commit is not known, or the log does not reach back to it: all clicks have come since."""
    nothing = data_files.of(lake, CLICKS, ())
    if commit is None:
        return nothing
    try:
        return data_files.of(lake, CLICKS, days, commit=commit)
    except CommitGoneError:
        return nothing
