"""The policies that an evaluation compares, by name; a new one is a small file and a line in `KINDS`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from siren.errors import UnknownNameError, UsageError
from siren.evaluation.baseline import Race
from siren.evaluation.case import Case
from siren.evaluation.episode import Episode
from siren.evaluation.grid_search import play_grid_search
from siren.evaluation.jobs import PLATFORMS, SIMULATOR, JobInSimulator
from siren.evaluation.seeds import scout_seeds, select_seeds
from siren.policies import AgentPolicy, FixedPolicy, GreedyPolicy, Policy, Safeguard, Safety
from siren.policies.agent import DEFAULT_AGENT, agent_names
from siren.policies.planner import PlannerPolicy
from siren.policies.two_phase import TwoPhasePolicy
from siren.simulator.fitting import Setting, Trace, fit_quadratic, fixed_trace
from siren.simulator.job import ActionGrid
from siren.simulator.planner import Planner
from siren.simulator.quadratic import Quadratic
from siren.simulator.search import best_two_phase
from siren.types import Action, StopReason
from siren.worlds import World
from siren.worlds.costing import WORKER_MARGIN_S, EpochPlan

BEST_FIXED = "best-fixed"
"""The policy that all others are measured by; it is always played."""

Player = Callable[[int], Episode]
"""Plays a case with a seed."""


def _no_argument(argument: str, worlds: Iterable[World]) -> None:
    if argument:
        raise UsageError(f"this policy takes no argument: leave {argument!r} out")


@dataclass(frozen=True)
class Kind:
    """A sort of policy; what it holds are functions of a module, so that other processes find them.

    Attributes:
        make: The policy of a case, from the text behind the name.
        play: Instead of it: one episode of a case, from the same text and a seed.
        check: Refuses a text that cannot be, given the worlds of the evaluation.
        baseline: Whether it is a fixed action or schedule, which no safeguard touches.
        platforms: Where it can play.
        refers: Whether `@best-fixed` gives it the best fixed action as its reference.
    """

    make: Callable[[Case, str], Policy] | None = None
    play: Callable[[Case, str, int], Episode] | None = None
    check: Callable[[str, Iterable[World]], None] = _no_argument
    baseline: bool = False
    platforms: tuple[str, ...] = PLATFORMS
    refers: bool = False


@dataclass(frozen=True)
class Entrant:
    """A policy as it was asked for.

    Attributes:
        name: As in the report.
        kind: What it is.
        argument: The text behind the name.
        safety: Its safeguards; nothing for a baseline.
    """

    name: str
    kind: Kind
    argument: str
    safety: Safety | None

    def player(self, case: Case) -> Player:
        """Plays that case."""
        kind, argument = self.kind, self.argument
        if kind.play is not None:
            play = kind.play
            return lambda seed: play(case, argument, seed)
        assert kind.make is not None
        policy = kind.make(case, argument)
        if self.safety is not None:
            policy = Safeguard(policy, self.safety)
        return lambda seed: case.episode(policy, seed)


def parse_entrant(
    text: str, kinds: Mapping[str, Kind], safety: Safety, platform: str, worlds: Iterable[World]
) -> Entrant:
    """The entrant of `NAME[:ARGUMENT][@best-fixed][!SAFEGUARDS]`, or of `agents/NAME[@...][!...]`.

    Args:
        text: As on the command line; several safeguards are joined by `+`.
        kinds: What there is.
        safety: The safeguards where the text names none.
        platform: Where it is to play.
        worlds: In which worlds.

    Raises:
        UnknownNameError: No such policy or safeguard.
        UsageError: It cannot play there, or its argument cannot be.
    """
    spelled, marked, guards = text.partition("!")
    name, _, argument = spelled.partition(":")
    bare, refers, reference = name.partition("@")
    if "/" in spelled:
        bare, refers, reference = spelled.partition("@")
        name, argument = "agents" + refers + reference, bare
        bare = "agents"
    if refers and (reference != BEST_FIXED or bare not in kinds or not kinds[bare].refers):
        raise UsageError(f"policy {text!r}: only an agent takes @{BEST_FIXED}, e.g. agent@{BEST_FIXED}")
    if name not in kinds:
        raise UnknownNameError("policy", spelled, [*kinds, *(f"agents/{agent}" for agent in agent_names())])
    kind = kinds[name]
    if platform not in kind.platforms:
        raise UsageError(f"policy {spelled!r} needs --platform {' or '.join(kind.platforms)}: leave it out")
    kind.check(argument, worlds)
    if kind.baseline:
        if marked:
            raise UsageError(f"policy {text!r}: the fixed baselines have no safeguards; leave !{guards} out")
        return Entrant(spelled, kind, argument, None)
    own = Safety.parse(guards.replace("+", ",")) if marked else safety
    shown = "" if own == Safety() else "!" + str(own).replace(",", "+")
    return Entrant(spelled + shown, kind, argument, own)


# --- what there is -----------------------------------------------------------------------------


def _best_fixed(case: Case, argument: str) -> Policy:
    return FixedPolicy(case.baseline.action)


def _fixed(case: Case, argument: str) -> Policy:
    return FixedPolicy.parse(argument)


def _check_fixed(argument: str, worlds: Iterable[World]) -> None:
    action = FixedPolicy.parse(argument).action
    for world in worlds:
        world.check_action(action)


def _greedy(case: Case, argument: str) -> Policy:
    return GreedyPolicy()


def _two_phase(case: Case, argument: str) -> Policy:
    kept = case.chosen("two-phase", lambda: _best_schedule(case), SCHEDULING)
    return TwoPhasePolicy(Action(*kept["first"]), Action(*kept["second"]), kept["switch"])


SCHEDULING = (
    "evaluation/entrants.py",
    "policies/two_phase.py",
    "policies/safeguard.py",
    "simulator/planner.py",
    "simulator/schedules.py",
)
"""Code that decides which two phases are chosen."""

SWITCHES, MORE, FEWER = (0.3, 0.1, 0.03), (1.0, 1.5, 2.2, 3.2), (1.0, 0.7, 0.5)
"""Schedules around the best fixed action that are tried: shares of the initial gap, factors on its count."""

ROUNDS = ((4, 10), (10, 4))
"""See `siren.evaluation.baseline.Effort`."""

Schedule = tuple[Action, Action, float]


def _best_schedule(case: Case) -> dict[str, Any]:
    """The best of the schedules around the best fixed action; in the simulator, of a whole search as well."""
    best, costing = case.baseline.action, case.job.costing
    limit = min(costing.job.functions_max, costing.world.limits.functions_max)

    def scaled(factor: float) -> Action:
        return Action(min(max(round(best.functions * factor), 1), limit), best.memory_mb)

    candidates: list[Schedule] = [(best, best, 0.0)]
    if isinstance(case.job, JobInSimulator) and isinstance(case.job.job.dynamics, Quadratic):
        found = best_two_phase(case.simulated, select_seeds(), case.baseline.failure_s)
        candidates.append((found.actions[0], found.actions[-1], found.schedule.switch))
    for switch in SWITCHES:
        candidates += [
            (scaled(more), scaled(fewer), switch) for more in MORE for fewer in FEWER if more != fewer
        ]
    race = Race(case, _scheduled)
    (first, second, switch), _ = race.best(list(dict.fromkeys(candidates)), ROUNDS)
    return {
        "first": [first.functions, first.memory_mb],
        "second": [second.functions, second.memory_mb],
        "switch": switch,
    }


def _scheduled(candidate: Schedule) -> Policy:
    return TwoPhasePolicy(*candidate)


def _planner(case: Case, argument: str) -> Policy:
    try:
        return PlannerPolicy(Planner.of(case.simulated))
    except TypeError as error:
        raise UsageError(f"policy 'planner': {error}; leave it out, or choose another scenario") from error


FITTED = ("evaluation/entrants.py", "simulator/fitting.py")
"""Code that decides which model is fitted."""

LADDER, LADDER_SEEDS, LADDER_EPOCHS = (0.25, 0.5, 1.0, 2.0), 2, 20
"""The fixed ladder that a model is fitted to: counts over the best fixed one, runs of each, epochs."""


def _planner_fitted(case: Case, argument: str) -> Policy:
    job, size = case.job, case.baseline.memory_mb
    model = Quadratic(**case.chosen("fitted", lambda: dataclasses.asdict(_fitted(case)), FITTED))
    target = job.training.target_loss - job.platform(scout_seeds()[0]).start()[0] + model.excess
    planner = Planner(model, ActionGrid.of(job.costing), max(target, LEAST_TARGET), float(size))
    return PlannerPolicy(planner, "planner-fitted")


LEAST_TARGET = 1e-6
"""Excess of a target that is below the lowest loss of the fitted model."""


def _fitted(case: Case) -> Quadratic:
    """The noisy quadratic model that fits runs of a few fixed actions, played without a budget."""
    job, best = case.job, case.baseline.action
    limit = min(job.costing.job.functions_max, job.costing.world.limits.functions_max)
    counts = sorted({min(max(round(best.functions * factor), 1), limit) for factor in LADDER})
    actions = [Action(n, best.memory_mb) for n in counts]
    runnable = [action for action in actions if not job.costing.refusal(action)]
    traces = [_trace(case, action, seed) for action in runnable for seed in scout_seeds()[:LADDER_SEEDS]]
    costing = job.costing
    setting = Setting.of(costing.world, costing.job, job.training, counts, float(best.memory_mb))
    return fit_quadratic(traces, setting)


def _trace(case: Case, action: Action, seed: int) -> Trace:
    """The losses of a fixed action, up to one that is not finite."""
    platform, timeout_s = case.job.platform(seed), case.job.costing.world.limits.timeout_rungs[-1]
    losses = [platform.start()[0]]
    plan = EpochPlan(action, timeout_s, timeout_s - WORKER_MARGIN_S, Decimal(0))
    while len(losses) <= LADDER_EPOCHS and math.isfinite(losses[-1]):
        losses.append(platform.run_epoch(plan).loss)
    return fixed_trace(action.functions, np.array(losses))


def _agent(case: Case, argument: str) -> Policy:
    return AgentPolicy.load(argument or DEFAULT_AGENT)


def _agent_from_best_fixed(case: Case, argument: str) -> Policy:
    return AgentPolicy.load(argument or DEFAULT_AGENT, case.reference)


def _check_agent(argument: str, worlds: Iterable[World]) -> None:
    AgentPolicy.load(argument or DEFAULT_AGENT)


def _lower_bound(case: Case, argument: str, seed: int) -> Episode:
    """The bound, in the form of an episode that succeeds for nothing."""
    seconds, _ = case.bound()
    if seconds is None:
        raise UsageError("policy 'lower-bound': none is known for the jobs of this scenario; leave it out")
    return Episode(StopReason.TARGET_REACHED, seconds, Decimal(0), case.budget_usd, ())


def _grid_search(case: Case, argument: str, seed: int) -> Episode:
    return play_grid_search(case, seed)


KINDS: Mapping[str, Kind] = {
    BEST_FIXED: Kind(_best_fixed, baseline=True),
    "grid-search": Kind(play=_grid_search, baseline=True),
    "fixed": Kind(_fixed, check=_check_fixed, baseline=True),
    "greedy": Kind(_greedy),
    "two-phase": Kind(_two_phase, baseline=True),
    "planner": Kind(_planner, platforms=(SIMULATOR,)),
    "planner-fitted": Kind(_planner_fitted),
    "agent": Kind(_agent, check=_check_agent, refers=True),
    f"agent@{BEST_FIXED}": Kind(_agent_from_best_fixed, check=_check_agent),
    "agents": Kind(_agent, check=_check_agent, refers=True),
    f"agents@{BEST_FIXED}": Kind(_agent_from_best_fixed, check=_check_agent),
    "lower-bound": Kind(play=_lower_bound, baseline=True, platforms=(SIMULATOR,)),
}
"""By name. Policies of higher layers (a rehearsal) join in `siren.evaluate.KINDS`."""
