"""What an evaluation was asked for: validated, and the same for every process that takes part."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from siren.errors import UnknownNameError, UsageError
from siren.evaluation import seeds
from siren.evaluation.case import CaseKey
from siren.evaluation.entrants import BEST_FIXED, Entrant, Kind, parse_entrant
from siren.evaluation.jobs import PLATFORMS, keys_of
from siren.policies import Safety
from siren.types import BatchRule, UpdateRule
from siren.worlds import load_world

Names = Annotated[tuple[str, ...], Field(min_length=1)]


class EvaluationSettings(BaseModel):
    """Everything that decides the numbers.

    Attributes:
        platform: `simulator` or `twin`.
        policies: As in `siren.evaluation.entrants.parse_entrant`.
        workloads: Names, folders, scenarios or `family`.
        budgets: Ratios over the cheapest fixed budget, each at least 1.
        worlds: Names or files.
        batch_rules, update_rules: Empty for those of the workload or the family.
        jobs: Generated jobs of a family.
        first_job: Number of the first of them.
        seeds: Episodes of every policy on every job.
        safety: The safeguards of policies that name none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    platform: str = "simulator"
    policies: Names
    workloads: Names
    budgets: Annotated[tuple[float, ...], Field(min_length=1)]
    worlds: Names
    batch_rules: tuple[BatchRule, ...] = ()
    update_rules: tuple[UpdateRule, ...] = ()
    jobs: Annotated[int, Field(ge=1, le=100_000)]
    first_job: Annotated[int, Field(ge=0)] = 0
    seeds: Annotated[int, Field(ge=1, le=seeds.MOST_REPORT)]
    safety: str = "all"

    @field_validator("budgets")
    @classmethod
    def _enough(cls, budgets: tuple[float, ...]) -> tuple[float, ...]:
        for ratio in budgets:
            if not (math.isfinite(ratio) and ratio >= 1):
                raise ValueError(f"{ratio:g} is below 1, the cheapest fixed budget: give ratios from 1 up")
        return budgets

    def cases(self) -> list[CaseKey]:
        """Every job at every budget, in the order of the report.

        Raises:
            UsageError: A workload, world or platform that cannot be.
        """
        if self.platform not in PLATFORMS:
            raise UnknownNameError("platform", self.platform, PLATFORMS)
        for world in self.worlds:
            load_world(world)
        rules = itertools.product(self.batch_rules or (None,), self.update_rules or (None,))
        every = itertools.product(self.workloads, self.worlds, list(rules), self.budgets)
        found = []
        for workload, world, pair, ratio in every:
            named = tuple(None if rule is None else str(rule) for rule in pair)
            numbers = range(self.first_job, self.first_job + self.jobs)
            keys = keys_of(self.platform, workload, world, (named[0], named[1]), numbers)
            found += [CaseKey(key, ratio) for key in keys]
        return list(dict.fromkeys(found))

    def entrants(self, kinds: Mapping[str, Kind]) -> list[Entrant]:
        """The policies, the best fixed action always among them.

        Raises:
            UsageError: A policy that cannot be.
        """
        worlds = [load_world(world) for world in self.worlds]
        safety = Safety.parse(self.safety)
        wanted = dict.fromkeys(self.policies)
        texts = list(wanted) if BEST_FIXED in wanted else [BEST_FIXED, *wanted]
        found = [parse_entrant(text, kinds, safety, self.platform, worlds) for text in texts]
        return list({entrant.name: entrant for entrant in found}.values())


def settings_of(values: Mapping[str, Any]) -> EvaluationSettings:
    """The settings that a user gave.

    Raises:
        UsageError: A value that cannot be; says which option it came from.
    """
    try:
        return EvaluationSettings.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        message = first["msg"].removeprefix("Value error, ")
        given = values[str(first["loc"][0])]
        shown = ",".join(map(str, given)) if isinstance(given, tuple) else given
        raise UsageError(f"--{option} {shown}: {message[:1].lower()}{message[1:]}") from None
