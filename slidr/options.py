"""Options of the commands, and how their text becomes times. The jobs' functions carry them in their signatures."""

from datetime import date, datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from slidr.days import days_between, midnight
from slidr.errors import UsageError

ConfFile = Annotated[Path | None, typer.Option("--conf", help="Configuration file; default conf/local.yaml.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key=value that overrides the file; repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; logs on stderr.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Logs and whole traces.")]
From = Annotated[str, typer.Option("--from", help="Start of the window of click time, included: 2026-03-01 (UTC) or ISO 8601 with offset.")]
To = Annotated[str, typer.Option("--to", help="End of the window, excluded.")]
OptionalFrom = Annotated[str | None, typer.Option("--from", help="Start of the window, as elsewhere.")]
OptionalTo = Annotated[str | None, typer.Option("--to", help="End of the window, excluded.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept on record.")]
Override = Annotated[str | None, typer.Option("--override", help="Goes past a guardrail, with this reason, on record.")]
VersionNumber = Annotated[str, typer.Argument(metavar="VERSION", help="Number of a model version.")]


def parse_time(text: str, option: str) -> datetime:
    """UTC time of ISO 8601 text with an offset, or of a bare date (UTC midnight). Raises UsageError otherwise."""
    try:
        if len(text) == 10:
            return midnight(date.fromisoformat(text))
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise UsageError(f"{option}: expected a date or an ISO 8601 time with an offset, found {text!r}") from error
    if time.tzinfo is None:
        raise UsageError(f"{option}: expected an offset, such as {text}Z or {text}+01:00, found none: which zone is meant is not guessed")
    return time.astimezone(timezone.utc)


def window(start: str, end: str) -> tuple[datetime, datetime]:
    """Both ends as UTC times. Raises UsageError unless start < end."""
    first, last = parse_time(start, "--from"), parse_time(end, "--to")
    if first >= last:
        raise UsageError(f"expected --from before --to, found {first.isoformat()} and {last.isoformat()}")
    return first, last


def whole_days(start: str, end: str) -> list[date]:
    """UTC days of a window that must begin and end at UTC midnight."""
    first, last = window(start, end)
    if first.time() != last.time() or first.time().isoformat() != "00:00:00":
        raise UsageError(f"this command works on whole UTC days; found {first.isoformat()} to {last.isoformat()}; give bare dates")
    return days_between(first.date(), last.date())


def parse_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"expected a date such as 2026-03-01, found {text!r}") from error
