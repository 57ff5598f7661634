"""Measure policies against each other and against the best possible: `python -m siren.evaluate`."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TextIO

import tyro
from threadpoolctl import threadpool_limits

from siren.analysis.console import console_for
from siren.analysis.run_folder import new_run_path
from siren.analysis.system import system_facts
from siren.errors import (
    MissingExtraError,
    SirenError,
    UsageError,
)
from siren.evaluation import entrants, report
from siren.evaluation.display import EvaluationDisplay
from siren.evaluation.entrants import Entrant, Kind
from siren.evaluation.jobs import code_digest
from siren.evaluation.journal import Journal
from siren.evaluation.runner import Evaluation
from siren.evaluation.settings import EvaluationSettings, settings_of
from siren.rehearsal.entrant import REHEARSED

KINDS: Mapping[str, Kind] = {**entrants.KINDS, "rehearsed": REHEARSED}
"""Every policy by its name; those of layers above `siren.evaluation`, such as a rehearsal, join here."""

BASELINES = "best-fixed,grid-search,fixed:10x1769,fixed:100x1769,two-phase,greedy,planner-fitted"
DEFAULT_POLICIES = {"simulator": f"{BASELINES},planner,lower-bound", "twin": BASELINES}

TABLE, ROWS, FIGURE = "rows.csv", "rows.json", "figure.png"


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure policies on jobs that nothing was trained or chosen on.

    Every policy plays every job at every budget with the real ledger, which no run can overspend; running
    out is a failure. A failure counts as twice the mean time of the best fixed action, which is chosen in
    hindsight on 24 seeds that are never reported. Reported, all with 95% intervals over jobs: success
    rate, mean time of successes, counted time over the best fixed action's mean time and over its counted
    time on the same seeds, over a lower bound, and dollars. Ratios: the lower, the better. Lists are
    separated by commas. Exit codes: 0 done, 1 internal error, 2 usage, 4 a file or a process failed, 130
    interrupted (repeat the command with the same --out to go on).
    """

    policies: Annotated[str | None, tyro.conf.arg(metavar="NAMES")] = None
    """best-fixed (always played), grid-search (pays for its search), fixed:FUNCTIONSxMEMORY, two-phase,
    greedy, planner-fitted, planner and lower-bound (these two in the simulator), agent or agents/NAME, with
    @best-fixed to act relative to the best fixed action. !none or !cap+reserve behind a name sets its
    safeguards. Default: all but agents."""

    workloads: Annotated[str, tyro.conf.arg(metavar="NAMES")] = "family"
    """family (held-out generated jobs), a scenario under envs/scenarios/ or its file, and with --platform
    twin workloads by name or folder."""

    platform: Annotated[str, tyro.conf.arg(metavar="NAME")] = "simulator"
    """simulator, or twin: real gradients."""

    budgets: Annotated[str, tyro.conf.arg(metavar="RATIOS")] = "1.2,1.5,2.5"
    """Budgets over the cheapest with which a fixed action is expected to finish the job."""

    worlds: Annotated[str, tyro.conf.arg(metavar="NAMES")] = "aws-2026"
    """Worlds: files under envs/, or paths of your own."""

    batch_rules: Annotated[str, tyro.conf.arg(metavar="RULES")] = ""
    """How samples become mini-batches. Default: the workload's; the family's mixture."""

    update_rules: Annotated[str, tyro.conf.arg(metavar="RULES")] = ""
    """What a push does to the shared model. Default: the workload's; the family's mixture."""

    jobs: Annotated[int, tyro.conf.arg(metavar="N")] = 20
    """Generated jobs of a family."""

    first_job: Annotated[int, tyro.conf.arg(metavar="K")] = 0
    """The number of the first of them: other jobs than those that were looked at before."""

    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 24
    """Episodes of every policy on every job at every budget."""

    safety: Annotated[str, tyro.conf.arg(metavar="LIST")] = "all"
    """Safeguards around all but the fixed baselines: all, none, or of cap,reserve,back_off,roll_back."""

    workers: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Processes; results do not depend on it. Default: one per core."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where every episode, the CSV, the rows and the figure go; an evaluation that was interrupted there
    goes on. Default: a new folder under evaluations/."""

    print_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the rows as JSON on stdout, and nothing else there."""


