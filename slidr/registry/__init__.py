"""MODEL VERSION: registered bundles and their states.

MLflow keeps the bundle, its metrics and the version number (`store`). What state a version is in, since when, by whom and why, is
folded (`states`) from the table `model_promotions` (`log`); the `champion` alias and the `state` tag in MLflow mirror it, and each
change repairs them. A change is done once it is in the table, whether or not MLflow can be reached.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from slidr import bundle as bundles
from slidr.bundle_files import copy_files
from slidr.config import RegistryConf
from slidr.direct import Place
from slidr.errors import ConflictError, SetupError
from slidr.lake import Lake
from slidr.registry import log, states
from slidr.registry.states import Change, States, at, fold
from slidr.version import Version

if TYPE_CHECKING:
    from slidr.registry.store import Store

__all__ = ["Registry", "States", "at", "fold"]
ATTEMPTS = 20
MONITORING = "monitoring"  # name of the run that holds the numbers of all hours
logger = logging.getLogger("slidr.registry")


@dataclass(frozen=True)
class Registry:
    """`lake` holds `model_promotions`; a Place will do where the lake needs no Spark for it."""

    conf: RegistryConf
    lake: Lake | Place

    @cached_property
    def store(self) -> "Store":
        from slidr.registry.store import Store  # MLflow takes seconds to import: a rollback is on record before

        return Store(self.conf)

    def init(self) -> None:
        """Makes the registry's database, experiment, model and the promotions table where they are missing."""
        self.store.init()
        log.create(self.lake)

    def events(self) -> list[dict[str, Any]]:
        """All state changes in order; a few per version."""
        return log.read(self.lake).events

    def states(self) -> States:
        return fold(self.events())

    def find(self, identity: str) -> tuple[str, str] | None:
        """(number, bundle sha256) of the version trained from `identity`, a hash, if there is one."""
        return self.store.find(identity)

    def register(self, bundle: bundles.Bundle, *, identity: str, pictures: Path, now: datetime, actor: str, reason: str) -> str:
        """Keeps the bundle as a new version in state candidate and returns its number.

        `identity` names what the version was trained from: the same training registered twice is one version.
        """
        self.init()
        number, sha = self.find(identity) or self.store.keep(bundle, identity, pictures)
        metrics = json.dumps(bundle.metrics, sort_keys=True)
        self._change(lambda seen: states.registration(seen, number, reason), now=now, actor=actor, new=(sha, metrics))
        return number

    def resolve(self, which: str) -> str:
        """Number of `champion`, `stable` (the newest) or of a number that exists. Resolve once, then use the number."""
        return self.states().resolve(which)

    def load(self, which: str) -> Version:
        """A version with its bundle, hash checked against the promotions table. Revoked versions are refused."""
        seen = self.states()
        return self._read(seen.usable(which), seen)

    def inspect(self, which: str) -> Version:
        """The same of any version, revoked ones too: for looking at, never for scoring."""
        seen = self.states()
        return self._read(seen.resolve(which), seen)

    def _read(self, number: str, seen: States) -> Version:
        with TemporaryDirectory() as scratch:
            loaded = bundles.load(self.store.fetch(number, Path(scratch)), seen.bundle_sha256[number])
        return Version(number, seen.state[number], loaded)

    def export(self, which: str, folder: Path) -> Version:
        """Copies a version's three files, checked, into an empty or new folder that scores alone. Revoked versions are refused."""
        seen = self.states()
        number = seen.usable(which)
        with TemporaryDirectory() as scratch:
            fetched = self.store.fetch(number, Path(scratch))
            loaded = bundles.load(fetched, seen.bundle_sha256[number])
            copy_files(fetched, folder, seen.bundle_sha256[number])
        return Version(number, seen.state[number], loaded)

    def promote(self, number: str, *, now: datetime, actor: str, reason: str) -> None:
        """Makes a version the champion. Suspect and revoked versions are refused; a faster promotion is a ConflictError."""
        self._change(lambda seen: states.promotion(seen, number, reason), now=now, actor=actor)

    def promote_newest(self, number: str, *, now: datetime, actor: str, reason: str) -> bool:
        """The same where a run may do it without a person (`states.automatic`); False where there is nothing to promote."""
        changes, _ = self._change(lambda seen: states.automatic(seen, number, reason), now=now, actor=actor)
        return bool(changes)

    def mark_stable(self, number: str, *, now: datetime, actor: str, reason: str) -> None:
        """A version that has been champion may publish corrections from now on."""
        self._change(lambda seen: states.proof(seen, number, reason), now=now, actor=actor)

    def rollback(self, *, now: datetime, actor: str, reason: str, leave: str | None = None) -> tuple[str, str] | None:
        """(left, taken): the champion becomes suspect; the stable version that was champion last before it decides.

        None where `leave` was left before: nothing is to be done.
        """
        changes, seen = self._change(lambda seen: states.rollback(seen, reason, leave), now=now, actor=actor)
        if not changes:
            return None
        return seen.champions[-1], changes[-1].version

    def revoke(self, number: str, *, now: datetime, actor: str, reason: str) -> None:
        """The version is never used again; where it is the champion, nobody decides until a promotion or rollback."""
        self._change(lambda seen: states.revocation(seen, number, reason), now=now, actor=actor)

    def log_monitoring(self, numbers: Mapping[str, float], *, time: datetime) -> None:
        """Keeps monitoring's numbers of an hour as metrics; where MLflow can't be reached, monitoring goes on without."""
        try:
            self.store.log_numbers(MONITORING, numbers, time)
        except SetupError as error:
            logger.error("MLflow lacks the numbers of %s; they are in the text file for Prometheus: %s", time.isoformat(), error)

    def _change(
        self, decide: Callable[[States], list[Change]], *, now: datetime, actor: str, new: tuple[str, str] | None = None
    ) -> tuple[list[Change], States]:
        """Appends what `decide` makes of the states, in one commit, and mirrors it to MLflow. Returns it with the states before.

        Where another change came first, it is decided again on the new states; unless that says the same (a candidate was registered
        meanwhile), the slower one gives way with a ConflictError. `new` holds sha256 and metrics of a version that has no event yet.
        """
        wanted: tuple[Any, ...] | None = None
        for _ in range(ATTEMPTS):
            known = log.read(self.lake)
            seen = fold(known.events)
            changes = decide(seen)
            if not changes:
                return [], seen
            now_wanted = (changes, seen.champion if any(change.to_state == "champion" for change in changes) else None)
            if wanted not in (None, now_wanted):
                raise _overtaken(known.events[-1])
            wanted = now_wanted
            if known.append(_rows(changes, seen, after=known.last, now=now, actor=actor, new=new)):
                self._try_mirror()
                return changes, seen
        raise _overtaken(known.events[-1])

    def _try_mirror(self) -> None:
        try:
            self.store.mirror(self.states())
        except SetupError as error:
            logger.error("The change is on record and holds; MLflow's alias and tags follow with the next change: %s", error)


def _overtaken(event: states.Event) -> ConflictError:
    return ConflictError(
        f"another change came first: version {event['model_version']} became {event['to_state']} ({event['actor']}: {event['reason']}); "
        "nothing of this one was written; look at `slidr models list`, and run it again if it is still wanted"
    )


def _rows(
    changes: Sequence[Change], seen: States, *, after: int, now: datetime, actor: str, new: tuple[str, str] | None
) -> list[dict[str, Any]]:
    """Events of the changes, numbered from `after` + 1."""
    rows = []
    for number, change in enumerate(changes, start=after + 1):
        sha, metrics = new or (seen.bundle_sha256[change.version], seen.metrics[change.version])
        row = {
            "event_id": f"{number}-{change.version}-{change.to_state}",
            "event_no": number,
            "event_time": now,
            "event_date": now.date(),
            "model_version": change.version,
            "from_state": change.from_state,
            "to_state": change.to_state,
            "actor": actor,
            "reason": change.reason,
            "bundle_sha256": sha,
            "metrics": metrics,
        }
        rows.append(row)
    return rows
