"""`siren/HspTwin-v0`: one job at a time with real gradients, in the digital twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.errors import UsageError
from siren.money.pricer import RunTotals
from siren.simulator.base_env import EpisodeEnv, Observation
from siren.simulator.core import Col
from siren.simulator.scenarios import load_sgd_scenario
from siren.simulator.sensors import noise_floor
from siren.simulator.tables import Fact, Pool
from siren.simulator.twin_jobs import DEFAULT_WORLD, TwinJob, family_job, named_job, rewind
from siren.types import Action
from siren.worlds.costing import EpochPlan, Outlook


class HspTwinEnv(EpisodeEnv):
    """Train a model with functions on AWS Lambda, as fast as a budget allows, with real gradients.

    The episodes of `siren.simulator.env.HspEnv`, with its action, state and reward, but every epoch
    is one of the digital twin (`siren.twin.twin.Twin`): real SGD on a virtual clock, real staleness,
    reservations and bills to the last digit. By default every episode trains another small job (logistic
    or softmax regression) generated from a family in `envs/scenarios/`; with `workload` it is always
    that workload.

    ## Action

    `Box(-1, 1, (2,), float32)`: n = n_ref exp(2 a0), m = m_ref 4^a1; as in `siren/Hsp-v0`.

    ## State

    `Box(-1, 1, (23,), float32)`: as in `siren/Hsp-v0`. Times, shares, use and cold starts are those of the
    epoch's report; the noise floor is rate / 4 x (mean |g|^2 - |mean g|^2), from its gradient
    statistics. With `observation="siren"` the paper's nine numbers.

    ## Reward

    -P / T_ref for an epoch, never below -3; +1 at the target; -(2.5 + share of the gap that was left)
    on failure. With `observation="siren"` +2.5 and -2.5 at the end instead.

    ## Start

    A freshly initialised model, the whole budget, no warm environment; another seed every time.
    `reset(options={"job": ...})` takes a `TwinJob`, or a row of `jobs`.

    ## End

    Terminated when the held-out loss is at the target, when the budget cannot reserve another epoch, or
    when the loss is 20 times the initial one or not finite. Truncated after 200 epochs.

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | workload | None | a workload by name or path; None for generated jobs |
    | overrides | None | values for its `[training]` section |
    | world | None | the world, by default one of the scenario's; "aws-2026" for a workload |
    | scenario | "small-2026" | a file in `envs/scenarios/` with dynamics "sgd", or a path |
    | functions_ref, memory_ref_mb, budget_usd | 10, one vCPU, 2 x reference | with a workload only |
    | jobs | None | jobs to draw from instead, of `siren.simulator.twin_jobs` |
    | observation | "default" | or "siren" |
    | render_mode | None | "ansi", or "rgb_array": loss, functions, memory, dollars against time |

    ## Versions

    v0: the first.

    Raises:
        UnknownNameError: No scenario, workload or world of that name.
        UsageError: An observation, render mode or list of jobs that cannot be, a scenario of simulated
            jobs, or a reference that does not reach the target.
    """

    def __init__(
        self,
        workload: str | None = None,
        overrides: Mapping[str, object] | None = None,
        world: str | None = None,
        scenario: str = "small-2026",
        functions_ref: int = 10,
        memory_ref_mb: int | None = None,
        budget_usd: float | None = None,
        jobs: Sequence[TwinJob] | None = None,
        observation: Observation = "default",
        render_mode: str | None = None,
    ) -> None:
        super().__init__(observation, render_mode)
        if jobs is not None and (not jobs or workload is not None):
            raise UsageError(
                "jobs is empty, or given beside a workload: give one or more jobs, and no workload"
            )
        self._scenario, self._world = load_sgd_scenario(scenario), world
        self._jobs = jobs
        if workload is not None:
            self._jobs = [
                named_job(
                    workload,
                    world=world or DEFAULT_WORLD,
                    overrides=overrides,
                    functions_ref=functions_ref,
                    memory_ref_mb=memory_ref_mb,
                    budget_usd=budget_usd,
                )
            ]
        self.job: TwinJob | None = None
        self._totals, self._left_usd = RunTotals(), Decimal(0)

    @property
    def _pool(self) -> Pool:
        if self.job is None:
            raise UsageError("no job yet: call reset() first")
        return self.job.pool

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begins a job; `options={"job": ...}` says which, see the class."""
        super().reset(seed=seed)
        job = self.job = self._pick((options or {}).get("job"))
        rewind(job.twin, int(self.np_random.integers(1 << 31)))
        self._totals, self._left_usd = RunTotals(), Decimal(repr(job.spec.budget_usd))
        self._pool.facts[0, Fact.INITIAL] = job.twin.workload.evaluate(job.twin.params)[0]
        return self._begin()

    def _pick(self, wanted: TwinJob | int | None) -> TwinJob:
        if isinstance(wanted, TwinJob):
            return wanted
        if self._jobs is None:
            if wanted is not None:
                raise UsageError(f"job {wanted}: the environment has no list of jobs; give a TwinJob")
            return family_job(self._scenario, self.np_random, self._world)
        row = int(self.np_random.integers(len(self._jobs))) if wanted is None else wanted
        if not 0 <= row < len(self._jobs):
            raise UsageError(f"job {row} does not exist: choose 0 to {len(self._jobs) - 1}")
        return self._jobs[row]

    def _run_epoch(self) -> bool:
        assert self.job is not None
        twin, values = self.job.twin, self._state.values[0]
        plan = self._plan(self.job)
        if plan is None:
            return False
        report = twin.run_epoch(plan)
        bill = twin.costing.pricer.price_epoch(report.usage, previous=self._totals)
        self._totals = self._totals.after(report.usage)
        self._left_usd -= bill.total
        values[Col.DURATION_S] = report.duration_s
        values[Col.COST] = float(bill.total)
        values[Col.FETCH_S], values[Col.COMPUTE_S] = report.fetch_s, report.compute_s
        values[Col.UPDATE_S] = report.update_s
        values[Col.MEMORY_USE], values[Col.CPU_USE] = report.memory_utilization, report.cpu_utilization
        values[Col.COLD] = report.cold_starts
        values[Col.FLOOR] = noise_floor(twin.workload.spec.training, twin.job, report)
        values[Col.PREVIOUS], values[Col.LOSS] = values[Col.LOSS], report.loss
        return True

    def _plan(self, job: TwinJob) -> EpochPlan | None:
        values, cold, twin = self._state.values[0], job.grid.starts[2], job.twin
        at = int(values[Col.LEVEL]), int(values[Col.SIZE])
        action = Action(int(values[Col.FUNCTIONS]), int(values[Col.MEMORY]))
        upper_s, handler_s = float(cold.upper_s[at]), float(cold.handler_s[at])
        outlook = Outlook(twin.clock_s, twin.epoch + 1, self._totals, self._left_usd)
        return twin.costing.plan(action, upper_s, handler_s, outlook)
