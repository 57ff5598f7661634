"""Siren's testbed in the twin: functions against synchronous SGD on clusters of m4 machines.

    python experiments/siren_testbed.py                        # about 12 minutes of one core
    python experiments/siren_testbed.py --workloads linear-ctr # that one again, and the page anew
    python experiments/siren_testbed.py --fast                 # a few seconds: a look, nothing to quote

LeNet on MNIST, a text CNN on mails, linear classification of clicks: Siren's rehearsed choice, by real SGD in
the twin, against m4.large, m4.xlarge and m4.2xlarge, 1 to 8 of them. Machines have the same laws with their
own prices, starts and network, on the real curves of synchronous SGD (`siren.worlds.vm`,
`siren.planning.machines`). Curves go to experiments/results/siren_testbed/<workload>.csv, and from these the
page and the figure are made.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import tyro
from threadpoolctl import threadpool_limits

from experiments._pages import (
    EXPERIMENTS,
    RESULTS,
    Course,
    Interval,
    commit,
    interval,
    machine_courses,
    markdown,
    played,
    ratio,
    told,
    wrapped,
    write_rows,
)
from siren.analysis import _format
from siren.analysis.figures import BLUE, GREEN, INK, PURPLE, RED, plain_log, styled_figure
from siren.planning.machines import SIZES, measure
from siren.planning.plans import AMPLE, budgets_of, fixed_frontier
from siren.policies import Safeguard, Safety
from siren.rehearsal.rehearse import rehearse
from siren.rehearsal.stage import Stage
from siren.simulator.sampling import costing_of
from siren.twin.twin import job_of
from siren.workloads.registry import load_workload
from siren.worlds.vm import Cluster, VmCosting, load_machines

WORLD = "aws-2026"
TYPES = {"m4.large": BLUE, "m4.xlarge": GREEN, "m4.2xlarge": INK}
SIREN, S3 = "Siren", "Siren over S3"
COLOURS = {SIREN: RED, S3: PURPLE}
S3_RULES = {"update_rule": "average", "channel": "s3"}
"""Averaging needs no cache node; where episodes are cheap it is run as well."""

FIRST_SEED = 60_000_000
"""Seeds of the runs: in no range that a rehearsal, a prediction or a machine's curve uses."""

CLAIM = 0.443
"""Share of the time that the slides say is saved at the same cost."""


@dataclass(frozen=True)
class Part:
    """How much of a workload is run.

    Attributes:
        title: For people.
        target_loss: Where it ends: easier than LeNet's own, whose epochs take 7 s of a core or more.
        seconds: Of a rehearsal, of one core's time.
        budget_usd: Of the runs; by default two are taken, from the frontier of fixed actions.
        s3: Whether it is run over S3 as well.
    """

    title: str
    target_loss: float
    seconds: float
    budget_usd: str = ""
    s3: bool = False


PARTS = {
    "lenet-mnist": Part("LeNet on MNIST", 0.1, 20.0, budget_usd="0.04"),
    "textcnn-spam": Part("text CNN on mails", 0.12, 10.0, budget_usd="0.045"),
    "linear-ctr": Part("linear classification of clicks", 0.465, 8.0, s3=True),
}


@dataclass(frozen=True)
class TestbedConfig:
    """Repeat the testbed of Siren's slides in the twin."""

    fast: bool = False
    """`linear-ctr` on a tenth of its samples, two seeds: a look, nothing to quote."""

    workloads: tuple[str, ...] = tuple(PARTS)
    """What is run; the others are read from their CSV."""

    seeds: int = 5
    """Runs of every arm."""

    own_targets: bool = False
    """The workloads' own targets: 10 minutes of one core more for LeNet."""

    page: Path = EXPERIMENTS / "siren_testbed.md"
    """The page."""

    out: Path = RESULTS / "siren_testbed"
    """Folder for the CSVs and the figure."""


