"""Model versions: spark-submit jobs/models.py list --conf FILE"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from slidr.options import Reason, VersionNumber
from slidr.run import Job, Outcome

Folder = Annotated[Path, typer.Argument(help="Folder that gets a copy of the bundle.")]


def list_versions(job: Job) -> Outcome:
    """Lists all versions with their state."""
    registry = _registry(job)
    states = registry.states()
    rows = [
        {
            "version": number,
            "state": state,
            "decides now": "yes" if number == states.champion else "",
            "bundle": states.bundle_sha256[number][:12],
        }
        for number, state in states.state.items()
    ]
    return Outcome({"champion": states.champion, "versions": rows}, {"Model versions": rows})


def show(job: Job, version: VersionNumber) -> Outcome:
    """Shows one version: thresholds, metrics, and its history."""
    registry = _registry(job)
    loaded = registry.load(version)
    history = [
        {"when": f"{e['event_time']:%Y-%m-%d %H:%M}", "to": e["to_state"], "by": e["actor"], "why": e["reason"]}
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


def rollback(job: Job, reason: Reason) -> Outcome:
    """Goes back to the stable version that was champion last before; the one it leaves becomes suspect."""
    left, taken = _registry(job).rollback(now=job.now, actor=job.actor, reason=reason)
    return Outcome({"left": left, "champion": taken}, said=f"Version {taken} decides now; version {left} is suspect.")


def revoke(job: Job, version: VersionNumber, reason: Reason) -> Outcome:
    """Marks a version as never to be used again."""
    _registry(job).revoke(version, now=job.now, actor=job.actor, reason=reason)
    return Outcome({"revoked": version}, said=f"Version {version} is revoked.")


def export(job: Job, version: VersionNumber, folder: Folder) -> Outcome:
    """Copies a version's bundle to a folder, after its hash was checked."""
    registry = _registry(job)
    registry.load(version)
    path = registry.export(version, folder)
    return Outcome({"version": version, "folder": str(path)}, said=f"Version {version} copied to {path}.")


def _registry(job: Job):  # type: ignore[no-untyped-def]
    from slidr.registry import Registry

    return Registry(job.conf.registry, job.lake)


if __name__ == "__main__":
    from slidr.cli import main

    main(["models", *sys.argv[1:]])
