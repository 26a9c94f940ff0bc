"""Every error that slidr raises on purpose; each class knows the exit code of the command that it ends.

A message says what was expected, what was found, and what to do, in this order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

DONE = 0
DONE_WITH_REJECTS = 10


class SlidrError(Exception):
    """Base of all errors that a user can act on."""

    exit_code = 3


class UsageError(SlidrError, ValueError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class ConfigError(SlidrError, ValueError):
    """The configuration or a source file is not valid."""

    exit_code = 3


class InputError(SlidrError, ValueError):
    """Data breaks the contract of a table, a source or a bundle."""

    exit_code = 3


class GuardrailError(SlidrError):
    """A guardrail stopped the run; nothing was published. `rows` is the table of all checks, where there is one."""

    exit_code = 4

    def __init__(self, message: str, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.rows = list(rows)


class ConflictError(SlidrError):
    """What a plan pinned has moved, or another writer was faster."""

    exit_code = 5


class LockedError(SlidrError):
    """Somebody else works on the same window now."""

    exit_code = 6


class NotApprovedError(SlidrError):
    """Money above the limit moves only after somebody else than the author has approved."""

    exit_code = 7


class ModelRefusedError(SlidrError):
    """The model version may not be used for this: not stable, suspect, revoked, or its bytes do not match."""

    exit_code = 8


class NothingToDoError(SlidrError):
    """The window holds nothing to work on."""

    exit_code = 9


class SetupError(SlidrError):
    """Java, jars, versions or services are missing or do not fit."""

    exit_code = 75
