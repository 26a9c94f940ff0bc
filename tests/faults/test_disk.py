"""The disk fills up under each job, at each of its writes: told in one line, nothing half, and the same command again completes it."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.processes import copy_of
from tests.faults.shop import EXIT, one_line, steps
from tests.faults.summary import REFUSED
from tests.faults.test_kill import Story, completed, story  # noqa: F401  (a fixture)

SIZE = 12 << 20  # bytes of the disk
LEFT = [0, 4, 12, 24, 48, 96, 192, 384]  # KiB that are free when a job starts, until it gets through


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own; needs the right to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Takes all space but `left` KiB."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    with ballast.open("wb", buffering=0) as file:
        file.write(bytes(max(shutil.disk_usage(disk).free - left * 1024, 0)))
    return ballast


@pytest.mark.fault(
    "the disk of lake, registry and work folder is full, at each write of each job",
    "exit 75; after room is made, the same command gives the tables of an undisturbed run",
    ends=REFUSED,
)
@pytest.mark.slow
@pytest.mark.parametrize("step", list(steps("")))
def test_a_full_disk(step: str, story: Story, disk: Path) -> None:  # noqa: F811
    cramped, good = copy_of(story.before(step), disk / "shop"), EXIT.get(step, 0)
    stopped = 0
    for left in LEFT:
        ballast = fill(disk, left)
        result = cramped.run(*story.words(step))
        ballast.unlink()
        if result.exit_code == good:
            break
        assert result.exit_code == 75, f"{step}, {left} KiB: {result.exit_code}\n{result.output}\n{result.stderr}"
        one_line(str(json.loads(result.stdout.splitlines()[-1])["message"]), "make room")
        stopped += 1
    print(f"{step}: stopped {stopped} times by a full disk")
    assert stopped
    completed(story, step, cramped)
