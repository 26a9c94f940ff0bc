"""One writer of a table at a time where the store can't tell two apart; here on a disk that is taken for such a store."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from slidr import config, data_files, direct, rewriting, run, writers
from slidr.direct import Place
from slidr.errors import ConflictError, LockedError, SetupError
from slidr.lake import Lake
from slidr.new_files import Target, Written
from slidr.tables import CLICKS, DECISIONS, MODEL_PROMOTIONS, RUNS
from slidr.writers import Lease, alone
from tests.frames import at, click, frame

ELSEWHERE = "elsewhere:1:2"
RUN = {
    "run_id": "r1",
    "run_date": at("2026-03-01").date(),
    "command": "score",
    "config_hash": "c",
    "code_version": "v",
    "started_time": at("2026-03-01"),
    "ended_time": at("2026-03-01"),
    "outcome": "done",
    "exit_code": 0,
    "counts": "{}",
    "message": None,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    found = Place(str(tmp_path / "lake"))
    monkeypatch.setattr(writers, "UNSAFE", (found.root,))
    monkeypatch.setattr(writers, "PATIENCE", timedelta(seconds=0.3))
    return found


def uri(place: Place) -> str:
    return f"{place.root}/_leases/runs"


def newest(place: Place) -> Lease:
    found = writers._newest(DeltaTable(uri(place)))
    assert found
    return found


def taken(place: Place, holder: str = ELSEWHERE, left: timedelta = timedelta(minutes=4), name: str = "runs") -> Lease:
    """Somebody else's lease."""
    now = writers._now()
    lease = Lease(holder, now - timedelta(minutes=1), now + left)
    assert writers._put(writers._log(f"{place.root}/_leases/{name}"), lease)
    return lease


def test_a_second_writer_is_refused_and_told_who_writes_since_when_until_when(place: Place) -> None:
    other = taken(place)
    with pytest.raises(LockedError) as refused, alone(place, RUNS):
        raise AssertionError("both write")
    assert refused.value.exit_code == 6
    text = str(refused.value)
    assert "\n" not in text
    assert "table runs" in text
    for said in (ELSEWHERE, f"{other.since:%Y-%m-%d %H:%M:%S} UTC", f"{other.until:%Y-%m-%d %H:%M:%S} UTC"):
        assert said in text


def test_a_lease_is_given_back_also_by_a_write_that_fails(place: Place) -> None:
    with alone(place, RUNS):
        assert newest(place).holder == writers.holder()
    assert newest(place).holder == writers.FREE
    with pytest.raises(ValueError, match="broken"), alone(place, RUNS):
        raise ValueError("broken")
    assert newest(place).holder == writers.FREE


def test_a_lease_ends_by_time_or_with_its_process(place: Place) -> None:
    taken(place, left=-timedelta(seconds=5))  # ended, by a clock that may be behind
    with pytest.raises(LockedError), alone(place, RUNS):
        pass
    taken(place, left=-writers.SKEW - timedelta(seconds=1))
    with alone(place, RUNS):
        pass
    host = writers.holder().rsplit(":", 2)[0]
    taken(place, holder=f"{host}:4194305:1")
    with alone(place, RUNS):
        pass
    assert newest(place).holder == writers.FREE


def test_a_writer_waits_for_one_that_ends_soon(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "PATIENCE", timedelta(seconds=20))
    other = taken(place)
    ending = threading.Timer(0.5, lambda: writers._put(writers._log(uri(place)), replace(other, holder=writers.FREE)))
    ending.start()
    with alone(place, RUNS):
        ending.join()
    assert newest(place).holder == writers.FREE


def test_a_long_write_renews_its_lease(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "RENEWED_EVERY", timedelta(seconds=0.1))
    with alone(place, RUNS):
        first = newest(place)
        until = time.monotonic() + 20
        while newest(place).until == first.until:
            assert time.monotonic() < until, "never renewed"
            time.sleep(0.05)
        assert newest(place).since == first.since


def test_a_writer_whose_lease_was_taken_is_told_in_the_end(place: Place) -> None:
    with pytest.raises(ConflictError, match="the table may lack this run's commit"), alone(place, RUNS):
        taken(place)
    assert newest(place).holder == ELSEWHERE


def test_threads_of_a_process_take_turns_and_a_write_may_hold_another(place: Place) -> None:
    inside, most = [0], [0]

    def write() -> None:
        with alone(place, RUNS), alone(place, RUNS):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.1)
            inside[0] -= 1

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside) == ([1], [0])
    assert DeltaTable(uri(place)).version() == 6  # each took it and gave it back


