"""Driver of a cluster test: features of a day, where first attempts at tasks fail or hang in each Python stage.

spark-submit tests/faulty_features.py CONF DAY MARKS: each fault leaves a file in the folder MARKS.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark import TaskContext

from slidr import config, data_files, session
from slidr.features import counters
from slidr.features.stage import Batches, Stage
from slidr.lake import Lake
from slidr.tables import CLICKS, features_table

MARKS = sys.argv[3]
HANGS = 3600  # seconds


@dataclass(frozen=True)
class Faulty(Stage):
    """A stage of which the first attempt at one task fails after its first batch, at another never ends."""

    number: int

    def run(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        made = super().run(batches)
        if context is not None and context.attemptNumber() == 0:
            if context.partitionId() == 0:
                yield from [next(made)]
                self._mark("failed")
                raise RuntimeError("a fault made by a test")
            if context.partitionId() == 1:
                yield from [next(made)]
                self._mark("hung")
                time.sleep(HANGS)
        yield from made

    def _mark(self, fault: str) -> None:
        Path(MARKS, f"{fault}-{self.number}").touch()


def main() -> None:
    conf, day = config.load(Path(sys.argv[1])), date.fromisoformat(sys.argv[2])
    lake = Lake(session.build(conf.spark), conf.lake.root)
    plan = counters.plan

    def faulty(*given: Any, **named: Any) -> list[Stage]:
        return [Faulty(**vars(stage), number=number) for number, stage in enumerate(plan(*given, **named))]

    counters.plan = faulty
    lake.create(features_table(conf.spec))
    before = counters.there(lake, conf.spec, [day], "then")
    counters.replace_days(lake, data_files.of(lake, CLICKS), before, [day], spec=conf.spec, known="then", zones=conf.marketplaces)


if __name__ == "__main__":
    main()
