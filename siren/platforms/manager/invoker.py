"""Hundreds of synchronous invocations in flight, on one thread.

boto3 holds a thread for each call. Here botocore writes, validates and signs the requests, as it does inside
boto3, and aiohttp carries them on one event loop. Nothing is ever repeated by
the transport: an invocation that may have run is billed, and only the caller knows if another fits.
`experiments/bench/fan_out.py` measures it against threads.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import json
import re
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from siren.errors import MissingExtraError, PlatformError
from siren.platforms.backend import Backend
from siren.platforms.manager.clients import lambda_client, session
from siren.platforms.manager.report_line import Report, parse_log

if TYPE_CHECKING:
    import aiohttp

CONNECT_S = 10.0
IN_FLIGHT = 2000
"""Connections at once, and with them sockets; a request above that waits for one."""
_NOT_RUN = frozenset({409, 429})
"""Refused before it ran: throttled, or the function is being changed. Neither is billed
(recalled; no page of AWS was read that says so)."""
_SERVER_ERROR = 500
_NOT_READY = frozenset(
    {
        "EC2ThrottledException",
        "EC2UnexpectedException",
        "ENILimitReachedException",
        "ENINotReadyException",
        "ResourceNotReadyException",
        "SubnetIPAddressLimitReachedException",
    }
)
"""HTTP 502 of functions in a VPC whose network could not be set up yet, so that nothing ran (errors of
`Invoke`, AWS Lambda API reference)."""
_MISCONFIGURED = frozenset(
    {
        "EC2AccessDeniedException",
        "InvalidRuntimeException",
        "InvalidSecurityGroupIDException",
        "InvalidSubnetIDException",
        "InvalidZipFileException",
        "KMSAccessDeniedException",
        "KMSDisabledException",
        "KMSInvalidStateException",
        "KMSNotFoundException",
    }
)
"""HTTP 502 of functions that cannot be started as they are configured, however often (same source)."""
_KEEPALIVE_IDLE_S, _KEEPALIVE_EVERY_S = 60, 30
"""A connection says nothing while its function runs, for up to 15 minutes; NAT gateways drop what is idle
for 350 s (Amazon VPC user guide, NAT gateways), and networks may do it sooner."""
_SHOWN = 300
_USER = re.compile(r"//[^/\s]*@")
"""User and password in a URL."""

Result = TypeVar("Result")


class Fate(enum.Enum):
    """What became of an invocation."""

    RETURNED = enum.auto()
    """It ran; also if the function failed."""
    REFUSED = enum.auto()
    """It did not run and is not billed."""
    LOST = enum.auto()
    """It may have run: nobody will tell."""


@dataclass(frozen=True)
class Answer:
    """What came back of an invocation.

    Attributes:
        fate: See `Fate`.
        payload: What the function returned, or its error.
        failed: Whether the function failed.
        report: Its REPORT line, if one came.
        wait_s: Before it is tried again, where AWS says so; else 0.
        throttled: Whether it was refused for its rate or number.
        unreachable: Whether it was refused because no connection to Lambda could be made.
        detail: What went wrong, in one line.
        received_bytes: Its size, headers included.
    """

    fate: Fate
    payload: bytes = b""
    failed: bool = False
    report: Report | None = None
    wait_s: float = 0.0
    throttled: bool = False
    unreachable: bool = False
    detail: str = ""
    received_bytes: int = 0


class Invoker:
    """Invokes functions of a backend on an event loop of its own, in one background thread.

    Args:
        backend: Where the Lambda API is.

    Raises:
        MissingExtraError: aiohttp or boto3 is not installed.
    """

    def __init__(self, backend: Backend) -> None:
        try:
            import aiohttp
        except ImportError as error:
            raise MissingExtraError("aiohttp", backend.name) from error
        self._aiohttp = aiohttp
        self._api = _Api(backend)
        self._proxy = _proxy_of(self._api.endpoint)
        self._session: aiohttp.ClientSession | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="siren-invoker", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine on the loop and waits for it; it is cancelled if this thread is interrupted."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def invoke(
        self, function: str, payload: bytes, *, longest_s: float, on_sent: Callable[[], None] = lambda: None
    ) -> Answer:
        """Invokes a function and waits for what it returns; runs on the loop.

        Args:
            function: ARN of a published version.
            payload: JSON.
            longest_s: Silence after which the answer counts as lost; above the version's timeout.
            on_sent: Called before the request leaves: the function cannot run unless it was.

        Raises:
            PlatformError: The request is wrong, or forbidden; it did not run.
        """
        request = self._api.request(function, payload)
        import yarl

        url = yarl.URL(request.url, encoded=True)  # the signature is of these very characters
        timeout = self._aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=longest_s)
        try:
            async with self._http().post(
                url,
                data=request.body,
                headers=dict(request.headers.items()),
                timeout=timeout,
                proxy=self._proxy,
                allow_redirects=False,  # each would be one more invocation, or none
                trace_request_ctx=on_sent,
            ) as response:
                body = await response.read()
        except (
            self._aiohttp.ClientConnectorError,
            self._aiohttp.ClientHttpProxyError,  # it refused to connect to Lambda
            self._aiohttp.ConnectionTimeoutError,
        ) as error:
            return Answer(Fate.REFUSED, unreachable=True, detail=_said(error))
        except (self._aiohttp.ClientError, OSError, TimeoutError) as error:
            return Answer(Fate.LOST, detail=_said(error))
        headers = dict(response.headers.items())
        received_bytes = len(body) + sum(len(name) + len(value) for name, value in response.raw_headers)
        answer = self._api.answer(function, response.status, headers, body)
        return replace(answer, received_bytes=received_bytes)

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = self._aiohttp.TCPConnector(limit=IN_FLIGHT, socket_factory=_socket)
            trace = self._aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_leaves)
            self._session = self._aiohttp.ClientSession(
                connector=connector, auto_decompress=False, trust_env=False, trace_configs=[trace]
            )
        return self._session

    def close(self) -> None:
        """Drops every connection and ends the thread; may be called more than once."""
        if self._loop.is_closed():
            return
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


class _Api:
    """The Lambda API without its transport: requests that are valid and signed, answers that are read."""

    def __init__(self, backend: Backend) -> None:
        opened = session(backend)
        client = lambda_client(backend, opened)
        from botocore.serialize import create_serializer

        model = client.meta.service_model
        self._operation = model.operation_model("Invoke")
        self._write = create_serializer(model.metadata["protocol"], include_validation=True)
        self.endpoint, self._region = client.meta.endpoint_url, backend.region
        self._credentials = opened.get_credentials()
        self._backend = backend.name
        if self._credentials is None:
            raise PlatformError(
                "no AWS credentials were found: run `aws configure`, or set AWS_PROFILE, and try again"
            )

    def request(self, function: str, payload: bytes) -> Any:
        """A signed request, to be sent now."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import create_request_object, prepare_request_dict
        from botocore.exceptions import ParamValidationError

        parameters = {
            "FunctionName": function,
            "InvocationType": "RequestResponse",
            "LogType": "Tail",
            "Payload": payload,
        }
        try:
            described = self._write.serialize_to_request(parameters, self._operation)
        except ParamValidationError as error:
            raise PlatformError(f"{error}: this is a defect in Siren, please report it") from error
        prepare_request_dict(described, self.endpoint)
        request = create_request_object(described)
        SigV4Auth(self._credentials.get_frozen_credentials(), "lambda", self._region).add_auth(request)
        return request.prepare()

    def answer(self, function: str, status: int, headers: dict[str, str], body: bytes) -> Answer:
        """What an HTTP response means.

        Raises:
            PlatformError: The request is wrong, or forbidden.
        """
        if status < 300:
            return Answer(
                Fate.RETURNED,
                payload=body,
                failed=bool(_header(headers, "x-amz-function-error")),
                report=parse_log(_header(headers, "x-amz-log-result")),
            )
        # Read here, because botocore's parser raises whatever it likes on what a proxy may answer.
        code = _header(headers, "x-amzn-errortype").partition(":")[0]
        said = code, *(_field(body, name) for name in ("Reason", "message", "Message"))
        detail = " ".join(f"HTTP {status} {' '.join(said)}".split())[:_SHOWN]
        if status in _NOT_RUN:
            wait_s = _seconds(_header(headers, "retry-after") or _field(body, "retryAfterSeconds"))
            return Answer(Fate.REFUSED, wait_s=wait_s, throttled=status == 429, detail=detail)
        if code in _NOT_READY:
            return Answer(Fate.REFUSED, detail=detail)
        if status >= _SERVER_ERROR and code not in _MISCONFIGURED:
            return Answer(Fate.LOST, detail=detail)
        if status < 400:
            hint = "Lambda redirects nobody, so see whether a proxy answers in its place"
        elif status == 403:
            hint = "look at its permissions"
        else:
            hint = "deploy it again, or report a defect in Siren"
        raise PlatformError(f"Lambda refuses to invoke {function}: {detail}; {hint}")


