"""How far the laws' expectations are from the twin, and from published measurements.

    python experiments/agreement.py          # about 8 minutes: CSVs and docs/agreement.md
    python experiments/agreement.py --fast   # less than a minute: a look, nothing to quote

For jobs of the shipped workloads and of the family that agents train on, every update and batch rule,
n from 1 to 1,000, and a memory size drawn for each point, epochs of the twin (cold, then warm) are compared
with `Costing.expect` and `Costing.marginal_usd`, and their spread with the spread that the simulator draws
from (`ActionGrid.spreads`). Seeds of jobs, points and epochs are used for nothing else. A point is repeated
until the standard error of its mean is below a limit or the seeds are used up.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from scipy.special import ndtri
from threadpoolctl import threadpool_limits

from siren.analysis.agreement import KINDS, drawn_epochs, expected_epochs
from siren.simulator.job import ActionGrid
from siren.simulator.sampling import sample_jobs
from siren.simulator.scenarios import load_scenario
from siren.testing.timing import TimingTwin
from siren.twin.twin import job_of
from siren.types import Action, BatchRule, ChannelKind, UpdateRule
from siren.workloads.registry import load_workload, workload_names
from siren.worlds import load_world
from siren.worlds.costing import make_costing
from siren.worlds.expectation import expect_epoch
from siren.worlds.laws import RULES_OF_CHANNEL, Job, bandwidth, epoch_laws, speed
from siren.worlds.world import World

ROOT = Path(__file__).resolve().parent.parent
LADDER = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
TARGETS = {"mean": 0.05, "p90": 0.10}
FIRST_SEED = 10_000


@dataclass(frozen=True)
class Config:
    """Measure how far the laws' expectations are from the twin and from published measurements."""

    fast: bool = False
    """Fewer jobs, counts and seeds: a look, nothing to quote."""

    seeds: int = 32
    """Most epochs of a point."""

    error: float = 0.02
    """A point is repeated until its mean is known so well."""

    family: int = 4
    """Jobs of the family beside the shipped workloads."""

    seed: int = 99
    """Seed of the family's jobs and of the memory sizes."""

    out: Path = ROOT / "experiments" / "results" / "agreement"
    """Folder for the CSVs."""

    page: Path = ROOT / "docs" / "agreement.md"
    """The page that is written."""


@dataclass(frozen=True)
class Point:
    """One action of one job, cold or warm; errors are relative to the twin's mean.

    Attributes:
        job, update_rule, channel, batch_rule, functions, memory_mb, kind: What ran.
        time_error, cost_error: Of the expectation.
        spread, spread_drawn: Coefficient of variation of the epoch time on the twin, and in the simulator.
        duration_s: Mean epoch time on the twin.
        epochs: How many the mean is of.
    """

    job: str
    update_rule: UpdateRule
    channel: ChannelKind
    batch_rule: BatchRule
    functions: int
    memory_mb: int
    kind: str
    time_error: float
    cost_error: float
    spread: float
    spread_drawn: float
    duration_s: float
    epochs: int


# --- the twin ------------------------------------------------------------------------------------


def jobs_of(config: Config, world: World) -> dict[str, Job]:
    """The shipped workloads and some of the family."""
    names = ["softmax-digits", "logreg-higgs"] if config.fast else workload_names()
    jobs = {name: job_of(load_workload(name)) for name in names}
    count = 1 if config.fast else config.family
    drawn = sample_jobs(load_scenario("family-2026"), count, [config.seed, 1], world.name)
    return jobs | {f"family-{k}": job.spec.job for k, job in enumerate(drawn)}


def settings(jobs: dict[str, Job]) -> list[tuple[str, Job]]:
    """Every job under every pair of rules, over every channel that carries them."""
    return [
        (name, dataclasses.replace(job, update_rule=rule, batch_rule=batch_rule, channel=channel))
        for name, job in jobs.items()
        for channel in (ChannelKind.S3, ChannelKind.REDIS)
        for rule in sorted(RULES_OF_CHANNEL[channel])
        for batch_rule in BatchRule
    ]


