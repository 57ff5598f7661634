"""The learned policy: what it sees, what it remembers, which folders it refuses."""

from __future__ import annotations

import copy
import dataclasses
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from siren.errors import ActionError, AgentError, UnknownNameError
from siren.evaluation.episode import play
from siren.money.pricer import RunTotals
from siren.platforms.twin import TwinPlatform
from siren.policies import AgentPolicy, JobView, Reference, parse_policy
from siren.policies.agent import DEFAULT_AGENT, agent_digest, agent_folder, agent_names
from siren.policies.base import affordable
from siren.policies.network import META, WEIGHTS, Network, Spaces, load_network, save_network
from siren.policies.reference import guess_reference
from siren.policies.safeguard import Safeguard, Safety
from siren.simulator.observation import NAMES, OBSERVATION_SIZE
from siren.simulator.tables import Fact
from siren.simulator.twin_env import HspTwinEnv
from siren.simulator.twin_jobs import TwinJob
from siren.testing.fakes import FakePlatform
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.twin.twin import Twin
from siren.types import Action, Decision
from siren.worlds.costing import Outlook

REFERENCE = Reference(6, 1024, 12.0, 0.034)
BUDGET = Decimal("0.05")


def network(hidden: int = 5, *, recurrent: bool = False, hold: bool = False, scale: float = 0.4) -> Network:
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0.0, scale, shape).astype(np.float32)

    tensors = {"mlp.0.weight": draw(hidden, OBSERVATION_SIZE), "mlp.0.bias": draw(hidden)}
    if recurrent:
        tensors = {
            "lstm.weight_ih": draw(4 * 6, OBSERVATION_SIZE),
            "lstm.weight_hh": draw(4 * 6, 6),
            "lstm.bias": draw(4 * 6),
            "mlp.0.weight": draw(hidden, 6),
            "mlp.0.bias": draw(hidden),
        }
    tensors |= {"mlp.1.weight": draw(2, hidden), "mlp.1.bias": draw(2)}
    return Network({**tensors, "hold": np.array([0.1, 0.5], np.float32)} if hold else tensors)


def zero_network() -> Network:
    return Network(
        {"mlp.0.weight": np.zeros((2, OBSERVATION_SIZE), np.float32), "mlp.0.bias": np.zeros(2, np.float32)}
    )


def view_of(budget: Decimal = BUDGET, **sections) -> JobView:
    workload = tiny_workload(kernel=False, **sections)
    costing = tiny_costing(workload)
    platform = TwinPlatform(workload, costing, 0)
    outlook = Outlook(0.0, 1, RunTotals(), budget)
    return JobView(costing, platform, workload.spec.training, platform.start()[0], outlook)


def said(decision: Decision | None) -> tuple[Action, str]:
    assert decision is not None
    return decision.action, decision.reason


def episode(policy: AgentPolicy, epochs: int = 8, **training):
    workload = tiny_workload(kernel=False, training={"target_loss": 0.3, **training})
    costing = tiny_costing(workload)
    platform = TwinPlatform(workload, costing, 2)
    return play(platform, policy, costing, workload.spec.training, BUDGET, max_epochs=epochs)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("hold", [False, True])
def test_a_resumed_run_decides_as_an_uninterrupted_one(recurrent, hold):
    decided: list[str] = []

    class Told(AgentPolicy):
        """Keeps what it decided, and decides once more from the whole history."""

        def decide(self, history):
            decision = super().decide(history)
            fresh = AgentPolicy(network(recurrent=recurrent, hold=hold), "told", REFERENCE)
            view = copy.copy(self._job)
            view.outlook = self._first  # a run resumes with a view of the whole job
            fresh.start(view)
            view.outlook = self._job.outlook
            assert said(fresh.decide(history)) == said(decision)
            decided.append(decision.reason)
            asked_twice = [said(self._other.decide(history)) for _ in range(2)]
            assert asked_twice == [said(decision)] * 2
            return decision

        def start(self, job):
            super().start(job)
            self._first = job.outlook
            self._other = AgentPolicy(network(recurrent=recurrent, hold=hold), "told", REFERENCE)
            self._other.start(job)

    played = episode(Told(network(recurrent=recurrent, hold=hold), "told", REFERENCE))
    assert len(played.records) == 8
    assert len(set(decided)) > 1


def test_a_policy_may_play_many_jobs():
    policy = AgentPolicy(network(recurrent=True), "told", REFERENCE)
    runs = [[r.status.report.action for r in episode(policy).records] for _ in range(2)]
    assert runs[0] == runs[1]


