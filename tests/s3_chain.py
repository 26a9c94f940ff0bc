"""A day's chain and a replay, on an object store and on a disk: python -m tests.s3_chain URL FOLDER

URL is of an S3 server. Prints, by place, the rows of the tables that people read, as one JSON object.
"""

import json
import os
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from typer.testing import CliRunner

from slidr import config, session
from slidr.cli import app
from slidr.config import Config
from slidr.lake import Lake
from slidr.registry import Registry
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, LABELS, REPLAY_DECISIONS, RUNS, SLICE_METRICS, features_table
from tests import s3
from tests.bundles import made_by_hand
from tests.conftest import CHEAP

FIRST, SECOND, END = "2026-03-01", "2026-03-02", "2026-03-03"
# Columns of the run or of the wall clock differ.
VARIES = {"run_id", "decided_time", "published_time", "corrected_time", "correction_date", "replay_id", "reverts_replay_id"}
COMPARED = (CLICKS, LABELS, DECISIONS, REPLAY_DECISIONS, CORRECTIONS, CURRENT_DECISIONS, SLICE_METRICS)
LOOSE = {"replay.max_changed_share": 1.0, "replay.max_fpr": 1.0, "replay.max_days_after_close": 100_000, "promotion": "manual"}


def made() -> Iterator[dict[str, Any]]:
    start = datetime(2026, 3, 1, tzinfo=timezone.utc)
    for n in range(240):
        yield {
            "click_id": f"c{n}",
            "click_time": (start + timedelta(seconds=n * 719)).isoformat(),
            "user_id": f"u{n % 7}" if n % 3 else None,
            "session_id": f"s{n % 13}",
            "ip": f"192.0.2.{n % 11}",
            "user_agent": "agent",
            "device": "phone" if n % 5 == 0 else "desktop",
            "marketplace": "US",
            "advertiser_id": f"adv-{n % 3}",
            "campaign_id": "cam-1",
            "cost_micros": 100_000 + n,
            "currency": "USD",
        }


def traffic(folder: Path) -> tuple[str, str]:
    """Files of clicks and of purchases."""
    clicks, purchases = folder / "clicks.jsonl", folder / "purchases.jsonl"
    clicks.write_text("".join(json.dumps(row) + "\n" for row in made()))
    order = {"order_id": "o1", "user_id": "u1", "purchase_time": "2026-03-01T12:00:00+00:00", "marketplace": "US"}
    purchases.write_text(json.dumps({**order, "amount_micros": 5_000_000, "currency": "USD"}) + "\n")
    return str(clicks), str(purchases)


def run(options: list[str], *words: str) -> dict[str, Any]:
    print(f"{datetime.now(timezone.utc):%H:%M:%S}", *words, file=sys.stderr, flush=True)
    first = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    done = CliRunner().invoke(app, [*words[:first], *options, *words[first:], "--json", "-q"])
    assert done.exit_code == 0, f"{words}: {done.exit_code}\n{done.output}\n{done.stderr}\n{done.exception!r}"
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def register(conf: Config, lake: Lake, folder: Path) -> None:
    """Two stable versions, of which the second takes half of the invalid clicks for valid ones."""
    registry, now = Registry(conf.registry, lake), datetime(2026, 3, 1, tzinfo=timezone.utc)
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, threshold in (("1", 0.5), ("2", 0.7)):
        bundle = made_by_hand(conf, {"ip_clicks_24h": 1.0}, -2.0, {"desktop/guest": threshold})
        registry.register(bundle, identity=number * 2, pictures=pictures, now=now, actor="test", reason="test")
        registry.promote(number, now=now, actor="test", reason="test")
        registry.mark_stable(number, now=now, actor="test", reason="test")
    registry.promote("1", now=now, actor="test", reason="test")


def chain(spark: SparkSession, root: str, folder: Path) -> dict[str, Any]:
    """The whole day in one lake; returns the rows that it left, by table."""
    folder.mkdir()
    places = {"lake.root": root, "work.root": folder / "work", "registry.uri": f"sqlite:///{folder}/registry.db"}
    places |= {"registry.artifacts": folder / "artifacts", "spark.shuffle_partitions": 2, **LOOSE}
    words = tuple(f"{key}={value}" for key, value in places.items())
    options = ["--conf", str(config.shipped("local.yaml")), *[word for setting in words for word in ("--set", setting)]]
    conf = config.load(config.shipped("local.yaml"), words)
    lake = Lake(spark, root)
    clicks, purchases = traffic(folder)
    run(options, "init")
    register(conf, lake, folder)
    run(options, "ingest", clicks, "--source", "canonical")
    run(options, "ingest", purchases, "--source", "canonical_purchases")
    run(options, "features", "--from", FIRST, "--to", SECOND)
    run(options, "labels", "--from", FIRST, "--to", SECOND, "--as-of", "2026-03-04")
    run(options, "score", "--from", FIRST, "--to", SECOND)
    run(options, "monitor", "--from", FIRST, "--to", SECOND)
    run(options, "daily", "--date", SECOND)
    plan = run(options, "replay", "plan", "--from", FIRST, "--to", END, "--model", "2", "--allow-charges")["plan_id"]
    applied = run(options, "replay", "apply", plan)
    back = run(options, "replay", "apply", run(options, "replay", "revert", plan)["plan_id"])
    counted = run(options, "sql", "SELECT count(*) AS n FROM current_decisions")["rows"]
    assert run(options, "tables", "check")["tables"]
    found = {table.name: rows(lake, table) for table in (*COMPARED, features_table(conf.spec))}
    return {**found, "corrections": [applied["corrections"], back["corrections"]], "counted": counted, "runs": lake.read(RUNS).count()}


def rows(lake: Lake, table: Any) -> list[str]:
    kept = [name for name in table.names if name not in VARIES]
    return sorted(repr(tuple(row)) for row in lake.read(table).select(kept).collect())


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    os.environ.update(s3.environment(url))
    session.use_utc()
    conf = config.load(config.shipped("local.yaml"), ("spark.shuffle_partitions=2", "spark.driver_memory=2g"))
    spark = session.build(conf.spark.model_copy(update={"settings": {**CHEAP, **s3.settings(url)}}))
    places = {"s3": f"s3a://{s3.BUCKET}/lake", "disk": str(folder / "lake")}
    found = {name: chain(spark, root, folder / name) for name, root in places.items()}
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
