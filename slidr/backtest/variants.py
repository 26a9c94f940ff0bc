"""Settings that a backtest compares: each variant is a name and what it changes. No Spark here."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from slidr import config
from slidr.config import Config
from slidr.errors import ConfigError, UsageError

DEFAULT = "default"
OPTION = "--variant"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}")
# Where things are kept is the backtest's own affair; the rest comes before or after the daily chain, and would change nothing.
NO_EFFECT = ("lake", "work", "registry", "spark", "workers", "ingest", "replay", "monitoring", "promotion")


@dataclass(frozen=True)
class Variant:
    """One set of settings; candidates are promoted without a person, whatever `promotion` says."""

    name: str
    overrides: tuple[str, ...]
    conf: Config

    @property
    def budget(self) -> float:
        """The FPR that its thresholds are chosen for, as a share."""
        return self.conf.calibration.fpr_budget


def parse(texts: Sequence[str], base: Config) -> list[Variant]:
    """Variants from texts such as `lax: calibration.fpr_budget=0.02`; without any, the settings as they are, called `default`.

    Raises UsageError for names that are missing or twice there, ConfigError for keys that are not known or change no decision.
    """
    found = [_parse(text, base) for text in texts or [f"{DEFAULT}:"]]
    names = [variant.name for variant in found]
    if len(set(names)) < len(names):
        raise UsageError(f"{OPTION}: expected each name once, found {', '.join(names)}")
    return found


def _parse(text: str, base: Config) -> Variant:
    name, colon, rest = text.partition(":")
    if not colon or not NAME.fullmatch(name.strip()):
        raise UsageError(f'{OPTION}: expected "NAME: key=value key=value", found {text!r}')
    try:
        overrides = tuple(shlex.split(rest))
    except ValueError as error:
        raise UsageError(f"{OPTION} {name}: expected key=value words, quoted as in a shell, found {rest!r}: {error}") from error
    for override in overrides:
        if override.partition("=")[0].split(".")[0] in NO_EFFECT:
            raise ConfigError(f"{OPTION} {name}: expected keys that change decisions, found {override!r}; not of {', '.join(NO_EFFECT)}")
    changed = config.changed(base, overrides, option=f"{OPTION} {name}")
    return Variant(name.strip(), overrides, changed.model_copy(update={"promotion": "auto"}))
