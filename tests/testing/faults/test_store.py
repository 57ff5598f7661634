"""The proxy that fails does to a request what its fault says, and to no other."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from siren.testing.faults.store import KINDS, FaultyStore, StoreFault

STORED = b"0123456789"


class Upstream(BaseHTTPRequestHandler):
    """Answers every request with `STORED`, and keeps what came."""

    asked: list[tuple[str, str, bytes]]

    def log_message(self, format, *args):
        pass

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.command, self.path, body))
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(STORED)))
        self.send_header("ETag", "tag")
        self.send_header("x-amz-checksum-crc32", "sum")
        self.end_headers()
        self.wfile.write(STORED)

    do_GET = do_PUT = _serve


@pytest.fixture(scope="module")
def store() -> Iterator[FaultyStore]:
    Upstream.asked = []
    server = HTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    with FaultyStore(f"http://127.0.0.1:{server.server_port}") as store:
        yield store
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def calm(store) -> Iterator[None]:
    Upstream.asked.clear()
    yield
    store.clear()


def ask(store: FaultyStore, method: str = "GET", path: str = "/b/key", body: bytes = b""):
    """(status, body, headers) of an answer."""
    connection = http.client.HTTPConnection(store.url.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def test_requests_pass_where_there_is_no_fault(store):
    store.inject(StoreFault("503", key="/other"))
    status, body, headers = ask(store, "PUT", body=b"new")
    assert (status, body, headers["ETag"], headers["x-amz-checksum-crc32"]) == (200, STORED, "tag", "sum")
    assert Upstream.asked == [("PUT", "/b/key", b"new")]


@pytest.mark.parametrize(
    ("kind", "status", "code"), [("503", 503, b"SlowDown"), ("500", 500, b"InternalError")]
)
def test_a_request_is_refused_and_not_carried_out(store, kind, status, code):
    store.inject(StoreFault(kind))
    found, body, _ = ask(store, "PUT")
    assert found == status
    assert code in body
    assert Upstream.asked == []


@pytest.mark.parametrize(("kind", "carried_out"), [("reset", 0), ("reset done", 1)])
def test_a_connection_breaks(store, kind, carried_out):
    store.inject(StoreFault(kind))
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        ask(store, "PUT")
    assert len(Upstream.asked) == carried_out


def test_a_request_is_carried_out_and_said_to_have_failed(store):
    store.inject(StoreFault("500 done"))
    assert ask(store, "PUT", body=b"new")[0] == 500
    assert Upstream.asked == [("PUT", "/b/key", b"new")]


def test_an_answer_breaks_off(store):
    store.inject(StoreFault("cut"))
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        ask(store)
    assert len(Upstream.asked) == 1


@pytest.mark.parametrize(("kind", "checksum"), [("changed", "sum"), ("other", None)])
def test_an_answer_is_another_with_or_without_the_checksum_of_the_right_one(store, kind, checksum):
    store.inject(StoreFault(kind, body=lambda body: body[::-1]))
    status, body, headers = ask(store)
    assert (status, body, headers["x-amz-checksum-crc32"]) == (200, STORED[::-1], checksum)


def test_an_answer_is_late(store, monkeypatch):
    waited = []
    monkeypatch.setattr("siren.testing.faults.store.time.sleep", waited.append)
    store.inject(StoreFault("slow", delay_s=7.0))
    assert ask(store)[:2] == (200, STORED)
    assert waited == [7.0]


def test_a_fault_of_the_store_befalls_what_it_is_to():
    fault = StoreFault("503", method="PUT", key="/epochs/", every=2, count=2)
    asked = [("GET", "/b/epochs/1"), ("PUT", "/b/data/1"), *[("PUT", "/b/epochs/1")] * 7]
    assert [fault.happens(*each) for each in asked] == [False, False, False, True, False, True, *[False] * 3]
    assert fault.injected == 2


def test_an_unknown_kind_is_refused():
    assert all(StoreFault(kind).kind == kind for kind in KINDS)
    with pytest.raises(AssertionError):
        StoreFault("404")
