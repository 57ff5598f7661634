"""Runs the real command in processes that are killed: after a time, or at any step on the disk.

Start-up takes longer than a small run. So one process, the `Launcher`'s, imports Siren once and
forks a child for every run; a child is what `python -m siren.run` would be after its imports.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from siren.platforms.manager.site import Grounds
from siren.testing.faults.site import grounds_from_json, grounds_to_json, local_platform_over

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Death:
    """How a child ended.

    Attributes:
        code: Its exit code; negative if a signal ended it.
        seconds: How long it lived.
        steps: What it did to the watched folder, e.g. `fsync ledger.jsonl`.
        stdout, stderr: What it printed.
    """

    code: int
    seconds: float
    steps: tuple[str, ...]
    stdout: str
    stderr: str


class Launcher:
    """A process that forks a child for every `run`.

    Args:
        folder: Where children put their output.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        command = [sys.executable, "-m", "siren.testing.crashes"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(
        self,
        *arguments: str,
        kill_after_s: float | None = None,
        kill_when: Path | None = None,
        kill_at: int | None = None,
        watch: Path | None = None,
        grounds: Grounds | None = None,
    ) -> Death:
        """Runs `python -m siren.run ARGUMENTS` in a child.

        Args:
            arguments: The command line.
            kill_after_s: SIGKILL after so many seconds.
            kill_when: SIGKILL once this file exists.
            kill_at: SIGKILL before step so-and-so (0 is the first) in the watched folder.
            watch: The folder whose steps count.
            grounds: What `--platform local` runs over; by default it starts servers of its own.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {
            "arguments": arguments,
            "kill_after_s": kill_after_s,
            "kill_when": str(kill_when) if kill_when else None,
            "kill_at": kill_at,
            "watch": str(watch) if watch else None,
            "grounds": grounds_to_json(grounds) if grounds else None,
            "output": str(self._folder / f"output-{random.getrandbits(64):x}"),
        }
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        return Death(**{**answer, "steps": tuple(answer["steps"])})


class Steps:
    """Counts what a process does to the files below a folder, and kills it at one step.

    A step is announced before it happens; a write is two, the second after half of its bytes.
    """

    def __init__(self, folder: Path, kill_at: int | None, announce: Callable[[str], None]) -> None:
        self._folder, self._kill_at, self._announce = str(folder.resolve()) + os.sep, kill_at, announce
        self._count = 0
        self._paths: dict[int, str] = {}
        self._real = {name: getattr(os, name) for name in ("open", "close", "write", "fsync", "ftruncate")}

    def install(self) -> None:
        """Puts itself between this process and the disk, for good."""
        for name in ("mkdir", "replace", "unlink", "rmdir"):
            setattr(os, name, self._on_path(name, getattr(os, name)))
        for name in ("fsync", "ftruncate"):
            setattr(os, name, self._on_descriptor(name, self._real[name]))
        for name in ("open", "close", "write"):
            setattr(os, name, getattr(self, f"_{name}"))

    def _step(self, what: str, path: str) -> None:
        if not (path + os.sep).startswith(self._folder):
            return
        self._announce(f"{what} {path[len(self._folder) :] or '.'}")
        if self._count == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._count += 1

    def _on_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            self._step(name, os.path.abspath(os.fspath(path)))  # noqa: PTH100 - Path would recurse
            return real(path, *args, **kwargs)

        return call

    def _on_descriptor(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int, *args: Any) -> Any:
            self._step(name, self._paths.get(descriptor, ""))
            return real(descriptor, *args)

        return call

    def _open(self, path: Any, *args: Any, **kwargs: Any) -> int:
        descriptor: int = self._real["open"](path, *args, **kwargs)
        self._paths[descriptor] = os.path.abspath(os.fspath(path))  # noqa: PTH100
        return descriptor

    def _close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)
        self._real["close"](descriptor)

    def _write(self, descriptor: int, data: Any) -> int:
        path = self._paths.get(descriptor, "")
        if not path.startswith(self._folder):
            return int(self._real["write"](descriptor, data))
        self._step("write", path)
        half = len(data) // 2
        written = int(self._real["write"](descriptor, bytes(data)[:half])) if half else 0
        self._step("tear", path)
        return written + int(self._real["write"](descriptor, bytes(data)[written:]))


def _child(request: dict[str, Any], steps_file: int) -> int:
    import tyro

    from siren.run import RunConfig, main

    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        target = os.open(f"{request['output']}.{name}", os.O_WRONLY | os.O_CREAT, 0o644)
        os.dup2(target, descriptor)
    if request["watch"]:
        write = os.write
        watched = Path(request["watch"])
        Steps(watched, request["kill_at"], lambda step: _tell(write, steps_file, step)).install()
    config = tyro.cli(
        RunConfig,
        prog="python -m siren.run",
        args=request["arguments"],
        config=(tyro.conf.EnumChoicesFromValues,),
    )
    given = request["grounds"]
    with local_platform_over(grounds_from_json(given)) if given else nullcontext():
        return main(config)


def _tell(write: Callable[[int, bytes], int], descriptor: int, step: str) -> None:
    write(descriptor, step.encode() + b"\n")


def _prepare() -> None:
    """Imports and compiles once what every child needs."""
    import siren.run  # noqa: F401
    from siren.platforms.twin import TwinPlatform
    from siren.testing.platform import Subject
    from siren.testing.tiny import tiny_costing, tiny_workload
    from siren.types import Action

    workload = tiny_workload(kernel=False)
    costing = tiny_costing(workload)
    platform = TwinPlatform(workload, costing, 0)
    platform.start()
    platform.run_epoch(Subject(lambda: platform, costing, ()).plan(Action(2, 1024)))


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    steps_path = Path(f"{request['output']}.steps")
    steps_file = os.open(steps_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = _child(request, steps_file)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(steps_file)
    if request["kill_after_s"] is not None:
        time.sleep(request["kill_after_s"])
        os.kill(pid, signal.SIGKILL)  # one that has ended is a zombie until waited for
    if request["kill_when"] is not None:
        _kill_when(pid, Path(request["kill_when"]))
    _, status = os.waitpid(pid, 0)
    texts = {}
    for name in ("steps", "stdout", "stderr"):
        path = Path(f"{request['output']}.{name}")
        texts[name] = path.read_text(encoding="utf-8") if path.exists() else ""
        path.unlink(missing_ok=True)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - began,
        **texts,
        "steps": texts["steps"].splitlines(),
    }


def _kill_when(pid: int, file: Path) -> None:
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if file.exists():
            return os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return None


def main() -> None:
    """Serves requests, one JSON object a line, until stdin ends."""
    _prepare()
    for line in sys.stdin:
        print(json.dumps(_serve(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
