"""Decides a past window again and publishes the difference: spark-submit jobs/replay.py plan --conf FILE --from TIME --to TIME"""

import sys
from typing import Annotated, Any

import typer
from pyspark.sql import functions as F

from slidr.errors import UsageError
from slidr.options import From, Override, To, window
from slidr.replay import apply as applying
from slidr.replay import audit, report
from slidr.replay import plan as planning
from slidr.replay.request import Request
from slidr.run import Job, Outcome, folder
from slidr.tables import REPLAYS

PlanId = Annotated[str, typer.Argument(metavar="PLAN_ID", help="Id that `slidr replay plan` printed.")]
Model = Annotated[str, typer.Option("--model", help="stable (the newest), champion, or the number of a version.")]
Mode = Annotated[
    str, typer.Option("--mode", help="rescore: the model was wrong; recompute: the counters were; recompute-now: with late data.")
]
DecidedBy = Annotated[str | None, typer.Option("--decided-by", help="Only clicks whose published decision is of this version.")]
Advertisers = Annotated[list[str] | None, typer.Option("--advertiser", help="Only these advertisers; repeatable.")]
Slices = Annotated[list[str] | None, typer.Option("--slice", help="Only these slices; repeatable.")]
Marketplaces = Annotated[list[str] | None, typer.Option("--marketplace", help="Only these marketplaces; repeatable.")]
AllowCharges = Annotated[bool, typer.Option("--allow-charges", help="May reinstate clicks, so that advertisers pay for them again.")]
Why = Annotated[str | None, typer.Option("--reason", help="Why; kept on record.")]
Ticket = Annotated[str | None, typer.Option("--ticket", help="Ticket of the incident; kept on record.")]


def plan(
    job: Job,
    start: From,
    end: To,
    model: Model = "stable",
    mode: Mode = "rescore",
    decided_by: DecidedBy = None,
    advertiser: Advertisers = None,
    slice_: Slices = None,
    marketplace: Marketplaces = None,
    allow_charges: AllowCharges = False,
    override: Override = None,
    reason: Why = None,
    ticket: Ticket = None,
) -> Outcome:
    """Shows what a replay would change, in clicks and money; publishes nothing."""
    first, last = window(start, end)
    request = Request(
        first,
        last,
        mode=mode,
        decided_by=decided_by,
        advertisers=tuple(advertiser or ()),
        slices=tuple(slice_ or ()),
        marketplaces=tuple(marketplace or ()),
        allow_charges=allow_charges,
    )
    job.say(f"planning {request.window[0]} to {request.window[1]} by version {model}, {mode}")
    made = planning.make_plan(
        job.lake,
        request=request,
        version=_version(job, model),
        conf=job.conf,
        now=job.now,
        override=override,
        actor=job.actor,
        reason=reason,
        ticket=ticket,
        run_id=job.run_id,
    )
    return _shown(job, made)


def apply(job: Job, plan_id: PlanId, reason: Why = None, ticket: Ticket = None) -> Outcome:
    """Publishes a plan: exactly what it showed, once."""
    planned = audit.require_plan(job.lake, plan_id)
    job.say(f"publishing {plan_id}")
    done = applying.apply_plan(
        job.lake,
        plan_id=plan_id,
        version=_version(job, planned.pins["version"]),
        now=job.now,
        actor=job.actor,
        reason=reason,
        ticket=ticket,
        run_id=job.run_id,
    )
    corrections = sum(entry["clicks"] for entry in done.money["directions"])
    money: dict[str, int] = {}
    for entry in done.money["directions"]:
        money[entry["currency"]] = money.get(entry["currency"], 0) + entry["micros"]
    summary = {
        "plan_id": plan_id,
        "publication_no": done.publication_no,
        "corrections": corrections,
        "money": money,
        "already": done.already,
    }
    said = "Already applied; nothing was written." if done.already else f"Applied: {corrections:,} corrections published."
    return Outcome(summary, {"Money": _money(done.money["directions"])} if money else {}, said)


def list_replays(job: Job) -> Outcome:
    """Lists the replays on record, newest first."""
    by_replay = job.lake.read(REPLAYS).groupBy("replay_id", "window_from", "window_to", "mode", "model_version")
    found = by_replay.agg(F.max_by("event", "event_time").alias("state"), F.max("event_time").alias("since")).orderBy(F.desc("since"))
    rows = [row.asDict() for row in found.limit(200).collect()]
    return Outcome({"replays": rows}, {"Replays": rows})


def show(job: Job, plan_id: PlanId) -> Outcome:
    """Shows one plan as it was made, and what happened to it."""
    outcome = _shown(job, audit.require_plan(job.lake, plan_id))
    events = job.lake.read(REPLAYS).where(F.col("replay_id") == plan_id).orderBy("event_time").collect()  # a handful
    rows = [{"when": row["event_time"], "event": row["event"], "who": row["actor"], "why": row["reason"]} for row in events]
    return Outcome({**outcome.summary, "events": rows}, {**outcome.shown, "Events": rows}, outcome.said)


def _version(job: Job, which: str):  # type: ignore[no-untyped-def]
    from slidr.registry import Registry

    return Registry(job.conf.registry, job.lake).load(which)


def _shown(job: Job, made: audit.Plan) -> Outcome:
    page = report.write(made, folder=folder(job, "replays"), zones=job.conf.marketplaces)
    content = report.summary(made, zones=job.conf.marketplaces)
    tables: dict[str, Any] = {
        "Window": [{"zone": zone, "from and to": text} for zone, text in content["window"].items()],
        "Clicks": [{"what happens": text, "clicks": count} for text, count in content["outcomes"]],
        "Before and after": [{"share": text, "before": before, "after": after} for text, before, after in content["shares"]],
        "Money": _money(made.money["directions"]),
        "Largest advertisers": [_advertiser(row) for row in made.money["advertisers"][:10]],
        "Features that differ": [row for row in content["features"] if row["share"] != 1.0][:10],
    }
    summary = {"plan_id": made.plan_id, "already": made.already, "counts": made.counts, "money": made.money, "report": str(page)}
    publish = content["commands"]["publish"]
    said = f"Plan {made.plan_id} by version {made.pins['version']}, {content['mode']}.\nReport: {page}\nPublish it: {publish}"
    return Outcome(summary, {title: rows for title, rows in tables.items() if rows}, said)


def _advertiser(row: dict[str, Any]) -> dict[str, Any]:
    amounts = {name: report.money(row[f"{name}_micros"], row) for name in ("credit", "charge")}
    return {"advertiser": row["advertiser_id"], "currency": row["currency"], "clicks": row["clicks"], **amounts}


def _money(directions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"direction": e["direction"], "currency": e["currency"], "clicks": e["clicks"], "amount": report.money(e["micros"], e)}
        for e in directions
    ]


if __name__ == "__main__":
    from slidr.cli import main

    if len(sys.argv) < 2:
        raise UsageError("expected plan, apply, list or show")
    main(["replay", *sys.argv[1:]])
