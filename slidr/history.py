"""What of a table is still there: days of rows whose files lie in storage, commits that can still be read. Without Spark."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from urllib.parse import unquote

from slidr import direct
from slidr.days import midnight
from slidr.direct import Place
from slidr.errors import InputError
from slidr.lake import Lake
from slidr.tables import Table

LOG = "_delta_log"
COMMIT = re.compile(rf"{LOG}/(\d{{20}})\.json")
CHECKPOINT = re.compile(rf"{LOG}/(\d{{20}})\.checkpoint(\.\d{{10}}\.\d{{10}})?\.parquet")


@dataclass(frozen=True)
class Day:
    """Rows of one UTC day: where they begin (the day's start where no statistics say it), and how many of their files are gone."""

    begins: datetime
    lost: int


@dataclass(frozen=True)
class Kept:
    """`days`: of the newest commit; `oldest`: the oldest commit that can be read in full, and when it was made."""

    days: Mapping[date, Day]
    oldest: tuple[int, datetime]


def kept(place: Lake | Place, table: Table, *, time: str) -> Kept:
    """What of the table is there; `time` is the column that says when a row's click was. Lists the folder once, and reads the commits
    back to the first whose files are gone. Raises InputError where the table is missing, or a
    commit is not JSON."""
    found = direct.stored(place, table)
    return Kept(_days(found, table, time), _oldest(found))


def _days(found: direct.Stored, table: Table, time: str) -> dict[date, Day]:
    days: dict[date, Day] = {}
    for file in found.live:
        day = file[f"partition.{table.day}"]
        begins = file.get(f"min.{time}") or midnight(day)
        known = days.get(day, Day(begins, 0))
        days[day] = Day(min(begins, known.begins), known.lost + (file["path"] not in found.files))
    return days


def _oldest(found: direct.Stored) -> tuple[int, datetime]:
    """Walks back from the newest commit, over commits whose removed files are all there: the state before such a one is whole too."""
    commits = {int(match[1]): path for path in found.files if (match := COMMIT.fullmatch(path))}
    checkpoints = {int(match[1]): path for path in found.files if (match := CHECKPOINT.fullmatch(path))}
    whole = newest = max(commits)
    while whole - 1 in commits and all(path in found.files for path in _removed(found, commits[whole])):
        whole -= 1
    first = whole
    while first - 1 in commits:
        first -= 1
    if first > 0:  # commits alone don't say what such a state holds: a checkpoint does, and the commits behind it
        whole = max(whole, min((number for number in checkpoints if number >= first - 1), default=newest))
    return whole, found.files[commits[whole]].mtime


def _removed(found: direct.Stored, commit: str) -> list[str]:
    try:
        actions: list[dict[str, Any]] = [json.loads(line) for line in found.read(commit).splitlines() if b'"remove"' in line]
    except ValueError as error:
        raise InputError(f"expected a commit as JSON in {commit}, found {error}; bring the file back from a copy of the lake") from error
    return [unquote(action["remove"]["path"]) for action in actions if "remove" in action]
