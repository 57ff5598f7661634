"""Environments of all functions: who may have one, which is used again, which must go."""

from __future__ import annotations

import asyncio
from collections import Counter

from siren.platforms.endpoint.configuration import Configuration
from siren.platforms.endpoint.environment import Environment, Host
from siren.platforms.endpoint.errors import throttled
from siren.platforms.endpoint.functions import Registry
from siren.platforms.endpoint.invocation import Call, Outcome


class Pool:
    """Hands out environments.

    Args:
        registry: Knows what concurrency is reserved.
        host: What environments share.
    """

    def __init__(self, registry: Registry, host: Host) -> None:
        self._registry, self._host = registry, host
        self._settings = host.settings
        # By revision, and within it the one that rested last comes last.
        self._idle: dict[str, list[Environment]] = {}
        # In the order in which they came to rest.
        self._resting: dict[Environment, asyncio.TimerHandle] = {}
        self._all: set[Environment] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._in_flight: Counter[str] = Counter()
        self._closed = False
        self.started = 0
        self.most = 0

    async def run(self, configuration: Configuration, call: Call) -> Outcome:
        """Runs an invocation in an environment of this version.

        Raises:
            ApiError: 429: a limit is reached.
            OSError, subprocess.SubprocessError: No process can be started.
        """
        self._enter(configuration.name)
        try:
            environment = self._borrow(configuration)
            try:
                outcome = await environment.invoke(call)
            except BaseException:
                self._drop(environment)
                raise
            self._give_back(environment)
            return outcome
        finally:
            self._leave(configuration.name)

    def retire(self, configurations: list[Configuration]) -> None:
        """Ends idle environments of versions that are no more."""
        for configuration in configurations:
            for environment in list(self._idle.get(configuration.revision, [])):
                self._drop(environment)

    def counts(self) -> dict[str, int]:
        """How many environments there are, are idle, were started, and were there at most at once."""
        return {
            "environments": len(self._all),
            "idle": len(self._resting),
            "started": self.started,
            "most": self.most,
        }

    async def close(self) -> None:
        """Ends all environments."""
        self._closed = True
        for environment in list(self._all):
            self._drop(environment)
        while self._closing:
            await asyncio.gather(*self._closing)

    def _enter(self, name: str) -> None:
        function = self._registry.function(name)
        if function.reserved is not None:
            if self._in_flight[name] >= function.reserved:
                raise throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
        else:
            shared = {each.latest.name for each in self._registry if each.reserved is None}
            used = sum(count for each, count in self._in_flight.items() if each in shared)
            if used >= self._settings.concurrency - self._registry.reserved():
                raise throttled("ConcurrentInvocationLimitExceeded")
        if self._in_flight.total() >= self._settings.environments:
            raise throttled(
                "ConcurrentInvocationLimitExceeded",
                f"Rate Exceeded: this endpoint runs {self._settings.environments} environments at once.",
            )
        self._in_flight[name] += 1

    def _leave(self, name: str) -> None:
        self._in_flight[name] -= 1
        if not self._in_flight[name]:
            del self._in_flight[name]

    def _borrow(self, configuration: Configuration) -> Environment:
        """An environment of this version: the one that rested last, or a new one."""
        while idle := self._idle.get(configuration.revision):
            environment = idle[-1]
            if environment.waiting:
                self._wake(environment)
                return environment
            self._drop(environment)  # its process has just ended
        while self._resting and len(self._all) >= self._settings.environments:
            self._drop(next(iter(self._resting)))
        environment = Environment(configuration, self._host, self._drop)
        self._all.add(environment)
        self.started += 1
        self.most = max(self.most, len(self._all))
        return environment

    def _give_back(self, environment: Environment) -> None:
        """Keeps it for the next invocation, unless it is dead or its version is no more."""
        if environment.dead or self._closed or not self._current(environment.configuration):
            self._drop(environment)
            return
        self._idle.setdefault(environment.configuration.revision, []).append(environment)
        loop = asyncio.get_running_loop()
        self._resting[environment] = loop.call_later(self._settings.keep_alive_s, self._drop, environment)

    def _wake(self, environment: Environment) -> None:
        """It is idle no more."""
        self._resting.pop(environment).cancel()
        idle = self._idle[environment.configuration.revision]
        idle.remove(environment)
        if not idle:
            del self._idle[environment.configuration.revision]

    def _current(self, configuration: Configuration) -> bool:
        return any(
            each is configuration
            for function in self._registry
            if function.latest.name == configuration.name
            for each in function.all()
        )

    def _drop(self, environment: Environment) -> None:
        """Takes an environment out and ends it."""
        if environment in self._resting:
            self._wake(environment)
        if environment in self._all:
            self._all.remove(environment)
            task = asyncio.create_task(environment.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
