"""An advertiser's statement equals the ledger to the micro-unit, whatever happened, and tells nobody how robots are found."""

import csv
import json
from collections import defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from slidr.jobs.statement import parse_month
from typer.testing import CliRunner

from slidr import answers, config, dictionary, direct, query, ready
from slidr.cli import app
from slidr.config import Config
from slidr.direct import Place
from slidr.errors import ConfigError, ConflictError, NothingToDoError, UsageError
from slidr.lake import Lake
from slidr.statement import page, sums
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAYS
from tests import histories, worlds
from tests.frames import at, click
from tests.test_revert import replay, revert
from tests.worlds import FIRST, SECOND

MONTHS = ("2026-01", "2026-02", "2026-03")
NOW = at("2026-06-01 08:30:00")
FIRST_OF_ALL = {"advertiser": histories.ADVERTISERS[0], "month": "2026-02"}
EVIL = histories.ADVERTISERS[2]
Ledger = tuple[histories.History, dict[tuple[str, str], sums.Statement]]


def read(place: Place, advertiser: str, month: str, conf: Config) -> sums.Statement:
    return sums.read(place, advertiser=advertiser, month=parse_month(month), conf=conf)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[histories.History, Place]:
    place = Place(str(tmp_path_factory.mktemp("past") / "lake"))
    history = histories.made(1)
    history.write(place)
    return history, place


