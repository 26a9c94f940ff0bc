"""The backtest's parts on small data made by hand; the walk itself is in test_backtest_walk.py."""

import csv
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from slidr.backtest import feed, figures, kept, report, variants
from slidr.backtest.feed import Source
from slidr.backtest.report import Facts, Walked
from slidr.config import Config
from slidr.errors import ConfigError, InputError, LockedError, UsageError
from slidr.intervals import interval
from slidr.lake import Lake
from slidr.tables import CLICKS, DECISIONS, LABELS, PURCHASES, features_table
from tests.frames import at, click, clicks, frame, purchase, purchases
from tests.worlds import SPEC

DAY, NEXT = date(2026, 3, 1), date(2026, 3, 2)


def test_without_variants_there_is_the_default_promoted_by_itself(conf: Config) -> None:
    (only,) = variants.parse([], conf)
    assert (only.name, only.overrides, only.conf.promotion) == ("default", (), "auto")
    assert only.conf.model_copy(update={"promotion": conf.promotion}) == conf


def test_a_variant_changes_what_it_names(conf: Config) -> None:
    by_device = 'slow: labels.delay_days=5 calibration.slices="[{column: device}]"'
    lax, slow = variants.parse(["lax: calibration.fpr_budget=0.02", by_device], conf)
    assert (lax.name, lax.budget, slow.name) == ("lax", 0.02, "slow")
    assert (slow.budget, slow.conf.labels.delay_days) == (conf.calibration.fpr_budget, 5)
    assert slow.conf.calibration.slices == [{"column": "device"}]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (
            "lax: calibration.fpr_budgt=0.02",
            ConfigError,
            "--variant lax names an unknown key 'calibration.fpr_budgt'; nearest: ",
        ),
        ("lax: labels.delay_days=1", ConfigError, "--variant lax is not a valid configuration"),
        ("lax: lake.root=/elsewhere", ConfigError, "expected keys that change decisions, found 'lake.root=/elsewhere'"),
        ("lax: promotion=manual", ConfigError, "keys that change decisions"),
        ("calibration.fpr_budget=0.02", UsageError, 'expected "NAME: key=value key=value"'),
        ('lax: "calibration', UsageError, "quoted as in a shell"),
    ],
)
def test_a_wrong_variant_is_refused(text: str, error: type[Exception], said: str, conf: Config) -> None:
    with pytest.raises(error) as raised:
        variants.parse([text], conf)
    assert said in str(raised.value)


def test_two_variants_have_two_names(conf: Config) -> None:
    with pytest.raises(UsageError, match="each name once"):
        variants.parse(["a:", "a: training.epochs=3"], conf)


def test_an_unfinished_run_keeps_its_commits_and_a_finished_one_does_not(tmp_path: Path) -> None:
    asked = {"from": DAY, "to": NEXT}
    first = kept.begin(tmp_path, asked, {"clicks": 3})
    assert kept.begin(tmp_path, asked, {"clicks": 4}) == first
    assert kept.begin(tmp_path, {**asked, "train_every": 2}, {"clicks": 4}).pins == {"clicks": 4}  # another question
    first.write(finished=True)
    again = kept.begin(tmp_path, asked, {"clicks": 3})
    assert again.folder == first.folder
    again.write(finished=True)
    moved = kept.begin(tmp_path, asked, {"clicks": 4})
    assert (moved.pins, moved.folder != first.folder) == ({"clicks": 4}, True)


def test_days_that_are_done_are_kept_by_identity(tmp_path: Path) -> None:
    kept.progress(tmp_path, {"code": "1"}).add("2026-03-01", {"version": "3"})
    assert kept.progress(tmp_path, {"code": "1"}).days == {"2026-03-01": {"version": "3"}}
    assert kept.progress(tmp_path, {"code": "2"}).days == {}


def test_a_half_written_record_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = kept.progress(tmp_path, {"code": "1"})
    progress.add("2026-03-01", {"version": "3"})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        progress.add("2026-03-02", {"version": "4"})
    assert kept.progress(tmp_path, {"code": "1"}).days == {"2026-03-01": {"version": "3"}}


