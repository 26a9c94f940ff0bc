"""A model version as a value: its number, its state and its bundle. The registry makes it; replay and scoring take it."""

from collections.abc import Sequence
from dataclasses import dataclass

from slidr.bundle import Bundle
from slidr.errors import InputError, ModelRefusedError

STATES = ("candidate", "champion", "stable", "suspect", "revoked")


@dataclass(frozen=True)
class Version:
    """One registered version: `state` is one of STATES, `bundle` was checked when it was loaded."""

    number: str
    state: str
    bundle: Bundle

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise InputError(f"expected the state of version {self.number} to be one of {', '.join(STATES)}, found {self.state!r}")

    def require(self, allowed: Sequence[str], purpose: str) -> None:
        """Raises ModelRefusedError unless the state is one of `allowed`; `purpose` says what the version was wanted for."""
        if self.state not in allowed:
            raise ModelRefusedError(
                f"expected a model version that is {' or '.join(allowed)} to {purpose}, found version {self.number}, which is "
                f"{self.state}; choose another with `slidr models list`"
            )
