"""Train a job within a dollar budget: `python -m siren.run --budget 2.00`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TextIO

import tyro
from threadpoolctl import threadpool_limits

from siren.analysis.console import observer_for
from siren.analysis.run_folder import RunFolder, new_run_path
from siren.analysis.system import system_facts
from siren.errors import (
    ChannelError,
    DatasetError,
    LedgerError,
    PlatformError,
    RunFolderError,
    SirenError,
    UnknownNameError,
    UsageError,
    WorkloadError,
)
from siren.money.amounts import parse_budget
from siren.money.ledger import Ledger
from siren.money.price_book import load_price_book
from siren.money.pricer import Pricer, RunTotals
from siren.platforms.base import Platform
from siren.platforms.twin import TwinPlatform
from siren.policies import JobView, Policy, parse_policy
from siren.training import Limits, Trainer, preflight
from siren.twin.twin import job_of
from siren.types import BatchRule, ChannelKind, RunHeader, RunObserver, RunSummary, StopReason, UpdateRule
from siren.workloads.datasets import DatasetUnavailableError
from siren.workloads.registry import load_workload, workload_names
from siren.workloads.workload import Workload
from siren.worlds import World, load_world
from siren.worlds.costing import Costing, Outlook
from siren.worlds.laws import RULES_OF_CHANNEL, Job

log = logging.getLogger(__name__)

DEFAULT_MAX_EPOCHS = 500
DEFAULT_WORKLOAD = "mlp-mnist"
FALLBACK_WORKLOAD = "softmax-digits"
PLATFORMS = ("twin",)
LEDGER = "ledger.jsonl"


@dataclass(frozen=True)
class RunConfig:
    """Train a job to its target loss as early as a dollar budget allows.

    On the twin (the default platform) training is real, the clock and the bill are emulated, and
    no money is spent. Exit codes: 0 target reached, 1 internal error, 2 usage, 3 budget ran out
    first, 4 platform failure, 5 diverged, 6 a limit was hit, 130 interrupted.
    """

    budget: Annotated[str | None, tyro.conf.arg(metavar="USD")] = None
    """Dollars that the run may cost at most, e.g. 2.00. Required, unless --resume is given."""

    workload: Annotated[str | None, tyro.conf.arg(metavar="NAME|FOLDER")] = None
    """What to train: a folder under workloads/, or the path of your own. Default: mlp-mnist."""

    world: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = "aws-2026"
    """Prices, limits and laws of time: a file under envs/, or the path of your own."""

    platform: Annotated[str, tyro.conf.arg(metavar="NAME")] = "twin"
    """Where epochs run: twin."""

    policy: Annotated[str, tyro.conf.arg(metavar="POLICY")] = "greedy"
    """Who decides each epoch: greedy, or fixed:FUNCTIONSxMEMORY (memory in MB)."""

    target_loss: Annotated[float | None, tyro.conf.arg(metavar="LOSS")] = None
    """Held-out loss at which the job is done. Default: the workload's."""

    batch_rule: BatchRule | None = None
    """How samples become mini-batches. Default: the workload's."""

    update_rule: UpdateRule | None = None
    """What a push does to the shared model. Default: the workload's."""

    channel: ChannelKind | None = None
    """Where parameters travel. Default: the workload's."""

    seed: int = 0
    """Same seed, same run."""

    max_epochs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Most epochs. Default: 500."""

    max_time: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Most seconds on the platform's clock. Default: no limit."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The run folder. Default: a new folder under runs/."""

    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Go on with an interrupted run from its last epoch, with the same settings and ledger; only
    --max-epochs, --max-time and --json may be given with it."""

    print_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the summary as JSON on stdout, and nothing else there."""


