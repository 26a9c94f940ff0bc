"""What MLflow keeps: bundles, pictures, metrics, version numbers, and a mirror of the states. The only module that imports MLflow."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # MLflow's own seven take four minutes to say that a server is away
}.items():
    os.environ.setdefault(_name, _value)
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

from mlflow import MlflowClient  # noqa: E402  (the settings above are read at import)
from mlflow.artifacts import download_artifacts, list_artifacts  # noqa: E402
from mlflow.entities import Metric  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

from slidr import bundle as bundles  # noqa: E402
from slidr.bundle_files import require_files  # noqa: E402
from slidr.config import RegistryConf  # noqa: E402
from slidr.errors import ModelRefusedError, SetupError  # noqa: E402
from slidr.folders import private, private_root  # noqa: E402
from slidr.redaction import Redaction  # noqa: E402
from slidr.registry.places import artifact_root, local_path, require_inside  # noqa: E402
from slidr.registry.states import States  # noqa: E402

PAGE = 1000


@dataclass(frozen=True)
class Store:
    conf: RegistryConf

    @cached_property
    def client(self) -> MlflowClient:
        if self.conf.uri.startswith("sqlite:///"):
            private(Path(self.conf.uri.removeprefix("sqlite:///")).parent)
        try:
            return MlflowClient(tracking_uri=self.conf.uri, registry_uri=self.conf.uri)
        except MlflowException as error:
            raise _unreachable(self.conf.uri, error) from error

    def init(self) -> None:
        """Makes the database, the experiment and the registered model where they are missing."""
        private_root(self.conf.artifacts)
        if self.client.get_experiment_by_name(self.conf.name) is None:
            self._unless_there(lambda: self.client.create_experiment(self.conf.name, artifact_location=artifact_root(self.conf.artifacts)))
        if not self.client.search_registered_models(f"name = '{self.conf.name}'"):
            self._unless_there(lambda: self.client.create_registered_model(self.conf.name))

    def _unless_there(self, make: Any) -> None:
        try:
            make()
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process made it at the same time
                raise

    def find(self, identity: str) -> tuple[str, str] | None:
        """(number, bundle sha256) of the version trained from `identity`, a hash, if there is one; the first of several."""
        found = list(self._versions(f"name = '{self.conf.name}' and tags.identity = '{_hex(identity)}'"))
        first = min(found, key=lambda version: int(version.version), default=None)
        return (str(first.version), first.tags["bundle_sha256"]) if first else None

    def _versions(self, query: str) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self.client.search_model_versions(query, max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def keep(self, bundle: bundles.Bundle, identity: str, pictures: Path) -> tuple[str, str]:
        """A new version's (number, bundle sha256). Two processes that train the same at once agree on the first of their two."""
        run = self.client.create_run(self._experiment())
        with TemporaryDirectory() as scratch:
            sha = bundles.save(bundle, Path(scratch) / "bundle")
            self.client.log_artifacts(run.info.run_id, str(Path(scratch) / "bundle"), "bundle")
        self.client.log_artifacts(run.info.run_id, str(pictures), "pictures")
        for name, value in bundle.metrics.items():
            if isinstance(value, int | float):
                self.client.log_metric(run.info.run_id, name, value)
        self.client.set_terminated(run.info.run_id)
        tags = {"identity": _hex(identity), "bundle_sha256": sha, "spec_id": bundle.spec.spec_id}
        made = self.client.create_model_version(self.conf.name, f"{run.info.artifact_uri}/bundle", run.info.run_id, tags=tags)
        return self.find(identity) or (str(made.version), sha)

    def log_numbers(self, run: str, numbers: Mapping[str, float], time: datetime) -> None:
        """Adds metrics at a time to the one run of this name, made where it is missing; the step is the hour since 1970. The same time
        twice replaces nothing: MLflow shows the later. Raises SetupError where MLflow can't be reached."""
        stamp = int(time.timestamp())
        metrics = [Metric(name, value, stamp * 1000, stamp // 3600) for name, value in numbers.items()]
        try:
            self.init()
            run_id = self._run(run)
            for first in range(0, len(metrics), PAGE):
                self.client.log_batch(run_id, metrics=metrics[first : first + PAGE])
        except MlflowException as error:
            raise _unreachable(self.conf.uri, error) from error

    def _run(self, name: str) -> str:
        experiment = self._experiment()
        found = self.client.search_runs([experiment], f"attributes.run_name = '{name}'", max_results=1)
        return str((found[0] if found else self.client.create_run(experiment, run_name=name)).info.run_id)

    def _experiment(self) -> str:
        experiment = self.client.get_experiment_by_name(self.conf.name)
        if experiment is None:
            raise SetupError(f"expected the experiment {self.conf.name} in the registry, found none; run `slidr init`")
        return str(experiment.experiment_id)

    def fetch(self, number: str, scratch: Path) -> Path:
        """Folder of a version's three files: where they lie, or copied to `scratch` after a look at their names and sizes.

        Raises ModelRefusedError for a source outside the artifact root and for other files than a bundle's.
        """
        source = self._source(number)
        folder = local_path(source)
        if folder is not None:
            return folder
        found = {Path(item.path).name: int(item.file_size or 0) for item in list_artifacts(source, tracking_uri=self.conf.uri)}
        require_files(found, source)
        for name in found:
            download_artifacts(f"{source}/{name}", dst_path=str(scratch), tracking_uri=self.conf.uri)
        return scratch

    def _source(self, number: str) -> str:
        try:
            source = self.client.get_model_version(self.conf.name, number).source or ""
        except MlflowException as error:
            raise ModelRefusedError(f"expected version {number} in the registry, found: {error.message}; use another version") from error
        require_inside(artifact_root(self.conf.artifacts), source)
        return source

    def mirror(self, states: States) -> None:
        """Brings MLflow's alias and tags to what the events say. Raises SetupError where MLflow can't be reached."""
        try:
            self._mirror(states)
        except MlflowException as error:
            raise _unreachable(self.conf.uri, error) from error

    def _mirror(self, states: States) -> None:
        for version in self._versions(f"name = '{self.conf.name}'"):
            state = states.state.get(str(version.version))
            if state and version.tags.get("state") != state:
                self.client.set_model_version_tag(self.conf.name, version.version, "state", state)
        if states.champion:
            self.client.set_registered_model_alias(self.conf.name, "champion", states.champion)
        else:
            self.client.delete_registered_model_alias(self.conf.name, "champion")


def _hex(identity: str) -> str:
    if not identity or set(identity) - set("0123456789abcdef"):
        raise ValueError(f"expected a hexadecimal identity, found {identity!r}")
    return identity


def _unreachable(uri: str, error: MlflowException) -> SetupError:
    """What MLflow says may hold the whole URI."""
    return SetupError(Redaction().text(f"expected an MLflow registry at {uri}, found: {error.message}"))
