"""What surrounds every command: settings, session, lake, one row in `runs`, `run_result.json`, and the exit code."""

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from html import escape
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pandas as pd
from pyspark.sql import SparkSession
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from slidr import direct, mishaps, redaction, session, tables
from slidr.build import code_version
from slidr.config import Config
from slidr.errors import DONE, GuardrailError, InputError, LockedError, SetupError, SlidrError
from slidr.folders import private
from slidr.lake import Lake
from slidr.redaction import Redaction
from slidr.replay.audit import claimed_actor

Cells = Sequence[Mapping[str, Any]]
INTERRUPTED, TERMINATED, BROKEN = 130, 143, 1
UNBOUNDED = 10_000  # columns: what is no terminal has no right edge, so that a table takes the width that it needs


@dataclass(frozen=True)
class Outcome:
    """What a command did: `summary` is the JSON result; `shown` are small tables for people, by title. `refused` says what
    stopped a part of it: the run is on record as refused, with this message.

    `answer` is a part of the JSON result that is not put on record: rows of a query, which may be many and may hold addresses.
    `raw` is text for other programs: it is printed as it is, in place of tables and words for people."""

    summary: dict[str, Any]
    shown: Mapping[str, Cells] = field(default_factory=dict)
    said: str = ""
    exit_code: int = DONE
    refused: str | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    raw: str | None = None

    def _repr_html_(self) -> str:
        """How a notebook shows it: the tables, and what was said."""
        tables = [f"<h4>{escape(title)}</h4>{pd.DataFrame(rows).to_html(index=False)}" for title, rows in self.shown.items()]
        return "".join(tables) + f"<pre>{escape(self.said)}</pre>"


@dataclass
class Job:
    """What a running command has at hand. The session starts at its first use."""

    conf: Config
    run_id: str
    now: datetime
    console: Console
    actor: str
    as_json: bool = False
    verbose: bool = False

    @cached_property
    def spark(self) -> SparkSession:
        return session.build(self.conf.spark, log="ERROR" if self.verbose else "OFF")

    @cached_property
    def lake(self) -> Lake:
        return Lake(self.spark, self.conf.lake.root, self.conf.lake.catalog)

    @cached_property
    def place(self) -> Lake | direct.Place:
        """The lake for what can do without a session: none is started unless the lake can't be reached otherwise."""
        where = self.conf.lake
        return direct.Place(where.root) if direct.reaches(where.root, where.catalog) else self.lake

    @cached_property
    def redaction(self) -> Redaction:
        return redaction.of(self.conf)

    def say(self, text: str) -> None:
        """One line of progress on stderr."""
        self.console.print(f"[dim]{datetime.now(timezone.utc):%H:%M:%S}[/dim] {self.redaction.text(text)}", highlight=False)


def begin(conf: Config, *, quiet: bool = False, as_json: bool = False) -> Job:
    """A job that begins now. In notebooks the functions of `jobs/` take it; no row in `runs` tells of them then."""
    now = datetime.now(timezone.utc)
    return Job(conf, f"{now:%Y%m%dT%H%M%S%f}-{os.getpid()}", now, Console(stderr=True, quiet=quiet), actor=claimed_actor(), as_json=as_json)


