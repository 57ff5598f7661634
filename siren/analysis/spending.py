"""What a run is about to spend, in words, before anything is spent."""

from __future__ import annotations

from siren.analysis import _format
from siren.analysis._wording import header_lines
from siren.errors import BudgetError
from siren.loop import JobLoop
from siren.types import RunHeader


def spending_plan(header: RunHeader, loop: JobLoop) -> str:
    """What runs, its next epoch with expected and worst-case dollars, and the most of all; several lines.

    Args:
        header: What the run is.
        loop: The job before that epoch; its policy decides once.

    Raises:
        BudgetError: Nothing useful can be paid.
    """
    decided = loop.decide()
    if decided is None:
        raise BudgetError("no useful epoch fits the budget: give a larger one, or an easier target")
    action, plan = decided[0].action, decided[1]
    expected = loop.view.predict([action])
    duration = _format.seconds(float(expected.duration_s[0]))
    cost = _format.dollars(float(loop.view.cost_usd(expected)[0]))
    lines = [
        *header_lines(header),
        (
            "next" if loop.records else "first",
            f"{_format.functions(action.functions)} of {action.memory_mb:,} MB, timeout {plan.timeout_s} s",
        ),
        ("", f"expected: {duration}, {cost}; at worst {_format.dollars(plan.reserve_usd)}"),
        ("whole run", f"at worst {_format.dollars(loop.ledger.left_usd)}, what is left of the budget"),
    ]
    return "\n".join(f"{name:9s} {text}" for name, text in lines)
