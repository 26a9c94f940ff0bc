"""What the tests of this folder share: settings of the small shop, and what a clean refusal is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.commands import SMALL, World
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
    one_line(result.stderr.strip(), ())
    return found


def one_line(message: str, said: str | tuple[str, ...]) -> None:
    assert not [mark for mark in TRACES if mark in message], message
    assert "\n" not in message, message
    assert len(message) < LINE, message
    for word in (said,) if isinstance(said, str) else said:
        assert word in message, message


def totals(outcome: Mapping[str, Any], table: str = "clicks") -> dict[str, Any]:
    """Counts of an ingest by table."""
    found: dict[str, Any] = outcome["tables"][table]
    return found
