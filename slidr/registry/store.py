"""What MLflow keeps: bundles, pictures, metrics, version numbers, and a mirror of the states. The only module that imports MLflow."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # MLflow's own seven take four minutes to say that a server is away
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds; with its own 120 a server that never answers blocks a run for eight minutes
}.items():
    os.environ.setdefault(_name, _value)
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

from mlflow import MlflowClient  # noqa: E402  (the settings above are read at import)
from mlflow.artifacts import download_artifacts, list_artifacts  # noqa: E402
from mlflow.entities import Metric  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from requests.exceptions import RequestException  # noqa: E402
from sqlalchemy.exc import SQLAlchemyError  # noqa: E402  (MLflow lets some of them through)

from slidr import bundle as bundles  # noqa: E402
from slidr.bundle_files import require_files  # noqa: E402
from slidr.config import RegistryConf  # noqa: E402
from slidr.errors import ModelRefusedError, SetupError  # noqa: E402
from slidr.folders import private_root  # noqa: E402
from slidr.redaction import Redaction  # noqa: E402
from slidr.registry import database  # noqa: E402
from slidr.registry.places import artifact_root, local_path, require_inside  # noqa: E402
from slidr.registry.states import States  # noqa: E402

PAGE = 1000
AWAY = (MlflowException, SQLAlchemyError, RequestException)
Given = ParamSpec("Given")
Found = TypeVar("Found")


def within_reach(work: "Callable[Concatenate[Store, Given], Found]") -> "Callable[Concatenate[Store, Given], Found]":
    """Retells what MLflow says when its server or database is away, locked, slow or broken, as a SetupError of one line."""

    @wraps(work)
    def told(store: "Store", *given: Given.args, **named: Given.kwargs) -> Found:
        try:
            return work(store, *given, **named)
        except AWAY as error:
            raise store.away(error) from error

    return cast("Callable[Concatenate[Store, Given], Found]", told)


@dataclass(frozen=True)
class Store:
    """Raises SetupError wherever MLflow can't be reached or answers with an error."""

    conf: RegistryConf

    @cached_property
    def client(self) -> MlflowClient:
        database.ensure(self.conf.uri, lambda uri: MlflowClient(tracking_uri=uri, registry_uri=uri).search_registered_models(max_results=1))
        return MlflowClient(tracking_uri=self.conf.uri, registry_uri=self.conf.uri)

    def away(self, error: Exception) -> SetupError:
        said = re.split(r"\[SQL| with url: ", str(getattr(error, "message", error)))[0].replace(self.conf.uri, "it")
        told = (
            f"expected an MLflow registry at {self.conf.uri}, found: {' '.join(said.split())[:300]}; "
            "see that its server or database is up and not locked by another program, then run the same command again"
        )
        return SetupError(Redaction().text(told))

    @within_reach
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

    @within_reach
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

    @within_reach
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

    @within_reach
    def log_numbers(self, run: str, numbers: Mapping[str, float], time: datetime) -> None:
        """Adds metrics at a time to the one run of this name, made where it is missing; the step is the hour since 1970. The same time
        twice replaces nothing: MLflow shows the later."""
        stamp = int(time.timestamp())
        metrics = [Metric(name, value, stamp * 1000, stamp // 3600) for name, value in numbers.items()]
        self.init()
        run_id = self._run(run)
        for first in range(0, len(metrics), PAGE):
            self.client.log_batch(run_id, metrics=metrics[first : first + PAGE])

    def _run(self, name: str) -> str:
        experiment = self._experiment()
        found = self.client.search_runs([experiment], f"attributes.run_name = '{name}'", max_results=1)
        return str((found[0] if found else self.client.create_run(experiment, run_name=name)).info.run_id)

    def _experiment(self) -> str:
        experiment = self.client.get_experiment_by_name(self.conf.name)
        if experiment is None:
            raise SetupError(f"expected the experiment {self.conf.name} in the registry, found none; run `slidr init`")
        return str(experiment.experiment_id)

    @within_reach
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
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise ModelRefusedError(f"expected version {number} in the registry, found: {error.message}; use another version") from error
        require_inside(artifact_root(self.conf.artifacts), source)
        return source

    @within_reach
    def mirror(self, states: States) -> None:
        """Brings MLflow's alias and tags to what the events say."""
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
