"""One writer of a table at a time, in stores where Spark would let two of them commit the same version without a word.

Spark puts the commits of a table on S3 whether or not the version is there already: of two drivers at once both are told that they have
won, and one of the commits is gone. delta-rs puts a version on condition that it is not there. So the lease of a table is a Delta log of
its own without rows, `_leases/NAME`, that delta-rs alone writes: who adds the next version holds the table, until the end that the
commit names. Every writer of slidr takes the lease first, delta-rs itself included, since Spark could overwrite its commit too.

A lease ends when the write has ended, by time, or with its process where that can be seen. The clocks of the writers' machines may be
`SKEW` apart. What the lease can't stop: a driver that sleeps for longer than its lease in the middle of a commit, wakes, and commits.
"""

import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from deltalake import CommitProperties, DeltaTable, Field, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType

from slidr.errors import ConflictError, LockedError, SetupError
from slidr.process import has_ended, holder
from slidr.tables import Table

UNSAFE = ("s3", "s3a")  # HDFS, Azure and Google stores have log stores that put a commit only where none is
LEASE = timedelta(minutes=5)
RENEWED_EVERY = timedelta(minutes=1)
SKEW = timedelta(seconds=30)
PATIENCE = timedelta(seconds=30)  # most writes of small tables end within it
# The log forgets what is a day old: a table is written some hundred times a day.
PROPERTIES = {"delta.checkpointInterval": "10", "delta.logRetentionDuration": "interval 1 days"}
FREE = ""
TRACE = re.compile(r"\s+0: .*", re.DOTALL)  # its own stack follows some of its messages

_threads: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # this process's own threads, by lease
_inside = threading.local()


class Place(Protocol):
    """Where tables live, as in `Lake`."""

    @property
    def root(self) -> str: ...

    @property
    def catalog(self) -> str | None: ...


@dataclass(frozen=True)
class Lease:
    """Who may write a table (`FREE`: anybody), and from when to when."""

    holder: str
    since: datetime
    until: datetime

    def is_free(self, now: datetime) -> bool:
        """Whether somebody else may take it: it was given back, has ended, or its process has, or it is left over from this process."""
        return self.holder in (FREE, holder()) or now > self.until + SKEW or has_ended(self.holder)


@contextmanager
def alone(place: Place, table: Table) -> Iterator[None]:
    """Inside, no other writer of slidr commits to the table. Costs nothing where the store is safe, or a catalog has the commits.

    Waits a little for another writer; raises LockedError where it goes on, and at the end ConflictError where the lease was lost
    meanwhile: the table may lack the commit then.
    """
    if place.catalog or place.root.split("://")[0] not in UNSAFE:
        yield
        return
    uri = f"{place.root.rstrip('/')}/_leases/{table.name}"
    held = _inside.__dict__.setdefault("held", set())
    if uri in held:  # a write within a write: the creation of a table before its first rows
        yield
        return
    with _threads[uri]:
        held.add(uri)
        try:
            with _kept(uri, table.name, _take(uri, table.name)):
                yield
        finally:
            held.discard(uri)


def _take(uri: str, table: str) -> Lease:
    """Takes the lease. Raises LockedError where another writer keeps it for longer than `PATIENCE`."""
    waited_until = _now() + PATIENCE
    while True:
        with reached(uri):
            log = _log(uri)
            found = _newest(log)
            now = _now()
            mine = Lease(holder(), now, now + LEASE)
            if (found is None or found.is_free(now)) and _put(log, mine):
                return mine
        if found and not found.is_free(now) and now > waited_until:
            raise LockedError(
                f"expected no other writer of the table {table}, found {found.holder} writing it since {_second(found.since)}, until "
                f"{_second(found.until)} at most; run the command again when it is done"
            )
        time.sleep(random.uniform(0.1, 0.5))


@contextmanager
def _kept(uri: str, table: str, lease: Lease) -> Iterator[None]:
    """Renews the lease while inside, and gives it back."""
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(uri, lease, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        given_back = _update(uri, Lease(FREE, lease.since, _now()))
    if not given_back:
        raise ConflictError(
            f"expected to write the table {table} alone, found that the lease of this run had ended and was taken; the table may lack "
            "this run's commit: run the command again"
        )


def _renew(uri: str, lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(RENEWED_EVERY.total_seconds()):
        try:
            _update(uri, Lease(lease.holder, lease.since, _now() + LEASE))
        except SetupError:  # out of reach for now: the next turn may succeed, and who writes on finds out at the end
            continue


def _update(uri: str, lease: Lease) -> bool:
    """Writes a new state of this process's lease; False, and nothing written, where somebody else has taken it."""
    with reached(uri):
        log = _log(uri)
        found = _newest(log)
        return found is not None and found.holder == holder() and _put(log, lease)


def _log(uri: str) -> DeltaTable:
    try:
        return DeltaTable(uri)
    except TableNotFoundError:
        schema = Schema([Field("nothing", PrimitiveType("string"))])
        try:
            return DeltaTable.create(uri, schema=schema, mode="ignore", configuration=PROPERTIES)
        except CommitFailedError:  # made by somebody else at this moment
            return DeltaTable(uri)


def _newest(log: DeltaTable) -> Lease | None:
    """What the newest commit says; None where there was no lease yet."""
    last: dict[str, Any] = log.history(1)[0]
    if "holder" not in last:
        return None
    return Lease(last["holder"], datetime.fromisoformat(last["since"]), datetime.fromisoformat(last["until"]))


def _put(log: DeltaTable, lease: Lease) -> bool:
    """Adds the lease as the very next version of its log; False where another one came first."""
    said = {"holder": lease.holder, "since": lease.since.isoformat(), "until": lease.until.isoformat()}
    once = CommitProperties(custom_metadata=said, max_commit_retries=0)
    try:
        log.create_write_transaction([], "append", log.schema(), [], commit_properties=once)
    except CommitFailedError as error:
        newer = DeltaTable(log.table_uri)
        if newer.version() == log.version():
            raise SetupError(f"expected to put a lease at {log.table_uri}, found: {' '.join(str(error).split())[:300]}") from error
        return _newest(newer) == lease  # a put whose answer was lost is tried again by the client, and finds itself
    return True


@contextmanager
def reached(what: str) -> Iterator[None]:
    """Retells that a store is out of reach as SetupError; `what` says what was looked for."""
    try:
        yield
    except CommitFailedError:
        raise
    except (OSError, DeltaError) as error:
        raise SetupError(
            f"expected {what} to be within reach, found: {in_short(error)}; "
            "for an object store set its credentials in the environment, see docs/cluster.md"
        ) from error


def in_short(error: Exception) -> str:
    """What delta-rs says, on one line."""
    return " ".join(TRACE.sub("", str(error)).split())[:300]


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _second(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
