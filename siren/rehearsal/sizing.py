"""How fast this machine is, and so how much of a job is rehearsed: all of it, or a sub-sample."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from siren.errors import ActionError
from siren.rehearsal.schedule import EPISODES, EPOCHS
from siren.rehearsal.stage import FIRST_SEED, Stage
from siren.rehearsal.workers import StageSettings, usual_count
from siren.types import Action

PROBE_PUSHES = (60, 300)
"""Pushes of the epochs that tell the machine's speed."""

PROBE_EPOCHS = 8
"""Epochs that are probed, of either length four."""

Sized = tuple[Stage, StageSettings | None, float]
"""(what is rehearsed, how another process makes it, real seconds of its epoch)."""


def sized(
    whole: Stage, settings: StageSettings | None, usual: Action, seconds: float, workers: int | None
) -> Sized:
    """The stage that the time allows: the whole job, or a sub-sample.

    Args:
        whole: The whole job.
        settings: How another process makes it; None if none is to.
        usual: See `usual_action`.
        seconds: Real seconds of the rehearsal.
        workers: Processes; by default one for each core.
    """

    def sampled(fraction: float) -> Sized:
        part = Stage(whole.workload, whole.costing, fraction, whole.clock)
        return part, settings and dataclasses.replace(settings, fraction=fraction), epoch_s * part.share

    pushes = int(whole.costing.job.pushes(usual.functions))
    few, more = (min(count, pushes) for count in PROBE_PUSHES)
    epoch_s = _guess_epoch_s(whole)
    if PROBE_EPOCHS * more / pushes * epoch_s > seconds:  # nothing can end a probe but itself
        return sampled(few / pushes)
    short_s, long_s = _probe_s(whole, usual, few / pushes), _probe_s(whole, usual, more / pushes)
    push_s = max(long_s - short_s, 0.0) / max(more - few, 1)
    epoch_s = long_s + (pushes - more) * push_s
    count = 1 if settings is None else workers or usual_count()
    fraction = count * seconds * 0.8 / (EPISODES * EPOCHS * epoch_s)
    return (whole, settings, epoch_s) if fraction >= 0.7 else sampled(fraction)


def _guess_epoch_s(whole: Stage) -> float:
    """Real seconds of a whole epoch, from one gradient."""
    workload = whole.workload
    size = min(workload.spec.training.batch_size, whole.costing.job.dataset_samples)
    params, rows = workload.init(FIRST_SEED), np.arange(size, dtype=np.int64)
    with np.errstate(all="ignore"):
        workload.loss_and_grad(params, rows)
        began = whole.clock()
        workload.loss_and_grad(params, rows)
    return (whole.clock() - began) * workload.samples / size


def _probe_s(whole: Stage, usual: Action, fraction: float) -> float:
    """Real seconds of an epoch of that share of the samples, compiled."""
    probe = Stage(whole.workload, whole.costing, fraction, whole.clock)
    n = min(usual.functions, probe.most_functions)
    # The first one compiles.
    walls = [probe.curve(n, usual.memory_mb, e, -math.inf, FIRST_SEED).wall_s for e in (1, 1, 2)]
    return max(walls[2] - walls[1], walls[1] / 2)


def usual_action(stage: Stage) -> Action:
    """Where losses are first looked at: about 4 functions of one vCPU, or more of what the job needs."""
    world, costing = stage.costing.world, stage.costing
    most, grid = stage.most_functions, world.limits.memory_grid
    sizes = [m for m in grid if m >= 0.9 * world.cpu.memory_per_vcpu] or [grid[-1]]
    counts = sorted({min(4 * 2**k, most) for k in range(most.bit_length())})
    usual = next((Action(n, m) for n in counts for m in sizes if not costing.refusal(Action(n, m))), None)
    if usual is None:
        raise ActionError(
            f"no memory size of world {world.name} holds the data of this job: use another world"
        )
    return usual
