"""The resolved settings of a run: what `config.json` holds and what a resumed run starts from."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from siren.errors import RunFolderError, UsageError
from siren.policies import DEFAULT_AGENT
from siren.policies.agent import agent_digest
from siren.types import BatchRule, ChannelKind, UpdateRule

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RunSettings(BaseModel):
    """Everything that decides a run's course.

    Attributes:
        budget_usd: Dollars, positive.
        workload: A name under `workloads/`, or the absolute path of a folder.
        world: A name under `envs/`, or the absolute path of a file.
        platform, policy: Names, as on the command line.
        deployment: Which one, on the platform `aws`.
        target_loss, batch_rule, update_rule, channel: What overrides the workload; None does not.
        seed: Seed of all randomness.
        rehearse: Real seconds that the job may be rehearsed before it runs; 0 for none.
        safety: Which safeguards are on, see `siren.policies.safeguard.Safety.parse`; None for all, and for
            none around a policy that the user fixed.
        max_epochs: Most epochs.
        max_time: Most seconds on the platform's clock; None for no limit.
        notes: What the user was told when the run began.
        choice: The candidate that the rehearsal chose; empty without one.
        resolved: The workload and the world in full, as they were when the run began.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_usd: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]
    workload: str
    world: str = "aws-2026"
    platform: str = "twin"
    deployment: str = "siren"
    policy: str = "agent"
    target_loss: _Positive | None = None
    batch_rule: BatchRule | None = None
    update_rule: UpdateRule | None = None
    channel: ChannelKind | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    rehearse: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0
    safety: str | None = None
    max_epochs: Annotated[int, Field(ge=1)] = 500
    max_time: _Positive | None = None
    notes: tuple[str, ...] = ()
    choice: dict[str, Any] = Field(default_factory=dict)
    resolved: dict[str, Any] = Field(default_factory=dict)

    @property
    def overrides(self) -> dict[str, object]:
        """What overrides the workload's `[training]` section."""
        return {key: getattr(self, key) for key in ("target_loss", "batch_rule", "update_rule", "channel")}

    def to_json(self) -> dict[str, Any]:
        """What `saved_settings` reads; dollars are `Decimal`."""
        return {**self.model_dump(), "notes": list(self.notes)}


def given_settings(values: Mapping[str, Any]) -> RunSettings:
    """The settings of a new run; None stands for the default.

    Raises:
        UsageError: A value that cannot be; says which option it came from.
    """
    try:
        return RunSettings.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).removesuffix("_usd").replace("_", "-")
        message = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        raise UsageError(f"--{option} {first['input']}: {message}") from None


def saved_settings(config: Mapping[str, Any], folder: str, changes: Mapping[str, Any]) -> RunSettings:
    """The settings of a run that goes on.

    Args:
        config: The run folder's `config.json`.
        folder: The run folder, for messages.
        changes: What the user changes; None leaves a value as it is.

    Raises:
        RunFolderError: The config is not one that `RunSettings.to_json` wrote.
        UsageError: A change that cannot be.
    """
    try:
        saved = RunSettings.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunFolderError(
            f"{folder}/config.json is damaged ({where}: {first['msg']}): start a new run"
        ) from None
    return given_settings({**saved.model_dump(), **{k: v for k, v in changes.items() if v is not None}})


def check_unchanged(settings: RunSettings, now: Mapping[str, Any], folder: Path) -> None:
    """Refuses to go on with a job that is no longer the one that began.

    A `model.py` may change: that is how a model that raised is repaired.

    Args:
        settings: Of the run that goes on.
        now: What its `resolved` would be today.
        folder: The run folder, for messages.

    Raises:
        RunFolderError: The workload, the world or the agent is another one.
    """
    parts = ("workload", "world", "agent")
    changed = [name for name in parts if settings.resolved.get(name) != now.get(name)]
    if changed:
        raise RunFolderError(
            f"{folder}: {' and '.join(changed)} changed since the run began: "
            "restore what it began with (config.json has it), or start a new run"
        )


def resolved_agent(settings: RunSettings) -> dict[str, str]:
    """The hash of the agent that decides, if one does."""
    agent = settings.choice.get("agent") if settings.choice else settings.policy
    if agent == "agent":
        agent = DEFAULT_AGENT
    elif not settings.choice and "/" not in settings.policy:
        return {}
    return {"agent": agent_digest(agent)} if agent else {}
