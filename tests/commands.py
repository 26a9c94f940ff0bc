"""The commands as a user gives them, on a lake and a registry of their own."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from slidr import config, tables
from slidr.cli import app
from slidr.lake import Lake

# What 60,000 made clicks can bear.
SMALL = {
    "training.epochs": "2",
    "calibration.fpr_budget": "0.15",  # some thirty purchasing clicks choose the thresholds
    "calibration.fpr_max": "0.5",
    "calibration.min_coverage": "0.0",
    "guardrails.min_hour_clicks": "50",
    "guardrails.min_purchasing": "50",
    "guardrails.min_high_rfm": "0",
    "guardrails.min_judging_purchases": "0",
    "guardrails.max_judging_fpr": "0.5",
    # Two epochs on so few clicks make no good model, and one robot is a large part of a day.
    "guardrails.max_slice_fpr": "1.0",
    "guardrails.min_slice_coverage": "0.0",
    "guardrails.max_global_slices": "1.0",
    "guardrails.max_baseline_lead": "1.0",
    "guardrails.max_missing_users": "1.0",
    "guardrails.max_drift": "1.0",
    "guardrails.max_day_drift": "3.0",
    "weights.min_cell": "5",
}


WORD = re.compile(r"[\w.:]+(?:/64)?")


class World:
    """One lake below `root`, a shipped configuration with some settings changed, and the commands on it."""

    def __init__(self, root: Path, spark: SparkSession, settings: Mapping[str, str], conf: str = "local.yaml") -> None:
        self.root, self.spark = root, spark
        places = {
            "lake.root": root / "lake",
            "work.root": root / "work",
            "registry.uri": f"sqlite:///{root}/registry.db",
            "registry.artifacts": root / "artifacts",
            "spark.shuffle_partitions": "2",
        }
        changed = [word for key, value in {**places, **settings}.items() for word in ("--set", f"{key}={value}")]
        self.options = ["--conf", str(config.shipped(conf)), *changed]
        self.lake = Lake(spark, str(root / "lake"))
        self.said: list[str] = []  # by every command

    def run(self, *words: str) -> Result:
        """The words' own settings come last: the last one of a key holds."""
        first = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
        return CliRunner().invoke(app, [*words[:first], *self.options, *words[first:], "--json", "-q"])

    def ok(self, *words: str, code: int = 0) -> dict:
        result = self.run(*words)
        self.said += [result.output, result.stderr]
        assert result.exit_code == code, f"{words}: {result.exit_code}\n{result.output}\n{result.stderr}"
        return json.loads(result.stdout.strip().splitlines()[-1])

    def people(self, *texts: str) -> set[str]:
        """Users and addresses of the lake's clicks that stand in the texts."""
        clicks = self.lake.read(tables.CLICKS)
        known = {row[0] for name in ("user_id", "ip", "ip_key") for row in clicks.select(name).distinct().collect()}
        return known & {word.strip(".:") for text in texts for word in WORD.findall(text)}

    def rows(self, table: tables.Table) -> int:
        return self.lake.read(table).count()
