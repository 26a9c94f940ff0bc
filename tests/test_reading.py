"""How clicks come to the counters: local minutes, hashes of keys, flags, and what is refused."""

from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slidr.errors import InputError
from slidr.features import reading
from slidr.features.cargo import LOGGED_IN, WANTED, Layout, Records, flag, minute_of_week, unpacked
from slidr.features.reading import Reading
from slidr.features.spec import SECOND
from slidr.zones import wall_clock
from tests.frames import EPOCH, at, click, click_files, day

KEYS = (("ip_key", ("ip_key",)), ("user_id", ("user_id",)), ("ip_key_user_agent", ("ip_key", "user_agent")))
LAYOUT = Layout(KEYS, (), arrival=True)
BUCKETS = (3, 5, 8)
ZONES = {"US": "America/New_York", "IN": "Asia/Kolkata"}
CLICKS = [
    click("a", at("2026-03-01 12:00:00"), user_id="u", arrival_time=at("2026-03-01 12:00:01")),
    click("b", at("2026-03-01 12:00:00"), user_id=None, user_agent=None),
    click("c", at("2026-03-02 12:00:00"), user_id="u", marketplace="IN"),
    click("d", at("2026-03-02 13:00:00"), user_id="192.0.2.1", ip_key=None),
]


def read(folder: Path, rows: list[dict], zones: dict[str, str] | None = ZONES, files: int = 1) -> dict[str, tuple[int, np.void]]:
    """click_id -> bucket and record."""
    found = click_files(folder, rows, files)
    task = Reading(found, LAYOUT, ("ip_key",), (day("2026-03-02"), day("2026-03-03")), zones, BUCKETS)
    numbers = pa.RecordBatch.from_pydict({"number": list(range(len(found.files)))})
    result = {}
    for batch in task.run([numbers]):
        for bucket, rows_ in zip(batch.column("bucket").to_pylist(), batch.column("rows"), strict=True):
            ids, records = unpacked(pa.array([rows_.as_py()], pa.binary()), LAYOUT)
            result |= {name: (bucket, record) for name, record in zip(ids.to_pylist(), records, strict=True)}
    return result


def records(found: dict[str, tuple[int, np.void]]) -> Records:
    return np.array([record for _, (_, record) in sorted(found.items())], dtype=LAYOUT.dtype)


def test_times_flags_and_local_minutes(tmp_path: Path) -> None:
    rows = records(read(tmp_path, CLICKS))
    assert rows["time"].tolist() == [int((c["click_time"] - EPOCH) / timedelta(microseconds=1)) for c in CLICKS]
    assert (rows["arrival"] - rows["time"]).tolist() == [SECOND, 0, 0, 0]
    assert flag(rows, WANTED).tolist() == [0, 0, 1, 1]
    assert flag(rows, LOGGED_IN).tolist() == [1, 0, 1, 1]
    sunday = 3 * 1440  # the week begins on Thursday
    assert minute_of_week(rows).tolist() == [sunday + 7 * 60, sunday + 7 * 60, sunday + 1440 + 17 * 60 + 30, sunday + 1440 + 8 * 60]
    assert minute_of_week(records(read(tmp_path / "without", CLICKS, zones=None))).tolist() == [0] * 4


def test_equal_keys_have_equal_hashes_and_unknown_ones_none(tmp_path: Path) -> None:
    """Whatever file they are in, and though text of one column is text of another."""
    found = read(tmp_path, CLICKS, files=2)
    rows = records(found)
    for name, known in (("ip_key", "abc"), ("user_id", "acd"), ("ip_key_user_agent", "ac")):
        for part in ("hash", "check"):
            assert [number for number, value in zip("abcd", rows[f"{part}_{name}"], strict=True) if value] == list(known), (part, name)
    assert len(set(rows["hash_ip_key"][:3])) == len(set(rows["check_ip_key"][:3])) == 1
    assert (rows["hash_user_id"][0], rows["check_user_id"][0]) == (rows["hash_user_id"][2], rows["check_user_id"][2])
    assert rows["hash_user_id"][0] != rows["hash_user_id"][3]
    assert rows["check_user_id"][0] != rows["check_user_id"][3]
    assert len({found[name][0] for name in "abc"}) == 1
    assert {bucket for bucket, _ in found.values()} <= set(BUCKETS)


def test_clicks_of_nobody_spread_though_their_times_are_round(tmp_path: Path) -> None:
    found = read(tmp_path, [click(f"{n:06}", at("2026-03-02") + timedelta(seconds=n), user_id=None, ip_key=None) for n in range(2_000)])
    counts = Counter(bucket for bucket, _ in found.values())
    assert set(counts) == set(BUCKETS)
    assert max(counts.values()) < 1.5 * 2_000 / len(BUCKETS)


def test_hash_and_check_say_different_things(tmp_path: Path) -> None:
    """Of many keys no two have one hash; the check, of half as many bits, does not follow from it."""
    rows = records(read(tmp_path, [click(f"{n:06}", at("2026-03-02"), ip_key=f"192.0.{n // 256}.{n % 256}") for n in range(20_000)]))
    assert len(set(rows["hash_ip_key"])) == len(rows)
    assert len(set(rows["check_ip_key"])) > 0.999 * len(rows)
    assert abs(np.corrcoef(rows["hash_ip_key"] & 0x7FFFFFFF, rows["check_ip_key"])[0, 1]) < 0.05


def test_many_rows_come_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(tmp_path / "whole", CLICKS)
    monkeypatch.setattr(reading, "ROWS_AT_A_TIME", 1)
    assert read(tmp_path / "parts", CLICKS) == whole


def test_a_marketplace_without_a_zone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a zone for marketplace BR, found IN, US"):
        read(tmp_path, [click("a", at("2026-03-02"), marketplace="BR")])


@given(
    st.lists(st.integers(-3_600 * 24, 3_600 * 24), min_size=1, max_size=20),
    st.datetimes(datetime(1975, 1, 1), datetime(2060, 1, 1)),
    st.sampled_from(["America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC", "America/Sao_Paulo"]),
)
def test_the_wall_clock_is_that_of_the_zone(seconds: list[int], around: datetime, zone: str) -> None:
    times = [around.replace(tzinfo=timezone.utc) + timedelta(seconds=step) for step in seconds]
    shown = [(time.astimezone(ZoneInfo(zone)).replace(tzinfo=timezone.utc) - EPOCH) // timedelta(microseconds=1) for time in times]
    micros = np.array([(time - EPOCH) // timedelta(microseconds=1) for time in times])
    assert wall_clock(micros, zone).tolist() == shown
    assert wall_clock(micros[:0], zone).tolist() == []
