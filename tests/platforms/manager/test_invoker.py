"""Invocations over HTTP: what is sent is what boto3 sends, and every answer means one of three things."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import boto3
import pytest
from aiohttp import web
from botocore.config import Config

from siren.errors import PlatformError
from siren.platforms.backend import Backend
from siren.platforms.manager.clients import lambda_client, session
from siren.platforms.manager.invoker import Fate, Invoker
from siren.platforms.processes import free_ports

ARN = "arn:aws:lambda:us-east-1:000000000000:function:worker:7"
REPORT = (
    "REPORT RequestId: 1-2\tDuration: 2.32 ms\tBilled Duration: 3 ms\tMemory Size: 128 MB\t"
    "Max Memory Used: 40 MB\t\n"
)
LOG = base64.b64encode(REPORT.encode()).decode()


class Server:
    """A server that answers every request in the same way and keeps what was asked."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.reset()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def reset(self) -> None:
        self.status, self.headers, self.body = 200, {}, b"{}"
        self.drop, self.wait_s = False, 0.0
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.at_once = self.most = 0

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests.append((request.raw_path, dict(request.headers), await request.read()))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(self.wait_s)
        self.at_once -= 1
        if self.drop:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=self.status, headers=self.headers, body=self.body)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(running) -> Server:
    running.reset()
    return running


@pytest.fixture(scope="module")
def backend(running) -> Backend:
    url = f"http://127.0.0.1:{running.port}"
    return Backend("local", "us-east-1", "b", "worker", url, None, None, ("AK", "SK", ""), "", "x", False)


@pytest.fixture(scope="module")
def invoker(backend) -> Iterator[Invoker]:
    invoker = Invoker(backend)
    yield invoker
    invoker.close()


def invoke(invoker: Invoker, payload: bytes = b"{}", longest_s: float = 5.0):
    return invoker.run(invoker.invoke(ARN, payload, longest_s=longest_s))


def error(server: Server, status: int, code: str, **body: object) -> None:
    server.status, server.body = status, json.dumps({"message": "no", **body}).encode()
    server.headers = {"x-amzn-ErrorType": code}


def test_the_request_is_the_one_of_boto3(server, backend, invoker):
    payload = json.dumps({"rate": 0.1}).encode()
    client = boto3.client(
        "lambda",
        endpoint_url=backend.lambda_url,
        region_name="us-east-1",
        aws_access_key_id="AK",
        aws_secret_access_key="SK",
        config=Config(retries={"total_max_attempts": 1}),
    )
    client.invoke(FunctionName=ARN, InvocationType="RequestResponse", LogType="Tail", Payload=payload)
    client.close()
    invoke(invoker, payload)
    (their_path, theirs, their_body), (path, ours, body) = server.requests
    assert (path, body) == (their_path, their_body)
    for header in ("X-Amz-Log-Type", "X-Amz-Invocation-Type", "Host"):
        assert ours[header] == theirs[header]
    for headers in (ours, theirs):
        assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AK/")
        assert "/us-east-1/lambda/aws4_request" in headers["Authorization"]
    assert "SK" not in str(ours)


def test_what_a_function_returned_comes_with_its_report(server, invoker):
    server.headers, server.body = {"X-Amz-Log-Result": LOG}, b'{"done": true}'
    answer = invoke(invoker)
    assert (answer.fate, answer.failed, answer.payload) == (Fate.RETURNED, False, b'{"done": true}')
    assert answer.report is not None
    assert answer.report.billed_ms == 3


def test_a_function_that_failed_returned_too(server, invoker):
    server.headers = {"X-Amz-Log-Result": LOG, "X-Amz-Function-Error": "Unhandled"}
    server.body = b'{"errorType": "ValueError"}'
    answer = invoke(invoker)
    assert (answer.fate, answer.failed) == (Fate.RETURNED, True)
    assert answer.report is not None


