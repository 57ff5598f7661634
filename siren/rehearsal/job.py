"""Rehearsing a job that a command has loaded: from the store if it was done before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TextIO

from siren.policies.agent import agent_digest, agent_names
from siren.rehearsal.rehearse import Rehearsal, rehearse
from siren.rehearsal.show import progress
from siren.rehearsal.stage import Stage
from siren.rehearsal.store import Store
from siren.rehearsal.workers import StageSettings
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing


@dataclass(frozen=True)
class RehearsedJob:
    """A job and a budget to rehearse.

    Attributes:
        workload, costing: The job.
        settings: How another process loads it.
        budget_usd: The budget.
        resolved: Everything that decides the job's course, JSON.
        agents: Which learned policies may propose; None for all that ship.
    """

    workload: Workload
    costing: Costing
    settings: StageSettings
    budget_usd: Decimal
    resolved: Mapping[str, Any]
    agents: Sequence[str] | None = None

    def rehearse(self, seconds: float, stderr: TextIO, *, again: bool = False) -> tuple[Rehearsal, bool]:
        """What a rehearsal of about so many seconds finds, and whether it was found before.

        Args:
            seconds: Real seconds.
            stderr: Where progress is shown if it is a terminal.
            again: Not to look whether it was done before.

        Raises:
            ActionError, BudgetError: See `siren.rehearsal.rehearse.rehearse`.
            UnknownNameError, AgentError: An agent that is missing or damaged.
            WorkloadError: The model raised.
            PlatformError: A process was killed from outside.
        """
        agents = agent_names() if self.agents is None else self.agents
        digests = {agent: agent_digest(agent) for agent in agents}
        store = Store(self.workload.name, self.resolved, self.budget_usd, digests)
        found = None if again else store.load(seconds)
        if found:
            return found, True
        stage = Stage(self.workload, self.costing)
        with progress(stderr, seconds) as report:
            found = rehearse(stage, self.settings, self.budget_usd, seconds, agents=agents, report=report)
        store.save(found)
        return found, False
