"""Where a schedule gains over the best fixed action, and where nothing can be gained.

    python experiments/regimes.py           # about a quarter of an hour of one core
    python experiments/regimes.py --fast    # a few seconds: a look at one easy cell, nothing to quote
    python experiments/regimes.py --no-play # the page again, from the lines that stand

One job, `experiments/floor/softmax`, in the twin. Each of nine effects is turned up from none while the
others stay at a middle level. Every cell has a best fixed action of its own, chosen on 24 seeds, and a
rehearsal of its own; both then play the same seeds, on which nothing was chosen. A cell is a line of
experiments/results/regimes/cells.csv as soon as it is done, and is not played again while its line stands.
Writes experiments/regimes.md and a figure, from all lines that stand.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from experiments._pages import (
    EXPERIMENTS,
    RESULTS,
    append_rows,
    commit,
    job_episodes,
    markdown,
    told,
    wrapped,
)
from siren.analysis.figures import BLUE, INK, styled_figure
from siren.errors import BudgetError, UsageError
from siren.evaluation import seeds
from siren.evaluation.cache import ChoiceCache
from siren.evaluation.case import CENTS, Case
from siren.evaluation.episode import Episode, play
from siren.evaluation.jobs import JobInTwin
from siren.evaluation.statistics import summarise
from siren.policies import FixedPolicy, Policy, Safeguard, Safety
from siren.rehearsal.entrant import rehearsed_case
from siren.twin.twin import job_of
from siren.workloads.registry import load_workload
from siren.workloads.workload import Workload
from siren.worlds import World, load_world
from siren.worlds.costing import make_costing

FOLDER = EXPERIMENTS / "floor" / "softmax"
WORLD = "aws-2026"

FLOOR_LOSS = 1.2332
"""Held-out loss after 100 full gradient steps of rate .5 from zero, the lowest of 600 looked at every 100:
what SGD here cannot beat by more than luck. The data's seed is in `workload.toml`."""

INITIAL_LOSS = 1.6094
"""ln 5: five classes, all alike."""


