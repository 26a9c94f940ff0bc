"""Upkeep of the tables: spark-submit jobs/upkeep.py --conf FILE"""

import sys
from collections.abc import Sequence
from datetime import date

from slidr import upkeep
from slidr.days import days_of
from slidr.errors import ConflictError, InputError
from slidr.replay import audit
from slidr.run import Job, Outcome


def optimize(job: Job) -> Outcome:
    """Brings small files together, day by day, and removes what nobody can ask for any more. Running it again changes nothing."""
    found = upkeep.every_table(job.lake)
    if not found:
        raise InputError(f"expected tables in {job.lake.catalog or job.lake.root}, found none; run `slidr init`")
    before, days, leave = upkeep.settled_before(job.now, job.conf), upkeep.kept_days(job.conf), replayed_now(job)
    tended = []
    for table in found:
        job.say(f"{table.name}: days before {before}")
        tended.append(upkeep.tend(job.lake, table, before=before, leave=leave, days=days))
    rows = [_told(one) for one in tended]
    left = [one.table for one in tended if one.left]
    summary = {"before": str(before), "kept_days": days, "left_days": [str(day) for day in leave], "left": left, "tables": rows}
    said = f"Days before {before}; superseded files and commits of the last {days} days stay."
    shown = {"Tables": rows}
    if left:
        reason = f"another writer was faster in {', '.join(left)}; nothing is lost, run it again to bring the small files there together"
        return Outcome(summary, shown, said, exit_code=ConflictError.exit_code, refused=reason)
    return Outcome(summary, shown, said)


def replayed_now(job: Job) -> Sequence[date]:
    """UTC days of the replays that were begun and not ended: their state is merged into these days."""
    log = audit.read(job.place)
    windows = {event.window for event in log.events if log.is_open(event.replay_id)}
    return sorted({day for start, end in windows for day in days_of(start, end)})


def _told(one: upkeep.Tended) -> dict[str, object]:
    return {
        "table": one.table,
        "files before": one.before.live,
        "files": one.after.live,
        "removed": one.removed,
        "stored files": one.after.files,
        "stored bytes": one.after.bytes,
        "of the log": one.after.log_bytes,
        "left": "another writer was faster" if one.left else "",
    }


if __name__ == "__main__":
    from slidr.cli import main

    main(["tables", "optimize", *sys.argv[1:]])
