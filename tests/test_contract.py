"""A table that is no longer what its declaration says is refused, in one line, by whatever reads or writes it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, Schema

from slidr import contract, dictionary, direct, query, rewriting
from slidr.direct import Place
from slidr.errors import InputError
from slidr.lake import Lake
from slidr.tables import CLICKS, RUNS, Table
from tests.frames import at, click, frame
from tests.test_horizon import row
from tests.test_look import Shell

DAY = at("2026-03-01").date()
Fields = list[dict[str, Any]]


def retyped(fields: Fields) -> Fields:
    return [{**field, "type": "long"} if field["name"] == "exit_code" else field for field in fields]


def renamed(fields: Fields) -> Fields:
    return [{**field, "name": "Command"} if field["name"] == "command" else field for field in fields]


def dropped(fields: Fields) -> Fields:
    return [field for field in fields if field["name"] != "message"]


def stricter(fields: Fields) -> Fields:
    return [{**field, "nullable": False} if field["name"] == "message" else field for field in fields]


def same(fields: Fields) -> Fields:
    return fields


def gained(fields: Fields) -> Fields:
    return [*fields[::-1], {"name": "more", "type": "string", "nullable": True, "metadata": {}}]


DRIFTS: list[tuple[Callable[[Fields], Fields], dict[str, Any], str]] = [
    (retyped, {}, "column exit_code: expected int, found bigint"),
    (renamed, {}, "column command: expected string, found none"),
    (dropped, {}, "column message: expected string, found none"),
    (stricter, {}, "column message: expected that it may be declared NULL, found NOT NULL"),
    (same, {"partition_by": []}, "partition columns: expected run_date, found none"),
    (same, {"partition_by": ["run_date", "outcome"]}, "partition columns: expected run_date, found run_date, outcome"),
    (same, {"configuration": {"delta.enableDeletionVectors": "true"}}, "reader version: expected 1, found 3"),
]
IDS = [f"{change.__name__} {' '.join(given)}" for change, given, _ in DRIFTS]


def made(place: Place | Lake, change: Callable[[Fields], Fields], given: dict[str, Any], table: Table = RUNS) -> None:
    """The table, as somebody else made it."""
    schema = {"type": "struct", "fields": change(json.loads(table.schema.json())["fields"])}
    form = {"partition_by": list(table.partitions), "description": table.comment, **given}
    DeltaTable.create(f"{place.root}/{table.name}", Schema.from_json(json.dumps(schema)), **form)


def whole(told: str) -> str:
    return re.escape(f"table runs does not match its declaration: {told}; `slidr tables check` says what to do")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "lake"))


@pytest.mark.parametrize(("change", "given", "told"), DRIFTS, ids=IDS)
def test_each_drift_is_refused_without_spark(change: Any, given: dict[str, Any], told: str, place: Place) -> None:
    made(place, change, given)
    before = direct.facts(place, RUNS)
    ways: list[Callable[[], Any]] = [
        lambda: direct.read(place, RUNS),
        lambda: direct.add(place, RUNS, [row(RUNS, DAY)]),
        lambda: query.run(place, {"runs": RUNS}, "SELECT 1 FROM runs"),
    ]
    for way in ways:
        with pytest.raises(InputError, match=whole(told)):
            way()
    assert direct.facts(place, RUNS) == before
    assert told in dictionary.mismatches(RUNS, before)


def test_each_drift_is_refused_by_spark(lake: Lake) -> None:
    rows = frame(lake.spark, RUNS, [row(RUNS, DAY)])
    for number, (change, given, told) in enumerate(DRIFTS):
        other = Lake(lake.spark, f"{lake.root}/{number}")
        made(other, change, given)
        ways: list[Callable[[], Any]] = [
            lambda: other.read(RUNS),  # noqa: B023
            lambda: other.append(rows, RUNS),  # noqa: B023
        ]
        if number == 0:  # these go through the same look
            ways += [
                lambda: other.read_version(RUNS, 0),  # noqa: B023
                lambda: other.replace_days(rows, RUNS, [DAY]),  # noqa: B023
                lambda: rewriting.replace_rows(other, rows, RUNS, [DAY], ["message"], rows=1),  # noqa: B023
            ]
        for way in ways:
            with pytest.raises(InputError, match=whole(told)):
                way()
        assert direct.facts(other, RUNS).version == 0


def test_a_table_may_gain_columns_and_change_their_order(place: Place) -> None:
    made(place, gained, {})
    direct.add(place, RUNS, [row(RUNS, DAY)])
    assert direct.read(place, RUNS).rows == [row(RUNS, DAY)]
    assert contract.differences(RUNS, direct.facts(place, RUNS).shape) == []


def test_all_differences_are_told_at_once(place: Place) -> None:
    made(place, lambda fields: dropped(retyped(fields)), {"partition_by": []})
    found = contract.differences(RUNS, direct.facts(place, RUNS).shape)
    assert [text.split(":")[0] for text in found] == ["partition columns", "column exit_code", "column message"]


def test_a_lake_of_an_older_version_is_told_what_to_do_and_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns that may be NULL are added, where nothing else differs; rows that are there keep what they hold."""
    monkeypatch.setattr("slidr.session.build", lambda *_: pytest.fail("this command needs no Spark"))
    shell = Shell(tmp_path)
    old = [field for field in CLICKS.columns if field.name not in ("upstream_filter", "ip_key")]
    before = Table(CLICKS.name, CLICKS.comment, CLICKS.grain, CLICKS.partitions, tuple(old))
    direct.add(shell.place, before, [click("c1", at("2026-03-01"))])
    made(shell.place, dropped, {})
    message = shell.json("tables", "check", code=3)["message"]
    assert "clicks: column ip_key: expected string, found none" in message
    assert "`slidr tables upgrade` adds what may be NULL to clicks, runs" in message
    assert shell.json("tables", "upgrade")["added"] == {"clicks": ["ip_key", "upstream_filter"], "runs": ["message"]}
    assert shell.json("tables", "check")["tables"] >= 1
    assert shell.json("tables", "upgrade")["added"] == {}
    direct.add(shell.place, CLICKS, [click("c2", at("2026-03-01"), upstream_filter="rule")])
    rows = {row["click_id"]: (row["ip"], row["ip_key"], row["upstream_filter"]) for row in direct.read(shell.place, CLICKS).rows}
    assert rows == {"c1": ("192.0.2.1", None, None), "c2": ("192.0.2.1", "192.0.2.1", "rule")}


def test_what_can_only_be_written_anew_is_not_upgraded(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    made(shell.place, dropped, {})
    made(shell.place, lambda fields: [field for field in fields if field["name"] not in ("device", "ip_key")], {}, CLICKS)
    message = shell.json("tables", "upgrade", code=3)["message"]
    assert "clicks: column device: expected string, found none" in message
    assert "such a table must be written anew" in message
    assert direct.facts(shell.place, CLICKS).version == 0


def test_a_command_whose_run_cannot_be_recorded_does_not_end_as_done(tmp_path: Path) -> None:
    """What it did stands, and is in its `run_result.json`."""
    shell = Shell(tmp_path)
    direct.create(shell.place, CLICKS)
    made(shell.place, retyped, {})
    found = shell.json("sql", "SELECT count(*) AS n FROM clicks", code=3)
    assert (found["rows"], found["exit_code"]) == ([{"n": 0}], 3)
    assert re.search(whole("column exit_code: expected int, found bigint"), found["message"])
    kept = json.loads((tmp_path / "work" / "runs" / found["run_id"] / "run_result.json").read_text())
    assert (kept["exit_code"], kept["message"], kept["counts"]) == (3, found["message"], {"count": 1})
