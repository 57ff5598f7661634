"""A twin of times and bills alone: what the laws are measured against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siren.hsp import quotas
from siren.testing.tiny import tiny_workload
from siren.twin import replay
from siren.twin.twin import Params, Twin
from siren.worlds import events
from siren.worlds.costing import make_costing
from siren.worlds.laws import Job
from siren.worlds.world import World


class TimingTwin(Twin):
    """Runs the epochs of any job without its data and model: times do not depend on gradients.

    Args:
        world: Where the job runs.
        job: The job, as the laws see it.
        seed: Seed of the run.
    """

    def __init__(self, world: World, job: Job, seed: int) -> None:
        super().__init__(tiny_workload(), make_costing(world, job), seed)

    def _replay(
        self, epoch: int, split: quotas.Quotas, trace: events.Trace, rows: NDArray[np.int64]
    ) -> tuple[Params, replay.Sums, int]:
        return self.params, replay.empty_sums(1), 0
