"""What a run's header and summary say, as pairs of a name and a value."""

from __future__ import annotations

import math

from siren.analysis import _format
from siren.analysis.run_folder import resume_command
from siren.types import RunHeader, RunSummary, StopReason

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
    return [(name, _format.clean(value)) for name, value in lines]


def bill_lines(summary: RunSummary) -> Lines:
    """The items of the bill that are not zero, largest first."""
    items = sorted(summary.bill.items(), key=lambda item: -item[1])
    return [(_format.clean(name.replace("_", " ")), _format.exact_dollars(usd)) for name, usd in items if usd]


def next_lines(summary: RunSummary) -> Lines:
    """Where the results are and how to go on."""
    lines = [("results", _format.clean(summary.header.folder))]
    if summary.stop_reason in _RESUMABLE:
        lines.append(("resume", resume_command(_format.clean(summary.header.folder))))
    return lines
