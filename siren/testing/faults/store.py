"""An S3 server that fails as it is told: a proxy on 127.0.0.1 in front of a real one."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

HOST = "127.0.0.1"
KINDS = ("503", "500", "500 done", "reset", "reset done", "cut", "changed", "other", "slow")
_ERRORS = {"503": ("SlowDown", "Please reduce your request rate."), "500": ("InternalError", "We failed.")}
_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}
"""Headers between neighbours (RFC 9110, 7.6.1), which are not passed on; SigV4 does not sign them."""
_UPSTREAM_S = 60.0


@dataclass
class StoreFault:
    """What happens to some requests.

    Attributes:
        kind: `503` and `500` refuse them, `reset` breaks the connection; with ` done` the request is carried
            out first. `cut` breaks off in the middle of an answer's body, `slow` answers `delay_s` later.
            `changed` answers with the body that `body` makes of the right one; `other` does so too, as if
            it had been stored: without the checksum of the right one.
        method: Only these, e.g. `PUT`; empty for all.
        key: Only where this pattern is found in the path.
        every: To each so-many-th of them.
        count: To how many it happens at most.
        delay_s: See `kind`.
        body: See `kind`.
        met: Requests that it looked at.
        injected: To how many it has happened.
    """

    kind: str
    method: str = ""
    key: str = ""
    every: int = 1
    count: int = 1 << 30
    delay_s: float = 0.0
    body: Callable[[bytes], bytes] = bytes
    met: int = 0
    injected: int = 0

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind

    def happens(self, method: str, path: str) -> bool:
        """Whether it happens to this request, which is counted."""
        if self.method not in ("", method) or not re.search(self.key, path):
            return False
        self.met += 1
        if self.met % self.every or self.injected >= self.count:
            return False
        self.injected += 1
        return True


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FaultyStore:
    """Passes requests on to an S3 server, except those that a fault befalls.

    Args:
        upstream: URL of the server.

    Attributes:
        url: Its own.
        seen: Requests that came, by method.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.seen: Counter[str] = Counter()
        self._faults: list[StoreFault] = []
        self._lock = threading.Lock()
        self._server = _Server((HOST, 0), self)
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def inject(self, fault: StoreFault) -> StoreFault:
        """Lets a fault happen from now on; the same, to see how often it did."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Lets no more happen."""
        with self._lock:
            self._faults.clear()

    def fault_of(self, method: str, path: str) -> StoreFault | None:
        """What befalls a request, which is counted."""
        with self._lock:
            self.seen[method] += 1
            return next((fault for fault in self._faults if fault.happens(method, path)), None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], store: FaultyStore) -> None:
        self.store = store
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a client that goes away is nobody's error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _serve(self) -> None:
        store = self.server.store
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = store.fault_of(self.command, self.path)
        if fault is None:
            return self._answer(self._ask(body))
        kind, _, done = fault.kind.partition(" ")
        if kind in _ERRORS:
            if done:
                self._ask(body)
            return self._answer(_refusal(kind))
        if kind == "reset":
            if done:
                self._ask(body)
            return self._break()
        time.sleep(fault.delay_s)
        found = self._ask(body)
        if kind in ("changed", "other"):
            found = found._replace(body=fault.body(found.body))
        if kind == "other":
            found = found._replace(headers=[each for each in found.headers if not _is_checksum(each[0])])
        return self._answer(found, cut=kind == "cut")

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def _ask(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection(self.server.store.upstream, timeout=_UPSTREAM_S)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def _answer(self, answer: Answer, *, cut: bool = False) -> None:
        bare = self.command == "HEAD" or answer.status in (204, 304)
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in _HOP and (bare or name.lower() != "content-length"):
                self.send_header(name, value)
        if not bare:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if cut:
            self.wfile.write(answer.body[: len(answer.body) // 2])
            return self._break()
        if not bare:
            self.wfile.write(answer.body)
        return None

    def _break(self) -> None:
        """Breaks the connection with a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


def _is_checksum(name: str) -> bool:
    return name.lower().startswith("x-amz-checksum-")


def _refusal(kind: str) -> Answer:
    code, message = _ERRORS[kind]
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return Answer(int(kind), [("Content-Type", "application/xml")], body)
