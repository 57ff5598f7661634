"""Train a job within a dollar budget: `python -m siren.run --budget 2.00`."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Annotated, TextIO

import tyro
from threadpoolctl import threadpool_limits

from siren.analysis.console import Held, observer_for
from siren.analysis.page.write import leave_report
from siren.analysis.run_folder import RunFolder, new_run_path
from siren.analysis.spending import spending_plan
from siren.analysis.system import system_facts
from siren.assembly import (
    DEFAULT_WORKLOAD,
    Assembled,
    assemble,
    find_workload,
    pinned,
    rehearsed,
    safety_of,
    with_policy,
)
from siren.errors import LedgerError, RunFolderError, SirenError, UsageError
from siren.loop import JobLoop
from siren.money.amounts import parse_budget
from siren.money.ledger import Ledger
from siren.platforms.aws.confirm import confirm
from siren.platforms.manager.platform import FunctionPlatform
from siren.platforms.select import WORLDS, check_platform, facts_of
from siren.policies import AgentPolicy, Policy, Safeguard, parse_policy
from siren.rehearsal.store import resolved_job
from siren.settings import RunSettings, check_unchanged, given_settings, resolved_agent, saved_settings
from siren.training import Trainer, preflight
from siren.types import (
    BatchRule,
    ChannelKind,
    RunObserver,
    RunSummary,
    StopReason,
    UpdateRule,
)
from siren.worlds import World, load_world

LEDGER = "ledger.jsonl"

NOT_SETTINGS = ("budget", "out", "resume", "compare", "yes", "print_json")
"""Options that do not decide a run's course."""

RESUMABLE = ("resume", "compare", "max_epochs", "max_time", "yes", "print_json")
"""Options that may be given with --resume."""


@dataclass(frozen=True)
class RunConfig:
    """Train a job to its target loss as early as a dollar budget allows.

    On the twin (the default platform) training is real, the clock and the bill are emulated, and
    no money is spent. `local` runs real functions through AWS's own interfaces on this machine, in
    wall-clock time; `aws` runs them in your account, for money. Exit codes: 0 target reached,
    1 internal error, 2 usage, 3 budget ran out first, 4 platform failure, 5 diverged, 6 a limit was hit,
    130 interrupted.
    """

    budget: Annotated[str | None, tyro.conf.arg(metavar="USD")] = None
    """Dollars that the run may cost at most, e.g. 2.00. Required, unless --resume is given."""

    workload: Annotated[str | None, tyro.conf.arg(metavar="NAME|FOLDER")] = None
    """What to train: a folder under workloads/, or the path of your own. Default: mlp-mnist."""

    world: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE")] = None
    """Prices, limits and laws of time: a file under envs/, or the path of your own. Default:
    aws-2026; on the platform local: local."""

    platform: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Where epochs run: twin, local (real functions on this machine; needs the extra `local`) or aws (your
    account, see siren.deploy; needs the extra `aws`). Default: twin."""

    deployment: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Which deployment of siren.deploy the platform aws uses. Default: siren."""

    policy: Annotated[str | None, tyro.conf.arg(metavar="POLICY")] = None
    """Who decides each epoch: agent (rehearsal chooses among the learned policies that ship and the best
    fixed action), agents/NAME (that one), greedy, or fixed:FUNCTIONSxMEMORY (memory in MB).
    Default: agent."""

    rehearse: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Real seconds to rehearse the job in the twin before a learned policy runs it; costs no money, and
    is kept for next time. 0 for none. Default: 20."""

    safety: Annotated[str | None, tyro.conf.arg(metavar="all|none|LIST")] = None
    """Safeguards around the policy: any of cap, reserve, back_off, roll_back, separated by commas; a
    policy given as fixed:... has none unless this is. Default: all."""

    target_loss: Annotated[float | None, tyro.conf.arg(metavar="LOSS")] = None
    """Held-out loss at which the job is done. Default: the workload's."""

    batch_rule: BatchRule | None = None
    """How samples become mini-batches. Default: the workload's."""

    update_rule: UpdateRule | None = None
    """What a push does to the shared model. Default: the workload's."""

    channel: ChannelKind | None = None
    """Where parameters travel. Default: the workload's."""

    seed: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Same seed, same run. Default: 0."""

    max_epochs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Most epochs. Default: 500."""

    max_time: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """No epoch starts after so many seconds on the platform's clock. Default: no limit."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The run folder. Default: a new folder under runs/."""

    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Go on with an interrupted run from its last epoch, with the same settings and ledger; only
    --max-epochs, --max-time, --compare, --yes and --json may be given with it."""

    compare: bool = False
    """At the end, print how the run compares with the best fixed action in hindsight and with a lower
    bound; on the twin only. Takes as long as some 40 runs, and costs no money."""

    yes: bool = False
    """Spend without asking, on the platform aws."""

    print_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the summary as JSON on stdout, and nothing else there."""


