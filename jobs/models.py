"""Model versions: spark-submit jobs/models.py list --conf FILE. Starts no Spark session unless the lake is in a catalog."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from slidr.options import Reason, VersionNumber, parse_time
from slidr.run import Job, Outcome

Folder = Annotated[Path, typer.Argument(help="New or empty folder that becomes the bundle.")]
At = Annotated[str | None, typer.Option("--at", help="As it was at this time: a date (UTC midnight) or ISO 8601 with an offset.")]
Leave = Annotated[str | None, typer.Option("--leave", help="The version to leave; does nothing where another one decides already.")]


def list_versions(job: Job, at: At = None) -> Outcome:
    """Lists all versions: their state, since when, by whom and why, and which one decides."""
    from slidr import registry

    events = _registry(job).events()
    states = registry.at(events, parse_time(at, "--at")) if at else registry.fold(events)
    rows = [
        {
            "version": number,
            "state": event["to_state"],
            "since": _minute(event["event_time"]),
            "by": event["actor"],
            "why": event["reason"],
            "decides since": _minute(states.since[number]) if number == states.champion else "",
            "bundle": states.bundle_sha256[number][:12],
        }
        for number, event in states.given_by.items()
    ]
    when = f"At {parse_time(at, '--at').isoformat()}" if at else "Now"
    said = f"{when} {f'version {states.champion} decides' if states.champion else 'no version decides'}."
    return Outcome({"champion": states.champion, "at": at, "versions": rows}, {"Model versions": rows}, said)


def show(job: Job, version: VersionNumber) -> Outcome:
    """Shows one version: thresholds, metrics, and its history."""
    registry = _registry(job)
    loaded = registry.inspect(version)
    history = [
        {"when": _minute(e["event_time"]), "from": e["from_state"], "to": e["to_state"], "by": e["actor"], "why": e["reason"]}
        for e in registry.events()
        if e["model_version"] == loaded.number
    ]
    thresholds = [{"slice": name, "threshold": value} for name, value in sorted(loaded.bundle.thresholds.items())]
    metrics = [{"metric": name, "value": value} for name, value in loaded.bundle.metrics.items() if isinstance(value, int | float)]
    summary = {
        "version": loaded.number,
        "state": loaded.state,
        "bundle_sha256": loaded.bundle.sha256,
        "spec_id": loaded.bundle.spec.spec_id,
        "parent": loaded.bundle.metrics.get("parent"),
        "slices": loaded.bundle.slices.to_list(),
        "thresholds": loaded.bundle.thresholds,
        "default_threshold": loaded.bundle.default_threshold,
        "metrics": loaded.bundle.metrics,
        "table_versions": loaded.bundle.table_versions,
        "history": history,
    }
    return Outcome(summary, {"Thresholds": thresholds, "Metrics": metrics, "History": history})


def promote(job: Job, version: VersionNumber, reason: Reason) -> Outcome:
    """Makes a version the champion: it decides from now on."""
    _registry(job).promote(version, now=job.now, actor=job.actor, reason=reason)
    return Outcome({"champion": version}, said=f"Version {version} decides now.")


def mark_stable(job: Job, version: VersionNumber, reason: Reason) -> Outcome:
    """Marks a version that has been champion as stable: it may publish corrections."""
    _registry(job).mark_stable(version, now=job.now, actor=job.actor, reason=reason)
    return Outcome({"stable": version}, said=f"Version {version} is stable.")


def rollback(job: Job, reason: Reason, leave: Leave = None) -> Outcome:
    """Goes back to the stable version that was champion last before; the one it leaves becomes suspect."""
    gone = _registry(job).rollback(now=job.now, actor=job.actor, reason=reason, leave=leave)
    if gone is None:
        return Outcome({"left": leave, "already": True}, said=f"Version {leave} was left before; nothing was changed.")
    left, taken = gone
    return Outcome({"left": left, "champion": taken}, said=f"Version {taken} decides now, no longer version {left}.")


def revoke(job: Job, version: VersionNumber, reason: Reason) -> Outcome:
    """Marks a version as never to be used again."""
    registry = _registry(job)
    registry.revoke(version, now=job.now, actor=job.actor, reason=reason)
    champion = registry.states().champion
    hint = "" if champion else " No version decides now; `slidr models rollback` or `promote` chooses one."
    return Outcome({"revoked": version, "champion": champion}, said=f"Version {version} is revoked.{hint}")


def export(job: Job, version: VersionNumber, folder: Folder) -> Outcome:
    """Copies a version's bundle, after its hash was checked, to a folder that scores without registry and Spark."""
    taken = _registry(job).export(version, folder)
    said = f"Version {taken.number} copied to {folder}; the hash to load it with is {taken.bundle.sha256}."
    return Outcome({"version": taken.number, "folder": str(folder), "bundle_sha256": taken.bundle.sha256}, said=said)


def _registry(job: Job) -> Any:
    from slidr.registry import Registry

    return Registry(job.conf.registry, job.place)


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%MZ}"


if __name__ == "__main__":
    from slidr.cli import main

    main(["models", *sys.argv[1:]])
