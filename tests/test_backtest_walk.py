"""The backtest as a user runs it, on eleven tiny days: compared with the tables, killed and resumed, with late clicks, and refused."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from slidr.jobs import backtest, daily

from slidr import tables
from slidr.days import midnight
from slidr.intervals import interval
from slidr.lake import Lake
from slidr.registry import Registry, at
from tests.commands import SMALL, World

FEATURES = (
    "{entities: {ip: [ip_key], session: [session_id]}, counters: [{entity: ip, measure: clicks, windows: [10m, 1h]}, "
    "{entity: session, measure: clicks, windows: [1h]}], time_of_click: true, logged_in: true}"
)
TINY = {
    **SMALL,
    "features": FEATURES,  # looks back one hour: one day of warm-up
    "training.train_days": "2",
    "training.calibration_days": "1",
    "training.judging_days": "1",
    "guardrails.min_purchasing": "5",
    "guardrails.max_baseline_lead": "1.0",
    "guardrails.max_drift": "10",
    "guardrails.max_day_drift": "10",
    "guardrails.max_judging_fpr": "1.0",
    "guardrails.min_judging_ivr": "0.0",
    "guardrails.max_judging_ivr": "1.0",
    "guardrails.max_disagreement": "1.0",
    "guardrails.max_ivr_jump": "1.0",
    "guardrails.max_advertiser_disagreement": "1.0",
    "guardrails.max_money_disagreement": "1.0",
    "guardrails.max_advertiser_money_disagreement": "1.0",
    "calibration.min_purchases": "5",
    "calibration.method": "quadratic",  # a handful of purchasing clicks choose the thresholds: no bound can hold
    "calibration.fpr_budget": "0.05",
    "calibration.fpr_max": "0.1",
}
FROM, TO = date(2025, 3, 8), date(2025, 3, 10)
WINDOW = ("--from", str(FROM), "--to", str(TO))
DAYS = [FROM, FROM + timedelta(1)]


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("backtest"), spark, TINY)
    traffic = str(world.root / "traffic")
    world.ok("simulate", traffic, "--clicks", "22000", "--days", "11", "--start", "2025-03-01", "--seed", "5")
    world.ok("ingest", "--source", "canonical_purchases", f"{traffic}/purchases")
    world.ok("ingest", "--source", "canonical", f"{traffic}/clicks")
    return world


@pytest.fixture(scope="module")
def whole(world: World) -> dict[str, Any]:
    """A backtest from beginning to end, in one go."""
    return world.ok("backtest", *WINDOW, *work(world, "whole"))


def work(world: World, name: str) -> tuple[str, str]:
    return "--set", f"work.root={world.root / name}"


def homes(world: World, name: str) -> list[Path]:
    return [path.parent for path in (world.root / name / "backtests").glob("variant-*/progress.json")]


def figures(result: dict[str, Any], variant: str = "default") -> list[dict[str, Any]]:
    return [row for row in result["days"] if row["variant"] == variant]


def decisions(lake: Lake, days: list[date]) -> list[tuple[Any, ...]]:
    kept = ("click_id", "score", "threshold", "is_invalid", "basis", "model_version")
    return sorted((tuple(row) for row in lake.read(tables.DECISIONS, days).select(*kept).collect()), key=str)


def home_of(world: World, name: str, budget: str = "0.05") -> Path:
    """The folder of the variant with this budget: its versions say which."""
    (home,) = [home for home in homes(world, name) if budget in (bundle_budgets(world, home))]
    return home


def bundle_budgets(world: World, home: Path) -> set[str]:
    registry = registry_in(world, home)
    return {str(registry.load(number).bundle.config["calibration"]["fpr_budget"]) for number in registry.states().state}


def registry_in(world: World, home: Path) -> Registry:
    from slidr.config import RegistryConf

    conf = RegistryConf(uri=f"sqlite:///{home}/registry.db", artifacts=str(home / "artifacts"), name="slidr")
    return Registry(conf, Lake(world.spark, str(home / "lake")))


def test_the_lake_that_is_read_stays_as_it_was(world: World, whole: dict[str, Any]) -> None:
    names = {path.name for path in (world.root / "lake").iterdir()}
    assert names == {"clicks", "purchases", "runs", "_staging"}
    assert [world.lake.version(table) for table in (tables.CLICKS, tables.PURCHASES)] == [1, 1]
    assert not (world.root / "registry.db").exists()
    assert world.rows(tables.RUNS) == 4  # simulate, two of ingest, backtest


def test_each_day_is_decided_by_what_was_trained_before_it(world: World, whole: dict[str, Any]) -> None:
    registry = registry_in(world, home_of(world, "whole"))
    for row in figures(whole):
        day = date.fromisoformat(row["day"])
        assert row["version"] == at(registry.events(), midnight(day)).champion
        (registered,) = [e for e in registry.events() if (e["model_version"], e["to_state"]) == (row["version"], "candidate")]
        assert registered["event_time"] <= midnight(day)
        last = max(date.fromisoformat(word) for word in registered["reason"].split() if word[:2] == "20")
        assert midnight(last) + timedelta(days=3) <= midnight(day)  # its newest day had matured: end of the day + 2 days


def test_the_figures_are_those_of_decisions_and_labels(world: World, whole: dict[str, Any]) -> None:
    own = Lake(world.spark, str(home_of(world, "whole") / "lake"))
    yardstick = Lake(world.spark, str(Path(whole["report"]).parent / "lake"))
    labels = yardstick.read(tables.LABELS).select("click_id", "is_purchase", "in_heavy_session")
    for row in figures(whole):
        day = own.read(tables.DECISIONS, [date.fromisoformat(row["day"])]).join(labels, "click_id").toPandas()
        bought, heavy = day[day.is_purchase], day[day.in_heavy_session]
        low, high = interval(bought.is_invalid.sum(), len(bought))
        assert row["clicks"] == len(day) > 1000
        assert (row["purchasing"], row["fpr"]) == (len(bought), bought.is_invalid.mean())
        assert (row["fpr_low"], row["fpr_high"]) == (low, high)
        assert (row["ivr"], row["coverage"]) == (day.is_invalid.mean(), heavy.is_invalid.mean())
        assert row["over"] == (row["fpr"] > 0.05)
        credited = day[(day.ivt_class == "sivt") & day.cost_micros.notna()]
        assert row["money"] == {name: int(part.sum()) for name, part in credited.groupby("currency").cost_micros}
        assert row["undecided"] == world.lake.read(tables.CLICKS, [date.fromisoformat(row["day"])]).count() - len(day)


def test_labels_that_judge_know_every_order(world: World, whole: dict[str, Any]) -> None:
    yardstick = Lake(world.spark, str(Path(whole["report"]).parent / "lake")).read(tables.LABELS, DAYS)
    assert yardstick.count() == world.lake.read(tables.CLICKS, DAYS).count()
    assert yardstick.where("is_purchase").count() > 10


def test_the_same_again_runs_no_day_and_says_the_same(world: World, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one_day", "history"):
        monkeypatch.setattr(backtest, name, None)
    again = world.ok("backtest", *WINDOW, *work(world, "whole"))
    assert (again["days"], again["report"]) == (whole["days"], whole["report"])


@pytest.mark.slow
def test_a_backtest_that_is_killed_goes_on_where_it_was(world: World, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the second day's training, before that is on record; then the lake changes; then it is run again."""
    real, trained = daily.learn, []

    def killed(*given: Any, **named: Any) -> Any:
        result = real(*given, **named)
        trained.append(result)
        if len(trained) == 2:  # of the history, of the first day
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(daily, "learn", killed)
    world.ok("backtest", *WINDOW, *work(world, "killed"), code=130)
    (home,) = homes(world, "killed")
    assert list(json.loads((home / "progress.json").read_text())) == ["history"]
    monkeypatch.setattr(daily, "learn", real)
    done: list[date] = []
    one_day = backtest.one_day
    monkeypatch.setattr(backtest, "one_day", lambda own, source, day, *, due: done.append(day) or one_day(own, source, day, due=due))
    rows = world.lake.read(tables.CLICKS, [FROM]).withColumn("click_id", F.concat(F.lit("twin-"), "click_id"))
    newest = world.lake.version(tables.CLICKS)
    try:
        world.lake.append(rows, tables.CLICKS)
        resumed = world.ok("backtest", *WINDOW, *work(world, "killed"))
    finally:
        world.lake.delta(tables.CLICKS).restoreToVersion(newest)
    assert (done, homes(world, "killed")) == (DAYS, [home])
    assert figures(resumed) == figures(whole)
    own, other = (Lake(world.spark, str(place / "lake")) for place in (home, home_of(world, "whole")))
    assert decisions(own, DAYS) == decisions(other, DAYS)


