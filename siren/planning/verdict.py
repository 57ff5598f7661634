"""Functions or machines: the question of LambdaML (SIGMOD 2021), answered with numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from siren.analysis._format import dollars, seconds
from siren.planning.machines import VmOption
from siren.planning.prediction import Prediction


@dataclass(frozen=True)
class Verdict:
    """Functions or machines.

    Attributes:
        use_vm: Whether an EC2 cluster is expected to be both cheaper and faster.
        text: The same in a sentence with the numbers.
        instance, machines: The cluster that the sentence names; empty and 0 without one.
    """

    use_vm: bool
    text: str
    instance: str = ""
    machines: int = 0


def verdict_on(functions: Prediction, machines: Sequence[VmOption], budget_usd: Decimal) -> Verdict:
    """The verdict for a budget; machines that it cannot pay do not count."""
    paid = [option for option in machines if option.cost_usd.mean <= float(budget_usd)]
    if not paid:
        return Verdict(False, "no EC2 machine is expected to reach the target within the budget")
    ours_s = functions.time_s.mean if functions.time_s else None
    ours_usd = functions.cost_usd.mean
    if ours_s is None:
        best = min(paid, key=lambda option: option.time_s.mean)
        text = f"use a VM instead: {_named(best)}, and functions are not expected to reach the target"
        return _of(best, True, text)
    better = [o for o in paid if o.time_s.mean < ours_s and o.cost_usd.mean < ours_usd]
    if better:
        best = min(better, key=lambda option: option.time_s.mean * option.cost_usd.mean)
        text = (
            f"use a VM instead: {_named(best)}, {ours_s / best.time_s.mean:.1f} times as fast and "
            f"{ours_usd / best.cost_usd.mean:.1f} times cheaper than functions"
        )
        return _of(best, True, text)
    fastest = min(paid, key=lambda option: option.time_s.mean)
    cheapest = min(paid, key=lambda option: option.cost_usd.mean)
    if fastest.time_s.mean < ours_s:
        return _of(fastest, False, f"functions are cheaper; the fastest VM: {_named(fastest)}")
    if cheapest.cost_usd.mean < ours_usd:
        ratio = fastest.time_s.mean / ours_s
        text = f"functions are faster, {ratio:.1f} times as fast as any VM; the cheapest: {_named(cheapest)}"
        return _of(cheapest, False, text)
    return _of(fastest, False, f"functions are faster and cheaper; the fastest VM: {_named(fastest)}")


def _named(option: VmOption) -> str:
    return f"{option.cluster} takes {seconds(option.time_s.mean)} for {dollars(option.cost_usd.mean)}"


def _of(option: VmOption, use_vm: bool, text: str) -> Verdict:
    return Verdict(use_vm, text, option.instance, option.machines)
