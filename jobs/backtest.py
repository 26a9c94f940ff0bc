"""The daily chain over past days, as known then: spark-submit jobs/backtest.py --conf FILE --from DAY --to DAY"""

import sys
import time
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from slidr.jobs import daily, features, labels

from slidr import labels as labelling
from slidr import pages
from slidr.backtest import feed, figures, kept, report
from slidr.backtest.feed import Source, Span
from slidr.backtest.report import Facts, Walked
from slidr.backtest.variants import Variant, parse
from slidr.build import code_version
from slidr.config import Config, RegistryConf, WorkConf
from slidr.days import days_between, midnight
from slidr.errors import NothingToDoError, UsageError
from slidr.features import builds
from slidr.lake import Lake
from slidr.learning.clicks import pick
from slidr.options import From, To, whole_days
from slidr.progress import clock
from slidr.run import Job, Outcome, folder
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS, LABELS, PURCHASES, REJECTS, features_table
from slidr.threads import together

Variants = Annotated[
    list[str] | None,
    typer.Option("--variant", help='"NAME: key=value key=value", repeatable: settings to compare, in lakes of their own.'),
]
TrainEvery = Annotated[int, typer.Option("--train-every", min=1, help="Trains at the end of every so many days.")]
HISTORY = "history"  # the record of what comes before the first logical day
WRITTEN = (CLICKS, PURCHASES, REJECTS, LABELS, DECISIONS, CURRENT_DECISIONS)


def backtest(job: Job, start: From, end: To, variant: Variants = None, train_every: TrainEvery = 1) -> Outcome:
    """Walks the daily chain over whole past days, all as known then, and tells how each day's decisions turned out.

    The lake is only read, as of its commits at the start. A run that was cut off goes on at the day where it was.
    """
    days = whole_days(start, end)
    variants = parse(variant or (), job.conf)
    root = folder(job, "backtests")
    with kept.alone(root):
        source, run = opened(job, root, days, variants, train_every)
        held = feed.span(source, midnight(days[0]))
        judged = require(held, days, variants, job.conf)
        walked = [walk(job, source, root, one, days, held, train_every) for one in variants]
        job.say("labels as known at the end of the data, which judge all variants")
        yardstick(job, source, run.folder, judged, held)
        finished = [Walked(one, records, count(job, own, run.folder, judged)) for one, (own, records) in zip(variants, walked, strict=True)]
        content = report.write(finished, facts(job, run, source, days, judged, train_every), run.folder)
        run.write(finished=True)
    page = run.folder / report.PAGE
    said = "\n".join([*content["verdict"], f"Report: {page}"])
    return Outcome({**pages.plain(content), "report": str(page)}, report.shown(content), said)


def opened(job: Job, root: Path, days: Sequence[date], variants: Sequence[Variant], train_every: int) -> tuple[Source, kept.Run]:
    """The lake as of the commits that an unfinished run of the same question began with, else as of now; and that run."""
    tables = {table.name: table for table in (CLICKS, PURCHASES, *[features_table(one.conf.spec) for one in variants])}
    asked = {
        "lake": [job.conf.lake.root, job.conf.lake.catalog],
        "code": code_version(),
        "from": str(days[0]),
        "to": str(days[-1] + timedelta(days=1)),
        "train_every": train_every,
        "variants": {one.name: one.conf.meaning for one in variants},
        "judged_by": job.conf.labels.model_dump(mode="json"),
    }
    run = kept.begin(root, asked, feed.pins(job.lake, list(tables.values())))
    return Source(job.lake, run.pins), run


def require(held: Span, days: Sequence[date], variants: Sequence[Variant], conf: Config) -> list[date]:
    """The days whose labels mature by the end of the data. Raises where the window holds no such day or reaches beyond the data, and
    where a variant has too few days before it for its first training: all before anything is run."""
    first, last = min(held.clicks), max(held.clicks)
    if not set(days) & set(held.clicks):
        raise NothingToDoError(f"expected clicks from {days[0]} to {days[-1]}, found clicks from {first} to {last}; choose other days")
    if days[-1] > last:
        raise UsageError(f"expected --to of at most {last + timedelta(days=1)}, where the clicks end, found {days[-1] + timedelta(days=1)}")
    judged = labelling.matured(days, now=held.end, conf=conf.labels)
    if not judged:
        due = labelling.label_time(days[0], conf.labels)
        raise NothingToDoError(
            f"expected a day whose labels have matured by the end of the data ({held.end.isoformat()}), found none: {days[0]} matures at "
            f"{due.isoformat()}; begin earlier, or ingest what came later"
        )
    for variant in variants:
        first_training(held, variant, days[0])
    return judged


