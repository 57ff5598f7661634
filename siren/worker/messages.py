"""What the manager sends to a worker (`Task`) and what comes back (`Status`), as checked JSON.

An epoch that is launched lives in one folder of the bucket, `Task.folder`; see `siren.worker.layout`
for the objects in it, and `siren.worker.outcome` for what the manager does when all have returned.

Nothing here imports more than the standard library.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from siren.worker._fields import Fields, MessageError

__all__ = ["PROTOCOL", "RULES", "DataRef", "MessageError", "ModelRef", "Status", "Task"]

PROTOCOL = 1
"""Version of these messages; both sides refuse another one."""

RULES: Mapping[str, frozenset[str]] = {
    "s3": frozenset({"overwrite", "cas", "average", "sync"}),
    "redis": frozenset({"overwrite", "additive", "staleness", "average", "sync"}),
}
"""`siren.worlds.laws.RULES_OF_CHANNEL` of the channels that functions reach, without its imports."""

FUNCTIONS_MAX = 100_000
PUSHES_MAX = 10_000_000
PARAMETERS_MAX = 128 * 1024 * 1024
"""512 MB of float32, the largest value that Redis holds (Redis documentation, strings)."""
COUNT_MAX = 2**31 - 1
SECONDS_MAX = 5400.0
"""The largest timeout in Lambda's API model (botocore 1.44.5)."""

_RUN = r"[a-z0-9-]{1,64}"
_DATA_PREFIX = r"data/[0-9a-f]{64}/"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_HTTP_URL = r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?"
_REDIS_URL = r"rediss?://[A-Za-z0-9.-]+(:[0-9]{1,5})?"
_REGION = r"[a-z0-9-]{1,32}"
_DTYPE = r"[<>|][biuf][1248]"
_KEY = r"|(?!.*\.\.)runs/[a-z0-9-]{1,64}/[A-Za-z0-9._/-]{1,256}"


@dataclass(frozen=True)
class DataRef:
    """The stored training set; `siren.worker.records` reads it.

    Attributes:
        prefix: `data/<sha256 of the records>/`.
        rows: Rows in all objects.
        record_bytes: Bytes of one record: features, then label.
        feature_dtype, label_dtype: Stored dtypes as numpy's `dtype.str`, e.g. `|u1`.
        feature_shape: Shape of one row of features.
        rows_per_object: Records of every object but the last.
    """

    prefix: str
    rows: int
    record_bytes: int
    feature_dtype: str
    feature_shape: tuple[int, ...]
    label_dtype: str
    rows_per_object: int

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "feature_shape": list(self.feature_shape)}

    @classmethod
    def from_json(cls, value: object) -> DataRef:
        """Checks and reads what `to_json` returned.

        Raises:
            MessageError: It is something else.
        """
        read = Fields(value, "the task's dataset")
        found = cls(
            prefix=read.text("prefix", _DATA_PREFIX),
            rows=read.integer("rows", 1, 2**40),
            record_bytes=read.integer("record_bytes", 1, 2**31),
            feature_dtype=read.text("feature_dtype", _DTYPE),
            feature_shape=read.shape("feature_shape"),
            label_dtype=read.text("label_dtype", _DTYPE),
            rows_per_object=read.integer("rows_per_object", 1, 2**40),
        )
        read.end()
        return found


@dataclass(frozen=True)
class ModelRef:
    """How to build the model from the code package's `workload/model.py`.

    Attributes:
        adapter: `numpy` or `torch`, see `siren.workloads.spec.ModelSpec`.
        settings: Keyword arguments for `Model` or `build`.
        feature_shape: Shape of one row of features.
        classes: Number of classes.
    """

    adapter: str
    feature_shape: tuple[int, ...]
    classes: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "feature_shape": list(self.feature_shape), "settings": dict(self.settings)}

    @classmethod
    def from_json(cls, value: object) -> ModelRef:
        """Checks and reads what `to_json` returned.

        Raises:
            MessageError: It is something else.
        """
        read = Fields(value, "the task's model")
        found = cls(
            adapter=read.choice("adapter", {"numpy", "torch"}),
            settings=read.settings("settings"),
            feature_shape=read.shape("feature_shape"),
            classes=read.integer("classes", 1, COUNT_MAX),
        )
        read.end()
        return found


