"""Training on virtual machines instead of functions: the laws of time and cost of an honest peer.

k machines of one type train a job by synchronous data-parallel SGD. They start together, load their
share of the data from the store, and step by step compute the gradient of one mini-batch, divided over
their cores, and all-reduce it. What a sample and a push take is what they take on one vCPU of Lambda
(`siren.worlds.laws.Job`), so that only the platform differs. A user of machines may leave cores idle
where dividing a mini-batch does not pay: the best number of cores counts.

Billing is EC2's on demand (price list of 2026-08-21): by the second from when the instances run, 60 s at
least. How many epochs it takes follows from real gradients, not from these laws.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from siren._roots import root_folder
from siren.errors import ActionError, PriceError, UnknownNameError, WorldError
from siren.money.amounts import exact
from siren.money.price_book import PriceBook, load_price_book
from siren.types import ChannelKind
from siren.units import BYTES_PER_MB, SECONDS_PER_HOUR
from siren.worlds.laws import COPIES_OF_MODEL, Job
from siren.worlds.world import Bandwidth, Count, Megabytes, PositiveNumber, Seconds, World

MACHINES = "ec2-2026"
"""The file of machines that is used if nothing else is said."""

FOLDER = "machines"
"""Where such files lie under `envs`."""

FRACTION = Decimal("1e-10")
"""What a bill is rounded up to: an hour's price over 3,600 s has no end."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Start(_Section):
    """How machines start.

    Attributes:
        pending: From the request until an instance runs; not billed.
        boot: From then until it can train; billed.
    """

    pending: Seconds
    boot: Seconds


class MachineNetwork(_Section):
    """What machines and their cores exchange vectors over.

    Attributes:
        latency: Of a message between two machines.
        memory_bandwidth: At which cores of one machine add vectors.
        barrier: That the cores of one machine wait for each other at every step.
    """

    latency: Seconds
    memory_bandwidth: Bandwidth
    barrier: Seconds


class Instance(_Section):
    """One type of machine.

    Attributes:
        vcpus: Hardware threads.
        memory: Memory.
        vcpu_speed: Speed of one, relative to one vCPU of Lambda.
        bandwidth: To other machines and to the store.
    """

    vcpus: Count
    memory: Megabytes
    vcpu_speed: PositiveNumber
    bandwidth: Bandwidth


class Machines(_Section):
    """A whole file of machines."""

    title: str
    about: str
    start: Start
    network: MachineNetwork
    instances: Annotated[dict[str, Instance], Field(min_length=1)]


def load_machines(name: str = MACHINES) -> Machines:
    """The machines in `envs/machines/<name>.toml`.

    Raises:
        UnknownNameError: There is no such file.
        WorldError: It breaks its schema.
    """
    folder = root_folder("envs") / FOLDER
    names = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in names:
        raise UnknownNameError("file of machines", name, names)
    path = folder / f"{name}.toml"
    try:
        return Machines.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise WorldError(f"{path} breaks the schema of machines: {error}") from error


@dataclass(frozen=True, order=True)
class Cluster:
    """`machines` machines of the type `instance`."""

    instance: str
    machines: int = 1

    def __str__(self) -> str:
        return self.instance if self.machines == 1 else f"{self.machines}x {self.instance}"


@dataclass(frozen=True)
class VmRun:
    """What a job takes on a cluster.

    Attributes:
        duration_s: From the request for machines to the target, starting included.
        cost_usd: What EC2 bills.
        epoch_s: One epoch with its evaluation.
        cores: Cores of each machine that a mini-batch is divided over.
    """

    duration_s: float
    cost_usd: Decimal
    epoch_s: float
    cores: int


