"""Train a policy in the simulator: `python -m siren.train_agent`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import tyro

from siren.analysis.run_folder import new_run_path
from siren.analysis.system import system_facts
from siren.errors import AgentError, SirenError, UsageError
from siren.learning.recipe import (
    FINE_TUNING,
    RECIPE,
    Algorithm,
    Recipe,
    RunsSection,
    changed_recipe,
    load_recipe,
    recipe_path,
)
from siren.policies.agent import DEFAULT_AGENT, absolute_agent, agent_folder
from siren.policies.network import load_network
from siren.simulator.scenarios import load_scenario

if TYPE_CHECKING:
    from siren.learning.neighbourhood import FittedJob

NOT_RECIPE = ("recipe", "from_runs", "start", "out", "resume", "print_json")
"""Options that do not change the recipe."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a policy on a randomised family of simulated jobs, or fine-tune one on recorded runs.

    Without options it takes up to ten minutes on two cores. The agent folder holds the policy, how
    it was made, and how it did on jobs never trained on; `python -m siren.run --policy FOLDER` uses
    it. Exit codes: 0 trained, 1 internal error, 2 usage, 4 a file cannot be written, 130 interrupted
    (go on with --resume).
    """

    recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE")] = None
    """Train again what ships as agents/NAME, or what a train.toml describes. Other options change it.
    Default: a fast recipe."""

    scenario: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE")] = None
    """The family of jobs: a file under envs/scenarios/, or the path of your own. Default: family-2026."""

    from_runs: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]")] = ()
    """Run folders to learn from: simulated jobs are fitted to them, and an agent goes on training on jobs
    around those, mixed with its own family."""

    start: Annotated[str | None, tyro.conf.arg(metavar="NAME|FOLDER")] = None
    """The agent whose weights training starts from. Default: default-2026 with --from-runs, else none."""

    algorithm: Algorithm | None = None
    """How to learn. Default: ppo."""

    observation: Literal["default", "siren"] | None = None
    """What the agent sees: Siren's relative numbers, or the paper's raw state; an agent of the latter
    can be measured in the simulator but not used by siren.run. Default: default."""

    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Simulated epochs to learn from. Default: the recipe's."""

    jobs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Training jobs to sample. Default: the recipe's."""

    seed: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Same seed, same policy on one machine, unless the training was resumed. Default: 0."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The agent folder. Default: a new folder under agents/."""

    resume: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Go on with a training that was killed, from its last checkpoint; only --json may be given with it."""

    print_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the measurement on the test jobs as JSON on stdout, and nothing else there."""


