"""The feature spec: names, validation, identity."""

import json

import pytest

from slidr.config import Config
from slidr.errors import ConfigError
from slidr.features.spec import FeatureSpec, micros

VALID = {
    "entities": {"user": ["user_id"], "ip": ["ip_key"]},
    "counters": [
        {"entity": "user", "measure": "clicks", "windows": ["1h", "24h"]},
        {"entity": "ip", "measure": "users", "distinct": "user_id", "windows": ["1h"]},
        {"entity": "ip", "measure": "since_prev", "windows": ["7d"]},
    ],
    "time_of_click": True,
    "logged_in": True,
}


def test_names_and_types_come_from_the_spec() -> None:
    columns = {c.name: c.type for c in FeatureSpec.from_dict(VALID).columns}
    assert columns == {
        "user_clicks_1h": "int",
        "user_clicks_24h": "int",
        "ip_users_1h": "int",
        "ip_since_prev": "double",
        "hour_sin": "double",
        "hour_cos": "double",
        "weekday_sin": "double",
        "weekday_cos": "double",
        "logged_in": "int",
    }


def test_the_default_spec_has_the_documented_features(conf: Config) -> None:
    names = [c.name for c in conf.spec.columns]
    assert len(names) == 4 * 6 + 4 + 6 + 4 + 1
    assert {"session_clicks_10m", "ip_ua_since_prev", "ip_sessions_7d", "ip_users_24h"} <= set(names)


def test_json_and_back_is_the_same_spec() -> None:
    spec = FeatureSpec.from_dict(VALID)
    assert FeatureSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_the_id_changes_with_the_meaning_only() -> None:
    spec = FeatureSpec.from_dict(VALID)
    other = FeatureSpec.from_dict({**VALID, "logged_in": False})
    assert spec.spec_id == FeatureSpec.from_dict(dict(reversed(VALID.items()))).spec_id != other.spec_id
    entities = {"session": ["session_id"], "ip": ["ip_key"], "user": ["user_id"]}  # another order, and one that nothing counts
    assert FeatureSpec.from_dict({**VALID, "entities": entities}).spec_id == spec.spec_id
    pair = {**VALID, "entities": {"user": ["user_id"], "ip": ["ip_key", "user_agent"]}}
    turned = {**VALID, "entities": {"user": ["user_id"], "ip": ["user_agent", "ip_key"]}}
    assert FeatureSpec.from_dict(pair).spec_id == FeatureSpec.from_dict(turned).spec_id != spec.spec_id
    assert FeatureSpec.from_dict({**VALID, "counters": VALID["counters"][::-1]}).spec_id != spec.spec_id  # its columns stand otherwise


def test_another_revision_is_refused() -> None:
    with pytest.raises(ConfigError, match="revision 2"):
        FeatureSpec.from_dict({**VALID, "revision": 2})


@pytest.mark.parametrize(
    ("counter", "message"),
    [
        ({"entity": "host", "measure": "clicks", "windows": ["1h"]}, "unknown entity 'host'"),
        ({"entity": "user", "measure": "clicks", "windows": ["0m"]}, "found '0m'"),
        ({"entity": "user", "measure": "clicks", "windows": ["1h"]}, "listed twice"),
        ({"entity": "user", "measure": "agents", "windows": ["1h"]}, "expected `distinct`"),
        ({"entity": "user", "measure": "clicks", "distinct": "ip", "windows": ["6h"]}, "takes no `distinct`"),
        ({"entity": "user", "measure": "since_prev", "windows": ["1h", "2h"]}, "expected one window"),
        ({"entity": "user", "measure": "clicks", "window": "1h"}, r"counters\.3\.window"),
        ({"entity": "user", "measure": "clicks", "windows": "6h"}, r"counters\.3\.windows"),
        ({"entity": "user", "measure": "clicks", "windows": [6]}, r"counters\.3\.windows\.0"),
        ({"entity": "user", "measure": "clicks", "windows": None}, r"counters\.3\.windows"),
        ({"entity": "user", "measure": "clicks", "windows": []}, "no windows"),
        (None, r"counters\.3"),
    ],
)
def test_mistakes_are_named(counter: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FeatureSpec.from_dict({**VALID, "counters": [*VALID["counters"], counter]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"entities": None}, "entities"),
        ({"entities": [["user", ["user_id"]], ["ip", ["ip_key"]], ["ip", ["ip"]]]}, "entity 'ip' is listed twice"),
        ({"entities": {**VALID["entities"], "agent": "user_agent"}}, "entities"),
        ({"entities": {**VALID["entities"], "agent": ["user_agent", "user_agent"]}}, "each column once"),
        ({"entities": {**VALID["entities"], "agent": []}}, "entity 'agent'"),
        ({"counters": None}, "counters"),
        ({"counters": {}}, "counters"),
        ({"logged_in": "no"}, "logged_in"),
        ({"time_of_click": 1}, "time_of_click"),
        ({"revision": "1"}, "revision"),
        ({"measures": []}, "measures"),
    ],
)
def test_a_spec_of_another_shape_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FeatureSpec.from_dict({**VALID, **given})
    with pytest.raises(ConfigError, match="logged_in"):
        FeatureSpec.from_dict({key: value for key, value in VALID.items() if key != "logged_in"})


def test_windows_are_microseconds() -> None:
    assert [micros(w) for w in ("1s", "10m", "7d")] == [1_000_000, 600_000_000, 604_800_000_000]