def measure(world: World, name: str, job: Job, action: Action, config: Config) -> Iterator[Point]:
    """The cold and the warm point of an action."""
    costing = make_costing(world, job)
    grid = ActionGrid(costing, np.array([action.functions]), np.array([action.memory_mb]))
    seeds = range(FIRST_SEED, FIRST_SEED + config.seeds)
    epochs = drawn_epochs(lambda seed: TimingTwin(world, job, seed), action, seeds, config.error)
    for k, (kind, (expected_s, expected_usd)) in enumerate(
        zip(KINDS, expected_epochs(costing, action), strict=True)
    ):
        seconds, dollars = epochs[:, k].mean(axis=0)
        yield Point(
            name, job.update_rule, job.channel, job.batch_rule, action.functions, action.memory_mb, kind,
            time_error=expected_s / seconds - 1,
            cost_error=expected_usd / dollars - 1,
            spread=float(epochs[:, k, 0].std(ddof=1) / seconds),
            spread_drawn=float(np.squeeze(grid.spreads[0])),
            duration_s=float(seconds),
            epochs=len(epochs),
        )  # fmt: skip


def actions_of(world: World, job: Job, ladder: Sequence[int], rng: np.random.Generator) -> Iterator[Action]:
    """Every count with a memory size that the job can use, drawn at random."""
    costing = make_costing(world, job)
    for n in ladder:
        if n > job.functions_max:
            return
        actions = [Action(n, m) for m in world.limits.memory_grid]
        usable = [a for a in actions if not costing.refusal(a) and not costing.futility(a)]
        if usable:
            yield usable[int(rng.integers(len(usable)))]


def compare(config: Config, console: Console) -> list[Point]:
    """All points."""
    world, rng = load_world("aws-2026"), np.random.default_rng([config.seed, 2])
    ladder = LADDER[::3] if config.fast else LADDER
    if config.fast:
        config = dataclasses.replace(config, seeds=4, error=0.1)
    cases = settings(jobs_of(config, world))
    points = []
    for name, job in track(cases, console=console, transient=True, disable=not console.is_terminal):
        for action in actions_of(world, job, ladder, rng):
            points += measure(world, name, job, action, config)
    return points


# --- published measurements ------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A published measurement and what the laws say; `fitted` if the world's constants come from it."""

    what: str
    source: str
    world: str
    published: float
    ours: float
    unit: str
    fitted: bool


PAR = "faas-parallelism-benchmark, 2020"
LAMBDAML = "LambdaML, SIGMOD 2021"
RECALLED = f"{LAMBDAML} (recalled)"
SHARDING = "Serverless-aggregation-grads-sharding, 2026"


def round_job(parameters: int) -> Job:
    """A job whose epoch is one round of gradient averaging and nothing else."""
    job = job_of(load_workload("softmax-digits"))
    return dataclasses.replace(
        job, update_rule=UpdateRule.SYNC, batch_rule=BatchRule.SPLIT, channel=ChannelKind.S3,
        pushes_per_function=1, parameters=parameters, seconds_per_sample=1e-9, seconds_per_push=0.0,
        evaluate_seconds_per_sample=1e-9, heldout_samples=1,
    )  # fmt: skip


def last_start_s(world: World, functions: int, *, cold: bool) -> float:
    """When the last of so many functions starts its handler."""
    start = world.start
    begin_s = start.placement + start.init_median if cold else start.warm
    return (functions - 1) / start.fan_out + begin_s


def round_s(world: World, parameters: int, functions: int) -> float:
    """One AllReduce over S3 among functions that run already."""
    job = round_job(parameters)
    told = expect_epoch(world, job, float(functions), 3008.0, cold=0.0, loading=0.0)
    laws = epoch_laws(world, job, float(functions), 3008.0)
    launch_s = world.start.warm + (functions - 1) / world.start.fan_out
    return float(told.duration_s - laws.evaluate_s - launch_s)