# --- jobs --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """How far every effect is turned up; the defaults are the middle level.

    Attributes:
        gap: Target above `FLOOR_LOSS`, over what the initial loss is above it.
        rate: Learning rate.
        service_s: Time for which one push blocks the store, beside what it takes for every float.
        import_s: Extra initialisation of a cold environment.
        function_noise: Coefficient of variation of speed, between functions and between pushes.
        hang_probability: Share of invocations that never return.
        seen: Held-out samples, drawn anew after every epoch, of the loss that policies see and
            that ends a run.
        budget_ratio: Budget over the cheapest with which a fixed action is expected to finish.
        batch_rule, update_rule, channel: See `siren.workloads.spec.TrainingSpec`.
    """

    gap: float = 0.007
    rate: float = 0.03
    service_s: float = 0.000145
    import_s: float = 0.39
    function_noise: float = 0.03
    hang_probability: float = 0.0
    seen: int = 8192
    budget_ratio: float = 1.5
    batch_rule: str = "split"
    update_rule: str = "additive"
    channel: str = "redis"

    @property
    def target_loss(self) -> float:
        """Where the job is done."""
        return FLOOR_LOSS + self.gap * (INITIAL_LOSS - FLOOR_LOSS)


class Glimpsed(Workload):
    """A workload whose held-out loss is estimated on a random sub-sample.

    Which samples, follows from the parameters: others after every epoch, the same if a run is repeated.

    Args:
        whole: The workload.
        seen: Samples of the sub-sample.
    """

    def __init__(self, whole: Workload, seen: int) -> None:
        super().__init__(whole.name, whole.spec, whole.model, whole.dataset, whole.folder)
        self.seen = seen

    def evaluate(self, params: NDArray[np.float32]) -> tuple[float, float]:
        """See `Workload.evaluate`."""
        drawn_by = hashlib.blake2b(params.tobytes(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(drawn_by, "little"))
        data = self.dataset
        rows = rng.choice(len(data.heldout_labels), self.seen, replace=False)
        loss, accuracy = self.model.evaluate(params, data.heldout_features[rows], data.heldout_labels[rows])
        return float(loss), float(accuracy)


@functools.cache
def _loaded() -> Workload:
    return load_workload(str(FOLDER))


def workload_of(setting: Setting) -> Workload:
    """The workload at a setting."""
    whole = _loaded()
    training = whole.spec.training.model_validate(
        whole.spec.training.model_dump()
        | {
            "target_loss": setting.target_loss,
            "learning_rate": setting.rate,
            "batch_rule": setting.batch_rule,
            "update_rule": setting.update_rule,
            "channel": setting.channel,
        }
    )
    cost = whole.spec.cost.model_copy(update={"import_s": setting.import_s})
    spec = whole.spec.model_copy(update={"training": training, "cost": cost})
    made = Workload(whole.name, spec, whole.model, whole.dataset, whole.folder)
    return made if setting.seen == len(whole.dataset.heldout_labels) else Glimpsed(made, setting.seen)


def world_of(setting: Setting) -> World:
    """The world at a setting."""
    world = load_world(WORLD)
    noise = {"push_noise": setting.function_noise, "function_noise": setting.function_noise}
    cpu = world.cpu.model_copy(update={**noise, "hang_probability": setting.hang_probability})
    channels = dict(world.channels)
    store = workload_of(setting).spec.training.channel
    if setting.channel == Setting.channel:
        channels[store] = channels[store].model_copy(update={"service_base": setting.service_s})
    return world.model_copy(update={"cpu": cpu, "channels": channels})


class MadeCase(Case):
    """A case of a job that no key names.

    Args:
        setting: The job and its budget.
        cache: Where choices are kept.
    """

    def __init__(self, setting: Setting, cache: ChoiceCache) -> None:
        workload, world = workload_of(setting), world_of(setting)
        costing = make_costing(world, job_of(workload))
        identity = {
            "experiment": "regimes",
            "spec": workload.spec.model_dump(mode="json"),
            "model.py": hashlib.sha256((FOLDER / "model.py").read_bytes()).hexdigest(),
            "seen": setting.seen,
            "world": world.model_dump(mode="json"),
        }
        rules = setting.batch_rule, setting.update_rule
        self.job = JobInTwin(costing, workload.spec.training, identity, rules, workload)
        self._cache = cache
        usd = Decimal(repr(self.scouted.cheapest_usd)) * Decimal(repr(setting.budget_ratio))
        self.budget_usd = usd.quantize(CENTS, rounding=ROUND_UP)


# --- the map -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """An effect, and how far it is turned up.

    Attributes:
        title: What it is.
        unit: What its levels say.
        levels: (label, changes of the middle setting), from none up; no changes are the middle.
    """

    title: str
    unit: str
    levels: tuple[tuple[str, dict[str, Any]], ...]


MIDDLE: dict[str, Any] = {}

BARRIER_RATE = 1.0
"""Learning rate of rules that take the mean of all functions' steps, where the others add them up: with 33
functions a barrier then moves the model as far as the others' 33 pushes of rate .03 do."""

OVERWRITE_RATE = 0.5
"""That of `overwrite`, which loses most steps; a rate at which the target is reached at all."""

EFFECTS = (
    Effect(
        "noise floor",
        "target above the floor, of the initial gap",
        (("30%", {"gap": 0.3}), ("3%", {"gap": 0.03}), ("0.7%", MIDDLE), ("0.3%", {"gap": 0.003})),
    ),
    Effect(
        "cliff",
        "learning rate",
        ((".0075", {"rate": 0.0075}), (".03", MIDDLE), (".12", {"rate": 0.12})),
    ),
    Effect(
        "contention",
        "store blocked by a push",
        (("0.16 ms", MIDDLE), ("20 ms", {"service_s": 0.02}), ("100 ms", {"service_s": 0.1})),
    ),
    Effect(
        "cold starts",
        "import of the packages",
        (("0 s", {"import_s": 0.0}), ("0.39 s", MIDDLE), ("9 s", {"import_s": 9.0})),
    ),
    Effect(
        "stragglers",
        "spread of speed; or functions that hang",
        (("3%", MIDDLE), ("50%", {"function_noise": 0.5}), ("3%, 1% hang", {"hang_probability": 0.01})),
    ),
    Effect(
        "noisy loss",
        "held-out samples seen",
        (("all 8,192", MIDDLE), ("1,024", {"seen": 1024}), ("256", {"seen": 256})),
    ),
    Effect(
        "budget",
        "times the cheapest",
        (
            ("4", {"budget_ratio": 4.0}),
            ("1.5", MIDDLE),
            ("1.2", {"budget_ratio": 1.2}),
            ("1.1", {"budget_ratio": 1.1}),
        ),
    ),
    Effect("batch rule", "", (("constant", {"batch_rule": "constant"}), ("split", MIDDLE))),
    Effect(
        "update rule",
        "",
        (
            ("sync", {"update_rule": "sync", "rate": BARRIER_RATE}),
            ("average", {"update_rule": "average", "rate": BARRIER_RATE}),
            ("overwrite", {"update_rule": "overwrite", "rate": OVERWRITE_RATE}),
            ("staleness", {"update_rule": "staleness"}),
            ("additive", MIDDLE),
        ),
    ),
)

