"""What the settings of a run resolve to: workload, platform, policy and what they are told of the job."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from siren.errors import BudgetError
from siren.loop import Limits
from siren.money.pricer import RunTotals
from siren.platforms.base import Platform
from siren.platforms.select import select_platform
from siren.policies import FixedPolicy, JobView, Policy, Safeguard, Safety
from siren.policies.agent import absolute_agent
from siren.rehearsal.job import RehearsedJob
from siren.rehearsal.show import summary_line
from siren.rehearsal.stage import Candidate
from siren.rehearsal.store import resolved_job
from siren.rehearsal.workers import StageSettings
from siren.settings import RunSettings
from siren.types import RunHeader
from siren.workloads.datasets import DatasetUnavailableError
from siren.workloads.registry import load_workload, workload_names
from siren.workloads.workload import Workload
from siren.worlds import World
from siren.worlds.costing import Costing, Outlook, make_costing

log = logging.getLogger(__name__)

DEFAULT_WORKLOAD = "mlp-mnist"
FALLBACK_WORKLOAD = "softmax-digits"
"""What is trained where the default's data set cannot be had."""


@dataclass(frozen=True)
class Assembled:
    """A run that has not begun.

    Attributes:
        workload: What is trained.
        costing: Its laws and prices.
        platform: Where epochs run; started, to be closed by the caller.
        policy: What decides.
        header: What the user is told the run is.
        limits: Where it stops.
        initial: Held-out (loss, accuracy) of the initial model.
        view: The job as the policy sees it before the first epoch.
    """

    workload: Workload
    costing: Costing
    platform: Platform
    policy: Policy
    header: RunHeader
    limits: Limits
    initial: tuple[float, float]
    view: JobView


def find_workload(settings: RunSettings, *, may_fall_back: bool) -> tuple[Workload, tuple[str, ...]]:
    """The workload, and what the user must be told about it.

    Args:
        settings: Of the run.
        may_fall_back: Take `FALLBACK_WORKLOAD` where the data set cannot be had.

    Raises:
        UnknownNameError, WorkloadError, MissingExtraError, DatasetError: See `load_workload`.
    """
    try:
        return load_workload(settings.workload, overrides=settings.overrides), ()
    except DatasetUnavailableError as error:
        if not may_fall_back:
            raise
        log.info("%s", error)
        note = (
            f"MNIST cannot be fetched here, so {FALLBACK_WORKLOAD} is trained instead of {DEFAULT_WORKLOAD}"
        )
        overrides = {**settings.overrides, "target_loss": None}
        return load_workload(FALLBACK_WORKLOAD, overrides=overrides), (note,)


def pinned(settings: RunSettings, workload: Workload, world: World, notes: tuple[str, ...]) -> RunSettings:
    """The settings as a run folder keeps them: they name the same job in every working folder.

    Args:
        settings: As the user gave them.
        workload, notes: What `find_workload` returned.
        world: What they name.
    """
    changes: dict[str, Any] = {
        "workload": workload.name if workload.name in workload_names() else str(workload.folder),
        "world": str(Path(settings.world).resolve()) if settings.world.endswith(".toml") else settings.world,
        "policy": absolute_agent(settings.policy) if "/" in settings.policy else settings.policy,
        "notes": notes,
        "resolved": resolved_job(workload, world),
    }
    if notes:  # the target was meant for another job
        changes["target_loss"] = None
    return settings.model_copy(update=changes)


def safety_of(settings: RunSettings) -> Safety:
    """The safeguards that are on.

    Raises:
        UnknownNameError: There is no such safeguard.
    """
    return Safety() if settings.safety is None else Safety.parse(settings.safety)


def assemble(
    settings: RunSettings, workload: Workload, policy: Policy, world: World, path: Path
) -> Assembled:
    """The run, on a platform that it starts.

    Args:
        settings: Of the run.
        workload, policy, world: What they name.
        path: The run folder, which need not exist.

    Raises:
        ChannelError, PriceError, WorldError, UsageError, PlatformError: See `select_platform`.
    """
    selected = select_platform(
        settings.platform,
        workload,
        world,
        settings.seed,
        run_name=path.name,
        deployment=settings.deployment,
    )
    platform, costing = selected.platform, selected.costing
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
        seed=settings.seed,
        budget_usd=settings.budget_usd,
        target_loss=training.target_loss,
        max_epochs=settings.max_epochs,
        spends_money=platform.spends_money,
        folder=str(path),
        notes=(*selected.notes, *settings.notes),
    )
    max_time_s = math.inf if settings.max_time is None else settings.max_time
    limits = Limits(training.target_loss, settings.max_epochs, max_time_s)
    view = JobView(costing, platform, training, initial[0], Outlook(0.0, 1, RunTotals(), settings.budget_usd))
    return Assembled(workload, costing, platform, policy, header, limits, initial, view)


def rehearsed(run: Assembled, settings: RunSettings, stderr: TextIO) -> tuple[Assembled, RunSettings]:
    """The run and its settings, with what a rehearsal chose.

    Args:
        run: What is rehearsed.
        settings: As `pinned`.
        stderr: Where progress goes.
    """
    agents = None if settings.policy == "agent" else [settings.policy]
    stage = StageSettings(settings.workload, settings.overrides, settings.world, 1.0)
    costing = make_costing(run.costing.world, run.costing.job)  # the twin launches nothing again
    job = RehearsedJob(run.workload, costing, stage, settings.budget_usd, settings.resolved, agents)
    choice: dict[str, Any] = {}
    try:
        found, known = job.rehearse(settings.rehearse, stderr)
        chosen = found.choice
        if agents:  # the user chose: the rehearsal only finds what it acts relative to
            chosen = Candidate(settings.policy, agent=settings.policy, reference=found.reference)
        choice, note = chosen.to_json(), summary_line(found, chosen, known)
    except BudgetError as error:
        note = f"the rehearsal found nothing: {error}"
    notes = (*settings.notes, note)
    settings = settings.model_copy(update={"choice": choice, "notes": notes})
    return replace(run, header=replace(run.header, notes=(*run.header.notes, note))), settings


def with_policy(run: Assembled, settings: RunSettings) -> Assembled:
    """The run with what its rehearsal chose, if there was one, inside its safeguards; the policy is started.

    Args:
        run: As assembled.
        settings: As they are after the rehearsal.
    """
    policy, safety = run.policy, safety_of(settings)
    if settings.choice:
        policy = Safeguard(Candidate.from_json(settings.choice).policy(), safety)
    elif settings.safety is not None or not isinstance(policy, FixedPolicy):
        policy = Safeguard(policy, safety)
    policy.start(run.view)
    return replace(run, policy=policy)
