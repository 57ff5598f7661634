"""The error tree of Siren.

SirenError
├── UsageError                 the user asked for something that cannot be done (exit 2)
│   ├── UnknownNameError       a workload, world, policy, rule, … that does not exist
│   ├── BudgetError            a budget that is not a positive amount or cannot pay one useful epoch
│   ├── WorldError             a world file that cannot be read or breaks its schema
│   ├── PriceError             a region, architecture or memory that has no known price
│   ├── ActionError            an action outside the world's grid, limits or the job's quota
│   ├── ChannelError           an update rule that the chosen channel cannot carry
│   ├── AgentError             a trained agent that is missing, damaged or made for other spaces
│   └── MissingExtraError      an optional package that is not installed
├── WorkloadError              a workload folder or its model that does not keep its contract (exit 2)
├── DatasetError               data that cannot be had, or does not match its checksum (exit 2)
├── RunFolderError             a run folder that is missing, corrupt or cannot be written (exit 4)
├── LedgerError                an entry that would break the account (exit 1)
│   └── OverBudgetError        a reservation that does not fit what is left
└── PlatformError              the platform could not run the epoch (exit 4)

Every message ends with what to do next; errors carry their data as attributes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from siren.types import Usage


class SirenError(Exception):
    """Root of every error that Siren raises on purpose; it can be sent to another process.

    Attributes:
        exit_code: Of a command that it ends.
        unlaunched: What is billed for an epoch that ended with it although none of its functions can have
            run; None where some may have, or it ended no epoch.
    """

    exit_code = 1
    unlaunched: Usage | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is sent: by its message and its data, whatever its constructor takes."""
        return type(self)._rebuilt, (self.args,), self.__dict__

    @classmethod
    def _rebuilt(cls, args: tuple[Any, ...]) -> Self:
        error = cls.__new__(cls)
        error.args = args
        return error


class UsageError(SirenError):
    """The user asked for something that cannot be done."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that does not exist; suggests the nearest one.

    Args:
        kind: What was named, e.g. "workload".
        name: The name that was given.
        known: The names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = sorted(known)
        near = difflib.get_close_matches(name, self.known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"no {kind} named {name!r}: {hint}choose one of {', '.join(self.known)}")


class BudgetError(UsageError):
    """A budget that is not a positive amount of dollars, or cannot pay one useful epoch."""


class WorldError(UsageError):
    """A world file that cannot be read or breaks its schema."""


class PriceError(UsageError):
    """A region, architecture, memory or service that has no known price."""


class ActionError(UsageError):
    """An action outside the world's grid, its limits, or the job's quota."""


class ChannelError(UsageError):
    """An update rule that the chosen channel cannot carry."""


class AgentError(UsageError):
    """A trained agent that is missing, damaged or made for other spaces."""


class MissingExtraError(UsageError):
    """An optional package is not installed.

    Args:
        package: The package that could not be imported.
        extra: The extra of `siren-scheduler` that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            f"{package} is not installed: in Siren's checkout run `pip install -e '.[{extra}]'`, "
            f"elsewhere `pip install 'siren-scheduler[{extra}]'`"
        )


class WorkloadError(SirenError):
    """A workload folder, or the model in it, does not keep its contract."""

    exit_code = 2


class DatasetError(SirenError):
    """Data that cannot be had, or does not match its checksum."""

    exit_code = 2


class RunFolderError(SirenError):
    """A run folder that is missing, corrupt, or cannot be written."""

    exit_code = 4


class LedgerError(SirenError):
    """An entry that would break the account."""


class OverBudgetError(LedgerError):
    """A reservation that does not fit what is left of the budget."""

    def __init__(self, requested_usd: Decimal, left_usd: Decimal) -> None:
        self.requested_usd = requested_usd
        self.left_usd = left_usd
        super().__init__(
            f"cannot reserve ${requested_usd:f}: only ${left_usd:f} of the budget is left; "
            "choose fewer functions, less memory or a shorter deadline"
        )


class PlatformError(SirenError):
    """The platform could not run the epoch."""

    exit_code = 4
