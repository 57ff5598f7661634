"""Fine-tunes the shipped agent on recorded runs of a family that it is bad at, and measures it on others.

    python experiments/from_runs.py FOLDER --runs 16 --seed 1

FOLDER gets the runs and the agent; jobs of seed 2077, which nothing was chosen on, say what was gained.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from siren._roots import root_folder
from siren.learning.episodes import acting, compare, play, play_reference
from siren.policies.network import load_network
from siren.simulator.sampling import sample_jobs
from siren.simulator.scenarios import Scenario, load_scenario
from siren.simulator.tables import pool_of
from siren.testing.recorded import record
from siren.train_agent import TrainConfig
from siren.train_agent import main as train_agent

START = root_folder("agents") / "default-2026"
FRESH_SEED, FRESH_JOBS, REPEATS = 2077, 100, 4


def slow_starts(pushes=(100, 3000)) -> Scenario:
    """Short epochs and slow cold starts: changes cost much, and the shipped agent makes them."""
    table = load_scenario("family-2026").model_dump()
    table["work"].update(
        import_s={"low": 6, "high": 9},
        compute_s={"low": 1, "high": 5},
        pushes={"low": pushes[0], "high": pushes[1]},
    )
    rules = {"batch_rules": {"constant": 1}, "update_rules": {"additive": 1}}
    return Scenario.model_validate({**table, **rules})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1, help="of the recorded jobs and of the training")
    options = parser.parse_args()
    jobs = sample_jobs(slow_starts(), options.runs, options.seed)
    runs = [
        record(options.folder / "runs" / f"slow-{k:02}", job, job.spec.functions_ref)
        for k, job in enumerate(jobs)
    ]
    agent = options.folder / "agent"
    code = train_agent(TrainConfig(from_runs=tuple(runs), seed=options.seed, out=agent))
    if code:
        return code
    pool = pool_of(sample_jobs(slow_starts(), FRESH_JOBS, FRESH_SEED))
    reference = play_reference(pool, REPEATS, seed=1)
    played = {path: play(pool, acting(load_network(path)[0]), REPEATS, seed=1) for path in (START, agent)}
    for path, episodes in played.items():
        c = compare(episodes, reference)
        print(
            f"{path.name}: {c.speedup:.3f} [{c.low:.3f}, {c.high:.3f}] times as fast as the reference on "
            f"{c.jobs} fresh jobs, success {c.success:.3f} against {c.reference_success:.3f}"
        )
    c = compare(played[agent], played[START])
    print(f"after over before: {c.speedup:.3f} [{c.low:.3f}, {c.high:.3f}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
