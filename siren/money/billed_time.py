"""How many milliseconds AWS Lambda bills for: one exact function and a vectorised equal of it."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from siren.errors import LedgerError
from siren.money.amounts import exact_quantity

_MAX_MS = 2.0**52
"""Above this, float64 has no half milliseconds: such a duration is a fault."""
_GUARD_ULPS = 8.0


def billed_ms(
    duration_ms: float | Decimal,
    init_ms: float | Decimal = 0,
    granularity_ms: int = 1,
    init_billed: bool = True,
) -> int:
    """Billed milliseconds of one invocation: ONE ceiling over the sum of init and duration.

    Two REPORT lines decide against two ceilings: 3923.569 + 145.399 ms is billed as 4069 ms (2026-10-08)
    and 2.32 + 565.67 as 568 (2026-03). INIT is billed for every package since 2025-08-01 (AWS Compute
    Blog, 2025-04-29); the granularity is 1 ms since 2020-12, 100 ms before.

    A float stands for its shortest text (`repr`): 0.1 + 0.2 is 0.3 here, so no binary rounding adds
    a millisecond. Exact, through integers.

    Args:
        duration_ms: Handler time in milliseconds, finite and >= 0.
        init_ms: Initialisation in milliseconds, 0 for a warm start.
        granularity_ms: Durations are rounded up to multiples of this; 1 today, 100 in 2019.
        init_billed: Whether `init_ms` is billed.

    Returns:
        A multiple of `granularity_ms`.

    Raises:
        LedgerError: A time that is negative, NaN, infinite or absurd, or a granularity below 1.
    """
    _check_granularity(granularity_ms)
    total = exact_quantity(duration_ms, "duration_ms")
    init = exact_quantity(init_ms, "init_ms")
    if init_billed:
        total += init
    return math.ceil(total / granularity_ms) * granularity_ms


def billed_ms_array(
    duration_ms: npt.ArrayLike,
    init_ms: npt.ArrayLike = 0.0,
    granularity_ms: int = 1,
    init_billed: bool = True,
) -> npt.NDArray[np.int64]:
    """`billed_ms` over arrays: the same integers, in a fraction of the time.

    Rounding contract: every element equals `billed_ms` of the same two float64 numbers. The sum and
    the quotient in float64 are at most 2 units in the last place away from the exact ones, so only
    elements within 8 units of a multiple of the granularity can differ; those, unless both inputs are
    whole numbers, go through `billed_ms` itself.

    Args:
        duration_ms: float64, any shape, in [0, 2**52).
        init_ms: float64, broadcast against `duration_ms`.
        granularity_ms: As in `billed_ms`.
        init_billed: As in `billed_ms`.

    Returns:
        int64, the broadcast shape, multiples of `granularity_ms`.

    Raises:
        LedgerError: As in `billed_ms`.
    """
    _check_granularity(granularity_ms)
    duration, init = np.asarray(duration_ms, dtype=np.float64), np.asarray(init_ms, dtype=np.float64)
    if duration.shape != init.shape:
        duration, init = np.broadcast_arrays(duration, init)
    for name, values in (("duration_ms", duration), ("init_ms", init)):
        if values.size and not (values.min() >= 0 and values.max() < _MAX_MS):  # NaN fails both
            raise LedgerError(
                f"{name} holds a time that is negative, NaN, infinite or above {_MAX_MS:.0f} ms"
            )
    shape = duration.shape
    duration, init = duration.ravel(), init.ravel()
    total = duration + init if init_billed else duration
    steps = total / granularity_ms
    billed: npt.NDArray[np.int64] = np.ceil(steps).astype(np.int64)
    billed *= granularity_ms
    unsure = np.abs(steps - np.rint(steps)) <= _GUARD_ULPS * np.spacing(steps)
    if unsure.any():
        _settle(np.flatnonzero(unsure), billed, duration, init, granularity_ms, init_billed)
    return billed.reshape(shape)


def _settle(
    unsure: npt.NDArray[np.int64],
    billed: npt.NDArray[np.int64],
    duration: npt.NDArray[np.float64],
    init: npt.NDArray[np.float64],
    granularity_ms: int,
    init_billed: bool,
) -> None:
    """Writes the exact answer where rounding in float64 leaves a doubt; all arrays flat."""
    whole = (duration == np.floor(duration)) & ((init == np.floor(init)) | (not init_billed))
    whole_ms = duration + init if init_billed else duration
    easy = unsure[whole[unsure]]
    billed[easy] = -(-whole_ms[easy].astype(np.int64) // granularity_ms) * granularity_ms
    for at in unsure[~whole[unsure]].tolist():
        billed[at] = billed_ms(float(duration[at]), float(init[at]), granularity_ms, init_billed)


def _check_granularity(granularity_ms: int) -> None:
    if isinstance(granularity_ms, bool) or not isinstance(granularity_ms, int) or granularity_ms < 1:
        raise LedgerError(
            f"granularity_ms is {granularity_ms!r}: give a whole number of milliseconds, 1 or more"
        )