@pytest.fixture(scope="module", params=range(2, 6))
def ledger(request: pytest.FixtureRequest, conf: Config, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    history, place = histories.made(request.param), Place(str(tmp_path_factory.mktemp("ledger") / "lake"))
    history.write(place)
    return history, {(who, month): read(place, who, month, conf) for who in histories.ADVERTISERS for month in MONTHS}


def test_every_line_of_every_statement_is_that_of_the_history(ledger: Ledger) -> None:
    history, statements = ledger
    found: dict[Any, list[int]] = {}
    for (advertiser, month), stated in statements.items():
        for row in stated.campaigns:
            for name, line in row.lines.items():
                assert (line.micros is None) == (0 < line.clicks == line.no_cost)
                if line.clicks:
                    found[(advertiser, month, row.campaign_id, row.currency), name] = [line.clicks, line.no_cost, line.micros or 0]
    assert found == {key: value for key, value in history.sums.items() if value[0]}


def test_the_ready_query_says_the_same_of_every_line(conf: Config, tmp_path: Path) -> None:
    """Half-way through a history clicks are undecided, some of them free."""
    place, query_of = Place(str(tmp_path / "lake")), ready.load("statement")
    histories.made(9, steps=25).write(place)
    rows = answers.rows(query.run(place, dictionary.named(conf.spec), query_of.sql, query_of.values({})))
    found = {(row["advertiser_id"], row["billing_month"], row["currency"]): row for row in rows}
    stated: dict[Any, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for who in histories.ADVERTISERS:
        for month in sorted({row["billing_month"] for row in rows if row["advertiser_id"] == who}):
            for campaign in read(place, who, month, conf).campaigns:
                for name, line in campaign.lines.items():
                    stated[who, month, campaign.currency][name] += line.micros or 0
                    stated[who, month, campaign.currency][f"{name} clicks"] += line.clicks
    assert any(of["undecided clicks"] for of in stated.values())
    names = {"clicks": "gross clicks", "gross_micros": "gross", "givt_micros": "givt", "sivt_at_once_micros": "at_once"}
    names |= {"net_micros": "valid", "undecided_clicks": "undecided clicks", "undecided_micros": "undecided"}
    said = {key: {name: row[name] or 0 for name in names} for key, row in found.items()}
    assert said == {key: {name: of[line] for name, line in names.items()} for key, of in stated.items()}
    assert {key: row["sivt_later_micros"] for key, row in found.items()} == {
        key: -of["credited"] - of["recharged"] for key, of in stated.items()
    }


def test_undecided_clicks_are_told_with_their_price(conf: Config, tmp_path: Path) -> None:
    place, time = Place(str(tmp_path / "lake")), at("2026-02-03 10:00:00")
    known, open_, free = click("known", time), click("open", time), click("free", time, upstream_filter="robots")
    decided = histories.decision(known, False, "sivt", time)
    for table, rows in {CLICKS: [known, open_, free], DECISIONS: [decided], CURRENT_DECISIONS: [decided]}.items():
        histories.add(place, table, rows)
    for table in (CORRECTIONS, REPLAYS):
        direct.create(place, table)
    stated = read(place, "adv-1", "2026-02", conf)
    row = page.shown(stated)["adv-1, clicks of 2026-02"][0]
    assert (row["gross (clicks)"], row["net"], row["undecided"]) == ("0.10 (1)", "0.10 (1)", "0.10 (1)")
    assert "1 click of this month is not decided yet" in page.write(stated, tmp_path, now=NOW).read_text(encoding="utf-8")


def test_net_is_what_the_ledger_charges_and_invoices_lose_nothing(ledger: Ledger, conf: Config) -> None:
    history, statements = ledger
    charged: dict[Any, int] = defaultdict(int)  # advertiser, month, currency -> price of the clicks that are valid now
    for name, (invalid, _) in history.state.items():
        row = history.clicks[name]
        if not invalid:
            charged[row["advertiser_id"], f"{row['local_date']:%Y-%m}", row["currency"]] += row["cost_micros"] or 0
    booked: dict[Any, int] = defaultdict(int)
    for row in history.corrections:
        day = row["published_time"].astimezone(ZoneInfo(conf.marketplaces[row["marketplace"]])).date() - timedelta(conf.replay.close_day)
        month = max(row["billing_month"], f"{day:%Y-%m}")
        booked[row["advertiser_id"], row["currency"], row["billing_month"], month] += row["delta_cost_micros"] or 0
    for (advertiser, month), stated in statements.items():
        for row in stated.invoice():
            mine = {key[2:]: micros for key, micros in booked.items() if key[:2] == (advertiser, row["currency"])}
            assert row["later"] == sum(micros for (of, on), micros in mine.items() if of == month < on)
            assert row["earlier"] == sum(micros for (of, on), micros in mine.items() if of < month == on)
            assert row["own"] + row["later"] == charged[advertiser, month, row["currency"]]
            assert row["invoice"] == row["own"] + row["earlier"]


def test_a_month_ends_where_the_marketplace_says(conf: Config, tmp_path: Path) -> None:
    """A click of 31 January in New York, and its credit at the last moment of January's billing, and right after it."""
    place, late = Place(str(tmp_path / "lake")), at("2026-02-01 04:30:00")
    rows = [click(name, late, local_date=date(2026, 1, 31)) for name in ("in", "out")]
    closes = datetime(2026, 2, 8, tzinfo=ZoneInfo("America/New_York")).astimezone(ZoneInfo("UTC"))
    moves = [
        histories.correction(row, True, False, time) | {"publication_no": number, "ordinal": 1, "replay_id": str(number)}
        for number, (row, time) in enumerate(zip(rows, (closes - timedelta(microseconds=1), closes), strict=True), start=1)
    ]
    histories.add(place, CLICKS, rows)
    histories.add(place, DECISIONS, [histories.decision(row, False, "sivt", late) for row in rows])
    histories.add(place, CURRENT_DECISIONS, [histories.decision(row, True, "sivt", late) for row in rows])
    histories.add(place, CORRECTIONS, moves)
    histories.add(place, REPLAYS, [])
    january, february = (read(place, "adv-1", month, conf) for month in MONTHS[:2])
    assert january.invoice() == [{"currency": "USD", "own": 100_000, "earlier": 0, "invoice": 100_000, "later": -100_000}]
    assert february.campaigns == []
    assert february.invoice() == [{"currency": "USD", "own": 0, "earlier": -100_000, "invoice": -100_000, "later": 0}]
    without = conf.model_copy(update={"marketplaces": {"DE": "Europe/Berlin"}})
    with pytest.raises(ConfigError, match="time zone for the marketplace"):
        read(place, "adv-1", "2026-01", without)


def test_nothing_is_stated_from_tables_that_do_not_agree(conf: Config, tmp_path: Path) -> None:
    place, row = Place(str(tmp_path / "lake")), click("c", at("2026-02-03 10:00:00"))
    decided = histories.decision(row, False, "sivt", row["click_time"])
    for table, rows in {CLICKS: [row], DECISIONS: [decided], CURRENT_DECISIONS: [decided], REPLAYS: [], CORRECTIONS: []}.items():
        histories.add(place, table, rows)
    assert read(place, "adv-1", "2026-02", conf).campaigns[0].net == 100_000
    credit = histories.correction(row, True, False, NOW) | {"publication_no": 1, "ordinal": 1, "replay_id": "r"}
    histories.add(place, CORRECTIONS, [credit])  # and the published state does not follow
    with pytest.raises(ConflictError, match="found 1 clicks where they do not"):
        read(place, "adv-1", "2026-02", conf)


@pytest.mark.parametrize(("events", "half"), [(["publish"], True), (["publish", "applied"], False), (["apply", "fail"], False)])
def test_a_half_published_replay_is_waited_for(events: list[str], half: bool, conf: Config, tmp_path: Path) -> None:
    place, row = Place(str(tmp_path / "lake")), click("c", at("2026-02-03 10:00:00"))
    decided = histories.decision(row, False, "sivt", row["click_time"])
    texts = dict.fromkeys(REPLAYS.names, "text") | {"event_date": NOW.date(), "replay_id": "r"}
    window = {"window_from": at("2026-02-03"), "window_to": at("2026-02-04")}
    log = [{**texts, **window, "event": name, "event_time": NOW + timedelta(number)} for number, name in enumerate(events)]
    for table, rows in {CLICKS: [row], DECISIONS: [decided], CURRENT_DECISIONS: [decided], REPLAYS: log, CORRECTIONS: []}.items():
        histories.add(place, table, rows)
    if half:
        with pytest.raises(ConflictError, match="slidr replay resume r"):
            read(place, "adv-1", "2026-02", conf)
    else:
        assert read(place, "adv-1", "2026-02", conf).campaigns[0].net == 100_000


def test_the_files_are_safe_to_send(past: tuple[histories.History, Place], conf: Config, tmp_path: Path) -> None:
    """No column and no value of the tables but those of this advertiser that the page is about."""
    history, place = past
    for advertiser in histories.ADVERTISERS:
        written = page.write(read(place, advertiser, "2026-02", conf), tmp_path / "statements", now=NOW)
        assert written.resolve().parent.parent == (tmp_path / "statements/2026-02").resolve()
        texts = [path.read_text(encoding="utf-8") for path in sorted(written.parent.iterdir())]
        assert len(texts) == 3
        others = [other for other in histories.ADVERTISERS if other != advertiser]
        hidden = ["secret", "203.0.113", "0.123456", "0.654321", "rescore", "replay-", "revert-", "<script", "http", *others]
        columns = {*CLICKS.names, *DECISIONS.names, *CORRECTIONS.names} - {"advertiser_id", "campaign_id", "currency"}
        hidden += [name for name in columns if "_" in name] + ["score", "threshold", "session", "desktop"]
        for text in texts:
            told = text.replace(advertiser, "") if advertiser == EVIL else text
            assert not [word for word in hidden if word in told]


def test_the_table_is_what_was_read_and_no_formula(past: tuple[histories.History, Place], conf: Config, tmp_path: Path) -> None:
    stated = read(past[1], "adv-1", "2026-02", conf)
    written = page.write(stated, tmp_path, now=NOW)
    rows = list(csv.DictReader((written.parent / page.TABLE).open(encoding="utf-8")))
    assert {row["campaign_id"] for row in rows} == {"'=cmd", "summer"}
    for row, campaign in zip(rows, stated.campaigns, strict=True):
        assert int(row["net_clicks"]) == campaign.lines["valid"].clicks
        assert row["net_micros"] == ("" if campaign.net is None else str(campaign.net))
        parts = ("gross", "sivt_delayed_credited", "sivt_delayed_recharged")
        net = sum(int(row[f"{name}_micros"] or 0) for name in parts)
        assert net - sum(int(row[f"{name}_micros"] or 0) for name in ("givt", "sivt_at_once")) == (campaign.net or 0)


def test_money_without_a_price_is_no_cost() -> None:
    assert page.amount(None) == "no cost"
    assert page.amount(1_250_000) == "1.25"
    assert page.amount(-1) == "-0.000001"
    unpriced, nothing = sums.Line(2, 2, None), sums.Line()
    assert sums.Correction("c", "EUR", "2026-01", "2026-02", unpriced, nothing).sum is None
    assert sums.Correction("c", "EUR", "2026-01", "2026-02", unpriced, sums.Line(1, 0, 5)).sum == 5
    campaign = sums.Campaign("c", "EUR", {name: unpriced if name in ("gross", "valid") else nothing for name in sums.NAMES})
    assert campaign.net is None


def test_names_of_folders_keep_ids_apart_and_inside() -> None:
    ids = ["a/b", "a-b", "a_b", "..", "../..", "", "/", "\x00", "x" * 300, "x" * 301, "ü", EVIL]
    names = [page.safe_name(one) for one in ids]
    assert len(set(names)) == len(ids)
    assert all(len(name) < 60 and name.replace("-", "").isalnum() and name.isascii() for name in names)


@pytest.mark.parametrize("text", ["2026-13", "2026-3", "2026-03-01", "March", "", "2026-03\n", "9999-12"])
def test_a_malformed_month_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="expected a month such as 2026-03"):
        parse_month(text)


def test_nothing_to_state(past: tuple[histories.History, Place], conf: Config) -> None:
    for advertiser, month in [("nobody", "2026-02"), ("adv-1", "2019-02"), ("adv-1' OR '1'='1", "2026-02")]:
        with pytest.raises(NothingToDoError, match="found none"):
            read(past[1], advertiser, month, conf)


def test_the_command_writes_where_it_says_and_tells_its_exit_codes(past: tuple[histories.History, Place], tmp_path: Path) -> None:
    options = ["--conf", str(config.shipped("local.yaml")), "--set", f"lake.root={past[1].root}", "--set", f"work.root={tmp_path}"]
    for advertiser, month, code in [(EVIL, "2026-02", 0), ("nobody", "2026-02", 9), ("adv-1", "2026-2", 2)]:
        done = CliRunner().invoke(app, ["statement", "--advertiser", advertiser, "--month", month, *options, "--json", "-q"])
        assert done.exit_code == code, done.output
        if code == 0:
            said = json.loads(done.stdout.strip().splitlines()[-1])
            assert Path(said["page"]).is_relative_to(tmp_path / "statements/2026-02")
            assert said["campaigns"]
    shown = CliRunner().invoke(app, ["statement", "--advertiser", "adv-1", "--month", "2026-02", *options])
    assert "Corrections by original month" in shown.stdout
    assert "Invoice of 2026-02" in shown.stdout
    assert direct.exists(past[1], REPLAYS)


@pytest.mark.slow
def test_real_replays_and_reverts_are_stated(world: Lake, loose: Config) -> None:
    """A may charge and overlaps B; each decides clicks that nobody had decided; a first decision of one of them comes late."""
    place = Place(world.root)
    agrees(place, loose)
    a = replay(world, loose, "2", end=SECOND.replace(hour=10, minute=40), allow_charges=True)
    agrees(place, loose)
    late = worlds.decided(world, world.read(CLICKS).where("click_id = 'c14'"))
    assert worlds.publish_first(world, late, [FIRST.date()]) == 1
    agrees(place, loose)
    replay(world, loose, "3", start=FIRST.replace(hour=10, minute=30))
    agrees(place, loose)
    revert(world, loose, a.plan_id)
    agrees(place, loose)
    assert len(direct.read(place, CORRECTIONS).rows) > 10


def agrees(place: Place, conf: Config) -> None:
    """Net and delayed traffic of every advertiser are those of the tables."""
    for number in range(3):
        who = f"adv-{number}"
        valid = [row for row in direct.read(place, CURRENT_DECISIONS).rows if row["advertiser_id"] == who and not row["is_invalid"]]
        moved = [row for row in direct.read(place, CORRECTIONS).rows if row["advertiser_id"] == who]
        stated = read(place, who, "2026-03", conf)
        assert sum(row.net or 0 for row in stated.campaigns) == sum(row["cost_micros"] or 0 for row in valid)
        assert sum(row.delayed for row in stated.campaigns) == sum(row["delta_cost_micros"] or 0 for row in moved)
