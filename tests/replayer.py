"""A process of its own that publishes plans of `tests.worlds`: python -m tests.replayer LAKE [--die-after COMMITS]

Reads lines `PLAN_ID VERSION` (VERSION `-` for a revert) and answers each with one JSON line: exit code, message, publication
number. With --die-after it kills itself right after so many commits; its JVM ends by itself a moment later.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from slidr import config, data_files, direct, session
from slidr.errors import DONE, SlidrError
from slidr.lake import Lake
from slidr.replay import apply
from slidr.replay.audit import Who
from tests.conftest import CHEAP
from tests.worlds import NOW, version


def dying(write: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def write_and_die(*given: Any, **named: Any) -> Any:
        done = write(*given, **named)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return write_and_die


def published(lake: Lake, plan_id: str, number: str) -> dict[str, Any]:
    who = Who(f"process {os.getpid()}", "run-p")
    try:
        done = apply.apply_plan(lake, plan_id=plan_id, version=None if number == "-" else version(number), now=NOW, who=who)
    except SlidrError as error:
        return {"exit": error.exit_code, "message": str(error)}
    return {"exit": DONE, "publication_no": done.publication_no, "already": done.already}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--die-after", type=int, default=0)
    given = parser.parse_args()
    if given.die_after:
        left = [given.die_after]
        direct.write_deltalake = dying(direct.write_deltalake, left)
        Lake.append = dying(Lake.append, left)  # type: ignore[method-assign]
        data_files._committed = dying(data_files._committed, left)
    session.use_utc()
    conf = config.load(config.shipped("local.yaml"), ("spark.shuffle_partitions=2", "spark.driver_memory=1g"))
    lake = Lake(session.build(conf.spark.model_copy(update={"settings": CHEAP}), app="slidr-replayer"), given.root)
    lake.spark.range(1).count()
    print("ready", flush=True)
    for line in sys.stdin:
        began = datetime.now(timezone.utc).isoformat()
        print(json.dumps({"began": began, **published(lake, *line.split())}), flush=True)


if __name__ == "__main__":
    main()
