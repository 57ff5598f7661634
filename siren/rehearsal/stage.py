"""What is rehearsed, in one process: curves of fixed actions and whole episodes, on real SGD."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from siren.errors import AgentError, RunFolderError
from siren.evaluation.episode import MAX_EPOCHS, play
from siren.platforms.base import Platform
from siren.platforms.twin import TwinPlatform
from siren.policies import AgentPolicy, FixedPolicy, Policy, Reference, Safeguard, Safety
from siren.policies.agent import agent_folder
from siren.policies.network import Network, load_network
from siren.rehearsal.sampled import SampledPlatform, subsample
from siren.simulator.job import EpisodeSpec
from siren.twin.twin import Twin, job_of
from siren.types import Action
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing, EpochPlan, make_costing

Floats = NDArray[np.float64]

FIRST_SEED, FRESH_SEED = 10_000_000, 20_000_000
"""Seeds of proposals and of the final selection; runs use small ones, evaluations others."""

EXPLODED_CURVE = 3.0
"""A loss above this multiple of the initial one ends a curve: that count is too many."""


@dataclass(frozen=True)
class Candidate:
    """A policy that a rehearsal tries, small enough to be sent to another process and kept as JSON.

    Attributes:
        name: Short and unique within a rehearsal.
        action: Of a fixed policy.
        agent: Name or folder of a learned one.
        weights: Of a linear one, (2, observation) and the bias (2,) as its last column.
        reference: What a learned or linear policy acts relative to.
    """

    name: str
    action: Action | None = None
    agent: str = ""
    weights: tuple[tuple[float, ...], ...] = ()
    reference: Reference | None = None

    def policy(self) -> Policy:
        """The policy, without safeguards."""
        if self.action is not None:
            return FixedPolicy(self.action)
        network = self._linear() if self.weights else load_network(agent_folder(self.agent))[0]
        return AgentPolicy(network, self.name, self.reference)

    def to_json(self) -> dict[str, Any]:
        """The candidate as JSON."""
        found: dict[str, Any] = TypeAdapter(Candidate).dump_python(self, mode="json")
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        """What `to_json` gave.

        Raises:
            RunFolderError: It is something else.
        """
        try:
            found = TypeAdapter(Candidate).validate_python(dict(data))
            if found.weights:
                found.policy()
        except (ValidationError, AgentError, ValueError, IndexError) as error:
            raise RunFolderError("the choice in config.json is damaged: start a new run") from error
        if not (found.action or found.agent or found.weights):
            raise RunFolderError("the choice in config.json is damaged: start a new run")
        return found

    def _linear(self) -> Network:
        table = np.array(self.weights, np.float32)
        return Network({"mlp.0.weight": table[:, :-1], "mlp.0.bias": table[:, -1]})


@dataclass(frozen=True)
class Curve:
    """A fixed count of functions without a budget.

    Attributes:
        functions: n.
        losses: Held-out losses, the initial one first; it ends at the target or where it explodes.
        cut: Whether it ends because time was up.
        wall_s: Seconds that it took, on the clock.
        whole_loss: The last model's loss on all held-out samples; NaN if that was not asked.
        seed: Of all randomness.
    """

    functions: int
    losses: Floats
    cut: bool
    wall_s: float
    whole_loss: float = math.nan
    seed: int = FIRST_SEED


@dataclass(frozen=True)
class Trial:
    """An episode of a candidate; `wall_s` are the seconds that it took on the clock."""

    candidate: str
    seed: int
    success: bool
    duration_s: float
    cost_usd: float
    wall_s: float


class Stage:
    """A job in the twin: whole, or a sub-sample of it.

    Args:
        workload: The job.
        costing: Its laws and prices.
        fraction: Share of an epoch's samples that are trained on; 1 for all.
        clock: What the time that a rehearsal may take is measured on, in seconds; `time.process_time`
            for one that works in this process alone, on a machine that does other things as well.
    """

    def __init__(
        self,
        workload: Workload,
        costing: Costing,
        fraction: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workload, self.costing, self.clock = workload, costing, clock
        self.rehearsed = workload if fraction >= 1 else subsample(workload, fraction)
        self.share = self.rehearsed.samples / workload.samples
        whole = self.rehearsed is workload
        self._costing = costing if whole else make_costing(costing.world, job_of(self.rehearsed))

    @property
    def whole(self) -> bool:
        """Whether it is not a sub-sample."""
        return self.rehearsed is self.workload

    @property
    def pushes(self) -> int:
        """Pushes of a whole epoch of one function's job; their number hardly matters for `constant`."""
        return int(self.costing.job.pushes(1))

    @functools.cached_property
    def most_functions(self) -> int:
        """The most functions that can be rehearsed."""
        return min(self._costing.job.functions_max, self.costing.world.limits.functions_max)

    def curve(
        self,
        functions: int,
        memory_mb: int,
        epochs: int,
        target: float,
        seed: int,
        until: float = math.inf,
        whole: bool = False,
    ) -> Curve:
        """Trains with a fixed action for so many epochs, or up to the target.

        Args:
            functions, memory_mb: The action.
            epochs: The most.
            target: Held-out loss at which it ends.
            seed: Of all randomness.
            until: It is cut off after the epoch in which the clock passes this.
            whole: Whether the last model is evaluated on all held-out samples as well.
        """
        began = self.clock()
        twin = Twin(self.rehearsed, self._costing, seed)
        timeout_s = self.costing.world.limits.timeout_rungs[-1]
        plan = EpochPlan(Action(functions, memory_mb), timeout_s, float(timeout_s), Decimal(0))
        losses = [self.rehearsed.evaluate(twin.params)[0]]
        highest, cut = EXPLODED_CURVE * losses[0], False
        while len(losses) <= epochs and target < losses[-1] <= highest and not cut:
            losses.append(twin.run_epoch(plan).loss)
            cut = self.clock() > until and losses[-1] > target
        whole_loss = self.workload.evaluate(twin.params)[0] if whole else math.nan
        return Curve(functions, np.array(losses), cut, self.clock() - began, whole_loss, seed)

    def trial(self, candidate: Candidate, budget_usd: Decimal, target: float, seed: int) -> Trial:
        """Plays the job once, with the budget enforced; a sub-sample is billed as the whole job."""
        began = self.clock()
        training = self.rehearsed.spec.training.model_copy(update={"target_loss": target})
        policy = Safeguard(candidate.policy(), Safety())
        platform = self._platform(seed, target, budget_usd)
        episode = play(platform, policy, self.costing, training, budget_usd, max_epochs=MAX_EPOCHS)
        return Trial(
            candidate.name,
            seed,
            episode.success,
            episode.duration_s,
            float(episode.cost_usd),
            self.clock() - began,
        )

    def _platform(self, seed: int, target: float, budget_usd: Decimal) -> Platform:
        if self.whole:
            return TwinPlatform(self.workload, self.costing, seed)
        spec = EpisodeSpec(
            costing=self.costing,
            initial_loss=1.0,
            target_loss=target,
            budget_usd=float(budget_usd),
            functions_ref=self.most_functions,
            memory_ref_mb=self.costing.world.limits.memory_grid[-1],
            reference_s=1.0,
            reference_usd=1.0,
        )
        return SampledPlatform(Twin(self.rehearsed, self._costing, seed), spec, seed)


def settings_of(weights: Mapping[int, tuple[float, float]], size: int) -> tuple[tuple[float, ...], ...]:
    """Weights of a linear candidate: {entry of the observation: (for n, for m)}; entry `size` is the bias."""
    table = np.zeros((2, size + 1))
    for entry, pair in weights.items():
        table[:, entry] = pair
    return tuple(tuple(row) for row in table.tolist())
