"""What stands between the simulator and a learner: fixed scaling, and what a failure costs."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from siren.errors import MissingExtraError
from siren.policies.network import held
from siren.simulator.observation import SIREN_HIGH

try:
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
except ModuleNotFoundError as error:  # pragma: no cover - depends on what is installed
    raise MissingExtraError("stable-baselines3", "train") from error

Singles = NDArray[np.float32]
Step = tuple[Singles, Singles, NDArray[np.bool_], list[dict[str, Any]]]

SCALING = "log(1 + x) / log(1 + high)"
"""What `scaled` does; high is `SIREN_HIGH`."""


def scaled(state: Singles) -> Singles:
    """The paper's raw state, (..., 9), whose entries span ten orders of magnitude, each in [0, 1]."""
    result: Singles = (np.log1p(state) / np.log1p(SIREN_HIGH)).astype(np.float32)
    return result


class ScaledState(VecEnvWrapper):
    """Environments with the paper's state, `scaled`.

    Args:
        venv: Environments whose observation is "siren".
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv, gymnasium.spaces.Box(0.0, 1.0, SIREN_HIGH.shape, np.float32))

    def reset(self) -> Singles:
        """Scales the first states."""
        return scaled(np.asarray(self.venv.reset()))

    def step_wait(self) -> Step:
        """Scales the states, the last ones of episodes too."""
        state, rewards, done, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = scaled(info["terminal_observation"])
        return scaled(np.asarray(state)), rewards, done, infos


class FailureReturn(VecEnvWrapper):
    """Environments where an episode returns 1 - time / T_ref if it succeeds, else 1 - `failure_ratio`.

    The environment's own reward charges a failure with its time, 2.5 and the progress that was left,
    which makes agents slower than the reference for a reliability beyond it; this return is the
    failure-counted time that agents are compared by. Failing late is no worse than failing early.

    Args:
        venv: Environments of `HspVecEnv`.
        failure_ratio: Reference times that a failure counts for.
    """

    def __init__(self, venv: VecEnv, failure_ratio: float) -> None:
        super().__init__(venv)
        self._return = 1.0 - failure_ratio

    def reset(self) -> Singles:
        """Begins a job everywhere."""
        return np.asarray(self.venv.reset())

    def step_wait(self) -> Step:
        """Sets the last reward of failed episodes; running into the limit of epochs is a failure."""
        state, rewards, done, infos = self.venv.step_wait()
        for i in np.flatnonzero(done).tolist():
            info = infos[i]
            if not info["is_success"]:
                rewards[i] += self._return - info["episode"]["r"]
                info["TimeLimit.truncated"] = False
        return np.asarray(state), rewards, done, infos


class HeldActions(VecEnvWrapper):
    """Environments that repeat the last action where the change is small, as the exported policy does.

    Noise that explores would otherwise cost other shards and cold environments in every epoch, and
    teach that exploring is bad.

    Args:
        venv: Environments whose observation is "default".
        hold: See `siren.policies.network.held`.
    """

    def __init__(self, venv: VecEnv, hold: tuple[float, float]) -> None:
        super().__init__(venv)
        self._hold = np.array(hold, np.float32)
        self._seen = np.zeros((venv.num_envs, *(venv.observation_space.shape or ())), np.float32)

    def reset(self) -> Singles:
        """Begins a job everywhere."""
        self._seen = np.asarray(self.venv.reset())
        return self._seen

    def step_async(self, actions: NDArray[Any]) -> None:
        """Takes the actions, (num_envs, 2)."""
        self.venv.step_async(held(actions, self._seen, self._hold))

    def step_wait(self) -> Step:
        """Runs one epoch everywhere."""
        state, rewards, done, infos = self.venv.step_wait()
        self._seen = np.asarray(state)
        return self._seen, rewards, done, infos
