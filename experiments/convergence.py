"""Which convergence model predicts real SGD: `python experiments/convergence.py`, about 10 minutes.

Every workload runs on the twin with real SGD, under both batch rules and all update rules, at a ladder of
fixed n and two seeds; large workloads on a stated part of their samples an epoch. Every second n of the first
seed is fitted (`siren.simulator.fitting`). Held out are the n between, the second seed, the larger half of
the n (for fits to the smaller half), and, for the
laws' free numbers averaged over the other workloads under the same rules, the whole workload.

One-step error: root mean square of log(predicted / observed excess) after one epoch from the observed excess
before it. Whole-run error: mean |log(predicted / observed)| from the initial excess on. Epochs error: mean
|predicted - observed| / observed epochs to the loss at which `TARGET` of the initial gap is left; a run
that only one of them finishes is a mismatch. Excess is counted from a loss that lies `LEFT` of the gain
below the best of all runs, the same for every law. Losses above three times the initial excess have no
common law and are left out. Writes experiments/results/convergence/errors.csv and docs/convergence.md.
"""

from __future__ import annotations

import csv
import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from threadpoolctl import threadpool_limits

from siren.simulator import fitting
from siren.simulator.fitting import ExponentialLaw, Law, QuadraticLaw, Setting, SpotDnnLaw, Trace, fixed_trace
from siren.simulator.sampling import costing_of
from siren.simulator.twin_jobs import loss_curve, rewind
from siren.twin.twin import Twin, job_of
from siren.types import Action, BatchRule, ChannelKind, UpdateRule
from siren.workloads.registry import load_workload

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (0, 1)
TARGET, LEFT = 0.15, 0.05
MEMORY_MB = 1769
ADDING = (UpdateRule.ADDITIVE, UpdateRule.STALENESS)


@dataclass(frozen=True)
class Part:
    """What is run of a workload: samples an epoch (0 for all), counts of n, the most n, epochs, rules."""

    samples: int
    counts: int
    most: int
    epochs: int
    rules: tuple[UpdateRule, ...] = tuple(UpdateRule)


PARTS = {
    "softmax-digits": Part(0, 9, 120, 16),
    "logreg-higgs": Part(19_200, 9, 200, 12),
    "linear-ctr": Part(16_000, 9, 160, 12),
    "mlp-mnist": Part(6_000, 5, 30, 8),
    "lenet-mnist": Part(3_600, 3, 9, 4, (UpdateRule.ADDITIVE, UpdateRule.AVERAGE)),
}
LAWS: dict[str, Callable[[Setting], Law]] = {
    "quadratic": QuadraticLaw,
    "quadratic, free batch exponent": lambda setting: QuadraticLaw(setting, free_batch=True),
    "spotDNN": SpotDnnLaw,
    "exponential": lambda setting: ExponentialLaw(),
}


@dataclass(frozen=True)
class Config:
    """Fit the convergence models to twin runs, and report errors on what was held out."""

    workloads: tuple[str, ...] = tuple(PARTS)
    """Workloads."""

    cache: Path | None = None
    """File to keep the traces in between runs of this command."""

    out: Path = ROOT / "experiments" / "results" / "convergence"
    """Folder of the CSV."""

    page: Path = ROOT / "docs" / "convergence.md"
    """The page that is written."""


@dataclass(frozen=True)
class Case:
    """One workload under one pair of rules: what a fit needs, and its traces by seed."""

    workload: str
    batch_rule: BatchRule
    update_rule: UpdateRule
    setting: Setting
    traces: dict[int, list[Trace]]


@dataclass(frozen=True)
class Error:
    """Errors of one law on one held-out part of one case."""

    workload: str
    batch_rule: BatchRule
    update_rule: UpdateRule
    law: str
    held_out: str
    runs: int
    spread: float
    one_step: float
    whole_run: float
    epochs: float
    mismatches: int


# --- traces ----------------------------------------------------------------------------------------


def run_case(workload: str, batch_rule: BatchRule, update_rule: UpdateRule) -> Case:
    """All runs of a workload under a pair of rules."""
    part = PARTS[workload]
    overrides = {
        "samples_per_epoch": part.samples,
        "batch_rule": batch_rule,
        "update_rule": update_rule,
        "channel": ChannelKind.REDIS if update_rule in ADDING else ChannelKind.S3,
    }
    loaded = load_workload(workload, overrides=overrides)
    twin = Twin(loaded, costing_of("aws-2026", job_of(loaded)), 0)
    most = min(part.most, twin.job.functions_max)
    counts = np.unique(np.round(np.geomspace(1, most, part.counts))).astype(int).tolist()
    traces: dict[int, list[Trace]] = {}
    for seed, n in itertools.product(SEEDS, counts):
        rewind(twin, seed)
        losses = loss_curve(twin, Action(n, MEMORY_MB), part.epochs)
        traces.setdefault(seed, []).append(fixed_trace(n, losses))
    setting = Setting.of(twin.world, twin.job, loaded.spec.training, counts, MEMORY_MB)
    return Case(workload, batch_rule, update_rule, setting, traces)


