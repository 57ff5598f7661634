"""Policies: what decides each epoch's action."""

from __future__ import annotations

from siren.errors import UnknownNameError
from siren.policies.base import JobView, Policy
from siren.policies.fixed import FixedPolicy
from siren.policies.greedy import GreedyPolicy

__all__ = ["FixedPolicy", "GreedyPolicy", "JobView", "Policy", "parse_policy"]


def parse_policy(text: str) -> Policy:
    """The policy that `--policy` names.

    Args:
        text: `greedy`, or `fixed:FUNCTIONSxMEMORY`.

    Raises:
        UnknownNameError: No such policy.
        UsageError: A fixed policy of another form.
    """
    if text == "greedy":
        return GreedyPolicy()
    kind, _, rest = text.partition(":")
    if kind == "fixed":
        return FixedPolicy.parse(rest)
    raise UnknownNameError("policy", text, ["greedy", "fixed:FUNCTIONSxMEMORY"])