@dataclass(frozen=True)
class Run:
    """A run of an arm: functions with a budget, or machines.

    Attributes:
        arm: `Siren`, or a type of machine.
        machines: How many; 0 for functions.
        started: Whether machines ran already and held the data.
        budget_usd, policy: Of functions, and what the rehearsal chose; empty for machines.
        course: How it went.
    """

    arm: str
    machines: int
    started: bool
    budget_usd: str
    policy: str
    course: Course

    @property
    def key(self) -> tuple[str, int, bool, str]:
        """What runs of one cell share."""
        return self.arm, self.machines, self.started, self.budget_usd


# --- the runs ----------------------------------------------------------------------------------------


def stage_of(name: str, config: TestbedConfig, overrides: dict[str, object] | None = None) -> Stage:
    """The job in the twin."""
    changes = {"target_loss": None if config.own_targets else PARTS[name].target_loss, **(overrides or {})}
    if config.fast:
        changes |= {"samples_per_epoch": 20_000, "target_loss": 0.56}
    workload = load_workload(name, overrides=changes)
    return Stage(workload, costing_of(WORLD, job_of(workload)), clock=time.process_time)


def budgets_for(stage: Stage, arm: str, seconds: float) -> list[Decimal]:
    """Budgets of an arm: what the part says, or the ends of the frontier; over S3 its middle."""
    part = PARTS[stage.workload.name]
    if part.budget_usd:
        return [Decimal(part.budget_usd)]
    found = rehearse(stage, None, AMPLE, seconds, workers=1)
    budgets = budgets_of(fixed_frontier(stage, found), 3)
    return budgets[1:2] if arm == S3 else [budgets[0], budgets[-1]]


def siren_runs(stage: Stage, arm: str, config: TestbedConfig) -> Iterator[Run]:
    """Rehearsed, then played on fresh seeds, at each of its budgets."""
    workload, costing = stage.workload, stage.costing
    seconds = 2.0 if config.fast else PARTS[workload.name].seconds
    for budget_usd in budgets_for(stage, arm, seconds):
        found = rehearse(stage, None, budget_usd, seconds, workers=1)
        policy = Safeguard(found.choice.policy(), Safety())
        for seed in range(FIRST_SEED, FIRST_SEED + config.seeds):
            course, _ = played(workload, costing, policy, seed, budget_usd)
            yield Run(
                arm, 0, False, f"{budget_usd:f}", f"{found.choice.name} of {found.reference.action}", course
            )


def machine_runs(stage: Stage, config: TestbedConfig) -> Iterator[Run]:
    """Synchronous SGD on every cluster that holds the job."""
    target = stage.workload.spec.training.target_loss
    costing = VmCosting(stage.costing.world, stage.costing.job, load_machines())
    clusters = [Cluster(name, size) for name in TYPES for size in SIZES]
    sizes = measure(stage, target, math.inf, runs=config.seeds)
    for cluster in clusters:
        if not sizes or not costing.fits(cluster):
            continue
        best = min(sizes, key=lambda s: float(np.mean(s.epochs)) * costing.epoch_s(cluster, s.steps, s.batch))
        for started in (False, True):
            for course in machine_courses(costing, cluster, best, started=started):
                yield Run(cluster.instance, cluster.machines, started, "", "", course)


def run_workload(name: str, config: TestbedConfig) -> list[Run]:
    """All arms of a workload."""
    stage = stage_of(name, config)
    runs = [*siren_runs(stage, SIREN, config), *machine_runs(stage, config)]
    if PARTS[name].s3 and not config.fast:
        runs += siren_runs(stage_of(name, config, S3_RULES), S3, config)
    return runs


# --- CSV ---------------------------------------------------------------------------------------------


def csv_of(name: str, config: TestbedConfig) -> Path:
    """Where the runs of a workload are kept; fast ones apart, so that no page mixes them with others."""
    return config.out / f"{name}{'-fast' if config.fast else ''}.csv"


def write_runs(runs: Sequence[Run], path: Path) -> None:
    """Every epoch of every run; epoch 0 is the start."""
    numbers: dict[tuple, int] = {}
    rows = []
    for run in runs:
        number = numbers[run.key] = numbers.get(run.key, -1) + 1
        about = {name: getattr(run, name) for name in ("arm", "machines", "started", "budget_usd", "policy")}
        course = run.course
        for epoch, values in enumerate(zip(course.seconds, course.dollars, course.losses, strict=True)):
            seconds, dollars, loss = (float(value) for value in values)
            rows.append({**about, "run": number, "reached": course.reached, "cache_usd": course.cache_usd,
                         "epoch": epoch, "seconds": seconds, "dollars": dollars, "loss": loss})  # fmt: skip
    write_rows(path, rows)


