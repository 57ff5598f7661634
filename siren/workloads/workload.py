"""A workload: a user's model joined to its data, with the checks that keep a paid run from surprises."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from siren.errors import SirenError, WorkloadError
from siren.workloads.protocol import Dataset, Kernel, Model, Params, layout_size
from siren.workloads.spec import WorkloadSpec

_CHUNK_VALUES = 1 << 20
"""Features evaluated at a time: 4 MB as float32, so that hidden layers fit into memory as well."""
_MIN_CHUNK_ROWS = 256
_KERNEL_ROWS = 4
_KERNEL_TOLERANCE = 2e-3


class Workload:
    """What to train: a model, its data and how it is trained.

    Attributes:
        name: The name of its folder.
        spec: Its `workload.toml`.
        model: The model of its `model.py`, adapted where that is needed.
        dataset: Its data, shuffled.
        folder: Where it lies.
        size: Parameters of the model.
        samples: S, training samples of one epoch.
    """

    def __init__(self, name: str, spec: WorkloadSpec, model: Model, dataset: Dataset, folder: Path) -> None:
        """Join the parts; `siren.workloads.registry.load_workload` is the usual way.

        Raises:
            WorkloadError: The model's layout is not a mapping of names to shapes.
        """
        self.name = name
        self.spec = spec
        self.model = model
        self.dataset = dataset
        self.folder = folder
        self.samples = spec.training.samples_per_epoch or len(dataset.train_features)
        try:
            self.size = layout_size(model.layout)
        except (AttributeError, TypeError, ValueError) as error:
            raise WorkloadError(
                f"{self._file}: layout must map each tensor's name to its shape, a tuple of integers "
                f"({error}); "
                'set it in __init__, for example self.layout = {"weight": (784, 10), "bias": (10,)}'
            ) from error
        if self.size < 1:
            raise WorkloadError(f"{self._file}: layout holds no parameters; name the model's tensors in it")
        self._shape = (self.size,)
        self._float32 = np.dtype(np.float32)
        self._features = dataset.train_features
        self._labels = dataset.train_labels

    def __repr__(self) -> str:
        """Name and sizes."""
        return f"Workload({self.name!r}, {self.size:,} parameters, {self.samples:,} samples an epoch)"

    @property
    def kernel(self) -> Kernel | None:
        """The model's plain-loop kernel, to be compiled by numba; None if it has none."""
        kernel: Kernel | None = getattr(self.model, "kernel", None)
        return kernel

    @property
    def _file(self) -> Path:
        return self.folder / "model.py"

    def init(self, seed: int) -> Params:
        """The initial parameters for a seed, float32, (size,).

        Raises:
            WorkloadError: The model raised, or returned something else.
        """
        try:
            params = self.model.init(np.random.default_rng(seed))
        except Exception as error:
            self._fail("init", error)
        self._require_vector("init", params)
        return np.ascontiguousarray(params)

    def loss_and_grad(self, params: Params, rows: NDArray[np.int64]) -> tuple[float, Params]:
        """The mean loss of a mini-batch and its gradient.

        Neither is checked for NaN: a trainer sees divergence by itself.

        Args:
            params: float32, (size,).
            rows: Row numbers of the training set, int64, (batch,).

        Returns:
            The loss and the gradient, float32, (size,).

        Raises:
            WorkloadError: The model raised, or returned the wrong shape or dtype.
        """
        try:
            loss, gradient = self.model.loss_and_grad(params, self._features[rows], self._labels[rows])
            if gradient.dtype is self._float32 and gradient.shape == self._shape:
                return float(loss), gradient
        except Exception as error:
            self._fail("loss_and_grad", error)
        self._require_vector("loss_and_grad", gradient)
        return float(loss), gradient

    def evaluate(self, params: Params) -> tuple[float, float]:
        """The mean loss and the accuracy in [0, 1] (NaN without one) over the held-out split.

        Args:
            params: float32, (size,).

        Raises:
            WorkloadError: The model raised, or did not return two numbers.
        """
        features, labels = self.dataset.heldout_features, self.dataset.heldout_labels
        values = max(1, int(np.prod(features.shape[1:], dtype=np.int64)))
        step = max(_MIN_CHUNK_ROWS, _CHUNK_VALUES // values)
        loss = accuracy = 0.0
        for start in range(0, len(features), step):
            chunk = slice(start, start + step)
            share = len(labels[chunk]) / len(labels)
            try:
                part = self.model.evaluate(params, features[chunk], labels[chunk])
                chunk_loss, chunk_accuracy = (float(value) for value in part)
            except Exception as error:
                self._fail("evaluate", error)
            loss += share * chunk_loss
            accuracy += share * chunk_accuracy
        return loss, accuracy

    def check(self) -> None:
        """Try the model before anything is paid for.

        Builds initial parameters, takes gradients of one small mini-batch and evaluates; no model
        that passes is known to be right, but one that fails would have failed with money spent.

        Raises:
            WorkloadError: The model raises; returns NaN, infinity, the wrong shape or dtype; changes
                its arguments; reuses the array of an earlier gradient; gives two answers to one
                question; or its kernel disagrees with `loss_and_grad`.
        """
        params = self.init(0)
        self._require_finite("init", params)
        rows = np.arange(min(self.spec.training.batch_size, len(self._labels)), dtype=np.int64)
        before = params.copy()
        with np.errstate(all="ignore"):
            loss, gradient = self.loss_and_grad(params, rows)
            self._require_finite("loss_and_grad", gradient, loss)
            self._check_repeatable(params, rows, loss, gradient)
            self.loss_and_grad(params, rows[:1])
            heldout_loss, accuracy = self.evaluate(params)
            self._require_finite("evaluate", None, heldout_loss)
            if not (np.isnan(accuracy) or -1e-6 <= accuracy <= 1 + 1e-6):
                self._refuse(
                    f"evaluate returned the accuracy {accuracy:g}, which is not in [0, 1] (or NaN for none)"
                )
            if not np.array_equal(params, before):
                self._refuse("loss_and_grad or evaluate changed the parameters it was given; work on a copy")
            if self.kernel is not None:
                self._check_kernel(self.kernel, params, rows[:_KERNEL_ROWS])

    def _check_repeatable(
        self, params: Params, rows: NDArray[np.int64], loss: float, gradient: Params
    ) -> None:
        kept = gradient.copy()
        again, second = self.loss_and_grad(params, rows)
        if np.may_share_memory(gradient, second):
            self._refuse("loss_and_grad returned the same array twice; return a new one from each call")
        if again != loss or not np.array_equal(second, kept):
            self._refuse(
                "loss_and_grad gave two answers for the same parameters and rows; use no randomness in it, "
                "and keep no state between calls"
            )

    def _check_kernel(self, kernel: Kernel, params: Params, rows: NDArray[np.int64]) -> None:
        # at zero parameters many mistakes in a kernel do not show
        params = params + np.random.default_rng(1).normal(0, 0.05, self.size).astype(np.float32)
        loss, gradient = self.loss_and_grad(params, rows)
        found = np.full(self.size, np.nan, dtype=np.float32)
        try:
            kernel_loss = float(kernel(params, self._features, self._labels, rows, found))
        except Exception as error:
            self._fail("kernel", error)
        scale = max(1e-6, float(np.abs(gradient).max()))
        error_size = float(np.abs(found - gradient).max()) / scale
        loss_error = abs(kernel_loss - loss) / max(1e-6, abs(loss))
        if not (error_size <= _KERNEL_TOLERANCE and loss_error <= _KERNEL_TOLERANCE):
            self._refuse(
                f"kernel disagrees with loss_and_grad: loss {kernel_loss:.6g} against {loss:.6g}, "
                f"gradient off by up to {error_size:.2g} of its largest entry; correct it, or remove it "
                "(it only adds speed)"
            )

    def _require_vector(self, method: str, vector: object) -> None:
        if not isinstance(vector, np.ndarray):
            self._refuse(f"{method} must return a numpy array, not {type(vector).__name__}")
        if vector.dtype != self._float32:
            self._refuse(f"{method} returned dtype {vector.dtype}; return float32, e.g. .astype(np.float32)")
        if vector.shape != self._shape:
            self._refuse(
                f"{method} returned shape {vector.shape}; by its layout it must be {self._shape}, "
                "one flat vector"
            )

    def _require_finite(self, method: str, vector: Params | None, loss: float = 0.0) -> None:
        what = "parameters" if method == "init" else "a gradient"
        if not np.isfinite(loss):
            self._refuse(
                f"{method} returned the loss {loss} at the initial parameters; check the scale of features"
            )
        if vector is not None and not np.isfinite(vector).all():
            self._refuse(f"{method} returned {what} with NaN or infinite entries at the initial parameters")

    def _refuse(self, problem: str) -> NoReturn:
        raise WorkloadError(f"{self._file}: {problem}")

    def _fail(self, method: str, error: Exception) -> NoReturn:
        """Raise the one error for whatever the user's code raised."""
        if isinstance(error, SirenError):
            raise error
        raise WorkloadError(user_error(self._file, f"Model.{method}", error)) from error


def user_error(file: Path, doing: str, error: Exception) -> str:
    """One line about an error in a user's file: what raised, what it said, where, and what to do.

    Args:
        file: The workload's `model.py`.
        doing: What was being called.
        error: What it raised.
    """
    inside = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).parent == file.parent
    ]
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}"
    else:
        where = f"{inside[-1].filename}:{inside[-1].lineno}" if inside else str(file)
    text = " ".join(str(error).split()) or "no message"
    hint = (
        "correct it there"
        if inside or isinstance(error, SyntaxError)
        else "check what it is given and what it returns"
    )
    return f"{where}: {doing} raised {type(error).__name__}: {text}; {hint} and run again"
