"""A command in a process of its own that kills itself: python -m tests.faults.victim AFTER WORDS…

Right after so many commits (0: never) it kills its whole process group, the JVM with it, by SIGKILL. It prints `started` before it
begins and `commits N` where it comes to its end.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from slidr import data_files, direct, lake
from slidr.cli import main
from slidr.tables import Table

done = [0]


def committed(fatal: int) -> None:
    done[0] += 1
    if done[0] == fatal:
        os.killpg(os.getpid(), signal.SIGKILL)


def counting(write: Callable[..., Any], fatal: int) -> Callable[..., Any]:
    """The same, and counted where it says that it has committed."""

    def write_and_die(*given: Any, **named: Any) -> Any:
        result = write(*given, **named)
        if result is not False:
            committed(fatal)
        return result

    return write_and_die


def counting_spark(fatal: int) -> Callable[[Table], AbstractContextManager[None]]:
    """Around every commit that Spark makes to a table."""
    retelling = lake.retelling_conflicts

    @contextmanager
    def write_and_die(table: Table) -> Iterator[None]:
        with retelling(table):
            yield
        committed(fatal)

    return write_and_die


if __name__ == "__main__":
    fatal = int(sys.argv[1])
    lake.retelling_conflicts = counting_spark(fatal)
    data_files._committed = counting(data_files._committed, fatal)
    direct.write_deltalake = counting(direct.write_deltalake, fatal)
    print("started", flush=True)
    try:
        main(sys.argv[2:])
    finally:
        print(f"commits {done[0]}", flush=True)
