"""Ideas 7 and 8: a proposer that searches in a fitted model, and a rehearsal without some of its parts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

import siren.rehearsal.rehearse as course
import siren.rehearsal.search as linear_search
from experiments._ideas import (
    FINAL_SHARE,
    Job,
    Player,
    Results,
    Search,
    Vector,
    cma_from,
    noisy_job,
    searched,
    shapes,
)
from siren.evaluation.episode import Episode
from siren.learning.episodes import play
from siren.policies import FixedPolicy, Safeguard, Safety
from siren.rehearsal.search import FAILURE, POPULATION, linear
from siren.rehearsal.stage import Stage
from siren.simulator.fitting import Setting, fit_quadratic, fixed_trace
from siren.simulator.job import EpisodeSpec, SimulatedJob
from siren.simulator.tables import Pool, pool_of
from siren.types import Action

JOBS = tuple(range(302, 308))
"""Numbers of the jobs of `noisy-2026`."""

REHEARSED = (302, 305)
"""Those that are rehearsed, each for 100 processor seconds; on the second a search had gained (`fitted`)."""

FIT_COUNTS, FIT_SEEDS, FIT_EPOCHS = (0.25, 0.5, 1.0, 2.0), 2, 20
"""Curves that the model is fitted to: counts over the best fixed one, runs of each, epochs."""

CURVE_SEED, MODEL_SEED = 11_000_000, 12_000_000

REPEATS = 96
"""Simulated episodes of a candidate."""

FINE_SIGMA = 0.1
"""First step of the search on real episodes from the model's answer."""

MODEL_SHARE = 0.4
"""Share of the time for the model where real episodes follow."""


# --- a proposer conditioned on the fitted job --------------------------------------------------------


def fitted_job(job: Job) -> SimulatedJob:
    """The simulated job that curves of fixed actions tell."""
    twin, reference = job.twin, job.case.reference
    stage, most = Stage(twin.workload, twin.costing), twin.costing.job.functions_max
    counts = sorted({min(max(round(reference.functions * x), 1), most) for x in FIT_COUNTS})
    actions = [Action(n, reference.memory_mb) for n in counts]
    traces = [
        fixed_trace(a.functions, stage.curve(*_pair(a), FIT_EPOCHS, -np.inf, CURVE_SEED + k).losses)
        for a in actions
        if not twin.costing.refusal(a)
        for k in range(FIT_SEEDS)
    ]
    memory_mb = float(reference.memory_mb)
    setting = Setting.of(twin.costing.world, twin.costing.job, twin.training, counts, memory_mb)
    spec = EpisodeSpec(
        costing=twin.costing,
        initial_loss=float(np.mean([trace.losses[0] for trace in traces])),
        target_loss=twin.training.target_loss,
        budget_usd=float(job.case.budget_usd),
        functions_ref=reference.functions,
        memory_ref_mb=reference.memory_mb,
        reference_s=reference.duration_s,
        reference_usd=reference.cost_usd,
    )
    return SimulatedJob(spec, fit_quadratic(traces, setting))


def fitted_pool(job: Job) -> Pool:
    """The tables of `fitted_job`, once for every candidate."""
    pool = pool_of([fitted_job(job)])
    return Pool(*(np.repeat(table, POPULATION, axis=0) for table in pool))


def _pair(action: Action) -> tuple[int, int]:
    return action.functions, action.memory_mb


def simulated_scores(job: Job, pool: Pool, vectors: Sequence[Vector], seed: int) -> np.ndarray[Any, Any]:
    """Mean time over the best fixed action's of so many policies in the model, failures as in the search."""
    tables = [np.array(linear("x", x, job.case.reference).weights, np.float32) for x in vectors]
    tables += [tables[0]] * (POPULATION - len(tables))
    weights = np.stack(tables)
    own = np.repeat(np.arange(POPULATION), REPEATS)

    def act(seen: Any, running: Any) -> Any:
        acts = np.einsum("ijk,ik->ij", weights[own, :, :-1], seen) + weights[own, :, -1]
        return np.clip(acts, -1, 1).astype(np.float32)

    found = play(pool, act, REPEATS, seed)
    scores = np.where(found.success, found.time_ratio, FAILURE).mean(axis=1)
    return scores[: len(vectors)]


