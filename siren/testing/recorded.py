"""Run folders of simulated jobs, written by the real trainer."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

from siren.analysis.run_folder import RunFolder
from siren.analysis.system import system_facts
from siren.loop import Limits
from siren.money import Ledger
from siren.money.pricer import RunTotals
from siren.policies import FixedPolicy, JobView
from siren.settings import RunSettings
from siren.simulator.job import SimulatedJob
from siren.simulator.platform import SimulatedPlatform, training_of
from siren.training import Trainer
from siren.types import Action, RunHeader, RunObserver
from siren.worlds.costing import Outlook

BUDGET = Decimal(100)


def record(path: Path, job: SimulatedJob, functions: int, *, seed: int = 0, max_epochs: int = 30) -> Path:
    """Runs a simulated job with a fixed action; the run folder."""
    spec, training = job.spec, training_of(job)
    costing, platform = spec.costing, SimulatedPlatform(job, seed)
    initial = platform.start()
    policy = FixedPolicy(Action(functions, spec.memory_ref_mb))
    view = JobView(costing, platform, training, initial[0], Outlook(0.0, 1, RunTotals(), BUDGET))
    policy.start(view)
    resolved = {
        "workload": {"training": training.model_dump(mode="json")},
        "world": costing.world.model_dump(mode="json"),
        "job": asdict(costing.job),
    }
    settings = RunSettings(budget_usd=BUDGET, workload="simulated", resolved=resolved)
    header = RunHeader(
        workload="simulated",
        title="",
        dataset="",
        world=costing.world.name,
        platform=platform.name,
        policy=policy.name,
        batch_rule=training.batch_rule,
        update_rule=training.update_rule,
        channel=training.channel,
        seed=seed,
        budget_usd=BUDGET,
        target_loss=training.target_loss,
        max_epochs=max_epochs,
        spends_money=False,
        folder=str(path),
    )
    folder = RunFolder.create(path, settings.to_json(), system_facts())
    with folder.lock():
        Trainer(
            platform=platform,
            policy=policy,
            view=view,
            ledger=Ledger(BUDGET, path / "ledger.jsonl"),
            folder=folder,
            observer=RunObserver(),
            header=header,
            limits=Limits(training.target_loss, max_epochs),
            layout={"modes": platform.params.shape},
            initial=initial,
        ).run()
    return path
