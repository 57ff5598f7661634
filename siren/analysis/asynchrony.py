"""The physics of asynchronous SGD: one epoch looked at closely, what theory predicts, jobs that show it."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.hsp import quotas
from siren.twin.twin import Twin, job_of
from siren.types import Action, BatchRule, ChannelKind, EpochReport, UpdateRule
from siren.workloads.protocol import Dataset
from siren.workloads.registry import load_workload
from siren.workloads.workload import Workload
from siren.worlds import events, laws, load_world
from siren.worlds.costing import Costing, EpochPlan, make_costing

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PARTS = ("start", "load", "fetch", "compute", "update", "wait")
"""What a function's time until the barrier is made of."""


# --- one epoch -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timeline:
    """What every function of an epoch did, and how old the model was that every update started from.

    Attributes:
        parts_s: (n, 6) Seconds of each function, as in `PARTS`; all rows add up to `barrier_s`.
        barrier_s: When the last function had ended.
        staleness: (updates,) Updates by others between reading the model and being applied, in the order
            of application; 0 under rules with a barrier.
        report: What the platform told.
    """

    parts_s: Floats
    barrier_s: float
    staleness: Ints
    report: EpochReport


class _Watched(Twin):
    """A twin that keeps how the last epoch went."""

    starts: events.Starts
    trace: events.Trace

    def _events(
        self,
        action: Action,
        split: quotas.Quotas,
        starts: events.Starts,
        now: laws.EpochLaws,
        rng: np.random.Generator,
    ) -> events.Trace:
        self.starts, self.trace = starts, super()._events(action, split, starts, now, rng)
        return self.trace


def watch_epoch(workload: Workload, costing: Costing, plan: EpochPlan, seed: int) -> Timeline:
    """Runs the first epoch of a job in the twin and tells what each function did.

    Args:
        workload: The job.
        costing: Its laws and prices.
        plan: The action, the timeout and the deadline.
        seed: Seed of the run.
    """
    twin = _Watched(workload, costing, seed)
    told = twin.run_epoch(plan)
    starts, trace = twin.starts, twin.trace
    began_s = starts.limit_s - plan.deadline_s
    known = [began_s, starts.ready_s - began_s, trace.fetch_s, trace.compute_s, trace.update_s]
    parts_s = np.stack([*known, trace.barrier_s - np.sum(known, axis=0)], axis=1)
    free = costing.job.update_rule not in laws.BARRIER_RULES
    staleness = np.arange(len(trace.push)) - trace.read_version if free else np.zeros(len(trace.push))
    return Timeline(parts_s, trace.barrier_s, staleness.astype(np.int64), told)


# --- what theory predicts --------------------------------------------------------------------------


def predicted_cliff(learning_rate: float, curvature: float, scale: float = math.inf) -> float:
    """Functions beyond which delayed updates diverge; infinite where damping prevents it.

    Gradient descent with rate lr on a curvature L that is d steps old is stable while lr L d < pi / 2
    (the delay equation x' = -a x(t - d); Hayes 1950), and with n functions an update is about n - 1 old.

    Args:
        learning_rate: lr.
        curvature: L, the Hessian's largest eigenvalue.
        scale: Of the damping of `siren.hsp.rules.damped_rate`; infinite for none.
    """
    delay = math.pi / (2 * learning_rate * curvature)
    return 1 + delay / (1 - delay / scale) if scale > delay else math.inf


def logistic_optimum(features: NDArray[Any], labels: NDArray[Any]) -> tuple[Floats, float]:
    """The best logistic model (weights, intercept last) and the Hessian's largest eigenvalue there.

    Args:
        features: (samples, inputs).
        labels: (samples,), 0 or 1.
    """
    x = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    w = np.zeros(x.shape[1])
    hessian = np.eye(len(w))
    for _ in range(10):  # Newton's method
        p = 1 / (1 + np.exp(-x @ w))
        hessian = (x * (p * (1 - p))[:, None]).T @ x / len(x)
        w = w - np.linalg.solve(hessian, x.T @ (p - labels) / len(x))
    return w, float(np.linalg.eigvalsh(hessian)[-1])


# --- jobs that show it -----------------------------------------------------------------------------


def changed_workload(workload: Workload, data: Dataset | None = None, **training: Any) -> Workload:
    """The workload with other training settings, or other data of its kind.

    Args:
        workload: The workload; it stays as it is.
        data: Other data; its own by default.
        training: Entries of `siren.workloads.spec.TrainingSpec`.

    Raises:
        ValueError: An unknown entry, or a value that a workload may not have.
    """
    spec = workload.spec
    changed = type(spec.training).model_validate(spec.training.model_dump() | training)
    spec = spec.model_copy(update={"training": changed})
    if data is None:
        return Workload(workload.name, spec, workload.model, workload.dataset, workload.folder)
    model = type(workload.model)(data.feature_shape, data.classes, **spec.model.settings)  # type: ignore[call-arg]
    return Workload(workload.name, spec, model, data, workload.folder)


def changed_costing(workload: Workload, world: str = "aws-2026", **job: Any) -> Costing:
    """Laws and prices of a workload in a world, with other constants of the job.

    Args:
        workload: What is trained.
        world: Name or file of the world.
        job: Attributes of `siren.worlds.laws.Job`.
    """
    return make_costing(load_world(world), dataclasses.replace(job_of(workload), **job))


def floor_limited_data(
    samples: int, inputs: int = 28, power: float = 0.7, heldout: int = 4000, seed: int = 0
) -> tuple[Dataset, Floats]:
    """Gaussian features whose variances fall as i^-power, labels of a logistic model, and that model.

    The held-out labels are the true probabilities, so the held-out loss is least at the true model
    and no schedule wins by luck with a small split.
    """
    rng = np.random.default_rng(seed)
    spread = np.arange(1, inputs + 1) ** (-power / 2)
    features = (rng.normal(size=(samples + heldout, inputs)) * spread).astype(np.float32)
    truth = rng.normal(size=inputs) / spread
    truth /= np.linalg.norm(truth * spread)
    labels = 1 / (1 + np.exp(-features @ truth))
    labels[:samples] = rng.random(samples) < labels[:samples]
    labels = labels.astype(np.float32)
    data = Dataset(
        features[:samples],
        labels[:samples],
        features[samples:],
        labels[samples:],
        2,
        "generated: logistic labels of Gaussian features",
    )
    return data, np.append(truth, 0.0)


@functools.cache
def floor_limited_job() -> tuple[Workload, float, float]:
    """(workload, its least possible held-out loss, its largest curvature) of a job near its noise floor.

    Under the batch rule `split` an epoch of n functions makes 4 n updates on 25,600 / (4 n) samples: more
    functions make more but noisier updates.
    """
    data, truth = floor_limited_data(102_400)
    workload = changed_workload(
        load_workload("logreg-higgs", overrides={"samples_per_epoch": 25_600}),
        data,
        batch_rule=BatchRule.SPLIT,
        pushes_per_function=4,
        learning_rate=0.08,
        channel=ChannelKind.REDIS,
        update_rule=UpdateRule.ADDITIVE,
    )
    _, curvature = logistic_optimum(data.train_features, data.train_labels)
    return workload, workload.evaluate(truth.astype(np.float32))[0], curvature