def main(config: EvaluateConfig, stdout: TextIO | None = None, stderr: TextIO | None = None) -> int:
    """Evaluates; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where results go; `sys.stdout` by default.
        stderr: Where errors and progress go; `sys.stderr` by default.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    out = config.out
    try:
        # A user's model may print: stdout is for results.
        with threadpool_limits(1), contextlib.redirect_stdout(stderr), _terminable():
            settings = _settings(config)
            workers = _workers(config.workers)
            out = out or new_run_path(Path("evaluations"), settings.platform)
            rows = _evaluate(settings, workers, out, stderr)
    except SirenError as error:
        return _fail(stderr, error, error.exit_code)
    except KeyboardInterrupt:
        again = "" if out is None else f"; repeat the command with --out {shlex.quote(str(out))} to go on"
        return _fail(stderr, f"interrupted{again}", 130)
    if config.print_json:
        stdout.write(json.dumps(rows, indent=2, allow_nan=False) + "\n")
    else:
        report.show(rows, console_for(stdout))
    return 0


def _fail(stderr: TextIO, error: object, code: int) -> int:
    print(f"siren.evaluate: {error}", file=stderr)
    return code


def _settings(config: EvaluateConfig) -> EvaluationSettings:
    values: dict[str, Any] = {
        name: _listed(getattr(config, name))
        for name in ("workloads", "worlds", "batch_rules", "update_rules")
    }
    for name in ("workloads", "worlds"):
        values[name] = tuple(_absolute(text) for text in values[name])
    policies = config.policies if config.policies is not None else DEFAULT_POLICIES.get(config.platform, "")
    values |= {"policies": _listed(policies), "budgets": _listed(config.budgets)}
    values |= {name: getattr(config, name) for name in ("platform", "jobs", "first_job", "seeds", "safety")}
    return settings_of(values)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _absolute(name: str) -> str:
    """What finds the same file or folder from any folder."""
    return str(Path(name).expanduser().resolve()) if name.endswith(".toml") or os.sep in name else name


def _workers(wanted: int | None) -> int:
    if wanted is None:
        return int(system_facts()["cores"])
    if wanted < 1:
        raise UsageError(f"--workers {wanted}: give 1 or more")
    return wanted


def _evaluate(settings: EvaluationSettings, workers: int, out: Path, stderr: TextIO) -> list[report.Row]:
    """Plays what is missing, and writes the report."""
    cases = settings.cases()
    playing = settings.entrants(KINDS)
    about = {**settings.model_dump(mode="json"), "code": code_digest()}
    with Journal.opened(out, about, system_facts()) as journal:
        evaluation = Evaluation(cases, playing, settings.seeds, journal)
        with EvaluationDisplay(stderr, len(cases), evaluation.episodes) as display:
            display.note(f"every episode goes to {out}")
            evaluation.run(workers, display)
            rows = _report(journal, evaluation, playing, display)
    return rows


def _report(
    journal: Journal, evaluation: Evaluation, playing: Sequence[Entrant], display: EvaluationDisplay
) -> list[report.Row]:
    names = [entrant.name for entrant in playing]
    rows = report.rows_of(evaluation.cases, names, journal.facts, journal.results)
    journal.write(TABLE, report.csv_of(rows).encode())
    journal.write(ROWS, json.dumps(rows, indent=2, allow_nan=False).encode() + b"\n")
    try:
        report.figure(rows, journal.path / FIGURE)
    except MissingExtraError as error:
        display.note(f"no figure: {error}")
    return rows


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the evaluation as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(EvaluateConfig, prog="python -m siren.evaluate")))
