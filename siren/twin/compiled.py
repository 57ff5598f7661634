"""The compiled engine: replays a program with a model's own kernel inside one numba loop.

The kernel is passed as a first-class function of explicit type, so one compiled loop (cached on
disk) serves every kernel over the same dtypes.
"""

from __future__ import annotations

import functools
import logging
import pickle
from typing import Any

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from siren.errors import WorkloadError
from siren.twin.replay import Floats, Ints, Params, Program, Sums
from siren.workloads.protocol import Features, Kernel, Labels

log = logging.getLogger(__name__)

FASTMATH = {"reassoc", "contract", "arcp", "nsz"}
"""Reductions may be vectorised; NaN and infinity keep their meaning, since they tell divergence."""

_VECTOR, _INDICES, _FLOATS = types.float32[::1], types.int64[::1], types.float64[::1]
_MATRIX = types.float32[:, ::1]


def _kernel_signature(features: Features, labels: Labels) -> Any:
    arrays = (numba.typeof(features), numba.typeof(labels))
    return types.float64(_VECTOR, *(a.copy(readonly=False) for a in arrays), _INDICES, _VECTOR)


def _loop(
    kernel: Any,
    features: Any,
    labels: Any,
    rows: Ints,
    first_sample: Ints,
    push: Ints,
    rate: Floats,
    read: Ints,
    base: Ints,
    write: Ints,
    pool: NDArray[np.float32],
    stride: int,
    sum_gradient: NDArray[np.float32],
    sum_params: NDArray[np.float32],
    sum_square: Floats,
    count: Floats,
) -> None:
    size = pool.shape[1]
    gradient = np.empty(size, np.float32)
    half = max(1, len(push) // 2)
    for k in range(len(push)):
        p = push[k]
        source, origin, target = pool[read[k]], pool[base[k]], pool[write[k]]
        kernel(source, features, labels, rows[first_sample[p] : first_sample[p + 1]], gradient)
        if k % stride == 0:
            h = min(k // half, 1)
            square = 0.0
            for j in range(size):
                square += gradient[j] * gradient[j]
                sum_gradient[h, j] += gradient[j]
                sum_params[h, j] += source[j]
            sum_square[h] += square
            count[h] += 1.0
        step = np.float32(rate[k])
        for j in range(size):
            target[j] = origin[j] - step * gradient[j]


@functools.cache
def _compiled_loop(signature: Any, features: Any, labels: Any) -> Any:
    return numba.njit(
        types.void(
            types.FunctionType(signature),
            features,
            labels,
            _INDICES,
            _INDICES,
            _INDICES,
            _FLOATS,
            _INDICES,
            _INDICES,
            _INDICES,
            _MATRIX,
            types.int64,
            _MATRIX,
            _MATRIX,
            _FLOATS,
            _FLOATS,
        ),
        cache=True,
    )(_loop)


@functools.lru_cache(maxsize=64)
def _compiled_kernel(kernel: Kernel, signature: Any) -> Any:
    """The kernel, from numba's cache beside `model.py` if that fits."""
    try:
        return numba.njit(signature, fastmath=FASTMATH, cache=True)(kernel)
    except (ImportError, AttributeError, EOFError, OSError, pickle.UnpicklingError) as error:
        log.info("numba's cache of the kernel does not fit (%s): compiling it anew", error)
        return numba.njit(signature, fastmath=FASTMATH)(kernel)


class Compiled:
    """An engine that runs a workload's `kernel`, compiled by numba.

    Args:
        kernel: See `siren.workloads.protocol.Model`.
        features, labels: The training set.

    Raises:
        WorkloadError: numba cannot compile the kernel.
    """

    def __init__(self, kernel: Kernel, features: Features, labels: Labels) -> None:
        signature = _kernel_signature(features, labels)
        try:
            self._kernel = _compiled_kernel(kernel, signature)
        except numba.core.errors.NumbaError as error:
            reason = str(error).strip().splitlines()[0]
            raise WorkloadError(
                f"numba cannot compile the model's `kernel`: {reason}; "
                "correct it, or remove it to train with `loss_and_grad`"
            ) from error
        self._loop = _compiled_loop(signature, *signature.args[1:3])
        self._features, self._labels = features, labels

    def gradient(self, params: Params, rows: Ints) -> Params:
        """See `siren.twin.replay.Engine.gradient`."""
        gradient = np.empty_like(params)
        self._kernel(params, self._features, self._labels, rows, gradient)
        return gradient

    def replay(
        self, program: Program, first_sample: Ints, rows: Ints, params: Params, sums: Sums, stride: int
    ) -> Params:
        """See `siren.twin.replay.Engine.replay`."""
        pool = np.empty((program.slots, len(params)), np.float32)
        pool[program.first] = params
        self._loop(
            self._kernel,
            self._features,
            self._labels,
            rows,
            first_sample,
            *program[:5],
            pool,
            stride,
            *sums,
        )
        last: Params = pool[program.last].copy()
        return last
