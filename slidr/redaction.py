"""Secrets kept out of all that slidr says and writes: passwords in URIs, values of settings and variables that are named as secrets.

What is hidden is replaced by `***`. Two ways at once: by form (`scheme://user:password@`, `secret.key=…`), and by value, for what the
settings and the environment of this process hold.
"""

import logging
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from slidr.config import Config

HIDDEN = "***"
NAME = r"[\w.-]*(?:secret|passw|token|credential|access[._-]?key|account[._-]?key|api[._-]?key|private[._-]?key|signature)[\w.-]*"
SECRET_NAME = re.compile(NAME, re.IGNORECASE)
NAMED = re.compile(rf"({NAME}[\"']?\s*[=:]\s*[\"']?)(?!\*\*\*)[^\s,;&\"'()\[\]{{}}]+", re.IGNORECASE)
USERINFO = re.compile(r"(://)[^/\s\"']+@")
LITERAL = re.compile(r"'(?:[^']|'')*'")
SHORTEST = 6  # characters: a shorter value would hide half of every text
SPARK = "(?i)secret|passw|token|credential|access[._-]?key|account[._-]?key"  # of settings that Spark's own pages and logs hide


@dataclass(frozen=True)
class Redaction:
    """`values` are secrets that this process knows."""

    values: tuple[str, ...] = ()

    def text(self, said: str) -> str:
        for value in self.values:
            said = said.replace(value, HIDDEN)
        return NAMED.sub(rf"\1{HIDDEN}", USERINFO.sub(rf"\1{HIDDEN}@", said))

    def all(self, value: Any) -> Any:
        """The same in all texts of a JSON value."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self.all(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.all(item) for item in value]
        return value

    def command(self, words: Sequence[str]) -> str:
        """A command line for the record. Of a query neither texts nor parameters are kept: they may name an account or an address."""
        kept = [self._word(word) for word in words]
        if list(words[1:2]) == ["sql"]:
            kept = [_asked(word, after=before) for before, word in zip(["", *kept], kept, strict=False)]
        return shlex.join(kept)

    def _word(self, word: str) -> str:
        name, equals, _ = word.partition("=")
        return f"{name}={HIDDEN}" if equals and SECRET_NAME.search(name) else self.text(word)


def _asked(word: str, *, after: str) -> str:
    """A word of a query's command line without the texts that it asks for."""
    if after == "--param" or word.startswith("--param="):
        option, name = ("--param=", word.removeprefix("--param=")) if word.startswith("--param=") else ("", word)
        return f"{option}{name.partition('=')[0]}={HIDDEN}"
    return without_texts(word)


def without_texts(said: str) -> str:
    """SQL, or what an engine says of it, without the texts in it."""
    return LITERAL.sub(f"'{HIDDEN}'", said)


def of(conf: Config) -> Redaction:
    """What these settings and the environment hold of secrets."""
    found = [value for name, value in {**os.environ, **conf.spark.settings}.items() if SECRET_NAME.search(name)]
    found += [password for uri in (conf.registry.uri, conf.registry.artifacts, conf.lake.root) for password in _passwords(uri)]
    found += [os.environ.get(conf.ingest.pseudonym_key_variable or "", "")]
    return Redaction(_longest_first(found))


def _passwords(uri: str) -> list[str]:
    userinfo = uri.partition("://")[2].rpartition("@")[0]
    password = userinfo.partition(":")[2]
    return [password, unquote(password)]


def _longest_first(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if len(value) >= SHORTEST}, key=lambda value: (-len(value), value)))


class Formatter(logging.Formatter):
    """Log lines, traces included, without secrets."""

    def __init__(self, redaction: Redaction) -> None:
        super().__init__(logging.BASIC_FORMAT)
        self.redaction = redaction

    def format(self, record: logging.LogRecord) -> str:
        return self.redaction.text(super().format(record))
