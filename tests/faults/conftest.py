"""A small shop to break: the tiny lake of `tests.worlds` with a registry of its versions, and the commands on it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from slidr import direct, tables
from slidr.config import RegistryConf
from slidr.registry import Registry
from tests import worlds
from tests.commands import World
from tests.faults.shop import settings


@pytest.fixture(scope="session")
def shop_template(template: str, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a lake and a registry, to be copied: version 1 is stable, 2 is stable and decides."""
    root = tmp_path_factory.mktemp("shop")
    lake = worlds.copy_of(template, spark, str(root / "lake"))
    for table in tables.ALL:
        direct.create(lake, table)  # the same table as Spark makes, in no time
    conf = RegistryConf(uri=f"sqlite:///{root}/registry.db", artifacts=str(root / "artifacts"), name="slidr")
    registry = Registry(conf, lake)
    (root / "pictures").mkdir()
    for number in ("1", "2"):
        bundle = replace(worlds.version(number).bundle, sha256="")
        who = {"now": worlds.FIRST, "actor": "test", "reason": "test"}
        registry.register(bundle, identity=number * 2, pictures=root / "pictures", **who)
        registry.promote(number, **who)
        registry.mark_stable(number, **who)
    return root


@pytest.fixture
def shop(shop_template: Path, spark: SparkSession, tmp_path: Path) -> World:
    """A copy of its own; the bundles stay where the registry says."""
    shutil.copytree(shop_template / "lake", tmp_path / "lake")
    shutil.copy(shop_template / "registry.db", tmp_path / "registry.db")
    return World(tmp_path, spark, settings(shop_template))
