"""Siren trains machine-learning models on AWS Lambda within a hard dollar budget.

The public names are loaded when they are first used, so that `import siren` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from siren.errors import SirenError
    from siren.types import (
        Action,
        BatchRule,
        ChannelKind,
        Decision,
        EpochReport,
        EpochStatus,
        Forecast,
        StopReason,
        UpdateRule,
        Usage,
    )

__version__ = "0.1.0"

__all__ = [
    "Action",
    "BatchRule",
    "ChannelKind",
    "Decision",
    "EpochReport",
    "EpochStatus",
    "Forecast",
    "SirenError",
    "StopReason",
    "UpdateRule",
    "Usage",
    "__version__",
]

_HOMES = {
    "Action": "siren.types",
    "BatchRule": "siren.types",
    "ChannelKind": "siren.types",
    "Decision": "siren.types",
    "EpochReport": "siren.types",
    "EpochStatus": "siren.types",
    "Forecast": "siren.types",
    "SirenError": "siren.errors",
    "StopReason": "siren.types",
    "UpdateRule": "siren.types",
    "Usage": "siren.types",
}


if not TYPE_CHECKING:  # a type checker knows the names from above, and then finds misspelt ones

    def __getattr__(name: str) -> object:
        """A public name, loaded from the module it lives in (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names beside what the module already holds."""
    return sorted({*globals(), *__all__})
