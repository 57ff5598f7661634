"""Fits the convergence models to runs of the twin: `python experiments/fit_quadratic.py`.

Every workload runs with real SGD at a ladder of fixed n and two seeds. Every second n of the first seed
is for fitting; the other n and the other seed are held out. Both models are fitted by least squares
on log excess, from several starts, the lowest loss included. Reported per workload and rules: one-step error
(from the observed excess to the next), whole-run error (from the initial model on), and the error of
the epochs to the target. Writes experiments/results/fit_quadratic/errors.csv and prints it as a table.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from scipy.optimize import least_squares

from siren.simulator import fitted, quadratic
from siren.simulator.fitted import SpotDnn
from siren.simulator.job import ActionGrid
from siren.simulator.quadratic import Quadratic
from siren.simulator.sampling import costing_of
from siren.simulator.twin_jobs import loss_curve, rewind
from siren.twin.twin import Twin, job_of
from siren.types import Action, UpdateRule
from siren.workloads.registry import load_workload

FOLDER = Path(__file__).parent / "results" / "fit_quadratic"
STARTS = ((-4.0, 1.0, 1.0), (-2.0, 1.5, 0.5), (-6.0, 0.5, 1.5))
"""(log rate, spectrum, energy) that fits start from."""

PRIOR = 0.02
"""Weight of the first start in a fit: runs of few pushes leave some parameters open."""

RISE = 3.0
"""Excess is followed up to this multiple of the initial one: what lies beyond has no common law."""

LOW, HIGH = (-9.0, 0.0, -1.0, -9.0, -8.0), (1.5, 4.0, 5.0, 5.0, -0.001)
COLUMNS = (
    "workload", "batch_rule", "update_rule", "memory_mb", "model", "held_out", "runs",
    "sd", "one_step_rmse", "whole_run_error", "epochs_error", "mismatches", "seconds", "parameters",
)  # fmt: skip


@dataclass(frozen=True)
class FitConfig:
    """Fit the convergence models to twin runs, and report errors on what was held out."""

    workloads: tuple[str, ...] = ("softmax-digits", "logreg-higgs", "linear-ctr")
    """Workloads by name; `mlp-mnist` and `lenet-mnist` take minutes."""

    batch_rules: tuple[str, ...] = ("constant", "split")
    """Batch rules."""

    update_rules: tuple[str, ...] = ("additive", "staleness", "cas", "average", "sync", "overwrite")
    """Update rules."""

    world: str = "aws-2026"
    """World: its times decide how stale pushes are."""

    memory_mb: int = 1769
    """Memory of the functions."""

    counts: int = 9
    """Function counts, spread over all that the job can use up to `most`; odd, so that the most are fitted
    and held-out counts lie between: the quadratic does not extrapolate in n from runs of few pushes."""

    most: int = 256
    """Most functions."""

    epochs: int = 20
    """Epochs of a run."""


@dataclass(frozen=True)
class Run:
    """Losses of a fixed count, the initial one first."""

    level: int
    seed: int
    losses: np.ndarray


class Setting:
    """The runs of one workload under one pair of rules."""

    def __init__(self, config: FitConfig, workload: str, batch_rule: str, update_rule: str) -> None:
        channel = "redis" if update_rule in ("additive", "staleness") else "s3"
        rules = {"batch_rule": batch_rule, "update_rule": update_rule, "channel": channel}
        loaded = load_workload(workload, overrides=rules)
        self.training = loaded.spec.training
        self.twin = Twin(loaded, costing_of(config.world, job_of(loaded)), 0)
        job = self.twin.job
        most = min(config.most, job.functions_max, self.twin.world.limits.functions_max)
        n = np.unique(np.round(np.geomspace(1, most, config.counts))).astype(np.int64)
        self.functions = n
        self.pushes = np.asarray(job.pushes(n), np.int64)
        self.batch = job.samples / self.pushes
        grid = ActionGrid(self.twin.costing, n, np.array([config.memory_mb]))
        self.delay = grid.delay(float(config.memory_mb))
        self.runs = []
        for seed in (0, 1):
            for level, count in enumerate(n.tolist()):
                rewind(self.twin, seed)
                losses = loss_curve(self.twin, Action(count, config.memory_mb), config.epochs)
                self.runs.append(Run(level, seed, losses))
        self.initial = float(np.mean([run.losses[0] for run in self.runs]))
        self.best = min(float(np.nanmin(run.losses)) for run in self.runs)

    def excess(self, run: Run, lowest: float) -> np.ndarray:
        """The part of a run that has a law, over the lowest loss."""
        excess = np.where(np.isfinite(run.losses), run.losses, np.inf) - lowest
        wild = np.flatnonzero(excess > RISE * excess[0])
        return np.maximum(excess[: wild[0]] if len(wild) else excess, 1e-6)


class QuadraticModel:
    """The noisy quadratic model with delay; x = (log rate, spectrum, energy, log noise share, lowest)."""

    name = "quadratic"

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.starts = [np.array([*start, -2.0, -1.0]) for start in STARTS]
        self.bounds = (np.array(LOW), np.array(HIGH))

    def lowest(self, x: np.ndarray) -> float:
        s = self.setting
        return s.best - (s.initial - s.best) * float(np.exp(x[4])) * 0.2

    def build(self, x: np.ndarray) -> tuple[Quadratic, quadratic.Responses]:
        s = self.setting
        excess = s.initial - self.lowest(x)
        exponent = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[s.training.split_learning_rate]
        model = Quadratic(
            rate=float(np.exp(x[0])), spectrum=x[1], energy=x[2],
            noise=float(np.exp(x[3])) * excess * float(s.training.batch_size), excess=excess,
            reference_batch=float(s.training.batch_size), batch_exponent=exponent,
            staleness_scale=s.training.staleness_scale,
        )  # fmt: skip
        n = s.functions.astype(float)
        return model, quadratic.responses(
            model, UpdateRule(s.training.update_rule), n, s.pushes, s.batch, s.delay
        )

    def whole(self, x: np.ndarray, epochs: int) -> np.ndarray:
        return quadratic.mean_excess(*self.build(x), epochs)

    def steps(self, x: np.ndarray, run: Run, excess: np.ndarray) -> np.ndarray:
        """Predicted excess after each epoch, the modes rescaled to the observed excess before it."""
        model, maps = self.build(x)
        energy, found = model.amplitudes**2 / 2, np.empty(len(excess) - 1)
        for t in range(len(found)):
            energy = energy * excess[t] / energy.sum()
            energy = maps.gain[run.level] ** 2 * energy + maps.spread[run.level] ** 2 / 2
            found[t] = energy.sum()
        return found


class FittedModel:
    """The spotDNN law; x = (log g1, g2 / g3 x batch, log g3, -, lowest)."""

    name = "fitted"

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        pushes = np.log(float(np.median(setting.pushes)) * (setting.initial - setting.best))
        self.starts = [
            np.array([share, pushes + shift, -1.0]) for share in (0.0, 3.0) for shift in (-3.0, 0.0)
        ]
        self.bounds = (np.array([-0.9, -12.0, LOW[4]]), np.array([50.0, 16.0, HIGH[4]]))

    def lowest(self, x: np.ndarray) -> float:
        s = self.setting
        return s.best - (s.initial - s.best) * float(np.exp(x[2])) * 0.2

    def progress(self, x: np.ndarray) -> np.ndarray:
        s, scale = self.setting, float(np.exp(x[1]))
        law = SpotDnn(0.0, x[0] * scale / s.training.batch_size, scale, 1.0, self.lowest(x))
        return law.progress(s.functions.astype(float), s.batch, s.pushes.astype(float))

    def whole(self, x: np.ndarray, epochs: int) -> np.ndarray:
        return fitted.mean_excess(self.setting.initial - self.lowest(x), self.progress(x), epochs)

    def steps(self, x: np.ndarray, run: Run, excess: np.ndarray) -> np.ndarray:
        return 1 / (1 / excess[:-1] + self.progress(x)[run.level])


Model = QuadraticModel | FittedModel


def fit(model: Model, runs: list[Run]) -> np.ndarray:
    """Least squares on log excess of whole runs, every run with one weight."""
    setting = model.setting

    def residuals(x: np.ndarray) -> np.ndarray:
        parts = []
        for run, (observed, predicted) in zip(runs, aligned(model, x, runs), strict=True):
            if len(observed) > 1:
                parts.append((np.log(predicted) - np.log(observed))[1:] / np.sqrt(len(run.losses)))
        parts.append(PRIOR * (x - model.starts[0]))
        return padded(parts, len(x) + sum(len(run.losses) for run in runs))

    assert setting.runs
    found = [
        least_squares(residuals, x, bounds=model.bounds, loss="soft_l1", f_scale=0.2, max_nfev=40)
        for x in model.starts
    ]
    return np.asarray(min(found, key=lambda result: result.cost).x)


def padded(parts: list[np.ndarray], size: int) -> np.ndarray:
    """The parts in one vector of constant length: how much of a run has a law depends on the lowest loss."""
    out = np.zeros(size)
    values = np.concatenate([*parts, np.zeros(0)])
    out[: len(values)] = values
    return out


def aligned(model: Model, x: np.ndarray, runs: list[Run]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(observed, predicted) excess of whole runs, predictions held below `RISE`."""
    whole = model.whole(x, max(len(run.losses) for run in runs) - 1)
    pairs = []
    for run in runs:
        observed = model.setting.excess(run, model.lowest(x))
        predicted = np.clip(whole[run.level, : len(observed)], 1e-6, RISE * observed[0])
        pairs.append((observed, predicted))
    return pairs


