"""A process of its own that plans and publishes a replay of `tests.worlds` as the command does: python -m tests.replay_command LAKE WORK

It waits within the recording of what was decided, once it has made the file WORK/waits, to be stopped there.
"""

import sys
import time
from pathlib import Path
from typing import Any

from slidr.jobs import replay

from slidr import config, run
from slidr.replay import outcomes
from tests.conftest import CHEAP
from tests.test_replay_job import ASKED, Versions


def main() -> None:
    root, work = sys.argv[1:]
    settings = ("spark.shuffle_partitions=2", "spark.driver_memory=1g", f"lake.root={root}", f"work.root={work}")
    bounds = ("replay.max_changed_share=1", "replay.max_fpr=1", "replay.max_days_after_close=36500")
    conf = config.load(config.shipped("local.yaml"), (*settings, *bounds))
    conf = conf.model_copy(update={"spark": conf.spark.model_copy(update={"settings": CHEAP})})
    replay._registry = lambda job: Versions()

    def waits(*_: Any) -> None:
        Path(work, "waits").touch()
        time.sleep(120)

    outcomes.replay_decisions = waits
    sys.exit(run.execute(["replay", "run"], lambda job: replay.run(job, **ASKED), conf=conf, as_json=True, quiet=True, verbose=False))


if __name__ == "__main__":
    main()
