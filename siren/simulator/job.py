"""What an episode is about: a job with its target, budget and reference, and how it converges."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from siren.errors import ActionError
from siren.money.pricer import RunTotals
from siren.simulator import fitted, quadratic
from siren.simulator.fitted import SpotDnn
from siren.simulator.quadratic import Quadratic
from siren.types import UpdateRule
from siren.units import MB_PER_GB
from siren.worlds.costing import WORKER_MARGIN_S, Costing, Outlook
from siren.worlds.expectation import ExpectedEpoch
from siren.worlds.laws import Job, epoch_laws, latency_mean_s, memory_needed_mb
from siren.worlds.world import World

Floats = NDArray[np.float64]

LADDER = 1.15
"""Ratio between neighbouring function counts; the simulator is exact at these counts."""

MAX_EPOCHS = 200
"""Epochs after which an episode is cut off."""


@dataclass(frozen=True)
class EpisodeSpec:
    """A job, its goal and its reference; all that the two environments share.

    Attributes:
        costing: The job, its world, its prices and its laws.
        initial_loss: Held-out loss of the initial model.
        target_loss: Held-out loss at which the job is done.
        budget_usd: Dollars that may be spent.
        functions_ref, memory_ref_mb: n_ref and m_ref, which actions are relative to.
        reference_s, reference_usd: What the job is expected to take and to cost at (n_ref, m_ref).
        max_epochs: Epochs after which the episode is cut off.
    """

    costing: Costing
    initial_loss: float
    target_loss: float
    budget_usd: float
    functions_ref: int
    memory_ref_mb: int
    reference_s: float
    reference_usd: float
    max_epochs: int = MAX_EPOCHS

    @property
    def job(self) -> Job:
        """The job as the laws see it."""
        return self.costing.job

    @property
    def world(self) -> World:
        """Where it runs."""
        return self.costing.world


@dataclass(frozen=True)
class SimulatedJob:
    """A job whose convergence is a model.

    Attributes:
        spec: The job and its goal.
        dynamics: How it converges.
    """

    spec: EpisodeSpec
    dynamics: Quadratic | SpotDnn


def ladder(job: Job, world: World) -> NDArray[np.int64]:
    """Function counts that an action can mean: geometric, up to the quota and the world's limit."""
    limit = min(job.functions_max, world.limits.functions_max)
    counts, step = {limit}, 1.0
    while step < limit:
        counts.add(round(step))
        step = max(step * LADDER, step + 1)
    return np.array(sorted(counts), np.int64)


def memory_grid(world: World) -> NDArray[np.int64]:
    """The world's memory sizes in MB, ascending."""
    return np.array(world.limits.memory_grid, np.int64)


