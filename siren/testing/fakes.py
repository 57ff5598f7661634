"""Stand-ins for what a trainer works with: a platform that does as it is told, a folder in memory."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.analysis._disk import Disk
from siren.analysis.run_folder import RunFolder
from siren.errors import RunFolderError
from siren.hsp import quotas
from siren.money.pricer import RunTotals
from siren.platforms.base import State, Tensors
from siren.types import Action, EpochRecord, EpochReport, GradientStatistics, RunSummary, Usage
from siren.worlds.costing import Costing, EpochPlan, Outlook


class FakePlatform:
    """Trains nothing: reports random usage, up to what the plan's timeout allows, and made-up losses.

    All randomness of an epoch comes from (seed, epoch), as on the twin.

    Args:
        costing: Laws and prices of the job.
        seed: Source of all usage.
        losses: Loss after epoch 1, 2, …; the last one stays. The initial loss is 1.
        failures: What to raise in which epoch, each once.
        overruns: By what factor an epoch's billed time exceeds the most that its plan allows.
        replays: See `Platform`.
        greed: Chance that a quantity reaches its bound.
        idle_s: See `Platform.idle_s`.
    """

    name = "fake"
    spends_money = False

    def __init__(
        self,
        costing: Costing,
        seed: int = 0,
        *,
        losses: tuple[float, ...] = (0.9,),
        failures: Mapping[int, BaseException] | None = None,
        overruns: Mapping[int, int] | None = None,
        replays: bool = True,
        greed: float = 0.3,
        idle_s: float = 0.0,
    ) -> None:
        self.idle_s = idle_s
        self.replays = replays
        self.launched: list[EpochPlan] = []
        self._costing, self._seed, self._losses, self._greed = costing, seed, losses, greed
        self._failures, self._overruns = dict(failures or {}), dict(overruns or {})
        self._epoch, self._clock_s, self._totals = 0, 0.0, RunTotals()
        self._model = 0

    def start(self) -> tuple[float, float]:
        """See `Platform.start`."""
        return 1.0, math.nan

    def check_action(self, action: Action) -> None:
        """See `Platform.check_action`."""
        self._costing.world.check_action(action)
        quotas.divide(self._costing.job, action.functions)

    def expect_starts(self, action: Action, timeout_s: int) -> tuple[int, int]:
        """See `Platform.expect_starts`: nothing ever stays warm."""
        return action.functions, action.functions

    def run_epoch(self, plan: EpochPlan) -> EpochReport:
        """See `Platform.run_epoch`."""
        self.check_action(plan.action)
        epoch = self._epoch + 1
        self.launched.append(plan)
        if epoch in self._failures:
            raise self._failures.pop(epoch)
        usage, duration_s = self._usage(plan, random.Random(f"{self._seed}, {epoch}"))
        loss = self._losses[min(epoch, len(self._losses)) - 1]
        self._epoch, self._clock_s, self._model = epoch, self._clock_s + duration_s, self._model + 1
        self._totals = self._totals.after(usage)
        return _report(epoch, plan.action, loss, duration_s, usage)

    def _usage(self, plan: EpochPlan, rng: random.Random) -> tuple[Usage, float]:
        def up_to(most: int) -> int:
            return most if rng.random() < self._greed else rng.randint(0, most)

        outlook = Outlook(self._clock_s, self._epoch + 1, self._totals, Decimal(0), self.idle_s)
        bounds = self._costing.bounds(plan.action, plan.timeout_s, outlook)
        most = self._costing.pricer.worst_usage(bounds)
        step_ms = self._costing.pricer.granularity_ms
        share = 1.0 if rng.random() < self._greed else rng.random()
        longest_s = bounds.s3_gb_s / self._costing.stored_gb(bounds.functions)
        duration_s = share * longest_s
        usage = Usage(
            memory_mb=most.memory_mb,
            billed_ms=up_to(most.billed_ms // step_ms) * step_ms * self._overruns.get(self._epoch + 1, 1),
            requests=up_to(most.requests),
            ephemeral_mb=most.ephemeral_mb,
            evaluator_billed_ms=up_to(most.evaluator_billed_ms // step_ms) * step_ms,
            evaluator_memory_mb=most.evaluator_memory_mb,
            s3_puts=up_to(most.s3_puts),
            s3_gets=up_to(most.s3_gets),
            s3_gb_s=share * bounds.s3_gb_s,
            log_bytes=up_to(most.log_bytes),
            cache_s=most.cache_s
            if share == 1.0
            else min(most.cache_s, self._clock_s + duration_s + self.idle_s),
        )
        return usage, duration_s

    @property
    def params(self) -> NDArray[np.float32]:
        """See `Platform.params`."""
        return np.full(self._costing.job.parameters, self._model, np.float32)

    def set_params(self, params: NDArray[np.float32]) -> None:
        """See `Platform.set_params`; the next epochs count on from its number."""
        self._model = int(params[0])

    @property
    def clock_s(self) -> float:
        """See `Platform.clock_s`."""
        return self._clock_s

    def save(self) -> tuple[Tensors, State]:
        """See `Platform.save`."""
        state = {"epoch": self._epoch, "clock_s": self._clock_s, "totals": self._totals.to_json()}
        return {"params": self.params}, state

    def restore(self, tensors: Tensors, state: State) -> None:
        """See `Platform.restore`."""
        self._epoch, self._clock_s = int(state["epoch"]), float(state["clock_s"])
        self._model = int(tensors["params"][0])
        self._totals = RunTotals.from_json(state["totals"])

    def close(self) -> None:
        """See `Platform.close`."""


def _report(epoch: int, action: Action, loss: float, duration_s: float, usage: Usage) -> EpochReport:
    return EpochReport(
        epoch=epoch,
        action=action,
        loss=loss,
        accuracy=math.nan,
        duration_s=duration_s,
        start_s=0.0,
        load_s=0.0,
        fetch_s=0.0,
        compute_s=duration_s,
        update_s=0.0,
        wait_s=0.0,
        evaluate_s=0.0,
        cold_starts=action.functions,
        memory_utilization=0.5,
        cpu_utilization=1.0,
        pushes=action.functions,
        pushes_planned=action.functions,
        mean_staleness=0.0,
        updates_lost=0,
        update_retries=0,
        unfinished=0,
        gradients=GradientStatistics(math.nan, math.nan, math.nan),
        usage=usage,
    )


class MemoryFolder(RunFolder):
    """A run folder that keeps everything in memory, for thousands of runs.

    Args:
        budget_usd: The budget, as the config of a real folder holds it.

    Attributes:
        summary: What `write_summary` was last given.
    """

    def __init__(self, budget_usd: Decimal) -> None:
        super().__init__(Path("memory"), {"budget_usd": budget_usd}, {}, Disk())
        self.summary: RunSummary | None = None
        self._records: list[EpochRecord] = []
        self._checkpoints: dict[int, tuple[dict[str, NDArray[Any]], dict[str, Any]]] = {}

    def append(self, record: EpochRecord) -> None:
        """See `RunFolder.append`."""
        self._records.append(record)

    def events(self, outside_usd: Decimal = Decimal(0)) -> tuple[EpochRecord, ...]:
        """See `RunFolder.events`."""
        return tuple(self._records)

    def checkpoints(self) -> tuple[int, ...]:
        """See `RunFolder.checkpoints`."""
        return tuple(sorted(self._checkpoints))

    def write_checkpoint(
        self, epoch: int, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]
    ) -> None:
        """See `RunFolder.write_checkpoint`."""
        self._checkpoints = {k: v for k, v in self._checkpoints.items() if k >= epoch - 1}
        self._checkpoints[epoch] = ({name: t.copy() for name, t in tensors.items()}, dict(state))

    def read_checkpoint(self, epoch: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """See `RunFolder.read_checkpoint`."""
        if epoch not in self._checkpoints:
            raise RunFolderError(f"no checkpoint of epoch {epoch} is in memory")
        return self._checkpoints[epoch]

    def write_model(
        self, params: NDArray[np.float32], layout: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
    ) -> None:
        """See `RunFolder.write_model`; nothing is kept."""

    def write_summary(self, summary: RunSummary) -> None:
        """See `RunFolder.write_summary`."""
        self.summary = summary
