"""World files: the schema of `envs/<world>.toml`, and loading one.

Every number in a world file is a table `{ value, unit, source, date }`. The unit must be the one
that the schema names; unknown keys are refused.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from siren._roots import root_folder
from siren.errors import ActionError, UnknownNameError, WorldError
from siren.types import Action, ChannelKind

RESOLVED = {"resolved": True}
"""Context of pydantic in which a world is read as `World.model_dump` wrote it: numbers alone."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _quantity(unit: str) -> BeforeValidator:
    """A validator that takes the value out of a `{ value, unit, source, date }` table."""

    def value(table: Any, info: ValidationInfo) -> Any:
        if info.context == RESOLVED:
            return table
        if not isinstance(table, dict) or set(table) != {"value", "unit", "source", "date"}:
            raise ValueError('must be a table { value, unit = "' + unit + '", source, date }')
        if table["unit"] != unit:
            raise ValueError(f"must be in {unit!r}, not {table['unit']!r}")
        if not all(isinstance(table[key], str) and table[key] for key in ("source", "date")):
            raise ValueError("must name its source and date")
        return table["value"]

    return BeforeValidator(value)


_NonNegative = Field(ge=0, allow_inf_nan=False)
_Positive = Field(gt=0, allow_inf_nan=False)
Seconds = Annotated[float, _NonNegative, _quantity("s")]
Rate = Annotated[float, _Positive, _quantity("1/s")]
Bandwidth = Annotated[float, _Positive, _quantity("B/s")]
Number = Annotated[float, _NonNegative, _quantity("1")]
PositiveNumber = Annotated[float, _Positive, _quantity("1")]
Fraction = Annotated[float, Field(ge=0, le=1), _quantity("1")]
Count = Annotated[int, Field(ge=1), _quantity("1")]
Bytes = Annotated[int, Field(ge=0), _quantity("B")]
Megabytes = Annotated[int, Field(ge=1), _quantity("MB")]
MegabyteList = Annotated[tuple[int, ...], Field(min_length=1), _quantity("MB")]
SecondsList = Annotated[tuple[int, ...], Field(min_length=1), _quantity("s")]
Milliseconds = Annotated[int, Field(ge=1), _quantity("ms")]


class Limits(_Section):
    """What the platform refuses.

    Attributes:
        memory_grid: Memory sizes that actions may name, ascending.
        functions_max: Functions that may run at once.
        timeout_rungs: Timeouts that versions are published with, whole seconds, ascending.
        init_max: Longest initialisation that is billed outside the timeout.
    """

    memory_grid: MegabyteList
    functions_max: Count
    timeout_rungs: SecondsList
    init_max: Seconds


class Billing(_Section):
    """How a provider rounds, and what it bills beside the functions' time.

    Attributes:
        region, architecture: What the price book is asked for.
        granularity: Billed durations are rounded up to a multiple of this.
        init_billed: Whether initialisation counts into the billed duration.
        ephemeral_storage: /tmp of the functions.
        log_per_invocation: Bytes that one invocation writes to the log service.
    """

    region: str
    architecture: Literal["x86", "arm64"]
    granularity: Milliseconds
    init_billed: bool
    ephemeral_storage: Megabytes
    log_per_invocation: Bytes


class Cpu(_Section):
    """Speed of a function.

    Attributes:
        memory_per_vcpu: Memory that brings one vCPU.
        vcpus_max: Most vCPUs of one function.
        push_noise: Coefficient of variation of the compute time of one push.
        function_noise: Coefficient of variation of speed between functions of one epoch.
        hang_probability: Share of invocations that never return (0 outside fault studies).
    """

    memory_per_vcpu: Megabytes
    vcpus_max: PositiveNumber
    push_noise: Number
    function_noise: Number
    hang_probability: Fraction


class Network(_Section):
    """Bandwidth of a function.

    Attributes:
        per_function: Baseline, at any memory size that has the CPU for it.
        per_vcpu: What the CPU share of a small function can move.
    """

    per_function: Bandwidth
    per_vcpu: Bandwidth


