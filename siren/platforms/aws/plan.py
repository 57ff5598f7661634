"""The plan of a deployment: what will be made or changed, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from siren.platforms.aws.charges import FREE, Charge
from siren.platforms.aws.part import Part


@dataclass(frozen=True)
class Step:
    """What happens to one part.

    Attributes:
        action: "create", "update" or "keep".
        kind, name: The part's.
        detail: What is changed; what it is, where it is made.
        charges: What it costs; empty if it is free.
    """

    action: str
    kind: str
    name: str
    detail: str
    charges: tuple[Charge, ...]

    @property
    def cost(self) -> str:
        """What it costs, in words."""
        return "; ".join(map(str, self.charges)) or FREE


def offline_plan(
    parts: Sequence[Part], details: Mapping[str, str], charges: Mapping[str, Sequence[Charge]]
) -> list[Step]:
    """The plan where nothing exists yet; asks AWS nothing."""
    return [_step(part, "create", details[part.kind], charges) for part in parts]


def make_plan(
    parts: Sequence[Part], details: Mapping[str, str], charges: Mapping[str, Sequence[Charge]]
) -> list[Step]:
    """The plan against what exists.

    Raises:
        UsageError: Something in the way is not this deployment's.
        RequestError: AWS did not answer.
    """
    steps = []
    for part in parts:
        found = part.differences()
        if found is None:
            steps.append(_step(part, "create", details[part.kind], charges))
        else:
            steps.append(_step(part, "update" if found else "keep", ", ".join(found), charges))
    return steps


def apply_plan(parts: Sequence[Part], steps: Sequence[Step], tell: Callable[[str], None]) -> None:
    """Makes what the plan says, in its order.

    Raises:
        UsageError, PlatformError: A step failed; a second run goes on from there.
    """
    for part, step in zip(parts, steps, strict=True):
        # A part may depend on one before it that has just changed.
        if step.action != "keep" or part.differences():
            tell(f"{step.kind} {step.name} ...")
            part.apply()


def _step(part: Part, action: str, detail: str, charges: Mapping[str, Sequence[Charge]]) -> Step:
    return Step(action, part.kind, part.name, detail, tuple(charges.get(part.kind, ())))
