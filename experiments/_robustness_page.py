"""The page and the figure of `experiments/robustness.py`, from its CSV alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments._disturbed import HELDOUT, NOISE, NOISY, OFF, ONE_VCPU_MB, WORLD_SEEDS, constants_off
from experiments._pages import Floats, markdown
from experiments._robustness_tables import (
    DISTURBED_HEAD,
    JOB_HEAD,
    KEPT,
    MEMORY_HEAD,
    NOISY_HEAD,
    ONE,
    PLANNED,
    REHEARSED,
    SPLIT_FAMILY,
    TOLERANCE,
    UNDISTURBED,
    WORLD,
    CellRow,
    Memory,
    Table,
    disturbed_rows,
    job_rows,
    memories,
    memory_rows,
    named,
    noisy_rows,
    times,
)
from siren.analysis.figures import BLUE, GREEN, INK, ORANGE, RED, plain_log, styled_figure
from siren.evaluation import seeds
from siren.worlds import load_world

# --- the figure --------------------------------------------------------------------------------------


def figure(cells: Sequence[CellRow], path: Path) -> None:
    """Speed-up and success by disturbance, and what m gives."""
    table = Table(cells)
    with styled_figure(path, (17.0, 6.4)) as drawn:
        grid = drawn.add_gridspec(1, 3, left=0.055, right=0.985, top=0.83, bottom=0.24, wspace=0.22)
        speed, success, memory = (drawn.add_subplot(cell) for cell in grid)
        drawn.suptitle("Rehearsed in one world, played in another", x=0.055, ha="left", size=17)
        _draw_speed(speed, table)
        _draw_success(success, table)
        _draw_memory(memory, memories(table))


def _draw_speed(axes: Any, table: Table) -> None:
    at = np.arange(len(table.truths))
    for k, (group, colour) in enumerate(zip(table.groups, (BLUE, GREEN, RED), strict=False)):
        found = np.array([table.speed_up(group, t.name, PLANNED) for t in table.truths])
        bars = np.abs(found[:, 1:].T - found[:, 0])
        axes.errorbar(
            at + 0.18 * (k - 1),
            found[:, 0],
            yerr=bars,
            fmt="o",
            color=colour,
            label=named(table, group).replace("`", ""),
        )
    axes.axhline(1, color=INK, linewidth=1.2, linestyle=(0, (5, 3)))
    axes.set(title="Speed-up over the planned fixed action", yscale="log", ylabel="times faster (log)")
    plain_log(axes.yaxis, (1.0, 1.5, 2.0, 3.0, 5.0))
    _named_ticks(axes, table)
    low, high = axes.get_ylim()
    axes.set_ylim(low, 2 * high)  # room for the legend
    axes.legend(loc="upper right", handlelength=1)


def _draw_success(axes: Any, table: Table) -> None:
    at = np.arange(len(table.truths))
    for k, (group, colour) in enumerate(zip(table.groups, (BLUE, GREEN, RED), strict=False)):
        ours, theirs = (
            [table.success(group, t.name, policy).mean() for t in table.truths]
            for policy in (REHEARSED, PLANNED)
        )
        place = at + 0.18 * (k - 1)
        axes.plot(place, theirs, "o", color=colour, markerfacecolor="white")
        axes.plot(place, ours, "o", color=colour)
    axes.set(title="Success: rehearsed (full), planned fixed (hollow)", ylim=(-0.03, 1.05))
    axes.set_ylabel("share of runs that reached the target")
    _named_ticks(axes, table)


def _named_ticks(axes: Any, table: Table) -> None:
    names = [t.title for t in table.truths]
    axes.set_xticks(np.arange(len(names)), names, rotation=30, ha="right")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.minorticks_off()


def _draw_memory(axes: Any, found: Sequence[Memory]) -> None:
    at = np.arange(len(found))
    for k, (name, colour, face) in enumerate(
        (
            (f"best fixed, {ONE}", ORANGE, "white"),
            (f"rehearsed, {ONE}", ORANGE, ORANGE),
            ("rehearsed, m free", BLUE, BLUE),
        )
    ):
        which = (0, 1, 3)[k]
        ratios = [m.seconds[which] / m.seconds[2] for m in found]
        axes.plot(at, ratios, "o", color=colour, markerfacecolor=face, label=name)
    axes.axhline(1, color=INK, linewidth=1.2, linestyle=(0, (5, 3)))
    axes.set(title="The choice of m, at the same dollars", yscale="log")
    axes.set_ylabel("time over the best fixed action, m free (log)")
    plain_log(axes.yaxis, (1.0, 2.0, 5.0))
    axes.set_xticks(at, [m.job.removeprefix(SPLIT_FAMILY + ":") for m in found], rotation=30, ha="right")
    axes.minorticks_off()
    axes.legend(loc="best", handlelength=1)


# --- the page ----------------------------------------------------------------------------------------

PAGE = """# When the truth is not what was rehearsed, and what the choice of m gives