class Start(_Section):
    """How functions start.

    Attributes:
        fan_out: Invocations that the scheduler sends a second.
        warm: From an invocation's arrival to its handler, in a warm environment.
        placement: The same before a cold environment initialises; not billed.
        init_median, init_sigma: Log-normal initialisation of an empty handler.
        scale_out_burst: New environments that may start at once.
        scale_out_rate: Rate at which that allowance refills.
        keep_alive: Idle time after which a warm environment is gone.
    """

    fan_out: Rate
    warm: Seconds
    placement: Seconds
    init_median: Seconds
    init_sigma: Number
    scale_out_burst: Count
    scale_out_rate: Rate
    keep_alive: Seconds


class Store(_Section):
    """One channel's service.

    Attributes:
        read_median, read_sigma: Log-normal latency of a read, without the transfer.
        write_median, write_sigma: The same of a write.
        tail_probability: Share of requests that meet the heavy tail.
        tail_min, tail_shape, tail_max: Pareto of what the tail adds, cut off at `tail_max`.
        aggregate: Bandwidth shared by all functions.
        service_base, service_per_float: Time for which one push blocks the store.
        parallel_requests: Requests that one client keeps in flight.
        node: Cache node that is billed by started hour; empty for a store billed by request.
        max_bytes: Largest object.
    """

    read_median: Seconds
    read_sigma: Number
    write_median: Seconds
    write_sigma: Number
    tail_probability: Fraction
    tail_min: Seconds
    tail_shape: PositiveNumber
    tail_max: Seconds
    aggregate: Bandwidth
    service_base: Seconds
    service_per_float: Seconds
    parallel_requests: Count
    max_bytes: Bytes
    node: str = ""


class Scheduler(_Section):
    """The machine that runs the scheduler and, for small models, evaluates.

    Attributes:
        vcpus: Its speed, in vCPUs of the platform.
        bandwidth: Its bandwidth to the store.
        latency: What it adds to a request's latency.
    """

    vcpus: PositiveNumber
    bandwidth: Bandwidth
    latency: Seconds


class World(_Section):
    """A whole world file."""

    name: str = ""
    title: str
    about: str
    limits: Limits
    billing: Billing
    cpu: Cpu
    network: Network
    start: Start
    channels: dict[ChannelKind, Store]
    scheduler: Scheduler

    def check_action(self, action: Action) -> None:
        """Refuses an action outside this world's grid or limits.

        Raises:
            ActionError: Says what would be accepted.
        """
        grid = self.limits.memory_grid
        if action.memory_mb not in grid:
            near = sorted(sorted(grid, key=lambda mb: abs(mb - action.memory_mb))[:2])
            raise ActionError(
                f"{action.memory_mb} MB is not a memory size of world {self.name}: the nearest are "
                f"{' and '.join(f'{mb:,}' for mb in near)} MB (all: {', '.join(map(str, grid))})"
            )
        if not 1 <= action.functions <= self.limits.functions_max:
            raise ActionError(
                f"{action.functions:,} functions are outside 1 to {self.limits.functions_max:,}, the limit "
                f"of world {self.name}; choose fewer, or raise limits.functions_max in a copy of its file"
            )


def world_names() -> list[str]:
    """The worlds in Siren's `envs` folder, sorted."""
    return sorted(path.stem for path in root_folder("envs").glob("*.toml"))


def load_world(name: str) -> World:
    """The world of that name, or in that file.

    Args:
        name: A name under `envs/`, or the path of a user's own `.toml` file.

    Raises:
        UnknownNameError: No such world.
        WorldError: The file cannot be read or breaks the schema; one line per problem.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if name not in world_names():
            raise UnknownNameError("world", name, world_names())
        path = root_folder("envs") / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorldError(f"cannot read world {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorldError(f"{path} is not valid TOML: {error}") from error
    try:
        world = World.model_validate({**table, "name": path.stem})
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(str(part) for part in e['loc'])}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise WorldError(f"{path} breaks the schema of a world:\n{problems}") from error
    _check_order(path, world)
    _check_channels(path, world)
    return world


def _check_order(path: Path, world: World) -> None:
    for key in ("memory_grid", "timeout_rungs"):
        values = getattr(world.limits, key)
        if list(values) != sorted(set(values)) or values[0] < 1:
            raise WorldError(f"{path}: limits.{key} must be ascending and positive")


def _check_channels(path: Path, world: World) -> None:
    if ChannelKind.S3 not in world.channels:
        raise WorldError(f"{path}: channels.s3 is missing; every job reads its training set from it")
    for kind, store in world.channels.items():
        if store.tail_max < store.tail_min:
            raise WorldError(f"{path}: channels.{kind}: tail_max must not be below tail_min")