def read_runs(path: Path) -> list[Run]:
    """What `write_runs` wrote."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    groups: dict[tuple, list[dict[str, str]]] = {}
    for row in rows:
        key = row["arm"], int(row["machines"]), row["started"] == "True", row["budget_usd"], int(row["run"])
        groups.setdefault(key, []).append(row)
    found = []
    for (arm, machines, started, budget_usd, _), epochs in groups.items():
        seconds, dollars, losses = (
            np.array([float(e[name]) for e in epochs]) for name in ("seconds", "dollars", "loss")
        )
        first = epochs[0]
        course = Course(seconds, dollars, losses, first["reached"] == "True", float(first["cache_usd"]))
        found.append(Run(arm, machines, started, budget_usd, first["policy"], course))
    return found


# --- cells -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """Runs that differ by seed alone."""

    runs: list[Run]

    @property
    def name(self) -> str:
        """As in the table."""
        run = self.runs[0]
        return (
            str(Cluster(run.arm, run.machines))
            if run.machines
            else f"{run.arm}, ${Decimal(run.budget_usd):.4f}"
        )

    @property
    def seconds(self) -> list[float]:
        """Times of the runs."""
        return [run.course.duration_s for run in self.runs]

    @property
    def dollars(self) -> list[float]:
        """Their bills."""
        return [run.course.cost_usd for run in self.runs]

    @property
    def without_cache(self) -> list[float]:
        """Their bills without the cache node."""
        return [run.course.cost_usd - run.course.cache_usd for run in self.runs]

    @property
    def reached(self) -> int:
        """Runs that reached the target."""
        return sum(run.course.reached for run in self.runs)


def cells_of(runs: Sequence[Run], *, machines: bool, started: bool = False) -> list[Cell]:
    """The cells of functions or of machines."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        if bool(run.machines) == machines and run.started == started:
            groups.setdefault(run.key, []).append(run)
    return [Cell(group) for group in groups.values()]


@dataclass(frozen=True)
class SameCost:
    """The fastest cluster that costs no more than functions did, None if all cost more; and the cheapest."""

    siren: Cell
    peer: Cell | None
    cheapest: Cell | None

    @property
    def times(self) -> Interval | None:
        """Time of functions over that of the machines; below 1 functions are faster."""
        return None if self.peer is None else ratio(self.siren.seconds, self.peer.seconds)


def same_cost(runs: Sequence[Run], *, started: bool) -> list[SameCost]:
    """For every budget of functions, what machines do with the same money."""
    peers = cells_of(runs, machines=True, started=started)
    found = []
    for cell in cells_of(runs, machines=False):
        paid = [peer for peer in peers if np.mean(peer.dollars) <= np.mean(cell.dollars)]
        peer = min(paid, key=lambda p: np.mean(p.seconds)) if paid else None
        cheapest = min(peers, key=lambda p: np.mean(p.dollars), default=None)
        found.append(SameCost(cell, peer, cheapest))
    return found


# --- the figure --------------------------------------------------------------------------------------


