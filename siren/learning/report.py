"""What an agent folder tells people: its card and the picture of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from siren.analysis._disk import Disk
from siren.analysis.figures import BLUE, GREEN, INK, ORANGE, styled_figure
from siren.errors import MissingExtraError
from siren.learning.episodes import FAILURE_RATIO, Comparison
from siren.learning.jobs import Part
from siren.learning.neighbourhood import FITTED, FittedJob
from siren.learning.recipe import RECIPE, Algorithm, Recipe
from siren.learning.record import CHECKPOINT, EVALUATIONS, Evaluation, Record
from siren.learning.training import Jobs, Judge, save_agent, start_network
from siren.policies.network import Network

CARD, CURVE = "CARD.md", "learning_curve.png"
_SIZE_INCHES = (11.0, 4.6)


BEFORE = "{}, before"
"""The row of the agent that training started from."""

FAMILY, NEAR = "all jobs", "near runs"


def write_card(
    folder: Path,
    recipe: Recipe,
    record: Record,
    found: Mapping[str, Comparison],
    facts: Mapping[str, Any],
    fitted: Sequence[FittedJob] = (),
) -> None:
    """Writes `CARD.md`.

    Args:
        folder: The agent folder.
        recipe: What was trained.
        record: How it went.
        found: The kept policy on the test jobs, by group of jobs; "all jobs" is one.
        facts: See `siren.analysis.system.system_facts`.
        fitted: The recorded jobs that it learned from.
    """
    best = record.best_evaluation
    rows = [
        f"| {name} | {c.jobs} | {c.speedup:.3f} [{c.low:.3f}, {c.high:.3f}] | {c.success:.3f} | "
        f"{c.reference_success:.3f} | {c.counted_ratio:.3f} | {c.reference_counted_ratio:.3f} |"
        for name, c in found.items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    commit = (
        f"{facts['commit']}{', with changes' if facts['dirty'] else ''}" if facts["commit"] else "unknown"
    )
    text = f"""# {folder.name}

A policy that chooses, before every epoch of a job, how many functions run it and with how much memory.
{_shape(recipe)}, trained with {_name(recipe.algorithm)} in Siren's simulator and run with numpy alone.
{_reads(recipe)}

## Training

* Jobs (seed {recipe.seed}): {_jobs(recipe, fitted)}.
* {record.steps:,} simulated epochs in {record.seconds / 60:.1f} minutes. The policy after {best.steps:,} of
  them is kept: it was the fastest on {recipe.evaluation.jobs} validation jobs (speed-up {best.speedup:.3f})
  of those evaluated during training that succeeded no less often than the reference action. {_start(recipe)},
  from which training starts, is among the candidates.
* Again: `python -m siren.train_agent --recipe {RECIPE} --out NEW_FOLDER` gives the same policy on the same
  machine and versions ({versions};
  commit {commit}).
* All evaluations are in `{EVALUATIONS}`, drawn in `{CURVE}`.

## Measured

On {recipe.evaluation.test_jobs} test jobs of the same family, {recipe.evaluation.repeats} episodes each, used
neither to train nor to choose; simulated, not real, training. Speed-up is the geometric mean over jobs of
the failure-counted time of the reference action over that of the agent, with a 95% bootstrap interval over
jobs; a failure counts as {FAILURE_RATIO:g} reference times, budgets are never exceeded. The reference action
is the best fixed (n, m) in expectation that fits the budget, with n off by what a rehearsal leaves open.
{_near(recipe, fitted)}
| jobs | count | speed-up | success | of the reference | time / T_ref | of the reference |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

## Limits

* Measured in the simulator. What it gains on real training is not known from this card: rehearse it in the
  twin.
