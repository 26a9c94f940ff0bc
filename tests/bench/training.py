"""What `slidr train` costs as a command: wall time, CPU and the largest memory of all its processes, by clicks in the lake.

python -m tests.bench.training [--clicks 1000000 --clicks 5000000] [--keep FOLDER]

Days and parts are those of `tests.bench.methods`; the memory is that of the driver, its JVM and the Python workers together.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from slidr import config, session
from tests.bench.methods import AS_OF, prepared
from tests.commands import World


def trained(world: World) -> dict[str, object]:
    """One training in a process of its own: what it says, with wall and CPU seconds and the peak in GiB."""
    command = [
        str(Path(sys.executable).with_name("slidr")),
        "train",
        "--as-of",
        AS_OF.isoformat(),
        "--override",
        "bench",
        *world.options,
        "--json",
        "-q",
    ]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, Tree(process.pid) as tree:
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"expected exit code 0 of slidr train, found {process.returncode}: {output[-2000:]}")
    return {**json.loads(output.splitlines()[-1]), "wall": time.monotonic() - began, "cpu": tree.cpu, "peak": tree.bytes / 2**30}


class Tree:
    """Resident memory of a process and all below it: the largest sum seen, in bytes; and the CPU seconds last seen."""

    def __init__(self, pid: int) -> None:
        self.bytes, self.cpu = 0, 0.0
        self._pid, self._stop = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Tree":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            try:
                root = psutil.Process(self._pid)
                family = [root, *root.children(recursive=True)]
                times = [process.cpu_times() for process in family]
                self.bytes = max(self.bytes, sum(process.memory_info().rss for process in family))
                self.cpu = max(self.cpu, sum(t.user + t.system + t.children_user + t.children_system for t in times))
            except psutil.NoSuchProcess:
                continue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, action="append", help="repeatable; default 1 and 5 million")
    parser.add_argument("--keep", type=Path, help="folder that keeps the lakes; default: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for clicks in given.clicks or [1_000_000, 5_000_000]:
            root = (given.keep or Path(scratch)) / f"clicks-{clicks}"
            conf = config.load(config.shipped("local.yaml"), ("spark.shuffle_partitions=8",))
            spark = session.build(conf.spark, app="slidr-training")
            world, _ = prepared(root, spark, seed=1, clicks=clicks)
            spark.stop()  # its memory and cores are for the training
            found = trained(world)
            seconds = found["seconds"]
            print(
                f"{clicks:,} clicks: {found['wall']:.0f} s, {found['cpu']:.0f} CPU s, {found['peak']:.1f} GiB of all processes; "
                f"guardrails {seconds['guardrails']} of {seconds['all']} s",  # type: ignore[index]
                flush=True,
            )


if __name__ == "__main__":
    main()
