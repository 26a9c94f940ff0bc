"""A command in a process of its own that kills itself: python -m tests.faults.victim AFTER WORDS…

Right after so many commits (0: never) it kills its whole process group, the JVM with it, by SIGKILL. It prints `started` before it
begins and `commits N` where it comes to its end.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from slidr import direct, lake
from slidr.cli import main

done = [0]


def counting(write: Callable[..., Any], fatal: int) -> Callable[..., Any]:
    def write_and_die(*given: Any, **named: Any) -> Any:
        result = write(*given, **named)
        done[0] += 1
        if done[0] == fatal:
            os.killpg(os.getpid(), signal.SIGKILL)
        return result

    return write_and_die


if __name__ == "__main__":
    fatal = int(sys.argv[1])
    lake._retell_conflicts = counting(lake._retell_conflicts, fatal)  # every commit that Spark makes to a table
    direct.write_deltalake = counting(direct.write_deltalake, fatal)
    print("started", flush=True)
    try:
        main(sys.argv[2:])
    finally:
        print(f"commits {done[0]}", flush=True)
