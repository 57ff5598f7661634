"""The learned policy: a trained network that acts relative to the job's reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from siren._roots import root_folder
from siren.errors import UnknownNameError
from siren.policies.base import JobView
from siren.policies.network import META, WEIGHTS, Network, load_network
from siren.policies.reference import Reference, guess_reference
from siren.simulator import core, observation
from siren.simulator.core import Col
from siren.simulator.sensors import noise_floor
from siren.simulator.tables import Cell, Pool, pool_of_spec
from siren.types import Action, Decision, EpochRecord, EpochReport

DEFAULT_AGENT = "default-2026"
"""The agent that ships as the default."""


class AgentPolicy:
    """Decides by a trained network, from the observation of `siren/Hsp-v0`.

    The state is rebuilt from the history, so that a resumed run decides as an uninterrupted one.

    Args:
        network: The network.
        name: As in `--policy`.
        reference: What actions are relative to; by default `guess_reference`.
    """

    def __init__(self, network: Network, name: str, reference: Reference | None = None) -> None:
        self.name = name
        self._network = network
        self._reference = reference
        self._job: JobView | None = None

    @classmethod
    def load(cls, agent: str, reference: Reference | None = None, *, name: str = "") -> AgentPolicy:
        """An agent by the name of its folder under `agents/`, or by its path.

        Args:
            agent: Name or path.
            reference: See the class.
            name: What it is called; by default the same.

        Raises:
            UnknownNameError: There is no such agent.
            AgentError: It is damaged, or was trained for other spaces.
        """
        return cls(load_network(agent_folder(agent))[0], name or agent, reference)

    def start(self, job: JobView) -> None:
        """See `Policy.start`."""
        self._job = job
        self.reference = self._reference or guess_reference(job)
        self._pool: Pool = pool_of_spec(self.reference.spec(job))
        self._rewind()

    def _rewind(self) -> None:
        self._state = core.new_state(1)
        core.begin(self._pool, self._state, 0, 0)
        self._network.reset()
        self._told = self._acted = 0

    def decide(self, history: Sequence[EpochRecord]) -> Decision | None:
        """See `Policy.decide`."""
        assert self._job is not None
        if self._acted > len(history):  # asked again, or another history: a recurrent network would remember
            self._rewind()
        for record in history[self._told :]:
            if self._acted == self._told:
                self._act()
            self._tell(record)
        first, second = self._act()
        action = self._action(first, second)
        n_ref, m_ref = self.reference.functions, self.reference.memory_mb
        reason = f"{self.name} wants {action}, {first:+.2f} and {second:+.2f} from {n_ref}x{m_ref}"
        return self._job.explain(Decision(action, reason), lambda action: math.nan)

    def _act(self) -> tuple[float, float]:
        seen = np.empty(observation.OBSERVATION_SIZE, np.float32)
        observation.observe(self._pool, self._state, 0, seen)
        first, second = self._network.act(seen).tolist()
        self._acted += 1
        return first, second

    def _action(self, first: float, second: float) -> Action:
        """The nearest action that the job can run."""
        pool = self._pool
        level, size = core.decode(pool, 0, first, second, False)
        level, size = divmod(int(pool.cells[0, level, size, Cell.CHOICE]), pool.cells.shape[2])
        return Action(int(pool.functions[0, level]), int(pool.memory_mb[0, size]))

    def _tell(self, record: EpochRecord) -> None:
        """Moves the state one epoch on."""
        assert self._job is not None
        values, status = self._state.values[0], record.status
        report = status.report
        values[Col.DURATION_S], values[Col.COST] = report.duration_s, float(status.cost_usd)
        values[Col.FETCH_S], values[Col.COMPUTE_S] = report.fetch_s, report.compute_s
        values[Col.UPDATE_S] = report.update_s
        values[Col.FUNCTIONS], values[Col.MEMORY] = report.action.functions, report.action.memory_mb
        values[Col.COLD] = report.cold_starts
        values[Col.FLOOR] = self._floor(report)
        values[Col.PREVIOUS], values[Col.LOSS] = values[Col.LOSS], report.loss
        core.settle(self._pool, self._state, 0, True, False)
        values[Col.LEFT] = float(status.budget_left_usd)
        self._told += 1

    def _floor(self, report: EpochReport) -> float:
        assert self._job is not None
        return noise_floor(self._job.training, self._job.costing.job, report)


def agent_names() -> list[str]:
    """The agents that ship, and those of the checkout."""
    root = root_folder("agents")
    return sorted(path.parent.name for path in root.glob("*/policy.json"))


def agent_digest(name: str) -> str:
    """Hash of what decides an agent's actions.

    Raises:
        UnknownNameError, AgentError: See `AgentPolicy.load`.
    """
    folder = agent_folder(name)
    load_network(folder)
    return hashlib.sha256(b"".join((folder / part).read_bytes() for part in (META, WEIGHTS))).hexdigest()


def agent_folder(name: str) -> Path:
    """The folder of an agent by name (`default-2026`, `agents/default-2026`) or by path.

    Raises:
        UnknownNameError: There is none.
    """
    path = Path(name)
    if (path / "policy.json").is_file():
        return path
    folder = root_folder("agents") / path.name
    if path.parent.name in ("", "agents") and (folder / "policy.json").is_file():
        return folder
    raise UnknownNameError("agent", path.name, agent_names())


def absolute_agent(name: str) -> str:
    """What names the same agent from any folder: `agents/NAME` if it ships, else its absolute path.

    Raises:
        UnknownNameError: There is no such agent.
    """
    folder = agent_folder(name).resolve()
    shipped = (root_folder("agents") / folder.name).resolve()
    return f"agents/{folder.name}" if folder == shipped else str(folder)
