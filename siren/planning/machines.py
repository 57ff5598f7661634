"""Machines beside functions: what the job takes on EC2, with epochs measured on real gradients.

A user of machines trains by synchronous SGD, where every step takes one mini-batch of all machines
together. Under `constant` mini-batches that is SGD with one worker, whatever the machines are. Under
`split` the job leaves the number of pushes to the platform, so several are tried, and the best counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from siren.planning.bands import Band, band_of
from siren.rehearsal.ladder import MOST_EPOCHS
from siren.rehearsal.sampled import expected_epochs
from siren.rehearsal.stage import Stage
from siren.twin.twin import job_of
from siren.types import BatchRule, ChannelKind, UpdateRule
from siren.workloads.workload import Workload
from siren.worlds.costing import make_costing
from siren.worlds.vm import Cluster, VmCosting, load_machines

MACHINE_SEED = 40_000_000
"""Seeds of the curves."""

RUNS = 5
"""Curves for every size of mini-batch."""

STEPS = (1, 4, 16, 64, 256)
"""Under `split`, steps of an epoch over the pushes of one function."""

SIZES = (1, 2, 4, 8)
"""Machines of a cluster."""

LEAST = 1e-9
"""Share of an epoch that is as few pushes as a sub-sample may have."""

FREE = {"seconds_per_sample": 1e-12, "seconds_per_push": 0.0, "sample_bytes": 1, "runtime_mb": 1.0}
"""Costs of the twin that follows a curve: only losses are asked of it, and no limit may cut it short."""


@dataclass(frozen=True)
class Convergence:
    """How many epochs synchronous SGD takes at one size of mini-batch.

    Attributes:
        steps: Steps of an epoch.
        batch: Samples of a step.
        epochs: Of every run.
        estimated: Whether a run was cut off for want of time, and the rest of it estimated.
        losses: Held-out losses of every run, the initial one first; of one that was cut off, as far as it
            went.
    """

    steps: int
    batch: float
    epochs: tuple[int, ...]
    estimated: bool = False
    losses: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class VmOption:
    """A cluster with what the job is expected to take on it.

    Attributes:
        instance, machines: The cluster.
        cores: Cores of each machine that a mini-batch is divided over.
        batch: Samples of a step.
        epochs: Mean epochs to the target.
        time_s: From the request for machines to the target.
        cost_usd: What EC2 bills.
        estimated: See `Convergence`.
    """

    instance: str
    machines: int
    cores: int
    batch: float
    epochs: float
    time_s: Band
    cost_usd: Band
    estimated: bool

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        return Cluster(self.instance, self.machines)


def sequential(workload: Workload, pushes: int) -> Workload:
    """The same training by one worker over an ideal channel, `pushes` an epoch under `split`."""
    changes = {"update_rule": UpdateRule.SYNC, "channel": ChannelKind.MEMORY, "pushes_per_function": pushes}
    training = workload.spec.training.model_copy(update=changes)
    cost = workload.spec.cost.model_copy(update=FREE)
    spec = workload.spec.model_copy(update={"training": training, "cost": cost})
    return Workload(workload.name, spec, workload.model, workload.dataset, workload.folder)


def pushes_tried(workload: Workload) -> list[int]:
    """Steps of an epoch that a user of machines would try."""
    training = workload.spec.training
    if training.batch_rule is BatchRule.CONSTANT:
        return [training.pushes_per_function]
    tried = [k * training.pushes_per_function for k in STEPS]
    return [pushes for pushes in tried if pushes <= workload.samples]


def measure(stage: Stage, target_loss: float, seconds: float, runs: int = RUNS) -> list[Convergence]:
    """Epochs of synchronous SGD, by curves in the twin.

    Args:
        stage: What was rehearsed; a sub-sample's epochs stand for those of the whole job.
        target_loss: The target that was rehearsed.
        seconds: Real seconds that it may take, about.
        runs: Curves for every size of mini-batch.

    Returns:
        One for every size with which all runs reached the target.
    """
    tried = pushes_tried(stage.workload)
    found = [_measured(stage, pushes, target_loss, seconds / len(tried), runs) for pushes in tried]
    return [convergence for convergence in found if convergence]


def _measured(stage: Stage, pushes: int, target: float, seconds: float, runs: int) -> Convergence | None:
    workload = sequential(stage.workload, pushes)
    costing = make_costing(stage.costing.world, job_of(workload))
    alone = Stage(workload, costing, stage.share, stage.clock)
    memory_mb = costing.world.limits.memory_grid[-1]
    least = Stage(workload, costing, LEAST, stage.clock)
    least.curve(1, memory_mb, 1, -math.inf, MACHINE_SEED)  # compiles
    until = stage.clock() + seconds
    epochs, losses, estimated = [], [], False
    for run in range(runs):
        curve = alone.curve(1, memory_mb, MOST_EPOCHS, target, MACHINE_SEED + run, until)
        needed = len(curve.losses) - 1
        if curve.cut and curve.losses[-1] < curve.losses[0]:
            expected = math.ceil(expected_epochs(curve.losses, 1.0, target, MOST_EPOCHS))
            needed, estimated = max(expected, needed + 1), True
        elif not curve.losses[-1] <= target:
            return None
        epochs.append(needed)
        losses.append(tuple(curve.losses.tolist()))
        if stage.clock() > until:
            break
    steps = pushes if workload.spec.training.batch_rule is BatchRule.SPLIT else int(costing.job.pushes(1))
    return Convergence(steps, workload.samples / steps, tuple(epochs), estimated, tuple(losses))


def options(costing: VmCosting, measured: Iterable[Convergence]) -> list[VmOption]:
    """What the job takes on every cluster that holds it, each with its fastest mini-batch."""
    known = list(measured)
    clusters = [Cluster(name, size) for name in costing.types() for size in SIZES]
    found = []
    for cluster in clusters:
        if known and costing.fits(cluster):
            choices = [_option(costing, cluster, convergence) for convergence in known]
            found.append(min(choices, key=lambda option: option.time_s.mean))
    return found


def _option(costing: VmCosting, cluster: Cluster, convergence: Convergence) -> VmOption:
    steps, batch = convergence.steps, convergence.batch
    runs = [costing.run(cluster, epochs, steps, batch) for epochs in convergence.epochs]
    time_s, cost_usd = band_of([r.duration_s for r in runs]), band_of([float(r.cost_usd) for r in runs])
    assert time_s is not None
    assert cost_usd is not None
    return VmOption(
        instance=cluster.instance,
        machines=cluster.machines,
        cores=runs[0].cores,
        batch=batch,
        epochs=float(np.mean(convergence.epochs)),
        time_s=time_s,
        cost_usd=cost_usd,
        estimated=convergence.estimated,
    )


def vm_options(stage: Stage, target_loss: float, seconds: float) -> list[VmOption]:
    """What the job takes on machines; see `measure` and `options`."""
    whole = VmCosting(stage.costing.world, stage.costing.job, load_machines())
    return options(whole, measure(stage, target_loss, seconds))


def undominated(found: Iterable[VmOption]) -> list[VmOption]:
    """Those that no other is both faster and cheaper than, the fastest first."""
    best, cheapest = [], math.inf
    for option in sorted(found, key=lambda option: (option.time_s.mean, option.cost_usd.mean)):
        if option.cost_usd.mean < cheapest:
            best.append(option)
            cheapest = option.cost_usd.mean
    return best
