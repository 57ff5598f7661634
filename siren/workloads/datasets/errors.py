"""The one dataset error that a caller can act on by training on something else."""

from __future__ import annotations

from siren.errors import DatasetError


class DatasetUnavailableError(DatasetError):
    """No source of the data can be reached; the message lists what was tried."""
