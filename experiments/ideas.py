"""Ideas for a better scheduler, each tried small: what it gains, or that it gains nothing.

    python experiments/ideas.py                      # all of them: 20 minutes of one core
    python experiments/ideas.py rate rehearsal       # some
    python experiments/ideas.py --fast rate          # a few seconds: a look, nothing to quote

Run from the repository's root. Every cell goes to a CSV as soon as it was played: the same command goes on
after a kill. Writes experiments/ideas.md from all CSVs that there are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from threadpoolctl import threadpool_limits

from experiments import _ideas_actions, _ideas_search
from experiments._ideas import BEST_FIXED, BUDGET, WORLD, Results, Row, compared, read_rows, speedup
from experiments._pages import EXPERIMENTS, RESULTS, commit, markdown, wrapped

Name = Literal["rate", "rehearsal", "fitted", "gradient", "sensors", "refit", "batch", "recurrent"]


@dataclass(frozen=True)
class Idea:
    """How an idea is shown.

    Attributes:
        file: Name of its CSV.
        seeds: Report seeds.
        title, method: For the page.
        pairs: (arm, against): what is compared beside every arm with the best fixed action.
        by_job: Whether jobs are shown one by one.
    """

    file: str
    seeds: int
    title: str
    method: str
    pairs: tuple[tuple[str, str], ...] = ()
    by_job: bool = False


IDEAS: dict[str, Idea] = {
    "rate": Idea(
        "rate",
        60,
        "The learning rate as a third action",
        """Two workloads of experiments/floor. A linear policy whose third output multiplies the learning rate
by exp(2 (w log_gap + bias)), found by the search of siren/rehearsal/search.py (race of shapes,
CMA-ES) with ten weights instead of eight, and five more shapes that change only the rate; 35
processor seconds for each search, the last fifth for the choice between finalists on fresh seeds.
Both act relative to the best fixed action. The best fixed (n, m, rate factor) is raced over 42
candidates and its neighbours on the 24 seeds that choose; the best fixed (n, m) has the workload's
own rate. One search moves the rate alone, at the best fixed (n, m).""",
        (
            ("best fixed (n, m, rate)", BEST_FIXED),
            ("search (n, m, rate)", "search (n, m)"),
            ("search (n, m, rate)", "search (rate)"),
            ("search (rate)", "search (n, m)"),
            ("search (n, m, rate)", "best fixed (n, m, rate)"),
        ),
        True,
    ),
    "rehearsal": Idea(
        "rehearsal",
        40,
        "A rehearsal without some of its parts",
        """Jobs of noisy-2026 under split. Each rehearsal has 20 processor seconds, the
default; time that a part does not take goes to the others. Without the race of shapes CMA-ES starts
from the best fixed action.""",
        tuple((arm, _ideas_search.WHOLE) for arm in _ideas_search.ARMS[1:]),
    ),
    "fitted": Idea(
        "fitted",
        40,
        "A proposer conditioned on the fitted job",
        """Jobs of noisy-2026 under split. The noisy quadratic is fitted to curves of four fixed counts (two
runs of 20 epochs each), CMA-ES searches a linear policy in that model with 96 simulated episodes
of a candidate, and a short choice on real episodes decides between its answer and the best fixed
action. The search on real episodes has as much processor time, 6 s, fit included; the third arm
divides it between the two.""",
        (
            ("search in the fitted model", "search on real episodes"),
            ("model, then real", "search on real episodes"),
        ),
    ),
    "gradient": Idea(
        "zero-shot",
        16,
        "PPO finished on real SGD",
        """Jobs of noisy-2026 under split, without a rehearsal, all told the best fixed action.
default-2026 goes on training by PPO in siren/HspTwin-v0: 40,960 epochs of real SGD on 32 generated
split jobs of noisy-2026 and small-2026 (seed 41,000,000), a failure counted as twice, the critic
alone for the first 6,144, rate 3e-4, log std -2.6.""",
        (("after PPO on real SGD", "default-2026"),),
    ),
    "sensors": Idea(
        "zero-shot",
        16,
        "Gradient sensors in the zero-shot policy",
        """As before. The entry gap_over_floor of the observation of default-2026 is 0, its value before
