"""Commands of the small shop in processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.commands import World
from tests.conftest import CHEAP

ROOT = Path(__file__).parents[2]
CHEAPLY = [word for key, value in {**CHEAP, "spark.log.level": "OFF"}.items() for word in ("--set", f"spark.settings.{key}={value}")]


def copy_of(world: World, root: Path) -> World:
    """The lake and the registry at another place; the bundles stay where they are."""
    shutil.copytree(world.root / "lake", root / "lake")
    if (world.root / "registry.db").exists():
        shutil.copy(world.root / "registry.db", root / "registry.db")
    options = [str(word).replace(str(world.root) + "/", str(root) + "/") for word in world.options]
    made = World(root, world.spark, {})
    made.options = options
    return made


@contextmanager
def process(world: World, after: int, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A victim that has started; killed with its JVM at the end."""
    command = [sys.executable, "-m", "tests.faults.victim", str(after), *words, *world.options, *CHEAPLY]
    command += ["--set", "spark.driver_memory=1g", "--json", "-q"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, start_new_session=True) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == "started\n", child.stderr
            yield child
        finally:
            kill(child)


def kill(child: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
