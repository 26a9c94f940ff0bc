"""Model versions: the life of a version on a real registry, alone and against other writers, without a Spark session."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from slidr.jobs import daily, models, replay, score
from typer.testing import CliRunner

from slidr import bundle, direct, session
from slidr.cli import app
from slidr.config import Config, RegistryConf
from slidr.direct import Place
from slidr.errors import ConflictError, InputError, ModelRefusedError, NothingToDoError
from slidr.registry import Registry, log
from slidr.registry.store import Store
from slidr.run import Job
from slidr.tables import MODEL_PROMOTIONS, RUNS
from tests.bundles import constant

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 3, 20, tzinfo=timezone.utc)
WHO = {"actor": "ann", "reason": "test"}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, empty: making them takes far longer than any test here."""
    path = tmp_path_factory.mktemp("database") / "registry.db"
    assert Store(RegistryConf(uri=f"sqlite:///{path}", artifacts="unused", name="slidr")).client
    return path


@pytest.fixture
def registry(tmp_path: Path, database: Path) -> Registry:
    shutil.copyfile(database, tmp_path / "registry.db")
    settings = RegistryConf(uri=f"sqlite:///{tmp_path}/registry.db", artifacts=str(tmp_path / "artifacts"), name="slidr")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "curves.png").write_bytes(b"png")
    made = Registry(settings, Place(str(tmp_path / "a lake")))
    made.init()
    return made


def register(registry: Registry, conf: Config, number: str, now: datetime = NOW) -> str:
    pictures = Path(registry.lake.root).parent / "pictures"
    return registry.register(constant(conf, float(number)), identity=number * 2, pictures=pictures, now=now, **WHO)


def stable_versions(registry: Registry, conf: Config, count: int) -> None:
    """Versions 1 to `count`, each of them champion once and stable; the last one decides."""
    for number in map(str, range(1, count + 1)):
        assert register(registry, conf, number) == number
        registry.promote(number, now=NOW, **WHO)
        registry.mark_stable(number, now=NOW, **WHO)


def commands(registry: Registry, *words: str) -> list[str]:
    """The arguments of `slidr` on this registry."""
    root = Path(registry.lake.root).parent
    places = {"lake.root": registry.lake.root, "work.root": root / "work", "registry.uri": registry.conf.uri}
    places |= {"registry.artifacts": registry.conf.artifacts}
    return [*words, *[word for key, value in places.items() for word in ("--set", f"{key}={value}")], "--json", "-q"]


