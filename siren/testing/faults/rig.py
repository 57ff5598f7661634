"""Everything that whole runs with faults need: servers that fail as told, a job that obeys, a launcher."""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from siren._roots import root_folder
from siren.platforms.endpoint import sweep
from siren.platforms.endpoint.client import LocalEndpoint
from siren.platforms.local import LocalSite
from siren.platforms.manager.site import Grounds
from siren.run import RunConfig, main
from siren.testing.crashes import Launcher
from siren.testing.faults import model
from siren.testing.faults.bills import BillReader
from siren.testing.faults.site import local_platform_over
from siren.testing.faults.store import FaultyStore
from siren.testing.tiny import write_tiny_workload
from siren.types import ChannelKind, UpdateRule

ROWS, BATCH, RATE = 64, 8, 0.25
"""Powers of two: a row's counter moves by RATE / BATCH = 1/32 exactly."""
BUDGET = "1"
PATIENCE_S = 60.0
TRAINING = {
    "target_loss": 1e-6,
    "batch_size": BATCH,
    "learning_rate": RATE,
    "samples_per_epoch": 0,
}
COST = {"sample_bytes": 4 * (ROWS + model.POINTS + 1), "seconds_per_sample": 1e-5, "seconds_per_push": 1e-3}
RUNGS = re.compile(r"^timeout_rungs = \{ value = \[[^]]*\]", re.MULTILINE)


@dataclass(frozen=True)
class Plan:
    """What a run is told.

    Attributes:
        rule, channel: What a push does, and where parameters travel.
        functions, memory_mb: Of every epoch.
        epochs: How many.
        seed: Of the run.
        timeout_s: Of every function.
    """

    rule: str
    channel: str
    functions: int = 2
    memory_mb: int = 1769
    epochs: int = 2
    seed: int = 0
    timeout_s: int = 60


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code; negative if a signal ended it.
        said: What it wrote to stderr.
    """

    code: int
    said: str


class Rig:
    """One local site for many runs; made by `open_rig`.

    Attributes:
        folder: For everything.
        endpoint: The Lambda endpoint.
        store: What stands before its S3 server.
        grounds: What runs run over.
        bills: Reads what the endpoint billed.
        launcher: Starts schedulers that are to be killed.
    """

    def __init__(
        self, folder: Path, site: LocalSite, grounds: Grounds, store: FaultyStore, launcher: Launcher
    ) -> None:
        assert site.endpoint is not None
        assert site.root is not None
        self.folder, self.site_root = folder, site.root
        self.endpoint: LocalEndpoint = site.endpoint
        self.store, self.launcher = store, launcher
        self.grounds = replace(grounds, backend=replace(grounds.backend, s3_url=store.url))
        self.bills = BillReader(self.endpoint.root / "logs")
        self._orders = 0
        self._steps: tuple[str, ...] = ()

    # --- runs --------------------------------------------------------------------------------

    def run(self, plan: Plan, out: Path) -> Ended:
        """Runs `siren.run --platform local` in this process."""
        config = RunConfig(
            budget=BUDGET,
            workload=str(workload_of(self.folder)),
            world=str(world_of(self.folder, plan.timeout_s)),
            platform="local",
            policy=f"fixed:{plan.functions}x{plan.memory_mb}",
            update_rule=UpdateRule(plan.rule),
            channel=ChannelKind(plan.channel),
            seed=plan.seed,
            max_epochs=plan.epochs,
            out=out,
            print_json=True,
        )
        return self._main(config)

    def resume(self, out: Path) -> Ended:
        """Runs `siren.run --resume` in this process."""
        return self._main(RunConfig(resume=out, print_json=True))

    def run_and_kill(self, plan: Plan, out: Path, **when: Any) -> Ended:
        """Runs `siren.run --platform local` in a process that is killed; `when` as in `Launcher.run`."""
        death = self.launcher.run(*self._words(plan, out), grounds=self.grounds, **when)
        return Ended(death.code, death.stderr)

    def _words(self, plan: Plan, out: Path) -> list[str]:
        options = {
            "budget": BUDGET,
            "workload": workload_of(self.folder),
            "world": world_of(self.folder, plan.timeout_s),
            "platform": "local",
            "policy": f"fixed:{plan.functions}x{plan.memory_mb}",
            "update-rule": plan.rule,
            "channel": plan.channel,
            "seed": plan.seed,
            "max-epochs": plan.epochs,
            "out": out,
        }
        return [word for key, value in options.items() for word in (f"--{key}", str(value))]

    def steps(self) -> tuple[str, ...]:
        """The steps on the disk of a run that nobody kills; those of the first epochs are always the same."""
        if not self._steps:
            out = self.folder / "steps"
            words = self._words(Plan("average", "s3"), out)
            self._steps = self.launcher.run(*words, grounds=self.grounds, watch=out).steps
        return self._steps

    def _main(self, config: RunConfig) -> Ended:
        said = io.StringIO()
        with local_platform_over(self.grounds):
            code = main(config, io.StringIO(), said, io.StringIO())
        return Ended(code, said.getvalue())

    # --- faults ------------------------------------------------------------------------------

    def order(self, do: str, point: str = "any", nth: int = 1) -> Path:
        """Orders a function to do something, see `siren.testing.faults.model.Orders`; exists once done."""
        self._orders += 1
        path = orders_of(self.folder) / f"{self._orders:06d}.order"
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"do": do, "point": point, "nth": nth}), encoding="utf-8")
        part.rename(path)
        return path.with_suffix(".done")

    def clear(self) -> None:
        """Lets nothing more happen."""
        self.endpoint.clear_faults()
        self.store.clear()
        for path in orders_of(self.folder).iterdir():
            path.unlink()

    # --- what is left ------------------------------------------------------------------------

    def settle_down(self) -> None:
        """Waits until no invocation runs and processes and cgroups are those of idle environments.

        Raises:
            TimeoutError: There are others.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not (found := self._census())[0]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the endpoint does not come to rest: {found[1]}")
            time.sleep(0.02)

    def _census(self) -> tuple[bool, str]:
        about = self.endpoint.about()
        count = about["environments"]
        processes = len(processes_with(f"{sweep.MARK}={self.endpoint.root}"))
        groups = [
            Path(group) for group in json.loads((self.endpoint.root / sweep.RECORD).read_text())["groups"]
        ]
        cells = [sum(path.is_dir() for path in group.iterdir()) for group in groups if group.is_dir()]
        resting = about["idle"] == count == processes and all(each == count for each in cells)
        return resting, f"{about['idle']} of {count} idle, {processes} processes, cgroups {cells}"

    def secrets_written(self, *folders: Path) -> list[Path]:
        """Files of folders and of the servers' logs that hold the secret key."""
        credentials = self.grounds.backend.credentials
        assert credentials is not None
        logs = [self.endpoint.root / "logs", *self.site_root.glob("*.log")]
        files = [
            path for root in (*folders, *logs) for path in ([root] if root.is_file() else root.rglob("*"))
        ]
        return [path for path in files if path.is_file() and credentials[1].encode() in path.read_bytes()]


