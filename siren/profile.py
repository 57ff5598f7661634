"""Measure the constants of a job's laws under a small budget: `python -m siren.profile --workload W`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, TextIO

import tyro
from threadpoolctl import threadpool_limits

from siren.analysis._disk import Disk
from siren.analysis.console import console_for, progress_line
from siren.errors import RunFolderError, SirenError, UsageError
from siren.money.amounts import parse_budget
from siren.platforms.aws.confirm import confirm
from siren.platforms.processes import usable_cores
from siren.platforms.select import WORLDS, Selected, check_platform, select_platform
from siren.profiling.fit import empty_init_s, expected_parts, fit
from siren.profiling.measure import Connect, Measured, Tour, measure, prepare
from siren.profiling.show import figure, show, spending_plan
from siren.twin.twin import job_of
from siren.types import Action, BatchRule, ChannelKind, EpochReport, StopReason, UpdateRule
from siren.workloads.profile import PROFILE_FILE, ColdPoint, Point, Profile, with_profile
from siren.workloads.registry import load_workload
from siren.workloads.workload import Workload
from siren.worlds import World, load_world
from siren.worlds.costing import Costing, make_costing


@dataclass(frozen=True)
class ProfileConfig:
    """Measure the constants of a job's laws of time under a small, hard budget.

    Trains a few actions, one cold epoch and some warm ones each, and fits what a sample and a push take,
    what a cold start takes for imports, and the latencies of the channel, with 95% intervals. Writes
    profile.json beside the workload; `siren.plan --profile FILE` then plans with what was measured.
    On the platform aws it shows first what it will do and cost, and asks.
    Exit codes: 0 measured, 1 internal error, 2 usage, or a budget too small, 4 a file or the platform
    failed, 130 interrupted.
    """

    workload: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "mlp-mnist"
    """What to train: a folder under workloads/, or the path of your own."""

    world: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE")] = None
    """Prices, limits and assumed laws of time: a file under envs/, or the path of your own. Default:
    aws-2026; on the platform local: local."""

    platform: Annotated[str, tyro.conf.arg(metavar="NAME")] = "twin"
    """Where to measure: twin, whose constants are those of the world; local (real functions on this machine,
    not more at once than it has cores; needs the extra `local`); or aws (your account, for money, see
    siren.deploy; needs the extra `aws`)."""

    deployment: Annotated[str, tyro.conf.arg(metavar="NAME")] = "siren"
    """Which deployment of siren.deploy the platform aws uses."""

    budget: Annotated[str, tyro.conf.arg(metavar="USD")] = "0.05"
    """Dollars that measuring may cost at most."""

    batch_rule: BatchRule | None = None
    """How samples become mini-batches. Default: the workload's."""

    update_rule: UpdateRule | None = None
    """What a push does to the shared model. Default: the workload's."""

    channel: ChannelKind | None = None
    """Where parameters travel. Default: the workload's."""

    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Same seed, same profile on the twin."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the profile goes. Default: profile.json in the workload's folder."""

    figure: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None
    """Where to draw measured against fitted; needs the extra `plot`."""

    yes: bool = False
    """Spend without asking, on the platform aws."""

    print_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the profile as JSON on stdout, and nothing else there."""


def main(
    config: ProfileConfig,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    stdin: TextIO | None = None,
    connect: Connect | None = None,
) -> int:
    """Profiles; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where results go; `sys.stdout` by default.
        stderr: Where errors and progress go; `sys.stderr` by default.
        stdin: Where an answer comes from; `sys.stdin` by default.
        connect: Makes the platform; by default the one that the user named.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    try:
        # A user's model may print: stdout is for results.
        with threadpool_limits(1), contextlib.redirect_stdout(stderr):
            profile, path = _profiled(config, connect or _connect(config), stderr, stdin or sys.stdin)
            if config.figure:
                figure(profile, config.figure)
    except SirenError as error:
        return _fail(stderr, str(error), error, error.exit_code)
    except KeyboardInterrupt as error:
        return _fail(stderr, "interrupted; no profile was written", error, StopReason.INTERRUPTED.exit_code)
    if config.print_json:
        stdout.write(profile.model_dump_json(indent=1) + "\n")
    else:
        show(profile, console_for(stdout))
        print(f"written   {path}; use it with `python -m siren.plan --profile {path}`", file=stdout)
        if config.figure:
            print(f"figure    {config.figure}", file=stdout)
    return 0


def _fail(stderr: TextIO, text: str, error: BaseException, code: int) -> int:
    """Says what went wrong, and what the error's notes say was billed."""
    print("; ".join([f"siren.profile: {text}", *getattr(error, "__notes__", [])]), file=stderr)
    return code