EASY = (Effect("batch rule", "", (("constant", {"batch_rule": "constant", "gap": 0.3}),)),)
"""What `--fast` plays."""


@dataclass(frozen=True)
class RegimesConfig:
    """Draw the map of regimes."""

    fast: bool = False
    """One easy cell, two seeds, a rehearsal of one second: a look, in a temporary folder."""

    play: bool = True
    """Whether cells that have no line yet are played; `--no-play` draws what stands."""

    seeds: int = 24
    """Episodes of either policy in a cell."""

    seconds: float = 15.0
    """Seconds of a rehearsal, of one core's processor time."""

    page: Path = EXPERIMENTS / "regimes.md"
    """The page."""

    out: Path = RESULTS / "regimes"
    """Folder for the CSV and the figure."""


@dataclass(frozen=True)
class Cell:
    """A cell's outcome; numbers are None where there is none.

    Attributes:
        setting: As JSON-like text, the cell's key.
        commit: Where it was played.
        note: Why there is nothing to compare; empty if there is.
        fixed, rehearsed: The best fixed action, and what the rehearsal chose.
        speedup, low, high: Failure-counted time of the fixed over that of the rehearsed, 95% interval
            over seeds.
        fixed_success, success: Shares of runs.
        fixed_s, rehearsed_s: Mean time of successes.
        fixed_epochs: Mean epochs of the fixed.
        fixed_gap, gap: Mean loss on all held-out samples at the end of successes, as `Setting.gap`.
        overspent_usd: Of all runs of both.
        cpu_s: Processor time of the cell.
    """

    setting: str
    commit: str
    seeds: int
    seconds: float
    note: str = ""
    budget_usd: str = ""
    fixed: str = ""
    rehearsed: str = ""
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    fixed_success: float | None = None
    success: float | None = None
    fixed_s: float | None = None
    rehearsed_s: float | None = None
    fixed_epochs: float | None = None
    fixed_gap: float | None = None
    gap: float | None = None
    overspent_usd: float | None = None
    cpu_s: float = 0.0


def key_of(changes: dict[str, Any]) -> str:
    """What a cell's line is known by."""
    return "; ".join(f"{name}={value}" for name, value in asdict(Setting(**changes)).items())


def in_order(effects: Sequence[Effect]) -> list[dict[str, Any]]:
    """The cells, each once: ends of all effects before what lies between, so that a part is a map too."""
    ranked: list[tuple[int, dict[str, Any]]] = []
    for effect in effects:
        last = len(effect.levels) - 1
        ranked += [
            (0 if not changes else 1 if k == last else 2 if k == 0 else 3, changes)
            for k, (_, changes) in enumerate(effect.levels)
        ]
    ranked.sort(key=lambda pair: pair[0])
    return list({key_of(changes): changes for _, changes in ranked}.values())


def played(case: Case, policy: Policy, report: Sequence[int]) -> tuple[list[Episode], float | None]:
    """The episodes, and the mean loss of all held-out samples at the end of successes."""
    episodes, losses = [], []
    for seed in report:
        platform = case.job.platform(seed)
        episodes.append(play(platform, policy, case.job.costing, case.job.training, case.budget_usd))
        if episodes[-1].success:
            losses.append(_loaded().evaluate(platform.params)[0])
    return episodes, float(np.mean(losses)) if losses else None


