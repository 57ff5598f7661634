"""Many simulated jobs at once, as a `VecEnv` of Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from siren.errors import MissingExtraError, UsageError
from siren.simulator import core, observation
from siren.simulator.base_env import Observation, action_space, observation_space
from siren.simulator.core import Col, End, State
from siren.simulator.job import SimulatedJob
from siren.simulator.tables import Fact, Pool, pool_of

try:
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices
except ModuleNotFoundError as error:  # pragma: no cover - depends on what is installed
    raise MissingExtraError("stable-baselines3", "train") from error

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@numba.njit(cache=True)
def step_all(
    pool: Pool,
    state: State,
    actions: Singles,
    siren: bool,
    rng: np.random.Generator,
    rewards: Singles,
    seen: Singles,
    last: Singles,
    ended: Floats,
) -> None:
    """One epoch in every environment; one whose episode ends begins another job.

    Args:
        pool, state: The jobs and the environments.
        actions: (N, 2).
        siren: The paper's action, reward and observation.
        rng: Source of all noise.
        rewards: (N,) Written.
        seen: (N, observation) Written: of the new episode where one ended.
        last: (N, observation) Written where an episode ended: its last observation.
        ended: (N, len(Col)) Written where an episode ended: its last state, else `Col.END` is 0.
    """
    for i in range(len(rewards)):
        ran = core.choose(pool, state, i, actions[i], siren)
        if ran:
            core.simulate(pool, state, i, rng)
        rewards[i] = core.settle(pool, state, i, ran, siren)
        if state.values[i, Col.END] > 0:
            ended[i, :] = state.values[i]
            observation.observe_as(pool, state, i, siren, last[i])
            core.begin(pool, state, i, int(rng.random() * len(pool.facts)))
        else:
            ended[i, Col.END] = 0.0
        observation.observe_as(pool, state, i, siren, seen[i])


@numba.njit(cache=True)
def begin_all(pool: Pool, state: State, siren: bool, rng: np.random.Generator, seen: Singles) -> None:
    """Begins a random job in every environment and writes the observations."""
    for i in range(len(state.job)):
        core.begin(pool, state, i, int(rng.random() * len(pool.facts)))
        observation.observe_as(pool, state, i, siren, seen[i])


class HspVecEnv(VecEnv):
    """The episodes of `siren.simulator.env.HspEnv`, many at a time, without an object for each.

    Each environment plays jobs of a pool, another one at random after every episode. The info of a
    step that ends one holds `terminal_observation`, `TimeLimit.truncated`, `episode` (r: return, l:
    epochs, t: virtual seconds), `is_success`, `end`, `job`, `cost_usd` and `time_ratio` (over T_ref).

    Args:
        jobs: The pool, or the tables of one.
        num_envs: How many environments.
        seed: Seed of all noise and of the order of jobs.
        observation: "default" or "siren".

    Raises:
        UsageError: There is no job, or no environment.
    """

    def __init__(
        self,
        jobs: Sequence[SimulatedJob] | Pool,
        num_envs: int,
        seed: int = 0,
        observation: Observation = "default",
    ) -> None:
        if not jobs or num_envs < 1:
            raise UsageError(f"{len(jobs)} jobs in {num_envs} environments: give at least one of each")
        self.render_mode = None
        self._pool = jobs if isinstance(jobs, Pool) else pool_of(jobs)
        self._siren = observation == "siren"
        self._state = core.new_state(num_envs)
        space = observation_space(observation)
        self._shape = (num_envs, *(space.shape or ()))
        self._last, self._ended = np.zeros(self._shape, np.float32), np.zeros((num_envs, len(Col)))
        self._actions = np.zeros((num_envs, 2), np.float32)
        self._rng = np.random.default_rng(seed)
        super().__init__(num_envs, space, action_space())

    def reset(self) -> Singles:
        """Begins a job everywhere; float32, (num_envs, observation)."""
        if self._seeds and self._seeds[0] is not None:
            self._rng = np.random.default_rng(self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        seen = np.zeros(self._shape, np.float32)
        begin_all(self._pool, self._state, self._siren, self._rng, seen)
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return seen

    def step_async(self, actions: NDArray[Any]) -> None:
        """Takes the actions, (num_envs, 2)."""
        self._actions[...] = actions

    def step_wait(self) -> tuple[Singles, Singles, NDArray[np.bool_], list[dict[str, Any]]]:
        """Runs one epoch everywhere."""
        rewards, seen = np.empty(self.num_envs, np.float32), np.empty(self._shape, np.float32)
        job = self._state.job.copy()
        arrays = (rewards, seen, self._last, self._ended)
        step_all(self._pool, self._state, self._actions, self._siren, self._rng, *arrays)
        done = self._ended[:, Col.END] > 0
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done).tolist():
            infos[i] = self._info(i, int(job[i]))
        return seen, rewards, done, infos

    def _info(self, i: int, job: int) -> dict[str, Any]:
        values, facts = self._ended[i], self._pool.facts[job]
        end = End(int(values[Col.END]))
        elapsed_s = float(values[Col.ELAPSED_S])
        return {
            "terminal_observation": self._last[i].copy(),
            "TimeLimit.truncated": end is End.LIMIT,
            "episode": {"r": float(values[Col.RETURN]), "l": int(values[Col.EPOCH]), "t": elapsed_s},
            "is_success": end is End.TARGET,
            "end": end.name.lower(),
            "job": job,
            "cost_usd": float(facts[Fact.BUDGET] - values[Col.LEFT]),
            "time_ratio": elapsed_s / float(facts[Fact.REFERENCE_S]),
        }

    def close(self) -> None:
        """Nothing is held."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, once for each environment."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused: all environments are one object."""
        raise UsageError(f"{attr_name} cannot be set: make a new HspVecEnv")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refused: all environments are one object."""
        raise UsageError(f"{method_name} cannot be called: use HspEnv for a single environment")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Never."""
        return [False] * len(list(self._get_indices(indices)))
