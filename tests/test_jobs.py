"""The real jobs, end to end on tiny traffic, in one lake: each command as a user gives it, twice, and with bad input."""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from slidr import config, tables, training_report
from slidr.registry import Registry
from tests.commands import SMALL, World

CLICKS = "60000"


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"), spark, SMALL)
    world.ok("init")
    traffic = str(world.root / "traffic")
    world.ok("simulate", traffic, "--clicks", CLICKS, "--days", "24", "--start", "2025-03-01", "--seed", "5")
    world.ok("ingest", "--source", "canonical_purchases", f"{traffic}/purchases")
    world.ok("ingest", "--source", "canonical", f"{traffic}/clicks")
    world.ok("features", "--from", "2025-03-01", "--to", "2025-03-21")
    world.ok("labels", "--from", "2025-03-08", "--to", "2025-03-18", "--as-of", "2025-03-20")
    return world


def test_ingesting_again_adds_nothing_and_makes_no_commit(world: World) -> None:
    before = world.lake.version(tables.CLICKS)
    again = world.ok("ingest", "--source", "canonical", str(world.root / "traffic" / "clicks"))
    assert again["tables"]["clicks"]["already_there"] == again["tables"]["clicks"]["rows_in"] == int(CLICKS)
    assert (world.lake.version(tables.CLICKS), world.rows(tables.CLICKS)) == (before, int(CLICKS))


def test_init_again_changes_nothing(world: World) -> None:
    before = [world.lake.version(table) for table in tables.ALL if table is not tables.RUNS]
    world.ok("init")
    assert [world.lake.version(table) for table in tables.ALL if table is not tables.RUNS] == before


def test_the_chain_from_training_to_a_published_replay(world: World) -> None:
    world.ok("score", "--from", "2025-03-20", "--to", "2025-03-21", code=8)  # no champion yet
    trained = trained_despite_a_kill(world)
    assert (trained["version"], trained["new"]) == ("1", True)
    its_report_is_in_the_registry(world)
    assert {row["method"] for row in trained["comparison"]} >= {"mlp", "logistic", "velocity"}
    assert "no champion" in trained["verdict"] or "a simple rule" in trained["verdict"]
    assert trained["verdict"] in html.unescape(Path(trained["report"]).read_text(encoding="utf-8"))
    leftover = world.root / "work" / "snapshots" / Path(trained["report"]).parent.name
    leftover.mkdir()  # of a run that was cut off between registration and the end
    assert world.ok("train", "--as-of", "2025-03-20")["new"] is False
    assert not leftover.exists()
    assert 0 < trained["bundle_metrics"]["judging_ivr"] < 0.6
    assert "bounded" in trained["bundle_metrics"]["calibrations"]
    world.ok("models", "mark-stable", "1", "--reason", "too early", code=8)
    assert "expected a champion" in world.ok("train", "--calibrate-only", code=9)["message"]
    world.ok("models", "promote", "1", "--reason", "first")
    first = world.ok("score", "--from", "2025-03-20", "--to", "2025-03-20T12:00Z")
    day = world.lake.read(tables.CLICKS).where("click_date = '2025-03-20'").count()
    second = world.ok("score", "--from", "2025-03-20", "--to", "2025-03-21")
    assert first["new_decisions"] > 0
    assert first["new_decisions"] + second["new_decisions"] == day
    assert world.ok("score", "--from", "2025-03-20", "--to", "2025-03-21")["new_decisions"] == 0
    looked_at(world, day)
    identity_replay(world, day)
    never_decided_replay(world)
    new_thresholds_for_the_champion(world)


def trained_despite_a_kill(world: World) -> dict[str, Any]:
    """The bundle is in MLflow, the version has no state yet: the same command brings it to its end."""
    with pytest.MonkeyPatch.context() as patch:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Registry, "_change", killed)
        assert world.ok("train", "--as-of", "2025-03-20", code=130)["exit_code"] == 130
    assert world.ok("models", "list")["versions"] == []
    return world.ok("train", "--as-of", "2025-03-20")


def its_report_is_in_the_registry(world: World) -> None:
    client = MlflowClient(f"sqlite:///{world.root}/registry.db")
    version = client.get_model_version("slidr", "1")
    kept = {Path(file.path).name for file in client.list_artifacts(version.run_id, "pictures")}
    assert kept >= {"report.html", "report.json", *training_report.PICTURES}
    assert not (world.root / "work" / "snapshots").exists() or not any((world.root / "work" / "snapshots").iterdir())