def play_cell(changes: dict[str, Any], config: RegimesConfig) -> Cell:
    """Chooses, rehearses and reports."""
    began = time.process_time()
    asked = {"setting": key_of(changes), "commit": commit(), "seeds": config.seeds, "seconds": config.seconds}
    try:
        case = MadeCase(Setting(**changes), ChoiceCache())
        best = case.baseline
        choice = rehearsed_case(case, config.seconds).choice
    except (UsageError, BudgetError) as error:
        return Cell(**asked, note=str(error).split(":")[0], cpu_s=time.process_time() - began)
    report = seeds.report_seeds(config.seeds)
    fixed, fixed_loss = played(case, FixedPolicy(best.action), report)
    own, loss = played(case, Safeguard(choice.policy(), Safety()), report)
    found = summarise([job_episodes(own, fixed, best.time_s, best.failure_s)])
    times = {name: found[f"ratio_to_best_fixed{name}"] for name in ("", "_low", "_high")}
    fixed_s = [e.duration_s for e in fixed if e.success]
    return Cell(
        **asked,
        budget_usd=str(case.budget_usd),
        fixed=str(best.action),
        rehearsed=choice.name,
        speedup=1 / times[""],
        low=1 / times["_high"],
        high=1 / times["_low"],
        fixed_success=len(fixed_s) / len(fixed),
        success=found["success_rate"],
        fixed_s=float(np.mean(fixed_s)) if fixed_s else None,
        rehearsed_s=found["time_s"],
        fixed_epochs=float(np.mean([len(e.records) for e in fixed])),
        fixed_gap=_gap(fixed_loss),
        gap=_gap(loss),
        overspent_usd=float(sum(e.overspent_usd for e in [*fixed, *own])),
        cpu_s=time.process_time() - began,
    )


def _gap(loss: float | None) -> float | None:
    return None if loss is None else (loss - FLOOR_LOSS) / (INITIAL_LOSS - FLOOR_LOSS)


# --- what stands -------------------------------------------------------------------------------------