def test_one_backtest_at_a_time_in_a_folder(tmp_path: Path) -> None:
    with kept.alone(tmp_path), pytest.raises(LockedError, match="found one running"), kept.alone(tmp_path):
        pass
    with kept.alone(tmp_path):
        pass


@pytest.fixture
def source(lake: Lake) -> Source:
    """Clicks, an order and logged features of two days; one click and the order of the first day arrive on the second."""
    late = at("2026-03-02 03:00:00")
    made = clicks(
        lake.spark,
        click("a", at("2026-03-01 10:00:00")),
        click("late", at("2026-03-01 11:00:00"), arrival_time=late),
        click("edge", at("2026-03-02 00:00:00")),
        click("b", at("2026-03-02 10:00:00")),
    )
    lake.append(made, CLICKS)
    lake.append(purchases(lake.spark, purchase("o", at("2026-03-01 12:00:00"), arrival_time=late)), PURCHASES)
    features = [
        {"click_id": name, "click_time": day, "click_date": day.date(), "origin": "logged", "ip_clicks_1h": 7, "logged_in": 0}
        for name, day in (("a", at("2026-03-01 10:00:00")), ("late", at("2026-03-01 11:00:00")))
    ]
    table = features_table(SPEC)
    lake.append(frame(lake.spark, table, features), table)
    return Source(lake, feed.pins(lake, [CLICKS, PURCHASES, table]))


def ids(lake: Lake, table: Any, key: str = "click_id") -> set[str]:
    return {row[0] for row in lake.read(table).select(key).collect()} if lake.exists(table) else set()


def test_rows_come_when_they_arrived_and_once(source: Source, tmp_path: Path) -> None:
    own, table = Lake(source.lake.spark, str(tmp_path / "own")), features_table(SPEC)
    first, second = at("2026-03-02"), at("2026-03-03")
    feed.feed(source, own, table, after=None, until=first)
    assert (ids(own, CLICKS), ids(own, PURCHASES, "order_id"), ids(own, table)) == ({"a", "edge"}, set(), {"a"})
    feed.feed(source, own, table, after=None, until=first)  # after a kill
    assert own.read(CLICKS).count() == 2
    feed.feed(source, own, table, after=first, until=second)
    assert (ids(own, CLICKS), ids(own, PURCHASES, "order_id"), ids(own, table)) == ({"a", "edge", "late", "b"}, {"o"}, {"a", "late"})
    assert own.read(CLICKS).count() == 4


def test_what_is_written_after_the_start_is_not_read(source: Source) -> None:
    source.lake.append(clicks(source.lake.spark, click("new", at("2026-03-01 12:00:00"))), CLICKS)
    assert source.arrived(CLICKS, None, at("2026-03-05")).count() == 4


def test_the_span_counts_what_was_known_and_ends_with_the_last_arrival(source: Source) -> None:
    held = feed.span(source, at("2026-03-02"))
    assert (held.clicks, held.known) == ({DAY: 2, NEXT: 2}, {DAY: 1, NEXT: 1})
    assert held.end == at("2026-03-02 10:00:00")


def test_a_lake_without_tables_is_refused(lake: Lake) -> None:
    with pytest.raises(InputError, match="found no clicks and no purchases; ingest them first"):
        feed.pins(lake, [CLICKS, PURCHASES])


BUDGET = 0.25
VERSIONS = {DAY: "1", NEXT: "2"}
CALIBRATIONS = {
    "1": {"strict": {"thresholds": {"desktop/guest": 0.2}, "default_threshold": 0.7}},
    "2": {"strict": {"thresholds": {}, "default_threshold": 0.4}, "other": {"thresholds": {"phone/guest": 0.1}, "default_threshold": 1.0}},
}


