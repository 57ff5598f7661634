"""Benchmarks of the simulator: `python experiments/bench/simulator.py`.

Environment-epochs a second on one core, without a learner: through the SB3 `VecEnv` interface, and
one by one through Gymnasium, in turns within the same run; and real epochs a second of the twin's
small jobs. Prints one line per measurement, and with `--json` an object instead.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro
from threadpoolctl import threadpool_limits

from siren.simulator.env import HspEnv
from siren.simulator.sampling import sample_jobs
from siren.simulator.scenarios import load_scenario, load_sgd_scenario
from siren.simulator.twin_env import HspTwinEnv
from siren.simulator.twin_jobs import family_job, loss_curve, rewind
from siren.simulator.vector import HspVecEnv
from siren.types import Action

SCENARIOS = {"fitted law": "fitted-2026", "noisy quadratic": "family-2026"}
TARGETS = {"fitted law": 300_000, "noisy quadratic": 150_000, "twin, bare": 500}
TWIN_JOBS = 6


@dataclass(frozen=True)
class BenchConfig:
    """Measure how many epochs a second the environments step, on one core."""

    repeats: int = 7
    """Rounds; medians are printed."""

    environments: int = 512
    """Environments of the vectorised one."""

    jobs: int = 256
    """Jobs of its pool."""

    seed: int = 0
    """Seed of jobs, actions and noise."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object."""


def rate(epochs: int, call: Callable[[], object]) -> float:
    """Epochs per CPU second of a call that runs so many."""
    start = time.process_time()
    call()
    return epochs / (time.process_time() - start)


def step_vector(env: HspVecEnv, actions: np.ndarray) -> None:
    for batch in actions:
        env.step(batch)


def step_single(env: HspEnv, actions: np.ndarray) -> None:
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()


def measure_simulator(config: BenchConfig) -> dict[str, float]:
    """Epochs a second of both dynamics, vectorised and one by one, and their ratio."""
    rng, found = np.random.default_rng(config.seed), {}
    for name, scenario in SCENARIOS.items():
        jobs = sample_jobs(load_scenario(scenario), config.jobs, config.seed)
        vector, single = HspVecEnv(jobs, config.environments, config.seed), HspEnv(jobs=jobs[:1])
        vector.reset()
        single.reset(seed=config.seed)
        many = rng.normal(0, 0.3, (100, config.environments, 2)).astype(np.float32)
        few = rng.normal(0, 0.3, (500, 2)).astype(np.float32)
        step_vector(vector, many[:1])
        step_single(single, few[:1])
        rates = [
            (
                rate(many[..., 0].size, lambda env=vector, a=many: step_vector(env, a)),
                rate(len(few), lambda env=single, a=few: step_single(env, a)),
            )
            for _ in range(config.repeats)
        ]
        found[name] = statistics.median(fast for fast, _ in rates)
        found[f"{name}, one by one"] = statistics.median(slow for _, slow in rates)
        found[f"{name}, ratio"] = statistics.median(fast / slow for fast, slow in rates)
    return found


def measure_twin(config: BenchConfig) -> dict[str, float]:
    """Real epochs a second of generated small jobs: of the twin, and of its Gymnasium environment."""
    rng, scenario = np.random.default_rng(config.seed), load_sgd_scenario("small-2026")
    jobs = [family_job(scenario, rng, "aws-2026") for _ in range(TWIN_JOBS)]
    env = HspTwinEnv(jobs=jobs)
    zero = np.zeros(2, np.float32)

    def bare() -> None:
        for job in jobs:
            rewind(job.twin, 0)
            loss_curve(job.twin, Action(job.spec.functions_ref, job.spec.memory_ref_mb), 30)

    def episodes() -> int:
        steps = 0
        for k in range(len(jobs)):
            env.reset(seed=config.seed, options={"job": k})
            ended = False
            while not ended:
                _, _, terminated, truncated, _ = env.step(zero)
                ended, steps = terminated or truncated, steps + 1
        return steps

    steps = episodes()
    return {
        "twin, bare": statistics.median(rate(30 * len(jobs), bare) for _ in range(config.repeats)),
        "twin, environment": statistics.median(rate(steps, episodes) for _ in range(config.repeats)),
    }


def main(config: BenchConfig) -> int:
    """Prints the measurements."""
    with threadpool_limits(1):
        found = {**measure_simulator(config), **measure_twin(config)}
    if config.as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    for name, value in found.items():
        unit = "x" if name.endswith("ratio") else "epochs/s"
        target = f"  (target {TARGETS[name]:,})" if name in TARGETS else ""
        sys.stdout.write(f"{name:30s} {value:12,.0f} {unit}{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(BenchConfig)))