the first epoch, against the noise floor that gradient statistics tell.""",
        (
            ("without gap_over_floor", "default-2026"),
            ("told nothing, without gap_over_floor", "default-2026, told nothing"),
        ),
    ),
    "refit": Idea(
        "refit",
        12,
        "Refitting the laws of time during a run",
        """JobView.learn fits two factors, on computing and on the store, to the last eight epochs before
every decision (siren/worlds/refit.py); it is on in every run. Here the policy's laws are right, or off by
1.6 both ways, and the refit is on or off. Greedy has three times the budget of
the best fixed action, without which it hardly ever finishes; the planner with a fitted model has the
same budget, and plans anew with the refitted laws (6 seeds). No constant of
convergence is refitted during a run.""",
        (
            *(
                (f"greedy, laws {x}, refitted", f"greedy, laws {x}, kept")
                for x in ("slow store", "fast store")
            ),
            ("planner, laws slow store, refitted", "planner, laws slow store, kept"),
        ),
    ),
    "batch": Idea(
        "batch",
        60,
        "The batch rule as a third action",
        """Schedules that go over from split to constant mini-batches once the gap is down to a share of the
initial one: three counts before it, three counts and three mini-batches after it, three shares,
raced on the 24 seeds that choose. Beside it the two phases of siren.evaluate, which keep to split,
and the best fixed count and mini-batch under constant throughout.""",
        (
            ("split, then constant", "two phases, split"),
            ("split, then constant", "constant throughout"),
        ),
        True,
    ),
}


@dataclass(frozen=True)
class IdeasConfig:
    """Try ideas, small."""

    what: tyro.conf.Positional[tuple[Name, ...]] = (
        "rate",
        "rehearsal",
        "fitted",
        "gradient",
        "sensors",
        "refit",
        "batch",
        "recurrent",
    )
    """Which."""

    fast: bool = False
    """A job or two, three seeds: a look, nothing to quote; everything goes to a folder of its own."""

    page: Path = EXPERIMENTS / "ideas.md"
    """The page."""

    out: Path = RESULTS / "ideas"
    """Folder for the CSVs."""


def run(name: Name, out: Path, *, fast: bool) -> None:
    """Tries one idea, as far as its CSV lacks it."""
    if name == "recurrent":
        from experiments import _ideas_learning  # needs the extra `train`, which takes seconds to load

        _ideas_learning.recurrent(out / "recurrent.csv", fast=fast)
        return
    results = Results(out / f"{IDEAS[name].file}.csv")
    count = 3 if fast else IDEAS[name].seeds
    match name:
        case "rate":
            _ideas_actions.rate(results, count, fast=fast)
        case "batch":
            _ideas_actions.batch(results, count, fast=fast)
        case "rehearsal":
            _ideas_search.rehearsal(results, count, fast=fast)
        case "fitted":
            _ideas_search.fitted(results, count, fast=fast)
        case _:
            from experiments import _ideas_learning

            trials = {
                "gradient": _ideas_learning.gradient,
                "sensors": _ideas_learning.sensors,
                "refit": _ideas_learning.refit,
            }
            trials[name](results, count, fast=fast)


# --- the page ----------------------------------------------------------------------------------------

HEAD = ("policy", "jobs", "success", "speed-up over the best fixed", "overspent")
PAIR_HEAD = ("policy", "against", "times as fast")


def section(name: str, rows: Sequence[Row]) -> str:
    """What the page says of an idea."""
    idea = IDEAS[name]
    arms = list(dict.fromkeys(row.arm for row in rows))
    if idea.file == "zero-shot":
        shown = {arm for pair in idea.pairs for arm in pair} | {BEST_FIXED}
        arms = [arm for arm in arms if arm in shown]
    jobs: list[str | None] = [None]
    if idea.by_job:
        jobs = [*dict.fromkeys(row.job for row in rows)]
    lines = [_line(rows, arm, job) for job in jobs for arm in arms if _played(rows, arm, job)]
    pairs = [
        (f"{job}: {arm}" if job else arm, against, speedup(compared(rows, arm, against, job)))
        for job in jobs
        for arm, against in idea.pairs
        if _played(rows, arm, job) and _played(rows, against, job)
    ]
    tables = markdown(HEAD, lines) + ("\n" + markdown(PAIR_HEAD, pairs) if pairs else "")
    seconds = sum({(row.arm, row.job): row.cpu_s for row in rows if row.arm in arms}.values())
    commits = sorted({row.commit for row in rows if row.arm in arms})
    last = max(row.seed for row in rows)
    played = ", ".join(dict.fromkeys(row.job for row in rows if row.arm in arms and row.arm != BEST_FIXED))
    told = f"Played: {played}. Report seeds 5000000 to {last}"
    told += f"; choices took {seconds:,.0f} processor seconds" if seconds >= 1 else ""
    where = f"(`ideas.py {name}`, commit {', '.join(commits)})"
    return f"## {idea.title}\n\n{idea.method}\n\n{tables}\n{told} {where}.\n"


def _played(rows: Sequence[Row], arm: str, job: str | None) -> bool:
    return any(row.arm == arm and job in (None, row.job) for row in rows)


def _line(rows: Sequence[Row], arm: str, job: str | None) -> tuple[str, ...]:
    found = compared(rows, arm, BEST_FIXED, job)
    jobs = {row.job for row in rows if row.arm == arm and job in (None, row.job)}
    name = f"{job}: {arm}" if job else arm
    gain = "1" if arm == BEST_FIXED else speedup(found)
    return name, str(len(jobs)), f"{found['success_rate']:.1%}", gain, f"${found['overspent_usd']:g}"


HEADING = """# Ideas, each tried small

