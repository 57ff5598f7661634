"""Numbers for a new workload: learning rate, target and costs, found by a few seconds of plain SGD."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from siren.errors import WorkloadError
from siren.workloads.workload import Workload

RATES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Learning rates that are tried."""

EPOCHS = 8
"""Epochs that a new job should take."""

TRIAL_PUSHES = 200
"""Updates that a learning rate is tried for."""

MARGIN = 0.02
"""Share of the gain that the target leaves."""

REPEATS, ROUNDS = 7, 5
"""Of every timing: the median of so many means of so many calls."""


@dataclass(frozen=True)
class Start:
    """Numbers for `workload.toml`.

    Attributes:
        learning_rate, target_loss: Of SGD whose updates may be stale.
        epochs: That plain SGD took to the target.
        seconds_per_sample, seconds_per_push, evaluate_seconds_per_sample: Of one thread here.
    """

    learning_rate: float
    target_loss: float
    epochs: int
    seconds_per_sample: float
    seconds_per_push: float
    evaluate_seconds_per_sample: float


def find_start(workload: Workload) -> Start:
    """Trains and times a workload whose numbers are placeholders.

    Raises:
        WorkloadError: No learning rate makes the held-out loss fall.
    """
    batch = workload.spec.training.batch_size
    initial = workload.evaluate(workload.init(0))[0]
    best_rate, best_loss = 0.0, initial
    for rate in RATES:
        loss = _losses(workload, rate, min(TRIAL_PUSHES, 3 * workload.samples // batch), 1)[-1]
        if loss < best_loss:
            best_rate, best_loss = rate, loss
    if best_rate == 0:
        raise WorkloadError(
            f"{workload.folder}: the held-out loss {initial:.4g} falls at none of the learning rates "
            f"{', '.join(f'{rate:g}' for rate in RATES)}: check features, labels and gradient in model.py"
        )
    rate = best_rate / 2
    losses = _losses(workload, rate, workload.samples // batch, EPOCHS)
    target = _rounded_up(min(losses) + MARGIN * (initial - min(losses)))
    epochs = next(epoch for epoch, loss in enumerate(losses, start=1) if loss <= target)
    return Start(rate, target, epochs, *_costs(workload, batch))


def _losses(workload: Workload, rate: float, pushes: int, epochs: int) -> list[float]:
    """Held-out losses of plain SGD after each of so many rounds of pushes; infinite once it diverged."""
    params, batch = workload.init(0).copy(), workload.spec.training.batch_size
    order = np.random.default_rng(0).permutation(workload.samples)
    losses = []
    with np.errstate(all="ignore"):
        for k in range(pushes * epochs):
            at = k * batch % workload.samples
            params -= np.float32(rate) * workload.loss_and_grad(params, order[at : at + batch])[1]
            if (k + 1) % pushes == 0:
                loss = workload.evaluate(params)[0] if np.isfinite(params).all() else math.inf
                losses.append(loss if math.isfinite(loss) else math.inf)
    return losses


def _rounded_up(value: float) -> float:
    """To three digits, upwards: a target must stay within reach."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / unit) * unit:.3g}")


def _costs(workload: Workload, batch: int) -> tuple[float, float, float]:
    """(seconds of a sample, of a push, of an evaluated sample), by a line through two mini-batches."""
    params, rows = workload.init(0), np.arange(workload.samples)
    small, large = min(batch, workload.samples), min(4 * batch, workload.samples)
    heldout = len(workload.dataset.heldout_labels)

    def gradient(count: int) -> Callable[[], object]:
        chosen: NDArray[np.int64] = rows[:count]
        return lambda: workload.loss_and_grad(params, chosen)

    first, second = _cpu_s(gradient(small)), _cpu_s(gradient(large))
    sample_s = max((second - first) / max(large - small, 1), second / large / 100)
    evaluate_s = _cpu_s(lambda: workload.evaluate(params)) / heldout
    return sample_s, max(first - small * sample_s, 0.0), evaluate_s


def _cpu_s(call: Callable[[], object]) -> float:
    """Processor seconds of a call, in which other programs hardly show."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(ROUNDS):
            call()
        times.append((time.process_time() - began) / ROUNDS)
    return max(statistics.median(times), 1e-9)