class VmCosting:
    """Laws and prices of a job on machines.

    Args:
        world: Where the data lie and whose prices count.
        job: What is trained; its rules, channel and functions play no part.
        machines: The types.
        book: Prices; the shipped ones by default.
    """

    def __init__(self, world: World, job: Job, machines: Machines, book: PriceBook | None = None) -> None:
        self.world, self.job, self.machines = world, job, machines
        self.book = book or load_price_book()
        self.region = world.billing.region

    def types(self) -> list[str]:
        """The types that have both laws and a price."""
        return [name for name in self.machines.instances if name in self.book.instances(self.region)]

    def check(self, cluster: Cluster) -> None:
        """Refuses a cluster that is unknown, has no price, or cannot hold the job.

        Raises:
            UnknownNameError: No laws are known for its type.
            PriceError: No price is.
            ActionError: It has no machine, or too little memory.
        """
        if cluster.machines < 1:
            raise ActionError(f"{cluster.machines} machines cannot train: give 1 or more")
        if cluster.instance not in self.machines.instances:
            raise UnknownNameError("instance type", cluster.instance, self.machines.instances)
        self.book.instance_usd_per_h(self.region, cluster.instance)
        needed = self._memory_needed_mb(cluster)
        memory_mb = self.machines.instances[cluster.instance].memory
        if needed > memory_mb:
            raise ActionError(
                f"{cluster} is too small: each machine needs {math.ceil(needed):,} MB and has "
                f"{memory_mb:,} MB; take more machines or larger ones"
            )

    def fits(self, cluster: Cluster) -> bool:
        """Whether `check` accepts it."""
        try:
            self.check(cluster)
        except (ActionError, PriceError, UnknownNameError):
            return False
        return True

    def _memory_needed_mb(self, cluster: Cluster) -> float:
        """Packages and the model's copies of every core, the data once."""
        job, cores = self.job, self.machines.instances[cluster.instance].vcpus
        data = (math.ceil(job.dataset_samples / cluster.machines) + job.heldout_samples) * job.sample_bytes
        own_mb = job.runtime_mb + COPIES_OF_MODEL * job.model_bytes / BYTES_PER_MB
        return cores * own_mb + data / BYTES_PER_MB

    def reduce_s(self, cluster: Cluster, cores: int) -> float:
        """Seconds of the all-reduce of one step: among cores in memory, then among machines.

        The better of a ring, 2(k-1) messages of 1/k of the vector, and recursive doubling, log2(k)
        messages of all of it (Thakur, Rabenseifner, Gropp, 2005).
        """
        network, size, k = self.machines.network, self.job.model_bytes, cluster.machines
        inside = network.barrier + math.log2(cores) * size / network.memory_bandwidth if cores > 1 else 0.0
        if k == 1:
            return inside
        rate = self.machines.instances[cluster.instance].bandwidth
        ring = 2 * (k - 1) * (network.latency + size / k / rate)
        doubling = math.ceil(math.log2(k)) * (network.latency + size / rate)
        return inside + min(ring, doubling)

    def step_s(self, cluster: Cluster, batch: float, cores: int) -> float:
        """Seconds of one step of a mini-batch of `batch` samples, `cores` processes on each machine.

        Cores that no process has serve its threads, by Amdahl's law with the job's parallel fraction.
        """
        kind, job = self.machines.instances[cluster.instance], self.job
        p, threads = job.parallel_fraction, kind.vcpus / cores
        pace = kind.vcpu_speed / ((1 - p) + p / threads)
        share = math.ceil(batch / (cores * cluster.machines))
        compute_s = (job.seconds_per_push + job.seconds_per_sample * share) / pace
        return compute_s + self.reduce_s(cluster, cores)

    def best_cores(self, cluster: Cluster, batch: float) -> int:
        """Processes on each machine with which a step is fastest: 1, 2, 4, ... up to its vCPUs."""
        vcpus = self.machines.instances[cluster.instance].vcpus
        counts = [1 << k for k in range(vcpus.bit_length())]
        return min(counts, key=lambda cores: self.step_s(cluster, batch, cores))

    def epoch_s(self, cluster: Cluster, steps: int, batch: float) -> float:
        """Seconds of an epoch of `steps` steps, and of the evaluation on all cores."""
        kind = self.machines.instances[cluster.instance]
        evaluators = kind.vcpus * cluster.machines * kind.vcpu_speed
        evaluate_s = self.job.heldout_samples * self.job.evaluate_seconds_per_sample / evaluators
        return steps * self.step_s(cluster, batch, self.best_cores(cluster, batch)) + evaluate_s

    def ready_s(self, cluster: Cluster) -> float:
        """Seconds from when the instances run until the first step: boot, imports, data from the store."""
        job, s3 = self.job, self.world.channels[ChannelKind.S3]
        rate = self.machines.instances[cluster.instance].bandwidth
        data = (job.dataset_samples / cluster.machines + job.heldout_samples) * job.sample_bytes
        return self.machines.start.boot + job.import_s + s3.read_median + data / rate

    def run(self, cluster: Cluster, epochs: float, steps: int, batch: float) -> VmRun:
        """A whole run.

        Args:
            cluster: Where.
            epochs: Epochs to the target; the mean of several runs need not be whole.
            steps: Steps of an epoch.
            batch: Samples of a step, over all machines.

        Raises:
            UnknownNameError, PriceError, ActionError: See `check`.
        """
        self.check(cluster)
        epoch_s = self.epoch_s(cluster, steps, batch)
        running_s = self.ready_s(cluster) + epochs * epoch_s
        duration_s = self.machines.start.pending + running_s
        cores = self.best_cores(cluster, batch)
        return VmRun(duration_s, self.bill_usd(cluster, running_s), epoch_s, cores)

    def bill_usd(self, cluster: Cluster, running_s: float) -> Decimal:
        """What EC2 bills for machines that run so long."""
        least_s = self.book.count(self.region, "ec2.billing.min_s")
        grain_s = self.book.count(self.region, "ec2.billing.granularity_s")
        billed_s = max(math.ceil(running_s / grain_s) * grain_s, least_s)
        usd_per_h = self.book.instance_usd_per_h(self.region, cluster.instance)
        with exact():
            usd_s = usd_per_h * cluster.machines * billed_s
        return (usd_s / SECONDS_PER_HOUR).quantize(FRACTION, rounding=ROUND_UP)
