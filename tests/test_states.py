"""The life of a version without any I/O: states folded from events, which version decided when, where a bundle may lie."""

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slidr.direct import ARROW
from slidr.errors import ModelRefusedError
from slidr.registry import states as life
from slidr.registry.places import artifact_root, require_inside
from slidr.registry.states import at, fold
from slidr.tables import MODEL_PROMOTIONS

NOW = datetime(2026, 3, 20, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
DOC = Path(__file__).parent.parent / "docs" / "models.md"


def events(*changes: tuple[str, str]) -> list[dict[str, Any]]:
    """One change an hour."""
    before: dict[str, str] = {}
    return [
        {
            "event_no": hour + 1,
            "model_version": version,
            "from_state": (before.get(version), before.update({version: to}))[0],
            "to_state": to,
            "bundle_sha256": f"sha-{version}",
            "metrics": "{}",
            "actor": f"actor-{hour}",
            "reason": "why",
            "event_time": NOW + hour * HOUR,
        }
        for hour, (version, to) in enumerate(changes)
    ]


PROVEN = (("1", "candidate"), ("1", "champion"), ("1", "stable"))
TWO = (*PROVEN, ("2", "candidate"), ("2", "champion"))


def test_states_follow_the_events() -> None:
    states = fold(events(*TWO))
    assert (states.champion, states.champions, states.newest_stable) == ("2", ("1", "2"), "1")
    assert states.state == {"1": "stable", "2": "champion"}
    assert (states.unproven(NOW + 4 * HOUR), states.unproven(NOW + 3 * HOUR)) == (["2"], [])
    assert {version: event["actor"] for version, event in states.given_by.items()} == {"1": "actor-2", "2": "actor-4"}


def asked(*changes: tuple[str, str], number: str) -> list[str]:
    """The states that a run without a person would give the version."""
    return [change.to_state for change in life.automatic(fold(events(*changes)), number, "auto")]


def test_a_run_promotes_the_newest_candidate_and_nothing_that_something_happened_after() -> None:
    assert asked(*TWO, ("3", "candidate"), number="3") == ["champion"]
    assert asked(*TWO, ("3", "candidate"), number="2") == []  # an old day run again
    assert asked(*TWO, ("3", "candidate"), ("4", "candidate"), number="3") == []
    assert asked(*TWO, ("3", "candidate"), ("1", "champion"), number="3") == []  # a person decided meanwhile
    assert asked(*TWO, ("3", "candidate"), ("3", "revoked"), number="3") == []
    assert asked(number="1") == []


@pytest.mark.parametrize("back", [(("2", "suspect"), ("1", "champion")), (("2", "revoked"),), (("2", "revoked"), ("1", "champion"))])
def test_after_a_champion_was_taken_back_a_person_promotes_the_next(back: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(ModelRefusedError, match="version 3 waits for a person: version 2 was taken back .actor-5.*promote by hand"):
        asked(*TWO, *back, ("3", "candidate"), number="3")
    by_hand = (*TWO, *back, ("3", "candidate"), ("3", "champion"), ("4", "candidate"))
    assert asked(*by_hand, number="4") == ["champion"]
    assert asked(*TWO, ("1", "revoked"), ("3", "candidate"), number="3") == ["champion"]  # it did not decide


def test_a_stable_version_that_decides_again_stays_stable() -> None:
    assert fold(events(*TWO, ("2", "suspect"))).champion is None
    states = fold(events(*PROVEN, ("1", "champion")))
    assert (states.champion, states.state["1"], states.given_by["1"]["event_no"]) == ("1", "stable", 3)


@pytest.mark.parametrize(
    ("history", "changes"),
    [
        ((*TWO, ("2", "stable")), [("2", "stable", "suspect"), ("1", "stable", "champion")]),
        ((*TWO, ("2", "stable"), ("1", "champion")), [("1", "stable", "suspect"), ("2", "stable", "champion")]),
        # 2 was champion last before 3, but nobody vouched for it
        ((*TWO, ("3", "candidate"), ("3", "champion")), [("3", "champion", "suspect"), ("1", "stable", "champion")]),
        ((*TWO, ("2", "revoked")), [("1", "stable", "champion")]),
    ],
)
def test_rollback_goes_to_the_stable_version_that_was_champion_last(history: tuple, changes: list) -> None:
    assert [change[:3] for change in life.rollback(fold(events(*history)), "bad")] == changes


def test_a_rollback_that_names_what_it_leaves_goes_back_once() -> None:
    back = fold(events(*TWO, ("2", "suspect"), ("1", "champion")))
    assert life.rollback(back, "bad", "2") == []
    with pytest.raises(ModelRefusedError, match="version 1 to decide now, found 2"):
        life.rollback(fold(events(*TWO)), "bad", "1")
    with pytest.raises(ModelRefusedError, match="stable version that was champion before 1"):
        life.rollback(back, "bad")


CHANGES = st.lists(
    st.tuples(st.sampled_from("123"), st.sampled_from(["candidate", "champion", "stable", "suspect", "revoked"])), max_size=12
)


@settings(deadline=None)
@given(changes=CHANGES, hours=st.floats(-1, 13))
def test_who_decided_at_a_time_is_one_query(changes: list[tuple[str, str]], hours: float) -> None:
    """The query in docs/models.md says the same as the function, at any time."""
    made, time = events(*changes), NOW + hours * HOUR
    query = re.search(r"```sql\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL).group(1)
    rows = [{**dict.fromkeys(MODEL_PROMOTIONS.names), **event} for event in made]
    schema = pa.schema([(c.name, ARROW[c.type]) for c in MODEL_PROMOTIONS.columns])
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.register("model_promotions", pa.Table.from_pylist(rows, schema=schema))
        found = db.execute(query.replace("2026-03-20 12:00:00+00:00", time.isoformat(sep=" "))).fetchall()
    assert found == ([(at(made, time).champion,)] if at(made, time).champion else [])


def test_the_fold_up_to_now_is_the_fold() -> None:
    assert at(events(*TWO), NOW + 100 * HOUR) == fold(events(*TWO))
    assert at(events(*TWO), NOW + HOUR).champion == "1"  # the instant of the event counts
    assert at(events(*TWO), NOW + HOUR - timedelta(microseconds=1)).champion is None


OUTSIDE = [
    "file:///etc/bundle",
    "file:///store/../secret/bundle",
    "file:///store/%2e%2e/secret/bundle",
    "file:///store/%252e%252e/secret/bundle",
    "file:///store/./bundle",
    "file:///store//bundle",
    "file:///store/x#y",
    "file:///store/x?y",
    "file:///store",
    "file:///storehouse/bundle",
    "file://host/store/bundle",
    "http://elsewhere/store/bundle",
    "s3://bucket/store/bundle",
    "mlflow-artifacts:/store/bundle",
    "/store/bundle",
    "",
]


@pytest.mark.parametrize("source", OUTSIDE)
def test_no_bundle_is_fetched_from_outside_the_root(source: str) -> None:
    with pytest.raises(ModelRefusedError, match="nothing was read"):
        require_inside("file:///store", source)


@pytest.mark.parametrize(
    ("root", "inside", "outside"),
    [
        ("s3://bucket/slidr", "s3://bucket/slidr/1/artifacts/bundle", "s3://other/slidr/1/artifacts/bundle"),
        ("s3://bucket/slidr/", "s3://bucket/slidr/1/bundle", "s3://bucket/slidr/../else/bundle"),
        ("mlflow-artifacts:/", "mlflow-artifacts:/1/artifacts/bundle", "mlflow-artifacts:/1/../../bundle"),
        ("mlflow-artifacts:/slidr", "mlflow-artifacts:/slidr/1/bundle", "mlflow-artifacts:/other/1/bundle"),
        ("mlflow-artifacts:/slidr", "mlflow-artifacts:/slidr/1/bundle", "mlflow-artifacts://elsewhere:5000/slidr/1/bundle"),
        ("mlflow-artifacts:/slidr", "mlflow-artifacts:/slidr/1/bundle", "file:///slidr/1/bundle"),
        ("file:///a%20store", "file:///a%20store/bundle", "file:///a/bundle"),
    ],
)
def test_places_of_other_stores(root: str, inside: str, outside: str) -> None:
    require_inside(root, inside)
    with pytest.raises(ModelRefusedError):
        require_inside(root, outside)


def test_a_link_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path / "secret")
    root = artifact_root(str(tmp_path / "store"))
    require_inside(root, f"{root}/bundle")
    with pytest.raises(ModelRefusedError):
        require_inside(root, f"{root}/link")
