"""MLflow away, silent, locked or broken: what needs it is refused within a bounded time, what does not need it goes on."""

import contextlib
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from slidr.config import RegistryConf
from slidr.errors import SetupError
from slidr.registry import database, fold
from slidr.registry.store import Store
from slidr.threads import together
from tests.commands import World
from tests.faults.processes import ROOT
from tests.faults.shop import WINDOW, one_line, refused
from tests.faults.summary import REFUSED, SURVIVED

SECRET = "s3cret"
LONGEST = 60  # seconds that a refusal may take; retries are cut to one for the tests
BROKEN = ("away", "silent", "locked", "no database")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


@contextlib.contextmanager
def broken(root: Path, how: str) -> Iterator[tuple[str, ...]]:
    """The words that point a command at a registry that is out of order."""
    if how == "away":
        yield ("--set", f"registry.uri=http://ann:{SECRET}@127.0.0.1:9")
    elif how == "silent":  # takes the request, and never answers
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield ("--set", f"registry.uri=http://ann:{SECRET}@127.0.0.1:{server.getsockname()[1]}")
    elif how == "locked":
        with contextlib.closing(sqlite3.connect(root / "registry.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield ()
    else:
        (root / "registry.db").write_bytes(b"no database at all" * 100)
        yield ()


@pytest.mark.fault(
    "a database of MLflow made by four at once, or left half made", "it is made once; half of one is made anew", ends=SURVIVED
)
def test_the_database_is_made_once_and_whole(tmp_path: Path) -> None:
    place, made = tmp_path / "folder" / "registry.db", []

    def make(uri: str) -> None:
        partial = Path(uri.removeprefix(database.SQLITE))
        assert not partial.exists()
        partial.write_text("half")
        assert not place.exists()
        if not made:
            made.append("killed")
            raise KeyboardInterrupt
        time.sleep(0.2)
        partial.write_text("whole")
        made.append("whole")

    with pytest.raises(KeyboardInterrupt):
        database.ensure(f"sqlite:///{place}", make)
    assert not place.exists()
    together(*[lambda: database.ensure(f"sqlite:///{place}", make)] * 4)
    assert (made, place.read_text()) == (["killed", "whole"], "whole")


INIT = """
import sys
from slidr.config import RegistryConf
from slidr.registry.store import Store
Store(RegistryConf(uri=f"sqlite:///{sys.argv[1]}/registry.db", artifacts=f"{sys.argv[1]}/artifacts", name="slidr")).init()
"""


@pytest.mark.fault("the same by MLflow itself, in four processes", "each ends well, one experiment and one model", ends=SURVIVED)
@pytest.mark.slow
def test_four_processes_make_the_registry(tmp_path: Path) -> None:
    (tmp_path / "registry.db.partial").write_bytes(b"left by a killed process")
    command = [sys.executable, "-c", INIT, str(tmp_path)]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(4)]
    complaints = [child.communicate(timeout=200)[1] for child in children]
    assert [child.returncode for child in children] == [0] * 4, complaints
    with contextlib.closing(sqlite3.connect(tmp_path / "registry.db")) as made:
        assert made.execute("SELECT count(*) FROM experiments WHERE name = 'slidr'").fetchone() == (1,)
        assert made.execute("SELECT count(*) FROM registered_models").fetchone() == (1,)


CALLS: dict[str, Callable[[Store, Path], object]] = {
    "init": lambda store, _: store.init(),
    "find": lambda store, _: store.find("aa"),
    "fetch": lambda store, scratch: store.fetch("1", scratch),
    "mirror": lambda store, _: store.mirror(fold([])),
    "log_numbers": lambda store, _: store.log_numbers("x", {"a": 1.0}, datetime(2026, 3, 1, tzinfo=timezone.utc)),
}


@pytest.mark.fault("an MLflow server away or silent, at each call", "a line without credentials, exit 75, in bounded time", ends=REFUSED)
@pytest.mark.parametrize(("how", "name"), [*[("away", name) for name in CALLS], ("silent", "fetch")])
def test_each_call_of_mlflow(how: str, name: str, tmp_path: Path) -> None:
    with broken(tmp_path, how) as (_, setting):
        store = Store(RegistryConf(uri=setting.removeprefix("registry.uri="), artifacts=str(tmp_path), name="slidr"))
        with pytest.raises(SetupError) as caught:
            CALLS[name](store, tmp_path)
    one_line(str(caught.value), ("an MLflow registry at http://***@127.0.0.1:", "run the same command again"))
    assert SECRET not in str(caught.value)


@pytest.mark.fault("MLflow away, silent, its database locked or broken, where a model is needed", "exit 75 in bounded time", ends=REFUSED)
@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.slow
def test_a_model_that_cannot_be_fetched(shop: World, how: str) -> None:
    with broken(shop.root, how) as words:
        for command in (("score", *WINDOW), ("train",), ("replay", "plan", *WINDOW)):
            began = time.monotonic()
            found = refused(shop, *command, *words, code=75, said=("MLflow registry", "run the same command again"))
            assert time.monotonic() - began < LONGEST
            assert SECRET not in found["message"]


@pytest.mark.fault("the same, where MLflow only mirrors", "rollback and monitoring hold, MLflow follows later", ends=SURVIVED)
@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.slow
def test_what_only_mirrors_to_mlflow_holds(shop: World, how: str, caplog: pytest.LogCaptureFixture) -> None:
    shop.ok("score", *WINDOW)
    with broken(shop.root, how) as words:
        assert shop.ok("models", "rollback", "--reason", "harms people", *words)["exit_code"] == 0
        assert "on record" in caplog.text
        assert shop.ok("monitor", *WINDOW, *words)["verdict"]
        assert "Prometheus" in caplog.text
    assert SECRET not in caplog.text
    assert shop.ok("models", "list")["champion"] == "1"
