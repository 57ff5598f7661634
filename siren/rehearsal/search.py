"""A short search for a linear policy of one job on real episodes: a race of shapes, then CMA-ES.

The shapes are what theory and the prototypes found to win: more functions than the best fixed action while
the loss is far from the target, fewer near it. The winner of a race by successive halving, in which all
candidates play the same seeds, is where CMA-ES (Hansen, arXiv 1604.00772) starts.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from siren.policies.reference import Reference
from siren.rehearsal.racing import HALVING, Play, race
from siren.rehearsal.selection import counted_s
from siren.rehearsal.stage import Candidate, settings_of
from siren.rehearsal.workers import Workers
from siren.simulator.observation import LOG_SCALE, NAMES
from siren.simulator.tables import FUNCTIONS_SPAN

INPUTS = ("log_gap", "rose", "rises", "affordable_over_needed", "gap_over_floor")
"""Entries of the observation that move n; with the bias, six of the eight terms of a prototype's
search, whose speed-up over the best fixed n was 1.08 on 60 generated jobs with real SGD."""

MEMORY_INPUTS = ("log_gap",)
"""And those that move m."""

SIZE = len(INPUTS) + 1 + len(MEMORY_INPUTS) + 1

SHAPES, NEAR_GAP = ((1.0, 1.0), (2.0, 1.0), (4.0, 1.0), (2.0, 0.5), (1.0, 0.5)), 0.02
"""Shapes that race: functions over the reference's at the start, and where the gap is down to that share."""

POPULATION, SEEDS = 8, 2
"""Candidates of a generation, and seeds that each is played on."""

LEAST_GENERATIONS = 6
"""Less time than for so many and CMA-ES is not begun."""

SIGMA = 0.25
"""Its initial step of the weights; 0 is the reference itself."""

FAILURE = 2.5
"""A failure counts as so many times the reference's time; more than in the report, for more success."""

FIRST_SEED = 30_000_000
"""Seeds of the search."""

Vector = Sequence[float]


def search_linear(
    pool: Workers,
    reference: Reference,
    play: Play,
    episode_s: float,
    until: float,
    report: Callable[[str], None],
) -> Candidate | None:
    """The best linear policy of CMA-ES; the winner of the race without time for that, or None for neither.

    Args:
        pool: Who plays.
        reference: What policies act relative to.
        play: Plays candidates on seeds.
        episode_s: Seconds of an episode, about.
        until: On the pool's clock.
        report: Told how it goes.
    """
    shapes = _shapes()
    if until - pool.clock() < 2 * HALVING[0] * len(shapes) * episode_s / pool.count:
        return None
    candidates = [linear(name, vector, reference) for name, vector in shapes.items()]
    report(f"race of {len(candidates)} shapes")
    standings = race(candidates, play, FIRST_SEED - 1000, until, pool)
    winner = standings[0].candidate if standings else candidates[0]
    search = _Search(pool, reference, play, report)
    searched = search.run(shapes[winner.name], episode_s, until)
    return searched or winner


class _Search:
    """CMA-ES over the weights of a linear policy."""

    def __init__(
        self,
        pool: Workers,
        reference: Reference,
        play: Play,
        report: Callable[[str], None],
    ) -> None:
        self._pool, self._reference, self._play = pool, reference, play
        self._report = report

    def run(self, start: Vector, episode_s: float, until: float) -> Candidate | None:
        """The mean that was found until then, from a start; None without time for it."""
        generation_s = POPULATION * SEEDS * episode_s / self._pool.count
        if until - self._pool.clock() < LEAST_GENERATIONS * generation_s:
            return None
        strategy, failure_s = _strategy(start), FAILURE * self._reference.duration_s
        for generation in itertools.count():
            if self._pool.clock() + generation_s > until:
                break
            vectors = strategy.ask()
            names = [f"search:{generation}.{k}" for k in range(len(vectors))]
            candidates = [linear(n, x, self._reference) for n, x in zip(names, vectors, strict=True)]
            first = FIRST_SEED + SEEDS * generation
            trials = self._play(candidates, range(first, first + SEEDS), math.inf, self._pool)
            if len(trials) < len(candidates) * SEEDS:
                break
            own = [[t for t in trials if t.candidate == name] for name in names]
            strategy.tell(vectors, [counted_s(rows, failure_s) for rows in own])
            self._report(f"search for a linear policy: {(generation + 1) * POPULATION * SEEDS} episodes")
        if strategy.countiter < LEAST_GENERATIONS:
            return None
        return linear("search", strategy.result.xfavorite, self._reference)


def _shapes() -> dict[str, Vector]:
    """The weights of the policies that race."""
    found: dict[str, Vector] = {}
    for early, late in SHAPES:
        weights = np.zeros(SIZE)
        bias, end = math.log(early) / FUNCTIONS_SPAN, math.log(late) / FUNCTIONS_SPAN
        weights[INPUTS.index("log_gap")] = (end - bias) * LOG_SCALE / math.log(NEAR_GAP)
        weights[len(INPUTS)] = bias
        found[f"shape:{early:g}-{late:g}"] = weights.tolist()
    return found


def _strategy(start: Vector) -> Any:
    """A CMA-ES from there; always the same one."""
    # Imported here, since it brings matplotlib and scipy.stats: two thirds of the start of every run.
    with warnings.catch_warnings():  # that it cannot plot where matplotlib is missing is no news
        warnings.simplefilter("ignore")
        import cma
    options = {"popsize": POPULATION, "seed": 1, "verbose": -9, "verb_log": 0}
    return cma.CMAEvolutionStrategy(np.array(start), SIGMA, options)


def linear(name: str, weights: Vector, reference: Reference) -> Candidate:
    """A linear policy: weights of `INPUTS` and a bias for n, of `MEMORY_INPUTS` and a bias for m."""
    n_weights = dict(zip((*INPUTS, ""), weights, strict=False))
    m_weights = dict(zip((*MEMORY_INPUTS, ""), list(weights)[len(INPUTS) + 1 :], strict=True))
    entries = {(NAMES.index(key) if key else len(NAMES)): key for key in {*n_weights, *m_weights}}
    pairs = {at: (float(n_weights.get(k, 0.0)), float(m_weights.get(k, 0.0))) for at, k in entries.items()}
    return Candidate(name, weights=settings_of(pairs, len(NAMES)), reference=reference)
