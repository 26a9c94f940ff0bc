"""The shipped sources on real files: small samples beside the tests, whole files where they are."""

import csv
import gzip
from collections import defaultdict
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.errors import ConfigError
from slidr.ingest import IngestSummary, ingest, load_source
from slidr.lake import Lake
from slidr.tables import CLICKS, PURCHASES, REJECTS
from tests import oracles_ingest
from tests.foreign import real

NOW = datetime(2026, 5, 1, tzinfo=timezone.utc)
HERE = Path(__file__).parent


def run(lake: Lake, source: str, path: str, conf: Config, run_id: str = "run-1") -> IngestSummary:
    conf = conf.model_copy(update={"marketplaces": {**conf.marketplaces, "CN": "Asia/Shanghai"}})
    return ingest(lake, source=load_source(source), paths=[path], conf=conf, run_id=run_id, now=NOW)


def test_access_log_sample(lake: Lake, conf: Config) -> None:
    total = run(lake, "apache_access", str(HERE / "data" / "access_sample.log"), conf).total("clicks")
    assert (total.rows_in, total.written, total.rejects) == (300, 299, {"malformed": 1})
    assert "Googlebot" in lake.read(REJECTS).collect()[0].raw  # the line that the server cut off
    clicks = lake.read(CLICKS)
    first = clicks.where("ip = '83.149.9.216'").orderBy("click_time").collect()[0]
    assert str(first.click_time) == "2015-05-17 10:05:00"
    assert (first.campaign_id, first.device, first.cost_micros, first.user_id) == ("presentations", "desktop", None, None)
    rows = clicks.select("click_id", F.unix_seconds("click_time"), "user_id", "ip_key", "user_agent", "session_id").collect()
    expected = oracles_ingest.sessions([tuple(r)[:5] for r in rows], gap=1800)
    found, wanted = defaultdict(set), defaultdict(set)
    for r in rows:
        found[r.session_id].add(r.click_id)
        wanted[expected[r.click_id]].add(r.click_id)
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, wanted.values()))


def test_order_lines_sample(lake: Lake, conf: Config) -> None:
    path = HERE / "data" / "transactions_sample.csv"
    check_orders(lake, conf, str(path), path.read_text().splitlines())


@pytest.mark.slow
def test_order_lines_whole(lake: Lake, conf: Config) -> None:
    path = real("complete_journey/transactions.csv.gz")
    with gzip.open(path, "rt") as file:
        total = check_orders(lake, conf, path, file.read().splitlines())
    assert total == (75000, 47243, 27757)


def check_orders(lake: Lake, conf: Config, path: str, lines: list[str]) -> tuple[int, int, int]:
    amounts: dict[str, Decimal] = defaultdict(Decimal)
    for line in csv.DictReader(lines):
        amounts[line["basket_id"]] += Decimal(line["sales_value"])
    total = run(lake, "complete_journey", path, conf).total("purchases")
    assert (total.rows_in, total.written, total.rejects) == (len(lines) - 1, len(amounts), {})
    found = {r.order_id: r.amount_micros for r in lake.read(PURCHASES).select("order_id", "amount_micros").collect()}
    assert found == {order: int(amount * 1_000_000) for order, amount in amounts.items()}
    return total.rows_in, total.written, total.merged


@pytest.mark.slow
def test_talkingdata_whole(lake: Lake, conf: Config) -> None:
    path = real("talkingdata/train_sample.csv.gz")
    summary = run(lake, "talkingdata", path, conf)
    clicks, purchases = summary.total("clicks"), summary.total("purchases")
    assert (clicks.rows_in, clicks.written, clicks.rejects) == (100000, 100000, {})
    assert (purchases.rows_in, purchases.written, purchases.rejects) == (227, 227, {})
    bought = lake.read(PURCHASES).join(lake.read(CLICKS), on="click_id", how="inner")
    assert bought.where("purchase_time > click_time").count() == 227
    assert lake.read(CLICKS).where("device = 'device_1'").count() == 94338
    versions = [lake.version(table) for table in (CLICKS, PURCHASES)]
    assert run(lake, "talkingdata", path, conf, run_id="run-2").total("clicks").already_there == 100000
    assert [lake.version(table) for table in (CLICKS, PURCHASES)] == versions


@pytest.mark.slow
def test_access_log_whole(lake: Lake, conf: Config) -> None:
    total = run(lake, "apache_access", real("apache_access/access.log.gz"), conf).total("clicks")
    assert (total.rows_in, total.written, total.rejects) == (10000, 9999, {"malformed": 1})


def test_a_source_for_another_market_says_so(lake: Lake, conf: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sets the marketplace CN, expected one of the configuration's: DE, IN, JP, US"):
        ingest(lake, source=load_source("talkingdata"), paths=[str(tmp_path)], conf=conf, run_id="run-1", now=NOW)
