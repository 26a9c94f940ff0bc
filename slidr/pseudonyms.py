"""Pseudonyms: keyed hashes in place of user ids and addresses, the same for the same value, so that counters and joins stay exact.

The key comes from an environment variable and is written nowhere; the lake records its fingerprint, so that no second key gets in.
"""

import hmac
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd
from pyspark.sql import Column
from pyspark.sql import functions as F

from slidr import ledger
from slidr.config import IngestConf
from slidr.errors import ConfigError
from slidr.lake import Lake
from slidr.tables import CLICKS, PSEUDONYM_KEYS, PURCHASES, REJECTS

HEX_DIGITS = 64  # of a key, at least: 32 bytes
DIGITS = 32  # of a pseudonym


@dataclass(frozen=True)
class Key:
    """`secret` are the bytes of the key; they show in no text that is made of it."""

    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """Fingerprint: 12 hex digits that do not lead back to the key."""
        return self.of("key", "fingerprint")[:12]

    def of(self, kind: str, value: str) -> str:
        """32 hex digits of the HMAC-SHA256. `kind` keeps equal values of different meaning apart, such as a user 7 and an address 7."""
        return hmac.digest(self.secret, f"{kind}\0{value}".encode("utf-8", "surrogatepass"), "sha256").hex()[:DIGITS]

    def column(self, kind: str, values: Column) -> Column:
        """`of` for a column; NULL stays NULL. The key goes to the tasks inside the function, so that no plan and no event log shows it."""

        @F.pandas_udf("string")  # type: ignore[call-overload, untyped-decorator] # its types lack the default kind of function
        def pseudonym(batch: pd.Series) -> pd.Series:
            return batch.map({value: self.of(kind, value) for value in batch.dropna().unique()}).astype(object)

        hashed: Column = pseudonym(values)
        return hashed


def load_key(conf: IngestConf) -> Key | None:
    """The key in the environment variable that the settings name; None where they name none. Raises ConfigError, which never tells it."""
    name = conf.pseudonym_key_variable
    if name is None:
        return None
    given = os.environ.get(name, "")
    if not re.fullmatch(f"[0-9a-fA-F]{{{HEX_DIGITS},}}", given) or len(given) % 2:
        found = f"{len(given)} characters that are none" if given else "nothing"
        raise ConfigError(
            f"expected a key of {HEX_DIGITS} or more hexadecimal digits in the environment variable {name}, found {found}; "
            "make one with `openssl rand -hex 32` and keep it safe"
        )
    return Key(bytes.fromhex(given))


def require(lake: Lake, key: Key | None) -> None:
    """Raises ConfigError unless the lake's users and addresses are those of this key: pseudonyms by it, or as delivered where it is None.
    A lake without rows fits every key."""
    wanted, found = key and key.key_id, recorded(lake)
    if found is None and wanted is not None and _holds_rows(lake):
        raise ConfigError(
            f"expected a lake without rows for the new key {wanted}, found users and addresses as delivered in {lake.root}; "
            "ingest with ingest.pseudonym_key_variable: null, or into another lake"
        )
    if found is not None and wanted != found:
        raise ConfigError(
            f"expected the key {found}, by which the users and addresses in {lake.root} were made pseudonyms, found "
            f"{f'the key {wanted}' if wanted else 'no key'}; set ingest.pseudonym_key_variable and the variable that it names"
        )


def record(lake: Lake, key: Key | None, *, run_id: str, now: datetime) -> None:
    """Puts the key's fingerprint on record, right before the first rows. Raises ConfigError where another key was faster."""
    require(lake, key)
    if key is None or recorded(lake) is not None:
        return
    ledger.create(lake, PSEUDONYM_KEYS)
    row = {"key_id": key.key_id, "recorded_time": now, "key_date": now.date(), "run_id": run_id}
    there = ledger.read(lake, PSEUDONYM_KEYS)
    if there.rows or not there.append([row]):
        require(lake, key)


def recorded(lake: Lake) -> str | None:
    """Fingerprint of the lake's key; None where it has none."""
    rows: Sequence[dict[str, str]] = ledger.read(lake, PSEUDONYM_KEYS).rows if ledger.exists(lake, PSEUDONYM_KEYS) else []
    return rows[0]["key_id"] if rows else None


def _holds_rows(lake: Lake) -> bool:
    return any(lake.exists(table) and not lake.read(table).isEmpty() for table in (CLICKS, PURCHASES, REJECTS))
