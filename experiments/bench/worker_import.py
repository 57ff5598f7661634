"""What a cold environment of the worker costs: `python experiments/bench/worker_import.py`.

Every measurement is a fresh interpreter's own CPU time, so it does not depend on what else runs, up to
caches. The handler's ceiling is 250 ms at one vCPU. What Lambda adds before (the interpreter and AWS's
runtime client) is not in it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

PARTS = {
    "numpy": "import numpy",
    "handler, numpy included": "import siren.worker.handler",
    "first S3 client after that: botocore": (
        "import siren.worker.handler",
        "from siren.channels.s3 import s3_client; s3_client('us-east-1', None)",
    ),
    "the same with boto3": ("import siren.worker.handler", "import boto3; boto3.client('s3', 'us-east-1')"),
    "first Redis client after that": (
        "import siren.worker.handler",
        "from siren.channels.redis import redis_client; redis_client('redis://127.0.0.1')",
    ),
}
"""What is timed, after what is not."""


@dataclass(frozen=True)
class BenchConfig:
    """Measure what a cold environment of the worker costs."""

    repeats: int = 7
    """Fresh interpreters for each measurement, in turns; medians are printed."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object."""


def cpu_ms(timed: str, before: str = "") -> float:
    """CPU milliseconds of a statement in a fresh interpreter."""
    code = f"import time\n{before}\nstart = time.process_time()\n{timed}\nprint(time.process_time() - start)"
    environment = os.environ | {
        "OPENBLAS_NUM_THREADS": "1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return 1000 * float(done.stdout)


def main(config: BenchConfig) -> int:
    """Runs the benchmark; returns the exit code."""
    times: dict[str, list[float]] = {name: [] for name in PARTS}
    for _ in range(config.repeats + 1):  # the first one fills the caches
        for name, part in PARTS.items():
            before, timed = part if isinstance(part, tuple) else ("", part)
            times[name].append(cpu_ms(timed, before))
    found = {f"{name}, CPU ms": statistics.median(values[1:]) for name, values in times.items()}
    found["handler / numpy"] = found["handler, numpy included, CPU ms"] / found["numpy, CPU ms"]
    if config.as_json:
        json.dump(found, sys.stdout, indent=2)
        return 0
    for name, value in found.items():
        print(f"{name:48s} {value:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(BenchConfig)))
