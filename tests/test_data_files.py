"""Files that tasks write, and the commits that name them, without Spark."""

import json
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slidr import data_files, direct, new_files
from slidr.data_files import Files
from slidr.direct import Place
from slidr.errors import ConflictError
from slidr.new_files import Target, Writer, Written
from slidr.tables import features_table
from tests.frames import at
from tests.worlds import SPEC

TABLE = features_table(SPEC)
DAYS = [date(2026, 3, 1), date(2026, 3, 2)]
SCHEMA = pa.schema([field for field in data_files.schema(TABLE) if field.name not in TABLE.partitions])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    direct.create(Place(str(tmp_path)), TABLE)
    return Place(str(tmp_path))


def rows(day: date, *numbers: int) -> pa.Table:
    """Clicks of a day, one a minute."""
    start = at(day.isoformat())
    zeros = dict.fromkeys(SCHEMA.names, 0)
    made = [{**zeros, "click_id": f"c{number:03d}", "click_time": start + timedelta(minutes=number)} for number in numbers]
    return pa.Table.from_pylist(made, schema=SCHEMA)


def target(place: Place, origin: str = "then") -> Target:
    return Target(direct.path(place, TABLE), TABLE, (("origin", origin),))


def replaced(place: Place, origin: str, *tables: tuple[date, pa.Table], before: Files | None = None) -> list[Written]:
    known = before or data_files.of(place, TABLE, DAYS, origin=origin)
    with Writer(target(place, origin)) as writer:
        for day, made in tables:
            writer.add(made, day)
        written = writer.finish()
    data_files.replace_days(place, target(place, origin), known, DAYS, written)
    return written


def ids(place: Place, **fixed: str) -> list[str]:
    return sorted(data_files.of(place, TABLE, **fixed).dataset().to_table(columns=["click_id"])["click_id"].to_pylist())


@pytest.mark.parametrize("waiting", [128 << 20, 1])
def test_rows_that_come_in_any_order_are_one_file_a_day(place: Place, monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    monkeypatch.setattr(new_files, "WAITING", waiting)
    parts = [(DAYS[0], rows(DAYS[0], 2, 1)), (DAYS[1], rows(DAYS[1], 9)), (DAYS[0], rows(DAYS[0], 7))]
    written = replaced(place, "then", *parts)
    assert [(file.day, file.rows) for file in written] == [(DAYS[0], 3), (DAYS[1], 1)]
    assert ids(place) == ["c001", "c002", "c007", "c009"]
    path = Path(place.root, TABLE.name, written[0].path)
    assert (pq.ParquetFile(path).num_row_groups, path.stat().st_size) == (1 if waiting > 1 else 2, written[0].size)
    assert json.loads(written[0].stats) == {
        "numRecords": 3,
        "minValues": {"click_id": "c001", "click_time": "2026-03-01T00:01:00.000000Z"},
        "maxValues": {"click_id": "c007", "click_time": "2026-03-01T00:07:00.000000Z"},
        "nullCount": {"click_id": 0, "click_time": 0},
    }


def test_a_replacement_takes_the_place_of_its_days_and_origin_alone(place: Place) -> None:
    replaced(place, "then", (DAYS[0], rows(DAYS[0], 1)), (DAYS[1], rows(DAYS[1], 2)))
    replaced(place, "now", (DAYS[0], rows(DAYS[0], 3)))
    replaced(place, "now", (DAYS[0], rows(DAYS[0], 4, 5)))
    assert (ids(place, origin="then"), ids(place, origin="now")) == (["c001", "c002"], ["c004", "c005"])
    assert data_files.of(place, TABLE, [DAYS[1]]).files[0].values == (DAYS[1], "then")


def test_a_replacement_that_is_overtaken_is_refused(place: Place) -> None:
    before = data_files.of(place, TABLE, DAYS, origin="now")
    replaced(place, "then", (DAYS[0], rows(DAYS[0], 1)))  # another origin is another matter
    replaced(place, "now", (DAYS[0], rows(DAYS[0], 2)), before=before)
    with pytest.raises(ConflictError, match="run the command again"):
        replaced(place, "now", (DAYS[0], rows(DAYS[0], 3)), before=before)
    assert ids(place, origin="now") == ["c002"]


def test_what_is_not_finished_is_in_no_commit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_files, "WAITING", 1)
    with Writer(target(place)) as writer:
        writer.add(rows(DAYS[0], 1), DAYS[0])
    assert len(list(Path(place.root, TABLE.name).rglob("*.parquet"))) == 1
    assert ids(place) == []