def epochs_to(excess: np.ndarray, target: float) -> float:
    hits = np.flatnonzero(excess <= target)
    return float(hits[0]) if len(hits) else np.inf


def errors(model: Model, x: np.ndarray, runs: list[Run]) -> dict[str, float]:
    """The errors of a fitted model over runs."""
    one_step, changes, whole, late, mismatches = [], [], [], [], 0
    target = max(model.setting.training.target_loss, model.setting.best) - model.lowest(x)
    for run, (observed, predicted) in zip(runs, aligned(model, x, runs), strict=True):
        if len(observed) < 2:
            continue
        change = np.diff(np.log(observed))
        steps = np.clip(model.steps(x, run, observed), 1e-6, RISE * observed[0])
        one_step.append(np.log(steps / observed[:-1]) - change)
        changes.append(change)
        whole.append(np.abs(np.log(predicted / observed))[1:])
        real, expected = epochs_to(observed, target), epochs_to(predicted, target)
        if np.isfinite(real) and np.isfinite(expected):
            late.append(abs(expected - real) / max(real, 1))
        mismatches += np.isfinite(real) != np.isfinite(expected)
    return {
        "runs": len(one_step),
        "sd": float(np.concatenate(changes).std()),
        "one_step_rmse": float(np.sqrt(np.mean(np.concatenate(one_step) ** 2))),
        "whole_run_error": float(np.mean(np.concatenate(whole))),
        "epochs_error": float(np.mean(late)) if late else float("nan"),
        "mismatches": int(mismatches),
    }


