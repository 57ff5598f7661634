"""Measures what workloads cost to compute, and how plain and delayed SGD train them.

    python experiments/calibrate_workloads.py                       # [cost] sections, all workloads
    python experiments/calibrate_workloads.py mlp-mnist --train     # and loss curves at delay 0 and 20

Times are CPU seconds of one thread, so that other programs on the machine disturb them little.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import deque
from datetime import UTC, datetime

import numpy as np
from threadpoolctl import threadpool_limits

from siren.workloads.registry import load_workload, workload_names
from siren.workloads.workload import Workload

WORKER_PACKAGES = {"numpy": "numpy", "torch": "torch"}
PACKAGE_MB = {
    "numpy": 48,
    "torch": 755,
}  # unzipped: numpy 2.4.6 without tests and headers; torch 2.13.0 CPU
IMPORT = """
import time
start = time.perf_counter()
import {package}, boto3
boto3.client("s3", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none")
seconds = time.perf_counter() - start
status = open("/proc/self/status").read()  # not ru_maxrss, which remembers the parent's memory
print(seconds, status.partition("VmHWM:")[2].split()[0])
"""


def cpu_seconds(call, repeats: int, rounds: int) -> float:
    """Median over `repeats` of the mean CPU time of `rounds` calls."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(rounds):
            call()
        times.append((time.process_time() - start) / rounds)
    return statistics.median(times)


def gradient_line(workload: Workload) -> tuple[float, float]:
    """Seconds per sample and per push, from two mini-batch sizes."""
    rng = np.random.default_rng(0)
    params = workload.init(0)
    small = workload.spec.training.batch_size
    seconds = []
    for batch in (small, 4 * small):
        drawn = [rng.integers(0, workload.samples, batch) for _ in range(20)]
        queue = deque(drawn)

        def push() -> None:
            workload.loss_and_grad(params, queue[0])  # noqa: B023 (called at once)
            queue.rotate()  # noqa: B023

        rounds = max(5, int(0.05 / max(1e-6, cpu_seconds(push, 3, 5))))
        seconds.append(cpu_seconds(push, 15, rounds))
    per_sample = (seconds[1] - seconds[0]) / (3 * small)
    return per_sample, max(0.0, seconds[0] - per_sample * small)


def imports(package: str) -> tuple[float, float]:
    """Seconds until a worker could start, and its peak memory then, in MB (Linux only).

    A worker imports the package and boto3, and makes its S3 client, before its first event.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", IMPORT.format(package=package)]
    runs = []
    for _ in range(7):
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        runs.append([float(part) for part in output.split()])
    return statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs) / 1024


def cost_section(workload: Workload) -> str:
    """The `[cost]` section of a workload, measured here and now."""
    adapter = workload.spec.model.adapter
    per_sample, per_push = gradient_line(workload)
    params = workload.init(0)
    rounds = max(1, int(0.1 / max(1e-6, cpu_seconds(lambda: workload.evaluate(params), 1, 1))))
    evaluate = cpu_seconds(lambda: workload.evaluate(params), 7, rounds) / len(
        workload.dataset.heldout_labels
    )
    import_s, runtime_mb = imports(WORKER_PACKAGES[adapter])
    version = __import__(WORKER_PACKAGES[adapter]).__version__.partition("+")[0]
    machine = f"{os.cpu_count()}-core {platform.machine().replace('_', '-')} VM, one thread"
    today = datetime.now(tz=UTC).date()
    return "\n".join(
        [
            "[cost]",
            f"seconds_per_sample = {per_sample:.2e}",
            f"seconds_per_push = {per_push:.2e}",
            f"evaluate_seconds_per_sample = {evaluate:.2e}",
            "parallel_fraction = 0.0",
            f"sample_bytes = {workload.spec.cost.sample_bytes}",
            f"import_s = {import_s:.2f}",
            f"runtime_mb = {runtime_mb:.0f}",
            f"package_mb = {PACKAGE_MB[adapter]}",
            'measured = """\\',
            f"    {machine}, {adapter} {version}, {today}, experiments/calibrate_workloads.py; \\",
            '    a vCPU of Lambda at 1,769 MB may differ"""',
        ]
    )


def train(workload: Workload, delay: int, seed: int, max_epochs: int) -> str:
    """One line about SGD whose gradients are `delay` updates old, up to the target loss."""
    training = workload.spec.training
    rng = np.random.default_rng(seed)
    params = workload.init(seed)
    history = deque([params] * (delay + 1), maxlen=delay + 1)
    losses: list[str] = []
    start = time.process_time()
    loss, accuracy = workload.evaluate(params)
    while loss > training.target_loss and len(losses) < max_epochs:
        rate = np.float32(training.rate(len(losses) + 1, training.batch_size))
        order = rng.permutation(len(workload.dataset.train_labels))[: workload.samples]
        for rows in order.reshape(-1, training.batch_size):
            _, gradient = workload.loss_and_grad(history[0], rows)
            params = params - rate * gradient
            history.append(params)
        loss, accuracy = workload.evaluate(params)
        losses.append(f"{loss:.4f}")
        if not np.isfinite(loss):
            break
    seconds = (time.process_time() - start) / max(1, len(losses))
    reached = "reached" if loss <= training.target_loss else "NOT reached"
    return (
        f"{workload.name}: delay {delay}, seed {seed}: "
        f"target {training.target_loss} {reached} after {len(losses)} epochs, "
        f"accuracy {accuracy:.4f}, {seconds:.1f} s an epoch; losses {' '.join(losses)}"
    )


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="workloads (default: all)")
    parser.add_argument("--train", action="store_true", help="train instead of measuring costs")
    parser.add_argument("--delays", type=int, nargs="+", default=[0, 20])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--max-epochs", type=int, default=15)
    arguments = parser.parse_args()
    with threadpool_limits(1), np.errstate(all="ignore"):
        for name in arguments.names or workload_names():
            workload = load_workload(name)
            workload.check()
            print(f"# {workload!r}", flush=True)
            if not arguments.train:
                print(cost_section(workload), flush=True)
                continue
            for delay in arguments.delays:
                for seed in range(arguments.seeds):
                    print(train(workload, delay, seed, arguments.max_epochs), flush=True)


if __name__ == "__main__":
    main()
