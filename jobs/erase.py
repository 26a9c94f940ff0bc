"""Erases users from the lake: spark-submit jobs/erase.py --users-from FILE --reason TEXT"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from slidr import erasure, pseudonyms
from slidr.errors import InputError
from slidr.lake import Lake
from slidr.options import Reason
from slidr.run import Job, Outcome

UsersFrom = Annotated[str, typer.Option("--users-from", metavar="FILE", help="File of user ids, one a line; - reads them from stdin.")]
Purge = Annotated[bool, typer.Option("--purge", help="Deletes the replaced files at once, and older states of these tables with them.")]


def erase(job: Job, users_from: UsersFrom, reason: Reason, purge: Purge = False) -> Outcome:
    """Empties what names the given users in clicks, purchases and rejects; rows, decisions and money stay (docs/privacy.md)."""
    users = read_users(users_from)
    key = pseudonyms.load_key(job.conf.ingest)
    pseudonyms.require(job.lake, key)
    if purge:
        erasure.require_purgeable(job.lake)
    rows = []
    for lake in lakes(job):
        job.say(f"erasing {len(users)} user(s) from {lake.root}")
        found = erasure.erase(lake, users, key, run_id=job.run_id, day=job.now.date())
        rows.append({"lake": lake.root, **found, "files deleted": erasure.purge(lake) if purge else 0})
    said = "" if purge else "Older states of the tables still hold them until they are vacuumed; --purge does it now."
    return Outcome({"users": len(users), "reason": reason, "lakes": rows}, {"Rows emptied": rows}, said)


def read_users(source: str) -> list[str]:
    """Distinct ids of a file or of stdin: never of the command line, which shells and process lists keep."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"expected a file of user ids, one a line, in UTF-8, at {source}: {error}; check --users-from") from error
    return sorted({line.strip("\r") for line in text.split("\n")} - {""})


def lakes(job: Job) -> list[Lake]:
    """The lake, and the copies that backtests keep."""
    copies = sorted(job.conf.work.root.glob("backtests/*/lake"))
    return [job.lake, *[Lake(job.spark, str(path)) for path in copies]]


if __name__ == "__main__":
    from slidr.cli import main

    main(["erase", *sys.argv[1:]])