@contextmanager
def open_rig(folder: Path) -> Iterator[Rig]:
    """A rig whose every process has `folder` in its environment, and whose temporary files lie in it."""
    temp = temp_of(folder)
    for path in (temp, orders_of(folder)):
        path.mkdir(parents=True)
    write_tiny_workload(
        workload_of(folder),
        Path(model.__file__).read_text(encoding="utf-8"),
        dataset={"settings": {"rows": ROWS, "heldout": 32}},
        model={"settings": {"orders": str(orders_of(folder))}},
        training=TRAINING,
        cost=COST,
    )
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, {"TMPDIR": str(temp)}))
        stack.enter_context(patch.object(tempfile, "tempdir", str(temp)))
        launcher = stack.enter_context(Launcher(folder))
        site = LocalSite(workload_of(folder), environments=12, faults=True)
        stack.callback(site.close)
        grounds = site.open()
        assert grounds.backend.s3_url is not None
        store = stack.enter_context(FaultyStore(grounds.backend.s3_url))
        yield Rig(folder, site, grounds, store, launcher)


def workload_of(folder: Path) -> Path:
    """Where a rig's workload lies."""
    return folder / "counting"


def orders_of(folder: Path) -> Path:
    """Where a rig's orders lie."""
    return folder / "orders"


def temp_of(folder: Path) -> Path:
    """Where a rig's temporary files lie."""
    return folder / "temp"


def world_of(folder: Path, timeout_s: int) -> Path:
    """The world `local` with one timeout."""
    path = folder / f"local-{timeout_s}.toml"
    if not path.exists():
        text = (root_folder("envs") / "local.toml").read_text(encoding="utf-8")
        changed, count = RUNGS.subn(f"timeout_rungs = {{ value = [{timeout_s}]", text)
        assert count == 1
        path.write_text(changed, encoding="utf-8")
    return path


def processes_with(text: str) -> list[int]:
    """Processes, this one aside, that have a text in their environment or command line; no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            told = (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
            state = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            continue
        if text.encode() in told and state != "Z" and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits until a condition holds.

    Raises:
        TimeoutError: It does not.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain until {what}")
        time.sleep(0.02)