def main(
    config: RunConfig,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    stdin: TextIO | None = None,
) -> int:
    """Runs the job; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where results go; `sys.stdout` by default.
        stderr: Where errors and progress go; `sys.stderr` by default.
        stdin: Where an answer comes from; `sys.stdin` by default.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    terminal = _Terminal(stdout, stderr, stdin or sys.stdin)
    try:
        # A user's model may print: stdout is for results, with --json for one object alone.
        with threadpool_limits(1), contextlib.redirect_stdout(stderr):
            summary = _resume(config, terminal) if config.resume else _start(config, terminal)
        if config.print_json and summary.stop_reason in (StopReason.USAGE_ERROR, StopReason.PLATFORM_FAILURE):
            _fail(stderr, summary.stop_detail, summary.stop_reason.exit_code)
        return summary.stop_reason.exit_code
    except SirenError as error:
        return _fail(stderr, error, error.exit_code)
    except KeyboardInterrupt:
        return _fail(
            stderr, "interrupted; nothing was spent after the last epoch", StopReason.INTERRUPTED.exit_code
        )


def _fail(stderr: TextIO, error: object, code: int) -> int:
    print(f"siren.run: {error}", file=stderr)
    return code


@dataclass(frozen=True)
class _Terminal:
    """Where results and progress go, and where answers come from."""

    stdout: TextIO
    stderr: TextIO
    stdin: TextIO


def _start(config: RunConfig, terminal: _Terminal) -> RunSummary:
    if config.budget is None:
        raise UsageError("give a budget in dollars, e.g. `python -m siren.run --budget 2.00`")
    options = {k: v for k, v in vars(config).items() if k not in NOT_SETTINGS and v is not None}
    world_name = WORLDS.get(config.platform or "twin")
    defaults = {"workload": DEFAULT_WORKLOAD, "world": world_name}
    settings = given_settings({**defaults, **options, "budget_usd": parse_budget(config.budget)})
    out = config.out
    if out is not None and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise UsageError(f"--out {out} is taken: name a folder that does not exist yet")
    policy, world = _check(settings, config)
    workload, notes = find_workload(settings, may_fall_back=config.workload is None)
    path = config.out or new_run_path(Path("runs"), workload.name)
    settings = pinned(settings, workload, world, notes)
    run = assemble(settings, workload, policy, world, path)
    with contextlib.closing(run.platform):
        preflight(policy, run.view)
        if isinstance(policy, AgentPolicy) and settings.rehearse > 0:
            run, settings = rehearsed(run, settings, terminal.stderr)
        settings = settings.model_copy(update={"resolved": {**settings.resolved, **resolved_agent(settings)}})
        run = with_policy(run, settings)
        _launch(run, terminal, Ledger(settings.budget_usd), asks=not config.yes)
        folder = RunFolder.create(path, settings.to_json(), {**system_facts(), **facts_of(run.platform)})
        with folder.lock():
            ledger = Ledger(settings.budget_usd, folder.path / LEDGER)
            return _train(run, folder, ledger, config, terminal)


def _launch(
    run: Assembled, terminal: _Terminal, ledger: Ledger, folder: RunFolder | None = None, *, asks: bool
) -> None:
    """Makes the platform ready; where it spends money, only after the user has seen what and agreed.

    Args:
        run: What is launched.
        terminal: Where the user is asked.
        ledger: The account.
        folder: Of a run that goes on.
        asks: Whether to ask at all.
    """
    if run.platform.spends_money and asks:
        _agree(run, terminal, ledger, folder)
    if isinstance(run.platform, FunctionPlatform):
        run.platform.connect()


def _agree(run: Assembled, terminal: _Terminal, ledger: Ledger, folder: RunFolder | None) -> None:
    """Shows what is about to be spent, and asks; the policy then begins as if it had not been asked."""
    begun = run.view.outlook
    loop = JobLoop(run.platform, run.policy, run.view, ledger, run.limits, run.initial)
    records = folder.events(outside_usd=ledger.bill["unconfirmed"]) if folder else ()
    if folder and records:
        tensors, state = folder.read_checkpoint(len(records))
        run.platform.restore(tensors, state["platform"])
        loop.resume(list(records), loop.progress, run.platform.params)
    print(spending_plan(run.header, loop), file=terminal.stderr)
    otherwise = "--platform local to try it without money"
    if not confirm("Spend it?", terminal.stdin, terminal.stderr, otherwise=otherwise):
        raise UsageError("nothing was spent: run it again when you agree to the plan")
    run.view.outlook = begun
    run.view.learn(())
    run.policy.start(run.view)


def _resume(config: RunConfig, terminal: _Terminal) -> RunSummary:
    assert config.resume is not None
    for key, value in vars(config).items():
        if key not in RESUMABLE and value is not None:
            option = key.replace("_", "-")
            raise UsageError(f"--{option} cannot be changed on --resume: leave it out, or start a new run")
    if not config.resume.is_dir():
        raise UsageError(f"--resume {config.resume}: there is no such run folder; look under runs/")
    folder = RunFolder.open(config.resume)
    changes = {"max_epochs": config.max_epochs, "max_time": config.max_time}
    settings = saved_settings(folder.config, str(folder.path), changes)
    with folder.lock():
        ledger_path = folder.path / LEDGER
        if not ledger_path.exists() and not folder.events():
            ledger = Ledger(settings.budget_usd, ledger_path)
        else:
            ledger = _load_ledger(ledger_path, settings.budget_usd)
        policy, world = _check(settings, config)
        workload, _ = find_workload(settings, may_fall_back=False)
        now = {**resolved_job(workload, world), **resolved_agent(settings)}
        check_unchanged(settings, now, folder.path)
        run = assemble(settings, workload, policy, world, folder.path)
        with contextlib.closing(run.platform):
            run = with_policy(run, settings)
            _launch(run, terminal, ledger, folder, asks=not config.yes)
            return _train(run, folder, ledger, config, terminal)


def _check(settings: RunSettings, config: RunConfig) -> tuple[Policy, World]:
    """What can be refused before data is loaded."""
    check_platform(settings.platform)
    if config.compare and settings.platform != "twin":
        raise UsageError(
            f"--compare plays the job many times, which only the twin does for nothing: leave it out on the "
            f"platform {settings.platform}, or compare a run of the same job with --platform twin"
        )
    safety_of(settings)
    return parse_policy(settings.policy), load_world(settings.world)


def _load_ledger(path: Path, budget_usd: Decimal) -> Ledger:
    try:
        return Ledger.load(path, budget_usd)
    except LedgerError as error:  # here the file is at fault, not Siren
        raise RunFolderError(str(error)) from error


def _train(
    run: Assembled, folder: RunFolder, ledger: Ledger, config: RunConfig, terminal: _Terminal
) -> RunSummary:
    shown = observer_for(config.print_json, terminal.stdout, terminal.stderr)
    observer = shown
    if config.compare:
        from siren.evaluation.comparison import compared

        observer = Held(shown)
    if isinstance(run.platform, FunctionPlatform):
        run.platform.tell = observer.note
    trainer = Trainer(
        platform=run.platform,
        policy=run.policy,
        view=run.view,
        ledger=ledger,
        folder=folder,
        observer=observer,
        header=run.header,
        limits=run.limits,
        layout=run.workload.model.layout,
        initial=run.initial,
        roll_back=isinstance(run.policy, Safeguard) and run.policy.safety.roll_back,
    )
    with _interruptible(trainer, observer, terminal.stderr):
        summary = trainer.run()
    if config.compare:
        summary = compared(summary, run.workload, run.costing, terminal.stderr)
        if summary.comparison:
            folder.write_summary(summary)
            leave_report(folder, folder.events(outside_usd=ledger.bill["unconfirmed"]), summary)
        shown.finished(summary)
    return summary


@contextlib.contextmanager
def _interruptible(trainer: Trainer, observer: RunObserver, stderr: TextIO) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run after its epoch, the second at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if trainer.ended:
            return
        if trainer.interrupted and not trainer.committing:
            raise KeyboardInterrupt
        trainer.interrupted = True
        text = "siren.run: ending after this epoch; interrupt again to drop it"
        if stderr.isatty():
            observer.note(text)  # the live table must not be written over
        else:
            print(text, file=stderr)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    exit_code = main(
        tyro.cli(RunConfig, prog="python -m siren.run", config=(tyro.conf.EnumChoicesFromValues,))
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is written; only the interpreter has to end
    sys.exit(exit_code)