def published() -> list[Published]:
    """What others and we measured, each with who did (`Published.source`), beside the laws."""
    now, then = load_world("aws-2026"), load_world("lambdaml-2021")

    def pace(small: int, large: int) -> float:
        return float(speed(now.cpu, large, 0.0) / speed(now.cpu, small, 0.0))

    def get_mb_s(memory_mb: int) -> float:
        store = now.channels[ChannelKind.S3]
        return float(bandwidth(now.network, now.cpu, store, 1, memory_mb)) / 1e6

    def starts(world: World, cold: bool, measured: dict[int, float]) -> list[tuple[str, float, float]]:
        kind = "cold" if cold else "warm"
        return [
            (f"last of {n} {kind} starts", s, last_start_s(world, n, cold=cold)) for n, s in measured.items()
        ]

    redis = now.channels[ChannelKind.REDIS]
    slowest = float(np.exp(now.cpu.function_noise * ndtri((200 - 0.375) / (200 + 0.25))))
    groups: list[tuple[str, World, str, bool, list[tuple[str, float, float]]]] = [
        (PAR, now, "x", False, [("speed at 2,048 over 256 MB", 7.586 / 1.062, pace(256, 2048))]),
        ("SamWSoftware", now, "x", False, [("speed at 512 over 128 MB", 293 / 63, pace(128, 512))]),
        ("aws-lambda-power-tuning", now, "x", False, [("speed at 1,024 over 128 MB", 8.0, pace(128, 1024))]),
        (SHARDING, now, "MB/s", False, [
            (f"S3 read of one function at {m:,} MB", told, get_mb_s(m))
            for m, told in ((472, 37.6), (512, 67.9), (3008, 55.0))
        ]),
        (LAMBDAML, then, "s", False, [
            ("one round on S3, 224 B, 50 workers", 9.2, round_s(then, 56, 50)),
            ("one round on S3, 12 MB, 10 workers", 3.3, round_s(then, 3_000_000, 10)),
            ("one round on S3, 89 MB, 10 workers", 17.3, round_s(then, 22_250_000, 10)),
        ]),
        (PAR, now, "x", True, [
            ("slowest of 200 over the median, 256 MB", 8.26 / 7.59, slowest),
            ("slowest of 200 over the median, 2,048 MB", 1.182 / 1.062, slowest),
        ]),
        (PAR, now, "s", True, starts(now, True, {10: 0.36, 50: 0.62, 100: 0.53, 200: 0.92})),
        (PAR, now, "s", True, starts(now, False, {10: 0.13, 50: 0.23, 100: 0.29, 200: 0.65})),
        (RECALLED, then, "s", True, starts(then, True, {10: 1.2, 50: 11.0, 100: 18.0, 200: 35.0})),
        ("our measurement, Redis 7.0.15", now, "ms", True, [
            (f"Redis adds {k:,} floats", told, 1e3 * (redis.service_base + redis.service_per_float * k))
            for k, told in ((28, 0.15), (44_000, 7.0), (1_000_000, 173.0))
        ]),
    ]  # fmt: skip
    return [
        Published(what, source, world.name, told, float(ours), unit, fitted)
        for source, world, unit, fitted, rows in groups
        for what, told, ours in rows
    ]


# --- the page --------------------------------------------------------------------------------------


def summary(points: Sequence[Point], key: Callable[[Point], tuple[str, ...]]) -> list[tuple[str, ...]]:
    """One row per group: its name, points, mean and 90th percentile of both absolute errors, and biases."""
    rows = []
    for name, group in itertools.groupby(sorted(points, key=key), key=key):
        members = list(group)
        row = [*name, str(len(members))]
        for errors in ([p.time_error for p in members], [p.cost_error for p in members]):
            size = np.abs(errors)
            row += [f"{x:.1%}" for x in (size.mean(), np.quantile(size, 0.9), np.mean(errors))]
        rows.append(tuple(row))
    return rows


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


