"""What `slidr train` costs as a command: wall time, CPU and the largest memory of all its processes, by clicks in the lake.

python -m tests.bench.training [--clicks 1000000 --clicks 5000000] [--keep FOLDER]

Days and parts are those of `tests.bench.methods`; the memory is that of the driver, its JVM and the Python workers together.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from slidr import config, session
from tests.bench.measure import Tree
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