Written by `python experiments/robustness.py{flags}`; its cells were played at commit {commits} in {cpu:.1f}
minutes of one core (choices that were in Siren's cache already not counted).
Report seeds {first}-{last}; fixed actions are chosen on {select} other seeds. Jobs:
{jobs}, in `{world}`. Budgets are 1.2 (floor-limited) and 1.5
(generated) times the cheapest with which a fixed action is expected to finish in the undisturbed world, and
the same dollars everywhere below.

**Question.** A rehearsal plays the job in a twin of the world. What remains of its gain where losses are
noisy, where some functions straggle, where the world's constants are not as measured? And how much of
everything does the choice of memory m give?

**Method.** Each job is rehearsed for {seconds} s of one core in `{world}` with exact held-out losses.
Its choice then plays the truth, which is disturbed; the policies, the reservations and the time-outs go on
believing `{world}` (a run refits two of its factors, compute and store, from its own epochs, as every run
does). *Planned* is the best fixed action of the undisturbed world, which a user of the twin would take;
*best in truth* is the best fixed action of the disturbed world in hindsight, which nobody can know. A
failure counts as twice the mean time of the best fixed action in that truth. Ratios are those of counted
mean times on the same seeds, geometric means over jobs, with 95% bootstrap intervals over jobs, or over
seeds where it is one job. The disturbances:

{disturbances}

{disturbed}
*Gain that remains* is (speed-up - 1) over the planned action, as a share of that without a disturbance,
where the interval of that is above 1.
{overspent}

![Speed-up and success by disturbance; the choice of m](results/robustness/figure.png)

**What it shows.** {shows}

## Noisy losses: where runs really ended

A run ends as soon as one noisy loss is at the target, so the luckiest of several estimates ends it: a noisy
target is easier than an exact one, for every policy. The gap is the initial loss less the target.

{noisy}
{noisy_shows}

## Job by job

Speed-up over the planned fixed action (success of the rehearsed policy, of the planned action).

{per_job}
## What the choice of m gives

The same jobs in a copy of `{world}` whose only memory size is {one_mb:,} MB, planned, rehearsed and played
there, beside the free choice, at the same dollars. The best fixed action of one size may also be the
rehearsal's. Seconds are counted means, a failure counted in all of them
as twice the slower of the two best fixed actions' mean times; success in brackets.

{memory}
{memory_shows}

**Why fewer sizes can win.** At this commit a fixed action whose worst case the budget cannot reserve any
more gives no answer, and the safeguards then run the thriftiest action of all. With one size that is a few
functions fewer, and the run goes on to its target. With m free it is many small functions: 542 of 128 MB
after 60 of 1,769 MB on `softmax` (rehearsal seed 20000000), whose updates diverge under `split`. So a
rehearsal with m free sees fast fixed actions fail that would have needed only fewer functions in their last
epochs, and builds on slower ones.

**Threats.** The truths are ours: AWS may differ in ways that no factor describes. Three worlds with
constants off are three draws. The noisy loss costs no less time than the exact one here. The best fixed
action in truth is looked for in a shorter race than the planned one: among it, its neighbours and what short
ladders in `{world}`, at the true prices and speeds, propose. Rehearsals are cut by a clock of processor time,
so another machine may choose otherwise.
"""


def _disturbances() -> str:
    base = load_world(WORLD)
    speeds = ", ".join(
        f"{base.cpu.memory_per_vcpu / constants_off(base, seed).cpu.memory_per_vcpu:.2f}"
        for seed in WORLD_SEEDS
    )
    return "\n\n".join(
        (
            f"Noisy loss: what policies see after an epoch, and what ends the run, is the loss on {HELDOUT} "
            "held-out samples that are drawn anew after every epoch.",
            f"Stragglers: the coefficients of variation of pushes and of functions (`push_noise`, "
            f"`function_noise`) are {NOISE:g} instead of {base.cpu.push_noise:g}.",
            "Constants off: every constant of the world that says how long something takes (functions' "
            "speed, bandwidths, latencies, service times, cold starts, the scheduler's machine; not quotas, "
            "prices or shapes of distributions) is multiplied by a factor of its own, log-uniform in "
            f"[1/{OFF:g}, {OFF:g}], by numpy's generator of seeds {', '.join(map(str, WORLD_SEEDS))}. "
            f"Functions compute {speeds} times as fast there.",
        )
    )  # fmt: skip


def page(cells: Sequence[CellRow], *, flags: str, seconds: float) -> str:
    """The whole page."""
    table, found = Table(cells), memories(Table(cells))
    report = seeds.report_seeds(len(cells[0].success))
    over_usd = sum(float(c.overspent_usd.sum()) for c in cells)
    played = sum(len(c.success) for c in cells)
    return PAGE.format(
        flags=flags,
        commits=" and ".join(dict.fromkeys(c.commit for c in cells)),
        cpu=sum(c.cpu_s for c in cells) / 60,
        first=report[0],
        last=report[-1],
        select=seeds.SELECT_COUNT,
        jobs=", ".join(_described(table, group) for group in table.groups),
        world=WORLD,
        seconds=f"{seconds:g}",
        disturbances=_disturbances(),
        disturbed=markdown(DISTURBED_HEAD, disturbed_rows(table)),
        overspent=f"Dollars spent beyond the budget, in all {played:,} runs of this page: ${over_usd:.2f}.",
        shows=shows(table),
        noisy=markdown(NOISY_HEAD, noisy_rows(table)),
        noisy_shows=noisy_shows(table),
        per_job=markdown(JOB_HEAD, job_rows(table)),
        one_mb=ONE_VCPU_MB,
        memory=markdown(MEMORY_HEAD, memory_rows(found)),
        memory_shows=memory_shows(found),
    )


def _described(table: Table, group: str) -> str:
    name = named(table, group)
    return f"{name} under `split`" if group == SPLIT_FAMILY else f"`experiments/floor/{group}`"


def shows(table: Table) -> str:
    """The findings, from the numbers."""
    lines = []
    for group in table.groups:
        before = table.speed_up(group, UNDISTURBED, PLANNED)
        worlds = [t for t in table.truths if t.name != UNDISTURBED]
        speeds = {t.title: table.speed_up(group, t.name, PLANNED) for t in worlds}
        least = min(speeds, key=lambda title: speeds[title][0])
        slower = [title for title, found in speeds.items() if found[2] < 1]
        lost = [t.title for t in worlds if _lost(table, group, t.name)]
        lines.append(
            f"{named(table, group)}: {times(before)} times as fast as the planned fixed action without a "
            f"disturbance (success {_rate(table, group, REHEARSED)} against {_rate(table, group, PLANNED)}), "
            f"{times(speeds[least])} with the worst ({least}); "
            + (f"clearly slower than it with {', '.join(slower)}; " if slower else "never clearly slower; ")
            + (
                f"success is more than {100 * KEPT:.0f} points below the planned action's with "
                f"{', '.join(lost)}."
                if lost
                else f"success is kept everywhere, to within {100 * KEPT:.0f} points of the planned action's."
            )
        )
    return " ".join(lines)


def _rate(table: Table, group: str, policy: str) -> str:
    return f"{table.success(group, UNDISTURBED, policy).mean():.1%}"


def _lost(table: Table, group: str, truth: str) -> bool:
    return table.difference(group, truth, (truth, PLANNED))[0] < -KEPT


def noisy_shows(table: Table) -> str:
    """What the exact losses say."""
    parts = []
    for group in table.groups:
        ours, theirs = (
            table.success(group, NOISY.name, policy, exact=True).mean() for policy in (REHEARSED, PLANNED)
        )
        parts.append(f"{named(table, group)} {ours:.1%} against {theirs:.1%}")
    return (
        f"Counted strictly (the run ended, and the exact loss is within {TOLERANCE:.0%} of the gap), the "
        f"rehearsed policy succeeds against the planned action in: {'; '.join(parts)}."
    )


def memory_shows(found: Sequence[Memory]) -> str:
    """What m gives."""
    if not found:
        return ""
    gains = [m.ratios for m in found]
    rows = np.array(gains)
    moved = np.array([m.seconds[3] / m.seconds[4] for m in found])
    return (
        f"Over these {len(found)} jobs, free m makes the best fixed action {rows[:, 2].min():.2f} to "
        f"{rows[:, 2].max():.2f} times as fast as at {ONE} (geometric mean {_geometric(rows[:, 2])}), and "
        f"the rehearsed policy {rows[:, 3].min():.2f} to {rows[:, 3].max():.2f} "
        f"({_geometric(rows[:, 3])}). Rehearsing gives {_geometric(rows[:, 0])} over the best fixed action "
        f"at {ONE}, and {_geometric(rows[:, 1])} with m free. What was rehearsed at {ONE} is, played with m "
        f"free, {moved.min():.2f} to {moved.max():.2f} times as fast as what was rehearsed with m free "
        f"({_geometric(moved)}); where that is above 1, the rehearsal loses by having more to choose from."
    )


def _geometric(ratios: Floats) -> str:
    return f"{math.exp(float(np.log(ratios).mean())):.2f}"
