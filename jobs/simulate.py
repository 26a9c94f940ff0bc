"""Made traffic with known robots and incidents: spark-submit jobs/simulate.py --conf FILE OUT"""

import sys
from dataclasses import fields
from datetime import date, timedelta
from typing import Annotated

import typer

from slidr import judging
from slidr.days import days_between, days_of
from slidr.errors import UsageError
from slidr.options import parse_day, window
from slidr.run import Job, Outcome
from slidr.simulator import incidents, settings, traffic
from slidr.simulator.evaluation import judge_scores, read_truth
from slidr.tables import CLICKS, LABELS, features_table

Out = Annotated[str, typer.Argument(help="Folder that gets clicks/, purchases/ and, apart, what only the evaluation may read.")]
Clicks = Annotated[int, typer.Option("--clicks", min=10_000, max=100_000_000, help="How many clicks.")]
Days = Annotated[int, typer.Option("--days", min=1, help="UTC days of clicks.")]
Start = Annotated[str, typer.Option("--start", help="First UTC day.")]
Seed = Annotated[int, typer.Option("--seed", min=1, help="Same seed, same traffic.")]
Hardness = Annotated[float, typer.Option("--hardness", min=0, max=1, help="0: easy; 1: bursty people, slow robots.")]
RobotShare = Annotated[float, typer.Option("--robots", min=0, max=0.9, help="Share of the clicks that robots make.")]
Incidents = Annotated[list[str] | None, typer.Option("--incident", help="KIND:FROM/TO[:key=value,…], repeatable; see docs/simulator.md.")]
Logged = Annotated[bool, typer.Option("--logged-features", help="Writes the lake's features as a live system logged them instead.")]
Judged = Annotated[
    list[str] | None, typer.Option("--judge", help="Number of a model version, repeatable: judges it by who made the clicks.")
]
KINDS: dict[str, type[settings.Incident]] = {
    "label_outage": settings.LabelOutage,
    "counter_outage": settings.CounterOutage,
    "duplicates": settings.Duplicates,
    "late": settings.Late,
    "attack": settings.Attack,
    "sale": settings.Sale,
    "drift": settings.Drift,
}


def simulate(
    job: Job,
    out: Out,
    clicks: Clicks = 500_000,
    days: Days = 28,
    start: Start = "2026-03-01",
    seed: Seed = 1,
    hardness: Hardness = 0.5,
    robots: RobotShare = 0.25,
    incident: Incidents = None,
    logged_features: Logged = False,
    judge: Judged = None,
) -> Outcome:
    """Writes made traffic as files that `slidr ingest` reads; who was a robot is written apart.

    With --judge it writes nothing: it compares model versions on the lake's labelled clicks of --start and --days.
    """
    if judge:
        return judge_versions(job, out, judge, days_between(parse_day(start), parse_day(start) + timedelta(days=days)))
    wanted = tuple(parse_incident(text) for text in incident or ())
    if logged_features:
        return log_features(job, out, wanted)
    plan = settings.Simulation(
        seed=seed,
        start=parse_day(start),
        days=days,
        clicks=clicks,
        marketplaces=dict(job.conf.marketplaces),
        robot_share=robots,
        hardness=hardness,
        incidents=wanted,
    )
    job.say(f"simulating {clicks:,} clicks of {days} days")
    counts = traffic.simulate(job.spark, out, plan)
    return Outcome({"folder": out, **counts}, {"Simulated": [counts]}, f"Next: slidr ingest --source canonical {out}/clicks")


def log_features(job: Job, out: str, wanted: tuple[settings.Incident, ...]) -> Outcome:
    """The lake's features of the incident's days as a live system would have logged them, wrong during the incident."""
    outages = [i for i in wanted if isinstance(i, settings.CounterOutage)]
    if len(outages) != 1:
        raise UsageError(f"--logged-features expected one --incident counter_outage:FROM/TO, found {len(outages)}")
    outage, spec = outages[0], job.conf.spec
    days = days_of(outage.start, outage.end)
    right = job.lake.read(features_table(spec), days).where("origin = 'then'")
    names = [column.name for column in spec.columns]
    damaged = incidents.damage_features(right, start=outage.start, end=outage.end, spec_columns=names, damage=outage.damage)
    damaged.select("click_id", *names).write.mode("overwrite").parquet(out)
    rows = job.spark.read.parquet(out).count()
    return Outcome({"folder": out, "rows": rows}, said=f"{rows:,} rows. Next: slidr ingest --source canonical_features {out}")


def judge_versions(job: Job, out: str, versions: list[str], days: list[date]) -> Outcome:
    """Robots found and people harmed by each version, all at the FPR budget on the same clicks.

    Choose days later than those that the versions were trained on: here nothing keeps them apart.
    """
    from slidr.registry import Registry

    registry = Registry(job.conf.registry, job.lake)
    signs = ("is_purchase", "label_reason", "in_heavy_session")
    labels = job.lake.read(LABELS, days).select("click_id", *signs)
    rows = job.lake.read(CLICKS, days).where("upstream_filter is null").select("click_id").join(labels, on="click_id", how="inner")
    for number in dict.fromkeys(versions):
        scores = judging.scores_of(registry.load(number).bundle, job.lake, days, number)
        rows = rows.join(scores, on="click_id", how="inner")  # the same clicks for all
    budget = job.conf.calibration.fpr_budget
    judged = judge_scores(judging.by_method(rows, "click_id", *signs), read_truth(job.spark, out), fpr=budget)
    named = [{"version": row["method"], **{name: value for name, value in row.items() if name != "method"}} for row in judged]
    return Outcome(
        {"judged": named}, {f"At one global threshold of an FPR of at most {budget:.2%}; recall of robots, harm of people": named}
    )


def parse_incident(text: str) -> settings.Incident:
    """`label_outage:2026-03-17/2026-03-25:hours=8-16` and the like. Raises UsageError that names the kinds and keys."""
    kind, _, rest = text.partition(":")
    made = KINDS.get(kind)
    span, _, extra = _split_span(rest)
    if made is None or "/" not in span:
        raise UsageError(f"--incident: expected KIND:FROM/TO with a kind of {', '.join(KINDS)}, found {text!r}")
    start, end = window(*span.split("/", 1))
    own = {field.name: field for field in fields(made)}
    given: dict[str, object] = {}
    for item in filter(None, extra.split(",")):
        key, _, value = item.partition("=")
        if key not in own or key in ("start", "end"):
            raise UsageError(f"--incident {kind}: unknown key {key!r}; known: {', '.join(sorted(set(own) - {'start', 'end'}))}")
        given[key] = _value(value)
    return made(start, end, **given)


def _split_span(rest: str) -> tuple[str, str, str]:
    # Times hold colons too: the keys begin after the last colon that is followed by `name=`.
    head, colon, tail = rest.rpartition(":")
    return (head, colon, tail) if "=" in tail else (rest, "", "")


def _value(text: str) -> object:
    try:
        if "-" in text:
            return tuple(int(part) for part in text.split("-"))
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


if __name__ == "__main__":
    from slidr.cli import main

    main(["simulate", *sys.argv[1:]])
