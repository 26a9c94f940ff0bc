"""First decisions by the names of files: the same rows as Spark's own expressions, each click once, whatever is there already."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from slidr import data_files, deciding, direct, new_files, scoring
from slidr.bundle import Bundle
from slidr.config import Config
from slidr.deciding import scores
from slidr.deciding.verdict import verdicts
from slidr.errors import ConflictError, InputError, NothingToDoError
from slidr.features import counters
from slidr.lake import Lake
from slidr.replay import apply
from slidr.replay.plan import make_plan
from slidr.scoring import REASONS, USED
from slidr.slice_spec import LOGIN, SlicePart, SliceSpec
from slidr.slices import report_slice, slice_name
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS, Table, features_table
from tests import expressions, worlds
from tests.frames import click, frame
from tests.worlds import DAYS, END, FIRST, SECOND, SPEC, rows_of, state, version, versions_of

AT = datetime.fromisoformat("2026-03-04T00:00:00+00:00")
TABLES = (DECISIONS, CURRENT_DECISIONS)


@pytest.fixture
def undecided(world: Lake) -> Lake:
    """The world without decisions; what the live system logged on the second day differs from what was known then."""
    for table in TABLES:
        shutil.rmtree(world.path(table))
        world.create(table)
    logged = world.read(features_table(SPEC)).where("origin = 'logged'")
    world.append(logged.withColumns({"origin": F.lit("then"), "ip_clicks_1h": F.lit(900)}), features_table(SPEC))
    return world


def decide(lake: Lake, start: datetime = FIRST, end: datetime = END, number: str = "2") -> int:
    return deciding.decide(lake, version(number), start, end, run_id="r", decided_time=AT).new


def by_expressions(lake: Lake, number: str = "2") -> dict[Table, list]:
    features = counters.prefer_logged(lake.read(features_table(SPEC)))
    rows = expressions.decisions(lake.read(CLICKS), features, version(number).bundle, version=number, run_id="r", decided_time=AT)
    return {
        DECISIONS: sorted(map(tuple, rows.collect()), key=repr),
        CURRENT_DECISIONS: sorted(map(tuple, scoring.as_published(rows).collect()), key=repr),
    }


@pytest.mark.parametrize("rows_of_a_part", [500_000, 5])
def test_rows_are_those_of_the_expressions(undecided: Lake, monkeypatch: pytest.MonkeyPatch, rows_of_a_part: int) -> None:
    monkeypatch.setattr(deciding, "ROWS_OF_A_PART", rows_of_a_part)
    assert decide(undecided) == 32
    wanted = by_expressions(undecided)
    assert {table: rows_of(undecided, table) for table in TABLES} == wanted
    assert {row[DECISIONS.names.index("basis")] for row in wanted[DECISIONS]} == {"model", "no_features", "upstream"}
    files = data_files.of(undecided, DECISIONS).files
    assert len(files) == (2 if rows_of_a_part > 5 else 8)
    assert sum(file.rows or 0 for file in files) == 32


@pytest.mark.parametrize("only", [None, ["c04", "c18", "c20", "missing"]])
def test_scores_of_a_window_are_those_of_the_expressions(undecided: Lake, only: list[str] | None) -> None:
    bundle = replace(version("2").bundle, slices=SliceSpec((BY_DEVICE, SlicePart("ip_clicks_1h", cuts=(5.0,)))))
    start, end = FIRST + timedelta(hours=10, minutes=5), SECOND + timedelta(hours=10, minutes=20)
    files = data_files.of(undecided, features_table(SPEC))
    found = scores.of_window(undecided.spark, files, bundle, (start, end), None if only is None else pa.array(only))
    features = counters.prefer_logged(undecided.read(features_table(SPEC)))
    wanted = expressions.scores(features.where((F.col("click_time") >= start) & (F.col("click_time") < end)), bundle)
    wanted = wanted if only is None else wanted.where(F.col("click_id").isin(only))
    assert found.columns == wanted.columns
    assert sorted(map(tuple, found.collect()), key=repr) == sorted(map(tuple, wanted.collect()), key=repr)
    assert found.count() == (2 if only else 18)  # c20 is after the window


def test_a_window_decides_its_clicks_alone_and_a_second_run_nothing(undecided: Lake) -> None:
    start, end = FIRST + timedelta(hours=10, minutes=5), SECOND + timedelta(hours=10, minutes=20)  # both ends are times of clicks
    assert decide(undecided, start, end) == 15 + 4
    seen = {row[0] for row in rows_of(undecided, DECISIONS)}
    assert ("c00" in seen, "c01" in seen, "c19" in seen, "c20" in seen) == (False, True, True, False)
    before = versions_of(undecided, *TABLES)
    assert decide(undecided, start, end) == 0
    assert versions_of(undecided, *TABLES) == before
    assert decide(undecided) == 13
    assert {table: rows_of(undecided, table) for table in TABLES} == by_expressions(undecided)
    with pytest.raises(NothingToDoError, match="ingest"):
        decide(undecided, END, END + timedelta(days=1))


def test_of_all_tables_rows_of_the_window_alone_are_read(undecided: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of a day with 10^7 clicks costs an hour, in memory too."""
    decide(undecided, FIRST + timedelta(hours=10, minutes=10))
    works, run = [], deciding._run
    monkeypatch.setattr(deciding, "_run", lambda lake, work: works.append(work) or run(lake, work))
    decide(undecided, FIRST, FIRST + timedelta(hours=10, minutes=12))
    numbers = pa.RecordBatch.from_pydict({"number": range(len(works[0].reads))})
    ids: dict[str, set[str]] = {}
    for batch in works[0].read([numbers]):
        for moved in batch.to_pylist():
            ids.setdefault(moved["kind"], set()).update(pa.ipc.open_stream(moved["rows"]).read_all()["click_id"].to_pylist())
    assert set(ids) == {"click", "then 0", "decided", "published"}
    assert ids["click"] == {"c00", "c01", "c02"}
    assert all(found <= ids["click"] for found in ids.values())


