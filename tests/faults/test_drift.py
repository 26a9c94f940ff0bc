"""A delivery whose columns moved: what the source can still mean is read, anything else is refused by name before a row is written."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slidr.config import Config
from slidr.errors import GuardrailError, InputError
from slidr.lake import Lake
from slidr.tables import CLICKS
from tests.faults.summary import REFUSED, SURVIVED
from tests.foreign import GOOD, row, run, write_csv

Rows = list[dict[str, Any]]
FORMATS = ("csv", "jsonl", "parquet")


def write(path: Path, rows: Rows) -> str:
    """The rows in the format of the path's ending, columns in the order of the first row."""
    if path.suffix == ".csv":
        return write_csv(path, rows, list(rows[0]))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in row().items() if key != name}


def renamed(old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in row().items()}


READ: dict[str, Callable[[], dict[str, Any]]] = {
    "a column added": lambda: {**row(), "brand_new": "x"},
    "columns in another order": lambda: dict(reversed(row().items())),
    "an optional column dropped": lambda: without("user_agent"),
    "money as text of a number": lambda: row(cost_micros="250000.0"),
}
TOLD: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "a required column dropped": (lambda: without("device"), "device"),
    "a column renamed": (lambda: renamed("device", "device_type"), "'device' .did the file mean 'device_type'"),
    "a column in another case": (lambda: renamed("click_id", "Click_ID"), "'click_id' .did the file mean 'Click_ID'"),
}


@pytest.mark.fault("a column added, moved, dropped where it is optional (csv, json, parquet)", "the same click", ends=SURVIVED)
@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_drift_that_means_the_same(format: str, lake: Lake, conf: Config, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.{format}", [{**made(), "click_id": f"c{n}"}]) for n, made in enumerate(READ.values())]
    total = run(lake, "canonical", files, conf).total("clicks")
    assert (total.written, total.rejected) == (len(READ), 0)
    kept = lake.read(CLICKS).select("cost_micros", "device", "user_id", "session_id", "advertiser_id").distinct().collect()
    assert [tuple(found) for found in kept] == [(250000, "mobile", "u1", "s1", "adv")]


@pytest.mark.fault(
    "a required column dropped, renamed, or in another case (csv, json, parquet)", "exit 3 that names it; no table", ends=REFUSED
)
@pytest.mark.slow
@pytest.mark.parametrize("change", TOLD)
@pytest.mark.parametrize("format", FORMATS)
def test_drift_that_is_refused(format: str, change: str, lake: Lake, conf: Config, tmp_path: Path) -> None:
    made, said = TOLD[change]
    with pytest.raises(InputError) as caught:
        run(lake, "canonical", [write(tmp_path / f"a.{format}", [made()])], conf)
    assert re.search(said, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert not lake.exists(CLICKS)


RETYPED: dict[str, tuple[Any, str]] = {
    "money with its currency": ({"cost_micros": "250000 USD"}, "not_a_number: cost_micros"),
    "another notation of times": ({"click_time": "01/03/2026 10:00"}, "not_a_time: click_time"),
    "words for booleans": ({"logged_in": "logged in"}, "not_a_boolean: logged_in"),
}


@pytest.mark.fault(
    "a column's values of another kind (csv, json, parquet)", "rejects with the column's name; above the bound exit 4", ends=REFUSED
)
@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_values_of_another_kind(format: str, lake: Lake, conf: Config, tmp_path: Path) -> None:
    rows = [{**row(click_id=f"c{n}"), **changes} for n, (changes, _) in enumerate(RETYPED.values())]
    file = write(tmp_path / f"a.{format}", [row(), *rows])
    with pytest.raises(GuardrailError, match="nothing was published"):
        run(lake, "canonical", [file], conf, share=0.5)
    assert not lake.exists(CLICKS)
    total = run(lake, "canonical", [file], conf, run_id="run-2").total("clicks")
    assert (total.written, total.rejects) == (1, dict.fromkeys(sorted(reason for _, reason in RETYPED.values()), 1))


PARQUET_TYPES = {
    "times as numbers": ("click_time", pa.array([1], pa.int64()), "click_time: expected a time or text"),
    "times as booleans": ("click_time", pa.array([True]), "click_time: expected a time or text"),
    "money as a list": ("cost_micros", pa.array([[1]]), "cost_micros: expected a number or text"),
    "money as bytes": ("cost_micros", pa.array([b"1"]), "cost_micros: expected a number or text"),
    "a structure": ("device", pa.array([{"a": 1}]), "device: expected a text"),
    "nanoseconds": ("click_time", pa.array([1], pa.timestamp("ns")), "write its times with microseconds"),
}


@pytest.mark.fault(
    "a Parquet column retyped; files of one delivery with types that don't fit together", "exit 3 that says so", ends=REFUSED
)
@pytest.mark.slow
@pytest.mark.parametrize("name", [*PARQUET_TYPES, "two types"])
def test_parquet_types(name: str, lake: Lake, conf: Config, tmp_path: Path) -> None:
    table = pa.Table.from_pylist([GOOD])
    if name == "two types":
        pq.write_table(table, tmp_path / "a.parquet")
        column, values, said = "cost_micros", pa.array([1.5]), "one schema"
    else:
        column, values, said = PARQUET_TYPES[name]
    changed = table.set_column(table.column_names.index(column), column, values)
    pq.write_table(changed, tmp_path / "b.parquet", version="2.6")
    with pytest.raises(InputError) as caught:
        run(lake, "canonical", [str(tmp_path)], conf)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


LINE = '192.0.2.1 - - [01/Mar/2026:10:00:00 +0100] "GET /shop/a HTTP/1.1" 200 17 "-" "Agent \\"x\\" 1"'
LOGS = {
    "without referer and agent": '192.0.2.1 - - [01/Mar/2026:10:00:00 +0100] "GET / HTTP/1.1" 200 17',
    "a column added": LINE + " 0.123",
    "another order": '"GET / HTTP/1.1" 200 17 192.0.2.1 - - [01/Mar/2026:10:00:00 +0100] "-" "Agent"',
    "no format at all": '{"host": "192.0.2.1"}',
    "1 MB and no end": '192.0.2.1 - - [01/Mar/2026:10:00:00 +0100] "GET /' + "a" * (1 << 20),
}
TIMES = {"no such time": "31/Feb/2026:10:00:00 +0100", "another language": "01/Mär/2026:10:00:00 +0100", "no zone": "01/Mar/2026:10:00:00"}


@pytest.mark.fault(
    "an access log in another format, order, with cut or 1 MB lines, with times that are none",
    "rejects; the good lines stay",
    ends=SURVIVED,
)
@pytest.mark.slow
def test_access_logs(lake: Lake, conf: Config, tmp_path: Path) -> None:
    wrong = [LINE.replace("01/Mar/2026:10:00:00 +0100", text) for text in TIMES.values()]
    odd = LINE.replace("Agent", "A\\x22" + "z" * (1 << 20))
    path = tmp_path / "access.log"
    path.write_bytes("\n".join([LINE, odd, *LOGS.values(), *wrong]).encode() + b"\n\xff\xfe\n")
    total = run(lake, "apache_access", [str(path)], conf).total("clicks")
    assert total.rejects == {"malformed": len(LOGS) + 1, "not_a_time: click_time": len(TIMES)}
    assert total.written == 2
    path.write_text("\n".join([LINE.replace("Agent", "B"), *LOGS.values()]) + "\n")
    with pytest.raises(GuardrailError, match="malformed: 5"):
        run(lake, "apache_access", [str(path)], conf, run_id="run-2", share=0.01)
