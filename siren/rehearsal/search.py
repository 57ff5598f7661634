"""A short search for a linear policy of one job, by CMA-ES on real episodes."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from siren.policies.reference import Reference
from siren.rehearsal.stage import Candidate, Trial, settings_of
from siren.rehearsal.workers import Workers
from siren.simulator.observation import NAMES

INPUTS = ("log_gap", "rose", "rises", "affordable_over_needed", "gap_over_floor")
"""Entries of the observation that move n; with the bias, six of the eight terms of a prototype's
search, whose speed-up over the best fixed n was 1.08 on 60 generated jobs with real SGD."""

MEMORY_INPUTS = ("log_gap",)
"""And those that move m."""

POPULATION, SEEDS = 8, 2
"""Candidates of a generation, and seeds that each is played on."""

LEAST_GENERATIONS = 6
"""Less time than for so many and nothing is searched."""

SIGMA = 0.3
"""Initial step of the weights; 0 is the reference itself."""

Play = Callable[[Sequence[Candidate], Sequence[int], float, Workers], list[Trial]]


def search_linear(
    pool: Workers,
    reference: Reference,
    play: Play,
    episode_s: float,
    until: float,
    report: Callable[[str], None],
) -> Candidate | None:
    """The best linear policy that could be found until then, or None without time for a search.

    Args:
        pool: Who plays.
        reference: What it acts relative to.
        play: Plays candidates on seeds.
        episode_s: Seconds of an episode, about.
        until: On the pool's clock.
        report: Told how it goes.
    """
    generation_s = POPULATION * SEEDS * episode_s / pool.count
    if (until - pool.clock()) < LEAST_GENERATIONS * generation_s:
        return None
    size = len(INPUTS) + 1 + len(MEMORY_INPUTS) + 1
    strategy = _strategy(size)
    for generation in itertools.count():
        if pool.clock() + generation_s > until:
            break
        vectors = strategy.ask()
        candidates = [linear(f"search:{generation}.{k}", x, reference) for k, x in enumerate(vectors)]
        seeds = range(30_000_000 + SEEDS * generation, 30_000_000 + SEEDS * (generation + 1))
        trials = play(candidates, seeds, math.inf, pool)
        if len(trials) < len(candidates) * SEEDS:
            break
        strategy.tell(vectors, [_score(c, trials, reference) for c in candidates])
        report(f"search for a linear policy: {(generation + 1) * POPULATION * SEEDS} episodes")
    if strategy.countiter < LEAST_GENERATIONS:
        return None
    return linear("search", strategy.result.xfavorite, reference)


def _strategy(size: int) -> Any:
    """A CMA-ES of that many weights; always the same one."""
    # Imported here, since it brings matplotlib and scipy.stats: two thirds of the start of every run.
    with warnings.catch_warnings():  # that it cannot plot where matplotlib is missing is no news
        warnings.simplefilter("ignore")
        import cma
    options = {"popsize": POPULATION, "seed": 1, "verbose": -9, "verb_log": 0}
    return cma.CMAEvolutionStrategy(np.zeros(size), SIGMA, options)


def linear(name: str, weights: Sequence[float], reference: Reference) -> Candidate:
    """A linear policy: weights of `INPUTS` and a bias for n, of `MEMORY_INPUTS` and a bias for m."""
    n_weights = dict(zip((*INPUTS, ""), weights, strict=False))
    m_weights = dict(zip((*MEMORY_INPUTS, ""), list(weights)[len(INPUTS) + 1 :], strict=True))
    entries = {(NAMES.index(key) if key else len(NAMES)): key for key in {*n_weights, *m_weights}}
    pairs = {at: (float(n_weights.get(k, 0.0)), float(m_weights.get(k, 0.0))) for at, k in entries.items()}
    return Candidate(name, weights=settings_of(pairs, len(NAMES)), reference=reference)


def _score(candidate: Candidate, trials: Sequence[Trial], reference: Reference) -> float:
    own = [t for t in trials if t.candidate == candidate.name]
    return float(np.mean([t.duration_s if t.success else 2.5 * reference.duration_s for t in own]))
