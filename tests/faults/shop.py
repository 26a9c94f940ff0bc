"""What the tests of this folder share: settings of the small shop, and what a clean refusal is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slidr import tables
from slidr.lake import Lake
from tests.commands import SMALL, World
from tests.foreign import row, write_csv
from tests.worlds import SPEC

WINDOW = ("--from", "2026-03-01", "--to", "2026-03-03")
# What never stands in what a user is told: marks of stack traces, of Java and of SQL plans.
TRACES = ("Traceback", "\tat ", "JVM stacktrace", "Caused by", 'File "', "java.", "org.apache", "py4j", "Run it with -v")
LINE = 600  # characters


def settings(template: Path) -> dict[str, str]:
    """Settings of the small shop, with guardrails that let 32 clicks through."""
    return {
        **SMALL,
        "features": json.dumps(SPEC.to_dict()),
        "registry.artifacts": str(template / "artifacts"),
        "replay.max_changed_share": "1.0",
        "replay.max_fpr": "1.0",
        "replay.max_days_after_close": "36500",
        "ingest.max_reject_share": "1.0",
    }


def refused(world: World, *words: str, code: int, said: str | tuple[str, ...] = ()) -> dict[str, Any]:
    """Runs a command that must end with this code and one line of cause and remedy that holds these words."""
    result = world.run(*words)
    assert result.exit_code == code, f"{words}: {result.exit_code}\n{result.output}\n{result.stderr}"
    found: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    one_line(str(found["message"]), said)
    for line in result.stderr.strip().splitlines():
        one_line(line)
    return found


def one_line(message: str, said: str | tuple[str, ...] = ()) -> None:
    assert not [mark for mark in TRACES if mark in message], message
    assert "\n" not in message, message
    assert len(message) < LINE, message
    for word in (said,) if isinstance(said, str) else said:
        assert word in message, message


def totals(outcome: Mapping[str, Any], table: str = "clicks") -> dict[str, Any]:
    """Counts of an ingest by table."""
    found: dict[str, Any] = outcome["tables"][table]
    return found


# What two runs of one command may say differently.
OF_A_RUN = {
    "run_id",
    "decided_time",
    "rejected_time",
    "reject_date",
    "published_time",
    "correction_date",
    "corrected_time",
    "event_time",
    "event_date",
}
# `runs` has a row for each attempt; `replays` is the log of who worked when.
COMPARED = (*(table for table in tables.ALL if table not in (tables.RUNS, tables.REPLAYS)), tables.features_table(SPEC))


def contents(lake: Lake) -> dict[str, list[str]]:
    """Rows of each table as text, in a fixed order, without what differs from run to run."""
    return {table.name: _rows(lake, table) for table in COMPARED if lake.exists(table)}


def _rows(lake: Lake, table: tables.Table) -> list[str]:
    kept = [name for name in table.names if name not in OF_A_RUN]
    return sorted(str(tuple(row)) for row in lake.read(table).select(*kept).collect())


def late_clicks(path: Path) -> str:
    """A file with six clicks of a third day and one that can't be read."""
    rows = [row(click_id=f"n{n}", click_time=f"2026-03-03T10:0{n}:00Z", session_id="", ip="192.0.2.1", user_id="") for n in range(6)]
    return write_csv(path, [*rows, row(click_id="bad", cost_micros="many")])


def steps(file: str) -> dict[str, tuple[str, ...]]:
    """The jobs in order, each with the words of its command; `replay apply` lacks the id of its plan."""
    days = ("--from", "2026-03-01", "--to", "2026-03-04")
    return {
        "ingest": ("ingest", "--source", "canonical", file),
        "daily": ("daily", "--date", "2026-03-03"),
        "features": ("features", *days),
        "labels": ("labels", *days),
        "score": ("score", *days),
        "monitor": ("monitor", *days),
        "replay plan": ("replay", "plan", *WINDOW, "--allow-charges", "--model", "1"),
        "replay apply": ("replay", "apply"),
    }


EXIT = {"ingest": 10}  # of a job that ends well; 0 otherwise


def words_of(world: World, step: str, file: str) -> tuple[str, ...]:
    """The words of a step, with the id of the newest plan where it needs one."""
    words = steps(file)[step]
    if step != "replay apply":
        return words
    planned = world.lake.read(tables.REPLAYS).where("event = 'plan'").orderBy("event_time").collect()
    return (*words, planned[-1]["replay_id"])