async def _leaves(session: aiohttp.ClientSession, context: SimpleNamespace, parameters: object) -> None:
    """aiohttp calls it before it writes the first byte of a request."""
    context.trace_request_ctx()


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an address as `getaddrinfo` describes it, which notices that the connection is gone."""
    family, kind, protocol = address[:3]
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # macOS has its own name for the first.
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)
    every = getattr(socket, "TCP_KEEPINTVL", None)
    for option, seconds in ((idle, _KEEPALIVE_IDLE_S), (every, _KEEPALIVE_EVERY_S)):
        if option is not None:
            opened.setsockopt(socket.IPPROTO_TCP, option, seconds)
    return opened


def _proxy_of(endpoint: str) -> str | None:
    """The proxy that boto3 takes for an endpoint too; None without one, and always for this machine.

    aiohttp's `trust_env` would also read .netrc, whose credentials clash with the signature.
    """
    from botocore.httpsession import ProxyConfiguration
    from botocore.utils import get_environ_proxies

    host = urlsplit(endpoint).hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if here:
        return None
    proxy: str | None = ProxyConfiguration(get_environ_proxies(endpoint)).proxy_url_for(endpoint)
    return proxy


def _field(body: bytes, name: str) -> str:
    """A field of an error's JSON; empty if it is not there."""
    try:
        value = json.loads(body)[name]
    except (ValueError, KeyError, TypeError):
        return ""
    return value if isinstance(value, str) else ""


def _header(headers: dict[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name), "")


def _seconds(text: object) -> float:
    try:
        return max(0.0, float(str(text)))
    except ValueError:
        return 0.0


def _said(error: BaseException) -> str:
    """What an error says, in one line, without the password of a proxy whose URL it names."""
    return _USER.sub("//", f"{type(error).__name__} {error}".strip())[:_SHOWN]
