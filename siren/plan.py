"""Say what a job will take before paying: `python -m siren.plan --workload W --budget 2.00`."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import tyro
from threadpoolctl import threadpool_limits

from siren.analysis.console import console_for
from siren.errors import SirenError, UsageError
from siren.money.amounts import parse_budget
from siren.planning.plans import Plan, Planner, to_json
from siren.planning.show import figure, show
from siren.policies.agent import agent_digest
from siren.rehearsal.job import RehearsedJob
from siren.rehearsal.store import resolved_job
from siren.rehearsal.workers import StageSettings
from siren.twin.twin import job_of
from siren.types import BatchRule, ChannelKind, StopReason, UpdateRule
from siren.workloads.profile import profiled
from siren.workloads.registry import load_workload
from siren.worlds import load_world
from siren.worlds.costing import make_costing


@dataclass(frozen=True)
class PlanConfig:
    """Say what a job will take before anything is spent: time, dollars, and the chance of success.

    Rehearses the job in the twin and plays what was chosen on fresh seeds. For a budget it tells the
    expected completion time and dollars with a band that holds 80% of runs, the chance of reaching
    the target, the first action and why; without one the frontier of time against cost. Beside it
    stands what EC2 machines would take, with the advice to use them where they are both cheaper and
    faster. Exit codes: 0 planned, 1 internal error, 2 usage, or no way to reach the target was found,
    4 a file or a process failed, 130 interrupted.
    """

    workload: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "mlp-mnist"
    """What to train: a folder under workloads/, or the path of your own."""

    budget: Annotated[str | None, tyro.conf.arg(metavar="USD")] = None
    """Dollars that the run may cost at most, e.g. 2.00. Default: several, which make a frontier."""

    world: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = "aws-2026"
    """Prices, limits and laws of time: a file under envs/, or the path of your own."""

    profile: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Constants that `siren.profile` measured, in place of those that workload and world assume."""

    seconds: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 20.0
    """Real seconds of the rehearsal of one budget; predictions and machines take a quarter each on top."""

    points: Annotated[int, tyro.conf.arg(metavar="N")] = 4
    """Budgets of a frontier."""

    agents: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME|FOLDER")] = ()
    """Learned policies that may propose. Default: all that ship."""

    target_loss: Annotated[float | None, tyro.conf.arg(metavar="LOSS")] = None
    """Held-out loss at which the job is done. Default: the workload's."""

    batch_rule: BatchRule | None = None
    """How samples become mini-batches. Default: the workload's."""

    update_rule: UpdateRule | None = None
    """What a push does to the shared model. Default: the workload's."""

    channel: ChannelKind | None = None
    """Where parameters travel. Default: the workload's."""

    again: bool = False
    """Rehearse even what was rehearsed before."""

    figure: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None
    """Where to draw time against cost; needs the extra `plot`."""

    print_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the plan as JSON on stdout, and nothing else there."""


def main(config: PlanConfig, stdout: TextIO | None = None, stderr: TextIO | None = None) -> int:
    """Plans; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where results go; `sys.stdout` by default.
        stderr: Where errors and progress go; `sys.stderr` by default.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    try:
        # A user's model may print: stdout is for results.
        with threadpool_limits(1), contextlib.redirect_stdout(stderr):
            plan = _planned(config, stderr)
            if config.figure:
                figure(plan, config.figure)
    except SirenError as error:
        return _fail(stderr, error, error.exit_code)
    except KeyboardInterrupt:
        return _fail(stderr, "interrupted; nothing was spent", StopReason.INTERRUPTED.exit_code)
    if config.print_json:
        stdout.write(json.dumps(to_json(plan), indent=1) + "\n")
    else:
        show(plan, console_for(stdout))
    return 0


def _fail(stderr: TextIO, error: object, code: int) -> int:
    print(f"siren.plan: {error}", file=stderr)
    return code


def _planned(config: PlanConfig, stderr: TextIO) -> Plan:
    if not 0 < config.seconds < float("inf"):
        raise UsageError(f"--seconds {config.seconds:g} must be a positive number of seconds")
    if config.points < 1:
        raise UsageError(f"--points {config.points}: give 1 or more")
    for agent in config.agents:
        agent_digest(agent)
    budget_usd = parse_budget(config.budget) if config.budget is not None else None
    planner = Planner(_job(config), config.seconds, stderr, again=config.again)
    return planner.for_budget(budget_usd) if budget_usd is not None else planner.frontier(config.points)


def _job(config: PlanConfig) -> RehearsedJob:
    overrides = {key: getattr(config, key) for key in ("target_loss", "batch_rule", "update_rule", "channel")}
    profile = str(config.profile.resolve()) if config.profile else ""
    workload = load_workload(config.workload, overrides=overrides)
    workload, world = profiled(workload, load_world(config.world), profile)
    workload.check()
    stage = StageSettings(config.workload, overrides, config.world, 1.0, profile)
    costing = make_costing(world, job_of(workload))
    return RehearsedJob(
        workload, costing, stage, parse_budget("1"), resolved_job(workload, world), config.agents or None
    )


if __name__ == "__main__":
    options = (tyro.conf.EnumChoicesFromValues,)
    sys.exit(main(tyro.cli(PlanConfig, prog="python -m siren.plan", config=options)))
