"""Fan-out of synchronous invocations: `python experiments/bench/fan_out.py`.

100, 500 and 1,000 invocations of an empty handler over at most 200 warm environments of the local endpoint:
ours (`siren.platforms.manager.invoker`), and boto3 in a pool of threads. Both try throttled invocations again
after the same back-off. They run in turns, because the machine is shared. CPU is that of the client;
the endpoint and 200 environments share the cores with it, so rates are those of the whole machine.

`--lithops PYTHON` names an interpreter that has Lithops (`python -m venv V && V/bin/pip install lithops`),
whose `map` of an empty function is measured too: on its localhost backend, because its invoker of AWS Lambda
(3.8.0) writes https://lambda.<region>.amazonaws.com into every URL and cannot be pointed at another endpoint.
That starts a process of its own for each call and looks for results in files.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import boto3
import tyro
from botocore.config import Config

from siren.platforms.backend import Backend
from siren.platforms.endpoint.client import LocalEndpoint
from siren.platforms.local import ROLE_ARN
from siren.platforms.manager.invoker import Fate, Invoker
from siren.platforms.package import local_target

HANDLER = "def handler(event, context):\n    return {}\n"
BACKOFF_S, BACKOFF_MAX_S = 0.1, 5.0
LONGEST_S = 600
"""Two hundred cold starts take turns on the cores of one machine."""
LITHOPS = """
import json, sys, time
import lithops

def empty(number):
    return number

if __name__ == "__main__":
    settings = {"backend": "localhost", "storage": "localhost", "telemetry": False, "data_cleaner": False}
    executor = lithops.FunctionExecutor(config={"lithops": settings}, log_level="ERROR")
    executor.get_result(executor.map(empty, range(2)))
    for count in json.loads(sys.argv[1]):
        began, cpu = time.perf_counter(), time.process_time()
        assert executor.get_result(executor.map(empty, range(count))) == list(range(count))
        print("\\n" + json.dumps([time.perf_counter() - began, time.process_time() - cpu]), flush=True)
"""
"""Prints [seconds, CPU seconds] of each count, as JSON on a line of its own."""


@dataclass(frozen=True)
class FanOutConfig:
    """Measure how fast invocations leave and return."""

    counts: tuple[int, ...] = (100, 500, 1000)
    """Invocations at once."""

    environments: int = 200
    """Execution environments at most."""

    threads: int = 200
    """Threads and connections of the pool; and what ours has in flight, except where all are at once."""

    repeats: int = 3
    """Of each measurement; medians are printed."""

    lithops: Path | None = None
    """Interpreter of a virtual environment with Lithops, to be measured once beside ours."""

    lithops_counts: tuple[int, ...] = (20, 100)
    """Its calls at once."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Course:
    """How one fan-out went.

    Attributes:
        seconds: Until the last answer.
        cpu_s: CPU of this process.
        throttles: Answers 429.
    """

    seconds: float
    cpu_s: float
    throttles: int


def pause(attempt: int) -> float:
    """Seconds before the next try: full jitter."""
    return random.random() * min(BACKOFF_MAX_S, BACKOFF_S * 2**attempt)


def by_loop(invoker: Invoker, arn: str, count: int, in_flight: int) -> int:
    """Ours; the number of throttles."""
    free = asyncio.Semaphore(in_flight)

    async def one() -> int:
        async with free:
            return await again_until_taken()

    async def again_until_taken() -> int:
        attempt = 0
        while (answer := await invoker.invoke(arn, b"{}", longest_s=LONGEST_S)).fate is Fate.REFUSED:
            await asyncio.sleep(pause(attempt))
            attempt += 1
        assert answer.fate is Fate.RETURNED, answer.detail
        assert not answer.failed
        assert answer.report is not None
        return attempt

    async def every() -> int:
        return sum(await asyncio.gather(*(one() for _ in range(count))))

    return invoker.run(every())


def by_threads(backend: Backend, threads: int, arn: str, count: int) -> int:
    """boto3 with a thread for each call in flight; the number of throttles."""
    assert backend.credentials is not None
    client = boto3.client(
        "lambda",
        endpoint_url=backend.lambda_url,
        region_name=backend.region,
        aws_access_key_id=backend.credentials[0],
        aws_secret_access_key=backend.credentials[1],
        config=Config(
            max_pool_connections=threads, retries={"total_max_attempts": 1}, read_timeout=LONGEST_S
        ),
    )

    def one(_: int) -> int:
        attempt = 0
        while True:
            try:
                answer = client.invoke(FunctionName=arn, LogType="Tail", Payload=b"{}")
            except client.exceptions.TooManyRequestsException:
                time.sleep(pause(attempt))
                attempt += 1
                continue
            answer["Payload"].read()
            assert "FunctionError" not in answer
            return attempt

    with ThreadPoolExecutor(threads) as pool:
        throttles = sum(pool.map(one, range(count)))
    client.close()
    return throttles


