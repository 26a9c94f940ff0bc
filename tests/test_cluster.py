"""A day's chain by spark-submit on a real cluster of processes: two executors, the same rows as in one process."""

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyspark
import pytest
import yaml
from pyspark.sql import SparkSession

from slidr import config, jars, tables
from slidr.config import Config
from slidr.features import counters
from slidr.lake import Lake
from slidr.registry import Registry
from slidr.scoring import decisions
from tests.bundles import crowd
from tests.frames import click, clicks, day, purchase, purchases

ROOT = Path(__file__).parent.parent
DAY = "2025-03-20"


def write_conf(tmp_path: Path) -> Path:
    content = yaml.safe_load(config.shipped("local.yaml").read_text())
    content["lake"]["root"] = str(tmp_path / "lake")
    content["work"]["root"] = str(tmp_path / "work")
    content["registry"] = {"uri": f"sqlite:///{tmp_path}/registry.db", "artifacts": str(tmp_path / "artifacts"), "name": "slidr"}
    content["spark"]["shuffle_partitions"] = 4
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(content))
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


def submit(conf_file: Path, conf: Config, tmp_path: Path) -> dict:
    home = Path(pyspark.__file__).parent
    environment = {**os.environ, "SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "SPARK_WORKER_DIR": str(tmp_path / "workers")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [str(home / "bin" / "spark-submit"), "--master", "local-cluster[2,1,1024]", "--driver-memory", "1g"]
    command += ["--jars", ",".join(str(jar) for jar in jars.ensure(conf.spark.jars)), "--conf", "spark.executor.memory=1g"]
    command += ["--conf", "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension", "--conf", "spark.ui.enabled=false"]
    command += ["--conf", "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog"]
    command += [str(ROOT / "jobs" / "daily.py"), "--conf", str(conf_file), "--date", DAY, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=540, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture
def _no_work_folder() -> object:
    yield
    # A local cluster leaves its executors' folders inside pyspark's own; SPARK_WORKER_DIR does not reach it.
    shutil.rmtree(Path(pyspark.__file__).parent / "work", ignore_errors=True)


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
    result = submit(conf_file, conf, tmp_path)
    assert (result["features"], result["decisions"], result["exit_code"]) == (200, 200, 0)
    assert "waits" in result["training"]
    features = counters.build(
        lake.read(tables.CLICKS), spec=conf.spec, start=day(DAY), end=day("2025-03-21"), known="then", zones=conf.marketplaces
    )
    expected = decisions(lake.read(tables.CLICKS), features, bundle, version="1", run_id="x", decided_time=now)
    columns = ["click_id", "slice", "score", "threshold", "is_invalid", "basis"]
    found = lake.read(tables.DECISIONS).select(columns).orderBy("click_id").collect()
    assert found == expected.select(columns).orderBy("click_id").collect()
    assert 0 < sum(row["is_invalid"] for row in found) < 200
    assert json.loads((tmp_path / "work" / "runs" / result["run_id"] / "run_result.json").read_text())["exit_code"] == 0
