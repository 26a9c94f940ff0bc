"""Settings: complete, strict, and clear about what is wrong."""

from pathlib import Path

import pytest
import yaml

from slidr import config
from slidr.errors import ConfigError

SHIPPED = ("local.yaml", "cluster.yaml", "gpu.yaml", "talkingdata.yaml")


def changed(tmp_path: Path, **sections: object) -> Path:
    content = yaml.safe_load(config.shipped("local.yaml").read_text())
    for name, value in sections.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    path = tmp_path / "conf.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_are_valid(name: str) -> None:
    assert config.load(config.shipped(name)).spec.columns


def test_an_unknown_key_is_named_with_its_nearest_match(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="training.epoch: unknown key; did you mean 'epochs'"):
        config.load(changed(tmp_path, training={"epoch": 3}))


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(changed(tmp_path, training={"epochs": "many"}, marketplaces={"US": "Mars/Olympus"}, promotion="sometimes"))
    assert all(where in str(caught.value) for where in ("training.epochs", "marketplaces", "promotion"))


def test_a_missing_key_is_an_error(tmp_path: Path) -> None:
    content = yaml.safe_load(config.shipped("local.yaml").read_text())
    del content["labels"]["delay_days"]
    path = tmp_path / "conf.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"labels.delay_days: Field required"):
        config.load(path)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = config.shipped("local.yaml").read_text()
    path = tmp_path / "conf.yaml"
    path.write_text(text.replace("    user: [user_id]\n", "    user: [user_id]\n    user: [ip]\n", 1))
    with pytest.raises(ConfigError, match="twice in one mapping: user"):
        config.load(path)


def test_set_overrides_a_key_and_refuses_an_unknown_one() -> None:
    path = config.shipped("local.yaml")
    assert config.load(path, ("training.epochs=9",)).training.epochs == 9
    assert config.load(path, ("spark.settings.spark.ui.port=4050",)).spark.settings == {"spark.ui.port": "4050"}
    with pytest.raises(ConfigError, match="--set training.epochs: expected a value in YAML"):
        config.load(path, ("training.epochs=[9",))
    with pytest.raises(ConfigError, match="nearest: training.epochs"):
        config.load(path, ("training.epoch=9",))


def test_a_catalog_is_a_name(tmp_path: Path) -> None:
    assert config.load(changed(tmp_path, lake={"catalog": "main.clicks"})).lake.catalog == "main.clicks"
    for name in ("main.`clicks`", "main clicks", "a;b", "../a", ""):
        with pytest.raises(ConfigError, match="lake.catalog"):
            config.load(changed(tmp_path, lake={"catalog": name}))


def test_a_label_delay_below_the_attribution_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="delay_days >= attribution_days"):
        config.load(changed(tmp_path, labels={"attribution_days": 3}))


def test_a_window_longer_than_clicks_are_kept_is_refused(tmp_path: Path) -> None:
    assert config.load(changed(tmp_path, lake={"click_days": 7}))  # the longest window is seven days
    with pytest.raises(ConfigError, match="at most 6 days, since lake.click_days keeps no more clicks, found 7d"):
        config.load(changed(tmp_path, lake={"click_days": 6}))


def test_slices_that_do_not_fit_the_features_are_refused(tmp_path: Path) -> None:
    cuts = [{"column": "user_clicks_24h", "cuts": [1, 10]}]
    assert config.load(changed(tmp_path, calibration={"slices": cuts})).slices.features == ("user_clicks_24h",)
    fewer = {"counters": [{"entity": "ip", "measure": "clicks", "windows": ["1h"]}]}
    with pytest.raises(ConfigError, match=r"slices\[0\]: expected cuts of a feature of the spec, found 'user_clicks_24h'"):
        config.load(changed(tmp_path, calibration={"slices": cuts}, features=fewer))
    with pytest.raises(ConfigError, match=r"found 'device'; write \{column: device\}"):
        config.load(config.shipped("local.yaml"), ("calibration.slices=[device, login]",))


def test_the_hash_names_the_meaning_not_the_place() -> None:
    path = config.shipped("local.yaml")
    plain = config.load(path)
    assert config.load(path, ("lake.root=elsewhere",)).config_hash == plain.config_hash
    assert config.load(path, ("training.seed=8",)).config_hash != plain.config_hash


def test_a_file_store_registry_is_refused() -> None:
    with pytest.raises(ConfigError, match="registry.uri"):
        config.load(config.shipped("local.yaml"), ("registry.uri=mlruns",))


@pytest.mark.parametrize("text", ["- a list", "key: [", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        config.load(path)