def _profiled(config: ProfileConfig, connect: Connect, stderr: TextIO, stdin: TextIO) -> tuple[Profile, Path]:
    check_platform(config.platform)
    if config.seed < 0:
        raise UsageError(f"--seed {config.seed}: give 0 or more")
    budget_usd = parse_budget(config.budget)
    world = load_world(config.world or WORLDS[config.platform])
    overrides = {key: getattr(config, key) for key in ("batch_rule", "update_rule", "channel")}
    workload = load_workload(config.workload, overrides=overrides)
    workload.check()
    path = config.out or workload.folder / PROFILE_FILE
    if not path.parent.is_dir():
        raise RunFolderError(f"could not write {path}: its folder is missing; choose another --out")
    cores = usable_cores() if config.platform == "local" else None
    with prepare(workload, world, connect, budget_usd, config.seed, cores) as tours:
        _agree(tours, budget_usd, stdin, stderr, asks=not config.yes)
        with progress_line(stderr, f"measuring on {config.platform}") as report:
            measured = measure(tours, budget_usd, report)
    profile = _profile_of(workload, world, measured, budget_usd, config.seed)
    try:
        Disk().replace(path, profile.model_dump_json(indent=1).encode() + b"\n")
    except OSError as error:
        raise RunFolderError(f"could not write {path}: {error.strerror}; choose another --out") from error
    return profile, path


def _connect(config: ProfileConfig) -> Connect:
    """Makes the platform that the user named, as `siren.run` does."""

    def connect(workload: Workload, world: World, seed: int) -> Selected:
        name = f"profile-{workload.name}"
        return select_platform(
            config.platform, workload, world, seed, run_name=name, deployment=config.deployment
        )

    return connect


def _agree(tours: Sequence[Tour], budget_usd: Decimal, stdin: TextIO, stderr: TextIO, *, asks: bool) -> None:
    """Where money is spent, shows what on and asks."""
    if not asks or not any(tour.platform.spends_money for tour in tours):
        return
    print(spending_plan(tours, budget_usd), file=stderr)
    if not confirm("Spend it?", stdin, stderr, otherwise="--platform local to try it without money"):
        raise UsageError("nothing was spent: run it again when you agree to the plan")


def _profile_of(
    workload: Workload, world: World, measured: Measured, budget_usd: Decimal, seed: int
) -> Profile:
    """The profile: constants first, then what they say of the points."""
    costing = make_costing(world, job_of(workload))
    bare = Profile(
        workload=workload.name,
        world=world.name,
        platform=measured.platform,
        channel=workload.spec.training.channel,
        seed=seed,
        budget_usd=f"{budget_usd:f}",
        spent_usd=f"{measured.spent_usd:f}",
        constants=fit(measured, costing),
        points=(),
        cold_starts=sum(epoch.report.cold_starts for epoch in measured.epochs if epoch.initialised),
        notes=measured.notes,
    )
    known, there = with_profile(workload, world, bare)
    fitted = make_costing(there, job_of(known))
    points, cold = _points(measured, costing, fitted), _cold(measured, costing, fitted)
    return bare.model_copy(update={"points": points, "cold": cold})


def _points(measured: Measured, assumed: Costing, fitted: Costing) -> tuple[Point, ...]:
    """The measured actions of the job's own tour."""
    groups: dict[Action, list[tuple[float, float, float]]] = {}
    for epoch in measured.warm():
        if epoch.costing.job == assumed.job:
            report = epoch.report
            groups.setdefault(report.action, []).append((report.fetch_s, report.compute_s, report.update_s))
    points = []
    for action, told in groups.items():
        n, m = action.functions, action.memory_mb
        means = [sum(column) / len(told) for column in zip(*told, strict=True)]
        points.append(
            Point(
                functions=n,
                memory_mb=m,
                epochs=len(told),
                **_named("", means),
                **_named("fitted_", expected_parts(fitted, n, m)),
                **_named("assumed_", expected_parts(assumed, n, m)),
            )
        )
    return tuple(points)


def _cold(measured: Measured, assumed: Costing, fitted: Costing) -> tuple[ColdPoint, ...]:
    """Initialisations by memory, of both tours: what is initialised is the same."""
    groups: dict[int, list[EpochReport]] = {}
    for epoch in measured.epochs:
        if epoch.initialised:
            groups.setdefault(epoch.report.action.memory_mb, []).append(epoch.report)
    points = []
    for memory_mb, reports in sorted(groups.items()):
        starts = sum(report.cold_starts for report in reports)
        points.append(
            ColdPoint(
                memory_mb=memory_mb,
                starts=starts,
                init_s=sum(report.cold_starts * report.init_s for report in reports) / starts,
                fitted_init_s=empty_init_s(fitted) + fitted.job.import_s,
                assumed_init_s=empty_init_s(assumed) + assumed.job.import_s,
            )
        )
    return tuple(points)


def _named(prefix: str, parts: Sequence[float]) -> dict[str, float]:
    fetch_s, compute_s, update_s = parts
    return {f"{prefix}fetch_s": fetch_s, f"{prefix}compute_s": compute_s, f"{prefix}update_s": update_s}


if __name__ == "__main__":
    options = (tyro.conf.EnumChoicesFromValues,)
    sys.exit(main(tyro.cli(ProfileConfig, prog="python -m siren.profile", config=options)))