def read_cells(path: Path) -> dict[str, Cell]:
    """The lines of a CSV by their settings; none if there is no file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        cells = [
            Cell(**{f.name: _value(f.type, row[f.name]) for f in fields(Cell)})
            for row in csv.DictReader(file)
        ]
    return {cell.setting: cell for cell in cells}


def _value(kind: Any, text: str) -> Any:
    if kind == "str":
        return text
    if kind == "int":
        return int(text)
    return float(text) if text else None


# --- the page ----------------------------------------------------------------------------------------

HEAD = (
    "effect",
    "level",
    "best fixed: action, success, time",
    "rehearsed: choice, success, time",
    "speed-up",
)


def speedup(cell: Cell) -> str:
    """The speed-up with its interval."""
    assert cell.speedup is not None
    assert cell.low is not None
    assert cell.high is not None
    return told((cell.speedup, cell.low, cell.high), lambda x: f"{x:.2f}")


def table(cells: dict[str, Cell], effects: Sequence[Effect]) -> str:
    """One row for every level of every effect; the middle stands in each."""
    rows = []
    for effect in effects:
        title = f"{effect.title}: {effect.unit}" if effect.unit else effect.title
        for k, (label, changes) in enumerate(effect.levels):
            cell = cells.get(key_of(changes))
            name = f"{label} (middle)" if changes is MIDDLE else label
            head = ("" if k else title, name)
            if cell is None or cell.note:
                rows.append((*head, "", "", cell.note if cell else "not played"))
                continue
            rows.append(
                (
                    *head,
                    _outcome(cell.fixed, cell.fixed_success, cell.fixed_s),
                    _outcome(cell.rehearsed, cell.success, cell.rehearsed_s),
                    speedup(cell),
                )
            )
    return markdown(HEAD, rows)


def _outcome(name: str, success: float | None, seconds: float | None) -> str:
    return f"{name}, {success:.0%}, " + ("-" if seconds is None else f"{seconds:.1f} s")


def figure(cells: dict[str, Cell], effects: Sequence[Effect], path: Path) -> None:
    """A panel for every effect."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    with styled_figure(path, (11.0, 8.4)) as drawn:
        drawn.set_layout_engine("constrained")
        panels = drawn.subplots(-(-len(effects) // 3), 3, sharey=True, squeeze=False).ravel()
        for panel, effect in zip(panels, effects, strict=False):
            panel.axhline(1.0, color=INK, linewidth=1, linestyle="--")
            for k, (_, changes) in enumerate(effect.levels):
                cell = cells.get(key_of(changes))
                if cell is None or cell.speedup is None or cell.low is None or cell.high is None:
                    continue
                ends = [[cell.speedup - cell.low], [cell.high - cell.speedup]]
                shape = "s" if changes is MIDDLE else "o"
                panel.errorbar(k, cell.speedup, ends, fmt=shape, color=BLUE, capsize=3)
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.yaxis.set_minor_locator(NullLocator())
            panel.set_xticks(range(len(effect.levels)), [label for label, _ in effect.levels], fontsize=9)
            panel.set_xlim(-0.5, len(effect.levels) - 0.5)
            panel.set_title(f"{effect.title}" + (f"\n{effect.unit}" if effect.unit else ""), fontsize=10)
        for panel in panels[len(effects) :]:
            panel.set_visible(False)
        drawn.supylabel("speed-up over the best fixed action (square: the middle)", fontsize=10)


PAGE = """# Map of regimes

Where does a schedule gain over the best fixed action, and where can nothing be gained? One job,
[`floor/softmax`](floor/softmax/workload.toml) (softmax regression on classes that overlap, 131 vCPU-seconds
an epoch), by real SGD in the twin. Each effect is turned up from none while all others stay at the middle
level.

    python experiments/regimes.py{flags}

Cells were played at commit {commits}. In every cell the best fixed action (n, m) is chosen anew on {select}
seeds from {select_first}, and the job is rehearsed anew for {seconds:g} s of one core's processor time.
Both play seeds {first} to {last}, on which nothing was chosen. Speed-up: mean time of the best fixed action
over that of what the rehearsal chose, a failure counted as twice the mean time of the fixed action's
successes on the seeds that chose it; 95% bootstrap interval over seeds. A budget is a multiple of the
cheapest with which a fixed action of *that* cell is expected to finish.

Middle: batches `split` (4 pushes a function), updates `additive` over Redis, world `{world}` as it is,
learning rate .03, budget 1.5 times the cheapest, target {middle_gap:.1%} of the initial gap above the floor
(loss {target:.4f}; floor {floor:.4f}, initial {initial:.4f}), which fixed runs reach in {epochs} epochs.

![Speed-up by effect](results/regimes/figure.png)

{table}

## What it shows

{shows}

{loss}

{cost}

## Where it is below 1

What a rehearsal finds in {seconds:g} s is not the best there is; where the speed-up is below 1, it missed
the best fixed action, whose search saw more. At 0221fed the rehearsals' own records say why. With a push of
100 ms there was time for 23 episodes, 6 of them on fresh seeds. At budget 1.1 `shape:2-1` took 56.5 s on
the rehearsal's 33 fresh seeds, failures counted, against 90.5 s of its fixed action, and was refused
because it failed once and the fixed action never. Under `sync` the best fixed action that it found was
128x768, with 26.1 s; 65x1769 took 22.1 s on the seeds that chose it.

## What it does not show

It is one job in one world, with one rehearsal a cell, and few seeds: an interval that holds 1 may hide a
gain of a tenth, and of some twenty intervals one is expected to miss its truth. The interval is over report
seeds: how much another rehearsal of the same job would have found is not in it. The effects are turned up
one at a time; two together may do more or less. Effects are not pure: a higher learning rate lifts the
noise floor as well as it moves the cliff; a target nearer the floor takes more epochs; a slow store makes
updates staler. The middle of the contention, straggler and noisy-loss scales is also their lowest level:
`aws-2026` has a spread of 3%, a push blocks the Redis node for 0.16 ms, and all held-out samples are seen.
`sync` and `average` take the mean of all functions' steps, where the other rules add them up, so their
learning rate is {barrier_rate:g}, and that of `overwrite`, which loses most steps, {overwrite_rate:g}; with
.03 no fixed action reached the target under `sync`. `cas` was not played: over S3 many functions retry so
often that two minutes of a core did not choose its best fixed action.
"""


def page(config: RegimesConfig, cells: dict[str, Cell], effects: Sequence[Effect]) -> str:
    """The whole page."""
    report = seeds.report_seeds(config.seeds)
    middle = cells.get(key_of(MIDDLE))
    return PAGE.format(
        flags=" --fast" if config.fast else "",
        commits=", ".join(dict.fromkeys(cell.commit for cell in cells.values())),
        world=WORLD, select=seeds.SELECT_COUNT, select_first=seeds.SELECT,
        seconds=config.seconds, first=report[0], last=report[-1],
        middle_gap=Setting().gap, target=Setting().target_loss, floor=FLOOR_LOSS, initial=INITIAL_LOSS,
        epochs=f"{middle.fixed_epochs:.1f}" if middle and middle.fixed_epochs else "some",
        barrier_rate=BARRIER_RATE, overwrite_rate=OVERWRITE_RATE,
        table=table(cells, effects), shows=shows(cells, effects), loss=true_losses(cells, effects),
        cost=cost(cells),
    )  # fmt: skip


def shows(cells: dict[str, Cell], effects: Sequence[Effect]) -> str:
    """Which levels gain, lose, or neither, from the numbers."""
    found: dict[str, list[str]] = {"gain": [], "nothing": [], "loss": []}
    for effect in effects:
        for label, changes in effect.levels:
            cell = cells.get(key_of(changes))
            if changes is MIDDLE or cell is None or cell.low is None or cell.high is None:
                continue
            kind = "gain" if cell.low > 1 else "loss" if cell.high < 1 else "nothing"
            found[kind].append(f"{effect.title} {label} ({speedup(cell)})")
    middle = cells.get(key_of(MIDDLE))
    lines = [f"The middle has {speedup(middle)}."] if middle and middle.speedup else []
    names = {
        "gain": "Faster than the best fixed action, the whole interval above 1",
        "nothing": "Not told from 1.0",
        "loss": "Slower, the whole interval below 1",
    }
    lines += [f"{names[kind]}: {'; '.join(where)}." for kind, where in found.items() if where]
    return "\n\n".join(lines)


def true_losses(cells: dict[str, Cell], effects: Sequence[Effect]) -> str:
    """How far above the floor runs really end where the loss is estimated."""
    parts = []
    for effect in effects:
        for label, changes in effect.levels:
            cell = cells.get(key_of(changes))
            if "seen" in changes and cell and cell.gap is not None and cell.fixed_gap is not None:
                parts.append(f"{label} samples: {cell.fixed_gap:.1%} and {cell.gap:.1%}")
    if not parts:
        return ""
    return (
        "A noisy loss ends runs by luck, and the lucky ones are counted as successes here: the loss on all "
        "held-out samples at the end of successes is, of the initial gap above the floor, by the fixed "
        "action and by the rehearsed one, with "
        f"{'; with '.join(parts)}; the target is {Setting().gap:.1%}."
    )


def cost(cells: dict[str, Cell]) -> str:
    """Dollars overspent, and what it took."""
    overspent_usd = sum(cell.overspent_usd or 0.0 for cell in cells.values())
    minutes = sum(cell.cpu_s for cell in cells.values()) / 60
    return (
        f"Overspent in all runs together: ${overspent_usd:g}. All cells took {minutes:.1f} minutes of one "
        "core's processor time."
    )


def main(config: RegimesConfig) -> int:
    """Plays what is missing, writes, prints the table."""
    commit()  # others may commit while this runs
    effects: Sequence[Effect] = EFFECTS
    if config.fast:
        folder = (
            Path(tempfile.mkdtemp(prefix="siren-regimes-"))
            if config.out == RESULTS / "regimes"
            else config.out
        )
        config = replace(config, seeds=2, seconds=1.0, page=folder / "regimes.md", out=folder)
        effects = EASY
    path = config.out / "cells.csv"
    cells = read_cells(path)
    order = in_order(effects)
    with threadpool_limits(1):
        for k, changes in enumerate(order):
            if key_of(changes) in cells or not config.play:
                continue
            cell = play_cell(changes, config)
            append_rows(path, [asdict(cell)])
            cells[cell.setting] = cell
            told_as = cell.note or f"{cell.fixed} against {cell.rehearsed}: {speedup(cell)}"
            print(
                f"{k + 1} of {len(order)}: {changes or 'middle'}: {told_as}, {cell.cpu_s:.0f} s",
                file=sys.stderr,
            )
    wanted = {key: cells[key] for key in map(key_of, order) if key in cells}
    figure(wanted, effects, config.out / "figure.png")
    config.page.parent.mkdir(parents=True, exist_ok=True)
    config.page.write_text(wrapped(page(config, wanted, effects)), encoding="utf-8")
    print(f"the page: {config.page}", file=sys.stderr)
    sys.stdout.write(table(wanted, effects))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(RegimesConfig)))
