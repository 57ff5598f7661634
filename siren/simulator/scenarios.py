"""Scenario files: the schema of `envs/scenarios/<name>.toml`, and loading one."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from siren._roots import root_folder
from siren.errors import UnknownNameError, UsageError, WorldError
from siren.types import BatchRule, UpdateRule
from siren.worlds import world_names

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
"""Whole numbers of which one is drawn, each as likely."""

SGD = "sgd"
"""The kind of dynamics that is real SGD in the twin."""


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


class DataRanges(_Section):
    """Generated data, see `siren.simulator.small_models.make_dataset`.

    Attributes:
        samples: Training samples, all of them in every epoch.
        heldout: Held-out samples.
        classes: Classes.
        inputs, inputs_of_more: Features of a sample with two classes, and with more.
        spectrum: Exponent of the features' variances.
        distance: Of the classes' centres from each other.
        wrong_labels: Share of labels that are drawn at random.
    """

    samples: Counts
    heldout: Counts
    classes: Counts
    inputs: Range
    inputs_of_more: Range
    spectrum: Range
    distance: Range
    wrong_labels: Range


class SgdRanges(_Section):
    """How generated jobs train.

    Attributes:
        rate, damped_rate: Learning rate x largest curvature; the latter under `staleness`.
        staleness_scale: See `siren.hsp.rules.damped_rate`.
        pushes: Pushes of an epoch under `constant`.
        pushes_per_function: k under `split`.
    """

    rate: Range
    damped_rate: Range
    staleness_scale: Range
    pushes: Counts
    pushes_per_function: Counts


class SgdCostRanges(_Section):
    """What generated jobs cost.

    Attributes:
        compute_s: Compute of an epoch at one vCPU.
        evaluate_share: Time to evaluate a sample over the time of its gradient.
        parallel_fraction, import_s, runtime_mb: See `siren.worlds.laws.Job`.
    """

    compute_s: Range
    parallel_fraction: Range
    evaluate_share: Range
    import_s: Range
    runtime_mb: Range


class SgdGoalRanges(_Section):
    """What is asked of generated jobs.

    Attributes:
        target_gap: Excess of the target over the best loss that a fixed action ends at, per initial excess.
        budget_ratio: Budget over what the cheapest fixed action needs.
    """

    target_gap: Range
    budget_ratio: Range


class _Family(_Section):
    """What every scenario file says.

    Attributes:
        name: The name of its file.
        title, about: What it is.
        worlds: Worlds to draw from.
        batch_rules, update_rules: Rules to draw from, with their weights.
    """

    name: str = ""
    title: str
    about: str
    worlds: Annotated[tuple[str, ...], Field(min_length=1)]
    batch_rules: Annotated[dict[BatchRule, Weight], Field(min_length=1)]
    update_rules: Annotated[dict[UpdateRule, Weight], Field(min_length=1)]

    @model_validator(mode="after")
    def _known_worlds(self) -> Self:
        unknown = [name for name in self.worlds if name not in world_names()]
        if unknown:
            raise ValueError(f"unknown worlds {', '.join(unknown)}: choose of {', '.join(world_names())}")
        return self


class Scenario(_Family):
    """A family of simulated jobs, for `siren/Hsp-v0`.

    Attributes:
        dynamics: `quadratic` or `fitted`.
        convergence, work, goal: Ranges.
    """

    dynamics: Literal["quadratic", "fitted"]
    convergence: QuadraticRanges | FittedRanges
    work: WorkRanges
    goal: GoalRanges

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wanted = QuadraticRanges if self.dynamics == "quadratic" else FittedRanges
        if not isinstance(self.convergence, wanted):
            raise ValueError(f"[convergence] must hold the ranges of dynamics {self.dynamics!r}")
        return self


class SgdScenario(_Family):
    """A family of small jobs with real gradients, for `siren/HspTwin-v0`.

    Attributes:
        dynamics: `sgd`.
        data, training, cost, goal: Ranges.
    """

    dynamics: Literal["sgd"]
    data: DataRanges
    training: SgdRanges
    cost: SgdCostRanges
    goal: SgdGoalRanges


AnyScenario = TypeVar("AnyScenario", Scenario, SgdScenario)


def weighted(weights: dict[BatchRule, float] | dict[UpdateRule, float], rng: np.random.Generator) -> str:
    """One of the keys, drawn by its weight."""
    names = [str(key) for key in weights]
    share = np.array(list(weights.values()))
    return str(rng.choice(names, p=share / share.sum()))


def _folder() -> Path:
    return root_folder("envs") / "scenarios"


def _every_name() -> list[str]:
    return sorted(path.stem for path in _folder().glob("*.toml"))


def scenario_names(*, sgd: bool = False) -> list[str]:
    """The scenarios of simulated jobs in Siren's `envs/scenarios` folder, or those of real SGD; sorted."""
    return [name for name in _every_name() if (_read(name)[1].get("dynamics") == SGD) is sgd]


def load_scenario(name: str) -> Scenario:
    """The scenario of simulated jobs of that name, or in that file.

    Args:
        name: A name under `envs/scenarios/`, or the path of a user's own `.toml` file.

    Raises:
        UnknownNameError: No such scenario.
        WorldError: The file cannot be read or breaks the schema; one line per problem.
        UsageError: Its jobs have real gradients.
    """
    path, table = _read(name)
    if table.get("dynamics") == SGD:
        raise UsageError(
            f"the jobs of scenario {path.stem} have real gradients: use siren/HspTwin-v0 for it, "
            f"or choose of {', '.join(scenario_names())}"
        )
    return _validated(Scenario, path, table)


def load_sgd_scenario(name: str) -> SgdScenario:
    """The scenario of jobs with real gradients of that name, or in that file.

    Args:
        name: As in `load_scenario`.

    Raises:
        UnknownNameError, WorldError: As in `load_scenario`.
        UsageError: Its jobs are simulated.
    """
    path, table = _read(name)
    if table.get("dynamics") in ("quadratic", "fitted"):
        raise UsageError(
            f"the jobs of scenario {path.stem} are simulated: use siren/Hsp-v0 for it, "
            f"or choose of {', '.join(scenario_names(sgd=True))}"
        )
    return _validated(SgdScenario, path, table)


def _read(name: str) -> tuple[Path, dict[str, Any]]:
    """(path, contents) of the scenario of that name, or in that file."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in _every_name():
            raise UnknownNameError("scenario", name, _every_name())
        path = _folder() / f"{name}.toml"
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorldError(
            f"cannot read scenario {path}: {error.strerror}; name one of {', '.join(_every_name())}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorldError(f"{path} is not valid TOML: {error}; correct it there") from error


def _validated(schema: type[AnyScenario], path: Path, table: dict[str, Any]) -> AnyScenario:
    try:
        return schema.model_validate({**table, "name": path.stem})
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(str(part) for part in e['loc'])}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise WorldError(f"{path} breaks the schema of a scenario:\n{problems}") from error
