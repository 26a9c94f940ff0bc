"""Each notebook runs from top to bottom on a small lake."""

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from matplotlib.colors import to_rgb
from nbclient import NotebookClient
from pyspark.sql import SparkSession

from slidr import config, direct, tables
from slidr.direct import Place
from slidr.lake import Lake
from tests.commands import SMALL
from tests.frames import frame

FOLDER = Path(__file__).parent.parent / "notebooks"
LAST = {"decisions": "40", "calibration": "7"}  # of the last cell: clicks; methods compared
PICTURES = {"decisions": 2, "calibration": 3, "first_hour": 1, "incident": 2}
STORY = ("first_hour", "incident")  # on one lake, in this order


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


def run(name: str) -> nbformat.NotebookNode:
    """The notebook, run from top to bottom."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are cleared in git"
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    drawn = sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    assert drawn == PICTURES[name]
    return notebook


def last(notebook: nbformat.NotebookNode) -> str:
    return str(notebook.cells[-1].outputs[-1]["data"]["text/plain"])


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """What its cells show as pages."""
    return [str(output.get("data", {}).get("text/html", "")) for cell in notebook.cells for output in cell.get("outputs", [])]


def test_every_notebook_is_run_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(PICTURES) == {*LAST, *STORY}


# What protanopia and deuteranopia make of linear RGB (Viénot, Brettel and Mollon 1999).
BLINDNESS = {
    "protanopia": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    "deuteranopia": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}


@pytest.mark.parametrize("sight", BLINDNESS)
def test_colour_blind_eyes_tell_the_colours_of_the_calibration_study_apart(sight: str) -> None:
    notebook = nbformat.read(FOLDER / "calibration.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    lines = [line for line in text.splitlines() if re.search(r"\b\w+\.(errorbar|scatter|plot|step|axvline)\(", line)]
    assert [line for line in lines if "color=" not in line and "**STYLES[" not in line] == []
    colours = np.array([to_rgb(name) for name in sorted(set(re.findall(r"#[0-9A-Fa-f]{6}", text)))])
    seen = np.clip((colours**2.2) @ np.array(BLINDNESS[sight]).T, 0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2) + np.eye(len(seen))
    assert apart.min() > 0.1


@pytest.mark.parametrize("name", LAST)
def test_runs_on_a_small_lake(spark: SparkSession, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load(config.shipped("local.yaml").read_text())
    content["lake"]["root"] = str(tmp_path / "lake")
    content["spark"] |= {"shuffle_partitions": 2, "driver_memory": "1g"}
    (tmp_path / "conf.yaml").write_text(yaml.safe_dump(content))
    rows = frame(spark, tables.CURRENT_DECISIONS, [decision(number) for number in range(40)])
    Lake(spark, str(tmp_path / "lake")).append(rows, tables.CURRENT_DECISIONS)
    monkeypatch.setenv("SLIDR_REDRAWS", "3")
    monkeypatch.setenv("SLIDR_CONF", str(tmp_path / "conf.yaml"))
    assert last(run(name)) == LAST[name]


@pytest.mark.slow
def test_the_first_hour_and_an_incident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both end with the number of corrections that they published."""
    places = {
        "lake.root": tmp_path / "lake",
        "work.root": tmp_path / "work",
        "registry.uri": f"sqlite:///{tmp_path}/registry.db",
        "registry.artifacts": tmp_path / "artifacts",
        "spark.shuffle_partitions": "2",
    }
    settings = tuple(f"{key}={value}" for key, value in {**places, **SMALL}.items())
    conf = config.load(config.shipped("local.yaml"), settings)
    (tmp_path / "conf.yaml").write_text(config.to_yaml(conf.model_dump(mode="json")))
    monkeypatch.setenv("SLIDR_CLICKS", "60000")
    monkeypatch.setenv("SLIDR_CONF", str(tmp_path / "conf.yaml"))
    shown = [run(name) for name in STORY]
    assert all(int(last(notebook)) > 0 for notebook in shown)
    alarms = [text for text in texts(shown[1]) if "Verdict at" in text]
    assert ["Verdict at 2025-03-23 00:00Z: roll back" in text for text in alarms] == [True]
    corrected = {row["new_model_version"] for row in direct.read(Place(str(tmp_path / "lake")), tables.CORRECTIONS).rows}
    assert corrected == {"1"}
