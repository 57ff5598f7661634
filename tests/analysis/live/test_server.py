"""The server: read only, for this machine alone, and nothing but runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal

import httpx
import pytest
import uvicorn

from siren.analysis.live import server
from siren.analysis.live.listing import Runs
from siren.analysis.run_folder import EVENTS
from siren.errors import MissingExtraError, UsageError
from tests.analysis import samples
from tests.analysis.page import folders

RECORDS = samples.epochs(5)


@pytest.fixture
def root(tmp_path):
    folders.ended(tmp_path / "runs" / "a-old", RECORDS)
    folder = folders.begun(tmp_path / "runs" / "b-new")
    folders.hold(folder)
    folders.run_epochs(folder, RECORDS[:2])
    (tmp_path / "runs" / "no-run").mkdir()
    (tmp_path / "secret.json").write_text("secret")
    folders.ended(tmp_path / "elsewhere", RECORDS)
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "runs"


@contextlib.contextmanager
def served(runs: Runs) -> Iterator[str]:
    """A server in a thread, as `serve` makes it, and its address."""
    app = server.make_app(runs, lambda: running.should_exit)
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=2)
    running = uvicorn.Server(config)
    with server.listen(0) as listening:
        thread = threading.Thread(target=running.run, args=([listening],))
        thread.start()
        try:
            yield f"http://{server.HOST}:{listening.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()


@pytest.fixture
def client(root):
    with served(Runs(root)) as address, httpx.Client(base_url=address) as client:
        yield client


def documents(lines) -> Iterator[dict]:
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def embedded(text: str) -> dict:
    return json.loads(text.partition('id="document">')[2].partition("</script>")[0])


def test_the_list_has_every_run_the_latest_first(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    listed = embedded(answer.text)["runs"]
    assert [run["name"] for run in listed] == ["b-new", "a-old"]
    assert [run["state"]["text"] for run in listed] == ["running", "target reached"]
    facts = {fact["name"]: fact for fact in listed[0]["facts"]}
    assert facts["epochs"]["value"] == "2"
    assert facts["loss"]["value"] == f"{RECORDS[1].status.report.loss:.4f}"
    assert facts["spent"]["note"] == "of $2.00"


def test_a_damaged_run_does_not_take_the_list_away(root, client):
    (root / "a-old" / EVENTS).write_text("no json\n")
    listed = embedded(client.get("/").text)["runs"]
    assert listed[1]["state"] == {"tone": "bad", "text": "cannot be read"}
    assert client.get("/runs/a-old/").status_code == 500
    assert "line 1" in client.get("/runs/a-old/").text


def test_a_runs_page_is_its_report(root, client):
    document = embedded(client.get("/runs/a-old/").text)
    assert document["kind"] == "run"
    assert document["state"]["text"] == "target reached"


@pytest.mark.parametrize(
    "path",
    [
        "/runs/none/",
        "/runs/no-run/",
        "/runs/link/",
        "/runs/../secret.json",
        "/runs/..%2f..%2fsecret.json/",
        "/runs/%2e%2e/",
        "/runs/a-old%2f..%2f..%2felsewhere/",
        "/runs/a-old/config.json",
        "/runs/a-old/events.jsonl",
        "/secret.json",
        "//etc/passwd",
    ],
)
def test_nothing_but_runs_can_be_had(client, path):
    # A client that sends the path as it stands: others tidy it up.
    raw = http.client.HTTPConnection(client.base_url.host, client.base_url.port)
    with contextlib.closing(raw):
        raw.request("GET", path)
        answer = raw.getresponse()
        assert answer.status == 404
        assert b"secret" not in answer.read()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/runs/a-old/", "/events"])
def test_nothing_can_be_changed(client, method, path):
    assert client.request(method, path).status_code == 405


def test_a_name_that_is_not_this_machine_is_refused(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"host": "localhost:8765"}).status_code == 200


def test_one_run_may_be_served_alone(root):
    with served(Runs(root / "a-old")) as address, httpx.Client(base_url=address) as client:
        assert client.get("/").headers["location"] == "/runs/a-old/"
        assert client.get("/runs/a-old/").status_code == 200
        assert client.get("/runs/b-new/").status_code == 404


def test_a_stream_tells_each_epoch_as_it_ends(root):
    folder = folders.RunFolder.open(root / "b-new")
    with served(Runs(root)) as address, httpx.stream("GET", f"{address}/runs/b-new/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = documents(answer.iter_lines())
        assert len(next(told)["decisions"][0]["decisions"]) == 2
        folders.run_epochs(folder, RECORDS[2:3])
        newest = next(d for d in told if len(d["decisions"][0]["decisions"]) == 3)
        assert f"loss is {RECORDS[2].status.report.loss:.4f}" in newest["lede"]
        folders.reserve(folder, 4, Decimal("0.25"))
        assert "Epoch 4 is running" in next(d for d in told if "Epoch 4" in d["lede"])["lede"]


def test_the_list_streams_new_runs(root):
    with served(Runs(root)) as address, httpx.stream("GET", f"{address}/events") as answer:
        told = documents(answer.iter_lines())
        assert len(next(told)["runs"]) == 2
        folders.begun(root / "c-newest")
        assert "c-newest" in [run["name"] for run in next(d for d in told if len(d["runs"]) == 3)["runs"]]


def test_only_this_machine_is_listened_to():
    with server.listen(0) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(UsageError, match=f"port {port} cannot be had"):
            server.listen(port)
    with pytest.raises(UsageError, match="port 70000"):
        server.listen(70000)


def test_a_missing_extra_says_what_to_install(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with socket.socket() as unused, pytest.raises(MissingExtraError, match=r"\[dash\]"):
        server.serve(Runs(root), unused)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(MissingExtraError, match="starlette is not installed"):
        server.make_app(Runs(root))
