"""The weekly report: its figures are plain sums of the tables, it names what is missing, and it escapes everything."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from slidr import config
from slidr.cli import app
from slidr.config import Config
from slidr.curves import TOTAL
from slidr.direct import Place
from slidr.errors import NothingToDoError
from slidr.intervals import interval
from slidr.weekly import figures, page
from slidr.weekly.figures import Week
from tests import weeks
from tests.frames import at
from tests.weeks import DAYS

FACTS = page.Facts(0.05, at("2026-03-16 08:00:00"), "abc")
Made = tuple[Place, list[dict[str, Any]], Week]


@pytest.fixture(scope="module")
def made(conf: Config, tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = Place(str(tmp_path_factory.mktemp("weeks") / "lake"))
    rows = weeks.fill(place)
    return place, rows, figures.read(place, DAYS, conf)


def naive(rows: list[dict[str, Any]], name: str, **keys: Any) -> int:
    return sum(row[name] or 0 for row in rows if all(row[key] == value for key, value in keys.items()))


def test_totals_days_and_slices_are_plain_sums(made: Made) -> None:
    _, rows, week = made
    now, before = (
        [row for row in rows if row["click_date"] in DAYS],
        [row for row in rows if DAYS[0] - timedelta(weeks=1) <= row["click_date"] < DAYS[0]],
    )
    for found, chosen in zip(figures.totals(week), (now, now, before, before), strict=True):
        for name in figures.COUNTS:
            assert found[name] == naive(chosen, name, view=found["view"])
    for found in figures.by_day(week):
        for view in figures.VIEWS:
            if found["matured"]:
                part, whole = (naive(now, name, click_date=found["day"], view=view) for name in ("purchasing_invalid", "purchasing"))
                assert found[view]["fpr"] == part / whole
                assert (found[view]["fpr_low"], found[view]["fpr_high"]) == interval(part, whole)
            elif found["measured"]:
                assert found[view]["fpr"] != found[view]["fpr"]
    slices = figures.by_slice(week)
    assert sorted(row["slice"] for row in slices) == sorted(weeks.SLICES)
    for found in slices:
        ivr = [
            naive(of, "invalid", view="published", report_slice=found["slice"])
            / naive(of, "clicks", view="published", report_slice=found["slice"])
            for of in (now, before)
        ]
        assert found["change"] == pytest.approx(ivr[0] - ivr[1])


def test_money_is_exact_by_currency_and_unknown_where_no_price_is_known(made: Made) -> None:
    _, rows, week = made
    now, before = (
        [row for row in rows if row["click_date"] in DAYS],
        [row for row in rows if DAYS[0] - timedelta(weeks=1) <= row["click_date"] < DAYS[0]],
    )
    for found in figures.by_currency(week):
        for name, of, view in (("first", now, "first"), ("published", now, "published"), ("before", before, "published")):
            for amount in figures.MONEY:
                assert found[f"{name}_{amount}"] == naive(of, amount, view=view, currency=found["currency"])
    assert figures.price(week, "cost_micros", days=DAYS, view="first", currency="JPY") is None
    assert page.money(None) == "no cost"


def test_what_is_missing_is_named(made: Made) -> None:
    content = page.tables(made[2], FACTS)
    assert content["unmatured"] == [weeks.LATEST]
    assert content["unmeasured"] == [weeks.UNMEASURED]
    assert content["stale"] == [DAYS[1], DAYS[2]]
    assert content["undecided"] == 3 * len(DAYS)
    assert f"{3 * len(DAYS)} of {content['known']:,} clicks have no decision" in content["verdict"][2]


def test_events_are_those_of_the_days(made: Made) -> None:
    week = made[2]
    found = [(row["publication_no"], row["direction"], row["clicks"], row["no_cost"], row["micros"]) for row in week.corrections]
    assert found == [(2, "invalidate", 3, 1, -1_000_000), (3, "reinstate", 3, 1, 1_000_000)]
    assert [row["to_state"] for row in week.promotions] == ["candidate", "champion"]
    assert [(row["reason"], row["input_rows"]) for row in week.rejects] == [("no click_time", 4), ("unknown marketplace", 1)]
    assert [row["model_version"] for row in week.versions] == ["1", "2"]
    assert sum(row["first_clicks"] for row in week.versions) == figures.totals(week)[0]["clicks"]
    incident = pd.Timestamp(weeks.INCIDENT[0]) + pd.Timedelta(hours=weeks.INCIDENT[1])
    assert incident in set(figures.alarms(week)["time"])
    whole = week.judged[(week.judged["signal"] == "ivr") & (week.judged["place"] == TOTAL)]
    assert set(whole["time"]) == set(pd.date_range(DAYS[0], periods=7 * 24, freq="h"))
    measured = whole[whole["time"] < pd.Timestamp(weeks.UNMEASURED)]
    bad = set(measured.loc[measured["verdict"].isin(["watch", "roll back"]), "time"])
    assert incident in bad
    assert bad <= {incident + pd.Timedelta(hours=later) for later in range(4)}  # windows of some hours hold it


def test_the_verdict_compares_the_fpr_with_the_budget() -> None:
    def said(fpr: float, low: float, high: float) -> str:
        published = {"fpr": fpr, "fpr_low": low, "fpr_high": high}
        content = {"totals": [{}, published], "alarms": [], "judged": 0, "known": 0, "undecided": 0}
        return page.verdict(content, 0.05)[0]

    assert "above the budget of 5.00%, beyond chance" in said(0.08, 0.06, 0.10)
    assert "above the budget of 5.00%, though it may be by chance" in said(0.06, 0.04, 0.10)
    assert "within the budget of 5.00%, beyond chance" in said(0.02, 0.01, 0.03)
    assert "within the budget of 5.00%, though it may be by chance" in said(0.04, 0.02, 0.07)
    assert "not known" in said(float("nan"), float("nan"), float("nan"))


def test_the_page_stands_alone_and_escapes(made: Made, tmp_path: Path) -> None:
    page.write(made[2], FACTS, tmp_path)
    text = (tmp_path / page.PAGE).read_text(encoding="utf-8")
    assert weeks.EVIL not in text
    assert "&lt;script&gt;" in text
    assert "<b>odd" not in text
    assert "http" not in text
    assert text.count("data:image/png;base64,") == 3
    assert "lower estimate of the harm to people" in text
    json.loads((tmp_path / page.DATA).read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_days_without_metrics_are_nothing_to_report(made: Made, conf: Config) -> None:
    with pytest.raises(NothingToDoError, match="slidr monitor --from 2020-01-01 --to 2020-01-02"):
        figures.read(made[0], [date(2020, 1, 1)], conf)


def test_the_command(made: Made, tmp_path: Path) -> None:
    options = ["--conf", str(config.shipped("local.yaml")), "--set", f"lake.root={made[0].root}", "--set", f"work.root={tmp_path}", "-q"]
    window = ["--from", str(DAYS[0]), "--to", str(DAYS[-1] + timedelta(days=1))]
    done = CliRunner().invoke(app, ["report", *window, *options, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert Path(said["report"]).is_file()
    assert said["undecided"] == 21
    assert CliRunner().invoke(app, ["report", "--from", "2020-01-01", "--to", "2020-01-08", *options]).exit_code == 9
    assert CliRunner().invoke(app, ["report", "--from", "2026-03-09T01:00Z", "--to", "2026-03-10", *options]).exit_code == 2
