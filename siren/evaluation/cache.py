"""What was chosen for a job, kept on disk: choosing takes longer than reporting."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from siren.evaluation.jobs import digest_of
from siren.workloads.datasets.cache import cache_folder, write_atomically


class ChoiceCache:
    """JSON values by what they are about, in files that several processes may share.

    Args:
        folder: Where; by default in Siren's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "evaluation"

    def get(self, about: object, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The kept value about that, or what `find` returns, which is kept.

        Args:
            about: JSON value; equal means the same.
            find: Finds it.

        Raises:
            DatasetError: The cache folder cannot be written.
        """
        path = self.folder / f"{digest_of(about)}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(kept, dict):
                return kept
        except (OSError, ValueError):  # absent, or damaged: it is found again
            pass
        found = find()
        write_atomically(path, json.dumps(found, allow_nan=True).encode())
        return found


def finite(value: float | None) -> float | None:
    """The number as JSON takes it; None if it is not finite."""
    return value if value is not None and math.isfinite(value) else None
