"""Plays every job of a pool with a policy, and compares policies on equal jobs and equal noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from siren.policies.network import Network
from siren.simulator import core, observation
from siren.simulator.core import Col, End, State
from siren.simulator.tables import Fact, Pool

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Flags = NDArray[np.bool_]

FAILURE_RATIO = 2.0
"""A failure counts as twice the reference time, as in evaluations (docs/howto/evaluate.md)."""

RESAMPLES = 2000
"""Bootstrap samples behind an interval."""

Act = Callable[[Singles, Flags], Singles]
"""Actions, (N, 2), for observations, (N, observation), of the episodes that still run, (N,)."""


@dataclass(frozen=True)
class Episodes:
    """How a policy did; arrays are (jobs, repeats).

    Attributes:
        success: Whether the target was reached.
        time_ratio: Time of the episode over the job's reference time.
        spent: Share of the budget that was spent.
    """

    success: Flags
    time_ratio: Floats
    spent: Floats

    @property
    def counted_ratio(self) -> Floats:
        """`time_ratio`, with a failure counted as `FAILURE_RATIO`."""
        return np.where(self.success, self.time_ratio, FAILURE_RATIO)


@dataclass(frozen=True)
class Comparison:
    """A policy against the reference action on the same jobs and noise.

    Attributes:
        speedup: Geometric mean over jobs of the ratio of mean failure-counted times; above 1 the policy
            is faster.
        low, high: 95% bootstrap interval over jobs.
        success, reference_success: Shares of episodes.
        counted_ratio, reference_counted_ratio: Geometric means over jobs of failure-counted time over
            the reference time.
        jobs: How many.
    """

    speedup: float
    low: float
    high: float
    success: float
    reference_success: float
    counted_ratio: float
    reference_counted_ratio: float
    jobs: int


def compare(policy: Episodes, reference: Episodes, which: Flags | slice = slice(None)) -> Comparison:
    """The comparison on those jobs; the interval is always resampled in the same way."""
    own = np.log(policy.counted_ratio[which].mean(axis=1))
    other = np.log(reference.counted_ratio[which].mean(axis=1))
    gain = other - own
    drawn = np.random.default_rng(0).integers(len(gain), size=(RESAMPLES, len(gain)))
    low, high = np.exp(np.percentile(gain[drawn].mean(axis=1), [2.5, 97.5]))
    return Comparison(
        speedup=float(np.exp(gain.mean())),
        low=float(low),
        high=float(high),
        success=float(policy.success[which].mean()),
        reference_success=float(reference.success[which].mean()),
        counted_ratio=float(np.exp(own.mean())),
        reference_counted_ratio=float(np.exp(other.mean())),
        jobs=len(gain),
    )


def play(pool: Pool, act: Act, repeats: int, seed: int, siren: bool = False) -> Episodes:
    """Plays every job of the pool so many times.

    Equal seeds give equal noise to every policy: each episode draws as many numbers an epoch whatever
    is done, also after its end, until the last one has ended.

    Args:
        pool: The jobs.
        act: The policy.
        repeats: Episodes of each job.
        seed: Seed of the noise.
        siren: The paper's observation and actions.
    """
    job = np.repeat(np.arange(len(pool.facts)), repeats)
    count, width = len(job), observation.SIREN_SIZE if siren else observation.OBSERVATION_SIZE
    state, seen = core.new_state(count), np.zeros((count, width), np.float32)
    for i in range(count):
        core.begin(pool, state, i, int(job[i]))
        observation.observe_as(pool, state, i, siren, seen[i])
    rng, running = np.random.default_rng(seed), np.ones(count, np.bool_)
    while running.any():
        _epoch(pool, state, act(seen, running), siren, rng, running, seen)
    facts, values = pool.facts[job], state.values
    shape = (len(pool.facts), repeats)
    return Episodes(
        success=(values[:, Col.END] == End.TARGET).reshape(shape),
        time_ratio=(values[:, Col.ELAPSED_S] / facts[:, Fact.REFERENCE_S]).reshape(shape),
        spent=(1 - values[:, Col.LEFT] / facts[:, Fact.BUDGET]).reshape(shape),
    )


def play_reference(pool: Pool, repeats: int, seed: int) -> Episodes:
    """Plays (n_ref, m_ref), the zero action, throughout."""
    return play(pool, lambda seen, _: np.zeros((len(seen), 2), np.float32), repeats, seed)


def acting(network: Network) -> Act:
    """The network as a policy for one `play`; a recurrent one has a memory for every episode."""
    copies: dict[int, Network] = {}

    def act(seen: Singles, running: Flags) -> Singles:
        actions = np.zeros((len(seen), 2), np.float32)
        for i in np.flatnonzero(running).tolist():
            if network.recurrent and i not in copies:
                copies[i] = Network(network.tensors)
            own = copies.get(i, network)
            actions[i] = own.act(seen[i])
        return actions

    return act


@numba.njit(cache=True)
def _epoch(
    pool: Pool,
    state: State,
    actions: Singles,
    siren: bool,
    rng: np.random.Generator,
    running: Flags,
    seen: Singles,
) -> None:
    for i in range(len(running)):
        ran = running[i] and core.choose(pool, state, i, actions[i], siren)
        core.simulate(pool, state, i, rng)
        if running[i]:
            core.settle(pool, state, i, ran, siren)
            running[i] = state.values[i, Col.END] == 0
            observation.observe_as(pool, state, i, siren, seen[i])