def figure(every: dict[str, list[Run]], path: Path) -> None:
    """Time against dollars, and loss against time, of each workload."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with styled_figure(path, (17.0, 10.4)) as drawn:
        cells = drawn.add_gridspec(
            2, len(every), left=0.055, right=0.985, top=0.86, bottom=0.065, hspace=0.3, wspace=0.18
        )
        drawn.suptitle("Functions against machines, in the twin", x=0.055, ha="left", size=17)
        for k, (name, runs) in enumerate(every.items()):
            frontier, losses = drawn.add_subplot(cells[0, k]), drawn.add_subplot(cells[1, k])
            _draw_frontier(frontier, runs, PARTS[name].title)
            _draw_losses(losses, runs)
            if k == 0:
                frontier.set_ylabel("seconds to the target, log")
                losses.set_ylabel("held-out loss, log")
        _legend(drawn)


def _draw_frontier(axes, runs: Sequence[Run], title: str) -> None:
    for started in (False, True):
        cells = cells_of(runs, machines=True, started=started)
        for kind, colour in TYPES.items():
            mine = [cell for cell in cells if cell.runs[0].arm == kind]
            x, y = ([float(np.mean(getattr(c, what))) for c in mine] for what in ("dollars", "seconds"))
            face, line = ("white", ":") if started else (colour, "-")
            axes.plot(
                x, y, "s", color=colour, markerfacecolor=face, linestyle=line, markersize=6, linewidth=1.3
            )
            for cell, at, height in list(zip(mine, x, y, strict=True))[:: len(SIZES) - 1]:
                axes.annotate(f"{cell.runs[0].machines}", (at, height), xytext=(5, 4),
                              textcoords="offset points", color=colour, size=9)  # fmt: skip
    for cell in cells_of(runs, machines=False):
        colour, y = COLOURS[cell.runs[0].arm], float(np.mean(cell.seconds))
        bill, alone = float(np.mean(cell.dollars)), float(np.mean(cell.without_cache))
        axes.plot([alone, bill], [y, y], color=colour, linewidth=1, linestyle=":")
        axes.plot([alone], [y], "o", color=colour, markersize=10, markerfacecolor="white")
        axes.plot([bill], [y], "o", color=colour, markersize=10)
    axes.set(xscale="log", yscale="log", xlabel="dollars, log", title=title)
    axes.margins(y=0.12)
    plain_log(axes.xaxis, (1.0,))
    plain_log(axes.yaxis)


def _draw_losses(axes, runs: Sequence[Run]) -> None:
    functions = cells_of(runs, machines=False)
    single = [cell for cell in cells_of(runs, machines=True) if cell.runs[0].machines == 1]
    shown = [cell for cell in functions if cell.runs[0].arm == SIREN][-1:] + single
    for cell in shown:
        colour = COLOURS.get(cell.runs[0].arm) or TYPES[cell.runs[0].arm]
        for run in cell.runs:
            seconds, losses, mark = run.course.seconds, run.course.losses, "o" if run.course.reached else "x"
            axes.plot(seconds, losses, color=colour, linewidth=1.2, alpha=0.6)
            axes.plot(seconds[-1:], losses[-1:], mark, color=colour, markersize=6)
    axes.set(yscale="log", xlabel="seconds, starts included; one machine", xlim=(0, None))
    axes.set_title("Loss against time")
    plain_log(axes.yaxis)


def _legend(drawn) -> None:
    from matplotlib.lines import Line2D

    machines = [Line2D([], [], color=colour, marker="s", markersize=7) for colour in TYPES.values()]
    marks = [
        Line2D([], [], color=INK, marker="s", markerfacecolor="white", linestyle=":", markersize=7),
        Line2D([], [], color=RED, marker="o", linestyle="", markersize=10),
        Line2D([], [], color=RED, marker="o", markerfacecolor="white", linestyle="", markersize=10),
        Line2D([], [], color=PURPLE, marker="o", linestyle="", markersize=10),
    ]
    texts = [*TYPES, "machines started before", "Siren", "its bill without the cache node", "Siren over S3"]
    drawn.legend(
        machines + marks, texts, loc="upper left", bbox_to_anchor=(0.05, 0.955), ncols=8, handlelength=1.5
    )
    drawn.text(0.985, 0.905, "squares: 1, 2, 4, 8 machines; x: target not reached", ha="right", color=INK)


# --- the page ----------------------------------------------------------------------------------------

HEAD = ("arm", "chosen", "reached", "epochs", "time", "bill", "bill without the cache node")
MACHINE_HEAD = ("cluster", "epochs", "time", "bill", "time, started before", "bill, started before")
SAME_HEAD = ("workload", "Siren", "its time", "its bill", "fastest m4 cluster for as much",
             "Siren's time over it", "saved", "the same, started before", "Siren's time over it")  # fmt: skip
PAGE = """# Siren's testbed, in the twin: functions against machines

Written by `python experiments/siren_testbed.py{flags}` at commit {commit} (runs of the CSVs: the commit
that wrote them); seeds {first}-{last} on functions, {seeds} curves of synchronous SGD for machines.