def process(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_the_life_of_a_version(registry: Registry, conf: Config) -> None:
    clock = iter(NOW + timedelta(hours=n) for n in range(100))
    registry.init()
    assert [register(registry, conf, number, next(clock)) for number in ("1", "1", "2")] == ["1", "1", "2"]
    with pytest.raises(ModelRefusedError, match="champion"):
        registry.load("champion")
    with pytest.raises(ModelRefusedError, match="is or was champion"):
        registry.mark_stable("1", now=next(clock), **WHO)
    registry.promote("1", now=next(clock), **WHO)
    registry.mark_stable("1", now=next(clock), **WHO)
    registry.promote("2", now=next(clock), actor="bob", reason="second")
    registry.promote("2", now=next(clock), actor="bob", reason="twice is once")
    assert registry.load("stable").number == "1"
    loaded = registry.load("2")
    assert (loaded.state, float(loaded.bundle.layers[0][1][0])) == ("champion", 2.0)
    assert registry.rollback(now=next(clock), actor="ann", reason="wrong") == ("2", "1")
    with pytest.raises(ModelRefusedError, match="suspect"):
        registry.promote("2", now=next(clock), **WHO)
    with pytest.raises(ModelRefusedError, match="found none"):
        registry.rollback(now=next(clock), **WHO)
    registry.revoke("2", now=next(clock), actor="ann", reason="never again")
    events = registry.events()
    assert [(e["event_no"], e["model_version"], e["from_state"], e["to_state"]) for e in events] == [
        (1, "1", None, "candidate"),
        (2, "2", None, "candidate"),
        (3, "1", "candidate", "champion"),
        (4, "1", "champion", "stable"),
        (5, "2", "candidate", "champion"),
        (6, "2", "champion", "suspect"),
        (7, "1", "stable", "champion"),
        (8, "2", "suspect", "revoked"),
    ]
    assert (events[4]["actor"], events[4]["reason"], events[6]["reason"]) == ("bob", "second", "rollback: wrong")
    assert {json.loads(e["metrics"])["judging_ivr"] for e in events} == {0.1}
    assert len({e["event_id"] for e in events}) == 8


def test_mlflow_mirrors_the_states_and_a_lost_mirror_is_repaired(registry: Registry, conf: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    stable_versions(registry, conf, 2)
    client = registry.store.client

    def mirrored() -> tuple[str, list[str]]:
        tags = [client.get_model_version("slidr", number).tags["state"] for number in ("1", "2")]
        return str(client.get_model_version_by_alias("slidr", "champion").version), tags

    assert mirrored() == ("2", ["stable", "stable"])
    monkeypatch.setattr(Registry, "_try_mirror", lambda _: None)  # killed between the two
    registry.rollback(now=NOW, **WHO)
    assert mirrored() == ("2", ["stable", "stable"])
    monkeypatch.undo()
    registry.revoke("2", now=NOW, **WHO)
    assert mirrored() == ("1", ["stable", "revoked"])
    registry.revoke("1", now=NOW, **WHO)
    assert "champion" not in client.get_registered_model("slidr").aliases


def test_a_change_holds_while_mlflow_is_away(
    registry: Registry, conf: Config, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    stable_versions(registry, conf, 2)
    away = Registry(registry.conf.model_copy(update={"uri": "http://127.0.0.1:9"}), registry.lake)
    assert away.rollback(now=NOW, **WHO) == ("2", "1")
    assert "on record" in caplog.text
    assert registry.states().champion == "1"


def test_a_rollback_takes_less_than_two_seconds(registry: Registry, conf: Config) -> None:
    stable_versions(registry, conf, 12)
    direct.read(registry.lake, MODEL_PROMOTIONS).delta.create_checkpoint()
    walls = []
    for expected in ("11", "10", "9"):
        fresh, started = Registry(registry.conf, registry.lake), time.perf_counter()
        assert fresh.rollback(now=NOW, **WHO)[1] == expected
        walls.append(time.perf_counter() - started)
    assert min(walls) < 2.0, walls
    assert [e["event_no"] for e in registry.events()] == list(range(1, 43))


def test_the_commands_start_no_spark(registry: Registry, conf: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stable_versions(registry, conf, 2)
    monkeypatch.setattr(session, "build", lambda *_: pytest.fail("this command needs no Spark"))

    def run(*words: str, code: int = 0) -> dict[str, Any]:
        done = CliRunner().invoke(app, commands(registry, "models", *words))
        assert done.exit_code == code, f"{done.output} {done.stderr}"
        return json.loads(done.stdout.splitlines()[-1])

    between = NOW + timedelta(seconds=1)
    assert run("rollback", "--reason", "bad", "--leave", "2")["champion"] == "1"
    assert run("rollback", "--reason", "bad", "--leave", "2")["already"] is True
    listed = run("list")
    assert listed["champion"] == "1"
    state = {row["version"]: (row["state"], row["by"], row["why"]) for row in listed["versions"]}
    assert state["1"] == ("stable", "ann", "test")
    assert (state["2"][0], state["2"][2]) == ("suspect", "bad")
    assert [row["since"] for row in listed["versions"]][0] == "2026-03-20 00:00Z"
    assert run("list", "--at", between.isoformat())["champion"] == "2"
    assert run("list", "--at", "2026-03-19")["versions"] == []
    run("revoke", "2", "--reason", "for cause")
    assert run("show", "2")["history"][-1]["to"] == "revoked"
    assert "for cause" in run("export", "2", str(tmp_path / "out"), code=8)["message"]
    assert run("export", "champion", str(tmp_path / "out"))["version"] == "1"
    runs = direct.read(registry.lake, RUNS).rows
    assert len(runs) == 9
    assert {(row["outcome"], row["exit_code"]) for row in runs} == {("done", 0), ("refused", 8)}


# Each waits at the same point, between deciding on the events and writing, until both are there.
WAITS = """
import sys
from slidr import direct
write = direct.append
def wait(*given):
    print("READY", flush=True)
    sys.stdin.readline()
    return write(*given)
direct.append = wait
from slidr.cli import main
main(sys.argv[1:])
"""


def race(registry: Registry, *both: tuple[str, ...]) -> list[tuple[int, dict[str, Any]]]:
    """(exit code, result) of two commands that decide on the same events; the first is let go first, and is done before the second."""
    running = [process(WAITS, *commands(registry, "models", *words, "--reason", "race")) for words in both]
    for one in running:
        assert one.stdout.readline() == "READY\n", one.communicate()
    ended = [one.communicate("go\n" * 5) for one in running]
    results = [json.loads(out.splitlines()[-1]) for out, _ in ended]
    return [(one.returncode, result) for one, result in zip(running, results, strict=True)]


def test_of_two_promotions_at_once_one_wins_and_one_is_told(registry: Registry, conf: Config) -> None:
    for number in ("1", "2", "3"):
        register(registry, conf, number)
    registry.promote("1", now=NOW, **WHO)
    (won, _), (lost, result) = race(registry, ("promote", "2"), ("promote", "3"))
    assert (won, lost) == (0, 5)
    assert "version 2 became champion" in result["message"]
    assert "run it again if" in result["message"]
    assert registry.states().champion == "2"
    assert [e["event_no"] for e in registry.events()] == [1, 2, 3, 4, 5]


def test_two_people_who_roll_back_at_once_go_back_once(registry: Registry, conf: Config) -> None:
    stable_versions(registry, conf, 3)
    (won, _), (lost, result) = race(registry, ("rollback",), ("rollback",))
    assert (won, lost) == (0, 5)
    assert "version 2 became champion" in result["message"]
    assert registry.states().champion == "2"


def test_a_rollback_does_not_mind_a_training_that_registers_meanwhile(
    registry: Registry, conf: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    stable_versions(registry, conf, 2)
    real, busy = log.read, iter(["3"])

    def read(lake: Place) -> log.Log:
        seen = real(lake)
        for number in busy:  # right after the rollback has read, a training registers
            monkeypatch.setattr(log, "read", real)
            register(registry, conf, number)
            monkeypatch.setattr(log, "read", read)
        return seen

    monkeypatch.setattr(log, "read", read)
    assert registry.rollback(now=NOW, **WHO) == ("2", "1")
    states = registry.states()
    assert (states.champion, states.state) == ("1", {"1": "stable", "2": "suspect", "3": "candidate"})
    assert [e["event_no"] for e in registry.events()] == list(range(1, 10))


def test_marking_stable_does_not_mind_a_promotion_meanwhile(registry: Registry, conf: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in ("1", "2"):
        register(registry, conf, number)
    registry.promote("1", now=NOW, **WHO)
    seen = iter([log.read(registry.lake)])
    registry.promote("2", now=NOW, **WHO)
    real = log.read
    monkeypatch.setattr(log, "read", lambda lake: next(seen, None) or real(lake))
    registry.mark_stable("1", now=NOW, **WHO)
    assert (registry.states().champion, registry.states().state["1"]) == ("2", "stable")


def test_a_champion_that_is_revoked_meanwhile_is_not_promoted(registry: Registry, conf: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    register(registry, conf, "1")
    seen = log.read(registry.lake)
    registry.revoke("1", now=NOW, **WHO)
    answers = iter([seen])
    real = log.read
    monkeypatch.setattr(log, "read", lambda lake: next(answers, None) or real(lake))
    with pytest.raises(ModelRefusedError, match="revoked"):
        registry.promote("1", now=NOW, **WHO)
    assert registry.states().champion is None


def test_a_writer_that_never_gets_its_turn_says_so(registry: Registry, conf: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    register(registry, conf, "1")
    seen = log.read(registry.lake)
    register(registry, conf, "2")
    monkeypatch.setattr(log, "read", lambda _: seen)
    with pytest.raises(ConflictError, match="run it again"):
        registry.promote("1", now=NOW, **WHO)


WRITES = """
import sys
from datetime import datetime, timezone
from slidr import direct
from slidr.direct import Place
from slidr.registry import _rows, fold, log
from slidr.registry.states import Change
lake, name, count = Place(sys.argv[1]), sys.argv[2], int(sys.argv[3])
done = 0
while done < count:
    known = log.read(lake)
    seen = fold(known.events)
    change = Change(f"{name}{done}", None, "candidate", "test")
    done += known.append(_rows([change], seen, after=known.last, now=datetime.now(timezone.utc), actor="a", new=("s", "{}")))
    print(done, flush=True)
"""


def test_writers_at_once_number_the_events_without_gaps(registry: Registry) -> None:
    running = [process(WRITES, registry.lake.root, name, "15") for name in ("a", "b")]
    assert [one.communicate()[1] for one in running] == ["", ""]
    events = registry.events()
    assert [e["event_no"] for e in events] == list(range(1, 31))
    assert {e["model_version"] for e in events} == {f"{name}{n}" for name in "ab" for n in range(15)}


def test_a_killed_writer_leaves_the_old_or_the_new_state(registry: Registry) -> None:
    for rounds in range(4):
        one = process(WRITES, registry.lake.root, f"k{rounds}-", "1000")
        first = one.stdout.readline()
        time.sleep(0.05 * rounds)
        os.kill(one.pid, signal.SIGKILL)
        out, _ = one.communicate()
        events = registry.events()
        assert [e["event_no"] for e in events] == list(range(1, len(events) + 1))
        written = sum(e["model_version"].startswith(f"k{rounds}-") for e in events)
        told = int((first + out).split()[-1])
        assert written in (told, told + 1)


def test_a_version_whose_registration_was_killed_is_found_again(registry: Registry, conf: Config, tmp_path: Path) -> None:
    number, _ = registry.store.keep(constant(conf, 1.0), "11", tmp_path / "pictures")
    assert registry.events() == []
    assert register(registry, conf, "1") == number
    assert registry.states().state == {number: "candidate"}


def test_two_processes_that_train_the_same_agree_on_one_version(registry: Registry, conf: Config, tmp_path: Path) -> None:
    first, _ = registry.store.keep(constant(conf, 1.0), "11", tmp_path / "pictures")
    second, _ = registry.store.keep(constant(conf, 1.0), "11", tmp_path / "pictures")  # had looked before the first was there
    assert first == second == register(registry, conf, "1")


def test_no_way_to_score_with_a_revoked_version(registry: Registry, conf: Config, tmp_path: Path) -> None:
    register(registry, conf, "1")
    registry.promote("1", now=NOW, **WHO)
    registry.mark_stable("1", now=NOW, **WHO)
    registry.revoke("1", now=NOW, actor="ann", reason="leaked test data")
    for which in ("1", "champion", "stable"):
        with pytest.raises(ModelRefusedError, match=r"leaked test data|found none"):
            registry.load(which)
        with pytest.raises(ModelRefusedError, match=r"leaked test data|found none"):
            registry.export(which, tmp_path / "out")
    for change in (registry.promote, registry.mark_stable):
        with pytest.raises(ModelRefusedError, match="revoked"):
            change("1", now=NOW, **WHO)
    assert not (tmp_path / "out").exists()
    assert registry.inspect("1").state == "revoked"


def test_the_commands_refuse_a_revoked_version(registry: Registry, conf: Config, tmp_path: Path) -> None:
    """Before they read a click: score, daily, and the plan of a replay; applying one that was planned before: tests/test_replay_job.py."""
    stable_versions(registry, conf, 1)
    registry.revoke("1", now=NOW, actor="ann", reason="for cause")
    job = Job(conf.model_copy(update={"registry": registry.conf}), "run", NOW, Console(quiet=True), actor="ann")
    job.__dict__.update(lake=registry.lake, place=registry.lake)
    day = ("2026-03-18", "2026-03-19")
    for command in (
        lambda: score.score(job, *day, model="1"),
        lambda: replay.plan(job, *day, model="1"),
        lambda: daily.decide(job, "1"),
        lambda: models.export(job, "1", tmp_path / "out"),
    ):
        with pytest.raises(ModelRefusedError, match="for cause"):
            command()
    for which in ("champion", "stable"):
        with pytest.raises(ModelRefusedError, match="found none"):
            score.score(job, *day, model=which)


def test_tampering_in_the_store_is_refused(registry: Registry, conf: Config, tmp_path: Path) -> None:
    stable_versions(registry, conf, 1)
    stored = next((tmp_path / "artifacts").rglob("weights.safetensors"))
    good = stored.read_bytes()
    (stored.parent / "more.py").write_text("raise SystemExit")
    with pytest.raises(ModelRefusedError, match=r"more\.py"):
        registry.load("1")
    (stored.parent / "more.py").unlink()
    stored.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    for read in (registry.load, registry.inspect, lambda which: registry.export(which, tmp_path / "out")):
        with pytest.raises(ModelRefusedError, match="manifest names"):
            read("1")
    assert not (tmp_path / "out").exists()
    stored.write_bytes(good)
    stored.parent.rename(tmp_path / "elsewhere")
    stored.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelRefusedError, match="another place"):
        registry.load("1")


ALONE = """
import sys
for name in ("mlflow", "pyspark", "delta", "deltalake", "torch", "petastorm", "cvxpy"):
    sys.modules[name] = None
import numpy as np
from slidr import bundle
version = bundle.load(sys.argv[1], sys.argv[2])
print(bundle.forward(version, np.load(sys.argv[3])).tolist())
"""


def test_an_exported_folder_scores_alone(registry: Registry, conf: Config, tmp_path: Path) -> None:
    stable_versions(registry, conf, 1)
    exported = registry.export("champion", tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["MANIFEST.json", "bundle.json", "weights.safetensors"]
    x_BF = np.random.default_rng(1).uniform(0, 9, (50, len(exported.bundle.features)))
    np.save(tmp_path / "x.npy", x_BF)
    done = process(ALONE, str(tmp_path / "out"), exported.bundle.sha256, str(tmp_path / "x.npy"))
    out, problem = done.communicate()
    assert json.loads(out) == bundle.forward(registry.load("1").bundle, x_BF).tolist(), problem
    with pytest.raises(InputError, match="empty folder"):
        registry.export("1", tmp_path / "out")


def test_rolling_back_without_a_champion_says_so(registry: Registry) -> None:
    with pytest.raises(NothingToDoError, match="champion"):
        registry.rollback(now=NOW, **WHO)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A tracking server on sqlite that passes artifacts through."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--serve-artifacts"]
    command += ["--artifacts-destination", str(tmp_path / "served")]
    with (tmp_path / "server.log").open("w") as told:
        running = subprocess.Popen(command, stdout=told, stderr=told, cwd=tmp_path, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except OSError:
                assert running.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait()


@pytest.mark.slow
def test_a_tracking_server_does_as_well(registry: Registry, conf: Config, tmp_path: Path, server: str) -> None:
    """Once with all artifacts of the server below the root, once with a part of them."""
    (tmp_path / "remote").mkdir()
    for name, artifacts in (("all", "mlflow-artifacts:/"), ("part", "mlflow-artifacts:/slidr")):
        remote = Registry(RegistryConf(uri=server, artifacts=artifacts, name=name), Place(str(tmp_path / "remote" / name)))
        (tmp_path / "remote" / "pictures").mkdir(exist_ok=True)
        remote.init()
        stable_versions(remote, conf, 2)
        assert remote.store.client.get_model_version(name, "1").source.startswith(f"{artifacts.rstrip('/')}/")
        assert float(remote.load("champion").bundle.layers[0][1][0]) == 2.0
        assert remote.rollback(now=NOW, **WHO) == ("2", "1")
        assert str(remote.store.client.get_model_version_by_alias(name, "champion").version) == "1"
        exported = remote.export("champion", tmp_path / "out" / name).bundle.sha256
        assert bundle.load(tmp_path / "out" / name, exported).metrics == {"judging_ivr": 0.1}
    one_bundle_is_tampered_with(remote, tmp_path / "served" / "slidr")


def one_bundle_is_tampered_with(remote: Registry, served: Path) -> None:
    """A file more than three is refused before anything is fetched, a changed byte after; the other version is as good as before."""
    stored = next(served.rglob("weights.safetensors"))
    (stored.parent / "more.py").write_text("raise SystemExit")
    assert sorted(refusals(remote)) == ["", "more.py"]
    (stored.parent / "more.py").unlink()
    data = stored.read_bytes()
    stored.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert sorted(refusals(remote)) == ["", "manifest names"]


def refusals(remote: Registry) -> Iterator[str]:
    """Which of the known reasons each version is refused for; empty where it loads."""
    for number in ("1", "2"):
        try:
            remote.load(number)
        except ModelRefusedError as error:
            yield next(reason for reason in ("more.py", "manifest names") if reason in str(error))
        else:
            yield ""
