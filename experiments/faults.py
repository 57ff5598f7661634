"""Whole runs of `--platform local` through every fault of the suite, under every rule over every channel.

    python experiments/faults.py                      # half an hour or more: runs.csv and docs/faults.md
    python experiments/faults.py --only 'S3|killed'   # some faults: prints problems, writes nothing

What a scenario injects is in `siren/testing/faults/scenarios.py`, what is asked of a run after it in
`siren/testing/faults/verdict.py`. Exits with 1 if any run has a problem, or a fault did not happen.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import Progress

from siren.platforms.endpoint import sweep
from siren.testing.faults.rig import Plan, Rig, open_rig, processes_with, temp_of
from siren.testing.faults.scenarios import PAIRS, SCENARIOS, Scenario, Suite, dies_at_point
from siren.testing.faults.verdict import DONE, Verdict

ROOT = Path(__file__).resolve().parent.parent
AT_EACH_POINT = "a function dies at each point of its loop"
POINTS_MAX = 40
"""A function that waits at a barrier over S3 passes points for as long as it waits."""


@dataclass(frozen=True)
class Config:
    """Play every fault under every rule and channel, and write what became of the runs."""

    only: str = ""
    """Only faults whose name contains this pattern; nothing is written."""

    seed: int = 0
    """Seed of every run."""

    out: Path = ROOT / "experiments" / "results" / "faults"
    """Folder for the table of runs."""

    page: Path = ROOT / "docs" / "faults.md"
    """The page that is written."""


@dataclass(frozen=True)
class Run:
    """One run with one kind of fault.

    Attributes:
        fault, rule, channel: What it was.
        verdict: What became of it; None if it could not be examined.
        seconds: How long it took.
        problems: What must not be.
    """

    fault: str
    rule: str
    channel: str
    verdict: Verdict | None
    seconds: float
    problems: tuple[str, ...]

    @property
    def happened(self) -> bool:
        """Whether there was a fault."""
        return self.verdict is None or self.verdict.injected > 0


Told = Callable[[Run], None]
"""Told of every run that has ended."""


# --- playing ---------------------------------------------------------------------------------------


def play(suite: Suite, rig: Rig, scenario: Scenario, plan: Plan, name: str = "") -> Run:
    """One run; an error of the suite itself, such as processes that do not end, is a problem of the run."""
    began, verdict = time.monotonic(), None
    try:
        verdict = suite.play(scenario, plan)
        problems = verdict.problems
    except Exception as error:  # the others are still to be played
        problems = (f"{type(error).__name__}: {error}",)
        rig.clear()
    return Run(name or scenario.name, plan.rule, plan.channel, verdict, time.monotonic() - began, problems)


def play_all(config: Config, rig: Rig, told: Told) -> list[Run]:
    """Every fault that can happen under every pair of rule and channel."""
    folder = rig.folder / "runs"
    folder.mkdir()
    suite, runs = Suite(rig, folder), []
    for scenario, (rule, channel) in itertools.product(SCENARIOS, PAIRS):
        if channel in scenario.channels and re.search(config.only, scenario.name):
            run = play(suite, rig, scenario, Plan(rule, channel, seed=config.seed))
            if not run.happened:
                run = dataclasses.replace(run, problems=(*run.problems, "the fault did not happen"))
            runs.append(run)
            told(run)
    if re.search(config.only, AT_EACH_POINT):
        for rule, channel in PAIRS:
            for run in at_each_point(suite, rig, Plan(rule, channel, seed=config.seed)):
                runs.append(run)
                told(run)
    secrets = rig.secrets_written(*suite)
    if secrets:
        raise RuntimeError(f"these files hold the secret key: {secrets}")
    return runs


def at_each_point(suite: Suite, rig: Rig, plan: Plan) -> Iterator[Run]:
    """A function dies at its first point, in another run at its second, until there are no more."""
    for number in range(1, POINTS_MAX + 1):
        run = play(suite, rig, dies_at_point(number), plan, AT_EACH_POINT)
        if not run.happened:
            return
        yield run


def left_behind(folder: Path, groups: Sequence[str]) -> int:
    """Processes, temporary files and cgroups that outlived the site."""
    files = list(temp_of(folder).iterdir())
    return len(processes_with(str(folder))) + len(files) + sum(Path(group).exists() for group in groups)


# --- the page --------------------------------------------------------------------------------------


HEAD = (
    "fault", "under", "runs", "faults", "answers lost", "ended at once", "resumed", "right model",
    "updates", "twice", "settled", "of it in full", "billed",
)  # fmt: skip
PAGE = """# What runs do about faults

Written by `{command}` at commit {commit}; seed {seed} in every run.

Whole runs of `python -m siren.run --platform local`: two epochs of two functions behind Lambda's API, S3 and
Redis. Into each run one kind of fault is injected; one that does not end is resumed with `--resume`. The job
counts: the gradient of a row of the training set moves that row's own parameter by a power of two, so the
model that is left tells how often every row was counted.

{runs:,} runs. **{injected:,} faults** were injected, and **{unanswered:,} answers** of functions were lost
after the work was done. {right:,} runs ended with a right model, {resumed:,} of them after a resume.
{twice:g} of {updates:,} updates were counted twice. ${over} were spent beyond a budget or a reservation. {left}
processes, temporary files and cgroups were left behind. Runs with problems: {problems}.

