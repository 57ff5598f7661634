"""Whole runs of `--platform local` through every fault of the suite, under every rule over every channel.

    python experiments/faults.py                      # half an hour: runs.csv and docs/faults.md
    python experiments/faults.py --resume             # goes on where it was stopped or killed
    python experiments/faults.py --only 'S3|killed'   # plays some faults again

What a scenario injects is in `siren/testing/faults/scenarios.py`, what is asked of a run after it in
`siren/testing/faults/verdict.py`. Exits with 1 if any run has a problem, or a fault did not happen.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import Progress

from siren.platforms.endpoint import sweep
from siren.testing.faults.rig import Plan, Rig, open_rig, processes_with, temp_of
from siren.testing.faults.scenarios import PAIRS, SCENARIOS, Scenario, Suite
from siren.testing.faults.verdict import DONE

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Config:
    """Play every fault under every rule and channel, and write what became of the runs."""

    only: str = ""
    """Plays only faults whose name contains this pattern, and puts them into the table that is there."""

    resume: bool = False
    """Plays only what is not in the table yet."""

    minutes: float = math.inf
    """Begins no run after so many minutes, and writes what there is."""

    seed: int = 0
    """Seed of every run."""

    out: Path = ROOT / "experiments" / "results" / "faults"
    """Folder for the table of runs, which every run joins as soon as it has ended."""

    page: Path = ROOT / "docs" / "faults.md"
    """The page that is written."""


@dataclass(frozen=True)
class Run:
    """One run with one kind of fault; a line of the table.

    Attributes:
        fault, rule, channel, seed, commit: What it was.
        injected, unanswered, codes, told, lost, twice, throttles, retries, unfinished: See `Verdict`.
        settled_usd, unconfirmed_usd, billed_usd, over_usd: See `Verdict`.
        seconds: How long it took.
        problems: What must not be, in words.
    """

    fault: str
    rule: str
    channel: str
    seed: int
    commit: str
    injected: int = 0
    unanswered: int = 0
    codes: str = ""
    told: int = 0
    lost: int = 0
    twice: float = 0.0
    throttles: int = 0
    retries: int = 0
    unfinished: int = 0
    settled_usd: Decimal = Decimal(0)
    unconfirmed_usd: Decimal = Decimal(0)
    billed_usd: Decimal = Decimal(0)
    over_usd: Decimal = Decimal(0)
    seconds: float = 0.0
    problems: str = ""

    @property
    def case(self) -> tuple[str, str, str]:
        """What tells it from others."""
        return self.fault, self.rule, self.channel


COUNTS = ("injected", "unanswered", "told", "lost", "twice", "throttles", "retries", "unfinished")
DOLLARS = ("settled_usd", "unconfirmed_usd", "billed_usd", "over_usd")
Case = tuple[Scenario, str, str]
"""A fault, an update rule, a channel."""
Told = Callable[[Run], None]
"""Told of every run that has ended."""


# --- playing ---------------------------------------------------------------------------------------


def play(suite: Suite, rig: Rig, scenario: Scenario, plan: Plan) -> Run:
    """One run; an error of the suite itself, such as processes that do not end, is a problem of the run."""
    began = time.monotonic()
    run = Run(scenario.name, plan.rule, plan.channel, plan.seed, commit())
    try:
        verdict = suite.play(scenario, plan)
        problems = list(verdict.problems)
        if not verdict.injected:
            problems.append("the fault did not happen")
        numbers = {name: getattr(verdict, name) for name in (*COUNTS, *DOLLARS)}
        run = dataclasses.replace(run, **numbers, codes=" ".join(map(str, verdict.codes)))
    except Exception as error:  # the others are still to be played
        problems = [f"{type(error).__name__}: {error}"]
        rig.clear()
    seconds = round(time.monotonic() - began, 1)
    return dataclasses.replace(run, seconds=seconds, problems="; ".join(problems))


def cases(config: Config, done: Iterable[Run]) -> list[Case]:
    """What is to be played."""
    known = {run.case for run in done} if config.resume else set()
    return [
        (scenario, rule, channel)
        for scenario, rule, channel in possible_cases()
        if re.search(config.only, scenario.name) and (scenario.name, rule, channel) not in known
    ]


def possible_cases() -> list[Case]:
    """Every fault under every pair of rule and channel under which it can happen.

    All faults come under one pair before any comes under another: what is cut off is still of every kind.
    """
    turns = (
        (scenario, PAIRS[(number + turn) % len(PAIRS)])
        for turn in range(len(PAIRS))
        for number, scenario in enumerate(SCENARIOS)
    )
    return [(scenario, rule, channel) for scenario, (rule, channel) in turns if channel in scenario.channels]


def play_all(config: Config, todo: Sequence[Case], folder: Path, told: Told) -> int:
    """Plays cases on one site; returns how many processes, files and cgroups outlived it.

    Raises:
        RuntimeError: A file holds the secret key.
    """
    began = time.monotonic()
    with open_rig(folder) as rig:
        groups = json.loads((rig.endpoint.root / sweep.RECORD).read_text(encoding="utf-8"))["groups"]
        (folder / "runs").mkdir()
        suite = Suite(rig, folder / "runs")
        for scenario, rule, channel in todo:
            if time.monotonic() - began > 60 * config.minutes:
                break
            told(play(suite, rig, scenario, Plan(rule, channel, seed=config.seed)))
        secrets = rig.secrets_written(*suite)
    if secrets:
        raise RuntimeError(f"these files hold the secret key: {secrets}")
    files = list(temp_of(folder).iterdir())
    return len(processes_with(str(folder))) + len(files) + sum(Path(group).exists() for group in groups)


# --- the table of runs -----------------------------------------------------------------------------


def read_runs(path: Path) -> list[Run]:
    """The runs of a table; none if there is no such file."""
    if not path.exists():
        return []
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Run)} | {"seed": int}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Run(**{k: kinds[k](v) if kinds[k] in (int, float, Decimal) else v for k, v in row.items()})
            for row in csv.DictReader(file)
        ]


def write_runs(path: Path, runs: Sequence[Run]) -> None:
    """Writes the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in dataclasses.fields(Run)])
        writer.writerows(list(vars(run).values()) for run in runs)


