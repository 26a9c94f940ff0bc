"""What a table's log may not say, each way that it can."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, Schema

from slidr import dictionary, direct
from slidr.direct import Place
from slidr.tables import DECISIONS, REJECTS


@pytest.fixture
def place(tmp_path: Path) -> Place:
    direct.create(Place(str(tmp_path)), REJECTS)
    return Place(str(tmp_path))


def test_a_table_as_we_make_it_is_fine(place: Place) -> None:
    assert dictionary.checked(place, {"rejects": REJECTS, "decisions": DECISIONS}) == {"rejects": []}


@pytest.mark.parametrize(
    ("moved", "told"),
    [
        ({"features": frozenset(["deletionVectors"])}, ["feature deletionVectors: expected absent, found present"]),
        ({"features": frozenset(["clustering", "appendOnly"])}, ["feature clustering: expected absent, found present"]),
        ({"properties": {"delta.columnMapping.mode": "name"}}, ["property delta.columnMapping.mode: expected none, found name"]),
        ({"properties": {"delta.checkpointPolicy": "v2"}}, ["property delta.checkpointPolicy: expected classic, found v2"]),
        ({"properties": {"delta.enableDeletionVectors": "true"}}, ["property delta.enableDeletionVectors: expected false, found true"]),
        ({"description": None}, ["comment of the table: expected Input rows"]),
    ],
)
def test_each_mismatch_is_told(place: Place, moved: dict[str, Any], told: list[str]) -> None:
    found = dictionary.mismatches(REJECTS, replace(direct.facts(place, REJECTS), **moved))
    assert len(found) == len(told)
    assert all(text.startswith(start) for text, start in zip(found, told, strict=True))


def test_deletion_vectors_that_somebody_switched_on_are_found(tmp_path: Path) -> None:
    """As delta-rs makes such a table: reader version 3, with the feature."""
    place = Place(str(tmp_path))
    DeltaTable.create(
        direct.path(place, REJECTS),
        Schema.from_json(REJECTS.schema.json()),
        partition_by=["reject_date"],
        description=REJECTS.comment,
        configuration={"delta.enableDeletionVectors": "true"},
    )
    found = dictionary.mismatches(REJECTS, direct.facts(place, REJECTS))
    assert "property delta.enableDeletionVectors: expected false, found true" in found
    assert "reader version: expected 1, found 3" in found