{table}
* under: pairs of update rule and channel; all are {pairs}.
* answers lost: of functions that had done their work; the endpoint broke the connection.
* ended at once, resumed: runs that needed no help, and those that ended after `--resume`.
* right model: every planned update exactly once (`additive`, `cas`); that of a run without a fault, to the
  bit (`average`, `sync`); what the reports tell, finite (`overwrite`, `staleness`).
* settled: dollars for computing in the ledger. Of it in full: epochs that were charged at their reservation,
  because they failed or the scheduler was killed. Billed: the same time in the endpoint's own log.

Of every run it is asked too (`siren/testing/faults/verdict.py`) that it stopped with one sentence where it
stopped; that events, summary and ledger tell one sum, within every reservation and the budget; that what was
settled is what the endpoint billed, to the millisecond, where every answer came, and not less elsewhere; that
afterwards the endpoint holds idle environments and nothing else. A function that runs out of memory must be
said to be run again with the next size. No file of a run and no log holds the secret key.
"""


def table(runs: Sequence[Run]) -> str:
    """One row for every fault, and one for all."""
    names = dict.fromkeys(run.fault for run in runs)
    rows = [row(name, [run for run in runs if run.fault == name]) for name in names]
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    return "\n".join([*lines, *rows, row("**all**", runs)]) + "\n"


def row(name: str, runs: Sequence[Run]) -> str:
    """A fault's runs together."""
    verdicts = [run.verdict for run in runs if run.verdict]
    ended = [verdict for verdict in verdicts if verdict.codes[-1] == DONE]
    cells = (
        name,
        under({(run.rule, run.channel) for run in runs}),
        len(runs),
        sum(v.injected for v in verdicts),
        sum(v.unanswered for v in verdicts),
        sum(len(v.codes) == 1 for v in ended),
        sum(len(v.codes) > 1 for v in ended),
        sum(not run.problems for run in runs),
        sum(v.told for v in verdicts),
        f"{sum(v.twice for v in verdicts):g}",
        *(f"${total(verdicts, each):.6f}" for each in ("settled_usd", "unconfirmed_usd", "billed_usd")),
    )
    return "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells) + " |"


def under(pairs: set[tuple[str, str]]) -> str:
    """Names pairs of rule and channel in short."""
    if pairs == set(PAIRS):
        return "all"
    channels = {channel for _, channel in pairs}
    whole = pairs == {pair for pair in PAIRS if pair[1] in channels}
    return f"all over {'/'.join(channels)}" if whole else ", ".join("/".join(pair) for pair in sorted(pairs))


def total(verdicts: Sequence[Verdict], amount: str) -> Decimal:
    """The sum of one of their amounts."""
    return sum((getattr(verdict, amount) for verdict in verdicts), Decimal(0))


def page(config: Config, runs: Sequence[Run], left: int) -> str:
    """The whole page."""
    verdicts = [run.verdict for run in runs if run.verdict]
    return PAGE.format(
        command="python experiments/faults.py" + (f" --seed {config.seed}" if config.seed else ""),
        commit=commit(),
        seed=config.seed,
        runs=len(runs),
        injected=sum(v.injected for v in verdicts),
        unanswered=sum(v.unanswered for v in verdicts),
        right=sum(not run.problems for run in runs),
        resumed=sum(
            not run.problems and run.verdict is not None and len(run.verdict.codes) > 1 for run in runs
        ),
        twice=sum(v.twice for v in verdicts),
        updates=sum(v.told for v in verdicts),
        over=total(verdicts, "over_usd"),
        left=left,
        problems=sum(bool(run.problems) for run in runs) or "none",
        table=table(runs),
        pairs=", ".join(f"`{rule}` over {channel}" for rule, channel in PAIRS),
    )


def commit() -> str:
    """The commit that is checked out."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def write_csv(path: Path, runs: Sequence[Run]) -> None:
    """One row for every run."""
    columns = [field.name for field in dataclasses.fields(Verdict) if field.name not in ("said", "problems")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["fault", "rule", "channel", *columns, "problems"])
        for run in runs:
            values = [getattr(run.verdict, column, "") for column in columns]
            told = [" ".join(map(str, v)) if isinstance(v, tuple) else v for v in values]
            writer.writerow([run.fault, run.rule, run.channel, *told, "; ".join(run.problems)])


# --- the command -----------------------------------------------------------------------------------


def main(config: Config) -> int:
    """Plays everything, writes the table and the page; 1 if there are problems."""
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="siren-faults-") as scratch,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        folder, task = Path(scratch).resolve() / "rig", progress.add_task("", total=None)

        def told(run: Run) -> None:
            what = f"{run.fault}, {run.rule} over {run.channel}"
            progress.update(task, advance=1, description=what)
            if run.problems or not console.is_terminal:
                console.print(f"{what}: {'; '.join(run.problems) or f'{run.seconds:.1f} s'}", markup=False)

        with open_rig(folder) as rig:
            groups = json.loads((rig.endpoint.root / sweep.RECORD).read_text(encoding="utf-8"))["groups"]
            runs = play_all(config, rig, told)
        left = left_behind(folder, groups)
    failed = [run for run in runs if run.problems]
    if not config.only:
        config.out.mkdir(parents=True, exist_ok=True)
        write_csv(config.out / "runs.csv", runs)
        config.page.write_text(page(config, runs, left), encoding="utf-8")
    sys.stdout.write(f"{len(runs)} runs, {len(failed)} with problems, {left} things left behind\n")
    return 1 if failed or left or not runs else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