def cases_of(config: Config, console: Console) -> list[Case]:
    """Every case, from the cache if there is one."""
    if config.cache and config.cache.exists():
        return list(pickle.loads(config.cache.read_bytes()))  # our own file
    wanted = [
        (name, batch_rule, rule)
        for name in config.workloads
        for batch_rule in BatchRule
        for rule in PARTS[name].rules
    ]
    shown = track(wanted, "running", console=console, transient=True, disable=not console.is_terminal)
    cases = [run_case(*names) for names in shown]
    if config.cache:
        config.cache.write_bytes(pickle.dumps(cases))
    return cases


# --- errors ----------------------------------------------------------------------------------------


def epochs_to(excess: np.ndarray, target: float) -> float:
    """The first epoch at the target; infinite if there is none."""
    hits = np.flatnonzero(excess <= target)
    return float(hits[0]) if len(hits) else np.inf


def best_of(case: Case) -> tuple[float, float]:
    """(the lowest loss of all runs of a case, the excess that it is taken to have left)."""
    runs = [run for runs in case.traces.values() for run in runs]
    best = min(float(np.nanmin(run.losses)) for run in runs)
    return best, LEFT * (float(runs[0].losses[0]) - best)


def error_of(case: Case, law: str, x: np.ndarray, fitted: Sequence[Trace], held_out: str) -> Error | None:
    """The errors of fitted numbers on held-out runs; None where no run has an epoch with a law."""
    model, lowest = LAWS[law](case.setting), fitting.lowest_loss(x, fitted)
    first, second = (case.traces[seed] for seed in SEEDS)
    half = len(first) // 2 + 1
    runs = {"functions": first[1::2], "seed": second[::2], "more": first[half:], "workload": first}[held_out]
    best, left = best_of(case)
    one_step, changes, whole, late, mismatches = [], [], [], [], 0
    for run in runs:
        observed = fitting.excess_of(run, lowest)
        if len(observed) < 2:
            continue
        levels = case.setting.levels(run)[: len(observed) - 1]
        told = fitting.predict(model, x, observed, levels)
        steps = np.clip(model.steps(x, observed, levels), fitting.LEAST, fitting.RISE * observed[0])
        # Every law has a lowest loss of its own; errors are counted from one lowest loss for all.
        seen, told, steps = (np.maximum(e + lowest - best, 0) + left for e in (observed, told, steps))
        one_step.append(np.log(steps / seen[1:]))
        changes.append(np.diff(np.log(seen)))
        whole.append(np.abs(np.log(told / seen))[1:])
        real, said = (epochs_to(e - left, TARGET * (seen[0] - left)) for e in (seen, told))
        if np.isfinite(real) and np.isfinite(said):
            late.append(abs(said - real) / max(real, 1))
        mismatches += np.isfinite(real) != np.isfinite(said)
    if not one_step:
        return None
    return Error(
        case.workload, case.batch_rule, case.update_rule, law, held_out, len(one_step),
        spread=float(np.concatenate(changes).std()),
        one_step=float(np.sqrt(np.mean(np.concatenate(one_step) ** 2))),
        whole_run=float(np.mean(np.concatenate(whole))),
        epochs=float(np.mean(late)) if late else float("nan"),
        mismatches=int(mismatches),
    )  # fmt: skip


