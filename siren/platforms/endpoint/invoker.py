"""Invocations: synchronous ones, and Events with their retries."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from collections.abc import Coroutine
from dataclasses import dataclass, replace

from siren.platforms.endpoint.configuration import Configuration
from siren.platforms.endpoint.errors import ApiError, too_large
from siren.platforms.endpoint.faults import Fault, Faults
from siren.platforms.endpoint.functions import Registry
from siren.platforms.endpoint.invocation import Call, Mishap, Outcome
from siren.platforms.endpoint.pool import Pool
from siren.platforms.endpoint.settings import ASYNC_BYTES, SYNC_BYTES, Settings

log = logging.getLogger(__name__)

# Events that are throttled wait longer each time, from a second to five minutes, for six hours
# (Lambda guide, "Error handling for asynchronous invocation").
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 300.0
_EVENT_AGE_S = 6 * 3600.0


class DroppedError(Exception):
    """The response is lost: the connection must be closed."""


@dataclass(frozen=True)
class Invocation:
    """What is asked for.

    Attributes:
        name, version: Of the function; None for $LATEST.
        call: The event.
    """

    name: str
    version: str | None
    call: Call


class Invoker:
    """Runs invocations.

    Args:
        settings: Of the endpoint.
        registry: Knows the functions.
        pool: Has the environments.
        faults: To be injected; None if there cannot be any.
    """

    def __init__(self, settings: Settings, registry: Registry, pool: Pool, faults: Faults | None) -> None:
        self._settings, self._registry, self._pool, self._faults = settings, registry, pool, faults
        self._background: set[asyncio.Task[None]] = set()

    def check(self, invocation: Invocation, asynchronous: bool) -> Configuration:
        """The version that is meant.

        Raises:
            ApiError: It cannot be invoked, or not with this payload.
        """
        limit = ASYNC_BYTES if asynchronous else SYNC_BYTES
        if len(invocation.call.payload) > limit:
            raise too_large(limit, "InvokeFunction")
        configuration = self._registry.configuration(invocation.name, invocation.version)
        if configuration.created:
            self._registry.check_settled(configuration, asyncio.get_running_loop().time())
        try:
            json.loads(invocation.call.payload)
        except ValueError as error:
            raise ApiError(
                400, "InvalidRequestContentException", f"Could not parse request body into json: {error}"
            ) from error
        return configuration

    async def run(self, invocation: Invocation) -> Outcome:
        """RequestResponse.

        Raises:
            ApiError: It was refused.
            DroppedError: It was done, and the response is to be lost.
        """
        faults = self._faults.take(invocation.name) if self._faults else []
        call = await self._befall(invocation, faults)
        outcome = await self._run(self._registry.configuration(invocation.name, invocation.version), call)
        if any(fault.kind == "drop_response" for fault in faults):
            raise DroppedError
        return outcome

    def post(self, invocation: Invocation) -> None:
        """Event: runs it later, and again if it fails."""
        self._later(self._event(invocation))

    async def close(self) -> None:
        """Forgets what is still to be run."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _befall(self, invocation: Invocation, faults: list[Fault]) -> Call:
        """Lets faults happen; the call with what is to happen to its process."""
        call = invocation.call
        for fault in faults:
            refusal = fault.refusal()
            if refusal:
                raise refusal
            if fault.kind == "delay":
                await asyncio.sleep(fault.delay_s)
            if fault.kind in ("kill", "oom"):
                call = replace(call, mishap=Mishap(fault.delay_s, fault.kind == "oom"))
            if fault.kind == "duplicate":
                self._later(self._duplicate(invocation))
        return call

    async def _run(self, configuration: Configuration, call: Call) -> Outcome:
        try:
            return await self._pool.run(configuration, call)
        except (OSError, subprocess.SubprocessError) as error:
            log.exception("no environment could be started")
            raise ApiError(500, "ServiceException", f"no environment could be started: {error}") from error

    async def _duplicate(self, invocation: Invocation) -> None:
        configuration = self._registry.configuration(invocation.name, invocation.version)
        await self._run(configuration, invocation.call)

    async def _event(self, invocation: Invocation) -> None:
        clock = asyncio.get_running_loop().time
        expires, wait_s = clock() + _EVENT_AGE_S, _FIRST_WAIT_S
        delays = list(self._settings.retry_delays_s)
        while True:
            try:
                outcome = await self.run(invocation)
            except DroppedError:
                return
            except ApiError as error:
                if error.status not in (429, 500, 503) or clock() + wait_s > expires:
                    raise
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            if not outcome.failed or not delays:
                return
            await asyncio.sleep(delays.pop(0))

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception():
            log.warning("an event was given up: %s", task.exception())