**Question.** Siren's slides compare Siren on Lambda with MXNet on EC2 clusters of m4 machines, for LeNet on
MNIST, a CNN on movie reviews and linear classification of a click-through log: **{claim} less time at the
same cost, they say. That number is theirs.** What is measured here?

**Method.** Real SGD in the twin, world `{world}`, the real ledger. Siren: what a rehearsal of 8 to 20 s of
one core chooses for a budget: {budgets}, and for clicks from 1.05 times what the cheapest fixed action
needs to that of the fastest. Machines: 1, 2, 4 or 8 m4 machines on demand train by synchronous SGD with the
workload's mini-batch divided over as many cores as is fastest, by the same laws with their prices, network
and all-reduce (`siren/worlds/vm.py`); 25.8 s from the request until they run, then packages and data;
billed by the second, 60 s at least. "Started before" leaves out the start, the loading of data and the
minimum. The mails stand for the movie reviews, which cannot be had offline. Targets: {targets}; LeNet's is
easier than its own of 0.055, which `--own-targets` takes. Intervals are 95% bootstraps over seeds.

## Time at the same cost

For each of Siren's bills the fastest of the clusters that cost no more. Below 1 Siren is faster,
above 1 slower. A run that does not reach the target counts with the time until its budget was used up.

{same}
**What it shows.** {shows}

![Time against cost, loss against time](results/siren_testbed/figure.png)

## All numbers

