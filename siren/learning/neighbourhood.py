"""Simulated jobs around recorded ones: what a policy is fine-tuned on."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from siren.analysis._disk import Disk
from siren.errors import AgentError, UsageError
from siren.simulator.job import ActionGrid, SimulatedJob, fixed_runs, mean_losses
from siren.simulator.quadratic import Quadratic
from siren.simulator.sampling import ATTEMPTS, LOOK_AHEAD, goal_of
from siren.simulator.scenarios import GoalRanges, Range
from siren.worlds.costing import Costing, make_costing
from siren.worlds.laws import Job
from siren.worlds.refit import Scales, scaled
from siren.worlds.world import RESOLVED, World

FITTED = "fitted_jobs.json"
"""Name of the fitted jobs in an agent folder."""

TIME_SPREAD = 0.2
"""Standard deviation of the logarithm of compute times: as far as provider and machine vary."""

EPOCHS = Range(low=1, high=LOOK_AHEAD, scale="linear")
"""What the cheapest fixed action may take."""


@dataclass(frozen=True)
class FittedJob:
    """A recorded job as a simulated one.

    Attributes:
        runs: Names of the run folders that it was fitted to.
        world, job: Where it ran, and what.
        scales: How much slower or faster the runs were than the laws expected.
        dynamics: How it converges.
        initial_loss: Held-out.
        courses: (functions, epochs to its best loss) of each run. Targets are drawn in epochs of these, since
            the lowest loss, and so any gap above it, is hardly known from runs that stop at their target.
    """

    runs: tuple[str, ...]
    world: World
    job: Job
    scales: Scales
    dynamics: Quadratic
    initial_loss: float
    courses: tuple[tuple[int, int], ...]

    @functools.cached_property
    def costing(self) -> Costing:
        """The laws as the runs measured them.

        Raises:
            ChannelError, PriceError: See `make_costing`.
        """
        return scaled(make_costing(self.world, self.job), self.scales)


@dataclass(frozen=True)
class Neighbourhood:
    """Jobs like recorded ones: every constant that was fitted is drawn around its value.

    Attributes:
        fitted: The recorded jobs; each is as likely.
        goal: Where budgets and references are drawn from.
        spread: Standard deviation of the logarithms of rate, noise and epochs to the target, and of the
            exponents.
    """

    fitted: tuple[FittedJob, ...]
    goal: GoalRanges
    spread: float

    def __call__(self, count: int, seed: list[int]) -> list[SimulatedJob]:
        """`count` jobs; equal seeds give equal jobs, more jobs begin with the fewer.

        Raises:
            UsageError: No fixed action finishes any of many neighbours.
        """
        return [self._sample(np.random.default_rng([*seed, k])) for k in range(count)]

    def _sample(self, rng: np.random.Generator) -> SimulatedJob:
        for _ in range(ATTEMPTS):
            job = self._attempt(self.fitted[rng.integers(len(self.fitted))], rng)
            if job is not None:
                return job
        names = ", ".join(name for fitted in self.fitted for name in fitted.runs)
        raise UsageError(
            f"no fixed action finishes a job like those of {names} within {LOOK_AHEAD} epochs: "
            "record runs with an easier target"
        )

    def _attempt(self, fitted: FittedJob, rng: np.random.Generator) -> SimulatedJob | None:
        known, costing = fitted.dynamics, fitted.costing
        rate, noise, longer = np.exp(self.spread * rng.standard_normal(3)).tolist()
        spectrum, energy = (self.spread * rng.standard_normal(2)).tolist()
        slower = math.exp(TIME_SPREAD * rng.standard_normal())
        job = replace(
            costing.job,
            seconds_per_sample=costing.job.seconds_per_sample * slower,
            seconds_per_push=costing.job.seconds_per_push * slower,
        )
        dynamics = replace(
            known,
            rate=known.rate * rate,
            noise=known.noise * noise,
            spectrum=max(known.spectrum + spectrum, 0.0),
            energy=known.energy + energy,
        )
        grid = ActionGrid.of(Costing(costing.world, job, costing.pricer))
        delay = grid.delay(float(grid.memory_mb[len(grid.memory_mb) // 2]))
        excess = mean_losses(dynamics, grid, delay, known.excess, LOOK_AHEAD)
        functions, epochs = fitted.courses[rng.integers(len(fitted.courses))]
        level = int(np.abs(np.log(grid.functions / functions)).argmin())
        target = float(excess[level, : 1 + max(1, round(epochs * longer))].min())
        if target >= known.excess:
            return None
        losses = fitted.initial_loss, fitted.initial_loss - known.excess + target
        spec = goal_of(self.goal, EPOCHS, rng, grid, fixed_runs(grid, excess, target), losses)
        return None if spec is None else SimulatedJob(spec, dynamics)


_JOBS = TypeAdapter(tuple[FittedJob, ...])


def write_fitted(folder: Path, fitted: Sequence[FittedJob]) -> None:
    """Writes `fitted_jobs.json`."""
    Disk().replace(folder / FITTED, _JOBS.dump_json(tuple(fitted), indent=1) + b"\n")


def read_fitted(folder: Path) -> tuple[FittedJob, ...]:
    """What `write_fitted` wrote.

    Raises:
        AgentError: It is missing or damaged.
    """
    path = folder / FITTED
    try:
        fitted = _JOBS.validate_json(path.read_bytes(), context=RESOLVED)
    except OSError as error:
        raise AgentError(
            f"cannot read {path}: {error.strerror}; the recipe needs it: name the runs again with --from-runs"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AgentError(
            f"{path} is damaged ({where}: {first['msg']}): name the runs again with --from-runs"
        ) from None
    if not fitted:
        raise AgentError(f"{path} holds no job: name the runs again with --from-runs")
    return fitted