Written by `python experiments/ideas.py`, page at commit {commit}. Real SGD in the twin, world `{world}`,
{budget} times the cheapest budget, which the ledger enforces. A speed-up is that of mean times, a failure
counted as twice the best fixed action's, on the same report seeds, on which nothing was chosen; the geometric
mean over jobs, with a 95% bootstrap interval over jobs (over seeds where there is one job). `LOG.md` says
what follows. What is described and not in a table was not played yet: the same command goes on with it.

"""

TRAINED_HEAD = ("algorithm", "steps", "processor s", "speed-up over the reference", "success", "reference's")
RECURRENT = """## Recurrent policies

PPO and RecurrentPPO (an LSTM of 64 before 64 x 64) from the reference action, in the simulator: equally
many steps on the same 150 jobs of `family-2026`, 64 environments, rate 1e-3 to 0, seed 0; measured on 80
validation jobs, two episodes each.

"""


def page(out: Path) -> str:
    """The page of everything in that folder."""
    head = HEADING.format(commit=commit(), world=WORLD, budget=BUDGET)
    parts = [head]
    for name, idea in IDEAS.items():
        rows = read_rows(out / f"{idea.file}.csv")
        if rows and (not idea.pairs or any(_played(rows, arm, None) for arm, _ in idea.pairs)):
            parts.append(section(name, rows) + "\n")
    if (out / "recurrent.csv").exists():
        from experiments import _ideas_learning

        lines = [
            (
                row.algorithm,
                f"{row.steps:,}",
                f"{row.cpu_s:.0f}",
                f"{row.speedup:.3f} [{row.low:.3f}, {row.high:.3f}]",
                f"{row.success:.3f}",
                f"{row.reference_success:.3f}",
            )
            for row in _ideas_learning.read_trained(out / "recurrent.csv")
        ]
        parts.append(RECURRENT + markdown(TRAINED_HEAD, lines))
    return "".join(parts)


def main(config: IdeasConfig) -> int:
    """Tries, writes the page."""
    commit()  # others may commit while this runs
    out = config.out / "fast" if config.fast else config.out
    target = out / "ideas.md" if config.fast else config.page
    with threadpool_limits(1):
        for name in config.what:
            run(name, out, fast=config.fast)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(wrapped(page(out)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(IdeasConfig)))
