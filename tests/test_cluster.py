"""A day's chain by spark-submit on a real cluster of processes: two executors, the same rows as in one process."""

import json
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml
from chispa import assert_df_equality
from pyspark.sql import SparkSession

from slidr import config, data_files, tables
from slidr.config import Config
from slidr.features import counters
from slidr.lake import Lake
from slidr.registry import Registry
from tests import expressions
from tests.bundles import crowd
from tests.commands import SMALL
from tests.frames import click, clicks, day, purchase, purchases
from tests.hosts import HOME, ROOT, environment, spark_submit, two_hosts

DAY = "2025-03-20"


def write_conf(tmp_path: Path) -> Path:
    content = yaml.safe_load(config.shipped("local.yaml").read_text())
    content["lake"]["root"] = str(tmp_path / "lake")
    content["work"]["root"] = str(tmp_path / "work")
    content["registry"] = {"uri": f"sqlite:///{tmp_path}/registry.db", "artifacts": str(tmp_path / "artifacts"), "name": "slidr"}
    content["spark"]["shuffle_partitions"] = 4
    path = tmp_path / "cluster.yaml"
    path.write_text(config.to_yaml(content))
    return path


def fill(lake: Lake, spark: SparkSession) -> None:
    for table in tables.ALL:
        lake.create(table)
    start = datetime(2025, 3, 20, tzinfo=timezone.utc)
    made = [
        click(
            f"c{n}",
            start + timedelta(seconds=n * 401),
            user_id=f"u{n % 7}" if n % 3 else None,
            ip_key=f"a{n % 11}",
            session_id=f"s{n % 13}",
        )
        for n in range(200)
    ]
    lake.append(clicks(spark, *made), tables.CLICKS)
    lake.append(purchases(spark, purchase("o1", start + timedelta(hours=5), user_id="u1")), tables.PURCHASES)


def on_cluster(master: str, conf: Config, tmp_path: Path, script: Path, *words: str, **settings: str) -> str:
    """As `spark_submit`, with slidr's sources on the path of the executors."""
    return spark_submit(master, conf, tmp_path, script, *words, env={**environment(tmp_path), "PYTHONPATH": str(ROOT)}, **settings)


def submit(conf: Config, tmp_path: Path, job: str, *words: str) -> dict:
    """Runs jobs/NAME.py on a local cluster of two executor processes and returns its JSON result."""
    done = on_cluster("local-cluster[2,1,1024]", conf, tmp_path, ROOT / "jobs" / f"{job}.py", *words, "--json")
    return json.loads(done.strip().splitlines()[-1])


@pytest.fixture
def _no_work_folder() -> object:
    yield
    # A local cluster leaves its executors' folders inside pyspark's own; SPARK_WORKER_DIR does not reach it.
    shutil.rmtree(HOME / "work", ignore_errors=True)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_work_folder")
def test_a_day_by_spark_submit_equals_one_process(spark: SparkSession, tmp_path: Path) -> None:
    conf_file = write_conf(tmp_path)
    conf = config.load(conf_file)
    lake = Lake(spark, conf.lake.root)
    fill(lake, spark)
    registry = Registry(conf.registry, lake)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    now = datetime(2025, 3, 20, tzinfo=timezone.utc)
    bundle = crowd(conf)
    registry.register(bundle, identity="aa", pictures=pictures, now=now, actor="test", reason="test")
    registry.promote("1", now=now, actor="test", reason="test")
    result = submit(conf, tmp_path, "daily", "--conf", str(conf_file), "--date", DAY)
    assert (result["features"], result["decisions"], result["exit_code"]) == (200, 200, 0)
    assert "waits" in result["training"]
    features = counters.build(
        spark,
        data_files.of(lake, tables.CLICKS),
        spec=conf.spec,
        start=day(DAY),
        end=day("2025-03-21"),
        known="then",
        zones=conf.marketplaces,
    )
    expected = expressions.decisions(lake.read(tables.CLICKS), features, bundle, version="1", run_id="x", decided_time=now)
    columns = ["click_id", "slice", "score", "threshold", "is_invalid", "basis"]
    found = lake.read(tables.DECISIONS).select(columns).orderBy("click_id").collect()
    assert found == expected.select(columns).orderBy("click_id").collect()
    assert 0 < sum(row["is_invalid"] for row in found) < 200
    assert json.loads((tmp_path / "work" / "runs" / result["run_id"] / "run_result.json").read_text())["exit_code"] == 0