def search_model(job: Job, until: Callable[[], bool]) -> tuple[list[float], int]:
    """What CMA-ES finds in the fitted model while there is time, and how many episodes it played."""
    pool, starts = fitted_pool(job), list(shapes().values())
    first = int(simulated_scores(job, pool, starts, MODEL_SEED).argmin())
    strategy, episodes = cma_from(starts[first]), POPULATION * REPEATS
    while until() and not strategy.stop():
        vectors = strategy.ask()
        seed = MODEL_SEED + 1 + strategy.countiter
        strategy.tell(vectors, simulated_scores(job, pool, vectors, seed).tolist())
        episodes += POPULATION * REPEATS
    return strategy.result.xfavorite.tolist(), episodes


def propose(job: Job, seconds: float, how: str) -> tuple[Player, str]:
    """A policy by the model, by real episodes, or by the model and then real episodes; all in equal time."""
    reference = job.case.reference

    def episode(vector: Vector | None, seed: int) -> Episode:
        if vector is None:
            return job.case.episode(FixedPolicy(reference.action), seed)
        policy = Safeguard(linear("linear", vector, reference).policy(), Safety())
        return job.case.episode(policy, seed)

    if how == "real":
        vector, name = searched(episode, reference.duration_s, seconds, shapes())
        return lambda seed: episode(vector, seed), name
    search = Search(episode, reference.duration_s, seconds)
    share = FINAL_SHARE if how == "model" else MODEL_SHARE
    found, simulated = search_model(job, lambda: search.left(share))
    finalists: dict[str, Vector | None] = {"fixed": None, "model": found}
    if how != "model":
        finalists["search"] = search.improved(found, FINE_SIGMA)
    name = search.chosen(finalists)
    told = f"{name} after {simulated} simulated and {search.episodes} real episodes"
    return lambda seed: episode(finalists[name], seed), told


def warm_up(job: Job) -> None:
    """Compiles what the model's search needs, which is part of no budget of time."""
    simulated_scores(job, fitted_pool(job), list(shapes().values())[:1], MODEL_SEED)


def fitted(results: Results, count: int, *, fast: bool) -> None:
    """Idea 7."""
    seconds, jobs = (0.5, JOBS[:1]) if fast else (6.0, JOBS)
    warm_up(noisy_job(jobs[0]))
    arms = {
        "real": "search on real episodes",
        "model": "search in the fitted model",
        "both": "model, then real",
    }
    for index in jobs:
        job = noisy_job(index)
        results.best_fixed(job, count)
        for how, arm in arms.items():
            results.cell(arm, job, lambda job=job, how=how: propose(job, seconds, how), count)


# --- a rehearsal without some of its parts -----------------------------------------------------------

WHOLE = "whole"
ARMS = (WHOLE, "without the race of shapes", "without climbing", "without agents", "agents alone")


@contextlib.contextmanager
def without(arm: str) -> Iterator[dict[str, Any]]:
    """The arguments of a rehearsal that lacks that part, which is out of the code meanwhile."""
    with contextlib.ExitStack() as stack:
        if arm == "without the race of shapes":
            stack.enter_context(mock.patch.object(linear_search, "SHAPES", ((1.0, 1.0),)))
        elif arm == "without climbing":
            stack.enter_context(mock.patch.object(course, "CLIMBS", 0))
        elif arm == "agents alone":
            stack.enter_context(mock.patch.object(course, "search_linear", return_value=None))
        yield {"agents": []} if arm == "without agents" else {}


def rehearsed(job: Job, seconds: float, arm: str) -> tuple[Player, str]:
    """What a rehearsal of so many processor seconds chooses."""
    twin = job.twin
    stage = Stage(twin.workload, twin.costing, clock=time.process_time)
    target = twin.training.target_loss
    with without(arm) as options:
        found = course.rehearse(stage, None, job.case.budget_usd, seconds, target_loss=target, **options)
    policy = Safeguard(found.choice.policy(), Safety())
    told = f"{found.choice.name} of {found.reference.action}, {found.episodes} episodes"
    return lambda seed: job.case.episode(policy, seed), told


def rehearsal(results: Results, count: int, *, fast: bool) -> None:
    """Idea 8."""
    seconds, jobs = (1.0, JOBS[:1]) if fast else (20.0, REHEARSED)
    for index in jobs:
        job = noisy_job(index)
        results.best_fixed(job, count)
        for arm in ARMS[:2] if fast else ARMS:
            results.cell(arm, job, lambda job=job, arm=arm: rehearsed(job, seconds, arm), count)
