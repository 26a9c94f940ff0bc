"""Files -> clicks, purchases, a live system's decisions and features, rejects: spark-submit jobs/ingest.py --source NAME PATH…"""

import sys
from datetime import timedelta
from typing import Annotated

import typer

from slidr import ingest as stage
from slidr import scoring
from slidr.days import midnight
from slidr.errors import DONE, DONE_WITH_REJECTS
from slidr.replay import audit, lease
from slidr.run import Job, Outcome
from slidr.tables import DECISIONS

Source = Annotated[str, typer.Option("--source", help="Name of a shipped source, or a source file.")]
Paths = Annotated[list[str], typer.Argument(metavar="PATH…", help="Files or folders.")]


def ingest(job: Job, source: Source, paths: Paths) -> Outcome:
    """Reads files through a source into the tables; every row is written, already there, merged or rejected."""
    job.say(f"reading {len(paths)} path(s) through the source {source}")
    summary = stage.ingest(job.lake, source=stage.load_source(source), paths=paths, conf=job.conf, run_id=job.run_id, now=job.now)
    if "decisions" in summary.totals:
        publish_external(job)
    rows = [
        {
            "table": table,
            "rows in": total.rows_in,
            "written": total.written,
            "already there": total.already_there,
            "merged": total.merged,
            "rejected": total.rejected,
            "why": ", ".join(f"{reason}: {count:,}" for reason, count in total.rejects.items()),
        }
        for table, total in summary.totals.items()
    ]
    return Outcome(summary.to_dict(), {"Ingested": rows}, exit_code=DONE_WITH_REJECTS if summary.has_rejects else DONE)


def publish_external(job: Job) -> None:
    """A live system's decisions, known by having no feature spec, are the published state until a replay changes them. Raises LockedError
    while a replay of their days is half published."""
    days = [row[0] for row in job.lake.read(DECISIONS).where("spec_id IS NULL").select("click_date").distinct().collect()]
    if days:
        lease.refuse_half_published(audit.read(job.lake), midnight(min(days)), midnight(max(days)) + timedelta(days=1))
        scoring.complete(job.lake, days)


if __name__ == "__main__":
    from slidr.cli import main

    main(["ingest", *sys.argv[1:]])
