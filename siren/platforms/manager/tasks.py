"""What the functions of one epoch are told to do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siren.hsp import quotas
from siren.hsp.quotas import Quotas
from siren.platforms.backend import Backend
from siren.types import ChannelKind
from siren.worker.messages import DataRef, ModelRef, Task
from siren.workloads.workload import Workload
from siren.worlds.costing import EpochPlan
from siren.worlds.laws import Job


@dataclass(frozen=True)
class Epoch:
    """Which epoch is launched.

    Attributes:
        run: Identity of the run.
        number: 1 for the first.
        launch: One more whenever this process launches an epoch: what an earlier one still does cannot
            reach this one.
        seed: Of the run.
    """

    run: str
    number: int
    launch: int
    seed: int


def model_of(workload: Workload) -> ModelRef:
    """How a function builds the workload's model."""
    spec, dataset = workload.spec.model, workload.dataset
    return ModelRef(spec.adapter, dataset.feature_shape, dataset.classes, dict(spec.settings))


def tasks_of(
    workload: Workload, job: Job, data: DataRef, backend: Backend, plan: EpochPlan, epoch: Epoch
) -> tuple[Quotas, list[Task]]:
    """The quotas of an epoch, and a task for each of its functions.

    The epoch's samples follow those of the epoch before in the stored order and wrap around at its end,
    as on the twin.

    Raises:
        ActionError: There are more functions than work.
    """
    n, training = plan.action.functions, workload.spec.training
    split = quotas.divide(job, n)
    sizes, shards = np.diff(split.first_sample), split.shards
    window = ((epoch.number - 1) * job.samples) % job.dataset_samples
    redis_url = backend.redis_url if job.channel is ChannelKind.REDIS else None
    tasks = [
        Task(
            run=epoch.run,
            epoch=epoch.number,
            launch=epoch.launch,
            functions=n,
            epoch_pushes=split.pushes,
            worker=i,
            rule=training.update_rule.value,
            channel=job.channel.value,
            region=backend.region,
            bucket=backend.bucket,
            s3_url=backend.s3_url,
            redis_url=redis_url,
            dataset=data,
            model=model_of(workload),
            size=workload.size,
            first_row=int((window + shards[i]) % job.dataset_samples),
            batches=tuple(sizes[split.first_push[i] : split.first_push[i + 1]].tolist()),
            order_seed=_order_seed(epoch.seed, epoch.number, i),
            rate=training.rate(epoch.number, job.samples / split.pushes),
            staleness_scale=training.staleness_scale,
            deadline_s=plan.deadline_s,
        )
        for i in range(n)
    ]
    return split, tasks


def _order_seed(seed: int, epoch: int, worker: int) -> int:
    """Seed of the order in which a function goes through its shard; below 2**63."""
    return int(np.random.SeedSequence((seed, epoch, worker)).generate_state(1, np.uint64)[0] >> np.uint64(1))
