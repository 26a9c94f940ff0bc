"""No path leaves its root: dots, absolute paths, links, escapes and other schemes, in the registry, manifests, arguments and deliveries."""

import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from slidr import ready
from slidr.config import shipped
from slidr.errors import ConfigError, InputError, ModelRefusedError, UsageError
from slidr.ingest import load_source
from slidr.ingest.files import list_files
from slidr.ingest.run import _staging
from slidr.lake import Lake
from slidr.registry.places import artifact_root, require_inside
from slidr.registry.states import fold
from slidr.replay.audit import require_plan
from slidr.statement.page import safe_name
from slidr.training.data import load_manifest
from tests.test_training import local_snapshot

WAYS_OUT = (
    "..",
    "../secret",
    "a/../../secret",
    "./a",
    "/etc/passwd",
    "//etc/passwd",
    "file:///etc/passwd",
    "file:/etc/passwd",
    "%2e%2e/secret",
    "%2E%2E%2Fsecret",
    "%252e%252e/secret",
    "..%2fsecret",
    "..\\secret",
    "a\0b",
    "a#b",
    "a?b",
    "http://example.com/a",
    "s3://bucket/a",
    "mlflow-artifacts:/a",
    "~/secret",
    "",
)


NAMES = {"~/secret", "file:/etc/passwd", "mlflow-artifacts:/a"}  # below the root they are names of folders like any other


@pytest.mark.parametrize("root", ["/models/artifacts", "s3://bucket/models"])
@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_bundle_comes_from_below_the_artifact_root_alone(root: str, way: str) -> None:
    root = artifact_root(root)
    require_inside(root, f"{root}/1/bundle")
    elsewhere = ["s3://bucket/models-of-others/1", "s3://other/models/1", "s3a://bucket/models/1", "file:///models/artifacts-of-others/1"]
    below = [] if way in NAMES else [f"{root}/{way}", f"{root}/1/{way}/bundle"]
    for source in (way, *elsewhere, *below):
        with pytest.raises(ModelRefusedError, match="another place"):
            require_inside(root, source)


def test_a_link_below_the_artifact_root_is_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "artifacts" / "link").symlink_to(tmp_path / "outside")
    root = artifact_root(str(tmp_path / "artifacts"))
    with pytest.raises(ModelRefusedError, match="another place"):
        require_inside(root, f"{root}/link/bundle")


@pytest.mark.parametrize(
    "way", ["../outside", "data/../../outside", "{absolute}", "link", "data/link", "%2e%2e/outside", "file:{absolute}", ".", ""]
)
def test_a_manifest_names_files_of_its_snapshot_alone(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "s"
    manifest = local_snapshot(folder, [3])
    outside = tmp_path / "outside"
    outside.write_bytes((folder / manifest.files[0].path).read_bytes())
    for link in (folder / "link", folder / "data" / "link"):
        link.symlink_to(outside)
    content = json.loads((folder / "manifest.json").read_text())
    content["files"][0]["path"] = way.format(absolute=outside)
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not inside the folder|is missing"):
        load_manifest(str(folder))


@pytest.mark.parametrize("way", WAYS_OUT)
def test_arguments_that_become_paths_are_names(way: str, tmp_path: Path) -> None:
    lake = Lake(None, str(tmp_path))  # type: ignore[arg-type]  (refused before a session is asked)
    with pytest.raises(UsageError):
        require_plan(lake, way)
    with pytest.raises(UsageError):
        ready.load(way)
    with pytest.raises(InputError):
        _staging(lake, way)
    with pytest.raises(ModelRefusedError):
        fold([]).resolve(way)
    folder = (tmp_path / safe_name(way)).resolve()
    assert folder.parent == tmp_path.resolve()


def test_a_source_is_a_shipped_name_or_a_yaml_file(tmp_path: Path) -> None:
    for way in WAYS_OUT:
        if "\0" not in way:
            with pytest.raises(ConfigError):
                load_source(way)
    assert load_source(str(shipped("sources/canonical.yaml"))).name == "canonical"


def test_a_delivery_holds_its_own_files(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "delivery"
    (folder / "%2e%2e" / "sub").mkdir(parents=True)
    (folder / "%2e%2e" / "sub" / "a.csv").write_text("1")
    (tmp_path / "secret.csv").write_text("2")
    (folder / "plain.csv").symlink_to(folder / "%2e%2e" / "sub" / "a.csv")  # as mounted configuration is laid out
    assert [Path(name).name for _, name, _ in list_files(spark, str(folder)) or []] == ["a.csv", "plain.csv"]
    for link, target in {"out.csv": tmp_path / "secret.csv", "loop": folder, "up": tmp_path}.items():
        (folder / link).symlink_to(target)
        with pytest.raises(InputError, match=f"found the link {link}"):
            list_files(spark, str(folder))
        (folder / link).unlink()
    (tmp_path / "linked").symlink_to(folder)  # who gives a link means where it leads
    assert len(list_files(spark, str(tmp_path / "linked")) or []) == 2