def first_training(held: Span, variant: Variant, start: date) -> date:
    """The first day that the training before the first logical day learns from. Raises NothingToDoError where there are too few."""
    try:
        return pick(sorted(held.known), min(held.known, default=start), now=midnight(start), conf=variant.conf).all[0]
    except NothingToDoError as error:
        conf = variant.conf.training
        before = conf.train_days + conf.calibration_days + conf.judging_days + variant.conf.labels.delay_days
        earliest = min(held.clicks) + timedelta(days=builds.reach_days(variant.conf.spec) + before)
        raise NothingToDoError(
            f"variant {variant.name}: too few days before --from {start} for a first training: {error}; "
            f"begin at {earliest} or later (more where days are missing)"
        ) from error


def walk(
    job: Job, source: Source, root: Path, variant: Variant, days: Sequence[date], held: Span, train_every: int
) -> tuple[Job, dict[str, Any]]:
    """(the variant's own job, day -> what happened): the days that are not done yet, one after the other."""
    identity = {
        "lake": [source.lake.root, source.lake.catalog],
        "pins": {table.name: source.pins[table.name] for table in (CLICKS, PURCHASES, features_table(variant.conf.spec))},
        "settings": variant.conf.meaning,
        "code": code_version(),
        "from": str(days[0]),  # not the end: a longer window goes on with the same days
        "train_every": train_every,
    }
    progress = kept.progress(root, identity)
    own = at_home(job, variant.conf, progress.folder)
    todo = [day for day in days if str(day) not in progress.days]
    if HISTORY not in progress.days:
        job.say(f"{variant.name}: what was known before {days[0]}, and a first training")
        progress.add(HISTORY, history(own, source, days[0], first_training(held, variant, days[0])))
    began = time.monotonic()
    for done, day in enumerate(todo, start=1):
        progress.add(str(day), one_day(own, source, day, due=((day - days[0]).days + 1) % train_every == 0))
        left = clock((time.monotonic() - began) / done * (len(todo) - done))
        record = progress.days[str(day)]
        job.say(f"{variant.name}, {day}: decided by version {record['version']}; {record['training']}; {left} left")
    return own, {str(day): progress.days[str(day)] for day in days}


def at_home(job: Job, conf: Config, home: Path) -> Job:
    """A job with the variant's settings whose lake, registry and work lie in a folder of its own; it says nothing."""
    lake = conf.lake.model_copy(update={"root": str(home / "lake"), "catalog": None})
    registry = RegistryConf(uri=f"sqlite:///{home / 'registry.db'}", artifacts=str(home / "artifacts"), name=conf.registry.name)
    places = {"lake": lake, "work": WorkConf(root=home / "work"), "registry": registry}
    return Job(conf.model_copy(update=places), job.run_id, job.now, Console(stderr=True, quiet=True), job.actor)


def registry_of(own: Job) -> Any:
    from slidr.registry import Registry  # MLflow takes seconds to import

    return Registry(own.conf.registry, own.lake)


def history(own: Job, source: Source, start: date, learn_from: date) -> dict[str, Any]:
    """Everything that was known when the first logical day began, at once: clicks, labels, features, a first training."""
    own.now, began = midnight(start), time.monotonic()
    registry = registry_of(own)
    registry.init()
    table = features_table(own.conf.spec)
    for declared in (*WRITTEN, table):
        own.lake.create(declared)
    feed.feed(source, own.lake, table, after=None, until=own.now)
    together(
        lambda: features.build(own, own.conf.spec, days_between(learn_from, start), "then", allow_gaps=True),
        lambda: daily.label(own),
    )
    prepared = time.monotonic()
    seconds = {"prepare": round(prepared - began, 1)}
    trained = train(own, registry)
    return {"version": None, "decided": 0, **trained, "seconds": {**seconds, "train": round(time.monotonic() - prepared, 1)}}


