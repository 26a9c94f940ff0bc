"""What the daily work costs at size, step by step: python -m tests.bench.load [--clicks 1000000 --clicks 5000000 --clicks 20000000]

Made traffic of ten days through the commands as a user gives them, each in a process of its own: ingest, features, labels, score,
monitoring, a replay that changes one click in a hundred. Prints CPU per click, wall time, the largest memory of all processes of a command
together and what it left on disk; between two sizes the exponent of growth of CPU (1 = linear). Takes about half an hour for 20 million
clicks on two cores.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from slidr import config, data_files
from slidr.bundle import forward
from slidr.config import Config
from slidr.direct import Place
from slidr.registry import Registry
from slidr.tables import CLICKS, features_table
from tests.bench import replay as made
from tests.bench.measure import Tree

START, DAYS = date(2026, 3, 1), 10
SPAN = ["--from", START.isoformat(), "--to", (START + timedelta(days=DAYS)).isoformat()]
BOUNDS = (
    "max_changed_share=1",
    "max_fpr=1",
    "max_days_after_close=36500",
    f"max_money_micros={2**60}",
    f"max_advertiser_micros={2**60}",
    f"approval_above_micros={2**60}",
)
SHARES = (0.12, 0.13)  # of the clicks that version 1 and version 2 call invalid


@dataclass(frozen=True)
class Step:
    """One command: CPU and wall seconds, the peak of memory in bytes, bytes that it added to the lake."""

    name: str
    cpu: float
    wall: float
    peak: int
    disk: int


class Load:
    """A lake of its own below `root`, with so many clicks."""

    def __init__(self, root: Path, clicks: int, memory: str) -> None:
        self.root, self.clicks, self.place = root, clicks, Place(str(root / "lake"))
        self.settings = (
            f"lake.root={root}/lake",
            f"work.root={root}/work",
            f"registry.uri=sqlite:///{root}/registry.db",
            f"registry.artifacts={root}/artifacts",
            f"spark.driver_memory={memory}",
            f"spark.shuffle_partitions={max(8, clicks // 1_000_000)}",
            *[f"replay.{bound}" for bound in BOUNDS],
        )
        self.conf: Config = config.load(config.shipped("local.yaml"), self.settings)

    def run(self, name: str, *words: str) -> tuple[Step, dict]:
        options = [word for setting in self.settings for word in ("--set", setting)]
        command = [str(Path(sys.executable).with_name("slidr")), *words, *options, "--json", "-q"]
        before, began = _bytes(self.root / "lake"), time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, Tree(process.pid) as tree:
            output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"expected exit code 0 of slidr {' '.join(words)}, found {process.returncode}: {output[-2000:]}")
        wall, disk = time.monotonic() - began, _bytes(self.root / "lake") - before
        print(f"{self.clicks:,} clicks, {name}: {tree.cpu:.0f} CPU s, {wall:.0f} s", file=sys.stderr, flush=True)
        return Step(name, tree.cpu, wall, tree.bytes, disk), json.loads(output.splitlines()[-1])

    def steps(self) -> list[Step]:
        traffic = str(self.root / "traffic")
        self.run("init", "init")
        self.run("simulate", "simulate", traffic, "--clicks", str(self.clicks), "--days", str(DAYS), "--start", START.isoformat())
        purchases, _ = self.run("ingest purchases", "ingest", f"{traffic}/purchases", "--source", "canonical_purchases")
        clicks, _ = self.run("ingest clicks", "ingest", f"{traffic}/clicks", "--source", "canonical")
        shutil.rmtree(traffic)
        features, _ = self.run("features", "features", *SPAN)
        labels, _ = self.run("labels", "labels", *SPAN)
        self._register()
        score, decided = self.run("score", "score", *SPAN)
        monitor, _ = self.run("monitor", "monitor", *SPAN)
        plan, planned = self.run("replay plan", "replay", "plan", *SPAN, "--model", "2", "--mode", "rescore", "--allow-charges")
        apply, applied = self.run("replay apply", "replay", "apply", planned["plan_id"])
        print(f"{decided['new_decisions']:,} decided, {applied['corrections']:,} corrections", flush=True)
        return [purchases, clicks, features, labels, score, monitor, plan, apply]

    def _register(self) -> None:
        registry = Registry(self.conf.registry, self.place)
        said = {"now": datetime.now(timezone.utc), "actor": "bench", "reason": "bench"}
        pictures = self.root / "pictures"
        pictures.mkdir()
        for number, threshold in enumerate(self._thresholds(), start=1):
            registry.register(replace(made.bundle(threshold), sha256=""), identity=str(number), pictures=pictures, **said)
        for number in ("2", "1"):
            registry.promote(number, **said)
            registry.mark_stable(number, **said)

    def _thresholds(self) -> list[float]:
        """Of the shares, by the scores of some of the features."""
        bundle = made.bundle(0.5)
        files = data_files.of(self.place, features_table(self.conf.spec))
        rows = next(files.batches(files.files[0], bundle.features))
        x_BF = np.column_stack([column.to_numpy(zero_copy_only=False).astype(np.float64) for column in rows.columns])
        return [float(threshold) for threshold in np.quantile(forward(bundle, x_BF), [1 - share for share in SHARES])]


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def told(load: Load, steps: Sequence[Step], before: tuple[int, Sequence[Step]] | None) -> None:
    rows = sum(file.rows or 0 for file in data_files.of(load.place, CLICKS).files)
    print(f"| {rows:,} clicks | CPU us/click | CPU s | wall s | peak GiB | bytes/click | growth |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for number, step in enumerate(steps):
        growth = ""
        if before:
            growth = f"{math.log(step.cpu / before[1][number].cpu) / math.log(load.clicks / before[0]):.2f}"
        each = f"{1e6 * step.cpu / rows:.1f} | {step.cpu:.0f} | {step.wall:.0f} | {step.peak / 2**30:.1f} | {step.disk / rows:.0f}"
        print(f"| {step.name} | {each} | {growth} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, action="append", help="repeatable; default 1, 5 and 20 million")
    parser.add_argument("--memory", default="4g", help="of the driver's JVM")
    given = parser.parse_args()
    before = None
    for clicks in given.clicks or [1_000_000, 5_000_000, 20_000_000]:
        with tempfile.TemporaryDirectory() as scratch:
            load = Load(Path(scratch), clicks, given.memory)
            steps = load.steps()
            told(load, steps, before)
            before = (clicks, steps)


if __name__ == "__main__":
    main()
