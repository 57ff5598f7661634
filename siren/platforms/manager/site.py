"""Where functions run: what the function manager needs of a machine, or of an AWS account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from siren.platforms.backend import Backend


@dataclass(frozen=True)
class Grounds:
    """A site that is ready.

    Attributes:
        backend: Where its APIs are.
        code_sha256: What Lambda must say of the worker's code (`CodeSha256`, base64).
    """

    backend: Backend
    code_sha256: str


class Site(Protocol):
    """Where functions run.

    Attributes:
        name: `local` or `aws`.
        spends_money: Whether its bill is real.
    """

    name: str
    spends_money: bool

    def check(self) -> None:
        """Refuses what can be known to fail, without starting anything or spending.

        Raises:
            MissingExtraError: An optional package is not installed.
            UsageError, PlatformError: The site is not to be had.
        """
        ...

    def open(self) -> Grounds:
        """Makes it ready: the worker's function is there when this returns. May be called again.

        Raises:
            UsageError, PlatformError: It cannot be made ready.
        """
        ...

    def facts(self) -> Mapping[str, Any]:
        """What a run folder should say of it; JSON. Asked while it is open."""
        ...

    def close(self) -> None:
        """Gives back what it holds; may be called more than once."""
        ...
