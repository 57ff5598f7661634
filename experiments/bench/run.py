"""Benchmarks of the twin: `python experiments/bench/run.py`.

Prints one line per measurement, and with `--json` an object instead. Where two things are
compared they are timed in turns within the same run, because the machines are shared and noisy.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

import numpy as np
import tyro
from threadpoolctl import threadpool_limits

from siren.twin.twin import Twin, job_of
from siren.types import Action
from siren.workloads.registry import load_workload
from siren.worlds import load_world
from siren.worlds.costing import EpochPlan, make_costing

UNLIMITED = Decimal(10**6)


@dataclass(frozen=True)
class BenchConfig:
    """Measure how fast the twin is, on one core."""

    repeats: int = 15
    """Epochs of each measurement; medians are printed."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object."""


def twin_of(workload: str, world: str = "siren-2019", **overrides: object) -> Twin:
    """A twin of a shipped workload, in a world of up to 3,000 functions."""
    loaded = load_workload(workload, overrides=overrides)
    return Twin(loaded, make_costing(load_world(world), job_of(loaded)), seed=0)


def plan(functions: int, memory_mb: int = 1792) -> EpochPlan:
    """An epoch that nothing cuts short."""
    return EpochPlan(Action(functions, memory_mb), 900, 899.0, UNLIMITED)


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of one call: the core is shared, its clock is not."""
    start = time.process_time()
    call()
    return time.process_time() - start


def updates_per_second(repeats: int) -> dict[str, float]:
    """Real mini-batch updates a second, everything of an epoch included."""
    found = {}
    for name, functions in (("logreg-higgs", 500), ("linear-ctr", 500), ("softmax-digits", 50)):
        twin = twin_of(name)
        twin.run_epoch(plan(functions))  # compiles
        times = [seconds(lambda t=twin, n=functions: t.run_epoch(plan(n))) for _ in range(repeats)]
        pushes = int(twin.job.pushes(functions))
        found[f"updates a second, {name}, n={functions}"] = pushes / statistics.median(times)
    return found


def against_plain_loop(repeats: int, functions: int = 10) -> dict[str, float]:
    """Time of a twin epoch of `mlp-mnist` over that of a plain loop with the same gradient work."""
    twin = twin_of("mlp-mnist")
    workload, job = twin.workload, twin.job
    rate = np.float32(workload.spec.training.learning_rate)

    def plain() -> None:
        params = workload.init(0)
        order = np.random.default_rng(0).permutation(job.samples)
        for start in range(0, job.samples, job.batch_size):
            params -= rate * workload.loss_and_grad(params, order[start : start + job.batch_size])[1]
        workload.evaluate(params)

    twin.run_epoch(plan(functions))
    plain()
    pairs = [(seconds(lambda: twin.run_epoch(plan(functions))), seconds(plain)) for _ in range(repeats)]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    return {
        f"twin / plain loop, mlp-mnist, n={functions}": ratio,
        "plain loop, updates a second": job.samples / job.batch_size / statistics.median(p for _, p in pairs),
    }


def versions_kept(repeats: int) -> dict[str, float]:
    """Parameter vectors that the twin keeps at once, by number of functions."""
    del repeats
    from siren.hsp import quotas
    from siren.twin import replay
    from siren.worlds import events

    found = {}
    none = events.Latency(0.0005, 0.2, 0.0, 0.0, 2.0, 0.0)
    for functions, each in ((10, 30), (100, 30), (1000, 30), (3000, 30), (3000, 1)):
        pushes = functions * each
        first_push = np.arange(functions + 1) * pushes // functions
        starts = events.Starts(
            np.arange(functions) / 600,
            *(np.full(functions, 1e3),) * 2,
            np.ones(functions),
            np.full(functions, -1),
        )
        times = events.Times(none, none, 0.003, 0.0005, 0.0, 0.0005, 0.0, 0.03, 0, True)
        split = quotas.Quotas(first_push, np.arange(pushes + 1))
        trace = events.run_asynchronous(
            times, events.ASYNCHRONOUS, starts, split.first_push, split.first_sample, np.random.default_rng(0)
        )
        program = replay.plan(trace.push, trace.read_version, np.ones(len(trace.push)), False)
        found[f"versions of the model kept, n={functions}, {each} pushes each"] = float(program.slots)
    return found


def main(config: BenchConfig) -> int:
    """Runs every benchmark; returns the exit code."""
    found: dict[str, float] = {}
    with threadpool_limits(1):
        for benchmark in (updates_per_second, against_plain_loop, versions_kept):
            found.update(benchmark(config.repeats))
    if config.as_json:
        json.dump(found, sys.stdout, indent=2)
        return 0
    for name, value in found.items():
        print(f"{name:55s} {value:12,.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(BenchConfig)))
