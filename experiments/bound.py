"""How loose the lower bound is, and how simple schedules compare with it: `python experiments/bound.py`.

On generated jobs of a scenario: the bound, the best fixed action and the best two-phase schedule of a
search (both chosen on seeds 0, 1, ... of their own and played again on others), and on those same others
the planner with the true model and the shipped agent, told the best fixed action. A failure counts as the
bound says it must (its own time and `failure_s`) where a policy is held against the bound, and as twice
the best fixed action's mean time where policies are held against each other. Writes
experiments/results/bound/jobs.csv and prints a table.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from siren.policies.agent import DEFAULT_AGENT, agent_folder
from siren.policies.network import load_network
from siren.simulator import core, observation
from siren.simulator.bound import Bound, lower_bound
from siren.simulator.core import Col, End
from siren.simulator.job import SimulatedJob
from siren.simulator.planner import Place, Planner
from siren.simulator.sampling import sample_jobs
from siren.simulator.scenarios import load_scenario
from siren.simulator.search import FAILURE, Arena, Choice, Outcomes, best_fixed, best_two_phase

FOLDER = Path(__file__).parent / "results" / "bound"
POLICIES = ("fixed", "two_phase", "planner", "agent")


@dataclass(frozen=True)
class BoundConfig:
    """Measure the looseness of the lower bound."""

    scenario: str = "family-2026"
    """Scenario with quadratic dynamics."""

    jobs: int = 100
    """How many generated jobs."""

    seed: int = 31
    """Seed of the jobs."""

    choosing: int = 24
    """Seeds that schedules are chosen on: 0, 1, ..."""

    reporting: int = 16
    """Seeds that they are reported on: 1000, 1001, ...; other than those for choosing"""


def play_planner(job: SimulatedJob, arena: Arena, seeds: range) -> Outcomes:
    """Episodes of the planner, which sees the true modes."""
    planner, state = Planner.of(job), core.new_state(1)
    v, found = state.values[0], []
    for seed in seeds:
        rng, last = np.random.default_rng(seed), None
        core.begin(arena.pool, state, 0, 0)
        while v[Col.END] == 0:
            energy = state.amplitude[0] ** 2 / 2
            level, size, *_ = planner.decide(energy, v[Col.LEFT], elapsed_s=v[Col.ELAPSED_S], last=last)
            ran = bool(core.take(arena.pool, state, 0, level, size))
            if ran:
                core.simulate(arena.pool, state, 0, rng)
                last = Place(int(v[Col.LEVEL]), int(v[Col.SIZE]))
            core.settle(arena.pool, state, 0, ran, False)
        found.append(_ended(v, job))
    return _outcomes(found, arena.failure_s)


def play_agent(job: SimulatedJob, fixed: Choice, seeds: range) -> Outcomes:
    """Episodes of the shipped agent, which acts relative to the best fixed action."""
    network = load_network(agent_folder(DEFAULT_AGENT))[0]
    first, outcomes = fixed.actions[0], fixed.outcomes
    reached_s = outcomes.time_s if outcomes.success.any() else job.spec.reference_s
    spec = dataclasses.replace(
        job.spec,
        functions_ref=first.functions,
        memory_ref_mb=first.memory_mb,
        reference_s=reached_s,
        reference_usd=float(outcomes.cost_usd.mean()),
    )
    pool, state = Arena(dataclasses.replace(job, spec=spec)).pool, core.new_state(1)
    v, found = state.values[0], []
    seen = np.empty(observation.OBSERVATION_SIZE, np.float32)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        network.reset()
        core.begin(pool, state, 0, 0)
        while v[Col.END] == 0:
            observation.observe(pool, state, 0, seen)
            ran = bool(core.choose(pool, state, 0, network.act(seen), False))
            if ran:
                core.simulate(pool, state, 0, rng)
            core.settle(pool, state, 0, ran, False)
        found.append(_ended(v, job))
    return _outcomes(found, outcomes.failure_s)


def _ended(v: NDArray[np.float64], job: SimulatedJob) -> tuple[bool, float, float, float]:
    return v[Col.END] == End.TARGET, v[Col.ELAPSED_S], job.spec.budget_usd - v[Col.LEFT], v[Col.EPOCH]


def _outcomes(found: Sequence[tuple[bool, float, float, float]], failure_s: float) -> Outcomes:
    success, elapsed_s, cost_usd, epochs = (np.array(x) for x in zip(*found, strict=True))
    return Outcomes(success, elapsed_s, cost_usd, epochs.astype(np.int64), failure_s)


def charged_s(outcomes: Outcomes, bound: Bound) -> float:
    """The mean that the bound bounds."""
    return float((outcomes.elapsed_s + np.where(outcomes.success, 0.0, bound.failure_s)).mean())


def counted_s(outcomes: Outcomes, failure_s: float) -> float:
    """Mean time, a failure counted as `failure_s`."""
    return float(np.where(outcomes.success, outcomes.elapsed_s, failure_s).mean())


def measure(index: int, job: SimulatedJob, config: BoundConfig) -> dict[str, object]:
    """One row of the table."""
    start = time.perf_counter()
    bound = lower_bound(job)
    bound_took_s = time.perf_counter() - start
    start = time.perf_counter()
    fixed = best_fixed(job, range(config.choosing))
    fixed_took_s = time.perf_counter() - start
    two = best_two_phase(job, range(config.choosing))
    arena, seeds = Arena(job), range(1000, 1000 + config.reporting)
    outcomes = dict(zip(POLICIES, arena.play([fixed.schedule, two.schedule], seeds), strict=False))
    outcomes["planner"] = play_planner(job, arena, seeds)
    outcomes["agent"] = play_agent(job, fixed, seeds)
    reached_s = outcomes["fixed"].time_s
    failure_s = FAILURE * (reached_s if np.isfinite(reached_s) else job.spec.reference_s)
    row: dict[str, object] = {
        "job": index,
        "batch_rule": str(job.spec.job.batch_rule),
        "update_rule": str(job.spec.job.update_rule),
        "world": job.spec.world.name,
        "bound_s": bound.seconds,
        "bound_failure_s": bound.failure_s,
        "dollar_s": bound.dollar_s,
        "bound_took_s": bound_took_s,
        "fixed_took_s": fixed_took_s,
        "fixed_functions": fixed.actions[0].functions,
        "fixed_memory_mb": fixed.actions[0].memory_mb,
    }
    base_s = counted_s(outcomes["fixed"], failure_s)
    for name in POLICIES:
        found = outcomes[name]
        row |= {
            f"{name}_success": found.success_rate,
            f"{name}_s": counted_s(found, failure_s),
            f"{name}_usd": float(found.cost_usd.mean()),
            f"{name}_to_fixed": counted_s(found, failure_s) / base_s,
            f"{name}_to_bound": charged_s(found, bound) / bound.seconds,
        }
    row["best_to_bound"] = min(float(str(row[f"{name}_to_bound"])) for name in POLICIES)
    return row


def summary(rows: list[dict[str, object]]) -> str:
    """The table of all jobs, and of the two batch rules apart."""
    head = ("jobs of", "policy", "n", "success", "time/fixed median", "geo. mean", "time/bound median", "p90")
    lines = ["  ".join(f"{name:>17s}" for name in head)]
    for rule in ("all", "split", "constant"):
        kept = [row for row in rows if rule in ("all", row["batch_rule"])]
        for name in (*POLICIES, "best") if kept else ():
            bound = np.array([row[f"{name}_to_bound"] for row in kept], float)
            cells = [rule, name, str(len(kept))]
            if name == "best":
                cells += ["", "", ""]
            else:
                ratio = np.array([row[f"{name}_to_fixed"] for row in kept], float)
                success = np.mean([float(str(row[f"{name}_success"])) for row in kept])
                cells += [f"{success:.3f}", f"{np.median(ratio):.3f}", f"{np.exp(np.log(ratio).mean()):.3f}"]
            cells += [f"{np.median(bound):.2f}", f"{np.quantile(bound, 0.9):.2f}"]
            lines.append("  ".join(f"{cell:>17s}" for cell in cells))
    return "\n".join(lines) + "\n"


def main(config: BoundConfig) -> int:
    """Measures, writes and prints."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    jobs = sample_jobs(load_scenario(config.scenario), config.jobs, config.seed)
    console, rows = Console(stderr=True), []
    with (FOLDER / "jobs.csv").open("w", newline="", encoding="utf-8") as file:
        for index, job in enumerate(track(jobs, "jobs", console=console)):
            row = measure(index, job, config)
            if not rows:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
            file.flush()
            rows.append(row)
    sys.stdout.write(summary(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(BoundConfig)))