@pytest.fixture(scope="module")
def late(world: World, whole: dict[str, Any]) -> dict[str, Any]:
    """Two variants side by side, of the first day, in a lake to which clicks and orders came later: of the days before, known after it."""
    known = midnight(DAYS[1]) + timedelta(hours=1)
    newest = {table: world.lake.version(table) for table in (tables.CLICKS, tables.PURCHASES)}
    try:
        for table, key, days in ((tables.CLICKS, "click_id", [date(2025, 3, 5), FROM]), (tables.PURCHASES, "order_id", [date(2025, 3, 6)])):
            rows = world.lake.read(table, days).withColumn("arrival_time", F.lit(known))
            world.lake.append(rows.withColumn(key, F.concat(F.lit("late-"), key)), table)
        variants = ("--variant", "default:", "--variant", "lax: calibration.fpr_budget=0.5")
        return world.ok("backtest", "--from", str(FROM), "--to", str(DAYS[1]), *variants, *work(world, "late"))
    finally:
        for table, version in newest.items():
            world.lake.delta(table).restoreToVersion(version)


@pytest.mark.slow
def test_what_comes_later_changes_nothing_of_the_days_before(world: World, whole: dict[str, Any], late: dict[str, Any]) -> None:
    own, other = (Lake(world.spark, str(home_of(world, name) / "lake")) for name in ("late", "whole"))
    assert decisions(own, [FROM]) == decisions(other, [FROM])
    (row,) = figures(late)
    assert row["undecided"] > 500  # they are not lost from the account
    assert (row["version"], row["outcome"], row["failed"]) == tuple(figures(whole)[0][name] for name in ("version", "outcome", "failed"))