class Scripted(Network):
    """Acts as it is told, and keeps what it saw."""

    def __init__(self, actions: list[np.ndarray]) -> None:
        super().__init__(zero_network().tensors)
        self._actions, self.seen = actions, []

    def act(self, observation):
        self.seen.append(observation.copy())
        return self._actions[len(self.seen) - 1]


@pytest.mark.parametrize("training", [{}, {"batch_rule": "split"}, {"update_rule": "average"}], ids=str)
def test_it_sees_what_the_environment_shows(training):
    """Stepped with the same actions on the same seed: whatever it was trained on is what it meets."""
    workload = tiny_workload(kernel=False, training={"target_loss": 0.3, **training})
    costing = tiny_costing(workload)
    seed = 11
    initial = workload.evaluate(workload.init(seed))[0]
    view = JobView(
        costing, FakePlatform(costing), workload.spec.training, initial, Outlook(0.0, 1, RunTotals(), BUDGET)
    )
    env = HspTwinEnv(jobs=[TwinJob(Twin(workload, costing, 0), REFERENCE.spec(view))])
    env.reset(seed=0)
    env.job.twin.seed = seed
    env.job.twin.params = workload.init(seed)
    env.job.pool.facts[0, Fact.INITIAL] = initial
    env._begin()
    rng = np.random.default_rng(4)
    actions = [rng.uniform(-0.5, 0.5, 2).astype(np.float32) for _ in range(7)]
    shown = [env.step(action)[0] for action in actions]
    script = Scripted(actions)
    played = play(
        TwinPlatform(workload, costing, seed),
        AgentPolicy(script, "script", REFERENCE),
        costing,
        workload.spec.training,
        BUDGET,
        max_epochs=7,
    )
    assert len(played.records) == 7
    for k, seen in enumerate(script.seen[1:]):
        for name, own, theirs in zip(NAMES, seen, shown[k], strict=True):
            assert own == pytest.approx(theirs, abs=2e-6), (k, name)


def test_it_begins_at_its_reference():
    view = view_of()
    policy = AgentPolicy(zero_network(), "zero", REFERENCE)
    policy.start(view)
    decision = policy.decide([])
    assert decision is not None
    assert decision.action.memory_mb == REFERENCE.memory_mb
    assert abs(np.log(decision.action.functions / REFERENCE.functions)) <= np.log(1.15) / 2
    assert "from 6x1024" in decision.reason
    assert decision.forecast is not None


def test_what_the_budget_cannot_pay_becomes_the_nearest_below():
    policy = Safeguard(AgentPolicy(zero_network(), "zero", Reference(24, 10240, 10.0, 1.0)), Safety())
    view = view_of(Decimal("0.045"))
    policy.start(view)
    decision = policy.decide([])
    assert decision is not None
    assert view.plan(decision.action) is not None
    assert decision.action.functions < 24 or decision.action.memory_mb < 10240
    assert "the budget that is left allows less" in decision.reason
    alone = policy.policy.decide([])  # the cap is the safeguard's
    assert alone is not None
    assert view.plan(alone.action) is None


def test_without_any_affordable_action_it_gives_up():
    policy = Safeguard(AgentPolicy(zero_network(), "zero", REFERENCE), Safety())
    view = view_of()
    policy.start(view)
    view.outlook = dataclasses.replace(view.outlook, left_usd=Decimal("0.000001"))
    assert policy.decide([]) is None


def test_an_action_that_the_job_cannot_run_is_never_decided():
    """A worker that evaluates needs more memory and time than one that only trains."""
    view = view_of(Decimal(10), training={"evaluator": "function"}, cost={"evaluate_seconds_per_sample": 4.0})
    small = Action(4, 128)
    assert view.costing.refusal(small)
    policy = Safeguard(AgentPolicy(zero_network(), "zero", Reference(4, 128, 1000.0, 1.0)), Safety())
    policy.start(view)
    decision = policy.decide([])
    assert decision is not None
    assert view.useful(decision.action)
    assert decision.action.memory_mb > 128


def test_the_nearest_affordable_action_is_sought_upwards_last():
    view = view_of(Decimal(1))
    assert affordable(view, Action(7, 1024)) == Action(7, 1024)
    assert affordable(view, Action(7, 1000)).memory_mb == 768
    slow = view_of(Decimal(1), cost={"seconds_per_sample": 20.0})  # few functions never end
    found = affordable(slow, Action(1, 128))
    assert found is not None
    assert slow.useful(found)


def test_a_job_that_was_not_rehearsed_has_a_reference_from_the_laws():
    view = view_of()
    reference = guess_reference(view)
    assert view.useful(reference.action)
    assert reference.duration_s > 0
    assert reference.cost_usd > 0
    policy = AgentPolicy(zero_network(), "zero")
    policy.start(view)
    assert policy.reference == reference