def errors_of(cases: Sequence[Case], console: Console) -> Iterator[Error]:
    """Errors of every law on every case and held-out part."""
    names = [(law, case) for law in LAWS for case in cases]
    shown = track(names, "fitting", console=console, transient=True, disable=not console.is_terminal)
    found: dict[tuple[str, int], np.ndarray] = {}
    for law, case in shown:
        fitted = case.traces[SEEDS[0]][::2]
        x = found[law, id(case)] = fitting.fit(LAWS[law](case.setting), case.setting, fitted)
        yield from filter(None, (error_of(case, law, x, fitted, part) for part in ("functions", "seed")))
        few = case.traces[SEEDS[0]][: len(case.traces[SEEDS[0]]) // 2 + 1]
        x = fitting.fit(LAWS[law](case.setting), case.setting, few)
        yield from filter(None, [error_of(case, law, x, few, "more")])
    for law, case in names:
        others = [
            found[law, id(c)]
            for c in cases
            if c.workload != case.workload
            and (c.batch_rule, c.update_rule) == (case.batch_rule, case.update_rule)
        ]
        if others:
            error = error_of(case, law, np.mean(others, axis=0), case.traces[SEEDS[0]], "workload")
            yield from filter(None, [error])


# --- the page --------------------------------------------------------------------------------------

HEAD = ("law", "held out", "cases", "sd of a step", "one-step", "whole run", "epochs to target", "mismatches")
PART_HEAD = ("workload", "samples an epoch", "counts of n", "most n", "epochs", "update rules")
PAGE = """# Which convergence model predicts real SGD

Written by `python experiments/convergence.py` at commit {commit}; world aws-2026, {memory:,} MB,
seeds {seeds}.

{setup}

Laws: the noisy quadratic model with delay (`siren/simulator/quadratic.py`, 5 numbers), the same with a free
exponent of the learning rate in the batch (6), spotDNN's law of asynchronous SGD (3), and an exponential that
does not know n (2). Each is fitted with `siren.simulator.fitting` to every second n of seed {seed}, the
lowest loss included. "functions": the n between. "seed": the other seed. "more": fitted to the smaller
half of the n, held out are the larger. "workload": numbers averaged over
the other workloads under the same rules. One-step: root mean square of the error of the log excess after an
epoch (beside it the standard deviation of what it predicts). Whole run: mean absolute error of the log
excess. Epochs: relative error of the epochs to {target:.0%} of the initial gap. Excess is counted from one
lowest loss for all laws, {left:.0%} of the gain below the best loss of all runs. Medians over cases;
mismatches are sums.

{overall}
**Best on held-out n and seeds by whole-run error: {winner}.** It is the simulator.

By batch rule, held-out n:

{batches}
By batch rule, more functions than were fitted:

{more}
By update rule, held-out n:

{rules}"""


def rows_of(errors: Sequence[Error], key: Callable[[Error], tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Medians over cases by group."""
    rows = []
    for name, group in itertools.groupby(sorted(errors, key=key), key=key):
        members = list(group)
        columns = [[getattr(e, c) for e in members] for c in ("spread", "one_step", "whole_run")]
        late = [e.epochs for e in members if np.isfinite(e.epochs)]
        medians = [f"{np.median(c):.2f}" for c in columns] + [f"{np.median(late):.0%}" if late else "-"]
        rows.append((*name, str(len(members)), *medians, str(sum(e.mismatches for e in members))))
    return rows


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def page(errors: Sequence[Error], workloads: Sequence[str]) -> str:
    """The whole page."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    known = [e for e in errors if e.held_out in ("functions", "seed")]
    scores = {law: np.median([e.whole_run for e in known if e.law == law]) for law in LAWS}
    between, beyond = ([e for e in errors if e.held_out == part] for part in ("functions", "more"))
    parts = [
        (w, f"{PARTS[w].samples:,}" if PARTS[w].samples else "all", str(PARTS[w].counts), str(PARTS[w].most),
         str(PARTS[w].epochs), "all" if len(PARTS[w].rules) == len(UpdateRule) else ", ".join(PARTS[w].rules))
        for w in workloads
    ]  # fmt: skip
    return PAGE.format(
        commit=commit or "unknown", memory=MEMORY_MB, seeds=" and ".join(map(str, SEEDS)), seed=SEEDS[0],
        setup=markdown(PART_HEAD, parts),
        target=TARGET, left=LEFT, winner=min(scores, key=lambda law: scores[law]),
        overall=markdown(HEAD, rows_of(errors, lambda e: (e.law, e.held_out))),
        batches=markdown(("law", "batch rule", *HEAD[2:]), rows_of(between, lambda e: (e.law, e.batch_rule))),
        more=markdown(("law", "batch rule", *HEAD[2:]), rows_of(beyond, lambda e: (e.law, e.batch_rule))),
        rules=markdown(("law", "update rule", *HEAD[2:]), rows_of(between, lambda e: (e.law, e.update_rule))),
    )  # fmt: skip


def main(config: Config) -> int:
    """Runs, fits, writes the CSV and the page, prints the first table."""
    console = Console(stderr=True)
    with threadpool_limits(1):
        errors = list(errors_of(cases_of(config, console), console))
    config.out.mkdir(parents=True, exist_ok=True)
    config.page.parent.mkdir(parents=True, exist_ok=True)
    with (config.out / "errors.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(list(vars(errors[0])))
        for error in errors:
            writer.writerow([f"{v:.4g}" if isinstance(v, float) else v for v in vars(error).values()])
    config.page.write_text(page(errors, config.workloads), encoding="utf-8")
    sys.stdout.write(markdown(HEAD, rows_of(errors, lambda e: (e.law, e.held_out))))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
