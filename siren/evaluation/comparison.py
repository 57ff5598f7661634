"""How a run on the twin compares with the best fixed action in hindsight and with a lower bound.

The effort is bounded and does not depend on the clock, so that the same run is compared alike everywhere:
a ladder of counts at a ratio of two, each followed once and only as long as it could still be the fastest,
then episodes with the budget enforced. Everything is chosen on seeds that no run uses by itself, and the
choice is played once more with the run's own seed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TextIO

import numpy as np

from siren.analysis.console import progress_line
from siren.errors import BudgetError, SirenError, UsageError
from siren.evaluation import seeds
from siren.evaluation.baseline import SCOUT_EPOCHS, Race, Scouted, near, promising
from siren.evaluation.episode import Episode, play
from siren.platforms.twin import TwinPlatform
from siren.policies import FixedPolicy, Policy
from siren.simulator.bound import lower_bound
from siren.simulator.fitting import Setting, Trace, fit_quadratic, fixed_trace
from siren.simulator.job import ActionGrid, EpisodeSpec, SimulatedJob
from siren.simulator.search import FAILURE
from siren.simulator.twin_jobs import loss_curve, rewind
from siren.twin.twin import Twin
from siren.types import (
    Action,
    Comparison,
    RunSummary,
    StopReason,
)
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing

RATIO = 2
"""Between counts of the ladder."""

PROPOSED, SIZES_EACH = 6, 2
"""Actions that are played first, and how many of them may have one count."""

ROUNDS, LAST = ((2, 3),), 6
"""(seeds, actions that stay after them), and the seeds that the last ones are played on."""

COMPARED = (
    StopReason.TARGET_REACHED,
    StopReason.BUDGET_EXHAUSTED,
    StopReason.DIVERGED,
    StopReason.LIMIT_REACHED,
)
"""How runs end that are compared."""

BEGINS = "comparing with fixed actions in the twin, which takes as long as some 40 runs"


@dataclass(frozen=True)
class ComparedJob:
    """The job of a run, to be played any number of times.

    Attributes:
        workload: What it trains; the target is in its settings.
        costing: Laws and prices.
        budget_usd: The run's budget.
        max_epochs: The run's.
        tell: Told how far it is.
    """

    workload: Workload
    costing: Costing
    budget_usd: Decimal
    max_epochs: int
    tell: Callable[[str], None]

    def episode(self, policy: Policy, seed: int) -> Episode:
        """Plays the job once."""
        self.tell(f"{policy.name}, seed {seed}")
        platform = TwinPlatform(self.workload, self.costing, seed)
        training = self.workload.spec.training
        return play(platform, policy, self.costing, training, self.budget_usd, max_epochs=self.max_epochs)


def compare(job: ComparedJob, summary: RunSummary) -> Comparison:
    """How a run of the job compares.

    Args:
        job: The job.
        summary: How the run ended.

    Raises:
        BudgetError: No fixed action that was tried reaches the target within the budget.
    """
    scouted, traces = _follow(job)
    proposed = promising(scouted, float(job.budget_usd), PROPOSED, SIZES_EACH)
    if not proposed:
        raise BudgetError(
            f"no fixed action of the ladder reaches the target within {_most_epochs(job)} epochs and "
            f"${job.budget_usd:f}: compare with a larger budget, or with an easier target"
        )
    race = Race(job, FixedPolicy)
    first, _ = race.best(proposed, ROUNDS, LAST)
    action, trials = race.best([first, *near(job.costing, first)], ROUNDS, LAST)
    own = job.episode(FixedPolicy(action), summary.header.seed)
    both = own.success and summary.target_reached
    job.tell("the lower bound")
    bound_s = _bound_s(job, action, own, traces)
    return Comparison(
        functions=action.functions,
        memory_mb=action.memory_mb,
        tried=race.tried,
        first_seed=seeds.SELECT,
        seeds=LAST,
        success_rate=trials.success_rate,
        fixed_reached=own.success,
        fixed_s=own.duration_s if own.success else math.nan,
        fixed_usd=own.cost_usd if own.success else Decimal(0),
        time_ratio=summary.duration_s / own.duration_s if both else math.nan,
        cost_ratio=float(summary.cost_usd / own.cost_usd) if both else math.nan,
        bound_s=bound_s,
        bound_ratio=summary.duration_s / bound_s if summary.target_reached else math.nan,
        curves=len(traces),
    )


def _follow(job: ComparedJob) -> tuple[Scouted, list[Trace]]:
    """Epochs of each count of the ladder to the target, and their losses.

    A count is followed no longer than it could be the fastest that fits the budget at any size of memory.
    """
    limit = min(job.costing.job.functions_max, job.costing.world.limits.functions_max)
    counts = np.unique([*(RATIO ** np.arange(math.floor(math.log(limit, RATIO)) + 1)), limit])
    grid = ActionGrid.of(job.costing)
    grid = ActionGrid(job.costing, counts, grid.memory_mb)
    twin = Twin(job.workload, job.costing, seed=seeds.SCOUT)
    target = job.workload.spec.training.target_loss
    scouted = Scouted(grid, np.full((len(counts), 1), -1, np.int64))
    traces: list[Trace] = []
    fastest_s = math.inf
    for k in range(len(counts)):
        if not grid.allowed[k].any():
            continue
        n, epoch_s = int(counts[k]), grid.duration_s[0, k, grid.allowed[k]].min()
        epochs = math.ceil(min(fastest_s / epoch_s, _most_epochs(job)))
        job.tell(f"{n} functions for up to {epochs} epochs")
        rewind(twin, seeds.SCOUT)
        losses = loss_curve(twin, Action(n, _about_one_vcpu(grid, k)), epochs, target)
        traces.append(fixed_trace(n, losses))
        if losses[-1] <= target:
            scouted.epochs[k, 0] = len(losses) - 1
            runs = scouted.runs()[0]
            affordable = runs.needed_usd <= float(job.budget_usd)
            fastest_s = float(np.where(affordable, runs.duration_s, np.inf).min())
    return scouted, traces


def _most_epochs(job: ComparedJob) -> int:
    """Epochs that a count is followed for at most."""
    return min(SCOUT_EPOCHS, job.max_epochs)


def _about_one_vcpu(grid: ActionGrid, row: int) -> int:
    """The allowed size of memory that is nearest to one vCPU."""
    away = np.abs(grid.memory_mb - grid.costing.world.cpu.memory_per_vcpu)
    return int(grid.memory_mb[np.where(grid.allowed[row], away, np.inf).argmin()])


def _bound_s(job: ComparedJob, action: Action, fixed: Episode, traces: Sequence[Trace]) -> float:
    """The lower bound on a quadratic model of the job, in seconds; NaN if the model has none.

    Args:
        job: The job.
        action: The best fixed action.
        fixed: An episode of it; a failure of any policy counts `FAILURE` times its time.
        traces: What the model is fitted to.
    """
    costing, training = job.costing, job.workload.spec.training
    counts = sorted({int(trace.functions[0]) for trace in traces if len(trace.functions)})
    setting = Setting.of(costing.world, costing.job, training, counts, float(action.memory_mb))
    initial = float(traces[0].losses[0])
    spec = EpisodeSpec(
        costing=costing,
        initial_loss=initial,
        target_loss=training.target_loss,
        budget_usd=float(job.budget_usd),
        functions_ref=action.functions,
        memory_ref_mb=action.memory_mb,
        reference_s=fixed.duration_s,
        reference_usd=float(fixed.cost_usd),
        max_epochs=job.max_epochs,
    )
    try:
        dynamics = fit_quadratic(traces, setting)
        if training.target_loss <= initial - dynamics.excess:  # below the lowest loss of the model
            return math.nan
        found = lower_bound(SimulatedJob(spec, dynamics), FAILURE * fixed.duration_s)
    except UsageError:
        return math.nan
    return found.seconds if found.seconds > 0 else math.nan


def compared(summary: RunSummary, workload: Workload, costing: Costing, stderr: TextIO) -> RunSummary:
    """The summary with its comparison; as it was, with a word on stderr, where there is none.

    A run that was interrupted, that failed, or that had nothing to do, is not compared.

    Args:
        summary: How the run ended.
        workload, costing: Its job.
        stderr: Where progress goes.
    """
    header = summary.header
    if summary.stop_reason not in COMPARED or not summary.epochs:
        return summary
    with progress_line(stderr, BEGINS, plain=BEGINS) as tell:
        job = ComparedJob(workload, costing, header.budget_usd, header.max_epochs, tell)
        try:
            return dataclasses.replace(summary, comparison=compare(job, summary))
        except SirenError as error:  # the run itself is safe on disk
            why = f"nothing to compare with: {error}"
        except KeyboardInterrupt:
            why = "the comparison was interrupted; the run itself had ended"
    print(f"siren.run: {why}", file=stderr)
    return summary
