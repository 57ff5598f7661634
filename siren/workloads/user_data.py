"""The data that a workload's own `model.py` loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.errors import SirenError, WorkloadError
from siren.workloads.datasets import Splits
from siren.workloads.workload import user_error

_ARRAYS = 4


def load_user_splits(file: Path, load: Callable[..., Any], settings: Mapping[str, Any], title: str) -> Splits:
    """The data of `load_dataset(**settings)` in a `model.py`; integer labels become int64.

    Args:
        file: The `model.py`.
        load: Its `load_dataset`; it returns training features and labels, held-out features and labels.
        settings: Its keyword arguments.
        title: What to call the data.

    Raises:
        WorkloadError: It raised, or its arrays do not fit together.
    """
    try:
        arrays = [np.asarray(part) for part in load(**settings)]
    except Exception as error:
        if isinstance(error, SirenError):
            raise
        raise WorkloadError(user_error(file, "load_dataset", error)) from error
    if len(arrays) != _ARRAYS:
        raise WorkloadError(
            f"{file}: load_dataset returned {len(arrays)} arrays; return the features and labels of the "
            "training set, then those of the held-out split"
        )
    problem = _problem(arrays)
    if problem:
        raise WorkloadError(f"{file}: load_dataset {problem}")
    train_x, train_y, heldout_x, heldout_y = arrays
    if train_y.dtype.kind == "f":
        return Splits(train_x, _binary(train_y), heldout_x, _binary(heldout_y), 2, title)
    classes = max(2, int(train_y.max()) + 1, int(heldout_y.max()) + 1)
    return Splits(train_x, train_y.astype(np.int64), heldout_x, heldout_y.astype(np.int64), classes, title)


def _binary(labels: NDArray[Any]) -> NDArray[np.float32]:
    return labels.astype(np.float32)


def _problem(arrays: list[NDArray[Any]]) -> str:
    """What is wrong with the four arrays, or nothing."""
    train_x, train_y, heldout_x, heldout_y = arrays
    for what, x, y in (("training", train_x, train_y), ("held-out", heldout_x, heldout_y)):
        if x.ndim < 1 or y.ndim != 1 or len(x) != len(y) or len(x) == 0:
            return (
                f"returned {what} features of shape {x.shape} and labels of shape {y.shape}; "
                "labels must have one dimension and as many rows as the features, at least one"
            )
        if x.dtype.kind not in "biuf":
            return f"returned {what} features of dtype {x.dtype}; use numbers"
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            return f"returned {what} features with NaN or infinite values; replace them"
    if train_x.shape[1:] != heldout_x.shape[1:] or train_x.dtype != heldout_x.dtype:
        return "returned training and held-out features of different row shape or dtype; make them equal"
    if train_y.dtype != heldout_y.dtype:
        return "returned training and held-out labels of different dtype; make them equal"
    if train_y.dtype.kind in "biu":
        negative = min(int(train_y.min()), int(heldout_y.min())) < 0
        return "returned a negative class index; number classes from 0" if negative else ""
    if train_y.dtype.kind == "f" and all(np.isin(y, (0, 1)).all() for y in (train_y, heldout_y)):
        return ""
    return f"returned labels of dtype {train_y.dtype}; use class indices (int64), or 0.0 and 1.0 (float32)"