* {_scale(recipe)}
* Jobs outside the ranges of the scenario file were never seen.
"""
    Disk().replace(folder / CARD, text.encode())


def _jobs(recipe: Recipe, fitted: Sequence[FittedJob]) -> str:
    family = f"of the randomised family `{Path(recipe.scenario).stem}`"
    if recipe.runs is None:
        return f"{recipe.jobs:,} {family}"
    names = ", ".join(f"`{name}`" for job in fitted for name in job.runs)
    return (
        f"{recipe.jobs:,}, {recipe.runs.share:.0%} of them drawn around {len(fitted)} recorded "
        f"{'job' if len(fitted) == 1 else 'jobs'} and the others {family}.\n  The runs: {names}; what was "
        f"fitted to them is in `{FITTED}`"
    )


def _start(recipe: Recipe) -> str:
    return f"The agent `{Path(recipe.start).name}`" if recipe.start else "The zero action"


def _near(recipe: Recipe, fitted: Sequence[FittedJob]) -> str:
    lines = []
    if recipe.start:
        lines.append(f'Rows "before" are of `{Path(recipe.start).name}`, from which training started.\n')
    if fitted:
        lines.append(f'Rows "{NEAR}" are of as many jobs drawn around the recorded ones, kept for this.\n')
    return "".join(lines)


def _scale(recipe: Recipe) -> str:
    if recipe.observation == "siren":
        return "Its actions are absolute: it knows nothing of the scale of a job before the first epoch."
    return (
        "It only multiplies n_ref and m_ref (n by e^-2 to e^2, m by 1/4 to 4): without a reference of about\n"
        "  the right scale it is no use."
    )


def _name(algorithm: Algorithm) -> str:
    return {"ppo": "PPO", "a2c": "A2C", "recurrent-ppo": "recurrent PPO"}[algorithm]


def _shape(recipe: Recipe) -> str:
    layers = " and ".join(str(units) for units in recipe.network.layers)
    cell = (
        f"An LSTM of {recipe.network.lstm} units and a"
        if recipe.algorithm is Algorithm.RECURRENT_PPO
        else "A"
    )
    return f"{cell} network of {layers} tanh units" if layers else f"{cell} linear map"


def _reads(recipe: Recipe) -> str:
    if recipe.observation == "siren":
        return (
            "It reads the paper's state of nine numbers. `siren.run` does not run agents of that "
            "observation: it is for comparison in the simulator."
        )
    return "It reads Siren's relative observation, so it fits any workload, world and rule."


def draw_curve(folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """Writes `learning_curve.png`: speed-up and success on the validation jobs against steps.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunFolderError: The file cannot be written.
    """
    steps = [e.steps / 1e6 for e in evaluations]
    with styled_figure(folder / CURVE, _SIZE_INCHES) as figure:
        left, right = figure.subplots(1, 2)
        left.fill_between(
            steps, [e.low for e in evaluations], [e.high for e in evaluations], color=BLUE, alpha=0.2,
            linewidth=0, label="95% interval over jobs",
        )  # fmt: skip
        left.plot(steps, [e.speedup for e in evaluations], color=BLUE, marker="o", markersize=3)
        left.axhline(1.0, color=INK, linewidth=1.3, linestyle=(0, (5, 3)), label="reference action")
        left.set_title("Speed-up on validation jobs")
        right.plot(steps, [e.success for e in evaluations], color=GREEN, label="agent")
        right.plot(
            steps, [e.training_success for e in evaluations], color=ORANGE, label="exploring, training jobs"
        )
        right.axhline(
            evaluations[0].reference_success, color=INK, linewidth=1.3, linestyle=(0, (5, 3)),
            label="reference action",
        )  # fmt: skip
        right.set_title("Success")
        for axes in (left, right):
            axes.set_xlabel("million steps")
            axes.legend(loc="best")
        figure.tight_layout()


def finish(
    recipe: Recipe,
    folder: Path,
    jobs: Jobs,
    record: Record,
    facts: Mapping[str, Any],
    fitted: Sequence[FittedJob] = (),
) -> tuple[dict[str, Comparison], list[str]]:
    """Measures the kept policy on the test jobs and completes the agent folder.

    Args:
        recipe: What was trained.
        folder: The agent folder.
        jobs: See `sample_training`.
        record: How the training went.
        facts: See `siren.analysis.system.system_facts`.
        fitted: The recorded jobs that it learned from.

    Returns:
        (the measurement by group of jobs, what the user should be told).
    """
    assert record.best is not None
    found = _measure(recipe, jobs, record.best)
    measured = {"validation_speedup": record.best_evaluation.speedup, "test": asdict(found[FAMILY])}
    save_agent(folder, recipe, record.best, measured)
    write_card(folder, recipe, record, found, facts, fitted)
    notes = []
    try:
        draw_curve(folder, record.evaluations)
    except MissingExtraError as error:
        notes.append(f"no {CURVE}: {error}")
    Disk().remove(folder / CHECKPOINT)
    return found, notes


def _measure(recipe: Recipe, jobs: Jobs, network: Network) -> dict[str, Comparison]:
    """A network, and the one that training started from, on the test jobs by group of jobs."""
    family, start = Judge(recipe, jobs.test, Part.TEST), start_network(recipe) if recipe.start else None
    found = dict(family.compare_by_rule(network))
    if start:
        found[BEFORE.format(FAMILY)] = family.compare(start)
    if jobs.near:
        near = Judge(recipe, jobs.near, Part.TEST)
        found[NEAR] = near.compare(network)
        if start:
            found[BEFORE.format(NEAR)] = near.compare(start)
    return found
