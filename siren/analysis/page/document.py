"""A run as one JSON document: everything that its page says."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from siren import __version__
from siren.analysis import _format, _wording
from siren.analysis.page import charts
from siren.analysis.page.decisions import action_text, decisions
from siren.analysis.page.source import Run
from siren.analysis.page.specs import Amounts, Chart, plain
from siren.types import StopReason
from siren.units import counted

_TONES = {
    StopReason.TARGET_REACHED: "good",
    StopReason.BUDGET_EXHAUSTED: "warn",
    StopReason.LIMIT_REACHED: "warn",
    StopReason.INTERRUPTED: "warn",
}
"""What is not here went wrong."""


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes:
        tone: "live", "good", "warn" or "bad".
        text: In a few words.
    """

    tone: str
    text: str


@dataclass(frozen=True)
class Fact:
    """One of the numbers at the top.

    Attributes:
        name, value: The number.
        note: What it is to be compared with.
        share: For a meter below it, in [0, 1]; None for no meter.
    """

    name: str
    value: str
    note: str
    share: float | None = None


@dataclass(frozen=True)
class Section:
    """Charts that belong together."""

    id: str
    title: str
    charts: Sequence[Chart | Amounts]


def run_document(run: Run) -> dict[str, Any]:
    """Everything that the page of a run says, as JSON without NaN."""
    against_time, against_dollars = charts.loss_charts(run)
    functions, memory = charts.choice_charts(run)
    sections = (
        Section("loss", "Loss", (against_time, against_dollars)),
        Section("choices", "What each epoch ran on", (functions, memory)),
        Section("where-time-goes", "Time", (charts.time_chart(run),)),
        Section("money", "Money", (charts.budget_chart(run), charts.bill_chart(run))),
    )
    return {
        "kind": "run",
        "where": where(run),
        "heading": _format.clean(run.header.title or run.header.workload),
        "state": plain(state_of(run)),
        "lede": lede(run),
        "notes": [_format.clean(note) for note in run.header.notes],
        "resume": dict(_wording.next_lines(run.summary)).get("resume", "") if run.summary else "",
        "facts": plain(facts(run)),
        "sections": plain(sections),
        "decisions": plain(decisions(run)),
        "about": [list(line) for line in about(run)],
    }


def where(run: Run) -> str:
    """Which run this is, and whether it is about real money."""
    header = run.header
    place = f"{header.workload} on {header.world}"
    if header.platform == "twin":
        place += ", emulated by the twin: no money is spent"
    else:
        place += f", platform {header.platform}"
    return _format.clean(place)


def state_of(run: Run) -> State:
    """Where the run stands."""
    if run.running:
        return State("live", "running")
    if run.summary is None:
        return State("warn", "stopped without an end")
    return State(_TONES.get(run.summary.stop_reason, "bad"), _wording.verdict(run.summary))


def lede(run: Run) -> str:
    """The run in one or two sentences."""
    epochs = counted(len(run.records), "epoch")
    so_far = f"{epochs}, {_format.seconds(run.elapsed_s)} and {_format.dollars(run.cost_usd)}"
    of_budget = f"of a budget of {_format.budget(run.header.budget_usd)}"
    target = f"{run.header.target_loss:g}"
    if run.summary and run.summary.target_reached:
        return f"Reached its target, a held-out loss of {target}, after {so_far} {of_budget}."
    last = run.records[-1].status.report.loss if run.records else run.initial_loss
    text = (
        f"The held-out loss is {charts.loss_text(last)} after {so_far} {of_budget}; the target is {target}."
    )
    if run.running:
        return f"{text} {_now(run)}"
    if run.summary is None:
        return f"{text} The process that ran it ended without a word; the run can be resumed."
    detail = _format.clean(run.summary.stop_detail)
    return f"{text} It ended: {detail}." if detail else text


def _now(run: Run) -> str:
    reserved = run.account.reserved
    if reserved is None:
        return "The next epoch is being prepared."
    aside = _format.dollars(reserved.usd)
    return f"Epoch {reserved.epoch} is running; {aside} is set aside for its worst case."


def facts(run: Run) -> tuple[Fact, ...]:
    """The numbers at the top of the page."""
    header, reports = run.header, [r.status.report for r in run.records]
    clock = "on the virtual clock" if header.platform == "twin" else "from launch to end"
    if run.summary:
        clock += f", {_format.seconds(run.summary.wall_s)} real time"
    spent = float(run.cost_usd / header.budget_usd)
    shown = [
        Fact(
            "Held-out loss",
            charts.loss_text(run.loss),
            f"target {header.target_loss:g}, from {charts.loss_text(run.initial_loss)}",
        ),
        Fact("Time", _format.seconds(run.elapsed_s), clock),
        Fact(
            "Cost",
            _format.dollars(run.cost_usd),
            f"{charts.percent_text(spent)} of {_format.budget(header.budget_usd)}",
            min(1.0, spent),
        ),
        Fact("Epochs", f"{len(reports):,}", _actions_used(run)),
    ]
    if reports and math.isfinite(reports[-1].accuracy):
        shown.insert(1, Fact("Accuracy", _format.percent(reports[-1].accuracy), "held out, last epoch"))
    return tuple(shown)


def _actions_used(run: Run) -> str:
    actions = {r.status.report.action for r in run.records}
    if not actions:
        return f"at most {run.header.max_epochs:,}"
    if len(actions) == 1:
        return f"{action_text(*actions)} each"
    counts = [action.functions for action in actions]
    if min(counts) == max(counts):
        return f"{_format.functions(counts[0])}, {len(actions)} memory sizes"
    return f"{min(counts):,} to {max(counts):,} functions"


def about(run: Run) -> list[tuple[str, str]]:
    """What ran, and on what, so that the numbers can be had again."""
    lines = [line for line in _wording.header_lines(run.header) if line[0] != "note"]
    if run.summary and run.summary.comparison:
        lines += _wording.comparison_lines(run.summary.comparison)
    system = run.system
    argv = [str(word) for word in system.get("argv", ())]
    if argv and PurePath(argv[0]).parent.name == "siren":
        command = f"python -m siren.{PurePath(argv[0]).stem} {shlex.join(argv[1:])}"
        lines.append(("command", _format.clean(command)))
    if system.get("commit"):
        dirty = ", with changes" if system.get("dirty") else ""
        lines.append(("commit", f"{str(system['commit'])[:12]}{dirty}"))
    versions = system.get("versions") or {}
    known = [f"{name} {version}" for name, version in versions.items() if version]
    if known:
        lines.append(("versions", _format.clean(f"Python {system.get('python')}, {', '.join(known)}")))
    if system.get("time_utc"):
        lines.append(("began", _format.clean(str(system["time_utc"]))))
    lines.append(("run folder", _format.clean(run.folder.name)))
    lines.append(("page", f"made by Siren {__version__}; python -m siren.report RUN makes it anew"))
    return lines
