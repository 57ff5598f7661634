"""Recipes: everything that decides which policy a training makes, as the TOML file `train.toml`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from siren._roots import root_folder
from siren.errors import SirenError, UnknownNameError, UsageError

RECIPE = "train.toml"
"""Name of the recipe in an agent folder."""

_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class Algorithm(StrEnum):
    """Policy-gradient algorithms of Stable-Baselines3."""

    PPO = "ppo"
    A2C = "a2c"
    RECURRENT_PPO = "recurrent-ppo"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkSection(_Section):
    """The actor; the critic has the same shape.

    Attributes:
        layers: Units of the hidden layers, tanh between them.
        lstm: Units of the LSTM cell before them; `recurrent-ppo` alone has one.
        log_std: Initial logarithm of the standard deviation of actions.
        hold: Changes of the action smaller than this repeat the last one, see
            `siren.policies.network.held`; the paper's observation does not tell it, and has none.
    """

    layers: tuple[_Count, ...] = (64, 64)
    lstm: _Count = 64
    log_std: Annotated[float, Field(ge=-5, le=1)] = -1.5
    hold: tuple[_Share, _Share] = (0.06, 0.2)


class OptimiserSection(_Section):
    """How the policy is improved; `minibatch`, `passes` and `clip` do not concern A2C.

    Attributes:
        environments: Episodes that run at the same time.
        rollout: Epochs of each between two updates.
        minibatch: Transitions of a gradient step.
        passes: Times that the transitions of an update are gone through.
        learning_rate: Of Adam (A2C: RMSprop).
        anneal: Whether the learning rate falls linearly to 0.
        gamma, gae_lambda: Discount, and decay of the advantage estimate.
        clip: Clip range of PPO's probability ratio.
        entropy, value: Weights of the entropy and of the critic's error in the loss.
        gradient_norm: Norm at which gradients are cut.
        warm_up: Steps at the start during which the critic learns alone: one that knows nothing of what the
            actor can do would spoil it.
    """

    environments: _Count = 512
    rollout: _Count = 32
    minibatch: _Count = 4096
    passes: _Count = 8
    learning_rate: _Positive = 1e-3
    anneal: bool = True
    gamma: _Share = 1.0
    gae_lambda: _Share = 0.95
    clip: _Positive = 0.2
    entropy: Annotated[float, Field(ge=0)] = 0.0
    value: _Positive = 0.5
    gradient_norm: _Positive = 0.5
    warm_up: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _whole_minibatches(self) -> Self:
        transitions = self.environments * self.rollout
        if transitions % self.minibatch:
            raise ValueError(
                f"{self.environments} environments x {self.rollout} epochs are {transitions} transitions, "
                f"no multiple of the mini-batch {self.minibatch}"
            )
        return self


class EvaluationSection(_Section):
    """How policies are measured: on jobs never trained on, without noise in the actions.

    Attributes:
        every: Steps between two evaluations; a checkpoint is written with each.
        jobs: Validation jobs, which choose the policy that is kept.
        test_jobs: Other jobs, played at the end alone: what the card reports.
        repeats: Episodes of each job.
    """

    every: _Count = 250_000
    jobs: _Count = 200
    test_jobs: _Count = 300
    repeats: _Count = 4


class RunsSection(_Section):
    """How recorded runs are learned from; the jobs fitted to them lie beside the recipe.

    Attributes:
        share: Of the training and the validation jobs, how many are drawn around the recorded ones; the
            others are of the scenario, against forgetting.
        spread: See `siren.learning.neighbourhood.Neighbourhood`.
    """

    share: _Share = 0.5
    spread: Annotated[float, Field(ge=0, le=1)] = 0.3


class Recipe(_Section):
    """Everything that decides which policy a training makes.

    Attributes:
        scenario: The family of jobs: a name under `envs/scenarios/`, or the path of a file.
        observation: What the agent sees.
        algorithm: How it learns.
        start: The agent whose weights training starts from, by name or path; empty for the reference action.
        steps: Simulated epochs to learn from, at least; the last rollout is finished.
        seed: Of the jobs, their noise, the initial weights and the actions.
        jobs: Training jobs.
        failure_ratio: Reference times that a failure counts for, see `FailureReturn`; the paper's reward,
            which comes with its observation, has a constant of its own.
        network, optimiser, evaluation: See there.
        runs: How recorded runs are learned from; None if none are.
    """

    scenario: str = "family-2026"
    observation: Literal["default", "siren"] = "default"
    algorithm: Algorithm = Algorithm.PPO
    start: str = ""
    steps: _Count = 4_000_000
    seed: Annotated[int, Field(ge=0)] = 0
    jobs: _Count = 2000
    failure_ratio: Annotated[float, Field(ge=1, le=10)] = 2.0
    network: NetworkSection = NetworkSection()
    optimiser: OptimiserSection = OptimiserSection()
    evaluation: EvaluationSection = EvaluationSection()
    runs: RunsSection | None = None

    def to_toml(self) -> str:
        """The recipe as `load_recipe` reads it."""
        table = self.model_dump(mode="json", exclude_none=True)
        plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
        lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
        for name, section in table.items():
            if isinstance(section, dict):
                lines += [
                    "",
                    f"[{name}]",
                    *(f"{key} = {json.dumps(value)}" for key, value in section.items()),
                ]
        return "\n".join(lines) + "\n"


FINE_TUNING = Recipe(
    steps=300_000,
    jobs=600,
    network=NetworkSection(log_std=-2.6),
    optimiser=OptimiserSection(environments=64, minibatch=256, learning_rate=5e-4, warm_up=10_000),
    evaluation=EvaluationSection(every=30_000),
    runs=RunsSection(),
)
"""The recipe for recorded runs; its network is that of the agent it starts from."""


def recipe_names() -> list[str]:
    """Agents that ship with their recipe, sorted."""
    try:
        folder = root_folder("agents")
    except SirenError:
        return []
    return sorted(path.parent.name for path in folder.glob(f"*/{RECIPE}"))


def recipe_path(name: str) -> Path:
    """The file of the recipe of that shipped agent, or that file.

    Args:
        name: A name under `agents/`, or the path of a `.toml` file.

    Raises:
        UnknownNameError: No such shipped agent.
    """
    path = Path(name)
    if path.suffix == ".toml":
        return path
    if name not in recipe_names():
        raise UnknownNameError("recipe", name, recipe_names())
    return root_folder("agents") / name / RECIPE


def load_recipe(name: str) -> Recipe:
    """The recipe of that shipped agent, or in that file.

    Args:
        name: See `recipe_path`.

    Raises:
        UnknownNameError: No such shipped agent.
        UsageError: The file cannot be read or breaks the schema.
    """
    path = recipe_path(name)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {error.strerror}; name a file that exists") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path} is not valid TOML: {error}; correct it there") from error
    return _checked(table, f"recipe {path}")


def changed_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with other values; None leaves one as it is.

    Raises:
        UsageError: A value that cannot be.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    return _checked({**recipe.model_dump(), **given}, "the options")


def _checked(table: Mapping[str, Any], what: str) -> Recipe:
    try:
        return Recipe.model_validate(dict(table))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise UsageError(f"{what} cannot be a recipe ({problems}): correct that") from None