def made_rows() -> list[dict[str, Any]]:
    """40 decided clicks of two days with what the labels say: facts of the tables, from which everything is counted."""
    rows = []
    for number in range(40):
        day = DAY if number % 2 else NEXT
        upstream, score = number % 13 == 0, (number * 37 % 100) / 100
        rows.append(
            {
                "click_id": f"c{number}",
                "click_date": day,
                "slice": "desktop/guest" if number % 3 else "phone/guest",
                "score": None if number == 5 else score,
                "basis": "upstream" if upstream else "no_features" if number == 5 else "model",
                "is_invalid": upstream or (number != 5 and score > 0.5),
                "currency": "EUR" if number % 4 == 0 else "USD",
                "cost_micros": None if number == 7 else 1000 + number,
                "purchase": number % 5 == 0 and not upstream,
                "heavy": number % 6 == 0,
            }
        )
    return rows


@pytest.fixture
def counted(lake: Lake) -> figures.Counted:
    rows = made_rows()
    same = {"local_date": DAY, "session_id": "s", "advertiser_id": "a", "campaign_id": "c", "marketplace": "US", "device": "d"}
    decisions, labels = [], []
    for row in rows:
        ivt = "givt" if row["basis"] == "upstream" else "sivt" if row["is_invalid"] else None
        own = {name: row[name] for name in DECISIONS.names if name in row}
        decisions.append({**same, **own, "model_version": VERSIONS[row["click_date"]], "ivt_class": ivt})
        reason = "purchase" if row["purchase"] else "none"
        labels.append(
            {"click_id": row["click_id"], "click_date": row["click_date"], "is_purchase": row["purchase"], "label_reason": reason}
        )
        labels[-1]["in_heavy_session"] = row["heavy"]
    labels.append({**labels[-1], "click_id": "undecided"})
    return figures.count(frame(lake.spark, DECISIONS, decisions), frame(lake.spark, LABELS, labels), CALIBRATIONS)


def expected(rows: list[dict[str, Any]], invalid: str = "is_invalid") -> dict[str, int]:
    bought, heavy = [row for row in rows if row["purchase"]], [row for row in rows if row["heavy"]]
    sums = {"clicks": rows, "purchasing": bought, "heavy": heavy}
    hits = {"invalid": rows, "purchasing_invalid": bought, "heavy_invalid": heavy}
    return {name: len(of) for name, of in sums.items()} | {name: sum(row[invalid] for row in of) for name, of in hits.items()}


def test_the_figures_of_a_day_are_those_of_its_rows(counted: figures.Counted) -> None:
    days = figures.shares(counted, "click_date", budget=BUDGET).set_index("click_date")
    for day in (DAY, NEXT):
        rows = [row for row in made_rows() if row["click_date"] == day]
        found, wanted = days.loc[day], expected(rows)
        assert {name: found[name] for name in wanted} == wanted
        assert found["fpr"] == wanted["purchasing_invalid"] / wanted["purchasing"]
        assert found["ivr"] == wanted["invalid"] / wanted["clicks"]
        low, high = interval(wanted["purchasing_invalid"], wanted["purchasing"])
        assert (found["fpr_low"], found["fpr_high"]) == (low, high)
        assert (found["over"], found["surely_over"]) == (found["fpr"] > BUDGET, low > BUDGET)
        credited = [row for row in rows if row["is_invalid"] and row["basis"] != "upstream" and row["cost_micros"] is not None]
        money = {name: sum(r["cost_micros"] for r in credited if r["currency"] == name) for name in ("EUR", "USD")}
        assert figures.money(counted, day) == {name: micros for name, micros in money.items() if micros}
    assert sum(counted.labelled.values()) == 41  # one of them has no decision


def test_slices_and_days_over_the_budget_are_sums(counted: figures.Counted) -> None:
    for row in figures.by_slice(counted, budget=BUDGET):
        rows = [made for made in made_rows() if made["slice"] == row["slice"]]
        assert {name: row[name] for name in expected(rows)} == expected(rows)
        by_day = [expected([made for made in rows if made["click_date"] == day]) for day in (DAY, NEXT)]
        over = [day["purchasing_invalid"] / day["purchasing"] > BUDGET for day in by_day if day["purchasing"]]
        assert (row["days"], row["days_over"]) == (len(over), sum(over))
    whole = figures.total(counted, budget=BUDGET)
    assert {name: whole[name] for name in expected(made_rows())} == expected(made_rows())