{tables}
**Threats.** A vCPU of m4 counts as one of Lambda (both are hardware threads; m4's are older). The slides'
MXNet, its start and its data are unknown; Siren's gain there may come from hours of training in which
starts hardly count, or from clusters whose network was slow. The jobs here are small: a minute or less on
one machine. The cache node's started hour, ${cache_usd:.3f}, is most of Siren's bill; over S3 there is
none. A user of machines could take larger mini-batches than the workload's. Siren's agent is trained on
another family, and its rehearsal may take a sub-sample of a large job. Nothing here ran on AWS.
"""


def siren_row(cell: Cell) -> tuple[str, ...]:
    """A line of a workload's table."""
    return (
        cell.name, f"`{cell.runs[0].policy}`", f"{cell.reached} of {len(cell.runs)}", _epochs(cell),
        told(interval(cell.seconds), _format.seconds), told(interval(cell.dollars), _format.dollars),
        told(interval(cell.without_cache), _format.dollars),
    )  # fmt: skip


def _epochs(cell: Cell) -> str:
    return f"{np.mean([len(run.course.losses) - 1 for run in cell.runs]):.1f}"


def machine_row(cold: Cell, started: Cell) -> tuple[str, ...]:
    """A line of the table of machines."""
    return (
        cold.name, _epochs(cold),
        told(interval(cold.seconds), _format.seconds), told(interval(cold.dollars), _format.dollars),
        told(interval(started.seconds), _format.seconds), told(interval(started.dollars), _format.dollars),
    )  # fmt: skip


def tables(every: dict[str, list[Run]]) -> str:
    """Two tables for each workload."""
    parts = []
    for name, runs in every.items():
        cold, started = (cells_of(runs, machines=True, started=flag) for flag in (False, True))
        parts += [
            f"### {PARTS[name].title} (`{name}`)\n",
            markdown(HEAD, [siren_row(cell) for cell in cells_of(runs, machines=False)]),
            markdown(MACHINE_HEAD, [machine_row(*pair) for pair in zip(cold, started, strict=True)]),
        ]
    return "\n".join(parts)


def same_rows(every: dict[str, list[Run]]) -> list[tuple[str, ...]]:
    """Lines of the table of equal cost."""
    rows = []
    for name, runs in every.items():
        pairs = zip(same_cost(runs, started=False), same_cost(runs, started=True), strict=True)
        for cold, started in pairs:
            rows.append(
                (f"`{name}`", cold.siren.name, _format.seconds(float(np.mean(cold.siren.seconds))),
                 told(interval(cold.siren.dollars), _format.dollars),
                 _peer(cold), _times(cold), _saved(cold), _peer(started), _times(started))
            )  # fmt: skip
    return rows


def _peer(found: SameCost) -> str:
    cell = found.peer or found.cheapest
    if cell is None:
        return "synchronous SGD does not get there"
    seconds, dollars = float(np.mean(cell.seconds)), float(np.mean(cell.dollars))
    text = f"{cell.name}: {_format.seconds(seconds)}, {_format.dollars(dollars)}"
    return text if found.peer else f"none; the cheapest is {text}"


def _times(found: SameCost) -> str:
    return "" if found.times is None else told(found.times, lambda x: f"{x:.2f}" if x < 10 else f"{x:.0f}")


def _saved(found: SameCost) -> str:
    return "" if found.times is None else f"{1 - found.times[0]:.1%}"


def shows(every: dict[str, list[Run]]) -> str:
    """The findings, from the numbers."""
    lines = []
    for started in (False, True):
        found = [(name, s) for name, runs in every.items() for s in same_cost(runs, started=started)]
        wins = [f"`{name}` ({s.siren.name})" for name, s in found if s.times and s.times[2] < 1]
        losses = [s for _, s in found if s.times and s.times[1] > 1]
        how = "Where machines run already" if started else "Where machines have to be started"
        text = f"{how}, Siren is faster at the same cost in {len(wins)} of {len(found)} cases"
        text += f" ({', '.join(wins)})" if wins else ""
        dear = sum(s.peer is None for _, s in found)
        text += f", slower in {len(losses)}"
        lines.append(f"{text}{f'; in {dear} no cluster is as cheap' if dear else ''}.")
    both = [s for runs in every.values() for s in same_cost(runs, started=False)]
    siren = [s.siren for s in both if s.siren.runs[0].arm == SIREN]
    shares = [float(np.mean(cell.without_cache) / np.mean(cell.dollars)) for cell in siren]
    lines.append(
        f"The cache node is {1 - max(shares):.0%} to {1 - min(shares):.0%} of Siren's bills; what functions "
        f"send through it one after another bounds how fast an epoch can be. The slides' {CLAIM:.1%} is "
        + (
            "not reproduced."
            if not any(s.times and s.times[0] <= 1 - CLAIM for s in both)
            else "exceeded where machines have to be started."
        )
    )
    left = [f"`{name}`" for name in PARTS if name not in every]
    if left:
        lines.append(f"Not run here yet: {', '.join(left)} (`--workloads` runs it and adds it to this page).")
    return " ".join(lines)


def page(config: TestbedConfig, every: dict[str, list[Run]]) -> str:
    """The whole page."""
    caches = [run.course.cache_usd for runs in every.values() for run in runs]
    targets = ", ".join(f"{part.target_loss:g} for `{name}`" for name, part in PARTS.items())
    given = [(part.budget_usd, name) for name, part in PARTS.items() if part.budget_usd]
    budgets = ", ".join(f"${budget_usd} for `{name}`" for budget_usd, name in given)
    return PAGE.format(
        flags=" --fast" if config.fast else "", commit=commit(), first=FIRST_SEED,
        last=FIRST_SEED + config.seeds - 1, seeds=config.seeds, claim=f"{CLAIM:.1%}", world=WORLD,
        targets=targets, budgets=budgets, same=markdown(SAME_HEAD, same_rows(every)), shows=shows(every),
        tables=tables(every), cache_usd=max(caches),
    )  # fmt: skip


def main(config: TestbedConfig) -> int:
    """Runs, writes the CSVs, and from them the figure and the page; prints the main table."""
    commit()  # others may commit while this runs
    if config.fast:
        config = dataclasses.replace(config, workloads=("linear-ctr",), seeds=2)
    with threadpool_limits(1):
        for name in config.workloads:
            write_runs(run_workload(name, config), csv_of(name, config))
    paths = {name: csv_of(name, config) for name in PARTS}
    every = {name: read_runs(path) for name, path in paths.items() if path.is_file()}
    figure(every, config.out / "figure.png")
    config.page.parent.mkdir(parents=True, exist_ok=True)
    config.page.write_text(wrapped(page(config, every)), encoding="utf-8")
    sys.stdout.write(markdown(SAME_HEAD, same_rows(every)))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(TestbedConfig)))