# --- the page --------------------------------------------------------------------------------------


ALL = "**all**"
HEAD = (
    "fault", "under", "runs", "faults", "answers lost", "ended at once", "resumed", "right model",
    "updates", "twice", "settled", "of it in full", "billed",
)  # fmt: skip
PAGE = """# What runs do about faults

Written by `{command}`, in parts if at several commits: {commits}. Seed of every run: {seeds}.

Whole runs of `python -m siren.run --platform local`: two epochs of two functions (four under some faults)
behind Lambda's API, S3 and Redis. Into each run one kind of fault is injected; one that does not end is
resumed with `--resume`. The job counts: the gradient of a row of the training set moves that row's own
parameter by a power of two, so the model that is left tells how often every row was counted.

{runs:,} runs, of {possible:,} combinations of a fault with a rule and a channel. **{injected:,} faults** were
injected, and **{unanswered:,} answers** of functions were lost after the work was done. {right:,} runs ended
with a right model, {resumed:,} of them after a resume. {twice:g} of {updates:,} updates were counted twice.
${over} were spent beyond a budget or a reservation. {left} processes, temporary files and cgroups were left
behind. Runs with problems: {problems}.

{table}
* under: so many pairs of update rule and channel, of those under which the fault can happen. The pairs are
  {pairs}.
* answers lost: of functions that had done their work; the endpoint broke the connection.
* ended at once, resumed: runs that needed no help, and those that ended after `--resume`.
* right model: every planned update exactly once (`additive`, `cas`); that of a run without a fault, to the
  bit (`average`, `sync`); what the reports tell, finite (`overwrite`, `staleness`).
* settled: dollars for computing in the ledger. Of it in full: epochs that were charged at their reservation,
  because they failed or the scheduler was killed. Billed: the same time in the endpoint's own log. What a
  request without an answer did nobody knows: it is settled as if its environment had started and it had run
  until its timeout.

Of every run it is asked too (`siren/testing/faults/verdict.py`) that it stopped with one sentence where it
stopped; that events, summary and ledger tell one sum, within every reservation and the budget; that what was
settled is what the endpoint billed, to the millisecond, where every answer came, and not less elsewhere; that
the settled requests to S3 are those that its server got, repeated ones included; that afterwards the endpoint
holds idle environments and nothing else. A fault that reports, exit codes or the endpoint's log can show must
be in them. A function that runs out of memory must be said to be run again with the next size. No file of a
run and no log holds the secret key.
"""


