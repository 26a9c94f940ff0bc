"""Decides a past window again and publishes the difference: spark-submit jobs/replay.py run --conf FILE --from TIME --to TIME"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import typer

from slidr.errors import SlidrError, UsageError
from slidr.options import OptionalFrom, OptionalTo, Override, window
from slidr.progress import Progress, clock
from slidr.replay import apply as applying
from slidr.replay import approve as approving
from slidr.replay import audit, numbers, pace, report, rows, status
from slidr.replay import plan as planning
from slidr.replay import revert as reverting
from slidr.replay.measure import Stopped
from slidr.replay.request import Request, decided_window, request_of
from slidr.run import Job, Outcome, folder

PlanId = Annotated[str, typer.Argument(metavar="PLAN_ID", help="Id that `slidr replay plan` printed.")]
Model = Annotated[str, typer.Option("--model", help="stable (the newest), champion, or the number of a version.")]
Mode = Annotated[
    str, typer.Option("--mode", help="rescore: the model was wrong; recompute: the counters were; recompute-now: with late data.")
]
DecidedBy = Annotated[
    str | None, typer.Option("--decided-by", help="Only clicks whose published decision is of this version; all of them without a window.")
]
Advertisers = Annotated[list[str] | None, typer.Option("--advertiser", help="Only these advertisers; repeatable.")]
Slices = Annotated[list[str] | None, typer.Option("--slice", help="Only these slices; repeatable.")]
Marketplaces = Annotated[list[str] | None, typer.Option("--marketplace", help="Only these marketplaces; repeatable.")]
AllowCharges = Annotated[bool, typer.Option("--allow-charges", help="May reinstate clicks, so that advertisers pay for them again.")]
Why = Annotated[str | None, typer.Option("--reason", help="Why; kept on record.")]
Ticket = Annotated[str | None, typer.Option("--ticket", help="Ticket of the incident; kept on record.")]
Unapproved = Annotated[
    str | None, typer.Option("--override", help="Publishes without the approval that it needs, with this reason, on record.")
]


def plan(
    job: Job,
    start: OptionalFrom = None,
    end: OptionalTo = None,
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
    first, last = _window(job, start, end, decided_by)
    lists = {"advertiser": advertiser, "slice_": slice_, "marketplace": marketplace}
    request = _request(first, last, {"mode": mode, "decided_by": decided_by, "allow_charges": allow_charges, **lists})
    job.say(f"planning {request.window[0]} to {request.window[1]} by version {model}, {mode}")
    version, who = _registry(job).load(model), _who(job, reason, ticket)
    return _planned(job, planning.make_plan, who, override, request=request, version=version)


def revert(job: Job, replay_id: PlanId, override: Override = None, reason: Why = None, ticket: Ticket = None) -> Outcome:
    """Plans to take a published replay back: what its clicks fall back to, in clicks and money; publishes nothing."""
    return _planned(job, reverting.make_revert, _who(job, reason, ticket), override, replay_id=replay_id)


def _planned(job: Job, make: Callable[..., audit.Plan], who: audit.Who, override: str | None, **asked: Any) -> Outcome:
    """What the plan says; also of one that guardrails stop, which nobody can apply: why they did must be seen."""
    try:
        made = make(job.lake, conf=job.conf, now=job.now, who=who, override=override, progress=Progress(job.say), **asked)
        return _shown(job, made)
    except Stopped as stopped:
        seen = _shown(job, stopped.plan)
        said = f"This plan was stopped and is not on record. Report: {seen.summary['report']}"
        tables = {**seen.shown, "Guardrails": stopped.rows}
        return Outcome({**seen.summary, "guardrails": stopped.rows}, tables, said, exit_code=stopped.exit_code, refused=str(stopped))


def approve(job: Job, plan_id: PlanId, ticket: Ticket = None, reason: Why = None) -> Outcome:
    """Approves a plan that somebody else has made; who you are is as SLIDR_ACTOR or the system says."""
    approving.approve(job.place, plan_id=plan_id, who=_who(job, reason, ticket))
    said = f"Approved by {job.actor}. Publish it: slidr replay apply {plan_id}"
    return Outcome({"plan_id": plan_id, "approved_by": job.actor}, said=said)


def apply(job: Job, plan_id: PlanId, override: Unapproved = None, reason: Why = None, ticket: Ticket = None) -> Outcome:
    """Publishes a plan: exactly what it showed, once."""
    return _applied(job, plan_id, resume=False, override=override, reason=reason, ticket=ticket)


def resume(job: Job, plan_id: PlanId, override: Unapproved = None, reason: Why = None, ticket: Ticket = None) -> Outcome:
    """Completes a plan whose publication was interrupted."""
    return _applied(job, plan_id, resume=True, override=override, reason=reason, ticket=ticket)


def run(job: Job, **asked: Any) -> Outcome:
    """Plans and publishes at once, for schedulers; the bounds of the plan are settings, such as --set replay.max_changed_share=0.1."""
    half = _half_published(job, asked)
    planned = show(job, half) if half else plan(job, **asked)
    if planned.refused:
        return planned
    try:
        done = _applied(job, planned.summary["plan_id"], resume=False, override=None, reason=asked["reason"], ticket=asked["ticket"])
    except SlidrError as error:  # told with what was planned
        return replace(planned, exit_code=error.exit_code, refused=str(error))
    return Outcome({**planned.summary, **done.summary}, {**planned.shown, **done.shown}, done.said)


def _half_published(job: Job, asked: dict[str, Any]) -> str | None:
    """The replay of this very request that was cut off after its first publication: it can only be completed, whatever else has come."""
    first, last = _window(job, asked["start"], asked["end"], asked["decided_by"])
    log, request = audit.read(job.lake), _request(first, last, asked)
    open_ = dict.fromkeys(event.replay_id for event in log.events if log.is_open(event.replay_id) and log.no_way_back(event.replay_id))
    return next((name for name in open_ if _alike(request_of(audit.require_plan(job.lake, name)), request)), None)


def _alike(one: Request, other: Request) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("window", "filters", "mode", "allow_charges"))


run.__signature__ = inspect.signature(plan)  # type: ignore[attr-defined]  # the options of the plan, once


def list_replays(job: Job) -> Outcome:
    """Lists the replays on record, newest first."""
    found = status.listed(job.place)
    narrow = [
        {
            "replay": row["replay_id"],
            "state": row["state"],
            "window, UTC": f"{row['window_from']:%Y-%m-%d %H:%M} to {row['window_to']:%Y-%m-%d %H:%M}",
            "mode": row["mode"],
            "version": row["model_version"],
            "planned": f"{row['planned']:%Y-%m-%d %H:%M} by {row['by']}",
        }
        for row in found
    ]
    return Outcome({"replays": found}, {"Replays": narrow})


def show_status(job: Job, plan_id: PlanId) -> Outcome:
    """Tells how far a replay is, who works on it, and what to do next."""
    found = status.status(job.place, plan_id)
    return Outcome(found, {"Replay": [{"what": name, "is": value} for name, value in found.items()]})


def show(job: Job, plan_id: PlanId) -> Outcome:
    """Shows one plan as it was made, and what happened to it."""
    log, made = audit.require_log(job.lake, plan_id)
    outcome, events = _shown(job, made), status.events(log, plan_id)
    return Outcome({**outcome.summary, "events": events}, {**outcome.shown, "Events": events}, outcome.said)


def write_report(job: Job, plan_id: PlanId) -> Outcome:
    """Writes the report of a plan again: a page for a ticket, the same as JSON, and the table of all changes."""
    page = _report(job, audit.require_plan(job.lake, plan_id))
    return Outcome({"plan_id": plan_id, "report": page}, said=page)


def _window(job: Job, start: str | None, end: str | None, decided_by: str | None) -> tuple[datetime, datetime]:
    if start and end:
        return window(start, end)
    if start or end or not decided_by:
        raise UsageError("expected --from and --to, or --decided-by VERSION without a window for all that it decided")
    return decided_window(job.lake, decided_by)


def _request(first: datetime, last: datetime, asked: dict[str, Any]) -> Request:
    advertisers, slices, markets = (tuple(asked[name] or ()) for name in ("advertiser", "slice_", "marketplace"))
    allow = asked["allow_charges"]
    filters = {"decided_by": asked["decided_by"], "advertisers": advertisers, "slices": slices, "marketplaces": markets}
    return Request(first, last, mode=asked["mode"], allow_charges=allow, **filters)


def _who(job: Job, reason: str | None, ticket: str | None) -> audit.Who:
    return audit.Who(job.actor, job.run_id, reason, ticket)


def _registry(job: Job) -> Any:
    from slidr.registry import Registry

    return Registry(job.conf.registry, job.lake)


def _applied(job: Job, plan_id: str, *, resume: bool, override: str | None, reason: str | None, ticket: str | None) -> Outcome:
    log, planned = audit.require_log(job.lake, plan_id)
    # Also a revoked version's: what it has half published is completed; else `apply_plan` refuses it.
    version = None if planned.reverts else _registry(job).inspect(planned.pins["version"])
    job.say(f"publishing {plan_id}; about {clock(pace.estimate(log, planned).total_seconds())}")
    progress = Progress(job.say)

    def remake(made: audit.Plan) -> None:
        if version is None:
            reverting.make_rows_again(job.lake, made, conf=job.conf, progress=progress)
        else:
            planning.make_rows_again(job.lake, made, version, conf=job.conf, progress=progress)

    done = applying.apply_plan(
        job.lake,
        plan_id=plan_id,
        version=version,
        now=job.now,
        who=_who(job, reason, ticket),
        lease_minutes=job.conf.replay.lease_minutes,
        resume=resume,
        override=override,
        remake=remake,
        progress=progress,
    )
    directions = done.money["directions"]
    money: dict[str, int] = {}
    for entry in directions:
        money[entry["currency"]] = money.get(entry["currency"], 0) + entry["micros"]
    summary = {
        "plan_id": plan_id,
        "publication_no": done.publication_no,
        "corrections": sum(entry["clicks"] for entry in directions),
        "money": money,
        "already": done.already,
        "reverted_by": done.reverted_by,
    }
    since = f", and reverted by {done.reverted_by} since" if done.reverted_by else ""
    said = f"Applied: {summary['corrections']:,} corrections published."
    return Outcome(
        summary, {"Money": _money(directions)} if money else {}, f"Already applied{since}; nothing was written." if done.already else said
    )


def _report(job: Job, made: audit.Plan) -> str:
    changes = numbers.changes(rows.planned(job.lake, made))
    return str(report.write(made, changes, folder=folder(job, "replays"), zones=job.conf.marketplaces))


def _shown(job: Job, made: audit.Plan) -> Outcome:
    page = _report(job, made)
    content = report.summary(made, zones=job.conf.marketplaces)
    money, about = made.money, pace.estimate(audit.read(job.lake), made)
    tables: dict[str, Any] = {
        "Window": [{"zone": zone, "from and to": text} for zone, text in content["window"].items()],
        "Decides": [{"what": name, "is": value} for name, value in content["decides"].items()],
        "Clicks": [{"what happens": text, "clicks": count} for text, count in content["outcomes"]],
        "Before and after": [{"share": text, "before": before, "after": after} for text, before, after in content["shares"]],
        "Money": _money(money["directions"]),
        "Money by day": _money(money["days"], "click_date") if len(money["days"]) > len(money["directions"]) else [],
        "Money by slice": _money(money["slices"], "report_slice"),
        "Largest advertisers": [_advertiser(row) for row in money["advertisers"][:10]],
        "Features that differ": [row for row in content["features"] if row["share"] != 1.0][:10],
    }
    if content["features"] and not tables["Features that differ"]:
        tables["Features that differ"] = [{"feature": "none: counted anew they are as stored, so the model makes the difference"}]
    summary = {"plan_id": made.plan_id, "already": made.already, "counts": made.counts, "money": money, "report": page}
    summary |= {"needs_approval": numbers.needs_approval(made), "seconds_to_apply": about.total_seconds()}
    commands = "\n".join(f"  {name}: {command}" for name, command in content["commands"].items())
    said = f"Plan {made.plan_id}: {content['mode']}.\nReport: {page}\nPublishing it takes about {clock(about.total_seconds())}.\n{commands}"
    return Outcome(summary, {title: rows for title, rows in tables.items() if rows}, said)


def _advertiser(row: dict[str, Any]) -> dict[str, Any]:
    amounts = {name: report.money(row[f"{name}_micros"], row) for name in ("credit", "charge")}
    return {"advertiser": row["advertiser_id"], "currency": row["currency"], "clicks": row["clicks"], **amounts}


def _money(sums: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    return [
        {
            **{key: entry[key] for key in keys},
            "direction": entry["direction"],
            "currency": entry["currency"],
            "clicks": entry["clicks"],
            "amount": report.money(entry["micros"], entry),
        }
        for entry in sums
    ]


if __name__ == "__main__":
    from slidr.cli import main

    main(["replay", *sys.argv[1:]])