@pytest.mark.slow
def test_variants_stand_side_by_side(late: dict[str, Any]) -> None:
    default, lax = late["summary"]
    assert (default["variant"], default["budget"], lax["variant"], lax["budget"]) == ("default", 0.05, "lax", 0.5)
    assert lax["ivr"] > default["ivr"]
    page = Path(late["report"])
    assert {path.name for path in page.parent.iterdir()} >= {
        "days.png",
        "slices.png",
        "report.json",
        "days.csv",
        "slices.csv",
        "summary.csv",
    }
    assert page.read_text(encoding="utf-8").count("data:image/png;base64,") == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--from", "2024-03-08", "--to", "2024-03-10"), 9, "found clicks from 2025-03-01 to 2025-03-11; choose other days"),
        (("--from", "2025-03-08", "--to", "2025-03-20"), 2, "expected --to of at most 2025-03-12"),
        (("--from", "2025-03-11", "--to", "2025-03-12"), 9, "whose labels have matured by the end of the data"),
        (("--from", "2025-03-07", "--to", "2025-03-09"), 9, "too few days before --from 2025-03-07 for a first training"),
        ((*WINDOW, "--variant", "slow: labels.delay_days=3"), 9, "variant slow: too few days before --from"),
        ((*WINDOW, "--variant", "a: training.epoch=3"), 3, "unknown key 'training.epoch'; nearest: training.epochs"),
        ((*WINDOW, "--set", "calibration.fpr_budget=2"), 3, "calibration.fpr_budget"),
    ],
)
def test_what_cannot_be_walked_is_refused_before_anything_is_run(words: tuple[str, ...], code: int, said: str, world: World) -> None:
    result = world.run("backtest", *words, *work(world, "refused"))
    assert result.exit_code == code
    assert said in " ".join((result.stdout + result.stderr).split())
    assert not homes(world, "refused")
