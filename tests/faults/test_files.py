"""Files of the lake torn, emptied or deleted: data, logs and checkpoints, under every command that reads them."""

import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest
from deltalake import DeltaTable

from slidr import data_files, direct
from slidr.errors import InputError
from slidr.tables import CLICKS, CURRENT_DECISIONS, MODEL_PROMOTIONS, Table, features_table
from tests.commands import World
from tests.faults.shop import WINDOW, refused
from tests.faults.summary import REFUSED, SURVIVED
from tests.worlds import SPEC

COPY = "from a copy"
COUNT = ("sql", "SELECT count(DISTINCT user_agent) AS n FROM clicks")


def data(shop: World, table: Table) -> list[Path]:
    return [path for path in Path(shop.lake.path(table)).rglob("*.parquet") if "_delta_log" not in path.parts]


def commits(shop: World, table: Table) -> list[Path]:
    return sorted((Path(shop.lake.path(table)) / "_delta_log").glob("*.json"))


def write(path: Path, content: bytes) -> None:
    """In place of what is there, without the checksum that would find it first."""
    path.write_bytes(content)
    path.with_name(f".{path.name}.crc").unlink(missing_ok=True)


def tear(path: Path) -> None:
    write(path, path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    write(path, b"")


READERS: dict[str, tuple[Table, tuple[tuple[str, ...], ...]]] = {
    "clicks": (CLICKS, (("score", *WINDOW), ("features", *WINDOW, "--known", "now"), ("labels", *WINDOW), COUNT)),
    "features": (features_table(SPEC), (("score", *WINDOW), ("replay", "plan", *WINDOW))),
    "decisions": (
        CURRENT_DECISIONS,
        (
            ("monitor", *WINDOW),
            ("replay", "plan", *WINDOW),
            ("statement", "--advertiser", "adv-1", "--month", "2026-03"),
        ),
    ),
}


@pytest.mark.fault(
    "data files of clicks, features or decisions torn or deleted", "exit 3 with the file and what to do, no commit", ends=REFUSED
)
@pytest.mark.slow
@pytest.mark.parametrize("how", ["torn", "gone"])
@pytest.mark.parametrize("name", READERS)
def test_data_files(name: str, how: str, shop: World) -> None:
    table, commands = READERS[name]
    for path in data(shop, table):
        tear(path) if how == "torn" else path.unlink()
    before = {t.name: shop.lake.version(t) for t in (CLICKS, CURRENT_DECISIONS, features_table(SPEC))}
    for command in commands:
        refused(shop, *command, code=3, said=(COPY, ".parquet"))
    assert {t.name: shop.lake.version(t) for t in (CLICKS, CURRENT_DECISIONS, features_table(SPEC))} == before


@pytest.mark.fault("the newest commit of a table torn, its first commit deleted", "exit 3, the log named", ends=REFUSED)
@pytest.mark.slow
def test_a_broken_log(shop: World) -> None:
    saved = commits(shop, CLICKS)[-1].read_bytes()
    tear(commits(shop, CLICKS)[-1])
    for command in (("score", *WINDOW), COUNT, ("tables",), ("tables", "check")):
        refused(shop, *command, code=3, said=COPY)
    write(commits(shop, CLICKS)[-1], saved)
    shop.ok(*COUNT)
    tear(commits(shop, MODEL_PROMOTIONS)[-1])
    for command in (("score", *WINDOW), ("models", "list"), ("models", "rollback", "--reason", "test")):
        refused(shop, *command, code=3, said=COPY)
    commits(shop, CLICKS)[0].unlink()
    forget(shop)
    refused(shop, "features", *WINDOW, code=3, said="_delta_log")


@pytest.mark.fault(
    "the newest commit of a table empty, as a power cut leaves it", "exit 3 that names it; no rows missing without a word", ends=REFUSED
)
@pytest.mark.slow
def test_an_empty_commit(shop: World) -> None:
    empty(commits(shop, CLICKS)[-1])
    for command in (("score", *WINDOW), ("features", *WINDOW), COUNT):
        refused(shop, *command, code=3, said=COPY)
    empty(commits(shop, MODEL_PROMOTIONS)[-1])
    refused(shop, "models", "list", code=3, said=COPY)


@pytest.mark.fault("the same, without Spark", "the same", ends=REFUSED)
def test_an_empty_commit_without_spark(tmp_path: Path) -> None:
    place, log = direct.Place(str(tmp_path)), tmp_path / "model_promotions" / "_delta_log"
    direct.create(place, MODEL_PROMOTIONS)
    event = {column.name: {"string": "x", "bigint": 1, "int": 1}.get(column.type) for column in MODEL_PROMOTIONS.columns}
    now = datetime(2026, 3, 1, tzinfo=timezone.utc)
    direct.add(place, MODEL_PROMOTIONS, [{**event, "event_time": now, "event_date": now.date()}])
    assert len(direct.read(place, MODEL_PROMOTIONS).rows) == 1
    empty(sorted(log.glob("*.json"))[-1])
    for read in (direct.read, direct.facts, data_files.of):
        with pytest.raises(InputError, match=r"found the commit .*0{19}1.json empty; restore it from a copy"):
            read(place, MODEL_PROMOTIONS)


def checkpointed(shop: World) -> Path:
    """The log of clicks with a checkpoint and commits behind it."""
    for _ in range(2):
        shop.lake.append(shop.lake.read(CLICKS).limit(0), CLICKS)
    DeltaTable(shop.lake.path(CLICKS)).create_checkpoint()
    shop.lake.append(shop.lake.read(CLICKS).limit(0), CLICKS)
    forget(shop)
    return Path(shop.lake.path(CLICKS)) / "_delta_log"


def forget(shop: World) -> None:
    """The session looks at logs as a new one does."""
    shop.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()


@pytest.mark.fault("a torn checkpoint", "exit 3 that names it; without it, where the commits are there, as before", ends=REFUSED)
@pytest.mark.slow
def test_a_broken_checkpoint(shop: World) -> None:
    log = checkpointed(shop)
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    tear(checkpoint)
    for command in (("features", *WINDOW), COUNT):
        refused(shop, *command, code=3, said=(COPY,))
    forget(shop)
    checkpoint.unlink()
    (log / "_last_checkpoint").unlink()
    shop.ok("features", *WINDOW)
    shop.ok(*COUNT)


POINTERS: dict[str, Callable[[Path], None]] = {
    "empty": empty,
    "torn": tear,
    "gone": Path.unlink,
}


@pytest.mark.fault("the pointer to the newest checkpoint empty, torn, wrong or gone", "the same rows", ends=SURVIVED)
@pytest.mark.slow
@pytest.mark.parametrize("how", POINTERS)
def test_a_broken_pointer_to_a_checkpoint(how: str, shop: World) -> None:
    log, rows = checkpointed(shop), shop.rows(CLICKS)
    POINTERS[how](log / "_last_checkpoint")
    assert shop.rows(CLICKS) == rows
    assert shop.ok("sql", "SELECT count(*) AS n FROM clicks")["rows"] == [{"n": rows}]
    shop.ok("features", *WINDOW)


@pytest.mark.fault(
    "a pointer to a checkpoint that there is not", "Spark reads on; without Spark exit 3 that names the pointer", ends=REFUSED
)
@pytest.mark.slow
def test_a_pointer_to_no_checkpoint(shop: World) -> None:
    pointer = checkpointed(shop) / "_last_checkpoint"
    write(pointer, b'{"version":99,"size":1}')
    shop.ok("features", *WINDOW)
    refused(shop, *COUNT, code=3, said="_last_checkpoint can be deleted")
    pointer.unlink()
    shop.ok(*COUNT)


@pytest.mark.fault(
    "history vacuumed after a plan was made",
    "the plan is applied as it was planned; planned anew where its rows are gone too",
    ends=SURVIVED,
)
@pytest.mark.slow
def test_history_that_a_plan_pins(shop: World) -> None:
    shop.ok("score", *WINDOW)
    words = ("replay", "plan", *WINDOW, "--allow-charges", "--model", "1", "--set", "replay.approval_above_micros=1000000000000")
    plan = shop.ok(*words)
    for table in (CLICKS, features_table(SPEC)):
        vacuum(shop, table)
    shutil.rmtree(shop.lake.plan_path(plan["plan_id"]))
    refused(shop, "replay", "apply", plan["plan_id"], code=5, said="plan again")
    again = shop.ok(*words)
    assert again["money"] == plan["money"]
    for table in (CLICKS, features_table(SPEC)):
        vacuum(shop, table)
    shop.ok("replay", "apply", again["plan_id"])


def vacuum(shop: World, table: Table) -> None:
    """The table written anew, and all that is not of its newest commit deleted."""
    rows = shop.lake.read(table).localCheckpoint()
    rows.write.format("delta").mode("overwrite").save(shop.lake.path(table))
    shop.spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    shop.lake.delta(table).vacuum(0)
    shop.spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
