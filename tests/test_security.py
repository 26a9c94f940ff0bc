"""No pickle is read, no SQL and no shell is made from text: lints over the code, and pickles planted where data is read."""

import ast
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from petastorm.etl import dataset_metadata
from petastorm.unischema import Unischema

from slidr import config
from slidr.errors import ConfigError, InputError
from slidr.training.progress import FILE, Progress
from tests.test_layers import ROOT, imports, modules
from tests.test_training import epoch_rows, local_snapshot, numbered

SOURCES = sorted(modules())

# Libraries and functions that run what a file says.
PICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle", "skops", "numpy.lib.format"}
FLAVOURS = {"mlflow.pyfunc", "mlflow.sklearn", "mlflow.pytorch", "mlflow.spark", "mlflow.models", "mlflow.artifacts.load_dict"}
LOADS = {"read_pickle", "to_pickle", "pickleFile", "load_model", "unsafe_load", "full_load", "load_all", "read_hdf", "deserialize", "hub"}
RUNNERS = {"exec", "eval", "compile", "__import__"}

# Every call that turns bytes from outside into values, with what keeps it harmless. A new one is put here on purpose or not at all.
PARSERS = {
    "json.loads": {
        "slidr/backtest/kept.py",  # plain values, of files that a backtest wrote
        "slidr/bundle_files.py",  # after the sha256
        "slidr/contract.py",  # a schema of Delta's own log
        "slidr/deciding/__init__.py",  # counts by a task of the same job
        "slidr/direct.py",  # Delta's own schema
        "slidr/history.py",  # names of files in a Delta log, which are compared and never opened
        "slidr/replay/audit.py",  # pins after their hash; numbers checked
        "slidr/simulator/world.py",  # shipped
        "slidr/training/distributed.py",  # an error's text
        "slidr/training/progress.py",  # losses
        "slidr/training/snapshot.py",  # names and hashes of files, looked at before these are opened
    },
    "yaml.load": {"slidr/config.py"},  # by a SafeLoader that refuses a key that stands twice
    "yaml.safe_load": {"slidr/config.py"},
    "np.load": {"slidr/features/store.py"},  # allow_pickle=False, a folder of the process's own
    "np.fromfile": {"slidr/features/store.py"},
    "pa.ipc.open_file": {"slidr/features/store.py"},
    "pa.ipc.read_record_batch": {"slidr/features/cargo.py"},  # made by a task of the same job
    "pq.ParquetFile": {"slidr/training/snapshot.py"},
    "make_batch_reader": {"slidr/training/data.py"},  # after the sha256; its pickled schema is never read
    "safe_open": {"slidr/training/progress.py"},  # tensors alone
    "parse_safetensors": {"slidr/bundle_files.py"},  # after the sha256, with a bound on the header
    "download_artifacts": {"slidr/registry/store.py"},  # after a look at place, names and sizes
    "list_artifacts": {"slidr/registry/store.py"},
}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(path, name of the function as written, call) of all code that slidr ships."""
    for path in SOURCES:
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path, ast.unparse(node.func), node


def test_no_library_that_reads_pickles_is_imported() -> None:
    for path in SOURCES:
        found = imports(ROOT / path)
        assert not [name for name in found for bad in PICKLERS | FLAVOURS if name == bad or name.startswith(f"{bad}.")], path


def test_no_function_that_runs_what_a_file_says_is_called() -> None:
    for path, name, call in calls():
        last = name.split(".")[-1]
        assert last not in LOADS, f"{path}: {name}"
        assert name not in RUNNERS, f"{path}: {name}"
        assert not (last == "load" and name.split(".")[0] in ("torch", "pickle", "jit")), f"{path}: {name}"
        if name == "yaml.load":
            assert ast.unparse(call.args[1]) == "_OnceLoader", f"{path}: {name}"
        if name in ("np.load", "numpy.load", "np.save"):
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            assert ast.unparse(given.get("allow_pickle", ast.Constant(None))) == "False", f"{path}: {name}"


def test_every_parser_of_bytes_from_outside_is_known() -> None:
    libraries = ("json", "yaml", "np", "numpy", "pa", "pq", "pd", "torch", "csv", "tomllib", "safetensors")
    found: dict[str, set[str]] = {}
    for path, name, _ in calls():
        reads = name.split(".")[-1].startswith(("load", "safe_load", "read_", "open_file", "fromfile", "ParquetFile"))
        if name in PARSERS or (reads and "(" not in name and name.split(".")[0] in libraries):
            found.setdefault(name, set()).add(path)
    assert found == PARSERS


def test_what_a_configuration_names_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text(f"lake: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="conf.yaml is not valid YAML: could not determine a constructor"):
        config.read_yaml(tmp_path / "conf.yaml")
    assert not (tmp_path / "made").exists()


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return eval, (f"__import__('os').mkdir({str(self.marker)!r})",)  # builtins: what petastorm lets through


def metadata(marker: Path) -> pa.Schema:
    """A Parquet schema as petastorm's own writers leave it, with another pickle in it."""
    return numbered(0, 1).schema.with_metadata({"dataset-toolkit.unischema.v1": pickle.dumps(Payload(marker))})


def plant(folder: Path, marker: Path) -> None:
    pq.write_metadata(metadata(marker), folder / "_common_metadata")
    pq.write_metadata(metadata(marker), folder / "_metadata")
    for name in ("data.pkl", "model.pkl", "schema.pickle"):
        (folder / name).write_bytes(pickle.dumps(Payload(marker)))


def test_a_pickle_beside_or_in_a_snapshot_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    manifest = local_snapshot(tmp_path / "s", [3, 4], table=lambda number, rows: numbered(number, rows).cast(metadata(marker)))
    for folder in (tmp_path / "s", tmp_path / "s" / "data"):
        plant(folder, marker)
    assert len(epoch_rows(manifest, 0)) == 7
    assert not marker.exists()


def test_a_folder_in_place_of_a_file_is_not_believed(tmp_path: Path) -> None:
    """Petastorm looks for its pickled schema in folders: one that took a file's place after the hashes were checked is no way in."""
    marker = tmp_path / "marker"
    manifest = local_snapshot(tmp_path / "s", [3])
    file = tmp_path / "s" / manifest.files[0].path
    data = file.read_bytes()
    file.unlink()
    file.mkdir()
    (file / "0.parquet").write_bytes(data)
    plant(file, marker)
    (file / "_metadata").unlink()
    for name in ("data.pkl", "model.pkl", "schema.pickle"):
        (file / name).unlink()
    with pytest.raises(InputError, match="delete the folder and train again"):
        epoch_rows(manifest, 0)
    assert not marker.exists()


def test_petastorm_reads_no_schema_of_its_own() -> None:
    with pytest.raises(dataset_metadata.PetastormMetadataError, match="no pickle"):
        dataset_metadata.depickle_legacy_package_name_compatible(pickle.dumps(Unischema("s", [])))


def test_a_pickle_in_place_of_a_training_s_progress_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / FILE).write_bytes(pickle.dumps(Payload(marker)))
    assert Progress(tmp_path, "identity").history() == []
    assert not marker.exists()


def test_the_payload_runs_where_a_pickle_is_read(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "marker")))  # noqa: S301
    assert (tmp_path / "marker").is_dir()
