"""The twin as a platform: real gradients, virtual clock, no money."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siren.platforms.base import State, Tensors
from siren.twin.twin import Twin
from siren.types import Action, EpochReport
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing, EpochPlan


class TwinPlatform:
    """Runs a job in the digital twin.

    Args:
        workload: What to train.
        costing: The laws of time and prices of the job in its world.
        seed: Seed of the run.
    """

    name = "twin"
    spends_money = False
    replays = True

    def __init__(self, workload: Workload, costing: Costing, seed: int) -> None:
        self._workload = workload
        self._twin = Twin(workload, costing, seed)

    def start(self) -> tuple[float, float]:
        """See `Platform.start`."""
        self._workload.check()
        return self._workload.evaluate(self._twin.params)

    def check_action(self, action: Action) -> None:
        """See `Platform.check_action`."""
        self._twin.check_action(action)

    def expect_starts(self, action: Action, timeout_s: int) -> tuple[int, int]:
        """See `Platform.expect_starts`."""
        return self._twin.expect_starts(action, timeout_s)

    def run_epoch(self, plan: EpochPlan) -> EpochReport:
        """See `Platform.run_epoch`."""
        table, scalars = self._twin.environments.save()
        try:
            return self._twin.run_epoch(plan)
        except BaseException:
            # The epoch had taken its environments before a model raised, or somebody pressed Ctrl-C.
            self._twin.environments.restore(table, scalars)
            raise

    @property
    def params(self) -> NDArray[np.float32]:
        """See `Platform.params`."""
        return self._twin.params

    def set_params(self, params: NDArray[np.float32]) -> None:
        """See `Platform.set_params`."""
        self._twin.params = params.copy()

    @property
    def clock_s(self) -> float:
        """See `Platform.clock_s`."""
        return self._twin.clock_s

    @property
    def idle_s(self) -> float:
        """See `Platform.idle_s`."""
        return 0.0

    def save(self) -> tuple[Tensors, State]:
        """See `Platform.save`."""
        return self._twin.save()

    def restore(self, tensors: Tensors, state: State) -> None:
        """See `Platform.restore`."""
        self._twin.restore(tensors, state)

    def close(self) -> None:
        """See `Platform.close`."""