def test_of_two_at_once_one_wins(place: Place) -> None:
    writers._log(uri(place))
    for _ in range(10):
        logs, won = [writers._log(uri(place)) for _ in range(2)], []
        start = threading.Barrier(2)

        def put(log: DeltaTable, start: threading.Barrier = start, won: list[bool] = won) -> None:
            start.wait()
            won.append(writers._put(log, Lease(ELSEWHERE, writers._now(), writers._now())))

        threads = [threading.Thread(target=put, args=(log,)) for log in logs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False, True]


def test_a_put_that_was_tried_again_finds_itself(place: Place) -> None:
    log = writers._log(uri(place))
    lease = Lease(ELSEWHERE, writers._now(), writers._now())
    assert writers._put(log, lease)
    assert writers._put(log, lease)  # at the same version: refused, and there already
    assert not writers._put(log, replace(lease, holder="elsewhere:3:4"))


def test_the_log_of_leases_forgets(place: Place) -> None:
    for _ in range(12):
        with alone(place, RUNS):
            pass
    files = {path.name for path in (Path(uri(place)) / "_delta_log").iterdir()}
    assert any("checkpoint" in name for name in files)
    assert DeltaTable(uri(place)).metadata().configuration == writers.PROPERTIES


def test_safe_stores_and_catalogs_need_no_lease(tmp_path: Path) -> None:
    safe = Place(str(tmp_path / "lake"))
    direct.add(safe, RUNS, [RUN])
    assert not (tmp_path / "lake" / "_leases").exists()


def test_a_store_out_of_reach_is_told_in_one_line(place: Place) -> None:
    Path(place.root).mkdir()
    (Path(place.root) / "_leases").write_text("not a folder")
    with pytest.raises(SetupError, match="within reach"), alone(place, RUNS):
        pass


def test_a_run_whose_row_waits_in_vain_answers_all_the_same(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    direct.create(place, RUNS)
    taken(place)
    conf = config.load(config.shipped("local.yaml"), (f"lake.root={place.root}", f"work.root={tmp_path}/work"))

    def look(job: run.Job) -> run.Outcome:
        return run.Outcome({"rows": len(direct.read(job.place, RUNS).rows)})

    assert run.execute("look", look, conf=conf, as_json=True, quiet=False, verbose=False) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["rows"] == 0
    assert "no row in the table runs" in shown.err
    assert ELSEWHERE in shown.err
    assert len(list((tmp_path / "work").glob("runs/*/run_result.json"))) == 1


Write = Callable[[Place], object]


def _commit(place: Place) -> None:
    before = data_files.of(place, DECISIONS)
    written = Written("click_date=2026-03-01/x.parquet", 1, 1, at("2026-03-01").date(), "{}")
    data_files.commit(place, Target(before.uri, DECISIONS), before, [], [written])


def test_every_writer_without_spark_takes_the_lease(place: Place) -> None:
    direct.create(place, RUNS)
    direct.create(place, DECISIONS)
    snapshot = direct.read(place, RUNS)
    for name in ("runs", "decisions", "model_promotions"):
        taken(place, name=name)
    writes: list[Write] = [
        lambda place: direct.add(place, RUNS, [RUN]),
        lambda place: direct.append(snapshot, [RUN]),
        lambda place: direct.create(place, MODEL_PROMOTIONS),
        lambda place: direct.sweep(place, RUNS, 100),
        lambda place: direct.purge(place, RUNS),
        _commit,
    ]
    for write in writes:
        with pytest.raises(LockedError):
            write(place)


def test_every_writer_through_spark_takes_the_lease(spark: SparkSession, place: Place) -> None:
    lake = Lake(spark, place.root)
    rows = frame(spark, CLICKS, [click("c1", at("2026-03-01"))])
    taken(place, name="clicks")
    with pytest.raises(LockedError):
        lake.create(CLICKS)
    taken(place, name="clicks", holder=writers.holder())  # left over from this process
    lake.create(CLICKS)
    taken(place, name="clicks")
    days = [at("2026-03-01").date()]
    writes: list[Callable[[], object]] = [
        lambda: lake.append(rows, CLICKS),
        lambda: lake.replace_days(rows, CLICKS, days),
        lambda: lake.insert_new(rows, CLICKS, days),
        lambda: rewriting.replace_rows(lake, rows, CLICKS, days, ["ip"], rows=1),
    ]
    for write in writes:
        with pytest.raises(LockedError):
            write()
    assert lake.version(CLICKS) == 0