def new_thresholds_for_the_champion(world: World) -> None:
    """Nothing is trained: the same network, whose parent is on record, with thresholds of another confidence and for other slices."""
    few = ("--set", "guardrails.min_human_density=0.01")  # five days have too few clicks of high RFM for an hour of each
    words = ("train", "--calibrate-only", "--as-of", "2025-03-20", *few, "--set", "calibration.confidence=0.9")
    made = world.ok(*words, "--set", "calibration.slices=[{column: marketplace}]", "--set", "training.seed=99")
    assert (made["version"], made["parent"], made["new"]) == ("2", "1", True)
    again = world.ok(*words, "--set", "calibration.slices=[{column: marketplace}]", "--set", "training.seed=99")
    assert (again["version"], again["new"]) == ("2", False)
    old, new = (world.ok("models", "show", number) for number in ("1", "2"))
    assert new["parent"] == {"version": "1", "bundle_sha256": old["bundle_sha256"]}
    assert (old["parent"], new["state"]) == (None, "candidate")
    assert set(new["thresholds"]) <= {"US", "DE", "JP", "IN"}
    for name in ("feature_shares", "weights_largest"):
        assert new["metrics"][name] == old["metrics"][name]  # of the training, which stays the same
    page = html.unescape(Path(made["report"]).read_text(encoding="utf-8"))
    assert "Model with the weights of version 1 and new thresholds" in page
    registry = Registry(config.load(config.shipped("local.yaml"), tuple(world.options[3::2])).registry, world.lake)
    before, after = (registry.load(number).bundle for number in ("1", "2"))
    assert all(np.array_equal(a, b) for x, y in zip(before.layers, after.layers, strict=True) for a, b in zip(x, y, strict=True))
    assert before.preparation == after.preparation
    assert after.config["training"]["seed"] == before.config["training"]["seed"]  # so that no user who taught it judges it


def looked_at(world: World, day: int) -> None:
    """The same version as its own shadow differs nowhere; an invalid click has reasons, and is explained by them."""
    shadow = world.ok("score", "--from", "2025-03-20", "--to", "2025-03-21", "--shadow", "1")
    assert (shadow["new_decisions"], shadow["new_shadow_decisions"]) == (0, day)
    assert sum(row["both_valid"] + row["both_invalid"] for row in shadow["shadows"]) == day
    decisions = world.lake.read(tables.DECISIONS)
    assert decisions.where("is_invalid = (reason_1 is null)").isEmpty()
    strongest = decisions.where("basis = 'model' and is_invalid").orderBy("click_id").collect()[0]
    found = world.ok("explain", strongest["click_id"], "--day", "2025-03-20")
    assert found["score_of_features"] == strongest["score"]
    assert found["contributions"][0]["in words"] in {strongest[f"reason_{place}"] for place in (1, 2, 3)}
    assert Path(found["picture"]).stat().st_size > 10_000
    world.ok("explain", "nobody", code=9)


def identity_replay(world: World, day: int) -> None:
    """Promise 6: through the version that decided the window, on the features that it used, nothing changes."""
    world.ok("models", "mark-stable", "1", "--reason", "by hand")
    plan = world.ok("replay", "plan", "--from", "2025-03-20", "--to", "2025-03-21", "--allow-charges")
    assert plan["counts"]["clicks"] == day
    assert not plan["money"]["directions"]
    applied = world.ok("replay", "apply", plan["plan_id"])
    assert (applied["corrections"], applied["already"]) == (0, False)
    assert world.ok("replay", "apply", plan["plan_id"])["already"] is True
    assert world.rows(tables.CORRECTIONS) == 0


