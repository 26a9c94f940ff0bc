"""One click explained: the tables' own facts, the score taken apart, in words that name no address and no account."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slidr import explain
from slidr.direct import Place
from slidr.errors import NothingToDoError
from slidr.lake import Lake
from slidr.replay.audit import Plan
from slidr.tables import CORRECTIONS, REPLAY_DECISIONS
from tests import worlds
from tests.test_replay import replay
from tests.worlds import DAYS, FIRST, SPEC


def place(lake: Lake) -> Place:
    return Place(lake.root)


@pytest.fixture
def replayed(world: Lake, loose) -> tuple[Lake, Plan]:
    return world, replay(world, loose, "2", allow_charges=True)[0]


def test_facts_are_those_of_the_tables(replayed: tuple[Lake, Plan]) -> None:
    world, plan = replayed
    changed = world.read(CORRECTIONS).where("old_model_version = '1'").orderBy("click_id").collect()[0]
    found = explain.facts(place(world), changed["click_id"], None)
    assert found == explain.facts(place(world), changed["click_id"], found.click["click_date"])
    assert found.first["model_version"] == "1"
    assert found.current["replay_id"] == plan.plan_id
    said = explain.history(found)
    assert [row["what"].split(",")[0] for row in said] == ["first decision", changed["direction"]]
    assert [row["version"] for row in said] == ["1", "2"]
    replayed_as = world.read(REPLAY_DECISIONS).where(f"click_id = '{changed['click_id']}'").collect()[0]
    assert said[1]["slice"] == replayed_as["slice"] != ""
    assert said[1]["reasons"] == (replayed_as["reason_1"] or "")
    assert any(row["reasons"] for row in said)
    assert [row["invalid"] for row in said] == [["no", "yes"][row] for row in (changed["old_is_invalid"], changed["new_is_invalid"])]


def test_neighbours_are_the_clicks_of_the_day_before(world: Lake) -> None:
    rows = worlds.made_clicks()
    target = rows[15]
    before = [row for row in rows if row["ip_key"] == target["ip_key"] and row["click_time"] < target["click_time"]]
    found = {row["whose"]: row for row in explain.facts(place(world), target["click_id"], None).around}
    address = found["address"]
    assert address["clicks"] == len(before) > 3
    assert address["last_hour"] == sum((target["click_time"] - row["click_time"]).total_seconds() <= 3600 for row in before) < len(before)
    assert (address["sessions"], address["accounts"]) == (len({row["session_id"] for row in before}), 0)
    assert 0 < address["invalid"] < len(before)
    assert set(found) == {"session", "address"}  # the click has no account


def test_words(world: Lake) -> None:
    def said(click_id: str) -> str:
        return explain.in_words(explain.facts(place(world), click_id, None))[0]

    assert said("c14") == "The click has no decision."
    assert "upstream filter had made it free (data centre)" in said(worlds.UPSTREAM[0])
    assert "is above the threshold 0.500000 of the slice" in said("c12")
    assert "is not above the threshold" in said("c00")
    assert said("c30").endswith("so decided the live system live-3, whose rules are not known here.")
    whole = " ".join(explain.in_words(explain.facts(place(world), "c13", None)))
    assert "192.0.2" not in whole
    assert "Its session made no click in the 24 hours before it." in whole


def test_an_unknown_click_is_told_so(world: Lake) -> None:
    with pytest.raises(NothingToDoError, match="in the lake"):
        explain.facts(place(world), "nobody' OR 1=1 --", None)
    with pytest.raises(NothingToDoError, match="2026-03-02"):
        explain.facts(place(world), "c00", DAYS[1])


def test_the_score_is_taken_apart_by_the_stored_features(world: Lake, tmp_path: Path) -> None:
    bundle = worlds.version("1").bundle
    found = explain.facts(place(world), "c13", None)
    features = explain.features_used(place(world), bundle, found.click)
    taken = explain.account(bundle, features)
    assert taken.score == found.first["score"]
    assert taken.base + sum(part.contribution for part in taken.parts) == pytest.approx(taken.logit)
    assert round(1 / (1 + np.exp(-taken.logit)), 6) == taken.score
    assert taken.parts[0].words.startswith("ip: ")
    assert [row["feature"] for row in taken.features] == list(bundle.features)
    assert [row["value"] for row in taken.features] == [None if np.isnan(value) else value for value in features[0]]
    assert taken.base + sum(row["adds to the logit"] for row in taken.features) == pytest.approx(taken.logit, abs=1e-3)
    assert [abs(part.contribution) for part in taken.parts] == sorted((abs(part.contribution) for part in taken.parts), reverse=True)
    explain.waterfall(taken, found.first["threshold"], tmp_path / "w.png")
    assert np.asarray(Image.open(tmp_path / "w.png").convert("L")).std() > 5
    assert explain.features_used(place(world), bundle, {"click_id": worlds.WITHOUT_FEATURES, "click_date": FIRST.date()}) is None
    other = replace(SPEC, logged_in=not SPEC.logged_in)
    assert explain.features_used(place(world), replace(bundle, spec=other), found.click) is None  # no table of this spec
