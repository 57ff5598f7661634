"""Rehearse a job in the twin, for nothing: `python -m siren.rehearse --workload W --budget B`."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from typing import Annotated, TextIO

import tyro
from threadpoolctl import threadpool_limits

from siren.analysis.console import console_for
from siren.errors import SirenError, UsageError
from siren.money.amounts import parse_budget
from siren.policies.agent import agent_digest
from siren.rehearsal.job import RehearsedJob
from siren.rehearsal.show import show
from siren.rehearsal.store import resolved_job, to_json
from siren.rehearsal.workers import StageSettings
from siren.twin.twin import job_of
from siren.types import BatchRule, ChannelKind, StopReason, UpdateRule
from siren.workloads.registry import load_workload
from siren.worlds import load_world
from siren.worlds.costing import make_costing


@dataclass(frozen=True)
class RehearseConfig:
    """Find the best policy for a job and a budget by training it in the twin, which costs no money.

    Trains a ladder of function counts with real SGD, plays the best fixed actions and the learned
    policies that ship with the budget enforced, searches a policy of its own where episodes are
    cheap, and chooses on fresh seeds. `siren.run` does the same by default and uses what is found
    here. Exit codes: 0 found, 1 internal error, 2 usage, 4 killed process,
    130 interrupted.
    """

    budget: Annotated[str, tyro.conf.arg(metavar="USD")]
    """Dollars that the run may cost at most, e.g. 2.00."""

    workload: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "mlp-mnist"
    """What to train: a folder under workloads/, or the path of your own."""

    world: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = "aws-2026"
    """Prices, limits and laws of time: a file under envs/, or the path of your own."""

    seconds: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 20.0
    """Real seconds that it may take, loading aside."""

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
    """Rehearse even if the same job and budget were rehearsed before."""

    print_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print what was found as JSON on stdout."""


def main(config: RehearseConfig, stdout: TextIO | None = None, stderr: TextIO | None = None) -> int:
    """Rehearses; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where results go; `sys.stdout` by default.
        stderr: Where errors and progress go; `sys.stderr` by default.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    try:
        with threadpool_limits(1), contextlib.redirect_stdout(stderr):
            _rehearse(config, stdout, stderr)
        return 0
    except SirenError as error:
        return _fail(stderr, error, error.exit_code)
    except KeyboardInterrupt:
        return _fail(stderr, "interrupted; nothing was spent", StopReason.INTERRUPTED.exit_code)


def _fail(stderr: TextIO, error: object, code: int) -> int:
    print(f"siren.rehearse: {error}", file=stderr)
    return code


def _rehearse(config: RehearseConfig, stdout: TextIO, stderr: TextIO) -> None:
    if not 0 < config.seconds < float("inf"):
        raise UsageError(f"--seconds {config.seconds:g} must be a positive number of seconds")
    for agent in config.agents:
        agent_digest(agent)
    budget_usd, world = parse_budget(config.budget), load_world(config.world)
    overrides = {key: getattr(config, key) for key in ("target_loss", "batch_rule", "update_rule", "channel")}
    workload = load_workload(config.workload, overrides=overrides)
    workload.check()
    costing = make_costing(world, job_of(workload))
    stage = StageSettings(config.workload, overrides, config.world, 1.0)
    resolved = resolved_job(workload, world)
    job = RehearsedJob(workload, costing, stage, budget_usd, resolved, config.agents or None)
    found, known = job.rehearse(config.seconds, stderr, again=config.again)
    if config.print_json:
        stdout.write(json.dumps(to_json(found), indent=1) + "\n")
        return
    console = console_for(stdout)
    if known:
        console.print("rehearsed before; --again does it again", style="dim")
    show(found, console, workload.spec.training.target_loss)


if __name__ == "__main__":
    options = (tyro.conf.EnumChoicesFromValues,)
    sys.exit(main(tyro.cli(RehearseConfig, prog="python -m siren.rehearse", config=options)))