def main(config: TrainConfig, stdout: TextIO | None = None, stderr: TextIO | None = None) -> int:
    """Trains the agent; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where results go; `sys.stdout` by default.
        stderr: Where errors and progress go; `sys.stderr` by default.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    folder = config.resume
    try:
        recipe = _recipe_of(config)
        load_scenario(recipe.scenario)  # an unknown one is refused before anything is imported or written
        folder = config.resume or _new_folder(config, recipe)
        fitted = _fitted_jobs(config, recipe, stderr)
        found = _train(recipe, folder, fitted, resumes=config.resume is not None, stderr=stderr)
    except SirenError as error:
        return _fail(stderr, error, error.exit_code)
    except OSError as error:
        return _fail(stderr, f"cannot write {error.filename or folder}: {error.strerror}", 4)
    except KeyboardInterrupt:
        again = f"; go on with `{_resume_command(folder)}`" if folder else ""
        return _fail(stderr, f"interrupted{again}", 130)
    _show(found, folder, config.print_json, stdout)
    return 0


def _fail(stderr: TextIO, error: object, code: int) -> int:
    print(f"siren.train_agent: {error}", file=stderr)
    return code


def _resume_command(folder: Path) -> str:
    return f"python -m siren.train_agent --resume {shlex.quote(str(folder))}"


def _recipe_of(config: TrainConfig) -> Recipe:
    given = {k: v for k, v in vars(config).items() if v is not None and v != ()}
    changes = _absolute({k: v for k, v in given.items() if k not in NOT_RECIPE})
    if config.resume is None:
        recipe = FINE_TUNING if config.from_runs else Recipe()
        recipe = load_recipe(config.recipe) if config.recipe else recipe
        return changed_recipe(recipe, {**_changes_of_start(config, recipe), **changes})
    for name in given.keys() - {"resume", "print_json"}:
        option = name.replace("_", "-")
        raise UsageError(f"--{option} cannot be changed on --resume: leave it out, or start a new training")
    path = config.resume / RECIPE
    if not path.is_file():
        raise AgentError(f"--resume {config.resume}: there is no {RECIPE}; name a folder that was trained in")
    return load_recipe(str(path))


def _changes_of_start(config: TrainConfig, recipe: Recipe) -> dict[str, Any]:
    """What a recipe must say to start from an agent: its network and, with runs, its family."""
    start = config.start or (config.from_runs and (recipe.start or DEFAULT_AGENT))
    if not start:
        return {}
    start = absolute_agent(start)
    folder = agent_folder(start)
    network = load_network(folder)[0]
    if network.recurrent:
        raise AgentError(f"the agent {start} has a memory, which cannot be trained on: start from another")
    shape = {"layers": network.hidden, "hold": network.hold}
    changes: dict[str, Any] = {"start": start, "network": {**recipe.network.model_dump(), **shape}}
    if config.from_runs:
        changes["runs"] = recipe.runs or RunsSection()
        if config.recipe is None and (folder / RECIPE).is_file():
            changes["scenario"] = load_recipe(str(folder / RECIPE)).scenario
    return changes


def _fitted_jobs(config: TrainConfig, recipe: Recipe, stderr: TextIO) -> Sequence[FittedJob]:
    """The recorded jobs that are learned from: fitted now, or kept beside the recipe."""
    if recipe.runs is None:
        return ()
    from siren.learning.neighbourhood import read_fitted
    from siren.learning.runs import fit_runs

    if config.from_runs:
        fitted, notes = fit_runs(config.from_runs)
        for note in notes:
            print(f"siren.train_agent: {note}", file=stderr)
        return fitted
    return read_fitted(config.resume or recipe_path(config.recipe or "").parent)


def _absolute(changes: dict[str, object]) -> dict[str, object]:
    """The same changes, with a scenario file that is found from any folder."""
    scenario = str(changes.get("scenario", ""))
    return {**changes, "scenario": str(Path(scenario).resolve())} if scenario.endswith(".toml") else changes


def _new_folder(config: TrainConfig, recipe: Recipe) -> Path:
    name = f"{recipe.algorithm}-{Path(recipe.scenario).stem}{'-runs' if recipe.runs else ''}"
    folder = config.out or new_run_path(Path("agents"), name)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(
            f"--out {folder} is taken: name a folder that does not exist yet, or go on with its training by "
            f"`{_resume_command(folder)}`"
        )
    return folder


def _train(
    recipe: Recipe, folder: Path, fitted: Sequence[FittedJob], *, resumes: bool, stderr: TextIO
) -> Mapping[str, object]:
    """Trains and reports; the measurement on the test jobs, by group of jobs."""
    # torch and Stable-Baselines3 take seconds to import, and may not be installed.
    from siren.learning.display import TrainingDisplay
    from siren.learning.neighbourhood import write_fitted
    from siren.learning.record import read_checkpoint
    from siren.learning.report import finish
    from siren.learning.training import sample_training, train

    checkpoint, facts = read_checkpoint(folder) if resumes else None, system_facts()
    if not resumes:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE).write_text(recipe.to_toml(), encoding="utf-8")
        if fitted:
            write_fitted(folder, fitted)
    with TrainingDisplay(stderr) as display:
        display.note(f"{'going on in' if resumes else 'training in'} {folder}; {RECIPE} there has the recipe")
        if recipe.observation == "siren":
            display.note(
                "an agent of the paper's observation is for the simulator: siren.run does not take it"
            )
        jobs = sample_training(recipe, display, fitted)
        record = train(recipe, folder, jobs, display, checkpoint)
        found, notes = finish(recipe, folder, jobs, record, facts, fitted)
        for note in notes:
            display.note(note)
    return {name: asdict(comparison) for name, comparison in found.items()}


def _show(found: Mapping[str, object], folder: Path, as_json: bool, stdout: TextIO) -> None:
    if as_json:
        stdout.write(json.dumps({"folder": str(folder), "test": found}, indent=2) + "\n")
        return
    from rich.table import Table

    from siren.analysis.console import console_for

    table = Table(title=f"{folder}: test jobs, against the reference action", title_justify="left")
    for heading in ("jobs", "count", "speed-up", "95% interval", "success", "reference"):
        table.add_column(heading, justify="left" if heading == "jobs" else "right", no_wrap=heading == "jobs")
    for name, values in found.items():
        assert isinstance(values, dict)
        table.add_row(
            name,
            str(values["jobs"]),
            f"{values['speedup']:.3f}",
            f"{values['low']:.3f} - {values['high']:.3f}",
            f"{values['success']:.1%}",
            f"{values['reference_success']:.1%}",
        )
    console_for(stdout).print(table)


if __name__ == "__main__":
    sys.exit(
        main(
            tyro.cli(
                TrainConfig, prog="python -m siren.train_agent", config=(tyro.conf.EnumChoicesFromValues,)
            )
        )
    )
