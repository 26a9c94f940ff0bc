"""`slidr …`: the commands for people. Each is a function of `jobs/`, with the common options added; spark-submit runs the same."""

import inspect
import shlex
import sys
from collections.abc import Callable
from typing import Any

import typer

from slidr import config
from slidr.errors import SlidrError
from slidr.jobs import (
    backtest,
    daily,
    demo,
    explain,
    features,
    ingest,
    init,
    labels,
    look,
    models,
    monitor,
    replay,
    report,
    score,
    simulate,
    statement,
    train,
)
from slidr.options import AsJson, ConfFile, Quiet, Settings, Verbose
from slidr.run import Outcome, execute

Action = Callable[..., Outcome]
COMMON = {"conf": ConfFile, "settings": Settings, "as_json": AsJson, "quiet": Quiet, "verbose": Verbose}
DEFAULTS = {"conf": None, "settings": None, "as_json": False, "quiet": False, "verbose": False}

app = typer.Typer(help="Finds robotic ad clicks, decides them, and takes decisions back.", no_args_is_help=True, add_completion=False)
models_app = typer.Typer(help="Model versions, their states and history.", no_args_is_help=True)
replay_app = typer.Typer(help="Decides a past window again and publishes the difference.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(replay_app, name="replay")


def add(group: typer.Typer, name: str, action: Action) -> None:
    """Makes a command of a job's function: its own parameters, then the common options."""
    own = [p for p in inspect.signature(action).parameters.values() if p.name != "job"]

    def command(**given: Any) -> None:
        common = {key: given.pop(key) for key in COMMON}
        raise typer.Exit(_run(action, given, common))

    extra = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS[key], annotation=kind) for key, kind in COMMON.items()]
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    command.__signature__ = inspect.Signature(keyword_only + extra)  # type: ignore[attr-defined]
    command.__doc__ = action.__doc__
    group.command(name)(command)


def _run(action: Action, given: dict[str, Any], common: dict[str, Any]) -> int:
    try:
        settings = config.load(common["conf"], tuple(common["settings"] or ()))
    except SlidrError as error:
        typer.echo(f"slidr: {error}", err=True)
        return error.exit_code
    return execute(
        shlex.join(["slidr", *sys.argv[1:]]),
        lambda job: action(job, **given),
        conf=settings,
        as_json=common["as_json"],
        quiet=common["quiet"],
        verbose=common["verbose"],
    )


for _name, _action in {
    "demo": demo.demo,
    "init": init.init,
    "simulate": simulate.simulate,
    "ingest": ingest.ingest,
    "features": features.features,
    "labels": labels.labels,
    "train": train.train,
    "score": score.score,
    "daily": daily.daily,
    "backtest": backtest.backtest,
    "monitor": monitor.monitor,
    "explain": explain.explain,
    "report": report.report,
    "statement": statement.statement,
    "sql": look.sql,
    "tables": look.show_tables,
    "doctor": look.doctor,
}.items():
    add(app, _name, _action)
for _name, _action in {
    "list": models.list_versions,
    "show": models.show,
    "promote": models.promote,
    "mark-stable": models.mark_stable,
    "rollback": models.rollback,
    "revoke": models.revoke,
    "export": models.export,
}.items():
    add(models_app, _name, _action)
for _name, _action in {
    "plan": replay.plan,
    "approve": replay.approve,
    "apply": replay.apply,
    "resume": replay.resume,
    "status": replay.show_status,
    "list": replay.list_replays,
    "show": replay.show,
    "report": replay.write_report,
    "revert": replay.revert,
    "run": replay.run,
}.items():
    add(replay_app, _name, _action)


def main(arguments: list[str] | None = None) -> None:
    """Entry of the console script and of `jobs/*.py`."""
    if arguments is not None:
        sys.argv = ["slidr", *arguments]
    app()
