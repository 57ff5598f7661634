"""What a run's header and summary say, as pairs of a name and a value."""

from __future__ import annotations

import math
import shlex

from siren.analysis import _format
from siren.analysis.run_folder import resume_command
from siren.types import Comparison, RunHeader, RunSummary, StopReason
from siren.units import counted

Lines = list[tuple[str, str]]

_ENDS = {
    StopReason.TARGET_REACHED: "target reached",
    StopReason.INTERNAL_ERROR: "stopped by an error in Siren",
    StopReason.USAGE_ERROR: "cannot be run",
    StopReason.BUDGET_EXHAUSTED: "the budget ran out before the target",
    StopReason.PLATFORM_FAILURE: "the platform failed",
    StopReason.DIVERGED: "diverged",
    StopReason.LIMIT_REACHED: "stopped at a limit before the target",
    StopReason.INTERRUPTED: "interrupted",
}
_RESUMABLE = (StopReason.INTERRUPTED, StopReason.LIMIT_REACHED, StopReason.PLATFORM_FAILURE)


def title(header: RunHeader) -> str:
    """The job in a few words."""
    name, workload = _format.clean(header.title), _format.clean(header.workload)
    return f"{name} ({workload})" if name and name != workload else workload


def header_lines(header: RunHeader) -> Lines:
    """What runs."""
    money = "real money is spent" if header.spends_money else "no money is spent"
    lines = [
        ("data", header.dataset),
        ("world", header.world),
        ("platform", f"{header.platform}: {money}"),
        ("policy", header.policy),
        ("rules", f"{header.update_rule} updates over {header.channel}, {header.batch_rule} mini-batches"),
        ("budget", _format.budget(header.budget_usd)),
        ("target", f"held-out loss {header.target_loss:g}, within {header.max_epochs:,} epochs"),
        ("seed", str(header.seed)),
        *(("note", note) for note in header.notes),
    ]
    return [(name, _format.clean(value)) for name, value in lines]


def verdict(summary: RunSummary) -> str:
    """How the run ended, in a few words."""
    return _ENDS[summary.stop_reason]


def summary_lines(summary: RunSummary) -> Lines:
    """What came out."""
    header = summary.header
    clock = " on the virtual clock" if header.platform == "twin" else ""
    best = f", best {_format.loss(summary.best_loss)} after epoch {summary.best_epoch}"
    lines = [
        ("loss", f"{_format.loss(summary.initial_loss)} -> {_format.loss(summary.final_loss)}{best}"),
        ("epochs", f"{summary.epochs:,}"),
        (
            "time",
            f"{_format.seconds(summary.duration_s)}{clock}, {_format.seconds(summary.wall_s)} real time",
        ),
        ("cost", f"{_format.exact_dollars(summary.cost_usd)} of {_format.budget(header.budget_usd)}"),
    ]
    if math.isfinite(summary.final_accuracy):
        lines.insert(1, ("accuracy", _format.percent(summary.final_accuracy)))
    if summary.stop_detail:
        lines.insert(0, ("why", summary.stop_detail))
    if summary.comparison:
        lines += comparison_lines(summary.comparison)
    return [(name, _format.clean(value)) for name, value in lines]


def bill_lines(summary: RunSummary) -> Lines:
    """The items of the bill that are not zero, largest first."""
    items = sorted(summary.bill.items(), key=lambda item: -item[1])
    return [(_format.clean(name.replace("_", " ")), _format.exact_dollars(usd)) for name, usd in items if usd]


def comparison_lines(comparison: Comparison) -> Lines:
    """How a run compares with the best fixed action and with the lower bound."""
    c, action = comparison, f"{comparison.functions}x{comparison.memory_mb}"
    chosen = (
        f"among {counted(c.tried, 'fixed action')} on seeds {c.first_seed} to {c.first_seed + c.seeds - 1}; "
        f"{c.success_rate:.0%} of its runs there reached the target"
    )
    if c.fixed_reached:
        found = f"{_format.seconds(c.fixed_s)} and {_format.exact_dollars(c.fixed_usd)} with this seed"
        found += _ratios(c.time_ratio, c.cost_ratio)
    else:
        found = "did not reach the target with this seed"
    lines = [("compare", f"fixed:{action}: {found}"), ("chosen", chosen)]
    if math.isfinite(c.bound_s):
        curves = f"a model fitted to {counted(c.curves, 'curve')}"
        lines.append(
            (
                "bound",
                f"{_format.seconds(c.bound_s)}, which nothing beats on {curves}{_ratios(c.bound_ratio)}",
            )
        )
    return lines


def _ratios(time: float, cost: float = math.nan) -> str:
    if not math.isfinite(time):
        return ""
    text = f"; the run took {time:.2f} times as long"
    return text + (f" and cost {cost:.2f} times as much" if math.isfinite(cost) else "")


def next_lines(summary: RunSummary) -> Lines:
    """Where the results are and how to go on."""
    folder = _format.clean(summary.header.folder)
    lines = [("results", folder), ("report", f"python -m siren.report {shlex.quote(folder)}")]
    if summary.stop_reason in _RESUMABLE:
        lines.append(("resume", resume_command(folder)))
    return lines