def execute(words: Sequence[str], action: Callable[[Job], Outcome], *, conf: Config, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Runs one command, given as its words, and returns its exit code; whatever happens, the run leaves its record, without secrets."""
    session.use_utc()
    job = replace(begin(conf, quiet=quiet, as_json=as_json), verbose=verbose)
    _log(job.redaction, verbose)
    started = job.now
    signal.signal(signal.SIGTERM, _terminated)
    outcome, message = _attempt(action, job, verbose)
    hidden = job.redaction.all
    outcome, message = replace(outcome, summary=hidden(outcome.summary), said=hidden(outcome.said)), hidden(message)
    outcome, message = _on_record(job, words, started, outcome, message)
    _show(outcome, message, job, as_json)
    return outcome.exit_code


def _log(hide: Redaction, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(redaction.Formatter(hide))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.ERROR, handlers=[handler])
    for name in ("py4j", "alembic", "mlflow", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)


def _attempt(action: Callable[[Job], Outcome], job: Job, verbose: bool) -> tuple[Outcome, str | None]:
    try:
        outcome = action(job)
        return outcome, outcome.refused
    except GuardrailError as error:
        shown: dict[str, Cells] = {"Guardrails": error.rows} if error.rows else {}
        return Outcome({"guardrails": error.rows} if error.rows else {}, shown, exit_code=error.exit_code), str(error)
    except SlidrError as error:
        return Outcome({}, exit_code=error.exit_code), str(error)
    except KeyboardInterrupt:
        return Outcome({}, exit_code=INTERRUPTED), "interrupted; run the same command again, it continues where it was"
    except SystemExit as stop:
        return Outcome({}, exit_code=int(stop.code or 0)), "terminated; run the same command again, it continues where it was"
    except Exception as error:  # the last line of defence: recorded and retold, with the trace for -v
        if verbose:
            print(job.redaction.text(traceback.format_exc()), file=sys.stderr)
        known = mishaps.retold(error)
        if known:
            return Outcome({}, exit_code=known.exit_code), str(known)
        return Outcome({}, exit_code=BROKEN), f"{mishaps.in_short(error)}\nRun it with -v for the whole trace."


def _on_record(job: Job, words: Sequence[str], started: datetime, outcome: Outcome, message: str | None) -> tuple[Outcome, str | None]:
    """The outcome, once it is on record; a run that can't be recorded does not pass for done."""
    command = job.redaction.command(words)
    try:
        recorded = redaction.without_texts(message) if message and list(words[1:2]) == ["sql"] else message
        _record(job, command, started, outcome, recorded)
    except Exception as error:
        if job.verbose:
            print(job.redaction.text(traceback.format_exc()), file=sys.stderr)
        known = error if isinstance(error, SlidrError) else mishaps.retold(error)
        why = job.redaction.text(f"this run could not be put on record: {known or mishaps.in_short(error)}")
        code = outcome.exit_code or (known or SetupError).exit_code
        outcome, message = replace(outcome, exit_code=code), f"{message}; {why}" if message else f"the work is done, but {why}"
        if isinstance(error, InputError):  # `runs` itself is not as declared; the result can be kept
            _keep(job, _row(job, command, started, outcome, message), outcome)
    return outcome, message


def _record(job: Job, command: str, started: datetime, outcome: Outcome, message: str | None) -> None:
    """`run_result.json` first: schedulers read it where spark-submit hides the exit code. Then the row in `runs`."""
    row = _row(job, command, started, outcome, message)
    _keep(job, row, outcome)
    if outcome.exit_code >= INTERRUPTED:
        return
    # Who may read the lake and not write it, or waits in vain for others who write this table, gets the answer all the same.
    try:
        _add(job, row)
    except (SetupError, LockedError) as error:
        job.say(f"this run has no row in the table runs: {_escaped(str(error))}")


def _row(job: Job, command: str, started: datetime, outcome: Outcome, message: str | None) -> dict[str, Any]:
    ended = datetime.now(timezone.utc)
    return {
        "run_id": job.run_id,
        "run_date": started.date(),
        "command": command,
        "config_hash": job.conf.config_hash,
        "code_version": code_version(),
        "started_time": started,
        "ended_time": ended,
        "outcome": "done" if message is None else "interrupted" if outcome.exit_code >= INTERRUPTED else "refused",
        "exit_code": outcome.exit_code,
        "counts": json.dumps(outcome.summary, default=str, sort_keys=True),
        "message": message,
    }


def _keep(job: Job, row: Mapping[str, Any], outcome: Outcome) -> None:
    folder = private(job.conf.work.root / "runs" / job.run_id)
    written = folder / "run_result.json.partial"
    written.write_text(json.dumps({**row, "counts": outcome.summary}, default=str, indent=2), encoding="utf-8")
    written.replace(folder / "run_result.json")


def _add(job: Job, row: Mapping[str, Any]) -> None:
    """The row in `runs`: through the session where there is one, else without Spark where the command came as far as the lake."""
    if "spark" in job.__dict__:
        job.lake.append(job.spark.createDataFrame([tuple(row[name] for name in tables.RUNS.names)], tables.RUNS.schema), tables.RUNS)
    elif "place" in job.__dict__ and row["exit_code"] != SetupError.exit_code:
        direct.add(job.place, tables.RUNS, [row])


def _show(outcome: Outcome, message: str | None, job: Job, as_json: bool) -> None:
    if message:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]slidr:[/bold red] {_escaped(message)}", highlight=False)
    if as_json:
        result = {"run_id": job.run_id, "exit_code": outcome.exit_code, "message": message, **outcome.summary, **outcome.answer}
        print(json.dumps(result, default=str))
        return
    if outcome.raw is not None:
        sys.stdout.write(outcome.raw)
        return
    console = Console(width=None if sys.stdout.isatty() else UNBOUNDED)
    for title, cells in outcome.shown.items():
        console.print(_rich_table(title, cells))
    if outcome.said:
        console.print(outcome.said, highlight=False, soft_wrap=True)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _rich_table(title: str, cells: Cells) -> RichTable:
    table = RichTable(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in cells[0] if cells else ["nothing"]:
        table.add_column(_escaped(str(name)), overflow="fold")
    for row in cells:
        table.add_row(*[_escaped(_text(value)) for value in row.values()])
    return table


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def folder(job: Job, *parts: str) -> Path:
    """A folder below `work.root`, made where it is missing."""
    return private(job.conf.work.root.joinpath(*parts))
