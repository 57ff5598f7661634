"""`profile.json`: constants of the laws that were measured on a platform, and what they replace.

`siren.profile` writes it. Whoever loads a job with it (`siren.plan --profile FILE`) sees the
measured constants in place of those in `workload.toml` (`[cost]`) and in the world (the channel's),
and with that rehearses, predicts and compares the job as it was measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from siren.errors import UsageError
from siren.types import ChannelKind
from siren.workloads.workload import Workload
from siren.worlds.world import World

PROFILE_FILE = "profile.json"
FORMAT: Final = 1

COST_CONSTANTS = ("seconds_per_sample", "seconds_per_push", "import_s")
"""Those of `siren.workloads.spec.CostSpec`."""

STORE_CONSTANTS = ("read_median", "write_median")
"""Those of the channel's `siren.worlds.world.Store`; `service_s`, for which a push of this model blocks the
store, takes the place of its `service_base` and `service_per_float`."""

ConstantName = Literal[
    "seconds_per_sample", "seconds_per_push", "import_s", "read_median", "write_median", "service_s"
]


class Constant(BaseModel):
    """One fitted constant.

    Attributes:
        value: The estimate, seconds.
        low, high: 95% interval.
        assumed: What the workload or the world said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    low: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    high: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    assumed: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Point(BaseModel):
    """One (n, m) that was measured: seconds of its warm epochs, trimmed means over them.

    Attributes:
        functions, memory_mb: The action.
        epochs: Warm epochs that were kept.
        fetch_s, compute_s, update_s: Means over functions.
        fitted_fetch_s, fitted_compute_s, fitted_update_s: The same by the fitted laws.
        assumed_fetch_s, assumed_compute_s, assumed_update_s: The same by the laws as they were.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    functions: int
    memory_mb: int
    epochs: int
    fetch_s: float
    compute_s: float
    update_s: float
    fitted_fetch_s: float
    fitted_compute_s: float
    fitted_update_s: float
    assumed_fetch_s: float
    assumed_compute_s: float
    assumed_update_s: float


class ColdPoint(BaseModel):
    """Initialisations of one memory size, as Lambda reported them: no part of the other points.

    Attributes:
        memory_mb: The size.
        starts: Cold starts.
        init_s: Their mean.
        fitted_init_s, assumed_init_s: The same by the fitted laws, and by the laws as they were.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_mb: int
    starts: int
    init_s: float
    fitted_init_s: float
    assumed_init_s: float


class Profile(BaseModel):
    """A whole `profile.json`.

    Attributes:
        format: Of this file.
        workload, world, platform, channel: What was measured where.
        seed: Of the measurement.
        budget_usd, spent_usd: What it might cost and did, exact decimal text.
        constants: What was fitted; one that the points do not tell is not there.
        points: What was measured.
        cold_starts: How many cold starts `import_s` was learned from.
        cold: What they took.
        notes: What the reader must know of this measurement.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    workload: str
    world: str
    platform: str
    channel: ChannelKind
    seed: int
    budget_usd: str
    spent_usd: str
    constants: dict[ConstantName, Constant]
    points: tuple[Point, ...]
    cold_starts: int
    cold: tuple[ColdPoint, ...] = ()
    notes: tuple[str, ...] = ()


def load_profile(file: Path) -> Profile:
    """The profile in a file.

    Raises:
        UsageError: It cannot be read, or is no profile.
    """
    try:
        return Profile.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read the profile {file}: {error.strerror}; check the path") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(
            f"{file} is not a profile ({where}: {first['msg']}): write one with `python -m siren.profile`"
        ) from None


def profiled(workload: Workload, world: World, file: str) -> tuple[Workload, World]:
    """The job and the world with the measured constants of a file; as they are if it is empty.

    Raises:
        UsageError: See `load_profile`, or it is of another workload or channel.
    """
    if not file:
        return workload, world
    profile = load_profile(Path(file))
    channel = workload.spec.training.channel
    if (profile.workload, profile.channel) != (workload.name, channel):
        raise UsageError(
            f"{file} was measured on {profile.workload} over {profile.channel}, this job is {workload.name} "
            f"over {channel}: profile it with `python -m siren.profile`"
        )
    return with_profile(workload, world, profile)


def with_profile(workload: Workload, world: World, profile: Profile) -> tuple[Workload, World]:
    """The job and the world with the constants of a profile."""
    values = {name: constant.value for name, constant in profile.constants.items()}
    cost = workload.spec.cost.model_copy(
        update={
            **{name: values[name] for name in COST_CONSTANTS if name in values},
            "measured": f"{profile.platform}, profile of {profile.world}, seed {profile.seed}",
        }
    )
    spec = workload.spec.model_copy(update={"cost": cost})
    changes: dict[str, float] = {name: values[name] for name in STORE_CONSTANTS if name in values}
    if "service_s" in values:
        changes |= {"service_base": values["service_s"], "service_per_float": 0.0}
    store = world.channels[profile.channel].model_copy(update=changes)
    world = world.model_copy(update={"channels": {**world.channels, profile.channel: store}})
    return Workload(workload.name, spec, workload.model, workload.dataset, workload.folder), world
