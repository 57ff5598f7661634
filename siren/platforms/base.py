"""The promise that every platform keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from siren.types import Action, EpochReport
from siren.worlds.costing import EpochPlan

Tensors = Mapping[str, NDArray[Any]]
State = Mapping[str, Any]


class Platform(Protocol):
    """Runs the epochs of one job.

    Promises, which `siren.testing.platform` checks:

    * `run_epoch` bills at most what the plan's timeout allows.
    * `run_epoch` either moves the job on by one epoch or raises and leaves it where it was.
    * After `restore` of what `save` returned, the job goes on from there.

    Attributes:
        name: `twin`, `local` or `aws`.
        spends_money: Whether its bill is real.
        replays: Whether an epoch that was cut off can be repeated with the same result and bill.
    """

    name: str
    spends_money: bool
    replays: bool

    def start(self) -> tuple[float, float]:
        """Prepares the job; the held-out (loss, accuracy) of its initial model.

        Raises:
            WorkloadError: The model does not keep its contract.
            PlatformError: The platform is not to be had.
        """
        ...

    def check_action(self, action: Action) -> None:
        """Refuses an action that this job cannot run here.

        Raises:
            ActionError: Says what would be accepted.
        """
        ...

    def expect_starts(self, action: Action, timeout_s: int) -> tuple[int, int]:
        """How many functions of the next epoch would (start cold, load their shard)."""
        ...

    def run_epoch(self, plan: EpochPlan) -> EpochReport:
        """Runs one epoch.

        Raises:
            ActionError, WorkloadError, PlatformError: Nothing was changed; `SirenError.unlaunched` says what
                is billed all the same, where that is known.
        """
        ...

    @property
    def params(self) -> NDArray[np.float32]:
        """The model after the last epoch."""
        ...

    def set_params(self, params: NDArray[np.float32]) -> None:
        """Makes this the model that the next epoch starts from."""
        ...

    @property
    def clock_s(self) -> float:
        """Time of the run so far, on the platform's clock."""
        ...

    @property
    def idle_s(self) -> float:
        """Seconds since the run first began that are not on `clock_s`; 0 on a virtual clock.

        Between epochs, and before the run was resumed, what is paid by the hour is billed as well.
        """
        ...

    def save(self) -> tuple[Tensors, State]:
        """Everything that the next epoch depends on."""
        ...

    def restore(self, tensors: Tensors, state: State) -> None:
        """Goes on from what `save` returned."""
        ...

    def close(self) -> None:
        """Gives everything back."""
        ...