def rows_of(config: FitConfig, setting: Setting, names: tuple[str, str, str]) -> list[dict[str, object]]:
    """Fits both models and reports held-out counts and held-out seeds apart."""
    own = [run for run in setting.runs if run.seed == 0 and run.level % 2 == 0]
    parts = {
        "functions": [run for run in setting.runs if run.seed == 0 and run.level % 2 == 1],
        "seed": [run for run in setting.runs if run.seed == 1 and run.level % 2 == 0],
    }
    rows: list[dict[str, object]] = []
    builders: tuple[Callable[[Setting], Model], ...] = (QuadraticModel, FittedModel)
    for build in builders:
        model, start = build(setting), time.perf_counter()
        x = fit(model, own)
        seconds = time.perf_counter() - start
        for held_out, runs in parts.items():
            values = dict(zip(COLUMNS, (*names, config.memory_mb, model.name, held_out), strict=False))
            found = {k: f"{v:.4g}" for k, v in errors(model, x, runs).items()}
            parameters = " ".join(f"{v:.3g}" for v in x)
            rows.append({**values, **found, "seconds": f"{seconds:.2f}", "parameters": parameters})
    return rows


def main(config: FitConfig) -> int:
    """Runs, fits, writes and prints."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    shown = COLUMNS[:3] + COLUMNS[4:12]
    sys.stdout.write("  ".join(f"{name[:15]:>15s}" for name in shown) + "\n")
    with (FOLDER / "errors.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for workload in config.workloads:
            for batch_rule in config.batch_rules:
                for update_rule in config.update_rules:
                    setting = Setting(config, workload, batch_rule, update_rule)
                    for row in rows_of(config, setting, (workload, batch_rule, update_rule)):
                        writer.writerow(row)
                        file.flush()
                        sys.stdout.write("  ".join(f"{row[name]!s:>15s}" for name in shown) + "\n")
                        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(FitConfig)))
