"""`slidr …`: the commands for people. Each is a function of `jobs/`, with the common options added; spark-submit runs the same."""

import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from slidr import config
from slidr.errors import SlidrError
from slidr.options import AsJson, ConfFile, Quiet, Settings, Verbose
from slidr.redaction import Redaction
from slidr.run import Outcome, execute

Action = Callable[..., Outcome]
COMMON = {"conf": ConfFile, "settings": Settings, "as_json": AsJson, "quiet": Quiet, "verbose": Verbose}
DEFAULTS = {"conf": None, "settings": None, "as_json": False, "quiet": False, "verbose": False}


def made(name: str, action: Action) -> Any:
    """A command of a job's function: its own parameters, then the common options."""
    own = [p for p in inspect.signature(action).parameters.values() if p.name != "job"]

    def command(**given: Any) -> None:
        common = {key: given.pop(key) for key in COMMON}
        raise typer.Exit(_run(action, given, common))

    extra = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS[key], annotation=kind) for key, kind in COMMON.items()]
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    command.__signature__ = inspect.Signature(keyword_only + extra)  # type: ignore[attr-defined]
    command.__doc__ = action.__doc__
    alone = typer.Typer(add_completion=False)
    alone.command(name)(command)
    return typer.main.get_command(alone)


class Commands(TyperGroup):
    """Commands by name, as `module.function` of jobs/. A module is imported when its command is asked for: all of them together take
    longer than a query does."""

    places: Mapping[str, str] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        return [*self.places, *(name for name in super().list_commands(ctx) if name not in self.places)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        unknown = cmd_name not in self.places and cmd_name not in self.commands
        for name in self.places if unknown else {cmd_name} & set(self.places):  # all of them, to name the nearest
            if name not in self.commands:
                module, function = self.places[name].split(".")
                self.commands[name] = made(name, getattr(import_module(f"slidr.jobs.{module}"), function))
        return super().get_command(ctx, cmd_name)


class Main(Commands):
    places = {
        "demo": "demo.demo",
        "init": "init.init",
        "simulate": "simulate.simulate",
        "ingest": "ingest.ingest",
        "features": "features.features",
        "labels": "labels.labels",
        "train": "train.train",
        "score": "score.score",
        "daily": "daily.daily",
        "backtest": "backtest.backtest",
        "monitor": "monitor.monitor",
        "report": "report.report",
        "statement": "statement.statement",
        "explain": "explain.explain",
        "erase": "erase.erase",
        "sql": "look.sql",
        "tables": "look.show_tables",
        "doctor": "look.doctor",
    }


class Models(Commands):
    places = {
        "list": "models.list_versions",
        "show": "models.show",
        "promote": "models.promote",
        "mark-stable": "models.mark_stable",
        "rollback": "models.rollback",
        "revoke": "models.revoke",
        "export": "models.export",
    }


class Replay(Commands):
    places = {
        "plan": "replay.plan",
        "approve": "replay.approve",
        "apply": "replay.apply",
        "resume": "replay.resume",
        "status": "replay.show_status",
        "list": "replay.list_replays",
        "show": "replay.show",
        "report": "replay.write_report",
        "revert": "replay.revert",
        "run": "replay.run",
    }


def _run(action: Action, given: dict[str, Any], common: dict[str, Any]) -> int:
    try:
        settings = config.load(common["conf"], tuple(common["settings"] or ()))
    except SlidrError as error:
        typer.echo(f"slidr: {Redaction().text(str(error))}", err=True)
        return error.exit_code
    return execute(
        ["slidr", *sys.argv[1:]],
        lambda job: action(job, **given),
        conf=settings,
        as_json=common["as_json"],
        quiet=common["quiet"],
        verbose=common["verbose"],
    )


app = typer.Typer(
    cls=Main, help="Finds robotic ad clicks, decides them, and takes decisions back.", no_args_is_help=True, add_completion=False
)
app.add_typer(typer.Typer(cls=Models, help="Model versions, their states and history.", no_args_is_help=True), name="models")
app.add_typer(
    typer.Typer(cls=Replay, help="Decides a past window again and publishes the difference.", no_args_is_help=True), name="replay"
)


def main(arguments: list[str] | None = None) -> None:
    """Entry of the console script and of `jobs/*.py`."""
    if arguments is not None:
        sys.argv = ["slidr", *arguments]
    app()