def one_day(own: Job, source: Source, day: date, *, due: bool) -> dict[str, Any]:
    """The logical day: what arrived, features and decisions, labels, training. Doing it again changes nothing.

    The version that was champion when the day began decides it, whatever was trained since: it knows nothing of the day. Metrics,
    proofs of stability and pictures, which decide nothing, are left out.
    """
    own.now, began = midnight(day) + timedelta(days=1), time.monotonic()
    registry = registry_of(own)
    feed.feed(source, own.lake, features_table(own.conf.spec), after=midnight(day), until=own.now)
    champion = deciding(registry, midnight(day))
    fed = time.monotonic()
    decided, _ = together(lambda: decide(own, day, champion), lambda: daily.label(own))
    prepared = time.monotonic()
    not_due = {"outcome": "not due", "training": "not due", "failed": []}
    trained = train(own, registry) if due or not champion else not_due
    seconds = {"feed": fed - began, "decide and label": prepared - fed, "train": time.monotonic() - prepared}
    return {"version": champion, "decided": decided, **trained, "seconds": {name: round(took, 1) for name, took in seconds.items()}}


def deciding(registry: Any, time: datetime) -> str | None:
    from slidr.registry import at

    return at(registry.events(), time).champion


def decide(own: Job, day: date, champion: str | None) -> int:
    """Features of the day's clicks, and their decisions where a version was there to decide; returns how many are new."""
    if own.lake.read(CLICKS, [day]).isEmpty():
        return 0
    features.build(own, own.conf.spec, [day], "then", allow_gaps=True)
    return daily.decide(own, champion) if champion else 0


def train(own: Job, registry: Any) -> dict[str, Any]:
    """What the training came to: its outcome (trained, stopped, waits), in words, and the checks that failed."""
    said, stopped = daily.learn(own, registry, drawn=False)
    if stopped is None:
        return {"outcome": "waits" if said.startswith("waits") else "trained", "training": said, "failed": []}
    failed = [str(row["check"]) for row in stopped.rows if row["verdict"] == "failed"]
    return {"outcome": "stopped", "training": said, "failed": failed or [str(stopped).partition("\n")[0]]}


def yardstick(job: Job, source: Source, home: Path, days: Sequence[date], held: Span) -> None:
    """Labels of the judged days with everything that had arrived by the end of the data, by the base settings: the same for all
    variants, whatever their own delay is."""
    waited = max((held.end.date() - days[0]).days + 1, job.conf.labels.delay_days)
    conf = job.conf.labels.model_copy(update={"delay_days": waited})
    read = {CLICKS: labelling.days_of_clicks(days, conf), PURCHASES: labelling.days_of_purchases(days, conf)}
    clicks, purchases = (job.lake.read_version(table, source.pins[table.name], of) for table, of in read.items())
    labels.publish(Lake(job.spark, str(home / "lake")), clicks, purchases, days=days, conf=conf, now=held.end)


def count(job: Job, own: Job, home: Path, days: Sequence[date]) -> figures.Counted:
    """How the variant's decisions of these days turned out, also by other methods' thresholds where its versions keep them."""
    registry = registry_of(own)
    decisions = own.lake.read(DECISIONS, days)
    versions = [row[0] for row in decisions.select("model_version").distinct().collect()]  # at most one a day
    kept_by = {version: registry.inspect(version).bundle.metrics.get("calibrations", {}) for version in versions}
    return figures.count(decisions, Lake(job.spark, str(home / "lake")).read(LABELS, days), kept_by)


def facts(job: Job, run: kept.Run, source: Source, days: Sequence[date], judged: Sequence[date], train_every: int) -> Facts:
    waiting = [day for day in days if day not in judged]
    shown = {
        "days": f"{days[0]} to {days[-1]} (UTC), {len(days)} days; {len(judged)} judged",
        "labels that judge": "attribution and RFM of the base settings, all orders that arrived by the end of the data",
        "trained": "at the end of each day" if train_every == 1 else f"at the end of every {train_every} days",
        "commits read": ", ".join(f"{name} {commit}" for name, commit in source.pins.items()),
        "configuration": job.conf.config_hash,
        "code": code_version(),
        "folder": run.folder.name,
    }
    return Facts(f"Backtest of {days[0]} to {days[-1]}: each day decided by what was known before it", judged, waiting, shown)


if __name__ == "__main__":
    from slidr.cli import main

    main(["backtest", *sys.argv[1:]])