@dataclass(frozen=True)
class ActionGrid:
    """Expectations over every action, from the laws alone; arrays are (counts, sizes).

    Attributes:
        costing: Laws and prices.
        functions, memory_mb: The counts and the sizes.
    """

    costing: Costing
    functions: NDArray[np.int64]
    memory_mb: NDArray[np.int64]

    @classmethod
    def of(cls, costing: Costing) -> ActionGrid:
        """The grid of a job in its world."""
        return cls(costing, ladder(costing.job, costing.world), memory_grid(costing.world))

    @functools.cached_property
    def mesh(self) -> tuple[Floats, Floats]:
        """n and m of every action."""
        shape = (len(self.functions), len(self.memory_mb))
        n = np.broadcast_to(self.functions[:, None].astype(np.float64), shape)
        m = np.broadcast_to(self.memory_mb.astype(np.float64), shape)
        return n, m

    @functools.cached_property
    def starts(self) -> tuple[ExpectedEpoch, ExpectedEpoch, ExpectedEpoch]:
        """Epochs (warm with their shards, warm without, cold)."""
        n, m = self.mesh
        zero = 0.0 * n
        pairs = ((zero, zero), (zero, n), (n, n))
        warm, loading, cold = (self.costing.expect(n, m, *pair) for pair in pairs)
        return warm, loading, cold

    @functools.cached_property
    def duration_s(self) -> Floats:
        """(3, counts, sizes): epoch time by kind of start."""
        return np.stack([np.broadcast_to(e.duration_s, self.mesh[0].shape) for e in self.starts])

    @functools.cached_property
    def marginal_usd(self) -> Floats:
        """(3, counts, sizes): bill by kind of start, without what the run as a whole is billed."""
        return np.stack([self.costing.marginal_usd(*self.mesh, e) for e in self.starts])

    @functools.cached_property
    def shortest_rung(self) -> NDArray[np.int64]:
        """Index of the shortest timeout that covers the expected time of a cold function.

        As many as there are rungs where none does; see `Costing.rungs`.
        """
        return self._rung(np.asarray(self.starts[2].handler_s))

    @functools.cached_property
    def covering_rung(self) -> NDArray[np.int64]:
        """Index of the timeout that a plan prefers: the covering one, or the longest."""
        last = len(self.costing.world.limits.timeout_rungs) - 1
        return np.minimum(self._rung(np.asarray(self.starts[2].upper_s)), last)

    def _rung(self, seconds: Floats) -> NDArray[np.int64]:
        rungs = np.asarray(self.costing.world.limits.timeout_rungs, np.float64)
        return np.searchsorted(rungs, np.broadcast_to(seconds, self.mesh[0].shape) + WORKER_MARGIN_S)

    @functools.cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Actions with memory enough, whose functions are expected to end before the longest timeout.

        Raises:
            ActionError: There is no such action.
        """
        n, m = self.mesh
        enough = memory_needed_mb(self.costing.job, n) <= m
        allowed: NDArray[np.bool_] = enough & (
            self.shortest_rung < len(self.costing.world.limits.timeout_rungs)
        )
        if not allowed.any():
            raise ActionError(
                f"no action of world {self.costing.world.name} can run an epoch of this job: its functions "
                "would be short of memory or run into the longest timeout; take fewer samples an epoch"
            )
        return allowed

    @functools.cached_property
    def reserve_usd(self) -> Floats:
        """(counts, sizes): the least that an epoch must reserve, standing costs aside.

        The expected bill, with every function's time replaced by the shortest useful timeout and the
        longest initialisation (`Costing.worst_case` in floats).
        """
        n, m = self.mesh
        limits = self.costing.world.limits
        rungs = np.array([*limits.timeout_rungs, limits.timeout_rungs[-1]], np.float64)
        longest_s = rungs[self.shortest_rung] + limits.init_max * self.costing.world.billing.init_billed
        excess_s = longest_s - np.asarray(self.starts[2].billed_s)
        usd: Floats = self.marginal_usd[2] + n * m / MB_PER_GB * excess_s * self.costing.usd_per_gb_s
        return usd

    @functools.cached_property
    def spreads(self) -> tuple[Floats, Floats]:
        """(counts, sizes) each: coefficients of variation of an epoch's time and of its bill.

        A function's way varies with its pushes, its speed and its requests' latencies (tails aside);
        the epoch ends with the latest of n ways, the bill is their sum.
        """
        (n, m), job, world = self.mesh, self.costing.job, self.costing.world
        laws = epoch_laws(world, job, n, m)
        store, cpu = world.channels[job.channel], world.cpu
        steps = laws.pushes / n
        exchanges = 1.0 if job.update_rule is UpdateRule.AVERAGE else steps
        latency = sum(
            median**2 * np.exp(sigma**2) * np.expm1(sigma**2)
            for median, sigma in (
                (store.read_median, store.read_sigma),
                (store.write_median, store.write_sigma),
            )
        )
        own = steps * (laws.compute_s * cpu.push_noise) ** 2 + exchanges * latency
        together = (steps * laws.compute_s * cpu.function_noise) ** 2
        way_s = np.sqrt(own + together)
        # Standard deviation of the largest of n normals, within 5% of the exact one up to n = 1,000.
        largest = 1 / np.sqrt(1 + 0.95 * np.log(n))
        warm = self.starts[0]
        # Functions that wait for each other at every step are all billed for the slowest.
        billed = largest if job.update_rule is UpdateRule.SYNC else 1 / np.sqrt(n)
        return way_s * largest / warm.duration_s, way_s * billed / np.asarray(warm.handler_s)

    @functools.cached_property
    def parts(self) -> Floats:
        """(5, counts, sizes): fetch, compute and update seconds of a function, memory and CPU use."""
        (n, m), job, world = self.mesh, self.costing.job, self.costing.world
        laws = epoch_laws(world, job, n, m)
        store = world.channels[job.channel]
        steps = laws.pushes / n
        exchanges = 1.0 if job.update_rule is UpdateRule.AVERAGE else steps
        read_s = latency_mean_s(store, store.read_median, store.read_sigma)
        fetch_s = exchanges * (read_s + laws.transfer_s)
        compute_s = steps * laws.compute_s
        handler_s = np.asarray(self.starts[0].handler_s)
        update_s = np.maximum(handler_s - fetch_s - compute_s, 0.0)
        memory = np.minimum(memory_needed_mb(job, n) / m, 1.0)
        cpu = np.minimum(compute_s / handler_s, 1.0)
        return np.stack([np.broadcast_to(x, n.shape) for x in (fetch_s, compute_s, update_s, memory, cpu)])

    def delay(self, memory_mb: float) -> Floats:
        """Mean delay of a push at each count, (counts,)."""
        n = self.functions.astype(np.float64)
        return quadratic.in_flight_delay(self.costing.world, self.costing.job, n, memory_mb)

    def standing_usd(self, duration_s: Floats) -> Floats:
        """What a whole run of that length is billed beside its epochs: cache hours and set-up."""
        return self.costing.standing_usd(duration_s, Outlook(0.0, 1, RunTotals(), Decimal(0)))

    @functools.cached_property
    def pushes(self) -> tuple[NDArray[np.int64], Floats]:
        """(K, mean batch) at each count."""
        job = self.costing.job
        pushes = np.asarray(job.pushes(self.functions), np.int64)
        return pushes, job.samples / pushes


def mean_losses(
    dynamics: Quadratic | SpotDnn, grid: ActionGrid, delay: Floats, initial: float, epochs: int
) -> Floats:
    """Expected excess loss of every fixed count, (counts, epochs + 1).

    Args:
        dynamics: How the job converges.
        grid: Its actions.
        delay: Mean delay of a push at each count.
        initial: Initial excess loss.
        epochs: How far to look.
    """
    pushes, batch = grid.pushes
    n = grid.functions.astype(np.float64)
    if isinstance(dynamics, SpotDnn):
        return fitted.mean_excess(initial, dynamics.progress(n, batch, pushes.astype(np.float64)), epochs)
    maps = quadratic.responses(dynamics, grid.costing.job.update_rule, n, pushes, batch, delay)
    return quadratic.mean_excess(dynamics, maps, epochs)


@dataclass(frozen=True)
class FixedRuns:
    """What every fixed action is expected to take to the target; arrays are (counts, sizes).

    Attributes:
        epochs: (counts,) Epochs; 0 where the target is not reached.
        duration_s, cost_usd: Of the whole run; infinite where an action never gets there.
        needed_usd: The least budget with which every epoch's reservation fits.
    """

    epochs: NDArray[np.int64]
    duration_s: Floats
    cost_usd: Floats
    needed_usd: Floats


def fixed_runs(grid: ActionGrid, excess: Floats, target_excess: float) -> FixedRuns:
    """The runs of every fixed action.

    Args:
        grid: The actions.
        excess: (counts, epochs + 1), see `mean_losses`.
        target_excess: Excess loss of the target.
    """
    reached = excess <= target_excess
    epochs = np.where(reached.any(axis=1), reached.argmax(axis=1), 0)
    works = (epochs > 0)[:, None] & grid.allowed
    later = np.maximum(epochs - 1, 0)[:, None]
    duration_s = grid.duration_s[2] + later * grid.duration_s[0]
    standing_usd = grid.standing_usd(duration_s)
    cost_usd = grid.marginal_usd[2] + later * grid.marginal_usd[0] + standing_usd
    before_last = np.where(later > 0, cost_usd - grid.marginal_usd[0], standing_usd)
    needed_usd = before_last + grid.reserve_usd
    never = np.where(works, 0.0, np.inf)
    return FixedRuns(epochs, duration_s + never, cost_usd + never, needed_usd + never)
