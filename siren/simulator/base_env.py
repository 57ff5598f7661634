"""What the two Gymnasium environments share: spaces, the course of a step, and pictures."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from siren.errors import MissingExtraError, UsageError
from siren.simulator import core, observation
from siren.simulator.core import Col, End
from siren.simulator.render import Row, draw_figure, draw_text
from siren.simulator.tables import Fact, Pool

try:
    import gymnasium
    from gymnasium import spaces
except ModuleNotFoundError as error:  # pragma: no cover - depends on what is installed
    raise MissingExtraError("gymnasium", "train") from error

Singles = NDArray[np.float32]
Observation = Literal["default", "siren"]


def observation_space(kind: Observation) -> spaces.Box[Any]:
    """The space of the relative observation, or of the paper's state.

    Raises:
        UsageError: Neither is meant.
    """
    if kind == "default":
        return spaces.Box(-1.0, 1.0, (observation.OBSERVATION_SIZE,), np.float32)
    if kind == "siren":
        return spaces.Box(
            np.zeros(observation.SIREN_SIZE, np.float32), observation.SIREN_HIGH, dtype=np.float32
        )
    raise UsageError(f'no observation named {kind!r}: choose "default" or "siren"')


def action_space() -> spaces.Box[Any]:
    """Two numbers in [-1, 1]: functions and memory."""
    return spaces.Box(-1.0, 1.0, (2,), np.float32)


class EpisodeEnv(gymnasium.Env[Singles, Singles]):
    """One job at a time; subclasses choose the job and run the epochs.

    Args:
        kind: Which observation, action and reward.
        render_mode: None, "ansi" or "rgb_array".
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}  # type: ignore[misc]

    def __init__(self, kind: Observation, render_mode: str | None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UsageError(f'no render mode {render_mode!r}: choose "ansi", "rgb_array" or None')
        self.observation_space = observation_space(kind)
        self.action_space = action_space()
        self.render_mode = render_mode
        self._siren = kind == "siren"
        self._state = core.new_state(1)
        self._history: list[Row] = []

    @property
    @abstractmethod
    def _pool(self) -> Pool:
        """The tables of the present job, which is row 0."""

    @abstractmethod
    def _run_epoch(self) -> bool:
        """Runs the chosen epoch and writes its outcome; False if the budget cannot reserve it."""

    def _begin(self) -> tuple[Singles, dict[str, Any]]:
        """Starts the present job."""
        core.begin(self._pool, self._state, 0, 0)
        self._history = [self._row()]
        return self._observe(), self._info()

    def step(self, action: Singles) -> tuple[Singles, float, bool, bool, dict[str, Any]]:
        """Runs one epoch; see the class for what it means."""
        pool, state = self._pool, self._state
        pair = np.asarray(action, np.float32)
        ran = bool(core.choose(pool, state, 0, pair, self._siren)) and self._run_epoch()
        reward = float(core.settle(pool, state, 0, ran, self._siren))
        if ran:
            self._history.append(self._row())
        end = End(int(state.values[0, Col.END]))
        terminated = end not in (End.RUNNING, End.LIMIT)
        return self._observe(), reward, terminated, end is End.LIMIT, self._info()

    def render(self) -> Any:
        """The job so far, as text (`ansi`) or as a picture (`rgb_array`: uint8, (height, width, 3))."""
        if self.render_mode is None:
            return None
        facts = self._pool.facts[0]
        target, budget = float(facts[Fact.TARGET]), float(facts[Fact.BUDGET])
        draw = draw_text if self.render_mode == "ansi" else draw_figure
        return draw(self._history, target, budget)

    def _observe(self) -> Singles:
        out = np.empty(self.observation_space.shape or (), np.float32)
        observation.observe_as(self._pool, self._state, 0, self._siren, out)
        return out

    def _row(self) -> Row:
        v = self._state.values[0]
        budget = float(self._pool.facts[0][Fact.BUDGET])
        return Row(
            epoch=int(v[Col.EPOCH]),
            elapsed_s=float(v[Col.ELAPSED_S]),
            loss=float(v[Col.LOSS]),
            functions=int(v[Col.FUNCTIONS]),
            memory_mb=int(v[Col.MEMORY]),
            spent_usd=budget - float(v[Col.LEFT]),
        )

    def _info(self) -> dict[str, Any]:
        v = self._state.values[0]
        end = End(int(v[Col.END]))
        info: dict[str, Any] = self._row()._asdict()
        info.update(
            duration_s=float(v[Col.DURATION_S]),
            cost_usd=float(v[Col.COST]),
            budget_left_usd=float(v[Col.LEFT]),
            end=end.name.lower(),
            is_success=end is End.TARGET,
        )
        return info
