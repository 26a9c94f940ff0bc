"""Each notebook runs from top to bottom on a small lake."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from pyspark.sql import SparkSession

from slidr import config, tables
from slidr.lake import Lake
from tests.frames import frame

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
LAST = {"decisions": "40", "calibration": "7"}  # of the last cell: clicks; methods compared
PICTURES = {"decisions": 1, "calibration": 3}


def decision(number: int) -> dict:
    time = datetime(2025, 3, 20, tzinfo=timezone.utc) + timedelta(minutes=number)
    return {
        "click_id": f"c{number}",
        "click_time": time,
        "click_date": time.date(),
        "local_date": time.date(),
        "session_id": "s",
        "advertiser_id": f"a{number % 3}",
        "campaign_id": "k",
        "marketplace": "US",
        "device": "desktop",
        "logged_in": False,
        "cost_micros": 100_000,
        "currency": "USD",
        "slice": "desktop/guest",
        "report_slice": "desktop/guest/US",
        "score": 0.5,
        "threshold": 0.4,
        "is_invalid": number % 2 == 0,
        "ivt_class": "sivt" if number % 2 == 0 else None,
        "basis": "model",
        "run_id": "r",
        "decided_time": time,
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_a_small_lake(spark: SparkSession, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load(config.shipped("local.yaml").read_text())
    content["lake"]["root"] = str(tmp_path / "lake")
    content["spark"] |= {"shuffle_partitions": 2, "driver_memory": "1g"}
    (tmp_path / "conf.yaml").write_text(yaml.safe_dump(content))
    rows = frame(spark, tables.CURRENT_DECISIONS, [decision(number) for number in range(40)])
    Lake(spark, str(tmp_path / "lake")).append(rows, tables.CURRENT_DECISIONS)
    monkeypatch.setenv("SLIDR_REDRAWS", "3")
    monkeypatch.setenv("SLIDR_CONF", str(tmp_path / "conf.yaml"))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    assert notebook.cells[-1].outputs[-1]["data"]["text/plain"] == LAST[path.stem]
    assert (
        sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])) == PICTURES[path.stem]
    )
