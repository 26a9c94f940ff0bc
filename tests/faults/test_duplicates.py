"""A click delivered more than once, late, or by a clock that is wrong."""

from itertools import permutations
from pathlib import Path

import pytest

from slidr.config import Config
from slidr.lake import Lake
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS, REJECTS
from tests.commands import World
from tests.faults.shop import WINDOW
from tests.faults.summary import SURVIVED
from tests.foreign import row, run, write_csv

COPIES = {
    "first": {"arrival_time": "2026-03-01T10:00:05Z"},
    "same": {"arrival_time": "2026-03-01T10:00:05Z"},
    "later": {"arrival_time": "2026-03-02T10:00:00Z"},
    "dearer": {"arrival_time": "2026-03-01T10:00:06Z", "cost_micros": "260000"},
}


@pytest.mark.fault(
    "one click four times: the same, of another arrival, of another cost, in files of any order",
    "the earliest arrival stays, the other cost is a conflict in `rejects`; the order of files changes nothing",
    ends=SURVIVED,
)
@pytest.mark.slow
def test_copies_in_any_order(lake: Lake, conf: Config, tmp_path: Path) -> None:
    for number, order in enumerate(list(permutations(COPIES))[::5]):
        own = Lake(lake.spark, f"{lake.root}-{number}")
        files = [write_csv(tmp_path / f"{number}-{place}.csv", [row(**COPIES[name])]) for place, name in enumerate(order)]
        total = run(own, "canonical", files, conf).total("clicks")
        assert (total.rows_in, total.written, total.already_there) == (4, 1, 2), order
        assert total.rejects == {"conflicting_duplicate": 1}, order
        (kept,) = own.read(CLICKS).collect()
        assert (kept.cost_micros, kept.arrival_time.second) == (250000, 5), order
        assert '"260000"' in own.read(REJECTS).collect()[0].raw, order


@pytest.mark.fault("the same copies under the jobs behind", "one decision, one published state", ends=SURVIVED)
@pytest.mark.slow
def test_one_decision_for_all_copies(shop: World, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "copies.csv", [row(**changes) for changes in COPIES.values()])
    for _ in range(2):
        shop.ok("ingest", "--source", "canonical", file, code=10)
        shop.ok("features", *WINDOW)
        shop.ok("score", *WINDOW)
    assert shop.lake.read(DECISIONS).where("click_id = 'a'").count() == 1
    assert shop.lake.read(CURRENT_DECISIONS).where("click_id = 'a'").count() == 1


CLOCKS = {
    "on time": ("2026-03-01T10:00:01Z", None),
    "a clock ten minutes slow": ("2026-03-01T09:50:00.123456Z", None),
    "a clock more than that slow": ("2026-03-01T09:50:00.123455Z", "future_click"),
    "two months late": ("2026-04-30T10:00:00Z", None),
    "from the future": ("2026-05-01T00:10:01Z", "future_arrival"),
    "from another century": ("2126-03-01T10:00:00Z", "future_arrival"),
}


@pytest.mark.fault("late clicks, future clicks, clocks that are wrong", "within the tolerance clicks, else rejects", ends=SURVIVED)
@pytest.mark.slow
def test_wrong_clocks(lake: Lake, conf: Config, tmp_path: Path) -> None:
    rows = [row(click_id=name, arrival_time=arrival) for name, (arrival, _) in CLOCKS.items()]
    total = run(lake, "canonical", [write_csv(tmp_path / "clicks.csv", rows)], conf).total("clicks")
    reasons = [reason for _, reason in CLOCKS.values() if reason]
    assert total.rejects == {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    assert {r.click_id for r in lake.read(CLICKS).collect()} == {name for name, (_, reason) in CLOCKS.items() if not reason}
