"""An advertiser's statement of a month: spark-submit jobs/statement.py --conf FILE --advertiser ID --month YYYY-MM"""

import re
import sys
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any

import typer

from slidr.errors import UsageError
from slidr.run import Job, Outcome, folder
from slidr.statement import page, sums
from slidr.statement.sums import Statement

Advertiser = Annotated[str, typer.Option("--advertiser", help="Id of the advertiser.")]
Month = Annotated[str, typer.Option("--month", help="Month of the clicks in their marketplace's time zone, such as 2026-03.")]


def statement(job: Job, advertiser: Advertiser, month: Month) -> Outcome:
    """States an advertiser's month: gross, general and sophisticated invalid traffic, net, corrections by original month."""
    found = sums.read(job.place, advertiser=advertiser, month=parse_month(month), conf=job.conf)
    written = page.write(found, folder(job, "statements"), now=job.now)
    return Outcome(summary(found) | {"page": str(written)}, page.shown(found), f"Statement: {written}")


def parse_month(text: str) -> date:
    """The first day of a month. Raises UsageError otherwise."""
    if not re.fullmatch(r"20[0-9]{2}-(0[1-9]|1[0-2])", text):
        raise UsageError(f"--month: expected a month such as 2026-03, found {text!r}")
    return date.fromisoformat(f"{text}-01")


def summary(found: Statement) -> dict[str, Any]:
    """The statement as plain values: campaigns with their lines, corrections, invoice."""
    campaigns = [{**asdict(row), "delayed_micros": row.delayed, "net_micros": row.net} for row in found.campaigns]
    return {**asdict(found), "campaigns": campaigns, "invoice": found.invoice()}


if __name__ == "__main__":
    from slidr.cli import main

    main(["statement", *sys.argv[1:]])
