"""Speed of the local Lambda endpoint: `python experiments/bench/endpoint.py`.

A warm invocation through boto3 is timed in turns with boto3's own share: the same client against a server
that answers at once and does nothing. The overhead is the difference. Then as many environments as the
endpoint allows run at once. Prints one line per measurement, and with `--json` an object instead.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import boto3
import tyro
from botocore.config import Config

from siren.platforms.endpoint.client import LocalEndpoint
from siren.platforms.endpoint.settings import RUNTIME, VCPU_MB
from siren.testing.lambda_target import zipped

FUNCTION = """
import os, time

def handler(event, context):
    time.sleep(event.get("s", 0))
    return os.getpid()
"""
TARGET_MS = 3.0


@dataclass(frozen=True)
class BenchConfig:
    """Measure warm invocations, cold starts and how many environments run at once."""

    invocations: int = 500
    """Warm invocations, one after the other."""

    environments: int = 200
    """Environments that run at once."""

    sleep_s: float = 30.0
    """How long each of them sleeps the first time: longer than all of them take to start."""

    options: tuple[str, ...] = ()
    """Further options of the endpoint, e.g. --no-cgroups."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object."""


class Nothing(BaseHTTPRequestHandler):
    """Answers every request at once, with an answer as long as an invocation's."""

    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True

    def do_POST(self) -> None:
        """An empty invocation."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.send_header("X-Amz-Log-Result", "A" * 400)
        self.end_headers()
        self.wfile.write(b"12345")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def empty_server() -> Iterator[str]:
    """Its url."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def client_of(url: str, access_key: str, secret_key: str, connections: int = 1):
    """A client that asks once."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=900, max_pool_connections=connections)
    return boto3.client(
        "lambda",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=config,
    )


def milliseconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def warm(endpoint: LocalEndpoint, client, invocations: int) -> dict[str, float]:
    """Invocations of a warm environment, in turns with a server that does nothing."""

    def invoke(one) -> bytes:
        return one.invoke(FunctionName="bench", Payload=b"{}", LogType="Tail")["Payload"].read()

    invoke(client)
    with empty_server() as url:
        other = client_of(url, endpoint.credentials.access_key, endpoint.credentials.secret_key)
        invoke(other)
        used = cpu_s(endpoint.child.pid)
        pairs = [
            (milliseconds(lambda: invoke(client)), milliseconds(lambda: invoke(other)))
            for _ in range(invocations)
        ]
        used = cpu_s(endpoint.child.pid) - used
        other.close()
    ours, theirs = zip(*pairs, strict=True)
    return {
        "warm invocation, ms, median": statistics.median(ours),
        "warm invocation, ms, fastest tenth": statistics.quantiles(ours, n=10)[0],
        "of that boto3 against a server that does nothing, ms, median": statistics.median(theirs),
        "of that boto3, ms, fastest tenth": statistics.quantiles(theirs, n=10)[0],
        f"overhead, ms, median (target {TARGET_MS:g})": statistics.median(ours) - statistics.median(theirs),
        "CPU of the endpoint, ms an invocation": used / invocations * 1e3,
    }


def at_once(endpoint: LocalEndpoint, client, environments: int, sleep_s: float) -> dict[str, float]:
    """Environments that run at once, cold and then warm."""

    def invoke(seconds: float) -> int:
        payload = json.dumps({"s": seconds}).encode()
        return int(client.invoke(FunctionName="bench", Payload=payload)["Payload"].read())

    found = {}
    with ThreadPoolExecutor(environments) as threads:
        for name, seconds in (("cold", sleep_s), ("warm", 1.0)):
            start = time.perf_counter()
            pids = set(threads.map(invoke, [seconds] * environments))
            found[f"{name}: environments at once"] = float(len(pids))
            found[f"{name}: seconds beyond the functions' own"] = time.perf_counter() - start - seconds
    found["environments at most"] = float(endpoint.about()["most"])
    start = time.perf_counter()
    endpoint.stop()
    found["seconds to end them all"] = time.perf_counter() - start
    return found


def main(config: BenchConfig) -> int:
    """Runs every benchmark; returns the exit code."""
    count = str(config.environments)
    with LocalEndpoint(options=("--environments", count, *config.options)) as endpoint:
        own = endpoint.credentials
        client = client_of(endpoint.url, own.access_key, own.secret_key, config.environments)
        client.create_function(
            FunctionName="bench",
            Runtime=RUNTIME,
            Role="arn:aws:iam::000000000000:role/bench",
            Handler="app.handler",
            MemorySize=VCPU_MB,
            Timeout=900,
            Code={"ZipFile": zipped(FUNCTION)},
        )
        confinement = endpoint.about()["confinement"]
        found = warm(endpoint, client, config.invocations)
        found |= at_once(endpoint, client, config.environments, config.sleep_s)
        client.close()
    if config.as_json:
        sys.stdout.write(json.dumps({"confinement": confinement, **found}, indent=2) + "\n")
        return 0
    sys.stdout.write(f"confinement: {', '.join(f'{key} by {value}' for key, value in confinement.items())}\n")
    for name, value in found.items():
        sys.stdout.write(f"{name:62s} {value:10.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(BenchConfig)))
