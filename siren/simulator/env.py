"""`siren/Hsp-v0`: one simulated job at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.errors import UsageError
from siren.simulator import core
from siren.simulator.base_env import EpisodeEnv, Observation
from siren.simulator.job import SimulatedJob
from siren.simulator.sampling import sample_job
from siren.simulator.scenarios import load_scenario
from siren.simulator.tables import Pool, pool_of


class HspEnv(EpisodeEnv):
    """Train a model with functions on AWS Lambda, as fast as a budget allows, in a simulation.

    A job has a loss to reach and dollars to reach it with. In each step one epoch runs on n functions
    of m MB, which train asynchronously and meet at a barrier at its end. Every episode is another job,
    drawn from a family (`envs/scenarios/`): its convergence is the noisy quadratic model with delay
    (`siren.simulator.quadratic`) or the fitted law of spotDNN (`siren.simulator.fitted`), its times and
    bills are those of `siren.worlds.expectation` and `siren.worlds.costing` with the spread that
    the same laws imply.

    ## Action

    `Box(-1, 1, (2,), float32)`, relative to a reference that rehearsal finds:
    n = n_ref exp(2 a0), to the nearest count of a ladder of ratio 1.15;
    m = m_ref 4^a1, to the nearest size of the world's memory grid.
    An action that the job cannot run (quota, limits, short of memory, beyond the longest timeout)
    becomes the nearest that it can; one that the budget left cannot reserve becomes the next smaller
    one that it can. With `observation="siren"` n and m are linear from the least to the most that exist.

    ## State

    `Box(-1, 1, (23,), float32)`, relative and free of scale; names in `siren.simulator.observation.NAMES`.
    With g = (loss - target) / (initial loss - target), at least 1e-6, and L(x) = log(x) / 5 cut at +-1:

    | entry | is | before the first epoch |
    |---|---|---|
    | log_gap, log_best_gap | L(g) now and at its best | 0 |
    | log_gap_change | log(g / g before) / 2 | 0 |
    | budget_left | 2 x share of the budget left - 1 | 1 |
    | log_affordable_epochs | L(dollars left / dollars of the last epoch) | 0 |
    | log_needed_epochs | L(epochs to the target at the last epoch's progress) | 0 |
    | affordable_over_needed | L(their ratio) | 0 |
    | rose, rises | whether the last epoch was no best (+-1); how many, of 4 | -1 |
    | gap_over_floor | L(gap over the noise floor that gradient statistics predict), 0 if unknown | 0 |
    | fetch_share, compute_share, update_share | 2 x share of the epoch's time - 1 | -1 |
    | functions, memory | the last action, as an action | 0 |
    | cold_share | 2 x share of functions that started cold - 1 | -1 |
    | first_epoch | 1, then -1 | 1 |
    | epoch_time | L(20 x epoch time / T_ref) | 0 |
    | elapsed | 2 t / (t + T_ref) - 1 | -1 |
    | budget_over_reference | log(budget / dollars of the reference run) / 1.5 | |
    | room_for_functions | log(most functions / n_ref) / 3.5 - 1 | |
    | split_rule, additive_rule | +-1: batch rule `split`; update rule `additive` | |

    With `observation="siren"`: the paper's nine numbers (t, l, P, P_F, P_C, P_U, u, w, b), raw, all
    >= 0 (`siren.simulator.observation.SIREN_HIGH`); learn from them with normalisation.

    ## Reward

    -P / T_ref for an epoch of P seconds, never below -3; T_ref is the reference run's time.
    +1 when the target is reached; -(2.5 + share of the gap that was left) when the budget is exhausted
    or training diverges. With `observation="siren"` +2.5 and -2.5 instead.

    ## Start

    The initial model, the whole budget, no warm environment. `reset(options={"job": ...})` takes a
    `SimulatedJob`, or a row of `jobs`.

    ## End

    Terminated when the held-out loss is at the target, when the budget cannot reserve another epoch, or
    when the loss is 20 times the initial one. Truncated after 200 epochs. No more than the
    budget is ever spent: an epoch's reservation must fit before it runs.

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | scenario | "family-2026" | a file in `envs/scenarios/` of simulated jobs, or a path |
    | world | None | the one world to use, by default those of the scenario |
    | jobs | None | jobs to draw from instead, e.g. of `siren.simulator.sampling.sample_jobs` |
    | observation | "default" | or "siren" |
    | render_mode | None | "ansi", or "rgb_array": loss, functions, memory, dollars against time |

    ## Versions

    v0: the first.

    Raises:
        UnknownNameError: No scenario or world of that name.
        UsageError: An observation, render mode or list of jobs that cannot be, or a scenario of real SGD.
    """

    def __init__(
        self,
        scenario: str = "family-2026",
        world: str | None = None,
        jobs: Sequence[SimulatedJob] | None = None,
        observation: Observation = "default",
        render_mode: str | None = None,
    ) -> None:
        super().__init__(observation, render_mode)
        if jobs is not None and not jobs:
            raise UsageError("jobs is empty: give at least one job, or leave it out")
        self._scenario = load_scenario(scenario)
        self._world = world
        self._jobs = jobs
        self._tables: Pool | None = None
        self.job: SimulatedJob | None = None

    @property
    def _pool(self) -> Pool:
        if self._tables is None:
            raise UsageError("no job yet: call reset() first")
        return self._tables

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begins a job; `options={"job": ...}` says which, see the class."""
        super().reset(seed=seed)
        job = self._pick((options or {}).get("job"))
        if job is not self.job:
            self.job, self._tables = job, pool_of([job])
        return self._begin()

    def _pick(self, wanted: SimulatedJob | int | None) -> SimulatedJob:
        if isinstance(wanted, SimulatedJob):
            return wanted
        if self._jobs is None:
            if wanted is not None:
                raise UsageError(f"job {wanted}: the environment has no list of jobs; give a SimulatedJob")
            return sample_job(self._scenario, self.np_random, self._world)
        row = int(self.np_random.integers(len(self._jobs))) if wanted is None else wanted
        if not 0 <= row < len(self._jobs):
            raise UsageError(f"job {row} does not exist: choose 0 to {len(self._jobs) - 1}")
        return self._jobs[row]

    def _run_epoch(self) -> bool:
        core.simulate(self._pool, self._state, 0, self.np_random)
        return True
