"""On an object store: the chain leaves what it leaves on a disk, and no commit of two writers is lost."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from slidr import direct
from slidr.direct import Place
from slidr.tables import RUNS
from tests import s3
from tests.s3_barrier import barrier

pytestmark = pytest.mark.slow
APPENDS = 5


def test_a_day_and_a_replay_on_s3_equal_those_on_a_disk(tmp_path: Path) -> None:
    with s3.server() as url:
        done = subprocess.run([sys.executable, "-m", "tests.s3_chain", url, str(tmp_path)], text=True, capture_output=True, timeout=580)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["s3"] == found["disk"]
    assert len(found["s3"]["decisions"]) == 240
    assert min(found["s3"]["corrections"]) > 0
    assert found["s3"]["counted"] == [{"n": 240}]


@contextmanager
def writer(url: str, name: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.s3_writer", url, name]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def race(processes: Sequence["subprocess.Popen[str]"], root: str, patience: str) -> tuple[set[str], int]:
    """Both append at once. The ids of which they were told that they are in, and how often one was refused."""
    for process in processes:
        assert process.stdin
        process.stdin.write(f"{root} {APPENDS} {patience}\n")
        process.stdin.flush()
    found = [json.loads(process.stdout.readline()) for process in processes if process.stdout]
    return {name for one in found for name in one["ids"]}, sum(one["refused"] for one in found)


def test_two_drivers_lose_each_others_commits_and_with_the_lease_they_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    without, leased = (f"s3a://{s3.BUCKET}/{name}" for name in ("without", "leased"))
    with s3.server() as url, barrier(url) as proxy, writer(proxy.url, "a") as one, writer(proxy.url, "b") as other:
        for name, value in s3.environment(url).items():
            monkeypatch.setenv(name, value)
        for root in (without, leased):
            direct.create(Place(root), RUNS)
        for process in (one, other):
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        proxy.wait = 30  # longer than a slow machine takes for a commit
        told, _ = race((one, other), without, "none")
        lost = told - {row["run_id"] for row in direct.read(Place(without), RUNS).rows}
        assert len(lost) >= APPENDS // 2, (lost, proxy.met)
        proxy.met.clear()
        proxy.wait = 2  # the lease keeps the other one away
        told, refused = race((one, other), leased, "1")
        rows = [row["run_id"] for row in direct.read(Place(leased), RUNS).rows]
        assert sorted(rows) == sorted(told)
        assert len(rows) == 2 * APPENDS
        assert refused > 0
        assert not proxy.met
