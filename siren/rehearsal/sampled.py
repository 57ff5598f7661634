"""A large job on a sub-sample: real gradients of fewer pushes, times and bills of whole epochs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.simulator.job import EpisodeSpec
from siren.simulator.platform import LawPlatform, Simulated, Trained
from siren.simulator.tables import Pool, pool_at
from siren.twin.twin import Twin
from siren.types import Action, BatchRule
from siren.workloads.workload import Workload
from siren.worlds.costing import EpochPlan

HELDOUT_MOST = 2000
"""Held-out samples of a sub-sample, evenly spread: those that come first may well be the hardest."""

PUSHES_LEAST = 40
"""Pushes that an epoch of a sub-sample keeps, so that functions still overtake each other."""

TWIN = "twin."
"""Begins the names of what the sub-sample saves."""


def subsample(workload: Workload, fraction: float) -> Workload:
    """The workload with epochs of about `fraction` of the samples, and at most `HELDOUT_MOST` held-out ones.

    Mini-batches keep their size, so that an epoch has so many fewer pushes: never below
    `PUSHES_LEAST`, nor below one a function under `split`.
    """
    training = workload.spec.training
    if training.batch_rule is BatchRule.SPLIT:
        pushes = max(1, round(fraction * training.pushes_per_function))
        samples = workload.samples * pushes // training.pushes_per_function
        changes = {"samples_per_epoch": samples, "pushes_per_function": pushes}
    else:
        whole = workload.samples // training.batch_size
        pushes = min(max(round(fraction * whole), PUSHES_LEAST), whole)
        changes = {"samples_per_epoch": pushes * training.batch_size}
    spec = workload.spec.model_copy(update={"training": training.model_copy(update=changes)})
    data = workload.dataset
    heldout = len(data.heldout_labels)
    rows = np.arange(min(heldout, HELDOUT_MOST)) * heldout // min(heldout, HELDOUT_MOST)
    dataset = dataclasses.replace(
        data, heldout_features=data.heldout_features[rows], heldout_labels=data.heldout_labels[rows]
    )
    return Workload(workload.name, spec, workload.model, dataset, workload.folder)


class SampledPlatform(LawPlatform):
    """Runs real SGD of a sub-sample, while times and bills are those of the whole job.

    Args:
        twin: The sub-sample, fresh.
        spec: The whole job.
        seed: Seed of times and bills.
    """

    def __init__(self, twin: Twin, spec: EpisodeSpec, seed: int) -> None:
        self._twin = twin
        super().__init__(spec, seed)

    def make_pool(self, functions: int) -> Pool:
        """See `LawPlatform.make_pool`."""
        return pool_at(self.spec, functions)

    def start(self) -> tuple[float, float]:
        """See `Platform.start`."""
        return self._twin.workload.evaluate(self._twin.params)

    def train(self, action: Action, epoch: int, simulated: Simulated) -> Trained:
        """See `LawPlatform.train`; more functions than a sub-sample has pushes count as so many."""
        twin = self._twin
        limits = twin.world.limits
        n = min(action.functions, twin.job.functions_max)
        timeout_s = limits.timeout_rungs[-1]
        plan = EpochPlan(Action(n, action.memory_mb), timeout_s, float(timeout_s), Decimal(0))
        report = twin.run_epoch(plan)
        return Trained(report.loss, report.accuracy, report.mean_staleness, report.gradients)

    def save(self) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
        """See `Platform.save`: the laws' state and the sub-sample's."""
        tensors, state = super().save()
        trained, scalars = self._twin.save()
        return {**tensors, **{f"{TWIN}{name}": t for name, t in trained.items()}}, {**state, TWIN: scalars}

    def restore(self, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """See `Platform.restore`."""
        super().restore(tensors, state)
        trained = {name.removeprefix(TWIN): t for name, t in tensors.items() if name.startswith(TWIN)}
        self._twin.restore(trained, state[TWIN])

    @property
    def params(self) -> NDArray[np.float32]:
        """See `Platform.params`."""
        return self._twin.params

    def set_params(self, params: NDArray[np.float32]) -> None:
        """See `Platform.set_params`."""
        self._twin.params = params.copy()


def expected_epochs(losses: NDArray[np.float64], share: float, target: float, most: int) -> float:
    """Epochs that the whole job is expected to need, from a curve of its sub-sample.

    Losses fall about as a power of the samples seen; the later half of the curve tells which.

    Args:
        losses: Held-out losses of a fixed action on the sub-sample, the initial one first.
        share: Samples of a sub-sample's epoch over those of a whole one.
        target: The whole job's target.
        most: No more than this is answered.
    """
    reached = np.flatnonzero(losses <= target)
    if len(reached):
        return share * epochs_to(losses[: reached[0] + 1], target)
    last = len(losses) - 1
    if last < 2 or not (np.isfinite(losses) & (losses > 0)).all():
        return most
    first = max(1, last // 2)
    seen = np.arange(first, last + 1) * share
    fall, level = np.polyfit(np.log(seen), np.log(losses[first:]), 1)
    if fall >= -1e-3:
        return most
    log_epochs = (math.log(target) - level) / fall
    return math.exp(log_epochs) if log_epochs < math.log(most) else most


def epochs_to(losses: NDArray[np.float64], level: float) -> float:
    """Epochs after which a curve stays at or below a level, interpolated; infinite if it ends above.

    Args:
        losses: After 0, 1, ... epochs.
        level: The level.
    """
    above = np.flatnonzero(~(losses <= level))
    if not len(above):
        return 0.0
    last = int(above[-1])
    if last == len(losses) - 1:
        return math.inf
    if not math.isfinite(losses[last]):
        return last + 1.0
    return last + float((losses[last] - level) / (losses[last] - losses[last + 1]))
