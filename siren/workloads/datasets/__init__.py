"""The data sets that Siren can load, by the name that `workload.toml` gives as `dataset.source`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from siren.errors import UnknownNameError, WorkloadError
from siren.workloads.datasets.cache import Progress
from siren.workloads.datasets.criteo import load_criteo
from siren.workloads.datasets.digits import load_digits
from siren.workloads.datasets.errors import DatasetUnavailableError
from siren.workloads.datasets.higgs import load_higgs
from siren.workloads.datasets.mnist import load_mnist
from siren.workloads.datasets.movie_reviews import load_movie_reviews
from siren.workloads.datasets.spam_assassin import load_spam_assassin
from siren.workloads.datasets.splits import Splits

__all__ = ["LOADERS", "DatasetUnavailableError", "Progress", "Splits", "load_splits"]

LOADERS: Mapping[str, Callable[..., Splits]] = {
    "criteo": load_criteo,
    "digits": load_digits,
    "higgs": load_higgs,
    "mnist": load_mnist,
    "movie-reviews": load_movie_reviews,
    "spam-assassin": load_spam_assassin,
}
_FETCHING = frozenset({"mnist", "spam-assassin"})


def load_splits(
    source: str, settings: Mapping[str, Any], *, folder: Path | None = None, progress: Progress | None = None
) -> Splits:
    """The data of one of Siren's loaders.

    Args:
        source: A key of `LOADERS`.
        settings: Its keyword arguments; a relative `path` is relative to `folder`, `~` is the home folder.
        folder: The workload's folder.
        progress: Called while files are fetched; a progress bar on stderr without it.

    Raises:
        UnknownNameError: There is no such loader.
        WorkloadError: A setting that the loader does not have, or of the wrong type.
        DatasetError: The data cannot be had; `DatasetUnavailableError` if no source answers.
    """
    if source not in LOADERS:
        raise UnknownNameError("dataset", source, [*LOADERS, "model.py"])
    arguments = dict(settings)
    if isinstance(arguments.get("path"), str):
        path = Path(arguments["path"]).expanduser()
        arguments["path"] = path if folder is None else folder / path
    if source in _FETCHING:
        arguments["progress"] = progress
    checked = validate_call(config=ConfigDict(strict=True, arbitrary_types_allowed=True))(LOADERS[source])
    try:
        return checked(**arguments)
    except ValidationError as error:
        where = f"{folder / 'workload.toml'}: " if folder else ""
        lines = [
            f"{where}dataset.settings.{'.'.join(map(str, problem['loc']))}: {problem['msg'].lower()}"
            for problem in error.errors()
        ]
        raise WorkloadError("\n".join(lines)) from None