@dataclass(frozen=True)
class Task:
    """One invocation's work.

    Attributes:
        kind: `train`, or `collect`: write the model that a Redis channel holds to S3 and return
            (`Status.model_key` names the object). `collect` is needed where no worker saw the
            last push of the epoch; it reads no data.
        run: Identity of the run.
        epoch: 1 for the first.
        launch: 0, and one more whenever the manager begins the same epoch anew (after it was
            killed, say): what an earlier launch still does cannot reach this one.
        functions: n.
        epoch_pushes: K, pushes of the whole epoch; worker i makes K // n, and one more if i < K % n.
        worker: i, in [0, n).
        attempt: 0, and one more whenever this worker is invoked again within the launch.
        position: Pushes of its quota that earlier attempts are known to have done
            (`Status.position`); 0 is always right, and costs time under `average` alone.
        rule, channel: What a push does, and where parameters travel.
        region, bucket: Of S3.
        s3_url, redis_url: Endpoints; None for AWS's own, and for no cache.
        dataset, model: What to train.
        size: Parameters of the model.
        first_row: Row of the stored training set at which this worker's shard begins; it wraps
            around at the end.
        batches: Samples of each of its pushes; they add up to its shard.
        order_seed: Seed of the order in which it goes through its shard.
        rate: Learning rate.
        staleness_scale: Under `staleness` the rate is divided by 1 + staleness / staleness_scale.
        deadline_s: When the worker stops itself, from its handler's start.
        s3_puts, s3_gets: The most HTTP requests to S3 that this invocation may make, by price, those that
            are repeated included; None for any number.
    """

    run: str
    epoch: int
    functions: int
    epoch_pushes: int
    worker: int
    rule: str
    channel: str
    region: str
    bucket: str
    dataset: DataRef
    model: ModelRef
    size: int
    first_row: int
    batches: tuple[int, ...]
    order_seed: int
    rate: float
    staleness_scale: float
    deadline_s: float
    kind: str = "train"
    launch: int = 0
    attempt: int = 0
    position: int = 0
    s3_url: str | None = None
    redis_url: str | None = None
    s3_puts: int | None = None
    s3_gets: int | None = None

    @property
    def prefix(self) -> str:
        """Prefix of every key of its run that it may touch."""
        return f"runs/{self.run}/"

    @property
    def folder(self) -> str:
        """Prefix of this launch of the epoch."""
        return f"{self.prefix}epochs/{self.epoch}-{self.launch}/"

    @property
    def samples(self) -> int:
        """Samples of its shard."""
        return sum(self.batches)

    @property
    def bounds(self) -> tuple[int, ...]:
        """Push k takes the shard's samples bounds[k] to bounds[k + 1] - 1."""
        return (0, *itertools.accumulate(self.batches))

    def members(self, step: int) -> int:
        """How many functions have a push numbered `step`; they are the first ones."""
        whole, rest = divmod(self.epoch_pushes, self.functions)
        if step < whole:
            return self.functions
        return rest if step == whole else 0

    def to_json(self) -> dict[str, Any]:
        """As JSON; equal neighbours in `batches` are written once, as [samples, pushes]."""
        runs = [[size, len(list(same))] for size, same in itertools.groupby(self.batches)]
        nested = {"dataset": self.dataset.to_json(), "model": self.model.to_json(), "batches": runs}
        return {"protocol": PROTOCOL, **vars(self), **nested}

    @classmethod
    def from_json(cls, value: object) -> Task:
        """Checks and reads what `to_json` returned.

        Raises:
            MessageError: It is something else, or its parts do not fit together.
        """
        read = Fields(value, "the task")
        read.protocol(PROTOCOL)
        task = cls(
            kind=read.choice("kind", {"train", "collect"}),
            run=read.text("run", _RUN),
            epoch=read.integer("epoch", 1, COUNT_MAX),
            launch=read.integer("launch", 0, COUNT_MAX),
            functions=read.integer("functions", 1, FUNCTIONS_MAX),
            epoch_pushes=read.integer("epoch_pushes", 1, COUNT_MAX),
            worker=read.integer("worker", 0, FUNCTIONS_MAX - 1),
            attempt=read.integer("attempt", 0, COUNT_MAX),
            position=read.integer("position", 0, PUSHES_MAX),
            rule=read.choice("rule", frozenset().union(*RULES.values())),
            channel=read.choice("channel", set(RULES)),
            region=read.text("region", _REGION),
            bucket=read.text("bucket", _BUCKET),
            s3_url=read.optional_text("s3_url", _HTTP_URL),
            redis_url=read.optional_text("redis_url", _REDIS_URL),
            dataset=DataRef.from_json(read.take("dataset")),
            model=ModelRef.from_json(read.take("model")),
            size=read.integer("size", 1, PARAMETERS_MAX),
            first_row=read.integer("first_row", 0, 2**40),
            batches=read.runs("batches", PUSHES_MAX),
            order_seed=read.integer("order_seed", 0, 2**63 - 1),
            rate=read.number("rate", 0.0, 1e9),
            staleness_scale=read.number("staleness_scale", 1e-9, 1e9),
            deadline_s=read.number("deadline_s", 0.0, SECONDS_MAX),
            s3_puts=read.optional_integer("s3_puts", 0, 2**53),
            s3_gets=read.optional_integer("s3_gets", 0, 2**53),
        )
        read.end()
        task._check()
        return task

    def _check(self) -> None:
        if self.rule not in RULES[self.channel]:
            raise MessageError(
                f"{self.channel} cannot carry the rule {self.rule!r}: choose "
                f"{', '.join(sorted(RULES[self.channel]))}, or another channel"
            )
        if self.kind == "collect" and self.channel != "redis":
            raise MessageError("only a Redis channel is collected: on S3 the manager reads the model itself")
        if (self.channel == "redis") != (self.redis_url is not None):
            raise MessageError("redis_url belongs to the channel redis: send both or neither")
        if self.worker >= self.functions:
            raise MessageError(
                f"worker {self.worker} of {self.functions} functions: the first is 0; correct the task"
            )
        quota = self.epoch_pushes // self.functions + (self.worker < self.epoch_pushes % self.functions)
        if len(self.batches) != quota:
            raise MessageError(
                f"worker {self.worker} of {self.functions} makes {quota} of {self.epoch_pushes} pushes, "
                f"but batches holds {len(self.batches)}: send one size for each push"
            )
        if self.position > quota:
            raise MessageError(
                f"position {self.position} is past the quota of {quota} pushes; send at most that"
            )
        if self.first_row >= self.dataset.rows:
            raise MessageError(
                f"first_row {self.first_row} is not one of the {self.dataset.rows} stored rows: "
                "send it modulo their number"
            )


