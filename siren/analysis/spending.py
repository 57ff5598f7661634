"""What a run is about to spend, in words, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence

from siren.analysis import _format
from siren.analysis._wording import header_lines
from siren.errors import BudgetError
from siren.policies.base import JobView, Policy
from siren.types import EpochRecord, RunHeader


def spending_plan(
    header: RunHeader, view: JobView, policy: Policy, history: Sequence[EpochRecord] = ()
) -> str:
    """What runs, its next epoch with expected and worst-case dollars, and the most of all; several lines.

    Args:
        header: What the run is.
        view: The job as the policy sees it, with the outlook of now.
        policy: What decides; already started.
        history: All epochs so far.

    Raises:
        BudgetError: Nothing useful can be paid.
    """
    decision = policy.decide(list(history))
    plan = view.plan(decision.action) if decision else None
    if decision is None or plan is None:
        raise BudgetError("no useful epoch fits the budget: give a larger one, or an easier target")
    expected, action = view.predict([decision.action]), decision.action
    duration = _format.seconds(float(expected.duration_s[0]))
    cost = _format.dollars(float(view.cost_usd(expected)[0]))
    lines = [
        *header_lines(header),
        (
            "first",
            f"{_format.functions(action.functions)} of {action.memory_mb:,} MB, timeout {plan.timeout_s} s",
        ),
        ("", f"expected: {duration}, {cost}; at worst {_format.dollars(plan.reserve_usd)}"),
        ("whole run", f"at worst {_format.dollars(view.outlook.left_usd)}, what is left of the budget"),
    ]
    return "\n".join(f"{name:9s} {text}" for name, text in lines)