def timed(call: Callable[[], int]) -> Course:
    """Runs a fan-out."""
    began, cpu = time.perf_counter(), time.process_time()
    throttles = call()
    return Course(time.perf_counter() - began, time.process_time() - cpu, throttles)


def by_lithops(python: Path, counts: tuple[int, ...]) -> dict[str, float]:
    """Fan-outs of Lithops in a process, a folder and an environment of its own."""
    python = python.absolute()  # not resolved: a link is what makes it a virtual environment's
    with tempfile.TemporaryDirectory(
        ignore_cleanup_errors=True
    ) as folder:  # its last process may still write
        script = Path(folder) / "by_lithops.py"
        script.write_text(LITHOPS, encoding="utf-8")
        path = os.pathsep.join([str(python.parent), os.defpath])  # it runs `python`
        environment = {"PATH": path, "HOME": folder, "TMPDIR": folder}
        command = [str(python), str(script), json.dumps(counts)]
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    courses = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    found: dict[str, float] = {}
    for count, (wall_s, cpu_s) in zip(counts, courses, strict=True):
        found[f"{count:5d} Lithops, localhost, calls a second"] = count / wall_s
        found[f"{count:5d} Lithops, localhost, client CPU seconds"] = cpu_s
    return found


def deploy(backend: Backend) -> str:
    """An empty function; the ARN of its version."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("empty.py", HANDLER)
    assert backend.credentials is not None
    client = boto3.client(
        "lambda",
        endpoint_url=backend.lambda_url,
        region_name=backend.region,
        aws_access_key_id=backend.credentials[0],
        aws_secret_access_key=backend.credentials[1],
    )
    made = client.create_function(
        FunctionName=backend.function_name,
        Runtime=backend.runtime,
        Role=backend.role_arn,
        Handler="empty.handler",
        Code={"ZipFile": packed.getvalue()},
        MemorySize=1769,
        Timeout=LONGEST_S,
        Publish=True,
    )
    client.close()
    return str(made["FunctionArn"])


def main(config: FanOutConfig) -> int:
    """Measures; returns the exit code."""
    found: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalEndpoint(
            log=Path(folder) / "log", options=("--environments", str(config.environments))
        ) as endpoint,
    ):
        keys = endpoint.credentials.access_key, endpoint.credentials.secret_key, ""
        backend = Backend(
            "local",
            "us-east-1",
            "none",
            "empty",
            endpoint.url,
            None,
            None,
            keys,
            ROLE_ARN,
            local_target().runtime,
            False,
        )
        arn = deploy(backend)
        if ":" not in arn.rpartition("function:")[2]:
            arn = f"{arn}:1"
        invoker = Invoker(backend)
        cold = timed(lambda: by_loop(invoker, arn, config.environments, config.environments))
        found[f"first {config.environments}, cold, seconds"] = cold.seconds
        ways = {
            "asyncio": lambda count: by_loop(invoker, arn, count, config.threads),
            "asyncio, all at once": lambda count: by_loop(invoker, arn, count, count),
            "threads": lambda count: by_threads(backend, config.threads, arn, count),
        }
        for count in config.counts:
            courses: dict[str, list[Course]] = {way: [] for way in ways}
            for _ in range(config.repeats):
                for way, call in ways.items():
                    courses[way].append(timed(lambda c=call, n=count: c(n)))
            for way, each in courses.items():
                rate = statistics.median(count / course.seconds for course in each)
                found[f"{count:5d} {way}, invocations a second"] = rate
                found[f"{count:5d} {way}, client CPU seconds"] = statistics.median(c.cpu_s for c in each)
                found[f"{count:5d} {way}, 429s"] = statistics.median(c.throttles for c in each)
        invoker.close()
    if config.lithops:
        found |= by_lithops(config.lithops, config.lithops_counts)
    if config.as_json:
        json.dump(found, sys.stdout, indent=2)
        return 0
    for name, value in found.items():
        print(f"{name:45s} {value:12,.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(FanOutConfig)))