def table(runs: Sequence[Run]) -> str:
    """One row for every fault, and one for all."""
    names = dict.fromkeys(run.fault for run in runs)
    rows = [row(name, [run for run in runs if run.fault == name]) for name in names]
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    return "\n".join([*lines, *rows, row(ALL, runs)]) + "\n"


def row(name: str, runs: Sequence[Run]) -> str:
    """A fault's runs together."""
    possible = [case for case in possible_cases() if name in (case[0].name, ALL)]
    cells = (
        name,
        f"{len({run.case for run in runs})} of {len(possible)}",
        len(runs),
        sum(run.injected for run in runs),
        sum(run.unanswered for run in runs),
        sum(run.codes == str(DONE) for run in runs),
        sum(run.codes.endswith(f" {DONE}") for run in runs),
        sum(not run.problems for run in runs),
        sum(run.told for run in runs),
        f"{sum(run.twice for run in runs):g}",
        *(f"${total(runs, amount):.6f}" for amount in DOLLARS[:3]),
    )
    return "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells) + " |"


def total(runs: Sequence[Run], amount: str) -> Decimal:
    """The sum of one of their amounts."""
    return sum((getattr(run, amount) for run in runs), Decimal(0))


def page(config: Config, runs: Sequence[Run], left: int) -> str:
    """The whole page."""
    right = [run for run in runs if not run.problems]
    return PAGE.format(
        command="python experiments/faults.py" + (f" --seed {config.seed}" if config.seed else ""),
        commits=" and ".join(dict.fromkeys(run.commit for run in runs)),
        seeds=", ".join(str(seed) for seed in sorted({run.seed for run in runs})),
        runs=len(runs),
        possible=len(possible_cases()),
        injected=sum(run.injected for run in runs),
        unanswered=sum(run.unanswered for run in runs),
        right=len(right),
        resumed=sum(" " in run.codes for run in right),
        twice=sum(run.twice for run in runs),
        updates=sum(run.told for run in runs),
        over=total(runs, "over_usd"),
        left=left,
        problems=len(runs) - len(right) or "none",
        table=table(runs),
        pairs=", ".join(f"`{rule}` over {channel}" for rule, channel in PAIRS),
    )


def commit() -> str:
    """The commit that is checked out."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


# --- the command -----------------------------------------------------------------------------------


def main(config: Config) -> int:
    """Plays, writes the table and the page; 1 if there are problems."""
    console, path = Console(stderr=True), config.out / "runs.csv"
    runs = {run.case: run for run in (read_runs(path) if config.resume or config.only else [])}
    todo = cases(config, runs.values())
    with (
        tempfile.TemporaryDirectory(prefix="siren-faults-") as scratch,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("", total=len(todo))

        def told(run: Run) -> None:
            runs[run.case] = run
            write_runs(path, list(runs.values()))
            what = f"{run.fault}, {run.rule} over {run.channel}"
            progress.update(task, advance=1, description=what)
            if run.problems or not console.is_terminal:
                console.print(f"{what}: {run.seconds:.1f} s {run.problems}", markup=False)

        left = play_all(config, todo, Path(scratch).resolve() / "rig", told)
    order = {scenario.name: number for number, scenario in enumerate(SCENARIOS)}
    found = sorted(runs.values(), key=lambda run: (order[run.fault], PAIRS.index((run.rule, run.channel))))
    write_runs(path, found)
    config.page.write_text(page(config, found, left), encoding="utf-8")
    failed = sum(bool(run.problems) for run in found)
    sys.stdout.write(f"{len(found)} runs, {failed} with problems, {left} things left behind\n")
    return 1 if failed or left or not found else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
