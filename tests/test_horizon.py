"""How far back a replay can go: what lies in the lake, what was removed from it, and what billing still takes. No Spark."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from slidr import direct, history
from slidr.config import Config
from slidr.direct import Place
from slidr.errors import InputError
from slidr.replay.horizon import Reach, look, oldest_billed
from slidr.tables import CLICKS, CURRENT_DECISIONS, Table, features_table
from tests.frames import at
from tests.test_look import Shell

NOW = at("2026-03-25 12:00:00")
BEGINS = timedelta(hours=9, minutes=30)
SPARE = {"boolean": False, "int": 1, "bigint": 1, "double": 0.5, "string": "x"}


def row(table: Table, day: date) -> dict[str, Any]:
    time = at(f"{day} 00:00:00") + BEGINS
    return {c.name: {**SPARE, "date": day, "timestamp": time}[c.type] for c in table.columns}


def march(first: int, last: int) -> list[date]:
    return [date(2026, 3, number) for number in range(first, last + 1)]


def filled(place: Place, conf: Config, clicks: Sequence[date], scored: Sequence[date] | None = None) -> None:
    for table, days in ((CLICKS, clicks), (CURRENT_DECISIONS, clicks), (features_table(conf.spec), scored or clicks)):
        direct.add(place, table, [row(table, day) for day in days])


def since(place: Place, conf: Config) -> dict[str, datetime | None]:
    return {one.mode: one.since for one in look(place, conf, NOW).modes}


def files_of(place: Place, table: Table, day: date) -> list[Path]:
    return list(Path(place.root, table.name).glob(f"click_date={day}/**/*.parquet"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "lake"))


def test_each_mode_reaches_back_to_what_it_reads(place: Place, conf: Config) -> None:
    """Rescoring needs features of the day, recomputing a week of clicks before it; before the first click nothing is missing."""
    assert look(place, conf, NOW).modes == ()
    filled(place, conf, march(1, 20), march(5, 20))
    assert look(place, conf, NOW).modes == (
        Reach("rescore", at("2026-03-05 09:00:00"), "no stored features of 2026-03-04", lost=False),
        Reach("recompute", at("2026-03-01 09:00:00"), "the clicks begin there", lost=False),
    )


def test_a_day_without_clicks_ends_what_counts_over_it(place: Place, conf: Config) -> None:
    filled(place, conf, march(1, 5) + march(7, 20))
    assert since(place, conf) == {"rescore": at("2026-03-01 09:00:00"), "recompute": at("2026-03-14 09:00:00")}


def test_files_that_are_gone_are_told(place: Place, conf: Config) -> None:
    filled(place, conf, march(1, 20))
    files_of(place, features_table(conf.spec), date(2026, 3, 10))[0].unlink()
    scored, counted = look(place, conf, NOW).modes
    assert (scored.since, scored.lost, scored.why) == (at("2026-03-11 09:00:00"), True, "1 files of stored features of 2026-03-10 are gone")
    assert counted.since == at("2026-03-01 09:00:00")
    files_of(place, CLICKS, date(2026, 3, 11))[0].unlink()
    assert since(place, conf) == {"rescore": at("2026-03-12 09:00:00"), "recompute": at("2026-03-19 09:00:00")}
    files_of(place, CURRENT_DECISIONS, date(2026, 3, 20))[0].unlink()
    assert since(place, conf) == {"rescore": None, "recompute": None}


def test_a_month_billed_too_long_ago_is_out_of_reach(place: Place, conf: Config) -> None:
    """February closes on 7 March and can be corrected for 60 days: to 6 May. Its first hour is that of the zone furthest west."""
    assert [oldest_billed(conf, at(now)) for now in ("2026-05-06 23:59:58", "2026-05-07 00:00:01")] == [
        at("2026-02-01 05:00:00"),
        at("2026-03-01 05:00:00"),
    ]
    assert oldest_billed(conf, at("2026-03-08 00:00:00")) == at("2025-12-01 05:00:00")
    filled(place, conf, march(1, 20))
    late = [(one.since, one.why) for one in look(place, conf, at("2026-06-07 00:00:00")).modes]
    assert late == [(at("2026-04-01 04:00:00"), "older months were billed too long ago")] * 2


def test_history_ends_where_a_vacuum_ended_it(place: Place, conf: Config) -> None:
    """Rows of the newest commit are all there: a replay reaches as far as before, only older commits can't be read."""
    for days in (march(1, 10), march(5, 20)):
        filled(place, conf, days)
    before = since(place, conf)
    delta = DeltaTable(direct.path(place, CLICKS))
    delta.optimize.compact()
    assert history.kept(place, CLICKS, time="click_time").oldest[0] == 0
    assert direct.sweep(place, CLICKS, 100) == 0  # all of it is younger
    removed = DeltaTable(direct.path(place, CLICKS)).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert len(removed) == 12
    assert history.kept(place, CLICKS, time="click_time").oldest[0] == 3  # the commit that brought them together
    assert since(place, conf) == before
    assert look(place, conf, NOW).commits["clicks"][0] == 3


def test_history_begins_at_a_checkpoint_where_older_commits_are_gone(place: Place) -> None:
    for number in range(14):
        direct.add(place, CLICKS, [row(CLICKS, date(2026, 3, 1 + number))])
    log = Path(place.root, "clicks/_delta_log")
    assert history.kept(place, CLICKS, time="click_time").oldest[0] == 0
    checkpoint = int(next(log.glob("*.checkpoint.parquet")).name[:20])
    assert checkpoint > 2
    for number in range(3):
        (log / f"{number:020}.json").unlink()
    assert history.kept(place, CLICKS, time="click_time").oldest[0] == checkpoint
    torn = log / f"{4:020}.json"  # before the checkpoint, so that the newest commit can still be read
    torn.write_text(torn.read_text() + '{"remove"')
    with pytest.raises(InputError, match=f"expected a commit as JSON in _delta_log/{torn.name}, found"):
        history.kept(place, CLICKS, time="click_time")


def test_doctor_tells_it(tmp_path: Path, conf: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slidr.diagnosis.examine", lambda _: [])
    shell = Shell(tmp_path)
    assert [row["found"] for row in shell.json("doctor")["findings"]] == ["no clicks in the lake yet"]
    assert not Path(shell.place.root).exists()
    today = datetime.now(timezone.utc).date()
    days = [today - timedelta(days=back) for back in range(5)]
    filled(shell.place, conf, days)
    found = shell.json("doctor")["findings"]
    begins = f"{days[-1]} 09:00 UTC: the clicks begin there"
    assert [(row["what"], row["found"], row["fine"]) for row in found[:2]] == [
        ("oldest replayable hour, rescore", begins, "yes"),
        ("oldest replayable hour, recompute", begins, "yes"),
    ]
    assert found[2]["found"].startswith("clicks 0 of ")
    files_of(shell.place, CLICKS, days[2])[0].unlink()
    found = shell.json("doctor", code=75)["findings"]
    gone = f"1 files of clicks of {days[2]} are gone"
    assert [row["found"] for row in found[:2]] == [f"{days[1]} 09:00 UTC: {gone}", f"none: {gone}"]
    assert found[0]["fine"] == "NO"