def test_other_methods_decide_the_same_scores_by_their_own_thresholds(counted: figures.Counted) -> None:
    rows = made_rows()
    for row in rows:
        found = CALIBRATIONS[VERSIONS[row["click_date"]]]
        for method in ("strict", "other"):
            chosen = found.get(method)
            if chosen:
                by_score = row["basis"] == "model" and row["score"] > chosen["thresholds"].get(row["slice"], chosen["default_threshold"])
                row[method] = by_score or row["basis"] == "upstream"
    whole = figures.total(counted, budget=BUDGET, method="strict")
    assert {name: whole[name] for name in expected(rows, "strict")} == expected(rows, "strict")
    later = [row for row in rows if row["click_date"] == NEXT]  # the version before it holds no such method
    whole = figures.total(counted, budget=BUDGET, method="other")
    assert {name: whole[name] for name in expected(later, "other")} == expected(later, "other")


def test_versions_without_other_methods_are_judged_as_they_decided(lake: Lake) -> None:
    none = figures.count(frame(lake.spark, DECISIONS, []), frame(lake.spark, LABELS, []), {"1": {}})
    whole = figures.total(none, budget=BUDGET)
    assert (whole["clicks"], whole["days"], whole["over"]) == (0, 0, False)
    assert whole["fpr"] != whole["fpr"]


def walked(counted: figures.Counted, conf: Config, name: str, budget: float) -> Walked:
    (variant,) = variants.parse([f"{name}: calibration.fpr_budget={budget}"], conf)
    stopped = {"outcome": "stopped", "training": "stopped by a guardrail; the champion stays", "failed": ["drift <of> a feature"]}
    trained = {"outcome": "trained", "training": "version 2, champion", "failed": []}
    undecided = {"version": None, **trained}
    days = {str(DAY): {"version": "1", **trained}, str(NEXT): {"version": "2", **stopped}, str(NEXT + timedelta(1)): undecided}
    return Walked(variant, days, counted)


def test_the_report_says_who_kept_the_budget_and_holds_every_table(counted: figures.Counted, conf: Config, tmp_path: Path) -> None:
    both = [walked(counted, conf, "lax", 0.95), walked(counted, conf, "harsh", 0.0001)]
    content = report.write(both, Facts("Backtest", [DAY, NEXT], [NEXT + timedelta(1)], {"days": "three"}), tmp_path)
    lax, harsh = content["summary"]
    assert (lax["budget_was"], harsh["budget_was"]) == ("kept", "exceeded")
    assert (lax["stopped_days"], lax["undecided"], lax["days_without_version"]) == (1, 1, 1)
    assert content["verdict"][0].startswith("Of the variants whose FPR over all days is within their budget, lax")
    assert [row["judged"] for row in content["days"]] == [True, True, False] * 2
    page = (tmp_path / report.PAGE).read_text(encoding="utf-8")
    assert "drift &lt;of&gt; a feature" in page
    assert page.count("data:image/png;base64,") == 2
    assert json.loads((tmp_path / report.DATA).read_text())["summary"][0]["variant"] == "lax"
    with (tmp_path / "days.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert (len(rows), rows[0]["money_micros_USD"]) == (6, str(figures.money(counted, DAY)["USD"]))
    assert {row["method"] for row in content["methods"]} == {"decided", "strict", "other"}
    shown = report.shown(content)
    assert all(row.keys() == table[0].keys() for table in shown.values() for row in table)


def test_a_backtest_in_which_nothing_was_decided_says_so(conf: Config, lake: Lake, tmp_path: Path) -> None:
    none = figures.count(frame(lake.spark, DECISIONS, []), frame(lake.spark, LABELS, []), {})
    content = report.write([walked(none, conf, "none", 0.01)], Facts("Backtest", [DAY, NEXT], [], {}), tmp_path)
    assert "can't be told" in content["verdict"][0]
    assert content["methods"] == []
    assert isinstance(content["summary"][0]["fpr"], float)
    assert pd.isna(content["summary"][0]["fpr"])