@pytest.mark.slow
def test_features_survive_failing_and_hanging_tasks(spark: SparkSession, tmp_path: Path) -> None:
    """Failed attempts are repeated, hanging ones overtaken by speculative copies; the written table is that of one process."""
    conf_file = write_conf(tmp_path)
    conf = config.load(conf_file)
    lake = Lake(spark, conf.lake.root)
    fill(lake, spark)
    marks = tmp_path / "marks"
    marks.mkdir()
    settings = {"speculation": "true", "speculation_quantile": "0.25", "speculation_minTaskRuntime": "1s"}
    settings |= {"driver_host": "127.0.0.1", "sql_adaptive_coalescePartitions_enabled": "false"}  # few rows would be one task
    with two_hosts(tmp_path) as master:
        on_cluster(master, conf, tmp_path, ROOT / "tests" / "faulty_features.py", str(conf_file), DAY, str(marks), **settings)
    stages = counters.plan(conf.spec, known="then", tasks=4)
    assert {path.name for path in marks.iterdir()} == {f"{fault}-{n}" for fault in ("failed", "hung") for n in range(len(stages))}
    clicks = data_files.of(lake, tables.CLICKS)
    expected = counters.build(spark, clicks, spec=conf.spec, start=day(DAY), end=day("2025-03-21"), known="then", zones=conf.marketplaces)
    assert_df_equality(
        lake.read(tables.features_table(conf.spec)), expected, ignore_row_order=True, ignore_nullable=True, ignore_metadata=True
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_no_work_folder")
def test_every_job_by_spark_submit(tmp_path: Path) -> None:
    """The whole chain, each step by a driver of its own, on two executors."""
    conf_file = write_conf(tmp_path)
    conf = config.load(conf_file)
    # Of two networks of two epochs on so few clicks, which `daily` compares, one may decide a third of a currency's money otherwise.
    settings = SMALL | {"guardrails.max_disagreement": "1.0", "guardrails.max_money_disagreement": "1.0"}
    options = ["--conf", str(conf_file), *[word for key, value in settings.items() for word in ("--set", f"{key}={value}")]]

    def run(job: str, *words: str) -> dict:
        return submit(conf, tmp_path, job, *words, *options)

    traffic = str(tmp_path / "traffic")
    run("init")
    run("simulate", traffic, "--clicks", "60000", "--days", "24", "--start", "2025-03-01", "--seed", "5")
    run("ingest", "--source", "canonical_purchases", f"{traffic}/purchases")
    ingested = run("ingest", "--source", "canonical", f"{traffic}/clicks")
    assert ingested["tables"]["clicks"]["written"] == 60_000
    run("features", "--from", "2025-03-08", "--to", "2025-03-21")
    run("labels", "--from", "2025-03-08", "--to", "2025-03-18", "--as-of", "2025-03-20")
    assert run("train", "--as-of", "2025-03-20")["version"] == "1"
    run("models", "promote", "1", "--reason", "first")
    run("models", "mark-stable", "1", "--reason", "by hand")
    decided = run("score", "--from", "2025-03-20", "--to", "2025-03-21")["new_decisions"]
    assert decided > 0
    assert run("monitor", "--from", "2025-03-20", "--to", "2025-03-21")["verdict"] in ("not enough history", "too few clicks")
    plan = run("replay", "plan", "--from", "2025-03-20", "--to", "2025-03-21", "--allow-charges")
    assert (plan["counts"]["clicks"], plan["money"]["directions"]) == (decided, [])
    assert run("replay", "apply", plan["plan_id"])["corrections"] == 0
    assert run("daily", "--date", "2025-03-20")["decisions"] == 0