def test_a_throttle_did_not_run_and_says_when_to_come_again(server, invoker):
    error(server, 429, "TooManyRequestsException", Reason="ConcurrentInvocationLimitExceeded")
    server.headers["Retry-After"] = "2"
    answer = invoke(invoker)
    assert (answer.fate, answer.throttled, answer.wait_s) == (Fate.REFUSED, True, 2.0)
    assert "TooManyRequestsException ConcurrentInvocationLimitExceeded" in answer.detail


def test_a_function_that_is_being_changed_did_not_run(server, invoker):
    error(server, 409, "ResourceConflictException")
    answer = invoke(invoker)
    assert (answer.fate, answer.throttled) == (Fate.REFUSED, False)


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "ServiceException"), (502, "BadGateway"), (503, "ServiceUnavailableException")],
)
def test_a_server_error_may_have_run(server, invoker, status, code):
    error(server, status, code)
    answer = invoke(invoker)
    assert answer.fate is Fate.LOST
    assert f"HTTP {status} {code}" in answer.detail
    assert len(server.requests) == 1, "it was sent again"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "InvalidParameterValueException"),
        (400, "InvalidRequestContentException"),
        (403, "AccessDeniedException"),
        (404, "ResourceNotFoundException"),
        (413, "RequestTooLargeException"),
        (415, "UnsupportedMediaTypeException"),
        (502, "InvalidRuntimeException"),
        (502, "KMSDisabledException"),
    ],
)
def test_a_wrong_or_forbidden_request_ends_the_run(server, invoker, status, code):
    error(server, status, code)
    with pytest.raises(PlatformError, match=code):
        invoke(invoker)


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_is_not_followed(server, invoker, status):
    error(server, status, "")
    server.headers = {"Location": "/elsewhere"}
    with pytest.raises(PlatformError, match=f"HTTP {status}.*proxy"):
        invoke(invoker)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "code",
    [
        "EC2ThrottledException",
        "EC2UnexpectedException",
        "ENILimitReachedException",
        "ENINotReadyException",
        "ResourceNotReadyException",
        "SubnetIPAddressLimitReachedException",
    ],
)
def test_a_function_whose_network_is_not_ready_did_not_run(server, invoker, code):
    error(server, 502, code)
    answer = invoke(invoker)
    assert (answer.fate, answer.throttled, answer.unreachable) == (Fate.REFUSED, False, False)
    assert f"HTTP 502 {code}" in answer.detail


def test_every_502_of_lambdas_model_is_known_not_to_have_run(server, invoker, backend):
    errors = (
        lambda_client(backend, session(backend)).meta.service_model.operation_model("Invoke").error_shapes
    )
    codes = [e.name for e in errors if e.metadata.get("error", {}).get("httpStatusCode") == 502]
    assert len(codes) >= 15
    refused = 0
    for code in codes:
        error(server, 502, code)
        with contextlib.suppress(PlatformError):
            assert invoke(invoker).fate is Fate.REFUSED
            refused += 1
    assert 0 < refused < len(codes)


def test_whatever_answers_makes_no_other_error(server, invoker):
    for status, fate in ((200, Fate.RETURNED), (429, Fate.REFUSED), (503, Fate.LOST)):
        for body in (b"\xff\xfe", b"<html>", b"[1, 2]", b"", b'{"Reason": 3}'):
            server.status, server.body, server.headers = status, body, {"X-Amz-Log-Result": "not base64"}
            answer = invoke(invoker)
            assert answer.fate is fate
            assert answer.report is None


def test_an_answer_that_breaks_off_may_have_run(server, invoker):
    server.drop = True
    assert invoke(invoker).fate is Fate.LOST
    assert len(server.requests) == 1, "it was sent again"


def test_silence_beyond_the_timeout_may_have_run(server, invoker):
    server.wait_s = 1.0
    assert invoke(invoker, longest_s=0.2).fate is Fate.LOST
    assert len(server.requests) == 1, "it was sent again"


