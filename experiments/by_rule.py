"""The batch rules of an evaluation apart: `python experiments/by_rule.py FOLDER`.

FOLDER is the `--out` of a `siren.evaluate --platform twin` of a generated family, whose jobs have either
rule. Prints speed-ups over the best fixed action: ratios of mean times on the same seeds, a failure counted
twice, geometric means over jobs with 95% bootstrap intervals over jobs.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from siren.evaluation.entrants import BEST_FIXED
from siren.evaluation.jobs import JobKey, build
from siren.simulator.search import FAILURE

RESAMPLES = 4000


def read(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def interval(logs: NDArray[np.float64]) -> str:
    """Geometric mean and interval of ratios, given their logarithms, (jobs,)."""
    drawn = np.random.default_rng(0).integers(len(logs), size=(RESAMPLES, len(logs)))
    low, high = np.exp(np.quantile(logs[drawn].mean(axis=1), [0.025, 0.975]))
    return f"{np.exp(logs.mean()):.2f} [{low:.2f}, {high:.2f}]"


def table(folder: Path) -> str:
    """The table, as Markdown."""
    cases = {case["case"]: case for case in read(folder / "cases.jsonl")}
    episodes: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for episode in read(folder / "episodes.jsonl"):
        episodes[episode["policy"]][episode["case"]].append(episode)
    rules = {k: str(build(JobKey(**case["key"]["job"])).training.batch_rule) for k, case in cases.items()}
    names = sorted(set(rules.values()))

    def mean_s(policy: str, case: int) -> float:
        failure_s = FAILURE * cases[case]["baseline"]["time_s"]
        return float(np.mean([e["time_s"] if e["success"] else failure_s for e in episodes[policy][case]]))

    counts = [f"`{name}`, {sum(rule == name for rule in rules.values())} jobs" for name in names]
    lines = ["| policy | success | all | " + " | ".join(counts) + " |", "|---" * (3 + len(names)) + "|"]
    for policy, played in episodes.items():
        logs = {k: np.log(mean_s(BEST_FIXED, k) / mean_s(policy, k)) for k in cases}
        success = np.mean([e["success"] for found in played.values() for e in found])
        cells = [
            interval(np.array([logs[k] for k in cases if rule in ("all", rules[k])]))
            for rule in ("all", *names)
        ]
        lines.append(f"| {policy} | {success:.1%} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(folder: Annotated[Path, tyro.conf.Positional]) -> int:
    """Prints the table."""
    sys.stdout.write(table(folder))
    return 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