ERRORS = ("points", "time: mean", "p90", "bias", "cost: mean", "p90", "bias")
PAGE = """# How far the laws are from the twin, and from measurements

Written by `{command}` at commit {commit}; family seed {seed}, epoch seeds from {first}, at most
{seeds} epochs a point.

One module of laws (`siren/worlds/laws.py`, `siren/worlds/expectation.py`) serves the twin and the simulator.
The twin draws every request, gradient and start; the simulator takes the closed-form expectation and a
log-normal spread. This page compares the two over jobs of {shipped} shipped workloads and {family} of the
family, every rule over every channel, n = 1 to 1,000, memory sizes of world aws-2026 drawn for each point,
cold and warm epochs: (expected - twin's mean) / twin's mean. Targets: {mean:.0%} in the mean of the absolute
error, {p90:.0%} at its 90th percentile. Missed by: {missed}.

{rules}
By batch rule:

{batches}
By functions, all rules but `cas`:

{functions}
The spread of an epoch's time that the simulator draws from, over that of the twin (warm points with a spread
above 1%; median of the ratio, and its quartiles): {spread}. The draws leave out what cold starts add to it.

## Against published measurements

"set by it" marks measurements that a constant of the world was taken from: they show only how well the law's
shape fits. The others are predictions.

{published}"""


def commit() -> str:
    """The commit that is checked out."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def page(config: Config, points: Sequence[Point], facts: Sequence[Published]) -> str:
    """The whole page."""
    jobs = {p.job for p in points}
    shipped = len(jobs & set(workload_names()))
    by_rule = summary(points, lambda p: (p.update_rule, p.channel))
    by_batch = summary(points, lambda p: (p.update_rule, p.batch_rule))
    missed = [
        f"`{row[0]}` over {row[1]}"
        for row in by_rule
        if any(float(row[k].rstrip("%")) > 100 * TARGETS["mean"] for k in (3, 6))
        or any(float(row[k].rstrip("%")) > 100 * TARGETS["p90"] for k in (4, 7))
    ]
    others = [p for p in points if p.update_rule is not UpdateRule.CAS]
    by_count = summary(others, lambda p: (f"{p.functions:04d}",))
    ratios = [p.spread_drawn / p.spread for p in points if p.spread > 0.01 and p.kind == "warm"]
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    rows = [
        (f.what, f.source, f.world, f"{f.published:.3g} {f.unit}", f"{f.ours:.3g} {f.unit}",
         f"{f.ours / f.published - 1:+.0%}", "set by it" if f.fitted else "")
        for f in facts
    ]  # fmt: skip
    return PAGE.format(
        command="python experiments/agreement.py" + (" --fast" if config.fast else ""),
        commit=commit(), seed=config.seed, first=FIRST_SEED, seeds=config.seeds,
        shipped=shipped, family=len(jobs) - shipped,
        missed=", ".join(missed) or "none", **TARGETS,
        rules=markdown(("rule", "channel", *ERRORS), by_rule),
        batches=markdown(("rule", "batch rule", *ERRORS), by_batch),
        functions=markdown(("n", *ERRORS), [(f"{int(row[0]):,}", *row[1:]) for row in by_count]),
        spread=f"{median:.2f} ({low:.2f} to {high:.2f})",
        published=markdown(("what", "source", "world", "published", "ours", "error", ""), rows),
    )  # fmt: skip


def write_csv(path: Path, rows: Sequence[Point] | Sequence[Published]) -> None:
    """Dataclasses as rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in dataclasses.fields(rows[0])])
        writer.writerows(
            [f"{v:.5g}" if isinstance(v, float) else v for v in vars(row).values()] for row in rows
        )


def main(config: Config) -> int:
    """Measures, writes the CSVs and the page, prints the table of the rules."""
    with threadpool_limits(1):
        points, facts = compare(config, Console(stderr=True)), published()
    config.out.mkdir(parents=True, exist_ok=True)
    config.page.parent.mkdir(parents=True, exist_ok=True)
    write_csv(config.out / "points.csv", points)
    write_csv(config.out / "published.csv", facts)
    config.page.write_text(page(config, points, facts), encoding="utf-8")
    sys.stdout.write(
        markdown(("rule", "channel", *ERRORS), summary(points, lambda p: (p.update_rule, p.channel)))
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
