"""One execution environment: a process of `awslambdaric`, and the Runtime API that it talks to."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from aiohttp import web

from siren.platforms.endpoint import sweep
from siren.platforms.endpoint.configuration import Configuration
from siren.platforms.endpoint.confinement import Group, Hierarchy, vcpus
from siren.platforms.endpoint.governor import Governor
from siren.platforms.endpoint.invocation import Call, Mishap, Outcome, error_payload, how_it_ended
from siren.platforms.endpoint.logs import Report, round_ms, used_mb
from siren.platforms.endpoint.process import Confined
from siren.platforms.endpoint.settings import LOG_TAIL_BYTES, Settings

RUNTIME_API = "/2018-06-01/runtime"
# As Lambda's error message has it: 6 MB and 100 bytes.
RESPONSE_BYTES = 6_291_556
# Environments are frozen for as long as they are kept: their connections must last.
KEEP_CONNECTION_S = 24 * 3600.0
INIT_VCPUS = 1.0
"""Init takes the same time at 128 and at 1,024 MB, so it has at least one vCPU
(maxday/lambda-perf, daily data of 2026-03-24 to 2026-08-22: within 4%)."""
_REMOVE_STEP_S = 0.005


class Phase(Enum):
    """How a wait for the runtime ends."""

    READY = auto()
    EXITED = auto()
    TIMED_OUT = auto()


@dataclass(frozen=True)
class Host:
    """What all environments of an endpoint share.

    Attributes:
        settings: Of the endpoint.
        hierarchies: Where cgroups are made.
        governor: Enforces what they do not.
        logs, temporary: Folders.
        starts: How many may be in their init phase at once: on AWS each has a machine for that, here
            many at once would all run out of time.
    """

    settings: Settings
    hierarchies: dict[str, Hierarchy]
    governor: Governor
    logs: Path
    temporary: Path
    starts: asyncio.Semaphore


class Environment:
    """Runs one invocation at a time of one version of a function.

    Args:
        configuration: The version.
        host: Of the endpoint.
        on_death: Called once when it can run no more.
    """

    def __init__(
        self, configuration: Configuration, host: Host, on_death: Callable[[Environment], None]
    ) -> None:
        self.configuration, self.id = configuration, uuid.uuid4().hex
        self.dead = False
        self._host, self._on_death = host, on_death
        self._loop = asyncio.get_running_loop()
        self._group = Group(host.hierarchies, f"env-{self.id}", configuration.memory_mb)
        self._folder = host.temporary / self.id
        self._folder.mkdir(parents=True)
        log_folder = host.logs / configuration.name
        log_folder.mkdir(parents=True, exist_ok=True)
        self._log_file = (log_folder / f"{configuration.version}-{self.id}.log").open("ab", buffering=0)
        self._tail = bytearray()
        self._process: Confined | None = None
        self._api: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._phase: asyncio.Future[Phase] | None = None
        self._parked: asyncio.Future[Call] | None = None
        self._deadline_ms = 0
        self._call: Call | None = None
        self._answer: tuple[bytes, bool] | None = None
        self._init_error: tuple[bytes, str] | None = None
        self._out_of_memory = False
        self._ending = False
        self._peak_mb = 0

    async def invoke(self, call: Call) -> Outcome:
        """Runs an invocation from its start to its REPORT line. The caller sees to it that it is alone."""
        configuration, log = self.configuration, self.configuration.log
        init_s, init_failed = None, False
        if self._process is None:
            init_s, init_failed = await self._init()
        self._write(log.start(call.request_id, configuration.version))
        began = self._loop.time()
        deadline = began + configuration.timeout_s
        phase = Phase.READY
        if init_failed:
            phase = await self._start_process(deadline)
        initialised = phase is Phase.READY
        if initialised:
            phase = await self._deliver(call, deadline)
        duration_s = min(self._loop.time() - began, float(configuration.timeout_s))
        if phase is Phase.TIMED_OUT:
            duration_s = float(configuration.timeout_s)
        return await self._conclude(call, phase, initialised, duration_s, init_s, init_failed)

    async def close(self) -> None:
        """Ends it and removes what it had."""
        self._die()
        await self._end_process()
        while not self._group.remove():
            self._group.kill()
            await asyncio.sleep(_REMOVE_STEP_S)
        self._log_file.close()
        await self._loop.run_in_executor(None, shutil.rmtree, self._folder, True)

    @property
    def waiting(self) -> bool:
        """Whether its process waits for an event."""
        return self._parked is not None and not self._parked.done()

    def kill(self) -> None:
        """Ends its process; an invocation under way fails."""
        if self._process:
            self._process.kill()

    # --- the phases of a process's life ------------------------------------------------------

    async def _init(self) -> tuple[float, bool]:
        """The init phase: its seconds, and whether it failed."""
        limit_s = self._host.settings.init_limit_s
        self._write(self.configuration.log.init_start(self.configuration.runtime))
        async with self._host.starts:
            began = self._loop.time()
            phase = await self._start_process(began + limit_s)
            init_s = min(self._loop.time() - began, limit_s)
        if phase is Phase.READY:
            return init_s, False
        status, error = "timeout", None
        if phase is Phase.EXITED:
            status, error = "error", self._init_error[1] if self._init_error else "Runtime.ExitError"
        self._write(self.configuration.log.init_report(round_ms(init_s), "init", status, error))
        return init_s, True

    async def _start_process(self, deadline: float) -> Phase:
        """Starts the runtime and waits until it asks for an event."""
        await self._end_process()
        # Of each process its own: a request of one that was killed may still be on its way.
        self._api = web.Server(
            self._serve, access_log=None, keepalive_timeout=KEEP_CONNECTION_S, handler_cancellation=True
        )
        self._listener = await self._loop.create_server(self._api, "127.0.0.1", 0)
        self._init_error, self._out_of_memory = None, False
        share = vcpus(self.configuration.memory_mb)
        self._process = Confined(
            [sys.executable, "-m", "awslambdaric", self.configuration.handler],
            self._variables(),
            self.configuration.code.folder,
            self._group,
            self._host.governor,
            self.configuration.memory_mb,
            max(INIT_VCPUS, share),
            self._hear,
            lambda: self._tell(Phase.EXITED),
        )
        phase = await self._expect(deadline)
        if phase is Phase.READY:
            self._process.share(share)
        return phase

    async def _deliver(self, call: Call, deadline: float) -> Phase:
        """Hands the event to the runtime and waits until it asks for the next one."""
        assert self._process is not None
        assert self._parked is not None
        self._call, self._answer = call, None
        left_s = deadline - self._loop.time()
        self._deadline_ms = round((time.time() + left_s) * 1e3)
        timer = None
        if call.mishap:
            timer = self._loop.call_later(call.mishap.after_s, self._befall, call.mishap)
        self._process.wake()
        self._parked.set_result(call)
        phase = await self._expect(deadline)
        self._call = None
        if timer:
            timer.cancel()
        return phase

    async def _expect(self, deadline: float) -> Phase:
        self._phase = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._tell, Phase.TIMED_OUT)
        try:
            return await self._phase
        finally:
            timer.cancel()
            self._phase = None

    def _tell(self, phase: Phase) -> None:
        if self._phase and not self._phase.done():
            self._phase.set_result(phase)
        elif phase is Phase.EXITED and not self._ending:
            self._die()

    def _befall(self, mishap: Mishap) -> None:
        self._out_of_memory = mishap.out_of_memory
        self.kill()

    async def _end_process(self) -> None:
        if self._process is None:
            return
        process, self._ending = self._process, True
        while not process.ended.done():
            process.kill()
            await asyncio.wait([process.ended], timeout=_REMOVE_STEP_S * 20)
        while not self._group.kill():
            await asyncio.sleep(_REMOVE_STEP_S)
        process.close()
        if self._listener and self._api:
            self._listener.close()
            await self._api.shutdown(_REMOVE_STEP_S)  # 0 would be for ever
        self._ending = False

    def _die(self) -> None:
        if not self.dead:
            self.dead = True
            self._on_death(self)

    # --- how an invocation ends --------------------------------------------------------------

    async def _conclude(
        self,
        call: Call,
        phase: Phase,
        initialised: bool,
        duration_s: float,
        init_s: float | None,
        init_failed: bool,
    ) -> Outcome:
        assert self._process is not None
        status, error_type = "success", None
        answer = self._answer if initialised else None
        self._answer = None
        self._process.drain()
        if phase is Phase.READY and answer is not None:
            self._process.rest()
            payload, failed = answer
            status = "failure" if failed else "success"
        else:
            await self._end_process()
            payload, failed, status, error_type = self._failure(call, phase, initialised, answer)
        report = Report(
            call.request_id,
            round_ms(duration_s),
            None if init_s is None else round_ms(init_s),
            self.configuration.memory_mb,
            self._used_mb(),
            status,
            error_type,
            init_failed,
        )
        self._write(self.configuration.log.end(report))
        log = bytes(self._tail[-LOG_TAIL_BYTES:])
        self._tail.clear()
        if phase is not Phase.READY or answer is None:
            self._die()
        return Outcome(payload, failed, log, report)

    def _failure(
        self, call: Call, phase: Phase, initialised: bool, answer: tuple[bytes, bool] | None
    ) -> tuple[bytes, bool, str, str | None]:
        """Payload, whether it failed, status and error type where the process did not survive."""
        assert self._process is not None
        log = self.configuration.log
        if phase is Phase.TIMED_OUT:
            message = f"Task timed out after {self.configuration.timeout_s:.2f} seconds"
            self._write(log.fault(call.request_id, message))
            return (
                error_payload("Sandbox.Timedout", f"RequestId: {call.request_id} Error: {message}"),
                True,
                "timeout",
                None,
            )
        if not initialised and self._init_error:
            payload, kind = self._init_error
            return payload, True, "error", kind
        self._out_of_memory = self._out_of_memory or self._process.out_of_memory
        kind = "Runtime.OutOfMemory" if self._out_of_memory else "Runtime.ExitError"
        if answer is not None:  # it answered and then ended: what was answered stands
            return *answer, "error", kind
        message = f"RequestId: {call.request_id} Error: {how_it_ended(self._process.code)}"
        self._write(log.fault(call.request_id, f"{message}\nRuntime.ExitError"))
        return error_payload("Runtime.ExitError", message), True, "error", kind

    def _used_mb(self) -> int:
        assert self._process is not None
        memory_mb = self.configuration.memory_mb
        if self._out_of_memory:
            return memory_mb
        peak_bytes = self._process.peak_bytes() or self._group.peak_bytes()
        self._peak_mb = max(self._peak_mb, used_mb(peak_bytes, memory_mb))
        return self._peak_mb

    # --- its log -----------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        # The runtime separates the lines of one record by carriage returns.
        self._write(data.replace(b"\r", b"\n"))

    def _write(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self._log_file.write(data)
        self._tail += data
        if len(self._tail) > 4 * LOG_TAIL_BYTES:
            del self._tail[:-LOG_TAIL_BYTES]

    # --- the Runtime API ---------------------------------------------------------------------

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        route = request.path.removeprefix(RUNTIME_API).strip("/").split("/")
        match request.method, route:
            case "GET", ["invocation", "next"]:
                return await self._next()
            case "POST", ["invocation", request_id, ("response" | "error") as kind]:
                return await self._take_answer(request, request_id, kind == "error")
            case "POST", ["init", "error"]:
                error_type = request.headers.get("Lambda-Runtime-Function-Error-Type", "Runtime.Unknown")
                self._init_error = (await request.content.read(), error_type)
                return _accepted()
        return web.Response(status=404)

    async def _next(self) -> web.Response:
        self._parked = self._loop.create_future()
        self._tell(Phase.READY)
        call = await self._parked
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": call.request_id,
            "Lambda-Runtime-Deadline-Ms": str(self._deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": call.arn,
        }
        if call.client_context:
            headers["Lambda-Runtime-Client-Context"] = call.client_context
        return web.Response(body=call.payload, headers=headers)

    async def _take_answer(self, request: web.BaseRequest, request_id: str, failed: bool) -> web.Response:
        body = await request.content.read()
        if self._call is None or request_id != self._call.request_id:
            return web.json_response({"errorType": "InvalidRequestID"}, status=400)
        if len(body) > RESPONSE_BYTES:
            message = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_BYTES} bytes)."
            self._answer = error_payload("Function.ResponseSizeTooLarge", message), True
            return web.json_response({"errorType": "RequestEntityTooLarge"}, status=413)
        self._answer = body, failed
        return _accepted()

    def _variables(self) -> dict[str, str]:
        """The process's environment (Lambda guide, "Defined runtime environment variables")."""
        assert self._listener is not None
        configuration, settings = self.configuration, self._host.settings
        port = self._listener.sockets[0].getsockname()[1]
        folder = str(configuration.code.folder)
        variables = {
            "HOME": str(self._folder),
            "LANG": "en_US.UTF-8",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
            # Code is read-only on Lambda: what is not compiled in the package is compiled at each start.
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": folder,
            "TMPDIR": str(self._folder),
            "TZ": ":UTC",
            **configuration.variables,
            "AWS_ACCESS_KEY_ID": settings.access_key,
            "AWS_SECRET_ACCESS_KEY": settings.secret_key,
            "AWS_REGION": settings.region,
            "AWS_DEFAULT_REGION": settings.region,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{configuration.runtime}",
            "AWS_LAMBDA_FUNCTION_NAME": configuration.name,
            "AWS_LAMBDA_FUNCTION_VERSION": configuration.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration.memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_FORMAT": configuration.log.name,
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{configuration.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"[{configuration.version}]{self.id}",
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
            "LAMBDA_TASK_ROOT": folder,
            sweep.MARK: str(settings.root),
            "_HANDLER": configuration.handler,
        }
        if settings.session_token:
            variables["AWS_SESSION_TOKEN"] = settings.session_token
        level = configuration.logging.get("ApplicationLogLevel")
        if level:
            variables["AWS_LAMBDA_LOG_LEVEL"] = level
        return variables


def _accepted() -> web.Response:
    return web.json_response({"status": "OK"}, status=202)