@dataclass(frozen=True)
class Status:
    """What a worker tells when it returns; one that fails raises instead.

    Attributes:
        run, epoch, launch, worker, attempt: Of its task.
        state: `done`; `unfinished`: its deadline came first, or it made as many requests as it may; invoke it
            again with `position`;
            `diverged`: a gradient or the model is no longer finite, nothing of it was pushed.
        position: Pushes of its quota that are done, by this and earlier attempts.
        samples: Samples of these pushes: its weight under `average`.
        pushes: Updates that this attempt applied.
        version: Updates in the shared model when this worker last saw it; under `sync` steps, under
            `average` over Redis functions.
        model_key: Key of the object that holds this worker's result: the model of the whole epoch
            (`sync`, or the one that left Redis), or its own model (`average`); else empty.
        began: Unix time of the handler's start.
        load_s, fetch_s, compute_s, update_s: Seconds spent loading the shard (and making clients, unless
            that was done while the environment initialised), fetching the model, computing gradients,
            updating the shared model. Waiting for others is in none of them.
        staleness_sum: Updates applied between fetch and push, summed over its pushes; None where
            the channel cannot tell (`overwrite` over S3).
        retries: Compare-and-swap retries.
        s3_puts, s3_gets: HTTP requests to S3, by the two prices, those that the client repeated included.
        loaded_rows: Rows read into memory; 0 if the environment held the shard.
        square_norm_sum: Sum of |g|^2 over this attempt's pushes.
        max_rss_mb: Peak memory of the environment.
        cold: Whether this was the environment's first invocation.
    """

    run: str
    epoch: int
    launch: int
    worker: int
    attempt: int
    state: str
    position: int
    samples: int
    pushes: int
    version: int
    model_key: str
    began: float
    load_s: float
    fetch_s: float
    compute_s: float
    update_s: float
    staleness_sum: int | None
    retries: int
    s3_puts: int
    s3_gets: int
    loaded_rows: int
    square_norm_sum: float
    max_rss_mb: float
    cold: bool

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"protocol": PROTOCOL, **vars(self)}

    @classmethod
    def from_json(cls, value: object) -> Status:
        """Checks and reads what `to_json` returned.

        Raises:
            MessageError: It is something else.
        """
        read = Fields(value, "the status")
        read.protocol(PROTOCOL)
        status = cls(
            run=read.text("run", _RUN),
            epoch=read.integer("epoch", 1, COUNT_MAX),
            launch=read.integer("launch", 0, COUNT_MAX),
            worker=read.integer("worker", 0, FUNCTIONS_MAX - 1),
            attempt=read.integer("attempt", 0, COUNT_MAX),
            state=read.choice("state", {"done", "unfinished", "diverged"}),
            position=read.integer("position", 0, PUSHES_MAX),
            model_key=read.text("model_key", _KEY),
            began=read.number("began", 0.0, 1e12),
            staleness_sum=read.optional_integer("staleness_sum", 0, 2**53),
            square_norm_sum=read.number("square_norm_sum", 0.0, 1e300),
            max_rss_mb=read.number("max_rss_mb", 0.0, 1e9),
            cold=read.flag("cold"),
            load_s=read.number("load_s", 0.0, 1e6),
            fetch_s=read.number("fetch_s", 0.0, 1e6),
            compute_s=read.number("compute_s", 0.0, 1e6),
            update_s=read.number("update_s", 0.0, 1e6),
            samples=read.integer("samples", 0, 2**53),
            pushes=read.integer("pushes", 0, 2**53),
            version=read.integer("version", 0, 2**53),
            retries=read.integer("retries", 0, 2**53),
            s3_puts=read.integer("s3_puts", 0, 2**53),
            s3_gets=read.integer("s3_gets", 0, 2**53),
            loaded_rows=read.integer("loaded_rows", 0, 2**53),
        )
        read.end()
        return status

    def check_answers(self, task: Task) -> None:
        """Refuses a status that belongs to another task.

        Raises:
            MessageError: Names what differs.
        """
        for name in ("run", "epoch", "launch", "worker", "attempt"):
            if getattr(self, name) != getattr(task, name):
                raise MessageError(
                    f"the status is of {name} {getattr(self, name)!r}, the task of {getattr(task, name)!r}: "
                    "drop it and invoke the worker again"
                )
        if self.position > len(task.batches):
            raise MessageError(
                f"the status claims {self.position} of {len(task.batches)} pushes: invoke the worker again"
            )
