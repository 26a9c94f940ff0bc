"""The ready queries: known answers, the same answers on Spark and on DuckDB, and the page that shows them."""

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from slidr import answers, config, dictionary, direct, query, ready
from slidr.config import Config
from slidr.direct import Place
from slidr.errors import UsageError
from slidr.replay.stack import Applied
from slidr.tables import ALL, CLICKS, CORRECTIONS, DECISIONS, REPLAY_DECISIONS, REPLAYS
from tests import decided, histories, pages
from tests.decided import BACK, BACK_TIME, CLICKED, R1, R2
from tests.frames import at, frame
from tests.oracles_replay import rerun

NOW = at("2026-06-01")
GIVEN = {
    "why_click": {"click_id": "c07"},
    "replay_changes": {"replay_id": R1},
    "model_against_model": {"a": "1", "b": "2"},
    "as_known_at": {"at": "2026-04-03T12:00:00+02:00"},
    "unusual_advertisers": {"min_clicks": "1"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(str(tmp_path_factory.mktemp("decided") / "lake"))
    decided.fill(place)
    return place


def asked(place: Place, name: str, **given: str) -> list[dict[str, Any]]:
    one = ready.load(name)
    tables = dictionary.named(config.load(config.shipped("local.yaml")).spec)
    return answers.rows(query.run(place, tables, one.sql, one.values(given)))


def test_a_statement_adds_up(place: Place) -> None:
    rows = asked(place, "statement")
    assert [tuple(row.values()) for row in rows] == [
        # month, advertiser, currency, clicks, without price, gross, givt, sivt at once, sivt later, net, undecided clicks and micros
        ("2026-03", "adv-1", "USD", 7, 2, 1_800, 300, 900, -700, 1_300, 0, 0),
        ("2026-03", "adv-2", "EUR", 3, 0, 6_300, 0, 0, 5_200, 1_100, 2, 3_000),
        ("2026-03", "adv-3", "USD", 1, 1, None, None, None, 0, None, 0, 0),
        ("2026-04", "adv-2", "EUR", 1, 0, 1_900, 0, 1_900, 0, 0, 0, 0),
    ]
    assert asked(place, "statement", month="2026-04") == rows[3:]
    assert asked(place, "statement", advertiser="adv-2") == [rows[1], rows[3]]
    assert asked(place, "statement", month="2026") == asked(place, "statement", advertiser="adv_2") == []


def test_net_is_the_price_of_what_is_valid_now(place: Place) -> None:
    state, rows = decided.published()[1], asked(place, "statement")
    valid = [row["cost_micros"] or 0 for name, row in CLICKED.items() if name in state and not state[name]["is_invalid"]]
    assert sum(row["net_micros"] or 0 for row in rows) == sum(valid)
    assert sum(row["undecided_micros"] for row in rows) == sum(row["cost_micros"] for name, row in CLICKED.items() if name not in state)


def test_a_click_tells_its_story(place: Place) -> None:
    rows = asked(place, "why_click", click_id="c07")
    told = [(row["event"], row["is_invalid"], row["replay_id"], row["score"]) for row in rows]
    assert told == [("decided", False, None, 0.125), ("invalidate", True, R1, 0.75), ("reinstate", False, BACK, 0.125)]
    reasons = [(row["reason_class"], row["reason_1"]) for row in rows]
    assert reasons == [(None, None), ("rate", "ip: 412 clicks in 1 h"), ("reverted", None)]
    assert asked(place, "why_click", click_id="c08") == []


def test_what_was_known_at_a_time(place: Place) -> None:
    def known(time: str) -> dict[str, bool]:
        return {row["click_id"]: row["is_invalid"] for row in asked(place, "as_known_at", at=time)}

    firsts = {name: decided.first(name)["is_invalid"] for name in CLICKED if name not in decided.UNDECIDED}
    assert known("2026-04-02T01:00:00Z") == {}
    assert known("2026-04-03T00:30:00+01:00") == firsts  # half an hour before R1 in UTC
    assert known("2026-04-03T00:00:00Z") == firsts | {"c05": True, "c07": True, "c09": True}
    assert known("2026-05-01T00:00:00Z") == {name: row["is_invalid"] for name, row in decided.published()[1].items()}


def test_a_first_decision_counts_once_a_replay_has_taken_its_own_back(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "lake"))
    decided.fill(place)
    late = decided.first("c09") | {"is_invalid": True, "model_version": "1", "decided_time": BACK_TIME + timedelta(hours=1)}
    direct.add(place, DECISIONS, [late])

    def known(after: timedelta) -> list[tuple[bool, str | None]]:
        rows = asked(place, "as_known_at", at=(BACK_TIME + after).isoformat())
        return [(row["is_invalid"], row["model_version"]) for row in rows if row["click_id"] == "c09"]

    assert known(timedelta(minutes=-1)) == [(True, "2")]
    assert known(timedelta(minutes=1)) == []
    assert known(timedelta(hours=1)) == [(True, "1")]


@pytest.mark.parametrize("seed", range(3))
def test_what_was_known_is_the_published_state_of_that_time(seed: int, tmp_path: Path) -> None:
    """Through random replays and reverts of each other, many of them the first to decide a click."""
    history, place, minute = histories.made(seed), Place(str(tmp_path / "lake")), timedelta(minutes=1)
    firsts: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    log: list[dict[str, Any]] = []
    done: list[Applied] = []
    for number, event in enumerate(history.events):
        time = NOW + number * minute
        if event[0] == "first":
            firsts.append(histories.decision(history.clicks[event[1]], event[2], "sivt", time))
            continue
        reverts = event[2] if event[0] == "revert" else None
        log.append(decided.applied(event[1], time, done, reverts))
        done.append(Applied(event[1], reverts))
        if not reverts:
            verdicts += [decided.replayed(event[1], history.clicks[name], said) for name, said in event[2].items()]
    for table, rows in {CLICKS: list(history.clicks.values()), DECISIONS: firsts, REPLAY_DECISIONS: verdicts, REPLAYS: log}.items():
        histories.add(place, table, rows)
    direct.create(place, CORRECTIONS)
    for number in (*range(0, len(history.events), 12), len(history.events) - 1):
        rows = asked(place, "as_known_at", at=(NOW + number * minute).isoformat())
        known = {row["click_id"]: (row["is_invalid"], row["corrected_by"] or "first") for row in rows}
        assert known == rerun(history.events[: number + 1])
        assert len(known) == len(rows)


def test_models_are_compared_on_clicks_that_both_decided(place: Place) -> None:
    rows = [tuple(row.values()) for row in asked(place, "model_against_model", a="1", b="2")]
    assert rows == [("2026-03-10", 3, 1, 3, 0, 2, 1, 1, 1), ("2026-03-11", 3, 1, 2, 1, 2, 0, 0, 0)]
    beside = [tuple(row.values()) for row in asked(place, "model_against_model", a="1", b="3")]
    assert beside == [("2026-03-10", 3, 1, 1, 1, 1, 1, 1, 0)]


def test_rates_pool_versions_and_currencies(place: Place) -> None:
    pooled, young = asked(place, "slice_rates")
    assert (pooled["clicks"], pooled["ivr"], pooled["fpr"], pooled["robotic_coverage"]) == (30, 0.3, 0.25, None)
    assert (young["hour"], young["ivr"], young["purchasing"], young["fpr"]) == (13, 0.0, None, None)


def test_the_rest_in_a_line_each(place: Place) -> None:
    assert [row["click_id"] for row in asked(place, "false_positive_suspects")] == ["c02"]
    rates = {row["click_date"]: (row["clicks"], row["undecided"], row["by_replay"]) for row in asked(place, "decision_rate")}
    assert rates == {"2026-03-10": (8, 2, 0), "2026-03-11": (5, 0, 4), "2026-03-31": (1, 0, 0)}
    tops = [(row["ip_key"], row["clicks"], row["invalid"], row["givt"]) for row in asked(place, "top_addresses", rows="1")]
    assert tops == [("192.0.2.1", 7, 4, 1)]
    changed = [
        (row["event"], row["currency"], row["clicks"], row["delta_cost_micros"]) for row in asked(place, "replay_changes", replay_id=R1)
    ]
    assert changed == [
        ("published", "USD", 1, -500),
        ("published", "EUR", 2, -2_800),
        ("reverted", "USD", 1, 500),
        ("reverted", "EUR", 2, 2_800),
    ]
    assert [row["without_price"] for row in asked(place, "replay_changes", replay_id=R2)] == [1, 0, 0]
    assert {row["advertiser_id"]: row["invalid"] for row in asked(place, "unusual_advertisers", min_clicks="2")} == {"adv-1": 3, "adv-2": 3}


@pytest.fixture(scope="module")
def views(place: Place, spark: SparkSession) -> SparkSession:
    """The tables' rows as views: that Spark reads the files too is tests/test_readers.py's matter."""
    for table in ALL:
        rows = direct.read(place, table).rows if direct.exists(place, table) else []
        frame(spark, table, rows).createOrReplaceTempView(table.name)
    return spark


def _aware(value: Any) -> Any:
    return value.replace(tzinfo=timezone.utc) if isinstance(value, datetime) else value


@pytest.mark.parametrize("name", ready.NAMES)
def test_spark_answers_alike(name: str, place: Place, views: SparkSession) -> None:
    one, given = ready.load(name), GIVEN.get(name, {})
    found = views.sql(one.sql.replace("$", ":"), args=one.values(given))
    rows = [{key: answers._value(_aware(value)) for key, value in row.asDict().items()} for row in found.collect()]
    wanted = asked(place, name, **given)
    assert wanted
    assert list(found.columns) == list(wanted[0])
    assert rows == [{key: pytest.approx(value) if isinstance(value, float) else value for key, value in row.items()} for row in wanted]


def test_every_query_says_what_it_answers_and_what_it_wants() -> None:
    folder = Path(ready.__file__).parent
    assert {path.stem for path in folder.glob("*.sql")} == set(ready.NAMES)
    for one in ready.every():
        assert len(one.answers) > 40, one.name
        assert {p.name for p in one.parameters} == set(pages.wanted(one.sql)), one.name


def test_values_that_are_missing_or_unknown_are_named() -> None:
    with pytest.raises(UsageError, match="query why_click: expected the parameters click_id, found no click_id and an unknown click;"):
        ready.load("why_click").values({"click": "c"})
    with pytest.raises(UsageError, match="did you mean statement"):
        ready.load("statment")


def test_the_pages_are_up_to_date(conf: Config) -> None:
    assert pages.QUERIES.read_text(encoding="utf-8") == pages.queries(), "run `python -m tests.pages`"
    assert pages.TABLES.read_text(encoding="utf-8") == dictionary.markdown(list(dictionary.named(conf.spec).values()))
