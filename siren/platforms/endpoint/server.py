"""An endpoint from its start to its end."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aiohttp import web

from siren.errors import UsageError
from siren.platforms.endpoint import sweep
from siren.platforms.endpoint.api import Api
from siren.platforms.endpoint.confinement import (
    CONTROLLERS,
    Hierarchy,
    find_hierarchies,
    open_hierarchies,
)
from siren.platforms.endpoint.environment import Host
from siren.platforms.endpoint.faults import Faults
from siren.platforms.endpoint.functions import Registry
from siren.platforms.endpoint.governor import Governor
from siren.platforms.endpoint.invoker import Invoker
from siren.platforms.endpoint.pool import Pool
from siren.platforms.endpoint.settings import RUNTIME, Settings

HOST = "127.0.0.1"
ROOT_PREFIX = "siren-endpoint-"
KEEP_CONNECTION_S = 3600.0
STARTS = max(2, os.cpu_count() or 1)
"""Environments in their init phase at once."""
WITHOUT_CGROUPS = {"cpu": "SIGSTOP", "memory": "watched", "freezer": "SIGSTOP"}
NOT_ENFORCED = (
    "the size of /tmp",
    "the number of processes and threads",
    "scaling by at most 1,000 environments in 10 s",
    "10 requests a second for each environment",
    "code that is read-only, and permissions in its zip",
    "permissions of the role",
    "network bandwidth",
)


async def serve(settings: Settings, port: int, tell: Callable[[int], None]) -> None:
    """Serves until SIGTERM or SIGINT, then ends everything and removes the root.

    Args:
        settings: Of the endpoint.
        port: To listen on; 0 for a free one.
        tell: Called with the port once requests are answered.

    Raises:
        UsageError: The root or the port cannot be had.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with _own_root(settings) as hierarchies:
        async with _application(settings, hierarchies) as application:
            runner = web.AppRunner(
                application, access_log=None, keepalive_timeout=KEEP_CONNECTION_S, shutdown_timeout=0.1
            )
            await runner.setup()
            try:
                site = web.TCPSite(runner, HOST, port, backlog=1024)
                try:
                    await site.start()
                except OSError as error:
                    raise UsageError(f"port {port} cannot be had: leave --port out for a free one") from error
                tell(runner.addresses[0][1])
                await stop.wait()
            finally:
                await runner.cleanup()


@asynccontextmanager
async def _application(
    settings: Settings, hierarchies: dict[str, Hierarchy]
) -> AsyncIterator[web.Application]:
    governor = Governor()
    starts = asyncio.Semaphore(STARTS)
    host = Host(settings, hierarchies, governor, settings.root / "logs", settings.root / "tmp", starts)
    registry = Registry(settings)
    pool = Pool(registry, host)
    faults = Faults() if settings.faults else None
    invoker = Invoker(settings, registry, pool, faults)
    api = Api(settings, registry, pool, invoker, faults, _about(settings, hierarchies))
    try:
        yield api.application()
    finally:
        await invoker.close()
        await pool.close()
        await governor.close()


@contextmanager
def _own_root(settings: Settings) -> Iterator[dict[str, Hierarchy]]:
    """A root and cgroups that somebody cleans up even if this process is killed."""
    root = settings.root
    if root.exists() and any(root.iterdir()):
        pid = sweep.owner(root)
        if pid is not None:
            raise UsageError(f"{root} is in use by process {pid}: choose another folder with --root")
        if not (root / sweep.RECORD).exists():
            raise UsageError(f"{root} holds other files: choose an empty or a new folder with --root")
        sweep.sweep(root)
    root.mkdir(parents=True, exist_ok=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found = find_hierarchies() if settings.cgroups else {}
    for at in found.values():
        sweep.sweep_stale_groups(at.path)
    token = sweep.token()
    groups = sorted({at.path / f"siren-{token}" for at in found.values()})
    sweep.record(root, groups)
    held, lifeline = os.pipe()
    reaper = subprocess.Popen(
        [sys.executable, "-ISE", sweep.__file__, str(held), str(root), *map(str, groups)],
        stdin=subprocess.DEVNULL,
        pass_fds=(held,),
        start_new_session=True,
        env={},
    )
    os.close(held)
    try:
        yield open_hierarchies(found, token)
    finally:
        sweep.sweep(root, groups)
        os.close(lifeline)
        reaper.wait()


def _about(settings: Settings, hierarchies: dict[str, Hierarchy]) -> dict[str, Any]:
    used = {
        controller: f"cgroup v{hierarchies[controller].version}"
        if controller in hierarchies
        else WITHOUT_CGROUPS[controller]
        for controller in CONTROLLERS
    }
    return {
        "runtime": RUNTIME,
        "awslambdaric": version("awslambdaric"),
        "confinement": used,
        "concurrency": settings.concurrency,
        "most_environments": settings.environments,
        "not_enforced": list(NOT_ENFORCED),
    }


def default_root() -> Path:
    """A new folder for an endpoint, once those of dead ones are swept."""
    parent = Path(tempfile.gettempdir())
    sweep.sweep_stale(parent, ROOT_PREFIX)
    return Path(tempfile.mkdtemp(prefix=ROOT_PREFIX))