def test_clicks_that_another_version_decided_stay_as_they_are(undecided: Lake) -> None:
    decide(undecided, FIRST, SECOND, "3")
    first = {row[0]: row for row in rows_of(undecided, DECISIONS)}
    decide(undecided)
    after = {row[0]: row for row in rows_of(undecided, DECISIONS)}
    assert len(after) == 32
    assert {name: after[name] for name in first} == first


def test_a_run_that_was_cut_off_between_its_commits_is_completed(undecided: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = data_files.commit

    def cut_off(lake: Lake, target: new_files.Target, *given: Any) -> None:
        if target.table is CURRENT_DECISIONS:
            raise KeyboardInterrupt
        commit(lake, target, *given)

    with monkeypatch.context() as patched:
        patched.setattr(data_files, "commit", cut_off)
        with pytest.raises(KeyboardInterrupt):
            decide(undecided, FIRST, SECOND)
    assert (len(rows_of(undecided, DECISIONS)), rows_of(undecided, CURRENT_DECISIONS)) == (16, [])
    assert decide(undecided) == 16
    assert {table: rows_of(undecided, table) for table in TABLES} == by_expressions(undecided)


def test_what_a_replay_decided_before_stays_published(world: Lake, loose: Config) -> None:
    """Three clicks of the world have no first decision; a replay decides them, then scoring does."""
    request = worlds.request(allow_charges=True)
    made = make_plan(world, request=request, version=version("3"), conf=loose, now=worlds.NOW, who=worlds.ANN)
    apply.apply_plan(world, plan_id=made.plan_id, version=version("3"), now=worlds.NOW, who=worlds.ANN)
    before = state(world)
    assert decide(world) == len(worlds.UNDECIDED)
    after = state(world)
    assert {name for name in after if after[name] != before[name]} == set(worlds.UNDECIDED)
    assert {name: row[:2] for name, row in after.items()} == {name: row[:2] for name, row in before.items()}
    assert all(first is not None for _, _, first in after.values())


def overtaken(monkeypatch: pytest.MonkeyPatch, other: Callable[[], object]) -> None:
    """Another writer commits while the tasks run."""
    run = deciding._run

    def slowly(*given: object) -> object:
        done = run(*given)  # type: ignore[arg-type]
        other()
        return done

    monkeypatch.setattr(deciding, "_run", slowly)


def test_another_writer_of_these_days_makes_it_fail_before_its_commit(undecided: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    live = worlds.decided(undecided, undecided.read(CLICKS).where("click_id = 'c20'"))
    overtaken(monkeypatch, lambda: undecided.append(live, DECISIONS))
    with pytest.raises(ConflictError, match=r"decisions at the same time.*run the command again"):
        decide(undecided)
    assert [row[0] for row in rows_of(undecided, DECISIONS)] == ["c20"]
    assert rows_of(undecided, CURRENT_DECISIONS) == []
    monkeypatch.undo()
    assert decide(undecided) == 31
    assert len(state(undecided)) == 32


def test_writers_of_other_days_do_not_stand_in_the_way(undecided: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that commits between the look at the days and the commit."""
    live = worlds.decided(undecided, undecided.read(CLICKS).where("click_id = 'c20'"))
    look, looks = data_files._live, []

    def interrupted(*given: object) -> object:
        found = look(*given)  # type: ignore[arg-type]
        looks.append(1)
        if len(looks) == 5:  # clicks, features, decisions, the published state; then the look before the first commit
            undecided.append(live, DECISIONS)
        return found

    monkeypatch.setattr(data_files, "_live", interrupted)
    assert decide(undecided, FIRST, SECOND) == 16
    monkeypatch.undo()
    assert len(rows_of(undecided, DECISIONS)) == 17
    assert len(state(undecided)) == 16


def test_files_say_their_extremes_and_spark_skips_by_them(undecided: Lake) -> None:
    decide(undecided, FIRST, FIRST + timedelta(hours=10, minutes=30))
    decide(undecided, FIRST, SECOND)
    late = undecided.read(DECISIONS).where(F.col("click_time") >= F.lit(FIRST + timedelta(hours=10, minutes=30)))
    assert late.count() == 10
    assert len(late.inputFiles()) == 1
    assert len(undecided.read(DECISIONS).inputFiles()) == 2


def test_a_null_where_none_is_allowed_writes_nothing(tmp_path: Path) -> None:
    direct.create(direct.Place(str(tmp_path)), CLICKS)
    row = {**click("a", FIRST), "device": None}
    rows = pa.Table.from_pylist([row], schema=data_files.schema(CLICKS)).drop_columns(["click_date"])
    with pytest.raises(InputError, match="table clicks: expected no NULL, found NULL in device"):
        new_files.Target(str(tmp_path / "clicks"), CLICKS).write(rows, DAYS[0])
    assert list((tmp_path / "clicks").glob("click_date*")) == []


def test_features_of_the_versions_spec_are_asked_for(undecided: Lake) -> None:
    shutil.rmtree(undecided.path(features_table(SPEC)))
    with pytest.raises(InputError, match=r"expected features of spec .* run `slidr features --from 2026-03-01 --to 2026-03-03`"):
        decide(undecided)
    assert rows_of(undecided, DECISIONS) == []


ODD = ["", "desktop", "a/b", "50%", "(none)", "(x)", "ü", "phone", None]
NUMBERS = [None, float("nan"), -1.0, 0.0, 1.0, 9.999, 10.0, 1e12]
BY_DEVICE = SlicePart("device", (("phone", "small"),))
SLICES = {
    "none": SliceSpec(()),
    "values": SliceSpec((BY_DEVICE, SlicePart("logged_in", LOGIN), SlicePart("campaign_id"))),
    "bands": SliceSpec((SlicePart("ip_clicks_1h", cuts=(1.0, 10.0)), SlicePart("marketplace"))),
}


@pytest.mark.parametrize("name", SLICES)
def test_verdicts_are_those_of_the_expressions(spark: SparkSession, name: str) -> None:
    """Odd values, NULLs and scores on the threshold; some of the slices are known."""
    random = np.random.default_rng(7)
    rows = [
        {
            **click(f"c{number}", FIRST),
            "device": ODD[random.integers(len(ODD))],
            "campaign_id": ODD[random.integers(len(ODD))],
            "marketplace": ODD[random.integers(len(ODD))],
            "logged_in": [True, False, None][random.integers(3)],
            "upstream_filter": [None, None, "data centre"][random.integers(3)],
        }
        for number in range(600)
    ]
    scores = [[None, 0.1, 0.3, 0.300001, 0.9][place] for place in random.integers(5, size=len(rows))]
    used = [NUMBERS[place] for place in random.integers(len(NUMBERS), size=len(rows))]
    texts = [[f"{reason} {number}" for reason in REASONS] for number in range(len(rows))]
    bundle = replace(version("2").bundle, slices=SLICES[name], thresholds={}, default_threshold=0.3)
    columns = {field: pa.array([row[field] for row in rows]) for field in CLICKS.names}
    columns |= {"score": pa.array(scores, pa.float64()), USED + "ip_clicks_1h": pa.array(used, pa.float64())}
    columns |= {reason: pa.array(list(values)) for reason, values in zip(REASONS, zip(*texts, strict=True), strict=True)}
    every = verdicts(columns, bundle)["slice"].unique().to_pylist()
    bundle = replace(bundle, thresholds=dict.fromkeys(every[::2], 0.1))
    found = verdicts(columns, bundle)
    assert found == expressed(spark, rows, scores, used, texts, bundle, list(found))
    assert len(every) > (1 if name != "none" else 0)


def expressed(spark: SparkSession, rows: list, scores: list, used: list, texts: list, bundle: Bundle, names: list[str]) -> dict:
    """The same by Spark's expressions, in the order of the rows."""
    more = spark.createDataFrame(
        [(row["click_id"], s, u, *t) for row, s, u, t in zip(rows, scores, used, texts, strict=True)],
        f"click_id string, score double, {USED}ip_clicks_1h double, " + ", ".join(f"{reason} string" for reason in REASONS),
    )
    scored = frame(spark, CLICKS, rows).join(more, on="click_id")
    named = scored.withColumns({"slice": slice_name(bundle.slices, features=USED), "report_slice": report_slice()})
    ivt_class = F.when(F.col("basis") == "upstream", "givt").when(F.col("is_invalid"), "sivt")
    judged = scoring.with_verdict(named, bundle).withColumn("ivt_class", ivt_class).withColumns(scoring._reasons_of_invalid())
    by_id = {row["click_id"]: row for row in judged.collect()}
    return {name: pa.array([by_id[row["click_id"]][name] for row in rows], verdicts_type(name)) for name in names}


def verdicts_type(name: str) -> pa.DataType:
    return data_files.schema(DECISIONS).field(name).type


def test_what_may_not_be_published_is_completed_by_the_next_run(undecided: Lake) -> None:
    """Refused at the start nothing is written; refused after `decisions` nothing of them is published."""
    for allowed, tables in ((0, ()), (1, (DECISIONS,))):
        left = [None] * allowed

        def may_publish(left: list[None] = left) -> None:
            if not left:
                raise ConflictError("not now")
            left.pop()

        before = versions_of(undecided, *TABLES)
        with pytest.raises(ConflictError, match="not now"):
            deciding.decide(undecided, version("2"), FIRST, END, run_id="r", decided_time=AT, may_publish=may_publish)
        assert {name for name, number in versions_of(undecided, *TABLES).items() if number > before[name]} == {t.name for t in tables}
    assert decide(undecided) == 0
    assert {table: rows_of(undecided, table) for table in TABLES} == by_expressions(undecided)