def test_a_job_that_nothing_can_run_is_refused():
    view = view_of(Decimal(100), cost={"seconds_per_sample": 1e6})
    for reference in (None, REFERENCE):
        with pytest.raises(ActionError):
            AgentPolicy(zero_network(), "zero", reference).start(view)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_network(tmp_path / "mine", network(), Spaces(), {"recipe": "none"})
    return tmp_path / "mine"


def meta_with(**changes):
    def change(folder: Path) -> None:
        meta = json.loads((folder / META).read_text())
        (folder / META).write_text(json.dumps({**meta, **changes}))

    return change


def tensors_with(**changes):
    def change(folder: Path) -> None:
        tensors = {k: v for k, v in {**network().tensors, **changes}.items() if v is not None}
        save_file(tensors, folder / WEIGHTS)

    return change


DAMAGES = {
    "no weights": (lambda f: (f / WEIGHTS).unlink(), WEIGHTS),
    "weights cut off": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "damaged"),
    "empty weights": (lambda f: (f / WEIGHTS).write_bytes(b""), "damaged"),
    "weights are no tensors": (lambda f: (f / WEIGHTS).write_bytes(b"weights" * 9), "damaged"),
    "JSON cut off": (lambda f: (f / META).write_text('{"format": 1,'), "damaged"),
    "JSON is a list": (lambda f: (f / META).write_text("[]"), "format 1"),
    "JSON is no text": (lambda f: (f / META).write_bytes(b"\xff\xfe\x00"), "damaged"),
    "another format": (meta_with(format=2), "format 1"),
    "another observation": (meta_with(spaces={"observation": ["loss"]}), "other spaces"),
    "another reach": (meta_with(spaces={**dataclasses.asdict(Spaces()), "memory_span": 3}), "other spaces"),
    "no spaces": (meta_with(spaces=None), "other spaces"),
    "float64": (tensors_with(**{"mlp.0.bias": np.zeros(5)}), "not float32"),
    "NaN": (tensors_with(**{"mlp.0.bias": np.full(5, np.nan, np.float32)}), "not finite"),
    "a tensor is missing": (tensors_with(**{"mlp.1.bias": None}), "mlp.1.bias is missing"),
    "a tensor too many": (tensors_with(extra=np.zeros(1, np.float32)), "unknown tensors extra"),
    "layers that do not fit": (tensors_with(**{"mlp.1.weight": np.zeros((2, 4), np.float32)}), "mlp.1"),
    "three outputs": (
        tensors_with(**{"mlp.1.weight": np.zeros((3, 5), np.float32), "mlp.1.bias": np.zeros(3, np.float32)}),
        "3 outputs",
    ),
    "another input": (tensors_with(**{"mlp.0.weight": np.zeros((5, 9), np.float32)}), "reads 9 numbers"),
    "a layer is left out": (
        tensors_with(**{"mlp.0.weight": None, "mlp.0.bias": None}),
        "mlp.0.weight is missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_agent_is_refused_in_a_sentence(folder, damage):
    change, says = DAMAGES[damage]
    change(folder)
    for load in (load_network, agent_digest, lambda f: parse_policy(str(f))):
        with pytest.raises(AgentError) as caught:
            load(folder if load is load_network else str(folder))
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bfloat16_is_refused(folder):
    header = json.dumps({"mlp.0.bias": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(AgentError):
        load_network(folder)


def test_what_was_saved_is_loaded(folder):
    loaded, meta = load_network(folder)
    assert meta["recipe"] == "none"
    seen = np.linspace(-1, 1, OBSERVATION_SIZE, dtype=np.float32)
    np.testing.assert_array_equal(loaded.act(seen), network().act(seen))
    assert parse_policy(str(folder)).name == str(folder)


def test_the_digest_changes_with_the_weights(folder, tmp_path):
    before = agent_digest(str(folder))
    assert before == agent_digest(str(folder))
    save_network(folder, network(scale=0.5), Spaces(), {"recipe": "none"})
    assert agent_digest(str(folder)) != before


def test_agents_are_found_by_name_and_by_path(folder, monkeypatch):
    assert agent_folder(str(folder)) == folder
    monkeypatch.chdir(folder.parent)
    assert agent_folder("./mine").resolve() == folder
    assert DEFAULT_AGENT in agent_names()
    assert agent_folder(DEFAULT_AGENT) == agent_folder(f"agents/{DEFAULT_AGENT}")
    assert parse_policy("agent").name == "agent"
    for name in ("agents/nobody", "elsewhere/nobody"):
        with pytest.raises(UnknownNameError, match="no agent named 'nobody'"):
            parse_policy(name)
    with pytest.raises(UnknownNameError, match=f"agents/{DEFAULT_AGENT}"):
        parse_policy("nobody")
