"""A writer of its own process: python -m tests.s3_writer URL NAME

Reads lines `ROOT COUNT PATIENCE`; PATIENCE are seconds that it waits for another writer, `none`: it takes no lease. Appends so many rows to
the table `runs`, one by one, each until it is told that it is in, and answers with one JSON line: the ids, and how often it was refused.
"""

import json
import os
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

from slidr import config, session, writers
from slidr.errors import LockedError
from slidr.lake import Lake
from slidr.tables import RUNS
from tests import s3
from tests.conftest import CHEAP
from tests.frames import frame

UNSAFE = writers.UNSAFE


def append(lake: Lake, name: str) -> int:
    """Appends one row; returns how often it was refused because somebody else wrote."""
    now = datetime.now(timezone.utc)
    texts = {"command": "race", "config_hash": "", "code_version": "", "outcome": "done", "counts": "{}"}
    row: dict[str, Any] = {"run_id": name, "run_date": now.date(), "started_time": now, "ended_time": now, "exit_code": 0, **texts}
    rows, refused = frame(lake.spark, RUNS, [row]), 0
    while True:
        try:
            lake.append(rows, RUNS)
            return refused
        except LockedError:
            refused += 1


def main() -> None:
    url, name = sys.argv[1:]
    os.environ.update(s3.environment(url))
    session.use_utc()
    conf = config.load(config.shipped("local.yaml"), ("spark.shuffle_partitions=1", "spark.driver_memory=1g", "spark.master=local[1]"))
    spark = session.build(conf.spark.model_copy(update={"settings": {**CHEAP, **s3.settings(url)}}))
    spark.range(1).count()
    print("ready", flush=True)
    for line in sys.stdin:
        root, count, patience = line.split()
        writers.UNSAFE = () if patience == "none" else UNSAFE
        writers.PATIENCE = timedelta(seconds=0 if patience == "none" else float(patience))
        ids = [f"{name}-{number}" for number in range(int(count))]
        refused = sum([append(Lake(spark, root), one) for one in ids])
        print(json.dumps({"ids": ids, "refused": refused}), flush=True)


if __name__ == "__main__":
    main()