def never_decided_replay(world: World) -> None:
    """A day that was never scored is decided by a replay from clicks alone, approved by somebody else, and taken back."""
    words = ("--from", "2025-03-19", "--to", "2025-03-20", "--mode", "recompute", "--override", "test")
    stopped = world.ok("replay", "run", *words[:-2], "--set", "replay.max_changed_share=0.001", code=4)
    assert "changed share" in stopped["message"]
    plan = world.ok("replay", "plan", *words, "--set", "replay.approval_above_micros=0")
    assert plan["needs_approval"]
    world.ok("replay", "resume", plan["plan_id"], code=3)
    for refused in ("apply", "approve"):
        assert "somebody else" in world.ok("replay", refused, plan["plan_id"], code=7)["message"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIDR_ACTOR", "somebody else")
        world.ok("replay", "approve", plan["plan_id"], "--ticket", "T-1")
    assert world.ok("replay", "status", plan["plan_id"])["state"] == "approved"
    world.ok("replay", "apply", plan["plan_id"])
    # What the upstream filter made free is no replay's business.
    undecided = world.lake.read(tables.CLICKS).where("click_date = '2025-03-19' and upstream_filter is null")
    current = world.lake.read(tables.CURRENT_DECISIONS).where("click_date = '2025-03-19'")
    assert current.count() == undecided.count()
    assert world.rows(tables.CORRECTIONS) == current.where("is_invalid").count() > 0
    assert [row["state"] for row in world.ok("replay", "list")["replays"]] == ["applied", "applied"]
    events = [row["event"] for row in world.ok("replay", "show", plan["plan_id"])["events"]]
    assert events == ["plan", "approve", "apply", "publish", "renew", "applied"]
    taking = world.ok("replay", "revert", plan["plan_id"], "--override", "test")
    world.ok("replay", "apply", taking["plan_id"])
    assert current.count() == 0
    assert world.lake.read(tables.CORRECTIONS).agg({"delta_cost_micros": "sum"}).collect()[0][0] == 0
    page = Path(world.ok("replay", "report", taking["plan_id"])["report"])
    assert page.with_name("changes.csv").read_text().startswith("advertiser_id,currency,direction")
    scheduled = world.ok("replay", "run", *words)
    kept = json.loads((world.root / "work" / "runs" / scheduled["run_id"] / "run_result.json").read_text())
    assert (kept["exit_code"], kept["counts"]["corrections"], kept["counts"]["publication_no"]) == (0, scheduled["corrections"], 3)


def test_daily_is_idempotent_by_date_and_a_guardrail_leaves_the_champion(world: World) -> None:
    words = ("daily", "--date", "2025-03-21", "--set", "guardrails.min_purchasing=1000000")
    kept = (tables.CLICKS, tables.LABELS, tables.DECISIONS, tables.MODEL_PROMOTIONS)
    first = world.ok(*words, code=4)
    versions = [world.lake.version(table) for table in kept]
    second = world.ok(*words, code=4)
    assert first["features"] == first["decisions"] > 0
    assert "guardrail" in first["training"]
    assert first["message"].startswith("stopped by 1 of")
    assert "purchasing clicks is" in first["message"].splitlines()[0]
    assert "purchasing clicks" in [row["check"] for row in first["guardrails"] if row["verdict"] == "failed"]
    record = world.lake.read(tables.RUNS).where(f"run_id = '{first['run_id']}'").collect()[0]
    assert (record["outcome"], record["exit_code"], record["message"]) == ("refused", 4, first["message"])
    assert (second["features"], second["decisions"], second["labels"]) == (0, 0, 0)
    assert [world.lake.version(table) for table in kept] == versions
    assert world.ok("models", "list")["champion"] == "1"


def test_monitor_measures_and_draws(world: World) -> None:
    seen = world.ok("monitor", "--from", "2025-03-20", "--to", "2025-03-20T21:00Z")
    assert (seen["verdict"], sum(seen["hours"].values())) == ("not enough history", 21)
    assert Path(seen["picture"]).stat().st_size > 5_000
    metrics = world.lake.read(tables.SLICE_METRICS).where("click_date = '2025-03-20' and view = 'first'")
    assert metrics.agg({"clicks": "sum"}).collect()[0][0] == world.lake.read(tables.DECISIONS).where("click_date = '2025-03-20'").count()
    assert 0 < metrics.agg({"bought_24h": "sum"}).collect()[0][0] < metrics.agg({"clicks": "sum"}).collect()[0][0]
    prom = (world.root / "work" / "monitoring" / "slidr.prom").read_text(encoding="utf-8")
    assert 'slidr_monitor_verdict{verdict="not enough history",model_version="1"} 1.0' in prom
    assert "slidr_monitor_end_timestamp_seconds 1742504400.0" in prom


def test_the_week_and_an_advertiser_are_reported(world: World) -> None:
    """Both read what Spark wrote; the clicks of the 19th were decided by replays, taken back, and decided again."""
    week = world.ok("report", "--from", "2025-03-20", "--to", "2025-03-21")
    decided = world.lake.read(tables.CURRENT_DECISIONS).where("click_date = '2025-03-20'")
    assert week["totals"][1]["clicks"] == decided.count()
    assert week["stale"] == []
    corrected = world.lake.read(tables.CORRECTIONS).groupBy("advertiser_id").count().orderBy("count", "advertiser_id").collect()
    who = corrected[-1]["advertiser_id"]
    stated = world.ok("statement", "--advertiser", who, "--month", "2025-03")
    valid = world.lake.read(tables.CURRENT_DECISIONS).where("not is_invalid and local_date >= '2025-03-01' and local_date < '2025-04-01'")
    price = valid.where(valid.advertiser_id == who).agg({"cost_micros": "sum"}).collect()[0][0]
    assert sum(row["net_micros"] for row in stated["campaigns"]) == price
    assert sum(row["lines"]["credited"]["clicks"] for row in stated["campaigns"]) > 0


def test_looking_things_up(world: World) -> None:
    assert world.ok("sql", "SELECT count(*) AS n FROM clicks")["rows"] == [{"n": int(CLICKS)}]
    world.ok("sql", "DROP TABLE clicks", code=2)
    world.ok("sql", "WITH x AS (SELECT 1) INSERT INTO clicks SELECT * FROM x", code=2)
    assert {row["table"] for row in world.ok("tables")["tables"]} >= {"clicks", "corrections"}


def test_every_run_leaves_its_record(world: World) -> None:
    result = world.ok("features", "--from", "2030-01-01", "--to", "2030-01-02", code=9)
    assert "ingest them first" in result["message"]
    record = json.loads((world.root / "work" / "runs" / result["run_id"] / "run_result.json").read_text())
    assert record["exit_code"] == 9
    row = world.lake.read(tables.RUNS).where(f"run_id = '{result['run_id']}'").collect()[0]
    assert (row["outcome"], row["exit_code"]) == ("refused", 9)


def test_no_user_and_no_address_is_in_what_the_commands_said_and_wrote(world: World) -> None:
    """Of the whole chain: output, reports, records, the registry, and Delta's log of every table."""
    clicks = world.lake.read(tables.CLICKS)
    some = clicks.where("user_id is not null").select("user_id", "ip", "ip_key").first()
    assert world.people(f"<td>{some['user_id']}</td> from {some['ip']}, {some['ip_key']}: x") == set(some)  # what is there is found
    kinds = {".html", ".json", ".csv", ".prom", ".md", ".db", ".crc", ".yaml"}
    folders = [world.root / name for name in ("work", "artifacts", "lake")]
    files = [path for folder in [world.root / "registry.db", *folders] for path in [folder, *folder.rglob("*")] if path.suffix in kinds]
    assert {path.suffix for path in files} >= {".html", ".json", ".csv", ".prom", ".db"}
    texts = [path.read_bytes().decode("latin-1") for path in files]
    runs = [str(row) for row in world.lake.read(tables.RUNS).collect()]
    assert world.people(*texts, *runs, *world.said) == set()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("score", "--from", "2025-03-20T00:00", "--to", "2025-03-21"), 2, "offset"),
        (("score", "--from", "2025-03-21", "--to", "2025-03-20"), 2, "before"),
        (("features", "--from", "2025-03-20T01:00Z", "--to", "2025-03-21"), 2, "whole UTC days"),
        (("labels", "--from", "soon", "--to", "2025-03-21"), 2, "expected a date"),
        (("ingest", "--source", "nobody", "x"), 3, "canonical"),
        (("ingest", "--source", "canonical", "/does/not/exist"), 3, "exist"),
        (("replay", "apply", "../../etc"), 2, "hex"),
        (("replay", "plan", "--from", "2025-03-20", "--to", "2125-03-21"), 2, "passed"),
        (("models", "show", "99"), 8, "99"),
        (("train", "--as-of", "2025-03-10"), 9, "matured"),
        (("simulate", "out", "--incident", "flood:2025-03-01/2025-03-02"), 2, "label_outage"),
    ],
)
def test_bad_input_is_one_clear_error(world: World, words: tuple[str, ...], code: int, message: str) -> None:
    result = world.ok(*words, code=code)
    assert message in result["message"]
    assert "Traceback" not in result["message"]
