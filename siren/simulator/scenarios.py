"""Scenario files: the schema of `envs/scenarios/<name>.toml`, and loading one."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from siren._roots import root_folder
from siren.errors import UnknownNameError, WorldError
from siren.types import BatchRule, UpdateRule
from siren.worlds import world_names

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Range(_Section):
    """Where a parameter is drawn from.

    Attributes:
        low, high: Its bounds.
        scale: Uniform in the logarithm, or in the number itself.
    """

    low: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    high: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    scale: Literal["log", "linear"] = "log"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.scale == "log" and self.low == 0:
            raise ValueError('low must be positive on a logarithmic scale; or set scale = "linear"')
        return self

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        if self.scale == "linear":
            return float(rng.uniform(self.low, self.high))
        return float(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))

    def draw_count(self, rng: np.random.Generator) -> int:
        """One whole number, at least 1."""
        return max(1, round(self.draw(rng)))


class QuadraticRanges(_Section):
    """The noisy quadratic model, in dimension-free numbers.

    Attributes:
        rate: Learning rate x largest curvature.
        spectrum, energy: Exponents of curvature and of initial energy over the modes.
        floor: Stationary excess of plain SGD at the reference batch, over the initial excess.
        lowest_share: Lowest loss over the initial loss.
        target_gap: Excess of the target over the best reachable loss, per initial excess.
        epochs: Epochs of the cheapest fixed action; jobs outside are dropped.
    """

    rate: Range
    spectrum: Range
    energy: Range
    floor: Range
    lowest_share: Range
    target_gap: Range
    epochs: Range


class FittedRanges(_Section):
    """The fitted law.

    Attributes:
        halving_epochs: Epochs of one function that halve the initial excess.
        noise: Of an epoch, on the logarithm of the excess.
        lowest_share: Lowest loss over the initial loss.
        target_gap: Excess of the target, per initial excess.
        epochs: Epochs of the cheapest fixed action; jobs outside are dropped.
    """

    halving_epochs: Range
    noise: Range
    lowest_share: Range
    target_gap: Range
    epochs: Range


class WorkRanges(_Section):
    """What an epoch is made of.

    Attributes:
        pushes: Pushes of an epoch under `constant`.
        pushes_per_function: k under `split`.
        batch_size: Samples of a push under `constant`; the reference batch.
        compute_s: Compute of an epoch at one vCPU.
        push_overhead: Share of it that does not depend on the batch.
        parallel_fraction, parameters, sample_bytes, import_s, runtime_mb: See `siren.worlds.laws.Job`.
        heldout_share: Held-out samples over the samples of an epoch.
        evaluate_share: Time to evaluate a sample over the time of its gradient.
    """

    pushes: Range
    pushes_per_function: Range
    batch_size: Range
    compute_s: Range
    push_overhead: Range
    parallel_fraction: Range
    parameters: Range
    sample_bytes: Range
    heldout_share: Range
    evaluate_share: Range
    import_s: Range
    runtime_mb: Range


class GoalRanges(_Section):
    """What is asked for.

    Attributes:
        budget_ratio: Budget over what the cheapest fixed action needs.
        reference_noise: n_ref is off by exp(this x a standard normal): a rehearsal finds it so well.
    """

    budget_ratio: Range
    reference_noise: Range


class Scenario(_Section):
    """A whole scenario file: a family of jobs.

    Attributes:
        name: The name of its file.
        title, about: What it is.
        dynamics: `quadratic` or `fitted`.
        worlds: Worlds to draw from.
        batch_rules, update_rules: Rules to draw from, with their weights.
        convergence, work, goal: Ranges.
    """

    name: str = ""
    title: str
    about: str
    dynamics: Literal["quadratic", "fitted"]
    worlds: Annotated[tuple[str, ...], Field(min_length=1)]
    batch_rules: Annotated[dict[BatchRule, Weight], Field(min_length=1)]
    update_rules: Annotated[dict[UpdateRule, Weight], Field(min_length=1)]
    convergence: QuadraticRanges | FittedRanges
    work: WorkRanges
    goal: GoalRanges

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wanted = QuadraticRanges if self.dynamics == "quadratic" else FittedRanges
        if not isinstance(self.convergence, wanted):
            raise ValueError(f"[convergence] must hold the ranges of dynamics {self.dynamics!r}")
        unknown = [name for name in self.worlds if name not in world_names()]
        if unknown:
            raise ValueError(f"unknown worlds {', '.join(unknown)}: choose of {', '.join(world_names())}")
        return self


def _folder() -> Path:
    return root_folder("envs") / "scenarios"


def scenario_names() -> list[str]:
    """The scenarios in Siren's `envs/scenarios` folder, sorted."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def load_scenario(name: str) -> Scenario:
    """The scenario of that name, or in that file.

    Args:
        name: A name under `envs/scenarios/`, or the path of a user's own `.toml` file.

    Raises:
        UnknownNameError: No such scenario.
        WorldError: The file cannot be read or breaks the schema; one line per problem.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if name not in scenario_names():
            raise UnknownNameError("scenario", name, scenario_names())
        path = _folder() / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorldError(
            f"cannot read scenario {path}: {error.strerror}; name one of {', '.join(scenario_names())}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorldError(f"{path} is not valid TOML: {error}; correct it there") from error
    try:
        return Scenario.model_validate({**table, "name": path.stem})
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(str(part) for part in e['loc'])}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise WorldError(f"{path} breaks the schema of a scenario:\n{problems}") from error
