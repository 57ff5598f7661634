"""Policies: what decides each epoch's action."""

from __future__ import annotations

from siren.errors import UnknownNameError
from siren.policies.agent import DEFAULT_AGENT, AgentPolicy, agent_names
from siren.policies.base import JobView, Policy
from siren.policies.fixed import FixedPolicy
from siren.policies.greedy import GreedyPolicy
from siren.policies.reference import Reference
from siren.policies.safeguard import Safeguard, Safety

__all__ = [
    "DEFAULT_AGENT",
    "AgentPolicy",
    "FixedPolicy",
    "GreedyPolicy",
    "JobView",
    "Policy",
    "Reference",
    "Safeguard",
    "Safety",
    "parse_policy",
]


def parse_policy(text: str, reference: Reference | None = None) -> Policy:
    """The policy that `--policy` names.

    Args:
        text: `agent` (the one that ships as the default), `agents/NAME` or the path of an agent's folder,
            `greedy`, or `fixed:FUNCTIONSxMEMORY`.
        reference: What a learned policy acts relative to, if the job was rehearsed.

    Raises:
        UnknownNameError: No such policy.
        AgentError: The agent is damaged, or was trained for other spaces.
        UsageError: A fixed policy of another form.
    """
    if text == "greedy":
        return GreedyPolicy()
    if text == "agent":
        return AgentPolicy.load(DEFAULT_AGENT, reference, name=text)
    kind, _, rest = text.partition(":")
    if kind == "fixed":
        return FixedPolicy.parse(rest)
    if "/" in text:
        return AgentPolicy.load(text, reference)
    names = [f"agents/{name}" for name in agent_names()]
    raise UnknownNameError("policy", text, ["agent", "greedy", "fixed:FUNCTIONSxMEMORY", *names])