def test_a_request_is_told_of_before_it_leaves_and_its_answer_is_counted(server, invoker):
    sent: list[int] = []
    server.body, server.headers = b"x" * 5000, {"X-Amz-Log-Result": "y" * 600}
    call = invoker.invoke(ARN, b"{}", longest_s=5.0, on_sent=lambda: sent.append(len(server.requests)))
    assert 5600 < invoker.run(call).received_bytes < 7000
    assert (sent, len(server.requests)) == ([0], 1)
    server.drop = True
    lost = invoker.invoke(ARN, b"{}", longest_s=5.0, on_sent=lambda: sent.append(0))
    assert invoker.run(lost).fate is Fate.LOST
    assert len(sent) == 2


def test_a_connection_that_cannot_be_made_did_not_run(backend):
    (port,) = free_ports(1)
    invoker = Invoker(replace(backend, lambda_url=f"http://127.0.0.1:{port}"))
    sent: list[int] = []
    try:
        answer = invoker.run(invoker.invoke(ARN, b"{}", longest_s=5.0, on_sent=lambda: sent.append(0)))
        assert (answer.fate, answer.unreachable, sent) == (Fate.REFUSED, True, [])
    finally:
        invoker.close()


def test_a_connection_stays_known_to_the_network_while_its_function_runs(server, backend):
    invoker, opened = Invoker(backend), []
    server.wait_s = 0.2

    async def look() -> None:
        call = asyncio.create_task(invoker.invoke(ARN, b"{}", longest_s=5.0))
        while not server.requests:
            await asyncio.sleep(0.01)
        transports = [protocol.transport for protocol in invoker._http().connector._acquired]
        for transport in transports:
            found = transport.get_extra_info("socket")
            opened.append(found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        await call

    try:
        invoker.run(look())
    finally:
        invoker.close()
    assert len(opened) == 1
    assert opened[0] != 0


def test_a_proxy_carries_what_goes_to_aws_and_only_that(server, backend, monkeypatch):
    proxy = f"http://127.0.0.1:{server.port}"
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    (closed,) = free_ports(1)
    for url, asked in (("http://lambda.example:80", 1), (f"http://127.0.0.1:{closed}", 0)):
        server.requests.clear()
        invoker = Invoker(replace(backend, lambda_url=url))
        try:
            assert invoke(invoker).unreachable == (not asked)
        finally:
            invoker.close()
        assert len(server.requests) == asked


def test_a_proxy_that_does_not_connect_did_not_let_it_run(server, backend, monkeypatch):
    server.status = 403
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://user:pass-word@127.0.0.1:{server.port}")
    invoker = Invoker(replace(backend, lambda_url="https://lambda.example"))
    try:
        answer = invoke(invoker)
    finally:
        invoker.close()
    assert (answer.fate, answer.unreachable) == (Fate.REFUSED, True)
    assert f"//127.0.0.1:{server.port}" in answer.detail
    assert "pass-word" not in answer.detail


def test_a_request_that_breaks_lambdas_model_is_not_sent(server, invoker):
    with pytest.raises(PlatformError, match="FunctionName"):
        invoker.run(invoker.invoke("", b"{}", longest_s=1.0))
    assert server.requests == []


def test_hundreds_are_in_flight_without_a_thread_each(server, invoker):
    server.wait_s = 1.0
    before = threading.active_count()

    async def all_at_once() -> list[Fate]:
        calls = (invoker.invoke(ARN, b"{}", longest_s=30.0) for _ in range(300))
        return [answer.fate for answer in await asyncio.gather(*calls)]

    assert invoker.run(all_at_once()) == [Fate.RETURNED] * 300
    assert server.most >= 200
    assert threading.active_count() <= before + 1


def test_an_interrupted_wait_cancels_its_invocations_and_closing_is_repeatable(server, backend):
    invoker = Invoker(backend)
    server.wait_s = 30.0
    cancelled = threading.Event()

    async def wait() -> None:
        try:
            await invoker.invoke(ARN, b"{}", longest_s=60.0)
        finally:
            cancelled.set()

    with pytest.MonkeyPatch.context() as patch:

        def interrupted(*arguments: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("concurrent.futures.Future.result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            invoker.run(wait())
    assert cancelled.wait(5.0)
    server.wait_s = 0.0
    invoker.close()
    invoker.close()


def test_credentials_are_in_no_text_of_a_backend(backend):
    assert "SK" not in repr(backend)
