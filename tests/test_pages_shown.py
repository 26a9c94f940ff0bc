"""The pages in a browser: nothing on the console, nothing fetched, no horizontal scroll at 1280 and 390 pixels."""

from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from slidr import training_report
from slidr.backtest import figures as backtest_figures
from slidr.backtest import report as backtest_report
from slidr.config import Config
from slidr.direct import Place
from slidr.statement import page as statement_page
from slidr.statement import sums
from slidr.weekly import figures, page
from tests import browser, histories, weeks
from tests.frames import at
from tests.judged import judgement
from tests.test_backtest import walked
from tests.test_training_report import FACTS

pytestmark = pytest.mark.skipif(browser.path() is None, reason=f"needs one of {', '.join(browser.NAMES)} on the PATH")


def statement(folder: Path, conf: Config) -> Path:
    place = Place(str(folder / "lake"))
    histories.made(1).write(place)
    stated = sums.read(place, advertiser=histories.ADVERTISERS[2], month=date(2026, 2, 1), conf=conf)
    return statement_page.write(stated, folder, now=at("2026-06-01"))


def weekly(folder: Path, conf: Config) -> Path:
    place = Place(str(folder / "lake"))
    weeks.fill(place)
    page.write(figures.read(place, weeks.DAYS, conf), page.Facts(0.05, at("2026-03-16"), "abc"), folder)
    return folder / page.PAGE


def training(folder: Path, _: Config) -> Path:
    judged = judgement()
    training_report.draw(judged, folder)
    return training_report.write(judged, FACTS, folder, [])


def backtest(folder: Path, conf: Config) -> Path:
    days = [date(2026, 3, 2) + timedelta(days=number) for number in range(2)]
    counts = dict.fromkeys(backtest_figures.COUNTS, 50) | {"clicks": 1000}
    keys = [{"click_date": day, "slice": "desktop/guest", "model_version": "1", "method": backtest_figures.DECIDED} for day in days]
    money = [{"click_date": day, "currency": "USD", "micros": 10**9} for day in days]
    counted = backtest_figures.Counted(pd.DataFrame([key | counts for key in keys]), pd.DataFrame(money), dict.fromkeys(days, 1000))
    backtest_report.write([walked(counted, conf, "one", 0.01)], backtest_report.Facts("Backtest", days, [], {}), folder)
    return folder / backtest_report.PAGE


def test_every_page_is_quiet_and_fits(conf: Config, tmp_path: Path) -> None:
    makers = {"statement": statement, "weekly": weekly, "training": training, "backtest": backtest}
    made = {}
    for name, maker in makers.items():
        (tmp_path / name).mkdir()
        made[name] = maker(tmp_path / name, conf)
    assert browser.problems(made) == []


def test_a_bad_page_is_noticed(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    image = "<img src='http://127.0.0.1:9/missing.png'>"
    bad.write_text(f"<script>nothing.at.all</script>{image}<div style='width:700px'>wide</div>", encoding="utf-8")
    found = " ".join(browser.problems({"bad": bad}))
    assert "nothing is not defined" in found
    assert "bad: fetched http://127.0.0.1:9/missing.png" in found
    assert "bad: 7" in found
    assert "in 1280" not in found
