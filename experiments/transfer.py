"""How well a rehearsal on a sub-sample transfers to the whole job.

    python experiments/transfer.py --workloads mlp-mnist,lenet-mnist --seconds 5,20,80 --seeds 6

Each job is rehearsed for so many seconds of one core, as `rehearsed:SECONDS` of siren.evaluate does, and
what was chosen then plays the whole job on the seeds that report. The table says what the rehearsal
expected of its choice, what it took, and how that compares with the best fixed action in hindsight.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from siren.evaluation import seeds
from siren.evaluation.cache import ChoiceCache
from siren.evaluation.case import Case, CaseKey
from siren.evaluation.jobs import TWIN, JobKey
from siren.policies import Safeguard, Safety
from siren.rehearsal.entrant import rehearsed_case
from siren.rehearsal.rehearse import Rehearsal

HEADER = (
    "| workload | seconds | sub-sample | choice | epochs expected / taken | time expected / taken | "
    "dollars expected / taken | success | time over the best fixed |"
)


def main() -> int:
    """Prints a line of the table for every workload and time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", default="mlp-mnist,lenet-mnist")
    parser.add_argument("--seconds", default="5,20,80")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--budget", type=float, default=1.5, help="times the cheapest")
    parser.add_argument("--world", default="aws-2026")
    asked = parser.parse_args()
    print(HEADER + "\n|" + "---|" * 9)
    for name in asked.workloads.split(","):
        key = JobKey(TWIN, name, asked.world, None, None, 0, generated=False)
        case = Case(CaseKey(key, asked.budget), ChoiceCache())
        for seconds in asked.seconds.split(","):
            print(
                line(name, float(seconds), case, rehearsed_case(case, float(seconds)), asked.seeds),
                flush=True,
            )
    return 0


def line(name: str, seconds: float, case: Case, found: Rehearsal, count: int) -> str:
    """One line of the table."""
    policy = Safeguard(found.choice.policy(), Safety())
    best = case.baseline
    played = [case.episode(policy, seed) for seed in seeds.report_seeds(count)]
    counted = [e.duration_s if e.success else best.failure_s for e in played]
    chosen = next(s for s in found.standings if s.candidate == found.choice)
    won = [e for e in played if e.success]
    epochs = dict(found.ladder).get(found.reference.functions, 0)
    taken_s = np.mean([e.duration_s for e in won]) if won else np.nan
    return (
        f"| `{name}` | {seconds:g} | {found.share:.1%} | {found.choice.name} of {found.reference.action} "
        f"| {epochs} / {np.mean([len(e.records) for e in played]):.1f} "
        f"| {chosen.score_s:.1f} / {taken_s:.1f} s | ${chosen.cost_usd:.4f} / "
        f"${np.mean([float(e.cost_usd) for e in played]):.4f} | {len(won)} of {count} "
        f"| {np.mean(counted) / best.time_s:.2f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
