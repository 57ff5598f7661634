"""The schema of `workload.toml`: everything that a workload states about itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from siren.types import BatchRule, ChannelKind, UpdateRule

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetSpec(_Section):
    """Which data to train on.

    Attributes:
        source: A loader that Siren ships (a key of `siren.workloads.datasets.LOADERS`), or
            `model.py`: then `load_dataset(**settings)` in the workload's `model.py` returns
            (train_features, train_labels, heldout_features, heldout_labels).
        settings: Keyword arguments for the loader.
        shuffle_seed: Seed of the one shuffle after which the training set is stored in shards.
        heldout: What the held-out split is, in words.
        licence: The data's own licence, in words.
    """

    source: str
    settings: dict[str, Any] = Field(default_factory=dict)
    shuffle_seed: int = 0
    heldout: str
    licence: str


class ModelSpec(_Section):
    """How to build the model from `model.py`.

    Attributes:
        adapter: `numpy`: `model.py` defines `Model`, see `siren.workloads.protocol`. `torch`: it
            defines `build(feature_shape, classes, **settings) -> torch.nn.Module`.
        settings: Keyword arguments for `Model` or `build`.
    """

    adapter: Literal["numpy", "torch"] = "numpy"
    settings: dict[str, Any] = Field(default_factory=dict)


class TrainingSpec(_Section):
    """How the model is trained.

    Attributes:
        target_loss: Held-out loss at which the job is done.
        samples_per_epoch: S, samples in one pass; 0 means the whole training set.
        batch_rule: `constant` or `split` (docs/explanation/hsp.md).
        batch_size: b, samples of one push under `constant`; it must divide S.
        pushes_per_function: k, pushes of one function in an epoch under `split`.
        update_rule: What a push does to the shared model.
        channel: Where parameters travel.
        optimizer: `sgd`. Momentum and Adam are refused: what their state means when pushes are
            asynchronous is not defined yet.
        learning_rate: Step size of SGD for a push of `batch_size` samples.
        learning_rate_steps: (epoch, factor) pairs: from that epoch on the rate is multiplied by
            the factor, cumulatively.
        split_learning_rate: How the rate follows the batch under `split`, relative to `batch_size`:
            `none`, `sqrt` or `linear`.
        staleness_scale: Under `staleness` the rate is divided by 1 + staleness / staleness_scale.
        evaluator: Who evaluates the held-out loss at the barrier: the `scheduler`'s machine, or
            a `function`.
    """

    target_loss: Positive
    samples_per_epoch: Annotated[int, Field(ge=0)] = 0
    batch_rule: BatchRule = BatchRule.CONSTANT
    batch_size: Count
    pushes_per_function: Count = 4
    update_rule: UpdateRule = UpdateRule.ADDITIVE
    channel: ChannelKind = ChannelKind.REDIS
    optimizer: Literal["sgd"] = "sgd"
    learning_rate: Positive
    learning_rate_steps: tuple[tuple[Count, Positive], ...] = ()
    split_learning_rate: Literal["none", "sqrt", "linear"] = "none"
    staleness_scale: Positive = 20.0
    evaluator: Literal["scheduler", "function"] = "scheduler"

    @model_validator(mode="after")
    def _steps_ascend(self) -> Self:
        epochs = [epoch for epoch, _ in self.learning_rate_steps]
        if epochs != sorted(set(epochs)):
            raise ValueError("learning_rate_steps must name ascending epochs")
        return self

    def rate(self, epoch: int, samples: float) -> float:
        """The learning rate of a push of `samples` samples in `epoch` (1 is the first)."""
        rate = self.learning_rate
        for start, factor in self.learning_rate_steps:
            if epoch >= start:
                rate *= factor
        if self.batch_rule is BatchRule.SPLIT and self.split_learning_rate != "none":
            ratio = samples / self.batch_size
            rate *= ratio if self.split_learning_rate == "linear" else ratio**0.5
        return rate


class CostSpec(_Section):
    """What the workload must state to be cost-modelled; times are for one vCPU (1,769 MB).

    Attributes:
        seconds_per_sample: Time of the gradient of one sample inside a mini-batch.
        seconds_per_push: Time of one push that does not depend on the batch.
        evaluate_seconds_per_sample: Time to evaluate one held-out sample.
        parallel_fraction: Amdahl's p above one vCPU.
        sample_bytes: Bytes of one sample in a stored shard.
        import_s: Extra initialisation of a cold environment: importing the worker's packages.
        runtime_mb: Memory of the worker with its packages, before data and model.
        package_mb: Unzipped size of the code package.
        measured: How, where and when these were measured.
    """

    seconds_per_sample: Positive
    seconds_per_push: NonNegative = 0.0
    evaluate_seconds_per_sample: Positive
    parallel_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    sample_bytes: Count
    import_s: NonNegative
    runtime_mb: Positive
    package_mb: Positive
    measured: str


class WorkloadSpec(_Section):
    """A whole `workload.toml`."""

    title: str
    dataset: DatasetSpec
    model: ModelSpec = Field(default_factory=ModelSpec)
    training: TrainingSpec
    cost: CostSpec
