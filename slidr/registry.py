"""MODEL VERSION: registered bundles and their states. The only module that imports MLflow.

MLflow keeps the bundle, its metrics and the version number. What state a version is in, since when and why, is folded
from the `model_promotions` table; the `champion` alias and the `state` tag in MLflow mirror it, and each change repairs
them, so that a kill between the two leaves nothing wrong for long.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

for _name, _value in {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet"}.items():
    os.environ.setdefault(_name, _value)
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

from mlflow import MlflowClient  # noqa: E402  (the settings above are read at import)
from mlflow.artifacts import download_artifacts  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from pyspark.sql import functions as F  # noqa: E402

from slidr import bundle as bundles  # noqa: E402
from slidr.config import RegistryConf  # noqa: E402
from slidr.errors import ModelRefusedError, NothingToDoError, SetupError  # noqa: E402
from slidr.lake import Lake  # noqa: E402
from slidr.tables import MODEL_PROMOTIONS  # noqa: E402
from slidr.version import Version  # noqa: E402

REMOTE_ARTIFACTS = ("mlflow-artifacts", "s3", "gs", "abfss", "wasbs", "dbfs")


@dataclass(frozen=True)
class States:
    """What the events say: the deciding version, who decided before (newest last), and the versions by standing."""

    champion: str | None
    champions: tuple[str, ...]
    since: Mapping[str, datetime]  # when each of them became champion last
    state: Mapping[str, str]
    bundle_sha256: Mapping[str, str]

    @property
    def newest_stable(self) -> str | None:
        return max((v for v, s in self.state.items() if s == "stable"), key=int, default=None)

    def unproven(self, by: datetime) -> list[str]:
        """Versions that became champion at `by` or before and are neither stable nor given up."""
        return [version for version, since in self.since.items() if since <= by and self.state[version] == "champion"]


def fold(events: Sequence[Mapping[str, Any]]) -> States:
    """States from events in order. `champion` does not end `stable`: a stable version that decides stays stable."""
    champion: str | None = None
    champions: list[str] = []
    since: dict[str, datetime] = {}
    state: dict[str, str] = {}
    sha: dict[str, str] = {}
    for event in events:
        version, to = event["model_version"], event["to_state"]
        sha.setdefault(version, event["bundle_sha256"])
        if to == "champion":
            champion = version
            champions.append(version)
            since[version] = event["event_time"]
        if not (to == "champion" and state.get(version) == "stable"):
            state[version] = to
        if to in ("suspect", "revoked") and champion == version:
            champion = None
    return States(champion, tuple(champions), since, state, sha)


@dataclass(frozen=True)
class Registry:
    conf: RegistryConf
    lake: Lake

    @cached_property
    def client(self) -> MlflowClient:
        if self.conf.uri.startswith("sqlite:///"):
            Path(self.conf.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            return MlflowClient(tracking_uri=self.conf.uri, registry_uri=self.conf.uri)
        except MlflowException as error:
            raise SetupError(f"expected an MLflow registry at {_redacted(self.conf.uri)}, found: {error.message}") from error

    @property
    def artifact_root(self) -> str:
        return self.conf.artifacts if urlparse(self.conf.artifacts).scheme else Path(self.conf.artifacts).resolve().as_uri()

    def init(self) -> None:
        """Makes the registry's database, experiment, model and the promotions table where they are missing."""
        client = self.client
        if client.get_experiment_by_name(self.conf.name) is None:
            client.create_experiment(self.conf.name, artifact_location=self.artifact_root)
        if not client.search_registered_models(f"name = '{self.conf.name}'"):
            client.create_registered_model(self.conf.name)
        self.lake.create(MODEL_PROMOTIONS)

    def events(self) -> list[dict[str, Any]]:
        """All state changes in order; a few per version, so the driver can hold them."""
        if not self.lake.exists(MODEL_PROMOTIONS):
            return []
        rows = [row.asDict() for row in self.lake.read(MODEL_PROMOTIONS).collect()]
        aware = [{**row, "event_time": row["event_time"].replace(tzinfo=timezone.utc)} for row in rows]
        return sorted(aware, key=lambda event: event["event_no"])

    def states(self) -> States:
        return fold(self.events())

    def register(self, bundle: bundles.Bundle, *, identity: str, pictures: Path, now: datetime, actor: str, reason: str) -> str:
        """Keeps the bundle as a new version in state candidate and returns its number.

        `identity` names what the version was trained from: the same training registered twice is one version.
        """
        self.init()
        known = self.find(identity)
        client = self.client
        number, sha = known or self._keep(client, bundle, identity, pictures)
        states = self.states()
        if number not in states.state:
            fresh = replace(states, bundle_sha256={**states.bundle_sha256, number: sha})
            self._record([(number, "candidate", reason)], fresh, now=now, actor=actor, metrics=bundle.metrics)
        return number

    def find(self, identity: str) -> tuple[str, str] | None:
        """(number, bundle sha256) of the version trained from `identity`, a hash, if there is one."""
        found = self.client.search_model_versions(f"name = '{self.conf.name}' and tags.identity = '{_hex(identity)}'")
        return (str(found[0].version), found[0].tags["bundle_sha256"]) if found else None

    def _keep(self, client: MlflowClient, bundle: bundles.Bundle, identity: str, pictures: Path) -> tuple[str, str]:
        experiment = client.get_experiment_by_name(self.conf.name)
        if experiment is None:
            raise SetupError(f"expected the experiment {self.conf.name} in the registry, found none; run `slidr init`")
        run = client.create_run(experiment.experiment_id)
        with tempfile.TemporaryDirectory() as scratch:
            sha = bundles.save(bundle, Path(scratch) / "bundle")
            client.log_artifacts(run.info.run_id, str(Path(scratch) / "bundle"), "bundle")
        client.log_artifacts(run.info.run_id, str(pictures), "pictures")
        for name, value in bundle.metrics.items():
            if isinstance(value, int | float):
                client.log_metric(run.info.run_id, name, value)
        client.set_terminated(run.info.run_id)
        tags = {"identity": _hex(identity), "bundle_sha256": sha, "spec_id": bundle.spec.spec_id}
        made = client.create_model_version(self.conf.name, f"{run.info.artifact_uri}/bundle", run.info.run_id, tags=tags)
        return str(made.version), sha

    def resolve(self, which: str) -> str:
        """Number of `champion`, `stable` (the newest) or of a number that exists. Resolve once, then use the number."""
        return self._resolve(which, self.states())

    def _resolve(self, which: str, states: States) -> str:
        number = {"champion": states.champion, "stable": states.newest_stable}.get(which, which)
        if number is None:
            raise ModelRefusedError(f"expected a {which} model version, found none; see `slidr models list`")
        if number not in states.state:
            raise ModelRefusedError(f"expected one of the versions {sorted(states.state, key=int)}, found {number!r}")
        return number

    def load(self, which: str) -> Version:
        """A version with its bundle, hash checked against the promotions table. Revoked versions are refused."""
        states = self.states()
        number = self._resolve(which, states)
        if states.state[number] == "revoked":
            raise ModelRefusedError(f"version {number} is revoked and is never used again; choose another, see `slidr models list`")
        with tempfile.TemporaryDirectory() as scratch:
            self.export(number, Path(scratch))
            loaded = bundles.load(Path(scratch) / "bundle", states.bundle_sha256[number])
        return Version(number, states.state[number], loaded)

    def export(self, number: str, folder: Path) -> Path:
        """Copies a version's bundle folder to `<folder>/bundle`. Raises ModelRefusedError for a source outside the store."""
        source = self.client.get_model_version(self.conf.name, number).source or ""
        self._require_inside(source)
        return Path(download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=self.conf.uri))

    def _require_inside(self, source: str) -> None:
        root, found = urlparse(self.artifact_root), urlparse(source)
        inside = found.scheme == root.scheme and Path(found.path).resolve().is_relative_to(Path(root.path).resolve())
        remote = found.scheme in REMOTE_ARTIFACTS and ".." not in Path(found.path).parts
        if found.fragment or found.query or not (inside or (remote and root.scheme != "file")):
            raise ModelRefusedError(f"expected a bundle inside {self.artifact_root}, found another place in the registry; nothing was read")

    def promote(self, number: str, *, now: datetime, actor: str, reason: str) -> None:
        """Makes a version the champion. Suspect and revoked versions are refused."""
        states = self.states()
        self._resolve(number, states)
        if states.state[number] in ("suspect", "revoked"):
            raise ModelRefusedError(f"expected a candidate or stable version, found {number} in state {states.state[number]}")
        if states.champion != number:
            self._record([(number, "champion", reason)], states, now=now, actor=actor)

    def mark_stable(self, number: str, *, now: datetime, actor: str, reason: str) -> None:
        """A version that has been champion may publish corrections from now on."""
        states = self.states()
        self._resolve(number, states)
        if number not in states.champions or states.state[number] in ("suspect", "revoked"):
            raise ModelRefusedError(f"expected a version that is or was champion, found {number} in state {states.state[number]}")
        if states.state[number] != "stable":
            self._record([(number, "stable", reason)], states, now=now, actor=actor)

    def rollback(self, *, now: datetime, actor: str, reason: str) -> tuple[str, str]:
        """(left, taken): the champion becomes suspect; the stable version that was champion last before it decides."""
        states = self.states()
        left = states.champion
        if left is None:
            raise NothingToDoError("expected a champion to roll back from, found none; promote a stable version")
        before = [v for v in states.champions if v != left and states.state[v] == "stable"]
        if not before:
            raise ModelRefusedError(f"expected a stable version that was champion before {left}, found none; promote one by hand")
        self._record([(left, "suspect", reason), (before[-1], "champion", f"rollback: {reason}")], states, now=now, actor=actor)
        return left, before[-1]

    def revoke(self, number: str, *, now: datetime, actor: str, reason: str) -> None:
        states = self.states()
        self._resolve(number, states)
        if states.state[number] != "revoked":
            self._record([(number, "revoked", reason)], states, now=now, actor=actor)

    def _record(
        self,
        changes: Sequence[tuple[str, str, str]],
        states: States,
        *,
        now: datetime,
        actor: str,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Appends (version, new state, reason) changes in one commit, then mirrors them to MLflow."""
        rows = []
        for ordinal, (number, to, reason) in enumerate(changes, start=1):
            row = {
                "event_id": f"{number}-{to}-{now:%Y%m%dT%H%M%S%f}",
                "event_no": ordinal,
                "event_time": now,
                "event_date": now.date(),
                "model_version": number,
                "from_state": states.state.get(number),
                "to_state": to,
                "actor": actor,
                "reason": reason,
                "bundle_sha256": states.bundle_sha256[number],
                "metrics": json.dumps(dict(metrics or {}), sort_keys=True),
            }
            rows.append(tuple(row[name] for name in MODEL_PROMOTIONS.names))
        events = self.lake.spark.createDataFrame(rows, MODEL_PROMOTIONS.schema)
        # The next number is read in the plan that appends, so that two writers cannot commit the same one.
        last = self.lake.read(MODEL_PROMOTIONS).agg(F.coalesce(F.max("event_no"), F.lit(0)).alias("last"))
        numbered = events.join(last, how="cross").withColumn("event_no", F.col("last") + F.col("event_no"))
        self.lake.append(numbered, MODEL_PROMOTIONS, token=f"slidr-promotion:{rows[0][0]}")
        self.mirror()

    def mirror(self) -> None:
        """Brings MLflow's alias and tags to what the events say."""
        states, client = self.states(), self.client
        for version in client.search_model_versions(f"name = '{self.conf.name}'"):
            state = states.state.get(str(version.version))
            if state and version.tags.get("state") != state:
                client.set_model_version_tag(self.conf.name, version.version, "state", state)
        if states.champion:
            client.set_registered_model_alias(self.conf.name, "champion", states.champion)
        else:
            client.delete_registered_model_alias(self.conf.name, "champion")


def _hex(identity: str) -> str:
    if not identity or set(identity) - set("0123456789abcdef"):
        raise ValueError(f"expected a hexadecimal identity, found {identity!r}")
    return identity


def _redacted(uri: str) -> str:
    parts = urlparse(uri)
    return parts._replace(netloc=parts.hostname or "").geturl() if parts.netloc else uri