def main(config: RunConfig, stdout: TextIO | None = None, stderr: TextIO | None = None) -> int:
    """Runs the job; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where results go; `sys.stdout` by default.
        stderr: Where errors and progress go; `sys.stderr` by default.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    try:
        # A user's model may print: stdout is for results, with --json for one object alone.
        with threadpool_limits(1), contextlib.redirect_stdout(stderr):
            summary = _resume(config, stdout, stderr) if config.resume else _start(config, stdout, stderr)
        return summary.stop_reason.exit_code
    except (UsageError, WorkloadError, DatasetError) as error:
        return _fail(stderr, error, StopReason.USAGE_ERROR)
    except (PlatformError, RunFolderError) as error:
        return _fail(stderr, error, StopReason.PLATFORM_FAILURE)
    except SirenError as error:
        return _fail(stderr, error, StopReason.INTERNAL_ERROR)
    except KeyboardInterrupt:
        return _fail(stderr, "interrupted; nothing was spent after the last epoch", StopReason.INTERRUPTED)


def _fail(stderr: TextIO, error: object, reason: StopReason) -> int:
    print(f"siren.run: {error}", file=stderr)
    return reason.exit_code


def _start(config: RunConfig, stdout: TextIO, stderr: TextIO) -> RunSummary:
    if config.budget is None:
        raise UsageError("give a budget in dollars, e.g. `python -m siren.run --budget 2.00`")
    budget_usd = parse_budget(config.budget)
    policy = parse_policy(config.policy)
    workload, notes = _load(config)
    path = config.out or new_run_path(Path("runs"), workload.name)
    run = _assemble(config, workload, policy, budget_usd, path, notes)
    preflight(policy, run.view)
    settings = {
        **_settings(config),
        "budget_usd": budget_usd,
        "workload": _reference(workload),
        "notes": list(notes),
    }
    folder = RunFolder.create(path, settings, system_facts())
    with folder.lock():
        ledger = Ledger(budget_usd, folder.path / LEDGER)
        return _train(run, folder, ledger, observer_for(config.print_json, stdout, stderr), stderr)


def _resume(config: RunConfig, stdout: TextIO, stderr: TextIO) -> RunSummary:
    assert config.resume is not None
    _check_resume(config)
    folder = RunFolder.open(config.resume)
    with folder.lock():
        saved, budget_usd, notes = _restore(folder, config)
        observer = observer_for(config.print_json, stdout, stderr)
        ledger_path = folder.path / LEDGER
        if not ledger_path.exists() and not folder.events():
            ledger = Ledger(budget_usd, ledger_path)
        else:
            ledger = _load_ledger(ledger_path, budget_usd)
        workload, _ = _load(saved)
        run = _assemble(saved, workload, parse_policy(saved.policy), budget_usd, folder.path, notes)
        return _train(run, folder, ledger, observer, stderr)


def _load_ledger(path: Path, budget_usd: Decimal) -> Ledger:
    try:
        return Ledger.load(path, budget_usd)
    except LedgerError as error:  # here the file is at fault, not Siren
        raise RunFolderError(str(error)) from error


@dataclass(frozen=True)
class _Run:
    """Everything that a config resolves to."""

    workload: Workload
    costing: Costing
    platform: Platform
    policy: Policy
    header: RunHeader
    limits: Limits
    initial: tuple[float, float]
    view: JobView


def _load(config: RunConfig) -> tuple[Workload, tuple[str, ...]]:
    """The workload, and what the user must be told about it."""
    overrides = {
        "target_loss": config.target_loss,
        "batch_rule": config.batch_rule,
        "update_rule": config.update_rule,
        "channel": config.channel,
    }
    if config.workload is not None:
        return load_workload(config.workload, overrides=overrides), ()
    try:
        return load_workload(DEFAULT_WORKLOAD, overrides=overrides), ()
    except DatasetUnavailableError as error:
        log.info("%s", error)
        note = (
            f"MNIST cannot be fetched here, so {FALLBACK_WORKLOAD} is trained instead of {DEFAULT_WORKLOAD}"
        )
        return load_workload(FALLBACK_WORKLOAD, overrides={**overrides, "target_loss": None}), (note,)


def _assemble(
    config: RunConfig,
    workload: Workload,
    policy: Policy,
    budget_usd: Decimal,
    path: Path,
    notes: tuple[str, ...],
) -> _Run:
    if config.platform not in PLATFORMS:
        raise UnknownNameError("platform", config.platform, PLATFORMS)
    limits = _limits(config, workload)
    world = load_world(config.world)
    costing = make_costing(world, job_of(workload))
    platform = TwinPlatform(workload, costing, config.seed)
    initial = platform.start()
    training = workload.spec.training
    header = RunHeader(
        workload=workload.name,
        title=workload.spec.title,
        dataset=workload.dataset.description,
        world=world.name,
        platform=platform.name,
        policy=policy.name,
        batch_rule=training.batch_rule,
        update_rule=training.update_rule,
        channel=training.channel,
        seed=config.seed,
        budget_usd=budget_usd,
        target_loss=training.target_loss,
        max_epochs=limits.max_epochs,
        spends_money=platform.spends_money,
        folder=str(path),
        notes=notes,
    )
    view = JobView(costing, platform, training, initial[0], Outlook(0.0, 1, RunTotals(), budget_usd))
    return _Run(workload, costing, platform, policy, header, limits, initial, view)


def make_costing(world: World, job: Job) -> Costing:
    """The laws and prices of a job in a world.

    Raises:
        ChannelError: The update rule and the channel do not go together.
        PriceError: The world names a region, architecture or cache node without a known price.
    """
    store = world.channels.get(job.channel)
    if store is None:
        raise ChannelError(
            f"world {world.name} has no channel {job.channel}: choose one of {', '.join(world.channels)}"
        )
    if job.update_rule not in RULES_OF_CHANNEL[job.channel]:
        rules = ", ".join(sorted(RULES_OF_CHANNEL[job.channel]))
        raise ChannelError(
            f"update rule {job.update_rule} cannot run over channel {job.channel}, which has no atomic add: "
            f"choose --channel redis, or --update-rule {rules}"
        )
    if job.model_bytes > store.max_bytes:
        raise ChannelError(
            f"the model has {job.model_bytes:,} bytes, channel {job.channel} carries at most "
            f"{store.max_bytes:,}: choose another channel"
        )
    billing = world.billing
    pricer = Pricer(
        load_price_book(),
        region=billing.region,
        architecture=billing.architecture,
        granularity_ms=billing.granularity,
        init_billed=billing.init_billed,
        cache_node=store.node or None,
    )
    return Costing(world, job, pricer)


def _limits(config: RunConfig, workload: Workload) -> Limits:
    max_epochs = DEFAULT_MAX_EPOCHS if config.max_epochs is None else config.max_epochs
    if max_epochs < 1:
        raise UsageError(f"--max-epochs {max_epochs} must be 1 or more")
    max_time = math.inf if config.max_time is None else config.max_time
    if not max_time > 0:
        raise UsageError(f"--max-time {max_time} must be a positive number of seconds")
    if config.seed < 0:
        raise UsageError(f"--seed {config.seed} must be 0 or more")
    return Limits(workload.spec.training.target_loss, max_epochs, max_time)


def _train(run: _Run, folder: RunFolder, ledger: Ledger, observer: RunObserver, stderr: TextIO) -> RunSummary:
    trainer = Trainer(
        platform=run.platform,
        policy=run.policy,
        costing=run.costing,
        training=run.workload.spec.training,
        ledger=ledger,
        folder=folder,
        observer=observer,
        header=run.header,
        limits=run.limits,
        layout=run.workload.model.layout,
        initial=run.initial,
    )
    with _interruptible(trainer, stderr), contextlib.closing(run.platform):
        return trainer.run()


@contextlib.contextmanager
def _interruptible(trainer: Trainer, stderr: TextIO) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run after its epoch, the second at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if trainer.interrupted:
            raise KeyboardInterrupt
        trainer.interrupted = True
        print("siren.run: ending after this epoch; press Ctrl-C again to drop it", file=stderr)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reference(workload: Workload) -> str:
    """What `--workload` takes to find the same workload again."""
    return workload.name if workload.name in workload_names() else str(workload.folder)


def _settings(config: RunConfig) -> dict[str, Any]:
    """The config as JSON, without what belongs to one process."""
    settings = dataclasses.asdict(config)
    for key in ("budget", "out", "resume", "print_json"):
        del settings[key]
    if config.world.endswith(".toml"):  # a resumed run may start in another folder
        settings["world"] = str(Path(config.world).resolve())
    return settings


def _check_resume(config: RunConfig) -> None:
    free = {"resume", "max_epochs", "max_time", "print_json"}
    for field in dataclasses.fields(config):
        if field.name not in free and getattr(config, field.name) != field.default:
            name = field.name.replace("_", "-")
            raise UsageError(f"--{name} cannot be changed on --resume: leave it out, or start a new run")


def _restore(folder: RunFolder, config: RunConfig) -> tuple[RunConfig, Decimal, tuple[str, ...]]:
    """The saved config, with what may change on resume; the budget; the notes."""
    settings = dict(folder.config)
    try:
        budget_usd, notes = settings.pop("budget_usd"), tuple(settings.pop("notes"))
        for key, kind in (("batch_rule", BatchRule), ("update_rule", UpdateRule), ("channel", ChannelKind)):
            settings[key] = kind(settings[key]) if settings[key] is not None else None
        saved = RunConfig(**settings)
        _check_types(saved, budget_usd, notes)
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{folder.path}/config.json is damaged ({error}): start a new run") from error
    given = {key: getattr(config, key) for key in ("max_epochs", "max_time")}
    changed = {key: value for key, value in given.items() if value is not None}
    return dataclasses.replace(saved, **changed), budget_usd, notes


def _check_types(saved: RunConfig, budget_usd: object, notes: tuple[object, ...]) -> None:
    """Refuses values that `_settings` cannot have written."""
    number = int | float | None
    kinds: dict[str, Any] = {"workload": str, "world": str, "platform": str, "policy": str, "seed": int}
    kinds |= {"max_epochs": int | None, "max_time": number, "target_loss": number}
    for key, kind in kinds.items():
        if not isinstance(getattr(saved, key), kind):
            raise TypeError(f"{key} is {getattr(saved, key)!r}")
    if not (isinstance(budget_usd, Decimal) and budget_usd > 0):
        raise TypeError(f"budget_usd is {budget_usd!r}")
    if not all(isinstance(note, str) for note in notes):
        raise TypeError(f"notes is {notes!r}")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(RunConfig, prog="python -m siren.run", config=(tyro.conf.EnumChoicesFromValues,))))
